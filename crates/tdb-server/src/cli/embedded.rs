//! The model inside the program, and its autoencoders.

use tdb_model::checkpoint::{self, Checkpoint, CheckpointError};
use tdb_model::{Config, NamedAutoencoder};

/// Its name.
pub const NAME: &str = "embedded";
/// Its autoencoder on the output of the MLP layers.
pub const MLP_AUTOENCODER: &str = "sae-resid-delta-mlp";
/// Its autoencoder on the output of the attention layers.
pub const ATTN_AUTOENCODER: &str = "sae-resid-delta-attn";

macro_rules! file {
    ($file:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../datasets/embedded/", $file))
    };
}

/// # Errors
/// If the files that the program was built with are not what they should be.
pub fn model() -> Result<Checkpoint, CheckpointError> {
    checkpoint::native::from_bytes(NAME, file!("config.json"), file!("model.safetensors"), file!("tokenizer.json"))
}

/// One of its autoencoders; `None` if it has none of that name.
///
/// # Errors
/// As [`model`].
pub fn autoencoder(name: &str, config: &Config) -> Result<Option<NamedAutoencoder>, CheckpointError> {
    let files: [&'static [u8]; 4] = match name {
        MLP_AUTOENCODER => [
            file!("autoencoders/sae-resid-delta-mlp/0.safetensors"),
            file!("autoencoders/sae-resid-delta-mlp/1.safetensors"),
            file!("autoencoders/sae-resid-delta-mlp/2.safetensors"),
            file!("autoencoders/sae-resid-delta-mlp/3.safetensors"),
        ],
        ATTN_AUTOENCODER => [
            file!("autoencoders/sae-resid-delta-attn/0.safetensors"),
            file!("autoencoders/sae-resid-delta-attn/1.safetensors"),
            file!("autoencoders/sae-resid-delta-attn/2.safetensors"),
            file!("autoencoders/sae-resid-delta-attn/3.safetensors"),
        ],
        _ => return Ok(None),
    };
    checkpoint::native::autoencoder_from_bytes(name, &files, config).map(Some)
}
