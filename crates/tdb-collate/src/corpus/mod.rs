//! A corpus as numbered sequences of tokens.
//!
//! A document is a paragraph of a plain text (up to an empty line), a line of JSON lines, or a row of Parquet. It is cut
//! into windows of a fixed number of tokens, of which the last may be shorter. A sequence's number is made of its
//! document's and its window's number alone, and a shard takes every n-th document: what a sequence is called does not
//! depend on the shard that met it.

mod json_lines;
mod parquet_rows;
mod text;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tdb_model::Tokenizer;

use crate::{Error, Result};

/// Bits of a sequence's number that hold its window.
const WINDOW_BITS: u32 = 24;

/// A piece of text to run the model on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// Ascending in the order of the corpus.
    pub number: u64,
    pub tokens: Vec<u32>,
}

impl Sequence {
    /// A number that tells different contents apart.
    pub fn content(&self) -> u64 {
        let mut hash = 0xcbf2_9ce4_8422_2325u64;
        for token in &self.tokens {
            hash = mix(hash ^ u64::from(*token));
        }
        hash
    }
}

/// SplitMix64's finaliser: every bit of the input moves every bit of the output.
pub(crate) fn mix(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// How text becomes sequences.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cutting {
    /// Tokens in a sequence, the one put before it included.
    pub tokens: usize,
    /// A token put before every sequence, such as `<|endoftext|>` for a model that was trained so.
    pub first: Option<u32>,
}

/// Which documents to take: those whose number is `index` modulo `count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    pub index: usize,
    pub count: usize,
}

impl Shard {
    pub const WHOLE: Self = Self { index: 0, count: 1 };

    /// Reads `3/8`, the fourth of eight.
    ///
    /// # Errors
    /// If it is not of that form, or the index is not below the count.
    pub fn parse(text: &str) -> Result<Self> {
        let parsed = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        match parsed {
            Some((index, count)) if index < count => Ok(Self { index, count }),
            _ => Err(Error::setting("shard", format!("{text:?} is not of the form i/n with i from 0 to n - 1"))),
        }
    }
}

/// Documents with where they stand, for errors.
type Documents = Box<dyn Iterator<Item = Result<Document>> + Send>;

/// One document of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Document {
    text: String,
    /// Such as `line 17`.
    place: String,
}

fn open(path: &Path) -> Result<Documents> {
    let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
    match extension.as_deref() {
        Some("jsonl" | "ndjson") => json_lines::open(path),
        Some("parquet") => parquet_rows::open(path),
        _ => text::open(path),
    }
}

/// Sequences of some files, one after the other.
pub struct Sequences {
    files: std::vec::IntoIter<PathBuf>,
    current: Option<(PathBuf, Documents, bool)>,
    tokenizer: Tokenizer,
    cutting: Cutting,
    shard: Shard,
    n_vocab: usize,
    document: u64,
    pending: std::vec::IntoIter<Sequence>,
    /// After an error nothing follows: what came after it would be cut short, and several threads may ask.
    failed: bool,
}

impl Sequences {
    /// The sequences of one shard of `files` for a model of `n_vocab` tokens.
    ///
    /// # Errors
    /// If no file is given, or the length of sequences leaves no room for text.
    pub fn new(
        files: &[PathBuf],
        tokenizer: Tokenizer,
        n_vocab: usize,
        cutting: Cutting,
        shard: Shard,
    ) -> Result<Self> {
        if files.is_empty() {
            return Err(Error::setting("text", "no file was given"));
        }
        if cutting.tokens <= usize::from(cutting.first.is_some()) {
            return Err(Error::setting("tokens", format!("{} leaves no room for text", cutting.tokens)));
        }
        Ok(Self {
            files: Vec::from(files).into_iter(),
            current: None,
            tokenizer,
            cutting,
            shard,
            n_vocab,
            document: 0,
            pending: Vec::new().into_iter(),
            failed: false,
        })
    }

    fn next_document(&mut self) -> Option<Result<(PathBuf, Document)>> {
        loop {
            if let Some((path, documents, any)) = &mut self.current {
                match documents.next() {
                    Some(Ok(document)) => {
                        *any = true;
                        return Some(Ok((path.clone(), document)));
                    }
                    Some(Err(error)) => return Some(Err(error)),
                    None if !*any => {
                        let error = Error::content(path, "there is no text in this file");
                        self.current = None;
                        return Some(Err(error));
                    }
                    None => self.current = None,
                }
            }
            let path = self.files.next()?;
            match open(&path) {
                Ok(documents) => self.current = Some((path, documents, false)),
                Err(error) => return Some(Err(error)),
            }
        }
    }

    fn cut(&self, number: u64, path: PathBuf, document: &Document) -> Result<Vec<Sequence>> {
        let tokens = self.tokenizer.encode(&document.text);
        let at = |message: String| Error::Text { path: path.clone(), place: document.place.clone(), message };
        if tokens.is_empty() {
            return Err(at("this text has no tokens".to_owned()));
        }
        if let Some(token) = tokens.iter().find(|t| **t as usize >= self.n_vocab) {
            let n = self.n_vocab;
            return Err(at(format!(
                "the tokenizer gives token {token}, but the model has {n}; they do not fit together"
            )));
        }
        let width = self.cutting.tokens - usize::from(self.cutting.first.is_some());
        let windows = tokens.chunks(width).enumerate();
        let sequence = |(window, part): (usize, &[u32])| Sequence {
            number: (number << WINDOW_BITS) | window as u64,
            tokens: self.cutting.first.iter().chain(part).copied().collect(),
        };
        Ok(windows.map(sequence).collect())
    }
}

impl Iterator for Sequences {
    type Item = Result<Arc<Sequence>>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = if self.failed { None } else { self.sequence().transpose() };
        self.failed |= next.as_ref().is_some_and(Result::is_err);
        next
    }
}

impl Sequences {
    fn sequence(&mut self) -> Result<Option<Arc<Sequence>>> {
        loop {
            if let Some(sequence) = self.pending.next() {
                return Ok(Some(Arc::new(sequence)));
            }
            let Some((path, document)) = self.next_document().transpose()? else { return Ok(None) };
            let number = self.document;
            self.document += 1;
            if number % self.shard.count as u64 == self.shard.index as u64 {
                self.pending = self.cut(number, path, &document)?.into_iter();
            }
        }
    }
}

#[cfg(test)]
mod tests;
