//! The tokenizer of a folder: `tokenizer.json`, or what tokenizers of GPT-2's kind had before it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

use crate::checkpoint::bytes::{is_there, parse_json, read_json, read_text};
use crate::checkpoint::error::CheckpointError;
use crate::tokenizer::{END_OF_TEXT, Tokenizer};

const CONFIG: &str = "tokenizer_config.json";
const SPECIAL: &str = "special_tokens_map.json";

/// How Qwen splits texts into words.
const QWEN_WORDS: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Reads the tokenizer.
///
/// # Errors
/// If there is none of a kind that is known for the family, or a file is not what it should be.
pub(super) fn open(folder: &Path, model_type: &str) -> Result<Tokenizer, CheckpointError> {
    let has = |name: &str| is_there(&folder.join(name));
    let path = folder.join("tokenizer.json");
    let pairs = has("vocab.json") && has("merges.txt");
    if has("tokenizer.json") || !pairs {
        let other = ["tokenizer.model", "spiece.model", "vocab.txt"].into_iter().find(|name| has(name));
        return match other.filter(|_| !has("tokenizer.json")) {
            None => whole(folder, model_type),
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
    from_description(&folder.join("vocab.json"), &description)
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
    let path = folder.map(|folder| folder.join(CONFIG)).filter(|path| is_there(path));
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

/// The rules of a `tokenizer.json` that can put a blank before a text.
#[derive(Deserialize)]
struct Rules {
    #[serde(default)]
    normalizer: Json,
    #[serde(default)]
    pre_tokenizer: Json,
}

/// The tokenizer of a `tokenizer.json`, with a blank before texts or without as `tokenizer_config.json` has it.
fn whole(folder: &Path, model_type: &str) -> Result<Tokenizer, CheckpointError> {
    let path = folder.join("tokenizer.json");
    let text = read_text(&path)?;
    let settings = optional(folder, CONFIG)?;
    let Some(wanted) = add_prefix_space(folder, &settings)? else {
        return Tokenizer::from_bytes(&path, text.as_bytes());
    };
    let rules: Rules = serde_json::from_str(&text)
        .map_err(|error| CheckpointError::damaged(&path, format!("not a tokenizer: {error}")))?;
    let found = puts_a_blank(&rules.normalizer) || puts_a_blank(&rules.pre_tokenizer);
    if found == wanted {
        return Tokenizer::from_bytes(&path, text.as_bytes());
    }
    let absent = match model_type {
        "gpt2" | "gpt_neo" => "GPT2Tokenizer",
        "gpt_neox" => "GPTNeoXTokenizer",
        _ => "",
    };
    let class = settings.get("tokenizer_class").and_then(Json::as_str).unwrap_or(absent);
    // Every version of these classes sets it; of the others some do and some do not.
    let is_set = ["GPT2Tokenizer", "GPTNeoXTokenizer"].contains(&class.trim_end_matches("Fast"))
        && rules.pre_tokenizer.get("type").is_some_and(|kind| kind == "ByteLevel")
        && !puts_a_blank(&rules.normalizer);
    if !is_set {
        let expected = format!("{found}, which is what tokenizer.json does: it is not clear which of the two counts");
        return Err(CheckpointError::unexpected(&folder.join(CONFIG), "add_prefix_space", expected, wanted));
    }
    let mut description = parse_json(&path, text.as_bytes())?;
    description["pre_tokenizer"]["add_prefix_space"] = json!(wanted);
    from_description(&path, &Json::Object(description))
}

fn puts_a_blank(rule: &Json) -> bool {
    let any = |key: &str| rule.get(key).and_then(Json::as_array).is_some_and(|rules| rules.iter().any(puts_a_blank));
    match rule.get("type").and_then(Json::as_str) {
        Some("Sequence") => any("normalizers") || any("pretokenizers"),
        Some("ByteLevel") => rule.get("add_prefix_space") == Some(&Json::Bool(true)),
        Some("Metaspace") => rule.get("prepend_scheme").is_none_or(|scheme| scheme != "never"),
        Some("Prepend") => true,
        _ => false,
    }
}

/// Whether a text without a blank before it gets one, if `tokenizer_config.json` says so or not so.
fn add_prefix_space(folder: &Path, settings: &Map<String, Json>) -> Result<Option<bool>, CheckpointError> {
    match settings.get("add_prefix_space") {
        None | Some(Json::Null) => Ok(None),
        Some(Json::Bool(wanted)) => Ok(Some(*wanted)),
        Some(other) => {
            let expected = "true, false or null";
            Err(CheckpointError::unexpected(&folder.join(CONFIG), "add_prefix_space", expected, other))
        }
    }
}

fn from_description(path: &Path, description: &Json) -> Result<Tokenizer, CheckpointError> {
    let text = serde_json::to_vec(description).map_err(|error| CheckpointError::damaged(path, error.to_string()))?;
    Tokenizer::from_bytes(path, &text)
}

/// What stands in a `tokenizer.json` for these files.
fn describe(folder: &Path, model_type: &str) -> Result<Json, CheckpointError> {
    let settings = optional(folder, CONFIG)?;
    let prefix_space = add_prefix_space(folder, &settings)?.unwrap_or(false);
    let byte_level = |regex: bool| {
        json!({
            "type": "ByteLevel", "add_prefix_space": prefix_space, "trim_offsets": false, "use_regex": regex
        })
    };
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
    let added = added_tokens(folder, &settings, &vocab)?;
    Ok(json!({
        "added_tokens": added, "normalizer": normalizer, "pre_tokenizer": pre_tokenizer,
        "decoder": byte_level(true), "model": {"type": "BPE", "vocab": vocab, "merges": merges},
    }))
}

/// Tokens that are recognised wherever they stand in a text, from all the places where they may be named.
fn added_tokens(
    folder: &Path,
    settings: &Map<String, Json>,
    vocab: &Map<String, Json>,
) -> Result<Vec<Json>, CheckpointError> {
    let special = optional(folder, SPECIAL)?;
    let mut named: Vec<(&str, &str, &Json)> = Vec::new();
    for (file, all) in [(CONFIG, settings), (SPECIAL, &special)] {
        let single = all.iter().filter(|(key, _)| key.ends_with("_token"));
        named.extend(single.map(|(key, token)| (file, key.as_str(), token)));
        for key in ["additional_special_tokens", "extra_special_tokens"] {
            match all.get(key) {
                None | Some(Json::Null) => {}
                Some(Json::Array(tokens)) => named.extend(tokens.iter().map(|token| (file, key, token))),
                Some(Json::Object(tokens)) => named.extend(tokens.values().map(|token| (file, key, token))),
                Some(other) => {
                    return Err(CheckpointError::unexpected(
                        &folder.join(file),
                        key,
                        "a list of tokens or null",
                        other,
                    ));
                }
            }
        }
    }
    let is_named = |text: &str| named.iter().any(|(_, _, token)| content(token) == Some(text));
    let mut all: BTreeMap<u64, Json> = BTreeMap::new();
    // Tokens that are special are looked for in the text as it is, unless they say otherwise.
    let mut add = |id: Option<u64>, token: &Json, special: bool| {
        if let (Some(id), Some(text)) = (id, content(token)) {
            let flag = |key: &str, absent: bool| token.get(key).and_then(Json::as_bool).unwrap_or(absent);
            all.entry(id).or_insert_with(|| {
                json!({
                    "id": id, "content": text, "special": true, "normalized": flag("normalized", !special),
                    "lstrip": flag("lstrip", false), "rstrip": flag("rstrip", false),
                    "single_word": flag("single_word", false),
                })
            });
        }
    };
    for (id, token) in settings.get("added_tokens_decoder").and_then(Json::as_object).into_iter().flatten() {
        let special = token.get("special").and_then(Json::as_bool).unwrap_or(false);
        add(id.parse().ok(), token, special);
    }
    for (text, id) in &optional(folder, "added_tokens.json")? {
        add(id.as_u64(), &json!(text), is_named(text));
    }
    let default = json!(END_OF_TEXT);
    for token in named.iter().map(|(_, _, token)| *token).chain([&default]) {
        add(content(token).and_then(|text| vocab.get(text)?.as_u64()), token, true);
    }
    // To a token that has no id anywhere `transformers` gives one that the model was not made with.
    let is_known =
        |text: &str| text.is_empty() || vocab.contains_key(text) || all.values().any(|token| token["content"] == text);
    match named.iter().find(|(_, _, token)| content(token).is_some_and(|text| !is_known(text))) {
        Some((file, key, token)) => {
            let expected = "a token of vocab.json, added_tokens.json or added_tokens_decoder";
            Err(CheckpointError::unexpected(&folder.join(file), *key, expected, token))
        }
        None => Ok(all.into_values().collect()),
    }
}

fn optional(folder: &Path, name: &str) -> Result<Map<String, Json>, CheckpointError> {
    match folder.join(name) {
        path if is_there(&path) => read_json(&path),
        _ => Ok(Map::new()),
    }
}

/// A token's text, which stands alone or with its settings.
fn content(token: &Json) -> Option<&str> {
    token.as_str().or_else(|| token.get("content")?.as_str())
}
