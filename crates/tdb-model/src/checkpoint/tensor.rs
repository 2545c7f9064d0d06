//! A tensor in a file, before it becomes a weight.

use std::ops::Range;
use std::path::PathBuf;

use half::{bf16, f16};

use super::bytes::Bytes;
use super::error::CheckpointError;
use crate::matrix::{Element, Matrix, Storage, ViewError};
use crate::parallel;

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
    bytes: Bytes,
    /// Byte of the first element.
    start: usize,
    dtype: DType,
    shape: Vec<usize>,
    /// The shape, but for a part of grouped rows ([`Tensor::part`]) or dimensions that were merged ([`Tensor::merged`]): there
    /// one dimension of the shape stands as two.
    dims: Vec<usize>,
    /// In elements, one for each of `dims`.
    strides: Vec<usize>,
}

impl Tensor {
    /// A view of `bytes[storage]` from element `offset` on. The number of elements may not exceed what the
    /// storage holds, so that a copy of the tensor is never larger than a small multiple of the file.
    pub fn new(
        bytes: &Bytes,
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
        if shape.len() != strides.len() || bytes.get(storage.clone()).is_none() || fits().is_none() {
            return Err(format!(
                "a tensor of shape {shape:?} with strides {strides:?} from element {offset} on, which does not fit its {} \
                 bytes",
                storage.len()
            ));
        }
        let start = storage.start + offset * dtype.bytes();
        Ok(Tensor { bytes: bytes.clone(), start, dtype, dims: shape.clone(), shape, strides })
    }

    /// A row-major tensor that fills `bytes[storage]`.
    pub fn contiguous(bytes: &Bytes, storage: Range<usize>, dtype: DType, shape: Vec<usize>) -> Result<Self, String> {
        let mut strides = vec![1usize; shape.len()];
        for i in (1..shape.len()).rev() {
            strides[i - 1] = strides[i].saturating_mul(shape[i]);
        }
        Tensor::new(bytes, storage, 0, dtype, shape, strides)
    }

    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The same numbers with all dimensions in reverse.
    pub fn transposed(mut self) -> Self {
        self.shape.reverse();
        self.dims.reverse();
        self.strides.reverse();
        self
    }

    /// The same numbers with the last two dimensions swapped.
    ///
    /// # Panics
    /// If there are fewer than two.
    pub fn swapped(mut self) -> Self {
        let last = self.shape.len() - 1;
        for dimensions in [&mut self.shape, &mut self.dims, &mut self.strides] {
            dimensions.swap(last - 1, last);
        }
        self
    }

    /// The same numbers with the first two dimensions as one.
    ///
    /// # Panics
    /// If there are fewer than two.
    pub fn merged(mut self) -> Self {
        let both = self.shape[0] * self.shape[1];
        self.shape.splice(..2, [both]);
        if self.strides[0] == self.dims[1] * self.strides[1] {
            self.dims.splice(..2, [both]);
            self.strides.remove(0);
        }
        self
    }

    /// One of `parts` parts of the rows, which lie in the order (group, part, row). A tensor that is itself a part is
    /// not divided again.
    ///
    /// # Panics
    /// If the rows are not divisible, or the tensor has none.
    pub fn part(mut self, part: usize, parts: usize, groups: usize) -> Self {
        let rows = self.shape[0] / (parts * groups);
        assert!(part < parts && self.shape[0] == rows * parts * groups && self.dims == self.shape);
        self.shape[0] = rows * groups;
        self.start += part * rows * self.strides[0] * self.dtype.bytes();
        self.dims[0] = rows;
        if groups > 1 {
            self.dims.insert(0, groups);
            self.strides.insert(0, parts * rows * self.strides[0]);
        }
        self
    }

    /// Do both hold the same numbers, whatever their types and strides? Only for floating types.
    pub fn same_numbers(&self, other: &Tensor) -> bool {
        if self.shape != other.shape {
            return false;
        }
        match (self.row_major_bytes(), other.row_major_bytes()) {
            (Some(left), Some(right)) if self.dtype == other.dtype && left == right => true,
            _ => self.to_f32() == other.to_f32(),
        }
    }

    /// All numbers in row-major order. Only for floating types.
    fn to_f32(&self) -> Vec<f32> {
        const CHUNK: usize = 1 << 14;
        let (count, width) = (self.dims.iter().product(), self.dtype.bytes());
        let mut out = vec![0.0; count];
        if let Some(bytes) = self.row_major_bytes() {
            parallel::each_chunk(&mut out, CHUNK, &|i, out| {
                convert(self.dtype, &bytes[i * CHUNK * width..][..out.len() * width], out);
            });
        } else if let (Some(&outermost), true) = (self.dims.first(), count > 0) {
            parallel::each_chunk(&mut out, count / outermost, &|i, out| {
                self.gather(1, self.start + i * self.strides[0] * width, out);
            });
        }
        out
    }

    /// The bytes of all numbers, if these lie in row-major order without gaps.
    fn row_major_bytes(&self) -> Option<&[u8]> {
        let mut expected = 1;
        let dense = self.dims.iter().zip(&self.strides).rev().all(|(&size, &stride)| {
            let fits = size == 1 || stride == expected;
            expected *= size;
            fits
        });
        (dense && expected > 0).then(|| &self.bytes[self.start..self.start + expected * self.dtype.bytes()])
    }

    /// The numbers of the dimensions from `dim` on, the first of them at byte `start`.
    fn gather(&self, dim: usize, start: usize, out: &mut [f32]) {
        let width = self.dtype.bytes();
        match self.dims[dim..] {
            [] => convert(self.dtype, &self.bytes[start..start + width], out),
            [count] if self.strides[dim] == 1 => {
                convert(self.dtype, &self.bytes[start..start + count * width], out);
            }
            _ => {
                for (i, out) in out.chunks_exact_mut(out.len() / self.dims[dim]).enumerate() {
                    self.gather(dim + 1, start + i * self.strides[dim] * width, out);
                }
            }
        }
    }
}

fn convert(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    out.iter_mut().zip(bytes.chunks_exact(dtype.bytes())).for_each(|(out, bytes)| *out = number(dtype, bytes));
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
    /// Refuses another shape, and numbers that are not floating-point.
    pub fn expect_shape(&self, shape: &[usize]) -> Result<(), CheckpointError> {
        let tensor = &self.tensor;
        if tensor.shape != shape || !tensor.dtype.is_float() {
            let expected = format!("floating-point numbers of shape {shape:?}");
            let found = format!("{:?} of shape {:?}", tensor.dtype, tensor.shape);
            return Err(CheckpointError::unexpected(&self.file, &self.key, expected, found));
        }
        Ok(())
    }

    /// The tensor as a matrix, in place if it holds f32 at a fitting address of a mapped file and its rows are evenly
    /// spaced.
    ///
    /// # Errors
    /// If it has another shape, does not hold floating-point numbers, or one of them is not finite.
    pub fn matrix(&self, shape: [usize; 2]) -> Result<Matrix, CheckpointError> {
        self.expect_shape(&shape)?;
        let matrix = match self.mapped(shape) {
            Some(mapped) => {
                mapped.map_err(|error| CheckpointError::damaged(&self.file, format!("`{}`: {error}", self.key)))?
            }
            None => self.converted(shape),
        };
        match matrix.first_not_finite() {
            None => Ok(matrix),
            Some((index, found)) => Err(self.not_finite(index, found)),
        }
    }

    fn mapped(&self, shape: [usize; 2]) -> Option<Result<Matrix, ViewError>> {
        let tensor = &self.tensor;
        match (&tensor.bytes, tensor.dtype, tensor.strides.as_slice()) {
            (Bytes::Mapped(map), dtype, &[rows, cols])
                if tensor.start.is_multiple_of(dtype.bytes()) && cfg!(target_endian = "little") =>
            {
                let element = match dtype {
                    DType::F32 => Element::F32,
                    // Columns would be gathered number by number each time.
                    DType::F16 if cols == 1 => Element::F16,
                    DType::BF16 if cols == 1 => Element::Bf16,
                    _ => return None,
                };
                Some(Matrix::new(Storage::Mapped(map.clone()), element, tensor.start, shape, [rows, cols]))
            }
            _ => None,
        }
    }

    /// A copy, in the file's order.
    fn converted(&self, [rows, cols]: [usize; 2]) -> Matrix {
        match self.tensor.strides.as_slice() {
            &[1, stride] if stride != 1 => {
                Matrix::from_vec(cols, rows, self.tensor.clone().transposed().to_f32()).transpose()
            }
            _ => Matrix::from_vec(rows, cols, self.tensor.to_f32()),
        }
    }

    fn not_finite(&self, index: usize, found: f32) -> CheckpointError {
        CheckpointError::NotFinite { file: self.file.clone(), key: self.key.clone(), index, found }
    }

    /// The one number of a tensor without dimensions, or of length 1.
    ///
    /// # Errors
    /// If it has more, or is not a finite floating-point number.
    pub fn scalar(&self) -> Result<f32, CheckpointError> {
        let mut flat = self.clone();
        if flat.tensor.shape.is_empty() {
            (flat.tensor.shape, flat.tensor.dims, flat.tensor.strides) = (vec![1], vec![1], vec![1]);
        }
        Ok(flat.vector(1)?[0])
    }

    /// The one whole number of a tensor without dimensions, or of length 1.
    ///
    /// # Errors
    /// If it has more, or is not of a type of whole numbers.
    pub fn whole_number(&self) -> Result<i64, CheckpointError> {
        let Tensor { bytes, start, dtype, shape, .. } = &self.tensor;
        let is_one = matches!(shape[..], [] | [1]);
        let width = dtype.bytes();
        if !is_one || !matches!(dtype, DType::I64 | DType::I32 | DType::I16 | DType::I8 | DType::U8) {
            let found = format!("{dtype:?} of shape {shape:?}");
            return Err(CheckpointError::unexpected(&self.file, &self.key, "one whole number", found));
        }
        let found = &bytes[*start..start + width];
        let is_negative = *dtype != DType::U8 && found[width - 1] >= 0x80;
        let mut number = [if is_negative { 0xff } else { 0 }; 8];
        number[..width].copy_from_slice(found);
        Ok(i64::from_le_bytes(number))
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
