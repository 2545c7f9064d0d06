//! The model and the autoencoders that the repository holds.

#![allow(clippy::unwrap_used)] // functions that tests call, too

use std::path::PathBuf;

use tdb_model::{Autoencoder, Tokenizer, Transformer, checkpoint};
use tdb_train::dice::Dice;
use tdb_train::eval::{Predictor, evaluate_with};
use tdb_train::grammar::{Split, Task, document};
use tdb_train::{EvalOptions, Model, bpe, evaluate, sae};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../datasets/embedded")
}

fn transformer() -> (Transformer, Tokenizer) {
    let checkpoint = checkpoint::open(&folder()).unwrap();
    (Transformer::new(checkpoint.weights), checkpoint.tokenizer)
}

#[test]
fn it_answers_prompts_that_it_never_read() {
    let (model, tokenizer) = transformer();
    let report = evaluate(&model, &tokenizer, &EvalOptions { prompts: 150, seed: 77 }).unwrap();
    assert!(report.passed(), "{}", report.table());
}

#[test]
fn the_debugger_computes_the_same_answers() {
    let model = Model::read(&folder()).unwrap();
    let (transformer, tokenizer) = transformer();
    let mut texts = Vec::new();
    for task in Task::ALL {
        for seed in 0..4 {
            let text = task.item(&mut Dice::new(&[seed]), Split::Train).text();
            let text = if seed % 2 == 0 { format!("<|endoftext|>{text}") } else { text };
            let tokens = bpe::encode(&model.tokenizer, &text).unwrap();
            assert_eq!(tokens, tokenizer.encode(&text), "{text}");
            texts.push(tokens);
        }
    }
    let ours = (&model).last_logits(&texts).unwrap();
    for (ours, theirs) in ours.iter().zip((&transformer).last_logits(&texts).unwrap()) {
        for (a, b) in ours.iter().zip(&theirs) {
            assert!((a - b).abs() < 1e-4 + 1e-4 * b.abs(), "{a} {b}");
        }
    }
    let options = EvalOptions { prompts: 40, seed: 5 };
    let theirs = evaluate(&transformer, &tokenizer, &options).unwrap();
    let ours = evaluate_with(&mut &model, &tokenizer, &options).unwrap();
    for (a, b) in ours.tasks.iter().zip(&theirs.tasks) {
        assert_eq!((a.best_candidate, a.most_likely), (b.best_candidate, b.most_likely), "{}", a.task);
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
    for name in ["sae-resid-delta-mlp", "sae-resid-delta-attn"] {
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
