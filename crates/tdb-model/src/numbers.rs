//! Reading the numbers of a tensor in place, and loops over rows of them.

use std::borrow::Cow;

use candle_core::{CpuStorage, DType, Device, Storage, StorageRef, Tensor};

pub use crate::ops::rows::{axpy, dot, exp, max, min, scale, softmax, sum_in_double};
use crate::ops::{Ops, Threads, View, matmul};
pub use crate::ops::{Screen, Wanted, product, wide};

/// The numbers of an f32 tensor.
///
/// They are borrowed where the tensor lies on the CPU as a dense permutation of its dimensions, and copied
/// otherwise. While it is borrowed, the tensor's storage is locked for reading.
pub struct Numbers<'a> {
    held: Held<'a>,
    dims: Cow<'a, [usize]>,
    strides: Cow<'a, [usize]>,
}

enum Held<'a> {
    Borrowed { storage: StorageRef<'a>, start: usize, len: usize },
    Copied(Vec<f32>),
}

impl<'a> Numbers<'a> {
    /// # Errors
    /// If the tensor is not of type f32, or its device fails.
    pub fn of(tensor: &'a Tensor) -> candle_core::Result<Self> {
        if tensor.dtype() != DType::F32 {
            candle_core::bail!("numbers are read from tensors of type f32, not {:?}", tensor.dtype());
        }
        let (storage, layout) = tensor.storage_and_layout();
        let len = tensor.elem_count();
        if matches!(&*storage, Storage::Cpu(CpuStorage::F32(_))) && is_dense(layout.dims(), layout.stride()) {
            let start = layout.start_offset();
            let (dims, strides) = (Cow::Borrowed(layout.dims()), Cow::Borrowed(layout.stride()));
            return Ok(Numbers { held: Held::Borrowed { storage, start, len }, dims, strides });
        }
        drop(storage);
        let data = tensor.flatten_all()?.to_vec1::<f32>()?;
        let strides = Cow::Owned(row_major(tensor.dims()));
        Ok(Numbers { held: Held::Copied(data), dims: Cow::Borrowed(tensor.dims()), strides })
    }

    /// Lengths of the dimensions.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// Distance in [`Numbers::data`] between neighbours along each dimension.
    pub fn strides(&self) -> &[usize] {
        &self.strides
    }

    /// All numbers in the order of storage.
    pub fn data(&self) -> &[f32] {
        match &self.held {
            Held::Copied(data) => data,
            Held::Borrowed { storage, start, len } => match &**storage {
                Storage::Cpu(CpuStorage::F32(data)) => &data[*start..start + len],
                _ => unreachable!("the kind of storage was seen when it was borrowed"),
            },
        }
    }

    /// The numbers of the `i`-th slice along the first dimension.
    ///
    /// # Panics
    /// If the tensor is not row-major.
    pub fn row(&self, i: usize) -> &[f32] {
        assert!(self.is_row_major(), "rows of a tensor with dimensions {:?}, strides {:?}", self.dims, self.strides);
        let width: usize = self.dims[1..].iter().product();
        &self.data()[i * width..(i + 1) * width]
    }

    /// Whether the last dimension varies fastest, then the one before it, and so on.
    pub fn is_row_major(&self) -> bool {
        let mut expected = 1;
        // A dimension of length 1 may have any stride.
        self.dims.iter().zip(&*self.strides).rev().all(|(len, stride)| {
            let fits = *len == 1 || *stride == expected;
            expected *= len;
            fits
        })
    }

    /// Place of an element in [`Numbers::data`].
    pub fn offset(&self, index: &[usize]) -> usize {
        debug_assert!(index.iter().zip(&*self.dims).all(|(i, n)| i < n), "{index:?} of {:?}", self.dims);
        index.iter().zip(&*self.strides).map(|(i, s)| i * s).sum()
    }

    /// One element.
    pub fn at(&self, index: &[usize]) -> f32 {
        self.data()[self.offset(index)]
    }

    /// A row-major copy.
    pub fn to_row_major(&self) -> Vec<f32> {
        if self.is_row_major() {
            return self.data().to_vec();
        }
        let mut out = Vec::with_capacity(self.data().len());
        for_each_index(&self.dims, |index| out.push(self.at(index)));
        out
    }
}

/// Calls `f` with every index of an array of these dimensions, the last one varying fastest.
fn for_each_index(dims: &[usize], mut f: impl FnMut(&[usize])) {
    let mut index = vec![0; dims.len()];
    for _ in 0..dims.iter().product() {
        f(&index);
        for d in (0..dims.len()).rev() {
            index[d] += 1;
            if index[d] < dims[d] {
                break;
            }
            index[d] = 0;
        }
    }
}

fn row_major(dims: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; dims.len()];
    for d in (1..dims.len()).rev() {
        strides[d - 1] = strides[d] * dims[d];
    }
    strides
}

/// Whether the elements fill a range of storage, in whatever order of the dimensions.
fn is_dense(dims: &[usize], strides: &[usize]) -> bool {
    let mut order: Vec<usize> = (0..dims.len()).filter(|d| dims[*d] != 1).collect();
    order.sort_by_key(|d| strides[*d]);
    let mut expected = 1;
    order.into_iter().all(|d| {
        let fits = strides[d] == expected;
        expected *= dims[d];
        fits
    })
}

/// A row-major tensor over `data` on the CPU; nothing is copied.
///
/// # Panics
/// If the length of `data` is not the product of `dims`.
pub fn tensor(dims: &[usize], data: Vec<f32>) -> Tensor {
    assert_eq!(data.len(), dims.iter().product::<usize>(), "a tensor of {dims:?}");
    Tensor::from_vec(data, dims, &Device::Cpu).expect("as many numbers as the dimensions say")
}

/// `[queries, keys, heads]` over `data`, which lies head by head: `[heads, queries, keys]`.
///
/// # Panics
/// If the length of `data` does not fit.
pub fn head_major(queries: usize, keys: usize, heads: usize, data: Vec<f32>) -> Tensor {
    tensor(&[heads, queries, keys], data).permute((1, 2, 0)).expect("three dimensions")
}

/// A tensor of zeros on the CPU.
pub fn zeros(dims: &[usize]) -> Tensor {
    tensor(dims, vec![0.0; dims.iter().product()])
}

/// `a bᵀ` for row-major `a: [n, k]` and `b: [m, k]`, `[n, m]`; on all threads if `parallel`.
///
/// # Panics
/// If a length is not a multiple of `k`.
pub fn products(a: &[f32], b: &[f32], k: usize, parallel: bool) -> Vec<f32> {
    assert!(k > 0 && a.len().is_multiple_of(k) && b.len().is_multiple_of(k), "rows of {k} numbers");
    let threads = if parallel { Threads::All } else { Threads::One };
    matmul(View::new(a, a.len() / k, k), View::new(b, b.len() / k, k).t(), threads)
}

/// `aᵀ b` for row-major `a: [k, n]` and `b: [k, m]`, `[n, m]`: the sum of the outer products of their rows; on all
/// threads if `parallel`.
///
/// # Panics
/// If `a` and `b` do not have the same number of rows.
pub fn outer_products(a: &[f32], b: &[f32], [n, m]: [usize; 2], parallel: bool) -> Vec<f32> {
    assert!(a.len().is_multiple_of(n) && b.len().is_multiple_of(m), "rows of {n} and {m} numbers");
    let threads = if parallel { Threads::All } else { Threads::One };
    matmul(View::new(a, a.len() / n, n).t(), View::new(b, b.len() / m, m), threads)
}

/// `a ⊙ b`, where `a` lies.
///
/// # Errors
/// If their dimensions differ, they are not of type f32, or a device fails.
pub fn times(a: &Tensor, b: &Tensor) -> candle_core::Result<Tensor> {
    ops_for(a)?.times(a, &b.to_device(a.device())?)
}

/// `Σ_e x[…, e]`: one dimension less.
///
/// # Errors
/// If it is not of type f32, or its device fails.
pub fn sum_last(x: &Tensor) -> candle_core::Result<Tensor> {
    ops_for(x)?.sum_last(x)
}

/// `Σ_e a[…, e] b[…, e]`, where `a` lies: one dimension less.
///
/// # Errors
/// As [`times`].
pub fn dot_last(a: &Tensor, b: &Tensor) -> candle_core::Result<Tensor> {
    ops_for(a)?.dot_last(a, &b.to_device(a.device())?)
}

/// `Σ_h x[h, …]`: one dimension less.
///
/// # Errors
/// As [`sum_last`].
pub fn sum_first(x: &Tensor) -> candle_core::Result<Tensor> {
    ops_for(x)?.sum_first(x)
}

fn ops_for(x: &Tensor) -> candle_core::Result<Ops> {
    Ops::for_device(x.device()).map_err(candle_core::Error::msg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permuted_tensors_are_borrowed_and_read_in_their_own_order() -> candle_core::Result<()> {
        let x = head_major(2, 3, 4, (0..24).map(|i| i as f32).collect());
        let numbers = Numbers::of(&x)?;
        assert_eq!(numbers.dims(), [2, 3, 4]);
        assert!(matches!(numbers.held, Held::Borrowed { .. }) && !numbers.is_row_major());
        assert_eq!(numbers.at(&[1, 2, 3]), 23.0);
        assert_eq!(numbers.to_row_major(), x.flatten_all()?.to_vec1::<f32>()?);
        Ok(())
    }

    #[test]
    fn a_part_of_a_tensor_is_copied_where_it_has_holes() -> candle_core::Result<()> {
        let x = tensor(&[4, 6], (0..24).map(|i| i as f32).collect());
        let (rows, columns) = (x.narrow(0, 1, 2)?, x.narrow(1, 2, 3)?);
        assert_eq!(Numbers::of(&rows)?.row(1), [12.0, 13.0, 14.0, 15.0, 16.0, 17.0]);
        assert!(matches!(Numbers::of(&columns)?.held, Held::Copied(_)));
        assert_eq!(Numbers::of(&columns)?.row(3), [20.0, 21.0, 22.0]);
        Ok(())
    }
}
