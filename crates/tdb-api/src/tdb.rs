//! The debugger's question: what makes the target more likely than the distractor?

use crate::TokenRef;
use crate::alignment::AlignedTokens;
use crate::index::{NodeAblation, NodeToTrace};
use crate::wire::{wire_enum, wire_struct, wire_tag};

wire_enum! {
    /// The unit of an MLP layer in the node table.
    pub enum ComponentTypeForMlp {
        Neuron = "neuron",
        AutoencoderLatent = "autoencoder_latent",
    }
}

wire_enum! {
    /// The unit of an attention layer in the node table.
    pub enum ComponentTypeForAttention {
        AttentionHead = "attention_head",
        AutoencoderLatent = "autoencoder_latent",
    }
}

wire_tag! {
    /// `specType` of [`TdbRequestSpec`].
    pub struct TdbSpecTag = "tdb_request_spec"
}

wire_struct! {
    /// One side of the debugger's question.
    pub struct TdbRequestSpec {
        /// May be left out.
        #[serde(skip_serializing)]
        pub spec_type: TdbSpecTag,
        /// The text; the question is about the token that follows it.
        pub prompt: String,
        /// Each exactly one token; at least one, unless a node is traced.
        pub target_tokens: Vec<TokenRef>,
        /// Each exactly one token.
        pub distractor_tokens: Vec<TokenRef>,
        /// Neurons or latents.
        pub component_type_for_mlp: ComponentTypeForMlp,
        /// Heads or latents.
        pub component_type_for_attention: ComponentTypeForAttention,
        /// The layer of the residual dictionary whose latents the node table lists. Dictionaries of several layers
        /// describe the same stream at different times, so that direct effects add up for one of them only: of the
        /// other nodes, the table lists those that write after it. Null: no latents of the residual stream.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub residual_cut_layer: Option<i64>,
        /// Whether the table lists what dictionaries leave over, and what goes beside a transcoder's latents, as nodes.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub list_error_nodes: Option<bool>,
        /// How many of the largest and of the smallest nodes, for each column of the table and each type of node.
        pub top_and_bottom_k_for_node_table: i64,
        /// Accepted, without effect on the answer: a page may hide those layers.
        pub hide_early_layers_when_ablating: bool,
        /// Nodes set to a value.
        pub node_ablations: Option<Vec<NodeAblation>>,
        /// The node whose cause is asked for, in place of the logits.
        pub upstream_node_to_trace: Option<NodeToTrace>,
        /// With an upstream head traced through its value: the node on which that head's effect is asked for.
        pub downstream_node_to_trace: Option<NodeToTrace>,
    }
}

wire_struct! {
    /// One side, or two to be compared: their node tables hold the same nodes.
    pub struct BatchedTdbRequest {
        pub sub_requests: Vec<TdbRequestSpec>,
        /// Of two sides: which tokens of the first prompt stand for which of the second, each at most once. The prompts
        /// may then differ in length. Each side's lists hold its own nodes and those that stand for nodes of the other,
        /// named by its own tokens; a node with a token that has no partner is listed on its own side alone.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub alignment: Option<Vec<AlignedTokens>>,
        /// Whether each side's answer carries the checks that it passed. They cost about a tenth of the answer.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub checks: Option<bool>,
    }
}
