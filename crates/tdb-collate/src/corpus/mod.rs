//! A corpus as numbered sequences of tokens.
//!
//! A document is a paragraph of a plain text (up to an empty line, or what stands between two `<|endoftext|>` where the
//! text has them), an entry of JSON, or a row of Parquet. What a file is shows in its content: its name need not say it,
//! and it may be packed with gzip or zstd. A document that cannot be read is left out and counted ([`Unreadable`]).
//!
//! A document is cut into windows of a fixed number of tokens, of which the last may be shorter. A sequence's number is
//! made of its document's and its window's number alone, and a shard takes every n-th document: what a sequence is called
//! does not depend on the shard that met it.

mod document;
mod file;
mod json;
mod lines;
mod parquet_rows;
mod text;
mod versions;
mod zstd;
mod zstd_pages;

use rand_xoshiro::SplitMix64;
use rand_xoshiro::rand_core::{RngCore, SeedableRng};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tdb_model::Tokenizer;

pub use document::Unreadable;
use document::{Document, Documents, Trouble};
pub use versions::Versions;

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

/// SplitMix64's first number: every bit of the input moves every bit of the output.
pub(crate) fn mix(x: u64) -> u64 {
    SplitMix64::seed_from_u64(x).next_u64()
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

    /// No document: the text is read, and nothing taken.
    pub(crate) const NOTHING: Self = Self { index: 1, count: 1 };

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

/// Opens a file as what it is.
fn open(path: &Path) -> Result<Documents> {
    let extension = file::extension(path);
    let magic = file::magic(path)?;
    file::refuse_no_text(path, &magic)?;
    if magic.starts_with(b"PAR1") || extension.as_deref() == Some("parquet") {
        return parquet_rows::open(path);
    }
    let text = file::open_text(path)?;
    Ok(match json::form(&text.head, extension.as_deref()) {
        Some(form) => json::open(path, text, form),
        None => text::open(path, text),
    })
}

/// Looks at the beginning of a file: whether it can be opened and documents can be read from it.
///
/// # Errors
/// If it is no file, or of a kind that is not read here, or its first documents cannot be read.
pub fn check(path: &Path) -> Result<()> {
    let unreadable = Unreadable::default();
    let mut first = None;
    for document in open(path)? {
        match document {
            Ok(_) => return Ok(()),
            Err(Trouble::Stop(error)) => return Err(error),
            Err(Trouble::Skip { place, message }) => {
                first.get_or_insert_with(|| format!("{place}: {message}"));
                unreadable.note(path, place, message)?;
            }
        }
    }
    Err(no_document(path, first))
}

fn no_document(path: &Path, first: Option<String>) -> Error {
    match first {
        Some(first) => Error::content(path, format!("there is no text in this file that can be read; {first}")),
        None => Error::content(path, "there is no text in this file"),
    }
}

/// Sequences of some files, one after the other.
pub struct Sequences {
    files: std::vec::IntoIter<PathBuf>,
    current: Option<Current>,
    tokenizer: Tokenizer,
    cutting: Cutting,
    shard: Shard,
    n_vocab: usize,
    document: u64,
    /// Bytes of text in the documents so far, and of those in this shard.
    bytes: u64,
    taken_bytes: u64,
    pending: std::vec::IntoIter<Sequence>,
    unreadable: Unreadable,
    /// After an error nothing follows: what came after it would be cut short, and several threads may ask.
    failed: bool,
}

/// The file that is being read.
struct Current {
    path: PathBuf,
    documents: Documents,
    /// Whether there was a document yet, and the first that could not be read.
    any: bool,
    first_unreadable: Option<String>,
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
            bytes: 0,
            taken_bytes: 0,
            pending: Vec::new().into_iter(),
            unreadable: Unreadable::default(),
            failed: false,
        })
    }

    /// Counts there what cannot be read.
    pub fn counting(self, unreadable: &Unreadable) -> Self {
        Self { unreadable: unreadable.clone(), ..self }
    }

    /// Documents that were read so far, those of other shards included.
    pub fn documents(&self) -> u64 {
        self.document
    }

    /// Bytes of text in those documents.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of text in the documents of this shard that were read so far.
    pub fn taken_bytes(&self) -> u64 {
        self.taken_bytes
    }

    /// Whether the next sequence begins a document.
    pub fn is_between_documents(&self) -> bool {
        self.pending.len() == 0
    }

    fn next_document(&mut self) -> Result<Option<(PathBuf, Document)>> {
        loop {
            let Some(current) = &mut self.current else {
                let Some(path) = self.files.next() else { return Ok(None) };
                let documents = open(&path)?;
                self.current = Some(Current { path, documents, any: false, first_unreadable: None });
                continue;
            };
            match current.documents.next() {
                Some(Ok(document)) => {
                    current.any = true;
                    return Ok(Some((current.path.clone(), document)));
                }
                Some(Err(Trouble::Stop(error))) => return Err(error),
                Some(Err(Trouble::Skip { place, message })) => {
                    current.first_unreadable.get_or_insert_with(|| format!("{place}: {message}"));
                    self.unreadable.note(&current.path, place, message)?;
                }
                None if current.any => self.current = None,
                None => return Err(no_document(&current.path, current.first_unreadable.take())),
            }
        }
    }

    /// The windows of a document.
    ///
    /// # Errors
    /// A sentence, if its tokens are none that the model has.
    fn cut(&self, number: u64, document: &Document) -> Result<Vec<Sequence>, String> {
        let tokens = self.tokenizer.encode(&document.text);
        if tokens.is_empty() {
            return Err("this text has no tokens".to_owned());
        }
        if let Some(token) = tokens.iter().find(|t| **t as usize >= self.n_vocab) {
            let (text, n) = (self.tokenizer.decode_token(*token), self.n_vocab);
            return Err(format!("holds the tokenizer's token {token} ({text:?}), which is none of the model's {n}"));
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
            let Some((path, document)) = self.next_document()? else { return Ok(None) };
            let number = self.document;
            self.document += 1;
            self.bytes += document.text.len() as u64;
            if number % self.shard.count as u64 == self.shard.index as u64 {
                self.taken_bytes += document.text.len() as u64;
                match self.cut(number, &document) {
                    Ok(windows) => self.pending = windows.into_iter(),
                    Err(message) => self.unreadable.note(&path, document.place, message)?,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
