//! Why a request was not answered.

use tdb_api::wire::FieldPath;

/// Every variant carries one sentence for a person.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request asks for something that does not exist or does not fit together.
    #[error("{0}")]
    Bad(String),
    /// As [`Error::Bad`], about one field of the request.
    #[error("{field}: {what}")]
    BadField {
        /// Where it stands in the request.
        field: FieldPath,
        /// What is wrong with it.
        what: String,
    },
    /// Something that the request names is not there, such as a dataset's record of a node.
    #[error("{0}")]
    NotFound(String),
    /// A store could not be read, or what it holds is damaged.
    #[error("{0}")]
    Elsewhere(String),
    /// The caller lost interest.
    #[error("the request was cancelled")]
    Cancelled,
    /// A fault that the request is not to blame for.
    #[error("{0}")]
    Internal(String),
}

impl Error {
    /// The same, with the field that it is about told from further up; `place` is where what was looked at stands there.
    fn within(self, place: FieldPath) -> Self {
        match self {
            Error::Bad(what) => Error::BadField { field: place, what },
            Error::BadField { field, what } => Error::BadField { field: place.join(field), what },
            other => other,
        }
    }

    /// The same, about the field that stands for this one in the request as it was asked.
    pub(crate) fn moved(self, rename: impl FnOnce(FieldPath) -> FieldPath) -> Self {
        match self {
            Error::BadField { field, what } => Error::BadField { field: rename(field), what },
            other => other,
        }
    }
}

/// Tells an error from further down where in the request it was.
pub(crate) trait At {
    /// What was looked at stands at `place` of what is looked at here.
    fn at(self, place: impl FnOnce() -> FieldPath) -> Self;
}

impl<T> At for Result<T> {
    fn at(self, place: impl FnOnce() -> FieldPath) -> Self {
        self.map_err(|error| error.within(place()))
    }
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

/// `Err(Error::Bad(..))` from a format string; with `at` a field, `Err(Error::BadField { .. })`.
macro_rules! bad {
    (at $field:expr, $($arg:tt)*) => {
        Err($crate::error::Error::BadField { field: $field.into(), what: format!($($arg)*) })
    };
    ($($arg:tt)*) => { Err($crate::error::Error::Bad(format!($($arg)*))) };
}
pub(crate) use bad;
