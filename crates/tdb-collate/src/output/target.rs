//! Where results go: a folder of this machine, or one of an object store.

use std::fs;
use std::path::{Path, PathBuf};

use tdb_data::Folder;
use tempfile::TempDir;

use crate::{Error, Result, file};

/// A folder for results.
#[derive(Debug)]
pub enum Target {
    Local(PathBuf),
    /// Files are written to `staging`, sent when a range of layers is complete, and removed here.
    Store {
        folder: Folder,
        staging: TempDir,
    },
}

impl Target {
    /// A folder of a store.
    ///
    /// # Errors
    /// If there is no place here for files on their way.
    pub fn store(folder: Folder) -> Result<Self> {
        let staging = tempfile::tempdir().map_err(Error::file(&std::env::temp_dir()))?;
        Ok(Self::Store { folder, staging })
    }

    /// Where files are written.
    pub fn folder(&self) -> &Path {
        match self {
            Self::Local(folder) => folder,
            Self::Store { staging, .. } => staging.path(),
        }
    }

    /// What people call the folder.
    pub fn name(&self) -> String {
        match self {
            Self::Local(folder) => folder.display().to_string(),
            Self::Store { folder, .. } => folder.location().to_string(),
        }
    }

    /// What people call a file of the folder.
    pub fn name_of(&self, file: &str) -> String {
        match self {
            Self::Local(folder) => folder.join(file).display().to_string(),
            Self::Store { folder, .. } => folder.address_of(file),
        }
    }

    /// Makes sure that it can be written to.
    ///
    /// # Errors
    /// If it cannot.
    pub fn check_writable(&self) -> Result<()> {
        match self {
            Self::Local(folder) => file::check_writable(folder),
            Self::Store { folder, .. } => Ok(folder.check_writable()?),
        }
    }

    /// Brings what was written to its place.
    ///
    /// # Errors
    /// If the store refuses or cannot be reached.
    pub fn send(&self) -> Result<()> {
        let Self::Store { folder, staging } = self else { return Ok(()) };
        send(folder, staging.path(), "")
    }
}

fn send(folder: &Folder, from: &Path, name: &str) -> Result<()> {
    for entry in fs::read_dir(from).map_err(Error::file(from))? {
        let entry = entry.map_err(Error::file(from))?;
        let path = entry.path();
        let below = entry.file_name().to_string_lossy().into_owned();
        let name = if name.is_empty() { below } else { format!("{name}/{below}") };
        if path.is_dir() {
            send(folder, &path, &name)?;
        } else {
            folder.upload(&name, &path)?;
            fs::remove_file(&path).map_err(Error::file(&path))?;
        }
    }
    Ok(())
}
