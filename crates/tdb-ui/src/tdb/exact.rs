//! Exact effects of the nodes in the table: asked for after the estimates have come, and shown in the same rows.

use leptos::prelude::*;
use tdb_api::page::ModelSlug;
use tdb_api::routes::EffectsStream;
use tdb_api::stream::{EffectsFold, FoldEvents};
use tdb_api::{AblateTo, Check, EffectsRequest, NodeEffect, NodeIndex, NodeType};

use super::Slug;
use crate::answer::{Answer, Compared};
use crate::client::{self, Abort, Kind, Problem};
use crate::context::{expect_context, provide_context};
use crate::dom;
use crate::format;
use crate::session::Session;
use crate::signals::{Memo, Peek, RwSignal, See, Signal, effect};
use crate::tasks::spawn;
use crate::ui::{CollectView, Ledger, Show, choice, dynamic, entered, follows, sign_class};

const STORED: &str = "tdb.exact";

/// Other nodes that are removed, too, to tell what was not looked at.
const RANDOM_NODES: i64 = 60;

/// More nodes than this are asked about only on demand.
const MOST_UNASKED: usize = 300;

/// Milliseconds between two drawings of what has come.
const DRAWN_EVERY: f64 = 120.0;

/// What nodes can be set to, in words.
const SET_TO: [(AblateTo, &str); 3] = [
    (AblateTo::Zero, "zero"),
    (AblateTo::PromptMean, "mean over this prompt"),
    (AblateTo::CollatedMean, "mean over the data set"),
];

/// Whether an effect is the node's, in whichever pass the node was named.
fn is_of(effect: &NodeEffect, node: &NodeIndex) -> bool {
    let of = &effect.node_index;
    (of.node_type, of.layer_index, &of.tensor_indices) == (node.node_type, node.layer_index, &node.tensor_indices)
}

/// What has come so far.
#[derive(Clone, Debug, Default)]
pub struct Found {
    answer: EffectsFold,
    problem: Option<Problem>,
    /// Whether nothing more comes.
    done: bool,
}

#[derive(Clone, Copy)]
pub struct ExactEffects {
    pub is_on: RwSignal<bool>,
    /// What nodes are set to.
    set_to: RwSignal<AblateTo>,
    /// Of two sides, the one from whose run nodes are removed.
    side: RwSignal<Compared>,
    found: RwSignal<Found>,
    asked: RwSignal<Option<EffectsRequest>>,
}

impl ExactEffects {
    /// Follows the session's answers.
    pub fn provide() {
        let exact = Self {
            is_on: RwSignal::new(dom::stored(STORED).as_deref() != Some("off")),
            set_to: RwSignal::new(AblateTo::Zero),
            side: RwSignal::new(Compared::Left),
            found: RwSignal::default(),
            asked: RwSignal::new(None),
        };
        provide_context(exact);
        exact.follow(Session::get());
    }

    pub fn get() -> Self {
        expect_context()
    }

    /// Whether the table has a column for them.
    pub fn has_column(self) -> bool {
        self.is_on.get() && self.asked.see(Option::is_some)
    }

    /// The heading of the column.
    pub fn heading(self, two_sided: bool) -> &'static str {
        match (two_sided, self.side.get()) {
            (false, _) => "Exact effect",
            (true, Compared::Right) => "Exact right",
            (true, _) => "Exact left",
        }
    }

    /// Of a node as the two sides name it.
    fn of(self, nodes: &[Option<NodeIndex>; 2]) -> Option<NodeEffect> {
        let node = nodes[self.side.get().side()].as_ref()?;
        self.found.see(|found| found.answer.nodes.values().find(|effect| is_of(effect, node)).cloned())
    }

    /// The cell of a node as the two sides name it, as HTML; it changes when the node's effect has come.
    pub fn cell_of(self, nodes: [Option<NodeIndex>; 2]) -> Memo<String> {
        let missing = nodes.each_ref().map(Option::is_none);
        Memo::new(move |_| cell(self.of(&nodes), missing[self.side.get().side()]))
    }

    /// The checks of the answer, as they stand now.
    pub fn checks(self) -> Vec<Check> {
        self.found.peek(|found| found.answer.told.checks.clone())
    }

    fn follow(self, session: Session) {
        let request = Memo::new(move |_| {
            let ready = self.is_on.get() && session.busy.see(Option::is_none);
            let (side, set_to) = (self.side.get(), self.set_to.get());
            ready.then(|| session.answer.see(|answer| request_of(answer, side, set_to, &Slug::text()))).flatten()
        });
        let abort = StoredValue::new_local(None::<Abort>);
        let id = StoredValue::new(0u32);
        effect(move || {
            let mine = id.get_value() + 1;
            id.set_value(mine);
            abort.set_value(None);
            let request = request.get();
            self.asked.set(request.clone());
            self.found.set(Found::default());
            let Some(request) = request else { return };
            abort.set_value(Abort::new());
            let signal = abort.with_value(|a| a.as_ref().map(Abort::signal));
            spawn(async move {
                let mut so_far = Found::default();
                let mut drawn = dom::now();
                let is_present = || id.try_get_value() == Some(mine);
                let outcome = client::stream::<EffectsStream>(&request, signal, |event| {
                    if let Err(error) = so_far.answer.add(event) {
                        so_far.problem = Some(Problem::not_added_up(error));
                    }
                    let now = dom::now();
                    if now - drawn > DRAWN_EVERY && is_present() {
                        drawn = now;
                        self.found.set(so_far.clone());
                    }
                })
                .await;
                if !is_present() {
                    return;
                }
                match outcome {
                    Err(problem) if problem.kind == Kind::Aborted => return,
                    // A server without this route: there is no such column.
                    Err(problem) if problem.is_missing_route() => return self.asked.set(None),
                    Err(problem) => so_far.problem = Some(problem),
                    Ok(()) => {}
                }
                so_far.done = true;
                self.found.set(so_far);
            });
        });
    }
}

/// The question about the nodes of one side, as that side was asked; none if there are too many of them.
fn request_of(answer: &Answer, side: Compared, set_to: AblateTo, slug: &str) -> Option<EffectsRequest> {
    let asked = &answer.request.sub_requests;
    let at = side.side().min(answer.sides.len().checked_sub(1)?);
    let side = asked.get(at)?;
    // What a skip connection gives is no activation that could be set.
    let single = answer.rows.iter().filter(|row| row.node.node_type != NodeType::MlpTranscoderSkip);
    let nodes: Vec<NodeIndex> = single.filter_map(|row| row.nodes[at].clone()).collect();
    if nodes.is_empty() || nodes.len() > MOST_UNASKED {
        return None;
    }
    Some(EffectsRequest {
        prompt: side.prompt.clone(),
        target_tokens: side.target_tokens.clone(),
        distractor_tokens: side.distractor_tokens.clone(),
        node_ablations: side.node_ablations.clone(),
        upstream_node_to_trace: side.upstream_node_to_trace.clone(),
        downstream_node_to_trace: side.downstream_node_to_trace.clone(),
        datasets: (set_to == AblateTo::CollatedMean).then(|| datasets(&nodes, slug)),
        nodes,
        ablate_to: set_to,
        better_estimates: false,
        random_nodes: RANDOM_NODES,
        seed: 0,
        only_price: false,
    })
}

/// The data sets that have records of the nodes, each once.
fn datasets(nodes: &[NodeIndex], slug: &str) -> Vec<String> {
    let slug = ModelSlug::parse(slug);
    let mut found = Vec::new();
    for name in nodes.iter().filter_map(|node| slug.dataset_name(node.node_type)) {
        if !found.contains(&name) {
            found.push(name);
        }
    }
    found
}

fn words(set_to: AblateTo) -> &'static str {
    SET_TO.iter().find(|(to, _)| *to == set_to).map_or("", |(_, words)| *words)
}

/// The cell of one node, as HTML.
fn cell(effect: Option<NodeEffect>, is_missing: bool) -> String {
    let Some(effect) = effect else {
        let text = if is_missing { "–" } else { "…" };
        return format!("<div class=\"cell num quiet\" role=\"gridcell\">{text}</div>");
    };
    let full = format::full(effect.exact);
    let (remark, class, mark) = match effect.parts {
        true => (". They part by more than 20 % and 2 % of the objective.", " parts", " ≠"),
        false => ("", "", ""),
    };
    format!(
        "<div class=\"cell num exact {}{class}\" role=\"gridcell\" title=\"Exact {full}, set to {}; estimated {}; \
         difference {}{remark}\" data-value=\"{full}\" data-parts=\"{}\" data-exact=\"\">{}{mark}</div>",
        sign_class(effect.exact),
        words(effect.ablated_to),
        format::full(effect.estimate),
        format::full(effect.exact - effect.estimate),
        effect.parts,
        format::signed(effect.exact)
    )
}

/// What is below the table: the price while it is computed, how many estimates are off, what was not looked at, the
/// checks.
#[component]
pub fn ExactFooter() -> impl IntoView {
    let exact = ExactEffects::get();
    let toggle = move |_| {
        let on = !exact.is_on.get_untracked();
        dom::store(STORED, (!on).then_some("off"));
        exact.is_on.set(on);
    };
    let text = move || {
        if !exact.is_on.get() || exact.asked.see(Option::is_none) {
            return ().into_any();
        }
        exact.found.see(|found| {
            if let Some(problem) = &found.problem {
                return view! { <span class="field-error">{problem.message.clone()}</span> }.into_any();
            }
            let nodes = found.answer.nodes.len();
            if !found.done {
                let price = found.answer.told.price.as_ref();
                let price = price.map(|p| format!("{} runs, about {:.1} s; ", p.runs, p.seconds)).unwrap_or_default();
                return view! { <span>{price}{nodes}" nodes are done."</span> }.into_any();
            }
            let off = found.answer.nodes.values().filter(|effect| effect.parts).count();
            let bound = found.answer.sampled.as_ref().map(|bound| bound.sentence.clone());
            view! {
                <span id="exact-apart">
                    {off}" of "{nodes}
                    " estimates part from the exact effect by more than 20 % and 2 % of the objective (≠)."
                </span>
                <span id="exact-bound">{bound}</span>
            }
            .into_any()
        })
    };
    view! {
        <div class="table-foot" id="exact">
            <label class="row small-text">
                <input type="checkbox" prop:checked=follows(move || exact.is_on.get()) on:change=entered(toggle) />
                "Exact effects"
            </label>
            <Show when=move || exact.has_column()>
                <ExactChoices />
            </Show>
            <span class="grow small-text foot-text" aria-live="polite">{dynamic(text)}</span>
            <Ledger checks=Signal::derive(move || exact.found.see(|found| found.answer.told.checks.clone())) />
        </div>
    }
}

/// What nodes are set to, and on which of two sides.
#[component]
fn ExactChoices() -> impl IntoView {
    let (exact, session) = (ExactEffects::get(), Session::get());
    let set = move |event| {
        let word = event_target_value(&event);
        if let Some((to, _)) = SET_TO.iter().find(|(to, _)| to.as_str() == word) {
            exact.set_to.set(*to);
        }
    };
    let choose = move |event| {
        let is_right = event_target_value(&event) == Compared::Right.label();
        exact.side.set(if is_right { Compared::Right } else { Compared::Left });
    };
    view! {
        <label class="row small-text">
            "Set to "
            <select class="field" id="exact-to" on:change=entered(set)>
                {SET_TO.map(|(to, words)| choice(to.as_str(), words, move || exact.set_to.get() == to)).collect_view()}
            </select>
        </label>
        <Show when=move || session.answer.see(|answer| answer.is_two_sided())>
            <label class="row small-text">
                "Side "
                <select class="field" id="exact-side" on:change=entered(choose)>
                    {[Compared::Left, Compared::Right]
                        .map(|side| choice(side.label(), side.label(), move || exact.side.get() == side))
                        .collect_view()}
                </select>
            </label>
        </Show>
    }
}
