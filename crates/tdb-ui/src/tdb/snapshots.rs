//! Named states with notes, kept in this browser, and as a file for others.

use leptos::{html, prelude::*};
use tdb_api::page::Snapshot;
use tdb_api::wire::from_json;

use super::exact::ExactEffects;
use crate::dom;
use crate::format;
use crate::json::Json;
use crate::session::{Session, read_query};
use crate::signals::{Peek, RwSignal, See};
use crate::tasks::spawn;
use crate::ui::{CollectView, Dialog, Notices, button, dynamic, entered, follows, press, sent, verdict};

const KEY: &str = "tdb.snapshots";

/// When it was made, what the answer was, and what was checked of it.
fn facts(snapshot: &Snapshot) -> String {
    let made = snapshot.made.get(..16).map(|m| m.replace('T', " ")).unwrap_or_default();
    let values = snapshot.values.iter().map(|v| format::signed(*v)).collect::<Vec<_>>().join(", ");
    let all = [made, values, snapshot.checks.clone()];
    all.into_iter().filter(|fact| !fact.is_empty()).collect::<Vec<_>>().join(" · ")
}

fn load() -> Vec<Snapshot> {
    dom::stored(KEY).and_then(|text| from_json(&text).ok()).unwrap_or_default()
}

#[component]
pub fn SnapshotsMenu() -> impl IntoView {
    let session = Session::get();
    let notices = Notices::get();
    let exact = ExactEffects::get();
    let open = RwSignal::new(false);
    let all = RwSignal::new(load());
    let name = RwSignal::new(String::new());
    let note = RwSignal::new(String::new());
    let file = NodeRef::<html::Input>::new();
    // Of what is kept now: another tab may have kept some since.
    let keep = move |change: &dyn Fn(&mut Vec<Snapshot>)| {
        let mut list = load();
        change(&mut list);
        let is_kept = dom::store(KEY, Some(&Json::of(&list).text()));
        match is_kept {
            true => all.set(list),
            false => notices.say("The browser does not keep this: it has no room, or keeps nothing for these pages."),
        }
        is_kept
    };
    let save = move || {
        let url = session.url(&session.page.get_untracked(), &session.view.get_untracked());
        let name_text = name.get_untracked();
        let fallback = session.page.peek(|p| p.left.prompt.clone());
        let snapshot = Snapshot {
            name: if name_text.trim().is_empty() { fallback } else { name_text },
            note: note.get_untracked(),
            url,
            made: dom::timestamp(),
            values: session.answer.peek(|answer| answer.objectives().into_iter().map(|(value, _)| value).collect()),
            checks: verdict(&exact.checks()).unwrap_or_default(),
        };
        let is_kept = keep(&|list| {
            list.retain(|s| s.name != snapshot.name);
            list.push(snapshot.clone());
        });
        if is_kept {
            name.set(String::new());
            note.set(String::new());
            notices.speak("Snapshot saved.");
        }
    };
    let restore = move |snapshot: Snapshot| {
        let (path, query) = snapshot.url.split_once('?').unwrap_or((&snapshot.url, ""));
        let (page, view) = read_query(query, notices);
        if path != dom::location().0 {
            notices.say("The snapshot was made with another model; its question is asked of this one.");
        }
        open.set(false);
        session.open(page, view);
    };
    let import = move |_| {
        let Some(input) = file.get_untracked() else { return };
        spawn(async move {
            let Some(text) = dom::chosen_file(&input).await else { return };
            match from_json::<Vec<Snapshot>>(&text) {
                Ok(new) => {
                    let is_kept = keep(&|list| {
                        list.retain(|s| new.iter().all(|n| n.name != s.name));
                        list.extend(new.iter().cloned());
                    });
                    if is_kept {
                        notices.say(format!("{} snapshots read.", new.len()));
                    }
                }
                Err(error) => notices.say(format!("This file holds no snapshots: {error}.")),
            }
            input.set_value("");
        });
    };
    view! {
        <button
            type="button"
            class="button small plain"
            id="snapshots"
            on:click=press(move |_| {
                all.set(load());
                open.set(true);
            })
        >
            "Snapshots"
        </button>
        <Dialog open=open title="Snapshots">
            <form class="stack" on:submit=sent(move |e| { e.prevent_default(); save(); })>
                <div class="row">
                    <label class="stack tight grow">
                        <span class="label">"Name"</span>
                        <input
                            class="field"
                            id="snapshot-name"
                            prop:value=follows(move || name.get())
                            on:input=entered(move |e| name.set(event_target_value(&e)))
                        />
                    </label>
                    <label class="stack tight grow">
                        <span class="label">"Note"</span>
                        <input
                            class="field"
                            prop:value=follows(move || note.get())
                            on:input=entered(move |e| note.set(event_target_value(&e)))
                        />
                    </label>
                    <button class="button primary" type="submit">"Save this state"</button>
                </div>
            </form>
            <ul class="snapshots">
                {dynamic(move || all.get().into_iter().map(|snapshot| {
                        let (open_it, gone) = (snapshot.clone(), snapshot.name.clone());
                        view! {
                            <li class="row nowrap">
                                {button("button small", "Open", move |_| restore(open_it.clone()))}
                                <span class="grow">
                                    <strong>{snapshot.name.clone()}</strong>
                                    " "
                                    <span class="quiet">
                                        {facts(&snapshot)}" "{snapshot.note.clone()}
                                    </span>
                                </span>
                                <button
                                    type="button"
                                    class="button small plain"
                                    aria-label=format!("Delete {}", snapshot.name)
                                    on:click=press(move |_| {
                                        keep(&|list| list.retain(|s| s.name != gone));
                                    })
                                >
                                    "Delete"
                                </button>
                            </li>
                        }
                    }).collect_view())}
            </ul>
            {dynamic(move || all.see(Vec::is_empty).then(|| view! {
                <p class="quiet">"None yet. They are kept in this browser alone; a file carries them to another."</p>
            }))}
            <div class="row">
                <button
                    type="button"
                    class="button small"
                    disabled=follows(move || all.see(Vec::is_empty))
                    on:click=press(move |_| {
                        let text = Json::of(&all.get_untracked()).pretty();
                        dom::download("tdb-snapshots.json", "application/json", &text);
                    })
                >
                    "Export as a file"
                </button>
                <label class="button small">
                    "Import a file"
                    <input
                        class="visually-hidden"
                        type="file"
                        accept="application/json,.json"
                        node_ref=file
                        on:change=entered(import)
                    />
                </label>
            </div>
        </Dialog>
    }
}
