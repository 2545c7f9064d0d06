//! The model that comes with the program.

use std::path::{Path, PathBuf};

use anyhow::Result;
use tdb_model::{Transformer, checkpoint};
use tdb_scalars::Engine;

/// With both of its autoencoders, if asked for.
pub fn embedded(with_autoencoders: bool) -> Result<Engine> {
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../datasets/embedded");
    let found = checkpoint::open(&folder)?;
    let config = found.config.clone();
    let mut model = Transformer::load(found.config, found.weights)?;
    if with_autoencoders {
        for name in ["sae-resid-delta-mlp", "sae-resid-delta-attn"] {
            let folder = folder.join("autoencoders").join(name);
            model = model.attach(checkpoint::open_autoencoder(&folder, None, &config)?)?;
        }
    }
    let name = |name: &str| with_autoencoders.then(|| name.to_owned());
    Ok(Engine::new("embedded", model, found.tokenizer, name("mlp"), name("attn")))
}
