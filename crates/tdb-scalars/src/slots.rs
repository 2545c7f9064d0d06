//! Which autoencoder a name means, and the sentences for where there is none.

use tdb_api::NodeType;
use tdb_model::{Autoencoder, Slot, Transformer};

use crate::error::{Result, bad};

/// What the generic names mean: the one autoencoder that is loaded.
///
/// # Errors
/// If none or two are.
pub fn only(model: &Transformer, name: &str) -> Result<Slot> {
    match (model.has(Slot::Mlp), model.has(Slot::Attention)) {
        (true, false) => Ok(Slot::Mlp),
        (false, true) => Ok(Slot::Attention),
        (true, true) => bad!(
            "\"{name}\" does not say which autoencoder is meant, and both are loaded; use the name with \"mlp\" or \"attention\" in it"
        ),
        (false, false) => bad!("\"{name}\" needs an autoencoder, and none is loaded"),
    }
}

/// The slot itself.
///
/// # Errors
/// If no autoencoder is loaded there.
pub fn require(model: &Transformer, slot: Slot, name: &str) -> Result<Slot> {
    match model.has(slot) {
        true => Ok(slot),
        false => bad!("\"{name}\" needs an autoencoder on {}, and none is loaded", layers(slot)),
    }
}

/// Where the latents of a node type are; `None` if it is no latent.
///
/// # Errors
/// If that autoencoder is not loaded.
pub fn of_latents(model: &Transformer, node_type: NodeType) -> Result<Option<Slot>> {
    let name = node_type.as_str();
    Ok(Some(match node_type {
        NodeType::AutoencoderLatent => only(model, name)?,
        NodeType::MlpAutoencoderLatent => require(model, Slot::Mlp, name)?,
        NodeType::AttentionAutoencoderLatent => require(model, Slot::Attention, name)?,
        _ => return Ok(None),
    }))
}

/// The autoencoder of one layer.
///
/// # Errors
/// If the layer has none.
pub fn in_layer(model: &Transformer, slot: Slot, layer: usize) -> Result<&Autoencoder> {
    match model.autoencoder(slot, layer) {
        Some(autoencoder) => Ok(autoencoder),
        None => bad!("layer {layer} has no autoencoder on {}", layers(slot)),
    }
}

fn layers(slot: Slot) -> &'static str {
    match slot {
        Slot::Mlp => "the MLP layers",
        Slot::Attention => "the attention layers",
    }
}
