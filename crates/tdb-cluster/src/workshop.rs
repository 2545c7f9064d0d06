//! What a worker has opened, and the work it does with it.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use datafusion::error::DataFusionError;
use tdb_collate::{Collation, Parts, UnitName, Watch, output};
use tdb_data::Put;
use tdb_server::cli::collate::{Ready, left_out};
use tdb_server::cli::library::DataArgs;
use tokio::sync::{oneshot, watch};

use crate::job::{Job, Step};
use crate::pulse::Pulse;
use crate::rows::Row;

/// Where a worker's work is done: on a thread of its own, so that heartbeats go on, one piece after the other.
pub struct Workshop {
    /// What others call this worker.
    name: String,
    tasks: mpsc::Sender<Task>,
    /// How long a unit may show no sign of life.
    stuck: Duration,
    /// Why this worker has to leave the work to others, once it has.
    leaving: watch::Sender<Option<String>>,
}

/// Stands before what is wrong with this worker and not with what it was asked to do.
#[derive(Debug)]
struct Unfit;

impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cannot take part")
    }
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
    pub fn open(name: String, data: DataArgs, threads: Option<usize>, stuck: Duration) -> anyhow::Result<Arc<Self>> {
        let (tasks, next) = mpsc::channel::<Task>();
        let mut bench = Bench { data, threads, open: None, known: BTreeSet::new() };
        let work = move || {
            for task in next {
                let done = catch_unwind(AssertUnwindSafe(|| bench.work(&task)));
                let done = done.unwrap_or_else(|_| Err(anyhow!("it panicked; its log says where")));
                // Nobody waits for cancelled work.
                let _ = task.done.send(done);
            }
        };
        std::thread::Builder::new().name("work".to_owned()).spawn(work).context("no thread to work with")?;
        Ok(Arc::new(Self { name, tasks, stuck, leaving: watch::Sender::new(None) }))
    }

    /// Comes back with a sentence if this worker cannot go on.
    pub async fn leaves(&self) -> String {
        match self.leaving.subscribe().wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }

    /// Does a step with some rows, after what was begun before. If nobody waits any longer, the work stops within a
    /// sequence. A worker that cannot do what others can says so when it is checked; later on it leaves, and does not come
    /// back from here: what it was given goes to another, as if it had died.
    ///
    /// # Errors
    /// With a sentence that begins with the worker's name. What may pass, such as a store that does not answer, is an
    /// error that Ballista tries again elsewhere.
    pub async fn work(&self, step: Step, job: Arc<Job>, rows: Vec<Row>) -> Result<Vec<Row>, DataFusionError> {
        let cancel = Cancel(Arc::new(AtomicBool::new(false)));
        let gone = || DataFusionError::Execution(format!("worker {}: its thread has ended", self.name));
        let (done, receive) = oneshot::channel();
        let pulse = Arc::new(Pulse::default());
        let watch = Watched { cancelled: cancel.0.clone(), pulse: pulse.clone() };
        self.tasks.send(Task { step, job, rows, watch, done }).map_err(|_| gone())?;
        let done = tokio::select! {
            done = receive => done.map_err(|_| gone())?,
            () = pulse.stops(self.stuck) => {
                let seconds = self.stuck.as_secs();
                Err(anyhow!("nothing has come of a unit for {seconds} s (--stuck)")).context(Unfit)
            }
        };
        drop(cancel);
        match done {
            Ok(rows) => Ok(rows),
            Err(error) if step != Step::Check && error.is::<Unfit>() && !may_pass(&error) => {
                self.leaving.send_replace(Some(self.sentence(&error)));
                std::future::pending().await
            }
            Err(error) => Err(self.failed(&error)),
        }
    }

    fn sentence(&self, error: &anyhow::Error) -> String {
        format!("worker {}: {}", self.name, tdb_server::cli::sentence(error))
    }

    fn failed(&self, error: &anyhow::Error) -> DataFusionError {
        let sentence = self.sentence(error);
        tracing::info!("failed: {sentence}");
        match may_pass(error) {
            true => DataFusionError::IoError(std::io::Error::other(sentence)),
            false => DataFusionError::Execution(sentence),
        }
    }
}

/// Whether the same may succeed later or elsewhere.
fn may_pass(error: &anyhow::Error) -> bool {
    let of_store = |e: &tdb_data::Error| matches!(e, tdb_data::Error::Network { .. } | tdb_data::Error::Unsent { .. });
    error.chain().any(|cause| match cause.downcast_ref::<tdb_collate::Error>() {
        Some(tdb_collate::Error::Data(error)) => of_store(error),
        Some(tdb_collate::Error::Write { .. }) => true,
        _ => cause.downcast_ref().is_some_and(of_store),
    })
}

struct Task {
    step: Step,
    job: Arc<Job>,
    rows: Vec<Row>,
    watch: Watched,
    done: oneshot::Sender<anyhow::Result<Vec<Row>>>,
}

/// What the thread has that works.
struct Bench {
    data: DataArgs,
    threads: Option<usize>,
    /// The job that was opened last: a model is loaded once, not for each unit.
    open: Option<(String, Ready)>,
    /// All jobs that could be opened once.
    known: BTreeSet<String>,
}

impl Bench {
    fn work(&mut self, task: &Task) -> anyhow::Result<Vec<Row>> {
        let Task { step, job, rows, watch, .. } = task;
        ensure!(!watch.is_cancelled(), "cancelled");
        let key = serde_json::to_string(job)?;
        if self.open.as_ref().is_none_or(|open| open.0 != key) {
            // The one before goes first: two models need not fit into memory.
            self.open = None;
            let ready = self.ready(job);
            // What a worker could do once is no fault of its own later on.
            let ready = if self.known.contains(&key) { ready } else { ready.context(Unfit) }?;
            self.known.insert(key.clone());
            self.open = Some((key, ready));
        }
        let ready = self.open.as_ref().map(|open| &open.1).context("no job is open")?;
        let done = match step {
            Step::Check => Ok(()),
            Step::Make => watch.pulse.during(|| rows.iter().try_for_each(|row| make(&ready.collation(), row, watch))),
            Step::Merge => merge(ready, rows, watch),
        };
        if done.as_ref().is_err_and(|error| !watch.is_cancelled() && !may_pass(error)) {
            // What is open may be what was wrong, such as a text that was changed.
            self.open = None;
        }
        done.map(|()| rows.clone())
    }

    /// The job, opened; every worker must come to the same plan as whoever asked.
    fn ready(&self, job: &Job) -> anyhow::Result<Ready> {
        tracing::info!("opening plan {}", job.plan.hash());
        let mut asked = job.asked.clone();
        (asked.data, asked.threads) = (self.data.clone(), self.threads);
        let ready = Ready::new(&asked)?;
        if let Some(difference) = job.plan.difference(&ready.plan) {
            bail!("what was asked for and what is there are not the same collation: {difference}");
        }
        ready.check_writable()?;
        Ok(ready)
    }
}

fn make(collation: &Collation<'_>, row: &Row, watch: &Watched) -> anyhow::Result<()> {
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
fn merge(ready: &Ready, rows: &[Row], watch: &Watched) -> anyhow::Result<()> {
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

/// What a task is watched by.
struct Watched {
    cancelled: Arc<AtomicBool>,
    pulse: Arc<Pulse>,
}

impl Watch for Watched {
    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    fn done(&self, _: usize) {
        self.pulse.beat();
    }
}
