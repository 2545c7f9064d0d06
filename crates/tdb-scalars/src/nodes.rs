//! The nodes that questions are about, and where in a layer each stands.

use tdb_api::{AttentionTraceType, MirroredTraceConfig, NodeType, PassType};
use tdb_model::autoencode::LatentState;
use tdb_model::run::LayerState;
use tdb_model::{Autoencoder, Site, Transformer};

use crate::derived::Place;
use crate::error::{Result, bad};
use crate::values::wrap;

/// A node of one prompt: something that has an activation and a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    Neuron { layer: usize, token: usize, index: usize },
    Head { layer: usize, query: usize, key: usize, head: usize },
    Latent { kind: AutoencoderKind, layer: usize, token: usize, index: usize },
}

/// The node at one end of the edges that are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EdgeNode {
    pub node: Node,
    /// For a head at the downstream end: which of its inputs the edges go through, one of `Q`, `K` and `V`.
    pub through: Option<AttentionTraceType>,
    /// Whether the standard deviation of the layer norm before the downstream node counts as constant.
    pub frozen_scale: bool,
}

impl Node {
    /// The node that a trace is asked to start from.
    ///
    /// # Errors
    /// If it is no node that can be traced, or does not exist in this model and prompt.
    pub fn traced(model: &Transformer, tokens: usize, config: &MirroredTraceConfig) -> Result<Self> {
        let node = &config.node_index;
        let node_type = node.node_type;
        if node.pass_type != PassType::Forward {
            return bad!(
                "a trace starts from a value of the forward pass; passType of the traced node is \"{}\"",
                node.pass_type
            );
        }
        let n_layers = model.config().n_layers;
        let layer = node.layer_index.and_then(|l| usize::try_from(l).ok()).filter(|l| *l < n_layers);
        let Some(layer) = layer else {
            let found = node.layer_index.map_or("null".to_owned(), |l| l.to_string());
            return bad!("layerIndex of the traced node is {found}, but the model has layers 0..{n_layers}");
        };
        let sizes: Vec<(&str, usize)> = match node_type {
            NodeType::MlpNeuron => vec![("token", tokens), ("neuron", model.config().d_ff)],
            NodeType::AttentionHead => {
                vec![("attended-from token", tokens), ("attended-to token", tokens), ("head", model.config().n_heads)]
            }
            _ => match AutoencoderKind::of_latents(model, node_type)? {
                Some(kind) => {
                    let n_latents = match kind {
                        AutoencoderKind::Mlp => model.mlp_autoencoders_any(),
                        AutoencoderKind::Attn => model.attn_autoencoders_any(),
                    };
                    vec![("token", tokens), ("latent", n_latents.map_or(0, Autoencoder::n_latents))]
                }
                None => {
                    return bad!(
                        "a node of type \"{node_type}\" cannot be traced; heads, MLP neurons and autoencoder latents can"
                    );
                }
            },
        };
        if node.tensor_indices.len() != sizes.len() {
            let (need, found) = (sizes.len(), node.tensor_indices.len());
            return bad!(
                "tensorIndices of a traced node of type \"{node_type}\" must have {need} entries, but there are {found}"
            );
        }
        let mut indices = Vec::with_capacity(sizes.len());
        for (index, (what, len)) in node.tensor_indices.iter().zip(&sizes) {
            match index.and_then(|i| wrap(i, *len)) {
                Some(index) => indices.push(index),
                None => {
                    let found = index.map_or("null".to_owned(), |i| i.to_string());
                    return bad!("the {what} of the traced node is {found}, outside 0..{len}");
                }
            }
        }
        Ok(match (node_type, indices.as_slice()) {
            (NodeType::AttentionHead, &[query, key, head]) => Node::Head { layer, query, key, head },
            (NodeType::MlpNeuron, &[token, index]) => Node::Neuron { layer, token, index },
            (_, &[token, index]) => match AutoencoderKind::of_latents(model, node_type)? {
                Some(kind) => Node::Latent { kind, layer, token, index },
                None => return bad!("a node of type \"{node_type}\" cannot be traced"),
            },
            _ => return bad!("a node of type \"{node_type}\" cannot be traced"),
        })
    }

    pub fn layer(self) -> usize {
        match self {
            Node::Neuron { layer, .. } | Node::Head { layer, .. } | Node::Latent { layer, .. } => layer,
        }
    }

    /// The place of the residual stream that the node reads, relative to its layer.
    pub fn reads_at(self) -> Place {
        match self {
            Node::Neuron { .. } => Place::ResidPostAttn,
            Node::Head { .. } => Place::EndOfPreviousLayer,
            Node::Latent { kind, .. } => kind.reads_at(),
        }
    }

    /// The place where the node is written to the residual stream, relative to its layer.
    pub fn writes_at(self) -> Place {
        match self {
            Node::Neuron { .. } => Place::Mlp,
            Node::Head { .. } => Place::Attn,
            Node::Latent { kind, .. } => kind.writes_at(),
        }
    }
}

/// Which kind of autoencoder a name means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoencoderKind {
    Mlp,
    Attn,
}

impl AutoencoderKind {
    /// What the generic names mean: the one autoencoder that is loaded.
    ///
    /// # Errors
    /// If none or two are.
    pub fn only(model: &Transformer, name: &str) -> Result<Self> {
        match (model.has_mlp_autoencoder(), model.has_attn_autoencoder()) {
            (true, false) => Ok(AutoencoderKind::Mlp),
            (false, true) => Ok(AutoencoderKind::Attn),
            (true, true) => bad!(
                "\"{name}\" does not say which autoencoder is meant, and both are loaded; use the name with \"mlp\" or \"attention\" in it"
            ),
            (false, false) => bad!("\"{name}\" needs an autoencoder, and none is loaded"),
        }
    }

    pub fn is_loaded(self, model: &Transformer) -> bool {
        match self {
            AutoencoderKind::Mlp => model.has_mlp_autoencoder(),
            AutoencoderKind::Attn => model.has_attn_autoencoder(),
        }
    }

    /// # Errors
    /// If that autoencoder is not loaded.
    pub fn require(self, model: &Transformer, name: &str) -> Result<Self> {
        match self.is_loaded(model) {
            true => Ok(self),
            false => bad!("\"{name}\" needs an autoencoder on {}, and none is loaded", self.what_it_is_on()),
        }
    }

    /// Which autoencoder a node type means; `None` if it is no latent.
    ///
    /// # Errors
    /// If that autoencoder is not loaded.
    pub fn of_latents(model: &Transformer, node_type: NodeType) -> Result<Option<Self>> {
        let name = node_type.as_str();
        Ok(match node_type {
            NodeType::AutoencoderLatent => Some(AutoencoderKind::only(model, name)?),
            NodeType::MlpAutoencoderLatent => Some(AutoencoderKind::Mlp.require(model, name)?),
            NodeType::AttentionAutoencoderLatent => Some(AutoencoderKind::Attn.require(model, name)?),
            _ => None,
        })
    }

    /// The autoencoder of one layer, if it has one.
    pub fn of_layer(self, model: &Transformer, layer: usize) -> Option<&Autoencoder> {
        match self {
            AutoencoderKind::Mlp => model.mlp_autoencoder(layer),
            AutoencoderKind::Attn => model.attn_autoencoder(layer),
        }
    }

    /// The autoencoder of one layer.
    ///
    /// # Errors
    /// If the layer has none.
    pub fn in_layer(self, model: &Transformer, layer: usize) -> Result<&Autoencoder> {
        match self.of_layer(model, layer) {
            Some(autoencoder) => Ok(autoencoder),
            None => bad!("layer {layer} has no autoencoder on {}", self.what_it_is_on()),
        }
    }

    /// What the autoencoder of one layer made of a run; `None` if the layer has none.
    pub fn state(self, layer: &LayerState) -> Option<&LatentState> {
        match self {
            AutoencoderKind::Mlp => layer.mlp.latents.as_ref(),
            AutoencoderKind::Attn => layer.attn.latents.as_ref(),
        }
    }

    /// Where the latents stand in a pass.
    pub fn site(self) -> Site {
        match self {
            AutoencoderKind::Mlp => Site::MlpLatent,
            AutoencoderKind::Attn => Site::AttnLatent,
        }
    }

    /// The place of the residual stream that the latents' layer reads.
    pub fn reads_at(self) -> Place {
        match self {
            AutoencoderKind::Mlp => Place::ResidPostAttn,
            AutoencoderKind::Attn => Place::EndOfPreviousLayer,
        }
    }

    /// The place where the latents are written to the residual stream.
    pub fn writes_at(self) -> Place {
        match self {
            AutoencoderKind::Mlp => Place::Mlp,
            AutoencoderKind::Attn => Place::Attn,
        }
    }

    fn what_it_is_on(self) -> &'static str {
        match self {
            AutoencoderKind::Mlp => "the MLP layers",
            AutoencoderKind::Attn => "the attention layers",
        }
    }
}
