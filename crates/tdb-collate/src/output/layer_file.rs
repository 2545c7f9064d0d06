//! One file for each layer, see [`tdb_data::collated`].

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;

use half::f16;
use tdb_data::collated::{Encoding, Footer, MAGIC, Section, Table, checksum, checksum_of};

use super::{TokenTexts, moments, quantiles, values_seen};
use crate::example::Example;
use crate::measure::Values;
use crate::summary::{LayerSummary, Plan, Sizes, UnitSummary};
use crate::{Result, file};

/// Writes the records of one layer of a merged summary, each with at most `shown` of its examples; `text` gives a token's
/// text. The first ones of a random sample are a random sample.
///
/// # Errors
/// If the file cannot be written.
pub fn write_layer_file(
    path: &Path,
    plan: &Plan,
    (index, layer): (usize, &LayerSummary),
    (encoding, shown): (Encoding, &Sizes),
    text: &dyn Fn(u32) -> String,
) -> Result<()> {
    file::write(path, |out| {
        let mut out = Counted { out, at: 0 };
        out.write_all(MAGIC)?;
        let texts = Texts::of(layer, shown, text);
        let mut sections = Vec::new();
        for (&kind, units) in &layer.kinds {
            let mut offsets = vec![out.at];
            let n = values_seen(layer, kind);
            for (index, unit) in units.units.iter().enumerate() {
                let mut record = Vec::new();
                let (lists, boundaries) = lists(unit, shown);
                write_unit(&mut record, unit, (&lists, &boundaries), n, encoding, &texts);
                out.write_all(&record)?;
                let tokens = texts.tokens_of(&lists);
                out.write_all(&checksum(kind.scalar(), index, &record, tokens).to_le_bytes())?;
                offsets.push(out.at);
            }
            sections.push((kind, offsets));
        }
        let (strings, texts) = texts.write(&mut out)?;
        let mut described = Vec::new();
        for (kind, offsets) in sections {
            let (offset, units) = (out.at, offsets.len() - 1);
            offsets.iter().try_for_each(|o| out.write_all(&o.to_le_bytes()))?;
            described.push(Section { scalar: kind.scalar().to_owned(), pairs: kind.per_pair(), units, offset });
        }
        let footer = Footer {
            model: plan.model.clone(),
            layer: index,
            values: encoding,
            sequences: layer.sequences,
            tokens: layer.tokens,
            pairs: layer.pairs,
            about: about(plan),
            strings,
            texts,
            sections: described,
        };
        let footer = serde_json::to_vec(&footer)?;
        out.write_all(&checksum_of(&footer).to_le_bytes())?;
        let at = out.at;
        out.write_all(&footer)?;
        out.write_all(&at.to_le_bytes())?;
        out.write_all(MAGIC)
    })
}

/// How the records were made; the number of shards is no part of it.
fn about(plan: &Plan) -> serde_json::Value {
    serde_json::json!({
        "fingerprint": plan.fingerprint,
        "autoencoders": plan.autoencoders,
        "corpus": plan.corpus,
        "cutting": plan.cutting,
        "sizes": plan.sizes,
        "first_counts": plan.first_counts,
        "seed": plan.seed,
    })
}

struct Counted<'a> {
    out: &'a mut dyn Write,
    at: u64,
}

impl Counted<'_> {
    fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.at += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

/// The texts that occur, in the order of the corpus, and the strings of their tokens.
struct Texts {
    /// Sequence number to index and tokens.
    texts: BTreeMap<u64, (usize, Vec<u32>)>,
    strings: BTreeMap<u32, (usize, String)>,
}

impl Texts {
    fn of(layer: &LayerSummary, shown: &Sizes, text: &dyn Fn(u32) -> String) -> Self {
        let mut texts = BTreeMap::new();
        let mut tokens = BTreeSet::new();
        for unit in layer.kinds.values().flat_map(|k| &k.units) {
            for list in lists(unit, shown).0 {
                for example in list {
                    texts.entry(example.sequence.number).or_insert_with(|| {
                        tokens.extend(&example.sequence.tokens);
                        (0, example.sequence.tokens.clone())
                    });
                }
            }
        }
        texts.values_mut().enumerate().for_each(|(index, text)| text.0 = index);
        let mut cache = TokenTexts::default();
        let string = |(index, token): (usize, u32)| (token, (index, cache.get(token, text).to_owned()));
        let strings = tokens.into_iter().enumerate().map(string).collect();
        Self { texts, strings }
    }

    fn index(&self, example: &Example) -> usize {
        self.texts.get(&example.sequence.number).map_or(0, |t| t.0)
    }

    /// The tokens of the texts of some examples, each text once, in the order of the texts.
    fn tokens_of(&self, lists: &[Vec<&Example>]) -> impl Iterator<Item = &str> + use<'_> {
        let numbers: BTreeSet<u64> = lists.iter().flatten().map(|example| example.sequence.number).collect();
        let tokens = numbers.into_iter().filter_map(|number| self.texts.get(&number)).flat_map(|(_, tokens)| tokens);
        tokens.filter_map(|token| Some(self.strings.get(token)?.1.as_str()))
    }

    fn write(&self, out: &mut Counted<'_>) -> std::io::Result<(Table, Table)> {
        let strings = Table { offset: out.at, count: self.strings.len(), width: 1 };
        write_offsets(out, self.strings.values().map(|s| s.1.len()))?;
        self.strings.values().try_for_each(|s| out.write_all(s.1.as_bytes()))?;
        let width = if self.strings.len() <= 1 << 16 { 2 } else { 4 };
        let texts = Table { offset: out.at, count: self.texts.len(), width };
        write_offsets(out, self.texts.values().map(|t| t.1.len()))?;
        for token in self.texts.values().flat_map(|t| &t.1) {
            let index = self.strings.get(token).map_or(0, |s| s.0) as u32;
            out.write_all(&index.to_le_bytes()[..width])?;
        }
        Ok((strings, texts))
    }
}

fn write_offsets(out: &mut Counted<'_>, lengths: impl Iterator<Item = usize>) -> std::io::Result<()> {
    let mut at = 0u32;
    out.write_all(&at.to_le_bytes())?;
    for length in lengths {
        let next = u32::try_from(length).ok().and_then(|n| at.checked_add(n));
        at = next.ok_or_else(|| std::io::Error::other("the texts are too long for this format"))?;
        out.write_all(&at.to_le_bytes())?;
    }
    Ok(())
}

/// The top examples, the random sample and those of each quantile, and the boundaries between the quantiles.
fn lists<'a>(unit: &'a UnitSummary, shown: &Sizes) -> (Vec<Vec<&'a Example>>, Vec<f32>) {
    let (by_quantile, boundaries) = quantiles(unit, shown);
    let top = unit.top.examples().iter().take(shown.top).collect();
    let random = unit.random.examples().iter().take(shown.random).collect();
    ([top, random].into_iter().chain(by_quantile).collect(), boundaries)
}

fn write_unit(
    out: &mut Vec<u8>,
    unit: &UnitSummary,
    (lists, boundaries): (&[Vec<&Example>], &[f32]),
    n: u64,
    encoding: Encoding,
    texts: &Texts,
) {
    let m = moments(unit, n);
    for moment in [m.mean, m.variance, m.skewness, m.kurtosis] {
        out.extend(moment.unwrap_or(f64::NAN).to_le_bytes());
    }
    varint(out, unit.positive_values);
    varint(out, unit.active_sequences);
    varint(out, boundaries.len() as u64);
    boundaries.iter().for_each(|b| out.extend(b.to_le_bytes()));
    let scale = Scale::of(lists.iter().flatten().map(|e| &*e.values));
    if encoding == Encoding::U8 {
        out.extend(scale.low.to_le_bytes());
        out.extend(scale.step.to_le_bytes());
    }
    varint(out, lists.len() as u64);
    for list in lists {
        varint(out, list.len() as u64);
        for example in list {
            varint(out, texts.index(example) as u64);
            write_values(out, &example.values, encoding, &scale);
        }
    }
    let histogram = &unit.histogram;
    out.extend(histogram.exponent().to_le_bytes());
    out.extend(histogram.first().to_le_bytes());
    varint(out, histogram.counts().len() as u64);
    histogram.counts().iter().for_each(|count| varint(out, *count));
}

fn write_values(out: &mut Vec<u8>, values: &Values, encoding: Encoding, scale: &Scale) {
    let number = |out: &mut Vec<u8>, x: f32| match encoding {
        Encoding::F32 => out.extend(x.to_le_bytes()),
        // What half precision cannot hold is held as its largest number, not as infinity.
        Encoding::F16 => out.extend(f16::from_f32(x.clamp(-65504.0, 65504.0)).to_le_bytes()),
        Encoding::U8 => out.push(if scale.step > 0.0 { ((x - scale.low) / scale.step).round() as u8 } else { 0 }),
    };
    match values {
        Values::Dense(values) => {
            varint(out, 2 * values.len() as u64 + 1);
            values.iter().for_each(|x| number(out, *x));
        }
        Values::Sparse { entries, .. } => {
            varint(out, 2 * entries.len() as u64);
            let mut next = 0;
            for &(index, x) in entries {
                varint(out, u64::from(index + 1 - next));
                number(out, x);
                next = index + 1;
            }
        }
    }
}

/// Smallest stored value of a record, and a 255th of the range of its values.
struct Scale {
    low: f32,
    step: f32,
}

impl Scale {
    fn of<'a>(all: impl Iterator<Item = &'a Values>) -> Self {
        let (mut low, mut high) = (f32::INFINITY, f32::NEG_INFINITY);
        let mut see = |x: f32| (low, high) = (low.min(x), high.max(x));
        for values in all {
            match values {
                Values::Dense(values) => values.iter().for_each(|x| see(*x)),
                Values::Sparse { entries, .. } => entries.iter().for_each(|e| see(e.1)),
            }
        }
        if low > high { Self { low: 0.0, step: 0.0 } } else { Self { low, step: (high - low) / 255.0 } }
    }
}

fn varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 128 {
        out.push(n as u8 | 128);
        n >>= 7;
    }
    out.push(n as u8);
}
