//! What the server counts about itself, as Prometheus reads it.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// What a request's time goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Receiving and reading its body.
    Body,
    /// Waiting for a compute thread.
    Queue,
    /// Computing, and writing the answer as JSON.
    Compute,
}

/// Why a request or a connection was given up before its answer was complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dropped {
    /// The client closed the connection.
    Gone,
    /// No request came for too long.
    Idle,
    /// A connection was closed to make room for another, or because its client did not read.
    Closed,
    /// There were as many connections as there may be when one more came.
    Crowded,
    /// Taken out of the queue in favour of a client with fewer requests there.
    Displaced,
    /// Cut at the end of the server.
    Stopped,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabel {
    stage: Stage,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: Dropped,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    version: String,
}

impl EncodeLabelValue for Stage {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        encoder.write_str(match self {
            Self::Body => "body",
            Self::Queue => "queue",
            Self::Compute => "compute",
        })
    }
}

impl EncodeLabelValue for Dropped {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        encoder.write_str(match self {
            Self::Gone => "client_gone",
            Self::Idle => "idle",
            Self::Closed => "closed",
            Self::Crowded => "crowded",
            Self::Displaced => "displaced",
            Self::Stopped => "stopped",
        })
    }
}

/// What is looked up when the metrics are asked for.
#[derive(Debug, Clone, Copy)]
pub struct Levels {
    pub running: usize,
    pub waiting: usize,
    pub connections: usize,
    pub unsent_bytes: usize,
}

/// All metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    answered: Family<Answered, Counter>,
    seconds: Family<Route, Histogram>,
    stages: Family<StageLabel, Histogram>,
    dropped: Family<Reason, Counter>,
    running: Gauge,
    waiting: Gauge,
    connections: Gauge,
    unsent_bytes: Gauge,
    resident: Gauge,
    descriptors: Gauge,
}

fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 4.0, 9))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let answered = Family::default();
        registry.register("tdb_requests", "Requests answered, by route and status", answered.clone());
        let of_routes = Family::new_with_constructor(seconds as fn() -> Histogram);
        let help = "Time from a request's head to its answer's head";
        registry.register_with_unit("tdb_request_duration", help, Unit::Seconds, of_routes.clone());
        let stages = Family::new_with_constructor(seconds as fn() -> Histogram);
        let help = "Time of the stages of a question: body, queue, compute";
        registry.register_with_unit("tdb_stage_duration", help, Unit::Seconds, stages.clone());
        let dropped = Family::default();
        registry.register("tdb_dropped", "Requests and connections given up, by reason", dropped.clone());
        let mut gauge = |name: &str, help: &str| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let running = gauge("tdb_requests_running", "Requests that compute");
        let waiting = gauge("tdb_requests_waiting", "Requests that wait for a compute thread");
        let connections = gauge("tdb_connections", "Open connections");
        let unsent_bytes = gauge("tdb_unsent_bytes", "Bytes of answers that clients have not taken yet");
        let resident = gauge("process_resident_memory_bytes", "Memory of the process");
        let descriptors = gauge("process_open_fds", "Open file descriptors of the process");
        let started = gauge("process_start_time_seconds", "When the process started, since 1970");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        started.set(i64::try_from(now.as_secs()).unwrap_or_default());
        let build: Family<Build, Gauge> = Family::default();
        build.get_or_create(&Build { version: env!("CARGO_PKG_VERSION").to_owned() }).set(1);
        registry.register("tdb_build_info", "Version of the server", build);
        Self {
            registry,
            answered,
            seconds: of_routes,
            stages,
            dropped,
            running,
            waiting,
            connections,
            unsent_bytes,
            resident,
            descriptors,
        }
    }
}

impl Metrics {
    /// Counts an answer. `route` is the pattern of a route, not an address: addresses are without number.
    pub fn answered(&self, route: &str, status: u16, took: Duration) {
        self.answered.get_or_create(&Answered { route: route.to_owned(), status }).inc();
        self.seconds.get_or_create(&Route { route: route.to_owned() }).observe(took.as_secs_f64());
    }

    pub fn stage(&self, stage: Stage, took: Duration) {
        self.stages.get_or_create(&StageLabel { stage }).observe(took.as_secs_f64());
    }

    pub fn dropped(&self, reason: Dropped) {
        self.dropped.get_or_create(&Reason { reason }).inc();
    }

    /// All of it as text.
    pub fn text(&self, levels: Levels) -> String {
        let set = |gauge: &Gauge, level: usize| gauge.set(i64::try_from(level).unwrap_or(i64::MAX));
        set(&self.running, levels.running);
        set(&self.waiting, levels.waiting);
        set(&self.connections, levels.connections);
        set(&self.unsent_bytes, levels.unsent_bytes);
        set(&self.resident, resident_bytes().unwrap_or_default());
        set(&self.descriptors, open_descriptors().unwrap_or_default());
        let mut out = String::new();
        // Writing into a String cannot fail.
        let _ = encode(&mut out, &self.registry);
        out
    }
}

/// Memory of this process, where the system tells it.
fn resident_bytes() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<usize>().ok()? << 10)
}

fn open_descriptors() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_told() {
        let metrics = Metrics::default();
        metrics.answered("/batched_tdb", 200, Duration::from_millis(20));
        metrics.answered("/batched_tdb", 200, Duration::from_millis(20));
        metrics.stage(Stage::Queue, Duration::from_millis(1));
        metrics.dropped(Dropped::Gone);
        let text = metrics.text(Levels { running: 1, waiting: 2, connections: 3, unsent_bytes: 4 });
        for line in [
            "tdb_requests_total{route=\"/batched_tdb\",status=\"200\"} 2",
            "tdb_request_duration_seconds_count{route=\"/batched_tdb\"} 2",
            "tdb_stage_duration_seconds_count{stage=\"queue\"} 1",
            "tdb_dropped_total{reason=\"client_gone\"} 1",
            "tdb_requests_waiting 2",
            "tdb_unsent_bytes 4",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }
}
