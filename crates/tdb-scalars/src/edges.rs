//! Edges between two nodes: how much of one node's part in the objective goes through another.
//!
//! The attribution of a node is its activation times its gradient. The attribution of an edge is how much of the
//! downstream node's attribution the upstream node's write brings about to first order, the downstream gradient held
//! fixed: seen from one downstream node, the writes of all upstream nodes along one gradient ("out" scalars, of what
//! goes out of every node towards that one); seen from one upstream node, the derivative of all downstream nodes along
//! one write ("in" scalars). Both give the same number for the same pair of nodes. Activations are computed anew from
//! the residual stream with the plain weights, as for traces.
//!
//! No request of the interface can name such a node; [`crate::Engine::inspect`] can.

use std::borrow::Cow;

use candle_core::Tensor;
use tdb_api::{AttentionTraceType, DerivedScalarType as Dst};
use tdb_model::numbers::{Numbers, dot};
use tdb_model::{AttentionDerivative, AttentionState, AutoencoderSite, Block, MlpDerivative, Site, Slot, SparseRows};

use crate::compute;
use crate::derived::{Quantity, Scalar, Subject, Through};
use crate::error::{Result, bad};
use crate::nodes::{Component, EdgeNode, Node};
use crate::place::Place;
use crate::readings::write_vector;
use crate::side::Side;
use crate::slots;
use crate::tensors::{at_token, dots_of_rows, row_of, times};
use crate::trace::{Trace, through_value};
use crate::values::Values;

/// Scalars about edges of the node that an inspection names.
///
/// # Errors
/// If the inspection names no node, or one that does not fit.
pub(crate) fn values<'a>(side: &'a Side<'_>, dst: Dst, scalar: Scalar, layer: Option<usize>) -> Result<Values<'a>> {
    let Some(edge) = &side.edge else {
        return bad!(
            "\"{dst}\" is about edges of a node, which a request of this kind cannot name; use the library interface"
        );
    };
    if let Subject::Stream(site) = scalar.subject {
        let rows = side.get(site, layer)?;
        return Ok(Values::Dense(dots_of_rows(&rows, Some(&attribution_gradient(side, dst, edge)?))?));
    }
    let Some(layer) = layer else { return bad!("\"{dst}\" exists in each layer, but no layer is named") };
    Ok(Values::Dense(match scalar.quantity {
        Quantity::OutEdge => return out_edges(side, dst, scalar, layer, edge),
        Quantity::InEdge(through) => return in_edges(side, dst, scalar, (through, true), layer, edge),
        Quantity::InEdgeActivation(through) => return in_edges(side, dst, scalar, (through, false), layer, edge),
        Quantity::WriteToFinalResidual => {
            let gradient = side.final_residual_gradient(dst)?;
            let (layer, place) = edge.node.writes_at(side.model());
            let precedes = side.precedes_final_residual(Some(layer), place);
            dots_of_rows(&written(side, edge)?, gradient.as_ref().filter(|_| precedes))?
        }
        Quantity::GradientAtResidual => attribution_gradient(side, dst, edge)?,
        _ => written(side, edge)?,
    }))
}

/// The slot in which neurons, heads or latents stand.
fn slot_of(side: &Side<'_>, dst: Dst, subject: Subject) -> Result<Slot> {
    match subject {
        Subject::Heads => Ok(Slot::Attention),
        Subject::Neurons => Ok(Slot::Mlp),
        _ => slots::only(side.model(), dst.as_str()),
    }
}

/// What the node writes, `[1, D]`.
fn write(side: &Side<'_>, edge: &EdgeNode) -> Result<Tensor> {
    let vector = write_vector(side, Component::Node(edge.node))?;
    Ok(side.model().tensor(&[1, vector.len()], vector)?)
}

/// What the node writes, at the token where it writes, `[T, D]`.
fn written(side: &Side<'_>, edge: &EdgeNode) -> Result<Tensor> {
    at_token(&write(side, edge)?, edge.node.token(), side.tokens())
}

/// Gradient of the named node's attribution at the residual stream before it, `[T, D]`.
pub(crate) fn attribution_gradient(side: &Side<'_>, dst: Dst, edge: &EdgeNode) -> Result<Tensor> {
    let layer = edge.node.layer();
    let gradient = |site| side.gradient(dst, site, layer);
    let factor = match (edge.node, edge.through) {
        (Node::Head { .. }, None) => {
            return bad!("an edge into a head goes through its query, key or value; say which");
        }
        (Node::Head { query, key, head, .. }, Some(AttentionTraceType::V)) => {
            let resid = side.read_by(Slot::Attention, layer)?;
            let Some(gradient) = gradient(Site::AttnVOut)? else { return Ok(resid.zeros_like()?) };
            let (block, direction) = (side.model().block(layer), row_of(&gradient.get(query)?, head)?);
            return Ok(through_value(side.model(), block, [query, key, head], &direction, &resid, edge.frozen_scale)?.1);
        }
        (Node::Head { query, key, head, .. }, _) => entry(gradient(Site::AttnQkProbs)?, &[query, key, head])?,
        (Node::Neuron { token, index, .. }, _) => entry(gradient(Site::MlpPostAct)?, &[token, index])?,
        (Node::Latent { slot, token, index, .. }, _) => match side.gradients(dst)?.at_reconstruction(slot, layer) {
            Some(gradient) => {
                dot(slots::in_layer(side.model(), slot, layer)?.direction(index), &row_of(gradient, token)?)
            }
            None => 0.0,
        },
    };
    let (node, frozen_scale) = (edge.node, edge.frozen_scale);
    let through = edge.through.filter(|_| matches!(node, Node::Head { .. }));
    let trace = Trace { node, pre_activation: false, frozen_scale, through, up: false, downstream: None };
    Ok((trace.seed(&side.run, None)?.gradient * f64::from(factor))?)
}

/// One entry; 0 where no gradient flowed.
fn entry(gradient: Option<Tensor>, index: &[usize]) -> Result<f32> {
    Ok(match &gradient {
        Some(gradient) => Numbers::of(gradient)?.at(index),
        None => 0.0,
    })
}

/// The writes of all nodes of a layer along the gradient of the named downstream node.
fn out_edges<'a>(side: &'a Side<'_>, dst: Dst, scalar: Scalar, layer: usize, edge: &EdgeNode) -> Result<Values<'a>> {
    let slot = slot_of(side, dst, scalar.subject)?;
    let gradient = attribution_gradient(side, dst, edge)?;
    let precedes = Place::written_by(side.model(), slot, layer) < edge.node.reads_at(side.model());
    compute::along_gradient(side, dst, layer, Some(&gradient).filter(|_| precedes))
}

/// Derivatives of all nodes of a layer along the named upstream node's write; zero where the layer does not follow it.
fn in_edges<'a>(
    side: &'a Side<'_>,
    dst: Dst,
    scalar: Scalar,
    (through, attribution): (Through, bool),
    layer: usize,
    edge: &EdgeNode,
) -> Result<Values<'a>> {
    let slot = slot_of(side, dst, scalar.subject)?;
    let follows = edge.node.writes_at(side.model()) < Place::read_by(side.model(), slot, layer);
    // Activations along a write are told with the scale held fixed, attributions as the inspection says.
    let along = Along { side, layer, write: write(side, edge)?, edge, frozen_scale: !attribution || edge.frozen_scale };
    let site = match scalar.subject {
        Subject::Neurons => Site::MlpPostAct,
        Subject::Heads => Site::AttnQkProbs,
        _ => return along.latents(dst, slot, follows, attribution),
    };
    let derivative = match through {
        _ if !follows => return Ok(Values::Dense(side.get(site, layer)?.zeros_like()?)),
        Through::Layer => along.padded(&along.mlp()?.post_act)?,
        Through::Value => {
            let (state, d) = along.attention()?;
            let gradient = side.gradient(dst, Site::AttnVOut, layer)?;
            let attn = &side.model().block(layer).attn;
            let products = gradient.map(|gradient| attn.vjp_probs(&d.v, &gradient)).transpose()?;
            return Ok(Values::Dense(times(&state.qk_probs, products.as_ref())?));
        }
        Through::Query | Through::Key => along.probs(through == Through::Query)?,
    };
    Ok(Values::Dense(match attribution {
        true => times(&derivative, side.gradient(dst, site, layer)?.as_ref())?,
        false => derivative,
    }))
}

/// A layer's derivatives along the write of a node before it.
struct Along<'s, 'e> {
    side: &'s Side<'e>,
    layer: usize,
    /// `[1, D]`, at the token of `edge`'s node.
    write: Tensor,
    edge: &'s EdgeNode,
    frozen_scale: bool,
}

impl<'s> Along<'s, '_> {
    fn block(&self) -> &'s Block {
        self.side.engine.model().block(self.layer)
    }

    /// `[1, N]` at the token of the write, `[T, N]`.
    fn padded(&self, row: &Tensor) -> Result<Tensor> {
        at_token(row, self.edge.node.token(), self.side.tokens())
    }

    /// Of the MLP's input at the token of the write, `[1, D]`.
    fn mlp_input(&self) -> Result<Tensor> {
        self.side.require_mlp()?;
        let (block, resid) = (self.block(), self.side.read_by(Slot::Mlp, self.layer)?);
        let resid = resid.narrow(0, self.edge.node.token(), 1)?;
        Ok(block.mlp_norm.jvp(&resid, &self.write, self.frozen_scale)?)
    }

    /// Of neurons and the layer's output at the token of the write, one row each.
    fn mlp(&self) -> Result<MlpDerivative> {
        self.side.require_mlp()?;
        let (block, resid) = (self.block(), self.side.read_by(Slot::Mlp, self.layer)?);
        let resid = resid.narrow(0, self.edge.node.token(), 1)?;
        let state = block.mlp().apply(&block.mlp_norm.apply(&resid)?)?;
        let mut derivative = block.mlp().jvp(&state, &block.mlp_norm.jvp(&resid, &self.write, self.frozen_scale)?)?;
        derivative.delta = block.post_norm_jvp(Slot::Mlp, &state.delta, &derivative.delta)?;
        Ok(derivative)
    }

    /// Of queries, keys and values, beside the layer as it is.
    fn attention(&self) -> Result<(AttentionState, AttentionDerivative)> {
        let (block, resid) = (self.block(), self.side.read_by(Slot::Attention, self.layer)?);
        let state = block.attn.apply(&block.attn_norm.apply(&resid)?)?;
        let row = resid.narrow(0, self.edge.node.token(), 1)?;
        let dx = self.padded(&block.attn_norm.jvp(&row, &self.write, self.frozen_scale)?)?;
        let derivative = block.attn.jvp(&state, &dx)?;
        Ok((state, derivative))
    }

    /// Of the attention probabilities, through the queries or the keys alone, `[T, T, H]`.
    fn probs(&self, through_query: bool) -> Result<Tensor> {
        let (state, mut d) = self.attention()?;
        match through_query {
            true => d.k = d.k.zeros_like()?,
            false => d.q = d.q.zeros_like()?,
        }
        Ok(self.block().attn.jvp_probs(&state, &d)?)
    }

    /// Of the active latents, or what of their attributions the write brings about.
    fn latents<'a>(&self, dst: Dst, slot: Slot, follows: bool, attribution: bool) -> Result<Values<'a>> {
        let autoencoder = slots::in_layer(self.side.model(), slot, self.layer)?;
        if !follows {
            let none = SparseRows::new(autoencoder.n_latents(), vec![Vec::new(); self.side.tokens()]);
            return Ok(Values::Sparse(Cow::Owned(none)));
        }
        let input = match autoencoder.site() {
            AutoencoderSite::MlpPostAct => self.padded(&self.mlp()?.post_act)?,
            AutoencoderSite::ResidDeltaMlp => self.padded(&self.mlp()?.delta)?,
            AutoencoderSite::ResidDeltaAttn => {
                let (state, derivative) = self.attention()?;
                let output = self.block().attn.jvp_output(&state, &derivative)?;
                self.block().post_norm_jvp(Slot::Attention, &state.delta, &output)?
            }
            AutoencoderSite::AttnVOut => {
                let (state, derivative) = self.attention()?;
                self.block().attn.jvp_heads(&state, &derivative)?
            }
            AutoencoderSite::MlpIn | AutoencoderSite::MlpTranscoder | AutoencoderSite::MlpTranscoderOfNormalized => {
                self.padded(&self.mlp_input()?)?
            }
            AutoencoderSite::ResidPre | AutoencoderSite::ResidPostAttn | AutoencoderSite::ResidPostMlp => {
                self.padded(&self.write)?
            }
        };
        let Some(state) = self.side.run.latents(slot, self.layer) else {
            return bad!("layer {} has no latents in this run", self.layer);
        };
        let input = autoencoder.normalized_jvp(&state.input, &input)?;
        let gradient = match attribution {
            true => self.side.gradients(dst)?.at_reconstruction(slot, self.layer),
            false => None,
        };
        let gradient = gradient.map(Numbers::of).transpose()?;
        let input = Numbers::of(&input)?;
        let encoded = compute::encoded(self.side, slot, self.layer)?;
        Ok(Values::Sparse(Cow::Owned(encoded.map(|t, i, value| {
            let weight = match &gradient {
                _ if !autoencoder.passes(value) => 0.0,
                Some(gradient) => dot(autoencoder.direction(i), gradient.row(t)),
                None => f32::from(u8::from(!attribution)),
            };
            if weight == 0.0 { 0.0 } else { weight * dot(&autoencoder.encoder_row(i), input.row(t)) }
        }))))
    }
}
