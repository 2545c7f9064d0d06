//! Scalars of MLP neurons.

use candle_core::Tensor;
use tdb_api::DerivedScalarType as Dst;
use tdb_model::{Site, Slot};

use crate::derived::Place;
use crate::error::Result;
use crate::side::Side;
use crate::tensors::{row_of, times};
use crate::values::Values;

/// `None` if `dst` is not about neurons.
pub(super) fn values<'a>(side: &'a Side<'_>, dst: Dst, layer: usize) -> Result<Option<Values<'a>>> {
    let post_act = || side.get(Site::MlpPostAct, layer);
    Ok(Some(Values::Dense(match dst {
        Dst::MlpWriteNorm => times_write_norms(side, layer, &post_act()?)?,
        Dst::MlpActTimesGrad => times(&post_act()?, side.gradient(dst, Site::MlpPostAct, layer)?.as_ref())?,
        Dst::MlpWriteToFinalResidualGrad => {
            written(side, layer, &post_act()?, side.final_residual_gradient(dst)?.as_ref())?
        }
        Dst::MlpWriteToFinalActivationResidualGrad => {
            written(side, layer, &post_act()?, Some(side.traced_gradient(dst)?))?
        }
        Dst::ResidDeltaMlpFromMlpPostAct => without_bias(side, layer)?,
        Dst::MlpWrite => {
            let (post_act, mlp, config) = (post_act()?, side.model().block(layer).mlp(), side.model().config());
            let (tokens, d_ff, d_model) = (side.tokens(), config.d_ff, config.d_model);
            let row = move |t: usize| {
                let mut out = Vec::with_capacity(d_ff * d_model);
                let factor = side.write_factor(Slot::Mlp, layer, t)?;
                for (neuron, activation) in row_of(&post_act, t)?.iter().enumerate() {
                    out.extend(mlp.write_direction(neuron).iter().map(|d| activation * factor * d));
                }
                Ok(out)
            };
            return Ok(Some(Values::Rows { dims: vec![tokens, d_ff, d_model], row: Box::new(row) }));
        }
        _ => return Ok(None),
    })))
}

/// Neurons times output weights, without the bias, `[T, D]`: what an autoencoder on the layer's output is applied
/// to when its latents are computed after the fact.
pub(super) fn without_bias(side: &Side<'_>, layer: usize) -> Result<Tensor> {
    let neurons = side.get(Site::MlpPostAct, layer)?;
    let written = side.model().block(layer).mlp().write(&neurons)?;
    side.before_division(Slot::Mlp, layer, &written)
}

/// `x[t, n] * (W_out[:, n] · gradient[t])`, `[T, F]`; zero where the layer does not come before the gradient.
pub(super) fn written(side: &Side<'_>, layer: usize, x: &Tensor, gradient: Option<&Tensor>) -> Result<Tensor> {
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
pub(super) fn times_write_norms(side: &Side<'_>, layer: usize, x: &Tensor) -> Result<Tensor> {
    let norms = side.model().block(layer).mlp().write_norms();
    let norms = x.broadcast_mul(&side.model().tensor(&[norms.len()], norms.to_vec())?)?;
    side.before_division(Slot::Mlp, layer, &norms)
}
