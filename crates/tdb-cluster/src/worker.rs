//! `tdb-cluster worker`: makes work units with all cores of its machine.

use std::net::{IpAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use ballista_core::config::TaskSchedulingPolicy;
use ballista_core::error::BallistaError;
use ballista_executor::executor_process::{ExecutorProcessConfig, start_executor_process};
use ballista_executor::executor_server::TERMINATING;
use ballista_executor::health::ExecutorHealth;
use tdb_server::cli::library::DataArgs;
use tdb_server::cli::runtime;
use tokio::signal::unix::{SignalKind, signal};
use tonic::Code;

use crate::codec::Codec;
use crate::scheduler::LARGEST_MESSAGE;
use crate::version::Sender;
use crate::workshop::Workshop;

/// How long a scheduler may be silent before the connection is begun anew. Until then a scheduler that is started again
/// takes the worker over with what it is doing; Ballista gives up a little earlier than this.
const SILENCE: Duration = Duration::from_secs(8);

/// Start a worker
///
/// One for each machine. It opens the model and the text of a job when it is given the first unit of it; models are found
/// as `tdb collate` finds them, so that folders must be there under the same paths, and files of stores are fetched into
/// this machine's cache.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The scheduler
    #[arg(long, default_value = "127.0.0.1:50050", value_name = "HOST:PORT")]
    pub scheduler: String,
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1", value_name = "IP")]
    pub bind: IpAddr,
    /// Name by which the scheduler and other workers reach this machine
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// Port for results; 0 takes a free one
    #[arg(long, default_value_t = 0)]
    pub port: u16,
    /// Port for tasks, likewise
    #[arg(long, default_value_t = 0)]
    pub task_port: u16,
    /// Sequences run side by side, one on each thread; all cores if not given
    #[arg(long)]
    pub threads: Option<usize>,
    /// Seconds to wait for a scheduler, at first and after one has died
    #[arg(long, default_value_t = 600)]
    pub patience: u64,
    /// Seconds after which a unit that shows no sign of life (no sequence is finished, nor is it written) is left to
    /// others, and this worker ends: a shared folder that hangs, for example
    #[arg(long, default_value_t = 1800)]
    pub stuck: u64,
    #[command(flatten)]
    pub data: DataArgs,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let scheduler = address(&args.scheduler)?;
    let ports = ports(args)?;
    let name = format!("{}:{}", args.host, ports[0]);
    let workshop = Workshop::open(name.clone(), args.data.clone(), args.threads, Duration::from_secs(args.stuck))?;
    println!("worker {name} for {}", args.scheduler);
    let mut alone = Instant::now();
    loop {
        let connected = Connection { args, scheduler: &scheduler, ports, workshop: &workshop }.keep()?;
        let why = match connected.end {
            End::Stopped => return Ok(()),
            End::Gone(why) => why,
        };
        if let Some(last) = connected.last {
            alone = last;
        }
        if alone.elapsed() > Duration::from_secs(args.patience) {
            bail!("no scheduler answers at {}: {why}", args.scheduler);
        }
        tracing::info!("no scheduler at {} ({why}); trying again", args.scheduler);
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Host and port of `host:port`.
///
/// # Errors
/// If it is not of that form.
pub fn address(text: &str) -> anyhow::Result<(String, u16)> {
    let parsed = text.rsplit_once(':').and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)));
    parsed.with_context(|| format!("--scheduler is {text:?}; expected HOST:PORT"))
}

/// One connection to a scheduler, from its beginning to its end.
struct Connection<'a> {
    args: &'a Args,
    scheduler: &'a (String, u16),
    ports: [u16; 2],
    workshop: &'a Arc<Workshop>,
}

struct Connected {
    end: End,
    /// When the scheduler answered last, if it ever did.
    last: Option<Instant>,
}

enum End {
    /// Somebody asked this process to end.
    Stopped,
    /// The scheduler is not there, or no longer.
    Gone(String),
}

impl Connection<'_> {
    /// Does what the scheduler says until one of the two is gone. All that Ballista starts runs on a runtime that ends
    /// with the connection: it would keep ports, and wait for tasks that nobody does any longer.
    ///
    /// # Errors
    /// If the scheduler refuses this worker, or it cannot run.
    fn keep(&self) -> anyhow::Result<Connected> {
        let runtime = runtime::new()?;
        let health = ExecutorHealth::new();
        let shuffles = tempfile::tempdir().context("there is no place for results on their way")?;
        let config = self.config(health.clone(), shuffles.path().display().to_string());
        TERMINATING.store(false, Ordering::Release);
        let kept = runtime.block_on(async {
            let mut stop = signal(SignalKind::terminate()).context("signals cannot be waited for")?;
            let mut last = None;
            let end = tokio::select! {
                ended = start_executor_process(Arc::new(config)) => self.told(ended)?,
                () = silent(&health, &mut last) => End::Gone("it no longer answers".to_owned()),
                why = self.workshop.leaves() => bail!("{why}; it leaves the work to others"),
                _ = stop.recv() => End::Stopped,
                _ = tokio::signal::ctrl_c() => End::Stopped,
            };
            anyhow::Ok(Connected { end, last })
        });
        // What is being computed is not waited for: it is cancelled, and will be made again.
        runtime.shutdown_timeout(Duration::from_secs(1));
        kept
    }

    fn told(&self, ended: Result<(), BallistaError>) -> anyhow::Result<End> {
        match ended {
            Ok(()) => Ok(End::Gone("it went away".to_owned())),
            Err(BallistaError::GrpcError(status)) if status.code() == Code::FailedPrecondition => {
                bail!("the scheduler at {} refuses this worker: {}", self.args.scheduler, status.message())
            }
            Err(error) => Ok(End::Gone(error.to_string())),
        }
    }

    fn config(&self, health: ExecutorHealth, shuffles: String) -> ExecutorProcessConfig {
        ExecutorProcessConfig {
            bind_host: self.args.bind.to_string(),
            external_host: Some(self.args.host.clone()),
            port: self.ports[0],
            grpc_port: self.ports[1],
            scheduler_host: self.scheduler.0.clone(),
            scheduler_port: self.scheduler.1,
            // A unit at a time, with all threads.
            vcores: 1,
            task_scheduling_policy: TaskSchedulingPolicy::PushStaged,
            work_dir: Some(shuffles),
            executor_heartbeat_interval_seconds: 1,
            grpc_max_decoding_message_size: LARGEST_MESSAGE,
            grpc_max_encoding_message_size: LARGEST_MESSAGE,
            override_physical_codec: Some(Arc::new(Codec::new(self.workshop.clone()))),
            override_create_grpc_client_endpoint: Some(Sender::Worker.sign()),
            health,
            ..ExecutorProcessConfig::default()
        }
    }
}

/// Comes back when a scheduler that had answered has been silent for too long; `last` is when it answered.
async fn silent(health: &ExecutorHealth, last: &mut Option<Instant>) {
    loop {
        if health.is_ready() {
            *last = Some(Instant::now());
        }
        if last.is_some_and(|at| at.elapsed() > SILENCE) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The ports for results and for tasks.
fn ports(args: &Args) -> anyhow::Result<[u16; 2]> {
    let listen = |port: u16| {
        TcpListener::bind((args.bind, port)).with_context(|| format!("cannot listen on {}, port {port}", args.bind))
    };
    ensure!(args.port == 0 || args.port != args.task_port, "--port and --task-port are both {}", args.port);
    // Both are held until both are found.
    let listeners = [listen(args.port)?, listen(args.task_port)?];
    Ok([listeners[0].local_addr()?.port(), listeners[1].local_addr()?.port()])
}
