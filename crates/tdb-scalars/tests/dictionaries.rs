//! Dictionaries at every site: what their latents write, what of an objective goes through them, what is left over, and
//! what must add up.

use crate::common::{PROMPT, model};
use anyhow::{Context as _, Result, bail};
use serde_json::json;
use tdb_api::{
    ActivationLocationType as Location, CircuitRequest, CircuitResponse, ComponentTypeForAttention,
    ComponentTypeForMlp, DerivedScalarType as Dst, DictionaryFidelityRequest, EffectsRequest, InferenceRequestSpec,
    PassType,
};
use tdb_model::numbers::{Numbers, dot};
use tdb_model::{
    AutoencoderSite, AutoencoderWeights, LatentActivation, Matrix, NamedAutoencoder, Normalization, Site, Slot,
    Tokenizer, Transformer,
};
use tdb_scalars::compute::values;
use tdb_scalars::derived::{Quantity, Subject, find};
use tdb_scalars::dictionary::latent_type;
use tdb_scalars::nodes::Component;
use tdb_scalars::{Context, Engine, Error, Question, Side};

const LATENTS: usize = 48;

/// Numbers between -`scale` and `scale`.
fn numbers(seed: u64, len: usize, scale: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32 * 2.0 - 1.0
    };
    (0..len).map(|_| scale * next()).collect()
}

fn dictionary(
    model: &Transformer,
    site: AutoencoderSite,
    normalization: Normalization,
    layers: &[usize],
) -> NamedAutoencoder {
    let width = site.width(model.config());
    let root = (width as f32).sqrt();
    let layer = |layer: &usize| {
        let seed = 100 * *layer as u64 + site as u64;
        AutoencoderWeights {
            normalization,
            encoder_pre_bias: numbers(seed + 1, width, 0.1),
            encoder: Matrix::from_vec(LATENTS, width, numbers(seed + 2, LATENTS * width, 3.0 / root)),
            latent_bias: numbers(seed + 3, LATENTS, 0.3),
            activation: LatentActivation::Relu,
            decoder: Matrix::from_vec(width, LATENTS, numbers(seed + 4, LATENTS * width, 0.3)),
            decoder_bias: numbers(seed + 5, width, 0.1),
            skip: site.is_transcoder().then(|| Matrix::from_vec(width, width, numbers(seed + 6, width * width, 0.1))),
            activation_frequency: None,
        }
    };
    NamedAutoencoder {
        name: site.name().to_owned(),
        site,
        layers: layers.iter().map(layer).collect(),
        indices: layers.to_vec(),
    }
}

fn engine(dictionaries: &[(AutoencoderSite, Normalization, &[usize])]) -> Result<Engine> {
    let mut model = model()?;
    for (site, normalization, layers) in dictionaries {
        let dictionary = dictionary(&model, *site, *normalization, layers);
        model = model.attach(dictionary)?;
    }
    let named = |slot: Slot| model.has(slot).then(|| format!("{slot:?}"));
    let (mlp, attention, residual) = (named(Slot::Mlp), named(Slot::Attention), named(Slot::Residual));
    Ok(Engine::new("tiny-a", model, Tokenizer::gpt2(), mlp, attention).with_residual_autoencoder(residual))
}

/// Every site with a normalisation of its own.
fn kinds() -> Vec<(AutoencoderSite, Normalization)> {
    let layer_norm = Normalization::LayerNorm { epsilon: 0.05 };
    let normalizations =
        [Normalization::None, layer_norm, Normalization::Centered, Normalization::ConstantNorm, layer_norm];
    let sites = AutoencoderSite::ALL.into_iter().filter(|site| *site != AutoencoderSite::MlpTranscoderOfNormalized);
    sites.zip(normalizations.into_iter().cycle()).collect()
}

fn loss() -> serde_json::Value {
    json!({ "name": "logit_diff", "targetTokens": [" Canada"], "distractorTokens": [" Germany"] })
}

fn spec(value: serde_json::Value) -> Result<InferenceRequestSpec> {
    Ok(serde_json::from_value(value)?)
}

fn scalar(subject: Subject, quantity: Quantity) -> Result<Dst> {
    find(subject, quantity).context("there is no such scalar")
}

fn at(side: &Side<'_>, dst: Dst, layer: usize, index: &[usize]) -> Result<f32> {
    Ok(values(side, dst, PassType::Forward, Some(layer))?.entries()?.at(index)?)
}

fn sum(side: &Side<'_>, dst: Dst, layer: usize) -> Result<f64> {
    let values = values(side, dst, PassType::Forward, Some(layer))?;
    let keep = vec![false; values.dims().len()];
    Ok(values.sum(&keep)?.data[0])
}

fn location(slot: Slot) -> Location {
    match slot {
        Slot::Mlp => Location::OnlineMlpAutoencoderLatent,
        Slot::Attention => Location::OnlineAttentionAutoencoderLatent,
        Slot::Residual => Location::OnlineResidualAutoencoderLatent,
    }
}

/// An active latent with a sizable effect at a token.
fn active(side: &Side<'_>, slot: Slot, layer: usize, token: usize) -> Result<(usize, f32)> {
    let state = side.run.latents(slot, layer).context("no latents")?;
    let row = state.latents.row(token).iter();
    let largest = row.max_by(|a, b| a.1.total_cmp(&b.1)).context("no latent is active")?;
    Ok((largest.0 as usize, largest.1))
}

/// A latent that is raised by a little changes the logits' difference by its gradient.
#[test]
fn activation_times_gradient_is_what_a_small_change_does() -> Result<()> {
    for (site, normalization) in kinds() {
        let slot = Slot::of(site);
        let engine = engine(&[(site, normalization, &[0, 1])])?;
        let plain = engine.inspect(&spec(json!({ "prompt": PROMPT, "lossFnConfig": loss() }))?, None)?;
        let dst = scalar(Subject::Latents(Some(slot)), Quantity::ActTimesGrad)?;
        let mut moved = 0;
        for (layer, token) in [(0, 4), (1, 6), (0, 6)] {
            let (latent, activation) = active(&plain, slot, layer, token)?;
            let total = at(&plain, dst, layer, &[token, latent])?;
            let difference = |factor: f32| -> Result<f32> {
                let ablation = json!({
                    "index": { "activationLocationType": location(slot), "tensorIndices": [token, latent],
                               "layerIndex": layer, "passType": "forward" },
                    "value": activation * factor
                });
                let spec = spec(json!({ "prompt": PROMPT, "lossFnConfig": loss(), "ablationSpecs": [ablation] }))?;
                engine.inspect(&spec, None)?.loss.context("no loss")
            };
            let step = 0.05;
            let found = (difference(1.0 + step)? - difference(1.0 - step)?) / (2.0 * step);
            let what = format!("{site:?}, {normalization:?}, latent {layer}:{latent} at token {token}");
            assert!((found - total).abs() < 2e-3 + 0.02 * total.abs(), "{what}: {total}, by differences {found}");
            moved += usize::from(total.abs() > 1e-3);
        }
        assert!(moved > 0, "{site:?}: nothing moved");
    }
    Ok(())
}

/// For one cut through the network the direct effects of the residual dictionary's latents, of their error and of all
/// that writes later, and the constants, are the logits' difference.
#[test]
fn direct_effects_after_a_cut_add_up_to_the_difference_of_the_logits() -> Result<()> {
    let residual = |site: &AutoencoderSite| Slot::of(*site) == Slot::Residual;
    for site in AutoencoderSite::ALL.into_iter().filter(residual) {
        for normalization in [
            Normalization::None,
            Normalization::Centered,
            Normalization::LayerNorm { epsilon: 0.05 },
            Normalization::ConstantNorm,
        ] {
            for (cut, latents_in_layers) in [(0, false), (1, true)] {
                let all: &[usize] = &[0, 1];
                let mut with = vec![(site, normalization, all)];
                if latents_in_layers {
                    with.push((AutoencoderSite::MlpTranscoder, Normalization::None, all));
                    with.push((AutoencoderSite::AttnVOut, normalization, all));
                }
                let engine = engine(&with)?;
                let mut question = Question::new(PROMPT, &[" Canada"], &[" Germany"]);
                question.extremes = 100_000;
                question.residual_cut = Some(cut);
                question.list_errors = true;
                if latents_in_layers {
                    question.mlp = ComponentTypeForMlp::AutoencoderLatent;
                    question.attention = ComponentTypeForAttention::AutoencoderLatent;
                }
                let answer = engine.ask(&question)?;
                let direct: f64 = answer.effects.iter().map(|effect| effect.direct).sum();
                let found = direct + constants(&engine, site, cut, latents_in_layers)?;
                let expected = answer.difference.context("no difference")?;
                let what = format!("{site:?}, {normalization:?}, cut at {cut}, latents {latents_in_layers}");
                assert!((found - expected).abs() < 1e-3, "{what}: {found}, the difference is {expected}");
                let is_error = |c: &Component| matches!(c, Component::Error { slot: Slot::Residual, .. });
                assert!(answer.effects.iter().any(|effect| is_error(&effect.component)), "{what}");
            }
        }
    }
    Ok(())
}

/// What no node has: biases of what is written from the cut on, along the gradient, and the final norm's bias.
fn constants(engine: &Engine, site: AutoencoderSite, cut: usize, latents_in_layers: bool) -> Result<f64> {
    let question = spec(json!({
        "prompt": PROMPT,
        "lossFnConfig": loss(),
        "ablationSpecs": [{ "index": { "activationLocationType": "resid.ln_f.scale", "tensorIndices": ["All", "All"],
                                       "layerIndex": null, "passType": "backward" }, "value": 0.0 }],
    }))?;
    let side = engine.inspect(&question, None)?;
    let model = engine.model();
    let last = side.tokens() - 1;
    let gradient = side.final_residual_gradient(Dst::MlpWriteToFinalResidualGrad)?.context("no gradient")?;
    let gradient = gradient.get(last)?.to_vec1::<f32>()?;
    let along = |x: &[f32]| f64::from(dot(x, &gradient));
    // Reconstruction without latents: bias, scaled, plus the mean.
    let rest = |slot: Slot, layer: usize| -> Result<Vec<f32>> {
        let dictionary = model.autoencoder(slot, layer).context("no dictionary")?;
        let state = side.run.latents(slot, layer).context("no latents")?;
        let none = state.latents.map(|_, _, _| 0.0);
        let mut rest = dictionary.decode(&none, &state.input)?;
        if let Some(skip) = dictionary.skip(&state.input)? {
            rest = (rest - skip)?;
        }
        Ok(rest.get(last)?.to_vec1::<f32>()?)
    };
    let mut sum = along(&rest(Slot::Residual, cut)?);
    let (first_attention, first_mlp) = match site {
        AutoencoderSite::ResidPre => (cut, cut),
        AutoencoderSite::ResidPostAttn => (cut + 1, cut),
        _ => (cut + 1, cut + 1),
    };
    let n_layers = model.config().n_layers;
    for layer in first_attention..n_layers {
        if latents_in_layers {
            let rest = rest(Slot::Attention, layer)?;
            let rest = model.tensor(&[1, rest.len()], rest)?;
            sum += along(&model.block(layer).attn.write_all(&rest)?.get(0)?.to_vec1::<f32>()?);
        }
        sum += along(&model.weight(&format!("blocks.{layer}.attn.o.bias"))?.to_vec1::<f32>()?);
    }
    for layer in first_mlp..n_layers {
        sum += match latents_in_layers {
            true => along(&rest(Slot::Mlp, layer)?),
            false => along(&model.weight(&format!("blocks.{layer}.mlp.out.bias"))?.to_vec1::<f32>()?),
        };
    }
    let bias = model.final_norm().bias().context("no bias")?;
    let token = |text: &str| -> Result<usize> { Ok(engine.tokenizer().single_token(text)? as usize) };
    let unembedding = |token: usize| model.unembedding().rows(token..token + 1).to_vec();
    let (target, distractor) = (unembedding(token(" Canada")?), unembedding(token(" Germany")?));
    Ok(sum + f64::from(dot(bias, &target) - dot(bias, &distractor)))
}

/// A node that is changed a little in a layer before moves a traced latent by its gradient.
#[test]
fn a_trace_from_a_latent_says_what_moves_it() -> Result<()> {
    for (site, normalization) in kinds() {
        let slot = Slot::of(site);
        let engine = engine(&[(site, normalization, &[1])])?;
        let plain = engine.inspect(&spec(json!({ "prompt": PROMPT }))?, None)?;
        let token = 5;
        let (latent, activation) = active(&plain, slot, 1, token)?;
        let trace = json!({
            "nodeIndex": { "nodeType": latent_type(slot), "tensorIndices": [token, latent], "layerIndex": 1,
                           "passType": "forward" },
            "preOrPostAct": "post", "detachLayerNormScale": false, "attentionTraceType": null,
            "downstreamTraceConfig": null
        });
        let traced = engine.inspect(&spec(json!({ "prompt": PROMPT, "traceConfig": trace }))?, None)?;
        let what = format!("{site:?}, {normalization:?}, latent 1:{latent}");
        let value = traced.trace_seed.as_ref().context("no trace")?.value;
        assert!((value - activation).abs() < 1e-4 + 1e-4 * activation.abs(), "{what}: {value} and {activation}");
        let changes = values(&traced, Dst::MlpActTimesGrad, PassType::Forward, Some(0))?.row(token)?;
        let order = |a: &usize, b: &usize| changes[*a].abs().total_cmp(&changes[*b].abs());
        let neuron = (0..changes.len()).max_by(order).context("no neurons")?;
        let post_act = Numbers::of(&plain.get(Site::MlpPostAct, 0)?)?.at(&[token, neuron]);
        let latent_at = |factor: f32| -> Result<f32> {
            let ablation = json!({
                "index": { "activationLocationType": "mlp.post_act", "tensorIndices": [token, neuron], "layerIndex": 0,
                           "passType": "forward" },
                "value": post_act * factor
            });
            let side = engine.inspect(&spec(json!({ "prompt": PROMPT, "ablationSpecs": [ablation] }))?, None)?;
            Ok(side.run.latents(slot, 1).context("no latents")?.latents.get(token, latent))
        };
        let step = 0.02;
        let found = (latent_at(1.0 + step)? - latent_at(1.0 - step)?) / (2.0 * step);
        let expected = changes[neuron];
        assert!((found - expected).abs() < 1e-3 + 0.03 * expected.abs(), "{what}: {expected}, by differences {found}");
        assert!(expected.abs() > 1e-4, "{what}: nothing moves it");
        // Latents of the same place do not cause each other.
        let own = scalar(Subject::Latents(Some(slot)), Quantity::ActTimesGrad)?;
        assert_eq!(sum(&traced, own, 1)?, 0.0, "{what}");
    }
    Ok(())
}

/// Act times gradient of all latents, the error, the skip and what no node has is that of the activation itself.
#[test]
fn what_goes_through_an_activation_goes_through_its_parts() -> Result<()> {
    for (site, normalization) in kinds() {
        let slot = Slot::of(site);
        let engine = engine(&[(site, normalization, &[0, 1])])?;
        let side = engine.inspect(&spec(json!({ "prompt": PROMPT, "lossFnConfig": loss() }))?, None)?;
        let layer = 1;
        let mut parts = sum(&side, scalar(Subject::Latents(Some(slot)), Quantity::ActTimesGrad)?, layer)?
            + sum(&side, scalar(Subject::Error(slot), Quantity::ActTimesGrad)?, layer)?;
        if site.is_transcoder() {
            parts += sum(&side, scalar(Subject::Skip, Quantity::ActTimesGrad)?, layer)?;
        }
        let dictionary = engine.model().autoencoder(slot, layer).context("no dictionary")?;
        let state = side.run.latents(slot, layer).context("no latents")?;
        let gradient = side.gradient(Dst::AlwaysOne, slot.error(), layer)?.context("no gradient")?;
        let along =
            |x: &tdb_model::Tensor| -> Result<f64> { Ok(f64::from((x * &gradient)?.sum_all()?.to_scalar::<f32>()?)) };
        let mut rest = dictionary.decode(&state.latents.map(|_, _, _| 0.0), &state.input)?;
        if let Some(skip) = dictionary.skip(&state.input)? {
            rest = (rest - skip)?;
        }
        let (whole, found) = (along(&state.target)?, parts + along(&rest)?);
        assert!((whole - found).abs() < 1e-3 * whole.abs().max(1.0), "{site:?}: {found} of {whole}");
    }
    Ok(())
}

/// A dictionary that is the identity reconstructs everything; a random one does not fit, and that is said.
#[test]
fn fidelity_tells_what_a_reconstruction_loses() -> Result<()> {
    let request = |targets: &[&str]| {
        serde_json::from_value::<DictionaryFidelityRequest>(json!({
            "prompt": PROMPT, "targetTokens": targets, "distractorTokens": [" Germany"],
        }))
    };
    let plain = model()?;
    let width = plain.config().d_model;
    let unit = |sign: f32| (0..width * width).map(move |i| if i % (width + 1) == 0 { sign } else { 0.0 });
    let mut perfect = dictionary(&plain, AutoencoderSite::ResidPostMlp, Normalization::None, &[0]);
    let weights = &mut perfect.layers[0];
    (weights.encoder_pre_bias, weights.decoder_bias) = (vec![0.0; width], vec![0.0; width]);
    weights.latent_bias = vec![0.0; 2 * width];
    weights.encoder = Matrix::from_vec(2 * width, width, unit(1.0).chain(unit(-1.0)).collect());
    weights.decoder = weights.encoder.transpose();
    let engine = Engine::new("tiny-a", plain.attach(perfect)?, Tokenizer::gpt2(), None, None)
        .with_residual_autoencoder(Some("identity".to_owned()));
    let answer = engine.dictionary_fidelity(&request(&[" Canada"])?, &Context::default())?;
    let [dictionary] = answer.dictionaries.as_slice() else { bail!("one dictionary is loaded") };
    let layer = &dictionary.layers[0];
    assert!(layer.variance_explained > 0.9999, "{layer:?}");
    assert!((layer.cross_entropy - answer.cross_entropy).abs() < 1e-3, "{layer:?}");
    let (with, without) = (layer.logit_difference.context("none")?, answer.logit_difference.context("none")?);
    assert!((with - without).abs() < 1e-3 && layer.active_latents.len() == 7, "{layer:?}");
    assert_eq!(
        (dictionary.name.as_str(), dictionary.mismatch.as_ref().map(|s| s.contains("128 latents"))),
        ("identity", Some(true))
    );

    let engine = self::engine(&[(AutoencoderSite::ResidPostMlp, Normalization::None, &[1])])?;
    let answer = engine.dictionary_fidelity(&request(&[])?, &Context::default())?;
    assert_eq!(answer.logit_difference, None);
    let dictionary = &answer.dictionaries[0];
    assert!(dictionary.layers[0].variance_explained < 0.2, "{dictionary:?}");
    let sentence = dictionary.mismatch.as_ref().context("nothing is said")?;
    assert!(sentence.contains("another site") && sentence.contains("normalization"), "{sentence}");
    Ok(())
}

#[test]
fn a_dictionary_of_one_layer_is_asked_about_in_that_layer() -> Result<()> {
    let engine = engine(&[(AutoencoderSite::ResidPostMlp, Normalization::None, &[0])])?;
    let mut question = Question::new(PROMPT, &[" Canada"], &[" Germany"]);
    question.residual_cut = Some(0);
    let answer = engine.ask(&question)?;
    let layers = answer.effects.iter().filter_map(|effect| match effect.component {
        Component::Node(node) => Some((node.slot(), node.layer())),
        _ => None,
    });
    for (slot, layer) in layers {
        assert_eq!(layer, if slot == Slot::Residual { 0 } else { 1 }, "{slot:?}");
    }
    let refused = |question: &Question| match engine.ask(question) {
        Err(error @ (Error::Bad(_) | Error::BadField { .. })) => Ok(error.to_string()),
        _ => bail!("no error"),
    };
    question.residual_cut = Some(1);
    let sentence = refused(&question)?;
    assert!(sentence.contains("layer 1") && sentence.contains("layers 0 have"), "{sentence}");
    question.residual_cut = Some(9);
    assert!(refused(&question)?.contains("residualCutLayer: is 9"));
    let other = self::engine(&[])?;
    question.residual_cut = Some(0);
    match other.ask(&question) {
        Err(error) => assert!(error.to_string().contains("residual stream"), "{error}"),
        _ => bail!("no error"),
    }
    Ok(())
}

/// A dictionary replaces the neurons or heads of its layers; the others keep theirs, and all of it adds up.
#[test]
fn layers_without_a_dictionary_have_neurons_and_heads_beside_the_latents_of_the_others() -> Result<()> {
    for (site, layer) in [(AutoencoderSite::MlpTranscoder, 0), (AutoencoderSite::ResidDeltaAttn, 1)] {
        let engine = engine(&[(site, Normalization::None, &[layer])])?;
        let slot = Slot::of(site);
        let mut question = Question::new(PROMPT, &[" Canada"], &[" Germany"]);
        question.extremes = 100_000;
        let plain = engine.ask(&question)?;
        question.list_errors = true;
        match slot {
            Slot::Mlp => question.mlp = ComponentTypeForMlp::AutoencoderLatent,
            _ => question.attention = ComponentTypeForAttention::AutoencoderLatent,
        }
        let latents = engine.ask(&question)?;
        // What stands for the layer of the dictionary.
        let of_layer = |component: &Component| match *component {
            Component::Node(node) => node.slot() == slot && node.layer() == layer,
            Component::Error { .. } | Component::Skip { .. } => true,
            Component::Embedding { .. } => false,
        };
        let rest = |answer: &tdb_scalars::Answer| {
            let others = answer.effects.iter().filter(|effect| !of_layer(&effect.component));
            let mut others: Vec<(String, f64)> = others.map(|e| (e.component.to_string(), e.direct)).collect();
            others.sort_by(|a, b| a.0.cmp(&b.0));
            others
        };
        assert_eq!(rest(&plain), rest(&latents), "{site:?}");
        assert!(rest(&plain).len() > 500, "{site:?}: {}", rest(&plain).len());
        let kinds: Vec<bool> = latents
            .effects
            .iter()
            .filter(|effect| of_layer(&effect.component))
            .map(|effect| matches!(effect.component, Component::Node(tdb_scalars::nodes::Node::Latent { .. })))
            .collect();
        assert!(kinds.contains(&true) && kinds.contains(&false), "{site:?}");
        let neurons = latents.effects.iter().filter(|effect| of_layer(&effect.component)).any(|effect| {
            use tdb_scalars::nodes::Node::{Head, Neuron};
            matches!(effect.component, Component::Node(Neuron { .. } | Head { .. }))
        });
        assert!(!neurons, "{site:?}: a layer is told twice");
    }
    Ok(())
}

/// Taking an error away changes the objective by its exact effect; the estimate is the table's.
#[test]
fn errors_of_dictionaries_have_exact_effects() -> Result<()> {
    for (site, normalization) in kinds() {
        let slot = Slot::of(site);
        let engine = engine(&[(site, normalization, &[0, 1])])?;
        let error = |layer: usize, token: usize| {
            json!({ "nodeType": tdb_scalars::dictionary::error_type(slot), "layerIndex": layer,
                    "tensorIndices": [token, 0], "passType": "forward" })
        };
        let nodes = [error(0, 3), error(1, 6), error(0, 1)];
        let ask = |nodes: &[serde_json::Value], ablated: Option<&serde_json::Value>| {
            let ablations: Vec<_> = ablated.iter().map(|node| json!({ "nodeIndex": node, "value": 0.0 })).collect();
            let request: EffectsRequest = serde_json::from_value(json!({
                "prompt": PROMPT, "targetTokens": [" Canada"], "distractorTokens": [" Germany"], "nodes": nodes,
                "nodeAblations": ablations, "betterEstimates": true, "randomNodes": if nodes.is_empty() { 0 } else { 2 },
            }))?;
            Ok::<_, anyhow::Error>(engine.effects(&request, &Context::default())?)
        };
        let answer = ask(&nodes, None)?;
        let sampled = answer.sampled.context("no others")?;
        assert_eq!(sampled.node_index.node_type, tdb_scalars::dictionary::error_type(slot));
        let fixed = json!({
            "index": { "activationLocationType": Location::ResidFinalLayerNormScale, "tensorIndices": ["All", "All"],
                       "layerIndex": null, "passType": "backward" },
            "value": 0.0
        });
        let side = engine
            .inspect(&spec(json!({ "prompt": PROMPT, "lossFnConfig": loss(), "ablationSpecs": [fixed] }))?, None)?;
        let dst = scalar(Subject::Error(slot), Quantity::ActTimesGrad)?;
        for (node, effect) in nodes.iter().zip(&answer.nodes) {
            let without = ask(&[], Some(node))?;
            let what = format!("{site:?}, {normalization:?}, {node}");
            let exact = answer.objective - without.objective;
            assert!((effect.exact - exact).abs() < 1e-4, "{what}: {} by hand {exact}", effect.exact);
            assert!(exact != 0.0, "{what}");
            let index = |at: usize| node["tensorIndices"][at].as_u64().unwrap_or_default() as usize;
            let layer = node["layerIndex"].as_u64().unwrap_or_default() as usize;
            let listed = f64::from(at(&side, dst, layer, &[index(0), index(1)])?);
            let near = (effect.estimate - listed).abs() < 1e-4 + 1e-3 * listed.abs();
            assert!(near, "{what}: {} in the table {listed}", effect.estimate);
            assert!(effect.corrected_estimate.is_some() && effect.dropped_estimate.is_some(), "{what}");
        }
        assert!(answer.checks.iter().filter(|check| check.name != tdb_api::CheckName::Dictionary).all(|c| c.passed));
    }
    Ok(())
}

/// Dictionaries of single layers answer together, each under its own name.
#[test]
fn dictionaries_of_single_layers_are_joined() -> Result<()> {
    let model = model()?;
    let site = AutoencoderSite::ResidPre;
    let one = |layer: usize| {
        let name = format!("blocks.{layer}.hook-resid-pre");
        NamedAutoencoder { name, ..dictionary(&model, site, Normalization::None, &[layer]) }
    };
    let both = one(1).joined(one(0))?;
    assert_eq!((both.name.as_str(), both.indices.as_slice()), ("blocks.1+0.hook-resid-pre", [0, 1].as_slice()));
    assert_eq!(both.layers[1].encoder.row(3), one(1).layers[0].encoder.row(3));
    let refused = |a: NamedAutoencoder, b: NamedAutoencoder| a.joined(b).err().map(|e| e.to_string());
    let sentence = refused(one(0), one(0)).context("no error")?;
    assert!(sentence.contains("both stand at layer 0"), "{sentence}");
    let middle = dictionary(&model, AutoencoderSite::ResidPostAttn, Normalization::None, &[1]);
    let sentence = refused(one(0), middle).context("no error")?;
    assert!(sentence.contains("resid_pre and resid_post_attn"), "{sentence}");
    let mut narrow = one(1);
    narrow.layers[0].latent_bias.pop();
    let sentence = refused(one(0), narrow).context("no error")?;
    assert!(sentence.contains("48 and 47 latents"), "{sentence}");
    Ok(())
}

/// Everything behind a cut is the run; nothing is what ablating all of it by hand gives; and from a latent at the cut all
/// edges add up.
#[test]
fn a_circuit_begins_at_the_cut() -> Result<()> {
    const TOKENS: usize = 7;
    let node = |kind: &str, layer: usize, indices: serde_json::Value| json!({ "nodeType": kind, "layerIndex": layer, "tensorIndices": indices, "passType": "forward" });
    // In the middle of a layer its MLP follows, before a layer all of it does, behind it nothing.
    for (site, cut, attention_from, mlp_from) in [
        (AutoencoderSite::ResidPre, 1, 1, 1),
        (AutoencoderSite::ResidPostAttn, 0, 1, 0),
        (AutoencoderSite::ResidPostMlp, 0, 1, 1),
    ] {
        let engine = engine(&[(site, Normalization::LayerNorm { epsilon: 0.05 }, &[0, 1])])?;
        let config = engine.model().config();
        let (d_ff, n_heads, n_layers) = (config.d_ff, config.n_heads, config.n_layers);
        let circuit = |more: serde_json::Value| -> Result<CircuitResponse, Error> {
            let mut body = json!({
                "prompt": PROMPT, "targetTokens": [" Canada"], "distractorTokens": [" Germany"], "residualCutLayer": cut,
            });
            body.as_object_mut().into_iter().for_each(|b| b.extend(more.as_object().cloned().unwrap_or_default()));
            let request: CircuitRequest =
                serde_json::from_value(body).map_err(|error| Error::Internal(error.to_string()))?;
            engine.circuit(&request, &Context::default())
        };
        let tokens_and = |n: usize| (0..TOKENS).flat_map(move |token| (0..n).map(move |unit| (token, unit)));
        let latents = tokens_and(LATENTS).map(|(t, i)| node("residual_autoencoder_latent", cut, json!([t, i])));
        let errors = (0..TOKENS).map(|t| node("residual_autoencoder_error", cut, json!([t, 0])));
        let neurons = (mlp_from..n_layers)
            .flat_map(|layer| tokens_and(d_ff).map(move |(t, i)| node("mlp_neuron", layer, json!([t, i]))));
        let pairs = || (0..TOKENS).flat_map(|query| (0..=query).map(move |key| (query, key)));
        let heads = (attention_from..n_layers).flat_map(|layer| {
            pairs().flat_map(move |(q, k)| (0..n_heads).map(move |h| node("attention_head", layer, json!([q, k, h]))))
        });
        let all: Vec<_> = latents.chain(errors).chain(neurons).chain(heads).collect();
        let whole = circuit(json!({ "nodes": all, "ablateTo": "prompt_mean" }))?;
        assert!((whole.kept - whole.objective).abs() < 1e-4, "{site:?}: {whole:?}");
        assert!((whole.removed - whole.empty).abs() < 1e-5, "{site:?}");

        let at_once = [
            vec![
                node("residual_autoencoder_latent", cut, json!([null, null])),
                node("residual_autoencoder_error", cut, json!([null, null])),
            ],
            (mlp_from..n_layers).map(|layer| node("mlp_neuron", layer, json!([null, null]))).collect(),
            (attention_from..n_layers).map(|layer| node("attention_head", layer, json!([null, null, null]))).collect(),
        ];
        let ablations: Vec<_> =
            at_once.concat().iter().map(|node| json!({ "nodeIndex": node, "value": 0.0 })).collect();
        let by_hand = circuit(json!({ "nodes": [], "nodeAblations": ablations }))?.objective;
        let none = circuit(json!({ "nodes": [], "ablateTo": "zero" }))?;
        assert!((none.empty - by_hand).abs() < 1e-4, "{site:?}: {} and {by_hand}", none.empty);
        assert!((none.empty - none.objective).abs() > 1e-2, "{site:?}: nothing is ablated");

        let mut added = 0;
        for (at, estimate) in whole.estimates.iter().enumerate().take(LATENTS * TOKENS) {
            let edges = whole.edges.iter().filter(|edge| edge.from == at as i64);
            let sum: f64 = edges.map(|edge| edge.weight).sum();
            assert!((sum - estimate).abs() < 1e-5 + 2e-3 * estimate.abs(), "{site:?}, {}: {sum}, {estimate}", all[at]);
            added += usize::from(estimate.abs() > 1e-5);
        }
        assert!(added > LATENTS, "{site:?}: {added} latents do something");

        for before in [
            node("attention_head", 0, json!([3, 1, 0])),
            json!({ "nodeType": "layer", "layerIndex": null, "tensorIndices": [1, 0], "passType": "forward" }),
        ] {
            let Err(error) = circuit(json!({ "nodes": [before] })) else {
                bail!("{site:?}: {before} is before the cut")
            };
            let told = error.to_string();
            assert!(told.contains("nodes[0]") && told.contains("residualCutLayer"), "{told}");
        }
        let Err(error) = circuit(json!({ "nodes": [], "residualCutLayer": 9 })) else { bail!("layer 9") };
        assert!(error.to_string().starts_with("residualCutLayer"), "{error}");
    }
    Ok(())
}
