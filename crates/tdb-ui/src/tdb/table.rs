//! The node table: one line a node, only those in sight drawn, worked by pointer or keyboard.

mod columns;
mod detail;
mod filters;
mod row;

use std::collections::HashSet;

use leptos::{html, prelude::*};
use serde_json::json;
use wasm_bindgen::JsCast;

use super::actions::{RowMenu, cannot_ablate, node_href, traces};
use super::{Slug, at_hand::AtHand, explain::Explanations};
use crate::answer::{Metric, View};
use crate::dom;
use crate::session::{Session, first_ablated_layer};
use crate::ui::{JsonButton, Tip};
use crate::view::{Line, arrange};

/// Heights in pixels; the style sheet's `--row` and `--detail` say the same.
const ROW: f64 = 28.0;
const DETAIL: f64 = 232.0;
/// Rows drawn beyond either edge of what is in sight.
const BEYOND: usize = 12;

/// What one drawn line is.
#[derive(Clone, Debug, PartialEq)]
enum Item {
    Line(Line),
    /// The opened details of a node's row.
    Detail(usize),
}

#[derive(Clone, Debug, PartialEq)]
struct Placed {
    item: Item,
    /// Position in the list, from 0.
    at: usize,
    top: f64,
}

/// State of the table that its rows share.
#[derive(Clone, Copy)]
pub struct Table {
    session: Session,
    /// Rows whose details are open.
    open: RwSignal<HashSet<usize>>,
    groups: RwSignal<HashSet<String>>,
    /// The line that the keyboard is at, by its key.
    active: RwSignal<Option<String>>,
    explanations: Explanations,
    shape: Memo<Shape>,
    menu: RowMenu,
}

/// Which columns there are. Apart from the view's state, so that typing in the filter does not redraw every cell.
#[derive(Clone, Debug, PartialEq)]
struct Shape {
    two_sided: bool,
    narrow: bool,
    views: Vec<View>,
    metrics: Vec<Metric>,
    to: bool,
    from: bool,
    explanation: bool,
}

impl Shape {
    fn of(session: Session, narrow: bool, can_explain: bool) -> Self {
        let two_sided = session.answer.with(|a| a.is_two_sided());
        session.view.with(|v| {
            let shows = |column: &str| v.shows_column(column, narrow);
            let chosen = [View::Left, View::Diff, View::Right].into_iter().filter(|s| v.sides.contains(s));
            Self {
                two_sided,
                narrow,
                views: if two_sided { chosen.collect() } else { vec![View::Left] },
                metrics: Metric::ALL.into_iter().filter(|m| shows(m.wire())).collect(),
                to: shows("to"),
                from: shows("from"),
                explanation: can_explain && shows("explanation"),
            }
        })
    }
}

impl Table {
    fn toggle(self, line: &Line) {
        match line {
            Line::Group { name, .. } => self.groups.update(|g| {
                if !g.remove(name) {
                    g.insert(name.clone());
                }
            }),
            Line::Node { row, .. } => self.open.update(|o| {
                if !o.remove(row) {
                    o.insert(*row);
                }
            }),
        }
    }
}

#[component]
pub fn NodeTable() -> impl IntoView {
    let session = Session::get();
    let slug = Slug::text();
    let (narrow, explanations) = (RwSignal::new(dom::is_narrow()), Explanations::get());
    let table = Table {
        session,
        open: RwSignal::default(),
        groups: RwSignal::default(),
        active: RwSignal::new(None),
        explanations,
        shape: Memo::new(move |_| Shape::of(session, narrow.get(), explanations.are_here())),
        menu: RowMenu::get(),
    };
    // Another answer has other rows: what was open by number is not the same node any more.
    let nodes = Memo::new(move |_| session.answer.with(|a| a.rows.iter().map(|r| r.node.clone()).collect::<Vec<_>>()));
    Effect::new(move |old: Option<Vec<tdb_api::NodeIndex>>| {
        let new = nodes.get();
        if let Some(old) = old {
            let place = |row: &usize| old.get(*row).and_then(|n| new.iter().position(|m| m == n));
            table.open.update(|o| *o = o.iter().filter_map(place).collect());
            table.active.update(|a| {
                if let Some(row) = a.as_ref().and_then(|k| k.parse::<usize>().ok()) {
                    *a = place(&row).map(|r| r.to_string());
                }
            });
        }
        new
    });
    let lines = Memo::new(move |_| {
        let first = session.asked.with(|a| a.as_ref().and_then(first_ablated_layer));
        session.answer.with(|a| session.view.with(|v| table.groups.with(|g| arrange(a, v, g, first))))
    });
    let items = Memo::new(move |_| {
        let mut top = 0.0;
        let mut out = Vec::new();
        for line in lines.get() {
            let detail = match &line {
                Line::Node { row, .. } if table.open.with(|o| o.contains(row)) => Some(*row),
                _ => None,
            };
            out.push(Placed { item: Item::Line(line), at: out.len(), top });
            top += ROW;
            if let Some(row) = detail {
                out.push(Placed { item: Item::Detail(row), at: out.len(), top });
                top += DETAIL;
            }
        }
        (out, top)
    });
    let scroll = NodeRef::<html::Div>::new();
    let scrolled = RwSignal::new(0.0f64);
    let height = RwSignal::new(600.0f64);
    let measure = move || {
        if let Some(div) = scroll.get_untracked() {
            scrolled.set(f64::from(div.scroll_top()));
            height.set(f64::from(div.client_height()));
        }
    };
    Effect::new(move |_| {
        scroll.track();
        let _ = items.with(|(_, total)| *total);
        request_animation_frame(measure);
    });
    let resized = window_event_listener(leptos::ev::resize, move |_| {
        measure();
        if narrow.get_untracked() != dom::is_narrow() {
            narrow.set(dom::is_narrow());
        }
    });
    on_cleanup(move || resized.remove());
    // In steps of some rows, so that scrolling by a pixel redraws nothing.
    let window = Memo::new(move |_| {
        let from = (scrolled.get() / (ROW * 6.0)).floor() * ROW * 6.0;
        (from - ROW * BEYOND as f64, from + height.get() + ROW * (BEYOND + 6) as f64)
    });
    let drawn = move || {
        let (from, to) = window.get();
        items.with(|(items, _)| {
            let start = items.partition_point(|p| p.top + DETAIL < from);
            items[start..].iter().take_while(|p| p.top < to).cloned().collect::<Vec<_>>()
        })
    };
    let keys = StoredValue::new(slug.clone());
    let on_key = move |event: web_sys::KeyboardEvent| {
        let inside = event.target() != event.current_target();
        if event.ctrl_key() || event.meta_key() || event.alt_key() || (inside && event.key() == "Enter") {
            return;
        }
        let lines = lines.get_untracked();
        if lines.is_empty() || (inside && dom::is_typing()) {
            return;
        }
        let at = table.active.with_untracked(|a| a.as_ref().and_then(|k| lines.iter().position(|l| l.key() == *k)));
        let page = ((height.get_untracked() / ROW) as usize).saturating_sub(2).max(1);
        let last = lines.len() - 1;
        let to = match event.key().as_str() {
            "ArrowDown" | "j" => Some(at.map_or(0, |i| (i + 1).min(last))),
            "ArrowUp" | "k" => Some(at.map_or(0, |i| i.saturating_sub(1))),
            "PageDown" => Some(at.map_or(page, |i| i + page).min(last)),
            "PageUp" => Some(at.map_or(0, |i| i.saturating_sub(page))),
            "Home" => Some(0),
            "End" => Some(last),
            _ => None,
        };
        if let Some(to) = to {
            event.prevent_default();
            table.active.set(Some(lines[to].key()));
            reveal(scroll, &items.get_untracked().0, &lines[to]);
            return;
        }
        let Some(line) = at.map(|i| lines[i].clone()) else { return };
        let node = match &line {
            Line::Node { row, .. } => session.answer.with_untracked(|a| a.rows[*row].node.clone()),
            Line::Group { .. } => {
                if matches!(event.key().as_str(), "Enter" | " ") {
                    event.prevent_default();
                    table.toggle(&line);
                }
                return;
            }
        };
        match event.key().as_str() {
            "Enter" | " " => table.toggle(&line),
            "a" if cannot_ablate(&node).is_none() => session.ablate(node, 0.0),
            "t" => match traces(node.node_type).as_slice() {
                [] => {}
                [(None, _)] => session.trace(node, None),
                _ => {
                    if let Some(row) =
                        dom::document().and_then(|d| d.get_element_by_id(&format!("line-{}", line.key())))
                    {
                        table.menu.open(node, &row, true);
                    }
                }
            },
            "o" => {
                if let Some((window, href)) = dom::window().zip(node_href(&node, session, &keys.get_value())) {
                    let _ = window.open_with_url_and_target(&href, "_blank");
                }
            }
            _ => return,
        }
        event.prevent_default();
    };
    let json = Callback::new(move |()| {
        session.answer.with_untracked(|a| {
            let subs = a.json["inferenceSubResponses"].as_array().into_iter().flatten();
            json!({
                "topKComponents": subs.map(|s| s["processingResponseDataByName"]["topKComponents"].clone()).collect::<Vec<_>>(),
                "rows": a.rows.iter().map(|r| json!({"name": r.name, "node": r.node, "values": r.values})).collect::<Vec<_>>(),
            })
        })
    });
    let total = Memo::new(move |_| session.answer.with(|a| a.rows.len()));
    // What the card beside the table is about: the row at hand, or else the first.
    let at_hand = AtHand::get();
    Effect::new(move |_| {
        let key = table.active.get();
        let row = lines.with(|lines| {
            let line = lines.iter().find(|l| Some(l.key()) == key).or(lines.first())?;
            Some(match line {
                Line::Node { row, .. } => *row,
                Line::Group { rows, .. } => rows[0],
            })
        });
        at_hand.put(row.and_then(|row| session.answer.with_untracked(|a| a.rows.get(row).map(|r| r.node.clone()))));
    });
    let active_id = move || table.active.get().map(|k| format!("line-{k}"));
    view! {
        <section class="card table-card" aria-label="Node table">
            <div class="card-head">
                <h2>"Nodes"</h2>
                <span class="quiet" id="row-count" aria-live="polite">
                    {move || {
                        let shown: usize = lines.with(|l| l.iter().filter(|l| matches!(l, Line::Node { in_group: false, .. })).count() + l.iter().map(|l| match l { Line::Group { rows, .. } => rows.len(), Line::Node { .. } => 0 }).sum::<usize>());
                        let total = total.get();
                        if shown == total { format!("{total}") } else { format!("{shown} of {total}") }
                    }}
                </span>
                <Tip about="the node table">
                    "The nodes with the largest and smallest values of each column. Bars are as long as the value is large beside the column's largest; blue to the right is positive, orange to the left negative."
                </Tip>
                <span class="grow"></span>
                <filters::Filters table=table />
                <JsonButton what="the node table" value=json />
            </div>
            <filters::Chips table=table />
            <div
                class="grid-scroll"
                class:compare=move || table.shape.with(|s| s.two_sided)
                class:tight=move || table.shape.with(|s| s.two_sided || s.narrow)
                class:stale=move || session.is_stale()
                id="node-table"
                role="grid"
                tabindex="0"
                aria-label="Nodes; arrow keys move, Enter opens, a ablates, t traces"
                aria-rowcount=move || lines.with(|l| l.len() + 1).to_string()
                aria-activedescendant=active_id
                aria-busy=move || session.is_stale().to_string()
                node_ref=scroll
                on:scroll=move |_| measure()
                on:keydown=on_key
            >
                <columns::Head table=table />
                <div class="grid-body" role="rowgroup" style=move || format!("height:{}px;{}", items.with(|(_, total)| *total), columns::template(table))>
                    <For
                        each=drawn
                        key=move |p| {
                            let what = match &p.item {
                                Item::Line(line) => line.key(),
                                Item::Detail(row) => format!("d{row}"),
                            };
                            (session.generation.get_untracked(), what, p.top as i64)
                        }
                        let(placed)
                    >
                        {match placed.item {
                            Item::Line(line) => view! { <row::LineView table=table line=line at=placed.at top=placed.top /> }.into_any(),
                            Item::Detail(row) => view! { <detail::Detail table=table row=row top=placed.top /> }.into_any(),
                        }}
                    </For>
                </div>
                {move || (lines.with(Vec::is_empty) && session.busy.with(Option::is_none)).then(|| view! {
                    <p class="quiet empty">{move || if session.view.with(|v| v.is_filtered()) { "No node passes the filter." } else { "No nodes." }}</p>
                })}
            </div>
        </section>
    }
}

/// Scrolls so far that the line is in sight, below the head that stays.
fn reveal(scroll: NodeRef<html::Div>, items: &[Placed], line: &Line) {
    let Some(div) = scroll.get_untracked() else { return };
    let Some(top) = items.iter().find(|p| matches!(&p.item, Item::Line(l) if l.key() == line.key())).map(|p| p.top)
    else {
        return;
    };
    let head = div
        .first_element_child()
        .and_then(|h| h.dyn_into::<web_sys::HtmlElement>().ok())
        .map_or(0.0, |h| f64::from(h.offset_height()));
    let (from, height) = (f64::from(div.scroll_top()), f64::from(div.client_height()));
    if top < from {
        div.set_scroll_top(top as i32);
    } else if top + ROW + head > from + height {
        div.set_scroll_top((top + ROW + head - height) as i32);
    }
}
