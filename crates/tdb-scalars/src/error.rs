//! Why a request was not answered.

/// Every variant carries one sentence for a person.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request asks for something that does not exist or does not fit together.
    #[error("{0}")]
    Bad(String),
    /// Something that the request names is not there, such as a dataset's record of a node.
    #[error("{0}")]
    NotFound(String),
    /// The caller lost interest.
    #[error("the request was cancelled")]
    Cancelled,
    /// A fault that the request is not to blame for.
    #[error("{0}")]
    Internal(String),
}

impl From<tdb_model::Error> for Error {
    fn from(error: tdb_model::Error) -> Self {
        match error {
            tdb_model::Error::Cancelled => Error::Cancelled,
            tdb_model::Error::Input { what } => Error::Bad(what),
            lack @ tdb_model::Error::Memory { .. } => {
                Error::Bad(format!("{lack}; ask for fewer tokens or fewer nodes"))
            }
            other => Error::Internal(other.to_string()),
        }
    }
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        tdb_model::Error::from(error).into()
    }
}

/// The outcome of what a request asks for.
pub type Result<T> = std::result::Result<T, Error>;

/// `Err(Error::Bad(..))` from a format string.
macro_rules! bad {
    ($($arg:tt)*) => { Err($crate::error::Error::Bad(format!($($arg)*))) };
}
pub(crate) use bad;
