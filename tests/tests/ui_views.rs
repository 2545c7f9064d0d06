//! Logit lens, continuations, log, weights and scores of heads: what the pages show is what the interface answers, and
//! what it answers agrees with what is known otherwise.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

use crate::ui_support;
use std::time::Duration;

use crate::ui_support::*;
use serde_json::{Value, json};
use tdb_api::page::EXAMPLES;
use tdb_testkit::server::Server;
use tdb_tests::browser::Browser;
use tdb_tests::serving;

/// Status and body of what a route answers.
fn ask(server: &Server, path: &str, body: &Value) -> (u16, String) {
    let headers = [("content-type", "application/json")];
    let body = body.to_string();
    let wait = Duration::from_secs(60);
    let sent = tdb_testkit::http::request(server.address, "POST", path, &headers, Some(body.as_bytes()), wait).unwrap();
    (sent.status, String::from_utf8(sent.body).unwrap())
}

fn answer(server: &Server, path: &str, body: &Value) -> Value {
    let (status, text) = ask(server, path, body);
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).unwrap()
}

fn sample(temperature: f64, ablations: &Value) -> Value {
    json!({ "prompt": IOI, "nodeAblations": ablations, "tokens": 6, "temperature": temperature, "topP": 0.9, "seed": 3 })
}

/// What was drawn on a side.
fn drawn(server: &Server, request: &Value, side: u64) -> Vec<String> {
    let (status, text) = ask(server, "/sample/stream", request);
    assert_eq!(status, 200, "{text}");
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.last().unwrap()["event"], "done", "{text}");
    let of_side = events.iter().filter(|e| e["event"] == "sampled" && e["side"] == side);
    of_side.map(|e| e["token"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn lens_weights_scores_and_continuations_agree_with_each_other() {
    let server = serving::serve(&[]).unwrap();
    let lens = json!({ "prompt": IOI, "targetTokens": [" Mary"], "distractorTokens": [" John"], "lastTokens": 2 });
    let lens = answer(&server, "/logit_lens", &lens);
    let last = &lens["layers"].as_array().unwrap().last().unwrap()["cells"][1];
    assert_eq!((&last["top"], &last["targetRank"]), (&json!(" Mary"), &json!(1)));
    let ratio = last["targetProbability"].as_f64().unwrap() / last["distractorProbability"].as_f64().unwrap();
    let difference = EXAMPLES[0].statements[0].becomes;
    assert!((ratio.ln() - difference).abs() < 0.0075, "the lens ends at the logit difference: {}", ratio.ln());
    // The likeliest token is the first of a greedy continuation; a seed gives the same tokens again.
    assert_eq!(drawn(&server, &sample(0.0, &json!([])), 0)[0], " Mary");
    let once = drawn(&server, &sample(1.0, &json!([])), 0);
    assert_eq!((once.len(), &once), (6, &drawn(&server, &sample(1.0, &json!([])), 0)));
    // Neighbourhood goes both ways.
    let named = |index: i64| json!({ "nodeType": "mlp_neuron", "layerIndex": 3, "activationIndex": index });
    let weights = answer(&server, "/component_weights", &named(53));
    let near = weights["neighbours"].as_array().unwrap().iter().find(|n| n["nodeType"] == "mlp_neuron").unwrap();
    assert!(near["value"].as_f64().unwrap().abs() <= 1.0 + 1e-6);
    let counted: i64 = weights["logitEffects"]["counts"].as_array().unwrap().iter().map(|c| c.as_i64().unwrap()).sum();
    let promoted = &weights["promoted"][0];
    assert!(counted > 1000 && promoted.is_object(), "{weights:#}");
    // The heads that the start page says know what came before are previous-token heads by their scores; no score leaves
    // its range.
    let scores = |layer: i64, head: i64| {
        let head = json!({ "nodeType": "attention_head", "layerIndex": layer, "activationIndex": head });
        answer(&server, "/head_scores", &head)
    };
    let previous = |layer: i64, head: i64| scores(layer, head)["previousToken"].as_f64().unwrap();
    let others = (0..8).filter(|head| ![3, 7].contains(head)).map(|head| previous(0, head));
    let most = others.fold(0.0, f64::max);
    assert!(
        previous(0, 3) > most && previous(0, 7) > most,
        "{} and {}, others at most {most}",
        previous(0, 3),
        previous(0, 7)
    );
    for name in ["previousToken", "duplicateToken", "induction", "copying"] {
        assert!((0.0..=1.0).contains(&scores(0, 3)[name].as_f64().unwrap()), "{name}");
    }
}

#[test]
fn what_cannot_be_asked_is_refused_with_what_would_be_right() {
    let server = serving::serve(&[]).unwrap();
    let bad = |name: &str, value: Value| {
        let mut request = sample(1.0, &json!([]));
        request[name] = value;
        request
    };
    let head = |index: i64| json!({ "nodeType": "attention_head", "layerIndex": 0, "activationIndex": index });
    let neuron = json!({ "nodeType": "mlp_neuron", "layerIndex": 0, "activationIndex": 0 });
    let lens = json!({ "prompt": IOI, "targetTokens": [" Mary"], "distractorTokens": [], "lastTokens": 0 });
    for (path, request, told) in [
        ("/head_scores", head(99), "activationIndex: is 99"),
        ("/head_scores", neuron, "scores are of attention heads"),
        ("/component_weights", head(0), "nodeType"),
        ("/head_readings", json!({ "layerIndex": 4, "activationIndex": 0 }), "layerIndex: is 4, outside 0..4"),
        ("/logit_lens", lens, "lastTokens: must be a positive number"),
    ] {
        let (status, text) = ask(&server, path, &request);
        assert!((400..500).contains(&status) && text.contains(told), "{path}: {status} {text}");
    }
    for (request, told) in [
        (bad("tokens", json!(0)), "tokens: is 0"),
        (bad("temperature", json!(-1)), "temperature: is -1"),
        (bad("topP", json!(0)), "topP: is 0"),
    ] {
        let (_, text) = ask(&server, "/sample/stream", &request);
        assert!(text.contains(told) && !text.contains("sampled"), "{text}");
    }
}

async fn close(browser: &Browser) {
    browser.ask("document.querySelector('dialog[open]').close()").await.unwrap();
    browser.until("!document.querySelector('dialog[open]')").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn views_of_the_question_show_what_the_interface_answers() {
    let (server, browser) = start().await;
    browser.open(&server, "/").await.unwrap();
    browser.until("document.querySelectorAll('.example[href]').length > 3").await.unwrap();
    browser.ask("document.querySelector('.example').click()").await.unwrap();
    answered(&browser).await;
    click(&browser, "#tool-lens").await;
    browser.see("#logit-lens .lens-grid td").await.unwrap();
    let shown = "document.querySelector('#logit-lens .lens-grid tr:first-child td:last-child')";
    let found = browser.ask(&format!("return [{shown}.innerText, Number({shown}.dataset.value)];")).await.unwrap();
    assert_eq!(found[0], "·Mary");
    let lens = json!({ "prompt": IOI, "targetTokens": [" Mary"], "distractorTokens": [" John"], "lastTokens": 1 });
    let told = post(&server, "/logit_lens", lens).await;
    let last = &told["layers"].as_array().unwrap().last().unwrap()["cells"][0]["probability"];
    assert!((found[1].as_f64().unwrap() - last.as_f64().unwrap()).abs() < 1e-9, "{found} {last}");
    accessible(&browser, "logit lens").await;
    close(&browser).await;
    click(&browser, "#tool-patterns").await;
    browser.until("document.querySelectorAll('#patterns [data-head]').length === 32").await.unwrap();
    click(&browser, "#patterns [data-head='1.2']").await;
    browser.until("document.querySelector('#patterns h3').innerText === 'attn_L1_2'").await.unwrap();
    browser.see("#patterns .matrix td").await.unwrap();
    accessible(&browser, "patterns").await;
    close(&browser).await;
    click(&browser, "#tool-sampling").await;
    write(&browser, "#sample-temperature", "0").await;
    write(&browser, "#sample-tokens", "3").await;
    click(&browser, "#sampling button[type=submit]").await;
    browser.until("document.querySelectorAll('#continued-0 .piece').length === 3").await.unwrap();
    assert_eq!(text(&browser, "#continued-0 .piece").await.trim(), "Mary");
    accessible(&browser, "continuations").await;
    close(&browser).await;
    click(&browser, "#tool-log").await;
    browser.until("document.querySelectorAll('.log li').length >= 2").await.unwrap();
    write(&browser, "#log-note", "a thought").await;
    click(&browser, "#log button[type=submit]").await;
    browser.until("document.querySelectorAll('.log li').length >= 3").await.unwrap();
    accessible(&browser, "log").await;
    browser.finish().await.unwrap();
}

/// The counts of a histogram's bars.
async fn bars(browser: &Browser, card: &str) -> Vec<Value> {
    let script =
        format!("return [...document.querySelectorAll('{card} .histogram .bar')].map(b => Number(b.dataset.value));");
    browser.ask(&script).await.unwrap().as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_nodes_tell_weights_statistics_and_scores() {
    let (server, browser) = start().await;
    browser.open(&server, "/embedded/mlp_neuron/3/53").await.unwrap();
    browser.see("#weights .histogram .bar").await.unwrap();
    let request = json!({ "nodeType": "mlp_neuron", "layerIndex": 3, "activationIndex": 53 });
    let told = post(&server, "/component_weights", request).await;
    let nearest = "document.querySelector('#weights tbody td').title";
    let shown = browser.ask(&format!("return Number({nearest});")).await.unwrap();
    assert!((shown.as_f64().unwrap() - told["neighbours"][0]["value"].as_f64().unwrap()).abs() < 1e-9, "{shown}");
    browser.see("#statistics dl dd").await.unwrap();
    let record = json!({ "dst": "mlp_post_act", "layerIndex": 3, "activationIndex": 53, "datasets": ["embedded"] });
    let record = post(&server, "/record_summary", record).await;
    assert!(record["values"].as_i64().unwrap() > 100_000, "{record}");
    let shown = bars(&browser, "#statistics").await;
    match record["histogram"]["counts"].as_array() {
        Some(counts) => assert_eq!(shown, *counts),
        None => assert!(shown.is_empty() && text(&browser, "#statistics").await.contains("has no histogram")),
    }
    assert_eq!(bars(&browser, "#weights").await, *told["logitEffects"]["counts"].as_array().unwrap());
    accessible(&browser, "neuron").await;
    browser.open(&server, "/embedded/attention_head/1/0").await.unwrap();
    browser.see("#head-scores li").await.unwrap();
    let scores = json!({ "nodeType": "attention_head", "layerIndex": 1, "activationIndex": 0 });
    let scores = post(&server, "/head_scores", scores).await;
    let induction = format!("Induction {:.2}", scores["induction"].as_f64().unwrap());
    assert!(text(&browser, "#head-scores").await.contains(&induction), "{induction}");
    accessible(&browser, "head").await;
    browser.open(&server, "/embedded/attention_head/1/0?promptsOfInterest=lamp+tree+king").await.unwrap();
    browser.see("#readings table td").await.unwrap();
    let request = json!({ "layerIndex": 1, "activationIndex": 0, "prompt": "lamp tree king" });
    let told = post(&server, "/head_readings", request).await;
    let script = "return [...document.querySelectorAll('#readings tbody tr, #readings .list')].map(row =>
        [...row.querySelectorAll('.token-index')].map(e => Number(e.dataset.value)));";
    let shown = browser.ask(script).await.unwrap();
    let mut expected = Vec::new();
    for circuit in ["ov", "qk"] {
        for reading in told[circuit]["tokens"].as_array().unwrap() {
            let ends = ["top", "bottom"].map(|end| reading["tokens"][end].as_array().unwrap()[..5].to_vec());
            expected.push(ends.concat().iter().map(|t| t["scalar"].clone()).collect::<Vec<_>>());
        }
        expected.push(told[circuit]["pairs"].as_array().unwrap().iter().map(|p| p["value"].clone()).collect());
    }
    assert_eq!(shown, json!(expected));
    accessible(&browser, "readings").await;
    browser.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_latent_is_held_while_the_prompt_is_continued_and_its_dose_curve_is_the_interfaces() {
    let (server, browser) = start().await;
    open_debugger(&server, &browser).await;
    listen(&browser).await;
    click(&browser, "#tool-sampling").await;
    write(&browser, "#sample-temperature", "0").await;
    write(&browser, "#sample-tokens", "3").await;
    write(&browser, "#hold-node", "no such").await;
    browser.read("Name a node with layer and index").await.unwrap();
    write(&browser, "#hold-node", "mlp_L3_444").await;
    write(&browser, "#hold-value", "-8").await;
    click(&browser, "#sampling button[type=submit]").await;
    browser.until("document.querySelectorAll('#continued-1 .piece').length === 3").await.unwrap();
    browser.see("#continued-0 .piece").await.unwrap();
    browser.ask("document.querySelector('#doses button').click()").await.unwrap();
    browser.until("document.querySelectorAll('#dose-curve circle').length === 11").await.unwrap();
    let answer = ui_support::answer(&server, &browser).await;
    let told: Vec<f64> = answer["inferenceSubResponses"]
        .as_array()
        .unwrap()
        .iter()
        .map(|side| side["inferenceResponse"]["inferenceAndTokenData"]["loss"].as_f64().unwrap())
        .collect();
    let drawn = browser
        .ask("return [...document.querySelectorAll('#dose-curve circle')].map(c => Number(c.dataset.value))")
        .await
        .unwrap();
    let drawn: Vec<f64> = drawn.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    assert_eq!(drawn, told);
    assert!(told.first() != told.last(), "{told:?}");
    accessible(&browser, "a held node").await;
    browser.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_as_a_notebook_prints_the_logs_numbers_when_it_runs() {
    let (server, browser) = start().await;
    open_debugger(&server, &browser).await;
    browser.ask("document.querySelector('.line:has(.kind-mlp) [title^=Ablate]').click()").await.unwrap();
    browser.see("#ablations li").await.unwrap();
    answered(&browser).await;
    click(&browser, "#tool-log").await;
    browser.until("document.querySelectorAll('.log li').length >= 2").await.unwrap();
    catch_files(&browser).await;
    browser
        .ask("[...document.querySelectorAll('#log button')].find(b => b.innerText === 'Export').click()")
        .await
        .unwrap();
    pick(&browser, "Notebook").await;
    let notebook: Value = serde_json::from_str(&saved(&browser, "tdb-log.ipynb").await).unwrap();
    let cells: Vec<&Value> =
        notebook["cells"].as_array().unwrap().iter().filter(|cell| cell["cell_type"] == "code").collect();
    let stored: String = cells.iter().filter_map(|cell| cell["outputs"][0]["text"].as_str()).collect();
    // As a kernel does: the cells one after the other, in one namespace.
    let program = cells.iter().map(|cell| cell["source"].as_str().unwrap()).collect::<Vec<_>>().join("\n\n");
    let run = move || std::process::Command::new("python3").args(["-c", &program]).output();
    let run = tokio::task::spawn_blocking(run).await.unwrap().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let numbers = |text: &str| text.split_whitespace().map(|n| n.parse().unwrap()).collect::<Vec<f64>>();
    let (found, stored) = (numbers(&String::from_utf8_lossy(&run.stdout)), numbers(&stored));
    // The pages' reader of JSON may be off by one in a number's last digit (`serde_json` without `float_roundtrip`).
    let same = |(a, b): (&f64, &f64)| (a - b).abs() <= 2.0 * f64::EPSILON * b.abs();
    assert!(found.len() == stored.len() && found.iter().zip(&stored).all(same), "{found:?} for {stored:?}");
    // The first run has one side, the ablated one two.
    assert!(stored.len() >= 3, "{stored:?}");
    browser.finish().await.unwrap();
}
