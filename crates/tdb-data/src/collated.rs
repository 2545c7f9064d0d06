//! The records of all units of one layer in one file, read in place.
//!
//! ```text
//! "TDBREC3\n", records, strings, texts, tables, u64 checksum of the footer, footer, u64 offset of the footer, "TDBREC3\n"
//! ```
//!
//! All numbers are little-endian, `varint` is LEB128, checksums are CRC-64/NVME. The footer is JSON ([`Footer`]) and says
//! where the rest lies:
//!
//! - *strings*: `count + 1` u32 offsets into the bytes that follow them; UTF-8, the tokens of the texts.
//! - *texts*: `count + 1` u32 offsets, counted in tokens, into the string indices that follow, `width` bytes each.
//! - *sections*, one for each kind of unit: `units + 1` u64 offsets of records from the beginning of the file.
//!
//! A record is: mean, variance, skewness, kurtosis (f64, NaN where undefined); varint number of values above 0, varint
//! number of texts with such; varint number of quantile boundaries, the boundaries (f32); with [`Encoding::U8`] an f32
//! `low` and an f32 `step`, and a byte `q` below is the value `low + q · step`; varint number of lists of examples, the
//! lists; the histogram of all values ([`Histogram`]): the exponent (a byte, signed), the first bin (i32), varint number
//! of bins, a varint for each. The first list is the top examples, the second the random sample, then one for each
//! quantile. A list is its varint length and its examples. An example is the varint index of its text, and its values:
//! varint `2 n + 1` where all `n` values follow, `2 n` where only `n` follow, each after the varint distance from the
//! index before (the first: from -1); the others are 0.
//!
//! A record ends with its checksum ([`checksum`]), a u64 over everything that is shown of it: whose it is, its bytes and
//! the tokens of its texts.
//!
//! Files that begin and end with "TDBREC2\n" have no checksums, those with "TDBREC1\n" no histograms either; they are
//! otherwise the same.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use crc_fast::CrcAlgorithm;
use serde::{Deserialize, Serialize};

use crate::{ActivationRecord, Counts, Error, Histogram, Moments, NodeRecord, RemoteFile, Result, json, local};

/// First and last bytes of a file.
pub const MAGIC: &[u8; 8] = b"TDBREC3\n";

/// Of files without checksums.
const MAGIC_WITHOUT_CHECKSUMS: &[u8; 8] = b"TDBREC2\n";
/// Of files without checksums whose records have no histograms.
const MAGIC_WITHOUT_HISTOGRAMS: &[u8; 8] = b"TDBREC1\n";

/// Bytes of a checksum.
const CHECKSUM: usize = 8;

const MAX_FOOTER_BYTES: usize = 16 << 20;

/// How values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// As they are.
    F32,
    /// Rounded to half precision.
    F16,
    /// In 256 steps between the smallest and the largest stored value of a record.
    U8,
}

/// What a file says about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Footer {
    pub model: String,
    pub layer: usize,
    pub values: Encoding,
    /// What was seen of the corpus.
    pub sequences: u64,
    pub tokens: u64,
    pub pairs: u64,
    /// How it was made, for people.
    pub about: serde_json::Value,
    pub strings: Table,
    pub texts: Table,
    pub sections: Vec<Section>,
}

/// A list of things of different lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    pub offset: u64,
    pub count: usize,
    /// Bytes of an entry; 1 for strings.
    pub width: usize,
}

/// The records of one kind of unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Section {
    /// The derived scalar's name.
    pub scalar: String,
    /// One value for each token pair rather than for each token.
    pub pairs: bool,
    pub units: usize,
    pub offset: u64,
}

/// A record and what the layout of single files has no place for.
#[derive(Debug, Clone, PartialEq)]
pub struct CollatedRecord {
    pub record: NodeRecord,
    /// Values above 0, of [`Footer::tokens`] or [`Footer::pairs`].
    pub positive_values: u64,
    /// Texts with a value above 0, of [`Footer::sequences`].
    pub active_sequences: u64,
    /// Of all values but zeros; `None` in files of the older format.
    pub histogram: Option<Histogram>,
}

/// An open file; safe to share, reads what is asked for and keeps only the strings.
#[derive(Debug)]
pub struct LayerFile {
    name: String,
    store: Store,
    footer: Footer,
    strings: Vec<String>,
    has_histograms: bool,
    has_checksums: bool,
}

/// The checksum of a record: over the scalar's name and a zero byte, the unit's index (u64), the record's bytes, and the
/// `tokens` of its texts in the order of the texts, each token as its length in bytes (u32) and its bytes.
pub fn checksum<'a>(scalar: &str, index: usize, record: &[u8], tokens: impl Iterator<Item = &'a str>) -> u64 {
    let mut all = [scalar.as_bytes(), &[0], &(index as u64).to_le_bytes(), record].concat();
    for token in tokens {
        all.extend((token.len() as u32).to_le_bytes());
        all.extend(token.as_bytes());
    }
    checksum_of(&all)
}

/// The checksum of some bytes, as the footer has it.
pub fn checksum_of(bytes: &[u8]) -> u64 {
    crc_fast::checksum(CrcAlgorithm::Crc64Nvme, bytes)
}

#[derive(Debug)]
enum Store {
    File(Mutex<File>, u64),
    Bytes(Bytes),
    Remote(RemoteFile),
}

impl LayerFile {
    /// Opens a file on this machine.
    pub fn open(path: &Path) -> Result<Self> {
        let file = local::open(path)?;
        let len = file.metadata().map_err(|e| Error::io(path, e))?.len();
        Self::new(path.display().to_string(), Store::File(Mutex::new(file), len))
    }

    /// A file that is in memory; `name` is what errors call it.
    pub fn from_bytes(name: impl Into<String>, bytes: Bytes) -> Result<Self> {
        Self::new(name.into(), Store::Bytes(bytes))
    }

    /// A file that stays in its store. Opening and reading block, and may not be done from a task of the runtime.
    pub fn in_place(name: impl Into<String>, file: RemoteFile) -> Result<Self> {
        Self::new(name.into(), Store::Remote(file))
    }

    /// Whether it is read in its store.
    pub fn is_in_place(&self) -> bool {
        matches!(self.store, Store::Remote(_))
    }

    fn new(name: String, store: Store) -> Result<Self> {
        let len = store.len();
        let damaged = |problem: &str| Error::damaged(&name, problem);
        local::check_fetched(&name, &store.read(&name, 0, len.min(64) as usize)?)?;
        let end_at = len.checked_sub(16).ok_or_else(|| damaged("it is too short"))?;
        let end = store.read(&name, end_at, 16)?;
        let (head, foot) = (store.read(&name, 0, 8)?, number(&end[..8]));
        let is = |magic: &[u8; 8]| head[..] == magic[..];
        let has_checksums = is(MAGIC);
        let is_known = has_checksums || is(MAGIC_WITHOUT_CHECKSUMS) || is(MAGIC_WITHOUT_HISTOGRAMS);
        if !is_known || end[8..] != head[..] || foot > end_at {
            return Err(damaged("it is no file of collated records, or was cut off"));
        }
        let size = usize::try_from(end_at - foot).unwrap_or(usize::MAX);
        if size > MAX_FOOTER_BYTES {
            return Err(damaged("its footer is too large"));
        }
        let footer = store.read(&name, foot, size)?;
        if has_checksums {
            let at = foot.checked_sub(CHECKSUM as u64).ok_or_else(|| damaged("its footer stands at its beginning"))?;
            if number(&store.read(&name, at, CHECKSUM)?) != checksum_of(&footer) {
                return Err(damaged("its footer's checksum is wrong: something changed it after it was written"));
            }
        }
        let footer: Footer = json::parse(&name, &footer, MAX_FOOTER_BYTES)?;
        if !matches!(footer.texts.width, 2 | 4) {
            return Err(damaged("the texts have entries of neither 2 nor 4 bytes"));
        }
        let strings = read_strings(&name, &store, footer.strings)?;
        let has_histograms = !is(MAGIC_WITHOUT_HISTOGRAMS);
        Ok(Self { name, store, footer, strings, has_histograms, has_checksums })
    }

    /// What the file says about itself.
    pub fn footer(&self) -> &Footer {
        &self.footer
    }

    /// The section of a scalar.
    pub fn section(&self, scalar: &str) -> Option<&Section> {
        self.footer.sections.iter().find(|s| s.scalar == scalar)
    }

    /// The record of a unit. [`Error::NotFound`] if the file has none of this scalar or index.
    pub fn record(&self, scalar: &str, index: usize) -> Result<CollatedRecord> {
        let missing = || Error::NotFound(format!("{} has no record of {scalar} {index}", self.name));
        let section = self.section(scalar).filter(|s| index < s.units).ok_or_else(missing)?;
        let at = (index as u64).checked_mul(8).and_then(|at| section.offset.checked_add(at)).ok_or_else(missing)?;
        let bounds = self.store.read(&self.name, at, 16)?;
        let (start, end) = (number(&bounds[..8]), number(&bounds[8..]));
        let size = end.checked_sub(start).and_then(|n| usize::try_from(n).ok());
        let size = size.ok_or_else(|| self.damaged(scalar, index, "it ends before it begins"))?;
        let mut bytes = self.store.read(&self.name, start, size)?;
        let found = match (self.has_checksums, size.checked_sub(CHECKSUM)) {
            (false, _) => None,
            (true, Some(at)) => Some(number(&bytes.split_off(at))),
            (true, None) => return Err(self.damaged(scalar, index, "it is too short")),
        };
        let texts = self.texts_of(&bytes).map_err(|problem| self.damaged(scalar, index, &problem))?;
        let texts = self.texts(&texts)?;
        let tokens = texts.values().flatten().map(String::as_str);
        if found.is_some_and(|found| found != checksum(scalar, index, &bytes, tokens)) {
            let problem = "its checksum is wrong: something changed the file after it was written";
            return Err(self.damaged(scalar, index, problem));
        }
        let mut input = Input { bytes: &bytes };
        self.parse(&mut input, section, index, &texts)
            .and_then(|record| if input.bytes.is_empty() { Ok(record) } else { Err("it goes on after its end".into()) })
            .map_err(|problem| self.damaged(scalar, index, &problem))
    }

    /// How often the unit of a record was active; `None` if the file has no such scalar.
    pub fn counts(&self, scalar: &str, found: &CollatedRecord) -> Option<Counts> {
        let footer = &self.footer;
        let values = if self.section(scalar)?.pairs { footer.pairs } else { footer.tokens };
        Some(Counts {
            values,
            positive_values: found.positive_values,
            texts: footer.sequences,
            active_texts: found.active_sequences,
            histogram: found.histogram.clone(),
        })
    }

    fn damaged(&self, scalar: &str, index: usize, problem: &str) -> Error {
        Error::damaged(&self.name, format!("the record of {scalar} {index}: {problem}"))
    }

    fn parse(&self, input: &mut Input<'_>, section: &Section, index: usize, texts: &Texts) -> Parsed<CollatedRecord> {
        let mut moment = || input.array().map(f64::from_le_bytes).map(|x| Some(x).filter(|x| x.is_finite()));
        let moments = Moments { mean: moment()?, variance: moment()?, skewness: moment()?, kurtosis: moment()? };
        let (positive_values, active_sequences) = (input.varint()?, input.varint()?);
        let boundaries = (0..input.varint()?).map(|_| input.f32()).collect::<Parsed<Vec<_>>>()?;
        let scale = match self.footer.values {
            Encoding::U8 => (input.f32()?, input.f32()?),
            _ => (0.0, 0.0),
        };
        let mut lists = Vec::new();
        for _ in 0..input.varint()? {
            let mut list = Vec::new();
            for _ in 0..input.varint()? {
                list.push(self.example(input, section.pairs, scale, texts)?);
            }
            lists.push(list);
        }
        let histogram = self.has_histograms.then(|| input.histogram()).transpose()?;
        let mut lists = lists.into_iter();
        let most_positive = lists.next().unwrap_or_default();
        let random_sample = lists.next().unwrap_or_default();
        let by_quantile: Vec<_> = lists.collect();
        let some = !by_quantile.is_empty();
        let record = NodeRecord {
            layer: self.footer.layer,
            index,
            random_sample,
            random_sample_by_quantile: some.then_some(by_quantile),
            quantile_boundaries: some.then_some(boundaries),
            moments,
            most_positive,
        };
        Ok(CollatedRecord { record, positive_values, active_sequences, histogram })
    }

    fn example(
        &self,
        input: &mut Input<'_>,
        pairs: bool,
        (low, step): (f32, f32),
        texts: &Texts,
    ) -> Parsed<ActivationRecord> {
        let tokens = texts.get(&input.varint()?).cloned().ok_or("an example of no text")?;
        let len = if pairs { tokens.len() * (tokens.len() + 1) / 2 } else { tokens.len() };
        let code = input.varint()?;
        let n = usize::try_from(code / 2).unwrap_or(usize::MAX);
        let dense = code % 2 == 1;
        if n > len || (dense && n != len) {
            return Err(format!("{n} values on a text with room for {len}"));
        }
        let value = |input: &mut Input<'_>| match self.footer.values {
            Encoding::F32 => input.f32(),
            Encoding::F16 => input.array().map(|b| half(u16::from_le_bytes(b))),
            Encoding::U8 => input.array().map(|[q]| low + f32::from(q) * step),
        };
        let mut activations = vec![0.0; len];
        if dense {
            for slot in &mut activations {
                *slot = value(input)?;
            }
        } else {
            let mut next = 0u64;
            for _ in 0..n {
                let at = next.checked_add(input.varint()?).and_then(|at| at.checked_sub(1));
                let slot = at.and_then(|at| activations.get_mut(usize::try_from(at).ok()?));
                *slot.ok_or("a value stands outside its text")? = value(input)?;
                next = at.map_or(0, |at| at + 1);
            }
        }
        if activations.iter().any(|a| !a.is_finite()) {
            return Err("a value is not a number".into());
        }
        Ok(ActivationRecord { activations, tokens })
    }

    /// Which texts a record's examples are of.
    fn texts_of(&self, record: &[u8]) -> Parsed<Vec<u64>> {
        let mut input = Input { bytes: record };
        input.skip(4 * 8)?;
        input.varint()?;
        input.varint()?;
        let boundaries = input.varint()?;
        input.skip(boundaries.saturating_mul(4))?;
        let value = match self.footer.values {
            Encoding::F32 => 4,
            Encoding::F16 => 2,
            Encoding::U8 => 1,
        };
        if self.footer.values == Encoding::U8 {
            input.skip(8)?;
        }
        let mut texts = Vec::new();
        for _ in 0..input.varint()? {
            for _ in 0..input.varint()? {
                texts.push(input.varint()?);
                let code = input.varint()?;
                if code % 2 == 1 {
                    input.skip((code / 2).saturating_mul(value))?;
                } else {
                    for _ in 0..code / 2 {
                        input.varint()?;
                        input.skip(value)?;
                    }
                }
            }
        }
        texts.sort_unstable();
        texts.dedup();
        Ok(texts)
    }

    /// The tokens of some texts: in a store, those of all in two rounds of requests.
    fn texts(&self, indices: &[u64]) -> Result<Texts> {
        let Table { offset, count, width } = self.footer.texts;
        let damaged = |problem: String| Error::damaged(&self.name, problem);
        if let Some(index) = indices.iter().find(|i| **i >= count as u64) {
            return Err(damaged(format!("text {index} of {count}")));
        }
        let bounds = indices.iter().map(|index| (offset.saturating_add(4 * index), 8)).collect::<Vec<_>>();
        let first = offset.saturating_add(4 * (count as u64 + 1));
        let ids = |bounds: &Bytes| {
            let (start, end) = (number(&bounds[..4]), number(&bounds[4..]));
            let size = end.checked_sub(start).ok_or_else(|| damaged("a text ends before it begins".into()))?;
            Ok((first.saturating_add(start * width as u64), size as usize * width))
        };
        let ids = self.store.read_all(&self.name, &bounds)?.iter().map(ids).collect::<Result<Vec<_>>>()?;
        let string = |id: &[u8]| {
            let string = self.strings.get(number(id) as usize).cloned();
            string.ok_or_else(|| damaged("a text has an unknown token".into()))
        };
        let ids = self.store.read_all(&self.name, &ids)?;
        let texts = ids.iter().map(|ids| ids.chunks_exact(width).map(string).collect::<Result<Vec<_>>>());
        indices.iter().zip(texts).map(|(index, text)| Ok((*index, text?))).collect()
    }
}

impl Store {
    fn len(&self) -> u64 {
        match self {
            Self::File(_, len) => *len,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Remote(file) => file.len(),
        }
    }

    /// Several places, each an offset and a length.
    fn read_all(&self, name: &str, places: &[(u64, usize)]) -> Result<Vec<Bytes>> {
        match self {
            Self::Remote(file) => {
                places.iter().try_for_each(|place| self.check(name, *place))?;
                file.read(&places.iter().map(|(at, len)| *at..at + *len as u64).collect::<Vec<_>>())
            }
            _ => places.iter().map(|(offset, len)| self.read(name, *offset, *len)).collect(),
        }
    }

    fn check(&self, name: &str, (offset, len): (u64, usize)) -> Result<()> {
        if offset.checked_add(len as u64).is_none_or(|end| end > self.len()) {
            return Err(Error::damaged(name, format!("{len} bytes at {offset} reach beyond its end")));
        }
        Ok(())
    }

    fn read(&self, name: &str, offset: u64, len: usize) -> Result<Bytes> {
        self.check(name, (offset, len))?;
        match self {
            Self::Remote(file) => {
                let range = offset..offset + len as u64;
                let mut read = file.read(std::slice::from_ref(&range))?;
                Ok(read.pop().unwrap_or_default())
            }
            Self::Bytes(bytes) => Ok(bytes.slice(offset as usize..offset as usize + len)),
            Self::File(file, _) => {
                let mut out = vec![0; len];
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                file.seek(SeekFrom::Start(offset))
                    .and_then(|_| file.read_exact(&mut out))
                    .map_err(|e| Error::Io { path: name.to_owned(), reason: e.to_string() })?;
                Ok(out.into())
            }
        }
    }
}

fn read_strings(name: &str, store: &Store, Table { offset, count, .. }: Table) -> Result<Vec<String>> {
    let damaged = |problem: &str| Error::damaged(name, format!("the table of strings: {problem}"));
    let size = count.checked_add(1).and_then(|n| n.checked_mul(4)).ok_or_else(|| damaged("it is too long"))?;
    let bounds = store.read(name, offset, size)?;
    let bounds: Vec<u64> = bounds.chunks_exact(4).map(number).collect();
    let bytes = store.read(name, offset + size as u64, bounds.last().copied().unwrap_or(0) as usize)?;
    let string = |w: &[u64]| {
        let slice = bytes.get(w[0] as usize..w[1] as usize).ok_or_else(|| damaged("it is not ascending"))?;
        String::from_utf8(slice.to_vec()).map_err(|_| damaged("it is not UTF-8"))
    };
    bounds.windows(2).map(string).collect()
}

/// An unsigned little-endian number of up to 8 bytes.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b))
}

/// An IEEE half-precision number.
fn half(bits: u16) -> f32 {
    let (exponent, fraction) = (u32::from(bits >> 10 & 31), f32::from(bits & 1023) / 1024.0);
    let magnitude = match exponent {
        0 => fraction * 2f32.powi(-14),
        31 => return f32::NAN,
        _ => (1.0 + fraction) * f32::from_bits((exponent + 112) << 23),
    };
    if bits >> 15 == 1 { -magnitude } else { magnitude }
}

type Parsed<T> = Result<T, String>;

/// Tokens of texts by the texts' indices.
type Texts = BTreeMap<u64, Vec<String>>;

struct Input<'a> {
    bytes: &'a [u8],
}

impl Input<'_> {
    fn array<const N: usize>(&mut self) -> Parsed<[u8; N]> {
        let (head, rest) = self.bytes.split_first_chunk::<N>().ok_or("it ends too early")?;
        self.bytes = rest;
        Ok(*head)
    }

    fn skip(&mut self, n: u64) -> Parsed<()> {
        let rest = usize::try_from(n).ok().and_then(|n| self.bytes.get(n..));
        self.bytes = rest.ok_or("it ends too early")?;
        Ok(())
    }

    fn f32(&mut self) -> Parsed<f32> {
        self.array().map(f32::from_le_bytes)
    }

    fn histogram(&mut self) -> Parsed<Histogram> {
        let ([exponent], first) = (self.array()?, self.array().map(i32::from_le_bytes)?);
        let counts = (0..self.varint()?).map(|_| self.varint()).collect::<Parsed<Vec<_>>>()?;
        Histogram::from_parts(exponent as i8, first, counts).ok_or_else(|| "its histogram is impossible".into())
    }

    fn varint(&mut self) -> Parsed<u64> {
        let mut out = 0u64;
        for shift in (0..63).step_by(7) {
            let [byte] = self.array()?;
            out |= u64::from(byte & 127) << shift;
            if byte < 128 {
                return Ok(out);
            }
        }
        Err("a number is too long".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of one record without examples, `end` at its end.
    fn file(magic: &[u8; 8], end: &[u8]) -> Bytes {
        let mut out = magic.to_vec();
        let start = out.len() as u64;
        [0.5f64, 1.0, 0.0, 3.0].iter().for_each(|moment| out.extend(moment.to_le_bytes()));
        // Values above 0, texts with one; no boundaries, no lists.
        out.extend([3, 2, 0, 0]);
        out.extend(end);
        let seal = |out: &mut Vec<u8>, checksum: u64| {
            out.extend((magic == MAGIC).then_some(checksum.to_le_bytes()).iter().flatten())
        };
        let checksum = checksum("mlp_post_act", 0, &out[start as usize..], std::iter::empty());
        seal(&mut out, checksum);
        let [record_end, strings, texts, offset] = [0, 0, 4, 8].map(|at| out.len() as u64 + at);
        out.extend([0; 8]);
        out.extend([start, record_end].iter().flat_map(|at| at.to_le_bytes()));
        let section = Section { scalar: "mlp_post_act".into(), pairs: false, units: 1, offset };
        let table = |offset, width| Table { offset, count: 0, width };
        let footer = Footer {
            model: "m".into(),
            layer: 0,
            values: Encoding::F32,
            sequences: 2,
            tokens: 9,
            pairs: 0,
            about: serde_json::Value::Null,
            strings: table(strings, 1),
            texts: table(texts, 2),
            sections: vec![section],
        };
        let footer = serde_json::to_vec(&footer).unwrap();
        seal(&mut out, checksum_of(&footer));
        let at = out.len() as u64;
        out.extend(&footer);
        out.extend(at.to_le_bytes());
        out.extend(magic);
        out.into()
    }

    fn read(magic: &[u8; 8], end: &[u8]) -> Result<CollatedRecord> {
        LayerFile::from_bytes("f", file(magic, end))?.record("mlp_post_act", 0)
    }

    #[test]
    fn records_of_the_older_format_are_read_and_have_no_histogram() {
        // Bins of width 1/2 from -1/2 on.
        let histogram = [[0xff].as_slice(), &(-1i32).to_le_bytes(), &[3, 5, 0, 3]].concat();
        let (new, old) = (read(MAGIC, &histogram).unwrap(), read(MAGIC_WITHOUT_HISTOGRAMS, &[]).unwrap());
        assert_eq!(old, CollatedRecord { histogram: None, ..new.clone() });
        assert_eq!(new, read(MAGIC_WITHOUT_CHECKSUMS, &histogram).unwrap());
        let found = new.histogram.unwrap();
        assert_eq!((found.range(), found.counts()), ((-0.5, 1.0), &[5, 0, 3][..]));
        for (magic, end) in [(MAGIC, &[][..]), (MAGIC, &histogram[..7]), (MAGIC_WITHOUT_HISTOGRAMS, &histogram)] {
            assert!(read(magic, end).is_err_and(|e| e.to_string().contains("the record of mlp_post_act 0")));
        }
    }

    #[test]
    fn no_changed_bit_passes_for_what_was_written() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus/records/version-3.records");
        let whole = std::fs::read(path).unwrap();
        let right = LayerFile::from_bytes("f", whole.clone().into()).unwrap();
        let of_sections = right.footer().sections.iter();
        let units: Vec<_> = of_sections.flat_map(|s| (0..s.units).map(|unit| (s.scalar.clone(), unit))).collect();
        let all =
            |file: &LayerFile| units.iter().map(|(scalar, unit)| file.record(scalar, *unit).ok()).collect::<Vec<_>>();
        let right = all(&right);
        assert!(
            right.iter().flatten().any(|found| !found.record.most_positive.is_empty())
                && right.iter().all(Option::is_some)
        );
        let mut refused = 0;
        // Each bit of a byte in turn.
        for bit in (0..8 * whole.len()).step_by(9) {
            let mut changed = whole.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let Ok(file) = LayerFile::from_bytes("f", changed.into()) else {
                refused += 1;
                continue;
            };
            let found = all(&file);
            refused += usize::from(found.iter().any(Option::is_none));
            assert!(found.iter().zip(&right).all(|(found, right)| found.is_none() || found == right), "bit {bit}");
        }
        assert!(refused * 9 > 7 * whole.len(), "{refused} of {}", whole.len());
    }
}
