//! Why an explanation was not written or scored.

/// What went wrong, in a sentence for a person.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No language model is set up.
    #[error(
        "no language model is set up, so only stored explanations can be shown: give a model's name \
         (TDB_EXPLAIN_MODEL) and a key (OPENAI_API_KEY), or the address of a server on your side that speaks the same \
         protocol (TDB_EXPLAIN_URL)"
    )]
    NotSetUp,
    /// The node cannot be explained or scored, such as one that never fires.
    #[error("{0}")]
    Unsuitable(String),
    /// The language model's server refused or could not be reached, however often it was tried.
    #[error("the language model at {url} did not answer: {reason}")]
    Model { url: String, reason: String },
    /// The model answered something that cannot be used, also when asked again.
    #[error("the language model's answer could not be used: {0}")]
    Answer(String),
    /// What may be spent is spent.
    #[error("the budget is used up: {0}")]
    Budget(String),
    /// The records or the stored explanations could not be read or written.
    #[error(transparent)]
    Data(#[from] tdb_data::Error),
}

/// `Result` with this crate's [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
