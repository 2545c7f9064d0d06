//! Some nodes taken as a circuit: how they act on each other, and what they do without all others.

use crate::TokenRef;
use crate::effects::AblateTo;
use crate::index::{AttentionTraceType, MirroredNodeIndex, NodeAblation};
use crate::tdb::{ComponentTypeForAttention, ComponentTypeForMlp};
use crate::wire::wire_struct;

wire_struct! {
    /// Which nodes of the run that answers the debugger's question are a circuit, and what all others are set to.
    pub struct CircuitRequest {
        /// The text; the question is about the token that follows it.
        pub prompt: String,
        /// Each exactly one token; at least one.
        pub target_tokens: Vec<TokenRef>,
        /// Each exactly one token.
        pub distractor_tokens: Vec<TokenRef>,
        /// Whether the nodes of MLP layers are neurons or latents and their error.
        pub component_type_for_mlp: ComponentTypeForMlp = ComponentTypeForMlp::Neuron,
        /// Whether the nodes of attention layers are heads (at pairs of tokens) or latents and their error.
        pub component_type_for_attention: ComponentTypeForAttention = ComponentTypeForAttention::AttentionHead,
        /// The layer whose residual latents and error stand for all that is written before them; none of those then are
        /// nodes, embeddings among them.
        pub residual_cut_layer: Option<i64>,
        /// Nodes set to a value in every run.
        pub node_ablations: Option<Vec<NodeAblation>>,
        /// The circuit's nodes: of the kinds above, or, without a cut, embeddings (`layer` without a layer). Heads name
        /// both tokens.
        pub nodes: Vec<MirroredNodeIndex>,
        /// What other nodes are set to: zero, or their mean over this prompt's tokens (of heads over the pairs that
        /// they see). Embeddings and biases are never ablated, nor is what goes beside a transcoder's latents.
        pub ablate_to: AblateTo = AblateTo::Zero,
    }
}

wire_struct! {
    /// How much of a node's part in the objective goes through another node of the circuit, or past all others.
    pub struct CircuitEdge {
        /// Position of the node that writes.
        pub from: i64,
        /// Position of the node that reads; null for the output.
        pub to: Option<i64>,
        /// Through which input of a head: Q, K or V; null for others.
        pub through: Option<AttentionTraceType>,
        /// To first order, in units of the objective: the write of `from` along the derivative of `to`'s activation,
        /// times the gradient at `to`; or along the gradient of the objective. The edges from a node to the output and
        /// to all nodes that read it, also those outside the circuit, add up to its activation times gradient.
        pub weight: f64,
    }
}

wire_struct! {
    /// A circuit's edges, and the objective with and without it.
    pub struct CircuitResponse {
        /// Mean logit of the targets minus mean logit of the distractors.
        pub objective: f64,
        /// The same with all nodes but the circuit's ablated.
        pub kept: f64,
        /// The same with the circuit's nodes ablated and no others.
        pub removed: f64,
        /// The same with all nodes ablated.
        pub empty: f64,
        /// `(kept - empty) / (objective - empty)`: what the circuit alone restores. Null where all nodes together
        /// change nothing.
        pub faithfulness: Option<f64>,
        /// Activation times gradient of each node, in the order of the request.
        pub estimates: Vec<f64>,
        /// Those that are not zero.
        pub edges: Vec<CircuitEdge>,
    }
}
