//! Files that were fetched, on disk, so that none is asked for twice.
//!
//! ```text
//! files/<store>/<path>        the file; a folder of a store is a folder here
//! meta/<store>/<path>.json    its length, checksum and ETag; its modification time is when the entry was last used
//! meta/<store>/<path>.absent  there is no such file, as was found when all others of a model were fetched
//! partial/<hash>.part         a file on its way, locked by the process that fetches it
//! ```
//!
//! An entry is there if both its parts are and agree. The file is written to `partial`, synced and renamed into place, and
//! only then described; a process that dies in between leaves a file without description, which is no entry.

use std::{
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crc_fast::{CrcAlgorithm, Digest};
use serde::{Deserialize, Serialize};

use crate::{
    Error, Location, Result,
    sweep::{PREFIX, sweep},
};

/// An entry's description.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    pub location: String,
    pub size: u64,
    /// CRC-64/NVME of the content, in hexadecimal.
    pub crc64: String,
    #[serde(default)]
    pub etag: Option<String>,
    /// Seconds since 1970.
    pub fetched: u64,
}

/// An entry as `tdb cache` lists it.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub meta: Meta,
    /// When it was last used.
    pub used: SystemTime,
    relative: PathBuf,
}

/// The cache's folder.
#[derive(Debug)]
pub struct Cache {
    root: PathBuf,
    /// Entries are evicted, longest unused first, above this many bytes.
    limit: u64,
    /// Bytes in the cache as far as this process knows; `u64::MAX` before it has looked.
    used: AtomicU64,
}

/// Entries used within this time are in use, and not evicted.
const IN_USE: Duration = Duration::from_secs(600);

impl Cache {
    /// A cache in the folder `root`, which is created when something is put into it.
    pub fn new(root: PathBuf, limit: u64) -> Self {
        Self { root, limit, used: AtomicU64::new(u64::MAX) }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the file of `location` is, if it is there.
    pub fn path(&self, location: &Location) -> PathBuf {
        self.root.join("files").join(location.cache_path())
    }

    fn meta_path(&self, relative: &Path) -> PathBuf {
        let mut name = relative.as_os_str().to_os_string();
        name.push(".json");
        self.root.join("meta").join(name)
    }

    pub(crate) fn partial_path(&self, location: &Location) -> PathBuf {
        // Should two locations ever have the same hash, the state beside the file names the one it belongs to.
        let hash = crc_fast::checksum(CrcAlgorithm::Crc64Nvme, location.to_string().as_bytes());
        self.root.join("partial").join(format!("{}.part", hex(hash)))
    }

    /// The whole file of `location`, or `None` if there is no entry. The length is checked; the content is, too, if the
    /// file was touched since it was written. An entry that is not what it should be is dropped.
    pub fn get(&self, location: &Location) -> Option<(PathBuf, Meta)> {
        let relative = location.cache_path();
        let (meta, described) = self.read_meta(&relative)?;
        let path = self.root.join("files").join(&relative);
        let file = fs::metadata(&path).ok()?;
        // The description is written right after the file: a later time of the file says that somebody changed it.
        let suspect = file.modified().is_ok_and(|m| m > described.fetched_or_used(&meta) + Duration::from_secs(2));
        if file.len() != meta.size || (suspect && checksum(&path).ok() != Some(meta.crc64.clone())) {
            self.drop_entry(location);
            return None;
        }
        self.touch(&relative, described.0);
        Some((path, meta))
    }

    /// The content of a small file, checked against its checksum.
    pub fn read(&self, location: &Location) -> Option<(Vec<u8>, Meta)> {
        let (path, meta) = self.get(location)?;
        let bytes = fs::read(path).ok()?;
        if hex(crc_fast::checksum(CrcAlgorithm::Crc64Nvme, &bytes)) != meta.crc64 {
            self.drop_entry(location);
            return None;
        }
        Some((bytes, meta))
    }

    /// Forgets the entry of `location`, if there is one.
    pub fn drop_entry(&self, location: &Location) {
        self.remove(&location.cache_path());
    }

    /// Notes that the store has no such file.
    pub(crate) fn note_absent(&self, location: &Location) {
        // A note that cannot be made costs a question more the next time.
        let _ = write_atomically(&self.absent_path(location), location.to_string().as_bytes());
    }

    /// Whether it was noted that the store has no such file.
    pub(crate) fn is_absent(&self, location: &Location) -> bool {
        fs::read(self.absent_path(location)).is_ok_and(|noted| noted == location.to_string().as_bytes())
    }

    fn absent_path(&self, location: &Location) -> PathBuf {
        let mut path = self.root.join("meta").join(location.cache_path()).into_os_string();
        path.push(".absent");
        path.into()
    }

    /// Makes a complete and synced partial file the entry of `location`.
    pub(crate) fn adopt(
        &self,
        location: &Location,
        partial: &Path,
        crc64: String,
        etag: Option<String>,
    ) -> Result<PathBuf> {
        let relative = location.cache_path();
        let path = self.root.join("files").join(&relative);
        let size = fs::metadata(partial).map_err(|e| Error::io(partial, e))?.len();
        create_parent(&path)?;
        fs::rename(partial, &path).map_err(|e| Error::io(&path, e))?;
        sync_folder(&path);
        let meta = Meta { location: location.to_string(), size, crc64, etag, fetched: seconds(SystemTime::now()) };
        let text = serde_json::to_vec(&meta).map_err(|e| Error::damaged(location.to_string(), e.to_string()))?;
        let target = self.meta_path(&relative);
        create_parent(&target)?;
        let parent = target.parent().unwrap_or(&self.root);
        let mut temporary = temporary_in(parent)?;
        temporary.write_all(&text).map_err(|e| Error::io(temporary.path(), e))?;
        temporary.persist(&target).map_err(|e| Error::io(&target, e.error))?;
        self.added(size);
        Ok(path)
    }

    /// All entries, in no order.
    pub fn entries(&self) -> Vec<Entry> {
        let base = self.root.join("meta");
        let entry = |path: PathBuf| {
            let relative = PathBuf::from(path.strip_prefix(&base).ok()?.to_str()?.strip_suffix(".json")?);
            let (meta, used) = self.read_meta(&relative)?;
            let is_there = self.root.join("files").join(&relative).exists();
            is_there.then_some(Entry { meta, used: used.0, relative })
        };
        files_below(&base).into_iter().filter_map(entry).collect()
    }

    /// Removes the entries whose location begins with `prefix` (all with ""), and unfinished files if all go. Returns
    /// how many entries and bytes that were.
    pub fn clear(&self, prefix: &str) -> (usize, u64) {
        let mut gone = (0, 0);
        for entry in self.entries().into_iter().filter(|e| e.meta.location.starts_with(prefix)) {
            self.remove(&entry.relative);
            gone = (gone.0 + 1, gone.1 + entry.meta.size);
        }
        for path in files_below(&self.root.join("meta")) {
            let is_note = path.extension().is_some_and(|extension| extension == "absent");
            if is_note && fs::read_to_string(&path).is_ok_and(|location| location.starts_with(prefix)) {
                let _ = fs::remove_file(path);
            }
        }
        if prefix.is_empty() {
            for folder in ["files", "meta", "partial"] {
                let _ = fs::remove_dir_all(self.root.join(folder));
            }
        }
        self.used.store(u64::MAX, Ordering::Relaxed);
        gone
    }

    /// Reads every entry in full and returns those that are not what they should be; with `drop` they are removed.
    pub fn verify(&self, drop: bool) -> Vec<Entry> {
        let is_damaged = |e: &Entry| {
            let path = self.root.join("files").join(&e.relative);
            fs::metadata(&path).map(|m| m.len()).ok() != Some(e.meta.size)
                || checksum(&path).ok().as_ref() != Some(&e.meta.crc64)
        };
        let damaged: Vec<Entry> = self.entries().into_iter().filter(is_damaged).collect();
        if drop {
            damaged.iter().for_each(|e| self.remove(&e.relative));
        }
        damaged
    }

    fn read_meta(&self, relative: &Path) -> Option<(Meta, Used)> {
        let path = self.meta_path(relative);
        let meta: Meta = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
        let used = fs::metadata(&path).ok()?.modified().ok()?;
        Some((meta, Used(used)))
    }

    /// Notes that the entry is in use; once a minute is often enough.
    fn touch(&self, relative: &Path, used: SystemTime) {
        let now = SystemTime::now();
        if now.duration_since(used).is_ok_and(|d| d > Duration::from_secs(60))
            && let Ok(file) = File::options().write(true).open(self.meta_path(relative))
        {
            let _ = file.set_modified(now);
        }
    }

    fn remove(&self, relative: &Path) {
        // The description first: without it the file is no entry.
        let _ = fs::remove_file(self.meta_path(relative));
        let _ = fs::remove_file(self.root.join("files").join(relative));
    }

    fn added(&self, size: u64) {
        let known = self.used.load(Ordering::Relaxed);
        let total = if known == u64::MAX { self.entries().iter().map(|e| e.meta.size).sum() } else { known + size };
        self.used.store(total, Ordering::Relaxed);
        if total > self.limit {
            self.evict();
        }
    }

    /// Removes the longest unused entries until a tenth of the limit is free again. Other processes count for
    /// themselves, so the folder is looked at anew.
    fn evict(&self) {
        let mut entries = self.entries();
        entries.sort_by_key(|e| e.used);
        let mut total: u64 = entries.iter().map(|e| e.meta.size).sum();
        let now = SystemTime::now();
        for entry in entries {
            if total <= self.limit - self.limit / 10 {
                break;
            }
            if now.duration_since(entry.used).is_ok_and(|d| d > IN_USE) {
                tracing::info!(location = entry.meta.location, size = entry.meta.size, "evicted from the cache");
                self.remove(&entry.relative);
                total -= entry.meta.size;
            }
        }
        self.used.store(total, Ordering::Relaxed);
    }
}

#[derive(Clone, Copy)]
struct Used(SystemTime);

impl Used {
    fn fetched_or_used(self, meta: &Meta) -> SystemTime {
        (UNIX_EPOCH + Duration::from_secs(meta.fetched)).min(self.0)
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for item in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let is_folder = item.file_type().is_ok_and(|t| t.is_dir());
            if is_folder { &mut folders } else { &mut found }.push(item.path());
        }
    }
    found
}

/// CRC-64/NVME of a file's content, in hexadecimal.
fn checksum(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let mut digest = Digest::new(CrcAlgorithm::Crc64Nvme);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(digest.finalize())),
            n => digest.update(&buffer[..n]),
        }
    }
}

pub(crate) fn hex(crc: u64) -> String {
    format!("{crc:016x}")
}

pub(crate) fn create_parent(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(|e| Error::io(parent, e))
}

/// Makes a rename durable; where a folder cannot be opened for that, the file itself was synced before.
pub(crate) fn sync_folder(path: &Path) {
    if let Some(folder) = path.parent().and_then(|p| File::open(p).ok()) {
        let _ = folder.sync_all();
    }
}

pub(crate) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// A temporary file in a folder, from which those that killed processes left are removed.
fn temporary_in(folder: &Path) -> Result<tempfile::NamedTempFile> {
    sweep(folder);
    tempfile::Builder::new().prefix(PREFIX).tempfile_in(folder).map_err(|e| Error::io(folder, e))
}

/// Writes a file so that it is there either as it was or as it is to be: temporary file, sync, rename.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    create_parent(path)?;
    let parent = path.parent().unwrap_or(path);
    let mut temporary = temporary_in(parent)?;
    temporary.write_all(bytes).map_err(|e| Error::io(temporary.path(), e))?;
    temporary.as_file().sync_all().map_err(|e| Error::io(temporary.path(), e))?;
    temporary.persist(path).map_err(|e| Error::io(path, e.error))?;
    sync_folder(path);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(cache: &Cache, name: &str, content: &[u8]) -> Location {
        let location = Location::parse(&format!("https://example.org/{name}")).unwrap();
        let partial = cache.partial_path(&location);
        write_atomically(&partial, content).unwrap();
        let crc = hex(crc_fast::checksum(CrcAlgorithm::Crc64Nvme, content));
        cache.adopt(&location, &partial, crc, None).unwrap();
        location
    }

    #[test]
    fn what_was_put_is_found_and_listed_and_cleared() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().into(), u64::MAX);
        let a = put(&cache, "a/x.json", b"hello");
        put(&cache, "b/y.json", b"world!");
        assert_eq!(cache.read(&a).unwrap().0, b"hello");
        assert!(cache.get(&a).unwrap().0.ends_with("files/https/example.org/a/x.json"));
        assert_eq!(cache.entries().len(), 2);
        assert_eq!(cache.clear("https://example.org/b/"), (1, 6));
        assert_eq!(cache.clear(""), (1, 5));
        assert!(cache.get(&a).is_none());
    }

    #[test]
    fn what_killed_processes_left_goes_and_what_is_being_written_stays() {
        let folder = tempfile::tempdir().unwrap();
        let [old, new] = [".tmpOLD", ".tmpNEW"].map(|name| folder.path().join(name));
        let long_ago = SystemTime::now() - Duration::from_secs(10_000);
        File::create(&old).unwrap().set_modified(long_ago).unwrap();
        File::create(&new).unwrap();
        write_atomically(&folder.path().join("a"), b"a").unwrap();
        assert_eq!((old.exists(), new.exists()), (false, true));
    }

    #[test]
    fn a_changed_file_is_no_entry_any_more() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().into(), u64::MAX);
        for (name, content) in [("short", &b"hell"[..]), ("other", b"hallo")] {
            let location = put(&cache, name, b"hello");
            fs::write(cache.path(&location), content).unwrap();
            assert_eq!(cache.verify(false).len(), 1, "{name}");
            assert!(cache.read(&location).is_none(), "{name}");
            assert!(!cache.path(&location).exists(), "{name}");
        }
        let undescribed = put(&cache, "z", b"hello");
        fs::remove_file(cache.meta_path(&undescribed.cache_path())).unwrap();
        assert!(cache.get(&undescribed).is_none());
    }

    #[test]
    fn a_change_of_the_same_length_is_noticed_by_its_time() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().into(), u64::MAX);
        let location = put(&cache, "x", b"hello");
        fs::write(cache.path(&location), b"hallo").unwrap();
        let later = SystemTime::now() + Duration::from_secs(60);
        File::options().write(true).open(cache.path(&location)).unwrap().set_modified(later).unwrap();
        assert!(cache.get(&location).is_none());
    }

    #[test]
    fn the_longest_unused_go_first_and_those_in_use_stay() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().into(), 100);
        let locations: Vec<_> = (0..10).map(|i| put(&cache, &format!("{i}"), &[i; 10])).collect();
        for (i, location) in locations.iter().enumerate().skip(1) {
            let old = SystemTime::now() - Duration::from_secs(10_000 - 10 * i as u64);
            let meta = File::options().write(true).open(cache.meta_path(&location.cache_path())).unwrap();
            meta.set_modified(old).unwrap();
        }
        put(&cache, "new", &[1; 10]);
        // 110 bytes became 90: entries 1 and 2, as entry 0 and the new one are in use
        let left: Vec<bool> = locations.iter().map(|l| cache.path(l).exists()).collect();
        assert_eq!(left, [true, false, false, true, true, true, true, true, true, true]);
    }
}
