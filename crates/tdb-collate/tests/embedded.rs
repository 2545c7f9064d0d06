//! The embedded model's records and explanations belong to the model that lies beside them, and are whole.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

use std::fs;
use std::path::{Path, PathBuf};

use tdb_collate::Kind;
use tdb_collate::summary::fingerprint;
use tdb_data::NodeExplanations;
use tdb_data::collated::LayerFile;
use tdb_model::{Transformer, checkpoint};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../datasets/embedded")
}

fn model() -> Transformer {
    let checkpoint = checkpoint::open(&folder()).unwrap();
    let config = checkpoint.config.clone();
    let open = |name: &str| checkpoint::open_autoencoder(&folder().join("autoencoders").join(name), None, &config);
    let model = Transformer::load(checkpoint.config, checkpoint.weights).unwrap();
    let (mlp, attn) = (open("sae-resid-delta-mlp").unwrap(), open("sae-resid-delta-attn").unwrap());
    model.attach(mlp).unwrap().attach(attn).unwrap()
}

#[test]
fn every_unit_has_a_record_and_an_explanation_of_this_model() {
    let model = model();
    let mut active = 0;
    for layer in 0..model.config().n_layers {
        let file = LayerFile::open(&folder().join(format!("records/{layer}.records"))).unwrap();
        assert_eq!(
            file.footer().about["fingerprint"],
            fingerprint(&model).unwrap(),
            "records of other weights: collate again"
        );
        for kind in Kind::ALL.into_iter().filter(|kind| kind.count(&model, layer) > 0) {
            let path = folder().join("explanations").join(kind.scalar()).join(format!("{layer}.jsonl"));
            let text = fs::read_to_string(path).unwrap();
            let lines: Vec<&str> = text.lines().collect();
            assert_eq!(lines.len(), kind.count(&model, layer));
            for (unit, line) in lines.iter().enumerate() {
                let found = file.record(kind.scalar(), unit).unwrap();
                let top: Vec<f32> = found.record.most_positive.iter().filter_map(|r| r.max()).collect();
                active += usize::from(top.first().is_some_and(|t| *t > 0.0));
                // A latent that is never active behind the first token has no top examples.
                assert!(!top.is_empty() || kind.is_sparse(), "{} {layer}:{unit}", kind.scalar());
                let explained = NodeExplanations::parse("line", line.as_bytes()).unwrap();
                assert_eq!((explained.layer, explained.index, explained.pairs), (layer, unit, kind.per_pair()));
                assert!(explained.explanations[0].explanation.is_some());
            }
        }
    }
    assert!(active > 7000, "{active} units are active");
}

/// What a page says of a unit stands on enough: many tokens, and examples that differ and are not all about the first
/// token.
#[test]
fn the_records_are_of_many_tokens_and_show_examples_that_differ() {
    let model = model();
    let mut many = 0;
    for layer in 0..model.config().n_layers {
        let file = LayerFile::open(&folder().join(format!("records/{layer}.records"))).unwrap();
        assert!(file.footer().tokens >= 100_000, "{} tokens", file.footer().tokens);
        for kind in Kind::ALL.into_iter().filter(|kind| !kind.per_pair()) {
            for unit in 0..kind.count(&model, layer) {
                let what = format!("{} {layer}:{unit}", kind.scalar());
                let record = file.record(kind.scalar(), unit).unwrap().record;
                let (mut seen, mut last) = (Vec::new(), f32::INFINITY);
                for example in &record.most_positive {
                    let best = example.activations[1..].iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    let at = 1 + example.activations[1..].iter().position(|x| *x == best).unwrap();
                    let beginning = &example.tokens[..=at];
                    assert!(!seen.contains(&beginning), "{what}: an example stands there twice");
                    seen.push(beginning);
                    // Best first, up to the steps that values are stored in.
                    let step = example.activations.iter().fold(0.0f32, |most, x| most.max(x.abs())) / 100.0;
                    assert!(best <= last + step, "{what}: {best} after {last}");
                    last = best;
                    assert!(!kind.is_sparse() || best > 0.0, "{what}");
                }
                many += usize::from(record.most_positive.len() > 5 && record.random_sample.len() > 3);
            }
        }
    }
    assert!(many > 5000, "{many}");
}

#[test]
fn the_embedded_data_stays_small() {
    fn size(folder: &Path) -> u64 {
        let entries = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
        entries.map(|p| if p.is_dir() { size(&p) } else { fs::metadata(p).unwrap().len() }).sum()
    }
    // The program carries them, and is to stay below 60 MB.
    assert!(size(&folder()) < 18_000_000);
}
