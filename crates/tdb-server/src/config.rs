//! Settings of the server, all in one place. `GET /limits` tells them.

use crate::ui::Pages;
use std::net::IpAddr;
use std::time::Duration;
use tdb_api::LimitsResponse;
use tdb_scalars::{Bounds, PAIR_PRODUCTS};

/// What one request may ask for, how many may wait, and how long a client may let the server wait. Beyond a limit on
/// what is asked the answer is a 4xx that names it.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of a request's body.
    pub body_bytes: usize,
    /// Items of any list in a request.
    pub list_items: usize,
    /// Tokens of a prompt. The model's own context is a limit of its own.
    pub prompt_tokens: usize,
    /// Runs in one request.
    pub sub_requests: usize,
    /// Things asked of one run.
    pub specs_per_run: usize,
    /// Things asked of all runs of a request.
    pub specs: usize,
    /// Ablations of one run.
    pub ablations: usize,
    /// "k" of anything that is ranked.
    pub top_k: i64,
    /// Bytes of an answer, tokens scored for it, and bytes of its runs' activations.
    pub bounds: Bounds,
    /// How long one request may compute.
    pub time: Duration,
    /// Requests that compute at the same time.
    pub workers: usize,
    /// Requests that wait beyond those.
    pub queue_length: usize,
    /// Bytes of large bodies that are being received or read, of all requests.
    pub incoming_bytes: usize,
    /// Bytes of answers that clients have not taken yet, of all requests.
    pub unsent_bytes: usize,
    /// Open connections.
    pub connections: usize,
    /// How long a connection may be open without a request.
    pub idle_time: Duration,
    /// How long a request's body may take to arrive.
    pub body_time: Duration,
    /// How long a client may take nothing of an answer that is being sent.
    pub write_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 2 << 20,
            list_items: 1024,
            prompt_tokens: 1024,
            sub_requests: 16,
            specs_per_run: 64,
            specs: 256,
            ablations: 1024,
            top_k: 100_000,
            bounds: Bounds {
                answer_bytes: 80 << 20,
                token_scores: 1 << 30,
                activation_bytes: 4 << 30,
                varied_runs: 4096,
            },
            time: Duration::from_secs(120),
            workers: std::thread::available_parallelism().map_or(2, usize::from),
            queue_length: 64,
            incoming_bytes: 64 << 20,
            unsent_bytes: 256 << 20,
            connections: 400,
            idle_time: Duration::from_secs(60),
            body_time: Duration::from_secs(30),
            write_time: Duration::from_secs(30),
        }
    }
}

impl Limits {
    /// As the server tells them.
    pub fn response(&self) -> LimitsResponse {
        fn number(n: impl TryInto<i64>) -> i64 {
            n.try_into().unwrap_or(i64::MAX)
        }
        LimitsResponse {
            max_body_bytes: number(self.body_bytes),
            max_list_items: number(self.list_items),
            max_prompt_tokens: number(self.prompt_tokens),
            max_sub_requests: number(self.sub_requests),
            max_specs_per_run: number(self.specs_per_run),
            max_specs: number(self.specs),
            max_ablations: number(self.ablations),
            max_top_k: self.top_k,
            max_answer_bytes: number(self.bounds.answer_bytes),
            max_token_scores: number(self.bounds.token_scores),
            max_activation_bytes: number(self.bounds.activation_bytes),
            max_varied_runs: number(self.bounds.varied_runs),
            max_pair_products: number(PAIR_PRODUCTS),
            max_seconds: number(self.time.as_secs()),
            workers: number(self.workers),
            queue_length: number(self.queue_length),
            max_unsent_bytes: number(self.unsent_bytes),
            max_connections: number(self.connections),
            idle_seconds: number(self.idle_time.as_secs()),
            body_seconds: number(self.body_time.as_secs()),
            write_seconds: number(self.write_time.as_secs()),
        }
    }
}

/// Everything that is set when the server starts.
#[derive(Debug, Clone, Default)]
pub struct ServerConfig {
    pub limits: Limits,
    /// What browsers are shown.
    pub pages: Pages,
    /// Names by which the server may be addressed, besides this machine's own.
    pub hosts: Vec<String>,
    /// What clients have to know; `None` where everybody who can connect may ask.
    pub token: Option<String>,
    /// Addresses of reverse proxies: of their requests, the client is the one that `X-Forwarded-For` names last.
    pub proxies: Vec<IpAddr>,
    /// Whether every request is written to the log.
    pub access_log: bool,
    /// Whether `/dump_memory_snapshot` was asked for at the start.
    pub memory_debugging: bool,
}
