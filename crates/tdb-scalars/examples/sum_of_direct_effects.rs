//! The direct effects of all components, with the constants, are the logit difference.
//!
//! `cargo run --release -p tdb-scalars --example sum_of_direct_effects -- [FOLDER [PROMPT TARGET DISTRACTOR]]`
//!
//! With the final layer norm's scale taken as it is, a logit difference is a linear function of the last
//! residual stream, and that is the sum of what every component wrote. Its gradient therefore splits the
//! difference among embeddings, heads, neurons and biases without a rest. The program ends with an error if
//! a rest is left.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use candle_core::Tensor;
use tdb_model::{BackwardOptions, ForwardOptions, Index, Intervention, Pass, Seed, Site, Transformer, checkpoint};

/// The inner product of two tensors' rows for one token.
fn dot(a: &Tensor, b: &Tensor, token: usize) -> Result<f32> {
    Ok((a.get(token)? * b.get(token)?)?.sum_all()?.to_scalar()?)
}

fn main() -> Result<()> {
    let embedded = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../datasets/embedded");
    let mut args = std::env::args().skip(1);
    let folder = args.next().map_or_else(embedded, PathBuf::from);
    let prompt = args
        .next()
        .unwrap_or_else(|| "<|endoftext|>When Mary and John went to the store, John gave a drink to".to_owned());
    let (target, distractor) = (args.next().unwrap_or(" Mary".to_owned()), args.next().unwrap_or(" John".to_owned()));
    let checkpoint = checkpoint::open(&folder)?;
    let tokenizer = checkpoint.tokenizer;
    let model = Transformer::load(checkpoint.config, checkpoint.weights)?;
    let (target, distractor) =
        (tokenizer.single_token(&target)? as usize, tokenizer.single_token(&distractor)? as usize);
    let tokens = tokenizer.encode(&prompt);
    let run = model.forward(&tokens, ForwardOptions::default())?;
    let last = tokens.len() - 1;
    let logits = run.logits(last)?;

    // The gradient at the last residual stream, with nothing flowing through the layer norm's scale.
    let mut seed = vec![0.0; logits.len()];
    (seed[target], seed[distractor]) = (1.0, -1.0);
    let frozen = Intervention {
        site: Site::FinalLnScale,
        layer: None,
        pass: Pass::Backward,
        indices: vec![Index::All, Index::All],
        value: 0.0,
    };
    let options = BackwardOptions {
        interventions: &[frozen],
        keep: &[Site::ResidPostMlp, Site::PostFinalLn],
        ..Default::default()
    };
    let gradients = run.backward(Seed::Logits([(last, seed)].into()), options)?;
    let gradient = gradients.get(Site::ResidPostMlp, run.n_layers() - 1)?.context("no layers")?;
    let at_unembedding = gradients.get(Site::PostFinalLn, None)?.context("no gradient")?;

    // What no component writes: the biases.
    let bias = |name: &str, gradient: &Tensor| -> Result<f32> {
        Ok((model.weight(name)? * gradient.get(last)?)?.sum_all()?.to_scalar()?)
    };
    let mut constants = bias("final_norm.bias", &at_unembedding)?;
    let mut sum = dot(&run.get(Site::ResidPostEmb, None)?, &gradient, last)?;
    println!("{:>10}  {:>10}  {:>10}", "layer", "heads", "neurons");
    println!("{:>10}  {sum:10.4}", "embedding");
    for layer in 0..run.n_layers() {
        let block = model.block(layer);
        // Values weighted by attention, and neurons, each times what it writes along the gradient.
        let along = block.attn.write_vjp(&gradient)?;
        let heads = dot(&run.get(Site::AttnVOut, layer)?, &along, last)?;
        let neurons = dot(&run.get(Site::MlpPostAct, layer)?, &block.mlp().write_vjp(&gradient)?, last)?;
        constants += bias(&format!("blocks.{layer}.attn.o.bias"), &gradient)?;
        constants += bias(&format!("blocks.{layer}.mlp.out.bias"), &gradient)?;
        sum += heads + neurons;
        println!("{layer:>10}  {heads:10.4}  {neurons:10.4}");
    }
    let difference = logits[target] - logits[distractor];
    println!("constants {constants:11.4}\nsum {:17.4}\nlogit difference {difference:.4}", sum + constants);
    let rest = (sum + constants - difference).abs();
    ensure!(rest <= 1e-3 * difference.abs().max(1.0), "a rest of {rest} is left");
    Ok(())
}
