//! One head by itself, for readings of its weights.

use candle_core::{Result, Tensor};

use super::Attention;
use crate::modules::Linear;
use crate::modules::norm::Norm;
use crate::ops::Weight;

/// The projections of one head. Every row counts as a text's first token: rotary positions turn nothing there, and a
/// query meets a key at distance 0.
#[derive(Debug)]
pub struct HeadProjections<'a> {
    attention: &'a Attention,
    query: Linear,
    key: Linear,
    value: Linear,
    /// `[D, E]`
    out: &'a Weight,
}

impl Attention {
    /// The projections of a head; its keys and values are those of its group.
    pub fn projections(&self, head: usize) -> HeadProjections<'_> {
        let part = |linear: &Linear, head: usize| linear.outputs(head * self.width..(head + 1) * self.width);
        let group = self.kv_head(head);
        HeadProjections {
            attention: self,
            query: part(&self.query, head),
            key: part(&self.key, group),
            value: part(&self.value, group),
            out: &self.out_by_head[head],
        }
    }
}

impl HeadProjections<'_> {
    /// Queries for rows of the layer's input, `x: [N, D]` after the norm, `[N, E]`. A query times a key is their logit,
    /// before a cap.
    ///
    /// # Errors
    /// If an operation fails.
    pub fn queries(&self, x: &Tensor) -> Result<Tensor> {
        self.at_start(self.query.forward(x)?, self.attention.query_norm.as_ref())
    }

    /// Keys, likewise.
    ///
    /// # Errors
    /// If an operation fails.
    pub fn keys(&self, x: &Tensor) -> Result<Tensor> {
        self.at_start(self.key.forward(x)?, self.attention.key_norm.as_ref())
    }

    /// Values, likewise.
    ///
    /// # Errors
    /// If an operation fails.
    pub fn values(&self, x: &Tensor) -> Result<Tensor> {
        self.value.forward(x)
    }

    /// Gradient at what the head writes, `[N, D]`, to that at its weighted values, `[N, E]`, through
    /// [`Attention::write`].
    ///
    /// # Errors
    /// If an operation fails.
    pub fn write_vjp(&self, d: &Tensor) -> Result<Tensor> {
        let ops = self.attention.ops;
        match &self.attention.write_gain {
            Some(gain) => ops.linear_vjp(&[(&ops.affine(d, Some(gain), None)?, self.out, 1.0)]),
            None => ops.linear_vjp(&[(d, self.out, 1.0)]),
        }
    }

    /// What is done to queries or keys before they meet: the norm, the amplitude of rotary positions, the factor.
    fn at_start(&self, projected: Tensor, norm: Option<&Norm>) -> Result<Tensor> {
        let normed = match norm {
            Some(norm) => norm.apply(&projected)?,
            None => projected,
        };
        let factor = f64::from(self.attention.factor);
        let Some(rotary) = &self.attention.rotary else { return normed * factor };
        let grown = factor * f64::from(rotary.scaling.amplitude());
        match self.attention.width - rotary.dims {
            0 => normed * grown,
            kept => Tensor::cat(
                &[(normed.narrow(1, 0, rotary.dims)? * grown)?, (normed.narrow(1, rotary.dims, kept)? * factor)?],
                1,
            ),
        }
    }
}
