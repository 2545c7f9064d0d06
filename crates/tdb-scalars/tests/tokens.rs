//! Tokens are named by their ids, and rows of the vocabulary without a token are never listed.
//!
//! The model of `fixtures/padded` has 271 rows, its tokenizer 265 tokens: the bytes, of which 128 alone are U+FFFD, and a
//! few words. The rows without a token have the largest logits of all.

#![allow(clippy::unwrap_used)] // helpers of a test, too

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};
use tdb_model::{Transformer, checkpoint};
use tdb_scalars::{Context, Engine};

const ROWS: usize = 271;
const TOKENS: i64 = 265;

fn engine() -> Result<Engine> {
    let checkpoint = checkpoint::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/padded"))?;
    Ok(Engine::new(
        "padded",
        Transformer::load(checkpoint.config, checkpoint.weights)?,
        checkpoint.tokenizer,
        None,
        None,
    ))
}

fn ask(engine: &Engine, targets: Value) -> Result<Value> {
    let request = json!({ "subRequests": [{
        "prompt": "x", "targetTokens": targets, "distractorTokens": [], "componentTypeForMlp": "neuron",
        "componentTypeForAttention": "attention_head", "topAndBottomKForNodeTable": 3,
        "hideEarlyLayersWhenAblating": false, "nodeAblations": [],
    }] });
    let answer = engine.batched_tdb(&serde_json::from_value(request)?, &Context::default())?;
    Ok(serde_json::to_value(answer)?["inferenceSubResponses"][0].clone())
}

fn refusal(engine: &Engine, targets: Value) -> String {
    ask(engine, targets).unwrap_err().to_string()
}

#[test]
fn a_target_is_named_by_its_text_or_by_its_id() -> Result<()> {
    let engine = engine()?;
    let loss = |targets: Value| -> Result<Value> {
        Ok(ask(&engine, targets)?["inferenceResponse"]["inferenceAndTokenData"]["loss"].clone())
    };
    let by_text = loss(json!(["Paris"]))?;
    assert_eq!(loss(json!([{ "id": 260 }]))?, by_text);
    assert_eq!(loss(json!([{ "id": 260, "text": "Paris" }]))?, by_text);
    assert_ne!(loss(json!([" Paris"]))?, by_text);
    // One of the bytes that are no text of their own.
    let byte = (0..256).find(|id| engine.token_text(*id) == "\u{fffd}").expect("half of the bytes are");
    assert!(loss(json!([{ "id": byte }]))?.is_number());
    Ok(())
}

#[test]
fn what_names_no_token_or_several_is_refused_with_a_sentence() -> Result<()> {
    let engine = engine()?;
    let shared = refusal(&engine, json!(["\u{fffd}"]));
    assert!(
        shared.starts_with("subRequests[0].targetTokens[0]: \"\u{fffd}\" is the text of ")
            && shared.contains("by its id"),
        "{shared}"
    );
    for (targets, part) in [
        (json!([{ "id": 265 }]), "no token with the id 265"),
        (json!([{ "id": -1 }]), "no token with the id -1"),
        (json!([{ "id": 260, "text": " Paris" }]), "the token with the id 260 is \"Paris\", not \" Paris\""),
        (json!([""]), "an empty text"),
        (json!(["Paris Paris"]), "is 2 tokens"),
    ] {
        let message = refusal(&engine, targets);
        assert!(message.starts_with("subRequests[0].targetTokens[0]: ") && message.contains(part), "{message}");
    }
    Ok(())
}

#[test]
fn rows_without_a_token_are_listed_nowhere() -> Result<()> {
    let engine = engine()?;
    let answer = ask(&engine, json!(["Paris"]))?;
    let listed =
        answer["processingResponseDataByName"]["topOutputTokenLogits"]["nodeIndices"].as_array().expect("a list");
    let ids: Vec<i64> = listed.iter().filter_map(|node| node["tensorIndices"][1].as_i64()).collect();
    assert_eq!(ids[..2], [262, 260]);
    assert!(ids.len() >= 100, "as many as are asked for: {}", ids.len());
    assert!(ids.iter().all(|id| *id < TOKENS), "{ids:?}");
    let unread = engine.unread_tokens().expect("some rows have no token");
    let expected: Vec<bool> = (0..ROWS).map(|row| row as i64 >= TOKENS).collect();
    assert_eq!(unread, expected);
    let readings = serde_json::to_string(&answer["processingResponseDataByName"]["upvotedOutputTokens"])?;
    assert!(readings.contains("\"token\""));
    Ok(())
}
