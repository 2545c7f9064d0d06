//! How long patches and exact effects take, how far exact effects are from estimates, and how often the checks and the bound
//! hold: `cargo xtask bench effects`.
//!
//! `--embedded`: only what is about the embedded model, without the model of GPT-2 small's shape.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use tdb_api::stream::TdbEvent;
use tdb_api::{BatchedTdbRequest, EffectsRequest, MirroredNodeIndex, PatchRequest, ProcessingResponseData as Part};
use tdb_model::{Tokenizer, Transformer, checkpoint};
use tdb_scalars::{Context, Engine, Observer};
use tdb_testkit::checkpoint::{Parts, write};
use tdb_testkit::presets::preset;

const NAMES: [&str; 6] = ["Mary", "John", "Emily", "Robert", "Anna", "Paul"];
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

fn embedded() -> Result<Engine> {
    let found = checkpoint::open(&root().join("datasets/embedded"))?;
    Ok(Engine::new("embedded", Transformer::load(found.config, found.weights)?, found.tokenizer, None, None))
}

/// When the first and the last figure came, in seconds.
struct Clock {
    begun: Instant,
    first: Mutex<Option<f64>>,
    effects_done: Mutex<f64>,
}

impl Clock {
    fn new() -> Self {
        Clock { begun: Instant::now(), first: Mutex::new(None), effects_done: Mutex::new(0.0) }
    }
}

impl Observer for Clock {
    fn event(&self, event: TdbEvent) {
        let now = self.begun.elapsed().as_secs_f64();
        if matches!(event, TdbEvent::PatchedCell { .. } | TdbEvent::NodeEffect { .. })
            && let (Ok(mut first), Ok(mut done)) = (self.first.lock(), self.effects_done.lock())
        {
            first.get_or_insert(now);
            *done = now;
        }
    }

    fn listens(&self) -> bool {
        true
    }
}

fn timed<T>(what: &str, f: impl Fn(&Context<'_>) -> tdb_scalars::Result<T>) -> Result<T> {
    let mut best: Option<(f64, f64, f64, T)> = None;
    for _ in 0..3 {
        let clock = Clock::new();
        let answer = f(&Context { observer: &clock, ..Context::default() })?;
        let all = clock.begun.elapsed().as_secs_f64();
        let first = clock.first.lock().ok().and_then(|first| *first).unwrap_or(all);
        let done = clock.effects_done.lock().map_or(all, |done| *done);
        if best.as_ref().is_none_or(|(least, ..)| all < *least) {
            best = Some((all, first, done, answer));
        }
    }
    let Some((all, first, done, answer)) = best else { bail!("nothing was measured") };
    println!("{what}: first figure after {first:.2} s, last after {done:.2} s, with checks {all:.2} s");
    Ok(answer)
}

fn table(engine: &Engine, prompt: &str, [target, distractor]: [&str; 2], k: i64) -> Result<Vec<MirroredNodeIndex>> {
    let request: BatchedTdbRequest = serde_json::from_value(json!({ "subRequests": [{
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
    println!("GPT-2 small's shape, {} threads, {tokens} tokens", rayon::current_num_threads());
    let answer = timed("684 patched runs", |context| engine.patch(&request, context))?;
    println!("  cells: {}", answer.cells.len());
    let prompt = format!("{} a", padded(clean));
    let nodes = table(&engine, &prompt, [" Mary", " John"], 10)?;
    for n in [20, nodes.len()] {
        let request = effects(&prompt, [" Mary", " John"], &nodes[..n.min(nodes.len())], json!({}))?;
        timed(&format!("exact effects of {n} nodes"), |context| engine.effects(&request, context))?;
    }
    let request = effects(&prompt, [" Mary", " John"], &nodes, json!({ "betterEstimates": true }))?;
    timed("  and better estimates", |context| engine.effects(&request, context))?;
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
    let engine = embedded()?;
    let (mut apart, mut off, mut other_sign, mut nodes) = (Vec::new(), 0, 0, 0);
    let (mut corrected_apart, mut held, mut bounds, mut checks, mut false_alarms) = (Vec::new(), 0, 0, 0, 0);
    for (i, (prompt, names)) in prompts().take(90).enumerate() {
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
        let fresh: Vec<MirroredNodeIndex> = (0..600).map(|n| node(&engine, &prompt, i * 600 + n)).collect();
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

/// A neuron or a head at a pair of tokens, each with the same chance.
fn node(engine: &Engine, prompt: &str, seed: usize) -> MirroredNodeIndex {
    let (config, tokens) = (engine.model().config(), engine.tokenizer().encode(prompt).len());
    let mut state = seed as u64;
    let mut below = |n: usize| {
        state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        ((u128::from(state ^ (state >> 29)) * n as u128) >> 64) as usize
    };
    below(2);
    let neurons = tokens * config.d_ff;
    let pairs = tokens * (tokens + 1) / 2 * config.n_heads;
    let layer = below(config.n_layers) as i64;
    let (node_type, indices) = match below(neurons + pairs) < neurons {
        true => ("mlp_neuron", json!([below(tokens), below(config.d_ff)])),
        false => {
            let query = below(tokens);
            ("attention_head", json!([query, below(query + 1), below(config.n_heads)]))
        }
    };
    serde_json::from_value(json!({
        "nodeType": node_type, "tensorIndices": indices, "layerIndex": layer, "passType": "forward",
    }))
    .expect("a node")
}

fn main() -> Result<()> {
    let only_embedded = std::env::args().any(|arg| arg == "--embedded");
    if !only_embedded {
        speed()?;
    }
    truth()
}
