//! A text field with tokens of the vocabulary below it: arrows choose, Enter takes, Escape closes.

use leptos::prelude::*;
use tdb_api::TokenRef;

use super::CollectView;
use super::token_text;
use super::{dynamic, follows};
use super::{entered, keyed};
use crate::signals::{Peek, RwSignal, See, Signal, effect};

/// What a key does in a field with `n` suggestions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// Opens the list and goes to a suggestion.
    To(usize),
    Take(usize),
    Close,
}

/// What `key` does, if it does anything; `open` is whether the list is, `at` the chosen suggestion.
pub fn on_key(key: &str, n: usize, open: bool, at: Option<usize>) -> Option<Move> {
    let open = open && n > 0;
    match (key, at) {
        ("ArrowDown", _) if n > 0 => Some(Move::To(at.map_or(0, |i| (i + 1) % n))),
        ("ArrowUp", _) if open => Some(Move::To(at.map_or(n - 1, |i| (i + n - 1) % n))),
        ("Enter", Some(i)) if open => Some(Move::Take(i)),
        ("Escape", _) if open => Some(Move::Close),
        _ => None,
    }
}

#[component]
pub fn Combobox(
    /// The field's id; the list's is this with `-list`.
    id: String,
    label: String,
    /// What the list holds, for people who cannot see it.
    list_label: &'static str,
    #[prop(into)] text: Signal<String>,
    suggestions: RwSignal<Vec<TokenRef>>,
    #[prop(into)] invalid: Signal<bool>,
    /// The id of what is said about the field.
    described_by: String,
    /// Called with what was typed.
    on_input: Callback<String>,
    /// Called with the suggestion that was taken.
    on_choose: Callback<TokenRef>,
) -> impl IntoView {
    let open = RwSignal::new(false);
    let active = RwSignal::new(None::<usize>);
    let is_open = move || open.get() && suggestions.see(|s| !s.is_empty());
    effect(move || {
        suggestions.track();
        active.set(None);
    });
    let choose = move |token: TokenRef| {
        on_choose.run(token);
        open.set(false);
        suggestions.set(Vec::new());
    };
    let keydown = move |event: web_sys::KeyboardEvent| {
        let n = suggestions.peek(Vec::len);
        let modified = event.ctrl_key() || event.meta_key();
        match on_key(&event.key(), n, open.get_untracked(), active.get_untracked()) {
            Some(Move::To(i)) => {
                event.prevent_default();
                open.set(true);
                active.set(Some(i));
            }
            Some(Move::Take(i)) if !modified => {
                event.prevent_default();
                if let Some(token) = suggestions.peek(|s| s.get(i).cloned()) {
                    choose(token);
                }
            }
            Some(Move::Close) => {
                event.stop_propagation();
                open.set(false);
            }
            _ => {}
        }
    };
    let list_id = format!("{id}-list");
    let option_id = {
        let list_id = list_id.clone();
        move |i: usize| format!("{list_id}-{i}")
    };
    let active_id = {
        let option_id = option_id.clone();
        move || active.get().map(&option_id)
    };
    let option = move |(i, token): (usize, TokenRef)| {
        let chosen = token.clone();
        view! {
            <li
                id=option_id(i)
                role="option"
                aria-selected=follows(move || (active.get() == Some(i)).to_string())
                on:mousedown=move |e| {
                    // Before the field loses the focus, or the list would be gone.
                    e.prevent_default();
                    choose(chosen.clone());
                }
            >
                <span class="token">{token_text(token.text())}</span>
                {token.id().map(|id| format!(" token {id}"))}
            </li>
        }
    };
    view! {
        <div class="token-input" class:invalid=follows(move || invalid.get())>
            <span class="token-back" aria-hidden="true">
                {dynamic(move || text.see(|t| token_text(t)))}
            </span>
            <input
                id=id
                type="text"
                role="combobox"
                aria-label=label
                aria-expanded=follows(move || is_open().to_string())
                aria-controls=list_id.clone()
                aria-autocomplete="list"
                aria-activedescendant=active_id
                aria-invalid=follows(move || invalid.get().to_string())
                aria-describedby=described_by
                autocomplete="off"
                autocapitalize="off"
                spellcheck="false"
                prop:value=follows(move || text.get())
                on:input=entered(move |e| {
                    open.set(true);
                    on_input.run(event_target_value(&e));
                })
                on:blur=move |_| open.set(false)
                on:keydown=keyed(keydown)
            />
        </div>
        <ul class="suggestions" id=list_id role="listbox" aria-label=list_label hidden=follows(move || !is_open())>
            {dynamic(move || suggestions.get().into_iter().enumerate().map(&option).collect_view())}
        </ul>
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrows_go_round() {
        assert_eq!(on_key("ArrowDown", 3, false, None), Some(Move::To(0)));
        assert_eq!(on_key("ArrowDown", 3, true, Some(2)), Some(Move::To(0)));
        assert_eq!(on_key("ArrowUp", 3, true, None), Some(Move::To(2)));
        assert_eq!(on_key("ArrowUp", 3, true, Some(0)), Some(Move::To(2)));
    }

    #[test]
    fn enter_and_escape_are_left_to_the_page_while_nothing_is_chosen() {
        assert_eq!(on_key("Enter", 3, true, Some(1)), Some(Move::Take(1)));
        assert_eq!(on_key("Enter", 3, true, None), None);
        assert_eq!(on_key("Enter", 3, false, Some(1)), None);
        assert_eq!(on_key("Escape", 3, true, None), Some(Move::Close));
        assert_eq!(on_key("Escape", 3, false, None), None);
        for key in ["ArrowDown", "ArrowUp", "Enter", "Escape"] {
            assert_eq!(on_key(key, 0, true, None), None, "{key}");
        }
    }
}
