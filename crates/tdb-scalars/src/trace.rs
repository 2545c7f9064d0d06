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

use crate::error::{At, Result, bad};
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

/// A traced value as a function of the residual stream that its node reads.
///
/// What a trace does not go through is held as in the run that was asked about: with a trace through a head's query its
/// key, with one through its value its probability and the direction of its effect.
#[derive(Clone, Debug)]
pub(crate) struct Traced {
    pub trace: Trace,
    /// Where the residual stream is read.
    pub point: Point,
    held: Option<Held>,
}

/// A head in the run that was asked about.
#[derive(Clone, Debug)]
struct Held {
    /// `[E]`
    q: Vec<f32>,
    /// `[E]`
    k: Vec<f32>,
    probability: f32,
    /// `[E]`, with a trace through the head's value.
    direction: Option<Vec<f32>>,
}

impl Traced {
    /// The value where the residual stream is `resid: [T, D]`.
    ///
    /// # Errors
    /// If an operation fails.
    pub fn value(&self, model: &Transformer, resid: &Tensor) -> Result<f32> {
        let trace = &self.trace;
        let block = model.block(trace.node.layer());
        match (trace.node, &self.held) {
            (Node::Head { query, key, head, .. }, Some(held)) => held.value(block, [query, key, head], trace, resid),
            (Node::Head { .. }, None) => Err(crate::error::Error::Internal("a head that is not held".to_owned())),
            (Node::Neuron { token, index, .. }, _) => Ok(trace.neuron(model, block, token, index, resid)?.0),
            (Node::Latent { slot, layer, token, index }, _) => {
                let autoencoder = slots::in_layer(model, slot, layer)?;
                Ok(trace.latent(model, block, autoencoder, token, index, resid)?.0)
            }
        }
    }
}

impl Held {
    fn value(&self, block: &Block, [query, key, head]: [usize; 3], trace: &Trace, resid: &Tensor) -> Result<f32> {
        let at = |token: usize| -> Result<[Tensor; 3]> {
            Ok(block.attn.query_key_value(&block.attn_norm.apply(&resid.narrow(0, token, 1)?)?, token)?)
        };
        let group = block.attn.kv_head(head);
        if let Some(direction) = &self.direction {
            let [_, _, v] = at(key)?;
            // No later token is attended to.
            let probability = if key > query { 0.0 } else { self.probability };
            return Ok(probability * dot(&row_of(&v, group)?, direction));
        }
        let q = match trace.through {
            Some(AttentionTraceType::K) => self.q.clone(),
            _ => row_of(&at(query)?[0], head)?,
        };
        let k = match trace.through {
            Some(AttentionTraceType::Q) => self.k.clone(),
            _ => row_of(&at(key)?[1], group)?,
        };
        Ok(block.attn.logit(&q, &k))
    }
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
            Some(downstream) => {
                let downstream = Trace::new(model, tokens, downstream);
                Some(Box::new(downstream.at(|| "downstreamTraceConfig".into())?))
            }
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
        match self.through {
            // What is written through a value is asked about with the scale of the norm before it held.
            Some(AttentionTraceType::V) => self.with_frozen_scale(true).seed_as_is(run, loss),
            _ => self.seed_as_is(run, loss),
        }
    }

    /// The same gradient with the scale of the norm before the node counting as constant, or not.
    pub(crate) fn with_frozen_scale(&self, frozen_scale: bool) -> Self {
        Trace { frozen_scale, ..self.clone() }
    }

    /// [`Trace::seed`] with the norm's scale as [`Trace::frozen_scale`] says in any case.
    pub(crate) fn seed_as_is(&self, run: &Run, loss: Option<&Loss>) -> Result<TraceSeed> {
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
                let direction = self.direction_of_value(run, loss, query, head)?;
                through_value(model, block, [query, key, head], &direction, &resid, self.frozen_scale)?
            }
            Node::Head { query, key, head, .. } => self.head(block, [query, key, head], &resid)?,
        };
        Ok(TraceSeed { point, gradient, value })
    }

    /// The traced value as a function of the residual stream of other runs.
    ///
    /// # Errors
    /// If a loss is needed and there is none, or the trace is of a head's probability.
    pub(crate) fn traced(&self, run: &Run, loss: Option<&Loss>) -> Result<Traced> {
        let (model, layer) = (run.model(), self.node.layer());
        let point = self.node.point_read(model);
        let Node::Head { query, key, head, .. } = self.node else {
            return Ok(Traced { trace: self.clone(), point, held: None });
        };
        if !self.pre_activation {
            return bad!("effects on a head are those on its attention logit or its value, not on its probability");
        }
        let block = model.block(layer);
        let state = block.attn.apply(&block.attn_norm.apply(&run.get(point.site, point.layer)?)?)?;
        let direction = match self.through {
            Some(AttentionTraceType::V) => Some(self.direction_of_value(run, loss, query, head)?),
            _ => None,
        };
        let held = Held {
            q: row_of(&state.q.get(query)?, head)?,
            k: row_of(&state.k.get(key)?, block.attn.kv_head(head))?,
            probability: row_of(&state.qk_probs.get(query)?, key)?[head],
            direction,
        };
        Ok(Traced { trace: self.clone(), point, held: Some(held) })
    }

    /// The gradient at a head's output at one token, along which its value is traced, `[E]`.
    fn direction_of_value(&self, run: &Run, loss: Option<&Loss>, query: usize, head: usize) -> Result<Vec<f32>> {
        let (model, layer) = (run.model(), self.node.layer());
        let mut direction = self.downstream_gradient(run, loss, query)?;
        if let Some(scale) = run.write_scale(Slot::Attention, layer)? {
            let scale = row_of(&scale, query)?[0];
            direction.iter_mut().for_each(|x| *x /= scale);
        }
        let direction = model.tensor(&[1, direction.len()], direction)?;
        row_of(&model.block(layer).attn.write_vjp(&direction)?.squeeze(0)?, head)
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
                let mut value = 0.0;
                let mut read = |_, input: &Tensor| {
                    let (found, d) = self.read_latent(autoencoder, index, input)?;
                    value = found;
                    Ok(d)
                };
                let gradient = behind_neurons(model, block, site, &row, self.frozen_scale, &mut read)?;
                (value, gradient)
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
        // A query does not see what comes after it: the probability is zero, whatever the residual stream holds.
        if key > query {
            return Ok((0.0, resid.zeros_like()?));
        }
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

/// Gradients of latents on an MLP's neurons or on what it writes, at the residual stream that the MLP reads: each latent at
/// its own row of `rows`, `[N, D]`. `read` is given the number of a row and the latent's input, `[1, n_inputs]`, and gives the
/// latent's gradient there, `[n_inputs]`.
pub(crate) fn behind_neurons(
    model: &Transformer,
    block: &Block,
    site: AutoencoderSite,
    rows: &Tensor,
    frozen_scale: bool,
    read: &mut dyn FnMut(usize, &Tensor) -> Result<Vec<f32>>,
) -> Result<Tensor> {
    let on_neurons = site == AutoencoderSite::MlpPostAct;
    let state = block.mlp().apply(&block.mlp_norm.apply(rows)?)?;
    let input = if on_neurons { state.post_act.clone() } else { block.post_norm(Slot::Mlp, &state.delta)? };
    let mut d = Vec::with_capacity(input.elem_count());
    for row in 0..rows.dim(0)? {
        d.extend(read(row, &input.narrow(0, row, 1)?)?);
    }
    let d = model.tensor(input.dims(), d)?;
    let d = match on_neurons {
        true => block.mlp().vjp_neurons(&state, &d)?,
        false => block.mlp().vjp(&state, &block.post_norm_vjp(Slot::Mlp, &state.delta, &d)?)?,
    };
    Ok(block.mlp_norm.vjp(rows, &d, frozen_scale)?)
}
