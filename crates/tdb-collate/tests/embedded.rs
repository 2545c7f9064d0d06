//! The embedded model's records and explanations belong to the model that lies beside them, and are whole.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use tdb_collate::Kind;
use tdb_collate::summary::fingerprint;
use tdb_data::NodeExplanations;
use tdb_data::collated::LayerFile;
use tdb_model::{Transformer, checkpoint};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../datasets/embedded")
}

/// What is collated together.
struct Set {
    /// Folder of records and explanations.
    folder: &'static str,
    /// Of the model that they are of.
    dictionaries: &'static [&'static str],
    /// Of the units that they are of.
    kinds: &'static [Kind],
    /// More units than this are active.
    active: usize,
    /// More than this show many examples.
    many: usize,
}

const SETS: [Set; 2] = [
    Set {
        folder: "",
        dictionaries: &["sae-resid-delta-mlp", "sae-resid-delta-attn"],
        kinds: &Kind::ALL,
        active: 7000,
        many: 5000,
    },
    Set {
        folder: "dictionaries",
        dictionaries: &["mlp-transcoder", "sae-resid-post-mlp", "sae-resid-delta-attn"],
        kinds: &[Kind::MlpLatent, Kind::ResidualLatent],
        active: 3000,
        many: 3000,
    },
];

fn model(dictionaries: &[&str]) -> Transformer {
    let checkpoint = checkpoint::open(&folder()).unwrap();
    let config = checkpoint.config.clone();
    let open = |name: &str| checkpoint::open_autoencoder(&folder().join("autoencoders").join(name), None, &config);
    let model = Transformer::load(checkpoint.config, checkpoint.weights).unwrap();
    dictionaries.iter().fold(model, |model, name| model.attach(open(name).unwrap()).unwrap())
}

#[test]
fn every_unit_has_a_record_and_an_explanation_of_this_model() {
    for set in SETS {
        let (model, folder) = (model(set.dictionaries), folder().join(set.folder));
        let mut active = 0;
        for layer in 0..model.config().n_layers {
            let file = LayerFile::open(&folder.join(format!("records/{layer}.records"))).unwrap();
            assert_eq!(
                file.footer().about["fingerprint"],
                fingerprint(&model).unwrap(),
                "records of other weights: collate again"
            );
            for kind in set.kinds.iter().filter(|kind| kind.count(&model, layer) > 0) {
                active += active_units(&folder, &file, *kind, layer, kind.count(&model, layer));
            }
        }
        assert!(active > set.active, "{}: {active} units are active", set.folder);
    }
}

/// The lines of a layer's explanations.
fn explanations(folder: &Path, kind: Kind, layer: usize) -> String {
    let path = folder.join("explanations").join(kind.scalar()).join(format!("{layer}.jsonl.gz"));
    let mut text = String::new();
    GzDecoder::new(fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    text
}

/// Looks at all units of a layer; how many are active in the text.
fn active_units(folder: &Path, file: &LayerFile, kind: Kind, layer: usize, count: usize) -> usize {
    let text = explanations(folder, kind, layer);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), count);
    let mut active = 0;
    for (unit, line) in lines.iter().enumerate() {
        let what = format!("{} {layer}:{unit}", kind.scalar());
        let found = file.record(kind.scalar(), unit).unwrap();
        let top: Vec<f32> = found.record.most_positive.iter().filter_map(|r| r.max()).collect();
        active += usize::from(top.first().is_some_and(|t| *t > 0.0));
        // A latent that is never active behind the first token has no top examples.
        assert!(!top.is_empty() || kind.is_sparse(), "{what}");
        let explained = NodeExplanations::parse("line", line.as_bytes()).unwrap();
        assert_eq!((explained.layer, explained.index, explained.pairs), (layer, unit, kind.per_pair()), "{what}");
        assert!(explained.explanations[0].explanation.is_some(), "{what}");
    }
    active
}

/// What a page says of a unit stands on enough: many tokens, and examples that differ and are not all about the first
/// token.
#[test]
fn the_records_are_of_many_tokens_and_show_examples_that_differ() {
    for set in SETS {
        let model = model(set.dictionaries);
        let mut many = 0;
        for layer in 0..model.config().n_layers {
            let file = LayerFile::open(&folder().join(set.folder).join(format!("records/{layer}.records"))).unwrap();
            assert!(file.footer().tokens >= 100_000, "{} tokens", file.footer().tokens);
            for kind in set.kinds.iter().filter(|kind| !kind.per_pair()) {
                many += (0..kind.count(&model, layer)).filter(|unit| shows_many(&file, *kind, layer, *unit)).count();
            }
        }
        assert!(many > set.many, "{}: {many}", set.folder);
    }
}

/// Looks at a unit's top examples; whether it shows more than five of them, and more than three random ones.
fn shows_many(file: &LayerFile, kind: Kind, layer: usize, unit: usize) -> bool {
    let what = format!("{} {layer}:{unit}", kind.scalar());
    let record = file.record(kind.scalar(), unit).unwrap().record;
    let (mut seen, mut last) = (Vec::new(), f32::INFINITY);
    for example in &record.most_positive {
        let best = example.activations[1..].iter().copied().fold(f32::NEG_INFINITY, f32::max);
        // Values are stored in steps: of several that are the largest, the last is the one or comes after it.
        let at = 1 + example.activations[1..].iter().rposition(|x| *x == best).unwrap();
        let beginning = &example.tokens[..=at];
        assert!(!seen.contains(&beginning), "{what}: an example stands there twice");
        seen.push(beginning);
        // Best first, up to the steps that values are stored in.
        let step = example.activations.iter().fold(0.0f32, |most, x| most.max(x.abs())) / 100.0;
        assert!(best <= last + step, "{what}: {best} after {last}");
        last = best;
        assert!(!kind.is_sparse() || best > 0.0, "{what}");
    }
    record.most_positive.len() > 5 && record.random_sample.len() > 3
}

/// Earlier versions of the grammar wrote so.
const MISSPELT: [&str; 2] = ["danceed", " a actor"];

#[test]
fn nothing_that_is_shown_is_misspelt() {
    let mut danced = 0;
    for set in SETS {
        let (model, folder) = (model(set.dictionaries), folder().join(set.folder));
        for layer in 0..model.config().n_layers {
            let file = LayerFile::open(&folder.join(format!("records/{layer}.records"))).unwrap();
            for kind in set.kinds.iter().filter(|kind| kind.count(&model, layer) > 0) {
                let text = explanations(&folder, *kind, layer);
                assert!(!MISSPELT.iter().any(|word| text.contains(word)), "explanations of {}", kind.scalar());
                for unit in 0..kind.count(&model, layer) {
                    let record = file.record(kind.scalar(), unit).unwrap().record;
                    let by_quantile = record.random_sample_by_quantile.iter().flatten().flatten();
                    for example in record.most_positive.iter().chain(&record.random_sample).chain(by_quantile) {
                        let text = example.tokens.concat();
                        assert!(!MISSPELT.iter().any(|word| text.contains(word)), "{text}");
                        danced += usize::from(text.contains(" danced"));
                    }
                }
            }
        }
    }
    assert!(danced > 0, "the word is among what is shown");
}

#[test]
fn the_embedded_data_stays_small() {
    fn size(folder: &Path) -> u64 {
        let entries = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
        entries.map(|p| if p.is_dir() { size(&p) } else { fs::metadata(p).unwrap().len() }).sum()
    }
    // The program carries them, and is to stay below 60 MB.
    assert!(size(&folder()) < 20_000_000);
}
