//! The targets. `tests/fuzz` compiles this folder for libFuzzer, the tests compile it as it is.

mod collation;
mod data;
mod dictionaries;
mod model;
mod pages;
mod questions;
mod replies;
mod stores;
mod training;

use std::path::Path;

/// Something that reads what others wrote.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Also of its folder of inputs.
    pub name: &'static str,
    pub run: fn(&[u8]),
}

pub const TARGETS: [Target; 26] = [
    Target { name: "tokenizer", run: model::tokenizer },
    Target { name: "text", run: model::text },
    Target { name: "config", run: model::config },
    Target { name: "safetensors", run: model::safetensors },
    Target { name: "torch", run: dictionaries::torch },
    Target { name: "pickle", run: dictionaries::pickle },
    Target { name: "npz", run: dictionaries::npz },
    Target { name: "numpy", run: dictionaries::numpy },
    Target { name: "sae_lens", run: dictionaries::sae_lens },
    Target { name: "dictionary", run: dictionaries::dictionary },
    Target { name: "record", run: data::record },
    Target { name: "records", run: data::records },
    Target { name: "explanations", run: data::explanations },
    Target { name: "registry", run: data::registry },
    Target { name: "cache", run: data::cache },
    Target { name: "stored", run: stores::stored },
    Target { name: "response", run: stores::response },
    Target { name: "corpus", run: collation::corpus },
    Target { name: "summary", run: collation::summary },
    Target { name: "training", run: training::training },
    Target { name: "reply", run: replies::reply },
    Target { name: "request", run: questions::request },
    Target { name: "question", run: questions::question },
    Target { name: "page", run: pages::page },
    Target { name: "kept", run: pages::kept },
    Target { name: "stream", run: pages::stream },
];

/// The target of this name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}

/// Runs with a folder that holds these files.
fn in_folder(files: &[(&str, &[u8])], run: impl FnOnce(&Path)) {
    let Ok(folder) = tempfile::tempdir() else { return };
    if files.iter().all(|(name, content)| std::fs::write(folder.path().join(name), content).is_ok()) {
        run(folder.path());
    }
}

/// An input's first line, and what follows it.
fn first_line(input: &[u8]) -> Option<(&str, &[u8])> {
    let end = input.iter().position(|byte| *byte == b'\n')?;
    Some((std::str::from_utf8(&input[..end]).ok()?, &input[end + 1..]))
}
