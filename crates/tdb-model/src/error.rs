//! What can go wrong when a model is put together or run.

use crate::checkpoint::CheckpointError;
use crate::site::Point;

/// Every error of this crate, with one sentence for a person.
#[allow(missing_docs, reason = "what is said of a variant names its fields")]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `after_layer` said that the run should stop.
    #[error("the run was cancelled")]
    Cancelled,
    /// A hook returned an error.
    #[error("a hook at {point:?} failed: {source}")]
    Hook { point: Point, source: candle_core::Error },
    /// A hook returned a tensor of another shape.
    #[error("a hook at {point:?} returned shape {found:?} where {expected:?} was expected")]
    HookShape { point: Point, expected: Vec<usize>, found: Vec<usize> },
    /// The prompt, an intervention, a seed or a setting does not fit the model.
    #[error("{what}")]
    Input { what: String },
    /// Autoencoders that do not belong to this model, or whose tensors do not fit together.
    #[error("{what}")]
    Autoencoder { what: String },
    /// A device has too little memory left for what was to be computed.
    #[error("the device has too little memory left: {what}")]
    Memory { what: String },
    /// An operation failed.
    #[error("{0}")]
    Operation(candle_core::Error),
    /// A file cannot be read as what it should be.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        // Drivers report it in their own words: "CUDA_ERROR_OUT_OF_MEMORY", "out of memory", "OutOfMemory".
        let what = error.to_string();
        let letters: String = what.chars().filter(char::is_ascii_alphabetic).collect();
        if letters.to_ascii_lowercase().contains("outofmemory") {
            return Error::Memory { what };
        }
        Error::Operation(error)
    }
}

impl Error {
    pub(crate) fn input(what: impl Into<String>) -> Self {
        Error::Input { what: what.into() }
    }
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
