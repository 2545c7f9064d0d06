//! What stands in a URL: the state of the debugger's page, the address of a node's page, the name of a model. And what
//! the pages keep.
//!
//! Pure functions between these and text. The parameter names and forms are those of the interface's first client, so
//! that links made for it open here, and links made here open there.

mod align;
mod examples;
mod kept;
mod node;
mod query;
mod slug;
mod state;

pub use align::{pairs_as_text, token_pairs};
pub use examples::{EXAMPLES, EXAMPLES_MODEL, Example, Held, Reads, Statement, TOUR, TourStep, Traced};
pub use kept::{LogEntry, Snapshot};
pub use node::{NodePage, NodePageKind, NodePageQuery, PROMPT_SEPARATOR};
pub use query::QueryProblem;
pub use slug::ModelSlug;
pub use state::{PageState, SideState};
