//! The model and the autoencoders that the repository holds.

#![allow(clippy::unwrap_used)] // functions that tests call, too

use std::path::PathBuf;

use tdb_model::{Autoencoder, ForwardOptions, Tokenizer, Transformer, checkpoint};
use tdb_train::dice::Dice;
use tdb_train::grammar::{Split, Task, document, words};
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
fn every_token_is_the_token_of_its_own_text() {
    let (model, tokenizer) = transformer();
    for token in 0..model.config().n_vocab as u32 {
        let text = tokenizer.decode_token(token);
        // Tokens of parts of a character have no text of their own.
        if !text.contains('\u{fffd}') {
            assert_eq!(tokenizer.encode(&text), [token], "{text}");
        }
    }
    for (text, count) in [(" danced", 1), (" dance", 1), (" danceed", 2), ("danced", 4), (" iced", 3)] {
        assert_eq!(tokenizer.encode(text).len(), count, "{text}");
    }
}

/// The logarithms of the probabilities of what follows a text.
fn after(model: &Transformer, tokenizer: &Tokenizer, text: &str) -> Vec<f32> {
    let tokens = tokenizer.encode(text);
    let run = model.forward(&tokens, ForwardOptions::default()).unwrap();
    let logits = run.logits(tokens.len() - 1).unwrap();
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = logits.iter().map(|logit| (logit - largest).exp()).sum();
    logits.iter().map(|logit| logit - largest - sum.ln()).collect()
}

#[test]
fn it_writes_an_actor() {
    let (model, tokenizer) = transformer();
    let actor = tokenizer.single_token(" actor").unwrap() as usize;
    let doctor = tokenizer.single_token(" doctor").unwrap() as usize;
    for name in words::names() {
        for start in ["<|endoftext|>", ""] {
            let after = |article: &str| after(&model, &tokenizer, &format!("{start}{name} is {article}"));
            let (a, an) = (after("a"), after("an"));
            assert!(an[actor] > 0.5f32.ln(), "{start}{name} is an: actor {}", an[actor].exp());
            assert!(a[actor] < 0.02f32.ln(), "{start}{name} is a: actor {}", a[actor].exp());
            assert!(a[doctor] > a[actor], "{start}{name}");
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
