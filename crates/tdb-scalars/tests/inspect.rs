//! The library interface: every derived scalar of a run, edges among them, and what their sums must be.

use crate::common::{PROMPT, engine};
use anyhow::{Context as _, Result};
use tdb_api::{
    ActivationLocationType as Location, AllOrOneIndex, AttentionTraceType, BatchedTdbRequest, DerivedScalarType as Dst,
    InferenceRequestSpec, MirroredActivationIndex, PassType,
};
use tdb_model::Slot;
use tdb_model::numbers::{Numbers, dot};
use tdb_scalars::compute::values;
use tdb_scalars::nodes::{EdgeNode, Node};
use tdb_scalars::{Context, Error, Side, derived};

fn question(prompt: &str) -> Result<InferenceRequestSpec> {
    Ok(serde_json::from_value(serde_json::json!({
        "prompt": prompt,
        "lossFnConfig": { "name": "logit_diff", "targetTokens": [" Canada"], "distractorTokens": [" Germany"] },
    }))?)
}

fn at(side: &Side<'_>, dst: Dst, layer: usize, index: &[usize]) -> Result<f32> {
    Ok(values(side, dst, PassType::Forward, Some(layer))?.entries()?.at(index)?)
}

#[test]
fn an_edge_is_the_same_from_both_of_its_ends() -> Result<()> {
    let engine = engine(None, None)?;
    let spec = question(PROMPT)?;
    let ups = [
        (Node::Neuron { layer: 0, token: 2, index: 5 }, Dst::MlpOutEdgeAttribution, vec![2, 5]),
        (Node::Head { layer: 0, query: 4, key: 1, head: 3 }, Dst::AttnOutEdgeAttribution, vec![4, 1, 3]),
    ];
    let (neuron, head) = (vec![2, 17], vec![6, 4, 2]);
    let head_node = Node::Head { layer: 1, query: 6, key: 4, head: 2 };
    let other = Node::Neuron { layer: 1, token: 4, index: 17 };
    use AttentionTraceType::{K, Q, V};
    let downs = [
        (Node::Neuron { layer: 1, token: 2, index: 17 }, None, Dst::MlpInEdgeAttribution, neuron),
        (other, None, Dst::MlpInEdgeAttribution, vec![4, 17]),
        (head_node, Some(Q), Dst::AttnQueryInEdgeAttribution, head.clone()),
        (head_node, Some(K), Dst::AttnKeyInEdgeAttribution, head.clone()),
        (head_node, Some(V), Dst::AttnValueInEdgeAttribution, head),
        (Node::Head { layer: 1, query: 4, key: 2, head: 0 }, Some(K), Dst::AttnKeyInEdgeAttribution, vec![4, 2, 0]),
        (Node::Head { layer: 1, query: 4, key: 2, head: 0 }, Some(Q), Dst::AttnQueryInEdgeAttribution, vec![4, 2, 0]),
    ];
    let mut nonzero = 0;
    for frozen_scale in [true, false] {
        for (up, out_dst, up_index) in &ups {
            for (down, through, in_dst, down_index) in &downs {
                let from = EdgeNode { node: *up, through: None, frozen_scale };
                let to = EdgeNode { node: *down, through: *through, frozen_scale };
                let seen_from_below = at(&engine.inspect(&spec, Some(from))?, *in_dst, 1, down_index)?;
                let seen_from_above = at(&engine.inspect(&spec, Some(to))?, *out_dst, 0, up_index)?;
                let close = (seen_from_below - seen_from_above).abs() <= 1e-6 + 1e-3 * seen_from_above.abs();
                assert!(close, "{up:?} -> {down:?} {through:?}: {seen_from_below} and {seen_from_above}");
                nonzero += usize::from(seen_from_above.abs() > 1e-6);
            }
        }
    }
    assert!(nonzero >= 6, "only {nonzero} edges of the test are not zero");
    Ok(())
}

#[test]
fn edges_into_latents_agree_too() -> Result<()> {
    for (mlp, attn, slot) in [
        (Some("ae-resid-delta-mlp"), None, Slot::Mlp),
        (Some("ae-mlp-post-act"), None, Slot::Mlp),
        (None, Some("ae-resid-delta-attn"), Slot::Attention),
    ] {
        let engine = engine(mlp, attn)?;
        let spec = question(PROMPT)?;
        let plain = engine.inspect(&spec, None)?;
        let latents = values(&plain, Dst::OnlineAutoencoderLatent, PassType::Forward, Some(1))?;
        let n = latents.dims()[1];
        let token = 6;
        let mut entries = latents.entries()?;
        let active = |i: &usize| entries.at(&[token, *i]).is_ok_and(|x| x > 0.0);
        let index = (0..n).find(active).context("no active latent")?;
        let down = Node::Latent { slot, layer: 1, token, index };
        let up = Node::Neuron { layer: 0, token: 6, index: 9 };
        let from = EdgeNode { node: up, through: None, frozen_scale: true };
        let to = EdgeNode { node: down, through: None, frozen_scale: true };
        let below = engine.inspect(&spec, Some(from))?;
        let below = at(&below, Dst::OnlineAutoencoderInEdgeAttribution, 1, &[token, index])?;
        let above = at(&engine.inspect(&spec, Some(to))?, Dst::MlpOutEdgeAttribution, 0, &[6, 9])?;
        assert!((below - above).abs() <= 1e-6 + 1e-3 * above.abs(), "{slot:?}: {below} and {above}");
        assert!(above.abs() > 1e-7, "the edge of the test is zero");
    }
    Ok(())
}

#[test]
fn every_scalar_has_its_dimensions() -> Result<()> {
    let engine = engine(None, Some("ae-resid-delta-attn"))?;
    let mut spec = question(PROMPT)?;
    spec.activation_index_for_within_layer_grad = Some(MirroredActivationIndex {
        activation_location_type: Location::OnlineAutoencoderLatent,
        tensor_indices: vec![AllOrOneIndex::All, AllOrOneIndex::One(3)],
        layer_index: Some(1),
        pass_type: PassType::Forward,
    });
    let node = Node::Neuron { layer: 0, token: 2, index: 5 };
    let side = engine.inspect(&spec, Some(EdgeNode { node, through: None, frozen_scale: true }))?;
    let mut answered = 0;
    for dst in Dst::ALL {
        let layer = (!derived::is_whole_model(*dst)).then_some(1);
        match values(&side, *dst, PassType::Forward, layer) {
            Ok(values) => {
                assert_eq!(values.dims().len(), derived::dimensions(*dst).len(), "{dst}");
                answered += 1;
            }
            Err(error) => assert!(matches!(error, Error::Bad(_)), "{dst}: {error}"),
        }
    }
    assert!(answered >= 75, "{answered}");
    Ok(())
}

#[test]
fn direct_effects_sum_to_the_logit_difference() -> Result<()> {
    let engine = engine(None, None)?;
    let words = ["Paris", " France", " the", " store", " drink", " Canada", "\n", " 1984"];
    for n in 0..12 {
        let prompt: String = (0..=n).map(|i| words[(i * 5 + n) % words.len()]).collect();
        let mut spec = question(&prompt)?;
        spec.ablation_specs = Some(vec![serde_json::from_value(serde_json::json!({
            "index": { "activationLocationType": "resid.ln_f.scale", "tensorIndices": ["All", "All"],
                       "layerIndex": null, "passType": "backward" },
            "value": 0,
        }))?]);
        let side = engine.inspect(&spec, None)?;
        let loss = f64::from(side.loss.context("no loss")?);
        let sum = |dst, layer| -> Result<f64> {
            let values = values(&side, dst, PassType::Forward, layer)?;
            Ok(values.sum(&vec![false; values.dims().len()])?.data[0])
        };
        let mut total = sum(Dst::ResidPostEmbeddingProjToFinalResidualGrad, None)?;
        let gradient = side.final_residual_gradient(Dst::MlpPostAct)?.context("no gradient")?;
        let gradient = Numbers::of(&gradient)?;
        let last = gradient.row(side.tokens() - 1);
        let along = |name: &str, direction: &[f32]| -> Result<f64> {
            Ok(f64::from(dot(Numbers::of(&engine.model().weight(name)?)?.data(), direction)))
        };
        for layer in 0..engine.model().config().n_layers {
            total += sum(Dst::MlpWriteToFinalResidualGrad, Some(layer))?;
            total += sum(Dst::UnflattenedAttnWriteToFinalResidualGrad, Some(layer))?;
            // Constants: biases of the layers' outputs.
            total += along(&format!("blocks.{layer}.attn.o.bias"), last)?;
            total += along(&format!("blocks.{layer}.mlp.out.bias"), last)?;
        }
        let unembedding = |text: &str| -> Result<Vec<f32>> {
            let token = engine.tokenizer().single_token(text)? as usize;
            Ok(engine.model().unembedding().rows(token..token + 1).into_owned())
        };
        total += along("final_norm.bias", &unembedding(" Canada")?)?;
        total -= along("final_norm.bias", &unembedding(" Germany")?)?;
        assert!((total - loss).abs() <= 1e-3 * loss.abs().max(1.0), "{prompt:?}: {total} and {loss}");
    }
    Ok(())
}

#[test]
fn the_same_question_gives_the_same_bytes() -> Result<()> {
    let engine = engine(Some("ae-resid-delta-mlp"), Some("ae-resid-delta-attn"))?;
    let request: BatchedTdbRequest = serde_json::from_value(serde_json::json!({ "subRequests": [{
        "prompt": PROMPT, "targetTokens": [" Canada"], "distractorTokens": [" Germany"],
        "componentTypeForMlp": "autoencoder_latent", "componentTypeForAttention": "attention_head",
        "topAndBottomKForNodeTable": 10, "hideEarlyLayersWhenAblating": true, "nodeAblations": [],
    }] }))?;
    let answer =
        || -> Result<String> { Ok(serde_json::to_string(&engine.batched_tdb(&request, &Context::default())?)?) };
    let first = answer()?;
    let answers: Vec<Result<String>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(answer)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    for other in answers {
        assert_eq!(first, other?);
    }
    Ok(())
}
