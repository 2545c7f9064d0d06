//! Values that components below find by their type. As the framework's contexts, which are compiled anew for each type;
//! here all of them stand in one.

use std::any::{Any, TypeId};
use std::sync::Arc;

use leptos::prelude as framework;

type Value = Arc<dyn Any + Send + Sync>;

/// What is provided here and above.
#[derive(Clone, Default)]
struct Provided(Arc<Vec<(TypeId, Value)>>);

/// Gives a value to this component and those below it.
pub fn provide_context<T: Send + Sync + 'static>(value: T) {
    provide(TypeId::of::<T>(), Arc::new(value));
}

/// The value of this type that was provided last, here or above.
pub fn use_context<T: Clone + 'static>() -> Option<T> {
    provided(TypeId::of::<T>()).and_then(|value| value.downcast_ref().cloned())
}

/// [`use_context`] of what a page always provides.
pub fn expect_context<T: Clone + 'static>() -> T {
    match use_context() {
        Some(value) => value,
        None => missing(),
    }
}

#[cold]
fn missing() -> ! {
    unreachable!("a page provides what its parts expect")
}

fn provide(id: TypeId, value: Value) {
    let Provided(all) = framework::use_context().unwrap_or_default();
    let others = all.iter().filter(|(of, _)| *of != id).cloned();
    framework::provide_context(Provided(Arc::new(others.chain([(id, value)]).collect())));
}

fn provided(id: TypeId) -> Option<Value> {
    let Provided(all) = framework::use_context()?;
    all.iter().find(|(of, _)| *of == id).map(|(_, value)| value.clone())
}
