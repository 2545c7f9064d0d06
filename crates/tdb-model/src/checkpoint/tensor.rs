//! A tensor in a file, before it becomes a weight.

use std::ops::Range;
use std::path::PathBuf;

use half::{bf16, f16};
use rayon::prelude::*;

use super::error::CheckpointError;
use super::source::Source;
use crate::matrix::{Matrix, Storage};

/// Number types that checkpoints hold. Only the floating ones become weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DType {
    F32,
    F16,
    BF16,
    F64,
    I64,
    I32,
    I16,
    I8,
    U8,
    Bool,
}

impl DType {
    pub fn bytes(self) -> usize {
        match self {
            DType::F64 | DType::I64 => 8,
            DType::F32 | DType::I32 => 4,
            DType::F16 | DType::BF16 | DType::I16 => 2,
            DType::I8 | DType::U8 | DType::Bool => 1,
        }
    }

    fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F16 | DType::BF16 | DType::F64)
    }
}

/// A strided view into a file, checked to lie inside it.
#[derive(Clone, Debug)]
pub(crate) struct Tensor {
    source: Source,
    /// Byte of the first element.
    start: usize,
    dtype: DType,
    shape: Vec<usize>,
    /// In elements.
    strides: Vec<usize>,
}

impl Tensor {
    /// A view of `source[storage]` from element `offset` on. The number of elements may not exceed what the
    /// storage holds, so that a copy of the tensor is never larger than a small multiple of the file.
    pub fn new(
        source: &Source,
        storage: Range<usize>,
        offset: usize,
        dtype: DType,
        shape: Vec<usize>,
        strides: Vec<usize>,
    ) -> Result<Self, String> {
        let fits = || {
            let held = storage.len() / dtype.bytes();
            let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
            if count == 0 {
                return (offset <= held).then_some(());
            }
            let last =
                shape.iter().zip(&strides).try_fold(offset, |n, (&d, &s)| n.checked_add((d - 1).checked_mul(s)?))?;
            (count <= held && last < held).then_some(())
        };
        if shape.len() != strides.len() || source.get(storage.clone()).is_none() || fits().is_none() {
            return Err(format!(
                "a tensor of shape {shape:?} with strides {strides:?} from element {offset} on, which does not fit its {} bytes",
                storage.len()
            ));
        }
        let start = storage.start + offset * dtype.bytes();
        Ok(Tensor { source: source.clone(), start, dtype, shape, strides })
    }

    /// A row-major tensor that fills `source[storage]`.
    pub fn contiguous(source: &Source, storage: Range<usize>, dtype: DType, shape: Vec<usize>) -> Result<Self, String> {
        let mut strides = vec![1usize; shape.len()];
        for i in (1..shape.len()).rev() {
            strides[i - 1] = strides[i].saturating_mul(shape[i]);
        }
        Tensor::new(source, storage, 0, dtype, shape, strides)
    }

    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// All numbers in row-major order. Only for floating types.
    fn to_f32(&self) -> Vec<f32> {
        let count = self.shape.iter().product();
        if count > 0 && self.is_row_major() {
            const CHUNK: usize = 1 << 14;
            let width = self.dtype.bytes();
            let bytes = &self.source[self.start..self.start + count * width];
            let mut out = vec![0.0; count];
            let chunks = out.par_chunks_mut(CHUNK).zip(bytes.par_chunks(CHUNK * width));
            chunks.for_each(|(out, bytes)| {
                for (out, bytes) in out.iter_mut().zip(bytes.chunks_exact(width)) {
                    *out = number(self.dtype, bytes);
                }
            });
            return out;
        }
        let mut out = Vec::with_capacity(count);
        self.gather(0, self.start, &mut out);
        out
    }

    fn is_row_major(&self) -> bool {
        let mut expected = 1;
        self.shape.iter().zip(&self.strides).rev().all(|(&size, &stride)| {
            let fits = size == 1 || stride == expected;
            expected *= size;
            fits
        })
    }

    fn gather(&self, dim: usize, start: usize, out: &mut Vec<f32>) {
        let width = self.dtype.bytes();
        if dim == self.shape.len() {
            out.push(number(self.dtype, &self.source[start..start + width]));
            return;
        }
        for i in 0..self.shape[dim] {
            self.gather(dim + 1, start + i * self.strides[dim] * width, out);
        }
    }
}

/// The number that these bytes are; only for floating types.
fn number(dtype: DType, bytes: &[u8]) -> f32 {
    match (dtype, bytes) {
        (DType::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
        (DType::F16, &[a, b]) => f16::from_le_bytes([a, b]).to_f32(),
        (DType::BF16, &[a, b]) => bf16::from_le_bytes([a, b]).to_f32(),
        (DType::F64, &[a, b, c, d, e, f, g, h]) => f64::from_le_bytes([a, b, c, d, e, f, g, h]) as f32,
        _ => f32::NAN,
    }
}

/// A tensor with the names that an error needs.
#[derive(Clone, Debug)]
pub(crate) struct NamedTensor {
    pub file: PathBuf,
    pub key: String,
    pub tensor: Tensor,
}

impl NamedTensor {
    fn expect_shape(&self, shape: &[usize]) -> Result<(), CheckpointError> {
        let tensor = &self.tensor;
        if tensor.shape != shape || !tensor.dtype.is_float() {
            let expected = format!("floating-point numbers of shape {shape:?}");
            let found = format!("{:?} of shape {:?}", tensor.dtype, tensor.shape);
            return Err(CheckpointError::unexpected(&self.file, &self.key, expected, found));
        }
        Ok(())
    }

    /// The tensor as a matrix, in place if it holds f32 at a fitting address of a mapped file.
    ///
    /// # Errors
    /// If it has another shape, does not hold floating-point numbers, or one of them is not finite.
    pub fn matrix(&self, [rows, cols]: [usize; 2]) -> Result<Matrix, CheckpointError> {
        self.expect_shape(&[rows, cols])?;
        let tensor = &self.tensor;
        let matrix = match (&tensor.source, tensor.dtype) {
            (Source::Mapped(map), DType::F32) if tensor.start.is_multiple_of(4) && cfg!(target_endian = "little") => {
                let strides = [tensor.strides[0], tensor.strides[1]];
                Matrix::new(Storage::Mapped(map.clone()), tensor.start, [rows, cols], strides)
                    .map_err(|error| CheckpointError::damaged(&self.file, format!("`{}`: {error}", self.key)))?
            }
            _ => Matrix::from_vec(rows, cols, tensor.to_f32()),
        };
        match first_not_finite(&matrix) {
            None => Ok(matrix),
            Some((index, found)) => Err(self.not_finite(index, found)),
        }
    }

    fn not_finite(&self, index: usize, found: f32) -> CheckpointError {
        CheckpointError::NotFinite { file: self.file.clone(), key: self.key.clone(), index, found }
    }

    /// The tensor as a vector of finite numbers, copied.
    ///
    /// # Errors
    /// If it has another length, does not hold floating-point numbers, or one of them is not finite.
    pub fn vector(&self, len: usize) -> Result<Vec<f32>, CheckpointError> {
        self.expect_shape(&[len])?;
        let numbers = self.tensor.to_f32();
        match numbers.iter().position(|x| !x.is_finite()) {
            None => Ok(numbers),
            Some(index) => Err(self.not_finite(index, numbers[index])),
        }
    }
}

/// The first number that is infinite or not a number, in row-major order. Reads everything between the first and the
/// last number, on all cores, as fast as memory gives it; only what looks bad is looked at row by row.
fn first_not_finite(matrix: &Matrix) -> Option<(usize, f32)> {
    const EXPONENT: u32 = 0x7f80_0000;
    let has_bad = |chunk: &[f32]| chunk.iter().fold(false, |bad, x| bad | (x.to_bits() & EXPONENT == EXPONENT));
    if !matrix.span().par_chunks(1 << 14).any(has_bad) {
        return None;
    }
    (0..matrix.rows()).find_map(|row| {
        let numbers = matrix.row(row);
        let col = numbers.iter().position(|x| !x.is_finite())?;
        Some((row * matrix.cols() + col, numbers[col]))
    })
}
