//! The tokenizer of a folder: `tokenizer.json`, or what tokenizers of GPT-2's kind had before it.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value as Json, json};

use crate::checkpoint::bytes::{is_there, read_json, read_text};
use crate::checkpoint::error::CheckpointError;
use crate::tokenizer::{END_OF_TEXT, Tokenizer};

/// How Qwen splits texts into words.
const QWEN_WORDS: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Reads the tokenizer.
///
/// # Errors
/// If there is none of a kind that is known for the family, or a file is not what it should be.
pub(super) fn open(folder: &Path, model_type: &str) -> Result<Tokenizer, CheckpointError> {
    let is_there = |name: &str| folder.join(name).symlink_metadata().is_ok();
    let path = folder.join("tokenizer.json");
    let pairs = is_there("vocab.json") && is_there("merges.txt");
    if is_there("tokenizer.json") || !pairs {
        let other = ["tokenizer.model", "spiece.model", "vocab.txt"].into_iter().find(|name| is_there(name));
        return match other.filter(|_| !is_there("tokenizer.json")) {
            None => Tokenizer::from_file(&path),
            Some(other) => Err(CheckpointError::damaged(
                &path,
                format!(
                    "it is missing, and {other} is not read; make it with `python -c \"from transformers import \
                     AutoTokenizer as T; T.from_pretrained('.').save_pretrained('.')\"` in that folder"
                ),
            )),
        };
    }
    let description = describe(folder, model_type)?;
    let text = serde_json::to_vec(&description).map_err(|error| CheckpointError::damaged(&path, error.to_string()))?;
    Tokenizer::from_bytes(&folder.join("vocab.json"), &text)
}

/// The token that texts begin with in the way of the model's kind, if there is one: what the tokenizer's files say, or
/// of GPT-2's kin, which have no convention in their files, the token that parted the texts in training.
///
/// # Errors
/// If `tokenizer_config.json` is not what it should be.
pub(super) fn beginning(
    folder: Option<&Path>,
    model_type: &str,
    tokenizer: &Tokenizer,
) -> Result<Option<u32>, CheckpointError> {
    if ["gpt2", "gpt_neo", "gpt_neox"].contains(&model_type) {
        return Ok(tokenizer.added(END_OF_TEXT));
    }
    let path = folder.map(|folder| folder.join("tokenizer_config.json")).filter(|path| is_there(path));
    let Some(path) = path else { return Ok(tokenizer.beginning()) };
    let settings = read_json(&path)?;
    let named = settings.get("bos_token").and_then(content).and_then(|text| tokenizer.added(text));
    match settings.get("add_bos_token") {
        Some(Json::Bool(false)) => Ok(None),
        Some(Json::Bool(true)) => Ok(named.or_else(|| tokenizer.beginning())),
        None | Some(Json::Null) => Ok(tokenizer.beginning()),
        Some(other) => Err(CheckpointError::unexpected(&path, "add_bos_token", "true, false or null", other)),
    }
}

/// What stands in a `tokenizer.json` for these files.
fn describe(folder: &Path, model_type: &str) -> Result<Json, CheckpointError> {
    let byte_level = |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": regex});
    let (normalizer, pre_tokenizer) = match model_type {
        "gpt2" | "gpt_neo" => (Json::Null, byte_level(true)),
        "qwen2" | "qwen3" => {
            let split = json!({
                "type": "Split", "pattern": {"Regex": QWEN_WORDS}, "behavior": "Isolated", "invert": false
            });
            (json!({"type": "NFC"}), json!({"type": "Sequence", "pretokenizers": [split, byte_level(false)]}))
        }
        _ => {
            let path = folder.join("tokenizer.json");
            let what = format!("it is missing; how a {model_type} splits texts does not follow from vocab.json");
            return Err(CheckpointError::damaged(&path, what));
        }
    };
    let vocab = read_json(&folder.join("vocab.json"))?;
    let merges = read_text(&folder.join("merges.txt"))?;
    let merges: Vec<&str> =
        merges.lines().map(str::trim_end).filter(|line| !line.is_empty() && !line.starts_with("#version")).collect();
    let added = added_tokens(folder, &vocab)?;
    Ok(json!({
        "added_tokens": added, "normalizer": normalizer, "pre_tokenizer": pre_tokenizer,
        "decoder": byte_level(true), "model": {"type": "BPE", "vocab": vocab, "merges": merges},
    }))
}

/// Tokens that are recognised wherever they stand in a text, from all the places where they may be named.
fn added_tokens(folder: &Path, vocab: &Map<String, Json>) -> Result<Vec<Json>, CheckpointError> {
    let optional = |name: &str| match folder.join(name) {
        path if is_there(&path) => read_json(&path),
        _ => Ok(Map::new()),
    };
    let (settings, special) = (optional("tokenizer_config.json")?, optional("special_tokens_map.json")?);
    let mut all: BTreeMap<u64, Json> = BTreeMap::new();
    let mut add = |id: Option<u64>, token: &Json| {
        if let (Some(id), Some(text)) = (id, content(token)) {
            let flag = |key: &str| token.get(key).and_then(Json::as_bool).unwrap_or(false);
            all.entry(id).or_insert_with(|| {
                json!({
                    "id": id, "content": text, "special": true, "normalized": false, "lstrip": flag("lstrip"),
                    "rstrip": flag("rstrip"), "single_word": flag("single_word"),
                })
            });
        }
    };
    for (id, token) in settings.get("added_tokens_decoder").and_then(Json::as_object).into_iter().flatten() {
        add(id.parse().ok(), token);
    }
    for (text, id) in &optional("added_tokens.json")? {
        add(id.as_u64(), &json!(text));
    }
    let named = settings.iter().chain(&special).filter(|(key, _)| key.ends_with("_token")).map(|(_, token)| token);
    let default = json!(END_OF_TEXT);
    for token in named.chain([&default]) {
        add(content(token).and_then(|text| vocab.get(text)?.as_u64()), token);
    }
    Ok(all.into_values().collect())
}

/// A token's text, which stands alone or with its settings.
fn content(token: &Json) -> Option<&str> {
    token.as_str().or_else(|| token.get("content")?.as_str())
}
