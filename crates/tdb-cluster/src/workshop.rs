//! What a worker has opened, and the work it does with it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use anyhow::{Context, anyhow, bail, ensure};
use datafusion::error::DataFusionError;
use tdb_collate::{Collation, Parts, UnitName, Watch, output};
use tdb_data::Put;
use tdb_server::cli::collate::{Ready, left_out};
use tdb_server::cli::library::DataArgs;
use tokio::sync::oneshot;

use crate::job::{Job, Step};
use crate::rows::Row;

/// Where a worker's work is done: on a thread of its own, so that heartbeats go on, one piece after the other.
pub struct Workshop {
    /// What others call this worker.
    name: String,
    tasks: mpsc::Sender<Task>,
}

impl std::fmt::Debug for Workshop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Workshop of {}", self.name)
    }
}

impl Workshop {
    /// The workshop of the worker `name`, which finds models and texts by `data`.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn open(name: String, data: DataArgs, threads: Option<usize>) -> anyhow::Result<Arc<Self>> {
        let (tasks, next) = mpsc::channel::<Task>();
        let mut bench = Bench { data, threads, open: None };
        let work = move || {
            for task in next {
                let done = catch_unwind(AssertUnwindSafe(|| bench.work(&task)));
                let done = done.unwrap_or_else(|_| Err(anyhow!("it panicked; its log says where")));
                // Nobody waits for cancelled work.
                let _ = task.done.send(done);
            }
        };
        std::thread::Builder::new().name("work".to_owned()).spawn(work).context("no thread to work with")?;
        Ok(Arc::new(Self { name, tasks }))
    }

    /// Does a step with some rows, after what was begun before. If nobody waits any longer, the work stops within a
    /// sequence.
    ///
    /// # Errors
    /// With a sentence that begins with the worker's name. What may pass, such as a store that does not answer, is an
    /// error that Ballista tries again elsewhere.
    pub async fn work(&self, step: Step, job: Arc<Job>, rows: Vec<Row>) -> Result<Vec<Row>, DataFusionError> {
        let cancel = Cancel(Arc::new(AtomicBool::new(false)));
        let gone = || DataFusionError::Execution(format!("worker {}: its thread has ended", self.name));
        let (done, receive) = oneshot::channel();
        let task = Task { step, job, rows, watch: Cancelled(cancel.0.clone()), done };
        self.tasks.send(task).map_err(|_| gone())?;
        let done = receive.await.map_err(|_| gone())?;
        drop(cancel);
        done.map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &anyhow::Error) -> DataFusionError {
        let sentence = format!("worker {}: {}", self.name, tdb_server::cli::sentence(error));
        tracing::info!("failed: {sentence}");
        let of_store =
            |e: &tdb_data::Error| matches!(e, tdb_data::Error::Network { .. } | tdb_data::Error::Unsent { .. });
        let may_pass = error.chain().any(|cause| match cause.downcast_ref::<tdb_collate::Error>() {
            Some(tdb_collate::Error::Data(error)) => of_store(error),
            Some(tdb_collate::Error::Write { .. }) => true,
            _ => cause.downcast_ref().is_some_and(of_store),
        });
        match may_pass {
            true => DataFusionError::IoError(std::io::Error::other(sentence)),
            false => DataFusionError::Execution(sentence),
        }
    }
}

struct Task {
    step: Step,
    job: Arc<Job>,
    rows: Vec<Row>,
    watch: Cancelled,
    done: oneshot::Sender<anyhow::Result<Vec<Row>>>,
}

/// What the thread has that works.
struct Bench {
    data: DataArgs,
    threads: Option<usize>,
    /// The job that was opened last: a model is loaded once, not for each unit.
    open: Option<(String, Ready)>,
}

impl Bench {
    fn work(&mut self, task: &Task) -> anyhow::Result<Vec<Row>> {
        let Task { step, job, rows, watch, .. } = task;
        ensure!(!watch.is_cancelled(), "cancelled");
        let ready = self.ready(job)?;
        match step {
            Step::Check => {}
            Step::Make => rows.iter().try_for_each(|row| make(&ready.collation(), row, watch))?,
            Step::Merge => merge(ready, rows, watch)?,
        }
        Ok(rows.clone())
    }

    /// The job, opened; every worker must come to the same plan as whoever asked.
    fn ready(&mut self, job: &Job) -> anyhow::Result<&Ready> {
        let key = serde_json::to_string(job)?;
        if self.open.as_ref().is_none_or(|open| open.0 != key) {
            tracing::info!("opening plan {}", job.plan.hash());
            // The one before goes first: two models need not fit into memory.
            self.open = None;
            let mut asked = job.asked.clone();
            (asked.data, asked.threads) = (self.data.clone(), self.threads);
            let ready = Ready::new(&asked)?;
            if let Some(difference) = job.plan.difference(&ready.plan) {
                bail!("what was asked for and what is there are not the same collation: {difference}");
            }
            ready.check_writable()?;
            self.open = Some((key, ready));
        }
        self.open.as_ref().map(|open| &open.1).context("no job is open")
    }
}

fn make(collation: &Collation<'_>, row: &Row, watch: &Cancelled) -> anyhow::Result<()> {
    let name = &row.name;
    let unit = UnitName::parse(name).with_context(|| format!("{name:?} is not the name of a work unit"))?;
    let put = match collation.summaries.has(name)? {
        true => Put::There,
        false => {
            tracing::info!("making {name}");
            collation.make(&unit, watch)?
        }
    };
    tracing::info!("{} {name}", if put == Put::Written { "made" } else { "found" });
    if let Some(said) = left_out(&collation.unreadable) {
        tracing::warn!("{said}");
    }
    Ok(())
}

/// Merges units of the same layers.
fn merge(ready: &Ready, rows: &[Row], watch: &Cancelled) -> anyhow::Result<()> {
    let collation = ready.collation();
    for Row { name, checksum: of } in rows {
        let (checksum, _) = collation.summaries.checksum(name)?;
        let place = collation.summaries.place(name);
        ensure!(checksum == *of, "{} has checksum {checksum}, but was made with {of}", place.display());
    }
    let unit = rows.first().and_then(|row| UnitName::parse(&row.name)).context("a task without units")?;
    let (from, to) = unit.layers;
    tracing::info!("merging layers {from}..{to}");
    let parts = Parts::of(&collation)?;
    output::write_layers(&collation, &parts, &unit.layers(), &ready.layouts, &ready.out, watch)?;
    tracing::info!("merged layers {from}..{to}");
    Ok(())
}

/// Cancels the work when it is dropped.
struct Cancel(Arc<AtomicBool>);

impl Drop for Cancel {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Cancelled(Arc<AtomicBool>);

impl Watch for Cancelled {
    fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
