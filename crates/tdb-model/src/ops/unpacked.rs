//! Products `a b` of some rows `a` with a large matrix `b` that is read as it lies in memory.
//!
//! A general matrix kernel first copies both sides into an order of its own; with 16 tokens that copying costs
//! as much as the product, and with 256 it still shows. Here tiles of 4 rows and some columns stay in registers while the inner dimension
//! runs along `b` as it is: by dot products where a column of `b` is contiguous, by multiples of its rows where
//! a row is. Every number of the result is summed in an order that depends on the inner dimension alone, so
//! that neither the number of rows nor that of threads changes a bit of it.
//!
//! `unsafe` because vector instructions need raw pointers and a processor that has them: [`Product::new`]
//! checks both.

#![allow(unsafe_code, reason = "vector instructions, behind a check that the processor has them")]

use std::arch::x86_64::{
    __m256, __m512, _mm_add_ps, _mm_add_ss, _mm_cvtss_f32, _mm_movehl_ps, _mm_shuffle_ps, _mm256_add_ps,
    _mm256_castps256_ps128, _mm256_extractf128_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_ps,
    _mm256_storeu_ps, _mm512_castps512_ps256, _mm512_extractf32x8_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_storeu_ps,
};
use std::mem::MaybeUninit;
use std::ops::Range;

use rayon::prelude::*;

use super::products::View;

/// Rows of `a` in one tile.
const ROWS: usize = 4;

/// Vectors in the largest tile, and numbers in the largest vector.
const MAX_TILE: usize = ROWS * 6;
const MAX_LANES: usize = 16;

/// A product that the processor can do in this way; made only if all its accesses lie inside the slices.
#[derive(Clone, Copy)]
pub(super) struct Product {
    out: *mut f32,
    out_stride: usize,
    a: *const f32,
    a_strides: [usize; 2],
    b: *const f32,
    /// Between columns if those are contiguous, else between rows.
    b_stride: usize,
    columns_contiguous: bool,
    rows: usize,
    inner: usize,
    cols: usize,
    accumulate: bool,
    avx512: bool,
}

// SAFETY: threads write disjoint columns of `out`, and `a` and `b` are only read.
unsafe impl Send for Product {}
// SAFETY: as above.
unsafe impl Sync for Product {}

impl Product {
    /// `out (+)= a b`, or `None` if the layout or the processor does not fit. The caller has checked that the
    /// views lie inside their slices and that `out` holds `[a.rows, b.cols]` with these strides.
    pub fn new(out: &mut [f32], strides: [usize; 2], a: View<'_>, b: View<'_>, accumulate: bool) -> Option<Self> {
        let avx512 = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq");
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        if !(avx512 || avx2) {
            return None;
        }
        let rows_contiguous = b.col_stride == 1;
        let columns_contiguous = b.row_stride == 1 && a.col_stride == 1;
        if strides[1] != 1 || !(rows_contiguous || columns_contiguous) {
            return None;
        }
        Some(Product {
            out: out.as_mut_ptr(),
            out_stride: strides[0],
            a: a.data.as_ptr(),
            a_strides: [a.row_stride, a.col_stride],
            b: b.data.as_ptr(),
            b_stride: if rows_contiguous { b.row_stride } else { b.col_stride },
            columns_contiguous: !rows_contiguous,
            rows: a.rows,
            inner: a.cols,
            cols: b.cols,
            accumulate,
            avx512,
        })
    }

    pub fn run(self, all_threads: bool) {
        // A multiple of both kernels' widest tile, and a part of `b` that fits the second-level cache.
        let chunk = if self.columns_contiguous { 48 } else { 192 };
        if !all_threads {
            return self.columns(0..self.cols);
        }
        (0..self.cols.div_ceil(chunk)).into_par_iter().for_each(|i| {
            self.columns(i * chunk..((i + 1) * chunk).min(self.cols));
        });
    }

    fn columns(self, range: Range<usize>) {
        // SAFETY: `new` found the instructions that each of the two is compiled for.
        unsafe { if self.avx512 { self.columns_avx512(range) } else { self.columns_avx2(range) } }
    }

    #[target_feature(enable = "avx512f,avx512dq")]
    unsafe fn columns_avx512(self, range: Range<usize>) {
        // SAFETY: in the caller's care.
        unsafe { self.columns_with::<__m512, 6>(range) }
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn columns_avx2(self, range: Range<usize>) {
        // SAFETY: in the caller's care.
        unsafe { self.columns_with::<__m256, 3>(range) }
    }

    #[inline(always)]
    unsafe fn columns_with<V: Lanes, const N: usize>(self, range: Range<usize>) {
        // Blocks of the inner dimension keep what is used again in the second-level cache.
        let block = if self.columns_contiguous { 768 } else { 128 };
        let mut from = 0;
        loop {
            let inner = from..(from + block).min(self.inner);
            let add = self.accumulate || from > 0;
            // SAFETY: in the caller's care.
            unsafe {
                if self.columns_contiguous {
                    self.dots::<V, N>(range.clone(), inner, add);
                } else {
                    self.multiples::<V, N>(range.clone(), inner, add);
                }
            }
            from += block;
            if from >= self.inner {
                return;
            }
        }
    }

    /// Columns of `b` contiguous.
    #[inline(always)]
    unsafe fn dots<V: Lanes, const N: usize>(self, cols: Range<usize>, inner: Range<usize>, add: bool) {
        // Of many rows, some at a time, so that these stay in the cache while the columns pass.
        const BLOCK: usize = 64;
        for first in (0..self.rows).step_by(BLOCK) {
            let rows = first..(first + BLOCK).min(self.rows);
            let mut col = cols.start;
            // SAFETY: rows, columns and inner indices are those of the product.
            unsafe {
                while col + N <= cols.end {
                    self.dots_of_columns::<V, N>(rows.clone(), col, inner.clone(), add);
                    col += N;
                }
                while col < cols.end {
                    self.dots_of_columns::<V, 1>(rows.clone(), col, inner.clone(), add);
                    col += 1;
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn dots_of_columns<V: Lanes, const N: usize>(
        self,
        rows: Range<usize>,
        col: usize,
        inner: Range<usize>,
        add: bool,
    ) {
        let mut row = rows.start;
        // SAFETY: in the caller's care.
        unsafe {
            while row + ROWS <= rows.end {
                self.dot_tile::<V, ROWS, N>(row, col, inner.clone(), add);
                row += ROWS;
            }
            match rows.end - row {
                3 => self.dot_tile::<V, 3, N>(row, col, inner, add),
                2 => self.dot_tile::<V, 2, N>(row, col, inner, add),
                1 => self.dot_tile::<V, 1, N>(row, col, inner, add),
                _ => {}
            }
        }
    }

    #[inline(always)]
    unsafe fn dot_tile<V: Lanes, const M: usize, const N: usize>(
        self,
        row: usize,
        col: usize,
        inner: Range<usize>,
        add: bool,
    ) {
        // SAFETY: in the caller's care.
        unsafe {
            let a = self.a.add(row * self.a_strides[0] + inner.start);
            let b = self.b.add(col * self.b_stride + inner.start);
            let n_inner = inner.end - inner.start;
            let whole = n_inner / V::N * V::N;
            let mut sums = [[V::zero(); N]; M];
            let mut i = 0;
            while i < whole {
                let mut rows = [V::zero(); M];
                for m in 0..M {
                    rows[m] = V::load(a.add(m * self.a_strides[0] + i));
                }
                for n in 0..N {
                    let column = V::load(b.add(n * self.b_stride + i));
                    for m in 0..M {
                        sums[m][n] = sums[m][n].add_product(rows[m], column);
                    }
                }
                i += V::N;
            }
            // Put down here rather than used in place: the compiler keeps an array in registers only while all
            // of its indices are constants, and the loop below is too long to be unrolled.
            let mut put_down = MaybeUninit::<[f32; MAX_TILE * MAX_LANES]>::uninit();
            let put_down = put_down.as_mut_ptr().cast::<f32>();
            for m in 0..M {
                for n in 0..N {
                    sums[m][n].store(put_down.add((m * N + n) * MAX_LANES));
                }
            }
            for m in 0..M {
                for n in 0..N {
                    let mut sum = V::load(put_down.add((m * N + n) * MAX_LANES)).sum();
                    for i in whole..n_inner {
                        sum += *a.add(m * self.a_strides[0] + i) * *b.add(n * self.b_stride + i);
                    }
                    let out = self.out.add((row + m) * self.out_stride + col + n);
                    *out = if add { *out + sum } else { sum };
                }
            }
        }
    }

    /// Rows of `b` contiguous.
    #[inline(always)]
    unsafe fn multiples<V: Lanes, const N: usize>(self, cols: Range<usize>, inner: Range<usize>, add: bool) {
        let mut row = 0;
        while row < self.rows {
            let count = (self.rows - row).min(ROWS);
            let mut col = cols.start;
            // SAFETY: rows, columns and inner indices are those of the product.
            unsafe {
                while col + N * V::N <= cols.end {
                    self.multiples_of_rows::<V, N>(row, count, col, inner.clone(), add);
                    col += N * V::N;
                }
                while col + V::N <= cols.end {
                    self.multiples_of_rows::<V, 1>(row, count, col, inner.clone(), add);
                    col += V::N;
                }
                for row in row..row + count {
                    for col in col..cols.end {
                        self.one(row, col, inner.clone(), add);
                    }
                }
            }
            row += ROWS;
        }
    }

    #[inline(always)]
    unsafe fn multiples_of_rows<V: Lanes, const N: usize>(
        self,
        row: usize,
        count: usize,
        col: usize,
        inner: Range<usize>,
        add: bool,
    ) {
        // SAFETY: in the caller's care.
        unsafe {
            match count {
                4 => self.multiple_tile::<V, 4, N>(row, col, inner, add),
                3 => self.multiple_tile::<V, 3, N>(row, col, inner, add),
                2 => self.multiple_tile::<V, 2, N>(row, col, inner, add),
                _ => self.multiple_tile::<V, 1, N>(row, col, inner, add),
            }
        }
    }

    #[inline(always)]
    unsafe fn multiple_tile<V: Lanes, const M: usize, const N: usize>(
        self,
        row: usize,
        col: usize,
        inner: Range<usize>,
        add: bool,
    ) {
        // SAFETY: in the caller's care.
        unsafe {
            let a = self.a.add(row * self.a_strides[0] + inner.start * self.a_strides[1]);
            let b = self.b.add(inner.start * self.b_stride + col);
            let out = self.out.add(row * self.out_stride + col);
            let mut sums = [[V::zero(); N]; M];
            if add {
                for m in 0..M {
                    for n in 0..N {
                        sums[m][n] = V::load(out.add(m * self.out_stride + n * V::N));
                    }
                }
            }
            for i in 0..inner.end - inner.start {
                let mut columns = [V::zero(); N];
                for n in 0..N {
                    columns[n] = V::load(b.add(i * self.b_stride + n * V::N));
                }
                for m in 0..M {
                    let factor = V::splat(*a.add(m * self.a_strides[0] + i * self.a_strides[1]));
                    for n in 0..N {
                        sums[m][n] = sums[m][n].add_product(factor, columns[n]);
                    }
                }
            }
            for m in 0..M {
                for n in 0..N {
                    sums[m][n].store(out.add(m * self.out_stride + n * V::N));
                }
            }
        }
    }

    /// One number, where columns are left over that do not fill a vector.
    #[inline(always)]
    unsafe fn one(self, row: usize, col: usize, inner: Range<usize>, add: bool) {
        // SAFETY: in the caller's care.
        unsafe {
            let out = self.out.add(row * self.out_stride + col);
            let mut sum = if add { *out } else { 0.0 };
            for i in inner {
                let a = *self.a.add(row * self.a_strides[0] + i * self.a_strides[1]);
                sum = a.mul_add(*self.b.add(i * self.b_stride + col), sum);
            }
            *out = sum;
        }
    }
}

/// A vector of f32. Each function needs the instructions of its type; all are inlined into code compiled for them.
trait Lanes: Copy {
    const N: usize;
    unsafe fn zero() -> Self;
    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(at: *const f32) -> Self;
    unsafe fn store(self, at: *mut f32);
    /// `self + a b`, rounded once.
    unsafe fn add_product(self, a: Self, b: Self) -> Self;
    /// Halves added to halves.
    unsafe fn sum(self) -> f32;
}

impl Lanes for __m512 {
    const N: usize = 16;

    #[inline(always)]
    unsafe fn zero() -> Self {
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load(at: *const f32) -> Self {
        unsafe { _mm512_loadu_ps(at) }
    }

    #[inline(always)]
    unsafe fn store(self, at: *mut f32) {
        unsafe { _mm512_storeu_ps(at, self) }
    }

    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        unsafe { _mm512_fmadd_ps(a, b, self) }
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        unsafe { _mm256_add_ps(_mm512_castps512_ps256(self), _mm512_extractf32x8_ps::<1>(self)).sum() }
    }
}

impl Lanes for __m256 {
    const N: usize = 8;

    #[inline(always)]
    unsafe fn zero() -> Self {
        unsafe { _mm256_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        unsafe { _mm256_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load(at: *const f32) -> Self {
        unsafe { _mm256_loadu_ps(at) }
    }

    #[inline(always)]
    unsafe fn store(self, at: *mut f32) {
        unsafe { _mm256_storeu_ps(at, self) }
    }

    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        unsafe { _mm256_fmadd_ps(a, b, self) }
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        unsafe {
            let half = _mm_add_ps(_mm256_castps256_ps128(self), _mm256_extractf128_ps::<1>(self));
            let pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
            _mm_cvtss_f32(_mm_add_ss(pair, _mm_shuffle_ps::<1>(pair, pair)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(len: usize, seed: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 7919 + seed * 104_729) % 1009) as f32 / 504.5 - 1.0).collect()
    }

    /// Both instruction sets that the processor has.
    fn run(out: &mut [f32], stride: usize, a: View<'_>, b: View<'_>, accumulate: bool, avx512: bool) -> bool {
        let Some(product) = Product::new(out, [stride, 1], a, b, accumulate) else { return false };
        let has_avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        let fits = if avx512 { product.avx512 } else { has_avx2 };
        if fits {
            Product { avx512, ..product }.run(a.rows.is_multiple_of(2));
        }
        fits
    }

    #[test]
    fn every_shape_and_layout_gives_the_product() {
        let sizes =
            [(1, 1, 1), (1, 40, 7), (2, 17, 6), (3, 16, 100), (4, 64, 96), (5, 129, 50), (7, 900, 211), (70, 33, 13)];
        for (rows, inner, cols) in sizes {
            let (a, b) = (numbers(rows * inner, 1), numbers(cols * inner, 2));
            for (a_transposed, b_transposed) in [(false, false), (false, true), (true, false)] {
                let a = if a_transposed { View::new(&a, inner, rows).t() } else { View::new(&a, rows, inner) };
                let b = if b_transposed { View::new(&b, cols, inner).t() } else { View::new(&b, inner, cols) };
                let at = |v: &View<'_>, r: usize, c: usize| f64::from(v.data[r * v.row_stride + c * v.col_stride]);
                for (avx512, accumulate) in [(true, true), (true, false), (false, true), (false, false)] {
                    let stride = cols + 3;
                    let mut out = vec![0.5; rows * stride];
                    if !run(&mut out, stride, a, b, accumulate, avx512) {
                        continue;
                    }
                    for r in 0..rows {
                        for c in 0..cols {
                            let sum: f64 = (0..inner).map(|i| at(&a, r, i) * at(&b, i, c)).sum();
                            let want = if accumulate { sum + 0.5 } else { sum };
                            let found = f64::from(out[r * stride + c]);
                            assert!((found - want).abs() < 1e-4, "{rows} {inner} {cols}, {r} {c}: {found}, not {want}");
                        }
                        assert!(r + 1 == rows || out[r * stride + cols..][..3] == [0.5; 3], "wrote outside");
                    }
                }
            }
        }
    }

    #[test]
    fn a_row_has_the_same_bits_alone_and_among_others() {
        let (inner, cols) = (803, 117);
        let (a, b) = (numbers(9 * inner, 1), numbers(cols * inner, 2));
        for b in [View::new(&b, inner, cols), View::new(&b, cols, inner).t()] {
            let mut all = vec![0.0; 9 * cols];
            super::super::products::matmul_into(
                &mut all,
                [cols, 1],
                View::new(&a, 9, inner),
                b,
                false,
                super::super::products::Threads::All,
            );
            for row in 0..9 {
                let mut one = vec![0.0; cols];
                let a = View::new(&a[row * inner..], 1, inner);
                super::super::products::matmul_into(
                    &mut one,
                    [cols, 1],
                    a,
                    b,
                    false,
                    super::super::products::Threads::One,
                );
                assert!(one == all[row * cols..][..cols]);
            }
        }
    }
}
