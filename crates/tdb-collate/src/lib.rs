//! Collates what every neuron, attention head and latent of a model responds to in a text.
//!
//! ```text
//! corpus     text, JSON lines, Parquet -> sequences of tokens, each with a number that does not depend on the sharding
//! measure    one forward pass -> the values of every unit on the sequence
//! summary    top examples, random samples, moments: merged in any order, to the same bytes
//! work       (shard, layers) -> one file; what is finished stays finished
//! output     summaries -> one JSON file for each node, or one file for each layer that is read in place
//! explain    records -> a sentence for each node and a score, without a language model
//! ```
//!
//! **Invariant.** Nothing that is written depends on the number of shards, on the order of merging or on timing.

mod codec;
pub mod collect;
pub mod corpus;
mod error;
mod exact_sum;
pub mod example;
pub mod explain;
mod file;
pub mod measure;
pub mod output;
pub mod summary;
mod unit;
pub mod work;

pub use collect::Watch;
pub use error::{Error, Result};
pub use exact_sum::ExactSum;
pub use summary::{Plan, Sizes, Summary};
pub use unit::Kind;
pub use work::Collation;
