//! Where a model's tensors come from, under this library's names.
//!
//! | name | shape | |
//! |---|---|---|
//! | `embed.weight` | `[n_vocab, d_model]` | |
//! | `positions.weight` | `[ctx_window, d_model]` | learned positions only |
//! | `blocks.{l}.{attn,mlp}_norm.{weight,bias}` | `[d_model]` | `bias`: layer norm only |
//! | `blocks.{l}.attn.{q,k,v}.weight` | `[heads * d_head, d_model]` | of `k` and `v`: the key/value heads |
//! | `blocks.{l}.attn.o.weight` | `[d_model, n_heads * d_head]` | |
//! | `blocks.{l}.attn.{q,k,v,o}.bias` | rows of the weight | those that the configuration has |
//! | `blocks.{l}.attn.{q_norm,k_norm}.weight` | `[d_head]` | where queries and keys are normalised |
//! | `blocks.{l}.{attn,mlp}_post_norm.weight` | `[d_model]` | norms of what is written, where there are |
//! | `blocks.{l}.mlp.in.weight`, `blocks.{l}.mlp.gate.weight` | `[d_ff, d_model]` | `gate`: gated MLPs only |
//! | `blocks.{l}.mlp.out.weight` | `[d_model, d_ff]` | |
//! | `blocks.{l}.mlp.{in,gate,out}.bias` | rows of the weight | those that the configuration has |
//! | `final_norm.{weight,bias}` | `[d_model]` | `bias`: layer norm only |
//! | `unembed.weight` | `[n_vocab, d_model]` | absent where it is the token embedding |
//! | `unembed.bias` | `[n_vocab]` | where the configuration has it |

use std::fmt;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::VarBuilder;
use candle_nn::var_builder::SimpleBackend;

use crate::checkpoint::CheckpointError;
use crate::matrix::{Element, Matrix};

/// Tensors by name. See the module for the names.
pub trait Source: Send + Sync + fmt::Debug {
    /// Is there a tensor of this name?
    fn contains(&self, name: &str) -> bool;

    /// The tensor's shape.
    ///
    /// # Errors
    /// If there is none of this name.
    fn shape(&self, name: &str) -> Result<Vec<usize>, CheckpointError>;

    /// The tensor as a matrix `[rows, cols]`, where possible without a copy and with whatever strides it has.
    ///
    /// # Errors
    /// If there is none of this name and shape that holds finite floating-point numbers.
    fn matrix(&self, name: &str, shape: [usize; 2]) -> Result<Matrix, CheckpointError>;

    /// The tensor as a vector of `len` numbers.
    ///
    /// # Errors
    /// If there is none of this name and length that holds finite floating-point numbers.
    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, CheckpointError>;
}

/// A model's tensors from any [`Source`] or anybody's [`VarBuilder`]; cloning costs nothing.
#[derive(Clone, Debug)]
pub struct Weights(Arc<dyn Source>);

impl Weights {
    /// The same tensors with all matrices stored in one way. Those that are not are copied when they are asked for, each
    /// number rounded to the nearest; a number that is too large for it is an error then.
    pub fn stored_as(self, element: Element) -> Self {
        Weights(Arc::new(Stored(self, element)))
    }

    /// The same tensors for whoever takes a `VarBuilder`, as 32-bit floats on `device`, copied when they are asked for.
    pub fn var_builder(&self, device: &Device) -> VarBuilder<'static> {
        VarBuilder::from_backend(Box::new(Backend(self.clone())), DType::F32, device.clone())
    }
}

impl Deref for Weights {
    type Target = dyn Source;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl<S: Source + 'static> From<S> for Weights {
    fn from(source: S) -> Self {
        Weights(Arc::new(source))
    }
}

/// Asks for every tensor, below the builder's prefix, as f32 on the CPU and uses its storage as it is. Whoever else
/// holds a tensor can still write to it; the model then computes with what was written.
impl From<VarBuilder<'static>> for Weights {
    fn from(builder: VarBuilder<'static>) -> Self {
        Weights(Arc::new(Variables(builder.set_device(Device::Cpu))))
    }
}

/// Weights whose matrices are stored in one way.
#[derive(Debug)]
struct Stored(Weights, Element);

impl Source for Stored {
    fn contains(&self, name: &str) -> bool {
        self.0.contains(name)
    }

    fn shape(&self, name: &str) -> Result<Vec<usize>, CheckpointError> {
        self.0.shape(name)
    }

    fn matrix(&self, name: &str, shape: [usize; 2]) -> Result<Matrix, CheckpointError> {
        let found = self.0.matrix(name, shape)?;
        let stored = found.stored_as(self.1);
        if found.element() == Element::F32 && self.1 == Element::F16 && stored.first_not_finite().is_some() {
            let largest = found.to_vec().iter().fold(0.0f32, |max, x| max.max(x.abs()));
            return Err(CheckpointError::unexpected(Path::new("weights"), name, "at most 65504 for f16", largest));
        }
        Ok(stored)
    }

    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, CheckpointError> {
        self.0.vector(name, len)
    }
}

/// A `VarBuilder` as a source.
struct Variables(VarBuilder<'static>);

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VarBuilder at \"{}\"", self.0.prefix())
    }
}

impl Variables {
    fn get(&self, name: &str, shape: impl Into<Shape>) -> Result<Tensor, CheckpointError> {
        // Some builders would make up a tensor that they do not have.
        if !self.contains(name) {
            return Err(CheckpointError::missing(self.file(), self.key(name)));
        }
        self.0
            .get_with_hints_dtype(shape, name, Default::default(), DType::F32)
            .map_err(|error| self.candle(name, error))
    }

    fn finite(&self, name: &str, found: Option<(usize, f32)>) -> Result<(), CheckpointError> {
        match found {
            None => Ok(()),
            Some((index, found)) => {
                Err(CheckpointError::NotFinite { file: self.file().to_owned(), key: self.key(name), index, found })
            }
        }
    }

    fn candle(&self, name: &str, error: candle_core::Error) -> CheckpointError {
        CheckpointError::candle(self.file(), self.key(name), error)
    }

    /// What names the builder in errors.
    fn file(&self) -> &'static Path {
        Path::new("VarBuilder")
    }

    fn key(&self, name: &str) -> String {
        match self.0.prefix() {
            prefix if prefix.is_empty() => name.to_owned(),
            prefix => format!("{prefix}.{name}"),
        }
    }
}

impl Source for Variables {
    fn contains(&self, name: &str) -> bool {
        self.0.contains_tensor(name)
    }

    fn shape(&self, name: &str) -> Result<Vec<usize>, CheckpointError> {
        let tensor = self.0.get_unchecked(name).map_err(|error| self.candle(name, error))?;
        Ok(tensor.dims().to_vec())
    }

    fn matrix(&self, name: &str, shape: [usize; 2]) -> Result<Matrix, CheckpointError> {
        let tensor = self.get(name, (shape[0], shape[1]))?;
        let matrix = Matrix::from_tensor(&tensor).map_err(|error| self.candle(name, error))?;
        self.finite(name, matrix.first_not_finite())?;
        Ok(matrix)
    }

    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, CheckpointError> {
        let numbers = self.get(name, len)?.to_vec1::<f32>().map_err(|error| self.candle(name, error))?;
        self.finite(name, numbers.iter().copied().enumerate().find(|(_, x)| !x.is_finite()))?;
        Ok(numbers)
    }
}

/// Weights behind a `VarBuilder`.
struct Backend(Weights);

impl SimpleBackend for Backend {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _: candle_nn::Init,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        let tensor = match *shape.dims() {
            [len] => self.0.vector(name, len).map(|numbers| Tensor::from_vec(numbers, len, &Device::Cpu)),
            [rows, cols] => self.0.matrix(name, [rows, cols]).map(|matrix| matrix.to_tensor()),
            _ => candle_core::bail!("`{name}` was asked for with {} dimensions, weights have one or two", shape.rank()),
        };
        // As every other builder's, the tensor is contiguous.
        tensor.map_err(candle_core::Error::wrap)??.contiguous()?.to_device(device)?.to_dtype(dtype)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        let shape = self.0.shape(name).map_err(candle_core::Error::wrap)?;
        self.get(shape.into(), name, candle_nn::Init::default(), dtype, device)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.0.contains(name)
    }
}
