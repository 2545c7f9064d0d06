//! Weight matrices that stay where they are: in a mapped file or in a buffer of ours.

use std::ops::Range;
use std::sync::Arc;

use memmap2::Mmap;

/// Where the numbers of a [`Matrix`] live.
#[derive(Clone, Debug)]
pub enum Storage {
    /// A mapped file; the view's offset is in bytes from the start of the map and divisible by 4.
    Mapped(Arc<Mmap>),
    /// A buffer of ours; the view's offset is in bytes as well.
    Owned(Arc<Vec<f32>>),
}

impl Storage {
    fn bytes(&self) -> usize {
        match self {
            Storage::Mapped(map) => map.len(),
            Storage::Owned(buffer) => buffer.len() * 4,
        }
    }

    /// `len` numbers from byte `offset` on. The range was checked when the view was made.
    fn slice(&self, offset: usize, len: usize) -> &[f32] {
        match self {
            Storage::Owned(buffer) => &buffer[offset / 4..offset / 4 + len],
            Storage::Mapped(map) => {
                let bytes = &map[offset..offset + len * 4];
                // SAFETY: every bit pattern is an f32, the range is inside the map, and views are
                // only made at offsets divisible by four (a map starts at a page).
                unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast::<f32>(), len) }
            }
        }
    }
}

/// A view did not fit its storage.
#[derive(Debug, thiserror::Error)]
#[error("{what} needs {need} bytes from byte {offset} on, but there are {have}, or the offset is not divisible by 4")]
pub struct ViewError {
    what: &'static str,
    need: usize,
    offset: usize,
    have: usize,
}

/// A read-only f32 matrix `[rows, cols]` with arbitrary strides over shared storage: transposing,
/// taking a range of rows or columns and cloning cost nothing.
#[derive(Clone, Debug)]
pub struct Matrix {
    storage: Storage,
    offset: usize,
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl Matrix {
    /// A row-major matrix over a buffer of `rows * cols` numbers.
    ///
    /// # Panics
    /// If the buffer's length is not `rows * cols`.
    pub fn from_vec(rows: usize, cols: usize, data: Vec<f32>) -> Self {
        assert_eq!(data.len(), rows * cols, "a [{rows}, {cols}] matrix");
        Matrix { storage: Storage::Owned(Arc::new(data)), offset: 0, rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// A matrix at byte `offset` of `storage` with strides counted in numbers.
    ///
    /// # Errors
    /// If it would reach outside the storage, or the offset is not divisible by four.
    pub fn new(
        storage: Storage,
        offset: usize,
        [rows, cols]: [usize; 2],
        [row_stride, col_stride]: [usize; 2],
    ) -> Result<Self, ViewError> {
        let have = storage.bytes();
        let error = |need| ViewError { what: "a matrix", need, offset, have };
        let last = || {
            let row = rows.checked_sub(1)?.checked_mul(row_stride)?;
            let col = cols.checked_sub(1)?.checked_mul(col_stride)?;
            row.checked_add(col)?.checked_add(1)?.checked_mul(4)
        };
        let need = if rows == 0 || cols == 0 { 0 } else { last().ok_or_else(|| error(usize::MAX))? };
        if !offset.is_multiple_of(4) || offset.checked_add(need).is_none_or(|end| end > have) {
            return Err(error(need));
        }
        Ok(Matrix { storage, offset, rows, cols, row_stride, col_stride })
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn cols(&self) -> usize {
        self.cols
    }

    pub fn row_stride(&self) -> usize {
        self.row_stride
    }

    pub fn col_stride(&self) -> usize {
        self.col_stride
    }

    /// The same numbers as `[cols, rows]`.
    pub fn transpose(&self) -> Self {
        Matrix {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self.clone()
        }
    }

    /// Some of the rows.
    ///
    /// # Panics
    /// If the range reaches outside the matrix.
    pub fn row_range(&self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.rows);
        Matrix { offset: self.offset + 4 * range.start * self.row_stride, rows: range.len(), ..self.clone() }
    }

    /// Some of the columns.
    ///
    /// # Panics
    /// If the range reaches outside the matrix.
    pub fn col_range(&self, range: Range<usize>) -> Self {
        self.transpose().row_range(range).transpose()
    }

    /// One row, if its numbers stand side by side.
    pub fn contiguous_row(&self, row: usize) -> Option<&[f32]> {
        assert!(row < self.rows);
        (self.col_stride == 1 || self.cols == 1)
            .then(|| self.storage.slice(self.offset + 4 * row * self.row_stride, self.cols))
    }

    /// One row, copied into `out` of length `cols`.
    pub fn copy_row(&self, row: usize, out: &mut [f32]) {
        match self.contiguous_row(row) {
            Some(numbers) => out.copy_from_slice(numbers),
            None => {
                let all = self.span();
                for (col, out) in out.iter_mut().enumerate() {
                    *out = all[row * self.row_stride + col * self.col_stride];
                }
            }
        }
    }

    /// One row, owned.
    pub fn row(&self, row: usize) -> Vec<f32> {
        let mut out = vec![0.0; self.cols];
        self.copy_row(row, &mut out);
        out
    }

    /// All numbers between the first and the last of the view, in storage order.
    pub fn span(&self) -> &[f32] {
        if self.rows == 0 || self.cols == 0 {
            return &[];
        }
        let len = (self.rows - 1) * self.row_stride + (self.cols - 1) * self.col_stride + 1;
        self.storage.slice(self.offset, len)
    }

    /// A row-major copy of all numbers.
    pub fn to_vec(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.rows * self.cols];
        for (row, out) in out.chunks_exact_mut(self.cols.max(1)).enumerate() {
            self.copy_row(row, out);
        }
        out
    }
}
