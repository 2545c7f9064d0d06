//! Explanations of components in words.

use crate::names::DerivedScalarType;
use crate::wire::{wire_enum, wire_query, wire_struct};

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

wire_enum! {
    /// What a score of an explanation measures. They are not comparable with each other.
    pub enum ScoreKind {
        /// Correlation of predicted with true activations: 1 is perfect, 0 is chance.
        Correlation = "correlation",
        /// Area under the ROC curve of predicted pairs: 1 is perfect, 0.5 is chance.
        RocAuc = "roc_auc",
        /// Mean of true-positive and true-negative rate: 1 is perfect, 0.5 is chance.
        BalancedAccuracy = "balanced_accuracy",
    }
}

wire_struct! {
    /// Asks for stored explanations of several components at once.
    pub struct ExistingExplanationsBatchRequest {
        pub requests: Vec<ExistingExplanationsRequest>,
    }
}

wire_struct! {
    /// Stored explanations of several components.
    pub struct ExistingExplanationsBatchResponse {
        /// In the order of the request; null for a component of which nothing is found.
        pub explanations: Vec<Option<Vec<AttributedScoredExplanation>>>,
    }
}

wire_query! {
    /// Asks for components by words of their stored explanations.
    pub struct ExplanationSearchRequest {
        /// Words, all of which occur in the explanation, in upper or lower case.
        pub text: String,
    }
}

wire_struct! {
    /// A component whose explanation holds the words.
    pub struct ExplainedComponent {
        /// The set of records that it belongs to.
        pub dataset: String,
        /// The scalar that the records are of.
        pub dst: DerivedScalarType,
        pub layer_index: i64,
        pub activation_index: i64,
        pub explanation: String,
    }
}

wire_struct! {
    /// Components whose explanations hold the words.
    pub struct ExplanationSearchResponse {
        pub found: Vec<ExplainedComponent>,
        /// Whether there are more.
        pub more: bool,
        /// Whether any set of explanations can be searched here: those that are files on this machine or in the
        /// program.
        pub searchable: bool,
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
        /// What the score measures; where it is left out, a correlation, which is what the reference has alone.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub score_kind: Option<ScoreKind>,
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
