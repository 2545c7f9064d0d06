//! Derived scalars as functions of a run, layer by layer.

mod attention;
mod latents;
mod mlp;
mod residual;

use std::borrow::Cow;

use tdb_api::{DerivedScalarType as Dst, PassType};
use tdb_model::Array;

use crate::derived::raw_site;
use crate::error::{Result, bad};
use crate::side::Side;
use crate::values::Values;

pub use attention::{head_write, value_directions};
pub use latents::{kind_of, write_direction};
pub(crate) use residual::dots;

/// The values of `dst` in `layer` (`None` for whole-model scalars).
///
/// # Errors
/// If the scalar needs what the run does not have: a backward pass, an autoencoder, a traced node.
pub fn values<'a>(side: &'a Side<'_>, dst: Dst, pass: PassType, layer: Option<usize>) -> Result<Values<'a>> {
    if pass == PassType::Backward && !defined_backward(dst) {
        return bad!("\"{dst}\" has no gradient; ask for it with passType \"forward\"");
    }
    if let Some(site) = raw_site(dst) {
        return match pass {
            PassType::Forward => residual::activation(side, dst, site, layer),
            PassType::Backward => residual::gradient(side, dst, site, layer),
        };
    }
    if let Some(values) = crate::edges::values(side, dst, layer)? {
        return Ok(values);
    }
    match (dst, layer) {
        (Dst::VocabTokenWriteToInputDirection, _) => crate::readings::vocabulary_into_node(side),
        (_, None) => residual::whole_model(side, dst),
        (_, Some(layer)) => match mlp::values(side, dst, layer)? {
            Some(values) => Ok(values),
            None => match attention::values(side, dst, pass, layer)? {
                Some(values) => Ok(values),
                None => match latents::values(side, dst, pass, layer)? {
                    Some(values) => Ok(values),
                    None => residual::per_layer(side, dst, pass, layer),
                },
            },
        },
    }
}

/// What all nodes of a layer write along `gradient: [T, D]`: neurons, heads or latents, as `dst` says.
///
/// # Errors
/// If `dst` is about none of them.
pub(crate) fn along_gradient<'a>(
    side: &'a Side<'_>,
    dst: Dst,
    layer: usize,
    gradient: Option<&Array>,
) -> Result<Values<'a>> {
    let state = &side.forward.layers[layer];
    Ok(match dst {
        Dst::MlpOutEdgeAttribution => owned(mlp::along(side, layer, &state.mlp.post_act, gradient)),
        Dst::AttnOutEdgeAttribution => owned(attention::along(side, layer, gradient)),
        _ => Values::Sparse(Cow::Owned(latents::along_gradient(side, dst, layer, gradient)?)),
    })
}

/// Which scalars answer for `passType: "backward"`: those that are tensors of the pass with their gradient, and
/// some made from others, which give their forward value there as clients of the interface know it.
fn defined_backward(dst: Dst) -> bool {
    raw_site(dst).is_some()
        || matches!(
            dst,
            Dst::PreviousLayerResidPostMlp
                | Dst::UnflattenedAttnWriteNorm
                | Dst::AttnWriteNorm
                | Dst::FlattenedAttnPostSoftmax
                | Dst::AttnWriteToFinalResidualGrad
                | Dst::AlwaysOne
                | Dst::OnlineAutoencoderActTimesGrad
                | Dst::OnlineMlpAutoencoderActTimesGrad
                | Dst::OnlineAttentionAutoencoderActTimesGrad
                | Dst::OnlineMlpAutoencoderErrorActTimesGrad
        )
}

/// `a ⊙ b` in the layout of `a`.
fn times(a: &Array, b: Option<&Array>) -> Array {
    let mut out = a.clone();
    match b {
        Some(b) => {
            debug_assert_eq!((a.dims(), a.strides()), (b.dims(), b.strides()));
            out.data_mut().iter_mut().zip(b.data()).for_each(|(a, b)| *a *= b);
        }
        None => out.data_mut().fill(0.0),
    }
    out
}

/// Pairs of tokens with `key <= query`, row by row: `[T, T, H]` to `[T (T + 1) / 2, H]`.
fn flatten_pairs(array: &Array) -> Array {
    let (tokens, heads) = (array.dims()[0], array.dims()[2]);
    let mut out = Vec::with_capacity(tokens * (tokens + 1) / 2 * heads);
    for query in 0..tokens {
        for key in 0..=query {
            out.extend((0..heads).map(|head| array.at(&[query, key, head])));
        }
    }
    Array::from_vec(&[tokens * (tokens + 1) / 2, heads], out)
}

fn owned(array: Array) -> Values<'static> {
    Values::Dense(Cow::Owned(array))
}
