//! Continuing a prompt token by token, with keys and values of earlier tokens kept.

use candle_core::{Device, Tensor};
use candle_transformers::generation::{LogitsProcessor, Sampling};

use crate::error::Error;
use crate::intervention::Intervention;
use crate::modules::attention::PastKeysValues;
use crate::modules::block::on_stream;
use crate::modules::norm::Sites;
use crate::numbers::Numbers;
use crate::run;
use crate::site::{Point, Site};
use crate::tap::{Hooks, Tap};
use crate::transformer::Transformer;

/// How the next token is chosen from the logits.
#[allow(missing_docs, reason = "what is said of a variant names its fields")]
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Choice {
    /// The token with the largest logit; of equal ones the first.
    Greedy,
    /// By chance, with the probabilities `softmax(logits / temperature)`.
    Temperature { temperature: f32 },
    /// As `Temperature`, but only among the fewest most likely tokens whose probabilities sum to at least `p`.
    TopP { p: f32, temperature: f32 },
}

/// Draws tokens; the same seed draws the same ones.
pub struct Sampler {
    processor: LogitsProcessor,
    /// Of `TopP` below 1.
    nucleus: Option<f32>,
}

impl Sampler {
    /// # Errors
    /// If the temperature is not positive, or `p` not above 0 and at most 1.
    pub fn new(choice: Choice, seed: u64) -> Result<Self, Error> {
        let input = |what| Err(Error::Input { what });
        if let Choice::Temperature { temperature } | Choice::TopP { temperature, .. } = choice
            && !(temperature > 0.0 && temperature.is_finite())
        {
            return input(format!("the temperature is {temperature}, expected a positive number"));
        }
        if let Choice::TopP { p, .. } = choice
            && !(p > 0.0 && p <= 1.0)
        {
            return input(format!("top-p is {p}, expected a number above 0 and at most 1"));
        }
        let (sampling, nucleus) = match choice {
            Choice::Greedy => (Sampling::ArgMax, None),
            Choice::Temperature { temperature } => (Sampling::All { temperature: f64::from(temperature) }, None),
            // Not `Sampling::TopP`, which sorts the whole vocabulary for each token.
            Choice::TopP { p, temperature } => {
                (Sampling::All { temperature: f64::from(temperature) }, (p < 1.0).then_some(p))
            }
        };
        Ok(Sampler { processor: LogitsProcessor::from_sampling(seed, sampling), nucleus })
    }

    /// A token for these logits, `[V]`.
    ///
    /// # Errors
    /// If the logits are no numbers that one can draw by.
    pub fn draw(&mut self, logits: &[f32]) -> Result<u32, Error> {
        let logits = Tensor::from_slice(logits, logits.len(), &Device::Cpu);
        let failed = |_| Error::Input { what: "no token can be drawn: the logits are not finite numbers".to_owned() };
        let nucleus = self.nucleus;
        let cut = |probabilities: &mut [f32]| {
            if let Some(p) = nucleus {
                keep_nucleus(probabilities, p);
            }
        };
        logits.and_then(|logits| self.processor.sample_f(&logits, cut)).map_err(failed)
    }
}

/// Sets to zero what is not among the fewest most likely tokens whose probabilities sum to at least `p`; of equal
/// ones the first counts as more likely.
fn keep_nucleus(probabilities: &mut [f32], p: f32) {
    let mut tokens: Vec<usize> = (0..probabilities.len()).collect();
    let (mut kept, mut sum) = (0, 0.0f32);
    // Mostly a few tokens are enough: these alone are put in order.
    let mut part = 64;
    while kept < tokens.len() && sum < p {
        let rest = &mut tokens[kept..];
        let likelier = |i: &usize, j: &usize| probabilities[*j].total_cmp(&probabilities[*i]).then(i.cmp(j));
        if part < rest.len() {
            rest.select_nth_unstable_by(part, likelier);
        }
        let first = part.min(rest.len());
        rest[..first].sort_unstable_by(likelier);
        for &token in &rest[..first] {
            if sum >= p {
                break;
            }
            sum += probabilities[token];
            kept += 1;
        }
        part *= 8;
    }
    for &token in &tokens[kept..] {
        probabilities[token] = 0.0;
    }
}

/// Keys and values of the tokens seen so far, per layer.
#[derive(Clone, Debug, Default)]
pub struct Cache {
    n_tokens: usize,
    layers: Vec<PastKeysValues>,
}

impl Cache {
    /// Number of tokens seen.
    pub fn len(&self) -> usize {
        self.n_tokens
    }

    /// Whether no token was seen.
    pub fn is_empty(&self) -> bool {
        self.n_tokens == 0
    }
}

/// Runs `tokens`, which come after those in the cache, and returns the logits after the last of them, `[V]`.
///
/// Token indices of interventions count from the first token of all; those of tokens not seen in this call
/// have no effect in it. Hooks are given the rows of `tokens` alone (attention logits and probabilities with
/// all keys so far; [`Site::Logits`] with the last token's row). Backward interventions do nothing here.
///
/// # Errors
/// As [`Transformer::forward`].
pub fn advance(
    model: &Transformer,
    cache: &mut Cache,
    tokens: &[u32],
    interventions: &[Intervention],
    mut hooks: Option<&mut dyn Hooks>,
) -> Result<Vec<f32>, Error> {
    let (config, past) = (model.config(), cache.n_tokens);
    run::check_tokens(model, tokens, past)?;
    run::check_interventions(model, config.ctx_window, interventions)?;
    let here: Vec<_> = interventions.iter().filter_map(|i| i.within(past, tokens.len())).collect();
    let mut tap = Tap {
        interventions: &here,
        hooks: hooks.as_mut().map(|hooks| &mut **hooks as &mut dyn Hooks),
        ..Default::default()
    };
    let x = model.embedding().forward(tokens, past)?;
    let (_, x) = on_stream(model.on_embedding(), x, &mut tap)?;
    let mut x = tap.forward(Point { site: Site::ResidPostEmb, layer: None }, x)?;
    let mut layers = Vec::with_capacity(config.n_layers);
    for layer in 0..config.n_layers {
        let past = cache.layers.get(layer);
        let state = model.block(layer).forward(&x, past, model.autoencoders(layer), &mut tap)?;
        layers.push(PastKeysValues { k: state.attn.k, v: state.attn.v });
        x = state.post_mlp;
    }
    let (_, x) = model.final_norm().forward(Sites::last(), &x, &mut tap)?;
    let row = x.narrow(0, tokens.len() - 1, 1)?;
    let logits = model.tensor(&[1, config.n_vocab], model.unembedding().logits(Numbers::of(&row)?.data()))?;
    // The one row stands at the last token.
    let last: Vec<_> = here.iter().filter_map(|i| i.within(tokens.len() - 1, 1)).collect();
    let mut tap = Tap {
        interventions: &last,
        hooks: hooks.as_mut().map(|hooks| &mut **hooks as &mut dyn Hooks),
        ..Default::default()
    };
    let logits = tap.forward(Point { site: Site::Logits, layer: None }, logits)?;
    // Only now, so that a failed call leaves the cache as it was.
    *cache = Cache { n_tokens: past + tokens.len(), layers };
    Ok(Numbers::of(&logits)?.data().to_vec())
}

/// Continues `prompt` until `limit` tokens are drawn, the context window is full, or `more` (called with
/// each token drawn) says `false`. Returns the drawn tokens.
///
/// # Errors
/// As [`Transformer::forward`].
pub fn sample(
    model: &Transformer,
    prompt: &[u32],
    limit: usize,
    sampler: &mut Sampler,
    interventions: &[Intervention],
    mut hooks: Option<&mut dyn Hooks>,
    more: &mut dyn FnMut(u32) -> bool,
) -> Result<Vec<u32>, Error> {
    let mut cache = Cache::default();
    let mut drawn = Vec::new();
    let mut next = prompt.to_vec();
    while drawn.len() < limit {
        // A prompt that is too long is an error, a continuation that fills the window an end.
        if !drawn.is_empty() && cache.len() + next.len() > model.config().ctx_window {
            break;
        }
        let logits = advance(
            model,
            &mut cache,
            &next,
            interventions,
            hooks.as_mut().map(|hooks| &mut **hooks as &mut dyn Hooks),
        )?;
        let token = sampler.draw(&logits)?;
        drawn.push(token);
        if !more(token) {
            break;
        }
        next = vec![token];
    }
    Ok(drawn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn top_p_draws_what_candle_transformers_draws() {
        for round in 0..40 {
            let n = [5, 64, 65, 1000, 5000][round % 5];
            // Sharp and flat, many of them equal.
            let spread = [0.0, 0.5, 3.0, 12.0][round % 4];
            let logits: Vec<f32> = (0..n).map(|i| (i * i * 7919 % (round + 41)) as f32 / 41.0 * spread).collect();
            let (p, temperature) = ([0.05, 0.5, 0.9, 0.9999, 1.0][round / 8], 0.7);
            let mut ours = Sampler::new(Choice::TopP { p, temperature }, round as u64).unwrap();
            let sampling = Sampling::TopP { p: f64::from(p), temperature: f64::from(temperature) };
            let mut theirs = LogitsProcessor::from_sampling(round as u64, sampling);
            let tensor = Tensor::from_slice(&logits, n, &Device::Cpu).unwrap();
            for _ in 0..20 {
                assert_eq!(ours.draw(&logits).unwrap(), theirs.sample(&tensor).unwrap(), "round {round}");
            }
        }
    }
}
