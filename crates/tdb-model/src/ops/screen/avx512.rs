//! [`Screen`] with AVX-512 and its products of 8-bit numbers.
//!
//! `unsafe` because vector instructions need a processor that has them: a [`Screen`] is made only after a check.

#![allow(unsafe_code, reason = "vector instructions, behind a check that the processor has them")]

use std::arch::x86_64::{
    __m512, __m512i, _CMP_NGT_UQ, _CMP_NLT_UQ, _MM_HINT_T0, _mm_prefetch, _mm_storeu_si128, _mm512_abs_ps,
    _mm512_add_epi32, _mm512_add_ps, _mm512_cmp_ps_mask, _mm512_cvtepi32_epi8, _mm512_cvtepi32_ps, _mm512_cvtps_epi32,
    _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_fnmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_mask_cvtepi32_storeu_epi8, _mm512_maskz_loadu_ps, _mm512_max_ps, _mm512_mul_ps, _mm512_reduce_add_epi32,
    _mm512_reduce_add_ps, _mm512_reduce_max_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_setzero_si512, _mm512_storeu_ps, _mm512_storeu_si512, _mm512_sub_epi32, _mm512_sub_ps,
};

use super::Wanted;

/// Rows whose products are computed side by side: 32-bit numbers in a vector.
const LANES: usize = 16;

/// Vectors of such rows, and rows of the other side, that one tile takes.
const VECTORS: usize = 4;
const TILE: usize = 4;

/// Numbers of 8 bits that are multiplied and added in one step.
const STEP: usize = 4;

/// Added to numbers of 8 bits, as one side of a product has to be without signs.
const OFFSET: i32 = 128;

/// A row with more numbers could overflow: `255 · 127 · inner < 2³¹`.
const MOST_INNER: usize = 1 << 16;

/// Rows that are multiplied with many others: tokens of an activation, directions of units.
pub struct Screen {
    inner: usize,
    /// Vectors that hold a number of each row.
    vectors: usize,
    /// `[inner / STEP, vectors, LANES, STEP]`
    bytes: Vec<u8>,
    scales: Vec<f32>,
    /// Of every row, from above.
    lengths: Vec<f32>,
    /// Of every row minus what it was rounded to, from above.
    errors: Vec<f32>,
}

/// A row that was rounded.
#[derive(Clone, Copy, Default)]
struct Rounded {
    scale: f32,
    length: f32,
    error: f32,
    /// Of the whole numbers.
    sum: i32,
}

impl Screen {
    /// For rows of `inner` numbers; `None` where the processor has no products of 8-bit numbers in wide vectors.
    pub fn new(x: &[f32], inner: usize) -> Option<Self> {
        if !is_available() || inner == 0 || inner > MOST_INNER || !x.len().is_multiple_of(inner) {
            return None;
        }
        let rows = x.len() / inner;
        let (vectors, steps) = (rows.div_ceil(LANES), inner.div_ceil(STEP));
        let mut screen = Screen {
            inner,
            vectors,
            bytes: vec![OFFSET as u8; steps * vectors * LANES * STEP],
            scales: vec![0.0; vectors * LANES],
            lengths: vec![0.0; vectors * LANES],
            errors: vec![0.0; vectors * LANES],
        };
        let mut rounded = vec![0i8; steps * STEP];
        for (row, x) in x.chunks_exact(inner).enumerate() {
            let Rounded { scale, length, error, .. } = round(x, &mut rounded);
            (screen.scales[row], screen.lengths[row], screen.errors[row]) = (scale, length, error);
            for (step, numbers) in rounded.chunks_exact(STEP).enumerate() {
                let at = ((step * vectors + row / LANES) * LANES + row % LANES) * STEP;
                for (byte, number) in screen.bytes[at..at + STEP].iter_mut().zip(numbers) {
                    *byte = (i32::from(*number) + OFFSET) as u8;
                }
            }
        }
        Some(screen)
    }

    /// Asks `wanted` of every row of `y: [n, inner]` what is wanted of its products with this screen's rows, and offers it
    /// those that may be. A bound of a row with numbers that are not finite, or too small for their squares, may be not a
    /// number; such a product is offered.
    pub fn offer(&self, y: &[f32], wanted: &mut impl Wanted) {
        let (width, padded) = (self.width(), self.inner.div_ceil(STEP) * STEP);
        let mut rounded = vec![0i8; TILE * padded];
        let mut products = vec![0i32; TILE * width];
        let mut open = Vec::with_capacity(width);
        for (tile, rows) in y.chunks(TILE * self.inner).enumerate() {
            let mut of_rows = [Rounded::default(); TILE];
            for (i, row) in rows.chunks_exact(self.inner).enumerate() {
                of_rows[i] = round(row, &mut rounded[i * padded..(i + 1) * padded]);
            }
            let next = y.get((tile + 1) * TILE * self.inner..).unwrap_or_default();
            self.multiply(&rounded, &mut products, &next[..next.len().min(TILE * self.inner)]);
            for (i, of_row) in of_rows.iter().take(rows.len() / self.inner).enumerate() {
                let row = tile * TILE + i;
                let [least, most] = wanted.limits(row);
                self.compare(of_row, &products[i * width..(i + 1) * width], [least, most], &mut open);
                open.iter().for_each(|(place, bounds)| wanted.offer(row, *place, *bounds));
            }
        }
    }

    /// Rows and those that fill the last vector: how many limits there have to be.
    pub fn width(&self) -> usize {
        self.vectors * LANES
    }

    /// The places of the products that the limits do not exclude, with their bounds.
    fn compare(
        &self,
        of_row: &Rounded,
        products: &[i32],
        [least, most]: [&[f32]; 2],
        open: &mut Vec<(usize, [f32; 2])>,
    ) {
        let n = self.width();
        assert!(products.len() == n && least.len() == n && most.len() == n, "limits to the end of a vector");
        open.clear();
        // SAFETY: the processor has the instructions, as there is a screen; the lengths were checked.
        unsafe { self.compare_with(of_row, products, [least, most], open) }
    }

    #[target_feature(enable = "avx512f,avx512dq")]
    unsafe fn compare_with(
        &self,
        of_row: &Rounded,
        products: &[i32],
        [least, most]: [&[f32]; 2],
        open: &mut Vec<(usize, [f32; 2])>,
    ) {
        // Sums of n products in single precision are off by at most n ε/2 |x| |y|, Higham 2002, section 3.1; the other terms
        // are for what is computed here.
        let rounding = (self.inner + 32) as f32 * f32::EPSILON * of_row.length;
        let (of_lengths, of_errors) = (of_row.error + rounding, of_row.length + of_row.error);
        let (of_lengths, of_errors) = (_mm512_set1_ps(of_lengths), _mm512_set1_ps(of_errors));
        let (offset, scale) = (_mm512_set1_epi32(OFFSET * of_row.sum), _mm512_set1_ps(of_row.scale));
        for first in (0..products.len()).step_by(LANES) {
            // SAFETY: all slices have as many numbers as there are products, a multiple of LANES.
            unsafe {
                let products = _mm512_loadu_si512(products.as_ptr().add(first).cast());
                let at = |numbers: &[f32]| _mm512_loadu_ps(numbers.as_ptr().add(first));
                let middle = _mm512_cvtepi32_ps(_mm512_sub_epi32(products, offset));
                let middle = _mm512_mul_ps(middle, _mm512_mul_ps(at(&self.scales), scale));
                let error = _mm512_mul_ps(of_errors, at(&self.errors));
                let error = _mm512_fmadd_ps(of_lengths, at(&self.lengths), error);
                let (lower, upper) = (_mm512_sub_ps(middle, error), _mm512_add_ps(middle, error));
                // Not below, not above: true also of what is not a number.
                let mut places = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(upper, at(least))
                    | _mm512_cmp_ps_mask::<_CMP_NGT_UQ>(lower, at(most));
                if places != 0 {
                    let (mut lowers, mut uppers) = ([0.0; LANES], [0.0; LANES]);
                    _mm512_storeu_ps(lowers.as_mut_ptr(), lower);
                    _mm512_storeu_ps(uppers.as_mut_ptr(), upper);
                    while places != 0 {
                        let place = places.trailing_zeros() as usize;
                        open.push((first + place, [lowers[place], uppers[place]]));
                        places &= places - 1;
                    }
                }
            }
        }
    }

    /// `[TILE, inner]` times all rows of the screen: `[TILE, rows]`, the offset not yet taken off. Meanwhile `next`, which
    /// is needed then, is brought from memory.
    fn multiply(&self, rounded: &[i8], products: &mut [i32], mut next: &[f32]) {
        let steps = self.inner.div_ceil(STEP);
        assert!(rounded.len() == TILE * steps * STEP && products.len() == TILE * self.vectors * LANES);
        assert!(self.bytes.len() == steps * self.vectors * LANES * STEP);
        let mut vector = 0;
        // SAFETY: the processor has the instructions, as there is a screen; all accesses are inside the slices, whose
        // lengths were checked above.
        unsafe {
            while vector + VECTORS <= self.vectors {
                self.tile::<VECTORS>(rounded, vector, products, next);
                (vector, next) = (vector + VECTORS, &[]);
            }
            match self.vectors - vector {
                3 => self.tile::<3>(rounded, vector, products, next),
                2 => self.tile::<2>(rounded, vector, products, next),
                1 => self.tile::<1>(rounded, vector, products, next),
                _ => {}
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    unsafe fn tile<const N: usize>(&self, rounded: &[i8], vector: usize, products: &mut [i32], next: &[f32]) {
        /// Numbers that are brought at a time.
        const LINE: usize = 16;
        const { assert!(TILE * STEP == LINE) }
        let steps = self.inner.div_ceil(STEP);
        let mut sums: [[__m512i; N]; TILE] = [[_mm512_setzero_si512(); N]; TILE];
        // SAFETY: in the caller's care.
        unsafe {
            let (mut bytes, between) = (self.bytes.as_ptr().add(vector * LANES * STEP), self.vectors * LANES * STEP);
            for step in 0..steps {
                let mut rows = [_mm512_setzero_si512(); N];
                for n in 0..N {
                    rows[n] = _mm512_loadu_si512(bytes.add(n * LANES * STEP).cast());
                }
                for m in 0..TILE {
                    let four = rounded.as_ptr().add((m * steps + step) * STEP).cast::<i32>().read_unaligned();
                    let four = _mm512_set1_epi32(four);
                    for n in 0..N {
                        sums[m][n] = _mm512_dpbusd_epi32(sums[m][n], rows[n], four);
                    }
                }
                bytes = bytes.add(between);
                // One line for each step: four numbers of each of four rows.
                _mm_prefetch::<_MM_HINT_T0>(next.as_ptr().wrapping_add((step * LINE).min(next.len())).cast());
            }
            for m in 0..TILE {
                for n in 0..N {
                    let at = (m * self.vectors + vector + n) * LANES;
                    _mm512_storeu_si512(products.as_mut_ptr().add(at).cast(), sums[m][n]);
                }
            }
        }
    }
}

fn is_available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vnni")
}

/// Rounds a row to `out`, of which what goes beyond the row stays as it is.
fn round(row: &[f32], out: &mut [i8]) -> Rounded {
    const LARGEST: f32 = 127.0;
    /// Squares of smaller numbers could be rounded to zero.
    const TINY: f32 = 1e-12;
    /// Above what sums of squares and their roots lose in single precision.
    const MARGIN: f32 = 1.0 + 1e-3;
    assert!(row.len() <= out.len());
    // SAFETY: the processor has the instructions, as this is called for screens only.
    let largest = unsafe { largest_size(row) };
    if !(TINY..f32::INFINITY).contains(&largest) {
        out[..row.len()].fill(0);
        let unknown = if row.iter().all(|x| *x == 0.0) { 0.0 } else { f32::INFINITY };
        return Rounded { scale: 0.0, length: unknown, error: unknown, sum: 0 };
    }
    let scale = largest / LARGEST;
    // SAFETY: as above, and `out` has room for the row.
    let (squares, errors, sum) = unsafe { round_with(row, [scale, LARGEST / largest], out) };
    let length = MARGIN * squares.sqrt();
    Rounded { scale, length, error: MARGIN * errors.sqrt() + f32::EPSILON * length, sum }
}

/// The largest size of a number.
#[target_feature(enable = "avx512f,avx512dq")]
fn largest_size(row: &[f32]) -> f32 {
    let mut largest = [_mm512_setzero_ps(); 4];
    for part in row.chunks(4 * LANES) {
        for (largest, numbers) in largest.iter_mut().zip(part.chunks(LANES)) {
            *largest = _mm512_max_ps(*largest, _mm512_abs_ps(load(numbers)));
        }
    }
    let [a, b, c, d] = largest;
    _mm512_reduce_max_ps(_mm512_max_ps(_mm512_max_ps(a, b), _mm512_max_ps(c, d)))
}

/// Up to 16 numbers, then zeros.
#[target_feature(enable = "avx512f,avx512dq")]
fn load(numbers: &[f32]) -> __m512 {
    // SAFETY: no more is read than the slice has.
    unsafe {
        match numbers.len() {
            LANES.. => _mm512_loadu_ps(numbers.as_ptr()),
            n => _mm512_maskz_loadu_ps((1 << n) - 1, numbers.as_ptr()),
        }
    }
}

/// Rounds to whole multiples of a scale, given with its inverse. Returns the sums of the squares, of the squares of the
/// errors, and of the whole numbers.
///
/// # Safety
/// `out` is at least as long as `row`.
#[target_feature(enable = "avx512f,avx512dq")]
unsafe fn round_with(row: &[f32], [scale, inverse]: [f32; 2], out: &mut [i8]) -> (f32, f32, i32) {
    let (scale, inverse) = (_mm512_set1_ps(scale), _mm512_set1_ps(inverse));
    let (mut squares, mut errors) = ([_mm512_setzero_ps(); 2], [_mm512_setzero_ps(); 2]);
    let mut sums = _mm512_setzero_si512();
    for (i, numbers) in row.chunks(LANES).enumerate() {
        let x = load(numbers);
        let whole = _mm512_cvtps_epi32(_mm512_mul_ps(x, inverse));
        let error = _mm512_fnmadd_ps(scale, _mm512_cvtepi32_ps(whole), x);
        squares[i % 2] = _mm512_fmadd_ps(x, x, squares[i % 2]);
        errors[i % 2] = _mm512_fmadd_ps(error, error, errors[i % 2]);
        sums = _mm512_add_epi32(sums, whole);
        // SAFETY: in the caller's care.
        unsafe {
            let to = out.as_mut_ptr().add(i * LANES);
            match numbers.len() {
                LANES.. => _mm_storeu_si128(to.cast(), _mm512_cvtepi32_epi8(whole)),
                n => _mm512_mask_cvtepi32_storeu_epi8(to, (1 << n) - 1, whole),
            }
        }
    }
    let total = |[a, b]: [__m512; 2]| _mm512_reduce_add_ps(_mm512_add_ps(a, b));
    (total(squares), total(errors), _mm512_reduce_add_epi32(sums))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pseudo-random numbers, some far larger than the others.
    fn numbers(len: usize, mut state: u32) -> Vec<f32> {
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..len).map(|_| next() * if next() > 0.98 { 30.0 } else { 1.0 }).collect()
    }

    #[test]
    fn products_are_within_their_bounds() {
        for (rows, others, inner) in [(1, 1, 1), (3, 9, 5), (16, 4, 64), (40, 13, 129), (70, 6, 768), (129, 3, 1000)] {
            for scale in [1.0, 1e-9, 3e7] {
                let x: Vec<f32> = numbers(rows * inner, 7).into_iter().map(|x| x * scale).collect();
                let y = numbers(others * inner, 23);
                let Some(screen) = Screen::new(&x, inner) else { return assert!(!is_available()) };
                let mut all = All::new(&screen);
                screen.offer(&y, &mut all);
                assert_eq!(all.found.len(), screen.width() * others);
                for (i, r, [lower, upper]) in all.found.into_iter().filter(|(_, r, _)| *r < rows) {
                    let (x, y) = (&x[r * inner..(r + 1) * inner], &y[i * inner..(i + 1) * inner]);
                    let length = |x: &[f32]| x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
                    let exact: f64 = x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
                    let (lower, upper) = (f64::from(lower), f64::from(upper));
                    assert!(lower <= exact && exact <= upper, "{rows} {inner}: {exact} in {lower} to {upper}");
                    // And the bounds say something.
                    assert!(upper - lower < 0.4 * length(x) * length(y), "{rows} {inner}: {lower} to {upper}");
                }
            }
        }
    }

    #[test]
    fn what_has_no_bound_is_not_excluded() {
        let inner = 8;
        let x = [[1.0; 8], [0.0; 8], [f32::NAN; 8], [1e-20; 8], [f32::INFINITY; 8], [f32::MAX; 8]].concat();
        let Some(screen) = Screen::new(&x, inner) else { return assert!(!is_available()) };
        let mut all = All::new(&screen);
        screen.offer(&x, &mut all);
        for (i, r, [lower, upper]) in all.found.into_iter().filter(|(_, r, _)| *r < x.len() / inner) {
            match (i.min(r), i.max(r)) {
                (0, 0) => assert!((7.9..8.0).contains(&lower) && (8.0..8.1).contains(&upper), "{lower} {upper}"),
                (0 | 1, 1) => assert_eq!((lower, upper), (0.0, 0.0)),
                _ => assert!(!upper.lt(&f32::MAX) && !lower.gt(&-1e30), "{i} {r}: {lower} {upper}"),
            }
        }
    }

    #[test]
    fn what_limits_exclude_is_not_offered() {
        struct Above(Vec<f32>, Vec<f32>, Vec<usize>);
        impl Wanted for Above {
            fn limits(&mut self, row: usize) -> [&[f32]; 2] {
                self.0.fill(row as f32);
                [&self.0, &self.1]
            }

            fn offer(&mut self, row: usize, place: usize, _: [f32; 2]) {
                self.2.push(100 * row + place);
            }
        }
        // Products are 0, 4, 8, ...
        let (x, y) = ((0..20).flat_map(|i| [i as f32; 4]).collect::<Vec<_>>(), vec![1.0; 6 * 4]);
        let Some(screen) = Screen::new(&x, 4) else { return assert!(!is_available()) };
        let mut above = Above(vec![0.0; 32], vec![f32::NEG_INFINITY; 32], Vec::new());
        screen.offer(&y, &mut above);
        let expected = (0..6).flat_map(|row: usize| (row.div_ceil(4)..20).map(move |place| 100 * row + place));
        above.2.retain(|found| found % 100 < 20);
        assert_eq!(above.2, expected.collect::<Vec<_>>());
    }

    /// Wants everything.
    struct All {
        limits: [Vec<f32>; 2],
        found: Vec<(usize, usize, [f32; 2])>,
    }

    impl All {
        fn new(screen: &Screen) -> Self {
            let limits = [f32::NEG_INFINITY, f32::INFINITY].map(|limit| vec![limit; screen.width()]);
            All { limits, found: Vec::new() }
        }
    }

    impl Wanted for All {
        fn limits(&mut self, _: usize) -> [&[f32]; 2] {
            [&self.limits[0], &self.limits[1]]
        }

        fn offer(&mut self, row: usize, place: usize, bounds: [f32; 2]) {
            self.found.push((row, place, bounds));
        }
    }
}
