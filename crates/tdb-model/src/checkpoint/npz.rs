//! `.npz` files of NumPy: a zip archive of arrays, stored without compression as `numpy.savez` does. As there, the
//! checksum of an array is looked at when it is read.
//!
//! An array is `\x93NUMPY`, a version, the length of a header, the header (a Python dict with `descr`, `fortran_order`
//! and `shape`), and the numbers.

use std::path::{Path, PathBuf};

use super::bytes::Bytes;
use super::error::{CheckpointError, shorten};
use super::tensor::{DType, NamedTensor, Tensor};
use super::zip_directory::ZipDirectory;

/// An opened archive.
#[derive(Debug)]
pub(super) struct NpzFile {
    path: PathBuf,
    bytes: Bytes,
    directory: ZipDirectory,
}

impl NpzFile {
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let bytes = Bytes::open(path)?;
        if !bytes.starts_with(b"PK\x03\x04") {
            return Err(CheckpointError::damaged(path, "not a zip archive of numpy.savez"));
        }
        let directory = ZipDirectory::read(&bytes)
            .map_err(|what| CheckpointError::damaged(path, what.replace("torch.save", "numpy.savez")))?;
        Ok(NpzFile { path: path.to_owned(), bytes, directory })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of all arrays.
    pub fn names(&self) -> Vec<String> {
        let names = self.directory.names(&self.bytes);
        names.map(|name| String::from_utf8_lossy(name).trim_end_matches(".npy").to_owned()).collect()
    }

    pub fn tensor(&self, key: &str) -> Result<NamedTensor, CheckpointError> {
        let of_key = |what: String| CheckpointError::damaged(&self.path, format!("`{}`: {what}", shorten(key)));
        let name = format!("{key}.npy");
        let entry = self.directory.find(&self.bytes, name.as_bytes()).map_err(of_key)?;
        let (header, start) = header(&self.bytes[entry.clone()]).ok_or_else(|| of_key("not a NumPy array".into()))?;
        let dtype = dtype(header).ok_or_else(|| {
            let found = shorten(header);
            CheckpointError::unexpected(&self.path, key, "little-endian floats in C order", found)
        })?;
        let shape = shape(header).ok_or_else(|| of_key(format!("no shape in {}", shorten(header))))?;
        let tensor = Tensor::contiguous(&self.bytes, entry.start + start..entry.end, dtype, shape).map_err(of_key)?;
        if !self.directory.is_whole(&self.bytes, name.as_bytes(), &self.bytes[entry]) {
            return Err(of_key("its bytes do not have the checksum that the archive says".to_owned()));
        }
        Ok(NamedTensor { file: self.path.clone(), key: key.to_owned(), tensor })
    }
}

/// The header's text, and where the numbers begin.
fn header(array: &[u8]) -> Option<(&str, usize)> {
    let rest = array.strip_prefix(b"\x93NUMPY")?;
    let (len, start) = match *rest.first()? {
        1 => (usize::from(u16::from_le_bytes(rest.get(2..4)?.try_into().ok()?)), 10),
        2 | 3 => (u32::from_le_bytes(rest.get(2..6)?.try_into().ok()?) as usize, 12),
        _ => return None,
    };
    let end = start + len;
    Some((std::str::from_utf8(array.get(start..end)?).ok()?, end))
}

/// The value after a key of the header, up to what ends it.
fn value<'a>(header: &'a str, key: &str, end: char) -> Option<&'a str> {
    let (_, rest) = header.split_once(&format!("'{key}':"))?;
    Some(rest.split(end).next()?.trim())
}

fn dtype(header: &str) -> Option<DType> {
    if value(header, "fortran_order", ',')? != "False" {
        return None;
    }
    Some(match value(header, "descr", ',')?.trim_matches('\'') {
        "<f2" => DType::F16,
        "<f4" => DType::F32,
        "<f8" => DType::F64,
        _ => return None,
    })
}

fn shape(header: &str) -> Option<Vec<usize>> {
    let inside = value(header, "shape", ')')?.strip_prefix('(')?;
    let parts = inside.split(',').map(str::trim).filter(|part| !part.is_empty());
    let shape: Vec<usize> = parts.map(|part| part.parse().ok()).collect::<Option<_>>()?;
    (shape.len() <= 8).then_some(shape)
}
