//! The question: prompt, tokens of interest, submit. It stays in sight.

use leptos::prelude::*;
use tdb_api::TokenRef;
use tdb_api::page::{PageState, SideState, pairs_as_text};

use super::Slug;
use super::options::Options;
use super::prompt::PromptEditor;
use super::question::{Field, field_of, side, side_mut};
use super::share::ShareMenu;
use super::snapshots::SnapshotsMenu;
use super::token_box::TokenList;
use crate::dom;
use crate::format;
use crate::session::Session;
use crate::signals::{Change, Memo, RwSignal, See, Signal};
use crate::token_cache::{TokenCache, Tokens};
use crate::ui::{Show, button, choice, dynamic, entered, follows, icon_button, press, sent};

#[component]
pub fn AskBar() -> impl IntoView {
    let session = Session::get();
    let two = Memo::new(move |_| session.page.see(PageState::compares_prompts));
    let left = follow(session, false);
    let right = follow(session, true);
    let add = move |_| {
        session.step(|page, _| {
            page.right = Some(SideState {
                node_ablations: vec![],
                upstream_node_to_trace: None,
                downstream_node_to_trace: None,
                ..page.left.clone()
            })
        })
    };
    let remove = move |_| session.step(|page, _| page.right = None);
    view! {
        <form
            class="ask"
            class:two=follows(move || two.get())
            aria-label="Question"
            on:submit=sent(move |e| {
                e.prevent_default();
                session.submit();
            })
        >
            <SideFields right=false tokens=left />
            <Show when=move || two.get()>
                <SideFields right=true tokens=right />
                <Align left=left right=right />
            </Show>
            <div class="ask-foot">
                <SubmitButton />
                <span class="grow"></span>
                {icon_button("Undo", "Ctrl+Z", "↶", move || !session.can_undo(), move |_| session.undo())}
                {icon_button("Redo", "Ctrl+Shift+Z", "↷", move || !session.can_redo(), move |_| session.redo())}
                {dynamic(move || if two.get() {
                    button("button small plain", "Remove second prompt", remove)
                } else {
                    button("button small plain", "Add second prompt", add)
                })}
                <a
                    class="button small plain"
                    href=follows(move || {
                        session.page.see(|page| crate::patch::address(&Slug::text(), page, lens(left, right)))
                    })
                    title="Patch activations between this prompt and another one"
                >
                    "Patch"
                </a>
                <Options />
                <SnapshotsMenu />
                <ShareMenu />
            </div>
        </form>
    }
}

fn follow(session: Session, right: bool) -> Signal<Option<Tokens>> {
    let prompt = Memo::new(move |_| session.page.see(|p| side(p, right).map(|s| s.prompt.clone()).unwrap_or_default()));
    TokenCache::get().follow(move || prompt.get())
}

#[component]
fn SideFields(right: bool, tokens: Signal<Option<Tokens>>) -> impl IntoView {
    let session = Session::get();
    let two = move || session.page.see(PageState::compares_prompts);
    let name = move || match (two(), right) {
        (false, _) => "Prompt",
        (true, false) => "Left prompt",
        (true, true) => "Right prompt",
    };
    let swap = move |_| {
        session.page.change(|page| {
            if let Some(side) = side_mut(page, right) {
                std::mem::swap(&mut side.target_tokens, &mut side.distractor_tokens);
                if side.target_tokens.is_empty() {
                    side.target_tokens.push(TokenRef::default());
                }
            }
        });
    };
    view! {
        <fieldset class="ask-side" class:is-right=right>
            <legend class="visually-hidden">
                {dynamic(move || match (two(), right) {
                    (false, _) => "Question",
                    (true, false) => "Left question",
                    (true, true) => "Right question",
                })}
            </legend>
            <PromptEditor right=right label=Signal::derive(move || name().to_owned()) tokens=tokens />
            <div class="asked-tokens">
                <TokenList right=right distractor=false />
                <button
                    type="button"
                    class="button small plain icon swap"
                    aria-label="Swap targets and distractors"
                    title="Swap targets and distractors"
                    on:click=press(swap)
                >
                    "⇄"
                </button>
                <TokenList right=right distractor=true />
            </div>
        </fieldset>
    }
}

/// How many tokens the prompts have.
fn lens(left: Signal<Option<Tokens>>, right: Signal<Option<Tokens>>) -> Option<[usize; 2]> {
    Some([left.get()?.count, right.get()?.count])
}

/// Which tokens of two prompts stand for each other, where that is not plain.
#[component]
fn Align(left: Signal<Option<Tokens>>, right: Signal<Option<Tokens>>) -> impl IntoView {
    let session = Session::get();
    let lens = Memo::new(move |_| lens(left, right));
    let words = Memo::new(move |_| session.page.see(|page| page.alignment.clone()));
    let shows = move || !words.get().is_empty() || lens.get().is_some_and(|[left, right]| left != right);
    let from_start = move || words.see(|words| words == PageState::FROM_START);
    let by_hand = move || words.see(|words| !words.is_empty() && words != PageState::FROM_START);
    let choose = move |event| {
        let choice = event_target_value(&event);
        session.step(move |page, _| {
            page.alignment = match (choice.as_str(), lens.get_untracked()) {
                (BY_HAND, Some(lens)) => pairs_as_text(&page.pairs(lens).unwrap_or_default()),
                (PageState::FROM_START, _) => choice,
                _ => String::new(),
            };
        });
    };
    let problem = move || session.problem.get().filter(|p| field_of(p) == Some(Field::Alignment)).map(|p| p.message);
    view! {
        <Show when=shows>
            <div class="row small-text align" id="alignment">
                <span>
                    {dynamic(move || lens.get().map(|[left, right]| format!("{left} and {right} tokens. ")))}
                    "Nodes are compared by tokens "
                </span>
                <select
                    class="field"
                    id="align"
                    aria-label="Which tokens stand for each other"
                    on:change=entered(choose)
                >
                    {choice("", "counted from the end", move || words.see(String::is_empty))}
                    {choice(PageState::FROM_START, "counted from the start", from_start)}
                    {choice(BY_HAND, "paired by hand", by_hand)}
                </select>
                <Show when=by_hand>
                    <input
                        class="field grow"
                        id="align-pairs"
                        aria-label="Pairs of tokens, left:right"
                        spellcheck="false"
                        prop:value=follows(move || words.get())
                        on:change=entered(move |e| {
                            let pairs = event_target_value(&e);
                            session.step(move |page, _| page.alignment = pairs);
                        })
                    />
                </Show>
                {dynamic(move || problem().map(|p| view! { <span class="field-error" role="alert">{p}</span> }))}
            </div>
        </Show>
    }
}

/// The choice of pairs that a person writes.
const BY_HAND: &str = "hand";

/// Submits; while an answer is awaited it says what the server is doing and for how long, and cancels.
#[component]
fn SubmitButton() -> impl IntoView {
    let session = Session::get();
    let tick = RwSignal::new(0.0);
    let timer = set_interval_with_handle(move || tick.set(dom::now()), std::time::Duration::from_millis(200));
    on_cleanup(move || {
        if let Ok(timer) = timer {
            timer.clear();
        }
    });
    view! {
        <button type="submit" class="button primary" id="submit" title="Submit (Ctrl+Enter)">
            "Submit"
        </button>
        // One place for all that is said of the question's state, so that nothing moves when it changes.
        <span class="ask-status">
            <Show when=move || session.busy.see(Option::is_some)>
                <span class="progress" id="progress">
                    <span class="boot-mark" aria-hidden="true"></span>
                    <span>
                        {dynamic(move || session.busy.get().map(|busy| {
                            let waited = (tick.get() - busy.since).max(0.0);
                            format!("{} {}", busy.words(), format::duration((waited / 100.0).floor() * 100.0))
                        }))}
                    </span>
                    {button("button small", "Cancel", move |_| session.cancel())}
                </span>
            </Show>
            <span aria-live="polite">
                {dynamic(move || (session.busy.see(Option::is_none) && session.is_edited()).then(|| view! {
                    <span class="edited">"Prompt changed – press Submit to update."</span>
                }))}
            </span>
            <span class="took quiet">
                {dynamic(move || {
                    let is_shown = session.busy.see(Option::is_none) && !session.is_edited();
                    let last = session.runs.see(|r| r.last().map(|r| r.ms)).filter(|_| is_shown);
                    last.map(|ms| format!("answered in {}", format::duration(ms)))
                })}
            </span>
        </span>
    }
}
