//! Operations of the pass, each in two forms that give the same numbers: a kernel for f32 on the CPU that reads
//! weights where they lie ([`fast`]), and the composition of candle's own operations that defines it and runs on
//! every device ([`plain`]). [`Ops`] chooses between them; nothing else in the crate knows which one runs.

mod fast;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod lanes;
mod plain;
mod products;
pub mod rows;
mod screen;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod unpacked;
mod weight;
mod wide;

use candle_core::{D, Device, Result, Tensor};

pub use products::{Threads, View, add_times, matmul, product, times_transposed};
pub use screen::{Screen, Wanted};
pub use weight::{Vector, Weight};
pub use wide::wide;

use crate::config::{Activation, Rotary, RotaryScaling};

/// Name of the environment variable that chooses the form of the operations.
pub const VARIABLE: &str = "TDB_OPS";

/// Which form of the operations runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ops {
    /// Kernels for f32 on the CPU.
    Fast,
    /// Compositions of candle's operations, on any device.
    Plain,
}

/// Which keys a query sees; the last query stands at the last key.
#[derive(Clone, Copy, Debug)]
pub struct Visible {
    /// Number of queries.
    pub queries: usize,
    /// Number of keys, at least as many as queries.
    pub keys: usize,
    /// At most so many keys, the query's own included.
    pub window: Option<usize>,
}

impl Visible {
    /// The keys that a query sees.
    pub fn of(&self, query: usize) -> std::ops::Range<usize> {
        let end = self.keys - self.queries + query + 1;
        end.saturating_sub(self.window.unwrap_or(end))..end
    }
}

/// A rotation of queries or keys by their positions.
#[derive(Clone, Copy, Debug)]
pub struct Rotation<'a> {
    pub rotary: &'a Rotary,
    /// Position of the first row.
    pub first: usize,
    /// Backwards, as gradients go.
    pub inverse: bool,
}

impl Rotation<'_> {
    /// Cosine and sine of every row's angle for every pair of dimensions, `[rows, dims / 2]` each, times the amplitude
    /// of the scaling.
    pub fn cos_sin(&self, rows: usize) -> (Vec<f32>, Vec<f32>) {
        let half = self.rotary.dims / 2;
        let frequencies: Vec<f64> = (0..half).map(|i| self.frequency(i)).collect();
        let sign = if self.inverse { -1.0 } else { 1.0 };
        let angles = (0..rows).flat_map(|row| {
            let position = (self.first + row) as f64;
            // Positions times frequencies in single precision, as the models were trained.
            frequencies.iter().map(move |f| f64::from(position as f32 * *f as f32) * sign)
        });
        let amplitude = self.rotary.scaling.amplitude();
        angles.map(|angle| (angle.cos() as f32 * amplitude, angle.sin() as f32 * amplitude)).unzip()
    }

    fn frequency(&self, pair: usize) -> f64 {
        let plain = f64::from(self.rotary.base).powf(-2.0 * pair as f64 / self.rotary.dims as f64);
        match self.rotary.scaling {
            RotaryScaling::None => plain,
            RotaryScaling::Linear { factor } => plain / f64::from(factor),
            RotaryScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
                let (factor, low, high) = (f64::from(factor), f64::from(low_freq_factor), f64::from(high_freq_factor));
                let wavelength = 2.0 * std::f64::consts::PI / plain;
                let turns = original_context as f64 / wavelength;
                if turns < low {
                    plain / factor
                } else if turns > high {
                    plain
                } else {
                    let smooth = (turns - low) / (high - low);
                    (1.0 - smooth) * plain / factor + smooth * plain
                }
            }
            RotaryScaling::Yarn { factor, beta_fast, beta_slow, original_context, truncate, .. } => {
                let (dims, base) = (self.rotary.dims as f64, f64::from(self.rotary.base));
                // The index of the pair that turns so often in the original context.
                let index = |turns: f32| {
                    let turns = original_context as f64 / (f64::from(turns) * 2.0 * std::f64::consts::PI);
                    dims * turns.ln() / (2.0 * base.ln())
                };
                let (low, high) = (index(beta_fast), index(beta_slow));
                let (low, high) = if truncate { (low.floor(), high.ceil()) } else { (low, high) };
                let (low, high) = (low.max(0.0), high.min(dims - 1.0));
                let width = if low == high { 0.001 } else { high - low };
                let divided = ((pair as f64 - low) / width).clamp(0.0, 1.0);
                plain * (1.0 - divided) + plain / f64::from(factor) * divided
            }
        }
    }
}

impl Ops {
    /// The fast form on the CPU unless the environment variable `TDB_OPS` says `plain`; the plain one elsewhere.
    ///
    /// # Errors
    /// If the variable is neither `fast` nor `plain`.
    pub fn for_device(device: &Device) -> std::result::Result<Self, String> {
        let wanted = match std::env::var(VARIABLE) {
            Err(_) => Ops::Fast,
            Ok(value) => match value.as_str() {
                "" | "fast" => Ops::Fast,
                "plain" => Ops::Plain,
                other => return Err(format!("{VARIABLE} is \"{other}\", expected \"fast\" or \"plain\"")),
            },
        };
        Ok(if device.is_cpu() { wanted } else { Ops::Plain })
    }

    /// `(x Wᵀ + b) f` for `x: [N, in]`, `W: [out, in]`: `[N, out]`.
    pub fn linear(self, x: &Tensor, weight: &Weight, bias: Option<&Vector>, factor: f32) -> Result<Tensor> {
        match self {
            Ops::Fast => fast::linear(x, weight.matrix(), bias.map(Vector::host), factor),
            Ops::Plain => plain::linear(x, weight.tensor()?, bias.map(Vector::tensor).transpose()?, factor),
        }
    }

    /// `Σ f dy W` over `(dy, W, f)` with `dy: [N, out]`, `W: [out, in]`: the gradient at the input of linear layers,
    /// `[N, in]`. In the fast form rows of zeros before the first and after the last other one cost nothing.
    pub fn linear_vjp(self, terms: &[(&Tensor, &Weight, f32)]) -> Result<Tensor> {
        match self {
            Ops::Fast => fast::linear_vjp(terms),
            Ops::Plain => plain::linear_vjp(terms),
        }
    }

    /// Every row minus its mean.
    pub fn center(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Ops::Fast => fast::center(x),
            Ops::Plain => plain::center(x),
        }
    }

    /// `sqrt(mean(x²) + ε)` of every row: `[N, D]` to `[N, 1]`.
    pub fn root_mean_square(self, x: &Tensor, epsilon: f32) -> Result<Tensor> {
        match self {
            Ops::Fast => fast::root_mean_square(x, epsilon),
            Ops::Plain => plain::root_mean_square(x, epsilon),
        }
    }

    /// `x / scale * gain + bias` with `x: [N, D]`, `scale: [N, 1]`.
    pub fn normalize(self, x: &Tensor, scale: &Tensor, gain: Option<&Vector>, bias: Option<&Vector>) -> Result<Tensor> {
        match self {
            Ops::Fast => fast::normalize(x, scale, gain.map(Vector::host), bias.map(Vector::host)),
            Ops::Plain => {
                let (gain, bias) = (gain.map(Vector::tensor).transpose()?, bias.map(Vector::tensor).transpose()?);
                plain::affine(&plain::divide(x, scale)?, gain, bias)
            }
        }
    }

    /// `x * gain + bias`, row by row.
    pub fn affine(self, x: &Tensor, gain: Option<&Vector>, bias: Option<&Vector>) -> Result<Tensor> {
        if gain.is_none() && bias.is_none() {
            return Ok(x.clone());
        }
        match self {
            Ops::Fast => fast::affine(x, gain.map(Vector::host), bias.map(Vector::host)),
            Ops::Plain => {
                plain::affine(x, gain.map(Vector::tensor).transpose()?, bias.map(Vector::tensor).transpose()?)
            }
        }
    }

    /// Gradient at the scale `s` of `y = x / s`, given that at `y`: `-Σ dy x / s²`, `[N, 1]`.
    pub fn scale_gradient(self, dy: &Tensor, x: &Tensor, scale: &Tensor) -> Result<Tensor> {
        match self {
            Ops::Fast => fast::scale_gradient(dy, x, scale),
            Ops::Plain => plain::scale_gradient(dy, x, scale),
        }
    }

    /// Gradient at `x` of `y = x / s`, `s = sqrt(mean(x²) + ε)`: `dy / s + ds x / (D s₀)`, with `ds` the gradient at the
    /// scale and `s₀` the scale as it was computed.
    pub fn normalize_vjp(
        self,
        dy: &Tensor,
        x: &Tensor,
        scale: &Tensor,
        d_scale: &Tensor,
        computed_scale: &Tensor,
    ) -> Result<Tensor> {
        match self {
            Ops::Fast => fast::normalize_vjp(dy, x, scale, d_scale, computed_scale),
            Ops::Plain => plain::normalize_vjp(dy, x, scale, d_scale, computed_scale),
        }
    }

    /// A nonlinearity of every number.
    pub fn activate(self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        match self {
            Ops::Fast => fast::activate(x, activation),
            Ops::Plain => plain::activate(x, activation),
        }
    }

    /// `dy act'(x)`; in the fast form rows of zeros at both ends cost nothing.
    pub fn activate_vjp(self, dy: &Tensor, x: &Tensor, activation: Activation) -> Result<Tensor> {
        match self {
            Ops::Fast => fast::activate_vjp(dy, x, activation),
            Ops::Plain => plain::times(dy, &plain::activation_derivative(x, activation)?),
        }
    }

    /// `x + y`
    pub fn add(self, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        match self {
            Ops::Fast => fast::zip("add", x, y, |x, y| x + y),
            Ops::Plain => plain::add(x, y),
        }
    }

    /// `x - y`
    pub fn subtract(self, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        match self {
            Ops::Fast => fast::zip("subtract", x, y, |x, y| x - y),
            Ops::Plain => plain::subtract(x, y),
        }
    }

    /// `x ⊙ y`
    pub fn times(self, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        match self {
            Ops::Fast => fast::zip("times", x, y, |x, y| x * y),
            Ops::Plain => plain::times(x, y),
        }
    }

    /// `Σ_e x[…, e]`: one dimension less.
    pub fn sum_last(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Ops::Fast => fast::sum_last(x),
            Ops::Plain => x.sum(D::Minus1),
        }
    }

    /// `Σ_e x[…, e] y[…, e]`: one dimension less.
    pub fn dot_last(self, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        match self {
            Ops::Fast => fast::dot_last(x, y),
            Ops::Plain => plain::times(x, y)?.sum(D::Minus1),
        }
    }

    /// `Σ_h x[h, …]`: one dimension less.
    pub fn sum_first(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Ops::Fast => fast::sum_first(x),
            Ops::Plain => x.sum(0),
        }
    }

    /// `Σ_e a[q, h, e] b[k, g(h), e]` for `a: [Q, H, E]`, `b: [K, G, E]`: `[H, Q, K]`, with `hidden.1` where a query does
    /// not see a key. Heads `h` of a group `g = h / (H / G)` share keys.
    pub fn head_products(self, a: &Tensor, b: &Tensor, hidden: Option<(Visible, f32)>) -> Result<Tensor> {
        match self {
            Ops::Fast => fast::head_products(a, b, hidden),
            Ops::Plain => plain::head_products(a, b, hidden),
        }
    }

    /// `Σ_k p[h, q, k] v[k, g(h), e]` for `p: [H, Q, K]`, `v: [K, G, E]`: `[Q, H, E]`.
    pub fn head_mix(self, p: &Tensor, v: &Tensor) -> Result<Tensor> {
        match self {
            Ops::Fast => fast::head_mix(p, v),
            Ops::Plain => plain::head_mix(p, v),
        }
    }

    /// `Σ_q p[h, q, k] x[q, h, e]`, summed over the heads of a group: `[K, G, E]` for `groups` groups.
    pub fn head_mix_transposed(self, p: &Tensor, x: &Tensor, groups: usize) -> Result<Tensor> {
        match self {
            Ops::Fast => fast::head_mix_transposed(p, x, groups),
            Ops::Plain => plain::head_mix_transposed(p, x, groups),
        }
    }

    /// `x: [H, Q, K]` with `value` where a query does not see a key.
    pub fn mask(self, x: &Tensor, visible: Visible, value: f32) -> Result<Tensor> {
        plain::mask(x, visible, value)
    }

    /// Softmax of every row of `logits: [H, Q, K]`. Keys that `visible` hides are known to be `-inf`.
    pub fn softmax(self, logits: &Tensor, visible: Option<Visible>) -> Result<Tensor> {
        match self {
            Ops::Fast => fast::softmax(logits, visible),
            Ops::Plain => plain::softmax(logits),
        }
    }

    /// Gradient at the logits: `p (dp - Σ p dp)`, row by row.
    pub fn softmax_vjp(self, probs: &Tensor, d_probs: &Tensor) -> Result<Tensor> {
        match self {
            Ops::Fast => fast::softmax_vjp(probs, d_probs),
            Ops::Plain => plain::softmax_vjp(probs, d_probs),
        }
    }

    /// `exp(x - max x)` of every row and its sum: `[H, Q, K]` to `[H, Q, K]` and `[H, Q, 1]`.
    pub fn exponentials(self, logits: &Tensor) -> Result<(Tensor, Tensor)> {
        match self {
            Ops::Fast => fast::exponentials(logits),
            Ops::Plain => plain::exponentials(logits),
        }
    }

    /// The leading dimensions of every head turned by its row's position, `[N, H, E]`.
    pub fn rotate(self, x: &Tensor, rotation: Rotation<'_>) -> Result<Tensor> {
        match self {
            Ops::Fast => fast::rotate(x, rotation),
            Ops::Plain => plain::rotate(x, rotation),
        }
    }

    /// `cap tanh(x / cap)`
    pub fn softcap(self, x: &Tensor, cap: f32) -> Result<Tensor> {
        (x / f64::from(cap))?.tanh()? * f64::from(cap)
    }

    /// `dy (1 - (y / cap)²)` for `y = cap tanh(x / cap)`; `y` may be `-inf` where `dy` is 0.
    pub fn softcap_vjp(self, dy: &Tensor, y: &Tensor, cap: f32) -> Result<Tensor> {
        let y = y.clamp(-cap, cap)?;
        plain::times(dy, &(1.0 - (y / f64::from(cap))?.sqr()?)?)
    }
}

#[cfg(test)]
mod tests;
