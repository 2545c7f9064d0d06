//! A small model with autoencoders.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tdb_model::{Tokenizer, Transformer, checkpoint};
use tdb_scalars::Engine;
use tdb_testkit::checkpoint::{Parts, write};
use tdb_testkit::presets::preset;

#[allow(dead_code, reason = "not every test asks with it")]
pub const PROMPT: &str = "<|endoftext|>Paris, France. Ottawa,";

fn folder() -> Result<PathBuf> {
    let weights = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/oracle-weights");
    write(&preset("tiny-a").context("no preset")?, &weights, Parts::ModelAndAutoencoders)
}

/// `tiny-a` without autoencoders.
#[allow(dead_code, reason = "every test file uses its own part of this")]
pub fn model() -> Result<Transformer> {
    let checkpoint = checkpoint::open(&folder()?)?;
    Ok(Transformer::load(checkpoint.config, checkpoint.weights)?)
}

/// `tiny-a`: 2 layers of width 64 with 4 heads and 256 neurons, with these of its autoencoders.
#[allow(dead_code, reason = "every test file uses its own part of this")]
pub fn engine(mlp: Option<&str>, attn: Option<&str>) -> Result<Engine> {
    let folder = folder()?;
    let checkpoint = checkpoint::open(&folder)?;
    let config = checkpoint.config.clone();
    let mut model = Transformer::load(checkpoint.config, checkpoint.weights)?;
    for name in [mlp, attn].into_iter().flatten() {
        let autoencoder = folder.join("autoencoders").join(name);
        model = model.attach(checkpoint::open_autoencoder(&autoencoder, None, &config)?)?;
    }
    Ok(Engine::new("tiny-a", model, Tokenizer::gpt2(), mlp.map(str::to_owned), attn.map(str::to_owned)))
}
