//! A request that follows its inputs: cancelled when they change, never answered late, tied to what it was asked for.
//!
//! What is asked is compiled once, over requests as they are sent and answers of any type: a copy for each route would
//! be a tenth of what a browser has to load.

use std::any::Any;
use std::sync::Arc;

use leptos::prelude::*;
use tdb_api::routes::Route;
use tdb_api::wire::{Decode, from_json};

use crate::client::{self, Abort, Call, Kind, Problem};
use crate::server::{Health, Server};
use crate::signals::{Change, Memo, Peek, RwSignal, Signal, effect};
use crate::tasks::spawn;

/// An answer of any type.
type Anything = dyn Any + Send + Sync;

/// Reads an answer's text.
type Read = Arc<dyn Fn(&str) -> Result<Arc<Anything>, Problem> + Send + Sync>;

pub enum Remote<T: ?Sized> {
    /// Nothing to ask.
    Idle,
    Loading,
    Ready(Arc<T>),
    Failed(Problem),
}

impl<T: ?Sized> Clone for Remote<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Idle => Self::Idle,
            Self::Loading => Self::Loading,
            Self::Ready(answer) => Self::Ready(answer.clone()),
            Self::Failed(problem) => Self::Failed(problem.clone()),
        }
    }
}

impl Remote<Anything> {
    fn of<T: Send + Sync + 'static>(self) -> Remote<T> {
        match self {
            Self::Ready(answer) => answer.downcast().map_or(Remote::Idle, Remote::Ready),
            Self::Idle => Remote::Idle,
            Self::Loading => Remote::Loading,
            Self::Failed(problem) => Remote::Failed(problem),
        }
    }
}

/// A request whose answer becomes a `T`.
pub struct Question<T> {
    call: Call,
    read: Read,
    answer: std::marker::PhantomData<fn() -> T>,
}

impl<T: Send + Sync + 'static> Question<T> {
    /// Of a route, whose answer `make` turns into a `T`.
    pub fn of<R: Route<Answer: Decode>>(request: &R::Request, make: fn(R::Answer) -> T) -> Self {
        let read = move |text: &str| match from_json(text) {
            Ok(answer) => Ok(Arc::new(make(answer)) as Arc<Anything>),
            Err(error) => Err(Problem::unreadable(R::PATH, error)),
        };
        Self { call: Call::json::<R>(request), read: Arc::new(read), answer: std::marker::PhantomData }
    }
}

/// Follows what is asked of the route `R`; `None` asks nothing. The second part asks again.
pub fn follow<R>(
    request: impl Fn() -> Option<R::Request> + Send + Sync + 'static,
) -> (Signal<Remote<R::Answer>>, Callback<()>)
where
    R: Route<Answer: Decode + Sync> + 'static,
{
    follow_question(move || Some(Question::of::<R>(&request()?, |answer| answer)))
}

/// Follows a question of any route.
pub fn follow_question<T: Send + Sync + 'static>(
    question: impl Fn() -> Option<Question<T>> + Send + Sync + 'static,
) -> (Signal<Remote<T>>, Callback<()>) {
    let (state, again) = follow_call(Box::new(move || question().map(|q| Asked { call: q.call, read: q.read })));
    (Signal::derive(move || state.get().of()), again)
}

/// What is asked, and how its answer is read; the same if the same is sent.
#[derive(Clone)]
struct Asked {
    call: Call,
    read: Read,
}

impl PartialEq for Asked {
    fn eq(&self, other: &Self) -> bool {
        self.call == other.call
    }
}

type State = RwSignal<Remote<Anything>>;

fn follow_call(question: Box<dyn Fn() -> Option<Asked> + Send + Sync>) -> (State, Callback<()>) {
    let state: State = RwSignal::new(Remote::Idle);
    let question = Memo::new(move |_| question());
    let again = RwSignal::new(0u32);
    let abort = StoredValue::new_local(None::<Abort>);
    let id = StoredValue::new(0u32);
    let server = Server::get();
    effect(move || {
        again.track();
        let mine = id.get_value() + 1;
        id.set_value(mine);
        abort.set_value(None);
        let Some(Asked { call, read }) = question.get() else {
            state.set(Remote::Idle);
            return;
        };
        state.set(Remote::Loading);
        abort.set_value(Abort::new());
        let signal = abort.with_value(|a| a.as_ref().map(Abort::signal));
        spawn(async move {
            let outcome = client::text(call, signal).await.and_then(|text| read(&text));
            if id.try_get_value() != Some(mine) {
                return;
            }
            match outcome {
                Ok(answer) => state.set(Remote::Ready(answer)),
                Err(problem) if problem.kind == Kind::Aborted => {}
                Err(problem) => {
                    server.lost(&problem);
                    state.set(Remote::Failed(problem));
                }
            }
        });
    });
    // What found no server is asked again when there is one.
    effect(move || {
        let waits = |state: &Remote<Anything>| matches!(state, Remote::Failed(p) if p.is_unanswered());
        if server.health.get() == Health::Present && state.peek(waits) {
            again.change(|n| *n += 1);
        }
    });
    (state, Callback::new(move |()| again.change(|n| *n += 1)))
}
