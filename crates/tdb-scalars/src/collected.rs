//! The whole answer, made of what the engine sends.

use std::sync::{Mutex, PoisonError};

use tdb_api::stream::{Fold, TdbEvent};
use tdb_api::{BatchedResponse, ProcessingResponseData};

use crate::context::{Context, Observer};
use crate::error::{Error, Result};

/// Adds up what is sent; the work ends when `outer` says so.
struct Collector<'a> {
    outer: &'a dyn Observer,
    fold: Mutex<Fold>,
}

impl Observer for Collector<'_> {
    fn is_cancelled(&self) -> bool {
        self.outer.is_cancelled()
    }

    fn event(&self, event: TdbEvent) {
        // The engine's errors are no events, so that nothing is refused here.
        let _ = self.fold.lock().unwrap_or_else(PoisonError::into_inner).add(event);
    }

    fn part(&self, side: usize, name: &str, part: ProcessingResponseData) {
        self.fold.lock().unwrap_or_else(PoisonError::into_inner).put(side, name.to_owned(), part);
    }
}

/// What `send` sends, added up to an answer of so many sides.
///
/// # Errors
/// Those of `send`.
pub(crate) fn collected(
    sides: usize,
    context: &Context<'_>,
    send: impl FnOnce(&Context<'_>) -> Result<()>,
) -> Result<BatchedResponse> {
    let collector = Collector { outer: context.observer, fold: Mutex::new(Fold::new(sides)) };
    send(&Context { observer: &collector, ..*context })?;
    collector.event(TdbEvent::Done);
    let fold = collector.fold.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(fold.finish().map_err(|error| Error::Internal(error.to_string()))?.response)
}
