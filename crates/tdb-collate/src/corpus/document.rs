//! Documents, what keeps one from being read, and where one ends.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::{Error, Result};

/// What stands between documents that were put into one text.
const MARKERS: [&str; 2] = ["<|endoftext|>", "<|end_of_text|>"];

/// One document of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Document {
    pub text: String,
    /// Such as `line 17`.
    pub place: String,
}

/// Why there is no document here.
#[derive(Debug)]
pub(super) enum Trouble {
    /// This one cannot be read; those after it can.
    Skip { place: String, message: String },
    /// The file cannot be read any further.
    Stop(Error),
}

impl Trouble {
    pub fn skip(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Skip { place: place.into(), message: message.into() }
    }
}

/// The documents of a file, in order.
pub(super) type Documents = Box<dyn Iterator<Item = Result<Document, Trouble>> + Send>;

/// Whether documents are put into one in this text.
pub(super) fn has_marker(text: &str) -> bool {
    MARKERS.iter().any(|marker| text.contains(marker))
}

/// A text at the markers between documents. Without a marker it is the whole text, unchanged.
pub(super) fn split_at_markers(text: &str) -> Vec<&str> {
    let mut parts = vec![text];
    for marker in MARKERS {
        parts = parts.into_iter().flat_map(|part| part.split(marker)).collect();
    }
    parts
}

/// The documents that one entry of a file holds: one, or several with markers between them. Empty ones are none.
pub(super) fn of_entry(text: String, place: &str) -> Vec<Document> {
    let document = |text: &str| Document { text: text.to_owned(), place: place.to_owned() };
    match has_marker(&text) {
        false if text.is_empty() => Vec::new(),
        false => vec![Document { text, place: place.to_owned() }],
        true => {
            let parts = split_at_markers(&text).into_iter().map(|part| part.trim_matches(['\n', '\r']));
            parts.filter(|part| !part.trim().is_empty()).map(document).collect()
        }
    }
}

/// The documents of a corpus that could not be read and were left out, up to a limit. Clones share the count; a document
/// that is met again, in another pass over the text, counts once.
#[derive(Clone, Debug)]
pub struct Unreadable {
    limit: usize,
    found: Arc<Mutex<BTreeMap<(PathBuf, String), String>>>,
}

impl Default for Unreadable {
    fn default() -> Self {
        Self::up_to(Self::LIMIT)
    }
}

impl Unreadable {
    /// How many may be left out if nothing else is said.
    pub const LIMIT: usize = 100;

    pub fn up_to(limit: usize) -> Self {
        Self { limit, found: Arc::default() }
    }

    /// # Errors
    /// If this is one more than may be left out.
    pub(super) fn note(&self, path: &Path, place: String, message: String) -> Result<()> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.insert((path.to_owned(), place), message);
        if found.len() <= self.limit {
            return Ok(());
        }
        drop(found);
        Err(Error::Unreadable { limit: self.limit, first: self.first().unwrap_or_default() })
    }

    /// How many were left out so far.
    pub fn count(&self) -> usize {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Where one of them stands, and why it could not be read.
    pub fn first(&self) -> Option<String> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.iter().next().map(|((path, place), message)| format!("{}, {place}: {message}", path.display()))
    }
}
