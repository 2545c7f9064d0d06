//! Runs a model over sequences and sums up what its units do.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tdb_model::{ForwardOptions, Run, Slot, Transformer};

use crate::corpus::Sequence;
use crate::measure::{head_writes, measure};
use crate::summary::{LayerSummary, Plan, SharedLayers, Summary};
use crate::unit::Kind;
use crate::{Error, Result};

/// What to run, and who watches.
pub struct Job<'a> {
    pub model: &'a Transformer,
    pub plan: &'a Plan,
    pub layers: Range<usize>,
    /// Sequences that are run at the same time, each on a thread of its own.
    pub threads: usize,
    pub watch: &'a dyn Watch,
}

/// Sees the progress of a collation and may stop it.
pub trait Watch: Sync {
    /// Asked before every sequence.
    fn is_cancelled(&self) -> bool {
        false
    }

    /// A sequence of so many tokens is done.
    fn done(&self, _tokens: usize) {}

    /// A line for a person.
    fn note(&self, _line: &str) {}
}

impl Watch for () {}

/// Sums up `sequences`; what they cover of the corpus is for the caller to say.
///
/// Each sequence is run by itself on one thread, so that its values are the same whichever others are run beside it.
///
/// # Errors
/// If a sequence cannot be read or run, a value is not a number, or the watcher cancels.
pub fn summarize(job: &Job<'_>, sequences: impl Iterator<Item = Result<Arc<Sequence>>> + Send) -> Result<Summary> {
    let model = only(job.model, &job.layers, &job.plan.kinds)?;
    let empty = |layer| (layer, Mutex::new(LayerSummary::empty(&model, layer, job.plan)));
    let layers: SharedLayers = job.layers.clone().map(empty).collect();
    let worker = Worker {
        job,
        model: &model,
        layers: &layers,
        sequences: Mutex::new(sequences),
        stop: AtomicBool::new(false),
        error: Mutex::new(None),
    };
    std::thread::scope(|scope| {
        for _ in 0..job.threads.max(1) {
            scope.spawn(|| worker.work());
        }
    });
    if let Some(error) = worker.error.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let layers = layers.into_iter();
    let layers = layers.map(|(i, l)| (i, l.into_inner().unwrap_or_else(PoisonError::into_inner))).collect();
    Ok(Summary { plan: job.plan.clone(), covers: Vec::new(), layers })
}

/// The model with only those autoencoders that are asked about.
fn only(model: &Transformer, layers: &Range<usize>, kinds: &[Kind]) -> Result<Transformer> {
    let mut out = model.clone();
    for (slot, of) in [
        (Slot::Mlp, &[Kind::MlpLatent][..]),
        (Slot::Attention, &[Kind::AttnLatent, Kind::AttnLatentPairs]),
        (Slot::Residual, &[Kind::ResidualLatent]),
    ] {
        let any = of.iter().any(|kind| kinds.contains(kind));
        let wanted = |layer: usize| model.autoencoder(slot, layer).filter(|_| any && layers.contains(&layer)).cloned();
        let wanted = (0..model.config().n_layers).map(wanted).collect();
        out = out.attach_layers(slot, wanted).map_err(|error| Error::setting("autoencoder", error.to_string()))?;
    }
    Ok(out)
}

struct Worker<'a, I> {
    job: &'a Job<'a>,
    model: &'a Transformer,
    layers: &'a SharedLayers,
    sequences: Mutex<I>,
    stop: AtomicBool,
    error: Mutex<Option<Error>>,
}

impl<I: Iterator<Item = Result<Arc<Sequence>>> + Send> Worker<'_, I> {
    fn work(&self) {
        // A pool of one thread: products within a sequence are not split, and their sums not reordered.
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
        let result = match pool {
            Ok(pool) => pool.install(|| self.run_all()),
            Err(error) => Err(Error::setting("threads", error.to_string())),
        };
        if let Err(error) = result {
            self.stop.store(true, Ordering::Relaxed);
            self.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
    }

    fn run_all(&self) -> Result<()> {
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            if self.job.watch.is_cancelled() {
                return Err(Error::Cancelled { finished: 0 });
            }
            let next = self.sequences.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(sequence) = next.transpose()? else { return Ok(()) };
            self.run(&sequence)?;
            self.job.watch.done(sequence.tokens.len());
        }
    }

    fn run(&self, sequence: &Arc<Sequence>) -> Result<()> {
        let options = ForwardOptions { layers: Some(self.job.layers.end), ..Default::default() };
        let failed = |error: tdb_model::Error| Error::run(sequence.number, &error);
        let run = self.model.forward(&sequence.tokens, options).map_err(failed)?;
        for (&layer, summary) in self.layers {
            self.add(sequence, &run, layer, summary)?;
        }
        Ok(())
    }

    fn add(&self, sequence: &Arc<Sequence>, run: &Run, layer: usize, summary: &Mutex<LayerSummary>) -> Result<()> {
        let kinds = &self.job.plan.kinds;
        let failed = |error: tdb_model::Error| Error::run(sequence.number, &error);
        let wants_pairs = kinds.iter().any(|k| k.per_pair());
        let writes = wants_pairs.then(|| head_writes(self.model, run, layer)).transpose().map_err(failed)?;
        let measured = kinds.iter().map(|kind| Ok((*kind, measure(run, layer, *kind, writes.as_ref())?)));
        let measured: Vec<_> = measured.collect::<tdb_model::Result<_>>().map_err(failed)?;
        // All that is computed is computed before the lock is taken.
        let measured: Vec<_> = measured.into_iter().filter_map(|(kind, m)| m.map(|m| (kind, m))).collect();
        let mut summary = summary.lock().unwrap_or_else(PoisonError::into_inner);
        summary.count(sequence);
        for (kind, measured) in &measured {
            if let Some(into) = summary.kinds.get_mut(kind) {
                into.add(self.job.plan, (layer, *kind), sequence, measured)?;
            }
        }
        Ok(())
    }
}
