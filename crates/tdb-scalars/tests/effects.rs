//! Exact effects and patches of the embedded model: against runs by hand, against the node table, and against each other.

use std::path::Path;

use crate::common::{PROMPT, engine};
use crate::embedded::embedded;
use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use tdb_api::{
    AblateTo, BatchedTdbRequest, Check, CheckName, EffectsRequest, GroupId, MirroredNodeIndex, NodeIdAndDatasets,
    NodeType, PatchGroup, PatchRequest, ProcessingResponseData as Part,
};
use tdb_model::{CheckpointError, Config, Matrix, MlpKind, Source, Transformer};
use tdb_scalars::{Bounds, Context, Engine, Error, Observer, RecordMaximum, Records};

const STORE: &str = "When Mary and John went to the store, John gave a drink to";
const SWAPPED: &str = "When John and Mary went to the store, Mary gave a drink to";

fn table(engine: &Engine, prompt: &str, targets: Value, k: i64, ablations: Value) -> Result<tdb_api::BatchedResponse> {
    let kind = |latents: bool, other: &str| if latents { "autoencoder_latent".to_owned() } else { other.to_owned() };
    let latents = engine.model_info().has_mlp_autoencoder;
    let request: BatchedTdbRequest = serde_json::from_value(json!({ "subRequests": [{
        "prompt": prompt, "targetTokens": targets[0], "distractorTokens": targets[1],
        "componentTypeForMlp": kind(latents, "neuron"), "componentTypeForAttention": kind(latents, "attention_head"),
        "topAndBottomKForNodeTable": k, "hideEarlyLayersWhenAblating": false, "nodeAblations": ablations,
    }] }))?;
    Ok(engine.batched_tdb(&request, &Context::default())?)
}

/// Nodes of the table and their act times gradient.
fn rows(engine: &Engine, prompt: &str, targets: Value, k: i64) -> Result<(Vec<MirroredNodeIndex>, Vec<f64>)> {
    let mut response = table(engine, prompt, targets, k, json!([]))?;
    let parts = &mut response.inference_sub_responses[0].processing_response_data_by_name;
    let Some(Part::MultipleTopKDerivedScalars(table)) = parts.shift_remove("topKComponents") else { bail!("no table") };
    Ok((table.node_indices, table.activations_by_group_id[&GroupId::ActTimesGrad].clone()))
}

fn objective(engine: &Engine, prompt: &str, targets: Value, ablations: Value) -> Result<f64> {
    let response = table(engine, prompt, targets, 1, ablations)?;
    response.inference_sub_responses[0].inference_response.inference_and_token_data.loss.context("no loss")
}

fn request(prompt: &str, targets: &Value, nodes: &[MirroredNodeIndex]) -> Result<EffectsRequest> {
    Ok(serde_json::from_value(json!({
        "prompt": prompt, "targetTokens": targets[0], "distractorTokens": targets[1], "nodes": nodes,
    }))?)
}

fn refusal<T>(answer: tdb_scalars::Result<T>) -> Result<String> {
    match answer {
        Err(error @ (Error::Bad(_) | Error::BadField { .. })) => Ok(error.to_string()),
        Err(other) => bail!("another error: {other}"),
        Ok(_) => bail!("no error"),
    }
}

fn assert_passed(checks: &[Check], expected: &[CheckName]) {
    let names: Vec<CheckName> = checks.iter().map(|check| check.name).collect();
    assert_eq!(names, expected);
    assert!(checks.iter().all(|check| check.passed), "{checks:#?}");
}

#[test]
fn an_exact_effect_is_what_an_ablation_by_hand_gives() -> Result<()> {
    for with_autoencoders in [false, true] {
        let engine = embedded(with_autoencoders)?;
        let targets = json!([[" Mary"], [" John"]]);
        let (mut nodes, _) = rows(&engine, STORE, targets.clone(), 8)?;
        // A head is ablated by hand for everything that it attends to.
        for node in nodes.iter_mut().filter(|node| node.node_type == NodeType::AttentionHead) {
            node.tensor_indices[1] = None;
        }
        let base = objective(&engine, STORE, targets.clone(), json!([]))?;
        let answer = engine.effects(&request(STORE, &targets, &nodes)?, &Context::default())?;
        assert!((answer.objective - base).abs() < 1e-5);
        assert_eq!(answer.nodes.iter().map(|e| e.node_index.clone()).collect::<Vec<_>>(), nodes);
        for effect in &answer.nodes {
            let by_hand = json!([{ "nodeIndex": effect.node_index, "value": 0.0 }]);
            let without = objective(&engine, STORE, targets.clone(), by_hand)?;
            assert!((effect.exact - (base - without)).abs() < 1e-5, "{effect:?}: {}", base - without);
        }
    }
    Ok(())
}

#[test]
fn the_estimate_is_that_of_the_node_table_and_marks_say_where_it_parts_from_the_truth() -> Result<()> {
    for with_autoencoders in [false, true] {
        let engine = embedded(with_autoencoders)?;
        let targets = json!([[" Mary"], [" John"]]);
        let (nodes, estimates) = rows(&engine, STORE, targets.clone(), 10)?;
        let answer = engine.effects(&request(STORE, &targets, &nodes)?, &Context::default())?;
        for (effect, estimate) in answer.nodes.iter().zip(&estimates) {
            assert!((effect.estimate - estimate).abs() < 1e-4 + 1e-3 * estimate.abs(), "{effect:?}: {estimate}");
            let apart = (effect.exact - effect.estimate).abs();
            let parts = apart > 0.2 * effect.exact.abs() && apart > 0.02 * answer.objective.abs();
            assert_eq!(effect.parts, parts, "{effect:?}");
        }
        let marked = answer.nodes.iter().filter(|effect| effect.parts).count();
        assert!(marked > 0 && marked < nodes.len(), "{marked} of {} are marked", nodes.len());
        use CheckName::{Dictionary, Difference, Gradient, Identity, Sharing, Sum, Writes};
        let mut expected = vec![Sum, Writes, Identity, Difference, Gradient, Sharing];
        expected.extend(if with_autoencoders { vec![Dictionary, Dictionary] } else { vec![] });
        assert_passed(&answer.checks, &expected);
    }
    Ok(())
}

#[test]
fn a_node_can_be_set_to_its_mean_over_the_prompt() -> Result<()> {
    let engine = embedded(false)?;
    let targets = json!([[" Mary"], [" John"]]);
    let node = json!({ "nodeType": "mlp_neuron", "tensorIndices": [13, 5], "layerIndex": 2, "passType": "forward" });
    let mut asked = request(STORE, &targets, &[serde_json::from_value(node.clone())?])?;
    asked.ablate_to = AblateTo::PromptMean;
    let found = engine.effects(&asked, &Context::default())?.nodes[0].exact;
    let tokens = engine.tokenizer().encode(STORE);
    let run = engine.model().forward(&tokens, Default::default())?;
    let all = tdb_model::Numbers::of(&run.get(tdb_model::Site::MlpPostAct, 2)?)?.to_row_major();
    let d_ff = engine.model().config().d_ff;
    let mean = (0..tokens.len()).map(|t| f64::from(all[t * d_ff + 5])).sum::<f64>() / tokens.len() as f64;
    let base = objective(&engine, STORE, targets.clone(), json!([]))?;
    let by_hand = objective(&engine, STORE, targets.clone(), json!([{ "nodeIndex": node, "value": mean }]))?;
    assert!((found - (base - by_hand)).abs() < 1e-5, "{found} and {}", base - by_hand);
    asked.ablate_to = AblateTo::CollatedMean;
    assert!(engine.effects(&asked, &Context::default()).is_err(), "there are no records here");
    Ok(())
}

/// Every neuron and latent has this mean in its record.
struct Means(f64);

impl Records for Means {
    fn maximum(&self, node: &NodeIdAndDatasets, _: &dyn Observer) -> tdb_scalars::Result<RecordMaximum> {
        if node.datasets == ["of latents"] {
            return Err(Error::NotFound("no such record".to_owned()));
        }
        Ok(RecordMaximum { activation: 1.0, mean: Some(self.0), attention_sequences: Vec::new() })
    }
}

#[test]
fn with_the_collated_mean_each_node_says_what_it_was_set_to() -> Result<()> {
    let engine = embedded(false)?;
    let targets = json!([[" Mary"], [" John"]]);
    let (nodes, _) = rows(&engine, STORE, targets.clone(), 3)?;
    let context = Context { records: &Means(0.25), ..Context::default() };
    let mut asked = request(STORE, &targets, &nodes)?;
    asked.ablate_to = AblateTo::PromptMean;
    let prompt_means = engine.effects(&asked, &context)?;
    asked.ablate_to = AblateTo::CollatedMean;
    let answer = engine.effects(&asked, &context)?;
    let base = objective(&engine, STORE, targets.clone(), json!([]))?;
    let mut neurons = 0;
    for (effect, of_prompt) in answer.nodes.iter().zip(&prompt_means.nodes) {
        assert_eq!(of_prompt.ablated_to, AblateTo::PromptMean);
        if effect.node_index.node_type == NodeType::MlpNeuron {
            neurons += 1;
            assert_eq!(effect.ablated_to, AblateTo::CollatedMean);
            let ablation = json!([{ "nodeIndex": effect.node_index, "value": 0.25 }]);
            let by_hand = base - objective(&engine, STORE, targets.clone(), ablation)?;
            assert!((effect.exact - by_hand).abs() < 1e-5, "{effect:?}: {by_hand}");
        } else {
            assert_eq!(effect, of_prompt, "records tell no mean of it");
        }
    }
    assert!(neurons > 0 && neurons < nodes.len());
    asked.datasets = Some(vec!["of latents".to_owned(), "of neurons".to_owned()]);
    assert_eq!(engine.effects(&asked, &context)?.nodes, answer.nodes, "the first set that has a node counts");
    asked.datasets = Some(vec!["of latents".to_owned()]);
    assert!(matches!(engine.effects(&asked, &context), Err(Error::NotFound(_))));
    asked.datasets = None;
    asked.nodes.retain(|node| node.node_type != NodeType::MlpNeuron);
    let found = refusal(engine.effects(&asked, &context))?;
    assert!(found.contains("none of these nodes is one; use \"prompt_mean\""), "{found}");
    Ok(())
}

/// The question about the cause of a node: nodes of the table, their act times gradient, and the traced value.
fn traced(
    engine: &Engine,
    trace: &Value,
    targets: &Value,
    ablations: Value,
) -> Result<(Vec<MirroredNodeIndex>, Vec<f64>, f64)> {
    let latents = engine.model_info().has_mlp_autoencoder;
    let kind = |other: &str| if latents { "autoencoder_latent".to_owned() } else { other.to_owned() };
    let request: BatchedTdbRequest = serde_json::from_value(json!({ "checks": true, "subRequests": [{
        "prompt": STORE, "targetTokens": targets[0], "distractorTokens": targets[1], "nodeAblations": ablations,
        "componentTypeForMlp": kind("neuron"), "componentTypeForAttention": kind("attention_head"),
        "topAndBottomKForNodeTable": 5, "hideEarlyLayersWhenAblating": false, "upstreamNodeToTrace": trace,
    }] }))?;
    let mut side = engine.batched_tdb(&request, &Context::default())?.inference_sub_responses.remove(0);
    let checks = side.checks.context("no checks")?;
    assert!(checks.iter().all(|check| check.passed), "{checks:#?}");
    let parts = &mut side.processing_response_data_by_name;
    let Some(Part::MultipleTopKDerivedScalars(table)) = parts.shift_remove("topKComponents") else { bail!("no table") };
    let value = side.inference_response.inference_and_token_data.activation_value_for_backward_pass;
    Ok((table.node_indices, table.activations_by_group_id[&GroupId::ActTimesGrad].clone(), value.context("no value")?))
}

fn node(node_type: &str, layer: usize, indices: &[usize]) -> Value {
    json!({ "nodeType": node_type, "tensorIndices": indices, "layerIndex": layer, "passType": "forward" })
}

#[test]
fn with_a_traced_node_effects_are_those_on_its_value() -> Result<()> {
    let none = json!([[], []]);
    let asked = json!([[" Mary"], [" John"]]);
    let head =
        |through: &str| json!({ "nodeIndex": node("attention_head", 2, &[13, 1, 3]), "attentionTraceType": through });
    for (with_autoencoders, trace, targets, by_hand) in [
        (false, json!({ "nodeIndex": node("mlp_neuron", 2, &[13, 5]) }), &none, true),
        (false, head("QK"), &none, true),
        (false, head("Q"), &none, false),
        (false, head("K"), &none, false),
        (false, head("V"), &asked, false),
        (true, json!({ "nodeIndex": node("mlp_autoencoder_latent", 2, &[13, 5]) }), &none, true),
        (true, json!({ "nodeIndex": node("attention_autoencoder_latent", 2, &[13, 5]) }), &none, true),
    ] {
        let engine = embedded(with_autoencoders)?;
        let (nodes, estimates, value) = traced(&engine, &trace, targets, json!([]))?;
        let mut question = request(STORE, targets, &nodes)?;
        question.upstream_node_to_trace = serde_json::from_value(trace.clone())?;
        question.better_estimates = true;
        question.random_nodes = 30;
        let answer = engine.effects(&question, &Context::default())?;
        assert!(answer.checks.iter().all(|check| check.passed), "{trace}: {:#?}", answer.checks);
        assert!((answer.objective - value).abs() < 1e-4 * (1.0 + value.abs()), "{trace}: {} {value}", answer.objective);
        let mut moved = 0;
        for (effect, estimate) in answer.nodes.iter().zip(&estimates) {
            assert!(
                (effect.estimate - estimate).abs() < 1e-4 + 1e-3 * estimate.abs(),
                "{trace}: {effect:?} {estimate}"
            );
            assert!(effect.corrected_estimate.context("none")?.is_finite(), "{trace}: {effect:?}");
            moved += usize::from(effect.exact != 0.0);
            // A table's head is one pair; an ablation by hand sets all that it attends to.
            if by_hand && effect.node_index.node_type != NodeType::AttentionHead {
                let ablation = json!([{ "nodeIndex": effect.node_index, "value": 0.0 }]);
                let without = traced(&engine, &trace, targets, ablation)?.2;
                assert!((effect.exact - (value - without)).abs() < 1e-5 * (1.0 + value.abs()), "{trace}: {effect:?}");
            }
        }
        assert!(moved > nodes.len() / 3, "{trace}: {moved} of {}", nodes.len());
        let bound = answer.sampled.context("no bound")?;
        assert!(bound.largest > 0.0 && bound.node_index.layer_index.is_none_or(|layer| layer <= 2), "{bound:?}");
    }
    Ok(())
}

#[test]
fn what_a_trace_does_not_go_through_is_held() -> Result<()> {
    let engine = embedded(false)?;
    // Neurons right below the head: those at its query's token change the query alone, those at its key's the key alone.
    let nodes: Vec<MirroredNodeIndex> = [(13, 5), (13, 40), (1, 5), (1, 40)]
        .into_iter()
        .map(|(token, unit)| serde_json::from_value(node("mlp_neuron", 1, &[token, unit])))
        .collect::<Result<_, _>>()?;
    let exact = |through: &str| -> Result<Vec<f64>> {
        let mut question = request(STORE, &json!([[" Mary"], []]), &nodes)?;
        let trace = json!({ "nodeIndex": node("attention_head", 2, &[13, 1, 3]), "attentionTraceType": through });
        question.upstream_node_to_trace = serde_json::from_value(trace)?;
        Ok(engine.effects(&question, &Context::default())?.nodes.into_iter().map(|effect| effect.exact).collect())
    };
    let (both, query, key, value) = (exact("QK")?, exact("Q")?, exact("K")?, exact("V")?);
    assert_eq!((&query[..2], &key[2..]), (&both[..2], &both[2..]));
    assert_eq!((&query[2..], &key[..2], &value[..2]), (&[0.0; 2][..], &[0.0; 2][..], &[0.0; 2][..]));
    assert!(both.iter().chain(&value[2..]).all(|x| *x != 0.0), "{both:?} {value:?}");
    let mut question = request(STORE, &json!([[], []]), &nodes)?;
    let trace = json!({ "nodeIndex": node("attention_head", 2, &[13, 1, 3]), "attentionTraceType": "V" });
    question.upstream_node_to_trace = serde_json::from_value(trace)?;
    let found = refusal(engine.effects(&question, &Context::default()))?;
    assert!(found.contains("a trace through \"V\" without a downstream node needs"), "{found}");
    Ok(())
}

#[test]
fn an_answer_of_the_debugger_carries_its_checks_when_asked_for() -> Result<()> {
    for with_autoencoders in [false, true] {
        let engine = embedded(with_autoencoders)?;
        let targets = json!([[" Mary"], [" John"]]);
        let plain = table(&engine, STORE, targets.clone(), 5, json!([]))?;
        assert_eq!(plain.inference_sub_responses[0].checks, None);
        assert!(!serde_json::to_string(&plain)?.contains("\"checks\""), "clients that do not ask see no change");
        let kind = if with_autoencoders { "autoencoder_latent" } else { "neuron" };
        let attention = if with_autoencoders { "autoencoder_latent" } else { "attention_head" };
        let side = |prompt: &str, ablations: Value| {
            json!({
                "prompt": prompt, "targetTokens": targets[0], "distractorTokens": targets[1], "componentTypeForMlp": kind,
                "componentTypeForAttention": attention, "topAndBottomKForNodeTable": 5,
                "hideEarlyLayersWhenAblating": false, "nodeAblations": ablations,
            })
        };
        let ablated = json!([{ "nodeIndex": node("attention_head", 1, &[13, 0, 2]), "value": 0.0 }]);
        let sides = [side(STORE, json!([])), side(SWAPPED, json!([])), side(STORE, ablated)];
        let request: BatchedTdbRequest = serde_json::from_value(json!({ "subRequests": sides, "checks": true }))?;
        let answer = engine.batched_tdb(&request, &Context::default())?;
        use CheckName::{Dictionary, Difference, Gradient, Identity, Sharing, Sum, Writes};
        let dictionaries = if with_autoencoders { vec![Dictionary, Dictionary] } else { vec![] };
        for (i, side) in answer.inference_sub_responses.iter().enumerate() {
            // Under an ablation the parts of a layer are not what they would be.
            let mut expected = if i == 2 { vec![] } else { vec![Sum, Writes] };
            expected.extend([Identity, Difference, Gradient, Sharing]);
            expected.extend(&dictionaries);
            assert_passed(side.checks.as_ref().context("no checks")?, &expected);
        }
    }
    Ok(())
}

#[test]
fn random_nodes_bound_what_was_not_looked_at() -> Result<()> {
    let engine = embedded(false)?;
    let targets = json!([[" Mary"], [" John"]]);
    let (nodes, _) = rows(&engine, STORE, targets.clone(), 3)?;
    let mut asked = request(STORE, &targets, &nodes)?;
    asked.random_nodes = 60;
    let answer = engine.effects(&asked, &Context::default())?;
    let bound = answer.sampled.clone().context("no bound")?;
    let config = engine.model().config();
    let all = 14 * config.d_ff * config.n_layers + 14 * 15 / 2 * config.n_heads * config.n_layers;
    assert_eq!(bound.nodes, 60);
    let embeddings = nodes.iter().any(|node| node.node_type == NodeType::Layer);
    assert_eq!(bound.population as usize, all + 14 * usize::from(embeddings) - nodes.len());
    assert_eq!(bound.share, 0.05);
    let by_hand =
        engine.effects(&request(STORE, &targets, std::slice::from_ref(&bound.node_index))?, &Context::default())?;
    assert!((by_hand.nodes[0].exact.abs() - bound.largest).abs() < 1e-6);
    assert!(!nodes.contains(&bound.node_index));
    assert_eq!(engine.effects(&asked, &Context::default())?, answer, "the same request has the same answer");
    Ok(())
}

/// Two layers of attention without norms that matter: a neuron of the first layer makes the only head of the second look at
/// one token rather than another, so surely that the softmax is saturated.
#[derive(Debug)]
struct Saturated(Config);

impl Source for Saturated {
    fn contains(&self, _: &str) -> bool {
        true
    }

    fn shape(&self, name: &str) -> Result<Vec<usize>, CheckpointError> {
        match name.ends_with(".bias") {
            true => Ok(vec![self.0.d_model]),
            false => Err(CheckpointError::missing(Path::new("constructed weights"), name)),
        }
    }

    fn matrix(&self, name: &str, [rows, cols]: [usize; 2]) -> Result<Matrix, CheckpointError> {
        let entries: &[(usize, usize, f32)] = match name {
            // Dimension 0: the first token, 1: the second, 2: the last one; 3: what the neuron writes; 4: the answer; 5: nothing,
            // against which the others are read, because the norm takes the mean away.
            "embed.weight" => &[(32, 0, 1.0), (347, 1, 1.0), (327, 2, 1.0)],
            "unembed.weight" => &[(32, 4, 1.0)],
            // The neuron is excited by the last token.
            "blocks.0.mlp.in.weight" => &[(0, 2, 1.0)],
            "blocks.0.mlp.out.weight" => &[(3, 0, 0.005)],
            // The query asks for the first token where the neuron wrote, else for the second.
            "blocks.1.attn.q.weight" => &[(0, 3, 360.0), (0, 5, -360.0), (1, 2, 2.0), (1, 5, -2.0)],
            "blocks.1.attn.k.weight" => &[(0, 0, 3.0), (0, 5, -3.0), (1, 1, 3.0), (1, 5, -3.0)],
            // The first token's value is the answer.
            "blocks.1.attn.v.weight" => &[(0, 0, 2.0), (0, 5, -2.0)],
            "blocks.1.attn.o.weight" => &[(4, 0, 0.03)],
            _ => &[],
        };
        let mut data = vec![0.0; rows * cols];
        entries.iter().for_each(|(row, col, value)| data[row * cols + col] = *value);
        Ok(Matrix::from_vec(rows, cols, data))
    }

    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, CheckpointError> {
        Ok(vec![f32::from(u8::from(name.ends_with("norm.weight"))); len])
    }
}

#[test]
fn where_attention_is_saturated_the_corrected_estimate_is_right_and_the_plain_one_is_not() -> Result<()> {
    let config =
        Config { tied: false, mlp: MlpKind::Plain(tdb_model::Activation::Relu), ..Config::gpt2(2, 8, 1, 4, 8, 400) };
    let model = Transformer::load(config.clone(), Saturated(config))?;
    let tokenizer = tdb_model::Tokenizer::gpt2();
    let engine = Engine::new("saturated", model, tokenizer, None, None);
    let node = json!({ "nodeType": "mlp_neuron", "tensorIndices": [2, 0], "layerIndex": 0, "passType": "forward" });
    let mut asked = request("A B C", &json!([["A"], []]), &[serde_json::from_value(node)?])?;
    asked.better_estimates = true;
    let answer = engine.effects(&asked, &Context::default())?;
    let effect = &answer.nodes[0];
    let corrected = effect.corrected_estimate.context("no corrected estimate")?;
    println!("exact {}, estimate {}, corrected {corrected}", effect.exact, effect.estimate);
    assert!(effect.exact.abs() > 0.2, "{effect:?}");
    assert!(effect.estimate.abs() < 0.05 * effect.exact.abs(), "{effect:?}");
    assert!(corrected / effect.exact > 0.8 && corrected / effect.exact < 1.2, "{effect:?}");
    assert!(effect.parts);
    Ok(())
}

#[test]
fn dropped_gradients_do_not_cancel() -> Result<()> {
    let engine = embedded(false)?;
    let targets = json!([[" Mary"], [" John"]]);
    let (nodes, _) = rows(&engine, STORE, targets.clone(), 6)?;
    let mut asked = request(STORE, &targets, &nodes)?;
    asked.better_estimates = true;
    let answer = engine.effects(&asked, &Context::default())?;
    for effect in &answer.nodes {
        let (corrected, dropped) =
            (effect.corrected_estimate.context("none")?, effect.dropped_estimate.context("none")?);
        assert!(corrected.is_finite() && dropped >= 0.0, "{effect:?}");
    }
    // A node of the last MLP layer reaches the objective through nothing: with another layer dropped nothing changes, and with
    // its own dropped there is nothing, so that the mean over all but one is its own size.
    let last = engine.model().config().n_layers as i64 - 1;
    let node = json!({ "nodeType": "mlp_neuron", "tensorIndices": [13, 5], "layerIndex": last, "passType": "forward" });
    let mut asked = request(STORE, &targets, &[serde_json::from_value(node)?])?;
    asked.better_estimates = true;
    let effect = engine.effects(&asked, &Context::default())?.nodes.remove(0);
    let expected = effect.corrected_estimate.context("none")?.abs();
    assert!((effect.dropped_estimate.context("none")? - expected).abs() < 1e-6 + 1e-4 * expected, "{effect:?}");
    Ok(())
}

#[test]
fn what_cannot_be_removed_is_refused_with_a_sentence() -> Result<()> {
    let engine = embedded(false)?;
    let targets = json!([[" Mary"], [" John"]]);
    let node = |node_type: &str, indices: Value, layer: Value| -> Result<MirroredNodeIndex> {
        let node =
            json!({ "nodeType": node_type, "tensorIndices": indices, "layerIndex": layer, "passType": "forward" });
        Ok(serde_json::from_value(node)?)
    };
    for (node, sentence) in [
        (node("mlp_neuron", json!([0, 100_000]), json!(0))?, "the neuron of a node of type \"mlp_neuron\" is 100000"),
        (node("mlp_neuron", json!([0, 1]), json!(9))?, "layerIndex of a node is 9, but the model has layers 0..4"),
        (node("mlp_neuron", json!([99, 1]), json!(0))?, "the token of a node"),
        (node("mlp_neuron", json!([0]), json!(0))?, "must have 2 entries"),
        (node("mlp_autoencoder_latent", json!([0, 1]), json!(0))?, "needs an autoencoder"),
        (node("vocab_token", json!([0, 1]), json!(0))?, "cannot be removed"),
    ] {
        let found = refusal(engine.effects(&request(STORE, &targets, &[node])?, &Context::default()))?;
        assert!(found.contains(sentence), "{found}");
    }
    let found = refusal(engine.effects(&request(STORE, &json!([[], []]), &[])?, &Context::default()))?;
    assert!(found.contains("targetTokens: is empty"), "{found}");
    let bounds = Bounds { varied_runs: 5, ..Default::default() };
    let (nodes, _) = rows(&engine, STORE, targets.clone(), 5)?;
    let context = Context { bounds, ..Context::default() };
    let found = refusal(engine.effects(&request(STORE, &targets, &nodes)?, &context))?;
    assert!(found.contains("at most 5 for one request"), "{found}");
    let mut asked = request(STORE, &targets, &nodes)?;
    asked.only_price = true;
    let answer = engine.effects(&asked, &Context::default())?;
    assert!(answer.nodes.is_empty() && answer.price.runs as usize == nodes.len() && answer.price.seconds > 0.0);
    Ok(())
}

fn patch(clean: &str, corrupted: &str, more: Value) -> Result<PatchRequest> {
    let mut body = json!({
        "cleanPrompt": clean, "corruptedPrompt": corrupted, "targetTokens": [" Mary"], "distractorTokens": [" John"],
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        body[key] = value.clone();
    }
    Ok(serde_json::from_value(body)?)
}

#[test]
fn every_cell_of_both_directions_is_a_run_of_its_own() -> Result<()> {
    use CheckName::{Dictionary, Difference, Identity, Sharing, Sum, Whole, Writes};
    for with_autoencoders in [false, true] {
        let engine = embedded(with_autoencoders)?;
        let model = engine.model();
        let [clean, corrupted] = [STORE, SWAPPED].map(|prompt| engine.tokenizer().encode(prompt));
        let runs = [model.forward(&clean, Default::default())?, model.forward(&corrupted, Default::default())?];
        for direction in ["denoising", "noising"] {
            let answer =
                engine.patch(&patch(STORE, SWAPPED, json!({ "direction": direction }))?, &Context::default())?;
            let mut expected = vec![Sum, Writes, Identity, Difference, Whole, Sharing];
            expected.extend(if with_autoencoders { vec![Dictionary, Dictionary] } else { vec![] });
            assert_passed(&answer.checks, &expected);
            let (layers, tokens) = (model.config().n_layers, clean.len());
            assert_eq!(answer.cells.len(), 3 * layers * tokens + layers * model.config().n_heads);
            assert!((answer.runs.denominator - (answer.runs.clean - answer.runs.corrupted)).abs() < 1e-9);
            let (base, other) = if direction == "denoising" { (1, 0) } else { (0, 1) };
            let mut moved = 0;
            for cell in &answer.cells {
                let site = match (cell.group, cell.layer_index) {
                    (PatchGroup::Residual, Some(0)) => (tdb_model::Site::ResidPostEmb, None),
                    (PatchGroup::Residual, layer) => (tdb_model::Site::ResidPostMlp, layer.map(|l| l as usize - 1)),
                    (PatchGroup::Attention, layer) => (tdb_model::Site::ResidDeltaAttn, layer.map(|l| l as usize)),
                    (PatchGroup::Mlp, layer) => (tdb_model::Site::ResidDeltaMlp, layer.map(|l| l as usize)),
                    (_, layer) => (tdb_model::Site::AttnVOut, layer.map(|l| l as usize)),
                };
                use tdb_model::Index::{All, At};
                let indices = match (cell.token_index, cell.unit) {
                    (Some(token), None) => vec![At(token as usize), All],
                    (None, Some(head)) => vec![All, At(head as usize), All],
                    _ => bail!("{cell:?}"),
                };
                let point = tdb_model::Point { site: site.0, layer: site.1 };
                let patches = [tdb_model::Patch::from_run(&runs[other], point, indices)?];
                let mut hooks = tdb_model::PatchHooks(&patches);
                let options = tdb_model::ForwardOptions { hooks: Some(&mut hooks), ..Default::default() };
                let alone = model.forward(runs[base].tokens(), options)?.logits(tokens - 1)?;
                let id = |text: &str| engine.tokenizer().single_token(text).map(|t| t as usize);
                let expected = f64::from(alone[id(" Mary")?] - alone[id(" John")?]);
                assert!((cell.metric - expected).abs() < 1e-4, "{cell:?}: {expected}");
                let from = if direction == "denoising" { answer.runs.corrupted } else { answer.runs.clean };
                let sign = if direction == "denoising" { 1.0 } else { -1.0 };
                let effect = sign * (cell.metric - from) / answer.runs.denominator;
                assert!((cell.effect.context("no effect")? - effect).abs() < 1e-9);
                // The prompts differ from token 1 on.
                let upstream = cell.token_index.is_none_or(|t| t >= 1)
                    && (cell.group != PatchGroup::Residual
                        || cell.layer_index != Some(0)
                        || [1, 3, 9].contains(&cell.token_index.unwrap_or(0)));
                moved += usize::from(upstream && effect != 0.0);
            }
            assert!(moved > answer.cells.len() / 2, "{moved} of {}", answer.cells.len());
        }
    }
    Ok(())
}

#[test]
fn cells_units_and_paths_drill_into_a_layer() -> Result<()> {
    let engine = embedded(true)?;
    let at = |location: &str, layer: Value, indices: Value| json!({ "activationLocationType": location, "layerIndex": layer, "tensorIndices": indices, "passType": "forward" });
    let all = json!({ "sites": [at("resid.post_emb", json!(null), json!(["All", "All"]))] });
    let units = |location: &str| json!({ "activationLocationType": location, "layerIndex": 2, "tokenIndex": 13 });
    let path = |layer: i64, through: &str| {
        let from = at("attn.v_out", json!(1), json!(["All", 2]));
        json!({ "from": from, "toLayer": layer, "toHead": 1, "through": through })
    };
    let more = json!({
        "cells": [all, { "sites": [at("attn.q", json!(2), json!([13, 1])), at("attn.k", json!(2), json!([3, 1]))] }],
        "units": [units("mlp.post_act"), units("attn.v_out"), units("attn.q"), units("online_mlp_autoencoder_latent")],
        "paths": [path(2, "Q"), path(3, "K"), path(2, "V")],
    });
    let answer = engine.patch(&patch(STORE, SWAPPED, more)?, &Context::default())?;
    let count = |group, index| answer.cells.iter().filter(|c| c.group == group && c.index == index).count();
    assert!(
        (answer.cells[0].metric - answer.runs.clean).abs() < 1e-4,
        "everything from the clean run is the clean run"
    );
    assert_eq!(count(PatchGroup::Cells, 1), 1);
    assert_eq!(count(PatchGroup::Units, 0), 16);
    assert_eq!(count(PatchGroup::Units, 1), engine.model().config().n_heads);
    assert_eq!(count(PatchGroup::Units, 2), engine.model().config().n_heads);
    assert!(count(PatchGroup::Units, 3) >= 1);
    assert_eq!(answer.cells.iter().filter(|c| c.group == PatchGroup::Paths).count(), 3);
    let paths: Vec<f64> = answer.cells.iter().filter(|c| c.group == PatchGroup::Paths).map(|c| c.metric).collect();
    assert!(paths.iter().all(|metric| *metric != answer.runs.corrupted), "{paths:?}");
    Ok(())
}

#[test]
fn metrics_and_alignments_are_as_their_names_say() -> Result<()> {
    let engine = embedded(false)?;
    let ask =
        |more: Value| engine.patch(&patch(STORE, SWAPPED, more)?, &Context::default()).map_err(anyhow::Error::from);
    let no = json!(null);
    let log = ask(json!({ "metric": "log_probability", "distractorTokens": no, "grids": ["heads"] }))?;
    let plain = ask(json!({ "metric": "probability", "distractorTokens": no, "grids": ["heads"] }))?;
    for (log, plain) in log.cells.iter().zip(&plain.cells) {
        assert!((log.metric.exp() - plain.metric).abs() < 1e-6);
    }
    let kl =
        ask(json!({ "metric": "kl_divergence", "targetTokens": no, "distractorTokens": no, "grids": ["residual"] }))?;
    assert!(kl.runs.clean.abs() < 1e-9 && kl.runs.corrupted > 0.0 && kl.cells.iter().all(|c| c.metric >= -1e-9));

    let short = "When John and Mary went to the store, Mary gave to";
    let n = engine.tokenizer().encode(short).len();
    let found = refusal(engine.patch(&patch(STORE, short, json!({}))?, &Context::default()))?;
    assert!(found.contains(&format!("alignment: cleanPrompt has 14 tokens and corruptedPrompt {n}")), "{found}");
    let pair = |clean: i64, corrupted: i64| json!({ "clean": clean, "corrupted": corrupted });
    let aligned =
        json!({ "alignment": [pair(1, 1), pair(3, 3), pair(13, n as i64 - 1)], "grids": ["residual", "heads"] });
    let answer = engine.patch(&patch(STORE, short, aligned)?, &Context::default())?;
    let tokens: Vec<_> =
        answer.cells.iter().filter(|c| c.layer_index == Some(1)).filter_map(|c| c.token_index).collect();
    assert_eq!(tokens, [1, 3, n as i64 - 1]);
    let same = engine.patch(&patch(STORE, STORE, json!({ "grids": ["mlp"] }))?, &Context::default())?;
    assert!(same.runs.remark.context("no remark")?.contains("too little to divide by"));
    assert!(same.cells.iter().all(|cell| cell.effect.is_none() && cell.metric == same.runs.clean));
    Ok(())
}

#[test]
fn patches_that_cannot_be_are_refused_with_a_sentence() -> Result<()> {
    let engine = embedded(false)?;
    let site = |location: &str, layer: Value, indices: Value| {
        let site = json!({
            "activationLocationType": location, "layerIndex": layer, "tensorIndices": indices, "passType": "forward",
        });
        json!({ "cells": [{ "sites": [site] }] })
    };
    let pair = |clean: i64, corrupted: i64| json!({ "clean": clean, "corrupted": corrupted });
    for (more, sentence) in [
        (json!({ "targetTokens": [] }), "targetTokens: is empty"),
        (json!({ "metric": "probability" }), "distractorTokens: has no meaning with the metric \"probability\""),
        (
            json!({ "metric": "probability", "targetTokens": [], "distractorTokens": [] }),
            "targetTokens: is empty; the metric",
        ),
        (json!({ "metric": "kl_divergence", "distractorTokens": [] }), "targetTokens: has no meaning"),
        (json!({ "alignment": [] }), "alignment: is empty"),
        (json!({ "alignment": [pair(0, 99)] }), "the corrupted prompt has no token 99"),
        (json!({ "alignment": [pair(0, 1), pair(2, 1)] }), "a token stands for two others"),
        (json!({ "cells": [{ "sites": [] }] }), "cells[0].sites: is empty"),
        (site("online_mlp_autoencoder_latent", json!(0), json!([0, 0])), "cells[0].sites[0]: "),
        (site("mlp.post_act", json!(9), json!([0, 0])), "layerIndex is 9, but the model has layers 0..4"),
        (site("mlp.post_act", json!(null), json!([0, 0])), "layerIndex is null"),
        (site("mlp.post_act", json!(1), json!([99, 0])), "tensorIndices[0] is 99, outside 0..14"),
        (site("logits", json!(null), json!([0, 0])), "logits cannot be patched"),
    ] {
        let found = refusal(engine.patch(&patch(STORE, SWAPPED, more)?, &Context::default()))?;
        assert!(found.contains(sentence), "{found}");
    }
    let context = Context { bounds: Bounds { varied_runs: 40, ..Default::default() }, ..Context::default() };
    let found = refusal(engine.patch(&patch(STORE, SWAPPED, json!({}))?, &context))?;
    assert!(found.contains("at most 40 for one request; one of heads alone would fit"), "{found}");
    Ok(())
}

#[test]
fn checks_pass_for_models_of_other_shapes_and_under_ablations() -> Result<()> {
    let engine = engine(None, None)?;
    let targets = json!([[" Canada"], [" Germany"]]);
    let (nodes, _) = rows(&engine, PROMPT, targets.clone(), 4)?;
    let mut asked = request(PROMPT, &targets, &nodes)?;
    let answer = engine.effects(&asked, &Context::default())?;
    assert!(answer.checks.iter().all(|check| check.passed), "{:#?}", answer.checks);
    let ablated = json!([{ "nodeIndex": nodes[0], "value": 0.0 }]);
    asked.node_ablations = serde_json::from_value(ablated.clone())?;
    let answer = engine.effects(&asked, &Context::default())?;
    assert!(answer.checks.iter().all(|check| check.passed), "{:#?}", answer.checks);
    let base = objective(&engine, PROMPT, targets.clone(), ablated.clone())?;
    assert!((answer.objective - base).abs() < 1e-5);
    assert!(answer.nodes[0].exact.abs() < 1e-5, "what is ablated already has no effect: {:?}", answer.nodes[0]);
    Ok(())
}
