//! The model inside the program, its autoencoders, and the records and explanations of its units.

use std::io::Read;

use bytes::Bytes;
use flate2::read::GzDecoder;
use tdb_model::checkpoint::{self, Checkpoint, CheckpointError};
use tdb_model::{Config, NamedAutoencoder};

/// Its name.
pub const NAME: &str = "embedded";
/// Its autoencoder on the output of the MLP layers.
pub const MLP_AUTOENCODER: &str = "sae-resid-delta-mlp";
/// Its autoencoder on the output of the attention layers.
pub const ATTN_AUTOENCODER: &str = "sae-resid-delta-attn";
/// Its dictionary on the residual stream, which is loaded where it is asked for.
const RESIDUAL_AUTOENCODER: &str = "sae-resid-post-mlp";
/// Its transcoder of the MLP layers, likewise.
const TRANSCODER: &str = "mlp-transcoder";

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
        RESIDUAL_AUTOENCODER => [
            file!("autoencoders/sae-resid-post-mlp/0.safetensors"),
            file!("autoencoders/sae-resid-post-mlp/1.safetensors"),
            file!("autoencoders/sae-resid-post-mlp/2.safetensors"),
            file!("autoencoders/sae-resid-post-mlp/3.safetensors"),
        ],
        TRANSCODER => [
            file!("autoencoders/mlp-transcoder/0.safetensors"),
            file!("autoencoders/mlp-transcoder/1.safetensors"),
            file!("autoencoders/mlp-transcoder/2.safetensors"),
            file!("autoencoders/mlp-transcoder/3.safetensors"),
        ],
        _ => return Ok(None),
    };
    checkpoint::native::autoencoder_from_bytes(name, &files, config).map(Some)
}

/// The registry's entries for what [`file`] holds.
pub const REGISTRY: &str = include_str!("../../../../datasets/embedded/registry.toml");

macro_rules! files {
    ($($name:literal)*) => {
        &[$(($name, file!($name))),*]
    };
}

/// A file of records or explanations, by the path after `embedded:`.
pub fn file(path: &str) -> Option<Bytes> {
    const FILES: &[(&str, &[u8])] = files!(
        "records/0.records"
        "records/1.records"
        "records/2.records"
        "records/3.records"
        "dictionaries/records/0.records"
        "dictionaries/records/1.records"
        "dictionaries/records/2.records"
        "dictionaries/records/3.records"
        "dictionaries/explanations/residual_autoencoder_latent/0.jsonl.gz"
        "dictionaries/explanations/residual_autoencoder_latent/1.jsonl.gz"
        "dictionaries/explanations/residual_autoencoder_latent/2.jsonl.gz"
        "dictionaries/explanations/residual_autoencoder_latent/3.jsonl.gz"
        "dictionaries/explanations/mlp_autoencoder_latent/0.jsonl.gz"
        "dictionaries/explanations/mlp_autoencoder_latent/1.jsonl.gz"
        "dictionaries/explanations/mlp_autoencoder_latent/2.jsonl.gz"
        "dictionaries/explanations/mlp_autoencoder_latent/3.jsonl.gz"
        "explanations/mlp_post_act/0.jsonl.gz"
        "explanations/mlp_post_act/1.jsonl.gz"
        "explanations/mlp_post_act/2.jsonl.gz"
        "explanations/mlp_post_act/3.jsonl.gz"
        "explanations/attn_write_norm/0.jsonl.gz"
        "explanations/attn_write_norm/1.jsonl.gz"
        "explanations/attn_write_norm/2.jsonl.gz"
        "explanations/attn_write_norm/3.jsonl.gz"
        "explanations/mlp_autoencoder_latent/0.jsonl.gz"
        "explanations/mlp_autoencoder_latent/1.jsonl.gz"
        "explanations/mlp_autoencoder_latent/2.jsonl.gz"
        "explanations/mlp_autoencoder_latent/3.jsonl.gz"
        "explanations/attention_autoencoder_latent/0.jsonl.gz"
        "explanations/attention_autoencoder_latent/1.jsonl.gz"
        "explanations/attention_autoencoder_latent/2.jsonl.gz"
        "explanations/attention_autoencoder_latent/3.jsonl.gz"
        "explanations/flattened_attn_write_to_latent_summed_over_heads/0.jsonl.gz"
        "explanations/flattened_attn_write_to_latent_summed_over_heads/1.jsonl.gz"
        "explanations/flattened_attn_write_to_latent_summed_over_heads/2.jsonl.gz"
        "explanations/flattened_attn_write_to_latent_summed_over_heads/3.jsonl.gz"
    );
    let find = |path: &str| FILES.iter().find(|(name, _)| *name == path).map(|(_, bytes)| *bytes);
    find(path).map(Bytes::from_static).or_else(|| unpacked(find(&format!("{path}.gz"))?))
}

/// Explanations are packed in the program: they are a twelfth as large then.
fn unpacked(packed: &[u8]) -> Option<Bytes> {
    let mut bytes = Vec::new();
    GzDecoder::new(packed).read_to_end(&mut bytes).ok()?;
    Some(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tdb_data::{FetchConfig, Fetcher, Library, Registry};

    #[tokio::test]
    async fn every_set_has_records_and_explanations_in_every_layer() {
        let registry = Registry::parse("the embedded registry", REGISTRY).unwrap();
        let config = FetchConfig { embedded: file, offline: true, ..FetchConfig::from_env().unwrap() };
        let fetcher = Fetcher::new(config, &registry);
        let library = Library::new(registry, fetcher, std::env::temp_dir().join("tdb-no-such-folder"));
        let sets = library.registry().records.clone();
        assert_eq!(sets.len(), 7);
        for set in sets {
            for layer in 0..4 {
                let found = library.record_in(&set, layer, 3).await.unwrap();
                assert_eq!((found.record.layer, found.record.index), (layer, 3));
                let explained = library.explanations(&set, layer, 3).await.unwrap();
                assert_eq!((explained.len(), explained[0].1.index), (1, 3));
                let by_place = library.registry().records_for(&set.location, &set.scalar).unwrap();
                assert_eq!(by_place, &set);
            }
            assert!(library.record_in(&set, 4, 0).await.is_err_and(|e| e.is_not_found()));
        }
    }
}
