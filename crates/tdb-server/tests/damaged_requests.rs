//! Requests with parts replaced, removed or doubled at random: answered, or refused with a sentence, and never a fault.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

use crate::support;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::support::Client;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tdb_model::{Transformer, checkpoint};
use tdb_scalars::Engine;
use tdb_server::ServerConfig;
use tdb_server::model::Model;

const REQUESTS: usize = 2000;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The embedded model with both of its autoencoders.
fn client() -> Client<Model> {
    let folder = folder().join("datasets/embedded");
    let found = checkpoint::open(&folder).unwrap();
    let autoencoder = |name: &str| {
        checkpoint::open_autoencoder(&folder.join("autoencoders").join(name), None, &found.config).unwrap()
    };
    let (mlp, attn) = (autoencoder("sae-resid-delta-mlp"), autoencoder("sae-resid-delta-attn"));
    let model = Transformer::load(found.config.clone(), found.weights).unwrap();
    let model = model.attach(mlp).unwrap().attach(attn).unwrap();
    let engine = Engine::new("embedded", model, found.tokenizer, Some("mlp".into()), Some("attn".into()));
    Client::new(Model::new(engine, Box::new(())), ServerConfig::default())
}

/// The recorded questions, and some about latents: path and body.
fn questions() -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder().join("tests/fixtures/goldens/tiny-a")).unwrap() {
        let case: Value = serde_json::from_slice(&std::fs::read(entry.unwrap().path()).unwrap()).unwrap();
        if case["method"] == "POST" && case["request"].is_object() {
            found.push((case["path"].as_str().unwrap().to_owned(), case["request"].clone()));
        }
    }
    assert!(found.len() > 20, "{} recorded questions", found.len());
    // A folder has no order of its own.
    found.sort_by_cached_key(|(path, body)| (path.clone(), body.to_string()));
    let node = |kind: &str, indices: Value| json!({ "nodeType": kind, "tensorIndices": indices, "layerIndex": 1, "passType": "forward" });
    for (kind, indices) in [
        ("mlp_autoencoder_latent", json!([3, 7])),
        ("attention_autoencoder_latent", json!([3, 7])),
        ("attention_head", json!([3, 2, 1])),
    ] {
        let mut body = support::question("When Mary and John went to the store, John gave a drink to");
        let side = &mut body["subRequests"][0];
        side["targetTokens"] = json!([" Mary"]);
        side["componentTypeForMlp"] = json!("autoencoder_latent");
        side["componentTypeForAttention"] = json!("autoencoder_latent");
        side["nodeAblations"] = json!([{ "nodeIndex": node(kind, indices.clone()), "value": 0.5 }]);
        let through = (kind == "attention_head").then_some("QK");
        side["upstreamNodeToTrace"] =
            json!({ "nodeIndex": node(kind, indices), "attentionTraceType": through, "downstreamTraceConfig": null });
        // Often, so that latents are not drowned by the rest.
        (0..8).for_each(|_| found.push(("/batched_tdb".to_owned(), body.clone())));
    }
    found
}

/// All places in a body, as pointers.
fn places(value: &Value, here: String, out: &mut Vec<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| places(value, format!("{here}/{key}"), out)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, value)| places(value, format!("{here}/{i}"), out))
        }
        _ => {}
    }
    if !here.is_empty() {
        out.push(here);
    }
}

fn damage(body: &mut Value, dice: &mut StdRng) {
    let odd = [
        json!(null),
        json!(-1),
        json!(0),
        json!(1),
        json!(3),
        json!(7),
        json!(15),
        json!(i64::MAX),
        json!(i64::MIN),
        json!(1e308),
        json!(0.5),
        json!(true),
        json!(""),
        json!("All"),
        json!("Q"),
        json!("neuron"),
        json!("\u{0}😀"),
        json!("x".repeat(2000)),
        json!([]),
        json!({}),
        json!([null]),
    ];
    let mut all = Vec::new();
    places(body, String::new(), &mut all);
    let Some(place) = all.choose(dice) else { return };
    let (parent, key) = place.rsplit_once('/').unwrap();
    let way = dice.random_range(0..10);
    let copy = body.pointer(place).unwrap().clone();
    match body.pointer_mut(parent).unwrap() {
        Value::Object(fields) if way >= 8 => drop(fields.insert("another".into(), copy)),
        Value::Object(fields) if way >= 6 => drop(fields.remove(key)),
        Value::Array(items) if way >= 8 => items.push(copy),
        Value::Array(items) if way >= 6 => drop(items.remove(key.parse().unwrap())),
        _ => *body.pointer_mut(place).unwrap() = odd.choose(dice).unwrap().clone(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_requests_are_answered_or_refused_with_a_sentence() {
    let (client, questions) = (client(), questions());
    let mut dice = StdRng::seed_from_u64(20);
    let mut statuses: BTreeMap<u16, usize> = BTreeMap::new();
    for _ in 0..REQUESTS {
        let (path, mut body) = questions.choose(&mut dice).unwrap().clone();
        for _ in 0..dice.random_range(1..=3) {
            damage(&mut body, &mut dice);
        }
        let answer = client.post(&path, &body).await;
        let status = answer.status.as_u16();
        assert!(status < 500, "{path} {body}: {status} {}", String::from_utf8_lossy(&answer.body));
        match status {
            200 | 422 => {}
            _ => assert!(answer.message().len() > 10, "{path} {body}: {}", answer.message()),
        }
        *statuses.entry(status).or_default() += 1;
    }
    println!("{statuses:?}");
    for expected in [200, 400, 422] {
        assert!(statuses.get(&expected).is_some_and(|n| *n > REQUESTS / 50), "too few of {expected}: {statuses:?}");
    }
}
