//! `safetensors` files, mapped or in memory.

use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::{Metadata, SafeTensors};

use super::bytes::Bytes;
use super::error::CheckpointError;
use super::tensor::{DType, NamedTensor, Tensor};

/// An opened file, its header checked against its size.
#[derive(Debug)]
pub(crate) struct TensorFile {
    path: PathBuf,
    bytes: Bytes,
    /// Where the numbers start.
    start: usize,
    metadata: Metadata,
}

impl TensorFile {
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        Self::from_bytes(path, Bytes::open(path)?)
    }

    /// `path` only names the bytes in errors.
    pub fn from_bytes(path: &Path, bytes: Bytes) -> Result<Self, CheckpointError> {
        let (header, metadata) = SafeTensors::read_metadata(&bytes)
            .map_err(|error| CheckpointError::damaged(path, format!("not a whole safetensors file: {error}")))?;
        Ok(TensorFile { path: path.to_owned(), bytes, start: 8 + header, metadata })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A text of the header's `__metadata__`.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.metadata.metadata().as_ref()?.get(key).map(String::as_str)
    }

    /// The names of all tensors, in the order in which they lie in the file.
    pub fn names(&self) -> Vec<String> {
        self.metadata.offset_keys()
    }

    pub fn contains(&self, key: &str) -> bool {
        self.metadata.info(key).is_some()
    }

    pub fn tensor(&self, key: &str) -> Result<NamedTensor, CheckpointError> {
        let info = self.metadata.info(key).ok_or_else(|| CheckpointError::missing(&self.path, key))?;
        let dtype = dtype(info.dtype).ok_or_else(|| {
            CheckpointError::unexpected(&self.path, key, "numbers of a known type", format!("{:?}", info.dtype))
        })?;
        let range = self.start + info.data_offsets.0..self.start + info.data_offsets.1;
        let tensor = Tensor::contiguous(&self.bytes, range, dtype, info.shape.clone())
            .map_err(|what| CheckpointError::damaged(&self.path, format!("`{key}`: {what}")))?;
        Ok(NamedTensor { file: self.path.clone(), key: key.to_owned(), tensor })
    }
}

fn dtype(dtype: Dtype) -> Option<DType> {
    Some(match dtype {
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::F64 => DType::F64,
        Dtype::I64 => DType::I64,
        Dtype::I32 => DType::I32,
        Dtype::I16 => DType::I16,
        Dtype::I8 => DType::I8,
        Dtype::U8 => DType::U8,
        Dtype::BOOL => DType::Bool,
        _ => return None,
    })
}
