//! What the chosen cell consists of, each part patched alone, and paths from it; or several chosen cells patched
//! together.

use leptos::prelude::*;
use tdb_api::{AttentionTraceType, PatchGroup, PatchedCell};

use super::state::{OF_HEAD, Parts, PathEnd, Place};
use super::{Bench, Found};
use crate::format;
use crate::signals::See;
use crate::sorting::sort;
use crate::ui::{CollectView, choice, dynamic, entered, fill_style, follows, sign_class};

#[component]
pub fn Drill() -> impl IntoView {
    let bench = Bench::get();
    dynamic(move || {
        let chosen = bench.chosen.get();
        if chosen.is_empty() {
            return ().into_any();
        }
        let title = match chosen.as_slice() {
            [place] => format!("In the {}", place.label()),
            several => format!("{} cells patched together", several.len()),
        };
        let one = (chosen.len() == 1).then(|| chosen[0]);
        view! {
            <section class="card" id="drill" aria-label="The chosen cells">
                <div class="card-head">
                    <h2>{title}</h2>
                    {one.map(|place| view! { <span class="quiet">{dynamic(move || outcome(bench, place))}</span> })}
                    <span class="grow"></span>
                    {one.map(|place| latents(bench, place))}
                    {one.map(|place| paths(bench, place))}
                </div>
                <div class="card-body">{dynamic(move || body(bench, &chosen))}</div>
            </section>
        }
        .into_any()
    })
}

/// What patching the whole cell does.
fn outcome(bench: Bench, place: Place) -> Option<String> {
    let cell =
        bench.maps.see(|maps| maps.answer.cells.values().find(|cell| Place::of(cell) == Some(place)).cloned())?;
    let effect = cell.effect.map(|effect| format!(", effect {}", format::signed(effect))).unwrap_or_default();
    Some(format!("patched whole: metric {}{effect}", format::signed(cell.metric)))
}

/// The choice between a cell's heads or neurons and its latents.
fn latents(bench: Bench, place: Place) -> AnyView {
    let are_there = move || bench.parts.see(|parts| parts.has_latents(place));
    let is_on = move || bench.asked.see(|asked| asked.as_ref().is_some_and(|asked| asked.latents));
    dynamic(move || {
        are_there().then(|| {
            view! {
                <label class="check">
                    <input
                        type="checkbox"
                        id="open-into-latents"
                        prop:checked=follows(is_on)
                        on:change=entered(move |e| bench.open_into_latents(event_target_checked(&e)))
                    />
                    "Latents"
                </label>
            }
        })
    })
    .into_any()
}

/// The choice of a later layer's heads that paths from a cell lead to.
fn paths(bench: Bench, place: Place) -> AnyView {
    let end = move || bench.asked.see(|asked| asked.as_ref().and_then(|asked| asked.path_end));
    let through =
        [(AttentionTraceType::V, "values"), (AttentionTraceType::K, "keys"), (AttentionTraceType::Q, "queries")];
    let options = move || {
        let layers = bench.parts.see(|parts| parts.reached(place));
        let all = layers.flat_map(|layer| through.map(|(through, word)| (PathEnd { layer, through }, word)));
        all.map(|(to, word)| choice(to.word(), format!("{word} of layer {}", to.layer), move || end() == Some(to)))
            .collect_view()
    };
    let has_any = move || bench.parts.see(|parts| !parts.reached(place).is_empty());
    dynamic(move || {
        has_any().then(|| {
            view! {
                <label
                    class="check"
                    title="The change of what it writes reaches one head through this input, and nothing else"
                >
                    "Paths to the"
                    <select
                        id="paths"
                        class="field"
                        on:change=entered(move |e| bench.lead_to(PathEnd::parse(&event_target_value(&e))))
                    >
                        {choice("", "– no paths –", move || end().is_none())}
                        {options()}
                    </select>
                </label>
            }
        })
    })
    .into_any()
}

fn body(bench: Bench, chosen: &[Place]) -> AnyView {
    let found = bench.drilled.get();
    if let Some(problem) = found.problem {
        return view! { <p class="field-error">{problem.message}</p> }.into_any();
    }
    if found.answer.cells.is_empty() && !found.done {
        return view! { <span class="skeleton wide-skeleton"></span> }.into_any();
    }
    let asked = bench.asked.get().unwrap_or_default();
    let (end, names) = (asked.path_end, bench.parts.see(|parts| headings(chosen, parts, asked.latents)));
    let divided = found.answer.runs.as_ref().is_none_or(|runs| runs.remark.is_none());
    let most = if divided { 1.0 } else { found.answer.cells.values().map(|c| c.metric.abs()).fold(1e-9, f64::max) };
    let heading = |cell: &PatchedCell| match (cell.group, end) {
        (PatchGroup::Paths, Some(end)) => format!("Paths into {} of layer {}", end.through, end.layer),
        _ => names.get(usize::try_from(cell.index).unwrap_or(0)).copied().unwrap_or("Together").to_owned(),
    };
    let place = |name: &str| names.iter().position(|known| *known == name).unwrap_or(names.len());
    let mut order: Vec<String> = Vec::new();
    for cell in found.answer.cells.values() {
        let name = heading(cell);
        if !order.contains(&name) {
            let at = order.iter().position(|other| place(other) > place(&name)).unwrap_or(order.len());
            order.insert(at, name);
        }
    }
    order.into_iter().map(|name| group(&found, &name, &heading, divided, most)).collect_view().into_any()
}

/// The cells below one heading, the largest effects first.
fn group(found: &Found, name: &str, heading: &dyn Fn(&PatchedCell) -> String, divided: bool, most: f64) -> AnyView {
    let mut cells: Vec<&PatchedCell> = found.answer.cells.values().filter(|cell| heading(cell) == name).collect();
    sort(&mut cells, |a, b| shown(b, divided).abs().total_cmp(&shown(a, divided).abs()));
    let row = |cell: &PatchedCell| {
        let value = shown(cell, divided);
        let unit = match cell.group {
            PatchGroup::Units | PatchGroup::Paths => {
                cell.unit.map(|unit| format!("{}:{unit}", cell.layer_index.unwrap_or(0)))
            }
            _ => None,
        };
        view! {
            <tr>
                <th scope="row">{unit.unwrap_or_else(|| "all".to_owned())}</th>
                <td
                    class=format!("num fill {}", sign_class(value))
                    style=fill_style(value, most)
                    title=format!("metric {}", format::full(cell.metric))
                    data-value=format::full(value)
                    data-group=cell.group.as_str()
                >
                    {format::signed(value)}
                </td>
            </tr>
        }
    };
    let rows = cells.into_iter().map(row).collect_view();
    view! {
        <div class="drill-group">
            <h3>{name.to_owned()}</h3>
            <table>{rows}</table>
        </div>
    }
    .into_any()
}

fn shown(cell: &PatchedCell, divided: bool) -> f64 {
    cell.effect.filter(|_| divided).unwrap_or(cell.metric)
}

/// Headings of what was asked about the chosen cells, in the order of the question.
fn headings(chosen: &[Place], parts: &Parts, latents: bool) -> Vec<&'static str> {
    match chosen {
        [place] if place.group == PatchGroup::Heads => OF_HEAD.map(|(_, heading)| heading).to_vec(),
        [place] => parts.units(*place, latents).into_iter().map(|(_, heading)| heading).collect(),
        _ => vec!["Together"],
    }
}
