//! The checks that an answer carries: a badge that opens the list.

use leptos::prelude::*;
use tdb_api::Check;

use crate::format;

/// Nothing while there are no checks.
#[component]
pub fn Ledger(#[prop(into)] checks: Signal<Vec<Check>>) -> impl IntoView {
    move || {
        let checks = checks.get();
        if checks.is_empty() {
            return ().into_any();
        }
        let failed = checks.iter().filter(|check| !check.passed).count();
        let badge = match failed {
            0 => format!("✓ {} checks passed", checks.len()),
            n => format!("✗ {n} of {} checks failed", checks.len()),
        };
        let lines = checks
            .into_iter()
            .map(|check| {
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
            })
            .collect_view();
        view! {
            <details class="ledger" class:bad=failed != 0>
                <summary>{badge}</summary>
                <ul>{lines}</ul>
                <p class="quiet small-text">
                    "The formulas are held in the tests against the answers recorded from OpenAI's transformer-debugger, within \
                        0.0002 + 0.1 %."
                </p>
            </details>
        }
        .into_any()
    }
}
