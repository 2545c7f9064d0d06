//! The patch bench: two prompts, and what happens when activations of one run are put into the other.

mod drill;
mod form;
mod lens;
mod maps;
mod state;

use leptos::prelude::*;
use tdb_api::page::{PageState, pairs_as_text};
use tdb_api::routes::PatchStream;
use tdb_api::stream::{FoldEvents, PatchFold};
use tdb_api::{Check, PatchGroup, PatchRequest, PatchRuns, PatchedCell, TokenRef};

use crate::client::{self, Abort, Kind, Problem};
use crate::context::{expect_context, provide_context};
use crate::dom::{self, set_title};
use crate::format;
use crate::json::Json;
use crate::server::Server;
use crate::signals::{Change, Memo, RwSignal, See, Signal};
use crate::tasks::spawn;
use crate::ui::{JsonButton, Ledger, Notices, ProblemCard, button, dynamic, follows, press};
use state::{Asked, Parts, PathEnd, Place};

/// Milliseconds between two drawings of what has come.
const DRAWN_EVERY: f64 = 150.0;

/// What one request has been answered so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    pub answer: PatchFold,
    pub problem: Option<Problem>,
    /// Whether all has come.
    pub done: bool,
}

/// The page's state: what is asked, what was answered, what is chosen.
#[derive(Clone, Copy)]
pub struct Bench {
    /// As it stands in the form.
    pub draft: RwSignal<Asked>,
    /// As it was asked.
    pub asked: RwSignal<Option<Asked>>,
    /// The heat maps.
    pub maps: RwSignal<Found>,
    /// What the chosen cells contain.
    pub drilled: RwSignal<Found>,
    /// The chosen cells; one opens its parts, several are patched together.
    pub chosen: RwSignal<Vec<Place>>,
    /// What the model has.
    pub parts: Memo<Parts>,
    past: RwSignal<Vec<(Asked, Vec<Place>)>>,
    path: StoredValue<String>,
    aborts: [StoredValue<Option<Abort>, LocalStorage>; 2],
    ids: [StoredValue<u32>; 2],
}

impl Bench {
    pub fn get() -> Self {
        expect_context()
    }

    /// Asks for the heat maps of what stands in the form.
    pub fn run(self) {
        self.remember();
        self.show(self.draft.get_untracked(), Vec::new());
    }

    /// Chooses a cell; with `together`, besides those that are chosen.
    pub fn choose(self, place: Place, together: bool) {
        let mut chosen = self.chosen.get_untracked();
        match (together, chosen.iter().position(|p| *p == place)) {
            (true, Some(at)) => {
                chosen.remove(at);
            }
            (true, None) => chosen.push(place),
            (false, Some(_)) if chosen.len() == 1 => chosen.clear(),
            (false, _) => chosen = vec![place],
        }
        self.change(|asked| asked.clone(), chosen);
    }

    /// Puts the residual stream before a layer of one run, at token `source`, into the other run at token `target`.
    pub fn put(self, from_clean: bool, layer: i64, source: i64, target: i64) {
        let aligned =
            self.maps.see(|maps| maps.answer.runs.as_ref().map(|runs| runs.alignment.clone()).unwrap_or_default());
        let place = Place { group: PatchGroup::Residual, layer, at: target };
        self.change(|asked| asked.put(from_clean, source, target, &aligned), vec![place]);
    }

    /// Asks for the paths from the chosen cell to the heads of a layer.
    pub fn lead_to(self, end: Option<PathEnd>) {
        let chosen = self.chosen.get_untracked();
        self.change(|asked| Asked { path_end: end, ..asked.clone() }, chosen);
    }

    /// Opens cells into latents, or into heads and neurons.
    pub fn open_into_latents(self, latents: bool) {
        let chosen = self.chosen.get_untracked();
        self.change(|asked| Asked { latents, ..asked.clone() }, chosen);
    }

    /// A step from what is shown to something else.
    fn change(self, change: impl FnOnce(&Asked) -> Asked, chosen: Vec<Place>) {
        if let Some(asked) = self.asked.get_untracked() {
            self.remember();
            self.show(change(&asked), chosen);
        }
    }

    /// Shows a state. The heat maps are asked for if they are of another question.
    fn show(self, asked: Asked, chosen: Vec<Place>) {
        let before = self.asked.get_untracked().map(|asked| asked.request());
        let request = asked.request();
        if before.as_ref() != Some(&request) || self.maps.see(|maps| maps.problem.is_some()) {
            self.draft.set(asked.clone());
            self.ask(0, request, self.maps);
        }
        self.draft.change(|draft| (draft.path_end, draft.latents) = (asked.path_end, asked.latents));
        self.asked.set(Some(asked));
        self.chosen.set(chosen);
        self.write_url(true);
        self.drill();
    }

    fn drill(self) {
        self.drilled.set(Found::default());
        let (Some(asked), parts) = (self.asked.get_untracked(), self.parts.get_untracked()) else { return };
        if parts == Parts::default() {
            return;
        }
        if let Some(request) = asked.drill(&self.chosen.get_untracked(), &parts) {
            self.ask(1, request, self.drilled);
        }
    }

    fn ask(self, which: usize, request: PatchRequest, into: RwSignal<Found>) {
        let (abort, id) = (self.aborts[which], self.ids[which]);
        let mine = id.get_value() + 1;
        id.set_value(mine);
        abort.set_value(Abort::new());
        let signal = abort.with_value(|a| a.as_ref().map(Abort::signal));
        let runs = into.get_untracked().answer.runs;
        into.set(Found { answer: PatchFold { runs, ..PatchFold::default() }, ..Found::default() });
        spawn(async move {
            let mut so_far = Found::default();
            let mut drawn = dom::now();
            let is_present = || id.try_get_value() == Some(mine);
            let outcome = client::stream::<PatchStream>(&request, signal, |event| {
                if let Err(error) = so_far.answer.add(event) {
                    so_far.problem = Some(Problem::not_added_up(error));
                }
                let now = dom::now();
                if now - drawn > DRAWN_EVERY && is_present() {
                    drawn = now;
                    into.set(so_far.clone());
                }
            })
            .await;
            if !is_present() {
                return;
            }
            match outcome {
                Err(problem) if problem.kind == Kind::Aborted => return,
                Err(problem) => so_far.problem = Some(problem),
                Ok(()) => so_far.done = true,
            }
            into.set(so_far);
        });
    }

    fn remember(self) {
        if let Some(asked) = self.asked.get_untracked() {
            self.past.change(|past| past.push((asked, self.chosen.get_untracked())));
        }
    }

    /// Back to the state before the last step.
    pub fn undo(self) {
        if let Some((asked, chosen)) = self.past.try_update(Vec::pop).flatten() {
            self.show(asked, chosen);
        }
    }

    pub fn can_undo(self) -> bool {
        self.past.see(|past| !past.is_empty())
    }

    /// The address of what is shown.
    pub fn url(self) -> String {
        let asked = self.asked.get_untracked().unwrap_or_else(|| self.draft.get_untracked());
        format!("{}?{}", self.path.get_value(), asked.to_query(&self.chosen.get_untracked()))
    }

    fn write_url(self, push: bool) {
        let (path, query) = dom::location();
        let url = self.url();
        if path == self.path.get_value() && format!("{path}{query}") != url {
            dom::set_url(&url, push);
        }
    }
}

/// The address of the bench for a question: the right prompt is the corrupted one, or else one with the tokens
/// exchanged.
pub fn address(slug: &str, page: &PageState, lens: Option<[usize; 2]>) -> String {
    let first = |tokens: &[TokenRef]| tokens.first().map(|token| token.text().to_owned()).unwrap_or_default();
    let mut asked = Asked {
        clean: page.left.prompt.clone(),
        target: first(&page.left.target_tokens),
        distractor: first(&page.left.distractor_tokens),
        ..Asked::default()
    };
    let other = page.right.as_ref().map(|right| right.prompt.clone()).or_else(|| asked.swapped());
    asked.corrupted = other.unwrap_or_else(|| asked.clean.clone());
    if let Some(pairs) = lens.and_then(|lens| page.pairs(lens)) {
        asked.alignment = pairs_as_text(&pairs);
    }
    format!("/{slug}/patch?{}", asked.to_query(&[]))
}

#[component]
pub fn PatchPage(slug: String) -> impl IntoView {
    set_title(&format!("{slug}: patch bench"));
    let (path, query) = dom::location();
    let (draft, chosen) = Asked::from_query(&query);
    let server = Server::get();
    let bench = Bench {
        draft: RwSignal::new(draft.clone()),
        asked: RwSignal::new(None),
        maps: RwSignal::default(),
        drilled: RwSignal::default(),
        chosen: RwSignal::new(Vec::new()),
        parts: Memo::new(move |_| server.facts.see(|facts| facts.as_ref().map(Parts::of).unwrap_or_default())),
        past: RwSignal::default(),
        path: StoredValue::new(path),
        aborts: [StoredValue::new_local(None), StoredValue::new_local(None)],
        ids: [StoredValue::new(0), StoredValue::new(0)],
    };
    provide_context(bench);
    bench.show(draft, chosen);
    // What a cell consists of is asked when it is known what the model has.
    Effect::new(move |before: Option<Parts>| {
        let parts = bench.parts.get();
        if before.is_some_and(|before| before != parts) {
            bench.drill();
        }
        parts
    });
    let listener = window_event_listener(leptos::ev::popstate, move |_| {
        let (path, query) = dom::location();
        if path == bench.path.get_value() {
            let (asked, chosen) = Asked::from_query(&query);
            bench.show(asked, chosen);
        }
    });
    on_cleanup(move || listener.remove());
    let retry = Callback::new(move |()| bench.run());
    view! {
        <div class="page stack patch-page">
            <h1>"Patch bench"</h1>
            <p class="quiet">
                "Two prompts that the model answers differently. Each cell is a run of one prompt with an activation \
                    of the other's run in its place: where does that restore the answer, or break it?"
            </p>
            <form::Form />
            {dynamic(move || bench.maps.see(|maps| maps.problem.clone()).map(|problem| view! {
                <ProblemCard problem=problem retry=retry />
            }))}
            <Runs />
            <maps::Maps />
            <drill::Drill />
            <lens::Lenses />
        </div>
    }
}

/// The two runs in numbers, the checks, and ways to hand the result on.
#[component]
fn Runs() -> impl IntoView {
    let bench = Bench::get();
    let notices = Notices::get();
    let copy = move |_| {
        let link = format!("{}{}", dom::origin(), bench.url());
        spawn(async move {
            let done = dom::copy(&link).await;
            notices.say(if done { "Link copied." } else { "The browser did not allow copying." });
        });
    };
    let json = Callback::new(move |()| bench.export());
    let checks = Signal::derive(move || bench.maps.see(|maps| maps.answer.told.checks.clone()));
    view! {
        <section class="row" id="patch-runs" aria-label="The two runs">
            {dynamic(move || bench.maps.see(figures))}
            <span class="grow"></span>
            <button
                type="button"
                class="button small"
                id="undo"
                disabled=follows(move || !bench.can_undo())
                on:click=press(move |_| bench.undo())
            >
                "Undo"
            </button>
            {button("button small", "Copy link", copy)}
            <JsonButton what="the patches" value=json />
        </section>
        <Ledger checks=checks />
    }
}

fn figures(maps: &Found) -> AnyView {
    let progress = match (&maps.answer.told.price, maps.done, &maps.problem) {
        (Some(price), false, None) => {
            Some(format!("{} of {} runs, about {:.1} s", maps.answer.cells.len(), price.runs, price.seconds))
        }
        _ => None,
    };
    let figure = |name: &'static str, value: f64| {
        view! {
            <span class="figure" title=format::full(value)>
                {name}" "<strong data-figure=name data-value=format::full(value)>{format::signed(value)}</strong>
            </span>
        }
    };
    view! {
        {maps.answer.runs.as_ref().map(|runs| view! {
            {figure("clean", runs.clean)}
            {figure("corrupted", runs.corrupted)}
            {figure("denominator", runs.denominator)}
            {runs.remark.clone().map(|remark| view! { <span class="field-warning" id="remark">{remark}</span> })}
        })}
        <span class="quiet" aria-live="polite">{progress}</span>
    }
    .into_any()
}

impl Bench {
    /// What is shown, with the request and the address that ask it again.
    fn export(self) -> Json {
        #[derive(serde::Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Export {
            link: String,
            request: Option<PatchRequest>,
            runs: Option<PatchRuns>,
            cells: Vec<PatchedCell>,
            chosen: Vec<PatchedCell>,
            checks: Vec<Check>,
        }
        let cells = |found: RwSignal<Found>| found.get_untracked().answer.cells.into_values().collect();
        let maps = self.maps.get_untracked().answer;
        Json::of(&Export {
            link: format!("{}{}", dom::origin(), self.url()),
            request: self.asked.get_untracked().map(|asked| asked.request()),
            runs: maps.runs,
            cells: cells(self.maps),
            chosen: cells(self.drilled),
            checks: maps.told.checks,
        })
    }
}
