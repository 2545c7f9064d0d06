//! The whole product, as a person uses it: ask, read, ablate, trace. What the page shows is what the interface says.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

use std::time::Duration;

use serde_json::{Value, json};
use tdb_testkit::http;
use tdb_testkit::server::Server;
use tdb_tests::browser::Browser;
use tdb_tests::serving;

/// Every line of the node table: name, class of its kind, and the values by column.
const LINES: &str = r##"
    return [...document.querySelectorAll('#node-table .line')].map(line => ({
        name: line.querySelector('.node-name').innerText,
        kind: line.querySelector('.node-name').className,
        values: Object.fromEntries([...line.querySelectorAll('[data-column]')].map(c => [c.dataset.column, c.dataset.value])),
    }));
"##;

/// The page's question, answered over the interface.
fn asked(server: &Server, changes: Value) -> Value {
    let mut spec = json!({
        "prompt": "<|endoftext|>Paris, France. Ottawa,", "targetTokens": [" Canada"], "distractorTokens": [" Germany"],
        "componentTypeForMlp": "neuron", "componentTypeForAttention": "attention_head",
        "topAndBottomKForNodeTable": 10, "hideEarlyLayersWhenAblating": true, "nodeAblations": [],
        "upstreamNodeToTrace": null, "downstreamNodeToTrace": null,
    });
    for (key, value) in changes.as_object().unwrap() {
        spec[key] = value.clone();
    }
    let body = json!({ "subRequests": [spec] }).to_string();
    let timeout = Duration::from_secs(60);
    let answer = http::request(server.address, "POST", "/batched_tdb", &[], Some(body.as_bytes()), timeout).unwrap();
    let answer: Value = serde_json::from_slice(&answer.body).unwrap();
    answer["inferenceSubResponses"][0]["processingResponseDataByName"]["topKComponents"].clone()
}

/// The values of a group of the answer.
fn group(components: &Value, name: &str) -> Vec<f64> {
    components["activationsByGroupId"][name].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn columns(line: &Value, column: &str) -> Vec<f64> {
    let values = line["values"].as_object().unwrap().iter();
    values
        .filter(|(k, _)| k.split('.').next() == Some(column))
        .map(|(_, v)| v.as_str().unwrap().parse().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn ask_read_ablate_and_trace() {
    let server = serving::serve(&[]).unwrap();
    let browser = Browser::start().await.unwrap();
    browser.open(&server, "/").await.unwrap();
    browser.see("#open-debugger").await.unwrap().click().await.unwrap();
    browser.see("#submit").await.unwrap().click().await.unwrap();
    browser.see("#node-table .line").await.unwrap();

    // Read: the model knows the answer, and every number in sight is one of the interface's.
    let candidates = browser.see("#candidates").await.unwrap().text().await.unwrap();
    assert!(candidates.contains("Canada"), "{candidates}");
    let lines = browser.ask(LINES).await.unwrap();
    let lines = lines.as_array().unwrap();
    assert!(lines.len() >= 5, "{lines:?}");
    let components = asked(&server, json!({}));
    for column in ["activation", "write_norm", "direction_write", "act_times_grad"] {
        let wire = group(&components, column);
        for line in lines {
            for shown in columns(line, column) {
                // The two programs' parsers may differ in the last bit.
                let same = |w: &f64| (w - shown).abs() <= 1e-12 * shown.abs();
                assert!(wire.iter().any(same), "{column} {shown} of {} is not in the answer", line["name"]);
            }
        }
    }
    let shown = lines.iter().map(|l| l["values"].as_object().unwrap().len()).sum::<usize>();
    assert!(shown >= 4 * lines.len(), "every line shows four numbers: {lines:?}");

    // Ablate the first node that can be: two sides, and the URL tells.
    browser.until("document.querySelector('#node-table [aria-label^=\"Ablate \"]')").await.unwrap();
    browser.ask("document.querySelector('#node-table [aria-label^=\"Ablate \"]').click();").await.unwrap();
    browser.see("#ablations .ablation").await.unwrap();
    browser.until("location.search.includes('nodeAblations')").await.unwrap();
    browser
        .until("!document.querySelector('#node-table.stale') && document.querySelector('#node-table.compare .line')")
        .await
        .unwrap();
    let compared = browser.ask(LINES).await.unwrap();
    let width = |line: &Value| line["values"].as_object().unwrap().len();
    assert!(compared.as_array().unwrap().iter().all(|l| width(l) >= 8), "baseline beside ablated: {compared}");
    browser.ask("document.querySelector('#ablations [aria-label^=\"Remove\"]').click();").await.unwrap();
    browser
        .until("!location.search.includes('nodeAblations') && !document.querySelector('#node-table.compare')")
        .await
        .unwrap();

    // Trace a neuron upstream: the answer is another one, about the neuron.
    browser
        .until("!document.querySelector('#node-table.stale') && document.querySelector('#node-table .kind-mlp')")
        .await
        .unwrap();
    let before = browser.ask(LINES).await.unwrap();
    let press = "const line = [...document.querySelectorAll('#node-table .line')]
        .find(l => l.querySelector('.kind-mlp') && l.querySelector('[aria-label^=\"Trace \"]'));
        line.querySelector('[aria-label^=\"Trace \"]').click();";
    browser.ask(press).await.unwrap();
    browser.until("location.search.includes('upstreamNodeToTrace')").await.unwrap();
    browser.see("#trace").await.unwrap();
    browser
        .until("!document.querySelector('#node-table.stale') && !document.getElementById('progress')")
        .await
        .unwrap();
    assert_ne!(browser.ask(LINES).await.unwrap(), before);
    browser.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_of_several_tokens_is_refused_in_words() {
    let server = serving::serve(&[]).unwrap();
    let browser = Browser::start().await.unwrap();
    browser.open(&server, "/").await.unwrap();
    let href = browser.see("#open-debugger").await.unwrap().attr("href").await.unwrap().unwrap();
    let path = href.split('?').next().unwrap();
    browser.open(&server, &format!("{path}?targetTokens=%5B%22+no+such+token+anywhere%22%5D")).await.unwrap();
    browser.see("#submit").await.unwrap().click().await.unwrap();
    browser.see("[role=alert], [aria-invalid=true]").await.unwrap();
    let text = browser.text().await.unwrap();
    assert!(text.contains("token"), "{text}");
    // A refused request is a failed load in the console's eyes, and nothing else is.
    for complaint in browser.complaints().await.unwrap() {
        assert!(complaint.contains("batched_tdb") || complaint.contains("status of 4"), "{complaint}");
    }
    browser.finish().await.unwrap();
}
