//! What the server tells about itself beyond the reference's interface.

use crate::inference::ModelInfoResponse;
use crate::token_ref::TokenRef;
use crate::wire::{wire_query, wire_struct};

wire_struct! {
    /// Sizes of a model.
    pub struct ModelShape {
        pub n_layers: i64,
        pub n_heads: i64,
        pub d_model: i64,
        pub d_mlp: i64,
        pub vocab_size: i64,
        /// Whether neurons have two pre-activations, a gate and what its activation is multiplied with.
        pub mlp_is_gated: bool,
        /// The longest prompt that the model can take, in tokens.
        pub context_length: i64,
    }
}

wire_struct! {
    /// One of several dictionaries that answer together.
    pub struct LoadedDictionary {
        pub name: String,
        /// The layers of the model that have it.
        pub layers: Vec<i64>,
    }
}

wire_struct! {
    /// An autoencoder that the server has.
    pub struct AutoencoderInfo {
        pub name: String,
        pub n_latents: i64,
        /// Which activation it reads and reconstructs: `resid_pre`, `attn_v_out`, `resid_delta_attn`,
        /// `resid_post_attn`, `mlp_in`, `mlp_post_act`, `resid_delta_mlp`, `resid_post_mlp`, or `mlp_transcoder` from
        /// an MLP layer's input to its output.
        pub site: String,
        /// The layers of the model that have it.
        pub layers: Vec<i64>,
        /// What is done to its input first: `none`, `centered`, `layer-norm` or `constant-norm`.
        pub normalization: String,
        /// Whether something goes from its input to its output beside the latents.
        pub has_skip: bool,
        /// Where it was loaded as several, in layers of their own: each by its own name. Else it alone.
        pub dictionaries: Vec<LoadedDictionary>,
    }
}

wire_struct! {
    /// A question to begin with.
    pub struct SuggestedQuestion {
        pub prompt: String,
        pub target_tokens: Vec<TokenRef>,
        pub distractor_tokens: Vec<TokenRef>,
    }
}

wire_struct! {
    /// What a request may ask for at most. Beyond it the answer is a 4xx that names the limit.
    pub struct LimitsResponse {
        /// Bytes of a request's body.
        pub max_body_bytes: i64,
        /// Items of any list in a request.
        pub max_list_items: i64,
        /// Tokens of a prompt.
        pub max_prompt_tokens: i64,
        /// Runs in one request.
        pub max_sub_requests: i64,
        /// Things asked of one run.
        pub max_specs_per_run: i64,
        /// Things asked of all runs of one request.
        pub max_specs: i64,
        /// Ablations of one run.
        pub max_ablations: i64,
        /// Nodes, tokens or attended-to tokens asked for as "top k".
        pub max_top_k: i64,
        /// Bytes of an answer, as they can become at most; a request is refused before it is computed.
        pub max_answer_bytes: i64,
        /// Nodes read in token space times tokens of the vocabulary.
        pub max_token_scores: i64,
        /// Bytes of the activations of all runs of one request.
        pub max_activation_bytes: i64,
        /// Runs with a node removed or an activation patched, of one request.
        pub max_varied_runs: i64,
        /// Multiplications that `/head_readings` spends on the pairs of the vocabulary, for each circuit; beyond them
        /// it tells how strong a pair that it did not see can be.
        pub max_pair_products: i64,
        /// Seconds that one request may compute.
        pub max_seconds: i64,
        /// Requests that compute at the same time.
        pub workers: i64,
        /// Requests that wait beyond those; further ones are answered 429.
        pub queue_length: i64,
        /// Bytes of finished answers that clients have not taken yet; beyond it the connection that holds most is cut.
        pub max_unsent_bytes: i64,
        /// Open connections; beyond it the one that its client has left alone longest is closed.
        pub max_connections: i64,
        /// Seconds that a connection may be open without a request.
        pub idle_seconds: i64,
        /// Seconds that a request's body may take to arrive.
        pub body_seconds: i64,
        /// Seconds that a client may take nothing of an answer that is being sent.
        pub write_seconds: i64,
    }
}

wire_struct! {
    /// Everything a client may want to know before it asks.
    pub struct ServerInfoResponse {
        /// Version of the server.
        pub version: String,
        /// The same as `POST /model_info`; null when the server runs without a model.
        pub model: Option<ModelInfoResponse>,
        pub shape: Option<ModelShape>,
        /// The token that texts begin with in the way of this kind of model; null if there is none. It is never put
        /// before a prompt unless it stands there.
        pub beginning_of_text: Option<Token>,
        /// A question that the model can know, for those who have none yet.
        pub suggested_question: Option<SuggestedQuestion>,
        /// Where the model runs: `cpu`, or a GPU by kind and number, such as `cuda:0`.
        pub device: Option<String>,
        pub mlp_autoencoder: Option<AutoencoderInfo>,
        pub attention_autoencoder: Option<AutoencoderInfo>,
        pub residual_autoencoder: Option<AutoencoderInfo>,
        pub limits: LimitsResponse,
        /// Whether new explanations can be written and scored here: whether a language model is set up.
        pub writes_explanations: bool,
    }
}

wire_struct! {
    /// A text to be split into tokens.
    pub struct TokenizeRequest {
        pub text: String,
    }
}

wire_struct! {
    /// A token of a text.
    pub struct Token {
        pub id: i64,
        /// Decoded alone: parts of one character become U+FFFD.
        pub text: String,
    }
}

wire_struct! {
    /// The tokens of a text.
    pub struct TokenizeResponse {
        pub tokens: Vec<Token>,
    }
}

wire_query! {
    /// Asks for tokens of the vocabulary.
    pub struct VocabularyRequest {
        /// What their texts begin with.
        pub prefix: String,
    }
}
