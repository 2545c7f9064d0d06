//! Magnitude and sign as a fill behind text. Colours are the style sheet's; here are only ratios and names.

use leptos::prelude::*;

use super::{dynamic, follows};
use crate::format;
use crate::signals::Signal;

/// `pos`, `neg` or nothing.
pub fn sign_class(value: f64) -> &'static str {
    if value > 0.0 {
        "pos"
    } else if value < 0.0 {
        "neg"
    } else {
        ""
    }
}

/// How full: `|value| / most`, clamped to 1 so that nothing falls off the scale.
pub fn fill_style(value: f64, most: f64) -> String {
    let ratio = if most > 0.0 { (value.abs() / most).min(1.0) } else { 0.0 };
    format!("--v:{ratio:.3}")
}

/// The diverging scale with its ends in numbers.
#[component]
pub fn DivergingLegend(#[prop(into)] most: Signal<f64>) -> impl IntoView {
    view! {
        <span
            class="legend"
            role="img"
            aria-label=follows(move || {
                format!("Scale from minus {0} (orange) to plus {0} (blue)", format::number(most.get()))
            })
        >
            <span>{dynamic(move || format::signed(-most.get()))}</span>
            <span class="legend-bar diverging"></span>
            <span>{dynamic(move || format::signed(most.get()))}</span>
        </span>
    }
}

/// A one-sided scale from nothing to `most`.
#[component]
pub fn SequentialLegend(
    kind: &'static str,
    label: &'static str,
    #[prop(into)] most: Signal<Option<f64>>,
) -> impl IntoView {
    view! {
        <span class="legend">
            <span>{label}" 0"</span>
            <span class=format!("legend-bar {kind}") aria-hidden="true"></span>
            <span>{dynamic(move || most.get().map_or_else(|| "most".to_owned(), format::number))}</span>
        </span>
    }
}
