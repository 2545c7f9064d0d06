//! The checks that an answer carries: a badge that opens the list.

use leptos::prelude::*;
use tdb_api::Check;

use super::CollectView;
use super::{Show, dynamic};
use crate::format;
use crate::signals::Signal;

/// The outcome of the checks in a few words; `None` without checks.
pub fn verdict(checks: &[Check]) -> Option<String> {
    let failed = checks.iter().filter(|check| !check.passed).count();
    match (checks.len(), failed) {
        (0, _) => None,
        (n, 0) => Some(format!("{n} checks passed")),
        (n, failed) => Some(format!("{failed} of {n} checks failed")),
    }
}

/// Nothing while there are no checks.
#[component]
pub fn Ledger(#[prop(into)] checks: Signal<Vec<Check>>) -> impl IntoView {
    view! {
        <Show when=move || !checks.get().is_empty()>
            {dynamic(move || {
                let checks = checks.get();
                let failed = checks.iter().any(|check| !check.passed);
                let mark = if failed { "✗ " } else { "✓ " };
                view! {
                    <details class="ledger" class:bad=failed>
                        <summary>{mark}{verdict(&checks)}</summary>
                        <ul>{checks.into_iter().map(line).collect_view()}</ul>
                        <p class="quiet small-text">
                            "The formulas are held in the tests against the answers recorded from OpenAI's \
                                transformer-debugger, within 0.0002 + 0.1 %."
                        </p>
                    </details>
                }
            })}
        </Show>
    }
}

fn line(check: Check) -> AnyView {
    let title = format!("found {}, at most {}", format::full(check.found), format::full(check.limit));
    view! {
        <li
            class=if check.passed { "passed" } else { "failed" }
            data-check=check.name.as_str()
            data-passed=check.passed.to_string()
            title=title
        >
            <span aria-hidden="true">{if check.passed { "✓ " } else { "✗ " }}</span>
            <span class="visually-hidden">{if check.passed { "Passed: " } else { "Failed: " }}</span>
            {check.sentence}
        </li>
    }
    .into_any()
}
