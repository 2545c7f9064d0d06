//! Recognises byte-level BPE in a `tokenizer.json`.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::byte_level::{Added, ByteLevelBpe, alphabet};

/// Everything but the vocabulary, which can have another form in other models.
#[derive(Deserialize)]
struct Description {
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    decoder: Value,
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    model: ModelKind,
}

/// `dropout` is for training: it is no part of what a tokenizer is, and left out here.
#[derive(Deserialize)]
struct ModelKind {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    unk_token: Value,
    #[serde(default)]
    continuing_subword_prefix: Value,
    #[serde(default)]
    end_of_word_suffix: Value,
    #[serde(default)]
    byte_fallback: Value,
    #[serde(default)]
    ignore_merges: Value,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    normalized: bool,
}

#[derive(Deserialize)]
struct Bpe {
    model: BpeModel,
}

#[derive(Deserialize)]
struct BpeModel {
    vocab: HashMap<String, u32>,
    merges: Vec<Merge>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair(String, String),
    Line(String),
}

/// The tokenizer, if it is byte-level BPE exactly as GPT-2 does it, with any vocabulary; `None` if it is another kind.
///
/// # Errors
/// If the text is no `tokenizer.json`, its merges do not fit its vocabulary, or two tokens are at odds.
pub(super) fn byte_level_bpe(text: &[u8]) -> Result<Option<ByteLevelBpe>, String> {
    let description: Description = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if !is_gpt2_kind(&description) {
        return Ok(None);
    }
    let Ok(Bpe { model }) = serde_json::from_slice(text) else { return Ok(None) };
    let bytes: HashMap<char, u8> = alphabet().into_iter().map(|(byte, shown)| (shown, byte)).collect();
    let decode = |token: &str| token.chars().map(|c| bytes.get(&c).copied()).collect::<Option<Vec<u8>>>();
    let added = description.added_tokens.into_iter().filter(|token| !token.content.is_empty());
    let added = added.map(|AddedToken { id, content, normalized, .. }| Added { id, content, normalized });
    let added: Vec<Added> = added.collect();
    check_ids(&model.vocab, &added)?;

    let mut tokens = Vec::with_capacity(model.vocab.len());
    for (token, &id) in &model.vocab {
        match decode(token) {
            Some(bytes) => tokens.push((id, bytes)),
            // A token in plain text can only be reached as an added token.
            None if added.iter().any(|added| added.content == *token) => {}
            None => return Err(format!("the token {token:?} has characters that stand for no byte")),
        }
    }
    // Which of two tokens of the same bytes is used may not depend on the order of a hash table.
    tokens.sort_unstable();
    let id_of = |token: &str| {
        model.vocab.get(token).copied().ok_or_else(|| format!("a merge needs {token:?}, which is no token"))
    };
    let mut merges = Vec::with_capacity(model.merges.len());
    for merge in &model.merges {
        let (left, right) = match merge {
            Merge::Pair(left, right) => (left.as_str(), right.as_str()),
            Merge::Line(line) => line.split_once(' ').ok_or_else(|| format!("the merge {line:?} is no pair"))?,
        };
        merges.push((id_of(left)?, id_of(right)?, id_of(&[left, right].concat())?));
    }
    ByteLevelBpe::new(tokens, &merges, added).map(Some)
}

/// Every token has an id of its own, and the added tokens have those that the `tokenizers` library would give them: it
/// reads no ids, but counts on from the number of tokens in the vocabulary.
fn check_ids(vocab: &HashMap<String, u32>, added: &[Added]) -> Result<(), String> {
    let mut by_id: Vec<(u32, &str)> = vocab.iter().map(|(token, id)| (*id, token.as_str())).collect();
    by_id.sort_unstable();
    if let Some([(id, one), (_, other)]) = by_id.array_windows().find(|[one, other]| one.0 == other.0) {
        return Err(format!("the tokens {one:?} and {other:?} have the same id, {id}"));
    }
    let mut new: HashMap<&str, u32> = HashMap::new();
    for Added { id, content, .. } in added {
        let next = (vocab.len() + new.len()) as u32;
        match vocab.get(content).or_else(|| new.get(content.as_str())) {
            Some(known) if known == id => {}
            Some(known) => return Err(format!("the added token {content:?} has the ids {id} and {known}")),
            None => {
                if let Ok(at) = by_id.binary_search_by_key(id, |token| token.0) {
                    let other = by_id[at].1;
                    return Err(format!("the added token {content:?} and the token {other:?} have the same id, {id}"));
                }
                if *id != next {
                    return Err(format!(
                        "the added token {content:?} has the id {id}, where the next one, {next}, is what the \
                         `tokenizers` library would give it"
                    ));
                }
                new.insert(content, *id);
            }
        }
    }
    Ok(())
}

fn is_gpt2_kind(description: &Description) -> bool {
    let model = &description.model;
    let unset = |value: &Value| matches!(value, Value::Null | Value::Bool(false)) || value == "";
    let is_byte_level = |value: &Value| {
        value.as_object().filter(|object| object.get("type").is_some_and(|kind| kind == "ByteLevel")).cloned()
    };
    let flag =
        |object: &Map<String, Value>, key: &str, default: bool| object.get(key).map_or(Some(default), Value::as_bool);
    let splits = is_byte_level(&description.pre_tokenizer).is_some_and(|object| {
        flag(&object, "add_prefix_space", true) == Some(false) && flag(&object, "use_regex", true) == Some(true)
    });
    // GPT-2's own file names `<|endoftext|>` as unknown token; with a token for every byte it is never needed.
    let unknown_is_added = unset(&model.unk_token)
        || description.added_tokens.iter().any(|token| model.unk_token == Value::String(token.content.clone()));
    // The oldest files, GPT-2's own among them, do not name the kind; then it shows in that there are merges.
    matches!(model.kind.as_deref(), None | Some("BPE"))
        && description.normalizer.is_null()
        && splits
        && is_byte_level(&description.decoder).is_some()
        && unknown_is_added
        && [&model.continuing_subword_prefix, &model.end_of_word_suffix, &model.byte_fallback, &model.ignore_merges]
            .into_iter()
            .all(unset)
        && description.added_tokens.iter().all(|token| !token.single_word && !token.lstrip && !token.rstrip)
}
