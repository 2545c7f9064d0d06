//! Weights as operations take them: on the host where they lie, and as tensors of a device where that is needed.

use std::ops::Range;
use std::sync::OnceLock;

use candle_core::{Device, Result, Tensor};

use crate::matrix::Matrix;

/// A matrix `[rows, cols]`. On the CPU it stays in its mapped file; a tensor of it is made when first asked for.
#[derive(Clone, Debug)]
pub struct Weight {
    matrix: Matrix,
    tensor: OnceLock<Tensor>,
    device: Device,
}

impl Weight {
    pub fn new(matrix: Matrix, device: &Device) -> Self {
        Weight { matrix, tensor: OnceLock::new(), device: device.clone() }
    }

    /// Some of the rows, shared on the host.
    pub fn row_range(&self, range: Range<usize>) -> Self {
        Self::new(self.matrix.row_range(range), &self.device)
    }

    /// On the host.
    pub fn matrix(&self) -> &Matrix {
        &self.matrix
    }

    /// On the device, `[rows, cols]`.
    pub fn tensor(&self) -> Result<&Tensor> {
        kept(&self.tensor, || {
            Tensor::from_vec(self.matrix.to_vec(), (self.matrix.rows(), self.matrix.cols()), &self.device)
        })
    }
}

/// A row of numbers, such as a bias.
#[derive(Clone, Debug)]
pub struct Vector {
    host: Vec<f32>,
    tensor: OnceLock<Tensor>,
    device: Device,
}

impl Vector {
    pub fn new(host: Vec<f32>, device: &Device) -> Self {
        Vector { host, tensor: OnceLock::new(), device: device.clone() }
    }

    /// Some of the numbers.
    pub fn range(&self, range: Range<usize>) -> Self {
        Self::new(self.host[range].to_vec(), &self.device)
    }

    /// On the host.
    pub fn host(&self) -> &[f32] {
        &self.host
    }

    /// On the device.
    pub fn tensor(&self) -> Result<&Tensor> {
        kept(&self.tensor, || Tensor::from_slice(&self.host, self.host.len(), &self.device))
    }
}

fn kept(cell: &OnceLock<Tensor>, make: impl FnOnce() -> Result<Tensor>) -> Result<&Tensor> {
    match cell.get() {
        Some(tensor) => Ok(tensor),
        None => {
            let tensor = make()?;
            Ok(cell.get_or_init(|| tensor))
        }
    }
}
