//! Layer norm: centre, divide by the standard deviation, scale by the gain, add the bias.

use crate::array::Array;
use crate::hooks::{Actors, RunError};
use crate::kernels;
use crate::run::Keep;
use crate::site::{Pass, Point, Site};
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
    let mut centered = Array::zeros(x.dims());
    kernels::for_each_row(centered.data_mut(), width, |t, row| center_into(row, x.row(t)));
    actors.forward(sites.at(sites.centered), &mut centered)?;
    let computed_scale: Vec<f32> = (0..tokens).map(|t| scale_of(centered.row(t))).collect();
    let mut scale = Array::from_vec(&[tokens, 1], computed_scale.clone());
    actors.forward(sites.at(sites.scale), &mut scale)?;
    let mut out = Array::zeros(x.dims());
    let normalize = |t: usize, row: &mut [f32]| {
        let divisor = scale.data()[t];
        row.iter_mut().zip(centered.row(t)).for_each(|(out, x)| *out = x / divisor);
    };
    let affine = |row: &mut [f32]| {
        row.iter_mut().zip(&norm.gain).zip(&norm.bias).for_each(|((x, gain), bias)| *x = *x * gain + bias);
    };
    if actors.touches(sites.at(sites.normalized), Pass::Forward) {
        kernels::for_each_row(out.data_mut(), width, normalize);
        actors.forward(sites.at(sites.normalized), &mut out)?;
        kernels::for_each_row(out.data_mut(), width, |_, row| affine(row));
    } else {
        kernels::for_each_row(out.data_mut(), width, |t, row| {
            normalize(t, row);
            affine(row);
        });
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
    kernels::for_each_row(dy.data_mut(), width, |_, row| {
        row.iter_mut().zip(&norm.gain).for_each(|(d, g)| *d *= g);
    });
    keep.put(sites.at(sites.normalized), &dy);
    actors.backward(sites.at(sites.normalized), &mut dy)?;
    let d_scale = (0..tokens).map(|t| {
        let divisor = state.scale.data()[t];
        -kernels::dot(dy.row(t), state.centered.row(t)) / (divisor * divisor)
    });
    let mut d_scale = Array::from_vec(&[tokens, 1], d_scale.collect());
    keep.put(sites.at(sites.scale), &d_scale);
    actors.backward(sites.at(sites.scale), &mut d_scale)?;
    kernels::for_each_row(dy.data_mut(), width, |t, row| {
        let divisor = state.scale.data()[t];
        let factor = d_scale.data()[t] / (width as f32 * state.computed_scale[t]);
        row.iter_mut().zip(state.centered.row(t)).for_each(|(d, x)| *d = *d / divisor + factor * x);
    });
    keep.put(sites.at(sites.centered), &dy);
    actors.backward(sites.at(sites.centered), &mut dy)?;
    kernels::for_each_row(dy.data_mut(), width, |_, row| center(row));
    Ok(dy)
}

/// Subtracts the mean.
#[inline(always)]
pub fn center(row: &mut [f32]) {
    let mean = kernels::sum(row) / row.len() as f32;
    row.iter_mut().for_each(|x| *x -= mean);
}

#[inline(always)]
fn center_into(out: &mut [f32], row: &[f32]) {
    let mean = kernels::sum(row) / row.len() as f32;
    out.iter_mut().zip(row).for_each(|(out, x)| *out = x - mean);
}

/// `sqrt(mean(x²) + ε)` of a centred row.
pub fn scale_of(centered: &[f32]) -> f32 {
    (kernels::dot(centered, centered) / centered.len() as f32 + EPSILON).sqrt()
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
        let along = kernels::dot(&dx, &centered) / (scale * scale * input.len() as f32);
        kernels::axpy(&mut dx, -along, &centered);
    }
    center(&mut dx);
    dx
}
