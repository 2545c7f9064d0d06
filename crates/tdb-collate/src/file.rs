//! Files that are whole or not there at all.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::{Error, Result};

/// Opens a regular file; `other` is what is said of anything else. What it is is asked first: to open a pipe waits for
/// whoever writes to it.
///
/// # Errors
/// If it cannot be opened, or is no regular file.
pub fn open_regular(path: &Path, other: &str) -> Result<File> {
    match fs::metadata(path).map_err(Error::file(path))?.is_file() {
        true => File::open(path).map_err(Error::file(path)),
        false => Err(Error::content(path, other)),
    }
}

/// Writes a file under another name, brings it to the disk and gives it its name: after a crash at any moment there is
/// the old file, the new one or none, never a part.
///
/// # Errors
/// If the folder cannot be written to or the disk is full; nothing is left behind then.
pub fn write(path: &Path, content: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
    write_with(path, true, |part| fs::rename(part, path), content)
}

/// As [`write`], unless there is a file of this name: the first one stays, also where several machines share the folder.
/// Whether it was written.
///
/// # Errors
/// As [`write`].
pub fn write_new(path: &Path, content: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<bool> {
    let mut written = true;
    let name = |part: &Path| match fs::hard_link(part, path) {
        Ok(()) => fs::remove_file(part),
        Err(_) if path.exists() => {
            written = false;
            fs::remove_file(part)
        }
        // Some file systems have no second names.
        Err(_) => fs::rename(part, path),
    };
    write_with(path, true, name, content)?;
    Ok(written)
}

/// As [`write`], but left to the system when it is brought to the disk: for many small files that can be made again.
pub fn write_soon(path: &Path, content: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
    write_with(path, false, |part| fs::rename(part, path), content)
}

/// Makes sure that files can be written in a folder, which is made if it is not there.
///
/// # Errors
/// If they cannot.
pub fn check_writable(folder: &Path) -> Result<()> {
    let made = fs::create_dir_all(folder).and_then(|()| tempfile::tempfile_in(folder));
    made.map(|_| ()).map_err(|e| Error::Write { path: folder.to_owned(), reason: reason(&e) })
}

/// `name` gives the finished part its name.
fn write_with(
    path: &Path,
    sync: bool,
    name: impl FnOnce(&Path) -> std::io::Result<()>,
    content: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<()> {
    let failed = |error: std::io::Error| Error::Write { path: path.to_owned(), reason: reason(&error) };
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(|e| Error::Write { path: folder.to_owned(), reason: reason(&e) })?;
    sweep(folder);
    let writer = format!("{}-{}", std::process::id(), WRITES.fetch_add(1, Ordering::Relaxed));
    let part = part(path, &writer);
    // The lock says that somebody is at it; see `sweep`. Under its name there is only a locked file.
    let unlocked = path.with_file_name(format!(".new-{writer}"));
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(&unlocked).map_err(failed)?;
    let _ = file.try_lock();
    if let Err(error) = fs::rename(&unlocked, &part) {
        let _ = fs::remove_file(&unlocked);
        return Err(failed(error));
    }
    let done = fill(&file, sync, content).and_then(|()| name(&part));
    if let Err(error) = done {
        let _ = fs::remove_file(&part);
        return Err(failed(error));
    }
    // The name is in the folder, which is brought to the disk as well.
    if sync && let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
    Ok(())
}

fn fill(file: &File, sync: bool, content: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> std::io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, file);
    content(&mut out)?;
    out.flush()?;
    if sync { file.sync_all() } else { Ok(()) }
}

/// A file that is younger may be about to be locked.
const YOUNG: Duration = Duration::from_secs(60);

/// Writes of this process, so that no two of its threads use one name.
static WRITES: AtomicUsize = AtomicUsize::new(0);

fn part(path: &Path, writer: &str) -> PathBuf {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    path.with_file_name(format!(".{name}.part-{writer}"))
}

/// Removes what killed processes left in a folder: parts of files that nobody has locked. Done once for each folder.
fn sweep(folder: &Path) {
    static SWEPT: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    if !SWEPT.lock().unwrap_or_else(PoisonError::into_inner).insert(folder.to_owned()) {
        return;
    }
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // Under the first name a file is not locked yet for a moment.
        let is_new = name.starts_with(".new-");
        let is_old =
            || entry.metadata().and_then(|m| m.modified()).is_ok_and(|m| m.elapsed().is_ok_and(|age| age > YOUNG));
        let is_part = name.starts_with('.') && name.contains(".part-");
        if (is_part || (is_new && is_old())) && File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => "there is no permission to write there".to_owned(),
        _ => tdb_data::io_reason(error, tdb_data::START_AGAIN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_whole_or_absent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/file");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(part(&path, "1"), "left by a killed process").unwrap();
        fs::write(part(&path.with_file_name("other"), "7-2"), "left as well").unwrap();
        let new = path.with_file_name(".new-7-3");
        let old = std::time::SystemTime::now() - 2 * YOUNG;
        File::create(&new).unwrap().set_modified(old).unwrap();
        write(&path, |out| out.write_all(b"one")).unwrap();
        let broken = write(&path, |out| {
            out.write_all(b"tw")?;
            Err(std::io::Error::from(std::io::ErrorKind::StorageFull))
        });
        let message = broken.unwrap_err().to_string();
        assert!(message.contains("deep/file could not be written") && message.contains("disk is full"), "{message}");
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        let below_a_file = path.join("x");
        assert!(write(&below_a_file, |_| Ok(())).unwrap_err().to_string().contains("could not be written"));
    }

    #[test]
    fn the_first_of_two_new_files_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        assert!(write_new(&path, |out| out.write_all(b"first")).unwrap());
        assert!(!write_new(&path, |out| out.write_all(b"second")).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn threads_that_write_one_file_do_not_meet() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let content = |thread: u8| vec![thread; 100_000];
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (path, content) = (&path, content(thread));
                scope.spawn(move || (0..20).for_each(|_| write(path, |out| out.write_all(&content)).unwrap()));
            }
        });
        let found = fs::read(&path).unwrap();
        assert!((0..4).any(|thread| found == content(thread)));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_a_sentence() {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let error = fill(&full, true, |out| out.write_all(&[0; 4 << 20])).unwrap_err();
        assert!(reason(&error).contains("the disk is full"), "{error}");
    }
}
