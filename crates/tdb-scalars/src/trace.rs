//! Runs that start from a node instead of the logits.
//!
//! The node's value is computed anew from the residual stream just before its layer, with the plain weights:
//! interventions act on the residual stream that is read, not on this computation. Its gradient there is the seed
//! of the backward pass, so that gradients further up say what caused the node. By default the standard deviation
//! of the layer norm before the node counts as constant ("frozen").

use tdb_api::{AttentionTraceType, MirroredTraceConfig, PreOrPostAct};
use tdb_model::kernels::{self, axpy, dot};
use tdb_model::layer_norm;
use tdb_model::{Array, Autoencoder, AutoencoderSite, Forward, Point, Site, Transformer};

use crate::error::{Result, bad};
use crate::nodes::Node;
use crate::objective::Loss;
use crate::replay;

/// A node, and which of its values is traced through which of its inputs.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    pub node: Node,
    pub pre_activation: bool,
    pub frozen_scale: bool,
    /// Heads only.
    pub through: Option<AttentionTraceType>,
    /// With [`AttentionTraceType::V`]: the node on which the head's effect is traced; `None` means the loss.
    pub downstream: Option<Box<Trace>>,
}

/// Where the backward pass of a trace starts.
#[derive(Clone, Debug)]
pub struct TraceSeed {
    pub point: Point,
    /// `[T, D]`
    pub gradient: Array,
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
    pub fn seed(&self, model: &Transformer, forward: &Forward, loss: Option<&Loss>) -> Result<TraceSeed> {
        let layer = self.node.layer();
        let point = self.node.reads_at().residual_point(layer);
        let resid = residual(forward, point);
        let mut gradient = Array::zeros(resid.dims());
        let value = match self.node {
            Node::Neuron { token, index, .. } => self.neuron(model, layer, token, index, resid, &mut gradient),
            Node::Latent { kind, token, index, .. } => {
                self.latent(model, kind.in_layer(model, layer)?, layer, token, index, resid, &mut gradient)
            }
            Node::Head { query, key, head, .. } => {
                if self.through == Some(AttentionTraceType::V) {
                    let direction = self.downstream_gradient(model, forward, loss, query)?;
                    through_value(model, layer, [query, key, head], &direction, resid, &mut gradient)
                } else {
                    self.head(model, layer, [query, key, head], resid, &mut gradient)
                }
            }
        };
        Ok(TraceSeed { point, gradient, value })
    }

    fn neuron(
        &self,
        model: &Transformer,
        layer: usize,
        token: usize,
        index: usize,
        resid: &Array,
        gradient: &mut Array,
    ) -> f32 {
        let weights = &model.weights().layers[layer];
        let mut x = resid.row(token).to_vec();
        layer_norm::apply(&weights.ln_2, &mut x);
        let mut row = weights.mlp_in.weight.row(index);
        let pre = dot(&row, &x) + weights.mlp_in.bias[index];
        let mut value = pre;
        if !self.pre_activation {
            let slope = kernels::gelu_derivative(pre);
            row.iter_mut().for_each(|w| *w *= slope);
            value = kernels::gelu(pre);
        }
        let dx = layer_norm::apply_backward(&weights.ln_2, resid.row(token), &row, self.frozen_scale);
        gradient.row_mut(token).copy_from_slice(&dx);
        value
    }

    fn latent(
        &self,
        model: &Transformer,
        autoencoder: &Autoencoder,
        layer: usize,
        token: usize,
        index: usize,
        resid: &Array,
        gradient: &mut Array,
    ) -> f32 {
        let encoder = autoencoder.encoder_row(index);
        let read = |input: &[f32]| {
            let pre = autoencoder.pre_activation_of_latent(index, input, 1)[0];
            if self.pre_activation {
                return (pre, 1.0);
            }
            let encoded = autoencoder.encode(input, 1);
            let value = encoded.get(0, index);
            let listed = encoded.row(0).iter().any(|e| e.0 as usize == index);
            (value, if listed && autoencoder.passes(value) { 1.0 } else { 0.0 })
        };
        let seed = |slope: f32| -> Vec<f32> { encoder.iter().map(|w| w * slope).collect() };
        match autoencoder.site() {
            AutoencoderSite::ResidDeltaAttn => {
                let attention = replay::Attention::forward(model, layer, resid);
                let (value, slope) = read(&attention.output(token));
                let d = attention.through_output(token, &seed(slope));
                *gradient = attention.backward(d, self.frozen_scale);
                value
            }
            site => {
                let mlp = replay::Mlp::forward(model, layer, resid.row(token));
                let (value, slope) = read(if site == AutoencoderSite::MlpPostAct { &mlp.post_act } else { &mlp.delta });
                let dx = mlp.backward(model, layer, resid.row(token), site, seed(slope), self.frozen_scale);
                gradient.row_mut(token).copy_from_slice(&dx);
                value
            }
        }
    }

    fn head(
        &self,
        model: &Transformer,
        layer: usize,
        [query, key, head]: [usize; 3],
        resid: &Array,
        gradient: &mut Array,
    ) -> f32 {
        let attention = replay::Attention::forward(model, layer, resid);
        let (logits, probs) = (&attention.logits, &attention.probs);
        let (value, d_logits) = if self.pre_activation {
            let mut d_logits = vec![0.0; query + 1];
            d_logits[key] = 1.0;
            (logits.at(&[query, key, head]), d_logits)
        } else {
            let p = probs.at(&[query, key, head]);
            let row = attention.seen(probs, query, head).iter().enumerate();
            (p, row.map(|(k, q)| p * (f32::from(u8::from(k == key)) - q)).collect())
        };
        let span = attention.span(head);
        let mut d = attention.no_gradients();
        for (k, d_logit) in d_logits.iter().enumerate() {
            if self.through != Some(AttentionTraceType::K) {
                axpy(&mut d.q.row_mut(query)[span.clone()], *d_logit, &attention.k.row(k)[span.clone()]);
            }
            if self.through != Some(AttentionTraceType::Q) {
                axpy(&mut d.k.row_mut(k)[span.clone()], *d_logit, &attention.q.row(query)[span.clone()]);
            }
        }
        *gradient = attention.backward(d, self.frozen_scale);
        value
    }

    /// Gradient of the loss or of the downstream node at the residual stream of one token, `[D]`.
    fn downstream_gradient(
        &self,
        model: &Transformer,
        forward: &Forward,
        loss: Option<&Loss>,
        token: usize,
    ) -> Result<Vec<f32>> {
        if let Some(downstream) = &self.downstream {
            return Ok(downstream.seed(model, forward, loss)?.gradient.row(token).to_vec());
        }
        let Some(loss) = loss else {
            return bad!("a trace through \"V\" needs a loss or a downstream node to measure the head's effect on");
        };
        let resid = forward.last_residual();
        let last = forward.tokens.len() - 1;
        if token != last {
            return Ok(vec![0.0; model.config().d_model]);
        }
        let mut x = resid.row(last).to_vec();
        layer_norm::apply(&model.weights().ln_f, &mut x);
        let logits = tdb_model::run::unembed(model, &x);
        let Some(d_logits) = loss.gradient(&logits) else {
            return Ok(vec![0.0; model.config().d_model]);
        };
        let d_x = tdb_model::run::unembed_backward(model, &d_logits);
        Ok(layer_norm::apply_backward(&model.weights().ln_f, resid.row(last), &d_x, true))
    }
}

/// The effect of a head's write from `key` to `query` along `direction: [D]`, and its gradient through the value.
fn through_value(
    model: &Transformer,
    layer: usize,
    [query, key, head]: [usize; 3],
    direction: &[f32],
    resid: &Array,
    gradient: &mut Array,
) -> f32 {
    if key > query {
        return 0.0;
    }
    let attention = replay::Attention::forward(model, layer, resid);
    let p = attention.probs.at(&[query, key, head]);
    let span = attention.span(head);
    let d_value = &replay::through(direction, &model.weights().layers[layer].out)[span.clone()];
    let mut d = attention.no_gradients();
    axpy(&mut d.v.row_mut(key)[span.clone()], p, d_value);
    *gradient = attention.backward(d, true);
    p * dot(&attention.v.row(key)[span], d_value)
}

/// The residual stream at a point of it, `[T, D]`.
pub fn residual(forward: &Forward, point: Point) -> &Array {
    match (point.site, point.layer) {
        (Site::ResidPostAttn, Some(layer)) => &forward.layers[layer].post_attn,
        (Site::ResidPostMlp, Some(layer)) => &forward.layers[layer].post_mlp,
        _ => &forward.post_emb,
    }
}
