//! Autoencoders that SAELens itself wrote, beside what it answered with them. `fixtures/sae-lens/make.py` made both.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

use std::path::{Path, PathBuf};

use serde::Deserialize;
use tdb_model::checkpoint::{self, sae_lens};
use tdb_model::numbers::tensor;
use tdb_model::{Autoencoder, Config, Numbers};

fn tiny() -> Config {
    Config::gpt2(1, 8, 2, 16, 16, 32)
}

#[derive(Deserialize)]
struct Answers {
    sae_lens: String,
    inputs: Vec<Vec<f32>>,
    latents: Vec<Vec<f32>>,
    outputs: Vec<Vec<f32>>,
}

fn folders() -> Vec<PathBuf> {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/sae-lens");
    let entries = std::fs::read_dir(all).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.join("answers.json").exists()).collect()
}

fn agree(folder: &Path, answers: &Answers) {
    let found = checkpoint::open_autoencoder(folder, None, &tiny()).unwrap();
    let what = folder.display();
    let autoencoder = Autoencoder::new(found.site, found.layers[0].clone()).unwrap();
    let inputs = tensor(&[answers.inputs.len(), autoencoder.n_inputs()], answers.inputs.concat());
    let latents = autoencoder.encode(&inputs).unwrap();
    let outputs = autoencoder.decode(&latents, &inputs).unwrap();
    let near = |a: &[f32], b: &[f32]| {
        assert!(a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 2e-6), "{what}: {a:?} {b:?}");
    };
    for (row, want) in answers.latents.iter().enumerate() {
        let mut dense = vec![0.0; want.len()];
        latents.row(row).iter().for_each(|&(latent, value)| dense[latent as usize] = value);
        near(&dense, want);
    }
    near(Numbers::of(&outputs).unwrap().data(), &answers.outputs.concat());
}

#[test]
fn what_sae_lens_wrote_answers_here_as_there() {
    let folders = folders();
    assert_eq!(folders.len(), 7);
    for folder in folders {
        let answers: Answers = serde_json::from_slice(&std::fs::read(folder.join("answers.json")).unwrap()).unwrap();
        assert!(answers.sae_lens.starts_with("6."));
        agree(&folder, &answers);
        // And it stays the same when it is written in the other direction.
        let again = tempfile::tempdir().unwrap();
        let found = checkpoint::open_autoencoder(&folder, None, &tiny()).unwrap();
        sae_lens::save_autoencoder(again.path(), &found, "tiny").unwrap();
        agree(again.path(), &answers);
    }
}
