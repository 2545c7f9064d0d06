//! Layer norm: centre, divide by the standard deviation, scale by the gain, add the bias.

use crate::array::Array;
use crate::hooks::{Actors, RunError};
use crate::run::Keep;
use crate::site::{Point, Site};
use crate::weights::LayerNorm;

/// Added to the variance before the square root.
pub const EPSILON: f32 = 1e-5;

/// The sites of one layer norm, and its layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sites {
    pub centered: Site,
    pub scale: Site,
    pub normalized: Site,
    pub output: Site,
    pub layer: Option<usize>,
}

impl Sites {
    pub fn attention(layer: usize) -> Self {
        Sites {
            centered: Site::AttnLnCentered,
            scale: Site::AttnLnScale,
            normalized: Site::AttnLnNormalized,
            output: Site::AttnIn,
            layer: Some(layer),
        }
    }

    pub fn mlp(layer: usize) -> Self {
        Sites {
            centered: Site::MlpLnCentered,
            scale: Site::MlpLnScale,
            normalized: Site::MlpLnNormalized,
            output: Site::MlpIn,
            layer: Some(layer),
        }
    }

    pub fn last() -> Self {
        Sites {
            centered: Site::FinalLnCentered,
            scale: Site::FinalLnScale,
            normalized: Site::FinalLnNormalized,
            output: Site::PostFinalLn,
            layer: None,
        }
    }

    fn at(&self, site: Site) -> Point {
        Point { site, layer: self.layer }
    }
}

/// What the backward pass and readers need of a layer norm.
#[derive(Clone, Debug)]
pub struct LayerNormState {
    /// `[T, D]`
    pub centered: Array,
    /// `[T, 1]`, the one divided by.
    pub scale: Array,
    /// `[T]`, as computed, before anything changed `scale`.
    pub computed_scale: Vec<f32>,
}

/// `x: [T, D]` to `[T, D]`.
pub(crate) fn forward(
    norm: &LayerNorm,
    sites: Sites,
    x: &Array,
    actors: &mut Actors<'_>,
) -> Result<(LayerNormState, Array), RunError> {
    let (tokens, width) = (x.dims()[0], x.dims()[1]);
    let mut centered = x.clone();
    for t in 0..tokens {
        center(centered.row_mut(t));
    }
    actors.forward(sites.at(sites.centered), &mut centered)?;
    let computed_scale: Vec<f32> = (0..tokens).map(|t| scale_of(centered.row(t))).collect();
    let mut scale = Array::from_vec(&[tokens, 1], computed_scale.clone());
    actors.forward(sites.at(sites.scale), &mut scale)?;
    let mut out = centered.clone();
    for t in 0..tokens {
        let divisor = scale.data()[t];
        out.row_mut(t).iter_mut().for_each(|x| *x /= divisor);
    }
    actors.forward(sites.at(sites.normalized), &mut out)?;
    for t in 0..tokens {
        let row = out.row_mut(t);
        for d in 0..width {
            row[d] = row[d] * norm.gain[d] + norm.bias[d];
        }
    }
    actors.forward(sites.at(sites.output), &mut out)?;
    Ok((LayerNormState { centered, scale, computed_scale }, out))
}

/// `dy: [T, D]` at the output to `[T, D]` at the input. Calls `keep` with the gradient at the scale.
pub(crate) fn backward(
    norm: &LayerNorm,
    sites: Sites,
    state: &LayerNormState,
    mut dy: Array,
    actors: &mut Actors<'_>,
    keep: &mut Keep<'_>,
) -> Result<Array, RunError> {
    let (tokens, width) = (dy.dims()[0], dy.dims()[1]);
    keep.put(sites.at(sites.output), &dy);
    actors.backward(sites.at(sites.output), &mut dy)?;
    for t in 0..tokens {
        dy.row_mut(t).iter_mut().zip(&norm.gain).for_each(|(d, g)| *d *= g);
    }
    keep.put(sites.at(sites.normalized), &dy);
    actors.backward(sites.at(sites.normalized), &mut dy)?;
    let mut d_scale = Array::zeros(&[tokens, 1]);
    for t in 0..tokens {
        let divisor = state.scale.data()[t];
        let along = crate::kernels::dot(dy.row(t), state.centered.row(t));
        d_scale.data_mut()[t] = -along / (divisor * divisor);
        dy.row_mut(t).iter_mut().for_each(|d| *d /= divisor);
    }
    keep.put(sites.at(sites.scale), &d_scale);
    actors.backward(sites.at(sites.scale), &mut d_scale)?;
    for t in 0..tokens {
        let factor = d_scale.data()[t] / (width as f32 * state.computed_scale[t]);
        if factor != 0.0 {
            crate::kernels::axpy(dy.row_mut(t), factor, state.centered.row(t));
        }
    }
    keep.put(sites.at(sites.centered), &dy);
    actors.backward(sites.at(sites.centered), &mut dy)?;
    for t in 0..tokens {
        center(dy.row_mut(t));
    }
    Ok(dy)
}

/// Subtracts the mean.
pub fn center(row: &mut [f32]) {
    let mean = row.iter().sum::<f32>() / row.len() as f32;
    row.iter_mut().for_each(|x| *x -= mean);
}

/// `sqrt(mean(x²) + ε)` of a centred row.
pub fn scale_of(centered: &[f32]) -> f32 {
    (crate::kernels::dot(centered, centered) / centered.len() as f32 + EPSILON).sqrt()
}

/// One row through the norm, without hooks.
pub fn apply(norm: &LayerNorm, row: &mut [f32]) {
    center(row);
    let scale = scale_of(row);
    for d in 0..row.len() {
        row[d] = row[d] / scale * norm.gain[d] + norm.bias[d];
    }
}

/// Gradient at one input row for gradient `dy` at the output row; `frozen_scale` stops the gradient
/// through the standard deviation, as tracing does.
pub fn apply_backward(norm: &LayerNorm, input: &[f32], dy: &[f32], frozen_scale: bool) -> Vec<f32> {
    let mut centered = input.to_vec();
    center(&mut centered);
    let scale = scale_of(&centered);
    let mut dx: Vec<f32> = dy.iter().zip(&norm.gain).map(|(d, g)| d * g / scale).collect();
    if !frozen_scale {
        let along = crate::kernels::dot(&dx, &centered) / (scale * scale * input.len() as f32);
        crate::kernels::axpy(&mut dx, -along, &centered);
    }
    center(&mut dx);
    dx
}
