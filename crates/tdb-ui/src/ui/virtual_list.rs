//! Long lists of which only the items in sight are drawn.

use crate::signals::{Memo, RwSignal, effect};
use leptos::{html, prelude::*};
use wasm_bindgen::JsCast;

/// Items of known heights, one below the other. Lengths are in pixels.
#[derive(Clone, Debug, PartialEq)]
pub struct VirtualList<T> {
    items: Vec<Placed<T>>,
    height: f64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Placed<T> {
    pub item: T,
    /// Position in the list, from 0.
    pub at: usize,
    pub top: f64,
    height: f64,
}

impl<T: Clone> VirtualList<T> {
    /// Places items, each with its height.
    pub fn new(items: impl IntoIterator<Item = (T, f64)>) -> Self {
        let mut top = 0.0;
        let place = |(at, (item, height))| {
            let placed = Placed { item, at, top, height };
            top += height;
            placed
        };
        let items: Vec<Placed<T>> = items.into_iter().enumerate().map(place).collect();
        Self { items, height: top }
    }

    pub fn height(&self) -> f64 {
        self.height
    }

    /// The items of which something lies between `from` and `to`.
    pub fn within(&self, (from, to): (f64, f64)) -> Vec<Placed<T>> {
        let start = self.items.partition_point(|p| p.top + p.height < from);
        self.items[start..].iter().take_while(|p| p.top < to).cloned().collect()
    }

    /// The first item that this is true of.
    pub fn find(&self, is_it: impl Fn(&T) -> bool) -> Option<&Placed<T>> {
        self.items.iter().find(|p| is_it(&p.item))
    }
}

/// What is in sight of a box that scrolls.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sight {
    pub top: f64,
    pub height: f64,
    /// The head that stays on top and covers what is below it.
    pub head: f64,
}

impl Sight {
    /// Where the box has to scroll to for an item to be in sight, if it is not; the top of one that is larger than the
    /// box.
    pub fn reveal<T>(self, item: &Placed<T>, height: f64) -> Option<f64> {
        let needed = item.top + height + self.head;
        if item.top < self.top {
            Some(item.top)
        } else if needed > self.top + self.height {
            Some((needed - self.height).min(item.top))
        } else {
            None
        }
    }
}

/// The box around a [`VirtualList`]. Its first child is the head.
#[derive(Clone, Copy)]
pub struct Viewport {
    pub node: NodeRef<html::Div>,
    top: RwSignal<f64>,
    height: RwSignal<f64>,
    /// Whether the content is wider than the box.
    pub is_wide: RwSignal<bool>,
}

impl Viewport {
    /// Measures again when `content` changes the box's content, and when the window changes its size.
    pub fn new(content: impl Fn() + Send + Sync + 'static) -> Self {
        let viewport = Self {
            node: NodeRef::new(),
            top: RwSignal::new(0.0),
            height: RwSignal::new(600.0),
            is_wide: RwSignal::new(false),
        };
        effect(move || {
            viewport.node.track();
            content();
            request_animation_frame(move || viewport.measure());
        });
        let resized = window_event_listener(leptos::ev::resize, move |_| viewport.measure());
        on_cleanup(move || resized.remove());
        viewport
    }

    /// Does nothing once the box is gone.
    pub fn measure(self) {
        if let Some(div) = self.node.try_get_untracked().flatten() {
            self.top.set(f64::from(div.scroll_top()));
            self.height.set(f64::from(div.client_height()));
            let is_wide = div.scroll_width() > div.client_width();
            if self.is_wide.get_untracked() != is_wide {
                self.is_wide.set(is_wide);
            }
        }
    }

    pub fn height_untracked(self) -> f64 {
        self.height.get_untracked()
    }

    /// The part of the list to draw: what is in sight and `beyond` above and below. It moves in steps of `step`, so
    /// that scrolling by a pixel redraws nothing.
    pub fn window(self, step: f64, beyond: f64) -> Memo<(f64, f64)> {
        Memo::new(move |_| {
            let from = (self.top.get() / step).floor() * step;
            (from - beyond, from + self.height.get() + step + beyond)
        })
    }

    /// Scrolls so far that the item is in sight.
    pub fn reveal<T>(self, item: &Placed<T>, height: f64) {
        let Some(div) = self.node.get_untracked() else { return };
        let head = div.first_element_child().and_then(|h| h.dyn_into::<web_sys::HtmlElement>().ok());
        let sight = Sight {
            top: f64::from(div.scroll_top()),
            height: f64::from(div.client_height()),
            head: head.map_or(0.0, |h| f64::from(h.offset_height())),
        };
        if let Some(to) = sight.reveal(item, height) {
            div.set_scroll_top(to as i32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> VirtualList<char> {
        VirtualList::new([('a', 10.0), ('b', 10.0), ('c', 100.0), ('d', 10.0)])
    }

    fn drawn(from: f64, to: f64) -> String {
        list().within((from, to)).iter().map(|p| p.item).collect()
    }

    #[test]
    fn items_lie_below_each_other() {
        let list = list();
        assert_eq!(list.height(), 130.0);
        let d = list.find(|c| *c == 'd').unwrap();
        assert_eq!((d.at, d.top), (3, 120.0));
        assert!(list.find(|c| *c == 'e').is_none());
    }

    #[test]
    fn only_what_is_in_sight_is_drawn() {
        assert_eq!(drawn(0.0, 130.0), "abcd");
        assert_eq!(drawn(15.0, 19.0), "b");
        assert_eq!(drawn(60.0, 70.0), "c", "an item that is larger than the box");
        assert_eq!(drawn(119.0, 130.0), "cd");
        assert_eq!(drawn(-50.0, -1.0), "");
        assert_eq!(drawn(500.0, 600.0), "");
    }

    #[test]
    fn a_box_scrolls_only_as_far_as_needed() {
        let list = list();
        let sight = Sight { top: 10.0, height: 50.0, head: 5.0 };
        let to = |item: char| sight.reveal(list.find(|c| *c == item).unwrap(), 10.0);
        assert_eq!((to('a'), to('b'), to('c'), to('d')), (Some(0.0), None, None, Some(85.0)));
        assert_eq!(sight.reveal(list.find(|c| *c == 'c').unwrap(), 100.0), Some(20.0));
    }
}
