//! Texts painted by activation: one value a token, or one a pair of tokens.

use leptos::prelude::*;
use serde_json::Value;

use crate::format;
use crate::ui::fill_style;

/// One token with its value and how full it is painted.
#[derive(Clone, Debug, PartialEq)]
pub struct Painted {
    pub token: String,
    pub value: f64,
    pub fill: f64,
}

/// Reads `[{token, scalar, normalizedScalar}]`.
pub fn read_line(sequence: &Value) -> Vec<Painted> {
    let items = sequence.as_array().into_iter().flatten();
    items
        .map(|t| Painted {
            token: t["token"].as_str().unwrap_or_default().to_owned(),
            value: t["scalar"].as_f64().unwrap_or_default(),
            fill: t["normalizedScalar"].as_f64().unwrap_or_default(),
        })
        .collect()
}

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

/// The tokens around the strongest one, and whether something is left out before and after.
pub fn excerpt(tokens: Vec<Painted>, before: usize, after: usize) -> (bool, Vec<Painted>, bool) {
    let best = tokens.iter().enumerate().max_by(|a, b| a.1.value.total_cmp(&b.1.value)).map_or(0, |(i, _)| i);
    let from = best.saturating_sub(before);
    let to = (best + after + 1).min(tokens.len());
    let cut = (from > 0, to < tokens.len());
    (cut.0, tokens.into_iter().take(to).skip(from).collect(), cut.1)
}

/// One value a token.
pub fn line(tokens: &[Painted]) -> AnyView {
    let pieces = tokens
        .iter()
        .enumerate()
        .map(|(i, t)| {
            let title = format!("{} ({i}): {}", format::quoted(&t.token), format::full(t.value));
            view! { <span class="piece fill seq" style=fill_style(t.fill.max(0.0), 1.0) title=title data-value=format::full(t.value)>{shown(&t.token)}</span> }
        })
        .collect_view();
    view! { <div class="text-map">{pieces}</div> }.into_any()
}

/// One token of a text with a value for each pair.
#[derive(Clone, Debug, PartialEq)]
pub struct Paired {
    pub token: String,
    pub scalars: Vec<f64>,
    pub fills: Vec<f64>,
    pub fill_in: f64,
    pub fill_out: f64,
    pub max_in: f64,
}

/// Reads a list of token-and-attention-scalars.
pub fn read_pairs(sequence: &Value) -> Vec<Paired> {
    let floats = |v: &Value| v.as_array().into_iter().flatten().filter_map(Value::as_f64).collect::<Vec<_>>();
    let items = sequence.as_array().into_iter().flatten();
    items
        .map(|t| Paired {
            token: t["token"].as_str().unwrap_or_default().to_owned(),
            scalars: floats(&t["scalars"]),
            fills: floats(&t["normalizedScalars"]),
            fill_in: t["normalizedMaxScalarIn"].as_f64().unwrap_or_default(),
            fill_out: t["normalizedMaxScalarOut"].as_f64().unwrap_or_default(),
            max_in: t["maxScalarIn"].as_f64().unwrap_or_default(),
        })
        .collect()
}

/// Pairs: at rest each token shows how much is written into it; with a token chosen (pointer, focus or press) what is
/// written from it into later ones.
#[component]
pub fn PairMap(tokens: Vec<Paired>) -> impl IntoView {
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
            let style = move || {
                tokens.with_value(|t| {
                    let fill = match at() {
                        None => t[i].fill_in,
                        Some(j) if j == i => t[i].fill_out.max(0.15),
                        Some(j) if j < i => t[i].fills.get(j).copied().unwrap_or_default(),
                        Some(_) => 0.0,
                    };
                    fill_style(fill.max(0.0), 1.0)
                })
            };
            let title = move || {
                tokens.with_value(|t| match at() {
                    Some(j) if j <= i => format!(
                        "from {} ({j}) into {} ({i}): {}",
                        format::quoted(&t[j].token),
                        format::quoted(&t[i].token),
                        t[i].scalars.get(j).map(|v| format::full(*v)).unwrap_or_default()
                    ),
                    _ => {
                        format!("{} ({i}): at most {} comes in", format::quoted(&t[i].token), format::full(t[i].max_in))
                    }
                })
            };
            view! {
                <span
                    class=class
                    style=style
                    title=title
                    on:mouseenter=move |_| hovered.set(Some(i))
                    on:mouseleave=move |_| hovered.set(None)
                    on:click=move |_| chosen.update(|c| *c = if *c == Some(i) { None } else { Some(i) })
                >{shown(&token)}</span>
            }
        })
        .collect_view();
    view! {
        <div class="text-map pairs" tabindex="0" role="group" aria-label="Text; arrow keys choose a token to see who reads it" on:keydown=on_key>{pieces}</div>
        <p class="small-text quiet" aria-live="polite">
            {move || at().map(|j| tokens.with_value(|t| {
                let mut best: Vec<(usize, f64)> = (j..t.len()).filter_map(|i| Some((i, *t[i].scalars.get(j)?))).collect();
                best.sort_by(|a, b| b.1.total_cmp(&a.1));
                let words: Vec<String> = best.iter().take(4).map(|(i, v)| format!("{} ({i}) {}", format::quoted(&t[*i].token), format::number(*v))).collect();
                format!("{} ({j}) is read most by: {}", format::quoted(&t[j].token), words.join(", "))
            }))}
        </p>
    }
}
