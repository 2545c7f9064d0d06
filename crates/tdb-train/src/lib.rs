//! Trains the small model that comes with the debugger, and sparse autoencoders.
//!
//! ```text
//! dice       random numbers that never change: everything made here is a function of a seed
//! grammar    text with circuits and facts in it; a tenth of the combinations is withheld
//! bpe        the byte-level tokenizer of that text
//! gpt        a GPT-2's parameters and their gradients, from runs of `tdb-model`
//! optimizer  AdamW, and the course of the learning rate
//! training   the loop: resumable to the same bytes
//! folder     a model's files, in the Hugging Face layout
//! eval       prompts that training never held, asked of any model through `tdb-model`
//! sae        sparse autoencoders for any model and text
//! ```
//!
//! **Invariant.** A training's result depends on its recipe (and, for autoencoders, on model and text), not on the number
//! of threads, on timing, or on having been interrupted.

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
pub use training::{Progress, Recipe, Start, TrainOptions, train};
