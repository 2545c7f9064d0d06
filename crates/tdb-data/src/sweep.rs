//! Temporary files of processes that were killed.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// No write takes so long.
const ABANDONED: Duration = Duration::from_secs(3600);

/// Beginning of the names of temporary files.
pub(crate) const PREFIX: &str = ".tmp";

/// Removes temporary files that were abandoned in a folder. Done once for each folder.
pub(crate) fn sweep(folder: &Path) {
    static SWEPT: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    if !SWEPT.lock().unwrap_or_else(PoisonError::into_inner).insert(folder.to_owned()) {
        return;
    }
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        let changed = entry.metadata().ok().filter(fs::Metadata::is_file).and_then(|m| m.modified().ok());
        if is_ours && changed.and_then(|at| at.elapsed().ok()).is_some_and(|age| age > ABANDONED) {
            let _ = fs::remove_file(entry.path());
        }
    }
}
