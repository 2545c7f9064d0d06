//! The JSON behind a card, as a tree that opens branch by branch.

use std::sync::Arc;

use leptos::prelude::*;
use serde_json::Value;

use super::CollectView;
use super::button;
use super::dynamic;
use super::press;
use super::{Dialog, Notices};
use crate::dom;
use crate::json::Json;
use crate::signals::RwSignal;
use crate::tasks::spawn;

/// Arrays are shown in pieces of this many, so that opening a long one stays quick.
const PIECE: usize = 100;

/// A button that shows the JSON that `value` gives when it is pressed.
#[component]
pub fn JsonButton(
    /// What the JSON belongs to, for people who cannot see where the button stands.
    what: &'static str,
    value: Callback<(), Json>,
) -> impl IntoView {
    let open = RwSignal::new(false);
    let shown = RwSignal::new(Arc::new(Json::default()));
    let notices = Notices::get();
    let show = move |_| {
        shown.set(Arc::new(value.run(())));
        open.set(true);
    };
    let text = move || shown.get_untracked().pretty();
    let copy = move |_| {
        spawn(async move {
            let done = dom::copy(&text()).await;
            notices.say(if done { "JSON copied." } else { "The browser did not allow copying." });
        })
    };
    let save = move |_| {
        dom::download("tdb.json", "application/json", &text());
    };
    view! {
        <button
            type="button"
            class="button plain small"
            aria-label=format!("Show the JSON of {what}")
            title=format!("Show the JSON of {what}")
            on:click=press(show)
        >
            "JSON"
        </button>
        <Dialog open=open title=format!("JSON of {what}")>
            <div class="row">
                {button("button small", "Copy", copy)}
                {button("button small", "Save as a file", save)}
            </div>
            {dynamic(move || view! { <JsonTree json=shown.get() /> })}
        </Dialog>
    }
}

#[component]
fn JsonTree(json: Arc<Json>) -> impl IntoView {
    view! { <div class="json">{branch(String::new(), json, Vec::new(), 0)}</div> }
}

/// One value below `path` (keys and positions from the root). Children exist only while their branch is open.
fn branch(label: String, root: Arc<Json>, path: Vec<Step>, depth: usize) -> AnyView {
    let Some(value) = find(root.value(), &path) else { return ().into_any() };
    let key = (!label.is_empty()).then(|| view! { <span class="key">{label.clone()}": "</span> });
    let children = match value {
        Value::Array(items) if !items.is_empty() => pieces(items.len(), &path),
        Value::Object(map) if !map.is_empty() => {
            map.keys().map(|k| (k.clone(), [path.as_slice(), &[Step::Key(k.clone())]].concat())).collect()
        }
        other => return view! { <div class="leaf">{key}{other.to_string()}</div> }.into_any(),
    };
    let count = match value {
        Value::Array(items) => format!("[{}]", items.len()),
        _ => format!("{{{}}}", children.len()),
    };
    let open = RwSignal::new(depth < 2);
    view! {
        <details
            open=depth < 2
            on:toggle=move |e| open.set(event_target::<web_sys::HtmlElement>(&e).has_attribute("open"))
        >
            <summary>{key}<span class="count">{count}</span></summary>
            {dynamic(move || {
                let child = |(label, path): &(String, Vec<Step>)| {
                    branch(label.clone(), root.clone(), path.clone(), depth + 1)
                };
                open.get().then(|| children.iter().map(child).collect_view())
            })}
        </details>
    }
    .into_any()
}

#[derive(Clone)]
enum Step {
    Key(String),
    At(usize),
}

fn pieces(len: usize, path: &[Step]) -> Vec<(String, Vec<Step>)> {
    // Beyond the first piece one must save or copy: a tree of ten thousand lines helps nobody.
    (0..len.min(PIECE)).map(|i| (i.to_string(), [path, &[Step::At(i)]].concat())).collect()
}

fn find<'a>(root: &'a Value, path: &[Step]) -> Option<&'a Value> {
    path.iter().try_fold(root, |value, step| match step {
        Step::Key(key) => value.get(key),
        Step::At(i) => value.get(i),
    })
}
