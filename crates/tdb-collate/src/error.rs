use std::path::{Path, PathBuf};

/// What can go wrong while collating; each says which file or setting, and why.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{path} could not be written, and nothing of it was kept: {reason}")]
    Write { path: PathBuf, reason: String },
    /// A place in a corpus.
    #[error("{path}, {place}: {message}")]
    Text { path: PathBuf, place: String, message: String },
    /// A corpus file as a whole, or a summary.
    #[error("{path}: {message}")]
    Content { path: PathBuf, message: String },
    #[error("more than {limit} documents cannot be read, such as {first}; raise --max-unreadable to leave out more")]
    Unreadable { limit: usize, first: String },
    #[error("{name}: {message}")]
    Setting { name: &'static str, message: String },
    #[error("{what} are not of the same collation: {difference}")]
    Mismatch { what: String, difference: String },
    #[error("sequence {sequence}: {what}")]
    Run { sequence: u64, what: String },
    #[error("stopped; {finished} finished work units were kept, and the same command goes on from there")]
    Cancelled { finished: usize },
    #[error(transparent)]
    Data(#[from] tdb_data::Error),
}

/// `Result` with this crate's [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }

    pub(crate) fn content(path: &Path, message: impl ToString) -> Self {
        Self::Content { path: path.to_owned(), message: message.to_string() }
    }

    pub(crate) fn setting(name: &'static str, message: impl Into<String>) -> Self {
        Self::Setting { name, message: message.into() }
    }

    pub(crate) fn run(sequence: u64, error: &tdb_model::Error) -> Self {
        Self::Run { sequence, what: error.to_string() }
    }
}
