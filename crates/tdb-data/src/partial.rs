//! A file on its way: written as it arrives, locked against other processes, continued after a break.

use std::{
    fs::{self, File, TryLockError},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use crc_fast::{CrcAlgorithm, Digest};
use serde::{Deserialize, Serialize};

use crate::{Error, Location, Result, cache::hex};

/// What the server says about the file that is being sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Transfer {
    pub size: u64,
    pub etag: Option<String>,
}

/// Kept beside the partial file, so that another process can go on with it.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    location: String,
    #[serde(flatten)]
    transfer: Transfer,
    /// Bytes that are known to be on the disk.
    synced: u64,
}

/// After this many bytes, what has arrived is synced; at most so much is fetched twice after a power cut.
const SYNC_EVERY: u64 = 16 << 20;

#[derive(Debug)]
pub(crate) struct Partial {
    path: PathBuf,
    location: String,
    file: File,
    digest: Digest,
    len: u64,
    synced: u64,
    transfer: Option<Transfer>,
}

impl Partial {
    /// Opens and locks the partial file at `path`, waiting for whoever has it; `None` as soon as `done` says that
    /// there is nothing left to do. What an earlier process left is kept if it was on the disk for certain.
    pub async fn lock(path: &Path, location: &Location, done: impl Fn() -> bool) -> Result<Option<Self>> {
        let unwritable = |e: std::io::Error| Error::Unwritable {
            location: location.to_string(),
            path: path.display().to_string(),
            reason: e.to_string(),
        };
        fs::create_dir_all(path.parent().unwrap_or(path)).map_err(unwritable)?;
        let mut wait = Duration::from_millis(5);
        loop {
            let file =
                File::options().read(true).write(true).create(true).truncate(false).open(path).map_err(unwritable)?;
            match file.try_lock() {
                // The file may have been renamed into the cache, or removed, between opening and locking it.
                Ok(()) if is_still_at(&file, path) => {
                    if done() {
                        let _ = fs::remove_file(path);
                        return Ok(None);
                    }
                    return Self::open(path, location, file).map(Some);
                }
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(Duration::from_millis(200));
                }
                Err(TryLockError::Error(e)) => return Err(Error::io(path, e)),
            }
            if done() {
                return Ok(None);
            }
        }
    }

    fn open(path: &Path, location: &Location, mut file: File) -> Result<Self> {
        let name = location.to_string();
        let state = State::of(path).filter(|s| s.location == name && s.transfer.etag.is_some());
        let there = file.metadata().map_err(|e| Error::io(path, e))?.len();
        let len = state.as_ref().map_or(0, |s| if s.synced <= there { s.synced } else { 0 });
        file.set_len(len).map_err(|e| Error::io(path, e))?;
        let mut digest = Digest::new(CrcAlgorithm::Crc64Nvme);
        file.seek(SeekFrom::Start(0)).map_err(|e| Error::io(path, e))?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer).map_err(|e| Error::io(path, e))? {
                0 => break,
                n => digest.update(&buffer[..n]),
            }
        }
        let transfer = state.filter(|_| len > 0).map(|s| s.transfer);
        Ok(Self { path: path.into(), location: name, file, digest, len, synced: len, transfer })
    }

    /// Bytes that have arrived.
    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn etag(&self) -> Option<String> {
        self.transfer.as_ref().and_then(|t| t.etag.clone())
    }

    /// Whether what the server offers now is the file that was begun.
    pub fn continues(&self, offered: &Transfer) -> bool {
        self.len == 0 || (self.transfer.as_ref() == Some(offered) && offered.etag.is_some())
    }

    /// The server agrees to send `transfer` from [`Self::len`] on.
    pub fn begin(&mut self, transfer: &Transfer) -> Result<()> {
        if self.len == 0 {
            self.restart()?;
        }
        self.transfer = Some(transfer.clone());
        Ok(())
    }

    /// Throws away what has arrived.
    pub fn restart(&mut self) -> Result<()> {
        let _ = fs::remove_file(state_path(&self.path));
        self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0))).map_err(|e| Error::io(&self.path, e))?;
        self.digest = Digest::new(CrcAlgorithm::Crc64Nvme);
        (self.len, self.synced, self.transfer) = (0, 0, None);
        Ok(())
    }

    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|e| Error::io(&self.path, e))?;
        self.digest.update(bytes);
        self.len += bytes.len() as u64;
        if self.len - self.synced >= SYNC_EVERY { self.sync().await } else { Ok(()) }
    }

    /// Brings what has arrived to the disk and notes that it is there.
    pub async fn sync(&mut self) -> Result<()> {
        let Some(transfer) = self.transfer.clone() else { return Ok(()) };
        if self.len == self.synced {
            return Ok(());
        }
        self.sync_file().await?;
        self.synced = self.len;
        let state = State { location: self.location.clone(), transfer, synced: self.len };
        let text = serde_json::to_vec(&state).map_err(|e| Error::damaged(self.location.clone(), e.to_string()))?;
        // Not atomic, and need not be: a state that cannot be read means beginning anew.
        fs::write(state_path(&self.path), text).map_err(|e| Error::io(&self.path, e))
    }

    async fn sync_file(&self) -> Result<()> {
        let file = self.file.try_clone().map_err(|e| Error::io(&self.path, e))?;
        let synced = tokio::task::spawn_blocking(move || file.sync_all()).await;
        match synced {
            Ok(result) => result.map_err(|e| Error::io(&self.path, e)),
            Err(e) => Err(Error::io(&self.path, std::io::Error::other(e))),
        }
    }

    /// Syncs the complete file and returns its checksum. The lock stays until `self` is dropped.
    pub async fn finish(&mut self) -> Result<String> {
        self.sync_file().await?;
        let _ = fs::remove_file(state_path(&self.path));
        Ok(hex(self.digest.finalize()))
    }

    /// Removes the file: it will not be continued.
    pub fn discard(self) {
        let _ = fs::remove_file(state_path(&self.path));
        let _ = fs::remove_file(&self.path);
    }
}

impl State {
    fn of(path: &Path) -> Option<Self> {
        fs::read(state_path(path)).ok().and_then(|text| serde_json::from_slice(&text).ok())
    }
}

/// A file of which a part is here.
#[derive(Debug, Clone, PartialEq)]
pub struct Unfinished {
    /// `None` if nobody can go on with it: nothing of it is on the disk for certain.
    pub location: Option<String>,
    /// Bytes that are here.
    pub size: u64,
    /// When bytes were last added.
    pub changed: SystemTime,
    path: PathBuf,
}

impl Unfinished {
    /// All in a folder, in no order.
    pub(crate) fn in_folder(folder: &Path) -> Vec<Self> {
        let found = |item: fs::DirEntry| {
            let path = item.path();
            let file = item.metadata().ok().filter(|_| path.extension().is_some_and(|e| e == "part"))?;
            let changed = file.modified().ok()?;
            Some(Self { location: State::of(&path).map(|s| s.location), size: file.len(), changed, path })
        };
        fs::read_dir(folder).into_iter().flatten().flatten().filter_map(found).collect()
    }

    /// Removes it.
    ///
    /// # Errors
    /// If somebody is fetching it, or it cannot be removed.
    pub(crate) fn remove(&self) -> Result<()> {
        let failed = |e: std::io::Error| Error::io(&self.path, e);
        let file = match File::open(&self.path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            file => file.map_err(failed)?,
        };
        match file.try_lock() {
            // It was finished or removed in the meantime.
            Ok(()) if !is_still_at(&file, &self.path) => Ok(()),
            Ok(()) => {
                let _ = fs::remove_file(state_path(&self.path));
                fs::remove_file(&self.path).map_err(failed)
            }
            Err(TryLockError::WouldBlock) => {
                Err(Error::Io { path: self.path.display().to_string(), reason: "it is being fetched".into() })
            }
            Err(TryLockError::Error(e)) => Err(failed(e)),
        }
    }
}

fn state_path(path: &Path) -> PathBuf {
    path.with_extension("json")
}

/// Whether `file` is what `path` names at this moment.
#[cfg(unix)]
fn is_still_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), fs::metadata(path)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

/// Files that are open cannot be renamed or removed by others here.
#[cfg(not(unix))]
fn is_still_at(_: &File, path: &Path) -> bool {
    path.exists()
}
