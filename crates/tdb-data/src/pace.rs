//! How slow a transfer may be.

use std::time::{Duration, Instant};

/// A transfer that brings fewer `bytes` while it is waited for during `within` is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    pub bytes: u64,
    pub within: Duration,
}

impl Default for Pace {
    /// 1 KiB/s over a minute: a twentieth of what a bad line of a mobile network brings.
    fn default() -> Self {
        Self { bytes: 60 << 10, within: Duration::from_secs(60) }
    }
}

/// Watches one transfer. Only the time counts in which its next bytes are waited for, not what is done with them.
#[derive(Debug)]
pub(crate) struct Watch {
    pace: Pace,
    arrived: u64,
    waited: Duration,
}

impl Watch {
    pub fn new(pace: Pace) -> Self {
        Self { pace, arrived: 0, waited: Duration::ZERO }
    }

    /// The outcome of `next`, which brings the next bytes.
    pub async fn wait<T>(&mut self, next: impl Future<Output = T>) -> T {
        let begin = Instant::now();
        let outcome = next.await;
        self.waited += begin.elapsed();
        outcome
    }

    /// Counts bytes that arrived, of a transfer of which more is to come. If it is too slow, the sentence that says so.
    pub fn count(&mut self, bytes: usize) -> Option<String> {
        self.arrived += bytes as u64;
        if self.waited < self.pace.within {
            return None;
        }
        let (arrived, waited) = (std::mem::take(&mut self.arrived), std::mem::take(&mut self.waited));
        (arrived < self.pace.bytes).then(|| {
            let (seconds, least, within) = (waited.as_secs_f32(), self.pace.bytes, self.pace.within.as_secs_f32());
            format!(
                "it is sent too slowly: {arrived} bytes came within {seconds:.0} s, and at least {least} bytes within \
                 {within:.0} s are waited for"
            )
        })
    }
}
