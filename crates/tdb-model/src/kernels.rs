//! Products and elementwise functions on plain slices: the one place that calls the matrix kernel.

#[cfg(target_arch = "x86_64")]
mod unpacked;
mod wide;

use std::ops::Range;

use gemm::Parallelism;
use rayon::prelude::*;

use crate::buffers;
use crate::matrix::Matrix;
use crate::weights::Linear;

pub use wide::wide;

/// A read-only strided matrix over a slice.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    pub data: &'a [f32],
    pub rows: usize,
    pub cols: usize,
    pub row_stride: usize,
    pub col_stride: usize,
}

impl<'a> View<'a> {
    /// Row-major `[rows, cols]`.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        View { data, rows, cols, row_stride: cols, col_stride: 1 }
    }

    pub fn strided(data: &'a [f32], rows: usize, cols: usize, row_stride: usize, col_stride: usize) -> Self {
        View { data, rows, cols, row_stride, col_stride }
    }

    pub fn of(matrix: &'a Matrix) -> Self {
        View {
            data: matrix.span(),
            rows: matrix.rows(),
            cols: matrix.cols(),
            row_stride: matrix.row_stride(),
            col_stride: matrix.col_stride(),
        }
    }

    pub fn t(self) -> Self {
        View { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }

    fn check(&self) {
        let last = |n: usize, stride: usize| n.saturating_sub(1) * stride;
        let needed = match self.rows == 0 || self.cols == 0 {
            true => 0,
            false => last(self.rows, self.row_stride) + last(self.cols, self.col_stride) + 1,
        };
        assert!(needed <= self.data.len(), "a view of {}x{} over {} numbers", self.rows, self.cols, self.data.len());
    }
}

/// Whether a product may use all threads of the current pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    One,
    All,
}

/// `out = keep * out + a b` with `out: [a.rows, b.cols]` of the given strides and `keep` 0 or 1.
///
/// # Panics
/// If the shapes do not fit or a view reaches outside its slice.
pub fn matmul_into(
    out: &mut [f32],
    [out_row_stride, out_col_stride]: [usize; 2],
    a: View<'_>,
    b: View<'_>,
    accumulate: bool,
    threads: Threads,
) {
    assert_eq!(a.cols, b.rows, "inner dimensions");
    a.check();
    b.check();
    if a.rows == 0 || b.cols == 0 {
        return;
    }
    View::strided(out, a.rows, b.cols, out_row_stride, out_col_stride).check();
    // Below this much work, handing it to another thread costs more than it saves.
    let all_threads = threads == Threads::All && a.rows * a.cols * b.cols > 48 * 48 * 256;
    #[cfg(target_arch = "x86_64")]
    if let Some(product) = unpacked::Product::new(out, [out_row_stride, out_col_stride], a, b, accumulate) {
        return product.run(all_threads);
    }
    let parallelism = if all_threads { Parallelism::Rayon(0) } else { Parallelism::None };
    // SAFETY: the three views were checked to lie inside their slices, `out` is exclusively borrowed.
    unsafe {
        gemm::gemm(
            a.rows,
            b.cols,
            a.cols,
            out.as_mut_ptr(),
            out_col_stride as isize,
            out_row_stride as isize,
            accumulate,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            1.0f32,
            1.0f32,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// `a b`, row-major.
pub fn matmul(a: View<'_>, b: View<'_>, threads: Threads) -> Vec<f32> {
    let mut out = buffers::zeros(a.rows * b.cols);
    matmul_into(&mut out, [b.cols, 1], a, b, false, threads);
    out
}

/// `x Wᵀ + b` for `x: [rows, in]`, `[rows, out]`.
pub fn linear(x: View<'_>, layer: &Linear) -> Vec<f32> {
    let n = layer.weight.rows();
    let mut out = buffers::empty(x.rows * n);
    for _ in 0..x.rows {
        out.extend_from_slice(&layer.bias);
    }
    matmul_into(&mut out, [n, 1], x, View::of(&layer.weight).t(), true, Threads::All);
    out
}

/// `dy W`: the gradient at the input of a linear layer, `[rows, in]`.
pub fn linear_backward(dy: View<'_>, layer: &Linear) -> Vec<f32> {
    let mut out = buffers::zeros(dy.rows * layer.weight.cols());
    add_linear_backward(&mut out, dy, layer);
    out
}

/// `out += dy W`. Rows of zeros before the first and after the last other one cost nothing: where the objective
/// stands at one token, most gradients of the last layer are such, and so are those of all later tokens.
pub fn add_linear_backward(out: &mut [f32], dy: View<'_>, layer: &Linear) {
    let n = layer.weight.cols();
    let rows = nonzero_rows(dy);
    let out = &mut out[rows.start * n..rows.end * n];
    let dy = View { data: &dy.data[rows.start * dy.row_stride..], rows: rows.len(), ..dy };
    matmul_into(out, [n, 1], dy, View::of(&layer.weight), true, Threads::All);
}

/// From the first row that is not all zeros to the last one.
pub fn nonzero_rows(x: View<'_>) -> Range<usize> {
    assert_eq!(x.col_stride, 1, "rows of {x:?} are not contiguous");
    let is_zero = |row: &usize| {
        let row = &x.data[row * x.row_stride..][..x.cols];
        wide(|| row.chunks(64).all(|part| part.iter().fold(true, |zero, x| zero & (*x == 0.0))))
    };
    let first = (0..x.rows).take_while(is_zero).count();
    let last = (first..x.rows).rev().take_while(is_zero).count();
    first..x.rows - last
}

/// Numbers that are reduced side by side.
const LANES: usize = 32;

/// Σ aᵢ bᵢ with a fixed order of summation.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    wide(|| dot_inline(a, b))
}

/// [`dot`] for use within [`wide`].
#[inline(always)]
fn dot_inline(a: &[f32], b: &[f32]) -> f32 {
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
    let mut out = buffers::zeros(x.len());
    zip_into(&mut out, x, |_, x| f(x));
    out
}

/// `out[i] = f(out[i], x[i])`, on all threads where there are many.
pub fn zip_into(out: &mut [f32], x: &[f32], f: impl Fn(f32, f32) -> f32 + Sync) {
    const CHUNK: usize = 1 << 14;
    let one = |(out, x): (&mut [f32], &[f32])| {
        wide(|| out.iter_mut().zip(x).for_each(|(out, x)| *out = f(*out, *x)));
    };
    if out.len() <= CHUNK {
        one((out, x));
    } else {
        out.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(one);
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
    x.par_chunks_mut(rows * width).enumerate().for_each(|(part, x)| {
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

    #[test]
    fn products_take_strides() {
        let a: Vec<f32> = (0..6).map(|i| i as f32).collect();
        let product = matmul(View::new(&a, 2, 3), View::new(&a, 2, 3).t(), Threads::One);
        assert_eq!(product, [5.0, 14.0, 14.0, 50.0]);
        assert_eq!(dot(&a, &a), 55.0);
    }
}
