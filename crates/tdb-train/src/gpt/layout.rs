//! Where each tensor of a GPT-2 lies among its parameters.

use std::ops::Range;

use tdb_model::Config;

use crate::dice::Dice;
use crate::error::{Error, Result};

/// A tensor of the model, by GPT-2's name for it.
#[derive(Clone, Debug)]
pub struct Parameter {
    pub name: String,
    pub dims: Vec<usize>,
    /// Where it lies in the flat vector of all parameters.
    pub at: Range<usize>,
    start: Start,
}

impl Parameter {
    /// Matrices decay; gains, biases and positions do not.
    pub fn decays(&self) -> bool {
        matches!(self.start, Start::Normal(_)) && !self.name.ends_with("wpe.weight")
    }
}

#[derive(Clone, Copy, Debug)]
enum Start {
    Zero,
    One,
    Normal(f32),
}

/// One layer's ranges.
#[derive(Clone, Debug)]
pub struct LayerAt {
    pub ln_1: Affine,
    pub attention_in: Affine,
    pub attention_out: Affine,
    pub ln_2: Affine,
    pub mlp_in: Affine,
    pub mlp_out: Affine,
}

/// A weight, `[in, out]` of linear layers, and the bias right behind it.
#[derive(Clone, Debug)]
pub struct Affine {
    pub weight: Range<usize>,
    pub bias: Range<usize>,
}

impl Affine {
    /// Both together.
    pub fn all(&self) -> Range<usize> {
        self.weight.start..self.bias.end
    }
}

/// Every tensor of a model.
#[derive(Clone, Debug)]
pub struct Layout {
    pub config: Config,
    pub tensors: Vec<Parameter>,
    pub wte: Range<usize>,
    pub wpe: Range<usize>,
    pub layers: Vec<LayerAt>,
    pub ln_f: Affine,
    /// Parameters in all.
    pub size: usize,
}

impl Layout {
    /// Of a model with a [`Config::gpt2`].
    ///
    /// # Errors
    /// If a size is 0, the context under 8 tokens, the width no multiple of the heads, or a setting not GPT-2's.
    pub fn new(config: Config) -> Result<Self> {
        check(&config)?;
        let (d, ff) = (config.d_model, config.d_ff);
        let mut tensors: Vec<Parameter> = Vec::new();
        let mut size = 0;
        let mut add = |name: String, dims: &[usize], start: Start| -> Range<usize> {
            let at = size..size + dims.iter().product::<usize>();
            size = at.end;
            tensors.push(Parameter { name, dims: dims.to_vec(), at: at.clone(), start });
            at
        };
        let wte = add("transformer.wte.weight".into(), &[config.n_vocab, d], Start::Normal(0.02));
        let wpe = add("transformer.wpe.weight".into(), &[config.ctx_window, d], Start::Normal(0.01));
        // What is added to the residual stream starts smaller the more layers add.
        let small = 0.02 / (2.0 * config.n_layers as f32).sqrt();
        let layers = (0..config.n_layers)
            .map(|layer| {
                let mut affine = |name: &str, weight: &[usize], bias: usize, start: Start| {
                    let name = format!("transformer.h.{layer}.{name}");
                    let weight = add(format!("{name}.weight"), weight, start);
                    Affine { weight, bias: add(format!("{name}.bias"), &[bias], Start::Zero) }
                };
                LayerAt {
                    ln_1: affine("ln_1", &[d], d, Start::One),
                    attention_in: affine("attn.c_attn", &[d, 3 * d], 3 * d, Start::Normal(0.02)),
                    attention_out: affine("attn.c_proj", &[d, d], d, Start::Normal(small)),
                    ln_2: affine("ln_2", &[d], d, Start::One),
                    mlp_in: affine("mlp.c_fc", &[d, ff], ff, Start::Normal(0.02)),
                    mlp_out: affine("mlp.c_proj", &[ff, d], d, Start::Normal(small)),
                }
            })
            .collect();
        let ln_f = Affine {
            weight: add("transformer.ln_f.weight".into(), &[d], Start::One),
            bias: add("transformer.ln_f.bias".into(), &[d], Start::Zero),
        };
        Ok(Self { config, tensors, wte, wpe, layers, ln_f, size })
    }

    /// The parameters that training starts from.
    pub fn initial(&self, seed: u64) -> Vec<f32> {
        let mut parameters = Vec::with_capacity(self.size);
        for (index, tensor) in self.tensors.iter().enumerate() {
            let mut dice = Dice::new(&[seed, 0x1217, index as u64]);
            parameters.extend(tensor.at.clone().map(|_| match tensor.start {
                Start::Zero => 0.0,
                Start::One => 1.0,
                Start::Normal(deviation) => dice.normal() * deviation,
            }));
        }
        parameters
    }
}

fn check(config: &Config) -> Result<()> {
    let Config { n_layers, d_model, n_heads, d_ff, ctx_window, n_vocab, .. } = *config;
    if [n_layers, d_model, n_heads, d_ff, n_vocab].contains(&0) || ctx_window < 8 {
        let sizes =
            format!("{n_layers} layers of width {d_model}, {n_heads} heads, {d_ff} neurons, context {ctx_window}");
        let message = format!("{sizes}, vocabulary {n_vocab}: a size is 0, or the context is under 8 tokens");
        return Err(Error::setting("shape", message));
    }
    if !d_model.is_multiple_of(n_heads) {
        let message = format!("the width {d_model} is no multiple of the {n_heads} heads");
        return Err(Error::setting("heads", message));
    }
    if *config != Config::gpt2(n_layers, d_model, n_heads, d_ff, ctx_window, n_vocab) {
        return Err(Error::setting("config", format!("only models with GPT-2's settings are trained, not {config:?}")));
    }
    Ok(())
}
