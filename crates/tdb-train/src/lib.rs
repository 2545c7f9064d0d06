//! Trains the small model that comes with the debugger, and sparse autoencoders.

pub mod bpe;
pub mod dice;
pub mod error;
pub mod eval;
pub mod folder;
pub mod gpt;
pub mod grammar;
pub mod optimizer;
pub mod sae;
pub mod training;

pub use error::{Error, Result};
pub use eval::{EvalOptions, EvalReport, evaluate};
pub use folder::Model;
pub use training::{Progress, Recipe, TrainOptions, train};
