//! Values that are followed: signals, memos, and either of them. As the framework's, which are compiled anew for each
//! type of value and each closure that they are given; these hold values of one type, so that the framework's are
//! compiled once. The pages are a tenth smaller for it.

use std::any::Any;
use std::marker::PhantomData;
use std::sync::Arc;

use leptos::prelude as framework;
use leptos::prelude::{Dispose, Effect, Track, Update, With, WithUntracked, Write};

/// A value of any type.
type Value = Arc<dyn Any + Send + Sync>;

/// What the framework's signals hold.
pub struct Held {
    value: Value,
    equal: fn(&dyn Any, &dyn Any) -> bool,
}

impl Held {
    /// A value that counts as another whenever it is set.
    fn new(value: Value) -> Self {
        Self { value, equal: |_, _| false }
    }

    fn compared<T: PartialEq + Send + Sync + 'static>(value: T) -> Self {
        Self { value: Arc::new(value), equal: |a, b| a.downcast_ref::<T>() == b.downcast_ref::<T>() }
    }
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        (self.equal)(&*self.value, &*other.value)
    }
}

/// A value that is set.
pub struct RwSignal<T>(framework::RwSignal<Held>, PhantomData<fn() -> T>);

/// A value that follows from others, and changes if it becomes another.
pub struct Memo<T>(framework::Memo<Held>, PhantomData<fn() -> T>);

/// A value that follows from others.
pub struct Signal<T>(framework::Signal<Held>, PhantomData<fn() -> T>);

/// Looks at a signal's value, and follows it.
pub trait See {
    type Value;
    fn see<U>(&self, f: impl FnOnce(&Self::Value) -> U) -> U;
}

/// Looks at a signal's value as it is now.
pub trait Peek {
    type Value;
    fn peek<U>(&self, f: impl FnOnce(&Self::Value) -> U) -> U;
}

/// Changes a signal's value and tells whoever follows it.
pub trait Change {
    type Value;
    fn change(&self, f: impl FnOnce(&mut Self::Value));
}

fn typed<T: 'static>(value: &Value) -> &T {
    match value.downcast_ref() {
        Some(value) => value,
        None => absent(),
    }
}

#[cold]
fn absent() -> ! {
    unreachable!("a signal has a value of its type, except while it is changed")
}

macro_rules! readable {
    ($name:ident) => {
        impl<T> Clone for $name<T> {
            fn clone(&self) -> Self {
                *self
            }
        }

        impl<T> Copy for $name<T> {}

        impl $name<()> {
            fn seen(signal: framework::$name<Held>) -> Value {
                signal.with(|held| held.value.clone())
            }

            fn peeked(signal: framework::$name<Held>) -> Value {
                signal.with_untracked(|held| held.value.clone())
            }
        }

        impl<T: 'static> See for $name<T> {
            type Value = T;

            fn see<U>(&self, f: impl FnOnce(&T) -> U) -> U {
                f(typed(&$name::seen(self.0)))
            }
        }

        impl<T: 'static> Peek for $name<T> {
            type Value = T;

            fn peek<U>(&self, f: impl FnOnce(&T) -> U) -> U {
                f(typed(&$name::peeked(self.0)))
            }
        }

        impl<T: Clone + 'static> $name<T> {
            pub fn get(&self) -> T {
                self.see(T::clone)
            }

            pub fn get_untracked(&self) -> T {
                self.peek(T::clone)
            }
        }

        impl<T> $name<T> {
            /// Follows the value without looking at it.
            pub fn track(&self) {
                self.0.track();
            }
        }
    };
}

readable!(RwSignal);
readable!(Memo);
readable!(Signal);

macro_rules! may_be_gone {
    ($name:ident) => {
        impl $name<()> {
            fn try_peeked(signal: framework::$name<Held>) -> Option<Value> {
                signal.try_with_untracked(|held| held.value.clone())
            }
        }

        impl<T: 'static> $name<T> {
            /// None if the signal went away with its owner.
            pub fn try_peek<U>(&self, f: impl FnOnce(&T) -> U) -> Option<U> {
                $name::try_peeked(self.0).map(|value| f(typed(&value)))
            }
        }

        impl<T: Clone + 'static> $name<T> {
            /// None if the signal went away with its owner.
            pub fn try_get_untracked(&self) -> Option<T> {
                self.try_peek(T::clone)
            }
        }
    };
}

may_be_gone!(RwSignal);
may_be_gone!(Memo);

impl RwSignal<()> {
    /// Sets it. None if the signal went away with its owner.
    fn put(signal: framework::RwSignal<Held>, value: Value) -> Option<()> {
        signal.try_update(|held| held.value = value)
    }

    /// Takes the value out, to be put back; whoever looks at the signal meanwhile finds no value.
    fn taken(signal: framework::RwSignal<Held>) -> Option<Value> {
        let mut held = signal.try_write_untracked()?;
        Some(std::mem::replace(&mut held.value, Arc::new(())))
    }
}

impl<T: Send + Sync + 'static> RwSignal<T> {
    pub fn new(value: T) -> Self {
        Self(framework::RwSignal::new(Held::new(Arc::new(value))), PhantomData)
    }

    pub fn set(&self, value: T) {
        self.try_set(value);
    }

    /// None if the signal went away with its owner.
    pub fn try_set(&self, value: T) -> Option<()> {
        RwSignal::put(self.0, Arc::new(value))
    }

    pub fn dispose(self) {
        self.0.dispose();
    }
}

impl<T: Clone + Send + Sync + 'static> RwSignal<T> {
    /// None if the signal went away with its owner. Whoever looks at the signal just now keeps the value as it was.
    pub fn try_update<U>(&self, f: impl FnOnce(&mut T) -> U) -> Option<U> {
        let mut value = RwSignal::taken(self.0)?;
        if Arc::get_mut(&mut value).is_none() {
            value = Arc::new(typed::<T>(&value).clone());
        }
        let out = Arc::get_mut(&mut value).and_then(|value| value.downcast_mut()).map_or_else(|| absent(), f);
        RwSignal::put(self.0, value);
        Some(out)
    }
}

impl<T: Clone + Send + Sync + 'static> Change for RwSignal<T> {
    type Value = T;

    fn change(&self, f: impl FnOnce(&mut T)) {
        self.try_update(f);
    }
}

impl<T: Default + Send + Sync + 'static> Default for RwSignal<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T: PartialEq + Send + Sync + 'static> Memo<T> {
    pub fn new(value: impl Fn(Option<&T>) -> T + Send + Sync + 'static) -> Self {
        let value = move |before: Option<&Held>| Held::compared(value(before.map(|held| typed(&held.value))));
        Self(memo(Box::new(value)), PhantomData)
    }
}

/// Gives a memo's value, of the one before.
type Follows = Box<dyn Fn(Option<&Held>) -> Held + Send + Sync>;

fn memo(value: Follows) -> framework::Memo<Held> {
    framework::Memo::new(value)
}

impl<T: Send + Sync + 'static> Signal<T> {
    pub fn derive(value: impl Fn() -> T + Send + Sync + 'static) -> Self {
        Self(derived(Box::new(move || Arc::new(value()))), PhantomData)
    }
}

fn derived(value: Box<dyn Fn() -> Value + Send + Sync>) -> framework::Signal<Held> {
    framework::Signal::derive(move || Held::new(value()))
}

impl<T: Clone + Send + Sync + 'static> Signal<T> {
    /// A value that stays.
    pub fn stored(value: T) -> Self {
        Self::derive(move || value.clone())
    }
}

impl<T> From<RwSignal<T>> for Signal<T> {
    fn from(signal: RwSignal<T>) -> Self {
        Self(signal.0.into(), PhantomData)
    }
}

impl<T> From<Memo<T>> for Signal<T> {
    fn from(memo: Memo<T>) -> Self {
        Self(memo.0.into(), PhantomData)
    }
}

impl<T: Clone + Send + Sync + 'static> From<T> for Signal<T> {
    fn from(value: T) -> Self {
        Self::stored(value)
    }
}

impl From<&str> for Signal<String> {
    fn from(value: &str) -> Self {
        Self::stored(value.to_owned())
    }
}

/// Runs a function now, and again whenever a signal changes that it looked at. As the framework's `Effect`, compiled
/// once.
pub fn effect(run: impl FnMut() + 'static) {
    run_effect(Box::new(run));
}

fn run_effect(mut run: Box<dyn FnMut()>) {
    Effect::new(move |_: Option<()>| run());
}

#[cfg(test)]
mod tests {
    use super::*;
    use leptos::prelude::Owner;

    #[test]
    fn a_signal_may_be_changed_while_it_is_looked_at() {
        Owner::new().with(|| {
            let signal = RwSignal::new(vec![1]);
            let seen = signal.peek(|before| {
                signal.change(|value| value.push(2));
                before.clone()
            });
            assert_eq!((seen, signal.get_untracked()), (vec![1], vec![1, 2]));
        });
    }

    #[test]
    #[should_panic(expected = "a signal has a value of its type")]
    fn a_signal_is_not_changed_while_it_is_changed() {
        Owner::new().with(|| {
            let signal = RwSignal::new(1);
            signal.change(|_| signal.change(|value| *value += 1));
        });
    }
}
