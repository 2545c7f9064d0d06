//! Records, explanations, the registry, and the cache's own files.

use std::fs;

use tdb_data::collated::LayerFile;
use tdb_data::{Cache, Location, NodeExplanations, NodeRecord, Registry, hub};

/// The record of a node, as JSON.
pub fn record(input: &[u8]) {
    let Ok(record) = NodeRecord::parse("fuzz", input) else { return };
    let _ = record.to_json();
}

/// The records of a layer in one file.
pub fn records(input: &[u8]) {
    if let Ok(file) = LayerFile::from_bytes("fuzz", input.to_vec().into()) {
        read_records(&file);
    }
}

/// Reads some records of each section.
pub fn read_records(file: &LayerFile) {
    let sections: Vec<(String, usize)> =
        file.footer().sections.iter().map(|section| (section.scalar.clone(), section.units)).collect();
    for (scalar, units) in sections.iter().take(8) {
        for unit in [0, 1, units / 2, units.saturating_sub(1), *units] {
            if let Ok(found) = file.record(scalar, unit) {
                file.counts(scalar, &found);
            }
        }
    }
}

/// Explanations of a node.
pub fn explanations(input: &[u8]) {
    let Ok(node) = NodeExplanations::parse("fuzz", input) else { return };
    let _ = node.to_json();
}

/// A registry, and all places that it names.
pub fn registry(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let _ = Location::parse(text);
    let Ok(mut registry) = Registry::parse("fuzz", text) else { return };
    for autoencoder in &registry.autoencoders {
        let _ = autoencoder.layer_files(0);
    }
    for records in &registry.records {
        let _ = Location::parse(&records.location).and_then(|location| location.join("0.records"));
    }
    registry.extend(registry.clone());
    let _ = registry.to_text();
}

/// What the cache notes of a file, and what the cache of Hugging Face's tools notes of a branch.
pub fn cache(input: &[u8]) {
    const CONTENT: &[u8] = b"hello";
    let Ok(folder) = tempfile::tempdir() else { return };
    let Ok(location) = Location::parse("https://example.org/a/x.json") else { return };
    let put = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        path.parent().is_some_and(|parent| fs::create_dir_all(parent).is_ok()) && fs::write(path, content).is_ok()
    };
    let notes = "meta/https/example.org/a/x.json";
    let all = put("files/https/example.org/a/x.json", CONTENT)
        && put(&format!("{notes}.json"), input)
        && put(&format!("{notes}.absent"), input)
        && put("refs/main", input)
        && put("snapshots/0123/config.json", b"{}");
    if all {
        let cache = Cache::new(folder.path().to_owned(), 1);
        cache.entries();
        cache.verify(false);
        cache.get(&location);
        cache.read(&location);
        hub::snapshot_in(folder.path());
        cache.clear(Some("https://"));
    }
}
