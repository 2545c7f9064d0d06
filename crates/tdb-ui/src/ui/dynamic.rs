//! Parts of a view that follow signals, boxed: what the framework does with them is compiled once for all, not once for
//! each closure. The pages are a tenth smaller for it.

use crate::signals::Memo;
use leptos::prelude::*;

/// A child that follows signals.
pub type Dynamic = Box<dyn FnMut() -> AnyView + Send>;

/// A child that follows the signals that `part` reads.
pub fn dynamic<T: IntoAny>(mut part: impl FnMut() -> T + Send + 'static) -> Dynamic {
    Box::new(move || part().into_any())
}

/// A value of an attribute or property that follows the signals that `value` reads.
pub fn follows<T: 'static>(value: impl FnMut() -> T + Send + 'static) -> Box<dyn FnMut() -> T + Send> {
    Box::new(value)
}

/// Whether something holds, by the signals that a function reads; boxed.
pub struct Condition(Box<dyn Fn() -> bool + Send + Sync>);

impl<F: Fn() -> bool + Send + Sync + 'static> From<F> for Condition {
    fn from(holds: F) -> Self {
        Self(Box::new(holds))
    }
}

/// The children while `when` is true, else what `fallback` gives.
#[component]
pub fn Show(
    #[prop(into)] when: Condition,
    #[prop(optional, into)] fallback: Option<ViewFn>,
    children: ChildrenFn,
) -> impl IntoView {
    let when = Memo::new(move |_| (when.0)());
    dynamic(move || match (when.get(), &fallback) {
        (true, _) => children(),
        (false, Some(fallback)) => fallback.run(),
        (false, None) => ().into_any(),
    })
}

/// Views in a row, boxed: a row of each type of view would be compiled anew.
pub trait CollectView {
    fn collect_view(self) -> Vec<AnyView>;
}

impl<V: IntoAny, I: IntoIterator<Item = V>> CollectView for I {
    fn collect_view(self) -> Vec<AnyView> {
        self.into_iter().map(IntoAny::into_any).collect()
    }
}
