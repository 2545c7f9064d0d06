//! Weight matrices that stay where they are: in a mapped file, in a buffer of ours or in a candle tensor.

#![allow(unsafe_code, reason = "numbers are read from mapped files")]

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use candle_core::{CpuStorage, DType, Device, StorageRef, Tensor};
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use half::{bf16, f16};
use memmap2::Mmap;

use crate::parallel;

/// How the numbers of a [`Matrix`] are written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// 32-bit floats.
    F32,
    /// 16-bit floats with 5 bits of exponent.
    F16,
    /// The upper half of 32-bit floats.
    Bf16,
}

impl Element {
    /// Bytes of a number.
    pub fn bytes(self) -> usize {
        if self == Element::F32 { 4 } else { 2 }
    }
}

/// Where the numbers of a [`Matrix`] live. A matrix's offset is in bytes from the start of it and divisible by the size
/// of a number.
#[derive(Clone)]
pub enum Storage {
    /// A mapped file.
    Mapped(Arc<Mmap>),
    /// A buffer of ours.
    Owned(Arc<Vec<f32>>),
    /// A buffer of 16-bit floats.
    Halves(Arc<Vec<u16>>),
    /// The whole storage of a tensor of f32 on the CPU, of whatever part the tensor itself is a view.
    Tensor(Tensor),
}

impl Storage {
    fn bytes(&self) -> usize {
        match self {
            Storage::Mapped(map) => map.len(),
            Storage::Owned(buffer) => buffer.len() * 4,
            Storage::Halves(buffer) => buffer.len() * 2,
            Storage::Tensor(tensor) => numbers_of(&tensor.storage_and_layout().0).len() * 4,
        }
    }

    /// `len` numbers from byte `offset` on, unless a lock has to be held for them. The range was checked when the
    /// matrix was made.
    fn slice(&self, offset: usize, len: usize) -> Option<&[f32]> {
        match self {
            Storage::Owned(buffer) => Some(&buffer[offset / 4..offset / 4 + len]),
            Storage::Mapped(map) => {
                let bytes = &map[offset..offset + len * 4];
                // SAFETY: every bit pattern is an f32, the range is inside the map, and matrices are
                // only made at offsets divisible by four (a map starts at a page).
                Some(unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast::<f32>(), len) })
            }
            Storage::Halves(_) | Storage::Tensor(_) => None,
        }
    }

    /// `len` 16-bit floats from byte `offset` on. The range was checked when the matrix was made.
    fn halves(&self, offset: usize, len: usize) -> &[u16] {
        match self {
            Storage::Halves(buffer) => &buffer[offset / 2..offset / 2 + len],
            Storage::Mapped(map) => {
                let bytes = &map[offset..offset + len * 2];
                // SAFETY: every bit pattern is a u16, the range is inside the map, and matrices are only made at
                // offsets divisible by the size of their numbers (a map starts at a page).
                unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast::<u16>(), len) }
            }
            Storage::Owned(_) | Storage::Tensor(_) => &[],
        }
    }

    fn span(&self, offset: usize, len: usize) -> Span<'_> {
        match (self.slice(offset, len), self) {
            (Some(numbers), _) => Span(Numbers::Borrowed(numbers)),
            (None, Storage::Tensor(tensor)) => {
                Span(Numbers::Locked(tensor.storage_and_layout().0, offset / 4..offset / 4 + len))
            }
            (None, _) => Span(Numbers::Borrowed(&[])),
        }
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Storage::Mapped(_) => "Mapped",
            Storage::Owned(_) => "Owned",
            Storage::Halves(_) => "Halves",
            Storage::Tensor(_) => "Tensor",
        };
        write!(f, "{kind}({} bytes)", self.bytes())
    }
}

/// 16-bit floats to as many 32-bit ones.
fn convert(element: Element, halves: &[u16], out: &mut [f32]) {
    match element {
        Element::F16 => halves.reinterpret_cast::<f16>().convert_to_f32_slice(out),
        _ => halves.reinterpret_cast::<bf16>().convert_to_f32_slice(out),
    }
}

/// The numbers of a tensor's storage; none unless it is f32 on the CPU, which [`Matrix::from_tensor`] sees to.
fn numbers_of(storage: &candle_core::Storage) -> &[f32] {
    match storage {
        candle_core::Storage::Cpu(CpuStorage::F32(numbers)) => numbers,
        _ => &[],
    }
}

/// Numbers of a [`Matrix`] as they lie. For a tensor's storage this holds its read lock, so nothing can write to the
/// tensor until it is dropped: make it, use it, drop it. May be shared between threads, not sent to another. 16-bit
/// floats are converted, all of them: what computes with large matrices takes them block by block.
pub struct Span<'a>(Numbers<'a>);

enum Numbers<'a> {
    Borrowed(&'a [f32]),
    Converted(Vec<f32>),
    Locked(StorageRef<'a>, Range<usize>),
}

impl Deref for Span<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &self.0 {
            Numbers::Borrowed(numbers) => numbers,
            Numbers::Converted(numbers) => numbers,
            Numbers::Locked(storage, range) => &numbers_of(storage)[range.clone()],
        }
    }
}

/// A view did not fit its storage.
#[derive(Debug, thiserror::Error)]
#[error(
    "{what} needs {need} bytes from byte {offset} on, but there are {have}, or the offset is not divisible by the size of a number"
)]
pub struct ViewError {
    what: &'static str,
    need: usize,
    offset: usize,
    have: usize,
}

/// A read-only matrix `[rows, cols]` with arbitrary strides over shared storage: transposing, taking a range of rows or
/// columns and cloning cost nothing. Its numbers are 32-bit floats for whoever reads them, however they are stored.
#[derive(Clone, Debug)]
pub struct Matrix {
    storage: Storage,
    element: Element,
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
        let storage = Storage::Owned(Arc::new(data));
        Matrix { storage, element: Element::F32, offset: 0, rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// A matrix at byte `offset` of `storage` with strides counted in numbers.
    ///
    /// # Errors
    /// If it would reach outside the storage, or the offset is not divisible by the size of a number.
    ///
    /// # Panics
    /// If the storage is a buffer of other numbers.
    pub fn new(
        storage: Storage,
        element: Element,
        offset: usize,
        [rows, cols]: [usize; 2],
        [row_stride, col_stride]: [usize; 2],
    ) -> Result<Self, ViewError> {
        let (have, size) = (storage.bytes(), element.bytes());
        match &storage {
            Storage::Owned(_) | Storage::Tensor(_) => assert_eq!(element, Element::F32),
            Storage::Halves(_) => assert_ne!(element, Element::F32),
            Storage::Mapped(_) => {}
        }
        let error = |need| ViewError { what: "a matrix", need, offset, have };
        let last = || {
            let row = rows.checked_sub(1)?.checked_mul(row_stride)?;
            let col = cols.checked_sub(1)?.checked_mul(col_stride)?;
            row.checked_add(col)?.checked_add(1)?.checked_mul(size)
        };
        let need = if rows == 0 || cols == 0 { 0 } else { last().ok_or_else(|| error(usize::MAX))? };
        if !offset.is_multiple_of(size) || offset.checked_add(need).is_none_or(|end| end > have) {
            return Err(error(need));
        }
        Ok(Matrix { storage, element, offset, rows, cols, row_stride, col_stride })
    }

    /// The numbers of a tensor `[rows, cols]`, without a copy if it holds f32 on the CPU. Whoever else holds the tensor
    /// can still write to it.
    ///
    /// # Errors
    /// If the tensor is not of two dimensions, or cannot be converted or brought here.
    pub fn from_tensor(tensor: &Tensor) -> candle_core::Result<Self> {
        let (rows, cols) = tensor.dims2()?;
        let tensor = tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        let layout = tensor.layout();
        let (offset, strides) = (4 * layout.start_offset(), [layout.stride()[0], layout.stride()[1]]);
        Matrix::new(Storage::Tensor(tensor), Element::F32, offset, [rows, cols], strides)
            .map_err(candle_core::Error::wrap)
    }

    /// The numbers as a tensor `[rows, cols]` of f32 on the CPU, with the matrix's order of storage where it has no
    /// gaps. Copies them, unless the matrix is a whole tensor or its transpose.
    ///
    /// # Errors
    /// None that is expected.
    pub fn to_tensor(&self) -> candle_core::Result<Tensor> {
        if let Storage::Tensor(tensor) = &self.storage {
            for tensor in [tensor.clone(), tensor.t()?] {
                if self.is_view(&tensor) {
                    return Ok(tensor);
                }
            }
        }
        if self.cols > 1 && self.row_stride == 1 && self.col_stride == self.rows {
            return Tensor::from_vec(self.span().to_vec(), (self.cols, self.rows), &Device::Cpu)?.t();
        }
        Tensor::from_vec(self.to_vec(), (self.rows, self.cols), &Device::Cpu)
    }

    /// Does this tensor, which shares the storage, have the same numbers at the same places?
    fn is_view(&self, tensor: &Tensor) -> bool {
        let layout = tensor.layout();
        layout.dims() == [self.rows, self.cols]
            && layout.stride() == [self.row_stride, self.col_stride]
            && 4 * layout.start_offset() == self.offset
    }

    /// How the numbers are stored.
    pub fn element(&self) -> Element {
        self.element
    }

    /// The same numbers stored in another way, rounded to the nearest where that has fewer bits. Copies them, unless
    /// they are stored so.
    pub fn stored_as(&self, element: Element) -> Self {
        if self.element == element {
            return self.clone();
        }
        // In the order of storage: whoever computes with it finds it as it was.
        if self.cols > 1 && self.row_stride == 1 && self.col_stride != 1 {
            return self.transpose().stored_as(element).transpose();
        }
        let mut numbers = vec![0.0; self.rows * self.cols];
        self.copy_rows(0..self.rows, &mut numbers);
        let (rows, cols) = (self.rows, self.cols);
        let halves: Vec<u16> = match element {
            Element::F32 => return Matrix::from_vec(rows, cols, numbers),
            Element::F16 => rounded(&numbers, |x| f16::from_f32(x).to_bits()),
            Element::Bf16 => rounded(&numbers, |x| bf16::from_f32(x).to_bits()),
        };
        let storage = Storage::Halves(Arc::new(halves));
        Matrix { storage, element, offset: 0, rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Numbers from one row to the next.
    pub fn row_stride(&self) -> usize {
        self.row_stride
    }

    /// Numbers from one column to the next.
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
        let offset = self.offset + self.element.bytes() * range.start * self.row_stride;
        Matrix { offset, rows: range.len(), ..self.clone() }
    }

    /// Some of the columns.
    ///
    /// # Panics
    /// If the range reaches outside the matrix.
    pub fn col_range(&self, range: Range<usize>) -> Self {
        self.transpose().row_range(range).transpose()
    }

    /// One row, if it is 32-bit floats that stand side by side and no lock has to be held for them (as for a tensor's
    /// storage).
    pub fn contiguous_row(&self, row: usize) -> Option<&[f32]> {
        assert!(row < self.rows);
        (self.element == Element::F32 && (self.col_stride == 1 || self.cols == 1))
            .then(|| self.storage.slice(self.offset + 4 * row * self.row_stride, self.cols))
            .flatten()
    }

    /// Some of the rows, if they are 32-bit floats one after the other without gaps and no lock has to be held for them.
    ///
    /// # Panics
    /// If the range reaches outside the matrix.
    pub fn contiguous_rows(&self, range: Range<usize>) -> Option<&[f32]> {
        assert!(range.start <= range.end && range.end <= self.rows);
        let dense = self.element == Element::F32 && self.col_stride == 1 && self.row_stride == self.cols;
        dense.then(|| self.storage.slice(self.offset + 4 * range.start * self.cols, range.len() * self.cols)).flatten()
    }

    /// One row, copied into `out` of length `cols`.
    pub fn copy_row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows && out.len() == self.cols);
        match self.element {
            Element::F32 => self.copy_row_of(&self.span(), row, out),
            _ => self.convert_row(row, out),
        }
    }

    /// Some of the rows one after the other, copied into `out` of length `range.len() * cols`, on all threads.
    ///
    /// # Panics
    /// If the range reaches outside the matrix, or `out` has another length.
    pub fn copy_rows(&self, range: Range<usize>, out: &mut [f32]) {
        assert!(range.end <= self.rows && out.len() == range.len() * self.cols);
        if self.cols == 0 {
            return;
        }
        match self.element {
            Element::F32 => {
                let span = self.span();
                let rows = range.zip(out.chunks_exact_mut(self.cols));
                rows.for_each(|(row, out)| self.copy_row_of(&span, row, out));
            }
            _ => {
                const ROWS: usize = 16;
                parallel::each_chunk(out, ROWS * self.cols, &|block, out| {
                    let rows = range.start + block * ROWS..;
                    rows.zip(out.chunks_exact_mut(self.cols)).for_each(|(row, out)| self.convert_row(row, out));
                });
            }
        }
    }

    /// One row of 16-bit floats.
    fn convert_row(&self, row: usize, out: &mut [f32]) {
        let offset = self.offset + 2 * row * self.row_stride;
        let halves = self.storage.halves(offset, (self.cols.max(1) - 1) * self.col_stride + 1);
        match self.col_stride {
            1 => convert(self.element, halves, out),
            stride => {
                let near: Vec<u16> = halves.iter().step_by(stride).copied().collect();
                convert(self.element, &near, out);
            }
        }
    }

    fn copy_row_of(&self, span: &[f32], row: usize, out: &mut [f32]) {
        let start = row * self.row_stride;
        if self.col_stride == 1 {
            out.copy_from_slice(&span[start..start + self.cols]);
        } else {
            out.iter_mut().enumerate().for_each(|(col, out)| *out = span[start + col * self.col_stride]);
        }
    }

    /// One row, owned.
    pub fn row(&self, row: usize) -> Vec<f32> {
        let mut out = vec![0.0; self.cols];
        self.copy_row(row, &mut out);
        out
    }

    /// All numbers between the first and the last of the view, in storage order.
    pub fn span(&self) -> Span<'_> {
        if self.rows == 0 || self.cols == 0 {
            return Span(Numbers::Borrowed(&[]));
        }
        if self.element != Element::F32 {
            let mut numbers = vec![0.0; self.span_len()];
            convert(self.element, self.storage.halves(self.offset, numbers.len()), &mut numbers);
            return Span(Numbers::Converted(numbers));
        }
        self.storage.span(self.offset, self.span_len())
    }

    /// From the first number to the last.
    fn span_len(&self) -> usize {
        (self.rows - 1) * self.row_stride + (self.cols - 1) * self.col_stride + 1
    }

    /// A row-major copy of all numbers.
    pub fn to_vec(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.rows * self.cols];
        self.copy_rows(0..self.rows, &mut out);
        out
    }

    /// The first number that is infinite or not a number, with its index in row-major order. Reads everything between
    /// the first and the last number, on all cores, as fast as memory gives it; only what looks bad is looked at row by
    /// row.
    pub fn first_not_finite(&self) -> Option<(usize, f32)> {
        const CHUNK: usize = 1 << 14;
        if self.rows == 0 || self.cols == 0 {
            return None;
        }
        let halves_are_bad = |exponent: u16| {
            let halves = self.storage.halves(self.offset, self.span_len());
            let has_bad = |chunk: &[u16]| chunk.iter().fold(false, |bad, x| bad | (x & exponent == exponent));
            parallel::any(halves.len().div_ceil(CHUNK), &|i| has_bad(piece(halves, i, CHUNK)))
        };
        let is_bad = match self.element {
            Element::F32 => {
                const EXPONENT: u32 = 0x7f80_0000;
                let is_bad = |x: &f32| x.to_bits() & EXPONENT == EXPONENT;
                let has_bad = |chunk: &[f32]| chunk.iter().fold(false, |bad, x| bad | is_bad(x));
                let span = self.span();
                parallel::any(span.len().div_ceil(CHUNK), &|i| has_bad(piece(&span, i, CHUNK)))
            }
            Element::F16 => halves_are_bad(0x7c00),
            Element::Bf16 => halves_are_bad(0x7f80),
        };
        if !is_bad {
            return None;
        }
        let mut numbers = vec![0.0; self.cols];
        (0..self.rows).find_map(|row| {
            self.copy_row(row, &mut numbers);
            let col = numbers.iter().position(|x| !x.is_finite())?;
            Some((row * self.cols + col, numbers[col]))
        })
    }
}

/// The `i`-th piece of `len` numbers; the last may be shorter.
fn piece<T>(numbers: &[T], i: usize, len: usize) -> &[T] {
    &numbers[i * len..((i + 1) * len).min(numbers.len())]
}

/// All numbers in 16 bits.
fn rounded(numbers: &[f32], round: impl Fn(f32) -> u16 + Sync) -> Vec<u16> {
    const CHUNK: usize = 1 << 14;
    let mut out = vec![0; numbers.len()];
    parallel::each_chunk(&mut out, CHUNK, &|i, out| {
        out.iter_mut().zip(&numbers[i * CHUNK..]).for_each(|(out, x)| *out = round(*x));
    });
    out
}
