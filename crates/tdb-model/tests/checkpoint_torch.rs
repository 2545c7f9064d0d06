//! Files that PyTorch wrote: see `fixtures/torch/README.md`.

#![allow(clippy::unwrap_used)] // also in the helpers of tests

use std::fs;
use std::path::Path;

use tdb_model::checkpoint::{self, CheckpointError};
use tdb_model::{AutoencoderSite, AutoencoderWeights, Config, LatentActivation};

fn read(name: &str) -> Result<AutoencoderWeights, CheckpointError> {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/torch").join(name);
    let folder = tempfile::tempdir().unwrap();
    fs::copy(fixture, folder.path().join("0.pt")).unwrap();
    let config = Config::gpt2(1, 4, 1, 8, 4, 16);
    let mut read = checkpoint::open_autoencoder(folder.path(), Some(AutoencoderSite::ResidDeltaAttn), &config)?;
    Ok(read.layers.remove(0))
}

fn numbers(range: std::ops::Range<usize>, unit: f32) -> Vec<f32> {
    range.map(|i| i as f32 / unit).collect()
}

#[test]
fn the_state_dict_of_a_module() {
    let layer = read("torch-1.13-state-dict.pt").unwrap();
    assert_eq!(layer.encoder_pre_bias, numbers(0..4, 8.0));
    assert_eq!(layer.latent_bias, [0.0, -0.25, -0.5]);
    assert_eq!(layer.encoder.to_vec(), numbers(0..12, 16.0));
    assert_eq!(layer.decoder.transpose().to_vec(), numbers(0..12, 32.0));
    assert_eq!(layer.decoder.row_stride(), 1, "stored transposed, read as a view");
    assert_eq!(layer.activation, LatentActivation::TopK { k: 2, relu: true });
    assert_eq!(layer.activation_frequency, Some(vec![0.5; 3]));
}

#[test]
fn views_of_one_storage_of_half_precision() {
    for name in ["torch-1.13-views.pt", "torch-1.13-views-protocol-4.pt"] {
        let layer = read(name).unwrap();
        assert_eq!(layer.encoder_pre_bias, numbers(4..8, 16.0));
        assert_eq!(layer.latent_bias, [1.0 / 16.0, 3.0 / 16.0, 5.0 / 16.0]);
        assert_eq!(layer.encoder.to_vec(), numbers(8..20, 16.0));
        assert_eq!(layer.decoder.transpose().to_vec(), numbers(20..32, 16.0));
        assert_eq!(layer.activation, LatentActivation::Identity);
        assert_eq!(layer.activation_frequency, None);
    }
}

#[test]
fn the_format_before_1_6_is_refused() {
    let text = read("torch-1.13-legacy.pt").unwrap_err().to_string();
    assert!(text.contains("0.pt") && text.contains("before 1.6"), "{text}");
}
