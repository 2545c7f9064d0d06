//! The node table: one line a node, only those in sight drawn, worked by pointer or keyboard.

mod columns;
mod detail;
mod filters;
mod keys;
mod row;

use std::collections::{HashMap, HashSet};

use leptos::prelude::*;
use serde::Serialize;
use tdb_api::numbers::{fraction, sum};
use tdb_api::stream::TOP_K_COMPONENTS;
use tdb_api::{AttentionTraceType, MultipleTopKDerivedScalarsResponseData, NodeIndex};

use super::actions::{RowMenu, cannot_ablate, node_href, page_query, traces};
use super::exact::{ExactEffects, ExactFooter};
use super::{Slug, explain::Explanations, selected_node::SelectedNode};
use crate::answer::{Answer, Compared, Metric, Row, Values};
use crate::dom;
use crate::format;
use crate::json::Json;
use crate::session::{Layers, Session};
use crate::signals::{Change, Memo, Peek, RwSignal, See, effect};
use crate::ui::{JsonButton, Placed, Tip, Viewport, VirtualList, dynamic, follows, keyed, press};
use crate::view::{Line, arrange};
use keys::{Action, Context, LineKind};

/// Heights in pixels; the style sheet's `--row` and `--detail` say the same.
const ROW: f64 = 28.0;
/// Details before they are measured.
const DETAIL: f64 = 232.0;
/// Rows drawn beyond either edge of what is in sight.
const BEYOND: f64 = 12.0;
/// Rows that are scrolled by before others are drawn.
const STEP: f64 = 6.0;

/// What one drawn line is.
#[derive(Clone, Debug, PartialEq)]
enum Item {
    Line(Line),
    /// The opened details of a node's row.
    Detail(usize),
}

impl Item {
    fn key(&self) -> String {
        match self {
            Self::Line(line) => line.key(),
            Self::Detail(row) => format!("d{row}"),
        }
    }
}

/// State of the table that its rows share.
#[derive(Clone, Copy)]
pub struct Table {
    session: Session,
    /// Rows whose details are open.
    open: RwSignal<HashSet<usize>>,
    /// The row that was opened just now, until its details are in sight.
    opened: RwSignal<Option<usize>>,
    groups: RwSignal<HashSet<String>>,
    /// Heights of open details, as they were measured.
    heights: RwSignal<HashMap<usize, f64>>,
    /// The line that the keyboard is at, by its key.
    active: RwSignal<Option<String>>,
    explanations: Explanations,
    exact: ExactEffects,
    shape: Memo<Shape>,
    menu: RowMenu,
    /// What links to the pages of nodes take along.
    query: Memo<String>,
}

/// Which columns there are. Apart from the view's state, so that typing in the filter does not redraw every cell.
#[derive(Clone, Debug, PartialEq)]
struct Shape {
    two_sided: bool,
    narrow: bool,
    sides: Vec<Compared>,
    metrics: Vec<Metric>,
    to: bool,
    from: bool,
    explanation: bool,
    /// Exact effects, of the left side.
    exact: bool,
}

impl Shape {
    fn of(session: Session, narrow: bool, can_explain: bool, exact: bool) -> Self {
        let two_sided = session.answer.see(|a| a.is_two_sided());
        session.view.see(|v| {
            let shows = |column: &str| v.shows_column(column, narrow);
            let chosen = [Compared::Left, Compared::Diff, Compared::Right].into_iter().filter(|s| v.sides.contains(s));
            Self {
                two_sided,
                narrow,
                sides: if two_sided { chosen.collect() } else { vec![Compared::Left] },
                metrics: Metric::ALL.into_iter().filter(|m| shows(m.wire())).collect(),
                to: shows("to"),
                from: shows("from"),
                explanation: can_explain && shows("explanation"),
                // A phone has no room for it; the row's estimates stay in sight.
                exact: exact && !narrow,
            }
        })
    }
}

impl Table {
    fn new(session: Session) -> Self {
        let narrow = RwSignal::new(dom::is_narrow());
        let resized = window_event_listener(leptos::ev::resize, move |_| {
            if narrow.get_untracked() != dom::is_narrow() {
                narrow.set(dom::is_narrow());
            }
        });
        on_cleanup(move || resized.remove());
        let (explanations, exact) = (Explanations::get(), ExactEffects::get());
        Self {
            session,
            open: RwSignal::default(),
            opened: RwSignal::new(None),
            groups: RwSignal::default(),
            heights: RwSignal::default(),
            active: RwSignal::new(None),
            explanations,
            exact,
            shape: Memo::new(move |_| Shape::of(session, narrow.get(), explanations.are_here(), exact.has_column())),
            menu: RowMenu::get(),
            query: Memo::new(move |_| session.page.see(page_query)),
        }
    }

    /// What is open and selected goes with its node when another answer has other rows.
    fn keep_places(self) {
        let session = self.session;
        let all = move |a: &Answer| a.rows.iter().map(|r| (r.node.clone(), r.only())).collect::<Vec<_>>();
        let nodes = Memo::new(move |_| session.answer.see(|a| all(a)));
        Effect::new(move |old: Option<Vec<(NodeIndex, Option<Compared>)>>| {
            let new = nodes.get();
            if let Some(old) = old {
                let place = |row: &usize| old.get(*row).and_then(|n| new.iter().position(|m| m == n));
                self.open.change(|open| *open = open.iter().filter_map(place).collect());
                self.active.change(|active| {
                    if let Some(row) = active.as_ref().and_then(|key| key.parse::<usize>().ok()) {
                        *active = place(&row).map(|row| row.to_string());
                    }
                });
            }
            new
        });
    }

    fn lines(self) -> Memo<Vec<Line>> {
        let session = self.session;
        Memo::new(move |_| {
            let layers = session.asked.see(|a| a.as_ref().map(Layers::of).unwrap_or_default());
            session.answer.see(|a| session.view.see(|v| self.groups.see(|g| arrange(a, v, g, layers))))
        })
    }

    fn items(self, lines: Memo<Vec<Line>>) -> Memo<VirtualList<Item>> {
        Memo::new(move |_| {
            VirtualList::new(lines.get().into_iter().flat_map(|line| {
                let detail = match &line {
                    Line::Node { row, .. } if self.open.see(|o| o.contains(row)) => {
                        let height = self.heights.see(|h| h.get(row).copied().unwrap_or(DETAIL));
                        Some((Item::Detail(*row), height))
                    }
                    _ => None,
                };
                std::iter::once((Item::Line(line), ROW)).chain(detail)
            }))
        })
    }

    /// The card beside the table is about the selected row, or else the first.
    fn tell_selected(self, lines: Memo<Vec<Line>>) {
        let selected = SelectedNode::get();
        effect(move || {
            let key = self.active.get();
            let row = lines.see(|lines| {
                let line = lines.iter().find(|l| Some(l.key()) == key).or(lines.first())?;
                Some(line.first_row())
            });
            selected.put(row.and_then(|row| self.node(row)));
        });
    }

    fn node(self, row: usize) -> Option<NodeIndex> {
        self.session.answer.peek(|a| a.rows.get(row).map(|r| r.node.clone()))
    }

    fn kind(self, line: &Line) -> LineKind {
        match line {
            Line::Group { .. } => LineKind::Group,
            Line::Node { row, .. } => {
                let row = self.session.answer.peek(|a| a.rows.get(*row).cloned());
                LineKind::Node {
                    can_ablate: row.as_ref().is_some_and(|row| why_fixed(row).is_none()),
                    can_trace: row.as_ref().is_some_and(|row| !ways_to_trace(row).is_empty()),
                    can_pin: row.is_some_and(|row| row.nodes[0].is_some()),
                }
            }
        }
    }

    fn on_key(
        self,
        event: &web_sys::KeyboardEvent,
        lines: &[Line],
        items: Memo<VirtualList<Item>>,
        viewport: Viewport,
        slug: &str,
    ) {
        let inside = event.target() != event.current_target();
        let modified = event.ctrl_key() || event.meta_key() || event.alt_key();
        if lines.is_empty() || modified || (inside && (event.key() == "Enter" || dom::is_typing())) {
            return;
        }
        let at = self.active.peek(|a| a.as_ref().and_then(|k| lines.iter().position(|l| l.key() == *k)));
        let context = Context {
            lines: lines.len(),
            at: at.map(|at| (at, self.kind(&lines[at]))),
            page: ((viewport.height_untracked() / ROW) as usize).saturating_sub(2).max(1),
        };
        let Some(action) = keys::action(&event.key(), context) else { return };
        event.prevent_default();
        if let Action::Select(to) = action {
            let key = lines[to].key();
            items.peek(|items| {
                if let Some(placed) = items.find(|item| matches!(item, Item::Line(line) if line.key() == key)) {
                    viewport.reveal(placed, ROW);
                }
            });
            self.active.set(Some(key));
        } else if let Some(line) = at.map(|at| &lines[at]) {
            self.act(action, line, slug);
        }
    }

    /// A press on a line selects it; one of its buttons does something with it.
    fn on_press(self, event: &web_sys::MouseEvent) {
        let key = dom::closest(event, ".line").map(|line| line.id());
        let Some(key) = key.as_deref().and_then(|id| id.strip_prefix("line-")) else { return };
        let row = key.parse::<usize>().ok();
        let button = dom::closest(event, "[data-do]");
        let does = button.as_ref().and_then(|button| button.get_attribute("data-do")).unwrap_or_default();
        match (does.as_str(), row, button) {
            (row::OPEN, Some(row), _) => self.toggle_row(row),
            (row::OPEN, None, _) => self.toggle_group(key),
            (row::ABLATE, Some(row), _) => self.node(row).into_iter().for_each(|node| self.session.ablate(node, 0.0)),
            (row::TRACE, Some(row), button) => self.trace(row, button),
            (row::MENU, Some(row), Some(button)) => {
                self.node(row).into_iter().for_each(|node| self.menu.open(node, &button, false));
            }
            _ => {}
        }
        self.active.set(Some(key.to_owned()));
    }

    /// Traces a node, or asks which way below `anchor`.
    fn trace(self, row: usize, anchor: Option<web_sys::Element>) {
        let Some(node) = self.node(row) else { return };
        match (traces(node.node_type).as_slice(), anchor) {
            ([(None, _)], _) => self.session.trace(node, None),
            (_, Some(anchor)) => self.menu.open(node, &anchor, true),
            _ => {}
        }
    }

    /// Does something with the selected line.
    fn act(self, action: Action, line: &Line, slug: &str) {
        let Some(node) = self.node(line.first_row()) else { return };
        match action {
            Action::Select(_) => {}
            Action::Toggle => self.toggle(line),
            Action::Ablate => self.session.ablate(node, 0.0),
            Action::Trace => {
                let id = format!("line-{}", line.key());
                self.trace(line.first_row(), dom::document().and_then(|d| d.get_element_by_id(&id)));
            }
            Action::Pin => self.session.toggle_pin(node),
            Action::OpenPage => {
                if let Some((window, href)) = dom::window().zip(node_href(&node, self.session, slug)) {
                    let _ = window.open_with_url_and_target(&href, "_blank");
                }
            }
        }
    }

    fn toggle(self, line: &Line) {
        match line {
            Line::Group { name, .. } => self.toggle_group(name),
            Line::Node { row, .. } => self.toggle_row(*row),
        }
    }

    fn toggle_group(self, name: &str) {
        self.groups.change(|g| {
            if !g.remove(name) {
                g.insert(name.to_owned());
            }
        });
    }

    fn toggle_row(self, row: usize) {
        self.open.change(|o| {
            if !o.remove(&row) {
                o.insert(row);
                self.opened.set(Some(row));
            }
        });
    }

    /// Details come into sight once their height is known.
    fn reveal_opened(self, items: Memo<VirtualList<Item>>, viewport: Viewport) {
        effect(move || {
            let Some(row) = self.opened.get() else { return };
            let Some(height) = self.heights.see(|heights| heights.get(&row).copied()) else { return };
            self.opened.set(None);
            request_animation_frame(move || {
                let is_line = |item: &Item| matches!(item, Item::Line(Line::Node { row: of, .. }) if *of == row);
                // The table may be gone by now.
                items.try_peek(|items| {
                    items.find(is_line).into_iter().for_each(|line| viewport.reveal(line, ROW + height));
                });
            });
        });
    }
}

/// Why a row's node cannot be ablated, if it cannot. Ablations and traces are named by tokens of the left prompt.
fn why_fixed(row: &Row) -> Option<&'static str> {
    match row.only() {
        Some(Compared::Right) => Some(ONLY_RIGHT),
        _ => cannot_ablate(&row.node),
    }
}

fn ways_to_trace(row: &Row) -> Vec<(Option<AttentionTraceType>, &'static str)> {
    if row.only() == Some(Compared::Right) { Vec::new() } else { traces(row.node.node_type) }
}

const ONLY_RIGHT: &str = "Its token has no partner in the left prompt, by whose tokens ablations and traces are named.";

#[component]
pub fn NodeTable() -> impl IntoView {
    let session = Session::get();
    let table = Table::new(session);
    table.keep_places();
    let lines = table.lines();
    let items = table.items(lines);
    table.tell_selected(lines);
    let viewport = Viewport::new(move || (items.track(), table.shape.track()).1);
    table.reveal_opened(items, viewport);
    let window = viewport.window(STEP * ROW, BEYOND * ROW);
    let drawn = move || items.see(|items| items.within(window.get()));
    let key = move |placed: &Placed<Item>| (session.generation.get_untracked(), placed.item.key(), placed.top as i64);
    let slug = Slug::get();
    let on_key = move |event: web_sys::KeyboardEvent| {
        table.on_key(&event, &lines.get_untracked(), items, viewport, &slug.now());
    };
    let on_button = move |event: web_sys::MouseEvent| {
        if dom::closest(&event, "[data-do]").is_some() {
            event.prevent_default();
            dom::focus("node-table");
        }
    };
    let is_compared = move || table.shape.see(|s| s.two_sided);
    let body_style = move || format!("height:{}px;{}", items.see(VirtualList::height), columns::template(table));
    view! {
        <section class="card table-card" aria-label="Node table">
            <TableHead table=table lines=lines />
            <filters::Chips table=table />
            <div
                class="grid-scroll"
                class:compare=is_compared
                class:tight=follows(move || table.shape.see(|s| s.two_sided || s.narrow))
                class:wide=follows(move || viewport.is_wide.get())
                class:stale=follows(move || session.is_stale())
                id="node-table"
                role="grid"
                tabindex="0"
                aria-label="Nodes; arrow keys move, Enter opens, a ablates, t traces, p pins"
                aria-rowcount=follows(move || lines.see(|l| l.len() + 1).to_string())
                aria-activedescendant=follows(move || table.active.get().map(|k| format!("line-{k}")))
                aria-busy=follows(move || session.is_stale().to_string())
                node_ref=viewport.node
                on:scroll=move |_| viewport.measure()
                on:keydown=keyed(on_key)
                on:click=press(move |event| table.on_press(&event))
                // Keys go on working in the table after a press on a line's button.
                on:mousedown=press(on_button)
            >
                <columns::Head table=table />
                <div class="grid-body" role="rowgroup" style=body_style>
                    <For each=drawn key=key let(placed)>
                        {draw(table, placed)}
                    </For>
                </div>
                {dynamic(move || {
                    let is_empty = lines.see(Vec::is_empty) && session.busy.see(Option::is_none);
                    let is_filtered = session.view.see(|v| v.is_filtered());
                    let what = if is_filtered { "No node passes the filter." } else { "No nodes." };
                    is_empty.then(|| view! { <p class="quiet empty">{what}</p> })
                })}
            </div>
            <ExactFooter />
        </section>
    }
}

fn draw(table: Table, placed: Placed<Item>) -> AnyView {
    let (at, top) = (placed.at, placed.top);
    match placed.item {
        Item::Line(line) => view! { <row::LineView table=table line=line at=at top=top /> }.into_any(),
        Item::Detail(row) => view! { <detail::Detail table=table row=row top=top /> }.into_any(),
    }
}

/// What the table is, how much of it is shown, and what it can be filtered by.
#[component]
fn TableHead(table: Table, lines: Memo<Vec<Line>>) -> impl IntoView {
    let session = table.session;
    let count = move || {
        let shown: usize = lines.see(|lines| lines.iter().map(Line::nodes).sum());
        let total = session.answer.see(|a| a.rows.len());
        let Layers { from, to } = session.asked.see(|a| a.as_ref().map(Layers::of).unwrap_or_default());
        let hidden = [("before", from), ("after", to)].map(|(where_, layer)| {
            layer.map_or_else(String::new, |layer| format!("; layers {where_} {layer} are hidden"))
        });
        let hidden = hidden.concat();
        let count = if shown == total { format!("{total}") } else { format!("{shown} of {total}") };
        format!("{count}{hidden}{}", covered(session, &lines.get()).unwrap_or_default())
    };
    let json = Callback::new(move |()| session.answer.peek(|answer| json(answer)));
    view! {
        <div class="card-head">
            <h2>"Nodes"</h2>
            <span class="quiet" id="row-count" aria-live="polite">
                {count}
            </span>
            <Tip about="the node table">
                "The nodes with the largest and smallest values of each column, those with the largest direct effect \
                    first, whichever way it points. Beside the count stands what the direct effects of the rows shown \
                    add up to, of the whole logit difference. Bar length: share of the column's largest value. Blue \
                    to the right is positive, orange to the left negative."
            </Tip>
            <span class="grow"></span>
            <filters::Filters table=table />
            <JsonButton what="the node table" value=json />
        </div>
    }
}

/// How much of the logit difference the direct effects of the lines add up to.
fn covered(session: Session, lines: &[Line]) -> Option<String> {
    session.answer.see(|answer| {
        let whole = answer.objective()?;
        let once = lines.iter().filter(|line| line.nodes() > 0);
        let listed = sum(once.filter_map(|line| line.value(answer, Compared::Left, Metric::DirectEffect)));
        let share = fraction(listed, whole).map(|share| format!(" ({:.0} %)", share * 100.0)).unwrap_or_default();
        Some(format!(" · direct effects {} of {}{share}", format::signed(listed), format::signed(whole)))
    })
}

fn json(answer: &Answer) -> Json {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Nodes<'a> {
        top_k_components: Vec<Option<&'a MultipleTopKDerivedScalarsResponseData>>,
        rows: Vec<Named<'a>>,
    }
    #[derive(Serialize)]
    struct Named<'a> {
        name: &'a str,
        node: &'a NodeIndex,
        values: &'a Values,
    }
    Json::of(&Nodes {
        top_k_components: answer.responses().iter().map(|r| r.ranked(TOP_K_COMPONENTS)).collect(),
        rows: answer.rows.iter().map(|r| Named { name: &r.name, node: &r.node, values: &r.values }).collect(),
    })
}
