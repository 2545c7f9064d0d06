//! `tdb-cluster scheduler`: says which worker makes which work unit.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use ballista_core::config::TaskSchedulingPolicy;
use ballista_core::serde::protobuf::scheduler_grpc_server::SchedulerGrpcServer;
use ballista_scheduler::cluster::BallistaCluster;
use ballista_scheduler::config::{SchedulerConfig, TaskDistributionPolicy};
use ballista_scheduler::scheduler_process::create_scheduler;
use ballista_scheduler::scheduler_server::SchedulerServer;
use datafusion_proto::protobuf::{LogicalPlanNode, PhysicalPlanNode};
use tdb_server::cli::runtime;
use tokio::net::TcpListener;
use tonic::service::interceptor::InterceptedService;
use tonic::service::{Interceptor, RoutesBuilder};
use tonic::{Request, Status};

use crate::codec::Codec;
use crate::version::{self, Sender};

/// A plan names every work unit.
pub const LARGEST_MESSAGE: u32 = 256 << 20;

/// Stands with requests that submit something.
pub const SUBMITS: &str = "tdb-submits";

/// Start the scheduler
///
/// It keeps nothing that matters: if it dies, start it again and give the same `collate` again. Whoever can reach its port
/// can let workers read and write what they can; keep it inside a private network.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    pub bind: String,
    /// Port to listen on
    #[arg(long, default_value_t = 50050)]
    pub port: u16,
    /// Name by which workers reach this machine
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// Seconds of silence after which a worker counts as dead. Its unit is then made by another; should it come back, no
    /// harm is done
    #[arg(long, default_value_t = 5)]
    pub silence: u64,
}

type Server = SchedulerServer<LogicalPlanNode, PhysicalPlanNode>;

pub fn run(args: &Args) -> anyhow::Result<()> {
    runtime::new()?.block_on(serve(args))
}

async fn serve(args: &Args) -> anyhow::Result<()> {
    let address = (args.bind.as_str(), args.port);
    let listener = TcpListener::bind(address).await;
    let listener = listener.with_context(|| format!("cannot listen on {}, port {}", args.bind, args.port))?;
    let config = Arc::new(SchedulerConfig {
        bind_host: args.bind.clone(),
        bind_port: listener.local_addr()?.port(),
        external_host: args.host.clone(),
        scheduling_policy: TaskSchedulingPolicy::PushStaged,
        task_distribution: TaskDistributionPolicy::RoundRobin,
        executor_timeout_seconds: args.silence,
        expire_dead_executor_interval_seconds: 1,
        // Time for a worker that was only slow to say so.
        no_executors_grace_period_seconds: 2,
        grpc_server_max_decoding_message_size: LARGEST_MESSAGE,
        grpc_server_max_encoding_message_size: LARGEST_MESSAGE,
        grpc_client_max_message_size: LARGEST_MESSAGE,
        override_physical_codec: Some(Arc::new(Codec::default())),
        ..SchedulerConfig::default()
    });
    let cluster = BallistaCluster::new_from_config(&config).await.context("the scheduler cannot start")?;
    let scheduler: Server = create_scheduler(cluster, config.clone()).await.context("the scheduler cannot start")?;
    println!("scheduler {} on {}", version::VERSION, config.scheduler_endpoint());
    let routes = routes(scheduler).into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, routes).await.context("the scheduler stopped")
}

fn routes(scheduler: Server) -> Router {
    let limit = LARGEST_MESSAGE as usize;
    let checks = Checks { scheduler: scheduler.clone() };
    let service = SchedulerGrpcServer::new(scheduler).max_decoding_message_size(limit).max_encoding_message_size(limit);
    let mut routes = RoutesBuilder::default();
    routes.add_service(InterceptedService::new(service, checks));
    routes.routes().into_axum_router()
}

/// Refuses whoever is of another version, and jobs while there is nobody to do them.
#[derive(Clone)]
struct Checks {
    scheduler: Server,
}

impl Interceptor for Checks {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let sender =
            version::check(request.metadata()).inspect_err(|refused| tracing::warn!("{}", refused.message()))?;
        let submits = sender == Sender::Client && request.metadata().contains_key(SUBMITS);
        if submits && !self.scheduler.is_ready() {
            return Err(Status::unavailable("no worker is connected to this scheduler"));
        }
        Ok(request)
    }
}
