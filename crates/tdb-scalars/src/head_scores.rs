//! Standard scores of attention heads: previous token, duplicate token, induction, copying.
//!
//! The first three are mean attentions on random tokens that come twice, as Olsson et al. (2022), "In-context learning and
//! induction heads", measure them. Copying is the share of tokens that a head promotes into the first five places when it
//! attends to them, as Wang et al. (2022), "Interpretability in the wild", measure it, here from the token embedding alone.

use tdb_api::{ComponentRequest, HeadScoresResponse, NodeType};
use tdb_model::numbers::Numbers;
use tdb_model::{ForwardOptions, Site, Tensor};

use crate::context::Context;
use crate::engine::Engine;
use crate::error::{Result, bad};
use crate::tensors::times_gain;

/// Tokens that come twice, at most.
const REPEATED: usize = 50;
/// Tokens that copying is measured on.
const SAMPLED: usize = 64;
/// Places that count as promoted.
const PROMOTED: usize = 5;

impl Engine {
    /// `POST /head_scores`.
    ///
    /// # Errors
    /// [`Error::Bad`] if no head is named, or one that the model does not have.
    pub fn head_scores(&self, request: &ComponentRequest, context: &Context<'_>) -> Result<HeadScoresResponse> {
        let config = self.model().config();
        if request.node_type != NodeType::AttentionHead {
            return bad!(at "nodeType", "is \"{}\"; scores are of attention heads", request.node_type);
        }
        let layer = index(request.layer_index, config.n_layers, "layerIndex")?;
        let head = index(request.activation_index, config.n_heads, "activationIndex")?;
        let sampled = self.random_tokens(SAMPLED);
        let n = REPEATED.min((config.ctx_window - 1) / 2).min(sampled.len());
        let once = &sampled[..n];
        // A text begins as the model's training texts did.
        let begin = self.beginning();
        let first = usize::from(begin.is_some());
        let twice: Vec<u32> = begin.into_iter().chain(once.iter().chain(once).copied()).collect();
        let mut stop = |_| !context.observer.is_cancelled();
        let options = ForwardOptions { layers: Some(layer + 1), after_layer: Some(&mut stop), ..Default::default() };
        let run = self.model().forward(&twice, options)?;
        let probs = run.get(Site::AttnQkProbs, layer)?;
        let probs = Numbers::of(&probs).map_err(tdb_model::Error::from)?;
        let attention = |query: usize, key: usize| f64::from(probs.at(&[query + first, key + first, head]));
        let mean = |values: &mut dyn Iterator<Item = f64>| {
            let all: Vec<f64> = values.collect();
            tdb_api::numbers::mean(&all).unwrap_or_default()
        };
        // With every token that can be read read alike.
        let uniform = |queries: std::ops::Range<usize>| {
            mean(&mut queries.map(|query| tdb_api::numbers::mean_attention(query + first)))
        };
        let words = (0..config.n_vocab).filter(|token| self.has_token(*token)).count();
        Ok(HeadScoresResponse {
            previous_token: mean(&mut (1..2 * n).map(|i| attention(i, i - 1))),
            duplicate_token: mean(&mut (n..2 * n).map(|i| attention(i, i - n))),
            induction: mean(&mut (n..2 * n).map(|i| attention(i, i + 1 - n))),
            copying: self.copying((layer, head), &sampled)?,
            previous_token_chance: uniform(1..2 * n),
            repeat_chance: uniform(n..2 * n),
            copying_chance: (PROMOTED as f64 / words.max(1) as f64).min(1.0),
            repeated_tokens: n as i64,
            sampled_tokens: sampled.len() as i64,
        })
    }

    fn copying(&self, (layer, head): (usize, usize), tokens: &[u32]) -> Result<f64> {
        let (model, block) = (self.model(), self.model().block(layer));
        let width = model.config().d_model;
        let rows = tokens.iter().flat_map(|token| model.embedding().row(*token)).collect();
        let rows = model.tensor(&[tokens.len(), width], rows)?;
        let of = tdb_model::Error::from;
        let read = block.attn_norm.apply(&rows).map_err(of)?;
        // Values do not depend on the other tokens, whatever these rows attend to.
        let values = block.attn.apply(&read)?.v;
        let values = one_head(&values, block.attn.kv_head(head))?;
        let write = block.attn.write(head, &values).map_err(of)?;
        let mut write = Numbers::of(&write).map_err(of)?.to_row_major();
        times_gain(&mut write, model.final_norm().gain());
        // All at once: the vocabulary's weights are read once.
        let logits = model.unembedding().effects(&write);
        let copied = tokens.iter().zip(logits.chunks_exact(model.config().n_vocab)).filter(|(token, logits)| {
            let own = logits[**token as usize];
            logits.iter().enumerate().filter(|(other, x)| **x > own && self.has_token(*other)).count() < PROMOTED
        });
        Ok(copied.count() as f64 / tokens.len().max(1) as f64)
    }

    /// Different tokens of the vocabulary, always the same ones, in an order that looks random. They begin words where
    /// there are enough of those: a text of parts of words is further from what models were trained on.
    fn random_tokens(&self, count: usize) -> Vec<u32> {
        let unread = self.unread_tokens();
        let is_usual = |id: u32| {
            self.has_token(id as usize)
                && unread.is_none_or(|unread| !unread[id as usize])
                && self.token_text(id).chars().any(char::is_alphabetic)
        };
        let all: Vec<u32> = (0..self.model().config().n_vocab as u32).filter(|id| is_usual(*id)).collect();
        let of_words: Vec<u32> = all.iter().copied().filter(|id| self.token_text(*id).starts_with(' ')).collect();
        let all = if of_words.len() >= count { of_words } else { all };
        let mut state = 1u64;
        let mut chosen = Vec::new();
        // A linear congruential generator (Knuth's MMIX constants); its high bits are used.
        while chosen.len() < count.min(all.len()) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let token = all[(state >> 33) as usize % all.len()];
            if !chosen.contains(&token) {
                chosen.push(token);
            }
        }
        chosen
    }
}

/// `[T, G, E]` to the rows of one of the `G`, `[T, E]`.
fn one_head(values: &Tensor, head: usize) -> Result<Tensor> {
    let narrowed = values.narrow(1, head, 1).and_then(|x| x.squeeze(1)).and_then(|x| x.contiguous());
    Ok(narrowed.map_err(tdb_model::Error::from)?)
}

/// An index of the model, or what is wrong with it.
pub(crate) fn index(value: i64, limit: usize, name: &str) -> Result<usize> {
    match usize::try_from(value) {
        Ok(index) if index < limit => Ok(index),
        _ => bad!(at name, "is {value}, outside 0..{limit}"),
    }
}
