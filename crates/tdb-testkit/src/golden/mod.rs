//! Recorded requests and answers ("goldens"), and the rules by which an answer of ours is held against them.
//!
//! A golden is a JSON file `{method, path, request, status, response}` in a folder of one server configuration, whose
//! `_server.json` holds the server's arguments. [`replay::replay`] sends every request of a folder through a closure (a
//! function call, or [`crate::http`]) and counts.
//!
//! The rules:
//! - Statuses are equal. A 4xx with a message is accepted where the recorded server broke with a 500.
//! - Numbers: `|got - want| <= abs + rel |want|`. In a list whose largest magnitude `m` is below 0.1, `abs` shrinks to
//!   `abs * 10 m`, or such lists could not fail.
//! - Durations and memory are only looked at for presence.
//! - Top-k lists: nodes are matched by identity. A node may stand on one side alone only if its value is tied with the
//!   k-th of its type; the order is the recorded one, but for nodes whose place hinges on a tie.
//! - Error texts are free; a 422 differs at most in a note.
//! - OpenAPI documents: paths, operation ids, tags, property names, required lists and enum values.

mod case;
mod compare;
mod node_lists;
mod openapi;
mod ranked;
pub mod replay;

pub use case::{Case, Folder, find_folders};
pub use compare::{Comparison, Rules, compare};
pub use node_lists::Node;
