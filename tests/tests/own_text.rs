//! From a person's own text to the pages: collate, serve, look.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tdb_testkit::{http, server};
use tdb_tests::browser::Browser;
use tdb_tests::serving;

/// Asks a route and returns its answer.
async fn ask(server: &tdb_testkit::server::Server, path: &'static str, body: Value) -> Value {
    let address = server.address;
    let ask = move || {
        let body = body.to_string();
        http::request(address, "POST", path, &[], Some(body.as_bytes()), Duration::from_secs(60))
    };
    let answer = tokio::task::spawn_blocking(ask).await.unwrap().unwrap();
    assert_eq!(answer.status, 200, "{path}: {}", String::from_utf8_lossy(&answer.body));
    serde_json::from_slice(&answer.body).unwrap()
}

fn collate(folder: &Path) {
    let names = ["Mary", "John", "Anna", "Tom", "Sarah"];
    let sentence = |i: usize| {
        let (a, b) = (names[i % 5], names[(i + 1 + i / 5) % 5]);
        format!("When {a} and {b} went to the store, {b} gave a drink to {a} at {i}.")
    };
    let text: Vec<String> = (10..90).map(sentence).collect();
    std::fs::write(folder.join("mine.txt"), text.join("\n\n")).unwrap();
    let command = ["collate", "mine.txt", "--out", "collated", "--tokens", "24", "--k", "4", "--random", "4"];
    let output = Command::new(server::binary().unwrap()).args(command).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn ones_own_text_is_collated_served_and_seen() {
    let folder = tempfile::tempdir().unwrap();
    collate(folder.path());
    // The folder may be moved before it is shown.
    let moved = folder.path().join("elsewhere");
    std::fs::rename(folder.path().join("collated"), &moved).unwrap();
    let registry = moved.join("registry.toml");
    let server = serving::serve(&["--registry", registry.to_str().unwrap()]).unwrap();

    let latents = "embedded_sae-resid-delta-mlp";
    for (path, scalar, dataset) in [
        ("/neuron_record", "mlp_post_act", "embedded"),
        ("/attention_head_record", "attn_write_norm", "embedded"),
        ("/neuron_record", "online_mlp_autoencoder_latent", latents),
    ] {
        let node = json!({"dst": scalar, "layerIndex": 1, "activationIndex": 2, "datasets": [dataset]});
        let record = ask(&server, path, node).await;
        let (text, place) = (record.to_string(), record["dataset"].as_str().unwrap());
        assert!(text.contains("\" drink\"") && Path::new(place).starts_with(&moved), "{scalar}: {text}");
    }
    let node = json!({"dst": "mlp_post_act", "layerIndex": 1, "activationIndex": 2, "explanationDatasets": [],
        "neuronDataset": "embedded"});
    let explained = ask(&server, "/existing_explanations", node).await;
    assert_eq!(explained.as_array().unwrap().len(), 1, "the built-in explanation stands back: {explained}");

    let browser = Browser::start().await.unwrap();
    browser.open(&server, "/").await.unwrap();
    let href = browser.see("#open-debugger").await.unwrap().attr("href").await.unwrap().unwrap();
    let slug = href.trim_start_matches('/').split('/').next().unwrap().to_owned();
    for node in
        ["mlp_neuron/1/2", "attention_head/1/2", "mlp_autoencoder_latent/1/2", "attention_autoencoder_latent/1/0"]
    {
        browser.open(&server, &format!("/{slug}/{node}")).await.unwrap();
        browser.see("#node-name").await.unwrap();
        browser.read("drink").await.unwrap();
    }
    let sentence = explained[0]["explanation"].as_str().unwrap();
    browser.open(&server, &format!("/{slug}/mlp_neuron/1/2")).await.unwrap();
    browser.read(sentence).await.unwrap();
    assert_eq!(explained[0]["method"], "offline-statistics");
    browser.read("token statistics").await.unwrap();
    let severe = browser.complaints().await.unwrap();
    assert!(severe.is_empty(), "{severe:?}");
    browser.finish().await.unwrap();
}
