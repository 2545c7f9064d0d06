//! What the start page and the tour say about the embedded model is true: each statement is tried.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

use std::time::Duration;

use serde_json::{Value, json};
use tdb_api::page::{EXAMPLES, Example, PageState, Reads, Statement, TOUR};
use tdb_api::stream::{ContributionPart, Contributions, Fold, FoldEvents};
use tdb_api::{ComponentTypeForAttention, ComponentTypeForMlp};
use tdb_testkit::server::Server;
use tdb_tests::serving;

fn post(server: &Server, path: &str, body: &Value) -> Value {
    let body = body.to_string();
    let headers = [("content-type", "application/json")];
    let wait = Duration::from_secs(60);
    let response =
        tdb_testkit::http::request(server.address, "POST", path, &headers, Some(body.as_bytes()), wait).unwrap();
    assert_eq!(response.status, 200, "{}", String::from_utf8_lossy(&response.body));
    serde_json::from_slice(&response.body).unwrap()
}

/// The first side's answer.
fn answer(server: &Server, state: &PageState) -> Value {
    let body = serde_json::to_value(state.to_request()).unwrap();
    post(server, "/batched_tdb", &body)["inferenceSubResponses"][0].take()
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn check_difference(server: &Server, example: &Example, statement: &Statement) {
    let untraced = Statement { traced: None, ..*statement };
    let found = answer(server, &example.state(Some(&untraced)));
    let loss = found["inferenceResponse"]["inferenceAndTokenData"]["loss"].as_f64().unwrap();
    // In single precision another processor may round the last place the other way.
    assert!((loss - statement.becomes).abs() < 0.0075, "{}: {loss}", statement.text());
}

fn check_reads(server: &Server, example: &Example, reads: &Reads, words: &str) {
    let spec = json!({
        "dst": "flattened_attn_post_softmax", "layerIndex": reads.layer, "activationIndex": reads.head
    });
    let body = json!({ "inferenceRequestSpec": { "prompt": example.prompt }, "derivedScalarsRequestSpec": spec });
    let found = post(server, "/derived_scalars", &body);
    let row = usize::try_from(reads.from).unwrap();
    let at = row * (row + 1) / 2 + usize::try_from(reads.to).unwrap();
    let attention = found["derivedScalarsResponseData"]["activations"][at].as_f64().unwrap();
    assert!((attention - reads.attention).abs() < 0.0075, "{words}: {attention} for {reads:?}");
    assert!(words.contains(&format!("{:.2}", reads.attention)), "{words} does not say {reads:?}");
    assert!(words.contains(&format!("attn_L{}_{}", reads.layer, reads.head)), "{words} does not name {reads:?}");
}

fn check_trace(server: &Server, example: &Example, statement: &Statement) {
    let Some(traced) = statement.traced else { return };
    let found = answer(server, &example.state(Some(statement)));
    let table = &found["processingResponseDataByName"]["topKComponents"];
    let direct = table["activationsByGroupId"]["direction_write"].as_array().unwrap();
    let largest = (0..direct.len())
        .max_by(|a, b| direct[*a].as_f64().unwrap().abs().total_cmp(&direct[*b].as_f64().unwrap().abs()));
    let node = &table["nodeIndices"][largest.unwrap()];
    assert_eq!(*node, serde_json::to_value(traced.found()).unwrap(), "{}", statement.text());
}

fn check(server: &Server, example: &Example, statement: &Statement) {
    check_difference(server, example, statement);
    statement.reads.iter().for_each(|reads| check_reads(server, example, reads, statement.words));
    check_trace(server, example, statement);
    if statement.traced.is_none() {
        assert!(statement.words.contains("{}"), "{} says no number", statement.words);
    }
}

#[test]
fn every_statement_on_the_start_page_is_true() {
    let server = serving::serve(&[]).unwrap();
    for example in &EXAMPLES {
        assert!(example.statements.len() > 1 && example.statements[0].held.is_empty(), "{}", example.title);
        for statement in example.statements {
            check(&server, example, statement);
            assert_eq!(rounded(statement.becomes), statement.becomes);
        }
    }
}

#[test]
fn every_sentence_of_the_tour_is_true() {
    let server = serving::serve(&[]).unwrap();
    TOUR.iter().for_each(|step| check(&server, step.example, &step.statement));
}

/// What the stream tells of each side: its contributions, and its loss.
fn contributions(server: &Server, state: &PageState) -> Vec<(Contributions, f64)> {
    let body = serde_json::to_string(&state.to_request()).unwrap();
    let headers = [("content-type", "application/json")];
    let (path, wait) = ("/batched_tdb/stream", Duration::from_secs(60));
    let sent = tdb_testkit::http::request(server.address, "POST", path, &headers, Some(body.as_bytes()), wait).unwrap();
    let mut fold = Fold::new(1);
    for line in String::from_utf8(sent.body).unwrap().lines() {
        fold.add(serde_json::from_str(line).unwrap()).unwrap();
    }
    let folded = fold.finish().unwrap();
    let losses = folded.response.inference_sub_responses.iter();
    let losses = losses.map(|side| side.inference_response.inference_and_token_data.loss.unwrap());
    folded.contributions.into_iter().map(Option::unwrap).zip(losses).collect()
}

#[test]
fn parts_of_the_model_add_up_to_the_logit_difference() {
    let server = serving::serve(&[]).unwrap();
    for example in &EXAMPLES {
        for statement in example.statements.iter().filter(|s| s.traced.is_none()) {
            for latents in [false, true] {
                let mut state = example.state(Some(statement));
                if latents {
                    state.component_type_for_mlp = ComponentTypeForMlp::AutoencoderLatent;
                    state.component_type_for_attention = ComponentTypeForAttention::AutoencoderLatent;
                }
                for (told, loss) in contributions(&server, &state) {
                    let sum: f64 = told.terms.iter().map(|term| term.value).sum();
                    assert!((sum - loss).abs() < 1e-3, "{}: {sum} for {loss}", statement.text());
                    assert_eq!(told.objective, loss);
                    let has = |part| told.terms.iter().any(|term| term.part == part);
                    assert_eq!((has(ContributionPart::MlpError), has(ContributionPart::Mlp)), (latents, !latents));
                }
            }
        }
    }
}

/// The bars of a kind of node are the sums of its nodes' direct effects.
#[test]
fn bars_are_sums_of_direct_effects() {
    let server = serving::serve(&[]).unwrap();
    for example in &EXAMPLES {
        let mut state = example.state(None);
        state.top_and_bottom_k_for_node_table = 1500;
        let (told, _) = contributions(&server, &state).remove(0);
        let found = answer(&server, &state);
        let table = &found["processingResponseDataByName"]["topKComponents"];
        let direct = table["activationsByGroupId"]["direction_write"].as_array().unwrap();
        for term in told.terms.iter().filter(|term| term.layer.is_some()) {
            let node_type = if term.part == ContributionPart::Mlp { "mlp_neuron" } else { "attention_head" };
            let nodes = table["nodeIndices"].as_array().unwrap().iter().zip(direct);
            let of_term = nodes.filter(|(n, _)| n["nodeType"] == node_type && n["layerIndex"] == json!(term.layer));
            let sum: f64 = of_term.map(|(_, value)| value.as_f64().unwrap()).sum();
            assert!((sum - term.value).abs() < 1e-3, "{}, {term:?}: {sum}", example.title);
        }
    }
}
