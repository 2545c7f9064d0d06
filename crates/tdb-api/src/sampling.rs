//! Continuing a prompt, with and without ablations.

use crate::index::NodeAblation;
use crate::wire::wire_struct;

wire_struct! {
    /// Asks for a continuation. With ablations there are two: side 0 with them, side 1 without, drawn by the same seed.
    pub struct SampleRequest {
        pub prompt: String,
        /// Nodes held at a value; those at every token hold for what is drawn, too.
        pub node_ablations: Option<Vec<NodeAblation>>,
        /// How many tokens to draw at most.
        pub tokens: i64,
        /// 0 takes the likeliest token.
        pub temperature: f64,
        /// Only the fewest likeliest tokens with at least this probability together, above 0 and at most 1.
        pub top_p: f64,
        pub seed: i64,
    }
}
