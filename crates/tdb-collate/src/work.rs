//! Work units: a shard and a range of layers, each with a file of its own that anyone may make and anyone may merge.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::ops::Range;
use std::path::PathBuf;

use tdb_data::Put;
use tdb_model::{Tokenizer, Transformer};

use crate::collect::{Job, Watch, summarize};
use crate::corpus::{self, Sequences, Shard, Unreadable, Versions, mix};
use crate::summary::{Interval, Plan};
use crate::{Error, Parts, Result, Summaries, UnitName};

/// A collation as it is asked for.
pub struct Collation<'a> {
    pub model: &'a Transformer,
    pub tokenizer: &'a Tokenizer,
    pub files: &'a [PathBuf],
    /// Of those files, from before they were read first.
    pub versions: Versions,
    pub plan: Plan,
    /// Ranges of layers; every one of them reads and runs the whole text.
    pub layers: Vec<Range<usize>>,
    pub threads: usize,
    /// Where the summaries go.
    pub summaries: Summaries,
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
    /// The work units of one shard, or of all, in the order in which they are made.
    pub fn units(&self, shard: Option<usize>) -> Vec<UnitName> {
        let shards = shard.map_or(0..self.plan.shards, |shard| shard..shard + 1);
        let of_shard = |shard| self.layers.iter().map(move |layers| UnitName::new(&self.plan, shard, layers));
        shards.flat_map(of_shard).collect()
    }

    /// Makes the work units of one shard, or of all, that are not there yet.
    ///
    /// # Errors
    /// If a unit that is there is of another collation, or making one fails. Finished ones stay.
    pub fn run(&self, shard: Option<usize>, watch: &dyn Watch) -> Result<Done> {
        let mut done = Done::default();
        let there = self.finished()?;
        for unit in self.units(shard) {
            if there.contains(&unit) {
                done.kept += 1;
                continue;
            }
            watch.note(&format!(
                "shard {} of {}, layers {} to {}",
                unit.shard,
                unit.shards,
                unit.layers.0,
                unit.layers.1 - 1
            ));
            match self.make(&unit, watch).map_err(|e| with_count(e, done))? {
                Put::Written => done.made += 1,
                Put::There => done.kept += 1,
            }
        }
        Ok(done)
    }

    /// The units that are there.
    ///
    /// # Errors
    /// If one of another collation or of other ranges of layers is among them, or two cover the same: before time is spent
    /// on more, it is said.
    pub fn finished(&self) -> Result<BTreeSet<UnitName>> {
        let finished = self.of_this_collation()?;
        Parts::none_twice(&self.summaries)?;
        Ok(finished)
    }

    /// The units that are there, if all of them are of this collation.
    fn of_this_collation(&self) -> Result<BTreeSet<UnitName>> {
        let hash = self.plan.hash();
        let mut found = BTreeSet::new();
        for name in self.summaries.list()? {
            let of_plan = UnitName::parse(&name).filter(|unit| unit.plan == hash);
            let difference = match &of_plan {
                Some(unit) => self.otherwise_divided(unit),
                None => self.summaries.read_head(&name)?.plan.difference(&self.plan),
            };
            if let Some(difference) = difference {
                let what = format!("{} and what is asked for", self.summaries.place(&name).display());
                return Err(Error::Mismatch { what, difference });
            }
            found.extend(of_plan);
        }
        Ok(found)
    }

    /// Whether a unit has some but not all layers of a range that is asked for.
    fn otherwise_divided(&self, unit: &UnitName) -> Option<String> {
        let (from, to) = unit.layers;
        let asked = self.layers.iter().find(|asked| asked.start < to && from < asked.end && **asked != (from..to))?;
        Some(format!("layers {from}..{to} are together in one and {}..{} in the other", asked.start, asked.end))
    }

    /// Makes a unit and writes its summary.
    ///
    /// # Errors
    /// If it cannot be made or written, a file of the text was changed meanwhile, or somebody has begun another collation
    /// in the same place: of two that began at the same time, one goes no further than its first unit.
    pub fn make(&self, unit: &UnitName, watch: &dyn Watch) -> Result<Put> {
        let part = Shard { index: unit.shard, count: self.plan.shards };
        let n_vocab = self.model.config().n_vocab;
        let sequences = Sequences::new(self.files, self.tokenizer.clone(), n_vocab, self.plan.cutting.clone(), part)?;
        let mut sequences = sequences.counting(&self.unreadable);
        let job = Job { model: self.model, plan: &self.plan, layers: unit.layers(), threads: self.threads, watch };
        let mut summary = summarize(&job, &mut sequences)?;
        let seen = summary.layers.values().next().map_or((0, 0), |layer| (layer.sequences, layer.tokens));
        summary.covers.push(Interval {
            first: unit.shard as u64,
            step: self.plan.shards as u64,
            end: sequences.documents(),
            sequences: seen.0,
            tokens: seen.1,
        });
        self.versions.check()?;
        self.of_this_collation()?;
        self.summaries.write(&unit.file(), &summary)
    }
}

fn with_count(error: Error, done: Done) -> Error {
    match error {
        Error::Cancelled { .. } => Error::Cancelled { finished: done.made + done.kept },
        other => other,
    }
}
