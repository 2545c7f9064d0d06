//! Summaries as files.
//!
//! ```text
//! "TDBSUM2\n", length and text of a JSON head (plan, shards), the sequences that occur, the layers, checksum
//! ```
//!
//! Integers and floats are little-endian; lists begin with their length (u32). The same summary is the same bytes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::corpus::{Sequence, mix};
use crate::example::{Example, Sample, Top};
use crate::measure::Values;
use crate::summary::{KindSummary, LayerSummary, Plan, Summary, UnitSummary};
use crate::unit::Kind;
use crate::{Error, ExactSum, Result, file};

const MAGIC: &[u8; 8] = b"TDBSUM2\n";

/// A list that claims to be longer is damage.
const LONGEST_LIST: u32 = 1 << 28;

/// What stands at the beginning of a summary's file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    pub plan: Plan,
    pub shards: Vec<usize>,
    pub layers: Vec<usize>,
}

impl Summary {
    /// Writes the summary, whole or not at all.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        file::write(path, |out| {
            let mut out = Sink { out, hash: 0, pending: Vec::new() };
            self.write_to(&mut out)?;
            out.finish()
        })
    }

    fn write_to(&self, out: &mut Sink<'_>) -> std::io::Result<()> {
        let head = Head {
            plan: self.plan.clone(),
            shards: self.shards.clone(),
            layers: self.layers.keys().copied().collect(),
        };
        let head = serde_json::to_vec(&head)?;
        out.bytes(MAGIC)?;
        out.u32(head.len())?;
        out.bytes(&head)?;
        let mut sequences: BTreeMap<u64, (Arc<Sequence>, usize)> = BTreeMap::new();
        for example in self.examples() {
            sequences.entry(example.sequence.number).or_insert_with(|| (example.sequence.clone(), 0));
        }
        out.u32(sequences.len())?;
        for (index, (sequence, at)) in sequences.values_mut().enumerate() {
            *at = index;
            out.u64(sequence.number)?;
            out.u32(sequence.tokens.len())?;
            sequence.tokens.iter().try_for_each(|t| out.bytes(&t.to_le_bytes()))?;
        }
        out.u32(self.layers.len())?;
        for (index, layer) in &self.layers {
            out.u32(*index)?;
            [layer.sequences, layer.tokens, layer.pairs].into_iter().try_for_each(|n| out.u64(n))?;
            out.u32(layer.kinds.len())?;
            for (kind, summary) in &layer.kinds {
                out.bytes(&[*kind as u8])?;
                out.u32(summary.units.len())?;
                summary.units.iter().try_for_each(|unit| write_unit(out, unit, &sequences))?;
            }
        }
        Ok(())
    }

    fn examples(&self) -> impl Iterator<Item = &Example> {
        let units = self.layers.values().flat_map(|l| l.kinds.values()).flat_map(|k| &k.units);
        units.flat_map(UnitSummary::examples)
    }

    /// Reads a summary.
    ///
    /// # Errors
    /// If the file cannot be read or is not what [`Summary::write`] wrote.
    pub fn read(path: &Path) -> Result<Self> {
        read_with(path, read_from)
    }

    /// Reads only what the summary is of.
    ///
    /// # Errors
    /// As [`Summary::read`], as far as it reads.
    pub fn read_head(path: &Path) -> Result<Head> {
        read_with(path, read_head)
    }
}

impl UnitSummary {
    fn examples(&self) -> impl Iterator<Item = &Example> {
        self.top.examples().iter().chain(self.random.examples()).chain(self.active.examples())
    }
}

fn write_unit(
    out: &mut Sink<'_>,
    unit: &UnitSummary,
    sequences: &BTreeMap<u64, (Arc<Sequence>, usize)>,
) -> std::io::Result<()> {
    out.u64(unit.positive_values)?;
    out.u64(unit.active_sequences)?;
    out.u64(unit.active_first)?;
    for sum in &unit.powers {
        out.u32(sum.bins().len())?;
        for (bin, value) in sum.bins() {
            out.bytes(&bin.to_le_bytes())?;
            out.bytes(&value.to_le_bytes())?;
        }
    }
    for list in [unit.top.examples(), unit.random.examples(), unit.active.examples()] {
        out.u32(list.len())?;
        for example in list {
            out.u64(example.priority)?;
            out.bytes(&example.figure.to_le_bytes())?;
            out.u32(sequences.get(&example.sequence.number).map_or(0, |s| s.1))?;
            match &*example.values {
                Values::Dense(values) => {
                    out.bytes(&[0])?;
                    out.u32(values.len())?;
                    values.iter().try_for_each(|v| out.bytes(&v.to_le_bytes()))?;
                }
                Values::Sparse { len, entries } => {
                    out.bytes(&[1])?;
                    out.u32(*len as usize)?;
                    out.u32(entries.len())?;
                    for (index, value) in entries {
                        out.bytes(&index.to_le_bytes())?;
                        out.bytes(&value.to_le_bytes())?;
                    }
                }
            }
        }
    }
    Ok(())
}

type Parsed<T> = std::result::Result<T, String>;

fn read_with<T>(path: &Path, read: impl FnOnce(&mut Source) -> Parsed<T>) -> Result<T> {
    let file = File::open(path).map_err(Error::file(path))?;
    let mut input = Source { input: BufReader::with_capacity(1 << 20, file), hash: 0, pending: Vec::new() };
    read(&mut input).map_err(|error| Error::content(path, format!("is damaged or no summary: {error}")))
}

fn read_head(input: &mut Source) -> Parsed<Head> {
    if &input.array::<8>()? != MAGIC {
        return Err("it does not begin as one".to_owned());
    }
    let len = input.len()?;
    let head = input.vec(len, |i| i.array::<1>().map(|b| b[0]))?;
    serde_json::from_slice(&head).map_err(|e| e.to_string())
}

fn read_from(input: &mut Source) -> Parsed<Summary> {
    let head = read_head(input)?;
    let n = input.len()?;
    let sequences = input.vec(n, |input| {
        let number = input.u64()?;
        let len = input.len()?;
        let tokens = input.vec(len, |i| i.array().map(u32::from_le_bytes))?;
        Ok(Arc::new(Sequence { number, tokens }))
    })?;
    let mut layers = BTreeMap::new();
    for _ in 0..input.len()? {
        let index = input.len()?;
        let mut layer =
            LayerSummary { sequences: input.u64()?, tokens: input.u64()?, pairs: input.u64()?, kinds: BTreeMap::new() };
        for _ in 0..input.len()? {
            let [kind] = input.array()?;
            let kind = *Kind::ALL.get(usize::from(kind)).ok_or("an unknown kind of unit")?;
            let n = input.len()?;
            let units = input.vec(n, |input| read_unit(input, (&head.plan, kind), &sequences))?;
            layer.kinds.insert(kind, KindSummary::new(units, &head.plan.sizes));
        }
        layers.insert(index, layer);
    }
    input.check()?;
    Ok(Summary { plan: head.plan, shards: head.shards, layers })
}

fn read_unit(input: &mut Source, of: (&Plan, Kind), sequences: &[Arc<Sequence>]) -> Parsed<UnitSummary> {
    let mut unit = UnitSummary {
        positive_values: input.u64()?,
        active_sequences: input.u64()?,
        active_first: input.u64()?,
        ..UnitSummary::default()
    };
    for sum in &mut unit.powers {
        let n = input.len()?;
        let bins = input.vec(n, |i| Ok((i16::from_le_bytes(i.array()?), i128::from_le_bytes(i.array()?))))?;
        *sum = ExactSum::from_bins(bins).ok_or("a sum has impossible parts")?;
    }
    let sizes = &of.0.sizes;
    let (mut top, mut random, mut active) = (Top::default(), Sample::default(), Sample::default());
    for _ in 0..input.len()? {
        top.offer(sizes.top, read_example(input, of, sequences)?);
    }
    for _ in 0..input.len()? {
        random.offer(sizes.random, read_example(input, of, sequences)?);
    }
    for _ in 0..input.len()? {
        active.offer(sizes.active(), read_example(input, of, sequences)?);
    }
    (unit.top, unit.random, unit.active) = (top, random, active);
    Ok(unit)
}

fn read_example(input: &mut Source, (plan, kind): (&Plan, Kind), sequences: &[Arc<Sequence>]) -> Parsed<Example> {
    let priority = input.u64()?;
    let figure = f32::from_le_bytes(input.array()?);
    let sequence = sequences.get(input.len()?).ok_or("an example of no sequence")?.clone();
    let [tag] = input.array()?;
    let len = input.len()?;
    let values = match tag {
        0 => Values::Dense(input.vec(len, |i| i.array().map(f32::from_le_bytes))?.into()),
        1 => {
            let n = input.len()?;
            let entry = |i: &mut Source| Ok((u32::from_le_bytes(i.array()?), f32::from_le_bytes(i.array()?)));
            let entries: Box<[(u32, f32)]> = input.vec(n, entry)?.into();
            if entries.iter().any(|e| e.0 as usize >= len) {
                return Err("a value stands outside its sequence".to_owned());
            }
            Values::Sparse { len: len as u32, entries }
        }
        _ => return Err("values of an unknown form".to_owned()),
    };
    let peak = values.peak(kind, plan.first_counts);
    Ok(Example { priority, figure, peak, sequence, values: Arc::new(values) })
}

/// Eight bytes at a time into the checksum.
fn update(hash: &mut u64, pending: &mut Vec<u8>, bytes: &[u8]) {
    pending.extend_from_slice(bytes);
    let whole = pending.len() / 8 * 8;
    for word in pending[..whole].chunks_exact(8) {
        let word = word.iter().rev().fold(0, |w, b| w << 8 | u64::from(*b));
        *hash = mix(*hash ^ word);
    }
    pending.drain(..whole);
}

fn checksum(hash: u64, pending: &[u8]) -> u64 {
    pending.iter().fold(mix(hash ^ pending.len() as u64), |h, b| mix(h ^ u64::from(*b)))
}

struct Sink<'a> {
    out: &'a mut dyn Write,
    hash: u64,
    pending: Vec<u8>,
}

impl Sink<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        update(&mut self.hash, &mut self.pending, bytes);
        self.out.write_all(bytes)
    }

    fn u32(&mut self, n: impl TryInto<u32>) -> std::io::Result<()> {
        let n = n.try_into().map_err(|_| std::io::Error::other("a list is too long for this format"))?;
        self.bytes(&n.to_le_bytes())
    }

    fn u64(&mut self, n: u64) -> std::io::Result<()> {
        self.bytes(&n.to_le_bytes())
    }

    fn finish(self) -> std::io::Result<()> {
        self.out.write_all(&checksum(self.hash, &self.pending).to_le_bytes())
    }
}

struct Source {
    input: BufReader<File>,
    hash: u64,
    pending: Vec<u8>,
}

impl Source {
    fn array<const N: usize>(&mut self) -> Parsed<[u8; N]> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes).map_err(|error| error.to_string())?;
        update(&mut self.hash, &mut self.pending, &bytes);
        Ok(bytes)
    }

    fn u64(&mut self) -> Parsed<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A length or an index.
    fn len(&mut self) -> Parsed<usize> {
        let n = u32::from_le_bytes(self.array()?);
        if n > LONGEST_LIST { Err(format!("a list of {n} entries")) } else { Ok(n as usize) }
    }

    fn vec<T>(&mut self, n: usize, mut item: impl FnMut(&mut Self) -> Parsed<T>) -> Parsed<Vec<T>> {
        // A damaged length is noticed at the end of the file, before memory for it is asked for.
        let mut out = Vec::with_capacity(n.min(1 << 12));
        for _ in 0..n {
            out.push(item(self)?);
        }
        Ok(out)
    }

    fn check(&mut self) -> Parsed<()> {
        let expected = checksum(self.hash, &self.pending);
        let mut bytes = [0; 8];
        self.input.read_exact(&mut bytes).map_err(|error| error.to_string())?;
        let more = self.input.read(&mut [0; 1]).map_err(|error| error.to_string())?;
        if u64::from_le_bytes(bytes) != expected || more != 0 {
            return Err("its checksum is wrong".to_owned());
        }
        Ok(())
    }
}
