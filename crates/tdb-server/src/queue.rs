//! Admission and compute.
//!
//! A request first takes a place: there are as many as workers and waiting places together, and without one the answer is
//! "busy" at once. It then waits for a worker, a thread of its own apart from those that serve connections. When its
//! client goes away while it waits, the place is free again; when it computes, a flag tells the engine to stop, which it
//! does within a layer's work.

use crate::config::Limits;
use crate::error::ApiError;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tdb_api::stream::TdbEvent;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Semaphore, oneshot};

type Work = Box<dyn FnOnce() + Send>;

/// The compute threads and the places in front of them.
#[derive(Debug)]
pub struct Queue {
    places: Arc<Semaphore>,
    workers: Arc<Semaphore>,
    work: SyncSender<Work>,
    limits: Limits,
    running: Arc<AtomicUsize>,
    /// Milliseconds that recent requests took: a moving average, for `Retry-After`.
    recent_ms: Arc<AtomicUsize>,
}

/// One admitted request, as the engine sees it: whether to go on, and where parts of the answer go.
#[derive(Debug)]
pub struct Job {
    gone: Arc<AtomicBool>,
    deadline: Instant,
    events: Option<UnboundedSender<TdbEvent>>,
}

impl Job {
    /// Whether nobody waits for the answer any more, or it took too long.
    fn ends(&self) -> bool {
        self.gone.load(Ordering::Relaxed) || Instant::now() >= self.deadline
    }
}

impl tdb_scalars::Observer for Job {
    fn is_cancelled(&self) -> bool {
        self.ends()
    }

    fn event(&self, event: TdbEvent) {
        if let Some(events) = &self.events {
            // A client that went away is noticed by the flag; its last events go nowhere.
            let _ = events.send(event);
        }
    }

    fn listens(&self) -> bool {
        self.events.is_some()
    }
}

/// Tells the engine to stop when it is dropped: that is when the connection is gone, or the answer is complete.
#[derive(Debug)]
pub struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Queue {
    /// Starts the compute threads.
    ///
    /// # Errors
    /// If the system gives no threads.
    pub fn new(limits: Limits) -> std::io::Result<Self> {
        let workers = limits.workers.max(1);
        let (work, inbox) = sync_channel::<Work>(workers);
        let inbox = Arc::new(Mutex::new(inbox));
        for i in 0..workers {
            let inbox = inbox.clone();
            std::thread::Builder::new()
                .name(format!("compute-{i}"))
                .stack_size(8 << 20)
                .spawn(move || serve(&inbox))?;
        }
        Ok(Self {
            places: Arc::new(Semaphore::new(workers + limits.queue_length)),
            workers: Arc::new(Semaphore::new(workers)),
            work,
            limits,
            running: Arc::default(),
            recent_ms: Arc::new(AtomicUsize::new(1000)),
        })
    }

    /// Runs `compute` on a compute thread when its turn comes, or says at once that there is no place.
    ///
    /// Dropping the returned future stops the computation.
    pub async fn run<T: Send + 'static>(
        &self,
        compute: impl FnOnce(&Job) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let (answer, _stop) = self.start(None, compute)?;
        answer.await
    }

    /// Like [`Queue::run`], with the parts of the answer sent to `events`. The computation stops when the returned
    /// [`StopOnDrop`] is dropped.
    ///
    /// # Errors
    /// If there is no place.
    pub fn start<T: Send + 'static, F: FnOnce(&Job) -> Result<T, ApiError> + Send + 'static>(
        &self,
        events: Option<UnboundedSender<TdbEvent>>,
        compute: F,
    ) -> Result<(impl Future<Output = Result<T, ApiError>> + Send + use<T, F>, StopOnDrop), ApiError> {
        let place = self.places.clone().try_acquire_owned().map_err(|_| self.busy())?;
        let gone = Arc::new(AtomicBool::new(false));
        let (flag, workers, work) = (gone.clone(), self.workers.clone(), self.work.clone());
        let (time, running, recent) = (self.limits.time, self.running.clone(), self.recent_ms.clone());
        let answer = async move {
            // The place is held until the computation is over, also when nobody waits for it any more.
            let worker = workers.acquire_owned().await.map_err(ApiError::internal)?;
            let (done, result) = oneshot::channel();
            let begun: Work = Box::new(move || {
                let job = Job { gone: flag, deadline: Instant::now() + time, events };
                running.fetch_add(1, Ordering::Relaxed);
                let started = Instant::now();
                let outcome = compute_safely(&job, compute, time);
                note(&recent, started.elapsed());
                running.fetch_sub(1, Ordering::Relaxed);
                drop((place, worker));
                // The client may be gone.
                let _ = done.send(outcome);
            });
            // There are as many places in the channel as there are workers, and `worker` stands for one of them.
            work.send(begun).map_err(ApiError::internal)?;
            result.await.map_err(ApiError::internal)?
        };
        Ok((answer, StopOnDrop(gone)))
    }

    fn busy(&self) -> ApiError {
        let running = self.running.load(Ordering::Relaxed);
        let taken = self.limits.workers + self.limits.queue_length - self.places.available_permits();
        let waiting = taken.saturating_sub(running);
        let rounds = (waiting / self.limits.workers.max(1)) as u64 + 1;
        let seconds = (self.recent_ms.load(Ordering::Relaxed) as u64 * rounds).div_ceil(1000);
        ApiError::Busy { running, waiting, retry_after: seconds.clamp(1, 120) }
    }
}

fn serve(inbox: &Mutex<Receiver<Work>>) {
    loop {
        // The lock is held while waiting: the other threads wait for the lock instead, which is the same to them.
        let next = inbox.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match next {
            Ok(work) => work(),
            // The queue is gone: so is the server.
            Err(_) => return,
        }
    }
}

/// A panic is a fault of this program, but one request's fault only.
fn compute_safely<T>(
    job: &Job,
    compute: impl FnOnce(&Job) -> Result<T, ApiError>,
    time: Duration,
) -> Result<T, ApiError> {
    if job.gone.load(Ordering::Relaxed) {
        return Err(ApiError::Cancelled);
    }
    match catch_unwind(AssertUnwindSafe(|| compute(job))) {
        Ok(Err(ApiError::Cancelled)) if !job.gone.load(Ordering::Relaxed) => {
            Err(ApiError::TooSlow { seconds: time.as_secs() })
        }
        Ok(outcome) => outcome,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message");
            Err(ApiError::internal(format!("a computation panicked: {text}")))
        }
    }
}

fn note(recent: &AtomicUsize, took: Duration) {
    let took = usize::try_from(took.as_millis()).unwrap_or(usize::MAX).min(600_000);
    let before = recent.load(Ordering::Relaxed);
    recent.store((before * 3 + took) / 4, Ordering::Relaxed);
}
