//! Collates what every neuron, attention head and latent of a model responds to in a text.
//!
//! ```text
//! corpus     text, JSON lines, Parquet -> sequences of tokens, each with a number that does not depend on the sharding
//! measure    one forward pass -> the values of every unit on the sequence
//! summary    top examples, random samples, moments: merged in any order, to the same bytes
//! work       (shard, layers) -> one file; what is finished stays finished
//! summaries  where those files are: a folder, or an object store
//! parts      the summaries of all shards, merged one after the other
//! output     summaries -> one JSON file for each node, or one file for each layer that is read in place
//! estimate   a sample of the text -> units, bytes and hours, before anything is made
//! explain    records -> a sentence for each node and a score, without a language model
//! ```
//!
//! **Invariant.** Nothing that is written depends on the number of shards, on the order of merging or on timing.

mod codec;
pub mod collect;
pub mod corpus;
mod error;
mod estimate;
mod exact_sum;
pub mod example;
pub mod explain;
mod file;
pub mod measure;
pub mod output;
mod parts;
pub mod summaries;
pub mod summary;
mod unit;
pub mod work;

pub use collect::Watch;
pub use error::{Error, Result};
pub use estimate::{Estimate, estimate};
pub use exact_sum::ExactSum;
pub use parts::Parts;
pub use summaries::{Summaries, UnitName};
pub use summary::{Interval, Plan, Sizes, Summary};
pub use unit::Kind;
pub use work::Collation;
