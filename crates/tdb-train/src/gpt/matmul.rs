//! Matrix products on slices: the one place with `unsafe`, because the kernel takes pointers and strides.

/// A matrix that lies in a slice: `rows` by `cols`, neighbours in a row `col_stride` apart, in a column `row_stride`.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> View<'a> {
    /// Rows one after another.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// Rows that start `row_stride` apart.
    pub fn strided(data: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        check(data.len(), rows, cols, row_stride);
        Self { data, rows, cols, row_stride, col_stride: 1 }
    }

    /// The transpose.
    pub fn t(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            data: self.data,
        }
    }
}

/// Where a product goes: rows that start `row_stride` apart.
#[derive(Debug)]
pub struct Target<'a> {
    data: &'a mut [f32],
    row_stride: usize,
}

impl<'a> Target<'a> {
    pub fn new(data: &'a mut [f32], cols: usize) -> Self {
        Self { data, row_stride: cols }
    }

    pub fn strided(data: &'a mut [f32], row_stride: usize) -> Self {
        Self { data, row_stride }
    }
}

fn check(length: usize, rows: usize, cols: usize, row_stride: usize) {
    assert!(rows == 0 || cols == 0 || (rows - 1) * row_stride + cols <= length, "matrix exceeds its slice");
    assert!(cols <= row_stride || rows <= 1, "rows of a matrix overlap");
}

/// `target = keep * target + scale * a b`, where `keep` is 0 or 1.
pub fn product(target: Target<'_>, keep: bool, scale: f32, a: View<'_>, b: View<'_>) {
    let (m, n, k) = (a.rows, b.cols, a.cols);
    assert_eq!(k, b.rows, "inner dimensions differ");
    check(target.data.len(), m, n, target.row_stride);
    if m == 0 || n == 0 {
        return;
    }
    // SAFETY: the views and the target have been checked to lie within their slices with these strides, the target is
    // borrowed exclusively, so that it overlaps neither, and every f32 bit pattern is valid.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            target.data.as_mut_ptr(),
            1,
            target.row_stride as isize,
            keep,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            1.0f32,
            scale,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strides_and_accumulation() {
        let a: Vec<f32> = (0..12).map(|x| x as f32).collect(); // 3 x 4
        let b: Vec<f32> = (0..20).map(|x| (x * x % 7) as f32).collect(); // 4 x 5
        let mut c = [1.0f32; 3 * 8];
        product(Target::strided(&mut c[2..], 8), true, 2.0, View::new(&a, 3, 4), View::new(&b, 4, 5));
        for i in 0..3 {
            for j in 0..5 {
                let sum: f32 = (0..4).map(|l| a[i * 4 + l] * b[l * 5 + j]).sum();
                assert_eq!(c[2 + i * 8 + j], 1.0 + 2.0 * sum);
            }
        }
        assert_eq!(c[0], 1.0);
        let mut d = vec![f32::NAN; 9];
        product(Target::new(&mut d, 3), false, 1.0, View::new(&a, 3, 4), View::new(&a, 3, 4).t());
        assert_eq!(d[1], (0..4).map(|l| a[l] * a[4 + l]).sum::<f32>());
    }

    #[test]
    #[should_panic(expected = "matrix exceeds its slice")]
    fn a_matrix_lies_within_its_slice() {
        View::new(&[0.0; 5], 2, 3);
    }
}
