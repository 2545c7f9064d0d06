//! Explanations of nodes in words, written by a language model from a node's top examples, and how well they predict it.
//!
//! ```text
//! client     any server that speaks OpenAI's chat protocol: address, key and model from outside; budget, retries
//! transport  one question over HTTP, and what servers answer when they do not take it
//! dialect    which parameters a server takes, learnt from what it refuses
//! reply      what a model answered: the text after its thinking, numbers, JSON
//! phrase     the phrase in an answer, without what models put around it
//! examples   which examples are shown and which are held out, and activations as whole numbers from 0 to 10
//! prompts    every word that a language model is given, under one version
//! simulate   from an explanation to expected activations; pairs and detection likewise
//! score      calibration, correlation, area under the curve
//! explainer  the two questions of the interface: explain and score, answered from what is stored where that is there
//! ```

mod client;
pub mod date;
mod dialect;
mod error;
mod examples;
mod explainer;
mod phrase;
mod prompts;
mod reply;
pub mod score;
mod simulate;
mod transport;

pub use client::{Client, ClientConfig, Spent};
pub use error::{Error, Result};
pub use explainer::{Explained, Explainer, ScoreMethod, Scored, is_pairs};
pub use prompts::VERSION as PROMPT_VERSION;

/// Reads the body of a server's answer in every way in which answers are read, and throws away what it says: for those that
/// try damaged ones.
#[doc(hidden)]
pub fn read_in_every_way(body: &[u8]) {
    for status in [reqwest::StatusCode::BAD_REQUEST, reqwest::StatusCode::TOO_MANY_REQUESTS] {
        let refusal = transport::refusal(status, body);
        refusal.may_pass();
        dialect::Dialect::default().learn(&refusal);
    }
    let Ok(value) = serde_json::from_slice(body) else { return };
    let Ok(reply) = reply::Reply::read(&value) else { return };
    let _ = phrase::phrase(&reply.text);
    let _ = reply.distribution(10);
    let _ = reply.json::<simulate::Responses>();
    let _ = reply.json::<Vec<usize>>();
}
