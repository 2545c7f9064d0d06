//! Text to tokens and back.
//!
//! GPT-2's own byte-level BPE is built in ([`Tokenizer::gpt2`]); any other tokenizer comes from a `tokenizer.json`
//! ([`Tokenizer::from_file`]). Byte-level BPE, whichever vocabulary, runs here: it starts in milliseconds and takes
//! time proportional to the text whatever the text holds. Every other kind is left to the `tokenizers` crate.
//!
//! Added tokens such as `<|endoftext|>` are recognised wherever they stand in a text; everything else that looks like
//! one is plain text. No special token is ever put before or after a text.
//!
//! A token's identity is its id. Its text is what it stands for inside a text, and several tokens may have the same one:
//! [`Tokenizer::single_token`] finds the one token of a text, whatever the tokenizer would put before that text.

mod beginning;
mod byte_level;
mod growth;
mod json;
mod other;

use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use serde_json::Value;

use crate::checkpoint::CheckpointError;
use crate::parallel;
use byte_level::ByteLevelBpe;
use other::Other;

/// GPT-2's one added token.
pub const END_OF_TEXT: &str = "<|endoftext|>";

/// A tokenizer; cloning costs nothing.
#[derive(Clone, Debug)]
pub struct Tokenizer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    engine: Engine,
    /// The token that it would put before a text.
    beginning: Option<u32>,
    /// By id, every token's text, `None` where there is no token; made when a token is first looked for by its text.
    texts: OnceLock<Vec<Option<Box<str>>>>,
    /// A hash of every token's text with its id, ascending; made likewise.
    by_text: OnceLock<Vec<(u64, u32)>>,
}

#[derive(Debug)]
enum Engine {
    ByteLevel(Box<ByteLevelBpe>),
    Other(Box<Other>),
}

/// A text that does not name exactly one token.
#[allow(missing_docs, reason = "what is said of a variant names its fields")]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOneToken {
    /// No token has this text. `tokens` is what it is split into, each decoded alone.
    #[error("{text:?} is {} tokens{}, where exactly one is needed", tokens.len(), list(tokens))]
    Split { text: String, tokens: Vec<String> },
    /// No token has this text, which is too long to be split and shown.
    #[error("a text of {bytes} bytes is not the text of one token")]
    Long { bytes: usize },
    /// No token has this text, although it becomes a single one: the tokenizer changes the text first.
    #[error("no token has the text {text:?}; the tokenizer reads it as the token {token} ({token_text:?})")]
    Changed { text: String, token: u32, token_text: String },
    /// Several tokens have this text.
    #[error(
        "{text:?} is the text of {} tokens ({}); say which one is meant by its id", ids.len(), list_ids(ids)
    )]
    Shared { text: String, ids: Vec<u32> },
}

/// Ids may have gaps, but tables are made over them, so they may not be much larger than their number.
fn check_largest(id: u32, tokens: usize) -> Result<(), String> {
    match id as usize > 2 * tokens + 65_536 {
        true => Err(format!("a token with id {id} among {tokens} tokens")),
        false => Ok(()),
    }
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

fn list_ids(ids: &[u32]) -> String {
    let mut shown: Vec<String> = ids.iter().take(16).map(u32::to_string).collect();
    if ids.len() > shown.len() {
        shown.push("…".to_owned());
    }
    shown.join(", ")
}

impl Tokenizer {
    fn new(engine: Engine, beginning: Option<u32>) -> Self {
        Self(Arc::new(Inner { engine, beginning, texts: OnceLock::new(), by_text: OnceLock::new() }))
    }

    /// GPT-2's tokenizer: 50,257 tokens.
    pub fn gpt2() -> Self {
        Self::new(Engine::ByteLevel(Box::new(byte_level::gpt2())), None)
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
        let description: Value = serde_json::from_slice(text).map_err(|error| damaged(error.to_string()))?;
        let beginning = beginning::beginning(&description);
        if let Some(bpe) = json::byte_level_bpe(text).map_err(damaged)? {
            return Ok(Self::new(Engine::ByteLevel(Box::new(bpe)), beginning));
        }
        Ok(Self::new(Engine::Other(Box::new(Other::from_bytes(text, description).map_err(damaged)?)), beginning))
    }

    /// The added token of this text, such as [`END_OF_TEXT`].
    pub fn added(&self, text: &str) -> Option<u32> {
        match &self.0.engine {
            Engine::ByteLevel(bpe) => bpe.added(text),
            Engine::Other(other) => other.token(text),
        }
    }

    /// The token that the file's `post_processor` would put before a text. It is never put there by itself.
    pub fn beginning(&self) -> Option<u32> {
        self.0.beginning.filter(|id| self.contains(*id))
    }

    /// One more than the largest token.
    pub fn n_vocab(&self) -> usize {
        match &self.0.engine {
            Engine::ByteLevel(bpe) => bpe.n_vocab(),
            Engine::Other(other) => other.n_vocab(),
        }
    }

    /// Whether there is a token of this id: ids may have gaps, and a model may have more rows than its tokenizer tokens.
    pub fn contains(&self, id: u32) -> bool {
        match &self.0.engine {
            Engine::ByteLevel(bpe) => bpe.bytes(id).is_some(),
            Engine::Other(other) => other.contains(id),
        }
    }

    /// The text's tokens.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        match &self.0.engine {
            Engine::ByteLevel(bpe) => bpe.encode(text),
            Engine::Other(_) => self.encode_with_offsets(text).into_iter().map(|(id, _)| id).collect(),
        }
    }

    /// The text's tokens, each with the bytes of the text that it stands for. A boundary can lie inside a character:
    /// byte-level tokens may hold parts of one.
    pub fn encode_with_offsets(&self, text: &str) -> Vec<(u32, Range<usize>)> {
        match &self.0.engine {
            Engine::ByteLevel(bpe) => {
                let mut at = 0;
                let ranged = |id: u32| {
                    let start = at;
                    at += bpe.bytes(id).map_or(0, <[u8]>::len);
                    (id, start..at)
                };
                bpe.encode(text).into_iter().map(ranged).collect()
            }
            Engine::Other(other) => other.encode(text),
        }
    }

    /// One token's text, as it stands inside a text. Bytes that are not UTF-8 by themselves become U+FFFD, as does a token
    /// that does not exist, so that different tokens can have the same text.
    pub fn decode_token(&self, id: u32) -> String {
        match &self.0.engine {
            Engine::ByteLevel(bpe) => {
                bpe.bytes(id).map_or_else(|| "\u{fffd}".to_owned(), |bytes| String::from_utf8_lossy(bytes).into_owned())
            }
            Engine::Other(other) => other.decode_token(id),
        }
    }

    /// The text of several tokens together.
    pub fn decode(&self, ids: &[u32]) -> String {
        match &self.0.engine {
            Engine::ByteLevel(bpe) => {
                let bytes = ids.iter().flat_map(|&id| bpe.bytes(id).unwrap_or("\u{fffd}".as_bytes()));
                String::from_utf8_lossy(&bytes.copied().collect::<Vec<u8>>()).into_owned()
            }
            Engine::Other(other) => other.decode(ids),
        }
    }

    /// The one token whose text this is. What the tokenizer would put before a text of its own accord (such as a blank)
    /// plays no part.
    ///
    /// # Errors
    /// If no token has this text (says which tokens the text is), or several have it (says their ids).
    pub fn single_token(&self, text: &str) -> Result<u32, NotOneToken> {
        match self.tokens_of_text(text).as_slice() {
            &[id] => Ok(id),
            [] => Err(self.not_one_token(text)),
            ids => Err(NotOneToken::Shared { text: text.to_owned(), ids: ids.to_vec() }),
        }
    }

    /// All tokens whose text this is, ascending.
    pub fn tokens_of_text(&self, text: &str) -> Vec<u32> {
        let all = self.0.by_text.get_or_init(|| self.hashes());
        let hash = hash(text);
        let first = all.partition_point(|entry| entry.0 < hash);
        let same_hash = all[first..].iter().take_while(|entry| entry.0 == hash);
        let texts = self.texts();
        same_hash.map(|entry| entry.1).filter(|id| texts[*id as usize].as_deref() == Some(text)).collect()
    }

    /// The tokens whose texts begin so, ascending.
    pub fn tokens_beginning_with<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = u32> + 'a {
        let ids = self.texts().iter().zip(0..);
        ids.filter(move |(text, _)| text.as_ref().is_some_and(|text| text.starts_with(prefix))).map(|(_, id)| id)
    }

    fn texts(&self) -> &[Option<Box<str>>] {
        self.0.texts.get_or_init(|| {
            const BLOCK: u32 = 256;
            let n = u32::try_from(self.n_vocab()).unwrap_or(u32::MAX);
            let text = |id| self.contains(id).then(|| self.decode_token(id).into_boxed_str());
            let block = |i: usize| (i as u32 * BLOCK..(i as u32 + 1).saturating_mul(BLOCK).min(n)).map(text);
            parallel::map(n.div_ceil(BLOCK) as usize, |i| block(i).collect::<Vec<_>>()).into_iter().flatten().collect()
        })
    }

    fn hashes(&self) -> Vec<(u64, u32)> {
        let texts = self.texts().iter().zip(0..);
        let mut all: Vec<(u64, u32)> = texts.filter_map(|(text, id)| Some((hash(text.as_ref()?), id))).collect();
        all.sort_unstable();
        all
    }

    fn not_one_token(&self, text: &str) -> NotOneToken {
        /// Bytes of a text that is split to say what it consists of.
        const SHOWN: usize = 1024;
        if text.len() > SHOWN {
            return NotOneToken::Long { bytes: text.len() };
        }
        let text = text.to_owned();
        match self.encode(&text).as_slice() {
            &[token] => NotOneToken::Changed { text, token, token_text: self.decode_token(token) },
            several => {
                let tokens = several.iter().map(|&id| self.decode_token(id)).collect();
                NotOneToken::Split { text, tokens }
            }
        }
    }
}

fn hash(text: &str) -> u64 {
    use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
    BuildHasherDefault::<DefaultHasher>::default().hash_one(text)
}
