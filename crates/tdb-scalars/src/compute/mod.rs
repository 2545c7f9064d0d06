//! Derived scalars as functions of a run, layer by layer.

mod attention;
mod latents;
mod mlp;
mod residual;

use candle_core::Tensor;
use tdb_api::{DerivedScalarType as Dst, PassType};

use crate::derived::raw_site;
use crate::dictionary::{Quantity, describe};
use crate::error::{Result, bad};
use crate::side::Side;
use crate::values::Values;

pub(crate) use attention::attended_reads;
pub use attention::head_write;
pub(crate) use latents::from_residual;
pub(crate) use latents::{encoded, seen_from_heads, to_residual};
pub use latents::{slot_of, write_direction};

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
            PassType::Forward => residual::activation(side, site, layer),
            PassType::Backward => residual::gradient(side, dst, site, layer),
        };
    }
    if let Some(values) = crate::edges::values(side, dst, layer)? {
        return Ok(values);
    }
    match (dst, layer) {
        (Dst::VocabTokenWriteToInputDirection, _) => crate::readings::vocabulary_into_node(side),
        (_, None) => residual::whole_model(side, dst, pass),
        (_, Some(layer)) => match mlp::values(side, dst, layer)? {
            Some(values) => Ok(values),
            None => match attention::values(side, dst, pass, layer)? {
                Some(values) => Ok(values),
                None => match latents::values(side, dst, layer)? {
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
    gradient: Option<&Tensor>,
) -> Result<Values<'a>> {
    match dst {
        Dst::MlpOutEdgeAttribution => mlp::neurons_along(side, layer, gradient).map(Values::Dense),
        Dst::AttnOutEdgeAttribution => attention::along(side, layer, gradient).map(Values::Dense),
        _ => latents::along_gradient(side, dst, layer, gradient),
    }
}

/// Which scalars answer for `passType: "backward"`: those that are tensors of the pass with their gradient, the constant
/// one with its gradient of zero, and some made from others, which give their forward value there as clients of the
/// interface know it.
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
                | Dst::OnlineMlpAutoencoderErrorActTimesGrad
        )
        || describe(dst).is_some_and(|found| found.quantity == Quantity::ActTimesGrad)
}
