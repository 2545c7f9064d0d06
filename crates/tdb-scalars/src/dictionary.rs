//! The types of nodes that a dictionary (an autoencoder or a transcoder) has.

use tdb_api::NodeType;
use tdb_model::Slot;

/// The type of a slot's latents as nodes.
pub fn latent_type(slot: Slot) -> NodeType {
    match slot {
        Slot::Mlp => NodeType::MlpAutoencoderLatent,
        Slot::Attention => NodeType::AttentionAutoencoderLatent,
        Slot::Residual => NodeType::ResidualAutoencoderLatent,
    }
}

/// The type of what a slot's dictionary leaves over, as a node.
pub fn error_type(slot: Slot) -> NodeType {
    match slot {
        Slot::Mlp => NodeType::MlpAutoencoderError,
        Slot::Attention => NodeType::AttentionAutoencoderError,
        Slot::Residual => NodeType::ResidualAutoencoderError,
    }
}

/// The slot whose error nodes of this type are.
pub fn slot_of_error(node_type: NodeType) -> Option<Slot> {
    Slot::ALL.into_iter().find(|slot| error_type(*slot) == node_type)
}
