//! What goes on while the page is used.

use std::pin::Pin;

use leptos::task::spawn_local;

/// Begins a task. Boxed: what the framework does with tasks is compiled once, not once for each.
pub fn spawn(task: impl Future<Output = ()> + 'static) {
    spawn_boxed(Box::pin(task));
}

fn spawn_boxed(task: Pin<Box<dyn Future<Output = ()>>>) {
    spawn_local(task);
}
