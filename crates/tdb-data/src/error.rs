//! One error type for everything between a registry entry and a parsed record.

use std::path::Path;

/// What went wrong, in a sentence for a person. `Clone`, because one failed load may have several waiters.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The thing asked for exists nowhere it was looked for.
    #[error("{0}")]
    NotFound(String),
    /// The request itself cannot be answered: an unknown dataset, a location outside the registry, a wrong combination.
    #[error("{0}")]
    Bad(String),
    /// A file is there but is not what it should be.
    #[error("{file} is damaged or not what was expected: {problem}")]
    Damaged { file: String, problem: String },
    /// The store is there and refuses.
    #[error("access to {location} was refused: {reason}")]
    Denied { location: String, reason: String },
    /// The store could not be reached, or broke off, however often it was tried.
    #[error("{location} could not be read: {reason}")]
    Network { location: String, reason: String },
    /// The store could not be reached, or would not take it.
    #[error("{location} could not be written: {reason}")]
    Unsent { location: String, reason: String },
    /// Offline mode, and the cache does not have it.
    #[error(
        "{location} is not in the cache and offline mode is on; fetch it on a machine with network (`tdb fetch`) or \
         turn offline mode off"
    )]
    Offline { location: String },
    /// The cache does not have it, and nothing can be written there.
    #[error(
        "{location} is not in the cache, which cannot be written to ({path}: {reason}); --cache names another folder"
    )]
    Unwritable { location: String, path: String, reason: String },
    /// Nothing can be written where explanations are kept.
    #[error("explanations cannot be kept in {path}: {reason}; TDB_EXPLANATIONS names another folder")]
    Unkept { path: String, reason: String },
    /// A local file or folder could not be read or written.
    #[error("{path}: {reason}")]
    Io { path: String, reason: String },
    /// The registry, a mirror rule or a setting is wrong.
    #[error("{0}")]
    Config(String),
}

/// `Result` with this crate's [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the system says about a file, in words; `next` is what to do once there is room on a full disk.
pub fn io_reason(error: &std::io::Error, next: &str) -> String {
    match error.kind() {
        std::io::ErrorKind::StorageFull => format!("the disk is full; make room and {next}"),
        _ => error.to_string(),
    }
}

/// What to do once there is room for the results of a command that goes on where it was.
pub const START_AGAIN: &str = "start the same command again";

impl Error {
    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        let next = "try again, what has arrived is kept (--cache names another folder)";
        Self::Io { path: path.display().to_string(), reason: io_reason(&source, next) }
    }

    pub(crate) fn damaged(file: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Damaged { file: file.into(), problem: problem.into() }
    }

    /// True if asking the next place may help: the thing is simply not here.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound(_))
    }
}
