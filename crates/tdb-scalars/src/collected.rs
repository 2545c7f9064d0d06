//! The whole answer, made of what the engine sends.

use std::sync::{Mutex, PoisonError};

use tdb_api::ProcessingResponseData;
use tdb_api::stream::{FoldError, FoldEvents, TdbEvent};

use crate::context::{Context, Observer};
use crate::error::{Error, Result};

/// Adds up what is sent; the work ends when `outer` says so.
pub struct Collector<'a, F> {
    outer: &'a dyn Observer,
    fold: Mutex<F>,
}

impl<'a, F: FoldEvents + Send> Collector<'a, F> {
    pub fn new(outer: &'a dyn Observer, fold: F) -> Self {
        Self { outer, fold: Mutex::new(fold) }
    }

    /// The whole answer, after all was sent.
    ///
    /// # Errors
    /// [`Error::Internal`] if something is missing.
    pub fn finish(self) -> Result<F::Answer> {
        self.event(TdbEvent::Done);
        let fold = self.fold.into_inner().unwrap_or_else(PoisonError::into_inner);
        fold.finish().map_err(|error| Error::Internal(error.to_string()))
    }

    /// The engine's errors are no events, so that nothing is refused here.
    fn add(&self, add: impl FnOnce(&mut F) -> std::result::Result<(), FoldError>) {
        let _ = add(&mut self.fold.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl<F: FoldEvents + Send> Observer for Collector<'_, F> {
    fn is_cancelled(&self) -> bool {
        self.outer.is_cancelled()
    }

    fn event(&self, event: TdbEvent) {
        self.add(|fold| fold.add(event));
    }

    fn part(&self, side: usize, name: &str, part: ProcessingResponseData) {
        self.add(|fold| fold.put(side, name, part));
    }
}

/// What `send` sends, added up by `fold`.
///
/// # Errors
/// Those of `send`.
pub(crate) fn collected<F: FoldEvents + Send>(
    fold: F,
    context: &Context<'_>,
    send: impl FnOnce(&Context<'_>) -> Result<()>,
) -> Result<F::Answer> {
    let collector = Collector::new(context.observer, fold);
    send(&Context { observer: &collector, ..*context })?;
    collector.finish()
}
