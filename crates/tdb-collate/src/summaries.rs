//! Where the summaries of finished work units lie: a folder of this machine, or one of an object store.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use tdb_data::{Folder, Put};

use crate::codec::Head;
use crate::summary::{Plan, Summary};
use crate::{Error, Result, file};

/// Bytes in which a summary's head is looked for; a long list of files takes more.
const HEAD_BYTES: [u64; 2] = [1 << 14, 1 << 22];

/// The folder of the summaries.
#[derive(Clone, Debug)]
pub enum Summaries {
    Local(PathBuf),
    Store(Folder),
}

/// What a work unit is of; its name says all of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnitName {
    /// See [`Plan::hash`].
    pub plan: String,
    pub layers: (usize, usize),
    pub shard: usize,
    pub shards: usize,
}

impl UnitName {
    /// The unit of this shard and these layers.
    pub fn new(plan: &Plan, shard: usize, layers: &Range<usize>) -> Self {
        Self { plan: plan.hash(), layers: (layers.start, layers.end), shard, shards: plan.shards }
    }

    /// The layers.
    pub fn layers(&self) -> Range<usize> {
        self.layers.0..self.layers.1
    }

    /// The name of its file.
    pub fn file(&self) -> String {
        let Self { plan, layers: (from, to), shard, shards } = self;
        format!("shard-{shard:05}-of-{shards:05}.layers-{from:03}-{to:03}.{plan}.summary")
    }

    /// Reads a file's name; `None` for any other name.
    pub fn parse(file: &str) -> Option<Self> {
        let (shard, rest) = file.strip_prefix("shard-")?.split_once("-of-")?;
        let (shards, rest) = rest.split_once(".layers-")?;
        let (from, rest) = rest.split_once('-')?;
        let (to, rest) = rest.split_once('.')?;
        let plan = rest.strip_suffix(".summary")?.to_owned();
        let number = |text: &str| text.parse::<usize>().ok();
        let name = Self { plan, layers: (number(from)?, number(to)?), shard: number(shard)?, shards: number(shards)? };
        (name.file() == file).then_some(name)
    }
}

impl Summaries {
    /// Makes sure that summaries can be written.
    ///
    /// # Errors
    /// If they cannot.
    pub fn check_writable(&self) -> Result<()> {
        match self {
            Self::Local(folder) => file::check_writable(folder),
            Self::Store(folder) => Ok(folder.check_writable()?),
        }
    }

    /// Names of all summaries that are there, ascending.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn list(&self) -> Result<Vec<String>> {
        let mut names = match self {
            Self::Local(folder) if !folder.exists() => Vec::new(),
            Self::Local(folder) => {
                let entries = fs::read_dir(folder).map_err(Error::file(folder))?;
                let entries = entries.collect::<std::io::Result<Vec<_>>>().map_err(Error::file(folder))?;
                entries.iter().map(|e| e.file_name().to_string_lossy().into_owned()).collect()
            }
            Self::Store(folder) => folder.list()?,
        };
        names.retain(|name| name.ends_with(".summary") && !name.starts_with('.') && !name.contains('/'));
        names.sort();
        Ok(names)
    }

    /// Whether a summary is there.
    ///
    /// # Errors
    /// If the store cannot be asked.
    pub fn has(&self, name: &str) -> Result<bool> {
        Ok(match self {
            Self::Local(folder) => folder.join(name).exists(),
            Self::Store(folder) => folder.size(name)?.is_some(),
        })
    }

    /// Where a summary is, for messages.
    pub fn place(&self, name: &str) -> PathBuf {
        match self {
            Self::Local(folder) => folder.join(name),
            Self::Store(folder) => PathBuf::from(folder.address_of(name)),
        }
    }

    /// The folder, for messages.
    pub fn folder(&self) -> PathBuf {
        match self {
            Self::Local(folder) => folder.clone(),
            Self::Store(folder) => PathBuf::from(folder.location().to_string()),
        }
    }

    /// Writes a summary, whole or not at all. One that is there already stays: whoever made it made the same.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, name: &str, summary: &Summary) -> Result<Put> {
        match self {
            Self::Local(folder) => {
                let written = summary.write_new(&folder.join(name))?;
                Ok(if written { Put::Written } else { Put::There })
            }
            Self::Store(folder) => Ok(folder.put_new(name, summary.to_bytes()?.into())?),
        }
    }

    /// Reads a summary.
    ///
    /// # Errors
    /// If it cannot be read or is damaged.
    pub fn read(&self, name: &str) -> Result<Summary> {
        match self {
            Self::Local(folder) => Summary::read(&folder.join(name)),
            Self::Store(folder) => {
                // By way of a file: its bytes and what they say need not be in memory together.
                let place = self.place(name);
                let failed = |e| Error::File { path: place.clone(), source: e };
                let mut file = tempfile::tempfile().map_err(failed)?;
                folder.download(name, &mut file)?;
                file.rewind().map_err(failed)?;
                Summary::read_from(&place, file)
            }
        }
    }

    /// Reads what a summary is of.
    ///
    /// # Errors
    /// As [`Summaries::read`], as far as it reads.
    pub fn read_head(&self, name: &str) -> Result<Head> {
        match self {
            Self::Local(folder) => Summary::read_head(&folder.join(name)),
            Self::Store(folder) => {
                let size = folder.size(name)?.unwrap_or(0);
                let read = |bytes: u64| {
                    let head = folder.read(name, Some(0..size.min(bytes)))?;
                    Summary::read_head_from(&self.place(name), &head)
                };
                read(HEAD_BYTES[0]).or_else(|_| read(HEAD_BYTES[1]))
            }
        }
    }

    /// The checksum that a summary ends with, in hexadecimal, and its size in bytes. Its content is not read.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn checksum(&self, name: &str) -> Result<(String, u64)> {
        let hex = |end: &[u8]| end.iter().rev().map(|byte| format!("{byte:02x}")).collect::<String>();
        let short = || Error::content(&self.place(name), "is too short to be a summary");
        match self {
            Self::Local(folder) => {
                let path = folder.join(name);
                let mut file = File::open(&path).map_err(Error::file(&path))?;
                let size = file.seek(SeekFrom::End(-8)).map_err(|_| short())? + 8;
                let mut end = [0; 8];
                file.read_exact(&mut end).map_err(Error::file(&path))?;
                Ok((hex(&end), size))
            }
            Self::Store(folder) => {
                let size = folder.size(name)?.unwrap_or(0);
                let from = size.checked_sub(8).ok_or_else(short)?;
                Ok((hex(&folder.read(name, Some(from..size))?), size))
            }
        }
    }
}

impl From<&Path> for Summaries {
    fn from(folder: &Path) -> Self {
        Self::Local(folder.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::UnitName;

    #[test]
    fn names_are_read_back_and_others_are_not_names() {
        let name = UnitName { plan: "00ff".into(), layers: (0, 12), shard: 3, shards: 64 };
        assert_eq!(name.file(), "shard-00003-of-00064.layers-000-012.00ff.summary");
        assert_eq!(UnitName::parse(&name.file()), Some(name));
        for other in
            ["copy.summary", "shard-3-of-64.layers-0-12.00ff.summary", "shard-00003-of-00064.layers-000-012.00ff"]
        {
            assert_eq!(UnitName::parse(other), None, "{other}");
        }
    }
}
