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
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crc_fast::{CrcAlgorithm, Digest};
use serde::{Deserialize, Serialize};

use crate::{
    Error, Location, Result,
    partial::Unfinished,
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

/// What [`Cache::clear`] did.
#[derive(Debug, Default)]
pub struct Cleared {
    /// Files that were removed.
    pub files: usize,
    /// Files that were begun, not finished, and removed.
    pub unfinished: usize,
    /// Bytes of all of them.
    pub bytes: u64,
    /// What could not be removed, and why.
    pub left: Vec<Error>,
}

/// What [`Cache::verify`] found.
#[derive(Debug, Default)]
pub struct Verified {
    /// An error for each entry that is not what it should be.
    pub damaged: Vec<Error>,
    /// How many of these were removed.
    pub removed: usize,
    /// What could not be removed, and why.
    pub left: Vec<Error>,
}

/// The cache's folder.
#[derive(Debug)]
pub struct Cache {
    root: PathBuf,
    /// Entries are evicted, longest unused first, above this many bytes.
    limit: u64,
    /// Bytes in the cache as far as this process knows; `u64::MAX` before it has looked.
    used: AtomicU64,
    /// Whether this process has looked for unfinished files that nobody will go on with.
    swept: AtomicBool,
}

/// Entries used within this time are in use, and not evicted.
const IN_USE: Duration = Duration::from_secs(600);

/// Unfinished files are kept for so long, so that somebody can go on with them.
const CONTINUED: Duration = Duration::from_secs(7 * 24 * 3600);

impl Cache {
    /// A cache in the folder `root`, which is created when something is put into it.
    pub fn new(root: PathBuf, limit: u64) -> Self {
        Self { root, limit, used: AtomicU64::new(u64::MAX), swept: AtomicBool::new(false) }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Bytes that it may hold.
    pub(crate) fn limit(&self) -> u64 {
        self.limit
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

    /// The whole file of `location`, or `None` if there is no entry. Whose it is and the length are checked, and the
    /// content if the file was touched since it was written. An entry that is not what it should be is dropped.
    pub fn get(&self, location: &Location) -> Option<(PathBuf, Meta)> {
        let relative = location.cache_path();
        let (meta, described) = self.read_meta(&relative)?;
        let path = self.root.join("files").join(&relative);
        if meta.location.trim_end_matches('/') != location.to_string().trim_end_matches('/') {
            tracing::warn!(%location, found = meta.location, "a file of the cache is described as another: dropped");
            self.drop_entry(location);
            return None;
        }
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
        if let Err(error) = self.remove(&location.cache_path()) {
            tracing::warn!(%location, "a damaged file of the cache cannot be removed: {error}");
        }
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

    /// Files that were begun and are not finished, in no order.
    pub fn unfinished(&self) -> Vec<Unfinished> {
        Unfinished::in_folder(&self.root.join("partial"))
    }

    /// Removes unfinished files that nobody will go on with. Done once.
    pub(crate) fn sweep_unfinished(&self) {
        if self.swept.swap(true, Ordering::Relaxed) {
            return;
        }
        for file in self.unfinished() {
            if file.location.is_none() || file.changed.elapsed().is_ok_and(|age| age > CONTINUED) {
                // One that is being fetched stays.
                let _ = file.remove();
            }
        }
    }

    /// Removes what belongs to the locations at and below `prefix`, or everything.
    pub fn clear(&self, prefix: Option<&str>) -> Cleared {
        let is_meant = |location: &str| prefix.is_none_or(|prefix| is_at_or_below(location, prefix));
        let mut cleared = Cleared::default();
        for entry in self.entries().into_iter().filter(|e| is_meant(&e.meta.location)) {
            match self.remove(&entry.relative) {
                Ok(()) => (cleared.files, cleared.bytes) = (cleared.files + 1, cleared.bytes + entry.meta.size),
                Err(error) => cleared.left.push(error),
            }
        }
        for path in files_below(&self.root.join("meta")) {
            let is_note = path.extension().is_some_and(|extension| extension == "absent");
            if is_note && fs::read_to_string(&path).is_ok_and(|location| is_meant(&location)) {
                cleared.left.extend(remove_file(&path).err());
            }
        }
        for file in self.unfinished().into_iter().filter(|f| f.location.as_deref().is_none_or(is_meant)) {
            match file.remove() {
                Ok(()) => (cleared.unfinished, cleared.bytes) = (cleared.unfinished + 1, cleared.bytes + file.size),
                Err(error) => cleared.left.push(error),
            }
        }
        if prefix.is_none() {
            // What is no entry.
            for folder in ["files", "meta"].map(|name| self.root.join(name)) {
                match fs::remove_dir_all(&folder) {
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => cleared.left.push(Error::io(&folder, e)),
                    _ => {}
                }
            }
        }
        self.used.store(u64::MAX, Ordering::Relaxed);
        cleared
    }

    /// Reads every entry in full and says which are not what they should be; with `drop` these are removed.
    pub fn verify(&self, drop: bool) -> Verified {
        let mut verified = Verified::default();
        for entry in self.entries() {
            let Some(damage) = self.damage(&entry) else { continue };
            verified.damaged.push(damage);
            match drop.then(|| self.remove(&entry.relative)) {
                None => {}
                Some(Ok(())) => verified.removed += 1,
                Some(Err(error)) => verified.left.push(error),
            }
        }
        verified
    }

    /// What is wrong with an entry.
    fn damage(&self, Entry { meta, relative, .. }: &Entry) -> Option<Error> {
        let path = self.root.join("files").join(relative);
        let is_its_place = Location::parse(&meta.location).is_ok_and(|location| {
            let info = location.repository_info().map(|info| info.cache_path());
            location.cache_path() == *relative || info.as_ref() == Some(relative)
        });
        if !is_its_place {
            let problem = format!("its description is of {}, which belongs elsewhere", meta.location);
            return Some(Error::damaged(path.display().to_string(), problem));
        }
        let found = fs::metadata(&path).map(|file| file.len()).and_then(|size| Ok((size, checksum(&path)?)));
        let problem = match found {
            Ok((size, _)) if size != meta.size => format!("{size} bytes, where {} were fetched", meta.size),
            Ok((_, crc64)) if crc64 != meta.crc64 => "its content is not what was fetched".into(),
            Ok(_) => return None,
            Err(e) => e.to_string(),
        };
        Some(Error::damaged(&meta.location, problem))
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

    fn remove(&self, relative: &Path) -> Result<()> {
        // The description first: without it the file is no entry.
        remove_file(&self.meta_path(relative))?;
        remove_file(&self.root.join("files").join(relative))
    }

    /// Bytes of entries and of unfinished files.
    fn size(&self, entries: &[Entry]) -> u64 {
        let unfinished = self.unfinished();
        entries.iter().map(|e| e.meta.size).chain(unfinished.iter().map(|f| f.size)).sum()
    }

    fn added(&self, size: u64) {
        let known = self.used.load(Ordering::Relaxed);
        let total = if known == u64::MAX { self.size(&self.entries()) } else { known + size };
        self.used.store(total, Ordering::Relaxed);
        if total > self.limit {
            self.evict();
        }
    }

    /// Removes unfinished files and then the longest unused entries until a tenth of the limit is free again. Other
    /// processes count for themselves, so the folder is looked at anew.
    fn evict(&self) {
        let mut entries = self.entries();
        entries.sort_by_key(|e| e.used);
        let mut total = self.size(&entries);
        let enough = self.limit - self.limit / 10;
        let is_unused = |since: SystemTime| since.elapsed().is_ok_and(|d| d > IN_USE);
        for file in self.unfinished() {
            if total > enough && is_unused(file.changed) && file.remove().is_ok() {
                tracing::info!(location = file.location, size = file.size, "an unfinished file is evicted");
                total = total.saturating_sub(file.size);
            }
        }
        for entry in entries {
            if total <= enough {
                break;
            }
            if !is_unused(entry.used) {
                continue;
            }
            match self.remove(&entry.relative) {
                Ok(()) => {
                    tracing::info!(location = entry.meta.location, size = entry.meta.size, "evicted from the cache");
                    total = total.saturating_sub(entry.meta.size);
                }
                Err(error) => tracing::warn!("an entry of the cache cannot be evicted: {error}"),
            }
        }
        self.used.store(total, Ordering::Relaxed);
    }
}

/// Whether `location` is `prefix` or below it: `…/1` has nothing to do with `…/10`.
fn is_at_or_below(location: &str, prefix: &str) -> bool {
    let rest = location.strip_prefix(prefix);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || prefix.ends_with('/'))
}

/// Removes a file that may be gone already.
fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path, e)),
        _ => Ok(()),
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
        let cleared = |prefix| {
            let Cleared { files, bytes, left, .. } = cache.clear(prefix);
            assert!(left.is_empty(), "{left:?}");
            (files, bytes)
        };
        assert_eq!(cleared(Some("https://example.org/b/")), (1, 6));
        assert_eq!(cleared(Some("")), (0, 0));
        assert_eq!(cleared(None), (1, 5));
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
            let damaged = cache.verify(false).damaged;
            let says = if name == "short" { "4 bytes, where 5 were fetched" } else { "not what was fetched" };
            assert!(damaged.len() == 1 && damaged[0].to_string().contains(says), "{damaged:?}");
            assert!(cache.read(&location).is_none(), "{name}");
            assert!(!cache.path(&location).exists(), "{name}");
        }
        let undescribed = put(&cache, "z", b"hello");
        fs::remove_file(cache.meta_path(&undescribed.cache_path())).unwrap();
        assert!(cache.get(&undescribed).is_none());
    }

    #[test]
    fn what_is_described_as_another_is_no_entry() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().into(), u64::MAX);
        let [a, b] = ["a", "b"].map(|name| put(&cache, name, name.as_bytes()));
        let [of_a, of_b] = [&a, &b].map(Location::cache_path);
        fs::copy(cache.path(&a), cache.path(&b)).unwrap();
        fs::copy(cache.meta_path(&of_a), cache.meta_path(&of_b)).unwrap();
        let damaged = cache.verify(false).damaged;
        let error = damaged[0].to_string();
        let says = "its description is of https://example.org/a";
        assert!(damaged.len() == 1 && error.contains("files/https/example.org/b ") && error.contains(says), "{error}");
        assert!(cache.read(&b).is_none() && !cache.path(&b).exists());
        assert_eq!(cache.read(&a).unwrap().0, b"a");
        // What the hub says of a repository has the name of the repository.
        let info = Location::parse("hf:owner/name").unwrap().repository_info().unwrap();
        let partial = cache.partial_path(&info);
        write_atomically(&partial, b"{}").unwrap();
        cache.adopt(&info, &partial, hex(crc_fast::checksum(CrcAlgorithm::Crc64Nvme, b"{}")), None).unwrap();
        assert!(cache.get(&info).is_some() && cache.verify(false).damaged.is_empty());
    }

    #[test]
    fn a_prefix_ends_where_a_name_ends() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().into(), u64::MAX);
        let locations = ["rec/0/1/x", "rec/0/10", "rec/0/11", "rec/0/1.json"].map(|name| put(&cache, name, b"x"));
        cache.clear(Some("https://example.org/rec/0/1"));
        assert_eq!(locations.each_ref().map(|l| cache.get(l).is_some()), [false, true, true, true]);
        cache.clear(Some("https://example.org/rec/0/10"));
        assert_eq!(locations.each_ref().map(|l| cache.get(l).is_some()), [false, false, true, true]);
    }

    #[test]
    #[cfg(unix)]
    fn what_cannot_be_removed_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().into(), u64::MAX);
        let location = put(&cache, "x", b"hello");
        // A folder where the file was cannot be removed as a file, not even by an administrator.
        fs::remove_file(cache.path(&location)).unwrap();
        fs::create_dir(cache.path(&location)).unwrap();
        let verified = cache.verify(true);
        assert_eq!((verified.damaged.len(), verified.removed, verified.left.len()), (1, 0, 1));
        assert!(verified.left[0].to_string().contains("files/https/example.org/x: "), "{:?}", verified.left);
        let location = put(&cache, "y", b"hello");
        fs::remove_file(cache.path(&location)).unwrap();
        fs::create_dir(cache.path(&location)).unwrap();
        let cleared = cache.clear(Some("https://example.org/y"));
        assert_eq!((cleared.files, cleared.bytes, cleared.left.len()), (0, 0, 1));
    }

    /// An unfinished file of 10 bytes, last written so many seconds ago.
    fn begin(cache: &Cache, name: &str, is_described: bool, seconds: u64) -> PathBuf {
        let location = Location::parse(&format!("https://example.org/{name}")).unwrap();
        let path = cache.partial_path(&location);
        write_atomically(&path, &[0; 10]).unwrap();
        if is_described {
            let state = serde_json::json!({"location": location.to_string(), "size": 99, "etag": "e", "synced": 10});
            fs::write(path.with_extension("json"), state.to_string()).unwrap();
        }
        let long_ago = SystemTime::now() - Duration::from_secs(seconds);
        File::options().write(true).open(&path).unwrap().set_modified(long_ago).unwrap();
        path
    }

    #[test]
    fn unfinished_files_stay_while_somebody_may_go_on_with_them() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().into(), u64::MAX);
        let week = CONTINUED.as_secs();
        let all = [("new", true, 60), ("old", true, week + 60), ("unknown", false, 60), ("fetched", true, week + 60)];
        let all = all.map(|(name, is_described, age)| begin(&cache, name, is_described, age));
        let fetching = File::open(&all[3]).unwrap();
        fetching.lock().unwrap();
        cache.sweep_unfinished();
        assert_eq!(all.each_ref().map(|path| path.exists()), [true, false, false, true]);
        assert_eq!(cache.unfinished().len(), 2);
        // What is being fetched cannot be cleared.
        assert!(cache.clear(Some("https://example.org/ne")).left.is_empty() && all[0].exists());
        let cleared = cache.clear(Some("https://example.org/new"));
        assert_eq!((cleared.files, cleared.unfinished, cleared.bytes, cleared.left.len()), (0, 1, 10, 0));
        let cleared = cache.clear(None);
        assert!(cleared.left.len() == 1 && cleared.left[0].to_string().contains("it is being fetched"), "{cleared:?}");
        drop(fetching);
        assert_eq!(cache.clear(None).unfinished, 1);
        assert!(cache.unfinished().is_empty() && !all[3].with_extension("json").exists());
    }

    #[test]
    fn unfinished_files_count_and_go_first() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().into(), 50);
        let entries = [0, 1, 2].map(|i| put(&cache, &i.to_string(), &[i; 10]));
        let (unfinished, in_use) = (begin(&cache, "a", true, 10_000), begin(&cache, "b", true, 10));
        let old = SystemTime::now() - Duration::from_secs(10_000);
        let meta = File::options().write(true).open(cache.meta_path(&entries[0].cache_path())).unwrap();
        meta.set_modified(old).unwrap();
        // As another process finds it: 60 bytes, and 45 are allowed.
        put(&Cache::new(folder.path().into(), 50), "new", &[1; 10]);
        assert_eq!((unfinished.exists(), in_use.exists()), (false, true));
        assert_eq!(entries.each_ref().map(|l| cache.path(l).exists()), [false, true, true]);
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
