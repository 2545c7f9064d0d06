//! Whether work that has begun still goes on.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The last sign of life of a piece of work; none before it has begun and after it has ended.
#[derive(Debug, Default)]
pub struct Pulse(Mutex<Option<Instant>>);

impl Pulse {
    /// Does something that gives signs of life.
    pub fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        self.set(Some(Instant::now()));
        let done = work();
        self.set(None);
        done
    }

    /// A sign of life.
    pub fn beat(&self) {
        self.set(Some(Instant::now()));
    }

    /// Comes back when there has been none for so long.
    pub async fn stops(&self, limit: Duration) {
        loop {
            tokio::time::sleep((limit / 4).min(Duration::from_secs(5))).await;
            if self.last().is_some_and(|last| last.elapsed() > limit) {
                return;
            }
        }
    }

    fn last(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, last: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = last;
    }
}
