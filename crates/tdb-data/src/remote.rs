//! A file of a store, read where it is.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{Attribute, GetOptions, GetRange, GetResult, ObjectStore, ObjectStoreExt, path::Path};
use tokio::runtime::Handle;

use crate::{
    Error, Location, Result,
    pace::{Pace, Watch},
    stores::Failure,
};

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
    pace: Pace,
    runtime: Handle,
}

impl RemoteFile {
    /// Asks the store what there is.
    pub(crate) async fn open(location: Location, store: Arc<dyn ObjectStore>, path: Path, pace: Pace) -> Result<Self> {
        let meta = store.head(&path).await.map_err(|e| failed(&location, &e))?;
        Ok(Self { location, store, path, size: meta.size, etag: meta.e_tag, pace, runtime: Handle::current() })
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
        let answer = self.store.get_opts(&self.path, options).await.map_err(|e| failed(&self.location, &e))?;
        // Not every store heeds the condition.
        if self.etag.is_some() && answer.meta.e_tag != self.etag {
            return Err(Error::damaged(self.location.to_string(), CHANGED));
        }
        let bytes = collect(&self.location, answer, wanted, self.pace).await?;
        if bytes.len() as u64 != wanted {
            return Err(Error::damaged(self.location.to_string(), "the store sent another part than was asked for"));
        }
        Ok(bytes)
    }
}

const CHANGED: &str = "it has changed in its store";

/// All of a small file.
///
/// # Errors
/// If it is not there or larger than `limit`, or the store refuses or cannot be reached.
pub(crate) async fn whole(
    place: &Location,
    store: &dyn ObjectStore,
    path: &Path,
    limit: usize,
    pace: Pace,
) -> Result<Bytes> {
    let answer = store.get(path).await.map_err(|e| failed(place, &e))?;
    check_encoding(place, &answer)?;
    let all = collect(place, answer, limit as u64, pace).await?;
    if all.len() > limit {
        return Err(Error::damaged(place.to_string(), format!("more than the limit of {limit} bytes")));
    }
    Ok(all)
}

/// What an answer brings; of one with more than `most` bytes, somewhat more than these.
async fn collect(place: &Location, answer: GetResult, most: u64, pace: Pace) -> Result<Bytes> {
    let size = answer.range.end - answer.range.start;
    let (mut body, mut watch, mut all) = (answer.into_stream(), Watch::new(pace), Vec::new());
    while let Some(piece) = watch.wait(body.next()).await {
        let piece = piece.map_err(|e| failed(place, &e))?;
        all.extend_from_slice(&piece);
        if all.len() as u64 > most {
            break;
        }
        if (all.len() as u64) < size
            && let Some(reason) = watch.count(piece.len())
        {
            return Err(Error::Network { location: place.to_string(), reason });
        }
    }
    Ok(all.into())
}

/// Refuses a file that was compressed for its way here.
pub(crate) fn check_encoding(place: &Location, answer: &GetResult) -> Result<()> {
    let encoding = answer.attributes.get(&Attribute::ContentEncoding).map(|encoding| encoding.to_lowercase());
    let encoding = encoding.unwrap_or_default();
    // Some stores keep the name of how a file was sent to them.
    let is_as_it_is = encoding.split(',').all(|part| matches!(part.trim(), "" | "identity" | "aws-chunked"));
    // Some servers say of a file that is compressed in itself what it is.
    let is_its_own = matches!(encoding.trim(), "gzip" | "x-gzip") && place.path().ends_with(".gz");
    if is_as_it_is || is_its_own {
        return Ok(());
    }
    let problem = format!("the server sends it compressed (content-encoding: {encoding}), and it is not unpacked here");
    Err(Error::damaged(place.to_string(), problem))
}

/// What a failed request means for whoever asked.
pub(crate) fn failed(place: &Location, error: &object_store::Error) -> Error {
    let location = place.to_string();
    match Failure::of(error) {
        Failure::NotFound => Error::NotFound(format!("{location} does not exist")),
        Failure::Denied(reason) => Error::Denied { location, reason },
        Failure::Changed => Error::damaged(location, CHANGED),
        Failure::Connect(reason) | Failure::Transient(reason) | Failure::Fatal(reason) => {
            Error::Network { location, reason }
        }
    }
}
