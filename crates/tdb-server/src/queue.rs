//! Admission and compute.
//!
//! A request takes a compute thread if one is free, or waits, or is told "busy" at once. Turns go to the client for
//! whom least is computed, then to the one who has not had one for longest; when no place is left to wait, a client
//! with many requests there makes room for one with fewer. No client has all threads: where there are two or more, the
//! last one is for somebody else, whose question then waits for none to end. Large requests have compute threads of
//! their own, so that small ones never wait behind them. When its client goes away, a request leaves the queue, or a
//! flag tells the engine to stop, which it does within a layer's work.

use crate::config::Limits;
use crate::connection::Client;
use crate::error::ApiError;
use crate::metrics::{Dropped, Metrics, Stage};
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tdb_api::stream::TdbEvent;
use tokio::sync::oneshot;

/// How much a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    Small,
    Large,
}

/// Where the parts of an answer go.
pub type Events = Box<dyn Fn(TdbEvent) + Send + Sync>;

type Work = Box<dyn FnOnce() + Send>;

/// Large requests that compute at a time at most: each has as many threads of its own as there are compute threads.
const LARGE_AT_ONCE: usize = 4;

/// Bytes of a compute thread's stack.
const STACK: usize = 8 << 20;

/// The compute threads and the places in front of them.
#[derive(Debug)]
pub struct Queue {
    turns: Arc<Turns>,
    small: Sender<Work>,
    large: Sender<Work>,
    limits: Limits,
    metrics: Arc<Metrics>,
}

/// One admitted request, as the engine sees it: whether to go on, and where parts of the answer go.
pub struct Job {
    gone: Arc<AtomicBool>,
    deadline: Instant,
    events: Option<Events>,
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
            events(event);
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
    pub fn new(limits: Limits, metrics: Arc<Metrics>) -> std::io::Result<Self> {
        let workers = limits.workers.max(1);
        let large_workers = workers.div_ceil(4).min(LARGE_AT_ONCE);
        let (small, inbox) = channel();
        start_threads("compute", inbox, (0..workers).map(|_| |work: Work| work()))?;
        let (large, inbox) = channel();
        let pools = (0..large_workers).map(|_| own_threads(workers)).collect::<std::io::Result<Vec<_>>>()?;
        start_threads("compute-large", inbox, pools)?;
        let turns = Arc::new(Turns {
            state: Mutex::new(State {
                free: [workers, large_workers],
                share: [workers, large_workers].map(|threads| threads.saturating_sub(1).max(1)),
                ..State::default()
            }),
            places: limits.queue_length,
        });
        Ok(Self { turns, small, large, limits, metrics })
    }

    /// Runs `compute` on a compute thread when its turn comes, or says at once that there is no place.
    ///
    /// Dropping the returned future stops the computation.
    pub async fn run<T: Send + 'static>(
        &self,
        client: Client,
        class: Class,
        compute: impl FnOnce(&Job) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let (answer, _stop) = self.start(client, class, None, compute)?;
        answer.await
    }

    /// Like [`Queue::run`], with the parts of the answer given to `events`. The computation stops when the returned
    /// [`StopOnDrop`] is dropped.
    ///
    /// # Errors
    /// If there is no place.
    pub fn start<T: Send + 'static, F: FnOnce(&Job) -> Result<T, ApiError> + Send + 'static>(
        &self,
        client: Client,
        class: Class,
        events: Option<Events>,
        compute: F,
    ) -> Result<(impl Future<Output = Result<T, ApiError>> + Send + use<T, F>, StopOnDrop), ApiError> {
        let asked = Instant::now();
        let waiting = self.turns.ask(client, class).map_err(|Full| self.busy())?;
        let gone = Arc::new(AtomicBool::new(false));
        let (flag, time, metrics, turns) = (gone.clone(), self.limits.time, self.metrics.clone(), self.turns.clone());
        let (work, busy) = (self.channel(class).clone(), self.busy());
        let answer = async move {
            // The turn is kept until the computation is over, also when nobody waits for it any more.
            let Some(turn) = waiting.turn().await else {
                metrics.dropped(Dropped::Displaced);
                return Err(busy);
            };
            metrics.stage(Stage::Queue, asked.elapsed());
            let (done, result) = oneshot::channel();
            let begun: Work = Box::new(move || {
                let started = Instant::now();
                let job = Job { gone: flag, deadline: started + time, events };
                let outcome = compute_safely(&job, compute, time);
                drop(job);
                metrics.stage(Stage::Compute, started.elapsed());
                turns.note(started.elapsed());
                drop(turn);
                // The client may be gone.
                let _ = done.send(outcome);
            });
            work.send(begun).map_err(ApiError::internal)?;
            result.await.map_err(ApiError::internal)?
        };
        Ok((answer, StopOnDrop(gone)))
    }

    /// Requests that compute, and requests that wait.
    pub fn levels(&self) -> (usize, usize) {
        let state = self.turns.state();
        (state.running(), state.waiting.len())
    }

    fn channel(&self, class: Class) -> &Sender<Work> {
        match class {
            Class::Small => &self.small,
            Class::Large => &self.large,
        }
    }

    fn busy(&self) -> ApiError {
        let state = self.turns.state();
        let (running, waiting) = (state.running(), state.waiting.len());
        let rounds = (waiting / self.limits.workers.max(1)) as u64 + 1;
        let seconds = (state.recent.as_secs_f64() * rounds as f64).ceil() as u64;
        ApiError::Busy { running, waiting, retry_after: seconds.clamp(1, 120) }
    }
}

/// Who computes and who waits.
#[derive(Debug)]
struct Turns {
    state: Mutex<State>,
    /// How many may wait.
    places: usize,
}

#[derive(Debug, Default)]
struct State {
    /// Compute threads without work, of each class.
    free: [usize; 2],
    /// How many compute threads of each class one client may have.
    share: [usize; 2],
    /// By client: how many of its requests compute, of each class.
    computing: BTreeMap<Client, [usize; 2]>,
    /// By client, while it has requests here: the number of its last turn.
    last_turn: BTreeMap<Client, u64>,
    turns: u64,
    tickets: u64,
    /// In the order of their arrival.
    waiting: VecDeque<Entry>,
    /// How long recent requests took: a moving average, for `Retry-After`.
    recent: Duration,
}

#[derive(Debug)]
struct Entry {
    ticket: u64,
    client: Client,
    class: Class,
    turn: oneshot::Sender<Turn>,
}

/// There is no place to wait.
struct Full;

impl Turns {
    /// Asks for a turn, which may be given at once.
    fn ask(self: &Arc<Self>, client: Client, class: Class) -> Result<Waiting, Full> {
        let mut state = self.state();
        let (turn, receiver) = oneshot::channel();
        state.tickets += 1;
        let ticket = state.tickets;
        let begins = state.free[class as usize] > 0 && state.may_begin(client, class);
        let displaced = match begins || state.waiting.len() < self.places {
            true => None,
            false => Some(state.displace(client).ok_or(Full)?),
        };
        state.waiting.push_back(Entry { ticket, client, class, turn });
        self.give_turns(&mut state);
        drop(state);
        // Its waiting request learns it by this.
        drop(displaced);
        Ok(Waiting { turns: self.clone(), ticket, receiver })
    }

    /// Gives free compute threads to those who wait.
    fn give_turns(self: &Arc<Self>, state: &mut State) {
        for class in [Class::Small, Class::Large] {
            while state.free[class as usize] > 0
                && let Some(entry) = state.next(class)
            {
                state.free[class as usize] -= 1;
                state.turns += 1;
                let number = state.turns;
                state.last_turn.insert(entry.client, number);
                state.computing.entry(entry.client).or_default()[class as usize] += 1;
                let turn = Turn { turns: self.clone(), client: entry.client, class, is_over: false };
                // Whoever waits takes its entry out before it goes, so there is somebody to receive this. If not: the
                // turn may not end by being dropped here, where the state is locked.
                if let Err(mut turn) = entry.turn.send(turn) {
                    turn.is_over = true;
                    state.end_turn(entry.client, class);
                }
            }
        }
    }

    fn note(&self, took: Duration) {
        let mut state = self.state();
        state.recent = (state.recent * 3 + took) / 4;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn running(&self) -> usize {
        self.computing.values().flatten().sum()
    }

    /// How many requests of a client compute, of each class.
    fn computing(&self, client: Client) -> [usize; 2] {
        self.computing.get(&client).copied().unwrap_or_default()
    }

    /// Whether a client has fewer threads than it may have.
    fn may_begin(&self, client: Client, class: Class) -> bool {
        self.computing(client)[class as usize] < self.share[class as usize]
    }

    /// Takes out whose turn it is.
    fn next(&mut self, class: Class) -> Option<Entry> {
        let rank = |client: Client| {
            let all: usize = self.computing(client).iter().sum();
            (all, self.last_turn.get(&client).copied().unwrap_or_default())
        };
        let may_begin = |entry: &Entry| entry.class == class && self.may_begin(entry.client, class);
        let those = self.waiting.iter().enumerate().filter(|(_, entry)| may_begin(entry));
        // Of equals the first: the one that came first.
        let (at, _) = those.min_by_key(|(at, entry)| (rank(entry.client), *at))?;
        self.waiting.remove(at)
    }

    /// Takes out the last request of the client with most waiting ones, if that is more than `client` would then have.
    fn displace(&mut self, client: Client) -> Option<Entry> {
        let mut by_client: BTreeMap<Client, usize> = BTreeMap::new();
        for entry in &self.waiting {
            *by_client.entry(entry.client).or_default() += 1;
        }
        let own = by_client.get(&client).copied().unwrap_or_default();
        let (greediest, most) = by_client.into_iter().max_by_key(|(_, n)| *n)?;
        let at = self.waiting.iter().rposition(|entry| entry.client == greediest)?;
        if most > own + 1 { self.waiting.remove(at) } else { None }
    }

    fn end_turn(&mut self, client: Client, class: Class) {
        self.free[class as usize] += 1;
        if let Some(computing) = self.computing.get_mut(&client) {
            computing[class as usize] -= 1;
            if *computing == [0, 0] {
                self.computing.remove(&client);
            }
        }
        if !self.computing.contains_key(&client) && !self.waiting.iter().any(|entry| entry.client == client) {
            self.last_turn.remove(&client);
        }
    }
}

/// A request that waits for its turn. Leaves the queue when it is dropped.
struct Waiting {
    turns: Arc<Turns>,
    ticket: u64,
    receiver: oneshot::Receiver<Turn>,
}

impl Waiting {
    /// `None` if another client's request took the place.
    async fn turn(mut self) -> Option<Turn> {
        (&mut self.receiver).await.ok()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.turns.state().waiting.retain(|entry| entry.ticket != self.ticket);
    }
}

/// A compute thread's time, until it is dropped.
#[derive(Debug)]
struct Turn {
    turns: Arc<Turns>,
    client: Client,
    class: Class,
    is_over: bool,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let mut state = self.turns.state();
        state.end_turn(self.client, self.class);
        self.turns.give_turns(&mut state);
    }
}

/// Starts one compute thread for each of `ways` to do work.
fn start_threads<F: Fn(Work) + Send + 'static>(
    name: &str,
    inbox: Receiver<Work>,
    ways: impl IntoIterator<Item = F>,
) -> std::io::Result<()> {
    let inbox = Arc::new(Mutex::new(inbox));
    for (i, work) in ways.into_iter().enumerate() {
        let inbox = inbox.clone();
        let thread = std::thread::Builder::new().name(format!("{name}-{i}")).stack_size(STACK);
        thread.spawn(move || serve(&inbox, work))?;
    }
    Ok(())
}

/// How far the threads of large requests stand back, as `nice` counts it: they get a third of the time that others get,
/// and all that nobody else uses. Small questions beside giant ones take 1.2 times their quiet time by it, else 2.4
/// times (`cargo xtask bench beside`).
#[cfg(target_os = "linux")]
const NICE: i32 = 5;

/// Lets this thread give way to others, where the system has priorities of threads.
fn give_way() {
    // Without a process's number it is the calling thread's. That it is not allowed costs some milliseconds.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(None, NICE);
}

/// Threads for the parts of one large request, apart from those of all others: parts of small requests never wait for
/// them, and the system gives both their share of the cores.
fn own_threads(count: usize) -> std::io::Result<impl Fn(Work) + Send + 'static> {
    let name = |i| format!("large-part-{i}");
    let pool = rayon::ThreadPoolBuilder::new().num_threads(count).stack_size(STACK).thread_name(name);
    let pool = pool.start_handler(|_| give_way()).build();
    let pool = pool.map_err(std::io::Error::other)?;
    Ok(move |work: Work| pool.install(work))
}

fn serve(inbox: &Mutex<Receiver<Work>>, work: impl Fn(Work)) {
    loop {
        // The lock is held while waiting: the other threads wait for the lock instead, which is the same to them.
        let next = inbox.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match next {
            Ok(next) => work(next),
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn turns(free: usize, places: usize) -> Arc<Turns> {
        Arc::new(Turns {
            state: Mutex::new(State { free: [free, 1], share: [free.max(2) - 1, 1], ..State::default() }),
            places,
        })
    }

    fn client(last: u8) -> Client {
        Client::new(IpAddr::from([10, 0, 0, last]))
    }

    fn ask(turns: &Arc<Turns>, last: u8) -> Option<Waiting> {
        turns.ask(client(last), Class::Small).ok()
    }

    fn has_turn(waiting: &mut Waiting) -> Option<Turn> {
        waiting.receiver.try_recv().ok()
    }

    #[test]
    fn turns_go_round() {
        let turns = turns(1, 8);
        let mut first = ask(&turns, 1).unwrap();
        let mut of_one: Vec<_> = (0..3).map(|_| ask(&turns, 1).unwrap()).collect();
        let mut of_two: Vec<_> = (0..2).map(|_| ask(&turns, 2).unwrap()).collect();
        let running = has_turn(&mut first).unwrap();
        assert!(of_one.iter_mut().chain(&mut of_two).all(|waiting| has_turn(waiting).is_none()));
        drop(running);
        // The other client, though it came last; then one after the other.
        let running = has_turn(&mut of_two[0]).unwrap();
        drop(running);
        let running = has_turn(&mut of_one[0]).unwrap();
        drop(running);
        assert!(has_turn(&mut of_two[1]).is_some());
    }

    #[test]
    fn the_last_thread_is_for_somebody_else() {
        let turns = turns(2, 1);
        let mut of_one: Vec<_> = (0..2).map(|_| ask(&turns, 1).unwrap()).collect();
        let running = has_turn(&mut of_one[0]).unwrap();
        assert!(ask(&turns, 1).is_none(), "a free thread that is not for it is no place");
        assert!(has_turn(&mut of_one[1]).is_none() && has_turn(&mut ask(&turns, 2).unwrap()).is_some());
        drop(running);
        assert!(has_turn(&mut of_one[1]).is_some());
    }

    #[test]
    fn a_full_queue_makes_room_for_those_with_less() {
        let turns = turns(0, 3);
        let mut of_one: Vec<_> = (0..3).map(|_| ask(&turns, 1).unwrap()).collect();
        assert!(ask(&turns, 1).is_none(), "not for oneself");
        let of_two = ask(&turns, 2).unwrap();
        assert!(of_one[2].receiver.try_recv().is_err() && turns.state().waiting.len() == 3);
        assert!(ask(&turns, 2).is_none(), "two and one is as fair as one and two");
        drop((of_one, of_two));
        assert_eq!(turns.state().waiting.len(), 0, "whoever goes leaves the queue");
    }

    #[test]
    fn a_turn_that_nobody_takes_is_given_on() {
        let turns = turns(1, 8);
        let first = ask(&turns, 1).unwrap();
        let mut second = ask(&turns, 1).unwrap();
        drop(first);
        assert!(has_turn(&mut second).is_some());
        let state = turns.state();
        assert_eq!((state.free[0], state.computing.len()), (1, 0));
    }

    #[test]
    fn large_requests_take_no_turn_of_small_ones() {
        let turns = turns(1, 8);
        let mut large: Vec<_> = (0..2).map(|_| turns.ask(client(1), Class::Large).ok().unwrap()).collect();
        let one = large[0].receiver.try_recv();
        assert!(one.is_ok() && large[1].receiver.try_recv().is_err());
        assert!(has_turn(&mut ask(&turns, 1).unwrap()).is_some());
    }
}
