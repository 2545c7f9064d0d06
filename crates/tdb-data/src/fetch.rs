//! Getting a file here, once, whatever the network does.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit},
};

use crate::{
    Error, Folder, Location, Mirror, Progress, Registry, Result,
    cache::{Cache, Meta},
    hub, local,
    location::Root,
    pace::{Pace, Watch},
    partial::{Partial, Transfer},
    random::random,
    remote::{self, RemoteFile},
    stores::{Failure, Stores},
};

/// Settings of a [`Fetcher`]. [`FetchConfig::from_env`] has sensible ones.
#[derive(Debug, Clone)]
pub struct FetchConfig {
    /// The cache's folder.
    pub cache: PathBuf,
    /// Bytes that the cache may hold.
    pub cache_limit: u64,
    /// Use the cache alone.
    pub offline: bool,
    /// Tried in order; the first that concerns a location is followed.
    pub mirrors: Vec<Mirror>,
    /// How often a file is tried again after a failure without any progress in between.
    pub retries: u32,
    /// First pause before another try; doubled each time up to 64 of it.
    pub pause: Duration,
    /// Files that are fetched from one store at the same time.
    pub parallel: usize,
    /// Give up waiting for the next byte after this long.
    pub read_timeout: Duration,
    /// Give up a transfer that is slower.
    pub pace: Pace,
    /// Files of records of at least so many bytes stay in their store and are read there, piece by piece.
    pub in_place_from: u64,
    /// Where Hugging Face repositories are served.
    pub hugging_face: String,
    pub hugging_face_token: Option<String>,
    /// The cache of Hugging Face's own tools, which is read and not written to.
    pub hub_cache: Option<PathBuf>,
    /// The files that this program carries, by the path after `embedded:`.
    pub embedded: fn(&str) -> Option<Bytes>,
}

/// Smaller files come here whole, in about the time of two requests.
const IN_PLACE_FROM: u64 = 16 << 20;

/// So many stores have all the files that they may be asked for at the same time; with more, files wait for each other.
const STORES: usize = 4;

/// Bytes the cache may hold where nothing else is said: 50 GiB.
const CACHE_LIMIT: u64 = 50 << 30;

impl FetchConfig {
    /// The cache in `TDB_CACHE` or the platform's cache folder, its size from `TDB_CACHE_SIZE` (bytes, or with `M`, `G`),
    /// `TDB_OFFLINE`, and the variables that Hugging Face's own tools read (`HF_ENDPOINT`, `HF_TOKEN`, `HF_HOME`,
    /// `HF_HUB_CACHE`, `HF_HUB_OFFLINE`).
    pub fn from_env() -> Result<Self> {
        let var = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        let cache_limit = match var("TDB_CACHE_SIZE") {
            None => CACHE_LIMIT,
            Some(text) => parse_size(&text)
                .ok_or_else(|| Error::Config(format!("TDB_CACHE_SIZE={text:?} is not a size such as 500M or 20G")))?,
        };
        Ok(Self {
            cache: var("TDB_CACHE").map(PathBuf::from).or_else(|| platform_folder("cache")).ok_or_else(|| {
                Error::Config("no cache folder is known on this machine: set TDB_CACHE to a folder".into())
            })?,
            cache_limit,
            offline: var("TDB_OFFLINE").is_some_and(|v| v != "0") || hub::is_offline_from_env(),
            mirrors: Vec::new(),
            retries: 6,
            pause: Duration::from_millis(250),
            parallel: 16,
            read_timeout: Duration::from_secs(30),
            pace: Pace::default(),
            in_place_from: IN_PLACE_FROM,
            hugging_face: var("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into()),
            hugging_face_token: hub::token_from_env(),
            hub_cache: hub::folder_from_env(),
            embedded: |_| None,
        })
    }

    /// Adds the registry's mirrors after those that are there.
    pub fn with_registry(mut self, registry: &Registry) -> Result<Self> {
        for m in &registry.mirrors {
            self.mirrors.push(Mirror::new(&m.prefix, &m.target)?);
        }
        Ok(self)
    }
}

/// The folder that this platform keeps for `cache` or `data` of an application, with `tdb` at its end.
pub fn platform_folder(kind: &str) -> Option<PathBuf> {
    let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let (xdg, home, mac) = match kind {
        "cache" => ("XDG_CACHE_HOME", ".cache", "Library/Caches"),
        _ => ("XDG_DATA_HOME", ".local/share", "Library/Application Support"),
    };
    let base = if cfg!(windows) {
        var("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        var("HOME").map(|h| h.join(mac))
    } else {
        var(xdg).filter(|p| p.is_absolute()).or_else(|| var("HOME").map(|h| h.join(home)))
    };
    base.map(|b| b.join("tdb"))
}

/// `500M`, `20G`, `1024`: bytes.
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim().trim_end_matches(['B', 'b']).trim_end_matches('i');
    let (number, shift) = match text.chars().last()? {
        'k' | 'K' => (&text[..text.len() - 1], 10),
        'M' | 'm' => (&text[..text.len() - 1], 20),
        'G' | 'g' => (&text[..text.len() - 1], 30),
        'T' | 't' => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    number.trim().parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Fetches files through the cache. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Fetcher(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: FetchConfig,
    cache: Cache,
    stores: Stores,
    /// For files that are read in place.
    in_place: Stores,
    slots: Semaphore,
    /// Those of each store, so that a slow one holds up no other.
    slots_of: Mutex<HashMap<Root, Arc<Semaphore>>>,
}

impl Fetcher {
    /// A fetcher for the stores that `registry` describes.
    pub fn new(config: FetchConfig, registry: &Registry) -> Self {
        let cache = Cache::new(config.cache.clone(), config.cache_limit);
        let stores = Stores::new(
            registry.stores.clone(),
            config.hugging_face.clone(),
            config.hugging_face_token.clone(),
            config.read_timeout,
        );
        let in_place = stores.retrying(config.read_timeout);
        let slots = Semaphore::new(STORES * config.parallel.max(1));
        Self(Arc::new(Inner { config, cache, stores, in_place, slots, slots_of: Mutex::default() }))
    }

    /// The cache.
    pub fn cache(&self) -> &Cache {
        &self.0.cache
    }

    /// The cache of Hugging Face's own tools, if there may be one.
    pub(crate) fn hub_cache(&self) -> Option<&Path> {
        self.0.config.hub_cache.as_deref()
    }

    /// Whether only the cache is used.
    pub fn is_offline(&self) -> bool {
        self.0.config.offline
    }

    /// Where `location` is read from: itself, or a mirror.
    pub fn resolve(&self, location: &Location) -> Result<Location> {
        for mirror in &self.0.config.mirrors {
            if let Some(mapped) = mirror.apply(location)? {
                return Ok(mapped);
            }
        }
        Ok(location.clone())
    }

    /// The content of a file that the program itself carries; `None` for a location elsewhere.
    pub fn embedded(&self, location: &Location) -> Option<Result<Bytes>> {
        let found = || (self.0.config.embedded)(location.path()).ok_or_else(|| not_found(location));
        (*location.root() == Root::Embedded).then(found)
    }

    /// Whether `location` needs no network: it is on this machine, in the program, or in the cache.
    pub fn has(&self, location: &Location) -> bool {
        self.resolve(location).is_ok_and(|place| {
            place.local().is_some() || *place.root() == Root::Embedded || self.0.cache.get(&place).is_some()
        })
    }

    /// The path of `location` on this machine: its own if it is here, else in the cache, fetched if need be.
    pub async fn file(&self, location: &Location, progress: &dyn Progress) -> Result<PathBuf> {
        let name = location.to_string();
        let place = self.resolve(location)?;
        if let Some(path) = place.local() {
            let found = tokio::fs::metadata(path).await;
            return match found {
                Ok(m) if m.is_file() => {
                    progress.finished(&name, true);
                    Ok(path.to_path_buf())
                }
                Ok(_) => Err(Error::Io { path: path.display().to_string(), reason: "is not a file".into() }),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(not_found(location)),
                Err(e) => Err(Error::io(path, e)),
            };
        }
        if let Some((path, _)) = self.0.cache.get(&place) {
            progress.finished(&name, true);
            return Ok(path);
        }
        let path = self.fetch(&name, &place, u64::MAX, progress).await?;
        progress.finished(&name, false);
        Ok(path)
    }

    /// A file that need not be there: `None` if it is not, or if only the cache can be used and does not have it.
    pub async fn optional(&self, location: &Location, progress: &dyn Progress) -> Result<Option<PathBuf>> {
        let place = self.resolve(location)?;
        let is_elsewhere = place.local().is_none() && self.0.cache.get(&place).is_none();
        if is_elsewhere && self.0.cache.is_absent(&place) {
            return Ok(None);
        }
        match self.file(location, progress).await {
            Ok(path) => Ok(Some(path)),
            Err(Error::NotFound(_) | Error::Offline { .. } | Error::Unwritable { .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Remembers that there is no such file, so that it is not asked for again until the cache is cleared.
    pub fn note_absent(&self, location: &Location) -> Result<()> {
        let place = self.resolve(location)?;
        if place.local().is_none() && !self.is_offline() {
            self.0.cache.note_absent(&place);
        }
        Ok(())
    }

    /// All of `locations`, several at a time, in the order given. The first failure ends it; what has arrived stays.
    pub async fn files(&self, locations: &[Location], progress: &dyn Progress) -> Result<Vec<PathBuf>> {
        progress.expect(locations.len());
        stream::iter(locations)
            .map(|l| self.file(l, progress))
            .buffered(self.0.config.parallel.max(1))
            .try_collect()
            .await
    }

    /// The content of a file of at most `limit` bytes.
    pub async fn bytes(&self, location: &Location, limit: usize) -> Result<Vec<u8>> {
        if let Some(found) = self.embedded(location) {
            return found.map(|bytes| bytes.to_vec());
        }
        let place = self.resolve(location)?;
        let large =
            |size: u64| Error::damaged(location.to_string(), format!("{size} bytes, more than the limit of {limit}"));
        if let Some(path) = place.local() {
            let (path, missing) = (path.to_owned(), not_found(location));
            let read = tokio::task::spawn_blocking(move || local::read(&path, limit)).await;
            let read = read.map_err(|e| Error::Config(format!("reading {location} was interrupted: {e}")))?;
            return read.map_err(|e| if e.is_not_found() { missing } else { e });
        }
        let cached = |fetcher: Self, place: Location| async move {
            let read = tokio::task::spawn_blocking(move || fetcher.0.cache.read(&place)).await;
            read.ok().flatten().map(|(bytes, _): (Vec<u8>, Meta)| bytes)
        };
        if let Some(bytes) = cached(self.clone(), place.clone()).await {
            return if bytes.len() > limit { Err(large(bytes.len() as u64)) } else { Ok(bytes) };
        }
        let path = self.fetch(&location.to_string(), &place, limit as u64, &()).await?;
        tokio::fs::read(&path).await.map_err(|e| Error::io(&path, e))
    }

    /// A large file of a store, to be read there. `None` where it is as well to have it here: it is small or local, in
    /// the cache already, or only the cache is used.
    ///
    /// # Errors
    /// If it is not there, or the store refuses or cannot be reached.
    pub async fn in_place(&self, location: &Location) -> Result<Option<RemoteFile>> {
        let place = self.resolve(location)?;
        // Of web servers it is not known whether they send parts of files.
        let in_store = matches!(place.root(), Root::S3(_) | Root::Azure { .. } | Root::Gcs(_));
        if !in_store || self.has(location) || self.0.config.offline {
            return Ok(None);
        }
        let (store, path) = self.0.in_place.open(&place)?;
        let file = RemoteFile::open(place, store, path, self.0.config.pace).await?;
        Ok(Some(file).filter(|file| file.len() >= self.0.config.in_place_from))
    }

    /// The content of a small file as it is now, past the cache.
    ///
    /// # Errors
    /// If it is not there or larger than `limit`, or the store refuses or cannot be reached.
    pub async fn now(&self, location: &Location, limit: usize) -> Result<Bytes> {
        let place = self.resolve(location)?;
        if let Some(path) = place.local() {
            return local::read(path, limit).map(Bytes::from);
        }
        if self.0.config.offline {
            return Err(Error::Offline { location: location.to_string() });
        }
        let (store, path) = self.0.in_place.open(&place)?;
        remote::whole(&place, &*store, &path, limit, self.0.config.pace).await
    }

    /// A folder of an object store to write to.
    ///
    /// # Errors
    /// If `location` is in no object store, or its store's settings are wrong.
    pub fn folder(&self, location: &Location, runtime: &Handle) -> Result<Folder> {
        Folder::open(location, &self.0.stores.for_writing(), runtime.clone())
    }

    /// Forgets what the cache has of `location`, because it turned out to be damaged. False if there was nothing to
    /// forget, so that asking again would give the same.
    pub fn forget(&self, location: &Location) -> bool {
        match self.resolve(location) {
            Ok(place) if place.local().is_none() && !self.0.config.offline && self.0.cache.get(&place).is_some() => {
                self.0.cache.drop_entry(&place);
                true
            }
            _ => false,
        }
    }

    /// Waits until a file of this store may be fetched.
    async fn slot(&self, root: &Root) -> Result<(OwnedSemaphorePermit, SemaphorePermit<'_>)> {
        let of_store = {
            let mut all = self.0.slots_of.lock().unwrap_or_else(PoisonError::into_inner);
            let new = || Arc::new(Semaphore::new(self.0.config.parallel.max(1)));
            all.entry(root.host()).or_insert_with(new).clone()
        };
        let closed = |e: tokio::sync::AcquireError| Error::Config(e.to_string());
        Ok((of_store.acquire_owned().await.map_err(closed)?, self.0.slots.acquire().await.map_err(closed)?))
    }

    /// Fetches `place` into the cache unless another task or process has done so in the meantime.
    async fn fetch(&self, name: &str, place: &Location, limit: u64, progress: &dyn Progress) -> Result<PathBuf> {
        if self.0.config.offline {
            return Err(Error::Offline { location: place.to_string() });
        }
        let _slot = self.slot(place.root()).await?;
        self.0.cache.sweep_unfinished();
        let path = self.0.cache.partial_path(place);
        let Some(mut partial) = Partial::lock(&path, place, || self.0.cache.get(place).is_some()).await? else {
            return self.0.cache.get(place).map(|(path, _)| path).ok_or_else(|| Error::Io {
                path: path.display().to_string(),
                reason: "the cache entry vanished while it was waited for".into(),
            });
        };
        let (mut failures, mut farthest) = (0, partial.len());
        loop {
            let failure = match self.transfer(name, place, limit, &mut partial, progress).await {
                Ok(()) => break,
                Err(failure) => failure,
            };
            partial.sync().await?;
            // A server that breaks off early every time and cannot resume makes no progress, however much it sends; nor
            // does one that sends a few bytes every time.
            if partial.len() >= farthest + self.0.config.pace.bytes.max(1) {
                (failures, farthest) = (1, partial.len());
            } else {
                failures += 1;
            }
            let (reason, tries) = match failure {
                Stop::Error(e) => {
                    partial.discard();
                    return Err(e);
                }
                Stop::Failed(Failure::NotFound) => {
                    partial.discard();
                    return Err(not_found(place));
                }
                Stop::Failed(Failure::Denied(reason)) => {
                    partial.discard();
                    return Err(Error::Denied { location: place.to_string(), reason });
                }
                Stop::Failed(Failure::Fatal(reason)) => {
                    partial.discard();
                    return Err(Error::Network { location: place.to_string(), reason });
                }
                Stop::Failed(Failure::Changed) => {
                    partial.restart()?;
                    ("the file changed on the server, or the server cannot resume".to_string(), self.0.config.retries)
                }
                Stop::Failed(Failure::Connect(reason)) => (no_network(&reason), self.0.config.retries.min(3)),
                Stop::Failed(Failure::Transient(reason)) => (reason, self.0.config.retries),
            };
            if failures > tries {
                if partial.len() == 0 {
                    partial.discard();
                }
                let reason = if tries == 0 { reason } else { format!("{reason} (tried {failures} times)") };
                return Err(Error::Network { location: place.to_string(), reason });
            }
            progress.note(name, &format!("{reason}; trying again"));
            tracing::debug!(location = %place, reason, failures, "a fetch failed and is tried again");
            tokio::time::sleep(pause(self.0.config.pause, failures)).await;
        }
        let etag = partial.etag();
        let crc = partial.finish().await?;
        let adopted = self.0.cache.adopt(place, &path, crc, etag);
        drop(partial);
        adopted
    }

    /// One try: continues where the partial file ends, or begins anew if that cannot be done.
    async fn transfer(
        &self,
        name: &str,
        place: &Location,
        limit: u64,
        partial: &mut Partial,
        progress: &dyn Progress,
    ) -> Result<(), Stop> {
        let (store, path) = self.0.stores.open(place)?;
        let options = match partial.len() {
            0 => object_store::GetOptions::default(),
            n => object_store::GetOptions::default().with_range(Some(object_store::GetRange::Offset(n))),
        };
        let answer = store.get_opts(&path, options).await?;
        remote::check_encoding(place, &answer)?;
        let transfer = Transfer { size: answer.meta.size, etag: answer.meta.e_tag.clone() };
        if transfer.size > limit {
            let problem = format!("{} bytes, more than the limit of {limit}", transfer.size);
            return Err(Stop::Error(Error::damaged(place.to_string(), problem)));
        }
        let room = self.0.cache.limit();
        if transfer.size > room {
            let problem = format!("{} bytes, and the cache may hold {room} (TDB_CACHE_SIZE)", transfer.size);
            return Err(Stop::Error(Error::damaged(place.to_string(), problem)));
        }
        if answer.range.start != partial.len() || !partial.continues(&transfer) {
            return Err(Stop::Failed(Failure::Changed));
        }
        partial.begin(&transfer)?;
        progress.started(name, partial.len(), transfer.size);
        let mut body = answer.into_stream();
        let mut watch = Watch::new(self.0.config.pace);
        while let Some(chunk) = watch.wait(body.next()).await {
            let chunk = chunk?;
            if partial.len() + chunk.len() as u64 > transfer.size {
                return Err(Stop::Failed(Failure::Changed));
            }
            partial.write(&chunk).await?;
            progress.advanced(name, chunk.len() as u64);
            if partial.len() < transfer.size
                && let Some(slow) = watch.count(chunk.len())
            {
                return Err(Stop::Failed(Failure::Transient(slow)));
            }
        }
        if partial.len() != transfer.size {
            let text = format!("the connection ended after {} of {} bytes", partial.len(), transfer.size);
            return Err(Stop::Failed(Failure::Transient(text)));
        }
        Ok(())
    }
}

enum Stop {
    Error(Error),
    Failed(Failure),
}

impl From<Error> for Stop {
    fn from(e: Error) -> Self {
        Self::Error(e)
    }
}

impl From<object_store::Error> for Stop {
    fn from(e: object_store::Error) -> Self {
        Self::Failed(Failure::of(&e))
    }
}

pub(crate) fn not_found(location: &Location) -> Error {
    Error::NotFound(format!("{location} does not exist"))
}

fn no_network(reason: &str) -> String {
    format!("no connection could be made ({reason}); is there a network? What was fetched before is used without one")
}

/// Doubles with every failure, up to 64 times the first pause, give or take a quarter so that many do not come at once.
fn pause(first: Duration, failures: u32) -> Duration {
    first * 2u32.pow((failures.saturating_sub(1)).min(6)) * (768 + (random() % 512) as u32) / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        assert_eq!(parse_size("1024"), Some(1024));
        assert_eq!(parse_size("20G"), Some(20 << 30));
        assert_eq!(parse_size("500 MiB"), Some(500 << 20));
        assert_eq!(parse_size("lots"), None);
        assert_eq!(parse_size(""), None);
    }

    #[test]
    fn pauses_grow_and_end() {
        let first = Duration::from_millis(100);
        for (failures, expected) in [(1, 100), (2, 200), (7, 6400), (40, 6400)] {
            let p = pause(first, failures).as_millis() as i64;
            assert!((p - expected).abs() <= expected / 4, "{failures}: {p}");
        }
    }
}
