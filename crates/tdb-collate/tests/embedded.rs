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
                assert!(top.windows(2).all(|w| w[0] >= w[1]), "{} {layer}:{unit}", kind.scalar());
                active += usize::from(top.first().is_some_and(|t| *t > 0.0));
                assert_eq!(top.is_empty(), found.active_sequences == 0 && kind.is_sparse());
                let explained = NodeExplanations::parse("line", line.as_bytes()).unwrap();
                assert_eq!((explained.layer, explained.index, explained.pairs), (layer, unit, kind.per_pair()));
                assert!(explained.explanations[0].explanation.is_some());
            }
        }
    }
    assert!(active > 7000, "{active} units are active");
}

#[test]
fn the_embedded_data_stays_small() {
    fn size(folder: &Path) -> u64 {
        let entries = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
        entries.map(|p| if p.is_dir() { size(&p) } else { fs::metadata(p).unwrap().len() }).sum()
    }
    assert!(size(&folder()) < 15_000_000);
}
