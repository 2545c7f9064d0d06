//! The nodes that questions are about, and where in a layer each stands.

use std::fmt;

use tdb_api::{AttentionTraceType, MirroredTraceConfig, NodeType, PassType};
use tdb_model::{Autoencoder, Point, Slot, Transformer};

use crate::error::{Result, bad};
use crate::place::{LayerPlace, Place};
use crate::slots;
use crate::values::wrap;

/// A node of one prompt: something that has an activation and a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Node {
    Neuron { layer: usize, token: usize, index: usize },
    Head { layer: usize, query: usize, key: usize, head: usize },
    Latent { slot: Slot, layer: usize, token: usize, index: usize },
}

/// What writes to the residual stream: a node, the embedding of a token, or what a dictionary does not put into latents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Component {
    Embedding {
        token: usize,
    },
    Node(Node),
    /// What a dictionary leaves over.
    Error {
        slot: Slot,
        layer: usize,
        token: usize,
    },
    /// What goes beside a transcoder's latents.
    Skip {
        layer: usize,
        token: usize,
    },
}

/// As people write it: "neuron 3:17 at token 4".
impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Component::Embedding { token } => write!(f, "embedding of token {token}"),
            Component::Node(node) => node.fmt(f),
            Component::Error { slot, layer, token } => {
                let on = match slot {
                    Slot::Mlp => "MLP",
                    Slot::Attention => "attention",
                    Slot::Residual => "residual",
                };
                write!(f, "{on} dictionary's error in layer {layer} at token {token}")
            }
            Component::Skip { layer, token } => write!(f, "transcoder's skip in layer {layer} at token {token}"),
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Node::Neuron { layer, token, index } => write!(f, "neuron {layer}:{index} at token {token}"),
            Node::Head { layer, query, key, head } => {
                write!(f, "head {layer}:{head}, token {query} reads token {key}")
            }
            Node::Latent { slot: Slot::Mlp, layer, token, index } => {
                write!(f, "MLP latent {layer}:{index} at token {token}")
            }
            Node::Latent { slot: Slot::Attention, layer, token, index } => {
                write!(f, "attention latent {layer}:{index} at token {token}")
            }
            Node::Latent { slot: Slot::Residual, layer, token, index } => {
                write!(f, "residual latent {layer}:{index} at token {token}")
            }
        }
    }
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
            _ => match slots::of_latents(model, node_type)? {
                Some(slot) => {
                    let n_latents = model.any_autoencoder(slot).map_or(0, Autoencoder::n_latents);
                    vec![("token", tokens), ("latent", n_latents)]
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
            (_, &[token, index]) => match slots::of_latents(model, node_type)? {
                Some(slot) => {
                    slots::in_layer(model, slot, layer)?;
                    Node::Latent { slot, layer, token, index }
                }
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

    /// The token at which the node writes.
    pub fn token(self) -> usize {
        match self {
            Node::Neuron { token, .. } | Node::Latent { token, .. } | Node::Head { query: token, .. } => token,
        }
    }

    /// Where the node belongs.
    pub fn slot(self) -> Slot {
        match self {
            Node::Neuron { .. } => Slot::Mlp,
            Node::Head { .. } => Slot::Attention,
            Node::Latent { slot, .. } => slot,
        }
    }

    /// The place of the residual stream that the node reads.
    pub fn reads_at(self, model: &Transformer) -> LayerPlace {
        Place::read_by(model, self.slot(), self.layer())
    }

    /// The residual stream that the node reads, as a point of a pass.
    pub fn point_read(self, model: &Transformer) -> Point {
        Place::point_read_by(model, self.slot(), self.layer())
    }

    /// The place where the node is written to the residual stream.
    pub fn writes_at(self, model: &Transformer) -> LayerPlace {
        Place::written_by(model, self.slot(), self.layer())
    }
}
