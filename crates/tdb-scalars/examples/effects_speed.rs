//! How long patches and exact effects take, whether they are what they say, how far exact effects are from estimates, and how
//! often the checks and the bound hold: `cargo xtask bench effects`.
//!
//! Names of parts (`speed`, `by-hand`, `patches`, `estimates`, `alarms`) leave out the others. `--requests N`: so many random
//! requests for false alarms.

#[path = "../tests/common/embedded.rs"]
mod embedded;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use embedded::embedded;
use serde_json::{Value, json};
use tdb_api::stream::TdbEvent;
use tdb_api::{
    BatchedTdbRequest, EffectsRequest, MirroredNodeIndex, PatchGroup, PatchRequest, PatchedCell,
    ProcessingResponseData as Part,
};
use tdb_model::{ForwardOptions, Index, Patch, PatchHooks, Point, Run, Site, Slot, Tokenizer, Transformer, checkpoint};
use tdb_scalars::{Context, Engine, Observer};
use tdb_testkit::checkpoint::{Parts, write};
use tdb_testkit::presets::preset;
use tdb_testkit::process::processor_seconds;

const NAMES: [&str; 7] = ["Mary", "John", "Emily", "Robert", "Anna", "Paul", "Kate"];
const PLACES: [&str; 3] = ["store", "park", "school"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn small() -> Result<Engine> {
    let folder =
        write(&preset("bench-small").context("no preset")?, &root().join("target/oracle-weights"), Parts::Model)?;
    let found = checkpoint::open(&folder)?;
    Ok(Engine::new("bench-small", Transformer::load(found.config, found.weights)?, Tokenizer::gpt2(), None, None))
}

/// Wall time and processor time, in seconds.
#[derive(Clone, Copy, Default)]
struct Moment {
    wall: f64,
    processor: f64,
}

/// When the first and the last figure came, since the beginning.
struct Clock {
    begun: Instant,
    used: f64,
    first: Mutex<Option<Moment>>,
    last: Mutex<Moment>,
}

impl Clock {
    fn new() -> Self {
        let used = processor_seconds(None).unwrap_or(0.0);
        Clock { begun: Instant::now(), used, first: Mutex::new(None), last: Mutex::default() }
    }

    fn now(&self) -> Moment {
        let processor = processor_seconds(None).unwrap_or(0.0) - self.used;
        Moment { wall: self.begun.elapsed().as_secs_f64(), processor }
    }
}

impl Observer for Clock {
    fn event(&self, event: TdbEvent) {
        let is_figure =
            matches!(event, TdbEvent::PatchedCell { .. } | TdbEvent::NodeEffect { .. } | TdbEvent::SampledBound { .. });
        if is_figure && let (Ok(mut first), Ok(mut last)) = (self.first.lock(), self.last.lock()) {
            *last = self.now();
            first.get_or_insert(*last);
        }
    }

    fn listens(&self) -> bool {
        true
    }
}

fn timed<T>(what: &str, f: impl Fn(&Context<'_>) -> tdb_scalars::Result<T>) -> Result<T> {
    let mut best: Option<(Moment, Moment, Moment, T)> = None;
    for _ in 0..5 {
        let clock = Clock::new();
        let answer = f(&Context { observer: &clock, ..Context::default() })?;
        let all = clock.now();
        let first = clock.first.lock().ok().and_then(|first| *first).unwrap_or(all);
        let last = clock.last.lock().map_or(all, |last| *last);
        if best.as_ref().is_none_or(|(least, ..)| all.processor < least.processor) {
            best = Some((all, first, last, answer));
        }
    }
    let Some((all, first, last, answer)) = best else { bail!("nothing was measured") };
    println!(
        "{what}: first figure after {:.2} s (processor {:.2}), last after {:.2} s ({:.2}), with checks {:.2} s ({:.2}); \
         checks are {:.0} % of the processor time",
        first.wall,
        first.processor,
        last.wall,
        last.processor,
        all.wall,
        all.processor,
        100.0 * (all.processor - last.processor) / all.processor.max(0.01)
    );
    Ok(answer)
}

fn table(engine: &Engine, prompt: &str, tokens: [&str; 2], k: i64) -> Result<Vec<MirroredNodeIndex>> {
    checked_table(engine, prompt, tokens, k, false)
}

/// The nodes of the debugger's answer, which carries checks or does not.
fn checked_table(
    engine: &Engine,
    prompt: &str,
    [target, distractor]: [&str; 2],
    k: i64,
    checks: bool,
) -> Result<Vec<MirroredNodeIndex>> {
    let request: BatchedTdbRequest = serde_json::from_value(json!({ "checks": checks, "subRequests": [{
        "prompt": prompt, "targetTokens": [target], "distractorTokens": [distractor], "componentTypeForMlp": "neuron",
        "componentTypeForAttention": "attention_head", "topAndBottomKForNodeTable": k,
        "hideEarlyLayersWhenAblating": false,
    }] }))?;
    let mut answer = engine.batched_tdb(&request, &Context::default())?;
    let parts = &mut answer.inference_sub_responses[0].processing_response_data_by_name;
    match parts.shift_remove("topKComponents") {
        Some(Part::MultipleTopKDerivedScalars(table)) => Ok(table.node_indices),
        _ => bail!("no table"),
    }
}

fn effects(
    prompt: &str,
    [target, distractor]: [&str; 2],
    nodes: &[MirroredNodeIndex],
    more: Value,
) -> Result<EffectsRequest> {
    let mut body = json!({
        "prompt": prompt, "targetTokens": [target], "distractorTokens": [distractor], "nodes": nodes,
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        body[key] = value.clone();
    }
    Ok(serde_json::from_value(body)?)
}

fn speed() -> Result<()> {
    let engine = small()?;
    let clean = "When Mary and John went to the store, John gave a drink to";
    let corrupted = "When John and Mary went to the store, Mary gave a drink to";
    let padded = |text: &str| format!("<|endoftext|>{text}");
    let request: PatchRequest = serde_json::from_value(json!({
        "cleanPrompt": padded(clean), "corruptedPrompt": padded(corrupted), "targetTokens": [" Mary"],
        "distractorTokens": [" John"],
    }))?;
    let tokens = engine.tokenizer().encode(&padded(clean)).len();
    println!("GPT-2 small's shape, {} threads, {tokens} tokens", tdb_model::parallel::threads());
    timed("684 patched runs", |context| engine.send_patch(&request, context))?;
    let prompt = format!("{} a", padded(clean));
    for _ in 0..3 {
        let clock = Clock::new();
        table(&engine, &prompt, [" Mary", " John"], 10)?;
        let now = clock.now();
        println!("the estimates' own answer: {:.2} s (processor {:.2})", now.wall, now.processor);
    }
    // Prompts that were not asked before, in turn with and without checks.
    let mut spent = [0.0; 2];
    for (i, (prompt, names)) in prompts().take(16).enumerate() {
        let clock = Clock::new();
        checked_table(&engine, &prompt, [names[0].as_str(), names[1].as_str()], 10, i % 2 == 1)?;
        spent[i % 2] += clock.now().processor / 8.0;
    }
    println!(
        "the debugger's answer: processor {:.3} s, with checks {:.3}: {:.0} % more",
        spent[0],
        spent[1],
        100.0 * (spent[1] / spent[0] - 1.0)
    );
    let nodes = table(&engine, &prompt, [" Mary", " John"], 10)?;
    for n in [20, 123] {
        let request = effects(&prompt, [" Mary", " John"], &nodes[..n.min(nodes.len())], json!({}))?;
        timed(&format!("exact effects of {n} nodes"), |context| engine.send_effects(&request, context))?;
    }
    let request = effects(&prompt, [" Mary", " John"], &nodes, json!({ "betterEstimates": true }))?;
    timed("  and better estimates", |context| engine.send_effects(&request, context))?;
    Ok(())
}

/// Prompts of the embedded model's kind, each with its two names.
fn prompts() -> impl Iterator<Item = (String, [String; 2])> {
    let pairs = NAMES.iter().flat_map(|a| NAMES.iter().filter(move |b| a != *b).map(move |b| (*a, *b)));
    pairs.flat_map(|(a, b)| {
        PLACES.iter().map(move |place| {
            let prompt = format!("<|endoftext|>When {a} and {b} went to the {place}, {b} gave a drink to");
            (prompt, [format!(" {a}"), format!(" {b}")])
        })
    })
}

fn truth() -> Result<()> {
    let engine = embedded(false)?;
    let (mut apart, mut off, mut other_sign, mut nodes) = (Vec::new(), 0, 0, 0);
    let (mut corrected_apart, mut held, mut bounds, mut checks, mut false_alarms) = (Vec::new(), 0, 0, 0, 0);
    for (i, (prompt, names)) in prompts().take(100).enumerate() {
        let asked = [names[0].as_str(), names[1].as_str()];
        let listed = table(&engine, &prompt, asked, 6)?;
        let more = json!({ "randomNodes": 60, "seed": i, "betterEstimates": i < 8 });
        let answer = engine.effects(&effects(&prompt, asked, &listed, more)?, &Context::default())?;
        checks += answer.checks.len();
        for check in answer.checks.iter().filter(|check| !check.passed) {
            println!("  a false alarm: {prompt}: {}", check.sentence);
            false_alarms += 1;
        }
        // Does the bound hold for nodes that it has not seen?
        let bound = answer.sampled.context("no bound")?;
        let fresh: Vec<MirroredNodeIndex> =
            (0..600).map(|n| node(&engine, &prompt, i * 600 + n)).collect::<Result<_>>()?;
        let fresh = engine.effects(&effects(&prompt, asked, &fresh, json!({}))?, &Context::default())?;
        let above = fresh.nodes.iter().filter(|effect| effect.exact.abs() > bound.largest).count();
        bounds += 1;
        held += usize::from(above as f64 / 600.0 <= bound.share);
        if i >= 8 {
            continue;
        }
        for effect in answer.nodes.iter().filter(|effect| effect.exact != 0.0) {
            nodes += 1;
            apart.push((effect.estimate - effect.exact).abs() / effect.exact.abs());
            if let Some(corrected) = effect.corrected_estimate {
                corrected_apart.push((corrected - effect.exact).abs() / effect.exact.abs());
            }
            off += usize::from(effect.parts);
            other_sign += usize::from(effect.parts && effect.estimate.signum() != effect.exact.signum());
        }
    }
    let median = |values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        100.0 * values[values.len() / 2]
    };
    println!(
        "embedded model, 8 prompts, {nodes} nodes: estimates are off by a median of {:.0} %, corrected ones {:.0} %",
        median(&mut apart),
        median(&mut corrected_apart)
    );
    println!("  marked: {off} nodes, of which {other_sign} have the other sign");
    println!("the 95 % bound held for {held} of {bounds} prompts");
    println!("{checks} checks of answers that are right: {false_alarms} false alarms");
    Ok(())
}

/// Numbers that look random, always the same.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        ((u128::from(self.0 ^ (self.0 >> 29)) * n as u128) >> 64) as usize
    }
}

fn index(node_type: &str, layer: Option<usize>, indices: Value) -> Result<MirroredNodeIndex> {
    Ok(serde_json::from_value(json!({
        "nodeType": node_type, "tensorIndices": indices, "layerIndex": layer, "passType": "forward",
    }))?)
}

/// A neuron or a head at a pair of tokens, each with the same chance.
fn node(engine: &Engine, prompt: &str, seed: usize) -> Result<MirroredNodeIndex> {
    let (config, tokens) = (engine.model().config(), engine.tokenizer().encode(prompt).len());
    let mut dice = Dice(seed as u64);
    dice.below(2);
    let neurons = tokens * config.d_ff;
    let pairs = tokens * (tokens + 1) / 2 * config.n_heads;
    let layer = Some(dice.below(config.n_layers));
    if dice.below(neurons + pairs) < neurons {
        return index("mlp_neuron", layer, json!([dice.below(tokens), dice.below(config.d_ff)]));
    }
    let query = dice.below(tokens);
    index("attention_head", layer, json!([query, dice.below(query + 1), dice.below(config.n_heads)]))
}

/// A node of any kind that can be ablated by hand, too: of heads, all that one attends to.
fn node_of_any_kind(engine: &Engine, tokens: usize, dice: &mut Dice) -> Result<MirroredNodeIndex> {
    let config = engine.model().config();
    let (layer, token) = (Some(dice.below(config.n_layers)), dice.below(tokens));
    let latents = |slot| engine.model().any_autoencoder(slot).map_or(0, |found| found.n_latents());
    match dice.below(if engine.model().has(Slot::Mlp) { 5 } else { 3 }) {
        0 => index("mlp_neuron", layer, json!([token, dice.below(config.d_ff)])),
        1 => index("attention_head", layer, json!([token, null, dice.below(config.n_heads)])),
        2 => index("layer", None, json!([token, 0])),
        3 => index("mlp_autoencoder_latent", layer, json!([token, dice.below(latents(Slot::Mlp))])),
        _ => index("attention_autoencoder_latent", layer, json!([token, dice.below(latents(Slot::Attention))])),
    }
}

/// Exact effects of 1,000 nodes of every kind against ablations of the debugger's question.
fn by_hand() -> Result<()> {
    let engines = [embedded(false)?, embedded(true)?];
    let (mut worst, mut compared, mut moved, mut dice) = (0.0f64, 0, 0, Dice(1));
    for (i, (prompt, names)) in prompts().enumerate().take(20) {
        let (engine, asked) = (&engines[i % 2], [names[0].as_str(), names[1].as_str()]);
        let tokens = engine.tokenizer().encode(&prompt).len();
        let nodes = (0..50).map(|_| node_of_any_kind(engine, tokens, &mut dice)).collect::<Result<Vec<_>>>()?;
        let loss = |ablations: Value| -> Result<f64> {
            let request: BatchedTdbRequest = serde_json::from_value(json!({ "subRequests": [{
                "prompt": prompt, "targetTokens": [asked[0]], "distractorTokens": [asked[1]],
                "componentTypeForMlp": "neuron", "componentTypeForAttention": "attention_head",
                "topAndBottomKForNodeTable": 1, "hideEarlyLayersWhenAblating": false, "nodeAblations": ablations,
            }] }))?;
            let answer = engine.batched_tdb(&request, &Context::default())?;
            answer.inference_sub_responses[0].inference_response.inference_and_token_data.loss.context("no loss")
        };
        let base = loss(json!([]))?;
        for effect in engine.effects(&effects(&prompt, asked, &nodes, json!({}))?, &Context::default())?.nodes {
            let without = loss(json!([{ "nodeIndex": effect.node_index, "value": 0.0 }]))?;
            worst = worst.max((effect.exact - (base - without)).abs());
            moved += usize::from(effect.exact != 0.0);
            compared += 1;
        }
    }
    println!("exact effects of {compared} random nodes ({moved} not zero) are ablations by hand up to {worst:.1e}");
    Ok(())
}

/// Patches of three pairs of prompts: with themselves, with all positions, and cell by cell against runs of their own.
fn patches() -> Result<()> {
    let engine = embedded(false)?;
    let (mut same, mut cells, mut whole, mut worst, mut compared) = (0, 0, 0.0f64, 0.0f64, 0);
    let (mut moved, mut upstream) = (0, 0);
    for (prompt, names) in prompts().step_by(7).take(3) {
        let [a, b] = [names[0].trim(), names[1].trim()];
        let swapped = prompt.replace(a, "\0").replace(b, a).replace('\0', b);
        let ask = |clean: &str, corrupted: &str, more: Value| -> Result<tdb_api::PatchResponse> {
            let mut body = json!({
                "cleanPrompt": clean, "corruptedPrompt": corrupted, "targetTokens": [names[0]],
                "distractorTokens": [names[1]],
            });
            for (key, value) in more.as_object().into_iter().flatten() {
                body[key] = value.clone();
            }
            Ok(engine.patch(&serde_json::from_value(body)?, &Context::default())?)
        };
        let itself = ask(&prompt, &prompt, json!({}))?;
        cells += itself.cells.len();
        same += itself.cells.iter().filter(|cell| cell.metric == itself.runs.clean).count();
        let site = json!({
            "activationLocationType": "resid.post_emb", "layerIndex": null, "tensorIndices": ["All", "All"],
            "passType": "forward",
        });
        let all = ask(&prompt, &swapped, json!({ "cells": [{ "sites": [site] }] }))?;
        whole = whole.max((all.cells[0].metric - all.runs.clean).abs());
        for direction in ["denoising", "noising"] {
            let answer = ask(&prompt, &swapped, json!({ "direction": direction }))?;
            let tokens = [&prompt, &swapped].map(|text| engine.tokenizer().encode(text));
            let (base, other) = if direction == "denoising" { (1, 0) } else { (0, 1) };
            let runs = [0, 1].map(|i| engine.model().forward(&tokens[i], ForwardOptions::default()));
            let [Ok(first), Ok(second)] = runs else { bail!("a run failed") };
            let other = [first, second].into_iter().nth(other).context("no run")?;
            let ids = [0, 1].map(|i| engine.token(&names[i].as_str().into()));
            let [Ok(target), Ok(distractor)] = ids else { bail!("no tokens") };
            let first_differing = tokens[0].iter().zip(&tokens[1]).position(|(a, b)| a != b).unwrap_or(0);
            for cell in &answer.cells {
                let patches = [patch_of(&other, cell)?];
                let mut hooks = PatchHooks(&patches);
                let options = ForwardOptions { hooks: Some(&mut hooks), ..Default::default() };
                let logits = engine.model().forward(&tokens[base], options)?.logits(tokens[base].len() - 1)?;
                let alone = f64::from(logits[target as usize]) - f64::from(logits[distractor as usize]);
                worst = worst.max((cell.metric - alone).abs());
                compared += 1;
                // Before the first differing token, and in embeddings of equal tokens, the two runs are the same.
                let at = cell.token_index.unwrap_or(first_differing as i64) as usize;
                let is_embedding = cell.group == PatchGroup::Residual && cell.layer_index == Some(0);
                // What the last layer writes at an earlier token is read by nothing.
                let is_last_layer = cell.layer_index == Some(engine.model().config().n_layers as i64 - 1);
                let is_write = matches!(cell.group, PatchGroup::Attention | PatchGroup::Mlp);
                let is_unread = is_last_layer && is_write && at + 1 < tokens[0].len();
                let is_same = is_embedding && tokens[0].get(at) == tokens[1].get(at);
                if at >= first_differing && !is_same && !is_unread {
                    upstream += 1;
                    let from = if base == 1 { answer.runs.corrupted } else { answer.runs.clean };
                    moved += usize::from(cell.metric != from);
                }
            }
        }
    }
    println!("patched with itself: {same} of {cells} cells are equal to the bit");
    println!("all positions at layer 0: the other run up to {whole:.1e}");
    println!("{compared} cells of both directions of three prompts: runs of their own up to {worst:.1e}");
    println!("  of {upstream} cells whose activations differ and are read, {moved} move the metric");
    Ok(())
}

/// What a cell of a heat map takes from the other run.
fn patch_of(other: &Run, cell: &PatchedCell) -> Result<Patch> {
    let layer = cell.layer_index.map(|layer| layer as usize);
    let (site, layer) = match (cell.group, layer) {
        (PatchGroup::Residual, Some(0)) => (Site::ResidPostEmb, None),
        (PatchGroup::Residual, Some(layer)) => (Site::ResidPostMlp, Some(layer - 1)),
        (PatchGroup::Attention, layer) => (Site::ResidDeltaAttn, layer),
        (PatchGroup::Mlp, layer) => (Site::ResidDeltaMlp, layer),
        (_, layer) => (Site::AttnVOut, layer),
    };
    let indices = match (cell.token_index, cell.unit) {
        (Some(token), None) => vec![Index::At(token as usize), Index::All],
        (None, Some(head)) => vec![Index::All, Index::At(head as usize), Index::All],
        _ => bail!("{cell:?} is no cell of a heat map"),
    };
    Ok(Patch::from_run(other, Point { site, layer }, indices)?)
}

/// Random questions about random texts, with and without ablations and traces: every check of every answer must pass.
fn alarms(requests: usize) -> Result<()> {
    let engines = [embedded(false)?, embedded(true)?];
    let (mut dice, mut checks, mut alarms) = (Dice(3), 0, 0);
    for i in 0..requests {
        let engine = &engines[i % 2];
        let n_vocab = engine.model().config().n_vocab;
        let token = |dice: &mut Dice| loop {
            let id = dice.below(n_vocab);
            if engine.has_token(id) {
                break id;
            }
        };
        // Half of the texts are of the model's kind, half are random tokens.
        let (prompt, names) = match i % 4 {
            0 | 1 => prompts().nth(dice.below(100)).context("no prompt")?,
            _ => {
                let text = (0..3 + dice.below(14)).map(|_| engine.token_text(token(&mut dice) as u32)).collect();
                (text, [" Mary".to_owned(), " John".to_owned()])
            }
        };
        let tokens = engine.tokenizer().encode(&prompt).len();
        if tokens == 0 {
            continue;
        }
        let nodes = (0..6).map(|_| node_of_any_kind(engine, tokens, &mut dice)).collect::<Result<Vec<_>>>()?;
        let ablated = node_of_any_kind(engine, tokens, &mut dice)?;
        let mut more = json!({ "seed": i });
        if dice.below(3) == 0 {
            more["nodeAblations"] = json!([{ "nodeIndex": ablated, "value": 0.0 }]);
        }
        if dice.below(3) == 0 {
            let layer = Some(engine.model().config().n_layers - 1);
            let node = index("mlp_neuron", layer, json!([tokens - 1, dice.below(engine.model().config().d_ff)]))?;
            more["upstreamNodeToTrace"] = json!({ "nodeIndex": node });
        }
        let asked = [names[0].as_str(), names[1].as_str()];
        let answer = engine.effects(&effects(&prompt, asked, &nodes, more.clone())?, &Context::default())?;
        checks += answer.checks.len();
        for check in answer.checks.iter().filter(|check| !check.passed) {
            println!("  a false alarm: {prompt:?} {more}: {} {}", check.name, check.sentence);
            alarms += 1;
        }
    }
    println!("{requests} random requests with {checks} checks: {alarms} false alarms");
    Ok(())
}

fn main() -> Result<()> {
    let (mut requests, mut parts) = (2000, Vec::new());
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--requests" => {
                requests = args.next().context("--requests needs a number")?.parse().context("--requests")?
            }
            "speed" | "by-hand" | "patches" | "estimates" | "alarms" => parts.push(arg),
            other => bail!("{other}: the parts are speed, by-hand, patches, estimates and alarms"),
        }
    }
    let wants = |part: &str| parts.is_empty() || parts.iter().any(|found| found == part);
    if wants("speed") {
        speed()?;
    }
    if wants("by-hand") {
        by_hand()?;
    }
    if wants("patches") {
        patches()?;
    }
    if wants("estimates") {
        truth()?;
    }
    if wants("alarms") {
        alarms(requests)?;
    }
    Ok(())
}
