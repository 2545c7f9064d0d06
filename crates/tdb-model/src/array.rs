//! Activations: small dense f32 arrays that may be written to, unlike weights.

use crate::buffers;

/// An f32 array of up to four dimensions. Most are row-major; attention probabilities are kept head
/// by head while their dimensions read `[query, key, head]`, hence the strides.
#[derive(Debug, PartialEq)]
pub struct Array {
    dims: Vec<usize>,
    strides: Vec<usize>,
    data: Vec<f32>,
}

impl Clone for Array {
    fn clone(&self) -> Self {
        Array { dims: self.dims.clone(), strides: self.strides.clone(), data: buffers::copy(&self.data) }
    }
}

impl Drop for Array {
    fn drop(&mut self) {
        buffers::give_back(std::mem::take(&mut self.data));
    }
}

impl Array {
    /// A row-major array of zeros.
    pub fn zeros(dims: &[usize]) -> Self {
        Self::from_vec(dims, buffers::zeros(dims.iter().product()))
    }

    /// A row-major array over `data`.
    ///
    /// # Panics
    /// If the length of `data` is not the product of `dims`.
    pub fn from_vec(dims: &[usize], data: Vec<f32>) -> Self {
        assert_eq!(data.len(), dims.iter().product::<usize>(), "an array of {dims:?}");
        Array { dims: dims.to_vec(), strides: row_major(dims), data }
    }

    /// `[queries, keys, heads]` over `data` of layout `[heads, queries, keys]`.
    ///
    /// # Panics
    /// If the length of `data` does not fit.
    pub fn head_major(queries: usize, keys: usize, heads: usize, data: Vec<f32>) -> Self {
        assert_eq!(data.len(), queries * keys * heads);
        Array { dims: vec![queries, keys, heads], strides: vec![keys, 1, queries * keys], data }
    }

    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    pub fn strides(&self) -> &[usize] {
        &self.strides
    }

    /// The numbers in storage order.
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// The numbers in storage order.
    pub fn data_mut(&mut self) -> &mut [f32] {
        &mut self.data
    }

    /// The numbers of the `i`-th slice along the first dimension.
    ///
    /// # Panics
    /// If the array is not row-major.
    pub fn row(&self, i: usize) -> &[f32] {
        let width = self.row_width();
        &self.data[i * width..(i + 1) * width]
    }

    /// As [`Array::row`].
    pub fn row_mut(&mut self, i: usize) -> &mut [f32] {
        let width = self.row_width();
        &mut self.data[i * width..(i + 1) * width]
    }

    fn row_width(&self) -> usize {
        assert!(self.is_row_major(), "rows of a head-major array");
        self.dims[1..].iter().product()
    }

    pub fn is_row_major(&self) -> bool {
        self.strides == row_major(&self.dims)
    }

    /// Same numbers, other dimensions.
    ///
    /// # Panics
    /// If the array is not row-major or the sizes differ.
    pub fn reshape(mut self, dims: &[usize]) -> Self {
        assert!(self.is_row_major());
        Array::from_vec(dims, std::mem::take(&mut self.data))
    }

    /// Storage offset of an element.
    pub fn offset(&self, index: &[usize]) -> usize {
        debug_assert!(index.iter().zip(&self.dims).all(|(i, n)| i < n), "{index:?} of {:?}", self.dims);
        index.iter().zip(&self.strides).map(|(i, s)| i * s).sum()
    }

    pub fn at(&self, index: &[usize]) -> f32 {
        self.data[self.offset(index)]
    }

    /// The numbers row-major, whatever the storage.
    pub fn to_row_major(&self) -> Vec<f32> {
        if self.is_row_major() {
            return self.data.clone();
        }
        let mut out = Vec::with_capacity(self.data.len());
        let mut index = vec![0; self.dims.len()];
        for _ in 0..self.data.len() {
            out.push(self.at(&index));
            for d in (0..index.len()).rev() {
                index[d] += 1;
                if index[d] < self.dims[d] {
                    break;
                }
                index[d] = 0;
            }
        }
        out
    }

    /// Overwrites the numbers from a row-major list of them.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn set_row_major(&mut self, numbers: Vec<f32>) {
        assert_eq!(numbers.len(), self.data.len());
        if self.is_row_major() {
            self.data = numbers;
            return;
        }
        let mut index = vec![0; self.dims.len()];
        for number in numbers {
            let at = self.offset(&index);
            self.data[at] = number;
            for d in (0..index.len()).rev() {
                index[d] += 1;
                if index[d] < self.dims[d] {
                    break;
                }
                index[d] = 0;
            }
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
