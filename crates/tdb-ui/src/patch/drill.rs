//! What the chosen cell consists of, each part patched alone; or several chosen cells patched together.

use leptos::prelude::*;
use tdb_api::{PatchGroup, PatchedCell};

use super::Bench;
use super::state::Place;
use crate::format;
use crate::ui::{fill_style, sign_class};

#[component]
pub fn Drill() -> impl IntoView {
    let bench = Bench::get();
    move || {
        let chosen = bench.chosen.get();
        if chosen.is_empty() {
            return ().into_any();
        }
        let title = match chosen.as_slice() {
            [place] => format!("In the {}", place.label()),
            several => format!("{} cells patched together", several.len()),
        };
        view! {
            <section class="card" id="drill" aria-label="The chosen cells">
                <div class="card-head"><h2>{title}</h2></div>
                <div class="card-body">{move || body(bench, &chosen)}</div>
            </section>
        }
        .into_any()
    }
}

fn body(bench: Bench, chosen: &[Place]) -> AnyView {
    let found = bench.drilled.get();
    if let Some(problem) = found.problem {
        return view! { <p class="field-error">{problem.message}</p> }.into_any();
    }
    if found.cells.is_empty() && !found.done {
        return view! { <span class="skeleton wide-skeleton"></span> }.into_any();
    }
    let divided = found.runs.as_ref().is_none_or(|runs| runs.remark.is_none());
    let names = names(chosen);
    let mut groups: Vec<(String, Vec<PatchedCell>)> = Vec::new();
    for cell in found.cells {
        let name = names.get(usize::try_from(cell.index).unwrap_or(0)).copied().unwrap_or("Together").to_owned();
        match groups.iter_mut().find(|(known, _)| *known == name) {
            Some((_, cells)) => cells.push(cell),
            None => groups.push((name, vec![cell])),
        }
    }
    groups.sort_by_key(|(name, _)| names.iter().position(|known| known == name));
    let most =
        if divided { 1.0 } else { groups.iter().flat_map(|(_, c)| c).map(|c| c.metric.abs()).fold(1e-9, f64::max) };
    groups
        .into_iter()
        .map(|(name, mut cells)| {
            cells.sort_by(|a, b| shown(b, divided).abs().total_cmp(&shown(a, divided).abs()));
            let row = |cell: PatchedCell| {
                let value = shown(&cell, divided);
                let unit = match cell.group {
                    PatchGroup::Units => cell.unit.map(|unit| format!("{}:{unit}", cell.layer_index.unwrap_or(0))),
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
                        >
                            {format::signed(value)}
                        </td>
                    </tr>
                }
            };
            view! {
                <div class="drill-group">
                    <h3>{name}</h3>
                    <table>{cells.into_iter().map(row).collect_view()}</table>
                </div>
            }
        })
        .collect_view()
        .into_any()
}

fn shown(cell: &PatchedCell, divided: bool) -> f64 {
    cell.effect.filter(|_| divided).unwrap_or(cell.metric)
}

/// Headings of what was asked about the chosen cells, in the order of the question.
fn names(chosen: &[Place]) -> Vec<&'static str> {
    match chosen {
        [place] => match place.group {
            PatchGroup::Attention => vec!["Heads", "Queries", "Keys", "Values"],
            PatchGroup::Mlp => vec!["Neurons"],
            PatchGroup::Residual => vec!["Heads of the layer", "Neurons of the layer"],
            _ => vec!["Output", "Query", "Key", "Value"],
        },
        _ => vec!["Together"],
    }
}
