//! The shape of a GPT-2 and where each tensor lies among its parameters.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::dice::Dice;
use crate::error::{Error, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    pub n_layers: usize,
    pub d_model: usize,
    pub n_heads: usize,
    pub d_ff: usize,
    /// Longest text, in tokens.
    pub context: usize,
    pub vocabulary: usize,
}

impl Shape {
    pub fn d_head(&self) -> usize {
        self.d_model / self.n_heads
    }

    pub fn check(&self) -> Result<()> {
        let sizes = [self.n_layers, self.d_model, self.n_heads, self.d_ff, self.vocabulary];
        if sizes.contains(&0) || self.context < 8 {
            return Err(Error::setting("shape", format!("{self:?} has a size of 0, or a context under 8 tokens")));
        }
        if !self.d_model.is_multiple_of(self.n_heads) {
            let message = format!("the width {} is no multiple of the {} heads", self.d_model, self.n_heads);
            return Err(Error::setting("heads", message));
        }
        Ok(())
    }
}

/// A tensor of the model, by GPT-2's name for it.
#[derive(Clone, Debug)]
pub struct Tensor {
    pub name: String,
    pub dims: Vec<usize>,
    /// Where it lies in the flat vector of all parameters.
    pub at: Range<usize>,
    start: Start,
}

impl Tensor {
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

/// One layer's ranges. A weight's range is followed by its bias's: `attention_in` spans `c_attn.weight` only, and
/// `attention_in_bias` begins where it ends.
#[derive(Clone, Debug)]
pub struct LayerAt {
    pub ln_1: Affine,
    pub attention_in: Affine,
    pub attention_out: Affine,
    pub ln_2: Affine,
    pub mlp_in: Affine,
    pub mlp_out: Affine,
}

/// A weight and the bias right behind it.
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

/// Every tensor of a shape.
#[derive(Clone, Debug)]
pub struct Layout {
    pub shape: Shape,
    pub tensors: Vec<Tensor>,
    pub wte: Range<usize>,
    pub wpe: Range<usize>,
    pub layers: Vec<LayerAt>,
    pub ln_f: Affine,
    /// Parameters in all.
    pub size: usize,
}

impl Layout {
    pub fn new(shape: Shape) -> Self {
        let (d, ff) = (shape.d_model, shape.d_ff);
        let mut tensors: Vec<Tensor> = Vec::new();
        let mut size = 0;
        let mut add = |name: String, dims: &[usize], start: Start| -> Range<usize> {
            let at = size..size + dims.iter().product::<usize>();
            size = at.end;
            tensors.push(Tensor { name, dims: dims.to_vec(), at: at.clone(), start });
            at
        };
        let wte = add("transformer.wte.weight".into(), &[shape.vocabulary, d], Start::Normal(0.02));
        let wpe = add("transformer.wpe.weight".into(), &[shape.context, d], Start::Normal(0.01));
        // What is added to the residual stream starts smaller the more layers add.
        let small = 0.02 / (2.0 * shape.n_layers as f32).sqrt();
        let layers = (0..shape.n_layers)
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
        Self { shape, tensors, wte, wpe, layers, ln_f, size }
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
