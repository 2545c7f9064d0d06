//! Looking at and changing activations and gradients from outside.

use candle_core::{Device, Tensor};

use crate::array::Array;
use crate::intervention::Intervention;
use crate::site::{Pass, Point};

/// What a user of the library attaches to a pass: called at every point for which it is `wanted`,
/// in the order of the computation (forward) or against it (backward).
///
/// `()` wants nothing and costs nothing.
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

impl Hooks for () {
    fn wants(&self, _point: Point, _pass: Pass) -> bool {
        false
    }
}

/// A run was stopped, or a hook failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("the run was cancelled")]
    Cancelled,
    #[error("a hook at {point:?} failed: {source}")]
    Hook { point: Point, source: candle_core::Error },
    #[error("a hook at {point:?} returned shape {found:?} where {expected:?} was expected")]
    HookShape { point: Point, expected: Vec<usize>, found: Vec<usize> },
    #[error("{what}")]
    Input { what: String },
}

/// What acts on one pass: interventions first, then hooks (and the other way round on the way back).
pub(crate) struct Actors<'a> {
    pub interventions: &'a [Intervention],
    pub hooks: &'a mut dyn Hooks,
}

impl Actors<'_> {
    pub fn wants(&self, point: Point, pass: Pass) -> bool {
        self.hooks.wants(point, pass)
    }

    /// Whether an intervention or a hook may change the activation at `point` in the forward pass.
    pub fn touches(&self, point: Point, pass: Pass) -> bool {
        self.interventions.iter().any(|i| i.applies(point, pass)) || self.wants(point, pass)
    }

    pub fn forward(&mut self, point: Point, array: &mut Array) -> Result<(), RunError> {
        for intervention in self.interventions.iter().filter(|i| i.applies(point, Pass::Forward)) {
            intervention.set(array, intervention.value);
        }
        if self.hooks.wants(point, Pass::Forward) {
            let tensor = to_tensor(array).map_err(|source| RunError::Hook { point, source })?;
            let answer = self.hooks.forward(point, &tensor);
            replace(point, array, answer)?;
        }
        Ok(())
    }

    /// The reverse of [`Actors::forward`]: hooks see the gradient, backward interventions replace it,
    /// and what the forward interventions overwrote gets none.
    pub fn backward(&mut self, point: Point, gradient: &mut Array) -> Result<(), RunError> {
        if self.hooks.wants(point, Pass::Backward) {
            let tensor = to_tensor(gradient).map_err(|source| RunError::Hook { point, source })?;
            let answer = self.hooks.backward(point, &tensor);
            replace(point, gradient, answer)?;
        }
        for intervention in self.interventions.iter().rev().filter(|i| i.applies(point, Pass::Backward)) {
            intervention.set(gradient, intervention.value);
        }
        for intervention in self.interventions.iter().filter(|i| i.applies(point, Pass::Forward)) {
            intervention.set(gradient, 0.0);
        }
        Ok(())
    }
}

fn to_tensor(array: &Array) -> candle_core::Result<Tensor> {
    Tensor::from_vec(array.to_row_major(), array.dims(), &Device::Cpu)
}

fn replace(point: Point, array: &mut Array, answer: candle_core::Result<Option<Tensor>>) -> Result<(), RunError> {
    let hook_error = |source| RunError::Hook { point, source };
    let Some(tensor) = answer.map_err(hook_error)? else { return Ok(()) };
    if tensor.dims() != array.dims() {
        return Err(RunError::HookShape { point, expected: array.dims().to_vec(), found: tensor.dims().to_vec() });
    }
    let numbers = tensor.flatten_all().and_then(|t| t.to_vec1::<f32>()).map_err(hook_error)?;
    array.set_row_major(numbers);
    Ok(())
}
