//! Sets one neuron to zero while sampling, with a hook: `Hooks` is what a user of the library implements.
//!
//! `cargo run --release -p tdb-model --example hook_a_neuron -- [FOLDER [PROMPT]]`
//!
//! The neuron is the one that the last token's best logit depends on most, by activation times gradient. The
//! same without code of one's own is an `Intervention`, which needs no hook.

use std::path::PathBuf;

use anyhow::{Context, Result};
use candle_core::Tensor;
use tdb_model::{
    BackwardOptions, Choice, ForwardOptions, Hooks, Pass, Point, Sampler, Seed, Site, Transformer, checkpoint, sample,
};

/// Sets a neuron to zero at every token; everything else passes as it is.
struct Silence {
    layer: usize,
    neuron: usize,
    times: usize,
}

impl Hooks for Silence {
    fn wants(&self, point: Point, pass: Pass) -> bool {
        point == Point { site: Site::MlpPostAct, layer: Some(self.layer) } && pass == Pass::Forward
    }

    fn forward(&mut self, _: Point, activation: &Tensor) -> candle_core::Result<Option<Tensor>> {
        self.times += 1;
        // [T, F]: with the key/value cache, T counts only the tokens that are new in this step.
        let (tokens, neurons) = activation.dims2()?;
        let mut keep = vec![1.0f32; neurons];
        keep[self.neuron] = 0.0;
        let keep = Tensor::from_vec(keep, (1, neurons), activation.device())?;
        activation.mul(&keep.broadcast_as((tokens, neurons))?).map(Some)
    }
}

/// Layer and neuron with the largest activation times gradient at the last token.
fn most_important_neuron(model: &Transformer, tokens: &[u32]) -> Result<(usize, usize, f32)> {
    let run = model.forward(tokens, ForwardOptions::default())?;
    let last = tokens.len() - 1;
    let logits = run.logits(last)?;
    let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).context("no vocabulary")?;
    let mut gradient = vec![0.0; logits.len()];
    gradient[best] = 1.0;
    let options = BackwardOptions { keep: &[Site::MlpPostAct], ..Default::default() };
    let gradients = run.backward(Seed::Logits([(last, gradient)].into()), options)?;
    let mut found = (0, 0, f32::NEG_INFINITY);
    for layer in 0..run.n_layers() {
        let Some(gradient) = gradients.get(Site::MlpPostAct, layer)? else { continue };
        let effects = (run.get(Site::MlpPostAct, layer)?.get(last)? * gradient.get(last)?)?.to_vec1::<f32>()?;
        for (neuron, effect) in effects.into_iter().enumerate() {
            if effect > found.2 {
                found = (layer, neuron, effect);
            }
        }
    }
    Ok(found)
}

fn main() -> Result<()> {
    let embedded = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../datasets/embedded");
    let mut args = std::env::args().skip(1);
    let folder = args.next().map_or_else(embedded, PathBuf::from);
    let prompt = args
        .next()
        .unwrap_or_else(|| "<|endoftext|>When Mary and John went to the store, John gave a drink to".to_owned());
    let checkpoint = checkpoint::open(&folder)?;
    let (model, tokenizer) = (Transformer::load(checkpoint.config, checkpoint.weights)?, checkpoint.tokenizer);
    let tokens = tokenizer.encode(&prompt);
    let (layer, neuron, effect) = most_important_neuron(&model, &tokens)?;
    println!("prompt           {prompt}");
    println!("neuron           {neuron} of layer {layer}, activation times gradient {effect:.3}");
    let continuation = |hooks: Option<&mut dyn Hooks>| -> Result<String> {
        let mut sampler = Sampler::new(Choice::TopP { p: 0.9, temperature: 0.7 }, 1)?;
        let drawn = sample(&model, &tokens, 12, &mut sampler, &[], hooks, &mut |_| true)?;
        Ok(tokenizer.decode(&drawn))
    };
    println!("as it is        {}", continuation(None)?);
    let mut silence = Silence { layer, neuron, times: 0 };
    println!("without neuron  {}", continuation(Some(&mut silence))?);
    println!("the hook was called {} times", silence.times);
    Ok(())
}
