//! Records: the examples that excite a component most.

use crate::component::Histogram;
use crate::names::DerivedScalarType;
use crate::tokens::TokenAndScalar;
use crate::wire::wire_struct;

wire_struct! {
    /// A component and where its record may be found.
    pub struct NodeIdAndDatasets {
        /// The scalar that the record is of.
        pub dst: DerivedScalarType,
        pub layer_index: i64,
        pub activation_index: i64,
        /// Places or registered names, tried in this order.
        pub datasets: Vec<String>,
    }
}

wire_struct! {
    /// What one token reads from each token before it and from itself, with sums and maxima of what goes in and out.
    pub struct TokenAndAttentionScalars {
        /// The token's text.
        pub token: String,
        /// What it reads, from the first token to itself.
        pub scalars: Vec<f64>,
        /// The same, scaled to [0, 1].
        pub normalized_scalars: Vec<f64>,
        pub total_scalar_in: f64,
        pub normalized_total_scalar_in: f64,
        pub max_scalar_in: f64,
        pub normalized_max_scalar_in: f64,
        pub total_scalar_out: f64,
        pub normalized_total_scalar_out: f64,
        pub max_scalar_out: f64,
        pub normalized_max_scalar_out: f64,
    }
}

wire_struct! {
    /// Examples of a component with one scalar for each token.
    pub struct NeuronRecordResponse {
        /// Where the record was found.
        pub dataset: String,
        pub max_activation: f64,
        pub top_activations: Vec<Vec<TokenAndScalar>>,
        pub random_sample: Vec<Vec<TokenAndScalar>>,
    }
}

wire_struct! {
    /// Examples of a component with one scalar for each pair of tokens.
    pub struct AttentionHeadRecordResponse {
        /// Where the record was found.
        pub dataset: String,
        pub max_attention_activation: f64,
        pub most_positive_token_sequences: Vec<Vec<TokenAndAttentionScalars>>,
        pub random_token_sequences: Vec<Vec<TokenAndAttentionScalars>>,
    }
}

wire_struct! {
    /// What a record says of a component over the whole text that it was collated on. Null where the record does not
    /// tell.
    pub struct RecordSummaryResponse {
        /// Where the record was found.
        pub dataset: String,
        /// How many values were seen: one for each token, or for each pair of tokens.
        pub values: Option<i64>,
        /// How many of them were above 0.
        pub positive_values: Option<i64>,
        /// How many texts were seen.
        pub texts: Option<i64>,
        /// In how many of them there was a value above 0.
        pub active_texts: Option<i64>,
        /// Of all values but zeros.
        pub histogram: Option<Histogram>,
        pub mean: Option<f64>,
        /// Of the population.
        pub variance: Option<f64>,
        pub skewness: Option<f64>,
        /// 3 for a normal distribution.
        pub kurtosis: Option<f64>,
        /// Largest values of texts between the quantiles below.
        pub quantile_boundaries: Vec<f64>,
        /// Texts from each quantile of those with a value above 0, by their largest value.
        pub examples_by_quantile: Vec<Vec<Vec<TokenAndScalar>>>,
    }
}

wire_struct! {
    /// A registered set of records.
    pub struct NeuronDatasetMetadata {
        /// The name in requests and URLs.
        pub short_name: String,
        /// The scalar that its records are of.
        pub derived_scalar_type: String,
        /// The name for people.
        pub user_visible_name: String,
        /// Where it is.
        pub neuron_dataset_path: String,
    }
}
