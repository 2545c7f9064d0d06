//! What a collation will take, from a sample of its text.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::collect::{Job, summarize};
use crate::corpus::{Sequence, Sequences, Shard};
use crate::{Collation, Result, Summary};

/// Documents from which the sample is taken, spread over the whole text.
const SAMPLED_DOCUMENTS: u64 = 256;

/// Sequences of the sample that are run for each range of layers and thread.
const RUN_PER_THREAD: usize = 4;

/// What a collation will take.
#[derive(Clone, Copy, Debug)]
pub struct Estimate {
    pub units: usize,
    /// Work units that are there already.
    pub finished: usize,
    pub documents: u64,
    /// Bytes of text in the documents.
    pub text_bytes: u64,
    /// Tokens, those put before sequences included; for each range of layers so many are run.
    pub tokens: u64,
    pub sequences: u64,
    /// For all units on this machine with the given number of threads.
    pub time: Duration,
    /// Of all summaries, if every unit of the model keeps as many examples as it may.
    pub summary_bytes: u64,
}

/// Reads the text once and runs a few sequences of it for every range of layers.
///
/// # Errors
/// If the text cannot be read or run, or summaries of another collation are there.
pub fn estimate(collation: &Collation<'_>) -> Result<Estimate> {
    let units = collation.units(None);
    let there = collation.finished()?;
    let whole = read(collation, Shard::NOTHING, usize::MAX)?;
    let every = (whole.documents / SAMPLED_DOCUMENTS).max(1);
    let wanted = RUN_PER_THREAD * collation.threads.max(1);
    let sample = read(collation, Shard { index: 0, count: every as usize }, wanted)?;
    let share = sample.taken_bytes as f64 / whole.bytes.max(1) as f64;
    let scale = |n: usize| (n as f64 / share.max(f64::MIN_POSITIVE)) as u64;
    let sampled_tokens: usize = sample.sequences.iter().map(|s| s.tokens.len()).sum();
    let (tokens, sequences) = (scale(sampled_tokens), scale(sample.sequences.len()));
    let (mut time, mut summary_bytes) = (Duration::ZERO, 0.0);
    for layers in &collation.layers {
        let job = Job {
            model: collation.model,
            plan: &collation.plan,
            layers: layers.clone(),
            threads: collation.threads,
            watch: &(),
        };
        let begin = Instant::now();
        let summary = summarize(&job, sample.sequences.iter().cloned().map(Ok))?;
        time += begin.elapsed().mul_f64(tokens as f64 / sampled_tokens.max(1) as f64);
        summary_bytes += full_size(&summary, sequences / collation.plan.shards as u64)?;
    }
    Ok(Estimate {
        units: units.len(),
        finished: units.iter().filter(|unit| there.contains(unit)).count(),
        documents: whole.documents,
        text_bytes: whole.bytes,
        tokens,
        sequences,
        time,
        summary_bytes: (summary_bytes * collation.plan.shards as f64) as u64,
    })
}

struct Read {
    documents: u64,
    /// Of text, in all documents that were read.
    bytes: u64,
    /// Of text, in those of the shard.
    taken_bytes: u64,
    sequences: Vec<Arc<Sequence>>,
}

fn read(collation: &Collation<'_>, shard: Shard, at_most: usize) -> Result<Read> {
    let (tokenizer, n_vocab) = (collation.tokenizer.clone(), collation.model.config().n_vocab);
    let input = Sequences::new(collation.files, tokenizer, n_vocab, collation.plan.cutting.clone(), shard)?;
    let mut input = input.counting(&collation.unreadable);
    let mut sequences = Vec::new();
    // Whole documents, so that their bytes are those of their tokens.
    while sequences.len() < at_most || !input.is_between_documents() {
        let Some(sequence) = input.next() else { break };
        sequences.push(sequence?);
    }
    Ok(Read { documents: input.documents(), bytes: input.bytes(), taken_bytes: input.taken_bytes(), sequences })
}

/// Bytes of a summary in which every list is full, from the mean size of this one's examples.
fn full_size(summary: &Summary, sequences: u64) -> Result<f64> {
    let units = summary.layers.values().flat_map(|l| l.kinds.values()).flat_map(|k| &k.units);
    let (mut n_units, mut examples) = (0usize, 0usize);
    for unit in units {
        n_units += 1;
        examples += unit.top.examples().len() + unit.random.examples().len() + unit.active.examples().len();
    }
    let sizes = &summary.plan.sizes;
    let list = |n: usize| (n as u64).min(sequences);
    let full = list(sizes.top) + list(sizes.random) + list(sizes.active());
    let mean = summary.to_bytes()?.len() as f64 / examples.max(1) as f64;
    Ok(mean * (n_units as u64 * full) as f64)
}
