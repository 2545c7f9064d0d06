//! Text as the model reads it: spaces, line breaks and what has no shape of its own made visible, yet copied as what
//! they are.

use leptos::prelude::*;

use crate::format;

/// How a character is drawn that would not show itself.
struct Mark {
    class: &'static str,
    /// What the style sheet writes in its place, where the class does not say it.
    text: String,
    title: &'static str,
}

fn mark(c: char) -> Option<Mark> {
    let plain = |class| Some(Mark { class, text: String::new(), title: "" });
    match c {
        ' ' => plain("space"),
        '\n' => plain("newline"),
        '\t' => plain("tab"),
        format::NO_CHARACTER => {
            Some(Mark { class: "part", text: String::new(), title: "Bytes that are a part of a character" })
        }
        _ => format::escape(c).map(|text| Mark { class: "escape", text, title: "" }),
    }
}

/// The token's text; marks are drawn by the style sheet, so that a copy holds the raw characters.
pub fn token_text(token: &str) -> AnyView {
    let mut parts = Vec::new();
    let mut plain = String::new();
    for c in token.chars() {
        let Some(Mark { class, text, title }) = mark(c) else {
            plain.push(c);
            continue;
        };
        if !plain.is_empty() {
            parts.push(std::mem::take(&mut plain).into_any());
        }
        let (text, title) = ((!text.is_empty()).then_some(text), (!title.is_empty()).then_some(title));
        parts.push(view! { <span class=class data-mark=text title=title>{c.to_string()}</span> }.into_any());
    }
    if parts.is_empty() {
        return plain.into_any();
    }
    if !plain.is_empty() {
        parts.push(plain.into_any());
    }
    parts.into_any()
}

/// The same as HTML, with what stands around a token.
pub fn token_html(token: &str) -> String {
    in_token("token", token)
}

/// A token with its place in the prompt, as HTML.
pub fn token_chip(token: &str, index: usize, is_asked: bool) -> String {
    let token = in_token(if is_asked { "token asked" } else { "token" }, token);
    format!("{token}<span class=\"token-index\">{index}</span>")
}

fn in_token(class: &str, token: &str) -> String {
    let part = |c: char| {
        let plain = format::html(c.encode_utf8(&mut [0; 4]));
        match mark(c) {
            Some(Mark { class, text, title }) => {
                let attribute = |name: &str, value: &str| match value {
                    "" => String::new(),
                    value => format!(" {name}=\"{value}\""),
                };
                let (text, title) = (attribute("data-mark", &text), attribute("title", title));
                format!("<span class=\"{class}\"{text}{title}>{plain}</span>")
            }
            None => plain,
        }
    };
    format!("<span class=\"{class}\">{}</span>", token.chars().map(part).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_shape_is_marked() {
        assert_eq!(token_html("<a"), "<span class=\"token\">&lt;a</span>");
        assert!(token_html(" b").contains("<span class=\"space\"> </span>b"));
        assert!(token_html("\n").contains("class=\"newline\""));
        assert!(token_html("\u{200b}").contains("data-mark=\"\\u{200b}\""));
        assert!(token_html("\u{fffd}").contains("part of a character"));
    }
}
