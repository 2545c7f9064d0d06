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

use tdb_api::{AttentionTraceType, DerivedScalarType as Dst};
use tdb_model::kernels::{self, Threads, View, axpy, dot};
use tdb_model::{Array, AutoencoderSite, Site, layer_norm};

use crate::compute;
use crate::derived::Place;
use crate::error::{Result, bad};
use crate::nodes::{AutoencoderKind, EdgeNode, Node};
use crate::readings::{ReadNode, write_vector};
use crate::replay::{self, products};
use crate::side::Side;
use crate::trace::Trace;
use crate::values::Values;

/// `None` if `dst` is not about edges.
///
/// # Errors
/// If the inspection names no node, or one that does not fit.
pub(crate) fn values<'a>(side: &'a Side<'_>, dst: Dst, layer: Option<usize>) -> Result<Option<Values<'a>>> {
    let asked = matches!(
        dst,
        Dst::SingleNodeWrite
            | Dst::SingleNodeWriteToFinalResidualGrad
            | Dst::GradOfSingleSubnodeAttribution
            | Dst::AttnOutEdgeAttribution
            | Dst::MlpOutEdgeAttribution
            | Dst::OnlineAutoencoderOutEdgeAttribution
            | Dst::TokenOutEdgeAttribution
            | Dst::MlpInEdgeAttribution
            | Dst::OnlineAutoencoderInEdgeAttribution
            | Dst::AttnQueryInEdgeAttribution
            | Dst::AttnKeyInEdgeAttribution
            | Dst::AttnValueInEdgeAttribution
            | Dst::MlpInEdgeActivation
            | Dst::OnlineAutoencoderInEdgeActivation
            | Dst::AttnQueryInEdgeActivation
            | Dst::AttnKeyInEdgeActivation
    );
    if !asked {
        return Ok(None);
    }
    let Some(edge) = &side.edge else {
        return bad!(
            "\"{dst}\" is about edges of a node, which a request of this kind cannot name; use the library interface"
        );
    };
    let array = match (dst, layer) {
        (Dst::TokenOutEdgeAttribution, _) => {
            let gradient = attribution_gradient(side, dst, edge)?;
            compute::dots(&side.forward.post_emb, Some(&gradient))
        }
        (_, None) => return Ok(None),
        (Dst::SingleNodeWrite, Some(_)) => written(side, edge)?,
        (Dst::SingleNodeWriteToFinalResidualGrad, Some(_)) => {
            let gradient = side.final_residual_gradient(dst)?;
            let precedes = side.precedes_final_residual(Some(edge.node.layer()), edge.node.writes_at());
            compute::dots(&written(side, edge)?, gradient.filter(|_| precedes))
        }
        (Dst::GradOfSingleSubnodeAttribution, Some(_)) => attribution_gradient(side, dst, edge)?,
        (
            Dst::AttnOutEdgeAttribution | Dst::MlpOutEdgeAttribution | Dst::OnlineAutoencoderOutEdgeAttribution,
            Some(layer),
        ) => {
            let gradient = attribution_gradient(side, dst, edge)?;
            return out_edges(side, dst, layer, edge, &gradient).map(Some);
        }
        (_, Some(layer)) => in_edges(side, dst, layer, edge)?,
    };
    Ok(Some(Values::dense(array)))
}

/// What the node writes, at the token where it writes, `[T, D]`.
fn written(side: &Side<'_>, edge: &EdgeNode) -> Result<Array> {
    let token = match edge.node {
        Node::Neuron { token, .. } | Node::Latent { token, .. } | Node::Head { query: token, .. } => token,
    };
    let mut out = Array::zeros(&[side.tokens(), side.model().config().d_model]);
    out.row_mut(token).copy_from_slice(&write_vector(side, ReadNode::Node(edge.node)));
    Ok(out)
}

/// Gradient of the named node's attribution at the residual stream before it, `[T, D]`.
fn attribution_gradient(side: &Side<'_>, dst: Dst, edge: &EdgeNode) -> Result<Array> {
    let layer = edge.node.layer();
    let gradients = side.gradients(dst)?;
    if let (Node::Head { query, key, head, .. }, Some(AttentionTraceType::V)) = (edge.node, edge.through) {
        return Ok(through_value(
            side,
            layer,
            [query, key, head],
            edge.frozen_scale,
            gradients.get(Site::AttnVOut, Some(layer)),
        ));
    }
    let factor = match edge.node {
        Node::Neuron { token, index, .. } => {
            gradients.get(Site::MlpPostAct, Some(layer)).map_or(0.0, |g| g.row(token)[index])
        }
        Node::Head { query, key, head, .. } => {
            gradients.get(Site::AttnQkProbs, Some(layer)).map_or(0.0, |g| g.at(&[query, key, head]))
        }
        Node::Latent { kind, token, index, .. } => {
            let autoencoder = kind.in_layer(side.model(), layer)?;
            gradients.get(kind.site(), Some(layer)).map_or(0.0, |g| dot(autoencoder.direction(index), g.row(token)))
        }
    };
    let through = match (edge.node, edge.through) {
        (Node::Head { .. }, None) => {
            return bad!("an edge into a head goes through its query, key or value; say which");
        }
        (Node::Head { .. }, through) => through,
        _ => None,
    };
    let frozen_scale = edge.frozen_scale;
    let trace = Trace { node: edge.node, pre_activation: false, frozen_scale, through, downstream: None };
    let mut gradient = trace.seed(side.model(), &side.forward, None)?.gradient;
    gradient.data_mut().iter_mut().for_each(|x| *x *= factor);
    Ok(gradient)
}

/// Gradient of `p v · g` through the value alone.
fn through_value(
    side: &Side<'_>,
    layer: usize,
    [query, key, head]: [usize; 3],
    frozen_scale: bool,
    gradient: Option<&Array>,
) -> Array {
    let attention = replayed(side, layer);
    let mut d = attention.no_gradients();
    if let Some(gradient) = gradient {
        let (p, span) = (attention.probs.at(&[query, key, head]), attention.span(head));
        axpy(&mut d.v.row_mut(key)[span.clone()], p, &gradient.row(query)[span]);
    }
    attention.backward(d, frozen_scale)
}

fn replayed<'a>(side: &'a Side<'_>, layer: usize) -> replay::Attention<'a> {
    replay::Attention::forward(side.model(), layer, side.forward.before_attn(layer))
}

/// The writes of all nodes of a layer along the gradient of the named downstream node.
fn out_edges<'a>(side: &'a Side<'_>, dst: Dst, layer: usize, edge: &EdgeNode, gradient: &Array) -> Result<Values<'a>> {
    let place = match dst {
        Dst::AttnOutEdgeAttribution => Place::Attn,
        Dst::MlpOutEdgeAttribution => Place::Mlp,
        _ => AutoencoderKind::only(side.model(), dst.as_str())?.writes_at(),
    };
    let precedes = (layer, place) < (edge.node.layer(), edge.node.reads_at());
    compute::along_gradient(side, dst, layer, precedes.then_some(gradient))
}

/// Derivative of a layer norm's output along `write`, one row: `[D]`.
fn layer_norm_along(norm: &tdb_model::LayerNorm, input: &[f32], write: &[f32], frozen_scale: bool) -> Vec<f32> {
    let mut centered = input.to_vec();
    layer_norm::center(&mut centered);
    let scale = layer_norm::scale_of(&centered);
    let mut out = write.to_vec();
    layer_norm::center(&mut out);
    if !frozen_scale {
        let along = dot(&out, &centered) / (scale * scale * input.len() as f32);
        axpy(&mut out, -along, &centered);
    }
    out.iter_mut().zip(&norm.gain).for_each(|(x, g)| *x *= g / scale);
    out
}

/// Derivatives of all nodes of a layer along the named upstream node's write; zero where the layer does not follow it.
fn in_edges(side: &Side<'_>, dst: Dst, layer: usize, edge: &EdgeNode) -> Result<Array> {
    let attribution = !dst.as_str().ends_with("activation");
    // Activations along a write are told with the scale held fixed, attributions as the inspection says.
    let frozen_scale = !attribution || edge.frozen_scale;
    let after = |place| (edge.node.layer(), edge.node.writes_at()) < (layer, place);
    let write = written(side, edge)?;
    match dst {
        Dst::MlpInEdgeAttribution | Dst::MlpInEdgeActivation => {
            let d_ff = side.model().config().d_ff;
            let mut out = Array::zeros(&[side.tokens(), d_ff]);
            if !after(Place::ResidPostAttn) {
                return Ok(out);
            }
            for t in rows_of(&write) {
                let along = Neurons::along(side, layer, t, write.row(t), frozen_scale);
                out.row_mut(t).copy_from_slice(&along.post_act);
            }
            weigh(side, dst, Site::MlpPostAct, layer, attribution, &mut out)?;
            Ok(out)
        }
        Dst::OnlineAutoencoderInEdgeAttribution | Dst::OnlineAutoencoderInEdgeActivation => {
            latents_along(side, dst, layer, &write, frozen_scale, attribution, after)
        }
        _ => {
            let tokens = side.tokens();
            let n_heads = side.model().config().n_heads;
            if !after(Place::EndOfPreviousLayer) {
                return Ok(Array::zeros(&[tokens, tokens, n_heads]));
            }
            heads_along(side, dst, layer, &write, frozen_scale, attribution)
        }
    }
}

fn rows_of(write: &Array) -> Vec<usize> {
    (0..write.dims()[0]).filter(|t| write.row(*t).iter().any(|x| *x != 0.0)).collect()
}

/// Multiplies by the gradient at `site`, if attributions are asked for.
fn weigh(side: &Side<'_>, dst: Dst, site: Site, layer: usize, attribution: bool, out: &mut Array) -> Result<()> {
    if attribution {
        match side.gradients(dst)?.get(site, Some(layer)) {
            Some(gradient) => out.data_mut().iter_mut().zip(gradient.data()).for_each(|(x, g)| *x *= g),
            None => out.data_mut().fill(0.0),
        }
    }
    Ok(())
}

/// Derivatives of an MLP layer's neurons and output along a write, at one token.
struct Neurons {
    post_act: Vec<f32>,
    delta: Vec<f32>,
}

impl Neurons {
    fn along(side: &Side<'_>, layer: usize, token: usize, write: &[f32], frozen_scale: bool) -> Self {
        let weights = &side.model().weights().layers[layer];
        let resid = side.forward.layers[layer].post_attn.row(token);
        let mut x = resid.to_vec();
        layer_norm::apply(&weights.ln_2, &mut x);
        let pre = kernels::linear(View::new(&x, 1, x.len()), &weights.mlp_in);
        let dx = layer_norm_along(&weights.ln_2, resid, write, frozen_scale);
        let mut post_act =
            kernels::matmul(View::new(&dx, 1, dx.len()), View::of(&weights.mlp_in.weight).t(), Threads::All);
        kernels::zip_into(&mut post_act, &pre, |d, x| d * kernels::gelu_derivative(x));
        let delta = kernels::matmul(
            View::new(&post_act, 1, post_act.len()),
            View::of(&weights.mlp_out.weight).t(),
            Threads::All,
        );
        Neurons { post_act, delta }
    }
}

fn latents_along(
    side: &Side<'_>,
    dst: Dst,
    layer: usize,
    write: &Array,
    frozen_scale: bool,
    attribution: bool,
    after: impl Fn(Place) -> bool,
) -> Result<Array> {
    let kind = AutoencoderKind::only(side.model(), dst.as_str())?;
    let autoencoder = kind.in_layer(side.model(), layer)?;
    let tokens = side.tokens();
    let mut out = Array::zeros(&[tokens, autoencoder.n_latents()]);
    if !after(kind.reads_at()) {
        return Ok(out);
    }
    let state = &side.forward.layers[layer];
    let (input, along) = match autoencoder.site() {
        AutoencoderSite::ResidDeltaAttn => {
            (&state.attn.delta, attention_output_along(side, layer, write, frozen_scale))
        }
        site => {
            let on_neurons = site == AutoencoderSite::MlpPostAct;
            let input = if on_neurons { &state.mlp.post_act } else { &state.mlp.delta };
            let mut along = Array::zeros(input.dims());
            for t in rows_of(write) {
                let neurons = Neurons::along(side, layer, t, write.row(t), frozen_scale);
                along.row_mut(t).copy_from_slice(if on_neurons { &neurons.post_act } else { &neurons.delta });
            }
            (input, along)
        }
    };
    let encoded = autoencoder.encode(input.data(), tokens);
    let gradient = match attribution {
        true => side.gradients(dst)?.get(kind.site(), Some(layer)),
        false => None,
    };
    for t in 0..tokens {
        for &(i, value) in encoded.row(t) {
            let i = i as usize;
            if !autoencoder.passes(value) {
                continue;
            }
            let derivative = dot(&autoencoder.encoder_row(i), along.row(t));
            out.row_mut(t)[i] = match (attribution, gradient) {
                (false, _) => derivative,
                (true, Some(gradient)) => derivative * dot(autoencoder.direction(i), gradient.row(t)),
                (true, None) => 0.0,
            };
        }
    }
    Ok(out)
}

/// Derivatives of queries, keys and values along a write, `[T, H, E]` each.
fn projections_along(side: &Side<'_>, layer: usize, write: &Array, frozen_scale: bool) -> [Array; 3] {
    let (model, tokens) = (side.model(), side.tokens());
    let (config, weights) = (model.config(), &model.weights().layers[layer]);
    let resid = side.forward.before_attn(layer);
    let mut dx = Array::zeros(resid.dims());
    for t in rows_of(write) {
        dx.row_mut(t).copy_from_slice(&layer_norm_along(&weights.ln_1, resid.row(t), write.row(t), frozen_scale));
    }
    let factor = tdb_model::attention::qk_factor(config.d_head);
    [(&weights.query, factor), (&weights.key, factor), (&weights.value, 1.0)].map(|(linear, factor)| {
        let x = View::new(dx.data(), tokens, config.d_model);
        let mut out = kernels::matmul(x, View::of(&linear.weight).t(), Threads::All);
        out.iter_mut().for_each(|x| *x *= factor);
        Array::from_vec(&[tokens, config.n_heads, config.d_head], out)
    })
}

/// Derivative of probabilities given those of the logits, row by row: `p (dl - Σ p dl)`.
fn softmax_along(probs: &Array, mut d_logits: Array) -> Array {
    let keys = probs.dims()[1];
    for (d, p) in d_logits.data_mut().chunks_exact_mut(keys).zip(probs.data().chunks_exact(keys)) {
        let mean = dot(d, p);
        d.iter_mut().zip(p).for_each(|(d, p)| *d = p * (*d - mean));
    }
    d_logits
}

fn heads_along(
    side: &Side<'_>,
    dst: Dst,
    layer: usize,
    write: &Array,
    frozen_scale: bool,
    attribution: bool,
) -> Result<Array> {
    let replayed = replayed(side, layer);
    let [dq, dk, dv] = projections_along(side, layer, write, frozen_scale);
    if dst == Dst::AttnValueInEdgeAttribution {
        let Some(gradient) = side.gradients(dst)?.get(Site::AttnVOut, Some(layer)) else {
            let tokens = side.tokens();
            return Ok(Array::zeros(&[tokens, tokens, side.model().config().n_heads]));
        };
        let mut out = products(gradient, &dv);
        out.data_mut().iter_mut().zip(replayed.probs.data()).for_each(|(x, p)| *x *= p);
        return Ok(out);
    }
    let through_query = matches!(dst, Dst::AttnQueryInEdgeAttribution | Dst::AttnQueryInEdgeActivation);
    let d_logits = if through_query { products(&dq, &replayed.k) } else { products(&replayed.q, &dk) };
    let mut out = softmax_along(&replayed.probs, d_logits);
    weigh(side, dst, Site::AttnQkProbs, layer, attribution, &mut out)?;
    Ok(out)
}

/// Derivative of an attention layer's output along a write, through queries, keys and values, `[T, D]`.
fn attention_output_along(side: &Side<'_>, layer: usize, write: &Array, frozen_scale: bool) -> Array {
    let (model, tokens) = (side.model(), side.tokens());
    let (config, weights) = (model.config(), &model.weights().layers[layer]);
    let replayed = replayed(side, layer);
    let [dq, dk, dv] = projections_along(side, layer, write, frozen_scale);
    let mut d_logits = products(&dq, &replayed.k);
    axpy(d_logits.data_mut(), 1.0, products(&replayed.q, &dk).data());
    let d_probs = softmax_along(&replayed.probs, d_logits);
    let mut merged = Array::zeros(&[tokens, config.n_heads * config.d_head]);
    for head in 0..config.n_heads {
        let span = head * config.d_head..(head + 1) * config.d_head;
        for query in 0..tokens {
            for key in 0..=query {
                let (d, p) = (d_probs.at(&[query, key, head]), replayed.probs.at(&[query, key, head]));
                axpy(&mut merged.row_mut(query)[span.clone()], d, &replayed.v.row(key)[span.clone()]);
                axpy(&mut merged.row_mut(query)[span.clone()], p, &dv.row(key)[span.clone()]);
            }
        }
    }
    let x = View::new(merged.data(), tokens, config.n_heads * config.d_head);
    let out = kernels::matmul(x, View::of(&weights.out.weight).t(), Threads::All);
    Array::from_vec(&[tokens, config.d_model], out)
}
