//! Texts painted by activation: one value a token, or one a pair of tokens.

use leptos::prelude::*;
use tdb_api::numbers::largest;
use tdb_api::{TokenAndAttentionScalars, TokenAndScalar};

use crate::format;
use crate::signals::{Change, RwSignal};
use crate::sorting::sort;
use crate::ui::{CollectView, dynamic, fill_style, follows, keyed, press};

/// Line breaks are marked and break the line; other characters without a shape are spelt out.
fn shown(token: &str) -> AnyView {
    if !token.chars().any(|c| format::escape(c).is_some()) {
        return token.to_owned().into_any();
    }
    let mark = |c: char| format::escape(c).unwrap_or_else(|| c.to_string());
    let text: String = token.chars().map(mark).collect();
    let breaks = token.contains('\n').then(|| view! { <br /> });
    view! { <span class="newline-mark">{text}</span>{breaks} }.into_any()
}

/// The largest value of a text.
pub fn peak(tokens: &[TokenAndScalar]) -> f64 {
    largest(tokens.iter().map(|t| t.scalar))
}

/// Of values of pairs, the largest into each token.
pub fn into_tokens(tokens: &[TokenAndAttentionScalars]) -> Vec<TokenAndScalar> {
    let into = |t: &TokenAndAttentionScalars| TokenAndScalar {
        token: t.token.clone(),
        scalar: t.max_scalar_in,
        normalized_scalar: t.normalized_max_scalar_in,
    };
    tokens.iter().map(into).collect()
}

/// The tokens around the strongest one, and whether something is left out before and after.
pub fn excerpt(tokens: &[TokenAndScalar], before: usize, after: usize) -> (bool, &[TokenAndScalar], bool) {
    let best = tokens.iter().enumerate().max_by(|a, b| a.1.scalar.total_cmp(&b.1.scalar)).map_or(0, |(i, _)| i);
    let from = best.saturating_sub(before);
    let to = (best + after + 1).min(tokens.len());
    (from > 0, &tokens[from..to], to < tokens.len())
}

/// One value a token.
pub fn line(tokens: &[TokenAndScalar]) -> AnyView {
    let pieces = tokens
        .iter()
        .enumerate()
        .map(|(i, t)| {
            let title = format!("{} ({i}): {}", format::quoted(&t.token), format::full(t.scalar));
            view! {
                <span
                    class="piece fill seq"
                    style=fill_style(t.normalized_scalar.max(0.0), 1.0)
                    title=title
                    data-value=format::full(t.scalar)
                >
                    {shown(&t.token)}
                </span>
            }
        })
        .collect_view();
    view! { <div class="text-map">{pieces}</div> }.into_any()
}

/// Pairs: at rest each token shows how much is written into it; with a token chosen (pointer, focus or press) what is
/// written from it into later ones.
#[component]
pub fn PairMap(tokens: Vec<TokenAndAttentionScalars>) -> impl IntoView {
    let chosen = RwSignal::new(None::<usize>);
    let hovered = RwSignal::new(None::<usize>);
    let at = move || hovered.get().or(chosen.get());
    let tokens = StoredValue::new(tokens);
    let n = tokens.with_value(Vec::len);
    // One stop for the keyboard, not one for each token.
    let on_key = move |event: web_sys::KeyboardEvent| {
        let last = n.saturating_sub(1);
        let to = match event.key().as_str() {
            "ArrowRight" => Some(chosen.get_untracked().map_or(0, |i| (i + 1).min(last))),
            "ArrowLeft" => Some(chosen.get_untracked().map_or(last, |i| i.saturating_sub(1))),
            "Escape" => None,
            _ => return,
        };
        event.prevent_default();
        event.stop_propagation();
        chosen.set(to);
    };
    let pieces = (0..n)
        .map(|i| {
            let token = tokens.with_value(|t| t[i].token.clone());
            let class = move || match at() {
                Some(j) if j == i && chosen.get() == Some(i) => "piece fill to chosen",
                Some(j) if j == i => "piece fill to",
                _ => "piece fill from",
            };
            view! {
                <span
                    class=class
                    style=follows(move || tokens.with_value(|t| fill_style(pair_fill(&t[i], i, at()).max(0.0), 1.0)))
                    title=follows(move || tokens.with_value(|t| pair_title(t, i, at())))
                    on:mouseenter=move |_| hovered.set(Some(i))
                    on:mouseleave=move |_| hovered.set(None)
                    on:click=press(move |_| chosen.change(|c| *c = if *c == Some(i) { None } else { Some(i) }))
                >
                    {shown(&token)}
                </span>
            }
        })
        .collect_view();
    view! {
        <div
            class="text-map pairs"
            tabindex="0"
            role="group"
            aria-label="Text; arrow keys choose a token to see what it reads, and what reads it"
            on:keydown=keyed(on_key)
        >
            {pieces}
        </div>
        <p class="small-text quiet" aria-live="polite">
            {dynamic(move || at().map(|j| tokens.with_value(|t| format!("{} {}", read_from(t, j), readers(t, j)))))}
        </p>
    }
}

/// How full token `i` is painted while the token `at` is chosen.
fn pair_fill(token: &TokenAndAttentionScalars, i: usize, at: Option<usize>) -> f64 {
    match at {
        None => token.normalized_max_scalar_in,
        Some(j) if j == i => token.normalized_max_scalar_out.max(0.15),
        Some(j) if j < i => token.normalized_scalars.get(j).copied().unwrap_or_default(),
        Some(_) => 0.0,
    }
}

fn pair_title(tokens: &[TokenAndAttentionScalars], i: usize, at: Option<usize>) -> String {
    let into = format::quoted(&tokens[i].token);
    match at {
        Some(j) if j <= i => {
            let value = tokens[i].scalars.get(j).map(|v| format::full(*v)).unwrap_or_default();
            format!("from {} ({j}) into {into} ({i}): {value}", format::quoted(&tokens[j].token))
        }
        _ => format!("strongest write into {into} ({i}): {}", format::full(tokens[i].max_scalar_in)),
    }
}

/// The tokens that most is written from into token `i`: what it reads.
fn read_from(tokens: &[TokenAndAttentionScalars], i: usize) -> String {
    let mut best: Vec<(usize, f64)> = tokens[i].scalars.iter().copied().enumerate().collect();
    sort(&mut best, |a, b| b.1.total_cmp(&a.1));
    let source = |(j, v): &(usize, f64)| format!("{} ({j}) {}", format::quoted(&tokens[*j].token), format::number(*v));
    let words: Vec<String> = best.iter().take(4).map(source).collect();
    format!("{} ({i}) reads most from: {}.", format::quoted(&tokens[i].token), words.join(", "))
}

/// The tokens that most is written into from token `j`.
fn readers(tokens: &[TokenAndAttentionScalars], j: usize) -> String {
    let mut best: Vec<(usize, f64)> = (j..tokens.len()).filter_map(|i| Some((i, *tokens[i].scalars.get(j)?))).collect();
    sort(&mut best, |a, b| b.1.total_cmp(&a.1));
    let reader = |(i, v): &(usize, f64)| format!("{} ({i}) {}", format::quoted(&tokens[*i].token), format::number(*v));
    let words: Vec<String> = best.iter().take(4).map(reader).collect();
    format!("{} ({j}) is read most by: {}.", format::quoted(&tokens[j].token), words.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_lies_around_the_strongest_token() {
        let token = |scalar: f64| TokenAndScalar { token: scalar.to_string(), scalar, normalized_scalar: scalar };
        let tokens: Vec<_> = [0.0, 1.0, 9.0, 2.0, 3.0].map(token).into();
        let cut = |before, after| {
            let (left, middle, right) = excerpt(&tokens, before, after);
            (left, middle.iter().map(|t| t.scalar).collect::<Vec<_>>(), right)
        };
        assert_eq!(cut(1, 1), (true, vec![1.0, 9.0, 2.0], true));
        assert_eq!(cut(4, 4), (false, vec![0.0, 1.0, 9.0, 2.0, 3.0], false));
        assert_eq!(excerpt(&[], 1, 1), (false, &[][..], false));
        assert_eq!(peak(&tokens), 9.0);
    }
}
