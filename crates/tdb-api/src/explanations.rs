//! Explanations of components in words.

use crate::names::DerivedScalarType;
use crate::wire::wire_struct;

wire_struct! {
    /// Asks for explanations that are stored.
    pub struct ExistingExplanationsRequest {
        pub dst: DerivedScalarType,
        pub layer_index: i64,
        pub activation_index: i64,
        /// Places of explanations. Either these or `neuron_dataset`, not both.
        pub explanation_datasets: Vec<String>,
        /// The set of records whose explanations are wanted.
        pub neuron_dataset: Option<String>,
    }
}

wire_struct! {
    /// A stored explanation: the reference's fields, and beside them where it comes from, as far as its file says so.
    pub struct AttributedScoredExplanation {
        pub explanation: String,
        /// Null when no score is defined, as for a component that is never active.
        pub score: Option<f64>,
        /// The last part of the path of the set it is from.
        pub dataset_name: String,
        /// How it was made, such as `activations` or `offline-ngrams`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub method: Option<String>,
        /// How it was scored, such as `all-at-once`, `token-by-token`, `pairs` or `detection`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub score_method: Option<String>,
        /// The language model that wrote it, if one did.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub model: Option<String>,
        /// UTC, RFC 3339.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub date: Option<String>,
    }
}

wire_struct! {
    /// Explanations of a component, stored or newly written.
    pub struct ExplanationResult {
        pub explanations: Vec<String>,
        /// Where the record was found.
        pub dataset: String,
    }
}

wire_struct! {
    /// Asks how well an explanation predicts a component's activations.
    pub struct ScoreRequest {
        pub dst: DerivedScalarType,
        pub layer_index: i64,
        pub activation_index: i64,
        /// Places or registered names, tried in this order.
        pub datasets: Vec<String>,
        pub explanation: String,
        /// How many examples to predict; null: as many as there are.
        pub max_sequences: Option<i64>,
    }
}

wire_struct! {
    /// A score.
    pub struct ScoreResult {
        pub score: f64,
        pub dataset_path: String,
    }
}
