//! Work units: a shard and a range of layers, each with a file of its own that anyone may make and anyone may merge.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use tdb_model::{Tokenizer, Transformer};

use crate::collect::{Job, Watch, summarize};
use crate::corpus::{self, Sequences, Shard, Unreadable, mix};
use crate::summary::{Plan, Summary};
use crate::{Error, Result};

/// A collation as it is asked for.
pub struct Collation<'a> {
    pub model: &'a Transformer,
    pub tokenizer: &'a Tokenizer,
    pub files: &'a [PathBuf],
    pub plan: Plan,
    /// Ranges of layers; every one of them reads and runs the whole text.
    pub layers: Vec<Range<usize>>,
    pub threads: usize,
    /// Where the summaries go.
    pub folder: PathBuf,
    /// Counts the documents that cannot be read.
    pub unreadable: Unreadable,
}

/// What a run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Work units that were made now.
    pub made: usize,
    /// Those that an earlier run had finished.
    pub kept: usize,
}

/// Name and size of every file.
///
/// # Errors
/// If one does not exist, or is nothing that documents can be read from.
pub fn describe_corpus(files: &[PathBuf]) -> Result<Vec<(String, u64)>> {
    let describe = |path: &PathBuf| {
        corpus::check(path)?;
        let size = fs::metadata(path).map_err(Error::file(path))?.len();
        Ok((path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(), size))
    };
    files.iter().map(describe).collect()
}

/// A number that tells the contents of files apart, in hexadecimal.
///
/// # Errors
/// If one cannot be read.
pub fn fingerprint_corpus(files: &[PathBuf]) -> Result<String> {
    let mut hash = 0u64;
    let mut block = Vec::new();
    for path in files {
        let mut file = fs::File::open(path).map_err(Error::file(path))?;
        // Full blocks of whole words; only a file's last word may be cut.
        while file.by_ref().take(1 << 20).read_to_end(&mut block).map_err(Error::file(path))? > 0 {
            for word in block.chunks(8) {
                let mut bytes = [0; 8];
                bytes[..word.len()].copy_from_slice(word);
                hash = mix(hash ^ u64::from_le_bytes(bytes));
            }
            block.clear();
        }
    }
    Ok(format!("{hash:016x}"))
}

/// The layers `from..to` in parts of `each`.
pub fn split_layers(layers: Range<usize>, each: usize) -> Vec<Range<usize>> {
    layers.clone().step_by(each.max(1)).map(|from| from..(from + each.max(1)).min(layers.end)).collect()
}

impl Collation<'_> {
    /// Makes the work units of one shard, or of all, that are not there yet.
    ///
    /// # Errors
    /// If a unit that is there is of another collation, or making one fails. Finished ones stay.
    pub fn run(&self, shard: Option<usize>, watch: &dyn Watch) -> Result<Done> {
        let mut done = Done::default();
        let shards = match shard {
            Some(shard) => shard..shard + 1,
            None => 0..self.plan.shards,
        };
        self.check_folder()?;
        for shard in shards {
            for layers in &self.layers {
                let path = self.folder.join(file_name(shard, self.plan.shards, layers));
                if path.exists() {
                    done.kept += 1;
                    continue;
                }
                watch.note(&format!(
                    "shard {shard} of {}, layers {} to {}",
                    self.plan.shards,
                    layers.start,
                    layers.end - 1
                ));
                self.make(shard, layers, watch).map_err(|e| with_count(e, done))?.write(&path)?;
                done.made += 1;
            }
        }
        Ok(done)
    }

    /// Everything in the folder must be of this collation, before time is spent on more of it.
    fn check_folder(&self) -> Result<()> {
        if !self.folder.exists() {
            return Ok(());
        }
        for path in summaries(&self.folder)? {
            let head = Summary::read_head(&path)?;
            if let Some(difference) = head.plan.difference(&self.plan) {
                let what = format!("{} and what is asked for", path.display());
                return Err(Error::Mismatch { what, difference });
            }
        }
        Ok(())
    }

    fn make(&self, shard: usize, layers: &Range<usize>, watch: &dyn Watch) -> Result<Summary> {
        let part = Shard { index: shard, count: self.plan.shards };
        let n_vocab = self.model.config().n_vocab;
        let sequences = Sequences::new(self.files, self.tokenizer.clone(), n_vocab, self.plan.cutting.clone(), part)?;
        let sequences = sequences.counting(&self.unreadable);
        let job = Job { model: self.model, plan: &self.plan, layers: layers.clone(), threads: self.threads, watch };
        summarize(&job, shard, sequences)
    }
}

fn with_count(error: Error, done: Done) -> Error {
    match error {
        Error::Cancelled { .. } => Error::Cancelled { finished: done.made + done.kept },
        other => other,
    }
}

fn file_name(shard: usize, shards: usize, layers: &Range<usize>) -> String {
    format!("shard-{shard:05}-of-{shards:05}.layers-{:03}-{:03}.summary", layers.start, layers.end)
}

/// Merges the summaries in `folder` and hands on one for each range of layers, ascending. Two of them are in memory at a
/// time.
///
/// # Errors
/// If there are none, some are missing, or they are of different collations.
pub fn merge(folder: &Path, mut take: impl FnMut(Summary) -> Result<()>) -> Result<()> {
    let mut groups: BTreeMap<Vec<usize>, Vec<(PathBuf, Vec<usize>)>> = BTreeMap::new();
    let mut plan: Option<(PathBuf, Plan)> = None;
    for path in summaries(folder)? {
        let head = Summary::read_head(&path)?;
        match &plan {
            None => plan = Some((path.clone(), head.plan)),
            Some((first, plan)) => {
                if let Some(difference) = plan.difference(&head.plan) {
                    let what = format!("{} and {}", first.display(), path.display());
                    return Err(Error::Mismatch { what, difference });
                }
            }
        }
        groups.entry(head.layers).or_default().push((path, head.shards));
    }
    let Some((_, plan)) = plan else { return Err(Error::content(folder, "there are no summaries in this folder")) };
    let mut seen: BTreeMap<usize, &Vec<usize>> = BTreeMap::new();
    for (layers, files) in &groups {
        for layer in layers {
            if let Some(other) = seen.insert(*layer, layers) {
                let message = format!("layer {layer} is both in {} and in {}", span(other), span(layers));
                return Err(Error::content(folder, message));
            }
        }
        let have: Vec<usize> = files.iter().flat_map(|f| &f.1).copied().collect();
        let missing: Vec<String> =
            (0..plan.shards).filter(|s| !have.contains(s)).take(10).map(|s| format!("{s}/{}", plan.shards)).collect();
        if !missing.is_empty() {
            let message = format!("of {}, these shards are missing: {}", span(layers), missing.join(", "));
            return Err(Error::content(folder, message));
        }
    }
    for files in groups.into_values() {
        let mut merged: Option<Summary> = None;
        for (path, _) in files {
            let next = Summary::read(&path)?;
            match &mut merged {
                None => merged = Some(next),
                Some(merged) => merged.merge(next)?,
            }
        }
        merged.map_or(Ok(()), &mut take)?;
    }
    Ok(())
}

fn span(layers: &[usize]) -> String {
    match layers {
        [only] => format!("layer {only}"),
        [first, .., last] => format!("layers {first} to {last}"),
        [] => "no layers".to_owned(),
    }
}

fn summaries(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(Error::file(folder))?;
    let mut out = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::file(folder))?.path();
        let hidden = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'));
        if !hidden && path.extension().is_some_and(|e| e == "summary") {
            out.push(path);
        }
    }
    out.sort();
    Ok(out)
}
