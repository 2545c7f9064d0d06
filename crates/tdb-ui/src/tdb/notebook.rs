//! The log of the visit: runs, continuations, figures and notes in order. Kept in this browser, exported for others.

use leptos::prelude::*;
use tdb_api::page::LogEntry as Entry;
use tdb_api::wire::from_json;
use tdb_api::{SampleRequest, TokenRef};

use super::interventions::describe;
use super::log_export::{html, ipynb, markdown};
use crate::client;
use crate::context::{expect_context, provide_context};
use crate::dom;
use crate::format;
use crate::json::Json;
use crate::session::{RunRecord, Session};
use crate::signals::{Change, Memo, Peek, RwSignal, See, effect};
use crate::ui::{CollectView, Menu, Notices, button, dynamic, entered, follows, icon_button, menu_item, sent};

const KEY: &str = "tdb.log";
/// Entries that are kept; the oldest go first.
const MOST: usize = 200;

fn load() -> Vec<Entry> {
    dom::stored(KEY).and_then(|text| from_json(&text).ok()).unwrap_or_default()
}

#[derive(Clone, Copy)]
pub struct Log {
    pub entries: RwSignal<Vec<Entry>>,
    session: Session,
}

impl Log {
    /// Keeps every run of the session from now on.
    pub fn provide(session: Session) {
        let log = Self { entries: RwSignal::new(load()), session };
        provide_context(log);
        Effect::new(move |seen: Option<u32>| {
            let last = session.runs.see(|runs| runs.last().cloned());
            match last {
                Some(run) if seen != Some(run.id) => {
                    let id = run.id;
                    log.ran(run);
                    id
                }
                _ => seen.unwrap_or_default(),
            }
        });
        let (notices, told) = (Notices::get(), StoredValue::new(false));
        effect(move || {
            let is_kept = log.entries.see(|all| dom::store(KEY, Some(&Json::of(all).text())));
            if !is_kept && !told.get_value() {
                told.set_value(true);
                notices.say("The browser does not keep the log: export it before the page is closed.");
            }
        });
        // What another tab keeps is here, too, rather than overwritten.
        let listener = window_event_listener(leptos::ev::storage, move |_| {
            let kept = load();
            if log.entries.peek(|all| *all != kept) {
                log.entries.set(kept);
            }
        });
        on_cleanup(move || listener.remove());
    }

    pub fn get() -> Self {
        expect_context()
    }

    fn add(self, entry: Entry) {
        self.entries.change(|all| {
            let id = all.iter().map(|e| e.id).max().unwrap_or_default() + 1;
            all.push(Entry { id, at: dom::timestamp(), ..entry });
            if all.len() > MOST {
                all.remove(0);
            }
        });
    }

    fn ran(self, run: RunRecord) {
        let (page, session) = (&run.page, self.session);
        let tokens = |list: &[TokenRef]| list.iter().map(TokenRef::to_string).collect::<Vec<_>>().join(",");
        let answer = session.answer.get_untracked();
        let mut facts = vec![("prompt".to_owned(), page.left.prompt.clone())];
        let mut put = |name: &str, value: String| {
            if !value.is_empty() {
                facts.push((name.into(), value));
            }
        };
        put("second prompt", page.right.as_ref().map(|r| r.prompt.clone()).unwrap_or_default());
        put("target", tokens(&page.left.target_tokens));
        put("distractor", tokens(&page.left.distractor_tokens));
        let held = page.left.node_ablations.iter();
        let held = held.map(|a| format!("{} = {}", describe(&a.node_index, &answer), a.value));
        put("ablations", held.collect::<Vec<_>>().join("; "));
        let traced = page.left.upstream_node_to_trace.as_ref();
        put("trace", traced.map(|t| describe(&t.node_index, &answer)).unwrap_or_default());
        put("MLP as", page.component_type_for_mlp.to_string());
        put("attention as", page.component_type_for_attention.to_string());
        let values = (0..2).filter_map(|i| run.loss[i].or(run.activation[i])).collect();
        self.add(Entry {
            title: format!("Run {}", run.id),
            facts,
            url: session.url(page, &session.view.get_untracked()),
            request: Json::of(&session.request_for(page)).text(),
            values,
            ..Entry::default()
        });
    }

    /// A prompt was continued.
    pub fn continued(self, request: &SampleRequest, texts: &[String; 2]) {
        let facts = [
            ("prompt", request.prompt.clone()),
            ("temperature", request.temperature.to_string()),
            ("top-p", request.top_p.to_string()),
            ("seed", request.seed.to_string()),
            ("with ablations", texts[0].clone()),
            ("without", texts[1].clone()),
        ];
        let facts = facts.into_iter().filter(|(_, value)| !value.is_empty());
        self.add(Entry {
            title: "Continuation".into(),
            facts: facts.map(|(name, value)| (name.to_owned(), value)).collect(),
            ..Entry::default()
        });
    }

    /// Keeps a figure.
    pub fn drew(self, title: &str, svg: String) {
        self.add(Entry { title: title.into(), svg, ..Entry::default() });
    }
}

#[component]
pub fn LogView() -> impl IntoView {
    let log = Log::get();
    let chosen = RwSignal::new(Vec::<i64>::new());
    let note = RwSignal::new(String::new());
    let edit = move |id: i64, change: &dyn Fn(&mut Entry)| {
        log.entries.change(|all| all.iter_mut().filter(|e| e.id == id).for_each(change));
    };
    // Typing in an entry does not draw the list anew.
    let ids = Memo::new(move |_| log.entries.see(|all| all.iter().map(|e| e.id).collect::<Vec<_>>()));
    let of = move |id: i64| log.entries.peek(|all| all.iter().find(|e| e.id == id).cloned());
    let export = move |what: &'static str| {
        let (all, server) = (log.entries.get_untracked(), client::absolute_server());
        match what {
            "md" => dom::download("tdb-log.md", "text/markdown", &markdown(&all, &server)),
            "html" => dom::download("tdb-log.html", "text/html", &html(&all, &server)),
            _ => dom::download("tdb-log.ipynb", "application/x-ipynb+json", &ipynb(&all, &server)),
        };
    };
    view! {
        <div class="stack" id="log">
            <form class="row" on:submit=sent(move |e| {
                e.prevent_default();
                let text = note.get_untracked();
                if !text.trim().is_empty() {
                    log.add(Entry { title: "Note".into(), note: text, ..Entry::default() });
                    note.set(String::new());
                }
            })>
                <input
                    class="field grow"
                    id="log-note"
                    aria-label="A note"
                    placeholder="A note"
                    prop:value=follows(move || note.get())
                    on:input=entered(move |e| note.set(event_target_value(&e)))
                />
                <button class="button small" type="submit">"Add note"</button>
                <Menu label="Export" class="button small">
                    {menu_item("Markdown", move |_| export("md"))}
                    {menu_item("HTML", move |_| export("html"))}
                    {menu_item("Notebook (.ipynb)", move |_| export("ipynb"))}
                </Menu>
                {button("button small plain", "Clear", move |_| log.entries.set(Vec::new()))}
            </form>
            <p class="quiet small-text">
                "Kept in this browser. Choose two entries to see only what differs."
            </p>
            {dynamic(move || match chosen.get().as_slice() {
                &[a, b] => Some(differences(&of(a)?, &of(b)?)),
                _ => None,
            })}
            <ol class="log">
                <For each=move || ids.get() key=|id| *id let(id)>
                    {of(id).map(|entry| view! {
                        <li class="example-box">
                            <div class="row">
                                <input
                                    type="checkbox"
                                    aria-label=format!("Compare {}", entry.title)
                                    prop:checked=follows(move || chosen.see(|c| c.contains(&id)))
                                    on:change=entered(move |_| chosen.change(|c| match c.iter().position(|x| *x == id) {
                                        Some(at) => { c.remove(at); }
                                        None => {
                                            c.push(id);
                                            if c.len() > 2 {
                                                c.remove(0);
                                            }
                                        }
                                    }))
                                />
                                <input
                                    class="field"
                                    aria-label="Name"
                                    prop:value=entry.title.clone()
                                    on:input=entered(move |e| edit(id, &|entry| entry.title = event_target_value(&e)))
                                />
                                {(!entry.url.is_empty()).then(|| view! { <a href=entry.url.clone()>"Open"</a> })}
                                <strong class="num">
                                    {entry.values.iter().map(|v| format::signed(*v)).collect::<Vec<_>>().join(", ")}
                                </strong>
                                <input
                                    class="field grow"
                                    aria-label="Note"
                                    placeholder="note"
                                    prop:value=entry.note.clone()
                                    on:input=entered(move |e| edit(id, &|entry| entry.note = event_target_value(&e)))
                                />
                                {icon_button(format!("Delete {}", entry.title), "", "✕", || false, move |_| {
                                    log.entries.change(|all| all.retain(|e| e.id != id));
                                })}
                            </div>
                            <div class="small-text quiet">{facts(&entry)}</div>
                            <div class="log-figure" inner_html=entry.svg></div>
                        </li>
                    })}
                </For>
            </ol>
        </div>
    }
}

fn facts(entry: &Entry) -> String {
    entry.facts.iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>().join(" · ")
}

/// Two entries side by side: what differs.
fn differences(a: &Entry, b: &Entry) -> AnyView {
    let all = |entry: &Entry| {
        let values = ["value", "right value"].into_iter().zip(&entry.values);
        let values = values.map(|(name, value)| (name.to_owned(), format::full(*value)));
        entry.facts.iter().cloned().chain(values).collect::<Vec<_>>()
    };
    let (left, right) = (all(a), all(b));
    let mut names: Vec<&String> = left.iter().chain(&right).map(|(name, _)| name).collect();
    names.dedup();
    let find = |list: &[(String, String)], name: &str| {
        list.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()).unwrap_or_default()
    };
    let mut rows: Vec<(String, String, String)> = Vec::new();
    for name in names {
        let row = (name.clone(), find(&left, name), find(&right, name));
        if row.1 != row.2 && !rows.contains(&row) {
            rows.push(row);
        }
    }
    view! {
        <table class="explanations" id="log-differences">
            <thead>
                <tr><td></td><th scope="col">{a.title.clone()}</th><th scope="col">{b.title.clone()}</th></tr>
            </thead>
            <tbody>
                {rows.into_iter().map(|(name, left, right)| view! {
                    <tr><th scope="row">{name}</th><td>{left}</td><td>{right}</td></tr>
                }).collect_view()}
            </tbody>
        </table>
    }
    .into_any()
}
