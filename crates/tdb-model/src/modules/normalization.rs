//! What a dictionary does to a row of its input before it encodes it, with its gradient and its derivative.
//!
//! With `c = x - mean(x)` (or `c = x`), a scale `s` of `c` and the divisor `q = s + ε`, the row becomes `c / q`, and a
//! reconstruction `y` of it becomes `s y + mean(x)`.

use crate::ops::rows::{dot, sum_in_double};
use crate::weights::Normalization;

/// The numbers that one row is normalised by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Frame {
    /// 0 where the mean is not subtracted.
    pub mean: f32,
    /// What a reconstruction is multiplied with; 1 where nothing is divided.
    pub scale: f32,
    divisor: f32,
    /// `s² = |c|² / freedom`; `None` where the scale is constant.
    freedom: Option<f32>,
    centres: bool,
}

impl Normalization {
    /// Of one row.
    pub(crate) fn frame(self, row: &[f32]) -> Frame {
        let n = row.len() as f64;
        let centres = matches!(self, Normalization::Centered | Normalization::LayerNorm { .. });
        let mean = if centres { sum_in_double(row) / n } else { 0.0 };
        let squares: f64 = row.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum();
        let (freedom, epsilon) = match self {
            Normalization::None | Normalization::Centered => {
                return Frame { mean: mean as f32, scale: 1.0, divisor: 1.0, freedom: None, centres };
            }
            Normalization::LayerNorm { epsilon } => (n - 1.0, epsilon),
            Normalization::ConstantNorm => (n, 0.0),
        };
        let scale = (squares / freedom.max(1.0)).sqrt() as f32;
        let divisor = scale + epsilon;
        // A row of zeros stays one.
        let divisor = if divisor > 0.0 { divisor } else { 1.0 };
        Frame { mean: mean as f32, scale, divisor, freedom: Some(freedom.max(1.0) as f32), centres }
    }
}

impl Frame {
    /// `x` to `c / q`.
    pub fn normalize(&self, row: &mut [f32]) {
        row.iter_mut().for_each(|x| *x = (*x - self.mean) / self.divisor);
    }

    /// `y` to `s y + mean(x)`.
    pub fn undo(&self, row: &mut [f32]) {
        row.iter_mut().for_each(|y| *y = *y * self.scale + self.mean);
    }

    /// The gradient at `x`, given that at `c / q` (overwritten), at the scale and at the mean. `frozen`: the scale counts
    /// as constant.
    pub fn vjp(&self, x: &[f32], gradient: &mut [f32], d_scale: f32, d_mean: f32, frozen: bool) {
        let n = x.len() as f32;
        let centered = || x.iter().map(|x| x - self.mean);
        let along: f32 = gradient.iter().zip(centered()).map(|(g, c)| g * c).sum();
        let d_scale = d_scale - along / (self.divisor * self.divisor);
        let mean = if self.centres { (sum_in_double(gradient) / f64::from(n)) as f32 } else { 0.0 };
        let d_mean = if self.centres { d_mean / n } else { 0.0 };
        gradient.iter_mut().for_each(|g| *g = (*g - mean) / self.divisor + d_mean);
        if let Some(freedom) = self.freedom.filter(|_| !frozen && self.scale > 0.0) {
            let factor = d_scale / (freedom * self.scale);
            gradient.iter_mut().zip(centered()).for_each(|(g, c)| *g += factor * c);
        }
    }

    /// The derivative of `c / q` along `dx`, which it overwrites.
    pub fn jvp(&self, x: &[f32], dx: &mut [f32], frozen: bool) {
        let mean = if self.centres { (sum_in_double(dx) / x.len() as f64) as f32 } else { 0.0 };
        let centered: Vec<f32> = x.iter().map(|x| x - self.mean).collect();
        let d_scale = match self.freedom {
            Some(freedom) if !frozen && self.scale > 0.0 => dot(&centered, dx) / (freedom * self.scale),
            _ => 0.0,
        };
        let factor = d_scale / (self.divisor * self.divisor);
        dx.iter_mut().zip(&centered).for_each(|(dx, c)| *dx = (*dx - mean) / self.divisor - factor * c);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: [f32; 5] = [0.3, -1.2, 2.0, 0.7, -0.1];

    /// OpenAI's and SAELens' layer norm divides by the unbiased deviation; torch's own would be off by
    /// `sqrt((n - 1) / n)`, 0.065 % at 768 channels.
    #[test]
    fn the_deviation_is_unbiased_and_epsilon_stands_outside_the_root() {
        let n: usize = 768;
        let row: Vec<f32> = (0..n).map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0).collect();
        let mean = row.iter().map(|x| f64::from(*x)).sum::<f64>() / n as f64;
        let squares: f64 = row.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum();
        let (unbiased, biased) = ((squares / (n - 1) as f64).sqrt(), (squares / n as f64).sqrt());
        let frame = Normalization::LayerNorm { epsilon: 0.25 }.frame(&row);
        let off = |expected: f64| (f64::from(frame.scale) / expected - 1.0).abs();
        assert!(off(unbiased) < 1e-6 && (6.4e-4..6.6e-4).contains(&off(biased)), "{} {}", off(unbiased), off(biased));
        let mut normalized = row.clone();
        frame.normalize(&mut normalized);
        let expected = (f64::from(row[3]) - mean) / (unbiased + 0.25);
        assert!((f64::from(normalized[3]) / expected - 1.0).abs() < 1e-5);
        frame.undo(&mut normalized);
        let expected = expected * unbiased + mean;
        assert!((f64::from(normalized[3]) / expected - 1.0).abs() < 1e-5);
    }

    #[test]
    fn gradients_and_derivatives_are_those_of_finite_differences() {
        let all = [
            Normalization::None,
            Normalization::Centered,
            Normalization::LayerNorm { epsilon: 0.1 },
            Normalization::ConstantNorm,
        ];
        let (weights, direction) = ([0.5, -0.3, 0.2, 0.9, -1.1], [0.2, 0.4, -0.6, 0.1, 0.3]);
        // weights · normalized + 0.7 scale + 0.4 mean
        let value = |normalization: Normalization, row: &[f32]| {
            let frame = normalization.frame(row);
            let mut normalized = row.to_vec();
            frame.normalize(&mut normalized);
            dot(&weights, &normalized) + 0.7 * frame.scale + 0.4 * frame.mean
        };
        for normalization in all {
            let frame = normalization.frame(&ROW);
            let mut gradient = weights.to_vec();
            frame.vjp(&ROW, &mut gradient, 0.7, 0.4, false);
            let at = |step: f32| -> Vec<f32> { ROW.iter().zip(direction).map(|(x, d)| x + step * d).collect() };
            let difference = (value(normalization, &at(5e-3)) - value(normalization, &at(-5e-3))) / 1e-2;
            let along = dot(&gradient, &direction);
            assert!((along - difference).abs() < 1e-3, "{normalization:?}: {along} {difference}");
            let mut derivative = direction.to_vec();
            frame.jvp(&ROW, &mut derivative, false);
            let mut gradient = weights.to_vec();
            frame.vjp(&ROW, &mut gradient, 0.0, 0.0, false);
            assert!((dot(&derivative, &weights) - dot(&gradient, &direction)).abs() < 1e-5, "{normalization:?}");
        }
    }
}
