//! What a head does in tokens equals what its modules, or its weights, give one token at a time.

use crate::common::engine;
use anyhow::{Context as _, Result};
use tdb_api::{HeadCircuit, HeadReadingsRequest, HeadReadingsResponse};
use tdb_model::{Positions, Transformer, checkpoint};
use tdb_scalars::{Bounds, Context, Engine, Error, Observer};
use tdb_testkit::families::{Copied, PROMPT, names};

fn readings(engine: &Engine, layer: usize, head: usize, prompt: &str) -> Result<HeadReadingsResponse, Error> {
    engine.head_readings(&request(layer, head, prompt), &Context::default())
}

fn request(layer: usize, head: usize, prompt: &str) -> HeadReadingsRequest {
    let (layer_index, activation_index) = (layer as i64, head as i64);
    HeadReadingsRequest { layer_index, activation_index, prompt: Some(prompt.to_owned()) }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// The tokens that readings show.
fn shown(engine: &Engine) -> Vec<u32> {
    let unread = engine.unread_tokens();
    let all = 0..engine.model().config().n_vocab as u32;
    all.filter(|token| unread.is_none_or(|unread| !unread[*token as usize])).collect()
}

/// Query, key and write of each token, by the layer's modules, a token at a time.
fn by_modules(model: &Transformer, layer: usize, head: usize, tokens: &[u32]) -> Result<Vec<[Vec<f32>; 3]>> {
    let block = model.block(layer);
    let of = |token: &u32| -> Result<[Vec<f32>; 3]> {
        let row = block.attn_norm.row(&model.embedding().row(*token));
        let [q, k, v] = block.attn.query_key_value(&model.tensor(&[1, row.len()], row)?, 0)?;
        let group = block.attn.kv_head(head);
        let mut write = block.attn.write(head, &v.narrow(0, group, 1)?.contiguous()?)?.get(0)?.to_vec1::<f32>()?;
        if let Some(gain) = model.final_norm().gain() {
            write.iter_mut().zip(gain).for_each(|(x, gain)| *x *= gain);
        }
        Ok([q.get(head)?.to_vec1()?, k.get(group)?.to_vec1()?, write])
    };
    tokens.iter().map(of).collect()
}

fn centered(mut values: Vec<f64>) -> Vec<f64> {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    values.iter_mut().for_each(|x| *x -= mean);
    values
}

/// `table[x][y]`: rows of the circuit, each from its mean.
fn check(found: &HeadCircuit, table: &[Vec<f64>], asked: &[usize], magnitude: bool, what: &str) {
    let close = |a: f64, b: f64| assert!((a - b).abs() <= 1e-4 + 1e-3 * b.abs(), "{what}: {a} instead of {b}");
    assert_eq!(found.tokens.len(), asked.len(), "{what}");
    for (reading, token) in found.tokens.iter().zip(asked) {
        let mut row = table[*token].clone();
        row.sort_by(|a, b| b.total_cmp(a));
        reading.tokens.top.iter().zip(&row).for_each(|(found, x)| close(found.scalar, *x));
        reading.tokens.bottom.iter().zip(row.iter().rev()).for_each(|(found, x)| close(found.scalar, *x));
        assert_eq!((reading.tokens.top.len(), reading.tokens.bottom.len()), (8, 8), "{what}");
    }
    let mut all: Vec<f64> = table.iter().flatten().copied().collect();
    let strength = |x: f64| if magnitude { x.abs() } else { x };
    all.sort_by(|a, b| strength(*b).total_cmp(&strength(*a)));
    assert_eq!((found.pairs.len(), found.unseen_at_most), (20, None), "{what}");
    found.pairs.iter().zip(&all).for_each(|(pair, x)| close(strength(pair.value), strength(*x)));
}

#[test]
fn heads_of_every_family_read_and_write_what_their_modules_do() -> Result<()> {
    for name in names()? {
        let checkpoint = checkpoint::open(&Copied::new(&name)?.path)?;
        let model = Transformer::load(checkpoint.config, checkpoint.weights)?;
        let engine = Engine::new(&name, model, checkpoint.tokenizer, None, None);
        let (model, tokens) = (engine.model(), shown(&engine));
        let config = model.config();
        let mut asked = Vec::new();
        for token in engine.tokenizer().encode(PROMPT) {
            let place = tokens.iter().position(|t| *t == token).context("a token of the prompt is not shown")?;
            if !asked.contains(&place) {
                asked.push(place);
            }
        }
        for (layer, head) in [(0, 0), (config.n_layers - 1, config.n_heads - 1)] {
            let what = format!("{name} {layer}:{head}");
            let found = readings(&engine, layer, head, PROMPT)?;
            let parts = by_modules(model, layer, head, &tokens)?;
            let unembedding = |y: &u32| model.unembedding().rows(*y as usize..*y as usize + 1).into_owned();
            let unembedded: Vec<Vec<f32>> = tokens.iter().map(unembedding).collect();
            let row = |x: &[Vec<f32>; 3]| centered(unembedded.iter().map(|y| dot(&x[2], y)).collect());
            check(&found.ov, &parts.iter().map(row).collect::<Vec<_>>(), &asked, true, &format!("{what} OV"));
            let row = |x: &[Vec<f32>; 3]| centered(parts.iter().map(|y| dot(&x[0], &y[1])).collect());
            // Where positions are added to queries and keys alone, the modules cannot leave them out.
            if config.positions != Positions::LearnedForQueriesAndKeys {
                check(&found.qk, &parts.iter().map(row).collect::<Vec<_>>(), &asked, false, &format!("{what} QK"));
            }
            let told = |word: &str| found.notes.iter().any(|note| note.contains(word));
            assert_eq!(told("norm follows"), config.post_norms, "{what}");
            assert!(told("distance 0") || !matches!(config.positions, Positions::Rotary(_)) || layer > 0);
        }
    }
    Ok(())
}

/// From the weights themselves, in double precision.
#[test]
fn what_attending_to_a_token_promotes_is_a_product_of_the_weights() -> Result<()> {
    let engine = engine(None, None)?;
    let (model, layer, head) = (engine.model(), 1, 2);
    let (width, d) = (model.config().d_head, model.config().d_model);
    let token = engine.tokenizer().encode(" France")[0];
    let found = readings(&engine, layer, head, " France")?;
    let weight = |name: &str| -> Result<Vec<f32>> {
        Ok(model.weight(&format!("blocks.{layer}.attn.{name}"))?.flatten_all()?.to_vec1()?)
    };
    let read = model.block(layer).attn_norm.row(&model.embedding().row(token));
    let (values, biases, out) = (weight("v.weight")?, weight("v.bias")?, weight("o.weight")?);
    let value: Vec<f64> = (head * width..(head + 1) * width)
        .map(|row| dot(&values[row * d..(row + 1) * d], &read) + f64::from(biases[row]))
        .collect();
    let gain = model.final_norm().gain().context("a gain")?;
    let write: Vec<f64> = (0..d)
        .map(|row| {
            let start = row * model.config().n_heads * width + head * width;
            let sum: f64 = out[start..start + width].iter().zip(&value).map(|(w, v)| f64::from(*w) * v).sum();
            sum * f64::from(gain[row])
        })
        .collect();
    let logits = shown(&engine).into_iter().map(|y| {
        let row = model.unembedding().rows(y as usize..y as usize + 1);
        row.iter().zip(&write).map(|(w, x)| f64::from(*w) * x).sum()
    });
    let mut logits = centered(logits.collect());
    logits.sort_by(|a, b| b.total_cmp(a));
    let top = &found.ov.tokens[0].tokens.top;
    for (found, expected) in top.iter().zip(&logits) {
        assert!((found.scalar - expected).abs() < 1e-5 + 1e-3 * expected.abs(), "{found:?} {expected}");
    }
    assert!(found.notes.is_empty() && logits[0] > 0.0, "{:?}", found.notes);
    Ok(())
}

struct Gone;

impl Observer for Gone {
    fn is_cancelled(&self) -> bool {
        true
    }
}

#[test]
fn heads_that_are_not_there_and_too_long_prompts_are_refused_and_nobody_is_answered_in_vain() -> Result<()> {
    let engine = engine(None, None)?;
    let refused = readings(&engine, 2, 0, "").map_err(|e| e.to_string());
    assert!(refused.is_err_and(|text| text.contains("layerIndex: is 2, outside 0..2")));
    let refused = readings(&engine, 0, 4, "").map_err(|e| e.to_string());
    assert!(refused.is_err_and(|text| text.contains("activationIndex: is 4, outside 0..4")));
    let bounds = Bounds { token_scores: 100_000, ..Bounds::default() };
    let refused = engine.head_readings(&request(0, 0, " France"), &Context { bounds, ..Context::default() });
    assert!(refused.is_err_and(|e| e.to_string().contains("takes at most 100000")));
    let gone = Context { observer: &Gone, ..Context::default() };
    assert!(matches!(engine.head_readings(&request(0, 0, ""), &gone), Err(Error::Cancelled)));
    Ok(())
}
