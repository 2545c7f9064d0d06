//! Which dictionary a name means, and the sentences for where there is none.

use tdb_api::NodeType;
use tdb_model::{Autoencoder, Slot, Transformer};

use crate::dictionary::latent_type;
use crate::error::{Result, bad};

/// What the generic names mean: the one dictionary that is loaded.
///
/// # Errors
/// If none or several are.
pub fn only(model: &Transformer, name: &str) -> Result<Slot> {
    let loaded: Vec<Slot> = Slot::ALL.into_iter().filter(|slot| model.has(*slot)).collect();
    match loaded.as_slice() {
        [slot] => Ok(*slot),
        [Slot::Mlp, Slot::Attention] => bad!(
            "\"{name}\" does not say which autoencoder is meant, and both are loaded; use the name with \"mlp\" or \"attention\" in it"
        ),
        [] => bad!("\"{name}\" needs an autoencoder, and none is loaded"),
        _ => bad!(
            "\"{name}\" does not say which autoencoder is meant, and several are loaded; use the name with \"mlp\", \"attention\" or \"residual\" in it"
        ),
    }
}

/// The slot itself.
///
/// # Errors
/// If no dictionary is loaded there.
pub fn require(model: &Transformer, slot: Slot, name: &str) -> Result<Slot> {
    match model.has(slot) {
        true => Ok(slot),
        false => bad!("\"{name}\" needs an autoencoder on {}, and none is loaded", layers(slot)),
    }
}

/// Where the latents of a node type are; `None` if it is no latent.
///
/// # Errors
/// If that dictionary is not loaded.
pub fn of_latents(model: &Transformer, node_type: NodeType) -> Result<Option<Slot>> {
    let name = node_type.as_str();
    if node_type == NodeType::AutoencoderLatent {
        return only(model, name).map(Some);
    }
    let slot = Slot::ALL.into_iter().find(|slot| latent_type(*slot) == node_type);
    slot.map(|slot| require(model, slot, name)).transpose()
}

/// The dictionary of one layer.
///
/// # Errors
/// If the layer has none.
pub fn in_layer(model: &Transformer, slot: Slot, layer: usize) -> Result<&Autoencoder> {
    match model.autoencoder(slot, layer) {
        Some(autoencoder) => Ok(autoencoder),
        None => {
            let have: Vec<String> = model.layers_with(slot).map(|layer| layer.to_string()).collect();
            let have =
                if have.is_empty() { "none is loaded".to_owned() } else { format!("layers {} have", have.join(", ")) };
            bad!("layer {layer} has no autoencoder on {}; {have}", layers(slot))
        }
    }
}

fn layers(slot: Slot) -> &'static str {
    match slot {
        Slot::Mlp => "the MLP layers",
        Slot::Attention => "the attention layers",
        Slot::Residual => "the residual stream",
    }
}
