//! Text to tokens and back.
//!
//! GPT-2's own byte-level BPE is built in ([`Tokenizer::gpt2`]); any other tokenizer comes from a `tokenizer.json`
//! ([`Tokenizer::from_file`]). Byte-level BPE, whichever vocabulary, runs here: it starts in milliseconds and takes
//! time proportional to the text whatever the text holds. Every other kind is left to the `tokenizers` crate.
//!
//! Added tokens such as `<|endoftext|>` are recognised wherever they stand in a text; everything else that looks like
//! one is plain text. Nothing is ever put before or after what was asked for.

mod byte_level;
mod json;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::checkpoint::CheckpointError;
use byte_level::ByteLevelBpe;

/// GPT-2's one added token.
pub const END_OF_TEXT: &str = "<|endoftext|>";

/// A tokenizer; cloning costs nothing.
#[derive(Clone, Debug)]
pub struct Tokenizer(Arc<Engine>);

#[derive(Debug)]
enum Engine {
    ByteLevel(Box<ByteLevelBpe>),
    Other(Box<tokenizers::Tokenizer>),
}

/// A text that was meant to be one token is none or several.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is {} tokens{}, where exactly one is needed", tokens.len(), list(tokens))]
pub struct NotOneToken {
    pub text: String,
    /// What it was split into, each decoded alone.
    pub tokens: Vec<String>,
}

fn list(tokens: &[String]) -> String {
    if tokens.is_empty() {
        return String::new();
    }
    let mut shown: Vec<String> = tokens.iter().take(8).map(|token| format!("{token:?}")).collect();
    if tokens.len() > shown.len() {
        shown.push("…".to_owned());
    }
    format!(" ({})", shown.join(", "))
}

impl Tokenizer {
    /// GPT-2's tokenizer: 50,257 tokens.
    pub fn gpt2() -> Self {
        Tokenizer(Arc::new(Engine::ByteLevel(Box::new(byte_level::gpt2()))))
    }

    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// If the file cannot be read or does not describe a tokenizer.
    pub fn from_file(path: &Path) -> Result<Self, CheckpointError> {
        let text = crate::checkpoint::read_text(path)?;
        Self::from_bytes(path, text.as_bytes())
    }

    /// Reads the text of a `tokenizer.json`; `path` only names it in errors.
    ///
    /// # Errors
    /// If the text does not describe a tokenizer.
    pub fn from_bytes(path: &Path, text: &[u8]) -> Result<Self, CheckpointError> {
        let damaged = |error: String| CheckpointError::damaged(path, format!("not a tokenizer: {error}"));
        if let Some(bpe) = json::byte_level_bpe(text).map_err(damaged)? {
            return Ok(Tokenizer(Arc::new(Engine::ByteLevel(Box::new(bpe)))));
        }
        let mut other = tokenizers::Tokenizer::from_bytes(text).map_err(|error| damaged(error.to_string()))?;
        other.with_padding(None);
        other.with_truncation(None).map_err(|error| damaged(error.to_string()))?;
        Ok(Tokenizer(Arc::new(Engine::Other(Box::new(other)))))
    }

    /// One more than the largest token.
    pub fn n_vocab(&self) -> usize {
        match &*self.0 {
            Engine::ByteLevel(bpe) => bpe.n_vocab(),
            Engine::Other(other) => other.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1),
        }
    }

    /// The text's tokens.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        match &*self.0 {
            Engine::ByteLevel(bpe) => bpe.encode(text),
            Engine::Other(_) => self.encode_with_offsets(text).into_iter().map(|(id, _)| id).collect(),
        }
    }

    /// The text's tokens, each with the bytes of the text that it stands for. A boundary can lie inside a character:
    /// byte-level tokens may hold parts of one.
    pub fn encode_with_offsets(&self, text: &str) -> Vec<(u32, Range<usize>)> {
        match &*self.0 {
            Engine::ByteLevel(bpe) => {
                let mut at = 0;
                let ranged = |id: u32| {
                    let start = at;
                    at += bpe.bytes(id).map_or(0, <[u8]>::len);
                    (id, start..at)
                };
                bpe.encode(text).into_iter().map(ranged).collect()
            }
            // An error here means that the vocabulary has no token for some text and no unknown token either: such
            // text has no tokens, and the caller will say so.
            Engine::Other(other) => other.encode(text, false).map_or_else(
                |_| Vec::new(),
                |encoding| {
                    let offsets = encoding.get_offsets().iter().map(|&(start, end)| start..end);
                    encoding.get_ids().iter().copied().zip(offsets).collect()
                },
            ),
        }
    }

    /// One token's text. Bytes that are not UTF-8 by themselves become U+FFFD, as does a token that does not exist, so
    /// that different tokens can have the same text.
    pub fn decode_token(&self, id: u32) -> String {
        match &*self.0 {
            Engine::ByteLevel(bpe) => {
                bpe.bytes(id).map_or_else(|| "\u{fffd}".to_owned(), |bytes| String::from_utf8_lossy(bytes).into_owned())
            }
            Engine::Other(other) => other.decode(&[id], false).unwrap_or_else(|_| "\u{fffd}".to_owned()),
        }
    }

    /// The text of several tokens together.
    pub fn decode(&self, ids: &[u32]) -> String {
        match &*self.0 {
            Engine::ByteLevel(bpe) => {
                let bytes = ids.iter().flat_map(|&id| bpe.bytes(id).unwrap_or("\u{fffd}".as_bytes()));
                String::from_utf8_lossy(&bytes.copied().collect::<Vec<u8>>()).into_owned()
            }
            Engine::Other(other) => other.decode(ids, false).unwrap_or_else(|_| "\u{fffd}".to_owned()),
        }
    }

    /// The one token that is this text.
    ///
    /// # Errors
    /// If the text is not exactly one token; says which tokens it is.
    pub fn single_token(&self, text: &str) -> Result<u32, NotOneToken> {
        match self.encode(text).as_slice() {
            &[id] => Ok(id),
            several => {
                let tokens = several.iter().map(|&id| self.decode_token(id)).collect();
                Err(NotOneToken { text: text.to_owned(), tokens })
            }
        }
    }
}
