//! Runs that start from a node instead of the logits.
//!
//! The node's value is computed anew from the residual stream just before its layer, with the plain weights:
//! interventions act on the residual stream that is read, not on this computation. Its gradient there is the seed
//! of the backward pass, so that gradients further up say what caused the node. By default the standard deviation
//! of the layer norm before the node counts as constant ("frozen").

use tdb_api::{AttentionTraceType, MirroredTraceConfig, NodeType, PassType, PreOrPostAct};
use tdb_model::kernels::{self, axpy, dot};
use tdb_model::layer_norm;
use tdb_model::{Array, Autoencoder, AutoencoderSite, Forward, Point, Site, Tokenizer, Transformer};

use crate::derived::Place;
use crate::error::{Result, bad};
use crate::interventions::{AutoencoderKind, wrap};
use crate::objective::Loss;

/// The node that a trace starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TracedNode {
    Neuron { layer: usize, token: usize, index: usize },
    Head { layer: usize, query: usize, key: usize, head: usize },
    Latent { kind: AutoencoderKind, layer: usize, token: usize, index: usize },
}

/// A node, and which of its values is traced through which of its inputs.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    pub node: TracedNode,
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
        let node = TracedNode::new(model, tokens, config)?;
        let is_head = matches!(node, TracedNode::Head { .. });
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
        if let (TracedNode::Head { query, key, .. }, false) = (node, through_value)
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
        let point = self.node.residual_point();
        let resid = residual(forward, point);
        let mut gradient = Array::zeros(resid.dims());
        let value = match self.node {
            TracedNode::Neuron { token, index, .. } => self.neuron(model, layer, token, index, resid, &mut gradient),
            TracedNode::Latent { kind, token, index, .. } => match autoencoder(model, kind, layer) {
                Some(autoencoder) => self.latent(model, autoencoder, layer, token, index, resid, &mut gradient),
                None => return bad!("layer {layer} has no autoencoder on {}", kind.place()),
            },
            TracedNode::Head { query, key, head, .. } => {
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
        match autoencoder.site() {
            AutoencoderSite::ResidDeltaAttn => {
                let layer_pass = OneQuery::forward(model, layer, token, resid);
                let (value, slope) = read(&layer_pass.delta);
                let d_delta: Vec<f32> = encoder.iter().map(|w| w * slope).collect();
                layer_pass.backward(model, layer, resid, &d_delta, self.frozen_scale, gradient);
                value
            }
            site => {
                let row = MlpRow::forward(model, layer, resid.row(token));
                let (value, slope) = read(if site == AutoencoderSite::MlpPostAct { &row.post_act } else { &row.delta });
                let seed: Vec<f32> = encoder.iter().map(|w| w * slope).collect();
                let dx = row.backward(model, layer, resid.row(token), site, seed, self.frozen_scale);
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
        let row = HeadRow::forward(model, layer, query, head, resid);
        let (value, d_logits) = if self.pre_activation {
            let mut d_logits = vec![0.0; row.logits.len()];
            d_logits[key] = 1.0;
            (row.logits[key], d_logits)
        } else {
            let p = row.probs[key];
            let d_logits = row.probs.iter().enumerate().map(|(k, q)| p * (f32::from(u8::from(k == key)) - q));
            (p, d_logits.collect())
        };
        let weights = &model.weights().layers[layer];
        let factor = tdb_model::attention::qk_factor(model.config().d_head);
        let range = row.range.clone();
        let through = self.through.unwrap_or(AttentionTraceType::QK);
        if through != AttentionTraceType::K {
            let mut dq = vec![0.0; range.len()];
            for (k, d) in d_logits.iter().enumerate() {
                axpy(&mut dq, d * factor, &row.keys[k]);
            }
            let dx = project_back(&weights.query.weight.row_range(range.clone()), &dq);
            add_through_ln(model, layer, resid, query, &dx, self.frozen_scale, gradient);
        }
        if through != AttentionTraceType::Q {
            for (k, d) in d_logits.iter().enumerate().filter(|(_, d)| **d != 0.0) {
                let dk: Vec<f32> = row.query.iter().map(|q| d * factor * q).collect();
                let dx = project_back(&weights.key.weight.row_range(range.clone()), &dk);
                add_through_ln(model, layer, resid, k, &dx, self.frozen_scale, gradient);
            }
        }
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

impl TracedNode {
    fn new(model: &Transformer, tokens: usize, config: &MirroredTraceConfig) -> Result<Self> {
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
            _ => match latent_kind(model, node_type)? {
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
            (NodeType::AttentionHead, &[query, key, head]) => TracedNode::Head { layer, query, key, head },
            (NodeType::MlpNeuron, &[token, index]) => TracedNode::Neuron { layer, token, index },
            (_, &[token, index]) => match latent_kind(model, node_type)? {
                Some(kind) => TracedNode::Latent { kind, layer, token, index },
                None => return bad!("a node of type \"{node_type}\" cannot be traced"),
            },
            _ => return bad!("a node of type \"{node_type}\" cannot be traced"),
        })
    }

    pub fn layer(self) -> usize {
        match self {
            TracedNode::Neuron { layer, .. } | TracedNode::Head { layer, .. } | TracedNode::Latent { layer, .. } => {
                layer
            }
        }
    }

    /// The place of the residual stream that the node reads, relative to its layer.
    pub fn residual_place(self) -> Place {
        match self {
            TracedNode::Head { .. } | TracedNode::Latent { kind: AutoencoderKind::Attn, .. } => {
                Place::EndOfPreviousLayer
            }
            TracedNode::Neuron { .. } | TracedNode::Latent { kind: AutoencoderKind::Mlp, .. } => Place::ResidPostAttn,
        }
    }

    /// That place as a point of the pass.
    pub fn residual_point(self) -> Point {
        match (self.residual_place(), self.layer()) {
            (Place::EndOfPreviousLayer, 0) => Point { site: Site::ResidPostEmb, layer: None },
            (Place::EndOfPreviousLayer, layer) => Point { site: Site::ResidPostMlp, layer: Some(layer - 1) },
            (_, layer) => Point { site: Site::ResidPostAttn, layer: Some(layer) },
        }
    }
}

/// Which autoencoder a node type means; `None` if it is no latent.
///
/// # Errors
/// If that autoencoder is not loaded.
pub fn latent_kind(model: &Transformer, node_type: NodeType) -> Result<Option<AutoencoderKind>> {
    let name = node_type.as_str();
    Ok(match node_type {
        NodeType::AutoencoderLatent => Some(AutoencoderKind::only(model, name)?),
        NodeType::MlpAutoencoderLatent => Some(AutoencoderKind::Mlp.require(model, name)?),
        NodeType::AttentionAutoencoderLatent => Some(AutoencoderKind::Attn.require(model, name)?),
        _ => None,
    })
}

/// The autoencoder of one layer.
pub fn autoencoder(model: &Transformer, kind: AutoencoderKind, layer: usize) -> Option<&Autoencoder> {
    match kind {
        AutoencoderKind::Mlp => model.mlp_autoencoder(layer),
        AutoencoderKind::Attn => model.attn_autoencoder(layer),
    }
}

/// The residual stream at a point of it, `[T, D]`.
pub fn residual(forward: &Forward, point: Point) -> &Array {
    match (point.site, point.layer) {
        (Site::ResidPostAttn, Some(layer)) => &forward.layers[layer].post_attn,
        (Site::ResidPostMlp, Some(layer)) => &forward.layers[layer].post_mlp,
        _ => &forward.post_emb,
    }
}

/// `Wᵀ d` for `W: [out, in]`.
fn project_back(weight: &tdb_model::Matrix, d: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; weight.cols()];
    let mut row = vec![0.0; weight.cols()];
    for (i, d) in d.iter().enumerate().filter(|(_, d)| **d != 0.0) {
        weight.copy_row(i, &mut row);
        axpy(&mut out, *d, &row);
    }
    out
}

/// `W x + b` for the rows `range` of a linear layer.
fn project(linear: &tdb_model::Linear, range: std::ops::Range<usize>, x: &[f32]) -> Vec<f32> {
    let mut row = vec![0.0; x.len()];
    range
        .map(|i| {
            linear.weight.copy_row(i, &mut row);
            dot(&row, x) + linear.bias[i]
        })
        .collect()
}

fn add_through_ln(
    model: &Transformer,
    layer: usize,
    resid: &Array,
    token: usize,
    dx: &[f32],
    frozen_scale: bool,
    gradient: &mut Array,
) {
    let norm = &model.weights().layers[layer].ln_1;
    let dx = layer_norm::apply_backward(norm, resid.row(token), dx, frozen_scale);
    axpy(gradient.row_mut(token), 1.0, &dx);
}

fn normed(model: &Transformer, layer: usize, resid: &Array, token: usize) -> Vec<f32> {
    let mut x = resid.row(token).to_vec();
    layer_norm::apply(&model.weights().layers[layer].ln_1, &mut x);
    x
}

/// One head at one query, from the residual stream.
struct HeadRow {
    range: std::ops::Range<usize>,
    query: Vec<f32>,
    keys: Vec<Vec<f32>>,
    logits: Vec<f32>,
    probs: Vec<f32>,
}

impl HeadRow {
    fn forward(model: &Transformer, layer: usize, query: usize, head: usize, resid: &Array) -> Self {
        let (weights, width) = (&model.weights().layers[layer], model.config().d_head);
        let range = head * width..(head + 1) * width;
        let factor = tdb_model::attention::qk_factor(width);
        let scaled = |linear, token| -> Vec<f32> {
            let x = normed(model, layer, resid, token);
            project(linear, range.clone(), &x).into_iter().map(|x| x * factor).collect()
        };
        let q = scaled(&weights.query, query);
        let keys: Vec<Vec<f32>> = (0..=query).map(|token| scaled(&weights.key, token)).collect();
        let logits: Vec<f32> = keys.iter().map(|k| dot(&q, k)).collect();
        let mut probs = logits.clone();
        kernels::softmax(&mut probs);
        HeadRow { range, query: q, keys, logits, probs }
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
    let row = HeadRow::forward(model, layer, query, head, resid);
    let weights = &model.weights().layers[layer];
    let p = row.probs[key];
    let d_value = project_back_columns(&weights.out.weight, row.range.clone(), direction);
    let value = project(&weights.value, row.range.clone(), &normed(model, layer, resid, key));
    let scaled: Vec<f32> = d_value.iter().map(|d| p * d).collect();
    let dx = project_back(&weights.value.weight.row_range(row.range), &scaled);
    add_through_ln(model, layer, resid, key, &dx, true, gradient);
    p * dot(&value, &d_value)
}

/// `(W[:, range])ᵀ d` for `W: [out, in]`.
pub fn project_back_columns(weight: &tdb_model::Matrix, range: std::ops::Range<usize>, d: &[f32]) -> Vec<f32> {
    project_back(&weight.col_range(range), d)
}

/// An attention layer at one query, from the residual stream: all heads.
struct OneQuery {
    token: usize,
    heads: Vec<HeadRow>,
    /// `[head][key][E]`
    values: Vec<Vec<Vec<f32>>>,
    /// `[D]`
    delta: Vec<f32>,
}

impl OneQuery {
    fn forward(model: &Transformer, layer: usize, token: usize, resid: &Array) -> Self {
        let (weights, config) = (&model.weights().layers[layer], model.config());
        let heads: Vec<_> = (0..config.n_heads).map(|h| HeadRow::forward(model, layer, token, h, resid)).collect();
        let inputs: Vec<_> = (0..=token).map(|t| normed(model, layer, resid, t)).collect();
        let mut merged = Vec::with_capacity(config.n_heads * config.d_head);
        let mut values = Vec::with_capacity(config.n_heads);
        for head in &heads {
            let of_head: Vec<_> = inputs.iter().map(|x| project(&weights.value, head.range.clone(), x)).collect();
            let mut sum = vec![0.0; config.d_head];
            for (p, v) in head.probs.iter().zip(&of_head) {
                axpy(&mut sum, *p, v);
            }
            merged.extend(sum);
            values.push(of_head);
        }
        let delta = project(&weights.out, 0..config.d_model, &merged);
        OneQuery { token, heads, values, delta }
    }

    fn backward(
        &self,
        model: &Transformer,
        layer: usize,
        resid: &Array,
        d_delta: &[f32],
        frozen_scale: bool,
        gradient: &mut Array,
    ) {
        let (weights, config) = (&model.weights().layers[layer], model.config());
        let factor = tdb_model::attention::qk_factor(config.d_head);
        let mut dx: Vec<Vec<f32>> = vec![vec![0.0; config.d_model]; self.token + 1];
        for (head, values) in self.heads.iter().zip(&self.values) {
            let d_out = project_back_columns(&weights.out.weight, head.range.clone(), d_delta);
            let d_probs: Vec<f32> = values.iter().map(|v| dot(v, &d_out)).collect();
            let mean = dot(&d_probs, &head.probs);
            let mut dq = vec![0.0; config.d_head];
            for (k, p) in head.probs.iter().enumerate() {
                let dv: Vec<f32> = d_out.iter().map(|d| p * d).collect();
                axpy(&mut dx[k], 1.0, &project_back(&weights.value.weight.row_range(head.range.clone()), &dv));
                let d_logit = p * (d_probs[k] - mean) * factor;
                axpy(&mut dq, d_logit, &head.keys[k]);
                let dk: Vec<f32> = head.query.iter().map(|q| d_logit * q).collect();
                axpy(&mut dx[k], 1.0, &project_back(&weights.key.weight.row_range(head.range.clone()), &dk));
            }
            axpy(&mut dx[self.token], 1.0, &project_back(&weights.query.weight.row_range(head.range.clone()), &dq));
        }
        for (token, dx) in dx.iter().enumerate() {
            add_through_ln(model, layer, resid, token, dx, frozen_scale, gradient);
        }
    }
}

/// An MLP layer at one token, from the residual stream.
pub struct MlpRow {
    pre_act: Vec<f32>,
    pub post_act: Vec<f32>,
    pub delta: Vec<f32>,
}

impl MlpRow {
    pub fn forward(model: &Transformer, layer: usize, resid: &[f32]) -> Self {
        let weights = &model.weights().layers[layer];
        let mut x = resid.to_vec();
        layer_norm::apply(&weights.ln_2, &mut x);
        let pre_act = kernels::linear(kernels::View::new(&x, 1, x.len()), &weights.mlp_in);
        let post_act = kernels::map(&pre_act, kernels::gelu);
        let delta = kernels::linear(kernels::View::new(&post_act, 1, post_act.len()), &weights.mlp_out);
        MlpRow { pre_act, post_act, delta }
    }

    /// From the gradient at `site` (neurons or layer output) to that at the residual stream, `[D]`.
    pub fn backward(
        &self,
        model: &Transformer,
        layer: usize,
        resid: &[f32],
        site: AutoencoderSite,
        mut d: Vec<f32>,
        frozen_scale: bool,
    ) -> Vec<f32> {
        let weights = &model.weights().layers[layer];
        if site == AutoencoderSite::ResidDeltaMlp {
            d = kernels::linear_backward(kernels::View::new(&d, 1, d.len()), &weights.mlp_out);
        }
        kernels::zip_into(&mut d, &self.pre_act, |d, x| d * kernels::gelu_derivative(x));
        let dx = kernels::linear_backward(kernels::View::new(&d, 1, d.len()), &weights.mlp_in);
        layer_norm::apply_backward(&weights.ln_2, resid, &dx, frozen_scale)
    }
}

/// The loss of a request, if it has one.
///
/// # Errors
/// See [`Loss::new`].
pub fn loss(tokenizer: &Tokenizer, config: Option<&tdb_api::LossFnConfig>) -> Result<Option<Loss>> {
    config.map(|config| Loss::new(tokenizer, config)).transpose()
}
