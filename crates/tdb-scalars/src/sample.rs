//! Continuing a prompt, with and without ablations.

use tdb_api::SampleRequest;
use tdb_api::stream::TdbEvent;
use tdb_model::Intervention;
use tdb_model::numbers::softmax;
use tdb_model::sampling::{Cache, Choice, Sampler, advance};

use crate::context::Context;
use crate::engine::Engine;
use crate::error::{Error, Result, bad};
use crate::tdb::plan_of;

/// Tokens that are drawn at most.
const MOST: i64 = 256;

impl Engine {
    /// `POST /sample/stream`: each token is an event, of side 0 with the ablations and, if there are any, then of side 1
    /// without.
    ///
    /// # Errors
    /// [`Error::Bad`] with what is wrong and what would be right; [`Error::Cancelled`] if the observer wants no more.
    pub fn sample(&self, request: &SampleRequest, context: &Context<'_>) -> Result<()> {
        if !(1..=MOST).contains(&request.tokens) {
            return bad!(at "tokens", "is {}; from 1 to {MOST} can be drawn", request.tokens);
        }
        let choice = choice(request)?;
        let ablations = request.node_ablations.as_deref().unwrap_or_default();
        let plan = plan_of(self, &request.prompt, ablations)?;
        self.check_activations("prompt", &[plan.tokens.len()], context)?;
        self.draw(0, &plan.tokens, &plan.interventions, (request, choice), context)?;
        if !ablations.is_empty() {
            self.draw(1, &plan.tokens, &[], (request, choice), context)?;
        }
        Ok(())
    }

    fn draw(
        &self,
        side: usize,
        prompt: &[u32],
        interventions: &[Intervention],
        (request, choice): (&SampleRequest, Choice),
        context: &Context<'_>,
    ) -> Result<()> {
        let model = self.model();
        let mut sampler = Sampler::new(choice, request.seed.unsigned_abs())?;
        let mut cache = Cache::default();
        let mut next = prompt.to_vec();
        for _ in 0..request.tokens {
            if context.observer.is_cancelled() {
                return Err(Error::Cancelled);
            }
            if cache.len() + next.len() > model.config().ctx_window {
                break;
            }
            let logits = advance(model, &mut cache, &next, interventions, None)?;
            let token = sampler.draw(&logits)?;
            let mut probabilities = logits;
            softmax(&mut probabilities);
            context.observer.event(TdbEvent::Sampled {
                side,
                token: self.token_text(token),
                token_id: i64::from(token),
                probability: f64::from(probabilities[token as usize]),
            });
            next = vec![token];
        }
        Ok(())
    }
}

fn choice(request: &SampleRequest) -> Result<Choice> {
    let (temperature, p) = (request.temperature as f32, request.top_p as f32);
    if !(0.0..=100.0).contains(&temperature) {
        return bad!(at "temperature", "is {}, expected a number from 0 to 100", request.temperature);
    }
    if !(p > 0.0 && p <= 1.0) {
        return bad!(at "topP", "is {}, expected a number above 0 and at most 1", request.top_p);
    }
    /// Below this a logit that is larger by a thousandth has all the probability; dividing by less overflows.
    const GREEDY: f32 = 1e-5;
    Ok(match (temperature > GREEDY, p < 1.0) {
        (false, _) => Choice::Greedy,
        (true, true) => Choice::TopP { p, temperature },
        (true, false) => Choice::Temperature { temperature },
    })
}
