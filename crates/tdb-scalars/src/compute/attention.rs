//! Scalars of attention heads.
//!
//! What a head writes from token `k` into token `q` is `probs[q, k] · v[k] W_O`. Everything here is a product of
//! the probability with something about `v[k] W_O` alone, or a product of small matrices per head; the writes
//! themselves, `[T, T, H, D]`, are only made row by row for those who ask for them.

use candle_core::Tensor;
use tdb_api::DerivedScalarType as Dst;
use tdb_model::numbers::{Numbers, axpy, sum_first, sum_last, tensor};
use tdb_model::parallel;
use tdb_model::{Attention, Site, Slot};

use super::{latents, not_computed};
use crate::derived::{Quantity, Scalar, Shape};
use crate::error::Result;
use crate::place::Place;
use crate::side::Side;
use crate::tensors::{by_head, by_pair, dots, flatten_pairs, norms, row_of, times};
use crate::values::Values;

/// Of heads: values for pairs of tokens, brought into the shape that is asked for.
pub(super) fn values<'a>(side: &'a Side<'_>, dst: Dst, scalar: Scalar, layer: usize) -> Result<Values<'a>> {
    let probs = || side.get(Site::AttnQkProbs, layer);
    let by_pair = match (scalar.quantity, scalar.shape) {
        (Quantity::Activation, _) => probs()?,
        (Quantity::WriteNorm, Shape::Tokens) => {
            let norms = norms_per_head(side, layer, Site::AttnVOut)?;
            return side.before_division(Slot::Attention, layer, &norms).map(Values::Dense);
        }
        (Quantity::WriteNorm, _) => divided(side, layer, times_by_key(&probs()?, &value_norms(side, layer)?)?)?,
        (Quantity::ActTimesGrad, _) => times(&probs()?, side.gradient(dst, Site::AttnQkProbs, layer)?.as_ref())?,
        (Quantity::WriteToFinalResidual, Shape::Tokens) => {
            return all_keys_along(side, layer, preceded_gradient(side, dst, layer)?.as_ref()).map(Values::Dense);
        }
        (Quantity::WriteToFinalResidual, _) => along(side, layer, preceded_gradient(side, dst, layer)?.as_ref())?,
        (Quantity::WriteToFinalActivationResidual, _) => {
            let gradient = side.traced_gradient(dst)?;
            along(side, layer, Some(gradient).filter(|_| side.precedes_final_residual(Some(layer), Place::Attn)))?
        }
        (Quantity::WeightedValue | Quantity::Write, _) => return writes_by_row(side, scalar, layer),
        (Quantity::WriteToNamedLatent, Shape::Tokens) => {
            let gradient = latents::latent_gradient_at_heads(side, dst, layer)?;
            return dots(&side.get(Site::AttnVOut, layer)?, Some(&gradient)).map(Values::Dense);
        }
        (Quantity::WriteToNamedLatent, _) => {
            along_heads(side, layer, &latents::latent_gradient_at_heads(side, dst, layer)?)?
        }
        (Quantity::WriteToAllLatents, shape) => return latents::writes_to_all(side, dst, shape, layer),
        _ => return not_computed(dst),
    };
    shaped(by_pair, scalar.shape).map(Values::Dense)
}

/// `[T, T, H]` in another shape.
fn shaped(by_pair: Tensor, shape: Shape) -> Result<Tensor> {
    match shape {
        Shape::Pairs => Ok(by_pair),
        Shape::FlatPairs => flatten_pairs(&by_pair),
        Shape::SumByPair => sum_heads(&by_pair),
        Shape::SumByFlatPair => flatten_pairs(&sum_heads(&by_pair)?),
        Shape::Tokens => Ok(sum_last(&by_head(&by_pair)?)?.t()?),
        Shape::SumByToken => Ok(sum_first(&sum_last(&by_head(&by_pair)?)?)?.unsqueeze(1)?),
    }
}

/// The gradient of the length of what each head writes from one token into another, `[T, T, H]`.
pub(super) fn gradient_of_write_norms(side: &Side<'_>, dst: Dst, layer: usize) -> Result<Tensor> {
    let Some(gradient) = side.gradient(dst, Site::AttnQkProbs, layer)? else {
        return Ok(side.get(Site::AttnQkProbs, layer)?.zeros_like()?);
    };
    let scaled = match side.run.write_scale(Slot::Attention, layer)? {
        Some(scale) => gradient.broadcast_mul(&scale.unsqueeze(1)?)?,
        None => gradient,
    };
    times_by_key(&scaled, &value_norms(side, layer)?.recip()?)
}

/// The gradient where the objective reads; `None` also where the layer does not come before it.
fn preceded_gradient(side: &Side<'_>, dst: Dst, layer: usize) -> Result<Option<Tensor>> {
    let gradient = side.final_residual_gradient(dst)?;
    Ok(gradient.filter(|_| side.precedes_final_residual(Some(layer), Place::Attn)))
}

/// What the heads write along `gradient: [T, D]` (at the token written into), `[T, T, H]`, wherever it stands:
/// `probs[q, k, h] (v[k, h] W_O · gradient[q])`.
pub(super) fn along(side: &Side<'_>, layer: usize, gradient: Option<&Tensor>) -> Result<Tensor> {
    match gradient {
        Some(gradient) => {
            let gradient = side.before_division(Slot::Attention, layer, gradient)?;
            along_heads(side, layer, &side.model().block(layer).attn.write_vjp(&gradient)?)
        }
        None => Ok(side.get(Site::AttnQkProbs, layer)?.zeros_like()?),
    }
}

/// What the heads' outputs are along `gradient: [T, H, E]` (at the token written into), `[T, T, H]`.
fn along_heads(side: &Side<'_>, layer: usize, gradient: &Tensor) -> Result<Tensor> {
    let (attn, probs) = (&side.model().block(layer).attn, side.get(Site::AttnQkProbs, layer)?);
    times(&probs, Some(&attn.vjp_probs(&side.get(Site::AttnV, layer)?, gradient)?))
}

/// As [`along`], summed over the keys: `[T, H]`.
fn all_keys_along(side: &Side<'_>, layer: usize, gradient: Option<&Tensor>) -> Result<Tensor> {
    let v_out = side.get(Site::AttnVOut, layer)?;
    let seen = |gradient: &Tensor| -> Result<Tensor> {
        let gradient = side.before_division(Slot::Attention, layer, gradient)?;
        Ok(side.model().block(layer).attn.write_vjp(&gradient)?)
    };
    let gradient = gradient.map(seen).transpose()?;
    dots(&v_out, gradient.as_ref())
}

/// `[T, T, H]` divided by the scale of the norm after the layer at each query, where there is one.
fn divided(side: &Side<'_>, layer: usize, x: Tensor) -> Result<Tensor> {
    match side.run.write_scale(Slot::Attention, layer)? {
        Some(scale) => Ok(x.broadcast_div(&scale.unsqueeze(1)?)?),
        None => Ok(x),
    }
}

/// How much the values of each token add, at `query`, along what `read: [1, H, E]` reads of the heads' outputs: `[T]`.
pub(crate) fn attended_reads(side: &Side<'_>, layer: usize, query: usize, read: &Tensor) -> Result<Vec<f32>> {
    let probs = side.get(Site::AttnQkProbs, layer)?.narrow(0, query, 1)?;
    let products = side.model().block(layer).attn.vjp_probs(&side.get(Site::AttnV, layer)?, read)?;
    row_of(&sum_heads(&times(&probs, Some(&products))?)?, 0)
}

/// Values and writes of heads from every token into one, made anew for each.
fn writes_by_row<'a>(side: &'a Side<'_>, scalar: Scalar, layer: usize) -> Result<Values<'a>> {
    let attn = &side.model().block(layer).attn;
    let (tokens, heads) = (side.tokens(), side.model().config().n_heads);
    let (probs, v) = (side.get(Site::AttnQkProbs, layer)?, side.get(Site::AttnV, layer)?);
    // What full attention to a token would give, [T, E or D] for each head.
    let directions: Vec<Tensor> = (0..heads)
        .map(|head| match scalar.quantity {
            Quantity::WeightedValue => Ok(of_head(attn, &v, head, heads)?.contiguous()?),
            _ => Ok(attn.write(head, &of_head(attn, &v, head, heads)?)?),
        })
        .collect::<Result<_>>()?;
    let width = directions.first().map_or(0, |d| d.dims()[1]);
    let sum = scalar.shape == Shape::SumByPair;
    let row = move |query: usize| {
        let factor = match scalar.quantity {
            Quantity::WeightedValue => 1.0,
            _ => side.write_factor(Slot::Attention, layer, query)?,
        };
        let probs = row_of(&probs, query)?;
        let directions = directions.iter().map(|d| Ok(Numbers::of(d)?)).collect::<Result<Vec<_>>>()?;
        let places = if sum { tokens } else { tokens * heads };
        let mut out = vec![0.0; places * width];
        for (at, p) in probs.iter().enumerate() {
            let (key, head) = (at / heads, at % heads);
            axpy(&mut out[if sum { key } else { at } * width..][..width], *p * factor, directions[head].row(key));
        }
        Ok(out)
    };
    let dims = if sum { vec![tokens, tokens, width] } else { vec![tokens, tokens, heads, width] };
    Ok(Values::Rows { dims, row: Box::new(row) })
}

/// What one head writes from `key` into `query`, `[D]`.
pub fn head_write(side: &Side<'_>, layer: usize, [query, key, head]: [usize; 3]) -> Result<Vec<f32>> {
    let attn = &side.model().block(layer).attn;
    let p = side.get(Site::AttnQkProbs, layer)?.get(query)?.get(key)?.get(head)?.to_vec0::<f32>()?;
    let v = side.get(Site::AttnV, layer)?.narrow(0, key, 1)?;
    let p = p * side.write_factor(Slot::Attention, layer, query)?;
    let value = (of_head(attn, &v, head, side.model().config().n_heads)? * f64::from(p))?;
    row_of(&attn.write(head, &value)?, 0)
}

/// `|v[k, h] W_O|`, `[T, H]`, before the division by the scale of a norm after the layer.
fn value_norms(side: &Side<'_>, layer: usize) -> Result<Tensor> {
    norms_per_head(side, layer, Site::AttnV)
}

/// `|x[t, h] W_O|` for values or their weighted sums, `[T, H]`.
fn norms_per_head(side: &Side<'_>, layer: usize, site: Site) -> Result<Tensor> {
    let (attn, heads, x) = (&side.model().block(layer).attn, side.model().config().n_heads, side.get(site, layer)?);
    let of_head = |head| norms(&attn.write(head, &of_head(attn, &x, head, heads)?)?);
    let norms: Vec<Tensor> = parallel::try_map(heads, of_head)?;
    Ok(Tensor::cat(&norms, 1)?)
}

/// `[T, E]` of one query head in `x: [T, H or H_kv, E]`.
fn of_head(attn: &Attention, x: &Tensor, head: usize, heads: usize) -> Result<Tensor> {
    let at = if x.dim(1)? == heads { head } else { attn.kv_head(head) };
    Ok(x.narrow(1, at, 1)?.squeeze(1)?)
}

/// `x[q, k, h] * factors[k, h]` for `x: [Q, K, H]`.
fn times_by_key(x: &Tensor, factors: &Tensor) -> Result<Tensor> {
    let (queries, keys, heads) = x.dims3()?;
    let (x, factors) = (by_head(x)?, factors.t()?.contiguous()?);
    let (x, factors) = (Numbers::of(&x)?, Numbers::of(&factors)?);
    let mut out = Vec::with_capacity(heads * queries * keys);
    for (row, x) in x.data().chunks_exact(keys).enumerate() {
        out.extend(x.iter().zip(factors.row(row / queries)).map(|(x, f)| x * f));
    }
    by_pair(&tensor(&[heads, queries, keys], out))
}

/// `[Q, K, H]` to `[Q, K, 1]`.
fn sum_heads(x: &Tensor) -> Result<Tensor> {
    Ok(sum_first(&by_head(x)?)?.unsqueeze(2)?)
}
