//! Text as the model reads it: spaces, line breaks and what has no shape of its own made visible, yet copied as what
//! they are.

use leptos::prelude::*;

use crate::format;

/// The token's text; marks are drawn by the style sheet, so that a copy holds the raw characters.
pub fn token_text(token: &str) -> AnyView {
    if !token.chars().any(|c| c == ' ' || format::escape(c).is_some() || c == format::NO_CHARACTER) {
        return token.to_owned().into_any();
    }
    let mut parts = Vec::new();
    let mut plain = String::new();
    for c in token.chars() {
        let part = match c {
            ' ' => view! { <span class="space">{c.to_string()}</span> }.into_any(),
            '\n' => view! { <span class="newline">{c.to_string()}</span> }.into_any(),
            '\t' => view! { <span class="tab">{c.to_string()}</span> }.into_any(),
            format::NO_CHARACTER => {
                view! { <span class="part" title="Bytes that are a part of a character">{c.to_string()}</span> }
                    .into_any()
            }
            _ => match format::escape(c) {
                Some(mark) => view! { <span class="escape" data-mark=mark>{c.to_string()}</span> }.into_any(),
                None => {
                    plain.push(c);
                    continue;
                }
            },
        };
        if !plain.is_empty() {
            parts.push(std::mem::take(&mut plain).into_any());
        }
        parts.push(part);
    }
    if !plain.is_empty() {
        parts.push(plain.into_any());
    }
    parts.into_any()
}

/// A token with its place in the prompt.
#[component]
pub fn TokenChip(
    token: String,
    #[prop(optional_no_strip)] index: Option<usize>,
    #[prop(optional)] asked: bool,
) -> impl IntoView {
    view! {
        <span class="token" class:asked=asked>{token_text(&token)}</span>
        {index.map(|i| view! { <span class="token-index">{i}</span> })}
    }
}
