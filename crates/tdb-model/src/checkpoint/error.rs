//! What can be wrong with a checkpoint.

use std::path::{Path, PathBuf};

/// Why a model, an autoencoder or a tokenizer could not be read or written. Every variant is one sentence
/// that names the file and, where there is one, the tensor or key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each variant's sentence says what its fields are")]
pub enum CheckpointError {
    #[error("{}: cannot be read: {source}", file.display())]
    Read { file: PathBuf, source: std::io::Error },
    #[error("{}: cannot be written: {source}", file.display())]
    Write { file: PathBuf, source: std::io::Error },
    /// The file is not what its name says, or it is cut off or changed.
    #[error("{}: {what}", file.display())]
    Damaged { file: PathBuf, what: String },
    /// A tensor or a setting is there, but is not what it has to be.
    #[error("{}: `{key}` should be {expected}, but is {found}", file.display())]
    Unexpected { file: PathBuf, key: String, expected: String, found: String },
    #[error("{}: `{key}` is missing", file.display())]
    Missing { file: PathBuf, key: String },
    /// A tensor that candle could not give.
    #[error("{}: `{key}`: {source}", file.display())]
    Candle { file: PathBuf, key: String, source: Box<candle_core::Error> },
    /// A tensor or a setting that this layout does not know.
    #[error("{}: `{key}` is not known in this layout, which has {known}", file.display())]
    Unknown { file: PathBuf, key: String, known: String },
    /// A weight that no computation survives.
    #[error("{}: `{key}` holds {found} at index {index}", file.display())]
    NotFinite { file: PathBuf, key: String, index: usize, found: f32 },
    /// No layout fits the folder.
    #[error("{}: no layout that can be read: looked for {looked_for}; found {found}", folder.display())]
    NoLayout { folder: PathBuf, looked_for: String, found: String },
}

impl CheckpointError {
    pub(crate) fn damaged(file: &Path, what: impl Into<String>) -> Self {
        CheckpointError::Damaged { file: file.to_owned(), what: what.into() }
    }

    pub(crate) fn unexpected(
        file: &Path,
        key: impl Into<String>,
        expected: impl ToString,
        found: impl ToString,
    ) -> Self {
        let (expected, found) = (expected.to_string(), shorten(&found.to_string()));
        CheckpointError::Unexpected { file: file.to_owned(), key: key.into(), expected, found }
    }

    /// What went wrong where candle was asked for a tensor.
    pub(crate) fn candle(file: &Path, key: String, error: candle_core::Error) -> Self {
        match error {
            candle_core::Error::WithBacktrace { inner, .. } => Self::candle(file, key, *inner),
            candle_core::Error::UnexpectedShape { expected, got, .. } => {
                let shape = |shape: candle_core::Shape| format!("of shape {:?}", shape.dims());
                Self::unexpected(file, key, shape(expected), shape(got))
            }
            other => CheckpointError::Candle { file: file.to_owned(), key, source: Box::new(other) },
        }
    }

    /// That a tensor or setting is missing, for a [`Source`](crate::Source) of one's own; `file` is what names the source.
    pub fn missing(file: &Path, key: impl Into<String>) -> Self {
        CheckpointError::Missing { file: file.to_owned(), key: key.into() }
    }

    pub(crate) fn unknown(file: &Path, key: &str, known: impl Into<String>) -> Self {
        CheckpointError::Unknown { file: file.to_owned(), key: shorten(key), known: known.into() }
    }
}

/// Text from a file, short enough for an error message and without control characters.
pub(crate) fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(200).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(200).is_some() {
        short.push('…');
    }
    short
}
