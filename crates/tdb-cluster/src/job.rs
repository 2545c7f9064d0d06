//! What is to be done, as it travels to the workers.

use serde::{Deserialize, Serialize};
use tdb_collate::Plan;
use tdb_server::cli::collate;

/// A collation as it was asked for, and the plan that came of it: a worker opens the one and must come to the other.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    pub asked: collate::Args,
    pub plan: Plan,
}

/// What a task does with its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Opens model and text, compares them with the plan, and writes to the store and removes what it wrote.
    Check,
    /// Makes the work unit that a row names, unless its summary is there.
    Make,
    /// Merges the summaries of a range of layers, whose units are its rows, and writes their records and explanations.
    Merge,
}
