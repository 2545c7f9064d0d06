//! Settings of the server, all in one place. `GET /limits` tells them.

use std::time::Duration;
use tdb_api::LimitsResponse;

/// What one request may ask for, and how many may wait. Beyond a limit the answer is a 4xx that names it.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of a request's body.
    pub body_bytes: usize,
    /// Tokens of a prompt. The model's own context is a limit of its own.
    pub prompt_tokens: usize,
    /// Runs in one request.
    pub sub_requests: usize,
    /// Things asked of one run.
    pub specs_per_run: usize,
    /// Ablations of one run.
    pub ablations: usize,
    /// "k" of anything that is ranked.
    pub top_k: i64,
    /// How long one request may compute.
    pub time: Duration,
    /// Requests that compute at the same time.
    pub workers: usize,
    /// Requests that wait beyond those.
    pub queue_length: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 2 << 20,
            prompt_tokens: 1024,
            sub_requests: 16,
            specs_per_run: 64,
            ablations: 1024,
            top_k: 100_000,
            time: Duration::from_secs(300),
            workers: std::thread::available_parallelism().map_or(2, usize::from),
            queue_length: 64,
        }
    }
}

impl Limits {
    /// As the server tells them.
    pub fn response(&self) -> LimitsResponse {
        let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        LimitsResponse {
            max_body_bytes: number(self.body_bytes),
            max_prompt_tokens: number(self.prompt_tokens),
            max_sub_requests: number(self.sub_requests),
            max_specs_per_run: number(self.specs_per_run),
            max_ablations: number(self.ablations),
            max_top_k: self.top_k,
            max_seconds: i64::try_from(self.time.as_secs()).unwrap_or(i64::MAX),
            workers: number(self.workers),
            queue_length: number(self.queue_length),
        }
    }
}

/// Everything that is set when the server starts.
#[derive(Debug, Clone, Default)]
pub struct ServerConfig {
    pub limits: Limits,
    /// Names by which the server may be addressed, besides this machine's own.
    pub hosts: Vec<String>,
    /// Whether `/dump_memory_snapshot` was asked for at the start.
    pub memory_debugging: bool,
}
