//! Circuits: edges that add up to what a node does, and runs in which all other nodes are ablated. Two prompts of unequal
//! length that are compared token by token.

use std::collections::HashMap;

use crate::common::{PROMPT, engine};
use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use tdb_api::{BatchedTdbRequest, CircuitRequest, CircuitResponse, GroupId, MirroredNodeIndex, ProcessingResponseData};
use tdb_scalars::{Context, Engine, Error};

fn circuit(engine: &Engine, more: Value) -> Result<CircuitResponse, Error> {
    let mut body = json!({ "prompt": PROMPT, "targetTokens": [" Canada"], "distractorTokens": [" Germany"] });
    body.as_object_mut().into_iter().for_each(|body| body.extend(more.as_object().cloned().unwrap_or_default()));
    let request: CircuitRequest = serde_json::from_value(body).map_err(|e| Error::Internal(e.to_string()))?;
    engine.circuit(&request, &Context::default())
}

fn neuron(layer: usize, token: usize, unit: usize) -> Value {
    json!({ "nodeType": "mlp_neuron", "tensorIndices": [token, unit], "layerIndex": layer, "passType": "forward" })
}

fn head(layer: usize, query: usize, key: usize, head: usize) -> Value {
    json!({
        "nodeType": "attention_head", "tensorIndices": [query, key, head], "layerIndex": layer, "passType": "forward",
    })
}

/// Every neuron and head of a layer at every token.
fn all_of(engine: &Engine, layer: usize) -> Vec<Value> {
    let (tokens, config) = (7, engine.model().config());
    let neurons = (0..tokens).flat_map(|t| (0..config.d_ff).map(move |unit| neuron(layer, t, unit)));
    let pairs = (0..tokens).flat_map(|query| (0..=query).map(move |key| (query, key)));
    let heads = pairs.flat_map(|(query, key)| (0..config.n_heads).map(move |at| head(layer, query, key, at)));
    neurons.chain(heads).collect()
}

/// The objective with these ablations, as the debugger's question has it.
fn objective(engine: &Engine, ablations: Value) -> Result<f64> {
    let request: BatchedTdbRequest = serde_json::from_value(json!({ "subRequests": [side(PROMPT, ablations, 1)] }))?;
    let response = engine.batched_tdb(&request, &Context::default())?;
    response.inference_sub_responses[0].inference_response.inference_and_token_data.loss.context("no loss")
}

fn side(prompt: &str, ablations: Value, k: usize) -> Value {
    json!({
        "prompt": prompt, "targetTokens": [" Canada"], "distractorTokens": [" Germany"],
        "componentTypeForMlp": "neuron", "componentTypeForAttention": "attention_head",
        "topAndBottomKForNodeTable": k, "hideEarlyLayersWhenAblating": false, "nodeAblations": ablations,
    })
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-5 + 1e-4 * b.abs()
}

#[test]
fn a_head_adds_nothing_from_a_key_that_its_query_does_not_see() -> Result<()> {
    let engine = engine(None, None)?;
    for to in ["zero", "prompt_mean"] {
        let nodes = [neuron(0, 1, 3), head(1, 4, 6, 0), head(1, 6, 4, 1)];
        let found = circuit(&engine, json!({ "nodes": nodes, "ablateTo": to }))?;
        assert_eq!(found.estimates[1], 0.0, "{to}: {:?}", found.estimates);
        assert!(found.edges.iter().all(|edge| edge.from != 1 && edge.to != Some(1)), "{to}: {:?}", found.edges);
        let without = circuit(&engine, json!({ "nodes": [nodes[0].clone(), nodes[2].clone()], "ablateTo": to }))?;
        assert!(close(found.kept, without.kept) && close(found.removed, without.removed), "{to}");
    }
    Ok(())
}

#[test]
fn a_circuit_of_all_nodes_is_the_run_and_one_of_none_is_what_ablating_all_gives() -> Result<()> {
    let engine = engine(None, None)?;
    let whole = objective(&engine, json!([]))?;
    let all: Vec<Value> = (0..2).flat_map(|layer| all_of(&engine, layer)).collect();
    // By hand: null stands for every token and unit.
    let at_once = |layer: usize| {
        let node = |kind: &str, indices: Value| json!({ "nodeType": kind, "tensorIndices": indices, "layerIndex": layer, "passType": "forward" });
        [node("mlp_neuron", json!([null, null])), node("attention_head", json!([null, null, null]))]
    };
    let ablated: Vec<Value> = (0..2).flat_map(at_once).map(|node| json!({ "nodeIndex": node, "value": 0.0 })).collect();
    let nothing = objective(&engine, json!(ablated))?;
    assert!((whole - nothing).abs() > 0.01, "the test's model does nothing");
    for to in ["zero", "prompt_mean"] {
        let found = circuit(&engine, json!({ "nodes": all, "ablateTo": to }))?;
        assert!(close(found.objective, whole) && close(found.kept, whole), "{to}: {found:?}");
        assert_eq!(found.removed, found.empty, "{to}");
        assert!(close(found.faithfulness.context("nothing is restored")?, 1.0));
        let none = circuit(&engine, json!({ "nodes": [], "ablateTo": to }))?;
        assert_eq!((none.kept, none.removed, none.faithfulness), (none.empty, none.objective, Some(0.0)), "{to}");
        assert_eq!(close(none.empty, nothing), to == "zero", "{to}: {} and {nothing}", none.empty);
    }
    Ok(())
}

#[test]
fn a_circuit_alone_is_what_ablating_the_others_by_hand_gives() -> Result<()> {
    let engine = engine(None, None)?;
    let (tokens, d_ff) = (7, engine.model().config().d_ff);
    // The last layer's neurons at the last token, and a few of the first layer's.
    let few = [3, 8, 21];
    let last: Vec<Value> = (0..d_ff).map(|unit| neuron(1, tokens - 1, unit)).collect();
    let nodes: Vec<Value> = few.iter().map(|unit| neuron(0, tokens - 1, *unit)).chain(last).collect();
    let found = circuit(&engine, json!({ "nodes": nodes }))?;
    let at = |layer: usize, token: Value, unit: Value| json!({ "nodeIndex": { "nodeType": "mlp_neuron", "tensorIndices": [token, unit], "layerIndex": layer, "passType": "forward" }, "value": 0.0 });
    let heads = (0..2).map(|layer| {
        json!({ "nodeIndex": { "nodeType": "attention_head", "tensorIndices": [null, null, null], "layerIndex": layer, "passType": "forward" }, "value": 0.0 })
    });
    let others = (0..tokens - 1).flat_map(|t| (0..2).map(move |layer| at(layer, json!(t), Value::Null)));
    let rest = (0..d_ff).filter(|unit| !few.contains(unit)).map(|unit| at(0, json!(tokens - 1), json!(unit)));
    let by_hand = objective(&engine, json!(heads.chain(others).chain(rest).collect::<Vec<_>>()))?;
    assert!(close(found.kept, by_hand), "{} and {by_hand}", found.kept);
    assert!((found.kept - found.empty).abs() > 1e-3, "the circuit of the test does nothing");
    let members = few.iter().map(|unit| at(0, json!(tokens - 1), json!(unit)));
    let members = members.chain([at(1, json!(tokens - 1), Value::Null)]);
    let without = objective(&engine, json!(members.collect::<Vec<_>>()))?;
    assert!(close(found.removed, without), "{} and {without}", found.removed);
    Ok(())
}

#[test]
fn edges_from_a_node_add_up_to_what_it_does() -> Result<()> {
    let engine = engine(None, None)?;
    let first = [neuron(0, 6, 5), neuron(0, 2, 9), head(0, 6, 1, 2), head(0, 3, 3, 0)];
    let of_second = [head(1, 6, 2, 1), head(1, 6, 4, 3)];
    // All nodes that can read them.
    let later = |layer: usize| -> Vec<Value> {
        all_of(&engine, layer).into_iter().filter(|node| layer > 0 || node["nodeType"] == "mlp_neuron").collect()
    };
    let embedding = json!({ "nodeType": "layer", "tensorIndices": [2, 0], "layerIndex": null, "passType": "forward" });
    let mut into_heads = 0;
    for (members, readers) in [
        (&first[..], [later(0), later(1)].concat()),
        (&of_second[..], later(1)),
        (&[embedding][..], [all_of(&engine, 0), all_of(&engine, 1)].concat()),
    ] {
        let is_member = |node: &Value| members.contains(node);
        let nodes: Vec<Value> = members.iter().cloned().chain(readers.into_iter().filter(|n| !is_member(n))).collect();
        let found = circuit(&engine, json!({ "nodes": nodes }))?;
        for (at, member) in members.iter().enumerate() {
            let sum: f64 = found.edges.iter().filter(|edge| edge.from == at as i64).map(|edge| edge.weight).sum();
            let whole = found.estimates[at];
            assert!(whole.abs() > 1e-6, "{member} does nothing");
            // Members of one layer part may read each other's layer only once: they are all among the nodes.
            assert!((sum - whole).abs() < 1e-5 + 2e-3 * whole.abs(), "{member}: {sum} in edges, {whole} in all");
        }
        into_heads += found.edges.iter().filter(|edge| edge.through.is_some()).count();
    }
    assert!(into_heads > 100, "{into_heads} edges into heads");
    Ok(())
}

#[test]
fn what_is_no_part_of_a_circuit_is_refused() -> Result<()> {
    let engine = engine(None, None)?;
    let refusal = |more: Value| match circuit(&engine, more) {
        Err(error @ (Error::Bad(_) | Error::BadField { .. })) => Ok(error.to_string()),
        other => bail!("{other:?}"),
    };
    let at = refusal(json!({ "nodes": [neuron(0, 6, 5), neuron(0, 7, 5)] }))?;
    assert!(at.contains("nodes[1]"), "{at}");
    let mean = refusal(json!({ "nodes": [], "ablateTo": "collated_mean" }))?;
    assert!(mean.contains("prompt_mean"), "{mean}");
    let no_target = refusal(json!({ "nodes": [], "targetTokens": [] }))?;
    assert!(no_target.contains("targetTokens"), "{no_target}");
    let whole_head = refusal(
        json!({ "nodes": [{ "nodeType": "attention_head", "tensorIndices": [6, null, 2], "layerIndex": 0, "passType": "forward" }] }),
    )?;
    assert!(whole_head.contains("nodes[0]"), "{whole_head}");
    Ok(())
}

/// Node and total effect of the table of each side.
fn tables(engine: &Engine, body: Value) -> Result<Vec<Vec<(MirroredNodeIndex, f64)>>, Error> {
    let request: BatchedTdbRequest = serde_json::from_value(body).map_err(|e| Error::Internal(e.to_string()))?;
    let response = engine.batched_tdb(&request, &Context::default())?;
    let table = |side: &tdb_api::InferenceResponseAndResponseDict| {
        let ProcessingResponseData::MultipleTopKDerivedScalars(table) =
            &side.processing_response_data_by_name["topKComponents"]
        else {
            return Vec::new();
        };
        let values = &table.activations_by_group_id[&GroupId::ActTimesGrad];
        table.node_indices.iter().cloned().zip(values.iter().copied()).collect()
    };
    Ok(response.inference_sub_responses.iter().map(table).collect())
}

#[test]
fn prompts_of_unequal_length_are_compared_by_the_tokens_that_stand_for_each_other() -> Result<()> {
    let engine = engine(None, None)?;
    let longer = format!("The {PROMPT}");
    let sides = |k| [side(PROMPT, json!([]), k), side(&longer, json!([]), k)];
    let [short, long] = [PROMPT, &longer].map(|prompt| engine.tokenizer().encode(prompt).len());
    assert!(long > short);
    let Err(error) = tables(&engine, json!({ "subRequests": sides(3) })) else { bail!("no error") };
    let told = error.to_string();
    assert!(told.contains(&format!("{short} and {long} tokens")) && !told.contains('"'), "{told}");

    let more = (long - short) as i64;
    let pairs: Vec<Value> = (0..short as i64).map(|at| json!({ "left": at, "right": at + more })).collect();
    let aligned = tables(&engine, json!({ "subRequests": sides(3), "alignment": pairs }))?;
    let alone: Vec<HashMap<String, f64>> = [PROMPT, &longer]
        .iter()
        .map(|prompt| {
            let all = tables(&engine, json!({ "subRequests": [side(prompt, json!([]), 100_000)] }))?;
            Ok(all[0].iter().map(|(node, value)| (format!("{node:?}"), *value)).collect())
        })
        .collect::<Result<_>>()?;
    // Every value is that of the prompt alone.
    for (side, rows) in aligned.iter().enumerate() {
        for (node, value) in rows {
            assert!(close(*value, alone[side][&format!("{node:?}")]), "side {side}: {node:?}");
        }
    }
    let alignment = tdb_api::Alignment::new(
        &pairs.iter().map(|pair| serde_json::from_value(pair.clone())).collect::<Result<Vec<_>, _>>()?,
    );
    let has = |side: usize, node: &MirroredNodeIndex| aligned[side].iter().any(|(known, _)| known == node);
    assert!(aligned[0].iter().all(|(node, _)| alignment.node(0, node).is_some_and(|node| has(1, &node))));
    let mut lonely = 0;
    for (node, _) in &aligned[1] {
        match alignment.node(1, node) {
            Some(partner) => assert!(has(0, &partner), "{node:?}"),
            None => lonely += 1,
        }
    }
    assert!(lonely > 0, "no node stands at the token without a partner");

    for (pairs, says) in [
        (json!([{ "left": 0, "right": long }]), "second prompt has no token"),
        (json!([{ "left": 0, "right": 1 }, { "left": 0, "right": 2 }]), "stands for two"),
        (json!([]), "is empty"),
    ] {
        let Err(error) = tables(&engine, json!({ "subRequests": sides(3), "alignment": pairs })) else {
            bail!("no error")
        };
        assert!(error.to_string().contains(says) && error.to_string().starts_with("alignment"), "{error}");
    }
    let one = json!({ "subRequests": [side(PROMPT, json!([]), 3)], "alignment": pairs });
    assert!(tables(&engine, one).is_err_and(|error| error.to_string().contains("two prompts")));
    Ok(())
}
