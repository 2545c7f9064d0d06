//! Products of matrices that lie anywhere in memory: the one place that calls a matrix kernel.

#![allow(unsafe_code, reason = "the product's kernel takes pointers")]

use std::ops::Range;

use gemm::Parallelism;

use super::wide;
use crate::matrix::{Element, Matrix};

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

    /// A matrix over its own span ([`Matrix::span`]).
    pub fn of(matrix: &Matrix, span: &'a [f32]) -> Self {
        View {
            data: span,
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

/// `out = a b`, or `out += a b` if `accumulate`, with `out: [a.rows, b.cols]` of the given strides.
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
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    if let Some(product) = super::unpacked::Product::new(out, [out_row_stride, out_col_stride], a, b, accumulate) {
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
    let mut out = vec![0.0; a.rows * b.cols];
    matmul_into(&mut out, [b.cols, 1], a, b, false, threads);
    out
}

/// `start + a·b`, to the bit what a product of matrices adds to `start` for these two rows.
///
/// # Panics
/// If the lengths differ.
pub fn product(start: f32, a: &[f32], b: &[f32]) -> f32 {
    let mut out = [start];
    matmul_into(&mut out, [1, 1], View::new(a, 1, a.len()), View::new(b, 1, b.len()).t(), true, Threads::One);
    out[0]
}

/// `out = x Wᵀ`, or `out += x Wᵀ` if `accumulate`, with `out: [x.rows, W.rows]`, row-major.
pub fn times_transposed(out: &mut [f32], x: View<'_>, weight: &Matrix, accumulate: bool, threads: Threads) {
    let n = weight.rows();
    for_row_blocks(weight, |rows, block| {
        // The first row begins where the block's columns do.
        matmul_into(&mut out[rows.start..], [n, 1], x, block.t(), accumulate, threads);
    });
}

/// `out += x W`, with `out: [x.rows, W.cols]`, row-major.
pub fn add_times(out: &mut [f32], x: View<'_>, weight: &Matrix, threads: Threads) {
    for_row_blocks(weight, |rows, block| {
        let data = x.data.get(rows.start * x.col_stride..).unwrap_or_default();
        let columns = View { data, cols: rows.len(), ..x };
        matmul_into(out, [weight.cols(), 1], columns, block, true, threads);
    });
}

/// Calls `each` with ranges of rows, in order and together all, and their numbers: with all rows at once where they are
/// 32-bit floats, else with as many as stay in the processor's cache after they were converted.
fn for_row_blocks(weight: &Matrix, mut each: impl FnMut(Range<usize>, View<'_>)) {
    /// 2 MiB as 32-bit floats.
    const NUMBERS: usize = 1 << 19;
    let (rows, cols) = (weight.rows(), weight.cols());
    if weight.element() == Element::F32 {
        let span = weight.span();
        return each(0..rows, View::of(weight, &span));
    }
    let step = (NUMBERS / cols.max(1)).max(1).next_multiple_of(16);
    let mut numbers = vec![0.0; step.min(rows) * cols];
    for first in (0..rows).step_by(step) {
        let block = first..(first + step).min(rows);
        let numbers = &mut numbers[..block.len() * cols];
        weight.copy_rows(block.clone(), numbers);
        each(block.clone(), View::new(numbers, block.len(), cols));
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Matrices of 16-bit floats give what their numbers as 32-bit floats give, over several blocks and strides.
    #[test]
    fn halves_are_multiplied_as_what_they_mean() {
        let numbers = |n: usize| (0..n).map(|i| ((i * 37 % 101) as f32 - 50.0) / 32.0).collect::<Vec<f32>>();
        // The second has more rows than a block.
        for (rows, cols) in [(5, 7), (700, 1100), (1, 1), (3, 0)] {
            let whole = Matrix::from_vec(rows, cols, numbers(rows * cols));
            let parts =
                |m: &Matrix| [m.clone(), m.row_range(rows / 2..rows), m.col_range(cols / 3..cols), m.transpose()];
            for element in [Element::F16, Element::Bf16] {
                let halves = whole.stored_as(element);
                assert_eq!((halves.element(), halves.to_vec()), (element, whole.to_vec()));
                assert_eq!(halves.stored_as(Element::F32).to_vec(), whole.to_vec());
                for (halves, whole) in parts(&halves).iter().zip(parts(&whole)) {
                    assert_eq!((halves.span().to_vec(), halves.to_vec()), (whole.span().to_vec(), whole.to_vec()));
                    let (x, y) = (numbers(3 * whole.cols()), numbers(3 * whole.rows()));
                    let (x, y) = (View::new(&x, 3, whole.cols()), View::new(&y, 3, whole.rows()));
                    let forward = |weight: &Matrix| {
                        let mut out = vec![1.0; 3 * weight.rows()];
                        times_transposed(&mut out, x, weight, true, Threads::All);
                        out
                    };
                    let back = |weight: &Matrix| {
                        let mut out = vec![1.0; 3 * weight.cols()];
                        add_times(&mut out, y, weight, Threads::All);
                        out
                    };
                    let near = |a: Vec<f32>, b: Vec<f32>| a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-3);
                    assert!(near(forward(halves), forward(&whole)), "{rows} {cols} {element:?}");
                    assert!(near(back(halves), back(&whole)), "{rows} {cols} {element:?}");
                }
            }
        }
    }

    #[test]
    fn products_take_strides() {
        let a: Vec<f32> = (0..6).map(|i| i as f32).collect();
        let product = matmul(View::new(&a, 2, 3), View::new(&a, 2, 3).t(), Threads::One);
        assert_eq!(product, [5.0, 14.0, 14.0, 50.0]);
    }
}
