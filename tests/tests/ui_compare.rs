//! Two prompts of unequal length beside each other, the tokens card's sums, and the circuit, in a browser.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

use std::collections::HashMap;

use crate::ui_support::*;
use serde_json::{Value, json};
use tdb_tests::browser::Browser;

const LONGER: &str = "<|endoftext|>Say: tree. When Mary and John went to the store, John gave a drink to";

async fn add_second_prompt(browser: &Browser, prompt: &str) {
    browser
        .ask("[...document.querySelectorAll('.ask button')].find(b => b.innerText === 'Add second prompt').click()")
        .await
        .unwrap();
    browser.see("#prompt-right").await.unwrap();
    answered(browser).await;
    write(browser, "#prompt-right", prompt).await;
}

fn table(answer: &Value, side: usize) -> &Value {
    &answer["inferenceSubResponses"][side]["processingResponseDataByName"]["topKComponents"]
}

/// The values of a side's table by kind, layer and indices, with the tokens moved by `by`.
fn by_node(answer: &Value, side: usize, by: i64) -> HashMap<String, usize> {
    let key = |node: &Value| {
        let indices = node["tensorIndices"].as_array().unwrap();
        let (unit, tokens) = indices.split_last().unwrap();
        let tokens: Vec<i64> = tokens.iter().map(|t| t.as_i64().unwrap() + by).collect();
        format!("{} {} {tokens:?} {unit}", node["nodeType"], node["layerIndex"])
    };
    table(answer, side)["nodeIndices"].as_array().unwrap().iter().map(key).enumerate().map(|(i, k)| (k, i)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn prompts_of_unequal_length_are_compared_from_the_end_from_the_start_or_by_hand() {
    let (server, browser) = start().await;
    open_debugger(&server, &browser).await;
    write_ioi(&browser).await;
    submit(&browser).await;
    add_second_prompt(&browser, LONGER).await;
    browser.see("#alignment").await.unwrap();
    listen(&browser).await;
    submit(&browser).await;
    let told = answer(&server, &browser).await;
    let len = |side: usize| {
        told["inferenceSubResponses"][side]["inferenceResponse"]["inferenceAndTokenData"]["tokensAsInts"]
            .as_array()
            .unwrap()
            .len() as i64
    };
    let more = len(1) - len(0);
    assert!(more > 0);
    assert!(text(&browser, "#alignment").await.contains(&format!("{} and {} tokens", len(0), len(1))));

    // Every cell is the value of its node or of the one that stands for it.
    let (left, right) = (by_node(&told, 0, 0), by_node(&told, 1, -more));
    let nodes: Vec<&String> = {
        let mut nodes: Vec<_> = left.iter().collect();
        nodes.sort_by_key(|(_, at)| **at);
        nodes.into_iter().map(|(key, _)| key).collect()
    };
    let all = cells(&browser).await;
    let (mut compared, mut lonely) = (0, 0);
    for (row, column, full, shown_text) in &all {
        let (metric, side) = column.split_once('.').unwrap();
        let value = |side: usize, at: usize| table(&told, side)["activationsByGroupId"][metric][at].as_f64().unwrap();
        let Some(node) = nodes.get(*row) else {
            assert_eq!(side, "Right", "a node of the right prompt alone has nothing on the left");
            lonely += 1;
            continue;
        };
        let (on_left, on_right) = (value(0, *row), value(1, right[*node]));
        let want = match side {
            "Left" => on_left,
            "Right" => on_right,
            _ => on_left - on_right,
        };
        assert_eq!(*full, want, "row {row}, {column}");
        assert!((shown(shown_text) - want).abs() <= want.abs() * 0.06 + 1e-12);
        compared += 1;
    }
    assert!(compared > 100 && lonely > 0, "{compared} compared, {lonely} of the right prompt alone");
    // A row without a partner says so, and offers nothing that is named by the left prompt's tokens.
    browser.ask("document.querySelector('#filter').focus()").await.unwrap();
    write(&browser, "#filter", "tree").await;
    browser.see("[data-only=Right]").await.unwrap();
    assert!(count(&browser, "[data-none='activation.Left']").await > 0);
    assert_eq!(count(&browser, ".line:has([data-only=Right]) .act").await, 0);
    write(&browser, "#filter", " ").await;
    assert_eq!(count(&browser, "#effects .heat-side").await, 2);
    accessible(&browser, "two prompts of unequal length").await;

    // Exact effects of the right side are those of its own nodes.
    choose(&browser, "#exact-side", "Right").await;
    browser.until("document.querySelector('#exact-bound')?.innerText").await.unwrap();
    assert_eq!(count(&browser, "#exact .field-error").await, 0);

    // What is ablated is ablated at the tokens that stand for each other.
    browser.ask("document.querySelector('.line:has(.kind-mlp) .act').click()").await.unwrap();
    browser.until("document.querySelector('#ablations')").await.unwrap();
    answered(&browser).await;
    let asked = browser.ask("return window.asked.at(-1)").await.unwrap();
    let asked: Value = serde_json::from_str(asked.as_str().unwrap()).unwrap();
    let token =
        |side: usize| asked["subRequests"][side]["nodeAblations"][0]["nodeIndex"]["tensorIndices"][0].as_i64().unwrap();
    assert_eq!(token(1), token(0) + more);

    // From the start, and by hand.
    choose(&browser, "#align", "start").await;
    browser.until("location.search.includes('alignment=start')").await.unwrap();
    answered(&browser).await;
    choose(&browser, "#align", "hand").await;
    browser.until("document.querySelector('#align-pairs')?.value.startsWith('0:0 1:1 ')").await.unwrap();
    answered(&browser).await;
    browser
        .ask("const f = document.querySelector('#align-pairs'); f.value = '0:0 99:1'; f.dispatchEvent(new Event('change', { bubbles: true }))")
        .await
        .unwrap();
    browser.read("The first prompt has no token 99").await.unwrap();
    choose(&browser, "#align", "").await;
    browser
        .until("!document.querySelector('#alignment .field-error') && !location.search.includes('alignment')")
        .await
        .unwrap();
    answered(&browser).await;

    // The lens of either prompt.
    click(&browser, "#tool-lens").await;
    let columns = "document.querySelectorAll('#logit-lens tfoot th').length";
    browser.until(&format!("{columns} === {}", len(0))).await.unwrap();
    choose(&browser, "#lens-side", "right").await;
    browser.until(&format!("{columns} === {}", len(1))).await.unwrap();
    let refused = browser.complaints().await.unwrap();
    assert!(refused.len() == 1 && refused[0].contains("400"), "only the pair that does not exist: {refused:?}");

    // The link opens as it is.
    let link = address(&browser).await;
    browser.driver.goto(&link).await.unwrap();
    answered(&browser).await;
    assert_eq!(count(&browser, "#effects .heat-side").await, 2);
    browser.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tokens_card_adds_up_and_says_what_to() {
    let (server, browser) = start().await;
    open_debugger(&server, &browser).await;
    write_ioi(&browser).await;
    submit(&browser).await;
    // Rows and columns of parts add up to the totals; the attention is told once more below them, without a total.
    let script = "const n = td => Number(td.dataset.value), rows = [...document.querySelectorAll('#effects tbody tr')]
            .map(tr => [tr.querySelector('th').innerText, [...tr.querySelectorAll('td')].map(n)]);
        return [rows, Number(document.querySelector('#effects [data-sum]').dataset.sum),
            Number(document.querySelector('#effects [data-of]').dataset.of),
            [...document.querySelectorAll('#effects tbody td.total')].map(td => td.innerText)];";
    let found = browser.ask(script).await.unwrap();
    let rows = found[0].as_array().unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row[0].as_str().unwrap()).collect();
    assert_eq!(names, ["embeddings", "MLP layers", "attention, from", "total", "attention, to"]);
    let numbers = |row: usize| -> Vec<f64> {
        rows[row][1].as_array().unwrap().iter().map(|n| n.as_f64().unwrap_or(f64::NAN)).collect()
    };
    let (total, near) = (numbers(3), |a: f64, b: f64| (a - b).abs() < 1e-4);
    for at in 0..total.len() {
        assert!(near((0..3).map(|row| numbers(row)[at]).sum(), total[at]), "column {at}");
    }
    let last = total.len() - 1;
    assert!(near(total[..last].iter().sum(), total[last]) && near(found[1].as_f64().unwrap(), total[last]));
    let objective: f64 =
        browser.see("#summary strong").await.unwrap().attr("data-value").await.unwrap().unwrap().parse().unwrap();
    assert_eq!(found[2].as_f64(), Some(objective));
    assert!(text(&browser, "#effects [data-sum]").await.contains("logit difference"));
    assert_eq!(found[3][4], "", "one total is not shown twice");
    let read: f64 = numbers(4)[..last].iter().sum();
    assert!(near(read, numbers(2)[last]), "the same attention");

    // Of a long prompt the token of interest is in sight: the last, or the traced one.
    let long = format!("<|endoftext|>{}Mary and John went to the store, John gave a drink to", "When ".repeat(60));
    write(&browser, "#prompt", &long).await;
    submit(&browser).await;
    let seen = "const box = document.querySelector('#effects .heat-scroll').getBoundingClientRect();
        return [...document.querySelectorAll('#effects thead th')].map((th, i) => [th.getBoundingClientRect(), i])
            .filter(([r]) => r.left >= box.left && r.right <= box.right + 1).map(([, i]) => i);";
    let tokens = count(&browser, "#effects .heat-token").await;
    browser.until("document.querySelector('#effects .heat-scroll').scrollLeft > 300").await.unwrap();
    let in_sight = |seen: &Value, at: u64| seen.as_array().unwrap().iter().any(|i| i.as_u64() == Some(at));
    assert!(in_sight(&browser.ask(seen).await.unwrap(), tokens - 1));
    browser.finish().await.unwrap();
}

/// Opens the circuit and pins the nodes with the largest effects.
async fn pin_largest(browser: &Browser) {
    click(browser, "#tool-circuit").await;
    click(browser, "#pin-largest").await;
    browser.until("document.querySelector('#circuit-view .circuit-figures')").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_circuit_is_pinned_pruned_and_verified() {
    let (server, browser) = start().await;
    open_debugger(&server, &browser).await;
    write_ioi(&browser).await;
    submit(&browser).await;
    pin_largest(&browser).await;
    assert_eq!(count(&browser, "#pinned li").await, 10);
    let pinned = browser.ask("return new URLSearchParams(location.search).get('circuit')").await.unwrap();
    let nodes: Value = serde_json::from_str(pinned.as_str().unwrap()).unwrap();
    let ask = |nodes: Value, to: &'static str| {
        let body = json!({ "prompt": IOI, "targetTokens": [" Mary"], "distractorTokens": [" John"], "nodes": nodes, "ablateTo": to });
        post(&server, "/circuit", body)
    };
    let told = ask(nodes.clone(), "prompt_mean").await;
    let script = "const figures = document.querySelector('#circuit-view .circuit-figures').dataset;
        return [Number(figures.kept), Number(figures.removed)];";
    assert_eq!(browser.ask(script).await.unwrap(), json!([told["kept"], told["removed"]]));

    // Edges are the server's, those through a head's query, key and value together, from 2 % of the objective on.
    let mut sums: HashMap<(i64, i64), f64> = HashMap::new();
    for edge in told["edges"].as_array().unwrap() {
        let ends = (edge["from"].as_i64().unwrap(), edge["to"].as_i64().unwrap_or(-1));
        *sums.entry(ends).or_default() += edge["weight"].as_f64().unwrap();
    }
    let objective = told["objective"].as_f64().unwrap();
    let mut want: Vec<f64> = sums.values().copied().filter(|w| w.abs() >= 0.02 * objective).collect();
    want.sort_by(|a, b| b.abs().total_cmp(&a.abs()));
    let weights =
        "return [...document.querySelectorAll('#circuit-view [data-weight]')].map(td => Number(td.dataset.weight))";
    let shown = browser.ask(weights).await.unwrap();
    let shown: Vec<f64> = shown.as_array().unwrap().iter().map(|w| w.as_f64().unwrap()).collect();
    assert_eq!(shown.len(), want.len());
    assert!(shown.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-9), "{shown:?} {want:?}");
    let shown_ends = sums.iter().filter(|(_, w)| w.abs() >= 0.02 * objective).map(|(ends, _)| *ends);
    let mut from: Vec<i64> = shown_ends.map(|(from, _)| from).collect();
    from.sort_unstable();
    assert!(from.windows(2).any(|pair| pair[0] == pair[1]), "no node has two edges: {sums:?}");
    let drawn = count(&browser, "#circuit-view line.edge:not(.read)").await;
    assert_eq!(drawn, want.len() as u64);
    accessible(&browser, "the circuit").await;

    // The others at zero.
    choose(&browser, "#circuit-to", "zero").await;
    let told = ask(nodes, "zero").await;
    let kept =
        format!("Number(document.querySelector('#circuit-view .circuit-figures')?.dataset.kept) === {}", told["kept"]);
    browser.until(&kept).await.unwrap();

    // Fewer edges; what they do not lead to is pruned.
    browser
        .ask("const s = document.querySelector('#least-edge'); s.value = 5; s.dispatchEvent(new Event('input', { bubbles: true }))")
        .await
        .unwrap();
    browser
        .until(&format!("document.querySelectorAll('#circuit-view line.edge:not(.read)').length < {drawn}"))
        .await
        .unwrap();
    click(&browser, "#prune").await;
    browser.until("document.querySelectorAll('#pinned li').length < 10").await.unwrap();
    let left = count(&browser, "#pinned li").await;
    assert!(left > 1);
    let none =
        "document.querySelector('#circuit-view .circuit-figures') && !document.querySelector('#circuit-view .faint')";
    browser.until(none).await.unwrap();
    browser.ask("document.querySelector('#pinned .close').click()").await.unwrap();
    browser.until(&format!("document.querySelectorAll('#pinned li').length === {}", left - 1)).await.unwrap();

    // The address holds the circuit; rows are pinned by a key, and traced nodes are in it.
    let link = address(&browser).await;
    browser.driver.goto(&link).await.unwrap();
    answered(&browser).await;
    let dots = "document.querySelectorAll('#circuit circle:not(.output)').length";
    browser.until(&format!("{dots} === {}", left - 1)).await.unwrap();
    browser
        .ask("document.querySelector('.line:has(.kind-mlp)').click(); document.querySelector('#node-table').focus()")
        .await
        .unwrap();
    let before = browser.ask(&format!("return {dots}")).await.unwrap().as_u64().unwrap();
    press(&browser, "p").await;
    browser.until(&format!("{dots} !== {before}")).await.unwrap();
    press(&browser, "p").await;
    browser.until(&format!("{dots} === {before}")).await.unwrap();
    browser.finish().await.unwrap();
}
