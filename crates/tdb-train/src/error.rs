use std::path::PathBuf;

/// What can go wrong while training; each says which file or setting, and why.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path}: {}", tdb_data::io_reason(source, tdb_data::START_AGAIN))]
    File { path: PathBuf, source: std::io::Error },
    #[error("{path}: {message}")]
    Content { path: PathBuf, message: String },
    #[error("{name}: {message}")]
    Setting { name: &'static str, message: String },
    #[error("the model: {0}")]
    Model(String),
    #[error("the text: {0}")]
    Text(String),
    #[error("the tokenizer: {0}")]
    Tokenizer(String),
    #[error("the loss is {loss} at step {step}: training has diverged, try a lower learning rate")]
    Diverged { step: usize, loss: f32 },
}

pub type Result<T> = std::result::Result<T, Error>;

impl From<tdb_model::Error> for Error {
    fn from(error: tdb_model::Error) -> Self {
        Self::Model(error.to_string())
    }
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::Model(error.to_string())
    }
}

impl Error {
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }

    pub(crate) fn content(path: impl Into<PathBuf>, message: impl ToString) -> Self {
        Self::Content { path: path.into(), message: message.to_string() }
    }

    pub(crate) fn setting(name: &'static str, message: impl Into<String>) -> Self {
        Self::Setting { name, message: message.into() }
    }
}
