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
use tdb_model::kernels::dot;
use tdb_model::{
    BackwardOptions, ForwardOptions, Index, Intervention, Matrix, Pass, Seed, Site, Transformer, checkpoint,
};

/// `Σ_out weight[out, col] gradient[out]` for each column: what one unit of each input writes along the gradient.
fn along(weight: &Matrix, gradient: &[f32]) -> Vec<f32> {
    (0..weight.cols()).map(|col| dot(&weight.transpose().row(col), gradient)).collect()
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
    let (model, tokenizer) = (Transformer::new(checkpoint.weights), checkpoint.tokenizer);
    let (target, distractor) =
        (tokenizer.single_token(&target)? as usize, tokenizer.single_token(&distractor)? as usize);
    let tokens = tokenizer.encode(&prompt);
    let options = ForwardOptions::default();
    let forward = tdb_model::forward(&model, &tokens, options)?;
    let last = tokens.len() - 1;
    let logits = forward.logits(&model, last);

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
    let gradients = tdb_model::backward(&model, &forward, Seed::Logits([(last, seed)].into()), options)?;
    let (weights, config) = (model.weights(), model.config());
    let gradient = gradients.get(Site::ResidPostMlp, Some(config.n_layers - 1)).context("no layers")?.row(last);
    let at_unembedding = gradients.get(Site::PostFinalLn, None).context("no gradient")?.row(last);

    let embedding = dot(forward.post_emb.row(last), gradient);
    let mut constants = dot(&weights.ln_f.bias, at_unembedding);
    let mut sum = embedding;
    println!("{:>10}  {:>10}  {:>10}", "layer", "heads", "neurons");
    println!("{:>10}  {embedding:10.4}", "embedding");
    for (i, (layer, state)) in weights.layers.iter().zip(&forward.layers).enumerate() {
        // [H E] and [F]: values weighted by attention, and neurons, each times what it writes.
        let heads = dot(state.attn.v_out.row(last), &along(&layer.out.weight, gradient));
        let neurons = dot(state.mlp.post_act.row(last), &along(&layer.mlp_out.weight, gradient));
        constants += dot(&layer.out.bias, gradient) + dot(&layer.mlp_out.bias, gradient);
        sum += heads + neurons;
        println!("{i:>10}  {heads:10.4}  {neurons:10.4}");
    }
    let difference = logits[target] - logits[distractor];
    println!("constants {constants:11.4}\nsum {:17.4}\nlogit difference {difference:.4}", sum + constants);
    let rest = (sum + constants - difference).abs();
    ensure!(rest <= 1e-3 * difference.abs().max(1.0), "a rest of {rest} is left");
    Ok(())
}
