//! `safetensors` files, mapped or in memory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::{Metadata, SafeTensors};

use super::bytes::{Bytes, read_json};
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

/// The tensors of one file, or of several that an index lists.
#[derive(Debug)]
pub(crate) struct TensorFiles {
    /// What names the set in errors.
    path: PathBuf,
    files: Vec<TensorFile>,
    /// In which file each tensor lies.
    file_of: BTreeMap<String, usize>,
}

impl TensorFiles {
    /// Opens `<stem>.safetensors`, or all files that `<stem>.safetensors.index.json` lists.
    pub fn open(folder: &Path, stem: &str) -> Result<Self, CheckpointError> {
        let single = folder.join(format!("{stem}.safetensors"));
        // A link that leads nowhere is one that cannot be read, not one that is missing.
        if single.symlink_metadata().is_ok() {
            return Self::single(TensorFile::open(&single)?);
        }
        let index_path = folder.join(format!("{stem}.safetensors.index.json"));
        let index = read_json(&index_path)?;
        let map = index.get("weight_map").and_then(|map| map.as_object());
        let map = map.ok_or_else(|| CheckpointError::missing(&index_path, "weight_map"))?;
        let mut names: Vec<&str> = Vec::new();
        for (key, file) in map {
            // A name with a path in it would reach outside the model's folder.
            let plain = |name: &&str| Path::new(name).file_name() == Some(name.as_ref()) && !name.contains(['/', '\\']);
            let name = file.as_str().filter(plain).ok_or_else(|| {
                CheckpointError::unexpected(&index_path, key.clone(), "a file in the same folder", file)
            })?;
            names.push(name);
        }
        names.sort_unstable();
        names.dedup();
        let files = names.iter().map(|name| TensorFile::open(&folder.join(name))).collect::<Result<Vec<_>, _>>()?;
        let mut file_of = BTreeMap::new();
        for (at, file) in files.iter().enumerate() {
            for name in file.names() {
                if map.get(&name).and_then(|file| file.as_str()) != Some(names[at]) {
                    let expected = format!("in {}, as {} says", names[at], index_path.display());
                    let found = map.get(&name).map_or("not there".to_owned(), |file| format!("in {file}"));
                    return Err(CheckpointError::unexpected(&file.path, shorten(&name), expected, found));
                }
                file_of.insert(name, at);
            }
        }
        match map.keys().find(|key| !file_of.contains_key(*key)) {
            None => Ok(TensorFiles { path: index_path, files, file_of }),
            Some(key) => Err(CheckpointError::missing(&index_path, shorten(key))),
        }
    }

    pub fn single(file: TensorFile) -> Result<Self, CheckpointError> {
        let file_of = file.names().into_iter().map(|name| (name, 0)).collect();
        Ok(TensorFiles { path: file.path.clone(), files: vec![file], file_of })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.file_of.keys().map(String::as_str)
    }

    pub fn contains(&self, key: &str) -> bool {
        self.file_of.contains_key(key)
    }

    pub fn tensor(&self, key: &str) -> Result<NamedTensor, CheckpointError> {
        match self.file_of.get(key) {
            Some(&at) => self.files[at].tensor(key),
            None => Err(CheckpointError::missing(&self.path, key)),
        }
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
