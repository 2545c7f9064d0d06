//! A text that is read again for every work unit must stay what it was.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::{Error, Result};

/// Sizes of some files, and when they were changed last.
#[derive(Clone, Debug)]
pub struct Versions(Vec<(PathBuf, Version)>);

/// The date is missing where the file system has none.
type Version = (u64, Option<SystemTime>);

impl Versions {
    /// Those of now.
    ///
    /// # Errors
    /// If a file is not there.
    pub fn of(files: &[PathBuf]) -> Result<Self> {
        files.iter().map(|path| Ok((path.clone(), version(path)?))).collect::<Result<_>>().map(Self)
    }

    /// Makes sure that the files are still the same.
    ///
    /// # Errors
    /// If one was changed or removed.
    pub fn check(&self) -> Result<()> {
        let is_other = |(path, before): &&(PathBuf, Version)| version(path).ok().as_ref() != Some(before);
        match self.0.iter().find(is_other) {
            None => Ok(()),
            Some((path, _)) => Err(Error::content(
                path,
                "was changed while it was collated; put the text back as it was, or collate into another folder",
            )),
        }
    }
}

fn version(path: &Path) -> Result<Version> {
    let found = fs::metadata(path).map_err(Error::file(path))?;
    Ok((found.len(), found.modified().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_written_to_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let files = ["one", "two"].map(|name| folder.path().join(name));
        files.iter().for_each(|path| fs::write(path, "text").unwrap());
        let versions = Versions::of(&files).unwrap();
        versions.check().unwrap();
        let later = SystemTime::now() + std::time::Duration::from_secs(7);
        fs::File::options().write(true).open(&files[1]).unwrap().set_modified(later).unwrap();
        let message = versions.check().unwrap_err().to_string();
        assert!(message.contains("two: was changed while it was collated"), "{message}");
        fs::remove_file(&files[0]).unwrap();
        assert!(versions.check().unwrap_err().to_string().contains("one: was changed"));
        assert!(Versions::of(&files).is_err());
    }
}
