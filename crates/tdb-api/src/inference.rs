//! Running the model: on which prompt, with which interventions, backward from what.

use crate::TokenRef;
use crate::index::{AblationSpec, MirroredActivationIndex, MirroredTraceConfig};
use crate::wire::{wire_enum, wire_struct};

wire_enum! {
    /// The function of the last token's logits whose gradient is taken.
    pub enum LossFnName {
        /// Mean of the target logits minus mean of the distractor logits.
        LogitDiff = "logit_diff",
        /// Mean of the target logits minus mean of all logits.
        LogitMinusMean = "logit_minus_mean",
        /// Sum of the target probabilities minus that of the distractors.
        Probs = "probs",
        /// Nothing: every gradient is zero unless one is set.
        Zero = "zero",
    }
}

wire_struct! {
    /// A function of the logits.
    pub struct LossFnConfig {
        /// Which one.
        pub name: LossFnName,
        /// Each exactly one token.
        pub target_tokens: Option<Vec<TokenRef>>,
        /// Each exactly one token.
        pub distractor_tokens: Option<Vec<TokenRef>>,
    }
}

wire_struct! {
    /// One run: a forward pass and, where asked for, a backward pass.
    pub struct InferenceRequestSpec {
        /// The text; `<|endoftext|>` in it is the special token.
        pub prompt: String,
        /// Interventions, of both passes.
        pub ablation_specs: Option<Vec<AblationSpec>>,
        /// The function of the logits to go backward from.
        pub loss_fn_config: Option<LossFnConfig>,
        /// The node to go backward from.
        pub trace_config: Option<MirroredTraceConfig>,
        /// The activation whose gradient within its own layer is wanted.
        pub activation_index_for_within_layer_grad: Option<MirroredActivationIndex>,
    }
}

wire_struct! {
    /// What a run tells about itself.
    pub struct InferenceAndTokenData {
        /// Seconds.
        pub inference_time: f64,
        /// Bytes on the accelerator, where there is one.
        pub memory_used_before: Option<f64>,
        /// Bytes on the accelerator, where there is one.
        pub memory_used_after: Option<f64>,
        /// Remarks.
        pub log: Option<String>,
        /// The function of the logits, when one was asked for.
        pub loss: Option<f64>,
        /// The value of the traced node, when one was traced.
        pub activation_value_for_backward_pass: Option<f64>,
        /// The prompt's tokens.
        pub tokens_as_ints: Vec<i64>,
        /// Their texts, each decoded alone: parts of one character become U+FFFD.
        pub tokens_as_strings: Vec<String>,
    }
}

wire_struct! {
    /// The answer to a run that nothing else was asked of.
    pub struct InferenceResponse {
        /// What the run tells about itself.
        pub inference_and_token_data: InferenceAndTokenData,
    }
}

wire_struct! {
    /// Which model the server has.
    pub struct ModelInfoResponse {
        /// Its name.
        pub model_name: Option<String>,
        /// Whether MLP latents can be asked for.
        pub has_mlp_autoencoder: bool,
        /// The name of that autoencoder.
        pub mlp_autoencoder_name: Option<String>,
        /// Whether attention latents can be asked for.
        pub has_attention_autoencoder: bool,
        /// The name of that autoencoder.
        pub attention_autoencoder_name: Option<String>,
        /// The name of the dictionary on the residual stream, whose latents can then be asked for. Left out where there
        /// is none.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub residual_autoencoder_name: Option<String>,
        /// Number of layers.
        pub n_layers: i64,
    }
}
