//! Scalars of MLP neurons.

use candle_core::Tensor;
use tdb_api::DerivedScalarType as Dst;
use tdb_model::{Site, Slot};

use super::{latents, not_computed};
use crate::derived::{Quantity, Scalar, Shape, Subject};
use crate::error::Result;
use crate::place::Place;
use crate::side::Side;
use crate::tensors::{row_of, times};
use crate::values::Values;

/// Of neurons, or of what a dictionary on them leaves over of each.
pub(super) fn values<'a>(side: &'a Side<'_>, dst: Dst, scalar: Scalar, layer: usize) -> Result<Values<'a>> {
    let (x, site) = match scalar.subject {
        Subject::NeuronErrors => (latents::error_of_neurons(side, dst, layer)?, Site::MlpError),
        _ => (side.get(Site::MlpPostAct, layer)?, Site::MlpPostAct),
    };
    Ok(Values::Dense(match (scalar.quantity, scalar.shape) {
        (Quantity::Activation, _) => x,
        (Quantity::WriteNorm, _) => times_write_norms(side, layer, &x)?,
        (Quantity::ActTimesGrad, _) => times(&x, side.gradient(dst, site, layer)?.as_ref())?,
        (Quantity::WriteToFinalResidual, _) => written(side, layer, &x, side.final_residual_gradient(dst)?.as_ref())?,
        (Quantity::WriteToFinalActivationResidual, _) => written(side, layer, &x, Some(side.traced_gradient(dst)?))?,
        (Quantity::Write, Shape::SumByToken) => without_bias(side, layer)?,
        (Quantity::Write, _) => return Ok(writes_by_row(side, layer, x)),
        _ => return not_computed(dst),
    }))
}

/// What each neuron writes, `[T, F, D]`, made token by token.
fn writes_by_row<'a>(side: &'a Side<'_>, layer: usize, post_act: Tensor) -> Values<'a> {
    let (mlp, config) = (side.model().block(layer).mlp(), side.model().config());
    let (tokens, d_ff, d_model) = (side.tokens(), config.d_ff, config.d_model);
    let row = move |t: usize| {
        let mut out = Vec::with_capacity(d_ff * d_model);
        let factor = side.write_factor(Slot::Mlp, layer, t)?;
        for (neuron, activation) in row_of(&post_act, t)?.iter().enumerate() {
            out.extend(mlp.write_direction(neuron).iter().map(|d| activation * factor * d));
        }
        Ok(out)
    };
    Values::Rows { dims: vec![tokens, d_ff, d_model], row: Box::new(row) }
}

/// Neurons times output weights, without the bias, `[T, D]`: what an autoencoder on the layer's output is applied
/// to when its latents are computed after the fact.
pub(super) fn without_bias(side: &Side<'_>, layer: usize) -> Result<Tensor> {
    let neurons = side.get(Site::MlpPostAct, layer)?;
    let written = side.model().block(layer).mlp().write(&neurons)?;
    side.before_division(Slot::Mlp, layer, &written)
}

/// `x[t, n] * (W_out[:, n] · gradient[t])`, `[T, F]`; zero where the layer does not come before the gradient.
fn written(side: &Side<'_>, layer: usize, x: &Tensor, gradient: Option<&Tensor>) -> Result<Tensor> {
    along(side, layer, x, gradient.filter(|_| side.precedes_final_residual(Some(layer), Place::Mlp)))
}

/// What the neurons write along `gradient: [T, D]`, wherever it stands.
pub(super) fn neurons_along(side: &Side<'_>, layer: usize, gradient: Option<&Tensor>) -> Result<Tensor> {
    along(side, layer, &side.get(Site::MlpPostAct, layer)?, gradient)
}

fn along(side: &Side<'_>, layer: usize, x: &Tensor, gradient: Option<&Tensor>) -> Result<Tensor> {
    times(x, gradient.map(|gradient| at_neurons(side, layer, gradient)).transpose()?.as_ref())
}

/// A gradient at the residual stream, `[T, D]`, along what each neuron writes there: `[T, F]`.
pub(super) fn at_neurons(side: &Side<'_>, layer: usize, gradient: &Tensor) -> Result<Tensor> {
    let gradient = side.before_division(Slot::Mlp, layer, gradient)?;
    Ok(side.model().block(layer).mlp().write_vjp(&gradient)?)
}

/// `x[t, n] * |what neuron n writes|`, `[T, F]`.
fn times_write_norms(side: &Side<'_>, layer: usize, x: &Tensor) -> Result<Tensor> {
    let norms = side.model().block(layer).mlp().write_norms();
    let norms = x.broadcast_mul(&side.model().tensor(&[norms.len()], norms.to_vec())?)?;
    side.before_division(Slot::Mlp, layer, &norms)
}
