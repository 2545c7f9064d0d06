//! Explanations of nodes in words, written by a language model from a node's top examples, and how well they predict it.
//!
//! ```text
//! client     any server that speaks OpenAI's chat protocol: address, key and model from outside; budget, retries
//! examples   which examples are shown and which are held out, and activations as whole numbers from 0 to 10
//! prompts    every word that a language model is given, under one version
//! simulate   from an explanation to expected activations; pairs and detection likewise
//! score      calibration, correlation, area under the curve
//! explainer  the two questions of the interface: explain and score, answered from what is stored where that is there
//! ```

mod client;
pub mod date;
mod error;
mod examples;
mod explainer;
mod prompts;
mod reply;
pub mod score;
mod simulate;

pub use client::{Client, ClientConfig, Spent};
pub use error::{Error, Result};
pub use explainer::{Explained, Explainer, ScoreMethod, Scored, is_pairs};
pub use prompts::VERSION as PROMPT_VERSION;
