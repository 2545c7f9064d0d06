//! The logit lens of both runs, one above the other. A cell dragged onto the other run puts its residual stream there.

use std::fmt::Write as _;

use leptos::prelude::*;
use tdb_api::routes::LogitLens as Route;
use tdb_api::{LogitLensRequest, LogitLensResponse, PatchDirection, PatchGroup, PatchMetric, TokenRef};

use super::Bench;
use super::state::{Asked, Place};
use crate::dom;
use crate::format;
use crate::remote::{Remote, follow};
use crate::signals::{Memo, RwSignal, See};
use crate::tdb::logit_lens::end_with_tokens;
use crate::ui::{ProblemCard, dragged, dynamic, press};

/// Tokens at the end of a prompt that are shown: each costs an unembedding in each layer.
const LAST: i64 = 40;

/// A residual stream of one of the runs: before which layer, at which token.
type Cell = (bool, i64, i64);

/// What is marked in a grid.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mark {
    Nothing,
    /// A cell of the other run is dragged: it belongs into this row, best at this token, and reaches what is above.
    Here(Place),
    /// A patch stands at this cell.
    Patched(Place),
}

#[component]
pub fn Lenses() -> impl IntoView {
    let held = RwSignal::new(None::<Cell>);
    view! {
        <section class="card" id="lenses" aria-label="Logit lens of both runs">
            <div class="card-head"><h2>"Logit lens of both runs"</h2></div>
            <div class="card-body stack">
                <p class="quiet small-text">
                    "What the residual stream before each layer would predict if the layers above did nothing. Drag a \
                        cell onto the other run to put its residual stream there, at the same layer and any token; or \
                        press it, for the token that stands for its own. What the patch can reach is shaded."
                </p>
                <Grid clean=true held=held />
                <Grid clean=false held=held />
            </div>
        </section>
    }
    .into_any()
}

#[component]
fn Grid(clean: bool, held: RwSignal<Option<Cell>>) -> impl IntoView {
    let bench = Bench::get();
    let (state, again) =
        follow::<Route>(move || bench.asked.see(|asked| asked.as_ref().map(|asked| request(asked, clean))));
    // The grid that is dragged from does not change meanwhile, which would end the dragging.
    let mark = Memo::new(move |_| match held.get() {
        Some((of_clean, layer, at)) if of_clean != clean => {
            let at = partner(bench, clean, at).unwrap_or(at);
            Mark::Here(Place { group: PatchGroup::Residual, layer, at })
        }
        _ => patched(bench, clean),
    });
    let drop = move |target: Cell| {
        if let Some((of_clean, layer, at)) = held.get_untracked()
            && of_clean != clean
            && target.1 == layer
        {
            bench.put(of_clean, layer, at, target.2);
        }
        held.set(None);
    };
    let over = move |event: web_sys::DragEvent| {
        let fits = |(of, layer, _): Cell| held.get_untracked().is_some_and(|h| h.0 != of && h.1 == layer);
        if cell_at(&event).is_some_and(fits) {
            event.prevent_default();
        }
    };
    let pressed = move |event: web_sys::MouseEvent| {
        if let Some((_, layer, at)) = cell_at(&event)
            && let Some(target) = partner(bench, !clean, at)
        {
            bench.put(clean, layer, at, target);
        }
    };
    let id = if clean { "lens-clean" } else { "lens-corrupted" };
    let title = if clean { "Clean run" } else { "Corrupted run" };
    view! {
        <h3>{title}</h3>
        {dynamic(move || match state.get() {
            Remote::Ready(lens) => view! {
                <div
                    class="heat-scroll"
                    id=id
                    tabindex="0"
                    role="group"
                    aria-label=title
                    inner_html=move || draw(&lens, clean, mark.get())
                    on:dragstart=dragged(move |e| held.set(cell_at(&e)))
                    on:dragover=dragged(over)
                    on:drop=dragged(move |e| { e.prevent_default(); cell_at(&e).into_iter().for_each(drop) })
                    on:dragend=dragged(move |_| held.set(None))
                    on:click=press(pressed)
                ></div>
            }
            .into_any(),
            Remote::Failed(problem) => view! { <ProblemCard problem=problem retry=again /> }.into_any(),
            _ => view! { <div class="skeleton tall-skeleton"></div> }.into_any(),
        })}
    }
}

fn request(asked: &Asked, clean: bool) -> LogitLensRequest {
    let token =
        |text: &str| -> Vec<TokenRef> { (!text.is_empty()).then(|| TokenRef::from(text)).into_iter().collect() };
    let has_tokens = asked.metric != PatchMetric::KlDivergence;
    let tokens = |text: &str| if has_tokens { token(text) } else { Vec::new() };
    LogitLensRequest {
        prompt: if clean { asked.clean.clone() } else { asked.corrupted.clone() },
        target_tokens: tokens(&asked.target),
        distractor_tokens: tokens(&asked.distractor),
        node_ablations: None,
        last_tokens: Some(LAST),
    }
}

/// The token of the clean run (or of the corrupted one) that stands for a token of the other.
fn partner(bench: Bench, clean: bool, of: i64) -> Option<i64> {
    bench.maps.see(|maps| {
        let pairs = &maps.answer.runs.as_ref()?.alignment;
        let pair = pairs.iter().find(|pair| of == if clean { pair.corrupted } else { pair.clean })?;
        Some(if clean { pair.clean } else { pair.corrupted })
    })
}

/// The patch in this run, if the chosen cell is one.
fn patched(bench: Bench, clean: bool) -> Mark {
    let direction = bench.asked.see(|asked| asked.as_ref().map(|asked| asked.direction));
    let is_here = direction == Some(if clean { PatchDirection::Noising } else { PatchDirection::Denoising });
    bench.chosen.see(|chosen| match chosen.as_slice() {
        [place] if is_here && place.group != PatchGroup::Heads => Mark::Patched(*place),
        _ => Mark::Nothing,
    })
}

/// The cell that an event is about.
fn cell_at(event: &web_sys::Event) -> Option<Cell> {
    let cell = dom::closest(event, "[data-cell]")?.get_attribute("data-cell")?;
    let mut parts = cell.split('.');
    let clean = parts.next()? == "clean";
    Some((clean, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn draw(lens: &LogitLensResponse, clean: bool, mark: Mark) -> String {
    let run = if clean { "clean" } else { "corrupted" };
    let mut out = String::from("<table class=\"lens-grid\"><tbody>");
    for row in lens.layers.iter().rev() {
        let layer = row.layer.map_or(0, |layer| layer + 1);
        let is_output = layer == lens.layers.len() as i64 - 1;
        let name = if is_output { "output".to_owned() } else { format!("before L{layer}") };
        let _ = write!(out, "<tr><th scope=\"row\">{name}</th>");
        for (i, cell) in row.cells.iter().enumerate() {
            let place = Place { group: PatchGroup::Residual, layer, at: lens.first_token + i as i64 };
            let title = format!("{} {}", format::quoted(&cell.top), format::percent(cell.probability));
            let text = format::html(&cell.top.replace(' ', "·"));
            let _ = write!(
                out,
                "<td class=\"fill seq{}\" style=\"--v:{:.3}\" title=\"{}\">",
                class_of(place, mark),
                cell.probability,
                format::html(&title)
            );
            // What the model predicts is read by no layer.
            let _ = match is_output {
                true => write!(out, "{text}</td>"),
                false => write!(
                    out,
                    "<button type=\"button\" class=\"lens-cell\" draggable=\"true\" \
                     data-cell=\"{run}.{layer}.{}\">{text}</button></td>",
                    place.at
                ),
            };
        }
        out.push_str("</tr>");
    }
    end_with_tokens(&mut out, lens);
    out
}

fn class_of(place: Place, mark: Mark) -> &'static str {
    match mark {
        Mark::Patched(patch) | Mark::Here(patch) if patch == place => " put",
        Mark::Patched(patch) | Mark::Here(patch) if patch.reaches(place) => " reached",
        Mark::Here(patch) if patch.layer == place.layer => " fits",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dragged_cell_fits_and_reaches_is_marked() {
        let at = |layer, at| Place { group: PatchGroup::Residual, layer, at };
        let here = Mark::Here(at(1, 5));
        assert_eq!(class_of(at(1, 5), here), " put");
        assert_eq!(class_of(at(1, 2), here), " fits");
        assert_eq!(class_of(at(2, 6), here), " reached");
        assert_eq!(class_of(at(2, 4), here), "");
        assert_eq!(class_of(at(1, 2), Mark::Patched(at(1, 5))), "", "only what is dragged can still be put elsewhere");
    }
}
