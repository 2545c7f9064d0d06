//! The targets.

use std::path::Path;

use serde_json::Value;
use tdb_api::page::PageState;
use tdb_api::{BatchedRequest, BatchedTdbRequest, DerivedScalarsRequest, NodeIdAndDatasets};
use tdb_collate::Summary;
use tdb_collate::corpus::{Cutting, Sequences, Shard};
use tdb_data::collated::LayerFile;
use tdb_data::{Location, NodeExplanations, NodeRecord, Registry};
use tdb_model::{Config, Tokenizer, checkpoint};

use super::Target;

pub const TARGETS: [Target; 14] = [
    Target { name: "tokenizer", run: tokenizer },
    Target { name: "text", run: text },
    Target { name: "config", run: config },
    Target { name: "safetensors", run: safetensors },
    Target { name: "torch", run: torch },
    Target { name: "sae_lens", run: sae_lens },
    Target { name: "record", run: record },
    Target { name: "records", run: records },
    Target { name: "explanations", run: explanations },
    Target { name: "registry", run: registry },
    Target { name: "corpus", run: corpus },
    Target { name: "summary", run: summary },
    Target { name: "request", run: request },
    Target { name: "page", run: page },
];

/// `tokenizer.json`, and text through what it describes.
fn tokenizer(input: &[u8]) {
    let Ok(tokenizer) = Tokenizer::from_bytes(Path::new("tokenizer.json"), input) else { return };
    for text in ["", "a", " Paris, France.\n\n", "é東京😀\u{0}", "<|endoftext|>x<|endoftext|>"] {
        let ids = tokenizer.encode(text);
        tokenizer.decode(&ids);
        tokenizer.encode_with_offsets(text);
        let _ = tokenizer.single_token(text);
    }
    for id in [0, 1, 255, 256, 262, u32::MAX] {
        tokenizer.decode_token(id);
    }
}

/// Any text through GPT-2's tokenizer: what it splits is what there was.
fn text(input: &[u8]) {
    use std::sync::LazyLock;
    static GPT2: LazyLock<Tokenizer> = LazyLock::new(Tokenizer::gpt2);
    let text = String::from_utf8_lossy(input);
    let ids = GPT2.encode(&text);
    assert_eq!(GPT2.decode(&ids), text);
    let _ = GPT2.single_token(&text);
}

/// Runs with a folder that holds these files.
fn in_folder(files: &[(&str, &[u8])], run: impl FnOnce(&Path)) {
    let Ok(folder) = tempfile::tempdir() else { return };
    if files.iter().all(|(name, content)| std::fs::write(folder.path().join(name), content).is_ok()) {
        run(folder.path());
    }
}

const CONFIG: &[u8] = include_bytes!("../../fuzz/corpus/config/gpt2.json");
const WEIGHTS: &[u8] = include_bytes!("../../fuzz/corpus/safetensors/gpt2.safetensors");
const TOKENIZER: &[u8] = include_bytes!("../../fuzz/corpus/tokenizer/plain.json");
const SAE: &[u8] = include_bytes!("../../fuzz/corpus/safetensors/sae.safetensors");

fn open_model(config: &[u8], weights: &[u8]) {
    let files = [("config.json", config), ("model.safetensors", weights), ("tokenizer.json", TOKENIZER)];
    in_folder(&files, |folder| drop(checkpoint::open(folder)));
}

/// `config.json` of a model.
fn config(input: &[u8]) {
    open_model(input, WEIGHTS);
}

/// `model.safetensors`.
fn safetensors(input: &[u8]) {
    open_model(CONFIG, input);
}

fn small() -> Config {
    Config::gpt2(1, 4, 2, 8, 16, 265)
}

/// A `.pt` file of an autoencoder.
fn torch(input: &[u8]) {
    in_folder(&[("0.pt", input)], |folder| drop(checkpoint::open_autoencoder(folder, None, &small())));
}

/// `cfg.json` of an autoencoder as SAELens writes it.
fn sae_lens(input: &[u8]) {
    let files = [("cfg.json", input), ("sae_weights.safetensors", SAE)];
    in_folder(&files, |folder| drop(checkpoint::open_autoencoder(folder, None, &small())));
}

/// The record of a node, as JSON.
fn record(input: &[u8]) {
    let Ok(record) = NodeRecord::parse("fuzz", input) else { return };
    let _ = record.to_json();
}

/// The records of a layer in one file.
fn records(input: &[u8]) {
    let Ok(file) = LayerFile::from_bytes("fuzz", input.to_vec().into()) else { return };
    let sections: Vec<(String, usize)> =
        file.footer().sections.iter().map(|section| (section.scalar.clone(), section.units)).collect();
    for (scalar, units) in sections.iter().take(8) {
        for unit in [0, 1, units / 2, units.saturating_sub(1), *units] {
            let _ = file.record(scalar, unit);
        }
    }
}

/// Explanations of a node.
fn explanations(input: &[u8]) {
    let Ok(node) = NodeExplanations::parse("fuzz", input) else { return };
    let _ = node.to_json();
}

/// A registry, and all places that it names.
fn registry(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let _ = Location::parse(text);
    let Ok(mut registry) = Registry::parse("fuzz", text) else { return };
    for autoencoder in &registry.autoencoders {
        let _ = autoencoder.layer_files(0);
    }
    registry.extend(registry.clone());
    let _ = registry.to_text();
}

/// A file of text, of whatever kind.
fn corpus(input: &[u8]) {
    use std::sync::LazyLock;
    static GPT2: LazyLock<Tokenizer> = LazyLock::new(Tokenizer::gpt2);
    in_folder(&[("corpus", input)], |folder| {
        let files = [folder.join("corpus")];
        let cutting = Cutting { tokens: 16, first: Some(50256) };
        let Ok(sequences) = Sequences::new(&files, GPT2.clone(), 50257, cutting, Shard::WHOLE) else { return };
        for sequence in sequences.take(1000).flatten() {
            assert!(sequence.tokens.len() <= 16);
        }
    });
}

/// A summary of a collation.
fn summary(input: &[u8]) {
    in_folder(&[("a.summary", input)], |folder| {
        let path = folder.join("a.summary");
        let _ = Summary::read_head(&path);
        let _ = Summary::read(&path);
    });
}

/// The body of a request.
fn request(input: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(input) else { return };
    fn read<T: tdb_api::wire::Decode + serde::Serialize>(value: &Value) {
        if let Ok(request) = tdb_api::wire::from_value::<T>(value, "body") {
            let _ = serde_json::to_string(&request);
        }
    }
    read::<BatchedTdbRequest>(&value);
    read::<BatchedRequest>(&value);
    read::<DerivedScalarsRequest>(&value);
    read::<NodeIdAndDatasets>(&value);
}

/// The query of a page's address: what is read and written is the same.
fn page(input: &[u8]) {
    let Ok(query) = std::str::from_utf8(input) else { return };
    let (state, _) = PageState::from_query(query);
    let _ = serde_json::to_string(&state.to_request());
    let (again, problems) = PageState::from_query(&state.to_query());
    assert_eq!((&again, problems.len()), (&state, 0));
}
