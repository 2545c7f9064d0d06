//! Files of this machine. What one is is asked before it is opened: to open a pipe waits for whoever writes to it, and a
//! device may have no end.

use std::{
    fs::{self, File},
    io::Read,
    path::Path,
};

use crate::{Error, Result};

/// What stands in the place of a file that Git LFS did not fetch.
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/v1";

/// Opens a regular file.
pub(crate) fn open(path: &Path) -> Result<File> {
    let metadata = fs::metadata(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::NotFound(format!("{} does not exist", path.display())),
        _ => Error::io(path, e),
    })?;
    if !metadata.is_file() {
        return Err(Error::Io { path: path.display().to_string(), reason: "is not a regular file".into() });
    }
    File::open(path).map_err(|e| Error::io(path, e))
}

/// The content of a regular file of at most `limit` bytes.
pub(crate) fn read(path: &Path, limit: usize) -> Result<Vec<u8>> {
    let file = open(path)?;
    let large =
        |size: u64| Error::damaged(path.display().to_string(), format!("{size} bytes, more than the limit of {limit}"));
    let size = file.metadata().map_err(|e| Error::io(path, e))?.len();
    if size > limit as u64 {
        return Err(large(size));
    }
    let mut bytes = Vec::new();
    // It may grow while it is read.
    file.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(|e| Error::io(path, e))?;
    if bytes.len() > limit { Err(large(bytes.len() as u64)) } else { Ok(bytes) }
}

/// Refuses a Git LFS pointer; `file` is what errors call it.
pub(crate) fn check_fetched(file: &str, bytes: &[u8]) -> Result<()> {
    match bytes.starts_with(LFS_POINTER) {
        false => Ok(()),
        true => Err(Error::damaged(
            file,
            "it is a Git LFS pointer, not the file itself; fetch the file with `git lfs pull`",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_of_a_sensible_size_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, "hello").unwrap();
        assert_eq!(read(&path, 5).unwrap(), b"hello");
        assert!(read(&path, 4).unwrap_err().to_string().contains("5 bytes, more than the limit of 4"));
        assert!(read(&folder.path().join("b"), 5).unwrap_err().is_not_found());
        assert!(read(folder.path(), 5).unwrap_err().to_string().contains("is not a regular file"));
    }

    #[cfg(unix)]
    #[test]
    fn pipes_and_devices_are_refused_and_loops_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for path in [pipe.as_path(), Path::new("/dev/zero")] {
            assert!(read(path, 5).unwrap_err().to_string().contains("is not a regular file"));
        }
        let a = folder.path().join("a");
        std::os::unix::fs::symlink(&a, folder.path().join("b")).unwrap();
        std::os::unix::fs::symlink(folder.path().join("b"), &a).unwrap();
        assert!(read(&a, 5).unwrap_err().to_string().contains("symbolic links"));
    }
}
