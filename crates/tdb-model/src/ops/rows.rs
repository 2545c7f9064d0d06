//! Loops over slices of numbers, with fixed orders of summation.

use super::wide;
use crate::parallel;

/// Numbers that are reduced side by side.
const LANES: usize = 32;

/// Σ aᵢ bᵢ with a fixed order of summation.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    wide(|| dot_inline(a, b))
}

/// [`dot`] for use within [`wide`].
#[inline(always)]
pub fn dot_inline(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a_chunks.zip(b_chunks) {
        for lane in 0..LANES {
            sums[lane] += x[lane] * y[lane];
        }
    }
    fold(sums, |a, b| a + b) + rest
}

/// Σ xᵢ with a fixed order of summation.
#[inline(always)]
pub fn sum(x: &[f32]) -> f32 {
    let mut sums = [0.0f32; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest: f32 = chunks.remainder().iter().sum();
    for x in chunks {
        for lane in 0..LANES {
            sums[lane] += x[lane];
        }
    }
    fold(sums, |a, b| a + b) + rest
}

/// Σ xᵢ in double precision, with a fixed order of summation: for many terms of either sign.
pub fn sum_in_double(x: &[f32]) -> f64 {
    const LANES: usize = 16;
    wide(|| {
        let mut sums = [0.0f64; LANES];
        let chunks = x.chunks_exact(LANES);
        let rest: f64 = chunks.remainder().iter().map(|x| f64::from(*x)).sum();
        for x in chunks {
            for lane in 0..LANES {
                sums[lane] += f64::from(x[lane]);
            }
        }
        sums.iter().sum::<f64>() + rest
    })
}

/// The largest number; not a number counts as none.
#[inline(always)]
pub fn max(x: &[f32]) -> f32 {
    extreme(x, f32::NEG_INFINITY, |a, b| if b > a { b } else { a })
}

/// The smallest number; not a number counts as none.
#[inline(always)]
pub fn min(x: &[f32]) -> f32 {
    extreme(x, f32::INFINITY, |a, b| if b < a { b } else { a })
}

#[inline(always)]
fn extreme(x: &[f32], none: f32, choose: impl Fn(f32, f32) -> f32) -> f32 {
    let mut best = [none; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder().iter().copied().fold(none, &choose);
    for x in chunks {
        for lane in 0..LANES {
            best[lane] = choose(best[lane], x[lane]);
        }
    }
    choose(fold(best, &choose), rest)
}

/// Halves with halves.
#[inline(always)]
fn fold(mut lanes: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] = f(lanes[lane], lanes[lane + width]);
        }
        width /= 2;
    }
    lanes[0]
}

/// `out += scale * x`
pub fn axpy(out: &mut [f32], scale: f32, x: &[f32]) {
    wide(|| out.iter_mut().zip(x).for_each(|(out, x)| *out += scale * x));
}

/// `x *= factor`, on all threads where there are many.
pub fn scale(x: &mut [f32], factor: f32) {
    for_each_row(x, 1 << 10, |_, x| x.iter_mut().for_each(|x| *x *= factor));
}

/// eˣ to about 2e-7 relative, without branches so that it vectorises. Inputs are clamped to ±87.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    const LN_2_HI: f32 = 0.693_359_4;
    const LN_2_LO: f32 = -2.121_944_4e-4;
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer
    let x = x.clamp(-87.0, 87.0);
    let rounded = x * LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = x - n * LN_2_HI - n * LN_2_LO;
    // Taylor polynomial on |r| <= ln 2 / 2.
    let p = 1.0 / 720.0 + r * (1.0 / 5040.0);
    let p = 1.0 / 120.0 + r * p;
    let p = 1.0 / 24.0 + r * p;
    let p = 1.0 / 6.0 + r * p;
    let p = 0.5 + r * p;
    let p = 1.0 + r * p;
    let p = 1.0 + r * p;
    // The integer stands in the low bits of `rounded`; shifted there, it is the exponent.
    p * f32::from_bits((rounded.to_bits() << 23).wrapping_add(127 << 23))
}

const SQRT_2_OVER_PI: f32 = 0.797_884_6;

/// GELU in its tanh form, `0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³)))` (Hendrycks and Gimpel 2016),
/// written as `x σ(2u)`.
#[inline(always)]
pub fn gelu(x: f32) -> f32 {
    let u = SQRT_2_OVER_PI * (x + 0.044_715 * x * x * x);
    x / (1.0 + exp(-2.0 * u))
}

/// The derivative of [`gelu`].
#[inline(always)]
pub fn gelu_derivative(x: f32) -> f32 {
    let u = SQRT_2_OVER_PI * (x + 0.044_715 * x * x * x);
    let du = SQRT_2_OVER_PI * (1.0 + 3.0 * 0.044_715 * x * x);
    let sigmoid = 1.0 / (1.0 + exp(-2.0 * u));
    sigmoid + x * sigmoid * (1.0 - sigmoid) * 2.0 * du
}

/// `f` of every number, on all threads where there are many.
pub fn map(x: &[f32], f: impl Fn(f32) -> f32 + Sync) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    zip_into(&mut out, x, |_, x| f(x));
    out
}

/// `out[i] = f(out[i], x[i])`, on all threads where there are many.
pub fn zip_into(out: &mut [f32], x: &[f32], f: impl Fn(f32, f32) -> f32 + Sync) {
    const CHUNK: usize = 1 << 14;
    let one = |i: usize, out: &mut [f32]| {
        wide(|| out.iter_mut().zip(&x[i * CHUNK..]).for_each(|(out, x)| *out = f(*out, *x)));
    };
    if out.len() <= CHUNK {
        one(0, out);
    } else {
        parallel::each_chunk(out, CHUNK, &one);
    }
}

/// `f(index, row)` for every row of `width` numbers (the last may be shorter), on all threads where there are many.
pub fn for_each_row(x: &mut [f32], width: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
    const FEW: usize = 1 << 14;
    let width = width.max(1);
    if x.len() <= FEW {
        return x.chunks_mut(width).enumerate().for_each(|(i, row)| wide(|| f(i, row)));
    }
    let rows = FEW.div_ceil(width);
    parallel::each_chunk(x, rows * width, &|part, x| {
        x.chunks_mut(width).enumerate().for_each(|(i, row)| wide(|| f(part * rows + i, row)));
    });
}

/// `out = exp(x - max x)`, with `-inf` giving 0; returns the sum.
#[inline(always)]
pub fn exp_of_row(out: &mut [f32], x: &[f32]) -> f32 {
    let max = max(x);
    for (out, x) in out.iter_mut().zip(x) {
        *out = if *x == f32::NEG_INFINITY { 0.0 } else { exp(*x - max) };
    }
    sum(out)
}

/// Softmax of `x`; `-inf` gives 0. At least one entry must be finite.
#[inline(always)]
pub fn softmax_into(out: &mut [f32], x: &[f32]) {
    let scale = 1.0 / exp_of_row(out, x);
    out.iter_mut().for_each(|x| *x *= scale);
}

/// [`softmax_into`] in place.
pub fn softmax(row: &mut [f32]) {
    let x = row.to_vec();
    wide(|| softmax_into(row, &x));
}

/// `out = row - mean(row)`
#[inline(always)]
pub fn center_into(out: &mut [f32], row: &[f32]) {
    let mean = sum(row) / row.len() as f32;
    out.iter_mut().zip(row).for_each(|(out, x)| *out = x - mean);
}

/// Subtracts the mean.
#[inline(always)]
pub fn center(row: &mut [f32]) {
    let mean = sum(row) / row.len() as f32;
    row.iter_mut().for_each(|x| *x -= mean);
}

/// `sqrt(mean(x²) + ε)`
pub fn root_mean_square(row: &[f32], epsilon: f32) -> f32 {
    (dot(row, row) / row.len() as f32 + epsilon).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_to_the_true_one() {
        for i in -8_600..8_600 {
            let x = i as f32 / 100.0;
            let want = f64::from(x).exp();
            assert!((f64::from(exp(x)) / want - 1.0).abs() < 4e-7, "{x}");
        }
    }

    #[test]
    fn gelu_has_its_derivative() {
        for i in -600..600 {
            let x = i as f32 / 100.0;
            let want = {
                let x = f64::from(x);
                0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
            };
            assert!((f64::from(gelu(x)) - want).abs() < 1e-6);
            let slope = (gelu(x + 0.01) - gelu(x - 0.01)) / 0.02;
            assert!((slope - gelu_derivative(x)).abs() < 1e-3, "{x}: {slope}");
        }
    }
}
