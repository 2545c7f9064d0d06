//! A file of a store, read where it is.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, path::Path};
use tokio::runtime::Handle;

use crate::{Error, Location, Result, stores::Failure};

/// Ranges that lie closer together are asked for as one.
const GAP: u64 = 64 << 10;

/// Requests at a time.
const PARALLEL: usize = 16;

/// A file that stays in its store. It is one version of it: when another is put in its place, reading fails.
#[derive(Debug)]
pub struct RemoteFile {
    location: Location,
    store: Arc<dyn ObjectStore>,
    path: Path,
    size: u64,
    etag: Option<String>,
    runtime: Handle,
}

impl RemoteFile {
    /// Asks the store what there is.
    pub(crate) async fn open(location: Location, store: Arc<dyn ObjectStore>, path: Path) -> Result<Self> {
        let meta = store.head(&path).await.map_err(|e| failed(&location, &e))?;
        Ok(Self { location, store, path, size: meta.size, etag: meta.e_tag, runtime: Handle::current() })
    }

    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        self.size
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.size == 0
    }

    /// Several ranges, in the order given. It blocks, and may not be called from a task of the runtime.
    ///
    /// # Errors
    /// If the file has changed, or the store cannot be reached.
    pub(crate) fn read(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let mut sorted: Vec<Range<u64>> = ranges.to_vec();
        sorted.sort_by_key(|range| range.start);
        let mut joined: Vec<Range<u64>> = Vec::new();
        for range in sorted {
            match joined.last_mut() {
                Some(last) if range.start <= last.end + GAP => last.end = last.end.max(range.end),
                _ => joined.push(range),
            }
        }
        let asked = stream::iter(joined.iter().cloned().map(|range| self.get(range))).buffered(PARALLEL);
        let pieces: Vec<Bytes> = self.runtime.block_on(asked.try_collect())?;
        let piece = |range: &Range<u64>| {
            let at = joined.partition_point(|j| j.end < range.end);
            let (from, piece) = (joined[at].start, &pieces[at]);
            piece.slice((range.start - from) as usize..(range.end - from) as usize)
        };
        Ok(ranges.iter().map(piece).collect())
    }

    async fn get(&self, range: Range<u64>) -> Result<Bytes> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let wanted = range.end - range.start;
        let options =
            GetOptions { range: Some(GetRange::Bounded(range)), if_match: self.etag.clone(), ..GetOptions::default() };
        let got = async { self.store.get_opts(&self.path, options).await?.bytes().await };
        let bytes = got.await.map_err(|e| failed(&self.location, &e))?;
        if bytes.len() as u64 != wanted {
            return Err(Error::damaged(self.location.to_string(), "the store sent another part than was asked for"));
        }
        Ok(bytes)
    }
}

/// All of a small file.
///
/// # Errors
/// If it is not there or larger than `limit`, or the store refuses or cannot be reached.
pub(crate) async fn whole(place: &Location, store: &dyn ObjectStore, path: &Path, limit: usize) -> Result<Bytes> {
    let mut pieces = store.get(path).await.map_err(|e| failed(place, &e))?.into_stream();
    let mut all = Vec::new();
    while let Some(piece) = pieces.next().await {
        all.extend_from_slice(&piece.map_err(|e| failed(place, &e))?);
        if all.len() > limit {
            return Err(Error::damaged(place.to_string(), format!("more than the limit of {limit} bytes")));
        }
    }
    Ok(all.into())
}

/// What a failed request means for whoever asked.
pub(crate) fn failed(place: &Location, error: &object_store::Error) -> Error {
    let location = place.to_string();
    match Failure::of(error) {
        Failure::NotFound => Error::NotFound(format!("{location} does not exist")),
        Failure::Denied(reason) => Error::Denied { location, reason },
        Failure::Changed => Error::damaged(location, "it has changed in its store"),
        Failure::Connect(reason) | Failure::Transient(reason) | Failure::Fatal(reason) => {
            Error::Network { location, reason }
        }
    }
}
