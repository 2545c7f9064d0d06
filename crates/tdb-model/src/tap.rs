//! What acts on a pass from outside, and what is kept of its gradients.

use std::collections::BTreeMap;
use std::ops::Range;

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::intervention::{Intervention, set_entries};
use crate::numbers::Numbers;
use crate::patch::Patch;
use crate::site::{Pass, Point, Site};

/// What a user of the library attaches to a pass: called at every point that it [`wants`](Hooks::wants), in the order
/// of the computation (forward) or against it (backward).
pub trait Hooks {
    /// Whether [`Hooks::forward`] or [`Hooks::backward`] shall be called at this point.
    fn wants(&self, _point: Point, _pass: Pass) -> bool {
        true
    }

    /// Sees the activation at `point` (its dimensions: [`crate::Site`]), after any interventions. Returns
    /// another tensor of the same shape to go on with, or `None` to leave it. The gradient passes a
    /// replacement as if it were the identity; [`Hooks::backward`] can change that.
    ///
    /// # Errors
    /// An error ends the run.
    fn forward(&mut self, _point: Point, _activation: &Tensor) -> candle_core::Result<Option<Tensor>> {
        Ok(None)
    }

    /// Sees the gradient of the objective with respect to the activation at `point`, before backward
    /// interventions, and may return another one to go on with.
    ///
    /// # Errors
    /// An error ends the run.
    fn backward(&mut self, _point: Point, _gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        Ok(None)
    }
}

/// Interventions and hooks of one pass, and the gradients that its reader asked for.
#[derive(Default)]
pub(crate) struct Tap<'a> {
    pub interventions: &'a [Intervention],
    pub hooks: Option<&'a mut dyn Hooks>,
    /// Runs whose rows are computed together, each with its own changes.
    pub together: &'a [RowsOf],
    /// Sites whose gradients are kept.
    pub keep: &'a [Site],
    pub kept: BTreeMap<Point, Tensor>,
}

/// The rows of one run among those that are computed together, and what acts on them. Token indices count from the first of
/// the rows.
#[derive(Clone, Debug)]
pub(crate) struct RowsOf {
    pub rows: Range<usize>,
    pub interventions: Vec<Intervention>,
    /// They act after the interventions.
    pub patches: Vec<Patch>,
}

impl RowsOf {
    /// Whether something changes these rows at `point`.
    pub fn touches(&self, point: Point) -> bool {
        self.interventions.iter().any(|i| i.applies(point, Pass::Forward))
            || self.patches.iter().any(|p| p.point == point)
    }

    /// Changes these rows alone, row-major, with dimensions `dims`.
    pub fn set(&self, point: Point, data: &mut [f32], dims: &[usize]) {
        for intervention in self.interventions.iter().filter(|i| i.applies(point, Pass::Forward)) {
            set_entries(data, dims, &intervention.indices, |_| intervention.value);
        }
        for patch in self.patches.iter().filter(|p| p.point == point) {
            set_entries(data, dims, &patch.indices, |n| patch.values.at(n));
        }
    }
}

impl Tap<'_> {
    /// Whether a hook wants to see this point.
    pub fn wants(&self, point: Point, pass: Pass) -> bool {
        self.hooks.as_ref().is_some_and(|hooks| hooks.wants(point, pass))
    }

    /// Whether an intervention or a hook may change what stands at `point`.
    pub fn touches(&self, point: Point, pass: Pass) -> bool {
        self.interventions.iter().any(|i| i.applies(point, pass))
            || (pass == Pass::Forward && self.together.iter().any(|rows| rows.touches(point)))
            || self.wants(point, pass)
    }

    /// Whether the gradients of this site are kept.
    pub fn keeps(&self, site: Site) -> bool {
        self.keep.contains(&site)
    }

    /// The activation that goes on from `point`: interventions act first, then hooks.
    pub fn forward(&mut self, point: Point, mut activation: Tensor) -> Result<Tensor> {
        for intervention in self.interventions.iter().filter(|i| i.applies(point, Pass::Forward)) {
            activation = intervention.set(&activation, intervention.value)?;
        }
        if self.together.iter().any(|rows| rows.touches(point)) {
            activation = self.set_rows(point, &activation)?;
        }
        if let Some(hooks) = self.hooks.as_deref_mut().filter(|hooks| hooks.wants(point, Pass::Forward)) {
            let answer = hooks.forward(point, &activation);
            return replaced(point, activation, answer);
        }
        Ok(activation)
    }

    /// Every run's changes in its own rows.
    fn set_rows(&self, point: Point, activation: &Tensor) -> Result<Tensor> {
        let mut data = Numbers::of(activation)?.to_row_major();
        let mut dims = activation.dims().to_vec();
        let width: usize = dims[1..].iter().product();
        for of in self.together.iter().filter(|of| of.touches(point)) {
            dims[0] = of.rows.len();
            of.set(point, &mut data[of.rows.start * width..of.rows.end * width], &dims);
        }
        Ok(Tensor::from_vec(data, activation.dims(), activation.device())?)
    }

    /// The gradient that goes on from `point`, the reverse of [`Tap::forward`]: it is kept as it arrives, hooks see it,
    /// backward interventions replace it, and what the forward interventions overwrote gets none.
    pub fn backward(&mut self, point: Point, gradient: Tensor) -> Result<Tensor> {
        self.put(point, &gradient);
        self.backward_unkept(point, gradient)
    }

    /// As [`Tap::backward`], keeping nothing.
    pub fn backward_unkept(&mut self, point: Point, mut gradient: Tensor) -> Result<Tensor> {
        if let Some(hooks) = self.hooks.as_deref_mut().filter(|hooks| hooks.wants(point, Pass::Backward)) {
            let answer = hooks.backward(point, &gradient);
            gradient = replaced(point, gradient, answer)?;
        }
        for intervention in self.interventions.iter().rev().filter(|i| i.applies(point, Pass::Backward)) {
            gradient = intervention.set(&gradient, intervention.value)?;
        }
        for intervention in self.interventions.iter().filter(|i| i.applies(point, Pass::Forward)) {
            gradient = intervention.set(&gradient, 0.0)?;
        }
        Ok(gradient)
    }

    /// Keeps a gradient if it was asked for.
    pub fn put(&mut self, point: Point, gradient: &Tensor) {
        if self.keeps(point.site) {
            self.kept.insert(point, gradient.clone());
        }
    }
}

fn replaced(point: Point, tensor: Tensor, answer: candle_core::Result<Option<Tensor>>) -> Result<Tensor> {
    let Some(other) = answer.map_err(|source| Error::Hook { point, source })? else { return Ok(tensor) };
    if other.dims() != tensor.dims() {
        let (expected, found) = (tensor.dims().to_vec(), other.dims().to_vec());
        return Err(Error::HookShape { point, expected, found });
    }
    let moved = other.to_dtype(tensor.dtype()).and_then(|other| other.to_device(tensor.device()));
    moved.map_err(|source| Error::Hook { point, source })
}
