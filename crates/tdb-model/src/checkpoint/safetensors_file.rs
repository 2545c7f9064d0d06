//! `safetensors` files, mapped or in memory.

use std::collections::HashSet;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::{Metadata, SafeTensors, TensorInfo};
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::bytes::Bytes;
use super::error::{CheckpointError, shorten};
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
        let damaged =
            |error: &dyn Display| CheckpointError::damaged(path, format!("not a whole safetensors file: {error}"));
        let read = SafeTensors::read_metadata(&bytes);
        // Says more of what is wrong, and knows a name that stands there twice.
        if let Some(header) = header(&bytes) {
            serde_json::from_slice::<Header>(header).map_err(|error| damaged(&error))?;
        }
        let (header, metadata) = read.map_err(|error| damaged(&error))?;
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

/// The bytes of the header.
fn header(bytes: &[u8]) -> Option<&[u8]> {
    let (len, rest) = bytes.split_first_chunk()?;
    rest.get(..usize::try_from(u64::from_le_bytes(*len)).ok()?)
}

/// A header in which each tensor has a name of its own and as many bytes as its shape takes.
struct Header;

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Header)
    }
}

impl<'de> Visitor<'de> for Header {
    type Value = Self;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object with an entry for each tensor")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        let mut seen = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
            } else {
                let tensor = map.next_value::<TensorInfo>()?;
                check_size(&tensor).map_err(|what| A::Error::custom(format!("`{}` {what}", shorten(&name))))?;
            }
            if let Some(twice) = seen.replace(name) {
                return Err(A::Error::custom(format!("`{}` stands in its header twice", shorten(&twice))));
            }
        }
        Ok(self)
    }
}

fn check_size(tensor: &TensorInfo) -> Result<(), String> {
    let TensorInfo { dtype, shape, data_offsets: (start, end) } = tensor;
    let numbers = shape.iter().try_fold(1usize, |n, dimension| n.checked_mul(*dimension));
    let size = numbers.and_then(|n| n.checked_mul(dtype.bitsize())).map(|bits| bits.div_ceil(8));
    if size == end.checked_sub(*start) && size.is_some() {
        return Ok(());
    }
    let takes = size.map_or("more bytes than there can be".to_owned(), |size| format!("{size} bytes"));
    Err(format!("of shape {shape:?} takes {takes} as {dtype:?}, but lies at {start} to {end}"))
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
