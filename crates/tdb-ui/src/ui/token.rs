//! Text as the model reads it: spaces and line breaks visible, yet copied as what they are.

use leptos::prelude::*;

/// The token's text; marks for spaces and line breaks are drawn by the style sheet, so that a copy holds the raw characters.
pub fn token_text(token: &str) -> AnyView {
    if !token.contains([' ', '\n', '\t']) {
        return token.to_owned().into_any();
    }
    let mut parts = Vec::new();
    let mut plain = String::new();
    for c in token.chars() {
        let class = match c {
            ' ' => "space",
            '\n' => "newline",
            '\t' => "tab",
            _ => {
                plain.push(c);
                continue;
            }
        };
        if !plain.is_empty() {
            parts.push(std::mem::take(&mut plain).into_any());
        }
        parts.push(view! { <span class=class>{c.to_string()}</span> }.into_any());
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
