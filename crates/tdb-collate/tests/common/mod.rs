//! A small model with autoencoders and a small text.

#![allow(dead_code, clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use tdb_collate::corpus::{Cutting, Unreadable, Versions};
use tdb_collate::summary::{VERSION, fingerprint};
use tdb_collate::work::{Collation, describe_corpus, fingerprint_corpus, split_layers};
use tdb_collate::{Kind, Parts, Plan, Sizes, Summaries};
use tdb_data::collated::Encoding;
use tdb_model::{Tokenizer, Transformer, checkpoint};
use tdb_testkit::checkpoint::{self as made, write};
use tdb_testkit::presets::preset;

pub const SIZES: Sizes = Sizes { top: 4, random: 5, quantiles: 3, per_quantile: 2 };

/// `tiny-a`: 2 layers of width 64 with 4 heads and 256 neurons, 256 latents of either kind; the weights are kept between tests.
pub fn model() -> Transformer {
    static MODEL: LazyLock<Transformer> = LazyLock::new(load);
    MODEL.clone()
}

fn load() -> Transformer {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("weights");
    let root = write(&preset("tiny-a").unwrap(), &folder, made::Parts::ModelAndAutoencoders).unwrap();
    let checkpoint = checkpoint::open(&root).unwrap();
    let config = checkpoint.config.clone();
    let open = |name: &str| checkpoint::open_autoencoder(&root.join("autoencoders").join(name), None, &config).unwrap();
    let model = Transformer::load(checkpoint.config, checkpoint.weights).unwrap();
    model.attach(open("ae-resid-delta-mlp")).unwrap().attach(open("ae-resid-delta-attn-topk")).unwrap()
}

/// A text of `documents` short documents, some of them equal.
pub fn text(folder: &Path, documents: usize) -> PathBuf {
    let words = ["cat", "Paris", "1984", "the", "sat on", "and", "é", "Mary gave", "(", ")", "why?", "\n", "token"];
    let mut state = 1u64;
    let mut next = |n: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % n
    };
    let document = |_| {
        let length = 1 + next(14);
        let text: Vec<&str> = (0..length).map(|_| words[next(words.len())]).collect();
        text.join(" ").trim().to_owned() + "."
    };
    let mut all: Vec<String> = (0..documents).map(document).collect();
    let copy = all[1].clone();
    all.push(copy);
    let path = folder.join("text.txt");
    fs::write(&path, all.join("\n\n")).unwrap();
    path
}

pub fn plan(model: &Transformer, files: &[PathBuf], shards: usize) -> Plan {
    Plan {
        model: "tiny-a".into(),
        fingerprint: fingerprint(model).unwrap(),
        autoencoders: vec!["mlp".into(), "attn".into()],
        corpus: describe_corpus(files).unwrap(),
        content: fingerprint_corpus(files).unwrap(),
        cutting: Cutting { tokens: 9, first: Some(50256) },
        sizes: SIZES,
        first_counts: false,
        kinds: Kind::ALL.to_vec(),
        seed: 3,
        shards,
        version: VERSION.to_owned(),
    }
}

pub fn collation<'a>(
    model: &'a Transformer,
    tokenizer: &'a Tokenizer,
    files: &'a [PathBuf],
    (shards, layers_each): (usize, usize),
    folder: PathBuf,
) -> Collation<'a> {
    Collation {
        model,
        tokenizer,
        files,
        versions: Versions::of(files).unwrap(),
        plan: plan(model, files, shards),
        layers: split_layers(0..model.config().n_layers, layers_each),
        threads: 2,
        summaries: Summaries::Local(folder),
        unreadable: Unreadable::default(),
    }
}

pub fn token_text(tokenizer: &Tokenizer, token: u32) -> String {
    tokenizer.decode_token(token)
}

/// Merges what is in `summaries` and writes both layouts below `out`.
pub fn write_out(summaries: &Path, out: &Path, tokenizer: &Tokenizer) {
    let text = |t| token_text(tokenizer, t);
    let summaries = Summaries::from(summaries);
    let parts = Parts::find(&summaries).unwrap();
    for layers in parts.layers() {
        let summary = parts.merge(&layers).unwrap();
        tdb_collate::output::write_json_files(&summary, &out.join("files"), &text).unwrap();
        for (&index, layer) in &summary.layers {
            for (name, encoding) in [("f32", Encoding::F32), ("f16", Encoding::F16), ("u8", Encoding::U8)] {
                let path = out.join(name).join(format!("{index}.records"));
                let what = (index, layer);
                tdb_collate::output::write_layer_file(&path, &summary.plan, what, (encoding, &SIZES), &text).unwrap();
            }
        }
    }
}

/// All files below a folder with their bytes, by name.
pub fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut out = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().display().to_string();
                out.push((name, fs::read(&path).unwrap()));
            }
        }
    }
    out.sort();
    out
}
