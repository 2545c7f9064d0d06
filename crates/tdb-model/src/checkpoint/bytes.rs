//! The bytes of a file, mapped, or of a buffer.

#![allow(unsafe_code, reason = "files are mapped")]

use std::fs::File;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;

use super::error::CheckpointError;

/// Bytes that a checkpoint is read from; cloning costs nothing.
#[derive(Clone, Debug)]
pub(crate) enum Bytes {
    Mapped(Arc<Mmap>),
    Static(&'static [u8]),
}

impl Bytes {
    /// Maps a regular file.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let read = |source| CheckpointError::Read { file: path.to_owned(), source };
        // What it is is asked before it is opened: to open a pipe waits for whoever writes to it.
        let metadata = std::fs::metadata(path).map_err(read)?;
        if !metadata.is_file() {
            return Err(CheckpointError::damaged(path, "not a file"));
        }
        let file = File::open(path).map_err(read)?;
        if metadata.len() == 0 {
            return Ok(Bytes::Static(&[]));
        }
        // SAFETY: the map is only read. Whoever shortens or rewrites a model's file while it is in use can
        // crash the program or change its answers; that is the price of not copying half a gigabyte, and the
        // same holds for every program that maps its weights.
        let map = unsafe { Mmap::map(&file) }.map_err(read)?;
        check_fetched(path, &map)?;
        Ok(Bytes::Mapped(Arc::new(map)))
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map) => map,
            Bytes::Static(bytes) => bytes,
        }
    }
}

/// Whether something of this name is there. A link that leads nowhere is a file that cannot be read, not one that is
/// missing; so is whatever is no regular file.
pub(crate) fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// A small text file, such as a `config.json`: read whole, with a bound on its size, without a byte-order mark.
pub(crate) fn read_text(path: &Path) -> Result<String, CheckpointError> {
    const MAX: u64 = 64 << 20;
    let read = |source| CheckpointError::Read { file: path.to_owned(), source };
    let metadata = std::fs::metadata(path).map_err(read)?;
    if !metadata.is_file() {
        return Err(CheckpointError::damaged(path, "not a file"));
    }
    if metadata.len() > MAX {
        return Err(CheckpointError::damaged(
            path,
            format!("{} bytes, more than a text file may have", metadata.len()),
        ));
    }
    let mut text = std::fs::read_to_string(path).map_err(read)?;
    check_fetched(path, text.as_bytes())?;
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    Ok(text)
}

/// Refuses what stands in the place of a file that Git LFS did not fetch.
fn check_fetched(path: &Path, content: &[u8]) -> Result<(), CheckpointError> {
    match content.starts_with(b"version https://git-lfs.github.com/spec/v1") {
        false => Ok(()),
        true => Err(CheckpointError::damaged(
            path,
            "a Git LFS pointer, not the file itself; fetch the file with `git lfs pull`",
        )),
    }
}

/// A small JSON file whose top is an object.
pub(crate) fn read_json(path: &Path) -> Result<serde_json::Map<String, serde_json::Value>, CheckpointError> {
    parse_json(path, read_text(path)?.as_bytes())
}

/// JSON text whose top is an object; `path` only names it in errors.
pub(crate) fn parse_json(
    path: &Path,
    text: &[u8],
) -> Result<serde_json::Map<String, serde_json::Value>, CheckpointError> {
    serde_json::from_slice(text).map_err(|error| CheckpointError::damaged(path, format!("not a JSON object: {error}")))
}
