//! What the record says of the component over the whole text that it was collated on.

use leptos::prelude::*;
use tdb_api::RecordSummaryResponse;
use tdb_api::numbers::{fraction, root};
use tdb_api::routes::RecordSummary;

use super::heat_text::line;
use super::{Node, histogram};
use crate::format;
use crate::remote::{Remote, follow};
use crate::ui::{CardHead, CollectView, ProblemCard, dynamic};

const NO_HISTOGRAM: &str = "This record has no histogram: it is of an older format, or of one that has none.";

/// Below this share of values above 0 a component is called rare.
const RARE: f64 = 0.001;

#[component]
pub fn Statistics() -> impl IntoView {
    let node = Node::get();
    let (state, again) =
        follow::<RecordSummary>(move || if node.has_records.get() == Some(true) { node.stored() } else { None });
    view! {
        <section class="card" aria-label="Statistics" id="statistics">
            <CardHead
                title="Statistics"
                about="the statistics"
                tip="Over the whole text that the component's record was collated on, not over the examples shown."
            />
            <div class="card-body stack">
                {dynamic(move || match state.get() {
                    Remote::Ready(summary) => draw(&summary).into_any(),
                    Remote::Failed(problem) if problem.is_missing_route() => none(),
                    Remote::Failed(problem) => view! { <ProblemCard problem=problem retry=again /> }.into_any(),
                    Remote::Idle if node.has_records.get() == Some(false) => none(),
                    _ => view! { <div class="skeleton"></div> }.into_any(),
                })}
            </div>
        </section>
    }
}

fn none() -> AnyView {
    view! { <p class="quiet">"No record is stored for this node."</p> }.into_any()
}

/// What is unusual about the component.
fn flag(summary: &RecordSummaryResponse) -> Option<&'static str> {
    let density = fraction(summary.positive_values? as f64, summary.values? as f64)?;
    if density == 0.0 {
        Some("dead: never above 0")
    } else if density < RARE {
        Some("rare: above 0 in less than 0.1 %")
    } else {
        None
    }
}

/// What the largest values of the texts in each of `n` bands are, in words. A band without a width in which nothing can
/// be, as all but one of a dead component, is none.
fn bands(bounds: &[f64], n: usize) -> Vec<Option<String>> {
    let edge = |at: Option<usize>| at.and_then(|at| bounds.get(at)).copied();
    let band = |i: usize| match (edge(i.checked_sub(1)), edge(Some(i))) {
        (None, None) => Some("any".to_owned()),
        (None, Some(high)) => Some(format!("{} or less", format::number(high))),
        (Some(low), None) => Some(format!("above {}", format::number(low))),
        (Some(low), Some(high)) if low == high => None,
        (Some(low), Some(high)) => Some(format!("{} to {}", format::number(low), format::number(high))),
    };
    (0..n).map(band).collect()
}

fn draw(summary: &RecordSummaryResponse) -> impl IntoView + use<> {
    let count = |n: i64| format::count(n.unsigned_abs());
    let share = |part: Option<i64>, whole: Option<i64>| {
        let (part, whole) = (part?, whole?);
        let share = fraction(part as f64, whole as f64).map(format::percent).unwrap_or_default();
        Some((format!("{share} ({} of {})", count(part), count(whole)), share))
    };
    let number = |value: Option<f64>| value.map(|v| (format::number(v), format::full(v)));
    let facts = [
        ("Density: values above 0", share(summary.positive_values, summary.values)),
        ("Texts with one", share(summary.active_texts, summary.texts)),
        ("Mean", number(summary.mean)),
        ("Standard deviation", number(summary.variance.map(root))),
        ("Skewness", number(summary.skewness)),
        ("Kurtosis (normal: 3)", number(summary.kurtosis)),
    ];
    let told: Vec<_> = facts.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    let missing = told.len() < 6;
    let zeros = summary.histogram.as_ref().zip(summary.values).map_or(0, |(h, n)| n - h.counts.iter().sum::<i64>());
    let values = summary.histogram.as_ref().map(|h| histogram::draw(h, "values"));
    let bands = bands(&summary.quantile_boundaries, summary.examples_by_quantile.len());
    let quantiles = summary.examples_by_quantile.iter().zip(bands).rev().map(|(texts, range)| {
        let texts = texts.iter().map(|text| view! { <div class="example-box">{line(text)}</div> }).collect_view();
        range.map(|range| view! { <div><p class="small-text">"Largest value "{range}</p>{texts}</div> })
    });
    let has_texts = quantiles.len() > 0;
    view! {
        {flag(summary).map(|flag| view! { <p class="notice" id="node-flag">{flag}</p> })}
        <dl class="facts">
            {told.into_iter().map(|(name, (shown, full))| view! {
                <div><dt>{name}</dt><dd title=full>{shown}</dd></div>
            }).collect_view()}
        </dl>
        <h3>"Activations over the text"</h3>
        <div inner_html=values.unwrap_or_else(|| NO_HISTOGRAM.into())></div>
        {(zeros > 0).then(|| {
            view! { <p class="quiet small-text">{format!("{} further values are 0.", count(zeros))}</p> }
        })}
        {missing.then(|| view! { <p class="quiet small-text">"The record does not tell the others."</p> })}
        {has_texts.then(|| view! {
            <h3>"Texts by their largest value"</h3>
            <div class="example-grid">{quantiles.collect_view()}</div>
        })}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_are_told_by_their_ends() {
        let words = |bounds: &[f64]| bands(bounds, bounds.len() + 1).into_iter().flatten().collect::<Vec<_>>();
        assert_eq!(words(&[]), ["any"]);
        assert_eq!(words(&[1.0, 2.5]), ["1.00 or less", "1.00 to 2.50", "above 2.50"]);
        // Nothing was ever above 0.
        assert_eq!(words(&[0.0, 0.0, 0.0]), ["0 or less", "above 0"]);
    }
}
