//! How the server ends: first nothing new is taken and what was begun goes on; after the time of grace, what is still
//! going on is cut with 503.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::watch;

/// How far the end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Serving,
    Ending,
    Cutting,
}

/// Shared by all who have to know that the server ends.
#[derive(Debug, Clone)]
pub struct Stop {
    phase: watch::Sender<Phase>,
    cut: Arc<AtomicUsize>,
}

impl Default for Stop {
    fn default() -> Self {
        Self { phase: watch::Sender::new(Phase::Serving), cut: Arc::default() }
    }
}

impl Stop {
    /// From now on nothing new is taken.
    pub fn begin(&self) {
        self.phase.send_if_modified(|phase| {
            let begins = *phase == Phase::Serving;
            if begins {
                *phase = Phase::Ending;
            }
            begins
        });
    }

    /// Cuts what is still going on.
    pub fn cut(&self) {
        self.phase.send_replace(Phase::Cutting);
    }

    pub fn has_begun(&self) -> bool {
        *self.phase.borrow() >= Phase::Ending
    }

    /// Until [`Stop::begin`].
    pub async fn begun(&self) {
        self.reached(Phase::Ending).await;
    }

    /// Until [`Stop::cut`]; whoever gives up a request then says so with [`Stop::count_cut`].
    pub async fn cutting(&self) {
        self.reached(Phase::Cutting).await;
    }

    pub fn count_cut(&self) {
        self.cut.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests that were cut.
    pub fn cuts(&self) -> usize {
        self.cut.load(Ordering::Relaxed)
    }

    async fn reached(&self, wanted: Phase) {
        let mut phase = self.phase.subscribe();
        if phase.wait_for(|phase| *phase >= wanted).await.is_err() {
            // The sender lives as long as `self`.
            std::future::pending::<()>().await;
        }
    }
}
