//! The model and the autoencoders that the repository holds.

#![allow(clippy::unwrap_used)] // functions that tests call, too

use std::path::PathBuf;

use tdb_model::{Autoencoder, Tokenizer, Transformer, checkpoint};
use tdb_train::dice::Dice;
use tdb_train::grammar::{Split, Task, document};
use tdb_train::{EvalOptions, bpe, evaluate, sae};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../datasets/embedded")
}

fn transformer() -> (Transformer, Tokenizer) {
    let checkpoint = checkpoint::open(&folder()).unwrap();
    (Transformer::load(checkpoint.config, checkpoint.weights).unwrap(), checkpoint.tokenizer)
}

#[test]
fn it_answers_prompts_that_it_never_read() {
    let (model, tokenizer) = transformer();
    let report = evaluate(&model, &tokenizer, &EvalOptions { prompts: 150, seed: 77 }).unwrap();
    assert!(report.passed(), "{}", report.table());
}

#[test]
fn the_debugger_cuts_text_into_the_tokens_that_were_trained() {
    let (_, tokenizer) = transformer();
    let trained = tokenizers::Tokenizer::from_file(folder().join("tokenizer.json")).unwrap();
    for task in Task::ALL {
        for seed in 0..4 {
            let text = task.item(&mut Dice::new(&[seed]), Split::Train).text();
            let text = if seed % 2 == 0 { format!("<|endoftext|>{text}") } else { text };
            assert_eq!(bpe::encode(&trained, &text).unwrap(), tokenizer.encode(&text), "{text}");
        }
    }
}

#[test]
fn autoencoders_reconstruct_and_most_latents_live() {
    let (model, tokenizer) = transformer();
    let texts: Vec<Vec<u32>> =
        (0..60).map(|index| tokenizer.encode(&format!("<|endoftext|>{}", document(99, index)))).collect();
    let texts: Vec<Vec<u32>> = texts
        .into_iter()
        .map(|mut tokens| {
            tokens.truncate(model.config().ctx_window);
            tokens
        })
        .collect();
    for name in ["sae-resid-delta-mlp", "sae-resid-delta-attn", "sae-resid-post-mlp", "mlp-transcoder"] {
        let found =
            checkpoint::open_autoencoder(&folder().join("autoencoders").join(name), None, model.config()).unwrap();
        assert_eq!(found.layers.len(), model.config().n_layers);
        for (layer, weights) in found.layers.into_iter().enumerate() {
            let autoencoder = Autoencoder::new(found.site, weights).unwrap();
            let quality = sae::quality(&model, layer, &autoencoder, &texts).unwrap();
            assert!(quality.variance_explained > 0.85, "{name}: {quality:?}");
            assert!(quality.loss_recovered.unwrap() > 0.85, "{name}: {quality:?}");
            assert!(quality.latents_per_token <= 16.0, "{name}: {quality:?}");
            assert!(quality.dead < 0.5, "{name}: {quality:?}");
        }
    }
}
