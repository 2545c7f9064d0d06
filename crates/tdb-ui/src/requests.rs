//! Requests with everything left out that the pages do not ask for.

use tdb_api::{DerivedScalarType, DerivedScalarsRequestSpec, InferenceRequestSpec, PassType};

/// A run of the prompt as it is.
pub fn run(prompt: impl Into<String>) -> InferenceRequestSpec {
    InferenceRequestSpec {
        prompt: prompt.into(),
        ablation_specs: None,
        loss_fn_config: None,
        trace_config: None,
        activation_index_for_within_layer_grad: None,
    }
}

/// A scalar of a component at every token.
pub fn scalars(dst: DerivedScalarType, layer_index: Option<i64>, activation_index: i64) -> DerivedScalarsRequestSpec {
    DerivedScalarsRequestSpec {
        spec_type: Default::default(),
        dst,
        layer_index,
        activation_index,
        normalize_activations_using_neuron_record: None,
        pass_type: PassType::Forward,
        num_top_tokens: None,
    }
}
