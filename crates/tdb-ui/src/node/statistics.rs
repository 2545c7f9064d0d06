//! What the record says of the component over the whole text that it was collated on.

use leptos::prelude::*;
use tdb_api::RecordSummaryResponse;
use tdb_api::numbers::{fraction, root};
use tdb_api::routes::RecordSummary;

use super::Node;
use super::heat_text::line;
use crate::format;
use crate::remote::{Remote, follow};
use crate::ui::dynamic;
use crate::ui::{CardHead, ProblemCard};

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
    let bounds = &summary.quantile_boundaries;
    let quantiles = summary.examples_by_quantile.iter().enumerate().rev().map(|(i, texts)| {
        let edge = |at: Option<&f64>| at.map(|b| format::number(*b));
        let range = match (i.checked_sub(1).and_then(|i| edge(bounds.get(i))), edge(bounds.get(i))) {
            (None, None) => "any".to_owned(),
            (None, Some(high)) => format!("below {high}"),
            (Some(low), None) => format!("above {low}"),
            (Some(low), Some(high)) => format!("{low} to {high}"),
        };
        let texts = texts.iter().map(|text| view! { <div class="example-box">{line(text)}</div> }).collect_view();
        view! {
            <h3>"Texts whose largest value is "{range}</h3>
            <div class="example-grid">{texts}</div>
        }
    });
    view! {
        {flag(summary).map(|flag| view! { <p class="notice" id="node-flag">{flag}</p> })}
        <dl class="facts">
            {told.into_iter().map(|(name, (shown, full))| view! {
                <div><dt>{name}</dt><dd title=full>{shown}</dd></div>
            }).collect_view()}
        </dl>
        {missing.then(|| view! { <p class="quiet small-text">"The record does not tell the others."</p> })}
        {quantiles.collect_view()}
    }
}
