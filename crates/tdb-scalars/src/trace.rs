//! Runs that start from a node instead of the logits.
//!
//! The node's value is computed anew from the residual stream just before its layer, with the plain weights:
//! interventions act on the residual stream that is read, not on this computation. Its gradient there is the seed
//! of the backward pass, so that gradients further up say what caused the node. By default the standard deviation
//! of the layer norm before the node counts as constant ("frozen").

use candle_core::Tensor;
use tdb_api::{AttentionTraceType, MirroredTraceConfig, MlpTraceType, PreOrPostAct};
use tdb_model::numbers::{axpy, dot};
use tdb_model::{AttentionGradients, Autoencoder, AutoencoderSite, Block, MlpKind, Point, Run, Slot, Transformer};

use crate::error::{Result, bad};
use crate::nodes::Node;
use crate::objective::Loss;
use crate::slots;
use crate::tensors::{at_token, row_of};

/// A node, and which of its values is traced through which of its inputs.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    pub node: Node,
    pub pre_activation: bool,
    pub frozen_scale: bool,
    /// Heads only.
    pub through: Option<AttentionTraceType>,
    /// Of a gated neuron: whether the pre-activation is what the gate's activation is multiplied with, not the gate.
    pub up: bool,
    /// With [`AttentionTraceType::V`]: the node on which the head's effect is traced; `None` means the loss.
    pub downstream: Option<Box<Trace>>,
}

/// Where the backward pass of a trace starts.
#[derive(Clone, Debug)]
pub struct TraceSeed {
    pub point: Point,
    /// `[T, D]`
    pub gradient: Tensor,
    /// The traced value itself.
    pub value: f32,
}

impl Trace {
    /// # Errors
    /// If the node does not exist in this model and prompt, or the parts of the trace do not go together.
    pub fn new(model: &Transformer, tokens: usize, config: &MirroredTraceConfig) -> Result<Self> {
        let node = Node::traced(model, tokens, config)?;
        let is_head = matches!(node, Node::Head { .. });
        match (is_head, config.attention_trace_type) {
            (true, None) => {
                return bad!("a trace of an attention head needs attentionTraceType: \"Q\", \"K\", \"QK\" or \"V\"");
            }
            (false, Some(_)) => {
                return bad!("attentionTraceType belongs to attention heads; leave it out for other nodes");
            }
            _ => {}
        }
        let is_gated = matches!(node, Node::Neuron { .. }) && matches!(model.config().mlp, MlpKind::Gated(_));
        if config.mlp_trace_type.is_some() && !is_gated {
            return bad!(
                "mlpTraceType belongs to neurons of gated MLP layers; leave it out for other nodes and models"
            );
        }
        let through_value = config.attention_trace_type == Some(AttentionTraceType::V);
        let downstream = match &config.downstream_trace_config {
            Some(_) if !through_value => {
                return bad!("a downstream node is only meaningful when a head is traced through its value (\"V\")");
            }
            Some(downstream) if downstream.attention_trace_type == Some(AttentionTraceType::V) => {
                return bad!("the downstream node of a trace through \"V\" cannot itself be traced through \"V\"");
            }
            Some(downstream) => Some(Box::new(Trace::new(model, tokens, downstream)?)),
            None => None,
        };
        if let (Node::Head { query, key, .. }, false) = (node, through_value)
            && key > query
        {
            return bad!("token {query} cannot attend to the later token {key}, so there is nothing to trace");
        }
        Ok(Trace {
            node,
            pre_activation: config.pre_or_post_act == PreOrPostAct::Pre,
            frozen_scale: config.detach_layer_norm_scale,
            through: config.attention_trace_type,
            up: config.mlp_trace_type == Some(MlpTraceType::Up),
            downstream,
        })
    }

    /// Whether the loss is needed to define the traced value.
    pub fn needs_loss(&self) -> bool {
        self.through == Some(AttentionTraceType::V) && self.downstream.is_none()
    }

    /// Value, and gradient at the residual stream before the node's layer.
    ///
    /// # Errors
    /// If a loss is needed and there is none.
    pub fn seed(&self, run: &Run, loss: Option<&Loss>) -> Result<TraceSeed> {
        let model = run.model();
        let layer = self.node.layer();
        let point = self.node.point_read(model);
        let (block, resid) = (model.block(layer), run.get(point.site, point.layer)?);
        let (value, gradient) = match self.node {
            Node::Neuron { token, index, .. } => self.neuron(model, block, token, index, &resid)?,
            Node::Latent { slot, token, index, .. } => {
                let autoencoder = slots::in_layer(model, slot, layer)?;
                self.latent(model, block, autoencoder, token, index, &resid)?
            }
            Node::Head { query, key, head, .. } if self.through == Some(AttentionTraceType::V) => {
                let mut direction = self.downstream_gradient(run, loss, query)?;
                if let Some(scale) = run.write_scale(Slot::Attention, layer)? {
                    let scale = row_of(&scale, query)?[0];
                    direction.iter_mut().for_each(|x| *x /= scale);
                }
                let direction = model.tensor(&[1, direction.len()], direction)?;
                let direction = row_of(&block.attn.write_vjp(&direction)?.squeeze(0)?, head)?;
                through_value(model, block, [query, key, head], &direction, &resid, true)?
            }
            Node::Head { query, key, head, .. } => self.head(block, [query, key, head], &resid)?,
        };
        Ok(TraceSeed { point, gradient, value })
    }

    fn neuron(
        &self,
        model: &Transformer,
        block: &Block,
        token: usize,
        index: usize,
        resid: &Tensor,
    ) -> Result<(f32, Tensor)> {
        let row = resid.narrow(0, token, 1)?;
        let state = block.mlp().apply(&block.mlp_norm.apply(&row)?)?;
        let (of, d_input) = if self.pre_activation {
            let (of, direction) = match (&state.up, block.mlp().up_direction(index)) {
                (Some(up), Some(direction)) if self.up => (up, direction),
                _ => (&state.pre_act, block.mlp().read_direction(index)),
            };
            (of, model.tensor(&[1, direction.len()], direction)?)
        } else {
            let mut d_post_act = vec![0.0; model.config().d_ff];
            d_post_act[index] = 1.0;
            let d_post_act = model.tensor(&[1, d_post_act.len()], d_post_act)?;
            (&state.post_act, block.mlp().vjp_neurons(&state, &d_post_act)?)
        };
        let gradient = block.mlp_norm.vjp(&row, &d_input, self.frozen_scale)?;
        Ok((row_of(of, 0)?[index], at_token(&gradient, token, resid.dim(0)?)?))
    }

    fn latent(
        &self,
        model: &Transformer,
        block: &Block,
        autoencoder: &Autoencoder,
        token: usize,
        index: usize,
        resid: &Tensor,
    ) -> Result<(f32, Tensor)> {
        let (tokens, row) = (resid.dim(0)?, resid.narrow(0, token, 1)?);
        let site = autoencoder.site();
        let (value, gradient) = match site {
            AutoencoderSite::AttnVOut | AutoencoderSite::ResidDeltaAttn => {
                let state = block.attn.apply(&block.attn_norm.apply(resid)?)?;
                let gradients = if site == AutoencoderSite::AttnVOut {
                    let heads = block.attn.side_by_side(&state.v_out)?.narrow(0, token, 1)?;
                    let (value, d) = self.read_latent(autoencoder, index, &heads)?;
                    (value, block.attn.vjp_heads(&state, token, &model.tensor(&[1, d.len()], d)?)?)
                } else {
                    let delta = state.delta.narrow(0, token, 1)?;
                    let written = block.post_norm(Slot::Attention, &delta)?;
                    let (value, d) = self.read_latent(autoencoder, index, &written)?;
                    let d = block.post_norm_vjp(Slot::Attention, &delta, &model.tensor(&[1, d.len()], d)?)?;
                    (value, block.attn.vjp_output(&state, token, &row_of(&d, 0)?)?)
                };
                let d_input = block.attn.vjp(&state, &gradients.1)?;
                return Ok((gradients.0, block.attn_norm.vjp(resid, &d_input, self.frozen_scale)?));
            }
            AutoencoderSite::ResidPre | AutoencoderSite::ResidPostAttn | AutoencoderSite::ResidPostMlp => {
                let (value, d) = self.read_latent(autoencoder, index, &row)?;
                (value, model.tensor(&[1, d.len()], d)?)
            }
            AutoencoderSite::MlpIn | AutoencoderSite::MlpTranscoder | AutoencoderSite::MlpTranscoderOfNormalized => {
                let (value, d) = self.read_latent(autoencoder, index, &block.mlp_norm.apply(&row)?)?;
                let d = model.tensor(&[1, d.len()], d)?;
                (value, block.mlp_norm.vjp(&row, &d, self.frozen_scale)?)
            }
            AutoencoderSite::MlpPostAct | AutoencoderSite::ResidDeltaMlp => {
                let on_neurons = site == AutoencoderSite::MlpPostAct;
                let state = block.mlp().apply(&block.mlp_norm.apply(&row)?)?;
                let input =
                    if on_neurons { state.post_act.clone() } else { block.post_norm(Slot::Mlp, &state.delta)? };
                let (value, d) = self.read_latent(autoencoder, index, &input)?;
                let d = model.tensor(&[1, d.len()], d)?;
                let d = match on_neurons {
                    true => block.mlp().vjp_neurons(&state, &d)?,
                    false => block.mlp().vjp(&state, &block.post_norm_vjp(Slot::Mlp, &state.delta, &d)?)?,
                };
                (value, block.mlp_norm.vjp(&row, &d, self.frozen_scale)?)
            }
        };
        Ok((value, at_token(&gradient, token, tokens)?))
    }

    /// A latent's value at one row of its input, `[1, n_inputs]`, and its gradient there, `[n_inputs]`, also through the
    /// scale of a normalisation.
    fn read_latent(&self, autoencoder: &Autoencoder, index: usize, input: &Tensor) -> Result<(f32, Vec<f32>)> {
        let mut gradient = autoencoder.read_gradient(index, &row_of(input, 0)?, false);
        if self.pre_activation {
            return Ok((autoencoder.pre_activation_of_latent(index, input)?[0], gradient));
        }
        let encoded = autoencoder.encode(input)?;
        let value = encoded.get(0, index);
        let listed = encoded.row(0).iter().any(|e| e.0 as usize == index);
        if !listed || !autoencoder.passes(value) {
            gradient.fill(0.0);
        }
        Ok((value, gradient))
    }

    fn head(&self, block: &Block, [query, key, head]: [usize; 3], resid: &Tensor) -> Result<(f32, Tensor)> {
        let state = block.attn.apply(&block.attn_norm.apply(resid)?)?;
        // What the query can see.
        let seen = |x: &Tensor| -> Result<Vec<f32>> {
            Ok(x.get(query)?.narrow(0, 0, query + 1)?.narrow(1, head, 1)?.flatten_all()?.to_vec1()?)
        };
        let (value, d_logits) = if self.pre_activation {
            let mut d_logits = vec![0.0; query + 1];
            d_logits[key] = 1.0;
            (seen(&state.qk_logits)?[key], d_logits)
        } else {
            let probs = seen(&state.qk_probs)?;
            let p = probs[key];
            let derivative = |(k, q): (usize, &f32)| p * (f32::from(u8::from(k == key)) - q);
            (p, probs.iter().enumerate().map(derivative).collect())
        };
        let mut d = block.attn.vjp_logits(&state, query, head, &d_logits)?;
        match self.through {
            Some(AttentionTraceType::K) => d.q = d.q.zeros_like()?,
            Some(AttentionTraceType::Q) => d.k = d.k.zeros_like()?,
            _ => {}
        }
        Ok((value, block.attn_norm.vjp(resid, &block.attn.vjp(&state, &d)?, self.frozen_scale)?))
    }

    /// Gradient of the loss or of the downstream node at the residual stream of one token, `[D]`.
    fn downstream_gradient(&self, run: &Run, loss: Option<&Loss>, token: usize) -> Result<Vec<f32>> {
        if let Some(downstream) = &self.downstream {
            return row_of(&downstream.seed(run, loss)?.gradient, token);
        }
        let Some(loss) = loss else {
            return bad!("a trace through \"V\" needs a loss or a downstream node to measure the head's effect on");
        };
        let (model, last) = (run.model(), run.tokens().len() - 1);
        let resid = row_of(run.last_residual(), last)?;
        let (norm, unembedding) = (model.final_norm(), model.unembedding());
        let logits = unembedding.logits(&norm.row(&resid));
        match loss.gradient(&logits).filter(|_| token == last) {
            Some(d_logits) => Ok(norm.vjp_row(&resid, &unembedding.vjp(&logits, &d_logits), true)),
            None => Ok(vec![0.0; resid.len()]),
        }
    }
}

/// The effect of a head's value along `direction: [E]`, `probs[query, key] (v[key] · direction)`, and its gradient
/// through the value alone at the residual stream before the layer, `resid: [T, D]`.
pub(crate) fn through_value(
    model: &Transformer,
    block: &Block,
    [query, key, head]: [usize; 3],
    direction: &[f32],
    resid: &Tensor,
    frozen_scale: bool,
) -> Result<(f32, Tensor)> {
    if key > query {
        return Ok((0.0, resid.zeros_like()?));
    }
    let state = block.attn.apply(&block.attn_norm.apply(resid)?)?;
    let p = row_of(&state.qk_probs.get(query)?, key)?[head];
    let (value_head, width) = (block.attn.kv_head(head), direction.len());
    let value = p * dot(&row_of(&state.v.get(key)?, value_head)?, direction);
    let mut d_v = vec![0.0; state.v.elem_count()];
    let at = (key * state.v.dim(1)? + value_head) * width;
    axpy(&mut d_v[at..at + width], p, direction);
    let mut d = AttentionGradients::zeros(&state)?;
    d.v = model.tensor(state.v.dims(), d_v)?;
    Ok((value, block.attn_norm.vjp(resid, &block.attn.vjp(&state, &d)?, frozen_scale)?))
}
