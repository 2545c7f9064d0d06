//! A folder of an object store that is written to.
//!
//! Everything here blocks, for threads that compute: none may be called from a task of the runtime.

use std::{io::Write, ops::Range, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, buffered::BufWriter, path::Path};
use tokio::{
    io::{AsyncWriteExt, copy},
    runtime::Handle,
};

use crate::{Error, Location, Result, location::Root, random::random, remote::failed, stores::Stores};

/// Sent at a time where a file is too large for one request.
const PART_BYTES: usize = 16 << 20;

/// A folder in a store.
#[derive(Debug, Clone)]
pub struct Folder {
    location: Location,
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    runtime: Handle,
}

/// What became of a file that was to be written unless it was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    Written,
    /// Somebody else's was there first, and stays.
    There,
}

impl Folder {
    /// The folder at `location`, which need not be there yet.
    ///
    /// # Errors
    /// If it is in no object store, or the store's settings are wrong.
    pub(crate) fn open(location: &Location, stores: &Stores, runtime: Handle) -> Result<Self> {
        if !matches!(location.root(), Root::Azure { .. } | Root::S3(_) | Root::Gcs(_)) {
            return Err(Error::Config(format!(
                "{location} cannot be written to; a folder of this machine, s3://, az:// and gs:// can"
            )));
        }
        let (store, prefix) = stores.open(location)?;
        Ok(Self { location: location.clone(), store, prefix, runtime })
    }

    /// Where it is.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// What people call the file `name`.
    pub fn address_of(&self, name: &str) -> String {
        format!("{}/{name}", self.location.to_string().trim_end_matches('/'))
    }

    /// Where the file `name` is.
    ///
    /// # Errors
    /// If the name leads elsewhere.
    pub fn place(&self, name: &str) -> Result<Location> {
        self.location.join(name)
    }

    /// The folder `name` in this one.
    ///
    /// # Errors
    /// If the name leads elsewhere.
    pub fn folder(&self, name: &str) -> Result<Self> {
        Ok(Self { location: self.place(name)?, prefix: self.path(name), ..self.clone() })
    }

    /// The paths of all files below, ascending.
    ///
    /// # Errors
    /// If the store cannot be asked.
    pub fn list(&self) -> Result<Vec<String>> {
        let prefix = (!self.prefix.as_ref().is_empty()).then_some(&self.prefix);
        let found = self.runtime.block_on(self.store.list(prefix).try_collect::<Vec<_>>());
        let found = found.map_err(|e| failed(&self.location, &e))?;
        let below = |path: &Path| {
            let parts = path.prefix_match(&self.prefix)?;
            Some(parts.map(|p| p.as_ref().to_owned()).collect::<Vec<_>>().join("/"))
        };
        let mut names: Vec<String> = found.iter().filter_map(|meta| below(&meta.location)).collect();
        names.retain(|name| !name.is_empty());
        names.sort();
        Ok(names)
    }

    /// The size of a file in bytes, if it is there.
    ///
    /// # Errors
    /// If the store cannot be asked.
    pub fn size(&self, name: &str) -> Result<Option<u64>> {
        match self.runtime.block_on(self.store.head(&self.path(name))) {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(failed(&self.place(name)?, &error)),
        }
    }

    /// Writes a file, whole or not at all, unless there is one of this name.
    ///
    /// # Errors
    /// If the store refuses or cannot be reached.
    pub fn put_new(&self, name: &str, content: Bytes) -> Result<Put> {
        let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.runtime.block_on(self.store.put_opts(&self.path(name), content.clone().into(), create)) {
            Ok(_) => Ok(Put::Written),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => Ok(Put::There),
            // Some that speak S3 know no condition. Twins write the same bytes, so that the loser does no harm there.
            Err(object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. }) => {
                if self.size(name)?.is_some() {
                    return Ok(Put::There);
                }
                let put = self.runtime.block_on(self.store.put(&self.path(name), content.into()));
                put.map(|_| Put::Written).map_err(|e| unsent(&self.location, &e))
            }
            Err(error) => Err(unsent(&self.place(name)?, &error)),
        }
    }

    /// Writes a file of this machine under `name`, in place of what is there.
    ///
    /// # Errors
    /// If it cannot be read, or the store refuses or cannot be reached.
    pub fn upload(&self, name: &str, file: &std::path::Path) -> Result<()> {
        let mut out = BufWriter::with_capacity(self.store.clone(), self.path(name), PART_BYTES);
        let sent: std::io::Result<u64> = self.runtime.block_on(async {
            let mut input = tokio::fs::File::open(file).await?;
            let sent = copy(&mut input, &mut out).await?;
            out.shutdown().await?;
            Ok(sent)
        });
        let place = self.place(name)?;
        sent.map(|_| ()).map_err(|e| match e.get_ref().and_then(|e| e.downcast_ref::<object_store::Error>()) {
            Some(error) => unsent(&place, error),
            None => Error::Unsent { location: place.to_string(), reason: e.to_string() },
        })
    }

    /// A part of a file, or all of it.
    ///
    /// # Errors
    /// [`Error::NotFound`] if it is not there; if the store refuses or cannot be reached.
    pub fn read(&self, name: &str, range: Option<Range<u64>>) -> Result<Bytes> {
        let path = self.path(name);
        let read = self.runtime.block_on(async {
            match range {
                Some(range) => self.store.get_range(&path, range).await,
                None => self.store.get(&path).await?.bytes().await,
            }
        });
        read.map_err(|e| self.place(name).map_or_else(|bad| bad, |place| failed(&place, &e)))
    }

    /// Copies a file to `out`, piece by piece.
    ///
    /// # Errors
    /// As [`Folder::read`], and if `out` fails.
    pub fn download(&self, name: &str, out: &mut dyn Write) -> Result<()> {
        let place = self.place(name)?;
        self.runtime.block_on(async {
            let found = self.store.get(&self.path(name)).await.map_err(|e| failed(&place, &e))?;
            let mut pieces = found.into_stream();
            while let Some(piece) = pieces.next().await {
                let piece = piece.map_err(|e| failed(&place, &e))?;
                out.write_all(&piece).map_err(|e| Error::Io { path: place.to_string(), reason: e.to_string() })?;
            }
            Ok(())
        })
    }

    /// Removes a file.
    ///
    /// # Errors
    /// If the store refuses or cannot be reached.
    pub fn remove(&self, name: &str) -> Result<()> {
        let place = self.place(name)?;
        self.runtime.block_on(self.store.delete(&self.path(name))).map_err(|e| failed(&place, &e))
    }

    /// Writes a file and removes it again, so that a folder that cannot be written to is known before anything is
    /// computed for it.
    ///
    /// # Errors
    /// If it cannot.
    pub fn check_writable(&self) -> Result<()> {
        let name = format!("writable-{}-{:08x}", std::process::id(), random() as u32);
        let tried = self.put_new(&name, Bytes::from_static(b"tdb\n")).and_then(|_| self.remove(&name));
        tried.map_err(|error| Error::Config(format!("{} cannot be written to: {error}", self.location)))
    }

    fn path(&self, name: &str) -> Path {
        name.split('/').fold(self.prefix.clone(), |path, part| path.join(part))
    }
}

/// What a failed write means for whoever asked.
fn unsent(place: &Location, error: &object_store::Error) -> Error {
    match failed(place, error) {
        Error::Network { location, reason } => Error::Unsent { location, reason },
        Error::NotFound(_) => {
            Error::Unsent { location: place.to_string(), reason: "there is no such bucket or container".to_owned() }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FetchConfig, Fetcher, Registry};
    use object_store::memory::InMemory;

    #[test]
    fn the_first_of_two_files_of_a_name_stays() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let location = Location::parse("s3://bucket/deep/er").unwrap();
        let (store, prefix) = (Arc::new(InMemory::new()), Path::from("deep/er"));
        let folder = Folder { location, store, prefix, runtime: runtime.handle().clone() };
        folder.check_writable().unwrap();
        assert_eq!(folder.put_new("a/one", Bytes::from_static(b"first")).unwrap(), Put::Written);
        assert_eq!(folder.put_new("a/one", Bytes::from_static(b"second")).unwrap(), Put::There);
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("two");
        std::fs::write(&file, b"second").unwrap();
        folder.upload("a/two", &file).unwrap();
        folder.upload("a/two", &file).unwrap();
        assert_eq!(folder.read("a/one", None).unwrap(), "first");
        assert_eq!(folder.folder("a").unwrap().read("one", Some(1..3)).unwrap(), "ir");
        assert_eq!(folder.list().unwrap(), ["a/one", "a/two"]);
        assert_eq!(folder.folder("a").unwrap().list().unwrap(), ["one", "two"]);
        assert_eq!((folder.size("a/two").unwrap(), folder.size("a/three").unwrap()), (Some(6), None));
        let mut copy = Vec::new();
        folder.download("a/two", &mut copy).unwrap();
        assert_eq!(copy, b"second");
        folder.remove("a/two").unwrap();
        assert!(folder.read("a/two", None).unwrap_err().is_not_found());
        assert!(folder.place("../x").is_err());
    }

    #[test]
    fn a_web_server_cannot_be_written_to() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let fetcher = Fetcher::new(FetchConfig::from_env().unwrap(), &Registry::default());
        let location = Location::parse("https://example.org/x").unwrap();
        let message = fetcher.folder(&location, runtime.handle()).unwrap_err().to_string();
        assert!(message.contains("https://example.org/x cannot be written to"), "{message}");
    }
}
