//! Causal attention of many heads: `softmax(q kᵀ) v`, then the output projection.

use rayon::prelude::*;

use crate::array::Array;
use crate::autoencoder::Autoencoder;
use crate::block::autoencode::{self, LatentState};
use crate::buffers;
use crate::hooks::{Actors, RunError};
use crate::kernels::{self, Threads, View};
use crate::run::Keep;
use crate::site::{Pass, Point, Site};
use crate::weights::{Config, LayerWeights, Linear};

/// What the backward pass and readers need of an attention layer; `Q` queries, `K` keys (`Q < K` only
/// when sampling with a cache).
#[derive(Clone, Debug)]
pub struct AttentionState {
    /// `[Q, H, E]`, times `E^(-1/4)`
    pub q: Array,
    /// `[K, H, E]`, times `E^(-1/4)`
    pub k: Array,
    /// `[K, H, E]`
    pub v: Array,
    /// `[Q, K, H]`, `-inf` above the diagonal
    pub qk_logits: Array,
    /// `[Q, K, H]`
    pub qk_probs: Array,
    /// `[Q, H, E]`
    pub v_out: Array,
    /// `[Q, D]`
    pub delta: Array,
    pub latents: Option<LatentState>,
    /// Only where something looked at or changed the denominator.
    softmax: Option<ExplicitSoftmax>,
    /// Whether `qk_probs` may differ from the softmax of `qk_logits`.
    probs_touched: bool,
}

#[derive(Clone, Debug)]
struct ExplicitSoftmax {
    numerator: Array,
    denominator: Array,
}

/// Keys and values of earlier tokens, `[K, H, E]` each, as interventions and hooks left them.
#[derive(Clone, Debug)]
pub struct PastKeysValues {
    pub k: Array,
    pub v: Array,
}

/// `input: [Q, D]` (after the layer norm) to what is added to the residual stream, `[Q, D]`.
pub(crate) fn forward(
    config: &Config,
    weights: &LayerWeights,
    autoencoder: Option<&Autoencoder>,
    layer: usize,
    input: &Array,
    past: Option<&PastKeysValues>,
    actors: &mut Actors<'_>,
) -> Result<(AttentionState, Array), RunError> {
    let at = |site| Point { site, layer: Some(layer) };
    let (n_heads, width) = (config.n_heads, config.d_head);
    let queries = input.dims()[0];
    let factor = qk_factor(width);

    let mut q = project(input, &weights.query, n_heads, width, factor);
    actors.forward(at(Site::AttnQ), &mut q)?;
    let mut k = project(input, &weights.key, n_heads, width, factor);
    actors.forward(at(Site::AttnK), &mut k)?;
    if let Some(past) = past {
        k = append(&past.k, &k);
    }
    let mut v = project(input, &weights.value, n_heads, width, 1.0);
    actors.forward(at(Site::AttnV), &mut v)?;
    if let Some(past) = past {
        v = append(&past.v, &v);
    }

    let keys = k.dims()[0];
    let mut qk_logits = logits(&q, &k);
    // Only an intervention can show a query a later key.
    let causal = !actors.touches(at(Site::AttnQkLogits), Pass::Forward);
    actors.forward(at(Site::AttnQkLogits), &mut qk_logits)?;
    let probs_touched = actors.touches(at(Site::AttnQkProbs), Pass::Forward);
    let mut softmax = None;
    let denominator = at(Site::AttnSoftmaxDenominator);
    let mut qk_probs = if actors.touches(denominator, Pass::Forward) {
        let (explicit, probs) = explicit_softmax(&qk_logits, denominator, actors)?;
        softmax = Some(explicit);
        probs
    } else {
        let mut probs = Array::head_major(queries, keys, n_heads, buffers::zeros(queries * keys * n_heads));
        kernels::for_each_row(probs.data_mut(), keys, |row, probs| {
            let visible = if causal { keys - queries + row % queries + 1 } else { keys };
            kernels::softmax_into(&mut probs[..visible], &qk_logits.data()[row * keys..][..visible]);
        });
        probs
    };
    actors.forward(at(Site::AttnQkProbs), &mut qk_probs)?;

    let mut v_out = Array::zeros(&[queries, n_heads, width]);
    for_each_head(&mut v_out, |head, out| {
        let probs = View::new(&qk_probs.data()[head * queries * keys..][..queries * keys], queries, keys);
        let values = head_view(&v, head);
        kernels::matmul_into(out, [width, 1], probs, values, false, Threads::One);
    });
    actors.forward(at(Site::AttnVOut), &mut v_out)?;
    let merged = View::new(v_out.data(), queries, n_heads * width);
    let mut delta = Array::from_vec(&[queries, config.d_model], kernels::linear(merged, &weights.out));
    actors.forward(at(Site::ResidDeltaAttn), &mut delta)?;
    let mut latents = None;
    let mut write = None;
    if let Some(autoencoder) = autoencoder {
        let (state, out) = autoencode::forward(autoencoder, layer, &delta, actors)?;
        latents = Some(state);
        write = out;
    }
    let write = write.unwrap_or_else(|| delta.clone());
    Ok((AttentionState { q, k, v, qk_logits, qk_probs, v_out, delta, latents, softmax, probs_touched }, write))
}

/// Gradient at what is added to the residual stream, `[T, D]`, to the gradient at the input, `[T, D]`.
pub(crate) fn backward(
    config: &Config,
    weights: &LayerWeights,
    autoencoder: Option<&Autoencoder>,
    layer: usize,
    state: &AttentionState,
    mut dy: Array,
    actors: &mut Actors<'_>,
    keep: &mut Keep<'_>,
) -> Result<Array, RunError> {
    let at = |site| Point { site, layer: Some(layer) };
    let (n_heads, width, d_model) = (config.n_heads, config.d_head, config.d_model);
    let tokens = dy.dims()[0];
    let factor = qk_factor(width);

    if let (Some(autoencoder), Some(latents)) = (autoencoder, &state.latents) {
        dy = autoencode::backward(autoencoder, layer, latents, dy, actors, keep)?;
    }
    keep.put(at(Site::ResidDeltaAttn), &dy);
    actors.backward(at(Site::ResidDeltaAttn), &mut dy)?;
    let merged = kernels::linear_backward(View::new(dy.data(), tokens, d_model), &weights.out);
    let mut d_v_out = Array::from_vec(&[tokens, n_heads, width], merged);
    keep.put(at(Site::AttnVOut), &d_v_out);
    actors.backward(at(Site::AttnVOut), &mut d_v_out)?;

    let mut d_probs = Array::head_major(tokens, tokens, n_heads, buffers::zeros(tokens * tokens * n_heads));
    d_probs.data_mut().par_chunks_mut(tokens * tokens).enumerate().for_each(|(head, out)| {
        let (grad, values) = (head_view(&d_v_out, head), head_view(&state.v, head));
        kernels::matmul_into(out, [tokens, 1], grad, values.t(), false, Threads::One);
    });
    let mut d_v = Array::zeros(&[tokens, n_heads, width]);
    for_each_head(&mut d_v, |head, out| {
        let probs = View::new(&state.qk_probs.data()[head * tokens * tokens..][..tokens * tokens], tokens, tokens);
        kernels::matmul_into(out, [width, 1], probs.t(), head_view(&d_v_out, head), false, Threads::One);
    });
    keep.put(at(Site::AttnV), &d_v);
    actors.backward(at(Site::AttnV), &mut d_v)?;
    keep.put(at(Site::AttnQkProbs), &d_probs);
    actors.backward(at(Site::AttnQkProbs), &mut d_probs)?;

    let denominator = at(Site::AttnSoftmaxDenominator);
    let needs_denominator = keep.wants(denominator.site) || actors.touches(denominator, Pass::Backward);
    let mut d_logits = match &state.softmax {
        Some(explicit) => explicit.backward(d_probs, denominator, actors, keep)?,
        None if needs_denominator => {
            ExplicitSoftmax::new(&state.qk_logits).backward(d_probs, denominator, actors, keep)?
        }
        None => softmax_backward(d_probs, state),
    };
    keep.put(at(Site::AttnQkLogits), &d_logits);
    actors.backward(at(Site::AttnQkLogits), &mut d_logits)?;
    // The mask comes before the site: what it hides takes no part, whatever gradient was set there.
    mask(&mut d_logits, 0.0);

    let mut d_q = Array::zeros(&[tokens, n_heads, width]);
    for_each_head(&mut d_q, |head, out| {
        let grad = View::new(&d_logits.data()[head * tokens * tokens..][..tokens * tokens], tokens, tokens);
        kernels::matmul_into(out, [width, 1], grad, head_view(&state.k, head), false, Threads::One);
    });
    let mut d_k = Array::zeros(&[tokens, n_heads, width]);
    for_each_head(&mut d_k, |head, out| {
        let grad = View::new(&d_logits.data()[head * tokens * tokens..][..tokens * tokens], tokens, tokens);
        kernels::matmul_into(out, [width, 1], grad.t(), head_view(&state.q, head), false, Threads::One);
    });
    keep.put(at(Site::AttnK), &d_k);
    actors.backward(at(Site::AttnK), &mut d_k)?;
    keep.put(at(Site::AttnQ), &d_q);
    actors.backward(at(Site::AttnQ), &mut d_q)?;

    let mut dx = buffers::zeros(tokens * d_model);
    for (grad, linear, factor) in
        [(&mut d_q, &weights.query, factor), (&mut d_k, &weights.key, factor), (&mut d_v, &weights.value, 1.0)]
    {
        if factor != 1.0 {
            kernels::scale(grad.data_mut(), factor);
        }
        kernels::add_linear_backward(&mut dx, View::new(grad.data(), tokens, n_heads * width), linear);
    }
    Ok(Array::from_vec(&[tokens, d_model], dx))
}

/// Queries and keys are each multiplied by `E^(-1/4)` before their product.
pub fn qk_factor(d_head: usize) -> f32 {
    (1.0 / (d_head as f64).sqrt().sqrt()) as f32
}

fn project(input: &Array, linear: &Linear, n_heads: usize, width: usize, factor: f32) -> Array {
    let (tokens, d_model) = (input.dims()[0], input.dims()[1]);
    let mut out = kernels::linear(View::new(input.data(), tokens, d_model), linear);
    if factor != 1.0 {
        kernels::scale(&mut out, factor);
    }
    Array::from_vec(&[tokens, n_heads, width], out)
}

/// The `[T, E]` view of one head in `[T, H, E]`.
pub fn head_view(x: &Array, head: usize) -> View<'_> {
    let (tokens, n_heads, width) = (x.dims()[0], x.dims()[1], x.dims()[2]);
    View::strided(&x.data()[head * width..], tokens, width, n_heads * width, 1)
}

/// Calls `f(head, out)` for every head in parallel, `out: [T, E]` row-major, and puts the results into `[T, H, E]`.
fn for_each_head(x: &mut Array, f: impl Fn(usize, &mut [f32]) + Sync) {
    let (tokens, n_heads, width) = (x.dims()[0], x.dims()[1], x.dims()[2]);
    let parts: Vec<Vec<f32>> = (0..n_heads)
        .into_par_iter()
        .map(|head| {
            let mut out = vec![0.0; tokens * width];
            f(head, &mut out);
            out
        })
        .collect();
    for (head, part) in parts.iter().enumerate() {
        for t in 0..tokens {
            x.row_mut(t)[head * width..][..width].copy_from_slice(&part[t * width..][..width]);
        }
    }
}

/// `q kᵀ` per head with the causal mask, `[Q, K, H]`.
pub(crate) fn logits(q: &Array, k: &Array) -> Array {
    let (queries, n_heads, keys) = (q.dims()[0], q.dims()[1], k.dims()[0]);
    let mut data = buffers::zeros(queries * keys * n_heads);
    data.par_chunks_mut(queries * keys).enumerate().for_each(|(head, out)| {
        kernels::matmul_into(out, [keys, 1], head_view(q, head), head_view(k, head).t(), false, Threads::One);
    });
    let mut out = Array::head_major(queries, keys, n_heads, data);
    mask(&mut out, f32::NEG_INFINITY);
    out
}

/// Sets what a query cannot see: keys later than itself (the last query stands at the last key).
fn mask(x: &mut Array, value: f32) {
    let (queries, keys, n_heads) = (x.dims()[0], x.dims()[1], x.dims()[2]);
    for head in 0..n_heads {
        for query in 0..queries {
            let row = &mut x.data_mut()[(head * queries + query) * keys..][..keys];
            row[keys - queries + query + 1..].fill(value);
        }
    }
}

/// Gradient through the softmax; rows of `d_probs` become those of the logits.
fn softmax_backward(mut d_probs: Array, state: &AttentionState) -> Array {
    let keys = state.qk_logits.dims()[1];
    kernels::for_each_row(d_probs.data_mut(), keys, |row, grad| {
        let range = row * keys..(row + 1) * keys;
        // The probabilities that went on may be others than the logits gave.
        let anew = state.probs_touched.then(|| {
            let mut probs = vec![0.0; keys];
            kernels::softmax_into(&mut probs, &state.qk_logits.data()[range.clone()]);
            probs
        });
        let probs = anew.as_deref().unwrap_or(&state.qk_probs.data()[range]);
        let mean = kernels::dot(grad, probs);
        grad.iter_mut().zip(probs).for_each(|(grad, p)| *grad = p * (*grad - mean));
    });
    d_probs
}

fn explicit_softmax(
    qk_logits: &Array,
    point: Point,
    actors: &mut Actors<'_>,
) -> Result<(ExplicitSoftmax, Array), RunError> {
    let (queries, keys, n_heads) = (qk_logits.dims()[0], qk_logits.dims()[1], qk_logits.dims()[2]);
    let ExplicitSoftmax { numerator, mut denominator } = ExplicitSoftmax::new(qk_logits);
    actors.forward(point, &mut denominator)?;
    let mut probs = numerator.clone();
    for head in 0..n_heads {
        for query in 0..queries {
            // As `kernels::softmax_into` does it, so that looking changes no bit.
            let factor = 1.0 / denominator.at(&[query, 0, head]);
            let row = &mut probs.data_mut()[(head * queries + query) * keys..][..keys];
            row.iter_mut().for_each(|x| *x *= factor);
        }
    }
    Ok((ExplicitSoftmax { numerator, denominator }, probs))
}

impl ExplicitSoftmax {
    /// As computed from the logits.
    fn new(qk_logits: &Array) -> Self {
        let (queries, keys, n_heads) = (qk_logits.dims()[0], qk_logits.dims()[1], qk_logits.dims()[2]);
        let mut numerator = Array::head_major(queries, keys, n_heads, buffers::zeros(queries * keys * n_heads));
        let mut denominator = Array::zeros(&[queries, 1, n_heads]);
        for head in 0..n_heads {
            for query in 0..queries {
                let range = (head * queries + query) * keys..(head * queries + query + 1) * keys;
                let (out, logits) = (&mut numerator.data_mut()[range.clone()], &qk_logits.data()[range]);
                let offset = denominator.offset(&[query, 0, head]);
                denominator.data_mut()[offset] = kernels::wide(|| kernels::exp_of_row(out, logits));
            }
        }
        ExplicitSoftmax { numerator, denominator }
    }

    fn backward(
        &self,
        mut d_probs: Array,
        point: Point,
        actors: &mut Actors<'_>,
        keep: &mut Keep<'_>,
    ) -> Result<Array, RunError> {
        let (queries, keys, n_heads) = (d_probs.dims()[0], d_probs.dims()[1], d_probs.dims()[2]);
        let mut d_denominator = Array::zeros(&[queries, 1, n_heads]);
        for head in 0..n_heads {
            for query in 0..queries {
                let at = (head * queries + query) * keys;
                let divisor = self.denominator.at(&[query, 0, head]);
                let along = kernels::dot(&d_probs.data()[at..at + keys], &self.numerator.data()[at..at + keys]);
                let offset = d_denominator.offset(&[query, 0, head]);
                d_denominator.data_mut()[offset] = -along / (divisor * divisor);
            }
        }
        keep.put(point, &d_denominator);
        actors.backward(point, &mut d_denominator)?;
        for head in 0..n_heads {
            for query in 0..queries {
                let at = (head * queries + query) * keys;
                let divisor = self.denominator.at(&[query, 0, head]);
                let d_sum = d_denominator.at(&[query, 0, head]);
                for key in at..at + keys {
                    let grad = d_probs.data()[key] / divisor + d_sum;
                    d_probs.data_mut()[key] = grad * self.numerator.data()[key];
                }
            }
        }
        Ok(d_probs)
    }
}

fn append(past: &Array, new: &Array) -> Array {
    let mut dims = past.dims().to_vec();
    dims[0] += new.dims()[0];
    let mut data = past.data().to_vec();
    data.extend_from_slice(new.data());
    Array::from_vec(&dims, data)
}
