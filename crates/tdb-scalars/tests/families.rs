//! What the words of an answer mean in every family: the direct effects of all components and the constants add up to
//! the logit difference, and those on a traced node to its value; heads that share keys and values are components of
//! their own; parallel blocks; norms after a layer; caps.

use crate::procedural::dictionary;
use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tdb_api::{AttentionTraceType, DerivedScalarType as Dst, MlpTraceType, PassType};
use tdb_model::numbers::dot;
use tdb_model::{AutoencoderSite, BlockOrder, ForwardOptions, Site, Tensor, Transformer, checkpoint};
use tdb_scalars::compute::values;
use tdb_scalars::nodes::{Component, Node};
use tdb_scalars::{Ablation, Answer, Context, Engine, Question, TracedNode};
use tdb_testkit::families::{Copied, PROMPT, names};

const TOKENS: usize = 13;

fn engine(name: &str) -> Result<Engine> {
    let checkpoint = checkpoint::open(&Copied::new(name)?.path)?;
    let model = Transformer::load(checkpoint.config, checkpoint.weights)?;
    Ok(Engine::new(name, model, checkpoint.tokenizer, None, None))
}

/// All components are listed in the answer.
fn question() -> Question {
    let mut question = Question::new(PROMPT, &[" Mary"], &[" John"]);
    question.extremes = 100_000;
    question
}

fn direct(answer: &Answer) -> f64 {
    answer.effects.iter().map(|effect| effect.direct).sum()
}

fn row(x: &Tensor, token: usize) -> Result<Vec<f32>> {
    Ok(x.get(token)?.to_vec1()?)
}

/// What biases add to the objective whose gradient at the residual stream of `token` before layer `end` is `gradient`.
fn biases(model: &Transformer, gradient: &[f32], end: usize) -> Result<f64> {
    let mut sum = 0.0;
    for layer in 0..end {
        for part in ["attn.o", "mlp.out"] {
            if let Ok(bias) = model.weight(&format!("blocks.{layer}.{part}.bias")) {
                assert!(!model.config().post_norms, "a bias before a norm is no constant");
                sum += f64::from(dot(gradient, &bias.to_vec1()?));
            }
        }
    }
    Ok(sum)
}

/// Also where layers are normalised after they have written; there, too, they are mostly nearer to the exact effect.
#[test]
fn every_family_has_corrected_estimates() -> Result<()> {
    let (mut nearer, mut farther) = (0, 0);
    for name in names()? {
        let engine = engine(&name)?;
        let config = engine.model().config();
        let node = |node_type: &str, layer: usize, indices: Value| json!({ "nodeType": node_type, "tensorIndices": indices, "layerIndex": layer, "passType": "forward" });
        let mut nodes = Vec::new();
        for layer in 0..config.n_layers {
            nodes.extend((0..config.d_ff.min(12)).map(|unit| node("mlp_neuron", layer, json!([TOKENS - 2, unit]))));
            nodes.extend((0..2).map(|head| node("attention_head", layer, json!([TOKENS - 2, null, head]))));
        }
        let request = serde_json::from_value(json!({
            "prompt": PROMPT, "targetTokens": [" Mary"], "distractorTokens": [" John"], "nodes": nodes,
            "betterEstimates": true,
        }))?;
        let answer = engine.effects(&request, &Context::default())?;
        assert!(answer.checks.iter().all(|check| check.passed), "{name}: {:#?}", answer.checks);
        for effect in &answer.nodes {
            let corrected = effect.corrected_estimate.with_context(|| name.clone())?;
            assert!(corrected.is_finite(), "{name}: {effect:?}");
            let [plain, better] = [effect.estimate, corrected].map(|x| (x - effect.exact).abs());
            if config.post_norms && effect.exact != 0.0 {
                nearer += usize::from(better < plain);
                farther += usize::from(better > plain);
            }
        }
    }
    assert!(nearer > 0 && nearer > farther, "{nearer} and {farther}");
    Ok(())
}

#[test]
fn direct_effects_and_constants_are_the_logit_difference() -> Result<()> {
    for name in names()? {
        let engine = engine(&name)?;
        let (model, answer) = (engine.model(), engine.ask(&question())?);
        let (config, last) = (model.config(), TOKENS - 1);
        let pairs = TOKENS * TOKENS * config.n_heads;
        assert_eq!(answer.effects.len(), TOKENS + config.n_layers * (TOKENS * config.d_ff + pairs), "{name}");
        let run = model.forward(&engine.tokenizer().encode(PROMPT), ForwardOptions::default())?;
        let (logits, resid) = (run.logits(last)?, row(run.last_residual(), last)?);
        let [target, distractor] = [" Mary", " John"].map(|text| engine.tokenizer().single_token(text));
        let (target, distractor) = (target? as usize, distractor? as usize);
        let found = answer.difference.context("no difference")?;
        assert!((found - f64::from(logits[target] - logits[distractor])).abs() < 1e-5, "{name}");

        let mut d_logits = vec![0.0; logits.len()];
        (d_logits[target], d_logits[distractor]) = (1.0, -1.0);
        let at_norm = model.unembedding().vjp(&logits, &d_logits);
        let gradient = model.final_norm().vjp_row(&resid, &at_norm, true);
        let mut constants = biases(model, &gradient, config.n_layers)?;
        if let Ok(bias) = model.weight("final_norm.bias") {
            constants += f64::from(dot(&at_norm, &bias.to_vec1()?));
        }
        if let Some(bias) = model.unembedding().bias() {
            constants += f64::from(dot(&model.unembedding().through_cap(&logits, &d_logits), bias));
        }
        // Where logits are capped, what their slope leaves over is a constant, too.
        if let Some(cap) = config.logit_softcap {
            let rest = |z: f32| {
                let uncapped = cap * (z / cap).atanh();
                f64::from(z - (1.0 - (z / cap).powi(2)) * uncapped)
            };
            constants += rest(logits[target]) - rest(logits[distractor]);
        }
        let sum = direct(&answer) + constants;
        assert!((sum - found).abs() < 1e-3, "{name}: {sum} for {found}");
        assert!(found.abs() > 0.02, "{name}: {found} would prove nothing");
    }
    Ok(())
}

#[test]
fn effects_on_a_traced_neuron_are_its_pre_activation() -> Result<()> {
    for name in names()? {
        let engine = engine(&name)?;
        let model = engine.model();
        let (layer, token, index) = (1, TOKENS - 2, 3);
        if !model.block(layer).has_mlp() {
            continue;
        }
        let (block, order) = (model.block(layer), model.config().block);
        let gate = (None, Site::MlpPreAct, block.mlp().read_direction(index), block.mlp().read_bias(index));
        let up = block.mlp().up_direction(index);
        let up = up.map(|read| (Some(MlpTraceType::Up), Site::MlpUp, read, block.mlp().up_bias(index)));
        for (mlp, site, read, bias) in [Some(gate), up].into_iter().flatten() {
            let node = Node::Neuron { layer, token, index };
            let answer = engine.ask(&Question {
                trace: Some(TracedNode { node, through: None, mlp }),
                targets: Vec::new(),
                distractors: Vec::new(),
                ..question()
            })?;
            let run = model.forward(&engine.tokenizer().encode(PROMPT), ForwardOptions::default())?;
            let value = answer.traced.context("no value")?;
            let found = row(&run.get(site, layer)?, token)?[index];
            assert!((value - f64::from(found)).abs() < 1e-4, "{name}, {site:?}");

            let resid = match order {
                BlockOrder::Sequential => run.get(Site::ResidPostAttn, layer)?,
                BlockOrder::Parallel => run.residual_before(layer).clone(),
            };
            let gradient = block.mlp_norm.vjp_row(&row(&resid, token)?, &read, true);
            let mut constants = biases(model, &gradient, layer)? + f64::from(bias);
            if order == BlockOrder::Sequential
                && let Ok(bias) = model.weight(&format!("blocks.{layer}.attn.o.bias"))
            {
                constants += f64::from(dot(&gradient, &bias.to_vec1()?));
            }
            if let Ok(bias) = model.weight(&format!("blocks.{layer}.mlp_norm.bias")) {
                constants += f64::from(dot(&read, &bias.to_vec1()?));
            }
            let sum = direct(&answer) + constants;
            assert!((sum - value).abs() < 1e-3, "{name}, {site:?}: {sum} for {value}");
            if order == BlockOrder::Parallel {
                let beside = |effect: &&tdb_scalars::Effect| {
                    matches!(effect.component, Component::Node(Node::Head { layer: 1, .. })) && effect.direct != 0.0
                };
                assert_eq!(answer.effects.iter().find(beside), None, "attention beside a neuron does not write to it");
            }
        }
    }
    // What is not gated has no such input.
    let node = Node::Neuron { layer: 1, token: 2, index: 3 };
    let trace = Some(TracedNode { node, through: None, mlp: Some(MlpTraceType::Gate) });
    let refused = engine("gpt-neo")?.ask(&Question { trace, ..question() }).map(|_| ());
    assert!(refused.is_err_and(|error| error.to_string().contains("mlpTraceType")));
    Ok(())
}

/// Queries, keys and values are linear in the residual stream where nothing but a norm of held scale stands before them.
#[test]
fn effects_on_a_traced_head_are_its_logit_and_its_write() -> Result<()> {
    for name in ["llama-3-scaling", "llama-linear-shards", "mistral-window", "smollm3", "gemma"] {
        let engine = engine(name)?;
        let (layer, query, key, head) = (1, TOKENS - 1, TOKENS - 3, 1);
        let node = Node::Head { layer, query, key, head };
        for through in [AttentionTraceType::Q, AttentionTraceType::K, AttentionTraceType::V] {
            let answer = engine
                .ask(&Question { trace: Some(TracedNode { node, through: Some(through), mlp: None }), ..question() })?;
            let value = answer.traced.context("no value")?;
            let sum = direct(&answer);
            assert!((sum - value).abs() < 1e-3, "{name} through {through:?}: {sum} for {value}");
            assert!(value.abs() > 1e-3, "{name} through {through:?}: {value} would prove nothing");
        }
    }
    Ok(())
}

#[test]
fn a_head_of_a_group_is_ablated_alone() -> Result<()> {
    for name in ["llama-3-scaling", "qwen3", "gemma-3"] {
        let engine = engine(name)?;
        let (model, plain) = (engine.model(), engine.ask(&question())?);
        assert!(model.config().n_kv_heads < model.config().n_heads);
        let (layer, head) = (1, 1);
        let at_last = |effect: &&tdb_scalars::Effect| match effect.component {
            Component::Node(Node::Head { layer: l, query, head: h, .. }) => (l, query, h) == (layer, TOKENS - 1, head),
            _ => false,
        };
        let lost: f64 = plain.effects.iter().filter(at_last).map(|effect| effect.direct).sum();
        let node = Node::Head { layer, query: TOKENS - 1, key: 0, head };
        let ablations = vec![Ablation { component: Component::Node(node), value: 0.0 }];
        let ablated = engine.ask(&Question { ablations, ..question() })?;
        let left = |effect: &&tdb_scalars::Effect| match effect.component {
            Component::Node(Node::Head { layer: l, query, .. }) => (l, query) == (layer, TOKENS - 1),
            _ => false,
        };
        // The probabilities of every other head of the layer still add up to 1.
        let left: f64 = ablated.effects.iter().filter(left).map(|effect| effect.activation).sum();
        assert!((left - (model.config().n_heads - 1) as f64).abs() < 1e-4, "{name}: {left}");
        let changed = ablated.difference.context("no difference")? - plain.difference.context("no difference")?;
        assert!(changed.abs() > 1e-4, "{name}: {changed} after {lost} was taken away");
    }
    Ok(())
}

/// The same number for the same pair of nodes, seen from either end.
#[test]
fn an_edge_is_the_same_from_both_ends() -> Result<()> {
    use tdb_scalars::nodes::EdgeNode;
    for name in ["llama-3-scaling", "gemma-2", "gemma-3", "gpt-neox-parallel"] {
        let engine = engine(name)?;
        let spec = serde_json::from_value(serde_json::json!({
            "prompt": PROMPT,
            "lossFnConfig": { "name": "logit_diff", "targetTokens": [" Mary"], "distractorTokens": [" John"] },
        }))?;
        let upstream = Node::Neuron { layer: 0, token: TOKENS - 1, index: 2 };
        let downstream = Node::Neuron { layer: 1, token: TOKENS - 1, index: 5 };
        let entry = |node, dst, layer: usize, at: [usize; 2]| -> Result<f32> {
            let side = engine.inspect(&spec, Some(EdgeNode { node, through: None, frozen_scale: true }))?;
            let values = values(&side, dst, PassType::Forward, Some(layer))?;
            Ok(values.row(at[0])?[at[1]])
        };
        let out = entry(downstream, Dst::MlpOutEdgeAttribution, 0, [TOKENS - 1, 2])?;
        let into = entry(upstream, Dst::MlpInEdgeAttribution, 1, [TOKENS - 1, 5])?;
        assert!((out - into).abs() < 1e-6 + 1e-3 * out.abs() && out != 0.0, "{name}: {out} and {into}");
    }
    Ok(())
}

#[test]
fn every_scalar_of_every_family_is_numbers_or_a_sentence() -> Result<()> {
    use AutoencoderSite::{MlpPostAct, ResidDeltaAttn, ResidDeltaMlp};
    for (name, sites) in
        names()?.iter().zip([&[MlpPostAct][..], &[ResidDeltaMlp], &[ResidDeltaAttn], &[]].iter().cycle())
    {
        let checkpoint = checkpoint::open(&Copied::new(name)?.path)?;
        let config = checkpoint.config;
        let mut model = Transformer::load(config.clone(), checkpoint.weights)?;
        let has_mlp = config.d_ff > 0;
        for site in sites.iter().filter(|site| has_mlp || **site == ResidDeltaAttn) {
            model = model.attach(dictionary(&config, *site))?;
        }
        let engine = Engine::new("m", model, checkpoint.tokenizer, Some("sae".into()), Some("sae".into()));
        let spec = serde_json::from_value(serde_json::json!({
            "prompt": PROMPT,
            "lossFnConfig": { "name": "logit_diff", "targetTokens": [" Mary"], "distractorTokens": [" John"] },
        }))?;
        let node = match has_mlp {
            true => Node::Neuron { layer: 0, token: TOKENS - 1, index: 2 },
            false => Node::Head { layer: 0, query: TOKENS - 1, key: 2, head: 1 },
        };
        let edge = tdb_scalars::nodes::EdgeNode { node, through: None, frozen_scale: true };
        let side = engine.inspect(&spec, Some(edge))?;
        let mut answered = 0;
        for dst in Dst::ALL {
            let layer = (!tdb_scalars::derived::is_whole_model(*dst)).then_some(1);
            match values(&side, *dst, PassType::Forward, layer) {
                Ok(values) => {
                    assert_eq!(values.dims().len(), tdb_scalars::derived::dimensions(*dst).len(), "{name}: {dst}");
                    for row in 0..values.dims()[0] {
                        let row = values.row(row)?;
                        assert_eq!(row.len(), values.dims()[1..].iter().product::<usize>(), "{name}: {dst}");
                        let masked = *dst == Dst::AttnQkLogits;
                        assert!(row.iter().all(|x| x.is_finite() || masked), "{name}: {dst}");
                    }
                    answered += 1;
                }
                Err(error) => assert!(error.to_string().len() > 20, "{name}: {dst}: {error}"),
            }
        }
        assert!(answered >= if has_mlp { 50 } else { 40 }, "{name}: {answered}");
    }
    Ok(())
}

/// Heads that share keys and values have no key of their own.
#[test]
fn keys_are_counted_by_groups() -> Result<()> {
    let engine = engine("llama-3-scaling")?;
    let spec = |head: i64| {
        serde_json::from_value(serde_json::json!({
            "prompt": PROMPT,
            "ablationSpecs": [{
                "index": { "activationLocationType": "attn.k", "tensorIndices": ["All", head, "All"], "layerIndex": 0,
                           "passType": "forward" },
                "value": 0,
            }],
        }))
    };
    engine.inspect(&spec(1)?, None)?;
    let refused = engine.inspect(&spec(3)?, None).map(|_| ()).map_err(|error| error.to_string());
    assert!(
        refused.as_ref().is_err_and(|text| text.contains("4 heads share 2 groups of keys and values")),
        "{refused:?}"
    );
    Ok(())
}
