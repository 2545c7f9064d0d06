//! Norms: centre (layer norm only), divide by the root of the mean square, multiply by the gain, add the bias.

use candle_core::{Result, Tensor};

use crate::config::{Config, NormKind};
use crate::error::Error;
use crate::fault::{self, Fault};
use crate::modules::Place;
use crate::ops::rows::{self, axpy, dot};
use crate::ops::{Ops, Vector, wide};
use crate::site::{Pass, Point, Site};
use crate::source::Weights;
use crate::tap::Tap;

/// `y = c / s * gain + bias` with `c = x - mean(x)` (layer norm) or `c = x` (RMS) and `s = sqrt(mean(c²) + ε)`
/// (Ba et al. 2016, Zhang and Sennrich 2019). Without a norm `c = x` and `s = 1`, which depends on nothing.
#[derive(Clone, Debug)]
pub struct Norm {
    kind: NormKind,
    epsilon: f32,
    /// As it multiplies.
    gain: Option<Vector>,
    bias: Option<Vector>,
    ops: Ops,
}

/// The sites of one norm, and its layer.
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

/// What the backward pass and readers need of a norm.
#[derive(Clone, Debug)]
pub struct NormState {
    /// `[T, D]`; under RMS norm the input itself.
    pub centered: Tensor,
    /// `[T, 1]`, the one divided by.
    pub scale: Tensor,
    /// `[T, 1]`, as computed, before anything changed `scale`.
    pub computed_scale: Tensor,
    /// `[T, D]`, only where something acted on it.
    normalized: Option<Tensor>,
}

impl NormState {
    /// `[T, D]`, after the division.
    pub fn normalized(&self) -> Result<Tensor> {
        match &self.normalized {
            Some(normalized) => Ok(normalized.clone()),
            None => self.centered.broadcast_div(&self.scale),
        }
    }
}

impl Norm {
    /// `{name}.weight` and `{name}.bias`, as far as the kind has them.
    pub(crate) fn load(
        weights: &Weights,
        name: &str,
        width: usize,
        config: &Config,
        place: &Place,
    ) -> std::result::Result<Self, Error> {
        Self::load_kind(weights, name, width, config.norm, config.norm_epsilon, place)
    }

    pub(crate) fn load_kind(
        weights: &Weights,
        name: &str,
        width: usize,
        kind: NormKind,
        epsilon: f32,
        place: &Place,
    ) -> std::result::Result<Self, Error> {
        let vector = |part: &str| weights.vector(&format!("{name}.{part}"), width);
        let (gain, bias) = match kind {
            NormKind::Layer => (Some(vector("weight")?), Some(vector("bias")?)),
            NormKind::None | NormKind::LayerWithoutParameters => (None, None),
            NormKind::Rms => (Some(vector("weight")?), None),
            NormKind::RmsOnePlus => (Some(vector("weight")?.iter().map(|w| 1.0 + w).collect()), None),
        };
        let vector = |numbers: Vec<f32>| Vector::new(numbers, &place.device);
        Ok(Norm { kind, epsilon, gain: gain.map(vector), bias: bias.map(vector), ops: place.ops })
    }

    /// What rows are multiplied by, `[D]`; `None` if by nothing.
    pub fn gain(&self) -> Option<&[f32]> {
        self.gain.as_ref().map(Vector::host)
    }

    /// What is added at the end, where the kind has that.
    pub fn bias(&self) -> Option<&[f32]> {
        self.bias.as_ref().map(Vector::host)
    }

    pub(crate) fn gain_vector(&self) -> Option<&Vector> {
        self.gain.as_ref()
    }

    /// What rows are divided by, `[T, D]` to `[T, 1]`.
    pub(crate) fn scale(&self, x: &Tensor) -> Result<Tensor> {
        self.divisor(&self.centered(x)?, self.epsilon)
    }

    /// `s`, `[T, D]` to `[T, 1]`.
    fn divisor(&self, centered: &Tensor, epsilon: f32) -> Result<Tensor> {
        match self.kind {
            NormKind::None => Tensor::ones((centered.dim(0)?, 1), centered.dtype(), centered.device()),
            _ => self.ops.root_mean_square(centered, epsilon),
        }
    }

    /// `x: [T, D]` to `[T, D]`.
    pub(crate) fn forward(
        &self,
        sites: Sites,
        x: &Tensor,
        tap: &mut Tap<'_>,
    ) -> std::result::Result<(NormState, Tensor), Error> {
        let centered = tap.forward(sites.at(sites.centered), self.centered(x)?)?;
        let epsilon = if fault::is(Fault::OtherEpsilon) { self.epsilon + 0.1 } else { self.epsilon };
        let computed_scale = self.divisor(&centered, epsilon)?;
        let scale = tap.forward(sites.at(sites.scale), computed_scale.clone())?;
        let (gain, bias) = (self.gain.as_ref(), self.bias.as_ref());
        let normalized = sites.at(sites.normalized);
        let normalized = match tap.touches(normalized, Pass::Forward) {
            true => Some(tap.forward(normalized, self.ops.normalize(&centered, &scale, None, None)?)?),
            false => None,
        };
        let out = match &normalized {
            Some(normalized) => self.ops.affine(normalized, gain, bias)?,
            None => self.ops.normalize(&centered, &scale, gain, bias)?,
        };
        let out = tap.forward(sites.at(sites.output), out)?;
        Ok((NormState { centered, scale, computed_scale, normalized }, out))
    }

    /// `dy: [T, D]` at the output to `[T, D]` at the input:
    /// `dc = dy g / s + ds c / (D s)` with `ds = -Σ dy g c / s²`, minus its mean under layer norm.
    pub(crate) fn backward(
        &self,
        sites: Sites,
        state: &NormState,
        dy: Tensor,
        tap: &mut Tap<'_>,
    ) -> std::result::Result<Tensor, Error> {
        let dy = tap.backward(sites.at(sites.output), dy)?;
        let dy = tap.backward(sites.at(sites.normalized), self.ops.affine(&dy, self.gain.as_ref(), None)?)?;
        let NormState { centered, scale, computed_scale, .. } = state;
        let d_scale = self.ops.scale_gradient(&dy, centered, scale)?;
        let mut d_scale = tap.backward(sites.at(sites.scale), d_scale)?;
        if self.kind == NormKind::None {
            d_scale = d_scale.zeros_like()?;
        }
        let dx = self.ops.normalize_vjp(&dy, centered, scale, &d_scale, computed_scale)?;
        let dx = tap.backward(sites.at(sites.centered), dx)?;
        Ok(self.centered(&dx)?)
    }

    fn centered(&self, x: &Tensor) -> Result<Tensor> {
        if self.kind.centers() { self.ops.center(x) } else { Ok(x.clone()) }
    }

    /// Every row through the norm.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let centered = self.centered(x)?;
        let scale = self.divisor(&centered, self.epsilon)?;
        self.ops.normalize(&centered, &scale, self.gain.as_ref(), self.bias.as_ref())
    }

    /// Gradient at `x: [T, D]` for the gradient `dy` at the output; `frozen`: the scale counts as constant.
    pub fn vjp(&self, x: &Tensor, dy: &Tensor, frozen: bool) -> Result<Tensor> {
        let dy = self.ops.affine(dy, self.gain.as_ref(), None)?;
        self.along(x, &dy, frozen)
    }

    /// Derivative of the output along `dx`, at `x: [T, D]`; `frozen`: the scale counts as constant.
    pub fn jvp(&self, x: &Tensor, dx: &Tensor, frozen: bool) -> Result<Tensor> {
        self.ops.affine(&self.along(x, dx, frozen)?, self.gain.as_ref(), None)
    }

    /// `(I - c cᵀ / (D s²)) d / s` between two centrings: a symmetric matrix, so that it serves both directions.
    fn along(&self, x: &Tensor, d: &Tensor, frozen: bool) -> Result<Tensor> {
        let (centered, d) = (self.centered(x)?, self.centered(d)?);
        let scale = self.divisor(&centered, self.epsilon)?;
        if frozen || self.kind == NormKind::None {
            return self.ops.normalize(&d, &scale, None, None);
        }
        let d_scale = self.ops.scale_gradient(&d, &centered, &scale)?;
        self.centered(&self.ops.normalize_vjp(&d, &centered, &scale, &d_scale, &scale)?)
    }

    /// One row through the norm.
    pub fn row(&self, x: &[f32]) -> Vec<f32> {
        wide(|| {
            let (mut out, scale) = self.centered_row(x);
            out.iter_mut().for_each(|x| *x /= scale);
            self.times_gain(&mut out);
            if let Some(bias) = &self.bias {
                out.iter_mut().zip(bias.host()).for_each(|(x, bias)| *x += bias);
            }
            out
        })
    }

    /// As [`Norm::vjp`], for one row.
    pub fn vjp_row(&self, x: &[f32], dy: &[f32], frozen: bool) -> Vec<f32> {
        let mut dy = dy.to_vec();
        self.times_gain(&mut dy);
        self.along_row(x, dy, frozen)
    }

    /// As [`Norm::jvp`], for one row.
    pub fn jvp_row(&self, x: &[f32], dx: &[f32], frozen: bool) -> Vec<f32> {
        let mut out = self.along_row(x, dx.to_vec(), frozen);
        self.times_gain(&mut out);
        out
    }

    fn along_row(&self, x: &[f32], mut d: Vec<f32>, frozen: bool) -> Vec<f32> {
        let (centered, scale) = self.centered_row(x);
        d.iter_mut().for_each(|d| *d /= scale);
        if !frozen && self.kind != NormKind::None {
            let along = dot(&d, &centered) / (scale * scale * x.len() as f32);
            axpy(&mut d, -along, &centered);
        }
        if self.kind.centers() {
            rows::center(&mut d);
        }
        d
    }

    #[inline(always)]
    fn centered_row(&self, x: &[f32]) -> (Vec<f32>, f32) {
        let mut centered = x.to_vec();
        if self.kind.centers() {
            rows::center(&mut centered);
        }
        let scale = match self.kind {
            NormKind::None => 1.0,
            _ => rows::root_mean_square(&centered, self.epsilon),
        };
        (centered, scale)
    }

    #[inline(always)]
    fn times_gain(&self, row: &mut [f32]) {
        if let Some(gain) = &self.gain {
            row.iter_mut().zip(gain.host()).for_each(|(x, gain)| *x *= gain);
        }
    }
}
