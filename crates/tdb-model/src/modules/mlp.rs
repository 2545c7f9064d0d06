//! The MLP layer: `W_out act(W_in x + b_in) + b_out`, or gated `W_out (act(W_gate x) ⊙ W_in x)`.

use std::sync::OnceLock;

use candle_core::{Result, Tensor};

use crate::config::{Activation, Config, MlpKind};
use crate::error::Error;
use crate::fault::{self, Fault};
use crate::modules::{Linear, Place};
use crate::ops::{Ops, Vector, rows};
use crate::parallel;
use crate::source::Weights;

/// The MLP layer of one block, without the norm before it.
#[derive(Clone, Debug)]
pub struct Mlp {
    /// What the activation function reads: the gate of a gated layer.
    gate: Linear,
    /// What the gate's activation is multiplied with.
    up: Option<Linear>,
    out: Linear,
    activation: Activation,
    /// What the norm after the layer, where there is one, multiplies its output by: a part of what neurons write.
    write_gain: Option<Vector>,
    write_norms: OnceLock<Vec<f32>>,
    ops: Ops,
}

/// What the backward pass and readers need of an MLP layer.
#[derive(Clone, Debug)]
pub struct MlpState {
    /// `[T, F]`, before the activation function.
    pub pre_act: Tensor,
    /// `[T, F]`, gated layers only: the other factor.
    pub up: Option<Tensor>,
    /// `[T, F]`
    pub post_act: Tensor,
    /// `[T, D]`
    pub delta: Tensor,
}

/// Derivatives along a direction at the layer's input.
#[derive(Clone, Debug)]
pub struct MlpDerivative {
    /// `[T, F]`
    pub post_act: Tensor,
    /// `[T, D]`
    pub delta: Tensor,
}

impl Mlp {
    /// `{name}.{in,out}`, and `{name}.gate` of a gated layer; `None` if the model has no MLP layers.
    pub(crate) fn load(
        weights: &Weights,
        name: &str,
        config: &Config,
        write_gain: Option<Vector>,
        place: &Place,
    ) -> std::result::Result<Option<Self>, Error> {
        let (activation, gated) = match config.mlp {
            MlpKind::None => return Ok(None),
            MlpKind::Plain(activation) => (activation, false),
            MlpKind::Gated(activation) => (activation, true),
        };
        let part = |part: &str, shape| Linear::load(weights, &format!("{name}.{part}"), shape, config.mlp_bias, place);
        let inward = [config.d_ff, config.d_model];
        let (gate, up) = match gated {
            true => (part("gate", inward)?, Some(part("in", inward)?)),
            false => (part("in", inward)?, None),
        };
        let out = part("out", [config.d_model, config.d_ff])?;
        Ok(Some(Mlp { gate, up, out, activation, write_gain, write_norms: OnceLock::new(), ops: place.ops }))
    }

    /// The nonlinearity.
    pub fn activation(&self) -> Activation {
        self.activation
    }

    /// Neurons before the activation function, and of a gated layer the other factor: `[T, D]` to `[T, F]`.
    pub(crate) fn read(&self, input: &Tensor) -> Result<(Tensor, Option<Tensor>)> {
        Ok((self.gate.forward(input)?, self.up.as_ref().map(|up| up.forward(input)).transpose()?))
    }

    /// Neurons after the activation function.
    pub(crate) fn activate(&self, pre_act: &Tensor, up: Option<&Tensor>) -> Result<Tensor> {
        let activated = self.ops.activate(pre_act, self.activation)?;
        match up {
            Some(up) => self.ops.times(&activated, up),
            None => Ok(activated),
        }
    }

    /// The layer's output, `[T, F]` to `[T, D]`.
    pub(crate) fn output(&self, neurons: &Tensor) -> Result<Tensor> {
        self.out.forward(neurons)
    }

    /// The reverse of [`Mlp::output`]: `[T, D]` to `[T, F]`.
    pub(crate) fn output_vjp(&self, d_delta: &Tensor) -> Result<Tensor> {
        self.out.vjp(d_delta)
    }

    /// As the pass computes it, without interventions and hooks: `x: [N, D]` after the norm. `delta` is what the output
    /// projection gives, before the norm that some families have after it.
    ///
    /// # Errors
    /// If an operation fails.
    pub fn apply(&self, x: &Tensor) -> Result<MlpState> {
        let (pre_act, up) = self.read(x)?;
        let post_act = self.activate(&pre_act, up.as_ref())?;
        let delta = self.output(&post_act)?;
        Ok(MlpState { pre_act, up, post_act, delta })
    }

    /// Gradient at the neurons, `[T, F]`, to those at `pre_act` and `up`.
    pub(crate) fn activation_vjp(&self, state: &MlpState, d_post_act: &Tensor) -> Result<(Tensor, Option<Tensor>)> {
        if fault::is(Fault::LinearActivation) {
            return Ok((d_post_act.clone(), state.up.clone()));
        }
        let Some(up) = &state.up else {
            return Ok((self.ops.activate_vjp(d_post_act, &state.pre_act, self.activation)?, None));
        };
        let d_activated = self.ops.times(d_post_act, up)?;
        let d_pre_act = self.ops.activate_vjp(&d_activated, &state.pre_act, self.activation)?;
        let d_up = self.ops.times(d_post_act, &self.ops.activate(&state.pre_act, self.activation)?)?;
        Ok((d_pre_act, Some(d_up)))
    }

    /// Gradients at `pre_act` and `up`, `[T, F]`, to the gradient at the input, `[T, D]`.
    pub(crate) fn read_vjp(&self, d_pre_act: &Tensor, d_up: Option<&Tensor>) -> Result<Tensor> {
        match (&self.up, d_up) {
            (Some(up), Some(d_up)) => {
                self.ops.linear_vjp(&[(d_pre_act, self.gate.weight(), 1.0), (d_up, up.weight(), 1.0)])
            }
            _ => self.gate.vjp(d_pre_act),
        }
    }

    /// Gradient at the neurons, `[T, F]`, to the gradient at the input, `[T, D]`.
    ///
    /// # Errors
    /// If an operation fails.
    pub fn vjp_neurons(&self, state: &MlpState, d_post_act: &Tensor) -> Result<Tensor> {
        let (d_pre_act, d_up) = self.activation_vjp(state, d_post_act)?;
        self.read_vjp(&d_pre_act, d_up.as_ref())
    }

    /// Gradient at the output projection's output, `[T, D]`, to the gradient at the input, `[T, D]`.
    ///
    /// # Errors
    /// If an operation fails.
    pub fn vjp(&self, state: &MlpState, d_delta: &Tensor) -> Result<Tensor> {
        self.vjp_neurons(state, &self.out.vjp(d_delta)?)
    }

    /// Neurons and output along `dx: [T, D]` at the input.
    ///
    /// # Errors
    /// If an operation fails.
    pub fn jvp(&self, state: &MlpState, dx: &Tensor) -> Result<MlpDerivative> {
        let d_pre_act = self.gate.jvp(dx)?;
        let d_activated = self.ops.activate_vjp(&d_pre_act, &state.pre_act, self.activation)?;
        let post_act = match (&self.up, &state.up) {
            (Some(layer), Some(up)) => {
                let activated = self.ops.activate(&state.pre_act, self.activation)?;
                let through_up = self.ops.times(&activated, &layer.jvp(dx)?)?;
                self.ops.add(&self.ops.times(&d_activated, up)?, &through_up)?
            }
            _ => d_activated,
        };
        let delta = self.out.jvp(&post_act)?;
        Ok(MlpDerivative { post_act, delta })
    }

    /// Gradient of a neuron's pre-activation at the layer's input, `[D]`; of a gated layer, of what the activation
    /// function reads.
    pub fn read_direction(&self, neuron: usize) -> Vec<f32> {
        self.gate.weight().matrix().row(neuron)
    }

    /// A neuron's pre-activation for an input of zeros.
    pub fn read_bias(&self, neuron: usize) -> f32 {
        self.gate.bias().map_or(0.0, |bias| bias[neuron])
    }

    /// Gradient of what a gated neuron's activated gate is multiplied with at the layer's input, `[D]`; `None` if neurons
    /// are not gated.
    pub fn up_direction(&self, neuron: usize) -> Option<Vec<f32>> {
        self.up.as_ref().map(|up| up.weight().matrix().row(neuron))
    }

    /// That for an input of zeros.
    pub fn up_bias(&self, neuron: usize) -> f32 {
        self.up.as_ref().and_then(Linear::bias).map_or(0.0, |bias| bias[neuron])
    }

    /// What a unit of a neuron's activation writes, `[D]`; where there is a norm after the layer, before the division by
    /// its scale ([`crate::Run::write_scale`]), as for all writes here.
    pub fn write_direction(&self, neuron: usize) -> Vec<f32> {
        let mut direction = self.out.weight().matrix().transpose().row(neuron);
        if let Some(gain) = &self.write_gain {
            direction.iter_mut().zip(gain.host()).for_each(|(x, gain)| *x *= gain);
        }
        direction
    }

    /// Lengths of all write directions, `[F]`. Computed once.
    pub fn write_norms(&self) -> &[f32] {
        self.write_norms.get_or_init(|| {
            let weight = self.out.weight().matrix();
            if weight.row_stride() == 1 {
                let norm = |n: usize| {
                    let row = self.write_direction(n);
                    rows::dot(&row, &row).sqrt()
                };
                return parallel::map(weight.cols(), norm);
            }
            let gain = |d: usize| self.write_gain.as_ref().map_or(1.0, |gain| gain.host()[d]);
            let mut sums = vec![0.0; weight.cols()];
            let mut row = vec![0.0; weight.cols()];
            for d in 0..weight.rows() {
                weight.copy_row(d, &mut row);
                let gain = gain(d);
                sums.iter_mut().zip(&row).for_each(|(sum, w)| *sum += (w * gain) * (w * gain));
            }
            sums.into_iter().map(f32::sqrt).collect()
        })
    }

    /// What rows of activations write, `[N, F]` to `[N, D]`: the output weights without the bias.
    ///
    /// # Errors
    /// If an operation fails.
    pub fn write(&self, x: &Tensor) -> Result<Tensor> {
        let written = self.out.jvp(x)?;
        match &self.write_gain {
            Some(gain) => self.ops.affine(&written, Some(gain), None),
            None => Ok(written),
        }
    }

    /// `d W_out` for rows `d: [N, D]`, `[N, F]`. Rows of zeros at both ends cost nothing.
    ///
    /// # Errors
    /// If an operation fails.
    pub fn write_vjp(&self, d: &Tensor) -> Result<Tensor> {
        match &self.write_gain {
            Some(gain) => self.out.vjp(&self.ops.affine(d, Some(gain), None)?),
            None => self.out.vjp(d),
        }
    }
}
