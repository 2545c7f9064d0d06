//! A request that follows its inputs: cancelled when they change, never answered late, tied to what it was asked for.

use leptos::prelude::*;
use leptos::task::spawn_local;
use serde_json::Value;

use crate::client::{self, Abort, Kind, Problem};

#[derive(Clone, Debug, PartialEq)]
pub enum Remote {
    /// Nothing to ask.
    Idle,
    Loading,
    Ready(Value),
    Failed(Problem),
}

/// An endpoint with its JSON body.
pub type Question = Option<(&'static str, Value)>;

/// Follows `question`. The second part asks again.
pub fn follow(question: impl Fn() -> Question + Send + Sync + 'static) -> (Signal<Remote>, Callback<()>) {
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
        let Some((path, body)) = question.get() else {
            state.set(Remote::Idle);
            return;
        };
        state.set(Remote::Loading);
        abort.set_value(Abort::new());
        let signal = abort.with_value(|a| a.as_ref().map(Abort::signal));
        spawn_local(async move {
            let outcome = client::post::<Value>(path, &body, signal).await;
            if id.try_get_value() != Some(mine) {
                return;
            }
            match outcome {
                Ok(value) => state.set(Remote::Ready(value)),
                Err(problem) if problem.kind == Kind::Aborted => {}
                Err(problem) => state.set(Remote::Failed(problem)),
            }
        });
    });
    (state.into(), Callback::new(move |()| again.update(|n| *n += 1)))
}
