//! Scalars of attention heads.
//!
//! What a head writes from token `k` into token `q` is `probs[q, k] · v[k] W_O`. Everything here is a product of
//! the probability with something about `v[k] W_O` alone, or a product of small matrices per head; the writes
//! themselves, `[T, T, H, D]`, are only made row by row for those who ask for them.

use rayon::prelude::*;
use tdb_api::{DerivedScalarType as Dst, PassType};
use tdb_model::attention::head_view;
use tdb_model::kernels::{self, Threads, View, dot};
use tdb_model::{Array, Site};

use super::latents;
use super::residual::traced_gradient;
use super::{flatten_pairs, mlp, owned, times};
use crate::derived::Place;
use crate::error::Result;
use crate::nodes::AutoencoderKind;
use crate::side::Side;
use crate::values::Values;

/// `None` if `dst` is not about heads.
pub(super) fn values<'a>(side: &'a Side<'_>, dst: Dst, pass: PassType, layer: usize) -> Result<Option<Values<'a>>> {
    let state = &side.forward.layers[layer].attn;
    let config = side.model().config();
    let (tokens, n_heads, width) = (side.tokens(), config.n_heads, config.d_head);
    let act_times_grad =
        || -> Result<Array> { Ok(times(&state.qk_probs, side.gradients(dst)?.get(Site::AttnQkProbs, Some(layer)))) };
    Ok(Some(match dst {
        Dst::UnflattenedAttnWriteNorm if pass == PassType::Backward => {
            let norms = write_norms(side, layer);
            let gradient = side.gradients(dst)?.get(Site::AttnQkProbs, Some(layer));
            let inverse = Array::from_vec(norms.dims(), norms.data().iter().map(|x| 1.0 / x).collect());
            owned(times_by_key(&gradient.cloned().unwrap_or_else(|| zeros_like(&state.qk_probs)), &inverse))
        }
        Dst::UnflattenedAttnWriteNorm => owned(times_by_key(&state.qk_probs, &write_norms(side, layer))),
        Dst::AttnWriteNorm => owned(flatten_pairs(&times_by_key(&state.qk_probs, &write_norms(side, layer)))),
        Dst::FlattenedAttnPostSoftmax => owned(flatten_pairs(&state.qk_probs)),
        Dst::UnflattenedAttnActTimesGrad => owned(act_times_grad()?),
        Dst::AttnActTimesGrad => owned(flatten_pairs(&act_times_grad()?)),
        Dst::AttnActTimesGradPerSequenceToken => owned(sum_keys(&act_times_grad()?)),
        Dst::UnflattenedAttnWriteToFinalResidualGrad => owned(written(side, layer, side.final_residual_gradient(dst)?)),
        Dst::AttnWriteToFinalResidualGrad => {
            owned(flatten_pairs(&written(side, layer, side.final_residual_gradient(dst)?)))
        }
        Dst::UnflattenedAttnWriteToFinalActivationResidualGrad => {
            owned(written(side, layer, Some(traced_gradient(side, dst)?)))
        }
        Dst::AttnWriteToFinalResidualGradPerSequenceToken => {
            let gradient = side.final_residual_gradient(dst)?;
            let gradient = gradient.filter(|_| side.precedes_final_residual(Some(layer), Place::Attn));
            owned(sum_channels(&state.v_out, &through_output(side, layer, gradient)))
        }
        Dst::AttnWriteNormPerSequenceToken => owned(row_norms_per_head(side, layer, &state.v_out)),
        Dst::AttnWeightedValue => {
            let row = move |t: usize| {
                let mut out = Vec::with_capacity(tokens * n_heads * width);
                for key in 0..tokens {
                    for head in 0..n_heads {
                        let p = state.qk_probs.at(&[t, key, head]);
                        out.extend(state.v.row(key)[head * width..][..width].iter().map(|v| p * v));
                    }
                }
                out
            };
            Values::Rows { dims: vec![tokens, tokens, n_heads, width], row: Box::new(row) }
        }
        Dst::AttnWrite | Dst::AttnWriteSumHeads => {
            let (d_model, directions) = (config.d_model, value_directions(side, layer));
            let sum = dst == Dst::AttnWriteSumHeads;
            let row = move |t: usize| {
                let mut out = Vec::new();
                for key in 0..tokens {
                    let start = out.len();
                    for head in 0..n_heads {
                        let p = state.qk_probs.at(&[t, key, head]);
                        let direction = &directions.row(key)[head * d_model..][..d_model];
                        if sum && head > 0 {
                            kernels::axpy(&mut out[start..], p, direction);
                        } else {
                            out.extend(direction.iter().map(|d| p * d));
                        }
                    }
                }
                out
            };
            let dims = if sum { vec![tokens, tokens, d_model] } else { vec![tokens, tokens, n_heads, d_model] };
            Values::Rows { dims, row: Box::new(row) }
        }
        Dst::AttnWriteToLatent
        | Dst::AttnWriteToLatentSummedOverHeads
        | Dst::FlattenedAttnWriteToLatentSummedOverHeads => {
            let direction = latents::latent_gradient(side, dst, AutoencoderKind::Attn, layer)?;
            let per_head = weighted(&state.qk_probs, &state.v, &through_output(side, layer, Some(&direction)));
            match dst {
                Dst::AttnWriteToLatent => owned(per_head),
                Dst::AttnWriteToLatentSummedOverHeads => owned(sum_heads(&per_head)),
                _ => owned(flatten_pairs(&sum_heads(&per_head))),
            }
        }
        Dst::AttnWriteToLatentPerSequenceToken => {
            let direction = latents::latent_gradient(side, dst, AutoencoderKind::Attn, layer)?;
            owned(sum_channels(&state.v_out, &through_output(side, layer, Some(&direction))))
        }
        _ => return Ok(None),
    }))
}

/// What the heads write along `gradient: [T, D]` (at the token written into), `[T, T, H]`; zero where the layer
/// does not come before it.
fn written(side: &Side<'_>, layer: usize, gradient: Option<&Array>) -> Array {
    along(side, layer, gradient.filter(|_| side.precedes_final_residual(Some(layer), Place::Attn)))
}

/// As [`written`], wherever the gradient stands.
pub(super) fn along(side: &Side<'_>, layer: usize, gradient: Option<&Array>) -> Array {
    let state = &side.forward.layers[layer].attn;
    match gradient {
        Some(_) => weighted(&state.qk_probs, &state.v, &through_output(side, layer, gradient)),
        None => zeros_like(&state.qk_probs),
    }
}

/// `gradient W_O` per head: `[T, D]` to `[T, H, E]`.
fn through_output(side: &Side<'_>, layer: usize, gradient: Option<&Array>) -> Array {
    let config = side.model().config();
    let weight = &side.model().weights().layers[layer].out.weight;
    let dims = [side.tokens(), config.n_heads * config.d_head];
    mlp::rows_through(gradient, View::of(weight), &dims).reshape(&[side.tokens(), config.n_heads, config.d_head])
}

/// `probs[q, k, h] * (v[k, h] · direction[q, h])`, `[T, T, H]`.
fn weighted(probs: &Array, v: &Array, direction: &Array) -> Array {
    let (tokens, heads) = (probs.dims()[0], probs.dims()[2]);
    let mut data = vec![0.0; probs.data().len()];
    data.par_chunks_mut(tokens * tokens).enumerate().for_each(|(head, out)| {
        kernels::matmul_into(out, [tokens, 1], head_view(direction, head), head_view(v, head).t(), false, Threads::One);
        let probs = &probs.data()[head * tokens * tokens..][..tokens * tokens];
        out.iter_mut().zip(probs).for_each(|(out, p)| *out *= p);
    });
    Array::head_major(tokens, tokens, heads, data)
}

/// `v[k, h] W_O`, one direction of the residual stream per token and head, `[T, H * D]`.
pub fn value_directions(side: &Side<'_>, layer: usize) -> Array {
    let config = side.model().config();
    let weight = &side.model().weights().layers[layer].out.weight;
    let (tokens, heads, d_model) = (side.tokens(), config.n_heads, config.d_model);
    let v = &side.forward.layers[layer].attn.v;
    let mut out = Array::zeros(&[tokens, heads * d_model]);
    for head in 0..heads {
        let columns = weight.col_range(head * config.d_head..(head + 1) * config.d_head);
        let out = &mut out.data_mut()[head * d_model..];
        kernels::matmul_into(
            out,
            [heads * d_model, 1],
            head_view(v, head),
            View::of(&columns).t(),
            false,
            Threads::All,
        );
    }
    out
}

/// What one head writes from `key` into `query`, `[D]`.
pub fn head_write(side: &Side<'_>, layer: usize, [query, key, head]: [usize; 3]) -> Vec<f32> {
    let config = side.model().config();
    let state = &side.forward.layers[layer].attn;
    let value = &state.v.row(key)[head * config.d_head..][..config.d_head];
    let columns =
        side.model().weights().layers[layer].out.weight.col_range(head * config.d_head..(head + 1) * config.d_head);
    let p = state.qk_probs.at(&[query, key, head]);
    let scaled: Vec<f32> = value.iter().map(|v| p * v).collect();
    kernels::matmul(View::new(&scaled, 1, scaled.len()), View::of(&columns).t(), Threads::One)
}

/// `|v[k, h] W_O|`, `[T, H]`.
fn write_norms(side: &Side<'_>, layer: usize) -> Array {
    row_norms_per_head(side, layer, &side.forward.layers[layer].attn.v)
}

/// `|x[t, h] W_O|` for `x: [T, H, E]`, `[T, H]`.
fn row_norms_per_head(side: &Side<'_>, layer: usize, x: &Array) -> Array {
    let config = side.model().config();
    let weight = &side.model().weights().layers[layer].out.weight;
    let (tokens, heads, d_model) = (x.dims()[0], config.n_heads, config.d_model);
    let per_head: Vec<Vec<f32>> = (0..heads)
        .into_par_iter()
        .map(|head| {
            let columns = weight.col_range(head * config.d_head..(head + 1) * config.d_head);
            let written = kernels::matmul(head_view(x, head), View::of(&columns).t(), Threads::One);
            written.chunks_exact(d_model).map(|row| dot(row, row).sqrt()).collect()
        })
        .collect();
    let mut out = Array::zeros(&[tokens, heads]);
    for (head, norms) in per_head.iter().enumerate() {
        for (t, norm) in norms.iter().enumerate() {
            out.row_mut(t)[head] = *norm;
        }
    }
    out
}

/// `x[q, k, h] * factors[k, h]` in the layout of `x`.
fn times_by_key(x: &Array, factors: &Array) -> Array {
    let (queries, keys, heads) = (x.dims()[0], x.dims()[1], x.dims()[2]);
    let mut out = x.clone();
    for head in 0..heads {
        let column: Vec<f32> = (0..keys).map(|k| factors.row(k)[head]).collect();
        for query in 0..queries {
            let start = out.offset(&[query, 0, head]);
            out.data_mut()[start..start + keys].iter_mut().zip(&column).for_each(|(x, f)| *x *= f);
        }
    }
    out
}

fn zeros_like(x: &Array) -> Array {
    let mut out = x.clone();
    out.data_mut().fill(0.0);
    out
}

/// `[T, T, H]` to `[T, H]`.
fn sum_keys(x: &Array) -> Array {
    let (queries, keys, heads) = (x.dims()[0], x.dims()[1], x.dims()[2]);
    let mut out = Array::zeros(&[queries, heads]);
    for query in 0..queries {
        for head in 0..heads {
            let start = x.offset(&[query, 0, head]);
            out.row_mut(query)[head] = x.data()[start..start + keys].iter().sum();
        }
    }
    out
}

/// `[T, T, H]` to `[T, T, 1]`.
fn sum_heads(x: &Array) -> Array {
    let (queries, keys, heads) = (x.dims()[0], x.dims()[1], x.dims()[2]);
    let mut out = vec![0.0; queries * keys];
    for head in 0..heads {
        kernels::axpy(&mut out, 1.0, &x.data()[head * queries * keys..][..queries * keys]);
    }
    Array::from_vec(&[queries, keys, 1], out)
}

/// `Σ_e x[t, h, e] y[t, h, e]`, `[T, H]`.
fn sum_channels(x: &Array, y: &Array) -> Array {
    let (tokens, heads, width) = (x.dims()[0], x.dims()[1], x.dims()[2]);
    let sums = x.data().chunks_exact(width).zip(y.data().chunks_exact(width)).map(|(x, y)| dot(x, y)).collect();
    Array::from_vec(&[tokens, heads], sums)
}
