//! Reading, changing and following signals. As the framework's `with`, `with_untracked` and `update`, which are compiled anew for each
//! closure that they are given; these are compiled once for each type of value.

use leptos::prelude::*;

/// Calls a function that is called once.
fn once<'a, V: ?Sized, U>(f: impl FnOnce(&V) -> U + 'a, out: &'a mut Option<U>) -> impl FnMut(&V) + 'a {
    let mut f = Some(f);
    move |value| *out = f.take().map(|f| f(value))
}

/// What was given out by a function that was called.
fn given<U>(out: Option<U>) -> U {
    match out {
        Some(out) => out,
        None => unreachable!("a signal gives its value"),
    }
}

/// Looks at a signal's value, and follows it.
pub trait See: With {
    fn see<U>(&self, f: impl FnOnce(&Self::Value) -> U) -> U {
        let mut out = None;
        see_any(self, &mut once(f, &mut out));
        given(out)
    }
}

impl<S: With> See for S {}

#[inline(never)]
fn see_any<S: With + ?Sized>(signal: &S, f: &mut dyn FnMut(&S::Value)) {
    signal.with(|value| f(value));
}

/// Looks at a signal's value as it is now.
pub trait Peek: WithUntracked {
    fn peek<U>(&self, f: impl FnOnce(&Self::Value) -> U) -> U {
        let mut out = None;
        peek_any(self, &mut once(f, &mut out));
        given(out)
    }
}

impl<S: WithUntracked> Peek for S {}

#[inline(never)]
fn peek_any<S: WithUntracked + ?Sized>(signal: &S, f: &mut dyn FnMut(&S::Value)) {
    signal.with_untracked(|value| f(value));
}

/// Changes a signal's value and tells whoever follows it.
pub trait Change: Update {
    fn change(&self, f: impl FnOnce(&mut Self::Value)) {
        let mut f = Some(f);
        change_any(self, &mut |value| {
            if let Some(f) = f.take() {
                f(value);
            }
        });
    }
}

impl<S: Update> Change for S {}

#[inline(never)]
fn change_any<S: Update + ?Sized>(signal: &S, f: &mut dyn FnMut(&mut S::Value)) {
    signal.update(|value| f(value));
}

/// Runs a function now, and again whenever a signal changes that it looked at. As the framework's `Effect`, compiled once.
pub fn effect(run: impl FnMut() + 'static) {
    run_effect(Box::new(run));
}

fn run_effect(mut run: Box<dyn FnMut()>) {
    Effect::new(move |_: Option<()>| run());
}
