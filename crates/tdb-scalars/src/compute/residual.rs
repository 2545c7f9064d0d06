//! Scalars of the residual stream, and tensors of the pass as they are.

use tdb_api::DerivedScalarType as Dst;
use tdb_model::Site;

use super::not_computed;
use crate::derived::Quantity;
use crate::error::Result;
use crate::place::Place;
use crate::side::Side;
use crate::tensors::{dots_of_rows, norms};
use crate::values::Values;

/// A tensor of the forward pass, or its gradient: zero where none flowed.
pub(super) fn tensor_of_pass<'a>(
    side: &'a Side<'_>,
    dst: Dst,
    site: Site,
    layer: Option<usize>,
    of_gradient: bool,
) -> Result<Values<'a>> {
    let logits = |row| Values::Rows { dims: vec![side.tokens(), side.model().config().n_vocab], row };
    if !of_gradient {
        return match site {
            Site::Logits => Ok(logits(Box::new(|t| Ok(side.run.logits(t)?)))),
            _ => side.get(site, layer).map(Values::Dense),
        };
    }
    let gradients = side.gradients(dst)?;
    if site == Site::Logits {
        let n_vocab = side.model().config().n_vocab;
        let row = move |t: usize| Ok(gradients.logits.get(&t).cloned().unwrap_or_else(|| vec![0.0; n_vocab]));
        return Ok(logits(Box::new(row)));
    }
    Ok(Values::Dense(match gradients.get(site, layer)? {
        Some(gradient) => gradient,
        None => side.get(site, layer)?.zeros_like()?,
    }))
}

/// What is told of rows as wholes, `[T, 1]`: of the residual stream, or of what a layer adds to it.
pub(super) fn rows_as_a_whole<'a>(
    side: &'a Side<'_>,
    dst: Dst,
    site: Site,
    quantity: Quantity,
    layer: Option<usize>,
) -> Result<Values<'a>> {
    let rows = side.get(site, layer)?;
    Ok(Values::Dense(match quantity {
        Quantity::WriteNorm => norms(&rows)?,
        Quantity::ActTimesGrad => dots_of_rows(&rows, side.gradient(dst, site, layer)?.as_ref())?,
        Quantity::WriteToFinalResidual => {
            let gradient = side.final_residual_gradient(dst)?;
            let precedes = side.precedes_final_residual(layer, Place::of_site(site));
            dots_of_rows(&rows, gradient.as_ref().filter(|_| precedes))?
        }
        Quantity::WriteToFinalActivationResidual => dots_of_rows(&rows, Some(side.traced_gradient(dst)?))?,
        _ => return not_computed(dst),
    }))
}
