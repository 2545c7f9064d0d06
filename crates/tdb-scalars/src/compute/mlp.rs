//! Scalars of MLP neurons.

use tdb_api::DerivedScalarType as Dst;
use tdb_model::kernels::{self, Threads, View};
use tdb_model::{Array, Site};

use super::residual::traced_gradient;
use super::{owned, times};
use crate::derived::Place;
use crate::error::Result;
use crate::side::Side;
use crate::values::Values;

/// `None` if `dst` is not about neurons.
pub(super) fn values<'a>(side: &'a Side<'_>, dst: Dst, layer: usize) -> Result<Option<Values<'a>>> {
    let state = &side.forward.layers[layer];
    let weights = &side.model().weights().layers[layer];
    let post_act = &state.mlp.post_act;
    Ok(Some(match dst {
        Dst::MlpWriteNorm => owned(scaled_columns(post_act, side.engine.mlp_write_norms(layer))),
        Dst::MlpActTimesGrad => owned(times(post_act, side.gradients(dst)?.get(Site::MlpPostAct, Some(layer)))),
        Dst::MlpWriteToFinalResidualGrad => {
            let gradient = side.final_residual_gradient(dst)?;
            owned(written(side, layer, post_act, gradient))
        }
        Dst::MlpWriteToFinalActivationResidualGrad => {
            owned(written(side, layer, post_act, Some(traced_gradient(side, dst)?)))
        }
        Dst::ResidDeltaMlpFromMlpPostAct => owned(without_bias(side, layer)),
        Dst::MlpWrite => {
            let (d_ff, d_model) = (weights.mlp_out.weight.cols(), weights.mlp_out.weight.rows());
            let row = move |t: usize| {
                let mut out = Vec::with_capacity(d_ff * d_model);
                let directions = weights.mlp_out.weight.transpose();
                let mut direction = vec![0.0; d_model];
                for (neuron, activation) in post_act.row(t).iter().enumerate() {
                    directions.copy_row(neuron, &mut direction);
                    out.extend(direction.iter().map(|d| activation * d));
                }
                out
            };
            Values::Rows { dims: vec![side.tokens(), d_ff, d_model], row: Box::new(row) }
        }
        _ => return Ok(None),
    }))
}

/// Neurons times output weights, without the bias, `[T, D]`: what an autoencoder on the layer's output is applied
/// to when its latents are computed after the fact.
pub(super) fn without_bias(side: &Side<'_>, layer: usize) -> Array {
    let weights = &side.model().weights().layers[layer].mlp_out.weight;
    let post_act = &side.forward.layers[layer].mlp.post_act;
    let (tokens, d_ff) = (post_act.dims()[0], post_act.dims()[1]);
    let x = View::new(post_act.data(), tokens, d_ff);
    Array::from_vec(&[tokens, weights.rows()], kernels::matmul(x, View::of(weights).t(), Threads::All))
}

/// `x[t, n] * (W_out[:, n] · gradient[t])`, `[T, F]`; zero where the layer does not come before the gradient.
pub(super) fn written(side: &Side<'_>, layer: usize, x: &Array, gradient: Option<&Array>) -> Array {
    along(side, layer, x, gradient.filter(|_| side.precedes_final_residual(Some(layer), Place::Mlp)))
}

/// As [`written`], wherever the gradient stands.
pub(super) fn along(side: &Side<'_>, layer: usize, x: &Array, gradient: Option<&Array>) -> Array {
    let weights = &side.model().weights().layers[layer].mlp_out.weight;
    let mut out = rows_through(gradient, View::of(weights), x.dims());
    out.data_mut().iter_mut().zip(x.data()).for_each(|(out, x)| *out *= x);
    out
}

/// `gradient W` for the rows of `gradient: [T, in]` that are not zero, the others being zero in the result `[T, out]`.
///
/// With the loss at the last token only one row is not.
pub(super) fn rows_through(gradient: Option<&Array>, weight: View<'_>, dims: &[usize]) -> Array {
    let mut out = Array::zeros(dims);
    let Some(gradient) = gradient else { return out };
    let nonzero: Vec<usize> = (0..dims[0]).filter(|t| gradient.row(*t).iter().any(|x| *x != 0.0)).collect();
    let width = gradient.dims()[1];
    let picked: Vec<f32> = nonzero.iter().flat_map(|t| gradient.row(*t).iter().copied()).collect();
    let product = kernels::matmul(View::new(&picked, nonzero.len(), width), weight, Threads::All);
    for (row, t) in product.chunks_exact(dims[1]).zip(&nonzero) {
        out.row_mut(*t).copy_from_slice(row);
    }
    out
}

pub(super) fn scaled_columns(x: &Array, factors: &[f32]) -> Array {
    let mut out = x.clone();
    for t in 0..x.dims()[0] {
        out.row_mut(t).iter_mut().zip(factors).for_each(|(x, f)| *x *= f);
    }
    out
}
