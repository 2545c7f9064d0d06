//! Products `a b` of some rows `a` with a large matrix `b` that is read as it lies in memory.
//!
//! A general matrix kernel first copies both sides into an order of its own; with 16 tokens that copying costs
//! as much as the product, and with 256 it still shows. Here tiles of 4 rows and some columns stay in registers while
//! the inner dimension runs along `b` as it is: by dot products where a column of `b` is contiguous, by multiples of its
//! rows where a row is. Where narrow vectors read too little of a row at a time, a part of `b` that fits the cache is
//! copied first, which [`packs`] measures. Every number of the result is summed in an order that depends on the inner
//! dimension alone, so that neither the number of rows nor that of threads, nor the copying, changes a bit of it.
//!
//! `unsafe` because vector instructions need raw pointers and a processor that has them: [`Product::new`]
//! checks both.

#![allow(unsafe_code, reason = "vector instructions, behind a check that the processor has them")]

#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::float32x4_t;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m256, __m512};
use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::lanes::{Instructions, Lanes};
use super::products::View;
use crate::parallel;

/// Rows of `a` in one tile.
const ROWS: usize = 4;

/// Columns that one thread takes at a time where rows of `b` are contiguous: a multiple of each kernel's widest tile.
const CHUNK: usize = 192;

/// Rows of `b` taken at a time there: with the columns above, a part of `b` that fits the second-level cache.
const BLOCK: usize = 128;

/// Vectors in the largest tile, and numbers in the largest vector.
const MAX_TILE: usize = ROWS * 6;
const MAX_LANES: usize = 16;

/// Whether a product of so many rows is to copy parts of `b`, by a measurement of some milliseconds at the first product.
/// The processors differ: with rows of 12 KiB and vectors of 8 numbers it takes a third of the time with the copy.
fn packs(rows: usize) -> bool {
    /// Products from these numbers of rows on are measured.
    const FROM: [usize; 3] = [1, 4, 16];
    static PACKS: OnceLock<[bool; FROM.len()]> = OnceLock::new();
    let packs = PACKS.get_or_init(|| FROM.map(is_faster_packed));
    FROM.iter().zip(packs).rev().find(|(from, _)| rows >= **from).is_some_and(|(_, packs)| *packs)
}

/// Times a product with part of a weight that no cache of one core holds, on this thread.
fn is_faster_packed(rows: usize) -> bool {
    const INNER: usize = 512;
    const COLS: usize = 384;
    const STRIDE: usize = 3072;
    let (a, b) = (vec![0.5; rows * INNER], vec![0.5; INNER * STRIDE]);
    let mut out = vec![0.0; rows * COLS];
    let mut shortest = [Duration::MAX; 2];
    for round in 0..4 {
        for packs in [false, true] {
            // Other columns each time, so that none is in the cache yet.
            let part = &b[(2 * round + usize::from(packs)) * COLS..];
            let (a, b) = (View::new(&a, rows, INNER), View::strided(part, INNER, COLS, STRIDE, 1));
            let Some(product) = Product::not_packing(&mut out, [COLS, 1], a, b, false) else { return false };
            let start = Instant::now();
            Product { packs, ..product }.run(false);
            shortest[usize::from(packs)] = shortest[usize::from(packs)].min(start.elapsed());
        }
    }
    shortest[1] < shortest[0]
}

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
    /// Whether parts of `b` are copied before they are used, where its rows are contiguous. The same bits either way.
    packs: bool,
    instructions: Instructions,
}

// SAFETY: threads write disjoint columns of `out`, and `a` and `b` are only read.
unsafe impl Send for Product {}
// SAFETY: as above.
unsafe impl Sync for Product {}

impl Product {
    /// `out (+)= a b`, or `None` if the layout or the processor does not fit. The caller has checked that the
    /// views lie inside their slices and that `out` holds `[a.rows, b.cols]` with these strides.
    pub fn new(out: &mut [f32], strides: [usize; 2], a: View<'_>, b: View<'_>, accumulate: bool) -> Option<Self> {
        let product = Self::not_packing(out, strides, a, b, accumulate)?;
        Some(Product { packs: !product.columns_contiguous && packs(product.rows), ..product })
    }

    fn not_packing(out: &mut [f32], strides: [usize; 2], a: View<'_>, b: View<'_>, accumulate: bool) -> Option<Self> {
        let instructions = Instructions::best()?;
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
            packs: false,
            instructions,
        })
    }

    pub fn run(self, all_threads: bool) {
        let chunk = if self.columns_contiguous { 48 } else { CHUNK };
        let chunks = self.cols.div_ceil(chunk);
        let each = |i: usize| self.columns(i * chunk..((i + 1) * chunk).min(self.cols));
        if all_threads { parallel::each(chunks, &each) } else { (0..chunks).for_each(each) }
    }

    fn columns(self, range: Range<usize>) {
        // SAFETY: whoever has a value of `Instructions` found them in the processor.
        unsafe {
            match self.instructions {
                #[cfg(target_arch = "x86_64")]
                Instructions::Avx512 => self.columns_avx512(range),
                #[cfg(target_arch = "x86_64")]
                Instructions::Avx2 => self.columns_avx2(range),
                #[cfg(target_arch = "aarch64")]
                Instructions::Neon => self.columns_neon(range),
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512dq")]
    unsafe fn columns_avx512(self, range: Range<usize>) {
        // SAFETY: in the caller's care.
        unsafe { self.columns_with::<__m512, 6>(range) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn columns_avx2(self, range: Range<usize>) {
        // SAFETY: in the caller's care.
        unsafe { self.columns_with::<__m256, 3>(range) }
    }

    #[cfg(target_arch = "aarch64")]
    #[target_feature(enable = "neon")]
    unsafe fn columns_neon(self, range: Range<usize>) {
        // SAFETY: in the caller's care.
        unsafe { self.columns_with::<float32x4_t, 6>(range) }
    }

    #[inline(always)]
    unsafe fn columns_with<V: Lanes, const N: usize>(self, range: Range<usize>) {
        // Blocks of the inner dimension keep what is used again in the second-level cache.
        let block = if self.columns_contiguous { 768 } else { BLOCK };
        let mut from = 0;
        loop {
            let inner = from..(from + block).min(self.inner);
            let add = self.accumulate || from > 0;
            // What this thread most likely takes next: the next block, or the columns after these.
            let then = match inner.end < self.inner {
                true => self.place(inner.end, range.start),
                false => self.place(0, range.end),
            };
            // SAFETY: in the caller's care.
            unsafe {
                if self.columns_contiguous {
                    self.dots::<V, N>(range.clone(), inner, add, then);
                } else {
                    self.multiples::<V, N>(range.clone(), inner, add, then);
                }
            }
            from += block;
            if from >= self.inner {
                return;
            }
        }
    }

    /// Where a number of `b` is, or would be if `b` were larger.
    fn place(self, inner: usize, col: usize) -> *const f32 {
        let strides = if self.columns_contiguous { [1, self.b_stride] } else { [self.b_stride, 1] };
        self.b.wrapping_add(inner * strides[0] + col * strides[1])
    }

    /// Columns of `b` contiguous. `then` is what is read after it.
    #[inline(always)]
    unsafe fn dots<V: Lanes, const N: usize>(
        self,
        cols: Range<usize>,
        inner: Range<usize>,
        add: bool,
        then: *const f32,
    ) {
        // Of many rows, some at a time, so that these stay in the cache while the columns pass.
        const BLOCK: usize = 64;
        for first in (0..self.rows).step_by(BLOCK) {
            let rows = first..(first + BLOCK).min(self.rows);
            let mut col = cols.start;
            // SAFETY: rows, columns and inner indices are those of the product.
            unsafe {
                while col + N <= cols.end {
                    // Columns are brought from memory while those before them are used for the first time.
                    let next = match (first, col + N < cols.end) {
                        (0, true) => Some(self.place(inner.start, col + N)),
                        (0, false) => Some(then),
                        _ => None,
                    };
                    self.dots_of_columns::<V, N>(rows.clone(), col, inner.clone(), add, next);
                    col += N;
                }
                while col < cols.end {
                    self.dots_of_columns::<V, 1>(rows.clone(), col, inner.clone(), add, None);
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
        next: Option<*const f32>,
    ) {
        let mut row = rows.start;
        // SAFETY: in the caller's care.
        unsafe {
            if row + ROWS <= rows.end
                && let Some(next) = next
            {
                self.dot_tile::<V, ROWS, N, true>(row, col, inner.clone(), add, next);
                row += ROWS;
            }
            while row + ROWS <= rows.end {
                self.dot_tile::<V, ROWS, N, false>(row, col, inner.clone(), add, self.b);
                row += ROWS;
            }
            match rows.end - row {
                3 => self.dot_tile::<V, 3, N, false>(row, col, inner, add, self.b),
                2 => self.dot_tile::<V, 2, N, false>(row, col, inner, add, self.b),
                1 => self.dot_tile::<V, 1, N, false>(row, col, inner, add, self.b),
                _ => {}
            }
        }
    }

    #[inline(always)]
    unsafe fn dot_tile<V: Lanes, const M: usize, const N: usize, const AHEAD: bool>(
        self,
        row: usize,
        col: usize,
        inner: Range<usize>,
        add: bool,
        next: *const f32,
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
                    if AHEAD {
                        V::prefetch(next.wrapping_add(n * self.b_stride + i));
                    }
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

    /// Rows of `b` contiguous. `then` is what is read after it.
    #[inline(always)]
    unsafe fn multiples<V: Lanes, const N: usize>(
        self,
        cols: Range<usize>,
        inner: Range<usize>,
        add: bool,
        then: *const f32,
    ) {
        let mut col = cols.start;
        // SAFETY: rows, columns and inner indices are those of the product.
        unsafe {
            if self.packs {
                col = self.multiples_of_packed::<V, N>(cols.clone(), inner.clone(), add);
            }
            for row in (0..self.rows).step_by(ROWS) {
                let rows = row..(row + ROWS).min(self.rows);
                let mut col = col;
                while col + N * V::N <= cols.end {
                    let (b, after) = ((self.place(inner.start, col), self.b_stride), col + N * V::N);
                    if row == 0 && rows.len() == ROWS {
                        // Columns are brought from memory while those before them are used for the first time.
                        let next = if after < cols.end { self.place(inner.start, after) } else { then };
                        self.multiple_tile::<V, ROWS, N, true>(row, col, inner.clone(), b, add, next);
                    } else {
                        self.multiples_of_rows::<V, N>(rows.clone(), col, inner.clone(), b, add);
                    }
                    col = after;
                }
                while col + V::N <= cols.end {
                    let b = (self.place(inner.start, col), self.b_stride);
                    self.multiples_of_rows::<V, 1>(rows.clone(), col, inner.clone(), b, add);
                    col += V::N;
                }
                for row in rows {
                    for col in col..cols.end {
                        self.one(row, col, inner.clone(), add);
                    }
                }
            }
        }
    }

    /// As many columns as fill tiles, each tile's part of `b` copied so that it lies together. Returns the next column.
    #[inline(always)]
    unsafe fn multiples_of_packed<V: Lanes, const N: usize>(
        self,
        cols: Range<usize>,
        inner: Range<usize>,
        add: bool,
    ) -> usize {
        let width = N * V::N;
        let (tiles, n_inner) = ((cols.end - cols.start) / width, inner.end - inner.start);
        debug_assert!(tiles * width <= CHUNK && n_inner <= BLOCK);
        let mut packed = MaybeUninit::<[f32; CHUNK * BLOCK]>::uninit();
        let packed = packed.as_mut_ptr().cast::<f32>();
        // SAFETY: rows, columns and inner indices are those of the product; the copy has room for a chunk of a block.
        unsafe {
            for i in 0..n_inner {
                let from = self.b.add((inner.start + i) * self.b_stride + cols.start);
                for tile in 0..tiles {
                    for n in 0..N {
                        let at = tile * width + n * V::N;
                        V::load(from.add(at)).store(packed.add((tile * n_inner + i) * width + n * V::N));
                    }
                }
            }
            for tile in 0..tiles {
                let b = (packed.add(tile * n_inner * width).cast_const(), width);
                for row in (0..self.rows).step_by(ROWS) {
                    let rows = row..(row + ROWS).min(self.rows);
                    self.multiples_of_rows::<V, N>(rows, cols.start + tile * width, inner.clone(), b, add);
                }
            }
        }
        cols.start + tiles * width
    }

    #[inline(always)]
    unsafe fn multiples_of_rows<V: Lanes, const N: usize>(
        self,
        rows: Range<usize>,
        col: usize,
        inner: Range<usize>,
        b: (*const f32, usize),
        add: bool,
    ) {
        // SAFETY: in the caller's care.
        unsafe {
            match rows.end - rows.start {
                4 => self.multiple_tile::<V, 4, N, false>(rows.start, col, inner, b, add, self.b),
                3 => self.multiple_tile::<V, 3, N, false>(rows.start, col, inner, b, add, self.b),
                2 => self.multiple_tile::<V, 2, N, false>(rows.start, col, inner, b, add, self.b),
                _ => self.multiple_tile::<V, 1, N, false>(rows.start, col, inner, b, add, self.b),
            }
        }
    }

    #[inline(always)]
    unsafe fn multiple_tile<V: Lanes, const M: usize, const N: usize, const AHEAD: bool>(
        self,
        row: usize,
        col: usize,
        inner: Range<usize>,
        (b, b_stride): (*const f32, usize),
        add: bool,
        next: *const f32,
    ) {
        // SAFETY: in the caller's care.
        unsafe {
            let a = self.a.add(row * self.a_strides[0] + inner.start * self.a_strides[1]);
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
                    if AHEAD {
                        V::prefetch(next.wrapping_add(i * b_stride + n * V::N));
                    }
                    columns[n] = V::load(b.add(i * b_stride + n * V::N));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(len: usize, seed: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 7919 + seed * 104_729) % 1009) as f32 / 504.5 - 1.0).collect()
    }

    #[test]
    fn every_shape_and_layout_gives_the_product() {
        let all = Instructions::all();
        assert!(!all.is_empty(), "this processor has none of the vector instructions");
        let sizes =
            [(1, 1, 1), (1, 40, 7), (2, 17, 6), (3, 16, 100), (4, 64, 96), (5, 129, 50), (7, 900, 211), (70, 33, 13)];
        for (rows, inner, cols) in sizes {
            let (a, b) = (numbers(rows * inner, 1), numbers(cols * inner, 2));
            for (a_transposed, b_transposed) in [(false, false), (false, true), (true, false)] {
                let a = if a_transposed { View::new(&a, inner, rows).t() } else { View::new(&a, rows, inner) };
                let b = if b_transposed { View::new(&b, cols, inner).t() } else { View::new(&b, inner, cols) };
                let at = |v: &View<'_>, r: usize, c: usize| f64::from(v.data[r * v.row_stride + c * v.col_stride]);
                let each = [true, false].into_iter().flat_map(|accumulate| all.iter().map(move |i| (*i, accumulate)));
                for (instructions, accumulate) in each {
                    let stride = cols + 3;
                    let product = |packs: bool| {
                        let mut out = vec![0.5; rows * stride];
                        let product = Product::new(&mut out, [stride, 1], a, b, accumulate).unwrap();
                        Product { packs: packs && !product.columns_contiguous, instructions, ..product }
                            .run(rows.is_multiple_of(2));
                        out
                    };
                    let out = product(false);
                    assert!(out == product(true), "{rows} {inner} {cols}: copies of parts change bits");
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
