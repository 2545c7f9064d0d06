//! Tokenizers of all other kinds, through the `tokenizers` crate.

use std::ops::Range;

use serde_json::Value;
use tokenizers::{ModelWrapper, Tokenizer};

use super::growth;
use crate::guarded::guarded;

pub(super) const CRATE: &str = "the `tokenizers` crate";

/// A tokenizer of the `tokenizers` crate that answers the same every time.
#[derive(Debug)]
pub(super) struct Other {
    tokenizer: Tokenizer,
    n_vocab: usize,
    /// Bytes of the longest text that is split: whatever the rules make of it has room in memory.
    longest: usize,
    /// A token with its text, before which others are decoded: many decoders take away the blank before a first token.
    before: Option<(u32, String)>,
}

impl Other {
    /// Reads a `tokenizer.json`. Settings for training and for batches (dropout, padding, truncation) are left out.
    ///
    /// # Errors
    /// If it describes no tokenizer, one that the crate cannot read, or one whose rules make texts too long.
    pub fn from_bytes(text: &[u8], description: Value) -> Result<Self, String> {
        /// Bytes that a text may become.
        const MOST: usize = 1 << 27;
        let text = prepared(text, description)?;
        let longest = MOST / growth::of_texts(&text)?;
        let read = guarded(CRATE, || Tokenizer::from_bytes(&text))?;
        let mut tokenizer = read.map_err(|error| error.to_string())?;
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| error.to_string())?;
        need_every_character(&mut tokenizer);
        let vocabulary = tokenizer.get_vocab(true);
        let largest = vocabulary.values().max().copied();
        super::check_largest(largest.unwrap_or(0), vocabulary.len())?;
        let n_vocab = largest.map_or(0, |id| id as usize + 1);
        let mut other = Self { tokenizer, n_vocab, longest, before: None };
        // Without a decoder tokens are words, and blanks belong to none of them.
        if other.tokenizer.get_decoder().is_some() {
            other.before = other.encode("a").last().map(|(id, _)| (*id, other.decode(&[*id])));
        }
        Ok(other)
    }

    /// One more than the largest token.
    pub fn n_vocab(&self) -> usize {
        self.n_vocab
    }

    /// The token that stands so in the vocabulary.
    pub fn token(&self, text: &str) -> Option<u32> {
        self.tokenizer.token_to_id(text)
    }

    pub fn contains(&self, id: u32) -> bool {
        self.tokenizer.id_to_token(id).is_some()
    }

    /// The tokens with the bytes of the text that each stands for. Text for a part of which the vocabulary has no token
    /// and no unknown token either has no tokens, and the caller will say so; nor has text that the crate would not
    /// split rightly, or that is too long.
    pub fn encode(&self, text: &str) -> Vec<(u32, Range<usize>)> {
        if text.len() > self.longest || has_long_blank(text) {
            return Vec::new();
        }
        let Ok(Ok(encoding)) = guarded(CRATE, || self.tokenizer.encode(text, false)) else { return Vec::new() };
        let offsets = encoding.get_offsets().iter().map(|&(start, end)| start..end);
        encoding.get_ids().iter().copied().zip(offsets).collect()
    }

    pub fn decode(&self, ids: &[u32]) -> String {
        match guarded(CRATE, || self.tokenizer.decode(ids, false)) {
            Ok(Ok(text)) => text,
            _ => "\u{fffd}".to_owned(),
        }
    }

    /// The text of one token where another stands before it.
    pub fn decode_token(&self, id: u32) -> String {
        if !self.contains(id) {
            return "\u{fffd}".to_owned();
        }
        let after = self
            .before
            .as_ref()
            .and_then(|(before, text)| self.decode(&[*before, id]).strip_prefix(text.as_str()).map(str::to_owned));
        after.unwrap_or_else(|| self.decode(&[id]))
    }
}

/// Whether so many blanks follow one another that the crate's matcher would give up, which it does without a word: it goes
/// back over them one by one, a million times at most.
fn has_long_blank(text: &str) -> bool {
    const MOST: usize = 500_000;
    text.len() > MOST && text.split(|c: char| !c.is_whitespace()).any(|blank| blank.len() > MOST)
}

/// The description without dropout, checked for what the crate takes for granted.
///
/// # Errors
/// If a merge of a BPE does not begin with the prefix of continuing words.
fn prepared(text: &[u8], mut description: Value) -> Result<Vec<u8>, String> {
    let Some(model) = description.get_mut("model").and_then(Value::as_object_mut) else { return Ok(text.to_vec()) };
    check_prefix(model)?;
    match model.get_mut("dropout") {
        None | Some(Value::Null) => Ok(text.to_vec()),
        Some(dropout) => {
            *dropout = Value::Null;
            serde_json::to_vec(&description).map_err(|error| error.to_string())
        }
    }
}

/// A BPE without an unknown token leaves out what it has no token for; with one that does not exist it stops there.
fn need_every_character(tokenizer: &mut Tokenizer) {
    let ModelWrapper::BPE(bpe) = tokenizer.get_model() else { return };
    if bpe.unk_token.is_some() {
        return;
    }
    let mut bpe = bpe.clone();
    let mut name = "?".to_owned();
    while tokenizer.token_to_id(&name).is_some() {
        name.push('?');
    }
    bpe.unk_token = Some(name);
    tokenizer.with_model(bpe);
}

fn check_prefix(model: &serde_json::Map<String, Value>) -> Result<(), String> {
    let prefix = model.get("continuing_subword_prefix").and_then(Value::as_str).unwrap_or_default();
    let merges = model.get("merges").and_then(Value::as_array);
    for merge in merges.into_iter().flatten().filter(|_| !prefix.is_empty()) {
        let right = match merge {
            Value::String(line) => line.split_once(' ').map(|pair| pair.1),
            Value::Array(pair) => pair.get(1).and_then(Value::as_str),
            _ => None,
        };
        if !right.is_some_and(|right| right.starts_with(prefix)) {
            return Err(format!(
                "continuing_subword_prefix is {prefix:?}, but the second part of the merge {merge} does not begin with it"
            ));
        }
    }
    Ok(())
}
