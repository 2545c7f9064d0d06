//! Derived scalars: what a node did in a run, and what it did to the question.
//!
//! [`Engine::ask`] answers a [`Question`]. [`Engine`] also takes requests as they cross the wire and gives answers as
//! they do; it knows no HTTP. In between, a request becomes a [`Plan`] (tokens, interventions, objective), the plan a
//! run ([`Side`]), and each derived scalar is a function of the run, layer by layer ([`compute`]).

mod alignment;
mod answer;
mod checks;
mod circuit;
mod collected;
mod component;
mod component_weights;
pub mod compute;
mod context;
mod contributions;
pub mod derived;
pub mod dictionary;
mod edges;
mod effects;
mod engine;
mod error;
mod fidelity;
mod head_readings;
mod head_scores;
pub mod interventions;
mod kept;
mod ledger;
mod logit_lens;
mod metric;
pub mod nodes;
pub mod objective;
mod outcome;
mod pairs;
mod patching;
pub mod place;
mod price;
mod question;
mod rank;
pub mod readings;
mod run;
mod sample;
mod select;
mod side;
mod size;
mod slots;
mod store;
pub mod tdb;
mod tensors;
mod top_k;
pub mod trace;
pub mod values;

pub use checks::RANKED_PROMPT_LIMIT;
pub use collected::Collector;
pub use context::{Context, Observer, RecordMaximum, Records};
pub use engine::{Dictionary, Engine};
pub use error::{Error, Result};
pub use head_readings::PAIR_PRODUCTS;
pub use question::{Ablation, Answer, Effect, Question, TracedNode};
pub use side::{Plan, Side};
pub use size::{Bounds, Size};
