//! What has been seen of the units of some layers in some shards.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use tdb_data::Histogram;
use tdb_model::{MlpKind, Norm, Slot, Transformer};

use crate::corpus::{Cutting, Sequence, mix};
use crate::example::{Example, Sample, Top};
use crate::measure::{Figures, Measured, UnitValues, Values};
use crate::unit::Kind;
use crate::{Error, ExactSum, Result};

/// How many examples are kept of each unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sizes {
    /// Those with the largest values.
    pub top: usize,
    /// Drawn from all sequences.
    pub random: usize,
    /// Parts into which the sequences with a positive value are divided by their largest one, ...
    pub quantiles: usize,
    /// ... and how many of each.
    pub per_quantile: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { top: 20, random: 20, quantiles: 4, per_quantile: 3 }
    }
}

impl Sizes {
    /// Examples drawn from the sequences in which the unit has a positive value.
    pub fn active(&self) -> usize {
        self.quantiles * self.per_quantile
    }
}

/// All that two summaries must have in common to be merged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The model's name.
    pub model: String,
    /// Of the weights that it was run with, see [`fingerprint`].
    pub fingerprint: String,
    /// Names of the autoencoders, for people.
    pub autoencoders: Vec<String>,
    /// Name and size in bytes of every file of the corpus.
    pub corpus: Vec<(String, u64)>,
    /// Of the contents of those files, see [`crate::work::fingerprint_corpus`].
    pub content: String,
    pub cutting: Cutting,
    pub sizes: Sizes,
    /// Whether what a unit does at the first token of a sequence counts among its largest values. Many units fire there
    /// whatever the token is, and their top examples would show nothing else.
    pub first_counts: bool,
    pub kinds: Vec<Kind>,
    /// Seeds the random samples.
    pub seed: u64,
    /// In how many shards the corpus is read.
    pub shards: usize,
    /// Of the program: another one may compute other values.
    pub version: String,
}

/// The program's version, as plans name it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The documents `first`, `first + step`, … below `end`, and what became of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interval {
    pub first: u64,
    pub step: u64,
    /// The number of documents of the whole corpus.
    pub end: u64,
    /// Sequences that they were cut into.
    pub sequences: u64,
    /// In those.
    pub tokens: u64,
}

impl Interval {
    /// Whether a document is in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        // Both step by the number of shards, or they are of different plans.
        self.step != other.step || self.first == other.first
    }
}

impl std::fmt::Display for Interval {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { first, step, end, sequences, .. } = self;
        write!(f, "documents {first}, {}, … below {end} ({sequences} sequences)", first + step)
    }
}

/// A number that changes with the weights of a model and its autoencoders: of their sizes and their biases, which differ
/// between any two trained models.
///
/// # Errors
/// If the weights cannot be read.
pub fn fingerprint(model: &Transformer) -> tdb_model::Result<String> {
    let mut hash = 0u64;
    let mut add = |numbers: &[f32]| {
        hash = mix(hash ^ numbers.len() as u64);
        for x in numbers {
            hash = mix(hash ^ u64::from(x.to_bits()));
        }
    };
    let config = model.config();
    let has_bias = &config.attention.bias;
    let mut parts =
        vec![("attn.q", has_bias.q), ("attn.k", has_bias.k), ("attn.v", has_bias.v), ("attn.o", has_bias.o)];
    if config.mlp != MlpKind::None {
        parts.extend([("mlp.in", config.mlp_bias), ("mlp.out", config.mlp_bias)]);
    }
    for layer in 0..config.n_layers {
        for (part, has_bias) in &parts {
            let name = format!("blocks.{layer}.{part}");
            if *has_bias {
                add(&model.weight(&format!("{name}.bias"))?.to_vec1()?);
            }
            add(&model.weight(&format!("{name}.weight"))?.get(0)?.to_vec1()?);
        }
        let block = model.block(layer);
        [&block.attn_norm, &block.mlp_norm].into_iter().filter_map(Norm::gain).for_each(&mut add);
    }
    add(&model.embedding().row(0));
    model.unembedding().bias().into_iter().for_each(&mut add);
    model.final_norm().gain().into_iter().for_each(&mut add);
    for layer in 0..config.n_layers {
        for autoencoder in Slot::ALL.into_iter().filter_map(|slot| model.autoencoder(slot, layer)) {
            add(&autoencoder.encoder_row(0));
            add(autoencoder.direction(autoencoder.n_latents() - 1));
        }
    }
    Ok(format!("{hash:016x}"))
}

/// One unit.
#[derive(Clone, Debug, Default)]
pub struct UnitSummary {
    pub top: Top,
    pub random: Sample,
    /// Of the sequences in which the unit has a positive value.
    pub active: Sample,
    /// Sums over all values of their first to fourth powers.
    pub powers: [ExactSum; 4],
    /// Of all values but zeros.
    pub histogram: Histogram,
    /// Values above 0.
    pub positive_values: u64,
    /// Sequences with a value above 0.
    pub active_sequences: u64,
    /// Sequences with a value above 0 at their first token.
    pub active_first: u64,
}

/// All units of one kind in one layer.
#[derive(Clone, Debug)]
pub struct KindSummary {
    pub units: Vec<UnitSummary>,
    /// For each unit what [`Sample::limit`] says of its random sample: most offers are refused, and this side by side
    /// list refuses them without touching the unit.
    random_limits: Vec<u64>,
}

/// One layer.
#[derive(Clone, Debug, Default)]
pub struct LayerSummary {
    pub sequences: u64,
    pub tokens: u64,
    /// Token pairs.
    pub pairs: u64,
    pub kinds: BTreeMap<Kind, KindSummary>,
}

/// Some layers over some shards.
#[derive(Debug)]
pub struct Summary {
    pub plan: Plan,
    /// The documents that it has seen, ascending.
    pub covers: Vec<Interval>,
    pub layers: BTreeMap<usize, LayerSummary>,
}

/// Together with a sequence's number gives its place in the unit's own random order.
fn unit_key(seed: u64, layer: usize, kind: Kind, unit: usize) -> u64 {
    mix(mix(seed ^ ((kind as u64) << 48) ^ ((layer as u64) << 32)) ^ unit as u64)
}

const RANDOM: u64 = 0x7261_6e64;
const ACTIVE: u64 = 0x6163_7469;

impl KindSummary {
    pub fn new(units: Vec<UnitSummary>, sizes: &Sizes) -> Self {
        let random_limits = units.iter().map(|u| u.random.limit(sizes.random)).collect();
        Self { units, random_limits }
    }

    /// Adds what all units did on a sequence.
    ///
    /// # Errors
    /// If a value is not a number.
    pub fn add(
        &mut self,
        plan: &Plan,
        (layer, kind): (usize, Kind),
        sequence: &Arc<Sequence>,
        measured: &Measured,
    ) -> Result<()> {
        let mut next = 0;
        let mut bad = None;
        let n = kind.values(sequence.tokens.len());
        let zeros: Arc<_> = Arc::new(Values::Sparse { len: n as u32, entries: [].into() });
        let sequence_key = |salt| mix(sequence.number ^ salt);
        let (random_key, active_key) = (sequence_key(RANDOM), sequence_key(ACTIVE));
        let read = measured.for_each(plan.first_counts, |unit, figures, values| {
            self.skip(next..unit, plan, (layer, kind), sequence, random_key, &zeros);
            next = unit + 1;
            if !figures.is_finite() {
                bad.get_or_insert(unit);
                return;
            }
            let key = unit_key(plan.seed, layer, kind, unit);
            let summary = &mut self.units[unit];
            let priorities = [mix(key ^ random_key), mix(key ^ active_key)];
            summary.add(kind, plan, priorities, sequence, figures, values);
            self.random_limits[unit] = summary.random.limit(plan.sizes.random);
        });
        read.map_err(|error| Error::run(sequence.number, &error))?;
        let end = self.units.len();
        self.skip(next..end, plan, (layer, kind), sequence, random_key, &zeros);
        match bad {
            None => Ok(()),
            Some(unit) => {
                let what = format!("{} {unit} of layer {layer} has a value that is not a number", kind.scalar());
                Err(Error::Run { sequence: sequence.number, what })
            }
        }
    }

    /// Units that are 0 in the whole sequence: only the random sample may take it.
    fn skip(
        &mut self,
        units: Range<usize>,
        plan: &Plan,
        (layer, kind): (usize, Kind),
        sequence: &Arc<Sequence>,
        random_key: u64,
        zeros: &Arc<Values>,
    ) {
        for unit in units {
            let priority = mix(unit_key(plan.seed, layer, kind, unit) ^ random_key);
            if priority < self.random_limits[unit] {
                let random = &mut self.units[unit].random;
                let (sequence, values) = (sequence.clone(), zeros.clone());
                random.offer(plan.sizes.random, Example { priority, figure: 0.0, peak: 0, sequence, values });
                self.random_limits[unit] = random.limit(plan.sizes.random);
            }
        }
    }
}

impl UnitSummary {
    fn add(
        &mut self,
        kind: Kind,
        plan: &Plan,
        [random, active]: [u64; 2],
        sequence: &Arc<Sequence>,
        figures: Figures,
        values: UnitValues<'_>,
    ) {
        let sizes = &plan.sizes;
        for (sum, x) in self.powers.iter_mut().zip(figures.powers) {
            sum.add(x);
        }
        values.for_each(|x| self.histogram.add(x));
        self.active_first += u64::from(figures.first_positive);
        self.positive_values += u64::from(figures.positive);
        self.active_sequences += u64::from(figures.positive > 0);
        // Minus infinity: the sequence has its first token alone, and that does not count.
        let least = if kind.is_sparse() { 0.0 } else { f32::NEG_INFINITY };
        let into_top = figures.largest > least && self.top.admits(sizes.top, figures.largest, sequence.number);
        let into_random = self.random.admits(sizes.random, random);
        let into_active = figures.largest > 0.0 && self.active.admits(sizes.active(), active);
        if !(into_top || into_random || into_active) {
            return;
        }
        let values = Arc::new(values.copy());
        let peak = values.peak(kind, plan.first_counts);
        let example = |priority| Example {
            priority,
            figure: figures.largest,
            peak,
            sequence: sequence.clone(),
            values: values.clone(),
        };
        if into_top {
            self.top.offer(sizes.top, example(random));
        }
        if into_random {
            self.random.offer(sizes.random, example(random));
        }
        if into_active {
            self.active.offer(sizes.active(), example(active));
        }
    }

    fn merge(&mut self, sizes: &Sizes, other: Self) {
        for e in other.top.examples() {
            self.top.offer(sizes.top, e.clone());
        }
        for e in other.random.examples() {
            self.random.offer(sizes.random, e.clone());
        }
        for e in other.active.examples() {
            self.active.offer(sizes.active(), e.clone());
        }
        for (sum, x) in self.powers.iter_mut().zip(&other.powers) {
            sum.merge(x);
        }
        self.histogram.merge(&other.histogram);
        self.positive_values += other.positive_values;
        self.active_sequences += other.active_sequences;
        self.active_first += other.active_first;
    }
}

impl LayerSummary {
    /// Of a layer of which nothing was seen yet.
    pub fn empty(model: &Transformer, layer: usize, plan: &Plan) -> Self {
        let units = |kind: &Kind| {
            let units = vec![UnitSummary::default(); kind.count(model, layer)];
            (*kind, KindSummary::new(units, &plan.sizes))
        };
        Self { kinds: plan.kinds.iter().map(units).filter(|k| !k.1.units.is_empty()).collect(), ..Self::default() }
    }

    pub(crate) fn count(&mut self, sequence: &Sequence) {
        let tokens = sequence.tokens.len();
        self.sequences += 1;
        self.tokens += tokens as u64;
        self.pairs += (tokens * (tokens + 1) / 2) as u64;
    }
}

impl Summary {
    /// Adds another summary of the same layers over other shards.
    ///
    /// # Errors
    /// If they are of different collations or layers, or have a document in common.
    pub fn merge(&mut self, other: Self) -> Result<()> {
        self.check(&other)?;
        let sizes = &self.plan.sizes;
        for (layer, from) in other.layers {
            let Some(into) = self.layers.get_mut(&layer) else { continue };
            into.sequences += from.sequences;
            into.tokens += from.tokens;
            into.pairs += from.pairs;
            for (kind, from) in from.kinds {
                let Some(into) = into.kinds.get_mut(&kind) else { continue };
                for (into, from) in into.units.iter_mut().zip(from.units) {
                    into.merge(sizes, from);
                }
                into.random_limits = into.units.iter().map(|u| u.random.limit(sizes.random)).collect();
            }
        }
        self.covers.extend(other.covers);
        self.covers.sort_unstable();
        Ok(())
    }

    fn check(&self, other: &Self) -> Result<()> {
        let mismatch = |difference: String| Error::Mismatch { what: "two summaries".to_owned(), difference };
        if let Some(difference) = self.plan.difference(&other.plan) {
            return Err(mismatch(difference));
        }
        if let Some(twice) = self.covers.iter().find(|mine| other.covers.iter().any(|i| mine.overlaps(i))) {
            return Err(mismatch(format!("both hold {twice}, which would be counted twice")));
        }
        let shape = |s: &Self| -> Vec<(usize, Vec<(Kind, usize)>)> {
            let kinds = |l: &LayerSummary| l.kinds.iter().map(|(kind, k)| (*kind, k.units.len())).collect();
            s.layers.iter().map(|(layer, l)| (*layer, kinds(l))).collect()
        };
        if shape(self) != shape(other) {
            return Err(mismatch("they hold different layers or units".to_owned()));
        }
        Ok(())
    }
}

impl Summary {
    /// Checks that nothing of the corpus is missing.
    ///
    /// # Errors
    /// If documents are missing, or the parts have seen corpora of different lengths.
    pub fn check_whole(&self) -> Result<()> {
        let incomplete =
            |difference: String| Error::Mismatch { what: "the parts of the corpus".to_owned(), difference };
        if let Some(pair) = self.covers.windows(2).find(|pair| pair[0].end != pair[1].end) {
            return Err(incomplete(format!("one has seen {}, another {}", pair[0], pair[1])));
        }
        let first = self.covers.iter().map(|i| i.first);
        if !first.eq(0..self.plan.shards as u64) {
            let n = self.covers.len();
            return Err(incomplete(format!("{n} of {} shards were seen", self.plan.shards)));
        }
        let seen = self.covers.iter().fold((0, 0), |sum, i| (sum.0 + i.sequences, sum.1 + i.tokens));
        match self.layers.iter().find(|(_, layer)| (layer.sequences, layer.tokens) != seen) {
            None => Ok(()),
            Some((index, layer)) => {
                let (n, all) = (layer.sequences, seen.0);
                Err(incomplete(format!("layer {index} has seen {n} sequences of {all}")))
            }
        }
    }
}

impl Plan {
    /// A number that is another one for another plan, in hexadecimal.
    pub fn hash(&self) -> String {
        let text = serde_json::to_vec(self).unwrap_or_default();
        let word = |bytes: &[u8]| bytes.iter().fold(bytes.len() as u64, |word, byte| word << 8 | u64::from(*byte));
        format!("{:016x}", text.chunks(7).fold(0, |hash, bytes| mix(hash ^ word(bytes))))
    }

    /// In what another plan differs, if it does.
    pub fn difference(&self, other: &Self) -> Option<String> {
        fn fields(plan: &Plan) -> Option<serde_json::Map<String, serde_json::Value>> {
            serde_json::to_value(plan).ok()?.as_object().cloned()
        }
        if self == other {
            return None;
        }
        let (a, b) = (fields(self)?, fields(other)?);
        let name = a.keys().find(|key| a.get(*key) != b.get(*key))?;
        Some(format!("{name} is {} in one and {} in the other", a.get(name)?, b.get(name)?))
    }
}

/// A layer that several threads add to.
pub(crate) type SharedLayers = BTreeMap<usize, Mutex<LayerSummary>>;
