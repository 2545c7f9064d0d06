//! The heat maps: one row a layer, one column a token or a head.

use leptos::prelude::*;
use tdb_api::{PatchDirection, PatchGroup, PatchedCell};

use super::state::Place;
use super::{Bench, Found};
use crate::format;
use crate::signals::{Memo, See, Signal};
use crate::ui::{CollectView, DivergingLegend, dynamic, fill_style, follows, press, sign_class, token_text};

const MAPS: [(PatchGroup, &str, &str); 4] = [
    (PatchGroup::Residual, "Residual stream before each layer", "map-residual"),
    (PatchGroup::Attention, "Attention layers", "map-attention"),
    (PatchGroup::Mlp, "MLP layers", "map-mlp"),
    (PatchGroup::Heads, "Heads, at all tokens", "map-heads"),
];

#[component]
pub fn Maps() -> impl IntoView {
    let bench = Bench::get();
    let most = Signal::derive(move || bench.maps.see(|maps| scale(maps).0));
    view! {
        <section class="stack" aria-label="Heat maps">
            <div class="row">
                <span class="quiet">
                    "1 is the whole difference between the two runs. Press a cell to open it; with Ctrl or Shift, to \
                        patch several at once."
                </span>
                <DivergingLegend most=most />
            </div>
            <div class="patch-maps">
                {MAPS.map(|(group, title, id)| view! { <Map group=group title=title id=id /> })}
            </div>
        </section>
    }
}

/// The largest value that colours stand for, and whether effects are shown rather than the metric.
fn scale(found: &Found) -> (f64, bool) {
    let divided = found.answer.runs.as_ref().is_none_or(|runs| runs.remark.is_none());
    match divided {
        true => (1.0, true),
        false => (found.answer.cells.values().map(|cell| cell.metric.abs()).fold(1e-9, f64::max), false),
    }
}

#[component]
fn Map(group: PatchGroup, title: &'static str, id: &'static str) -> impl IntoView {
    let bench = Bench::get();
    let cells = Memo::new(move |_| {
        bench
            .maps
            .see(|maps| maps.answer.cells.values().filter(|cell| cell.group == group).cloned().collect::<Vec<_>>())
    });
    let body = move || {
        let cells = cells.get();
        let (most, divided) = bench.maps.see(scale);
        let heads: Vec<AnyView> = match group {
            PatchGroup::Heads => {
                let n = cells.iter().filter_map(|cell| cell.unit).max().map_or(0, |n| n + 1);
                (0..n).map(|head| view! { <th scope="col">{head}</th> }.into_any()).collect()
            }
            _ => token_heads(bench),
        };
        let columns = heads.len() as i64;
        let layers = cells.iter().filter_map(|cell| cell.layer_index).max().map_or(0, |n| n + 1);
        // As in the model's pictures, later layers stand above earlier ones.
        let rows = (0..layers).rev().map(|layer| {
            let places = (0..columns).map(|at| Place { group, layer, at });
            let row = places.map(|place| match cells.iter().find(|cell| Place::of(cell) == Some(place)) {
                Some(cell) => cell_view(bench, place, cell, most, divided),
                None => view! { <td class="quiet"></td> }.into_any(),
            });
            view! { <tr><th scope="row">{layer}</th>{row.collect_view()}</tr> }
        });
        view! {
            <table class="heat" id=id>
                <thead><tr><td></td>{heads}</tr></thead>
                <tbody>{rows.collect_view()}</tbody>
            </table>
        }
    };
    view! {
        <section class="card" class:stale=follows(move || !bench.maps.see(|maps| maps.done || maps.problem.is_some()))>
            <div class="card-head"><h2>{title}</h2></div>
            <div class="card-body heat-scroll" tabindex="0" role="group" aria-label=title>{dynamic(body)}</div>
        </section>
    }
}

/// Two digits, with a sign only where there is something.
fn short(value: f64) -> String {
    let text = format!("{:.2}", value.abs());
    if value < 0.0 && text != "0.00" { format!("−{text}") } else { text }
}

/// The patched run's tokens.
fn token_heads(bench: Bench) -> Vec<AnyView> {
    let direction = bench.asked.see(|asked| asked.as_ref().map(|asked| asked.direction));
    let (mine, other) = bench.maps.see(|maps| {
        let runs = maps.answer.runs.clone();
        let (clean, corrupted) = runs.map(|runs| (runs.clean_tokens, runs.corrupted_tokens)).unwrap_or_default();
        match direction {
            Some(PatchDirection::Noising) => (clean, corrupted),
            _ => (corrupted, clean),
        }
    });
    let same_length = mine.len() == other.len();
    let head = |(i, token): (usize, &String)| {
        let differs = same_length && other.get(i) != Some(token);
        view! {
            <th scope="col" class="patch-token" class:differs=differs>
                <span class="token-plain">{token_text(token)}</span>
                <span class="token-index">{i}</span>
            </th>
        }
        .into_any()
    };
    mine.iter().enumerate().map(head).collect()
}

fn cell_view(bench: Bench, place: Place, cell: &PatchedCell, most: f64, divided: bool) -> AnyView {
    let value = cell.effect.filter(|_| divided).unwrap_or(cell.metric);
    let label = match cell.effect {
        Some(effect) => {
            format!("{}: effect {}, metric {}", place.label(), format::full(effect), format::full(cell.metric))
        }
        None => format!("{}: metric {}", place.label(), format::full(cell.metric)),
    };
    let is_chosen = move || bench.chosen.see(|chosen| chosen.contains(&place));
    let is_reached = move || bench.chosen.see(|chosen| matches!(chosen.as_slice(), [from] if from.reaches(place)));
    view! {
        <td class=format!("fill {}", sign_class(value)) class:reached=follows(is_reached) style=fill_style(value, most)>
            <button
                type="button"
                class="map-cell"
                class:chosen=follows(is_chosen)
                aria-pressed=follows(move || is_chosen().to_string())
                aria-label=label.clone()
                title=label
                data-group=place.group.as_str()
                data-layer=place.layer.to_string()
                data-at=place.at.to_string()
                data-value=format::full(value)
                on:click=press(move |e| bench.choose(place, e.ctrl_key() || e.shift_key() || e.meta_key()))
            >
                {short(value)}
            </button>
        </td>
    }
    .into_any()
}
