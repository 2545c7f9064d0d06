//! Collects activations over some prompts and encodes them with a sparse autoencoder.
//!
//! `cargo run --release -p tdb-model --example collect_and_encode -- [FOLDER [AUTOENCODER]]`
//!
//! Only the layers up to the one that is read are run, and nothing but the autoencoder's input is kept.

use std::path::PathBuf;

use anyhow::{Context, Result};
use tdb_model::{Autoencoder, ForwardOptions, Numbers, Site, Tensor, Transformer, checkpoint};

const PROMPTS: [&str; 4] = [
    "<|endoftext|>When Mary and John went to the store, John gave a drink to Mary.",
    "<|endoftext|>Paris, France. Ottawa, Canada",
    "<|endoftext|>The keys near the table are",
    "<|endoftext|>Say: lamp tree king, lamp tree king",
];
const LAYER: usize = 1;

fn main() -> Result<()> {
    let embedded = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../datasets/embedded");
    let mut args = std::env::args().skip(1);
    let folder = args.next().map_or_else(embedded, PathBuf::from);
    let name = args.next().unwrap_or_else(|| "sae-resid-delta-mlp".to_owned());
    let checkpoint = checkpoint::open(&folder)?;
    let (model, tokenizer) = (Transformer::load(checkpoint.config, checkpoint.weights)?, checkpoint.tokenizer);
    let path = folder.join("autoencoders").join(&name);
    let named = checkpoint::open_autoencoder(&path, None, model.config())?;
    let site = named.site;
    let at = named.indices.iter().position(|layer| *layer == LAYER).context("the autoencoder has no such layer")?;
    let weights = named.layers[at].clone();
    let autoencoder = Autoencoder::new(site, weights)?;

    // Collect: one row per token.
    let read = match site.reads() {
        Site::ResidLatentInput => Site::ResidPostMlp,
        read => read,
    };
    let (mut parts, mut tokens) = (Vec::new(), Vec::new());
    for prompt in PROMPTS {
        let ids = tokenizer.encode(prompt);
        let run = model.forward(&ids, ForwardOptions { layers: Some(LAYER + 1), ..Default::default() })?;
        parts.push(run.get(read, LAYER)?);
        tokens.extend(ids);
    }
    let rows = Tensor::cat(&parts, 0)?;

    // Encode, and measure what is lost.
    let latents = autoencoder.encode(&rows)?;
    let error = (&rows - autoencoder.decode(&latents, &rows)?)?;
    let square = |x: &Tensor| -> Result<f64> { Ok(Numbers::of(x)?.data().iter().map(|x| f64::from(*x).powi(2)).sum()) };
    let active: usize = latents.rows().iter().map(Vec::len).sum();
    println!("{} tokens, {} latents of layer {LAYER} in {name}", tokens.len(), autoencoder.n_latents());
    println!("active per token     {:.1}", active as f64 / tokens.len() as f64);
    println!("energy not rebuilt   {:.1} %", 100.0 * square(&error)? / square(&rows)?);

    println!("\nlatent  activation  token (with the one before)");
    let all = latents.rows().iter().enumerate().flat_map(|(t, row)| row.iter().map(move |&(i, x)| (i, x, t)));
    let mut strongest: Vec<(u32, f32, usize)> = all.collect();
    strongest.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.2.cmp(&b.2)));
    for (latent, activation, t) in strongest.into_iter().take(10) {
        let before = t.checked_sub(1).map_or(String::new(), |t| tokenizer.decode_token(tokens[t]));
        println!("{latent:6}  {activation:10.3}  {before}[{}]", tokenizer.decode_token(tokens[t]));
    }
    Ok(())
}
