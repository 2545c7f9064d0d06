//! The generator against sums computed by another program, and the files against their own format.

use serde_json::Value;
use tdb_testkit::checkpoint::{self, Parts};
use tdb_testkit::presets::preset;
use tdb_testkit::weights::checksum;

#[test]
fn tensors_have_the_bits_that_another_program_computed() {
    let lines = include_str!("data/weights_checksums.jsonl").lines();
    let mut n = 0;
    for line in lines {
        let want: Value = serde_json::from_str(line).unwrap();
        let preset = preset(want["preset"].as_str().unwrap()).unwrap();
        let name = want["name"].as_str().unwrap();
        let spec = preset.shape.tensors().into_iter().find(|t| t.name == name).unwrap();
        let shape: Vec<usize> =
            want["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect();
        assert_eq!(spec.shape, shape, "{name}");
        assert!((spec.scale - want["scale"].as_f64().unwrap()).abs() < 1e-15, "{name}");
        assert_eq!(spec.offset, want["offset"].as_f64().unwrap(), "{name}");
        let values = spec.values(preset.seed);
        assert_eq!(*values.last().unwrap(), want["last"].as_f64().unwrap() as f32, "{name}");
        for (got, first) in values.iter().zip(want["first"].as_array().unwrap()) {
            assert_eq!(*got, first.as_f64().unwrap() as f32, "{name}");
        }
        assert_eq!(format!("{:016x}", checksum(&values)), want["xor"].as_str().unwrap(), "{name}");
        n += 1;
    }
    assert_eq!(n, 37 + 2 * 21);
}

#[test]
fn a_checkpoint_folder_has_every_file_and_its_members_are_aligned() {
    let folder = tempfile::tempdir().unwrap();
    let preset = preset("tiny-a").unwrap();
    let root = checkpoint::write(&preset, folder.path(), Parts::ModelAndAutoencoders).unwrap();
    for spec in preset.shape.tensors() {
        let bytes = std::fs::read(root.join("model_pieces").join(format!("{}.pt", spec.name))).unwrap();
        let name = b"archive/data/0";
        let at = bytes.windows(name.len()).position(|w| w == name).unwrap();
        let header = at - 30;
        let extra = u16::from_le_bytes([bytes[header + 28], bytes[header + 29]]) as usize;
        let data = at + name.len() + extra;
        assert_eq!(data % 64, 0, "{}", spec.name);
        let values: Vec<f32> = bytes[data..data + 4 * spec.len()]
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect();
        assert_eq!(values, spec.values(preset.seed), "{}", spec.name);
    }
    for ae in &preset.autoencoders {
        for layer in 0..preset.shape.n_layers {
            assert!(root.join("autoencoders").join(ae.name).join(format!("{layer}.pt")).is_file());
        }
    }
    let config: Value = serde_json::from_slice(&std::fs::read(root.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["d_model"], 64);
}
