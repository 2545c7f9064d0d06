//! Handlers of events, boxed: what the framework does with a handler is compiled once for all of them, not once for
//! each.

use web_sys::{DragEvent, Event, KeyboardEvent, MouseEvent, SubmitEvent};

/// Handles events of one type.
pub type Handler<E> = Box<dyn FnMut(E)>;

/// Of a press on a button or link.
pub fn press(handler: impl FnMut(MouseEvent) + 'static) -> Handler<MouseEvent> {
    Box::new(handler)
}

/// Of a field whose value changes.
pub fn entered(handler: impl FnMut(Event) + 'static) -> Handler<Event> {
    Box::new(handler)
}

/// Of a form that is sent.
pub fn sent(handler: impl FnMut(SubmitEvent) + 'static) -> Handler<SubmitEvent> {
    Box::new(handler)
}

/// Of a key.
pub fn keyed(handler: impl FnMut(KeyboardEvent) + 'static) -> Handler<KeyboardEvent> {
    Box::new(handler)
}

/// Of something that is dragged, or that something is dragged over.
pub fn dragged(handler: impl FnMut(DragEvent) + 'static) -> Handler<DragEvent> {
    Box::new(handler)
}
