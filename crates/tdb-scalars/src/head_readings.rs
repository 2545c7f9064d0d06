//! What a head does, told in tokens from its weights: its OV and QK circuits from embedding to unembedding (Elhage et
//! al. 2021, "A mathematical framework for transformer circuits").
//!
//! A token is its embedding alone, without a position, through the norm before the layer. With `v(x)`, `q(x)`, `k(x)`
//! the head's value, query and key of token `x`, and `γ` the final norm's gain:
//!
//! ```text
//! OV  what attending to x adds to the logit of y      v(x) W_O diag(γ) · W_U[y], from its mean over y
//! QK  how much x, as the query, prefers y as the key  q(x) · k(y), from its mean over y
//! ```
//!
//! Means are over the tokens that readings show. The division by the final norm's scale, what layers between add, and a
//! cap of logits are left out.

use tdb_api::{HeadCircuit, HeadReadingsRequest, HeadReadingsResponse, TokenReading, VocabularyPair};
use tdb_model::numbers::{Numbers, products};
use tdb_model::parallel;
use tdb_model::{HeadProjections, Norm, Positions, Tensor};

use crate::context::Context;
use crate::engine::Engine;
use crate::error::{Error, Result, bad};
use crate::head_scores::index;
use crate::pairs::{Strength, Strongest, strongest};
use crate::readings::rank;
use crate::tensors::times_gain;

/// Tokens at either end of a reading.
const TOKENS: usize = 8;
/// Pairs of the whole vocabulary.
const PAIRS: usize = 20;
/// Multiplications for the pairs of one circuit: about a second of two cores.
pub const PAIR_PRODUCTS: u64 = 1 << 35;
/// Rows that are projected at a time.
const ROWS: usize = 2048;

const AT_DISTANCE_0: &str =
    "Rotary positions turn queries and keys in this layer: attention logits are those at distance 0.";
const BEFORE_NORM: &str =
    "A norm follows this attention layer: writes are those before the division by its scale, with its gain.";

impl Engine {
    /// `POST /head_readings`.
    ///
    /// # Errors
    /// [`Error::Bad`] if the model does not have the head, or the prompt has more tokens than may be read.
    pub fn head_readings(&self, request: &HeadReadingsRequest, context: &Context<'_>) -> Result<HeadReadingsResponse> {
        let config = self.model().config();
        let layer = index(request.layer_index, config.n_layers, "layerIndex")?;
        let head = index(request.activation_index, config.n_heads, "activationIndex")?;
        let prompt = request.prompt.as_deref().unwrap_or_default();
        let mut asked = Vec::new();
        for token in self.tokenizer().encode(prompt) {
            if !asked.contains(&token) {
                asked.push(token);
            }
        }
        let (found, limit) = (2 * asked.len() as u64 * config.n_vocab as u64, context.bounds.token_scores);
        if found > limit {
            return bad!(
                at "prompt",
                "its {} different tokens take {found} scores of tokens; this server takes at most {limit}",
                asked.len()
            );
        }
        let block = self.model().block(layer);
        let vocabulary = (0..config.n_vocab as u32).filter(|token| self.is_read(*token)).collect();
        let reader = Reader {
            engine: self,
            context,
            norm: &block.attn_norm,
            projections: block.attn.projections(head),
            vocabulary,
            asked,
        };
        let rotates =
            matches!(&config.positions, Positions::Rotary(layers) if layers.get(layer).is_some_and(Option::is_some));
        let notes = [(rotates, AT_DISTANCE_0), (config.post_norms, BEFORE_NORM)];
        Ok(HeadReadingsResponse {
            ov: reader.ov()?,
            qk: reader.qk()?,
            notes: notes.into_iter().filter(|note| note.0).map(|note| note.1.to_owned()).collect(),
        })
    }

    /// Whether readings show a token.
    fn is_read(&self, token: u32) -> bool {
        self.unread_tokens().is_none_or(|unread| !unread[token as usize])
    }
}

struct Reader<'a> {
    engine: &'a Engine,
    context: &'a Context<'a>,
    norm: &'a Norm,
    projections: HeadProjections<'a>,
    /// The tokens that readings show.
    vocabulary: Vec<u32>,
    /// Those of the prompt, each once.
    asked: Vec<u32>,
}

impl Reader<'_> {
    fn ov(&self) -> Result<HeadCircuit> {
        let value = |x: &Tensor| self.projections.values(x);
        let gain = self.engine.model().final_norm().gain();
        let mut seen = self.table(&self.vocabulary, |tokens| {
            let unembedding = self.engine.model().unembedding();
            let mut rows = self.gather(tokens, |range| unembedding.rows(range));
            times_gain(&mut rows, gain);
            Ok(self.projections.write_vjp(&self.rows(tokens.len(), rows)?)?)
        })?;
        self.center(&mut seen);
        self.circuit(
            [self.embedded(&self.asked, value)?, self.embedded(&self.vocabulary, value)?, seen],
            Strength::Magnitude,
        )
    }

    fn qk(&self) -> Result<HeadCircuit> {
        let query = |x: &Tensor| self.projections.queries(x);
        let mut keys = self.embedded(&self.vocabulary, |x| self.projections.keys(x))?;
        self.center(&mut keys);
        self.circuit(
            [self.embedded(&self.asked, query)?, self.embedded(&self.vocabulary, query)?, keys],
            Strength::Value,
        )
    }

    /// The products of what is asked about, and of the whole vocabulary, with what it meets: rows of width `E` each.
    fn circuit(&self, [asked, all, met]: [Vec<f32>; 3], strength: Strength) -> Result<HeadCircuit> {
        let width = self.engine.model().config().d_head;
        let reading = |i: usize| -> Result<TokenReading> {
            self.go_on()?;
            let row = &asked[i * width..(i + 1) * width];
            let mut reading = rank(&products(row, &met, width, false), TOKENS, None);
            for (place, _) in reading.top.iter_mut().chain(&mut reading.bottom) {
                *place = self.vocabulary[*place as usize];
            }
            Ok(TokenReading { token: self.engine.token_text(self.asked[i]), tokens: reading.to_wire(self.engine)? })
        };
        let tokens = parallel::try_map(self.asked.len(), reading)?;
        let goes_on = || !self.context.observer.is_cancelled();
        let Strongest { pairs, unseen_at_most } =
            strongest([&all, &met], width, (PAIRS, strength), PAIR_PRODUCTS, &goes_on)?;
        let text = |place: usize| self.engine.token_text(self.vocabulary[place]);
        let pair = |(from, to, value): (usize, usize, f32)| {
            if value.is_finite() {
                Ok(VocabularyPair { from: text(from), to: text(to), value: f64::from(value) })
            } else {
                bad!("a pair's score is not a finite number")
            }
        };
        Ok(HeadCircuit {
            tokens,
            pairs: pairs.into_iter().map(pair).collect::<Result<_>>()?,
            unseen_at_most: unseen_at_most.map(f64::from),
        })
    }

    /// A projection of what the layer's norm makes of tokens' embeddings, row by row.
    fn embedded(&self, tokens: &[u32], project: impl Fn(&Tensor) -> candle_core::Result<Tensor>) -> Result<Vec<f32>> {
        let embedding = self.engine.model().embedding();
        self.table(tokens, |tokens| {
            let rows = self.gather(tokens, |range| embedding.rows(range));
            Ok(project(&self.norm.apply(&self.rows(tokens.len(), rows)?)?)?)
        })
    }

    /// A row of width `E` for each token; `project` makes them of some tokens at a time.
    fn table(&self, tokens: &[u32], project: impl Fn(&[u32]) -> Result<Tensor>) -> Result<Vec<f32>> {
        let mut out = Vec::with_capacity(tokens.len() * self.engine.model().config().d_head);
        for tokens in tokens.chunks(ROWS) {
            self.go_on()?;
            out.extend(Numbers::of(&project(tokens)?)?.to_row_major());
        }
        Ok(out)
    }

    /// Rows of a matrix over the vocabulary.
    fn gather<'m>(
        &self,
        tokens: &[u32],
        rows: impl Fn(std::ops::Range<usize>) -> std::borrow::Cow<'m, [f32]>,
    ) -> Vec<f32> {
        tokens.iter().flat_map(|token| rows(*token as usize..*token as usize + 1).into_owned()).collect()
    }

    fn rows(&self, n: usize, numbers: Vec<f32>) -> Result<Tensor> {
        let model = self.engine.model();
        Ok(model.tensor(&[n, model.config().d_model], numbers)?)
    }

    /// Subtracts the mean row.
    fn center(&self, rows: &mut [f32]) {
        let width = self.engine.model().config().d_head;
        let mut mean = vec![0.0f64; width];
        for row in rows.chunks_exact(width) {
            mean.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
        }
        mean.iter_mut().for_each(|sum| *sum /= (rows.len() / width).max(1) as f64);
        for row in rows.chunks_exact_mut(width) {
            row.iter_mut().zip(&mean).for_each(|(x, mean)| *x -= *mean as f32);
        }
    }

    fn go_on(&self) -> Result<()> {
        if self.context.observer.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }
}
