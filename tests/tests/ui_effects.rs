//! Exact effects beside estimates, the patch bench, and the checks of an answer, in a browser.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

use crate::ui_support::*;
use serde_json::{Value, json};
use tdb_testkit::server::Server;
use tdb_tests::browser::Browser;
use tdb_tests::serving;

const SWAPPED: &str = "<|endoftext|>When John and Mary went to the store, Mary gave a drink to";

/// Asks about Mary and John, and waits for the exact effects.
async fn ask(server: &Server, browser: &Browser) {
    open_debugger(server, browser).await;
    write_ioi(browser).await;
    submit(browser).await;
    browser.until("document.querySelector('#exact-bound')?.innerText.includes('95 % confidence')").await.unwrap();
}

async fn patched(server: &Server, more: Value) -> Value {
    let mut body = json!({
        "cleanPrompt": IOI, "corruptedPrompt": SWAPPED, "targetTokens": [" Mary"], "distractorTokens": [" John"],
    });
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    post(server, "/patch", body).await
}

async fn checks(browser: &Browser) -> (u64, u64) {
    browser.until("document.querySelector('.ledger')").await.unwrap();
    browser.ask("document.querySelector('.ledger summary').click()").await.unwrap();
    (count(browser, ".ledger li").await, count(browser, ".ledger li.failed").await)
}

#[tokio::test(flavor = "multi_thread")]
async fn exact_effects_arrive_in_the_rows_of_their_estimates() {
    let (server, browser) = start().await;
    ask(&server, &browser).await;
    let script = "return [...document.querySelectorAll('.line')].slice(0, 8).map(line => [
        line.querySelector('.node-name').innerText,
        line.querySelector('[data-exact]').dataset.value, line.querySelector('[data-exact]').dataset.parts,
        line.querySelector('[data-column=\"act_times_grad.Left\"]').dataset.value])";
    let rows = browser.ask(script).await.unwrap();
    let objective: f64 =
        browser.see("#summary strong").await.unwrap().attr("data-value").await.unwrap().unwrap().parse().unwrap();
    let number = |value: &Value| value.as_str().unwrap().parse::<f64>().unwrap();
    for row in rows.as_array().unwrap() {
        let (exact, estimate) = (number(&row[1]), number(&row[3]));
        let apart = (exact - estimate).abs();
        let parts = apart > 0.2 * exact.abs() && apart > 0.02 * objective.abs();
        assert_eq!(row[2], parts.to_string(), "{row}");
    }
    assert!(browser.text().await.unwrap().contains("estimates part from the exact effect"));
    let (all, failed) = checks(&browser).await;
    assert!(all >= 6 && failed == 0, "{all} checks, {failed} failed");
    accessible(&browser, "the debugger with exact effects").await;

    // Without them there is no column, also after the page is opened again.
    click(&browser, "#exact input").await;
    browser.until("!document.querySelector('[data-exact]')").await.unwrap();
    browser.driver.refresh().await.unwrap();
    answered(&browser).await;
    assert_eq!(count(&browser, "[data-exact]").await, 0);
    browser.finish().await.unwrap();
}

/// The exact effect in the first line and the row that the line shows, when all have come and nodes were set to `words`.
async fn first_exact(browser: &Browser, words: &str) -> (f64, usize) {
    let ready = format!(
        "document.querySelector('#exact-bound')?.innerText && \
         document.querySelector('[data-exact]')?.title.includes('set to {words};')"
    );
    browser.until(&ready).await.unwrap();
    let script = "const cell = document.querySelector('[data-exact]');
        return [cell.dataset.value, cell.closest('.line').id.slice('line-'.length)]";
    let found = browser.ask(script).await.unwrap();
    let word = |at: usize| found[at].as_str().unwrap();
    (word(0).parse().unwrap(), word(1).parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn exact_effects_are_of_the_chosen_mean_and_of_a_traced_node() {
    let (server, browser) = start().await;
    ask(&server, &browser).await;
    let (to_zero, row) = first_exact(&browser, "zero").await;
    choose(&browser, "#exact-to", "prompt_mean").await;
    let (to_mean, same) = first_exact(&browser, "mean over this prompt").await;
    assert_eq!(row, same);
    assert!((to_zero - to_mean).abs() > 1e-6, "{to_zero}, {to_mean}");
    // Records tell no mean of heads, but of neurons and latents.
    choose(&browser, "#exact-to", "collated_mean").await;
    let some =
        "[...document.querySelectorAll('[data-exact]')].some(c => c.title.includes('set to mean over the data set'))";
    browser.until(some).await.unwrap();
    choose(&browser, "#exact-to", "zero").await;
    first_exact(&browser, "zero").await;

    // While a node is traced the effects are on its value.
    listen(&browser).await;
    let first_neuron =
        "document.querySelector('.line:has(.kind-mlp)').click(); document.querySelector('#node-table').focus()";
    browser.ask(first_neuron).await.unwrap();
    press(&browser, "t").await;
    browser.see("#trace").await.unwrap();
    answered(&browser).await;
    let (exact, row) = first_exact(&browser, "zero").await;
    let asked = browser.ask("return window.asked.at(-1)").await.unwrap();
    let asked: Value = serde_json::from_str(asked.as_str().unwrap()).unwrap();
    let (side, answer) = (&asked["subRequests"][0], answer(&server, &browser).await);
    let table = &answer["inferenceSubResponses"][0]["processingResponseDataByName"]["topKComponents"];
    assert!(side["upstreamNodeToTrace"].is_object());
    let body = json!({
        "prompt": side["prompt"], "targetTokens": side["targetTokens"], "distractorTokens": side["distractorTokens"],
        "upstreamNodeToTrace": side["upstreamNodeToTrace"], "nodes": [table["nodeIndices"][row]],
    });
    let told = post(&server, "/effects", body).await["nodes"][0]["exact"].as_f64().unwrap();
    assert!((told - exact).abs() < 1e-6 + 1e-4 * told.abs(), "row {row}: {exact} on the page, {told} by the server");
    browser.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_patch_bench_finds_what_moves_the_name_and_every_state_is_a_link() {
    let (server, browser) = start().await;
    ask(&server, &browser).await;
    browser.ask("document.querySelector('.ask-foot a[href*=\"/patch\"]').click()").await.unwrap();
    browser.until("document.querySelector('.ledger')").await.unwrap();
    assert_eq!(value(&browser, "#corrupted").await, SWAPPED, "the names are exchanged");

    // Every cell is the server's.
    let answer = patched(&server, json!({})).await;
    let script = "return [...document.querySelectorAll('.map-cell')].map(c => [c.dataset.group, c.dataset.layer, c.dataset.at, c.dataset.value])";
    let cells = browser.ask(script).await.unwrap();
    let cells = cells.as_array().unwrap();
    assert_eq!(cells.len(), answer["cells"].as_array().unwrap().len());
    let number = |value: &Value| value.as_str().unwrap().parse::<f64>().unwrap();
    for cell in answer["cells"].as_array().unwrap() {
        let at = if cell["tokenIndex"].is_null() { &cell["unit"] } else { &cell["tokenIndex"] };
        let (layer, at) = (cell["layerIndex"].to_string(), at.to_string());
        let same = |c: &&Value| c[0] == cell["group"] && c[1] == layer && c[2] == at;
        let shown = cells.iter().find(same).unwrap_or_else(|| panic!("no cell for {cell}"));
        assert_eq!(number(&shown[3]), cell["effect"].as_f64().unwrap(), "{cell}");
    }
    // What the last token reads in the middle layers carries the name: heads that move it.
    let strongest =
        cells.iter().filter(|c| c[0] == "attention").max_by(|a, b| number(&a[3]).total_cmp(&number(&b[3]))).unwrap();
    assert_eq!((strongest[2].as_str(), number(&strongest[3]) > 0.5), (Some("14"), true), "{strongest}");
    let layer = strongest[1].as_str().unwrap().to_owned();

    // It opens into its heads, whose effects are the server's, too.
    click(&browser, &format!("#map-attention [data-layer='{layer}'][data-at='14']")).await;
    browser.until("document.querySelectorAll('#drill td').length === 32").await.unwrap();
    let units = json!({ "grids": [], "units": [{
        "activationLocationType": "attn.v_out", "layerIndex": layer.parse::<i64>().unwrap(), "tokenIndex": 14,
    }] });
    let heads = patched(&server, units).await;
    let most = heads["cells"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["effect"].as_f64().unwrap())
        .fold(0.0, |a: f64, b| if b.abs() > a.abs() { b } else { a });
    let shown: f64 =
        browser.see("#drill td").await.unwrap().attr("data-value").await.unwrap().unwrap().parse().unwrap();
    assert_eq!(shown, most, "the strongest head stands first");
    let link = address(&browser).await;
    assert!(link.contains("cells=attention."), "{link}");

    // Two cells together, and back.
    browser.ask(&format!("document.querySelector('#map-mlp [data-layer=\"{layer}\"][data-at=\"14\"]').dispatchEvent(new MouseEvent('click', {{ bubbles: true, ctrlKey: true }}))")).await.unwrap();
    browser.read("2 cells patched together").await.unwrap();
    browser.until("document.querySelectorAll('#drill td').length === 1").await.unwrap();
    click(&browser, "#undo").await;
    browser.until("document.querySelectorAll('#drill td').length === 32").await.unwrap();
    accessible(&browser, "the patch bench").await;

    // The link opens the same state; the other direction and a metric without a distractor answer, too.
    browser.driver.goto(&link).await.unwrap();
    browser.until("document.querySelectorAll('#drill td').length === 32").await.unwrap();
    choose(&browser, "#direction", "noising").await;
    choose(&browser, "#metric", "kl_divergence").await;
    click(&browser, "#patch").await;
    browser
        .until(
            "document.querySelector('[data-figure=clean]')?.dataset.value === '0' && document.querySelector('.ledger')",
        )
        .await
        .unwrap();
    assert_eq!(checks(&browser).await.1, 0);

    // Prompts that do not fit are told, and what stands stays.
    write(&browser, "#corrupted", "Too short").await;
    click(&browser, "#patch").await;
    browser.read("say in alignment which tokens stand for each other").await.unwrap();
    assert_eq!(value(&browser, "#clean").await, IOI);
    let refused = browser.complaints().await.unwrap();
    assert!(!refused.is_empty() && refused.iter().all(|complaint| complaint.contains("400")), "{refused:?}");
    browser.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_engine_turns_a_check_red() {
    let server = serving::serve(&["--plant-fault", "dropped-bias"]).unwrap();
    let browser = Browser::start().await.unwrap();
    browser.resize(1440, 900).await.unwrap();
    ask(&server, &browser).await;
    let (_, failed) = checks(&browser).await;
    assert_eq!(failed, 1);
    browser.see(".ledger.bad li.failed[data-check=writes]").await.unwrap();
    browser.finish().await.unwrap();
}

/// Drags one cell of the logit lenses onto another, as a hand does: while it moves, the other grid is marked, and drawn anew.
async fn drag(browser: &Browser, from: &str, to: &str) {
    // Nothing above them changes any more.
    let still = "!document.querySelector('.patch-maps .stale') && !document.querySelector('#drill .skeleton')
        && document.querySelectorAll('#drill .drill-group').length === (document.querySelector('#drill') ? 2 : 0)";
    browser.until(still).await.unwrap();
    browser.ask("document.querySelector('#lenses').scrollIntoView({ block: 'center' })").await.unwrap();
    let way = "const centre = name => {
            const r = document.querySelector(`#lenses [data-cell='${name}']`).getBoundingClientRect();
            return [r.x + r.width / 2, r.y + r.height / 2];
        }, [from, to] = arguments;
        return [0, 1].map(i => Math.round(centre(to)[i] - centre(from)[i]));";
    let way = browser.driver.execute(way, vec![from.into(), to.into()]).await.unwrap();
    let way: Vec<i64> = way.json().as_array().unwrap().iter().map(|n| n.as_i64().unwrap()).collect();
    let from = browser.see(&format!("#lenses [data-cell='{from}']")).await.unwrap();
    let hand = browser.driver.action_chain().click_and_hold_element(&from).move_by_offset(6, 6);
    let hand = hand.move_by_offset(way[0] - 9, way[1] - 6).move_by_offset(3, 0).release();
    hand.perform().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_dragged_onto_the_other_run_is_patched_there_and_what_it_reaches_is_marked() {
    let (server, browser) = start().await;
    ask(&server, &browser).await;
    browser.ask("document.querySelector('.ask-foot a[href*=\"/patch\"]').click()").await.unwrap();
    let drawn = "document.querySelector('.ledger') && !document.querySelector('.patch-maps .stale')";
    browser.until(&format!("{drawn} && document.querySelector('#lens-corrupted td')")).await.unwrap();
    let start = address(&browser).await;

    // The stream before layer 2 at the second name, from the clean into the corrupted run.
    drag(&browser, "clean.2.10", "corrupted.2.10").await;
    browser.until("location.search.includes('cells=residual.2.10')").await.unwrap();
    browser.until("document.querySelector('#lens-corrupted td.put [data-cell=\"corrupted.2.10\"]')").await.unwrap();
    let site = json!({ "activationLocationType": "resid.post_mlp", "layerIndex": 1, "tensorIndices": [10], "passType": "forward" });
    let one = patched(&server, json!({ "grids": [], "cells": [{ "sites": [site] }] })).await;
    let shown: f64 =
        browser.see("#map-residual .chosen").await.unwrap().attr("data-value").await.unwrap().unwrap().parse().unwrap();
    assert_eq!(shown, one["cells"][0]["effect"].as_f64().unwrap());
    browser.read("patched whole: metric").await.unwrap();
    // It reaches later layers at this and later tokens: those of layer 3 and the output, from token 10 to 14.
    assert_eq!(count(&browser, "#lens-corrupted td.reached").await, 10);
    assert_eq!(count(&browser, "#lens-clean td.reached").await, 0);

    // From the corrupted into the clean run it is noising; at another token it changes which tokens stand for each other.
    drag(&browser, "corrupted.1.2", "clean.1.4").await;
    browser.until("location.search.includes('direction=noising')").await.unwrap();
    assert!(address(&browser).await.contains("4%3A2"), "{}", address(&browser).await);
    browser.until("document.querySelector('#lens-clean td.put [data-cell=\"clean.1.4\"]')").await.unwrap();
    // Another layer takes nothing.
    drag(&browser, "clean.2.3", "corrupted.1.3").await;
    assert!(address(&browser).await.contains("cells=residual.1.4"));
    browser.ask("document.querySelector('#undo').click()").await.unwrap();
    browser.until("location.search.includes('cells=residual.2.10')").await.unwrap();
    browser.ask("document.querySelector('#undo').click()").await.unwrap();
    browser.until("!location.search.includes('cells=')").await.unwrap();
    assert_eq!(address(&browser).await, start);
    browser.until("!document.querySelector('.patch-maps .stale')").await.unwrap();
    accessible(&browser, "the patch bench with lenses").await;
    browser.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_opens_into_latents_and_paths_to_later_heads() {
    let (server, browser) = start().await;
    ask(&server, &browser).await;
    browser.ask("document.querySelector('.ask-foot a[href*=\"/patch\"]').click()").await.unwrap();
    browser.until("document.querySelector('.ledger') && !document.querySelector('.patch-maps .stale')").await.unwrap();
    click(&browser, "#map-mlp [data-layer='1'][data-at='10']").await;
    browser.until("document.querySelector('#drill h3')?.innerText === 'Neurons'").await.unwrap();
    click(&browser, "#open-into-latents").await;
    browser.until("document.querySelector('#drill h3')?.innerText === 'Latents'").await.unwrap();
    choose(&browser, "#paths", "2.V").await;
    browser.until("document.querySelectorAll('#drill td[data-group=paths]').length === 8").await.unwrap();
    let from = json!({ "activationLocationType": "resid.delta_mlp", "layerIndex": 1, "tensorIndices": [10], "passType": "forward" });
    let path = |head: i64| json!({ "from": from, "toLayer": 2, "toHead": head, "through": "V" });
    let more = json!({ "grids": [], "paths": (0..8).map(path).collect::<Vec<_>>() });
    let answer = patched(&server, more).await;
    let shown = browser
        .ask("return [...document.querySelectorAll('#drill td[data-group=paths]')].map(td => [td.parentNode.querySelector('th').innerText, td.dataset.value])")
        .await
        .unwrap();
    for row in shown.as_array().unwrap() {
        let head: i64 = row[0].as_str().unwrap().trim_start_matches("2:").parse().unwrap();
        let cell = answer["cells"].as_array().unwrap().iter().find(|c| c["unit"] == head).unwrap();
        assert_eq!(row[1].as_str().unwrap().parse::<f64>().unwrap(), cell["effect"].as_f64().unwrap(), "head {head}");
    }
    assert!(address(&browser).await.contains("into=2.V"));
    browser.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_checks_go_into_snapshots_links_and_exports() {
    let (server, browser) = start().await;
    ask(&server, &browser).await;
    let verdict = text(&browser, ".ledger summary").await.trim_start_matches('✓').trim().to_owned();
    assert!(verdict.ends_with("checks passed"), "{verdict}");
    let share = "[...document.querySelectorAll('.ask button')].find(b => b.innerText === 'Share').click()";
    let keep = "Object.defineProperty(navigator, 'clipboard', { value: { writeText: t => { window.copied = t; return Promise.resolve(); } } });";
    browser.ask(keep).await.unwrap();
    browser.ask(share).await.unwrap();
    pick(&browser, "Copy link").await;
    browser.until("window.copied").await.unwrap();
    let link = browser.ask("return window.copied;").await.unwrap().as_str().unwrap().to_owned();
    assert!(link.ends_with(&format!("#{}", verdict.replace(' ', "-"))), "{link}");
    catch_files(&browser).await;
    for entry in ["Save node table as CSV", "Save everything as JSON"] {
        browser.ask(share).await.unwrap();
        pick(&browser, entry).await;
    }
    assert!(saved(&browser, "tdb-nodes.csv").await.lines().next().unwrap().contains(&verdict));
    let whole: Value = serde_json::from_str(&saved(&browser, "tdb-answer.json").await).unwrap();
    let checks = whole["checks"].as_array().unwrap();
    assert_eq!(format!("{} checks passed", checks.len()), verdict);
    assert!(checks.iter().all(|check| check["found"].is_number() && check["limit"].is_number()));
    click(&browser, "#snapshots").await;
    browser
        .ask("[...document.querySelectorAll('dialog button')].find(b => b.innerText === 'Save this state').click()")
        .await
        .unwrap();
    browser.until("document.querySelector('.snapshots li')").await.unwrap();
    let snapshot = text(&browser, ".snapshots li").await;
    assert!(snapshot.contains(&verdict) && snapshot.contains("+6.45"), "{snapshot}");
    // Such a link opens as any other.
    let fresh = Browser::start().await.unwrap();
    fresh.driver.goto(&link).await.unwrap();
    answered(&fresh).await;
    assert!(text(&fresh, "#summary strong").await.contains("6.45"));
    fresh.finish().await.unwrap();
    browser.finish().await.unwrap();
}
