//! Pages that explain and do not mislead: sums that add up, definitions in place, links for other models, the tour; and
//! what used to stand in a researcher's way.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

use crate::ui_support::*;
use serde_json::json;
use tdb_api::page::{EXAMPLES, TOUR};
use tdb_tests::browser::Browser;
use thirtyfour::prelude::*;

/// The values of the bars, and the sum that stands at their end.
async fn bars(browser: &Browser, side: usize) -> (Vec<f64>, f64) {
    let script = format!(
        "return [...document.querySelectorAll('.waterfall')[{side}].querySelectorAll('.column')].map(c => c.dataset.value);"
    );
    let found = browser.ask(&script).await.unwrap();
    let mut values: Vec<f64> = found.as_array().unwrap().iter().map(|v| v.as_str().unwrap().parse().unwrap()).collect();
    let whole = values.pop().unwrap();
    (values, whole)
}

async fn number(browser: &Browser, expression: &str) -> f64 {
    let found = browser.ask(&format!("return Number({expression});")).await.unwrap();
    found.as_f64().unwrap_or_else(|| panic!("{expression} is {found}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn bars_add_up_to_the_headline_on_every_example() {
    let (server, browser) = start().await;
    browser.open(&server, "/").await.unwrap();
    for i in 0..EXAMPLES.len() {
        browser.open(&server, "/").await.unwrap();
        browser.until("document.querySelectorAll('.example[href]').length > 3").await.unwrap();
        browser.ask(&format!("document.querySelectorAll('.example')[{i}].click()")).await.unwrap();
        answered(&browser).await;
        browser.see(".waterfall .column").await.unwrap();
        let (values, whole) = bars(&browser, 0).await;
        let headline = number(&browser, "document.querySelector('#summary strong').dataset.value").await;
        assert_eq!(whole, headline, "{}", EXAMPLES[i].title);
        assert!((values.iter().sum::<f64>() - whole).abs() < 1e-3, "{}: {values:?}", EXAMPLES[i].title);
    }
    // A bar shows its nodes, and the table says how much of the whole they are.
    browser.ask("document.querySelector('.column[title^=\"MLP neurons of layer 3\"]').click()").await.unwrap();
    browser
        .until("[...document.querySelectorAll('.line .node-name')].every(n => n.innerText.startsWith('mlp_L3_'))")
        .await
        .unwrap();
    let listed = text(&browser, "#row-count").await;
    assert!(listed.contains("direct effects") && listed.contains('%'), "{listed}");
    // With latents there are errors, and how well they describe the prompt.
    browser.open(&server, "/").await.unwrap();
    click(&browser, "#open-latents").await;
    answered(&browser).await;
    browser.see(".column[title^=error]").await.unwrap();
    browser.read("Autoencoders explain of the variance: MLP ").await.unwrap();
    let (values, whole) = bars(&browser, 0).await;
    assert!((values.iter().sum::<f64>() - whole).abs() < 1e-3);
    browser.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_for_another_model_is_told_before_anything_is_shown() {
    let (server, browser) = start().await;
    for (path, shown) in [("/gpt2-small/tdb_alpha", ".line"), ("/gpt2-small/mlp_neuron/3/44", "#node-name")] {
        browser.open(&server, path).await.unwrap();
        browser.see("#other-model").await.unwrap();
        let told = text(&browser, "#other-model").await;
        assert!(told.contains("gpt2-small") && told.contains("embedded"), "{told}");
        assert_eq!(count(&browser, &format!("{shown}, #prompt, #examples")).await, 0, "{path}");
        accessible(&browser, path).await;
        click(&browser, "#other-model button").await;
        browser.see(shown).await.unwrap();
        assert!(text(&browser, "#other-model").await.contains("What is computed here is of the latter"));
    }
    let _ = browser.complaints().await.unwrap();
    browser.open(&server, "/embedded/mlp_neuron/3/5000").await.unwrap();
    browser.read("A layer has indices 0–511.").await.unwrap();
    browser.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tour_goes_through_its_steps() {
    let (server, browser) = start().await;
    browser.open(&server, "/").await.unwrap();
    click(&browser, "#take-tour").await;
    for (i, step) in TOUR.iter().enumerate() {
        browser.read(&format!("step {} of {}", i + 1, TOUR.len())).await.unwrap();
        answered(&browser).await;
        assert_eq!(text(&browser, "#tour p").await, step.statement.text());
        if step.statement.traced.is_none() {
            let left = number(&browser, "document.querySelector('#summary strong').dataset.value").await;
            assert!((left - step.statement.becomes).abs() < 0.0075, "{left} in {}", step.title);
        } else {
            let first = text(&browser, ".line .node-name").await;
            assert!(step.statement.words.contains(&first), "{first} comes first");
        }
        accessible(&browser, step.title).await;
        click(&browser, "#tour .button.primary").await;
    }
    browser.until("!document.querySelector('#tour') && !location.search.includes('tour')").await.unwrap();
    browser.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_of_columns_define_themselves_and_scores_say_their_kind() {
    let (server, browser) = start().await;
    open_debugger(&server, &browser).await;
    browser
        .ask("[...document.querySelectorAll('.cell.head .sort')].find(b => b.innerText.startsWith('Direct')).focus()")
        .await
        .unwrap();
    browser.until("!document.querySelector('#term-tip').hidden").await.unwrap();
    let told = text(&browser, "#term-tip").await;
    assert!(told.contains("Direct effect") && told.contains("∂") && told.contains("logits"), "{told}");
    press(&browser, Key::Escape + "").await;
    browser.until("document.querySelector('#term-tip').hidden").await.unwrap();
    // Heads are scored by another measure than neurons.
    for (path, kind) in [("mlp_neuron/3/53", "r "), ("attention_head/2/3", "AUC ")] {
        browser.open(&server, &format!("/embedded/{path}")).await.unwrap();
        browser.see("table.explanations td.num").await.unwrap();
        let shown = text(&browser, "table.explanations td.num").await;
        assert!(shown.starts_with(kind) && shown.contains("(chance 0"), "{shown}");
    }
    assert_eq!(count(&browser, "#own-explanation").await, 0, "nothing here can score it");
    browser.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_token_names_where_it_stands_and_both_probabilities() {
    let (server, browser) = start().await;
    browser.open(&server, "/").await.unwrap();
    browser.until("document.querySelectorAll('.example[href]').length > 3").await.unwrap();
    browser.ask("document.querySelector('.example').click()").await.unwrap();
    answered(&browser).await;
    browser.read("Next token after “ to” (14)").await.unwrap();
    // An embedding is ablated from its row; before and after stand side by side, in probabilities, too.
    write(&browser, "#filter", "embedding").await;
    browser.until("document.querySelector('.line .kind-embedding')").await.unwrap();
    browser.ask("document.querySelector('.line [title^=Ablate]').click()").await.unwrap();
    browser.see("#ablations li").await.unwrap();
    answered(&browser).await;
    browser.until("document.querySelector('#candidates thead').innerText.includes('Right p')").await.unwrap();
    assert_eq!(count(&browser, "#candidates tbody tr:first-child td.share").await, 2);
    // A trace at another token says so, and has no targets there.
    write(&browser, "#filter", "").await;
    click(&browser, "#ablations .close").await;
    browser.until("!document.querySelector('#ablations')").await.unwrap();
    answered(&browser).await;
    let node = json!({ "nodeType": "mlp_neuron", "tensorIndices": [6, 196], "layerIndex": 0, "passType": "forward" });
    let trace = json!({ "nodeIndex": node, "attentionTraceType": null, "downstreamTraceConfig": null });
    let link = format!("{}&upstreamNodeToTrace={}", address(&browser).await, trace);
    browser.driver.goto(&link).await.unwrap();
    answered(&browser).await;
    browser.read("Next token after “ to” (6)").await.unwrap();
    assert_eq!(count(&browser, "#candidates .role").await, 0);
    assert_eq!(count(&browser, "#sum").await, 0, "the sum is of the logits");
    browser.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn explanations_come_in_one_request_and_are_found_by_words() {
    let (server, browser) = start().await;
    open_debugger(&server, &browser).await;
    browser
        .until("[...document.querySelectorAll('.line .cut')].filter(e => e.innerText.length > 3).length > 3")
        .await
        .unwrap();
    let asked = number(
        &browser,
        "performance.getEntriesByType('resource').filter(e => e.name.includes('existing_explanations')).length",
    )
    .await;
    assert!((1.0..=3.0).contains(&asked), "{asked} requests for explanations");
    press(&browser, Key::Control + "k").await;
    browser.see("#jump").await.unwrap();
    press(&browser, "capital").await;
    browser.see("#found li").await.unwrap();
    let first = text(&browser, "#found li .node-name").await;
    assert!(text(&browser, "#found li").await.to_lowercase().contains("capital"));
    accessible(&browser, "found").await;
    click(&browser, "#found li a").await;
    browser.until(&format!("document.querySelector('#node-name')?.innerText === {}", json!(first))).await.unwrap();
    browser.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_moves_when_the_question_is_edited() {
    let (server, browser) = start().await;
    open_debugger(&server, &browser).await;
    let top = "document.querySelector('#node-table').getBoundingClientRect().top";
    let before = number(&browser, top).await;
    write(&browser, "#target-0", " France").await;
    browser.read("Prompt changed").await.unwrap();
    assert_eq!(number(&browser, top).await, before, "edited");
    write(&browser, "#target-0", " xqzzyx").await;
    browser.until("document.querySelector('#target-0-problem').innerText.includes('tokens:')").await.unwrap();
    assert_eq!(number(&browser, top).await, before, "with a message at the field");
    write(&browser, "#target-0", " France").await;
    submit(&browser).await;
    assert_eq!(number(&browser, top).await, before, "answered");
    // A distractor may be left empty; then the target's logit itself is asked about.
    write(&browser, "#distractor-0", "").await;
    submit(&browser).await;
    assert_eq!(count(&browser, ".token-note .field-error").await, 0);
    assert!(!text(&browser, "#summary").await.contains("rather than"));
    browser.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn details_are_whole_and_actions_cover_nothing() {
    let (server, browser) = start().await;
    open_debugger(&server, &browser).await;
    browser.ask("document.querySelector('.line:has(.kind-attention) .expand').click()").await.unwrap();
    browser.see(".detail .matrix").await.unwrap();
    let hidden = "(c => c.scrollHeight - c.clientHeight)(document.querySelector('.detail-cell'))";
    browser.until(&format!("{hidden} <= 0")).await.unwrap();
    // The next line begins where the details end.
    let gap = "(d => { const end = d.getBoundingClientRect().bottom; return Math.min(...[...document.querySelectorAll('.line')]
        .map(l => l.getBoundingClientRect().top - end).filter(g => g > -2)); })(document.querySelector('.detail'))";
    browser.until(&format!("Math.abs({gap}) < 2")).await.unwrap();
    let covered = "[...document.querySelectorAll('.line')].some(l => { const n = l.querySelector('.node-name'),
        a = l.querySelector('.row-actions'); return n && a && n.getBoundingClientRect().right > a.getBoundingClientRect().left + 1; })";
    assert_eq!(browser.ask(&format!("return {covered};")).await.unwrap(), json!(false));
    // The form for ablations stays open for the next one.
    browser.ask("document.querySelector('.interventions .card-head .button[aria-expanded]').click()").await.unwrap();
    browser.see(".add-ablation").await.unwrap();
    browser
        .ask("[...document.querySelectorAll('.add-ablation button')].find(b => b.innerText === 'Ablate').click()")
        .await
        .unwrap();
    browser.see("#ablations li").await.unwrap();
    answered(&browser).await;
    assert_eq!(count(&browser, ".add-ablation").await, 1);
    browser.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn touch_targets_are_large_enough_on_a_phone() {
    let (server, browser) = start().await;
    browser.resize(390, 844).await.unwrap();
    for (path, ready) in
        [("/", "#facts"), ("/embedded/tdb_alpha", ".line"), ("/embedded/attention_head/1/1", "#examples .example-box")]
    {
        browser.open(&server, path).await.unwrap();
        browser.see(ready).await.unwrap();
        browser.until("!document.querySelector('.skeleton') && !document.querySelector('#progress')").await.unwrap();
        // Links inside sentences are exempt, as in WCAG 2.5.8.
        let small = "return [...document.querySelectorAll('button, a, input, select, textarea')].filter(e => {
            const r = (e.closest('label') ?? e).getBoundingClientRect();
            const inline = e.tagName === 'A' && getComputedStyle(e).display === 'inline' && e.closest('p, li, td, .foot');
            return r.width > 0 && getComputedStyle(e).visibility !== 'hidden' && !e.closest('.visually-hidden, .skip')
                && !inline && (r.height < 23.5 || r.width < 23.5);
        }).map(e => e.outerHTML.slice(0, 90) + ' ' + e.getBoundingClientRect().height);";
        let small = browser.ask(small).await.unwrap();
        assert!(small.as_array().unwrap().is_empty(), "{path}: {small:#}");
    }
    browser.finish().await.unwrap();
}
