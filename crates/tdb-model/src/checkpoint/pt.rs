//! Files of `torch.save`: a zip archive with a pickle that describes tensors, and their numbers beside it.

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::bytes::Bytes;
use super::error::{CheckpointError, shorten};
use super::pickle::{Pickle, Value, describe};
use super::tensor::{DType, NamedTensor, Tensor};
use super::zip_directory::ZipDirectory;

/// An opened `.pt` file. Tensors are resolved when they are asked for.
#[derive(Debug)]
pub(crate) struct PtFile {
    path: PathBuf,
    bytes: Bytes,
    directory: ZipDirectory,
    /// Bytes of the file that hold the pickle.
    pickle_range: Range<usize>,
    pickle: Pickle,
    /// Name of the folder inside the archive, with its slash; any name is possible, also none.
    prefix: Vec<u8>,
}

/// One value of a state dict.
#[derive(Debug)]
pub(crate) enum Item<'a> {
    Tensor(NamedTensor),
    Str(&'a str),
    Int(i64),
    Dict(Dict<'a>),
    /// Anything else; how to call it.
    Other(&'static str),
}

/// A dict with strings as keys.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dict<'a> {
    file: &'a PtFile,
    pairs: &'a [(Value, Value)],
}

impl PtFile {
    /// Opens the file and reads its directory and its pickle.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        Self::from_bytes(path, Bytes::open(path)?)
    }

    fn from_bytes(path: &Path, bytes: Bytes) -> Result<Self, CheckpointError> {
        let damaged = |what: String| CheckpointError::damaged(path, what);
        if bytes.starts_with(&[0x80, 2]) {
            return Err(damaged(
                "the format of torch before 1.6; a newer one writes it anew: \
                 python -c \"import torch; f='FILE'; torch.save(torch.load(f, weights_only=True), f)\""
                    .to_owned(),
            ));
        }
        if !bytes.starts_with(b"PK\x03\x04") {
            let start = &bytes[..bytes.len().min(4)];
            return Err(damaged(format!("not a zip archive of torch.save: it starts with {start:02x?}")));
        }
        let directory = ZipDirectory::read(&bytes).map_err(damaged)?;
        let prefixes: Vec<&[u8]> = directory.names(&bytes).filter_map(prefix_of_pickle).take(2).collect();
        let prefix = match prefixes[..] {
            [prefix] => prefix.to_vec(),
            [] => return Err(damaged("no entry named data.pkl".to_owned())),
            _ => return Err(damaged("two entries named data.pkl".to_owned())),
        };
        let entry = |name: &str| directory.find(&bytes, &[&prefix, name.as_bytes()].concat());
        if directory.names(&bytes).any(|name| name.strip_prefix(prefix.as_slice()) == Some(b"byteorder")) {
            let order = entry("byteorder").map_err(damaged)?;
            if &bytes[order.clone()] != b"little" {
                let found = String::from_utf8_lossy(&bytes[order]);
                return Err(CheckpointError::unexpected(path, "byteorder", "little", shorten(&found)));
            }
        }
        let pickle_range = entry("data.pkl").map_err(damaged)?;
        let pickle = Pickle::read(&bytes[pickle_range.clone()]).map_err(damaged)?;
        Ok(PtFile { path: path.to_owned(), bytes, directory, pickle_range, pickle, prefix })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's top object, which has to be a tensor; `key` names it in errors.
    pub fn tensor(&self, key: &str) -> Result<NamedTensor, CheckpointError> {
        match self.pickle.top {
            Value::Tensor(index) => self.resolve(key, index),
            other => Err(CheckpointError::unexpected(&self.path, key, "a tensor", describe(other))),
        }
    }

    /// The file's top object, which has to be a dict with strings as keys.
    pub fn dict(&self) -> Result<Dict<'_>, CheckpointError> {
        match self.pickle.top {
            Value::Dict(index) => Dict::new(self, index),
            other => Err(CheckpointError::unexpected(&self.path, "top object", "a dict of tensors", describe(other))),
        }
    }

    fn text(&self, (start, end): (usize, usize)) -> &str {
        // The pickle's reader checked strings; names of storage types may be anything.
        std::str::from_utf8(&self.bytes[self.pickle_range.clone()][start..end]).unwrap_or("?")
    }

    fn resolve(&self, key: &str, index: usize) -> Result<NamedTensor, CheckpointError> {
        let of_key = |what: String| CheckpointError::damaged(&self.path, format!("`{key}`: {what}"));
        let tensor = self.pickle.tensor(index);
        // torch writes here that a tensor is a view with other signs: `neg`, `conj`.
        if let Some(&(mark, _)) = tensor.marks.and_then(|marks| self.pickle.dict(marks).first()) {
            let mark = if let Value::Str(start, end) = mark { self.text((start, end)) } else { describe(mark) };
            let expected = "a tensor of the numbers that are stored";
            return Err(CheckpointError::unexpected(&self.path, key, expected, format!("one with `{mark}` set")));
        }
        let storage = self.pickle.storage(tensor.storage);
        let type_name = self.text(storage.type_name);
        let dtype = dtype_of_storage(type_name).ok_or_else(|| {
            CheckpointError::unexpected(&self.path, key, "numbers of a known type", format!("torch.{type_name}"))
        })?;
        let name = [&self.prefix, b"data/".as_slice(), self.text(storage.key).as_bytes()].concat();
        let data = self.directory.find(&self.bytes, &name).map_err(of_key)?;
        let says = usize::try_from(storage.elements).ok().and_then(|n| n.checked_mul(dtype.bytes()));
        if says != Some(data.len()) {
            return Err(of_key(format!(
                "its storage should hold {} numbers of {} bytes, but has {} bytes",
                storage.elements,
                dtype.bytes(),
                data.len()
            )));
        }
        let numbers = |tuple: usize| -> Result<Vec<usize>, CheckpointError> {
            let values = self.pickle.sequence(tuple);
            if values.len() > 8 {
                return Err(of_key(format!("{} dimensions", values.len())));
            }
            let number = |value: &Value| match *value {
                Value::Int(n) => usize::try_from(n).map_err(|_| of_key(format!("a dimension or stride of {n}"))),
                other => Err(of_key(format!("a dimension or stride that is {}", describe(other)))),
            };
            values.iter().map(number).collect()
        };
        let offset = usize::try_from(tensor.offset).map_err(|_| of_key(format!("an offset of {}", tensor.offset)))?;
        let view = Tensor::new(&self.bytes, data, offset, dtype, numbers(tensor.shape)?, numbers(tensor.strides)?)
            .map_err(of_key)?;
        Ok(NamedTensor { file: self.path.clone(), key: key.to_owned(), tensor: view })
    }
}

impl<'a> Dict<'a> {
    fn new(file: &'a PtFile, index: usize) -> Result<Self, CheckpointError> {
        let pairs = file.pickle.dict(index);
        match pairs.iter().find(|(key, _)| !matches!(key, Value::Str(..))) {
            None => Ok(Dict { file, pairs }),
            Some(&(key, _)) => Err(CheckpointError::unexpected(&file.path, "a key", "a string", describe(key))),
        }
    }

    pub fn keys(&self) -> impl Iterator<Item = &'a str> {
        let file = self.file;
        self.pairs.iter().filter_map(move |(key, _)| match *key {
            Value::Str(start, end) => Some(file.text((start, end))),
            _ => None,
        })
    }

    pub fn get(&self, key: &str) -> Result<Option<Item<'a>>, CheckpointError> {
        let file = self.file;
        let Some(at) = self.keys().enumerate().filter(|&(_, k)| k == key).map(|(at, _)| at).last() else {
            return Ok(None);
        };
        Ok(Some(match self.pairs[at].1 {
            Value::Tensor(index) => Item::Tensor(file.resolve(key, index)?),
            Value::Str(start, end) => Item::Str(file.text((start, end))),
            Value::Int(number) => Item::Int(number),
            Value::Dict(index) => Item::Dict(Dict::new(file, index)?),
            other => Item::Other(describe(other)),
        }))
    }

    /// The tensor with this key.
    pub fn tensor(&self, key: &str) -> Result<NamedTensor, CheckpointError> {
        let path = &self.file.path;
        match self.get(key)? {
            Some(Item::Tensor(tensor)) => Ok(tensor),
            Some(other) => Err(CheckpointError::unexpected(path, key, "a tensor", other.describe())),
            None => Err(CheckpointError::missing(path, key)),
        }
    }
}

impl Item<'_> {
    /// What the value is, for an error message.
    pub fn describe(&self) -> String {
        match self {
            Item::Tensor(tensor) => {
                format!("a tensor of {:?} of shape {:?}", tensor.tensor.dtype(), tensor.tensor.shape())
            }
            Item::Str(text) => format!("\"{}\"", shorten(text)),
            Item::Int(number) => number.to_string(),
            Item::Dict(dict) => format!("a dict of {} entries", dict.pairs.len()),
            Item::Other(what) => (*what).to_owned(),
        }
    }
}

fn prefix_of_pickle(name: &[u8]) -> Option<&[u8]> {
    let prefix = name.strip_suffix(b"data.pkl")?;
    // torch puts exactly one folder around everything; deeper entries are attachments of TorchScript.
    let folder = prefix.strip_suffix(b"/");
    (prefix.is_empty() || folder.is_some_and(|folder| !folder.contains(&b'/'))).then_some(prefix)
}

fn dtype_of_storage(name: &str) -> Option<DType> {
    Some(match name {
        "FloatStorage" => DType::F32,
        "HalfStorage" => DType::F16,
        "BFloat16Storage" => DType::BF16,
        "DoubleStorage" => DType::F64,
        "LongStorage" => DType::I64,
        "IntStorage" => DType::I32,
        "ShortStorage" => DType::I16,
        "CharStorage" => DType::I8,
        "ByteStorage" => DType::U8,
        "BoolStorage" => DType::Bool,
        _ => return None,
    })
}
