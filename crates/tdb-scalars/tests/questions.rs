//! Questions asked from Rust, and requests whose answers have no other test: sums, scalars that are no numbers, lists
//! that would be ambiguous.

use crate::common::{PROMPT, engine};
use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use tdb_api::{
    BatchedRequest, ComponentTypeForMlp, DerivedAttentionScalarsRequest, DerivedScalarType as Dst,
    MultipleTopKDerivedScalarsRequest, PassType, TensorND,
};
use tdb_model::{Numbers, Site, Slot};
use tdb_scalars::compute::values;
use tdb_scalars::nodes::{Component, Node};
use tdb_scalars::{Ablation, Context, Engine, Error, Question, TracedNode};

fn question() -> Question {
    Question::new(PROMPT, &[" Canada"], &[" Germany"])
}

/// What is wrong with a request.
fn refusal<T>(answer: Result<T, Error>) -> Result<String> {
    match answer {
        Err(error @ (Error::Bad(_) | Error::BadField { .. })) => Ok(error.to_string()),
        Err(other) => bail!("another error: {other}"),
        Ok(_) => bail!("no error"),
    }
}

#[test]
fn an_answer_lists_the_components_that_the_loss_comes_from() -> Result<()> {
    let engine = engine(None, None)?;
    let mut question = question();
    question.extremes = 100_000;
    let answer = engine.ask(&question)?;
    let difference = answer.difference.context("no difference")?;
    assert_eq!(answer.tokens.len(), 7);
    assert_eq!(answer.next_tokens.len(), 100);
    assert!(answer.next_tokens.is_sorted_by(|a, b| a.1 >= b.1));
    // Every component is listed; what is left of the difference are the biases, which no component has.
    let side = engine.inspect(
        &serde_json::from_value(json!({
            "prompt": PROMPT,
            "lossFnConfig": { "name": "logit_diff", "targetTokens": [" Canada"], "distractorTokens": [" Germany"] },
        }))?,
        None,
    )?;
    assert!((f64::from(side.loss.context("no loss")?) - difference).abs() < 1e-6);
    let direct: f64 = answer.effects.iter().map(|effect| effect.direct).sum();
    let d_ff = engine.model().config().d_ff;
    assert_eq!(answer.effects.len(), 7 + 2 * 7 * d_ff + 2 * 7 * 7 * 4);
    assert!(answer.effects.is_sorted_by(|a, b| a.direct.abs() >= b.direct.abs()));
    assert!((direct - difference).abs() < 0.5 * difference.abs().max(1.0), "{direct} and {difference}");
    // At the last layer nothing goes through others: what a neuron does is what it does directly.
    let last =
        |effect: &&tdb_scalars::Effect| matches!(effect.component, Component::Node(Node::Neuron { layer: 1, .. }));
    assert_eq!(answer.effects.iter().filter(last).count(), 7 * d_ff);
    for effect in answer.effects.iter().filter(last) {
        assert!((effect.direct - effect.total).abs() < 1e-5 + 1e-3 * effect.total.abs(), "{effect:?}");
    }
    Ok(())
}

#[test]
fn ablating_a_component_does_about_what_its_effect_says() -> Result<()> {
    let engine = engine(None, None)?;
    let plain = engine.ask(&question())?;
    let difference = plain.difference.context("no difference")?;
    let neuron = |effect: &&tdb_scalars::Effect| {
        matches!(effect.component, Component::Node(Node::Neuron { layer: 1, token: 6, .. }))
    };
    let effect = plain.effects.iter().find(neuron).context("no neuron is listed")?;
    let mut question = question();
    question.ablations = vec![Ablation { component: effect.component, value: 0.0 }];
    let changed = engine.ask(&question)?.difference.context("no difference")?;
    // The final layer norm's scale changes, too, a little.
    let (found, expected) = (difference - changed, effect.direct);
    assert!((found - expected).abs() < 0.1 * expected.abs() + 1e-4, "{found} and {expected}: {effect:?}");
    Ok(())
}

#[test]
fn a_question_may_start_from_a_latent() -> Result<()> {
    let engine = engine(Some("ae-resid-delta-mlp"), None)?;
    let mut question = question();
    question.mlp = ComponentTypeForMlp::AutoencoderLatent;
    let plain = engine.ask(&question)?;
    let latent = plain.effects.iter().find_map(|effect| match effect.component {
        Component::Node(node @ Node::Latent { slot: Slot::Mlp, layer: 1, .. }) if effect.activation > 0.0 => Some(node),
        _ => None,
    });
    let node = latent.context("no active latent is listed")?;
    question.trace = Some(TracedNode { node, through: None, mlp: None });
    let traced = engine.ask(&question)?;
    assert!(traced.traced.context("no traced value")? > 0.0);
    assert_eq!(traced.difference, None);
    assert!(traced.effects.iter().any(|effect| effect.total.abs() > 1e-6));
    // What comes after the latent cannot have caused it.
    let after = |effect: &&tdb_scalars::Effect| match effect.component {
        Component::Node(node) => node.layer() == 1 && node.slot() == Slot::Mlp,
        _ => false,
    };
    assert!(traced.effects.iter().filter(after).all(|effect| effect.total == 0.0 && effect.direct == 0.0));
    Ok(())
}

#[test]
fn a_question_that_cannot_be_answered_is_refused_with_a_sentence() -> Result<()> {
    let engine = engine(None, None)?;
    let with = |change: fn(&mut Question)| {
        let mut question = question();
        change(&mut question);
        refusal(engine.ask(&question))
    };
    assert!(with(|q| q.targets.clear())?.contains("subRequests[0].targetTokens: is empty"));
    assert!(with(|q| q.targets = vec!["two words".into()])?.contains("subRequests[0].targetTokens[0]: "));
    assert!(with(|q| q.mlp = ComponentTypeForMlp::AutoencoderLatent)?.contains("none is loaded"));
    let outside = Component::Node(Node::Neuron { layer: 7, token: 0, index: 0 });
    let mut question = question();
    question.ablations = vec![Ablation { component: outside, value: 0.0 }];
    let sentence = refusal(engine.ask(&question))?;
    assert!(
        sentence.starts_with("subRequests[0].nodeAblations[0]: ") && sentence.contains("layers 0..2"),
        "{sentence}"
    );
    Ok(())
}

/// Which field a refused request is said to be wrong in.
fn field<T>(answer: Result<T, Error>) -> Result<String> {
    match answer {
        Err(Error::BadField { field, .. }) => Ok(field.to_string()),
        Err(other) => bail!("an error without a field: {other}"),
        Ok(_) => bail!("no error"),
    }
}

/// Fields at which a request that is right is made wrong, each with what stands there then, and where it is said to be.
#[test]
fn a_field_that_is_wrong_is_named_where_the_request_has_it() -> Result<()> {
    let engine = engine(None, None)?;
    let context = Context::default();
    let changed = |body: &Value, pointer: &str, to: Value| -> Result<Value> {
        let mut body = body.clone();
        *body.pointer_mut(pointer).context("no such field")? = to;
        Ok(body)
    };
    let node = |node_type: &str, indices: Value| json!({ "nodeType": node_type, "tensorIndices": indices, "layerIndex": 1, "passType": "forward" });
    let side = json!({
        "prompt": PROMPT, "targetTokens": [" Canada"], "distractorTokens": [" Germany"],
        "componentTypeForMlp": "neuron", "componentTypeForAttention": "attention_head",
        "topAndBottomKForNodeTable": 3, "residualCutLayer": null, "hideEarlyLayersWhenAblating": false,
        "nodeAblations": [{ "nodeIndex": node("mlp_neuron", json!([0, 1])), "value": 0.0 }],
        "upstreamNodeToTrace": null, "downstreamNodeToTrace": null,
    });
    let question = json!({ "subRequests": [side, side] });
    let head = json!({ "nodeIndex": node("attention_head", json!([2, 1, 99])), "attentionTraceType": "Q" });
    for (pointer, to, expected) in [
        ("/subRequests", json!([]), "subRequests"),
        ("/subRequests/1/prompt", json!(""), "subRequests[1].prompt"),
        ("/subRequests/1/prompt", json!("Paris"), "subRequests[1].prompt"),
        ("/subRequests/0/targetTokens", json!([" Canada", "two words"]), "subRequests[0].targetTokens[1]"),
        ("/subRequests/1/distractorTokens", json!([""]), "subRequests[1].distractorTokens[0]"),
        ("/subRequests/1/nodeAblations/0/nodeIndex/layerIndex", json!(9), "subRequests[1].nodeAblations[0]"),
        ("/subRequests/0/nodeAblations/0/nodeIndex/nodeType", json!("v_channel"), "subRequests[0].nodeAblations[0]"),
        ("/subRequests/0/topAndBottomKForNodeTable", json!(0), "subRequests[0].topAndBottomKForNodeTable"),
        ("/subRequests/0/residualCutLayer", json!(0), "subRequests[0].residualCutLayer"),
        ("/subRequests/0/upstreamNodeToTrace", head.clone(), "subRequests[0].upstreamNodeToTrace"),
        ("/subRequests/0/downstreamNodeToTrace", head, "subRequests[0].downstreamNodeToTrace"),
    ] {
        let request = serde_json::from_value(changed(&question, pointer, to.clone())?)?;
        let found = field(engine.batched_tdb(&request, &context)).with_context(|| format!("{pointer}: {to}"))?;
        assert_eq!(found, expected, "{pointer}: {to}");
    }

    let scalars = json!({
        "inferenceRequestSpec": { "prompt": PROMPT, "ablationSpecs": [{ "index": {
            "activationLocationType": "mlp.post_act", "tensorIndices": ["All", 0], "layerIndex": 0,
            "passType": "forward" }, "value": 0.0 }] },
        "derivedScalarsRequestSpec": {
            "dst": "mlp_post_act", "layerIndex": 1, "activationIndex": 0, "numTopTokens": null,
        },
    });
    let ablation = "inferenceRequestSpec.ablationSpecs[0]";
    for (pointer, to, expected) in [
        ("/inferenceRequestSpec/prompt", json!(""), "inferenceRequestSpec.prompt"),
        ("/inferenceRequestSpec/ablationSpecs/0/index/layerIndex", json!(5), ablation),
        ("/derivedScalarsRequestSpec/layerIndex", json!(7), "derivedScalarsRequestSpec.layerIndex"),
        ("/derivedScalarsRequestSpec/layerIndex", json!(null), "derivedScalarsRequestSpec.layerIndex"),
        ("/derivedScalarsRequestSpec/activationIndex", json!(-99999), "derivedScalarsRequestSpec.activationIndex"),
        ("/derivedScalarsRequestSpec/numTopTokens", json!(0), "derivedScalarsRequestSpec.numTopTokens"),
        ("/derivedScalarsRequestSpec/dst", json!("attn_qk_probs"), "derivedScalarsRequestSpec.dst"),
    ] {
        let request = serde_json::from_value(changed(&scalars, pointer, to.clone())?)?;
        let found = field(engine.derived_scalars(&request, &context)).with_context(|| format!("{pointer}: {to}"))?;
        assert_eq!(found, expected, "{pointer}: {to}");
    }

    let effects = json!({
        "prompt": PROMPT, "targetTokens": [" Canada"], "distractorTokens": [" Germany"],
        "nodes": [node("mlp_neuron", json!([0, 1])), node("attention_head", json!([3, 1, 0]))],
        "nodeAblations": [], "ablateTo": "zero", "datasets": null,
    });
    for (pointer, to, expected) in [
        ("/prompt", json!(""), "prompt"),
        ("/targetTokens", json!([]), "targetTokens"),
        ("/distractorTokens/0", json!("two words"), "distractorTokens[0]"),
        ("/nodes/1/tensorIndices/2", json!(99), "nodes[1]"),
    ] {
        let request = serde_json::from_value(changed(&effects, pointer, to.clone())?)?;
        let found = field(engine.effects(&request, &context)).with_context(|| format!("{pointer}: {to}"))?;
        assert_eq!(found, expected, "{pointer}: {to}");
    }
    Ok(())
}

fn top_k(
    engine: &Engine,
    groups: Value,
    extra: Value,
) -> Result<tdb_api::MultipleTopKDerivedScalarsResponseData, Error> {
    let mut spec = json!({
        "dstListByGroupId": groups, "tokenIndex": null, "topAndBottomK": 3, "passType": "forward",
        "dimensionsToKeepForIntermediateSum": ["sequence_tokens"],
    });
    for (key, value) in extra.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    let request = json!({
        "inferenceRequestSpec": {
            "prompt": PROMPT,
            "lossFnConfig": { "name": "logit_diff", "targetTokens": [" Canada"], "distractorTokens": [" Germany"] },
        },
        "multipleTopKDerivedScalarsRequestSpec": spec,
    });
    let request: MultipleTopKDerivedScalarsRequest =
        serde_json::from_value(request).map_err(|error| Error::Internal(error.to_string()))?;
    let answer = engine.multiple_top_k_derived_scalars(&request, &Context::default())?;
    Ok(answer.multiple_top_k_derived_scalars_response_data)
}

#[test]
fn the_sum_of_the_logits_is_that_of_double_precision() -> Result<()> {
    let engine = engine(None, None)?;
    let data = top_k(&engine, json!({ "logits": ["logits"] }), json!({ "tokenIndex": -1 }))?;
    let sums = &data.intermediate_sum_activations_by_dst_by_group_id[0][0];
    let TensorND::Tensor1D(sums) = sums else { bail!("{sums:?} has other dimensions") };
    let side = engine.inspect(&serde_json::from_value(json!({ "prompt": PROMPT }))?, None)?;
    let activations = side.get(Site::PostFinalLn, None)?;
    let activations = Numbers::of(&activations)?;
    let (n_vocab, width) = (engine.model().config().n_vocab, engine.model().config().d_model);
    let rows = engine.model().unembedding().rows(0..n_vocab);
    let mut errors: Vec<f64> = Vec::new();
    for (t, sum) in sums.iter().enumerate() {
        let x = activations.row(t);
        let logit = |row: &[f32]| row.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum::<f64>();
        errors.push((rows.chunks_exact(width).map(logit).sum::<f64>() - sum).abs());
    }
    errors.sort_by(f64::total_cmp);
    assert!(errors[errors.len() / 2] < 2e-5, "{errors:?}");
    Ok(())
}

#[test]
fn a_list_whose_nodes_would_be_ambiguous_is_refused() -> Result<()> {
    let engine = engine(None, None)?;
    let both =
        json!({ "write_norm": ["attn_write_norm"], "act_times_grad": ["attn_act_times_grad_per_sequence_token"] });
    let sentence = refusal(top_k(&engine, both, json!({})))?;
    assert!(sentence.contains("\"attn_write_norm\"") && sentence.contains("pair of tokens"), "{sentence}");
    let layers = json!({ "write_norm": ["resid_post_mlp_norm"], "activation": ["always_one"] });
    let sentence = refusal(top_k(&engine, layers.clone(), json!({})))?;
    assert!(sentence.contains("\"resid_post_mlp_norm\"") && sentence.contains("layer, token"), "{sentence}");
    assert!(!sentence.contains("edge"), "{sentence}");
    // Lists of one name in two sub-requests are one list.
    let sub_request = |dst: &str| {
        json!({
            "inferenceRequestSpec": { "prompt": PROMPT },
            "processingRequestSpecByName": { "list": {
                "specType": "multiple_top_k_derived_scalars_request_spec",
                "dstListByGroupId": { "write_norm": [dst] }, "tokenIndex": null, "topAndBottomK": 3,
            } },
        })
    };
    let requests = json!({ "inferenceSubRequests": [sub_request("resid_post_mlp_norm"), sub_request("always_one")] });
    let requests: BatchedRequest = serde_json::from_value(requests)?;
    assert!(refusal(engine.batched(&requests, &Context::default()))?.contains("always_one"));
    Ok(())
}

#[test]
fn attention_scalars_that_are_no_numbers_are_refused() -> Result<()> {
    let engine = engine(None, None)?;
    let request: DerivedAttentionScalarsRequest = serde_json::from_value(json!({
        "inferenceRequestSpec": { "prompt": PROMPT, "ablationSpecs": [{
            "index": { "activationLocationType": "mlp_ln.scale", "tensorIndices": ["All", "All"], "layerIndex": 0,
                       "passType": "forward" },
            "value": 0,
        }] },
        "derivedAttentionScalarsRequestSpec": {
            "dst": "unflattened_attn_write_norm", "layerIndex": 1, "activationIndex": 0,
            "normalizeActivationsUsingNeuronRecord": null,
        },
    }))?;
    let sentence = refusal(engine.derived_attention_scalars(&request, &Context::default()))?;
    assert!(sentence.contains("not a finite number"), "{sentence}");
    Ok(())
}

#[test]
fn a_constant_has_no_gradient() -> Result<()> {
    let engine = engine(None, None)?;
    let side = engine.inspect(
        &serde_json::from_value(json!({
            "prompt": PROMPT,
            "lossFnConfig": { "name": "logit_diff", "targetTokens": [" Canada"], "distractorTokens": [" Germany"] },
        }))?,
        None,
    )?;
    let sum = |pass| -> Result<f64> { Ok(values(&side, Dst::AlwaysOne, pass, None)?.sum(&[false, false])?.data[0]) };
    assert_eq!((sum(PassType::Forward)?, sum(PassType::Backward)?), (7.0, 0.0));
    Ok(())
}
