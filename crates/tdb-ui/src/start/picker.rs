//! One picker for the nodes of all data sets.

use leptos::prelude::*;
use tdb_api::NeuronDatasetMetadata;
use tdb_api::page::NodePageKind;
use tdb_api::routes::NeuronDatasetsMetadata;

use crate::address::Address;
use crate::client::capital;
use crate::names::node_path;
use crate::remote::{Remote, follow};
use crate::server::Server;
use crate::signals::{Memo, Peek, RwSignal, See};
use crate::sorting::sort;
use crate::ui::{CollectView, ProblemCard, dynamic, entered, follows, number_field, sent};

#[derive(Clone, PartialEq)]
struct Dataset {
    slug: String,
    name: String,
    kind: NodePageKind,
}

#[component]
pub fn Picker() -> impl IntoView {
    let server = Server::get();
    let (state, again) = follow::<NeuronDatasetsMetadata>(|| Some(()));
    let chosen = RwSignal::new(0usize);
    let layer = RwSignal::new("0".to_owned());
    let unit = RwSignal::new("0".to_owned());
    let here = Address::get();
    let datasets = Memo::new(move |_| {
        let mut all: Vec<Dataset> = match state.get() {
            Remote::Ready(sets) => sets.iter().filter_map(read).collect(),
            _ => Vec::new(),
        };
        // The present model's nodes come first, and can be looked at even where no examples are stored.
        let mut own: Vec<Dataset> = Vec::new();
        if let Some(facts) = server.facts.get()
            && let Some(slug) = facts.slug()
        {
            for kind in NodePageKind::ALL {
                let (_, units) = facts.extent(kind.node_type);
                let known = all.iter().any(|d| d.slug == slug.to_string() && d.kind == kind);
                if units.is_some() && !known {
                    let name = format!("{} of {}", crate::names::type_label(kind.node_type), slug.model);
                    own.push(Dataset { slug: slug.to_string(), name, kind });
                }
            }
        }
        if let Some(model) = server.facts.get().and_then(|f| f.slug()).map(|s| s.model) {
            let is_other = |d: &Dataset| d.slug.split('_').next() != Some(model.as_str());
            sort(&mut all, |a, b| is_other(a).cmp(&is_other(b)));
        }
        own.append(&mut all);
        own
    });
    let check = move || -> Result<(i64, i64), String> {
        let dataset = datasets.see(|d| d.get(chosen.get()).cloned()).ok_or("No data set.")?;
        let own = server
            .facts
            .get()
            .filter(|f| f.slug().is_some_and(|s| s.model == dataset.slug.split('_').next().unwrap_or_default()));
        let (layers, units) = own.map_or((None, None), |f| f.extent(dataset.kind.node_type));
        Ok((number(&layer.get(), layers, "layer")?, number(&unit.get(), units, "index")?))
    };
    let hint = move || {
        let dataset = datasets.see(|d| d.get(chosen.get()).cloned())?;
        let facts = server.facts.get()?;
        match facts.extent(dataset.kind.node_type) {
            (Some(l), Some(u)) if facts.slug().is_some_and(|s| dataset.slug.starts_with(&s.model)) => {
                Some(format!("layers 0–{}, indices 0–{}", l - 1, u - 1))
            }
            _ => None,
        }
    };
    let go = move |event: web_sys::SubmitEvent| {
        event.prevent_default();
        let (Some(dataset), Ok((l, u))) = (datasets.peek(|d| d.get(chosen.get_untracked()).cloned()), untrack(check))
        else {
            return;
        };
        here.go(&node_path(&dataset.slug, dataset.kind.node_type, l, u));
    };
    let field = |label, id, text| number_field(label, id, "numeric", text);
    view! {
        {dynamic(move || match state.get() {
            Remote::Failed(problem) if !problem.is_missing_route() => view! {
                <ProblemCard problem=problem retry=again />
            }.into_any(),
            _ => ().into_any(),
        })}
        <form class="picker" on:submit=sent(go)>
            <label class="stack tight grow">
                <span class="label">"Data set"</span>
                <select
                    class="field"
                    id="dataset"
                    on:change=entered(move |e| chosen.set(event_target_value(&e).parse().unwrap_or_default()))
                >
                    {dynamic(move || datasets.get().into_iter().enumerate().map(|(i, d)| view! {
                        <option value=i.to_string()>{d.name}</option>
                    }).collect_view())}
                </select>
            </label>
            {field("Layer", "pick-layer", layer)}
            {field("Index", "pick-index", unit)}
            <button class="button primary" type="submit" id="pick" disabled=follows(move || check().is_err())>
                "Open"
            </button>
        </form>
        <p class="small-text" aria-live="polite">
            {dynamic(move || match check() {
                Err(message) if !datasets.see(Vec::is_empty) => view! {
                    <span class="field-error">{message}</span>
                }.into_any(),
                _ => view! { <span class="quiet">{hint()}</span> }.into_any(),
            })}
        </p>
    }
}

fn read(set: &NeuronDatasetMetadata) -> Option<Dataset> {
    let kind = NodePageKind::of_records(&set.derived_scalar_type)?;
    Some(Dataset { slug: set.short_name.clone(), name: set.user_visible_name.clone(), kind })
}

fn number(text: &str, limit: Option<i64>, what: &str) -> Result<i64, String> {
    match (text.trim().parse::<i64>(), limit) {
        (Ok(n), None) if n >= 0 => Ok(n),
        (Ok(n), Some(limit)) if (0..limit).contains(&n) => Ok(n),
        (_, Some(limit)) => Err(format!("{} must be 0–{}.", capital(what), limit - 1)),
        _ => Err(format!("{} must be a whole number, 0 or more.", capital(what))),
    }
}
