//! `tdb-cluster collate`: checks a collation, submits it, shows how far it is, and says where the results are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use ballista_core::extension::{SessionConfigExt, SessionConfigHelperExt};
use ballista_core::serde::protobuf::execute_query_params::Query;
use ballista_core::serde::protobuf::execute_query_result::Result as Submitted;
use ballista_core::serde::protobuf::job_status::Status as JobStatus;
use ballista_core::serde::protobuf::scheduler_grpc_client::SchedulerGrpcClient;
use ballista_core::serde::protobuf::{CancelJobParams, ExecuteQueryParams, GetJobStatusParams};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionConfig;
use tdb_collate::{Parts, UnitName, estimate};
use tdb_server::cli::collate::{self, Ready, say_estimate};
use tdb_server::cli::{runtime, sentence};
use tokio::runtime::Runtime;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::interrupt::Interrupt;
use crate::job::Job;
use crate::plan;
use crate::progress::Progress;
use crate::scheduler::{LARGEST_MESSAGE, SUBMITS};
use crate::version::Sender;
use crate::worker::address;

/// How often the store is looked into.
const LOOK: Duration = Duration::from_secs(2);

/// How soon it is seen that a step is over.
const TICK: Duration = Duration::from_millis(20);

/// How often the scheduler is asked how a job is.
const ASK: Duration = Duration::from_millis(100);

/// How long a scheduler may take to know a job that it has accepted.
const NOT_YET_KNOWN: Duration = Duration::from_secs(5);

/// How long a worker is waited for where there is none yet: one that was started at the same time comes within it.
const NO_WORKER: Duration = Duration::from_secs(6);

/// Collate with the workers of a scheduler; the settings are those of `tdb collate`, and so are the results, byte for byte
#[derive(Debug, clap::Args)]
// The settings of `tdb collate` are a group of the same name.
#[group(skip)]
pub struct Args {
    /// The scheduler
    #[arg(long, default_value = "127.0.0.1:50050", value_name = "HOST:PORT")]
    pub scheduler: String,
    #[command(flatten)]
    pub collate: collate::Args,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let asked = args.collate.portable()?;
    ensure!(
        !asked.merge && asked.shard.is_none(),
        "--merge and --shard are for `tdb collate`; a scheduler divides by itself"
    );
    let ready = Ready::new(&asked)?;
    let collation = ready.collation();
    if args.collate.dry_run {
        say_estimate(&estimate(&collation)?, args.collate.machines);
        return Ok(());
    }
    ready.check_writable()?;
    let finished = collation.finished()?;
    let say = |line: &str| eprintln!("{line}");
    say(&format!("{} of {} units are there already", finished.len(), collation.units(None).len()));
    let job = Arc::new(Job { asked, plan: ready.plan.clone() });
    let scheduler = Scheduler::connect(&args.scheduler)?;
    scheduler.run(plan::check(&job)?, || ())?;
    say("all workers have the same version, model and text");
    let units = collation.units(None);
    let mut progress = Progress::new(&collation, &finished, &say);
    let made = scheduler.run(plan::make(&job, &units)?, || progress.look());
    progress.look();
    made.map_err(|error| halted(&error, &progress.count()))?;
    say(&format!("merging {} ranges of layers", units.iter().filter(|unit| unit.shard == 0).count()));
    let checksum = |unit: UnitName| -> anyhow::Result<_> {
        let (checksum, _) = collation.summaries.checksum(&unit.file())?;
        Ok((unit, checksum))
    };
    let units = units.into_iter().map(checksum).collect::<anyhow::Result<Vec<_>>>()?;
    let merged = scheduler.run(plan::merge(&job, &units)?, || ());
    merged.map_err(|error| halted(&error, "all units are there, but not all are merged"))?;
    // The scheduler's word is not enough: what is in the store counts.
    Parts::of(&collation)?;
    ready.write_registry()?;
    println!("{}", ready.told(&args.collate));
    Ok(())
}

/// An error, and from where the same command goes on.
fn halted(error: &anyhow::Error, so_far: &str) -> anyhow::Error {
    anyhow!("{}; {so_far}, and the same command goes on from there", sentence(error))
}

type Client = SchedulerGrpcClient<Channel>;

struct Scheduler {
    runtime: Runtime,
    client: Client,
    address: String,
    interrupt: Interrupt,
}

impl Scheduler {
    fn connect(place: &str) -> anyhow::Result<Self> {
        let runtime = runtime::new()?;
        address(place)?;
        let endpoint = Endpoint::from_shared(format!("http://{place}")).context("--scheduler")?;
        let endpoint = endpoint.connect_timeout(Duration::from_secs(5)).tcp_keepalive(Some(Duration::from_secs(2)));
        let endpoint =
            endpoint.http2_keep_alive_interval(Duration::from_secs(2)).keep_alive_timeout(Duration::from_secs(3));
        let endpoint = (Sender::Client.sign())(endpoint).map_err(anyhow::Error::from_boxed)?;
        let channel =
            runtime.block_on(endpoint.connect()).with_context(|| format!("no scheduler answers at {place}"))?;
        let limit = LARGEST_MESSAGE as usize;
        let client =
            SchedulerGrpcClient::new(channel).max_encoding_message_size(limit).max_decoding_message_size(limit);
        let interrupt = Interrupt::listen(&runtime)?;
        Ok(Self { runtime, client, address: place.to_owned(), interrupt })
    }

    /// Has a plan done, and calls `look` now and then meanwhile. Ctrl-C cancels it.
    fn run(&self, plan: Arc<dyn ExecutionPlan>, mut look: impl FnMut()) -> anyhow::Result<()> {
        self.interrupt.check()?;
        let plan = plan::encode(plan)?;
        let over = Arc::new(AtomicBool::new(false));
        let following = {
            let (over, interrupt) = (over.clone(), self.interrupt.clone());
            let (client, address) = (self.client.clone(), self.address.clone());
            self.runtime.spawn(async move {
                let done = follow(client, &address, plan, interrupt).await;
                over.store(true, Ordering::Release);
                done
            })
        };
        let mut since = Duration::ZERO;
        while !over.load(Ordering::Acquire) {
            std::thread::sleep(TICK);
            since += TICK;
            if since >= LOOK {
                look();
                since = Duration::ZERO;
            }
        }
        self.runtime.block_on(following).context("whoever followed the job is gone")?
    }
}

fn request(plan: Vec<u8>) -> tonic::Request<ExecuteQueryParams> {
    let config = SessionConfig::new_with_ballista()
        // Each unit is a task, and stages are as they were planned.
        .set_usize("ballista.scheduler.max_partitions_per_task", 1)
        .set_bool("ballista.planner.adaptive.enabled", false);
    let id = || ballista_core::ids::new_instance_id();
    let mut request = tonic::Request::new(ExecuteQueryParams {
        query: Some(Query::PhysicalPlan(plan)),
        settings: config.to_key_value_pairs(),
        session_id: id(),
        operation_id: id(),
    });
    ballista_core::version::insert_version_header(request.metadata_mut());
    request.metadata_mut().insert(SUBMITS, MetadataValue::from_static("1"));
    request
}

/// Submits a plan; where no worker is connected, tries again for a while. The job's name.
async fn submit(
    client: &mut Client,
    plan: Vec<u8>,
    interrupt: &mut Interrupt,
) -> anyhow::Result<Result<String, Status>> {
    let begin = Instant::now();
    let answer = loop {
        match client.execute_query(request(plan.clone())).await {
            Err(status) if status.code() == Code::Unavailable && begin.elapsed() < NO_WORKER => {
                tokio::select! {
                    () = tokio::time::sleep(3 * ASK) => {}
                    () = interrupt.pressed() => interrupt.check()?,
                }
            }
            Err(status) => return Ok(Err(status)),
            Ok(answer) => break answer.into_inner(),
        }
    };
    Ok(match answer.result {
        Some(Submitted::Success(job)) => Ok(job.job_id),
        other => Err(Status::invalid_argument(format!("it cannot read what was submitted: {other:?}"))),
    })
}

/// Submits a plan and asks how it is until it is done, or cancels it.
async fn follow(mut client: Client, address: &str, plan: Vec<u8>, mut interrupt: Interrupt) -> anyhow::Result<()> {
    let refused = |status: Status| anyhow!("the scheduler at {address}: {}", status.message());
    let job_id = submit(&mut client, plan, &mut interrupt).await?.map_err(refused)?;
    tokio::select! {
        ended = ended(client.clone(), address, &job_id) => ended,
        () = interrupt.pressed() => {
            client.cancel_job(CancelJobParams { job_id }).await.map_err(refused)?;
            bail!("cancelled; what was being made is given up, finished units stay");
        }
    }
}

/// Asks how a job is until it is done.
async fn ended(mut client: Client, address: &str, job_id: &str) -> anyhow::Result<()> {
    let gone = || anyhow!("the scheduler at {address} went away; start it again");
    let submitted = Instant::now();
    loop {
        let asked = GetJobStatusParams { job_id: job_id.to_owned() };
        let answer = client.get_job_status(asked).await.map_err(|_| gone())?.into_inner();
        match answer.status.and_then(|job| job.status) {
            Some(JobStatus::Successful(_)) => return Ok(()),
            Some(JobStatus::Failed(failed)) => bail!("{}", plain(&failed.error)),
            Some(_) => {}
            // It takes a moment until a job is known. Later on, this is a scheduler that was started again.
            None if submitted.elapsed() < NOT_YET_KNOWN => {}
            None => return Err(gone()),
        }
        tokio::time::sleep(ASK).await;
    }
}

/// The sentence of a worker, without what it was wrapped in on its way. Every wrapping has put it in quotes. What the
/// scheduler itself says calls workers executors.
fn plain(message: &str) -> String {
    if message.starts_with("all executors were lost") {
        return "all workers were lost, and none came back".to_owned();
    }
    let mut message = message.to_owned();
    while message.contains(r#"\"worker "#) {
        message = unquote(&message, None);
    }
    match message.find("\"worker ") {
        Some(at) => unquote(&message[at + 1..], Some('"')),
        None => message,
    }
}

/// A text with every `\"` and its like replaced, up to `end`.
fn unquote(text: &str, end: Option<char>) -> String {
    let (mut out, mut chars) = (String::new(), text.chars());
    while let Some(c) = chars.next() {
        match c {
            c if Some(c) == end => break,
            '\\' => out.extend(chars.next().map(|c| if c == 'n' { '\n' } else { c })),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn a_workers_sentence_is_found_in_what_wraps_it() {
        let once = r#"Job failed due to stage 1 failed: DataFusionError(Execution("worker a:1: x is \"1\" (not 2)"))"#;
        assert_eq!(plain(once), r#"worker a:1: x is "1" (not 2)"#);
        let twice = format!("failed 4 times, most recent failure reason: {once:?}");
        assert_eq!(plain(&twice), r#"worker a:1: x is "1" (not 2)"#);
        let lost = "all executors were lost and no executor re-registered within 2s";
        assert_eq!(plain(lost), "all workers were lost, and none came back");
        assert_eq!(plain("something else"), "something else");
    }
}
