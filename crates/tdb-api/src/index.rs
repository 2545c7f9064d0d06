//! Pointing at nodes and tensors of a run: what to read, to set, or to trace.

use crate::names::{ActivationLocationType, NodeType, PassType};
use crate::wire::{Decode, Describe, Errors, Schemas, wire_enum, wire_struct};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

wire_struct! {
    /// A node: a part of the model at a token, or at a pair of tokens.
    pub struct MirroredNodeIndex {
        /// What it is.
        pub node_type: NodeType,
        /// Heads: attended-from token, attended-to token, head. Neurons and latents: token, unit. Embedding: token, 0.
        /// Vocabulary: token or -1 for the last, vocabulary id. Null stands for all.
        pub tensor_indices: Vec<Option<i64>>,
        /// Null for what exists once in the model.
        pub layer_index: Option<i64>,
        /// Whether its value or its gradient is meant.
        pub pass_type: PassType,
    }
}

wire_struct! {
    /// Entries of a tensor of a run.
    pub struct MirroredActivationIndex {
        /// The tensor.
        pub activation_location_type: ActivationLocationType,
        /// An index for each axis; fewer than axes leave the rest whole.
        pub tensor_indices: Vec<AllOrOneIndex>,
        /// Null for a tensor that exists once in the model.
        pub layer_index: Option<i64>,
        /// Whether the values or their gradients are meant.
        pub pass_type: PassType,
    }
}

/// One index along an axis, or the whole axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AllOrOneIndex {
    /// The whole axis; `"All"` on the wire.
    All,
    /// One entry; a negative one counts from the end.
    One(i64),
}

impl Serialize for AllOrOneIndex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_str("All"),
            Self::One(index) => serializer.serialize_i64(*index),
        }
    }
}

impl Decode for AllOrOneIndex {
    fn decode(value: &Value, errors: &mut Errors) -> Option<Self> {
        match value {
            Value::Null => Some(Self::All),
            Value::String(word) if word == "All" => Some(Self::All),
            other => i64::decode(other, errors).map(Self::One),
        }
    }
}

impl Describe for AllOrOneIndex {
    fn describe(_: &mut Schemas) -> Value {
        json!({ "anyOf": [{ "type": "integer" }, { "type": "string", "enum": ["All"] }] })
    }
}

wire_struct! {
    /// Entries of a tensor that are set to a value during the run.
    pub struct AblationSpec {
        /// Which entries.
        pub index: MirroredActivationIndex,
        /// The value that they get.
        pub value: f64,
    }
}

wire_struct! {
    /// A node that is set to a value during the forward pass.
    pub struct NodeAblation {
        /// The node. A head is set for all tokens that its attended-from token attends to.
        pub node_index: MirroredNodeIndex,
        /// The value that it gets.
        pub value: f64,
    }
}

wire_enum! {
    /// Through which input of an attention head a trace goes.
    pub enum AttentionTraceType {
        /// The query.
        Q = "Q",
        /// The key.
        K = "K",
        /// Query and key.
        QK = "QK",
        /// The value: what is traced is the effect of the head's write.
        V = "V",
    }
}

wire_enum! {
    /// From which of its two pre-activations a trace of a gated neuron begins.
    pub enum MlpTraceType {
        /// What the activation function reads.
        Gate = "gate",
        /// What its result is multiplied with.
        Up = "up",
    }
}

wire_enum! {
    /// Whether a trace begins before or after the nonlinearity of its node.
    pub enum PreOrPostAct {
        Pre = "pre",
        Post = "post",
    }
}

wire_struct! {
    /// Where a backward pass begins, when it is not a function of the logits.
    pub struct MirroredTraceConfig {
        /// The node whose value is traced back.
        pub node_index: MirroredNodeIndex,
        /// Before or after its nonlinearity.
        pub pre_or_post_act: PreOrPostAct,
        /// Whether the scale of the layer norm in front of the node counts as constant.
        pub detach_layer_norm_scale: bool,
        /// For heads, and only for them.
        pub attention_trace_type: Option<AttentionTraceType>,
        /// For neurons of gated MLP layers, and only for them; the gate if it is left out.
        pub mlp_trace_type: Option<MlpTraceType>,
        /// With a trace through a head's value: the node on which that head's effect is traced.
        pub downstream_trace_config: Option<Box<MirroredTraceConfig>>,
    }
}

wire_struct! {
    /// A node to trace, as the debugger's page asks for it.
    pub struct NodeToTrace {
        /// The node.
        pub node_index: MirroredNodeIndex,
        /// For heads, and only for them.
        pub attention_trace_type: Option<AttentionTraceType>,
        /// For neurons of gated MLP layers, and only for them; the gate if it is left out.
        pub mlp_trace_type: Option<MlpTraceType>,
        /// Understood, but without effect: a request names its downstream node beside the upstream one.
        pub downstream_trace_config: Option<MirroredTraceConfig>,
    }
}
