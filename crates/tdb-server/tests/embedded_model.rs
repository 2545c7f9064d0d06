//! The whole way from a request to its answer, with the model inside the program.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

use crate::support;
use crate::support::Client;
use axum::http::{StatusCode, header};
use serde_json::{Value, json};
use std::path::Path;
use tdb_api::stream::{EffectsFold, FoldEvents, PatchFold, TdbEvent, fold};
use tdb_api::{BatchedResponse, EffectsResponse, PatchResponse};
use tdb_model::{Transformer, checkpoint};
use tdb_scalars::{Bounds, Engine};
use tdb_server::model::Model;
use tdb_server::{Limits, ServerConfig};

fn client() -> Client<Model> {
    bounded(Bounds::default())
}

fn bounded(bounds: Bounds) -> Client<Model> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../datasets/embedded");
    let found = checkpoint::open(&folder).unwrap();
    let model = Transformer::load(found.config, found.weights).unwrap();
    let engine = Engine::new("embedded", model, found.tokenizer, None, None);
    let limits = Limits { queue_length: 64, ..Limits::default() };
    let model = Model::new(engine, Box::new(())).with_bounds(bounds);
    Client::new(model, ServerConfig { limits, ..ServerConfig::default() })
}

const PROMPT: &str = "When Mary and John went to the store, John gave a drink to";

/// Two sides: a neuron is set to zero on the left.
fn question() -> Value {
    let mut body = support::question(PROMPT);
    let side = &mut body["subRequests"][0];
    side["targetTokens"] = json!([" Mary"]);
    side["distractorTokens"] = json!([" John"]);
    let mut ablated = side.clone();
    let node = json!({ "nodeType": "mlp_neuron", "tensorIndices": [3, 5], "layerIndex": 0, "passType": "forward" });
    ablated["nodeAblations"] = json!([{ "nodeIndex": node, "value": 0.0 }]);
    json!({ "subRequests": [ablated, side] })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_parts_of_a_stream_add_up_to_the_whole_answer() {
    let client = client();
    let whole = client.post("/batched_tdb", &question()).await;
    assert_eq!(whole.status, StatusCode::OK, "{}", String::from_utf8_lossy(&whole.body));
    let whole: BatchedResponse = serde_json::from_slice(&whole.body).unwrap();

    let lines = client.post("/batched_tdb/stream", &question()).await;
    assert_eq!(lines.header(header::CONTENT_TYPE), "application/x-ndjson");
    let text = String::from_utf8(lines.body).unwrap();
    let events: Vec<TdbEvent> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(matches!(events[0], TdbEvent::Tokens { side: 0, .. }), "tokens come before anything is computed");
    assert!(events.iter().any(|event| matches!(event, TdbEvent::Progress { .. })));
    assert_eq!(fold(events).unwrap(), whole);

    let accept = [(header::ACCEPT, "text/event-stream")];
    let sent = client.post_with("/batched_tdb/stream", &question(), &accept).await;
    assert_eq!(sent.header(header::CONTENT_TYPE), "text/event-stream");
    let text = String::from_utf8(sent.body).unwrap();
    let data = text.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
    let events: Vec<TdbEvent> = data.map(|data| serde_json::from_str(data).unwrap()).collect();
    assert_eq!(fold(events).unwrap(), whole);
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_that_were_asked_for_are_a_part_of_the_answer_and_of_the_stream() {
    let client = client();
    let mut body = question();
    body["checks"] = json!(true);
    let answer = client.post("/batched_tdb", &body).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", String::from_utf8_lossy(&answer.body));
    let whole: BatchedResponse = serde_json::from_slice(&answer.body).unwrap();
    for side in &whole.inference_sub_responses {
        let checks = side.checks.as_ref().unwrap();
        assert!(checks.len() > 3 && checks.iter().all(|check| check.passed), "{checks:#?}");
    }
    let lines = client.post("/batched_tdb/stream", &body).await;
    let events = std::str::from_utf8(&lines.body).unwrap().lines();
    assert_eq!(fold(events.map(|line| serde_json::from_str::<TdbEvent>(line).unwrap())).unwrap(), whole);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_question_has_the_same_answer_to_the_byte() {
    let client = client();
    let first = client.post("/batched_tdb", &question()).await;
    assert_eq!(first.status, StatusCode::OK);
    assert!(
        first.header("server-timing").starts_with("compute;dur="),
        "the time that it took stands beside the answer"
    );
    let at_once: Vec<_> = (0..32)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.post("/batched_tdb", &question()).await })
        })
        .collect();
    for answer in at_once {
        let answer = answer.await.unwrap();
        assert_eq!(answer.status, StatusCode::OK);
        assert!(answer.body == first.body, "the bytes differ");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_named() {
    let client = client();
    let mut body = question();
    body["subRequests"][0]["targetTokens"] = json!([" Mary John"]);
    let answer = client.post("/batched_tdb", &body).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.message().contains("Mary John"), "{}", answer.message());
    let mut body = question();
    body["subRequests"][1]["prompt"] = json!("");
    body["subRequests"][0]["prompt"] = json!("");
    assert_eq!(client.post("/batched_tdb", &body).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_are_split_and_tokens_are_found() {
    let client = client();
    let tokens = client.post("/tokenize", &json!({ "text": "When Mary" })).await.json();
    let texts: Vec<_> =
        tokens["tokens"].as_array().unwrap().iter().map(|token| token["text"].as_str().unwrap()).collect();
    assert_eq!(texts.concat(), "When Mary");
    let found = client.get("/vocabulary?prefix=%20Mar", &[]).await.json();
    assert!(found["tokens"].as_array().unwrap().iter().any(|token| token["text"] == " Mary"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_too_large_is_refused_with_what_would_pass() {
    let unbounded = Bounds::default();
    for (bounds, what) in [
        (Bounds { answer_bytes: 500_000, ..unbounded }, "bytes of answer"),
        (Bounds { token_scores: 2_000_000, ..unbounded }, "scores of tokens"),
    ] {
        let client = bounded(bounds);
        let mut body = question();
        let ask = async |body: &Value| client.post("/batched_tdb", body).await;
        let set = |body: &mut Value, k: i64| {
            (0..2).for_each(|side| body["subRequests"][side]["topAndBottomKForNodeTable"] = json!(k));
        };
        set(&mut body, 100_000);
        let refused = ask(&body).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        let message = refused.message();
        assert!(
            message.starts_with("subRequests[0].topAndBottomKForNodeTable: ") && message.contains(what),
            "{message}"
        );
        let told = message.split("at most ").last().unwrap().split(' ').next().unwrap();
        let passes: i64 = told.parse().unwrap();
        set(&mut body, passes);
        let answer = ask(&body).await;
        assert_eq!(answer.status, StatusCode::OK, "{passes}: {}", String::from_utf8_lossy(&answer.body));
        assert!(answer.body.len() as u64 <= bounds.answer_bytes);
        set(&mut body, passes + 1);
        assert_eq!(ask(&body).await.status, StatusCode::BAD_REQUEST);
    }
    let client = bounded(Bounds { activation_bytes: 200_000, ..unbounded });
    let refused = client.post("/batched_tdb", &question()).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert!(refused.message().contains("bytes of activations"), "{}", refused.message());
    for (route, mut body) in every_other_question() {
        let refused = client.post(route, &body).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{route}");
        let message = refused.message();
        assert!(message.contains("bytes of activations") && message.contains("at most 200000;"), "{route}: {message}");
        let passes: usize = message.split("at most ").last().unwrap().split(' ').next().unwrap().parse().unwrap();
        for prompt in ["prompt", "cleanPrompt", "corruptedPrompt"] {
            if !body[prompt].is_null() {
                body[prompt] = json!(" Mary".repeat(passes));
            }
        }
        let answer = client.post(route, &body).await;
        assert_eq!(answer.status, StatusCode::OK, "{route}, {passes}: {}", answer.message());
    }
}

/// The smallest question of each route that holds a prompt's activations, besides the debugger's.
fn every_other_question() -> [(&'static str, Value); 5] {
    let targets = json!({ "prompt": PROMPT, "targetTokens": [" Mary"], "distractorTokens": [" John"] });
    let with = |more: Value| {
        let mut body = targets.clone();
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let neuron = json!({ "nodeType": "mlp_neuron", "tensorIndices": [0, 5], "layerIndex": 1, "passType": "forward" });
    let patch = json!({
        "cleanPrompt": PROMPT, "corruptedPrompt": PROMPT, "targetTokens": [" Mary"], "distractorTokens": [" John"],
        "grids": ["heads"],
    });
    [
        ("/effects", with(json!({ "nodes": [neuron] }))),
        ("/circuit", with(json!({ "nodes": [neuron], "ablateTo": "zero" }))),
        ("/patch", patch),
        ("/logit_lens", targets.clone()),
        ("/sample/stream", json!({ "prompt": PROMPT, "tokens": 1, "temperature": 1e-38, "topP": 1, "seed": 1 })),
    ]
}

/// Beyond them the squares in a norm overflow, and the run would go on with zeros.
#[tokio::test(flavor = "multi_thread")]
async fn values_that_single_precision_does_not_hold_are_refused() {
    let client = client();
    let node = json!({ "nodeType": "mlp_neuron", "tensorIndices": [3, 5], "layerIndex": 0, "passType": "forward" });
    for (value, passes) in [(1e15, true), (-1e15, true), (1e20, false), (-1e39, false)] {
        for (route, mut body) in every_other_question().into_iter().filter(|(route, _)| *route != "/patch") {
            body["nodeAblations"] = json!([{ "nodeIndex": node, "value": value }]);
            let answer = client.post(route, &body).await;
            assert_eq!(answer.status == StatusCode::OK, passes, "{route}, {value}: {}", answer.message());
            if passes {
                let text = String::from_utf8(answer.body).unwrap();
                assert!(!text.contains("NaN") && !text.contains("\"objective\":null"), "{route}, {value}: {text}");
            } else {
                assert!(answer.message().contains("from -1e15 to 1e15"), "{}", answer.message());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_as_long_as_a_body_may_be_is_refused_in_a_sentence() {
    let client = client();
    for (route, mut body) in every_other_question().into_iter().filter(|(_, body)| !body["targetTokens"].is_null()) {
        body["targetTokens"] = json!(["x".repeat(1_900_000)]);
        let answer = client.post(route, &body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{route}");
        assert!(answer.message().contains("a text of 1900000 bytes is not the text of one token"), "{route}");
        assert!(answer.body.len() < 300, "{route}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn effects_and_patches_are_told_in_parts_that_are_the_whole_answer() {
    let client = client();
    let neuron = json!({ "nodeType": "mlp_neuron", "tensorIndices": [3, 5], "layerIndex": 1, "passType": "forward" });
    let head =
        json!({ "nodeType": "attention_head", "tensorIndices": [13, 3, 1], "layerIndex": 3, "passType": "forward" });
    let body = json!({
        "prompt": PROMPT, "targetTokens": [" Mary"], "distractorTokens": [" John"], "nodes": [neuron, head],
        "randomNodes": 10,
    });
    let whole: EffectsResponse = serde_json::from_slice(&client.post("/effects", &body).await.body).unwrap();
    let lines = client.post("/effects/stream", &body).await;
    assert_eq!(lines.status, StatusCode::OK, "{}", String::from_utf8_lossy(&lines.body));
    let events = |body: &[u8]| -> Vec<TdbEvent> {
        std::str::from_utf8(body).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let mut nodes = Vec::new();
    let mut fold = EffectsFold::default();
    for event in events(&lines.body) {
        fold.add(event.clone()).unwrap();
        match event {
            TdbEvent::Price { price } => assert_eq!(price, whole.price),
            TdbEvent::Objective { objective } => assert_eq!(objective, whole.objective),
            TdbEvent::NodeEffect { effect, .. } => nodes.push(effect),
            TdbEvent::SampledBound { bound } => assert_eq!(Some(bound), whole.sampled),
            TdbEvent::Checks { checks, .. } => assert_eq!(checks, whole.checks),
            TdbEvent::Done => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((nodes.len(), whole.nodes.len()), (2, 2));
    assert!(nodes.iter().all(|effect| whole.nodes.contains(effect)));
    assert_eq!(fold.finish().unwrap(), whole);

    let body = json!({
        "cleanPrompt": PROMPT, "corruptedPrompt": "When John and Mary went to the store, Mary gave a drink to",
        "targetTokens": [" Mary"], "distractorTokens": [" John"], "grids": ["heads"],
    });
    let whole: PatchResponse = serde_json::from_slice(&client.post("/patch", &body).await.body).unwrap();
    let lines = client.post("/patch/stream", &body).await;
    let mut cells = Vec::new();
    let mut fold = PatchFold::default();
    for event in events(&lines.body) {
        fold.add(event.clone()).unwrap();
        match event {
            TdbEvent::PatchRuns { runs } => assert_eq!(runs, whole.runs),
            TdbEvent::PatchedCell { cell, .. } => cells.push(cell),
            TdbEvent::Price { .. } | TdbEvent::Checks { .. } | TdbEvent::Done => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(cells.len(), whole.cells.len());
    assert!(cells.iter().all(|cell| whole.cells.contains(cell)));
    assert_eq!(fold.finish().unwrap(), whole);

    let mut bad = body.clone();
    bad["corruptedPrompt"] = json!("When John and Mary");
    for path in ["/patch", "/patch/stream"] {
        let refused = client.post(path, &bad).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        assert!(refused.message().contains("alignment"), "{}", refused.message());
    }
    bad["metric"] = json!("logit_diff");
    assert_eq!(client.post("/patch", &bad).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    bad =
        json!({ "prompt": PROMPT, "targetTokens": [" Mary"], "distractorTokens": [], "nodes": [], "randomNodes": -1 });
    assert!(client.post("/effects", &bad).await.message().contains("give 0 or more"));
}
