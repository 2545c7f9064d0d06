//! The logit lens: the residual stream of each layer through the final norm and the unembedding.

use tdb_api::{LogitLensCell, LogitLensLayer, LogitLensRequest, LogitLensResponse, TokenRef};
use tdb_model::ForwardOptions;
use tdb_model::numbers::{Numbers, softmax};
use tdb_model::parallel;

use crate::context::Context;
use crate::engine::Engine;
use crate::error::{Error, Result, bad};
use crate::tdb::plan_of;

impl Engine {
    /// `POST /logit_lens`.
    ///
    /// # Errors
    /// [`Error::Bad`] with what is wrong and what would be right; [`Error::Cancelled`] if the observer wants no more.
    pub fn logit_lens(&self, request: &LogitLensRequest, context: &Context<'_>) -> Result<LogitLensResponse> {
        let plan = plan_of(self, &request.prompt, request.node_ablations.as_deref().unwrap_or_default())?;
        let n = plan.tokens.len();
        self.check_activations("prompt", &[n], context)?;
        let first = match request.last_tokens.map(usize::try_from) {
            None => 0,
            Some(Ok(last)) if last > 0 => n.saturating_sub(last),
            Some(_) => return bad!(at "lastTokens", "must be a positive number, or null for all"),
        };
        let followed = |field: &str, tokens: &[TokenRef]| -> Result<Option<u32>> {
            Ok(self.tokens_of_field(field, &tokens[..tokens.len().min(1)])?.pop())
        };
        let followed = [
            followed("targetTokens", &request.target_tokens)?,
            followed("distractorTokens", &request.distractor_tokens)?,
        ];
        let mut stop = |_| !context.observer.is_cancelled();
        let options =
            ForwardOptions { interventions: &plan.interventions, after_layer: Some(&mut stop), ..Default::default() };
        let run = self.model().forward(&plan.tokens, options)?;
        let n_layers = self.model().config().n_layers;
        let mut layers = Vec::with_capacity(n_layers + 1);
        for layer in 0..=n_layers {
            if context.observer.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let rows = run.residual_before(layer).narrow(0, first, n - first).map_err(tdb_model::Error::from)?;
            let rows = self.model().final_norm().apply(&rows).map_err(tdb_model::Error::from)?;
            let rows = Numbers::of(&rows).map_err(tdb_model::Error::from)?.to_row_major();
            let width = self.model().config().d_model;
            let cell = |i: usize| self.lens_cell(&rows[i * width..(i + 1) * width], followed);
            let cells = parallel::map(rows.len() / width, cell);
            layers.push(LogitLensLayer { layer: layer.checked_sub(1).map(|l| l as i64), cells });
        }
        Ok(LogitLensResponse {
            first_token: first as i64,
            tokens_as_strings: plan.tokens[first..].iter().map(|t| self.token_text(*t)).collect(),
            layers,
        })
    }

    /// `row: [D]`, after the final norm.
    fn lens_cell(&self, row: &[f32], followed: [Option<u32>; 2]) -> LogitLensCell {
        let logits = self.model().unembedding().logits(row);
        let mut probabilities = logits.clone();
        softmax(&mut probabilities);
        let known = || (0..logits.len()).filter(|token| self.has_token(*token));
        let top = known().max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap_or_default();
        let rank = |token: u32| 1 + known().filter(|other| logits[*other] > logits[token as usize]).count() as i64;
        let probability = |token: u32| f64::from(probabilities[token as usize]);
        let [target, distractor] = followed;
        LogitLensCell {
            top: self.token_text(top as u32),
            probability: f64::from(probabilities[top]),
            target_rank: target.map(rank),
            target_probability: target.map(probability),
            distractor_rank: distractor.map(rank),
            distractor_probability: distractor.map(probability),
        }
    }
}
