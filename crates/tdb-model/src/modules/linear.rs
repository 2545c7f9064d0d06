//! `y = x Wᵀ + b`.

use std::ops::Range;

use candle_core::{Device, Result, Tensor};

use crate::error::Error;
use crate::ops::{Ops, Vector, Weight};
use crate::source::Weights;

/// A linear layer with `W: [out, in]`, or one of its parts.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Weight,
    bias: Option<Vector>,
    ops: Ops,
}

impl Linear {
    /// `{name}.weight`, and `{name}.bias` if it has one.
    pub(crate) fn load(
        weights: &Weights,
        name: &str,
        [outputs, inputs]: [usize; 2],
        bias: bool,
        place: &Place,
    ) -> std::result::Result<Self, Error> {
        let weight = Weight::new(weights.matrix(&format!("{name}.weight"), [outputs, inputs])?, &place.device);
        let bias = match bias {
            true => Some(Vector::new(weights.vector(&format!("{name}.bias"), outputs)?, &place.device)),
            false => None,
        };
        Ok(Linear { weight, bias, ops: place.ops })
    }

    /// `x Wᵀ + b`: `[N, in]` to `[N, out]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_scaled(x, 1.0)
    }

    /// `(x Wᵀ + b) factor`
    pub(crate) fn forward_scaled(&self, x: &Tensor, factor: f32) -> Result<Tensor> {
        self.ops.linear(x, &self.weight, self.bias.as_ref(), factor)
    }

    /// `x Wᵀ factor`: the derivative along `x`, and what a layer writes without its bias.
    pub(crate) fn jvp_scaled(&self, dx: &Tensor, factor: f32) -> Result<Tensor> {
        self.ops.linear(dx, &self.weight, None, factor)
    }

    /// `x Wᵀ`
    pub fn jvp(&self, dx: &Tensor) -> Result<Tensor> {
        self.jvp_scaled(dx, 1.0)
    }

    /// `dy W`: `[N, out]` to `[N, in]`.
    pub fn vjp(&self, dy: &Tensor) -> Result<Tensor> {
        self.ops.linear_vjp(&[(dy, &self.weight, 1.0)])
    }

    /// The layer that gives some of the outputs.
    pub(crate) fn outputs(&self, range: Range<usize>) -> Self {
        Linear {
            weight: self.weight.row_range(range.clone()),
            bias: self.bias.as_ref().map(|bias| bias.range(range)),
            ops: self.ops,
        }
    }

    pub(crate) fn weight(&self) -> &Weight {
        &self.weight
    }

    pub(crate) fn bias(&self) -> Option<&[f32]> {
        self.bias.as_ref().map(Vector::host)
    }
}

/// Where a model lives, and which form of the operations it runs.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub device: Device,
    pub ops: Ops,
}
