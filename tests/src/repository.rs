//! The repository as a reader finds it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

pub use crate::serving::root;

/// What is built or installed rather than written, and what belongs to the version control.
const NOT_WRITTEN: [&str; 6] = ["target", "node_modules", "dist", ".git", ".venv", "__pycache__"];

/// All files below a path, or the file itself, in the order of their names; without what is built.
///
/// # Errors
/// When a folder cannot be read; says which.
pub fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = fs::read_dir(path).with_context(|| path.display().to_string())?;
    let mut entries: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    entries.sort();
    let mut out = Vec::new();
    for entry in entries {
        let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if entry.is_symlink() || NOT_WRITTEN.contains(&name.as_str()) {
            continue;
        }
        out.extend(files(&entry)?);
    }
    Ok(out)
}
