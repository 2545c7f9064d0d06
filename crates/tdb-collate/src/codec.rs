//! Summaries as files.
//!
//! ```text
//! "TDBSUM5\n", then in postcard's encoding: the head, the sequences that occur, and of each layer its counts and its
//! units one by one; at the end a CRC-64 of all that, 8 bytes, little-endian
//! ```
//!
//! The same summary is the same bytes. Units are written and read one at a time; the checksum is compared before
//! anything is read.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};
use std::path::Path;
use std::sync::Arc;

use crc_fast::{CrcAlgorithm, Digest};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tdb_data::Histogram;

use crate::corpus::Sequence;
use crate::example::{Example, Sample, Top};
use crate::measure::Values;
use crate::summary::{Interval, KindSummary, LayerSummary, Plan, Summary, UnitSummary};
use crate::unit::Kind;
use crate::{Error, ExactSum, Result, file};

const MAGIC: &[u8; 8] = b"TDBSUM5\n";
const CRC_BYTES: u64 = 8;

/// What stands at the beginning of a summary's file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    pub plan: Plan,
    pub covers: Vec<Interval>,
    pub layers: Vec<usize>,
}

/// A layer's counts; the units of the kinds follow it in the file, kind by kind.
#[derive(Serialize, Deserialize)]
struct StoredLayer {
    index: usize,
    sequences: u64,
    tokens: u64,
    pairs: u64,
    /// With the number of units of each.
    kinds: Vec<(Kind, usize)>,
}

#[derive(Serialize, Deserialize)]
struct StoredUnit {
    positive_values: u64,
    active_sequences: u64,
    active_first: u64,
    /// The bins of the exact sums.
    powers: [Vec<(i16, i128)>; 4],
    /// Exponent, first bin and counts of the histogram.
    histogram: (i8, i32, Vec<u64>),
    top: Vec<StoredExample>,
    random: Vec<StoredExample>,
    active: Vec<StoredExample>,
}

#[derive(Serialize, Deserialize)]
struct StoredExample {
    priority: u64,
    figure: f32,
    /// Index into the file's sequences.
    sequence: usize,
    values: StoredValues,
}

#[derive(Serialize, Deserialize)]
enum StoredValues {
    Dense(Vec<f32>),
    Sparse { len: u32, entries: Vec<(u32, f32)> },
}

impl Summary {
    /// Writes the summary, whole or not at all.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        file::write(path, |out| self.write_all(out))
    }

    /// As [`Summary::write`], unless there is a file of this name. Whether it was written.
    ///
    /// # Errors
    /// As [`Summary::write`].
    pub fn write_new(&self, path: &Path) -> Result<bool> {
        file::write_new(path, |out| self.write_all(out))
    }

    /// The bytes of a summary's file.
    ///
    /// # Errors
    /// If a number is none that the format has.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        self.write_all(&mut out).map_err(|error| Error::setting("summary", error.to_string()))?;
        Ok(out)
    }

    fn write_all(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut out = Sink { out, crc: Digest::new(CrcAlgorithm::Crc64Nvme) };
        self.write_to(&mut out)?;
        out.finish()
    }

    fn write_to(&self, out: &mut Sink<'_>) -> io::Result<()> {
        let layers = self.layers.keys().copied().collect();
        let head = Head { plan: self.plan.clone(), covers: self.covers.clone(), layers };
        out.bytes(MAGIC)?;
        // As JSON, so that a later version can tell in which field a plan differs from its own.
        out.put(&serde_json::to_vec(&head)?)?;
        let sequences: BTreeMap<u64, &Sequence> =
            self.examples().map(|example| (example.sequence.number, &*example.sequence)).collect();
        let places: BTreeMap<u64, usize> = sequences.keys().enumerate().map(|(at, number)| (*number, at)).collect();
        out.put(&sequences.len())?;
        sequences.values().try_for_each(|sequence| out.put(&(sequence.number, &sequence.tokens)))?;
        for (&index, layer) in &self.layers {
            let kinds = layer.kinds.iter().map(|(kind, summary)| (*kind, summary.units.len())).collect();
            let (sequences, tokens, pairs) = (layer.sequences, layer.tokens, layer.pairs);
            out.put(&StoredLayer { index, sequences, tokens, pairs, kinds })?;
            let mut units = layer.kinds.values().flat_map(|kind| &kind.units);
            units.try_for_each(|unit| out.put(&StoredUnit::new(unit, &places)))?;
        }
        Ok(())
    }

    fn examples(&self) -> impl Iterator<Item = &Example> {
        let units = self.layers.values().flat_map(|l| l.kinds.values()).flat_map(|k| &k.units);
        units.flat_map(|unit| [unit.top.examples(), unit.random.examples(), unit.active.examples()]).flatten()
    }

    /// Reads a summary.
    ///
    /// # Errors
    /// If the file cannot be read or is not what [`Summary::write`] wrote.
    pub fn read(path: &Path) -> Result<Self> {
        Self::read_from(path, open(path)?)
    }

    /// As [`Summary::read`], from an open file; `name` is what errors call it.
    ///
    /// # Errors
    /// As [`Summary::read`].
    pub(crate) fn read_from(name: &Path, file: File) -> Result<Self> {
        said(name, read_all(&file))
    }

    /// Reads only what the summary is of.
    ///
    /// # Errors
    /// As [`Summary::read`], as far as it reads.
    pub fn read_head(path: &Path) -> Result<Head> {
        let file = open(path)?;
        said(path, content(&file).and_then(|mut input| read_head(&mut input)))
    }

    /// As [`Summary::read_head`], from the first bytes of a file; `name` is what errors call it.
    ///
    /// # Errors
    /// As [`Summary::read_head`], and if the head is longer.
    pub(crate) fn read_head_from(name: &Path, mut bytes: &[u8]) -> Result<Head> {
        said(name, read_head(&mut bytes))
    }
}

fn open(path: &Path) -> Result<File> {
    crate::file::open_regular(path, "is not a regular file")
}

impl StoredUnit {
    /// `places`: index of each sequence by its number.
    fn new(unit: &UnitSummary, places: &BTreeMap<u64, usize>) -> Self {
        let stored = |examples: &[Example]| examples.iter().map(|e| StoredExample::new(e, places)).collect();
        Self {
            positive_values: unit.positive_values,
            active_sequences: unit.active_sequences,
            active_first: unit.active_first,
            powers: unit.powers.each_ref().map(|sum| sum.bins().to_vec()),
            histogram: (unit.histogram.exponent(), unit.histogram.first(), unit.histogram.counts().to_vec()),
            top: stored(unit.top.examples()),
            random: stored(unit.random.examples()),
            active: stored(unit.active.examples()),
        }
    }

    fn restore(self, of: (&Plan, Kind), sequences: &[Arc<Sequence>]) -> Parsed<UnitSummary> {
        let sizes = &of.0.sizes;
        let (mut top, mut random, mut active) = (Top::default(), Sample::default(), Sample::default());
        for example in self.top {
            top.offer(sizes.top, example.restore(of, sequences)?);
        }
        for example in self.random {
            random.offer(sizes.random, example.restore(of, sequences)?);
        }
        for example in self.active {
            active.offer(sizes.active(), example.restore(of, sequences)?);
        }
        let mut powers: [ExactSum; 4] = Default::default();
        for (sum, bins) in powers.iter_mut().zip(self.powers) {
            *sum = ExactSum::from_bins(bins).ok_or("a sum has impossible parts")?;
        }
        let (exponent, first, counts) = self.histogram;
        let histogram = Histogram::from_parts(exponent, first, counts).ok_or("a histogram is impossible")?;
        let Self { positive_values, active_sequences, active_first, .. } = self;
        Ok(UnitSummary { top, random, active, powers, histogram, positive_values, active_sequences, active_first })
    }
}

impl StoredExample {
    fn new(example: &Example, places: &BTreeMap<u64, usize>) -> Self {
        let values = match &*example.values {
            Values::Dense(values) => StoredValues::Dense(values.to_vec()),
            Values::Sparse { len, entries } => StoredValues::Sparse { len: *len, entries: entries.to_vec() },
        };
        let sequence = places.get(&example.sequence.number).copied().unwrap_or_default();
        Self { priority: example.priority, figure: example.figure, sequence, values }
    }

    fn restore(self, (plan, kind): (&Plan, Kind), sequences: &[Arc<Sequence>]) -> Parsed<Example> {
        let sequence = sequences.get(self.sequence).ok_or("an example of no sequence")?.clone();
        let values = match self.values {
            StoredValues::Dense(values) => Values::Dense(values.into()),
            StoredValues::Sparse { len, entries } => {
                if entries.iter().any(|entry| entry.0 >= len) {
                    return Err("a value stands outside its sequence".to_owned());
                }
                Values::Sparse { len, entries: entries.into() }
            }
        };
        let peak = values.peak(kind, plan.first_counts);
        Ok(Example { priority: self.priority, figure: self.figure, peak, sequence, values: Arc::new(values) })
    }
}

type Parsed<T> = std::result::Result<T, String>;

type Source = io::Take<BufReader<File>>;

fn said<T>(name: &Path, parsed: Parsed<T>) -> Result<T> {
    parsed.map_err(|error| Error::content(name, format!("is damaged or no summary: {error}")))
}

/// The file's content from its beginning on, without the checksum.
fn content(file: &File) -> Parsed<Source> {
    let text = |error: io::Error| error.to_string();
    let length = file.metadata().map_err(text)?.len().checked_sub(CRC_BYTES).ok_or("it is too short")?;
    let mut file = file.try_clone().map_err(text)?;
    file.rewind().map_err(text)?;
    Ok(BufReader::with_capacity(1 << 20, file).take(length))
}

fn verify(file: &File) -> Parsed<()> {
    let mut input = content(file)?;
    let mut crc = Digest::new(CrcAlgorithm::Crc64Nvme);
    io::copy(&mut input, &mut crc).map_err(|error| error.to_string())?;
    let mut stored = [0; CRC_BYTES as usize];
    input.into_inner().read_exact(&mut stored).map_err(|error| error.to_string())?;
    if stored == crc.finalize().to_le_bytes() { Ok(()) } else { Err("its checksum is wrong".to_owned()) }
}

fn read_magic(input: &mut impl Read) -> Parsed<()> {
    let mut magic = [0; MAGIC.len()];
    input.read_exact(&mut magic).map_err(|error| error.to_string())?;
    match &magic {
        MAGIC => Ok(()),
        other if other.starts_with(b"TDBSUM") => {
            Err("another version of tdb wrote it; collate into a new folder".to_owned())
        }
        _ => Err("it does not begin as one".to_owned()),
    }
}

fn read_head(input: &mut impl Read) -> Parsed<Head> {
    read_magic(input)?;
    serde_json::from_slice(&get::<Vec<u8>>(input)?).map_err(|error| error.to_string())
}

fn read_all(file: &File) -> Parsed<Summary> {
    read_magic(&mut content(file)?)?;
    verify(file)?;
    let mut input = content(file)?;
    let head = read_head(&mut input)?;
    let mut sequences = Vec::new();
    for _ in 0..get::<usize>(&mut input)? {
        let (number, tokens) = get(&mut input)?;
        sequences.push(Arc::new(Sequence { number, tokens }));
    }
    let mut layers = BTreeMap::new();
    for _ in &head.layers {
        let stored: StoredLayer = get(&mut input)?;
        let mut kinds = BTreeMap::new();
        for (kind, count) in stored.kinds {
            let units = (0..count).map(|_| get::<StoredUnit>(&mut input)?.restore((&head.plan, kind), &sequences));
            kinds.insert(kind, KindSummary::new(units.collect::<Parsed<_>>()?, &head.plan.sizes));
        }
        let (sequences, tokens, pairs) = (stored.sequences, stored.tokens, stored.pairs);
        layers.insert(stored.index, LayerSummary { sequences, tokens, pairs, kinds });
    }
    if input.limit() > 0 {
        return Err("it goes on after its end".to_owned());
    }
    Ok(Summary { plan: head.plan, covers: head.covers, layers })
}

/// Lengths are not trusted: memory is asked for as the content arrives.
fn get<T: DeserializeOwned>(input: &mut impl Read) -> Parsed<T> {
    // Room for one number; nothing here is a text.
    let mut room = [0; 16];
    postcard::from_io((input, &mut room)).map(|(value, _)| value).map_err(|error| error.to_string())
}

/// What is written, and its checksum.
struct Sink<'a> {
    out: &'a mut dyn Write,
    crc: Digest,
}

impl Sink<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.crc.update(bytes);
        self.out.write_all(bytes)
    }

    /// Errors keep their kind: a full disk is told as one.
    fn put(&mut self, value: &impl Serialize) -> io::Result<()> {
        self.bytes(&postcard::to_stdvec(value).map_err(io::Error::other)?)
    }

    fn finish(self) -> io::Result<()> {
        self.out.write_all(&self.crc.finalize().to_le_bytes())
    }
}
