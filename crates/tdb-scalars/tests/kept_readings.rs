//! Readings in token space that are kept: an answer is the same to the bit, whatever was asked before.

use crate::common::{PROMPT, engine};
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tdb_scalars::nodes::{Component, Node};
use tdb_scalars::readings::{exciting_tokens, upvoted_tokens};
use tdb_scalars::{Context, Engine};

/// Prompts whose nodes are partly the same, some asked twice, one side or two, with neurons and with latents.
fn requests() -> Vec<Value> {
    let side = |prompt: &str, latents: bool, ablations: Value| {
        json!({
            "prompt": prompt, "targetTokens": [" Canada"], "distractorTokens": [" Germany"],
            "componentTypeForMlp": if latents { "autoencoder_latent" } else { "neuron" },
            "componentTypeForAttention": if latents { "autoencoder_latent" } else { "attention_head" },
            "topAndBottomKForNodeTable": 12, "hideEarlyLayersWhenAblating": false, "nodeAblations": ablations,
        })
    };
    let none = || json!([]);
    let ablation = json!([{ "value": -3.0, "nodeIndex":
        { "nodeType": "mlp_neuron", "tensorIndices": [2, 7], "layerIndex": 0, "passType": "forward" } }]);
    let prompts = [PROMPT, "<|endoftext|>Berlin, Germany. Ottawa,", PROMPT, "<|endoftext|>Rome and Paris,"];
    let mut all = Vec::new();
    for latents in [false, true] {
        all.extend(prompts.map(|prompt| json!({ "subRequests": [side(prompt, latents, none())] })));
        all.push(
            json!({ "subRequests": [side(prompts[0], latents, ablation.clone()), side(prompts[0], latents, none())] }),
        );
    }
    all
}

fn ask(engine: &Engine, request: &Value) -> Result<String> {
    let request = serde_json::from_value(request.clone())?;
    Ok(serde_json::to_string(&engine.batched_tdb(&request, &Context::default())?)?)
}

fn both() -> Result<Engine> {
    engine(Some("ae-resid-delta-mlp"), Some("ae-resid-delta-attn"))
}

#[test]
fn answers_do_not_depend_on_what_is_kept() -> Result<()> {
    let (kept, few, none) = (both()?, both()?.with_kept_readings(20_000), both()?.with_kept_readings(0));
    for request in requests() {
        let expected = ask(&none, &request)?;
        for engine in [&kept, &few] {
            assert_eq!(ask(engine, &request)?, expected, "{request}");
        }
    }
    assert_eq!(none.kept_readings(), [0, 0]);
    assert!(few.kept_readings()[0] <= 20_000, "{:?}", few.kept_readings());
    assert!(few.kept_readings()[1] > 0 && few.kept_readings()[1] < kept.kept_readings()[1]);
    Ok(())
}

#[test]
fn a_question_asked_again_keeps_nothing_new() -> Result<()> {
    let engine = both()?;
    let request = &requests()[0];
    ask(&engine, request)?;
    let kept = engine.kept_readings();
    ensure!(kept[1] > 0, "nothing was kept");
    ask(&engine, request)?;
    assert_eq!(engine.kept_readings(), kept);
    Ok(())
}

/// Of many directions at once most tokens are left out by bounds of their scores.
#[test]
fn nodes_read_together_are_read_as_each_alone() -> Result<()> {
    let engine = both()?.with_kept_readings(0);
    let question = json!({ "prompt": PROMPT });
    let side = engine.inspect(&serde_json::from_value(question)?, None)?;
    let neurons = (0..40).map(|i| Node::Neuron { layer: i % 2, token: 1 + i % 5, index: 5 * i });
    let heads = (0..8).map(|i| Node::Head { layer: i % 2, query: 5, key: i % 6, head: i % 4 });
    let nodes: Vec<Component> = neurons.chain(heads).map(Component::Node).collect();
    for count in [1, 10, 40] {
        let together = upvoted_tokens(&side, &nodes, count)?;
        let alone = nodes.iter().map(|node| upvoted_tokens(&side, &[*node], count));
        let alone = alone.collect::<tdb_scalars::Result<Vec<_>>>()?.concat();
        assert!(together == alone && alone.len() == nodes.len(), "{count} tokens that are upvoted");
        let nodes = &nodes[..40];
        let together = exciting_tokens(&side, nodes, count)?;
        let alone = nodes.iter().map(|node| exciting_tokens(&side, &[*node], count));
        assert!(together == alone.collect::<tdb_scalars::Result<Vec<_>>>()?.concat(), "{count} tokens that excite");
    }
    Ok(())
}
