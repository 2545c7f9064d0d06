//! Which neurons and attention heads made the model prefer one next token to another?
//!
//! `cargo run --release -p tdb-scalars --example attribute_logit_difference -- [FOLDER [PROMPT TARGET DISTRACTOR]]`
//!
//! One request to the engine, as a program would send it to the server, and its answer as a table.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tdb_model::{Transformer, checkpoint};
use tdb_scalars::{Context, Engine};

fn main() -> Result<()> {
    let embedded = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../datasets/embedded");
    let mut args = std::env::args().skip(1);
    let folder = args.next().map_or_else(embedded, PathBuf::from);
    let prompt = args
        .next()
        .unwrap_or_else(|| "<|endoftext|>When Mary and John went to the store, John gave a drink to".to_owned());
    let (target, distractor) = (args.next().unwrap_or(" Mary".to_owned()), args.next().unwrap_or(" John".to_owned()));
    let checkpoint = checkpoint::open(&folder)?;
    let engine = Engine::new("example", Transformer::new(checkpoint.weights), checkpoint.tokenizer, None, None);

    let request = json!({ "subRequests": [{
        "prompt": prompt,
        "targetTokens": [target],
        "distractorTokens": [distractor],
        "componentTypeForMlp": "neuron",
        "componentTypeForAttention": "attention_head",
        "topAndBottomKForNodeTable": 5,
        "hideEarlyLayersWhenAblating": true,
        "nodeAblations": [],
        "upstreamNodeToTrace": null,
        "downstreamNodeToTrace": null,
    }] });
    let answer = engine.batched_tdb(&serde_json::from_value(request)?, &Context::default())?;
    let answer = serde_json::to_value(answer)?;
    let one = &answer["inferenceSubResponses"][0];
    let run = &one["inferenceResponse"]["inferenceAndTokenData"];
    println!("{prompt}\nlogit of{target} minus logit of{distractor}: {:.4}\n", number(&run["loss"])?);

    let table = &one["processingResponseDataByName"]["topKComponents"];
    let groups = &table["activationsByGroupId"];
    let nodes = table["nodeIndices"].as_array().context("no nodes")?;
    let mut rows = Vec::new();
    for (i, node) in nodes.iter().enumerate() {
        let value = |group: &str| number(&groups[group][i]);
        rows.push((value("direction_write")?, value("act_times_grad")?, value("activation")?, name(node)));
    }
    rows.sort_by(|a, b| b.0.abs().total_cmp(&a.0.abs()));
    println!("{:>8} {:>8} {:>10}  node", "direct", "total", "activation");
    for (direct, total, activation, name) in rows.iter().take(15) {
        println!("{direct:8.3} {total:8.3} {activation:10.3}  {name}");
    }
    Ok(())
}

fn number(value: &Value) -> Result<f64> {
    value.as_f64().with_context(|| format!("{value} is not a number"))
}

fn name(node: &Value) -> String {
    let at: Vec<u64> = node["tensorIndices"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
    let layer = node["layerIndex"].as_u64().unwrap_or_default();
    match (node["nodeType"].as_str(), at.as_slice()) {
        (Some("mlp_neuron"), [token, neuron]) => format!("neuron {layer}:{neuron} at token {token}"),
        (Some("attention_head"), [query, key, head]) => format!("head {layer}:{head}, token {query} reads token {key}"),
        (Some("layer"), [token, ..]) => format!("embedding of token {token}"),
        (kind, _) => format!("{} {layer} {at:?}", kind.unwrap_or("?")),
    }
}
