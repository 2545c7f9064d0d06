//! The question: prompt, tokens of interest, submit. It stays in sight.

use leptos::prelude::*;
use tdb_api::TokenRef;
use tdb_api::page::{PageState, SideState};

use super::Slug;
use super::options::Options;
use super::prompt::PromptEditor;
use super::question::{side, side_mut};
use super::share::ShareMenu;
use super::snapshots::SnapshotsMenu;
use super::token_box::TokenList;
use crate::dom;
use crate::format;
use crate::session::Session;
use crate::signals::{Change, See};
use crate::token_cache::{TokenCache, Tokens};
use crate::ui::{Show, dynamic, follows};
use crate::ui::{press, sent};

#[component]
pub fn AskBar() -> impl IntoView {
    let session = Session::get();
    let two = Memo::new(move |_| session.page.see(PageState::compares_prompts));
    let left = follow(session, false);
    let right = follow(session, true);
    let mismatch = move || {
        let (l, r) = (left.get()?, right.get()?);
        (two.get() && l.count != r.count).then(|| {
            format!("To compare nodes, both prompts need the same number of tokens ({} and {}).", l.count, r.count)
        })
    };
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
            class:two=two
            aria-label="Question"
            on:submit=sent(move |e| {
                e.prevent_default();
                session.submit();
            })
        >
            <SideFields right=false tokens=left mismatch=Signal::stored(None) />
            <Show when=move || two.get()>
                <SideFields right=true tokens=right mismatch=Signal::derive(mismatch) />
            </Show>
            <div class="ask-foot">
                <SubmitButton />
                <span class="grow"></span>
                <button
                    type="button"
                    class="button small plain icon"
                    aria-label="Undo"
                    title="Undo (Ctrl+Z)"
                    disabled=follows(move || !session.can_undo())
                    on:click=press(move |_| session.undo())
                >
                    "↶"
                </button>
                <button
                    type="button"
                    class="button small plain icon"
                    aria-label="Redo"
                    title="Redo (Ctrl+Shift+Z)"
                    disabled=follows(move || !session.can_redo())
                    on:click=press(move |_| session.redo())
                >
                    "↷"
                </button>
                {dynamic(move || if two.get() {
                    view! {
                        <button type="button" class="button small plain" on:click=press(remove)>"Remove second prompt"</button>
                    }.into_any()
                } else {
                    view! {
                        <button type="button" class="button small plain" on:click=press(add)>"Add second prompt"</button>
                    }.into_any()
                })}
                <a
                    class="button small plain"
                    href=follows(move || session.page.see(|page| crate::patch::address(&Slug::text(), page)))
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
fn SideFields(
    right: bool,
    tokens: Signal<Option<Tokens>>,
    /// Why the two prompts cannot be compared.
    mismatch: Signal<Option<String>>,
) -> impl IntoView {
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
                {dynamic(move || if two() { if right { "Right question" } else { "Left question" } } else { "Question" })}
            </legend>
            <PromptEditor right=right label=Signal::derive(move || name().to_owned()) tokens=tokens mismatch=mismatch />
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
                    <button type="button" class="button small" on:click=press(move |_| session.cancel())>
                        "Cancel"
                    </button>
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
