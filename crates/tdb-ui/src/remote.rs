//! A request that follows its inputs: cancelled when they change, never answered late, tied to what it was asked for.

use std::sync::Arc;

use leptos::prelude::*;
use leptos::task::spawn_local;
use tdb_api::routes::Route;
use tdb_api::wire::Decode;
use web_sys::AbortSignal;

use crate::client::{self, Abort, Kind, Problem};

#[derive(Debug, PartialEq)]
pub enum Remote<T> {
    /// Nothing to ask.
    Idle,
    Loading,
    Ready(Arc<T>),
    Failed(Problem),
}

impl<T> Clone for Remote<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Idle => Self::Idle,
            Self::Loading => Self::Loading,
            Self::Ready(answer) => Self::Ready(answer.clone()),
            Self::Failed(problem) => Self::Failed(problem.clone()),
        }
    }
}

/// Follows what is asked of the route `R`; `None` asks nothing. The second part asks again.
pub fn follow<R>(
    request: impl Fn() -> Option<R::Request> + Send + Sync + 'static,
) -> (Signal<Remote<R::Answer>>, Callback<()>)
where
    R: Route<Request: Clone + PartialEq + Sync, Answer: Decode + Sync> + 'static,
{
    follow_with(request, async |request, signal| client::call::<R>(&request, signal).await)
}

/// Follows a question that `ask` answers.
pub fn follow_with<Q, T>(
    question: impl Fn() -> Option<Q> + Send + Sync + 'static,
    ask: impl AsyncFn(Q, Option<AbortSignal>) -> Result<T, Problem> + Copy + Send + Sync + 'static,
) -> (Signal<Remote<T>>, Callback<()>)
where
    Q: Clone + PartialEq + Send + Sync + 'static,
    T: Send + Sync + 'static,
{
    let state = RwSignal::new(Remote::Idle);
    let question = Memo::new(move |_| question());
    let again = RwSignal::new(0u32);
    let abort = StoredValue::new_local(None::<Abort>);
    let id = StoredValue::new(0u32);
    Effect::new(move |_| {
        again.track();
        let mine = id.get_value() + 1;
        id.set_value(mine);
        abort.set_value(None);
        let Some(question) = question.get() else {
            state.set(Remote::Idle);
            return;
        };
        state.set(Remote::Loading);
        abort.set_value(Abort::new());
        let signal = abort.with_value(|a| a.as_ref().map(Abort::signal));
        spawn_local(async move {
            let outcome = ask(question, signal).await;
            if id.try_get_value() != Some(mine) {
                return;
            }
            match outcome {
                Ok(answer) => state.set(Remote::Ready(Arc::new(answer))),
                Err(problem) if problem.kind == Kind::Aborted => {}
                Err(problem) => state.set(Remote::Failed(problem)),
            }
        });
    });
    (state.into(), Callback::new(move |()| again.update(|n| *n += 1)))
}
