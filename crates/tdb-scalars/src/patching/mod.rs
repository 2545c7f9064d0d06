//! Activation patching between the runs of two prompts.

mod cells;

use tdb_api::stream::{PatchFold, TdbEvent};
use tdb_api::{Check, PatchDirection, PatchRequest, PatchResponse, PatchRuns, PatchedCell, TokenPair};
use tdb_model::{ForwardOptions, Run};

use crate::alignment::Alignment;
use crate::collected::collected;
use crate::context::Context;
use crate::effects::Random;
use crate::engine::Engine;
use crate::error::{Result, bad};
use crate::ledger::{self, Checked, Extent};
use crate::metric::Metric;
use crate::outcome::{Asked, Outcome};
use cells::Cell;

/// Below this share of the larger metric a difference between the two runs is too small to divide by ...
const SMALLEST_SHARE: f64 = 0.02;
/// ... and so it is below this.
const SMALLEST: f64 = 1e-3;

/// The two runs and how they correspond.
struct Bench {
    /// The run that is patched.
    base: Run,
    /// The run that activations are taken from.
    other: Run,
    alignment: Alignment,
    outcome: Outcome,
    direction: PatchDirection,
    clean: f64,
    corrupted: f64,
}

impl Engine {
    /// `POST /patch`. The same request gives the same answer.
    ///
    /// # Errors
    /// [`crate::Error::Bad`] with what is wrong and what would be right; [`crate::Error::Cancelled`] if the observer wants no
    /// more.
    pub fn patch(&self, request: &PatchRequest, context: &Context<'_>) -> Result<PatchResponse> {
        collected(PatchFold::default(), context, |context| self.send_patch(request, context))
    }

    /// The same, part by part to the observer as they are ready.
    ///
    /// # Errors
    /// As [`Engine::patch`].
    pub fn send_patch(&self, request: &PatchRequest, context: &Context<'_>) -> Result<()> {
        let send = |event| context.observer.event(event);
        let tokens = |field: &str, prompt: &str| self.tokens_of_patched(field, prompt);
        let clean_tokens = tokens("cleanPrompt", &request.clean_prompt)?;
        let corrupted_tokens = tokens("corruptedPrompt", &request.corrupted_prompt)?;
        let alignment = Alignment::new(request, [clean_tokens.len(), corrupted_tokens.len()])?;
        let lens = [clean_tokens.len(), corrupted_tokens.len()];
        let patched = match request.direction {
            PatchDirection::Denoising => lens[1],
            PatchDirection::Noising => lens[0],
        };
        self.check_grids(request, patched, context)?;
        self.check_activations("cleanPrompt", &lens, context)?;
        let (clean, corrupted) = (self.run_of(&clean_tokens, context)?, self.run_of(&corrupted_tokens, context)?);
        let bench = self.bench(request, clean, corrupted, alignment)?;
        let cells = self.cells(&bench, request)?;
        let price = self.price_of_patches(&bench, &cells, context)?;
        send(TdbEvent::Price { price });
        let runs = self.runs(&bench);
        send(TdbEvent::PatchRuns { runs: runs.clone() });
        if !request.only_price {
            let checks = bench.patched(cells, &runs, context)?;
            send(TdbEvent::Checks { side: None, checks });
        }
        Ok(())
    }

    fn tokens_of_patched(&self, field: &str, prompt: &str) -> Result<Vec<u32>> {
        let tokens = self.tokens_of(field, prompt)?;
        let limit = self.model().config().ctx_window;
        if tokens.len() > limit {
            return bad!(at field, "has {} tokens, but the model sees at most {limit}", tokens.len());
        }
        Ok(tokens)
    }

    fn run_of(&self, tokens: &[u32], context: &Context<'_>) -> Result<Run> {
        let mut after_layer = |_| !context.observer.is_cancelled();
        let options = ForwardOptions { after_layer: Some(&mut after_layer), ..Default::default() };
        Ok(self.model().forward(tokens, options)?)
    }

    fn bench(&self, request: &PatchRequest, clean: Run, corrupted: Run, alignment: Alignment) -> Result<Bench> {
        let logits = |run: &Run| run.logits(run.tokens().len() - 1);
        let at_clean = logits(&clean)?;
        let (targets, distractors) = (request.target_tokens.as_deref(), request.distractor_tokens.as_deref());
        let metric = Metric::new(self, request.metric, targets, distractors, &at_clean)?;
        let values = [metric.value_of_all(&at_clean), metric.value_of_all(&logits(&corrupted)?)];
        let (base, other) = match request.direction {
            PatchDirection::Denoising => (corrupted, clean),
            PatchDirection::Noising => (clean, corrupted),
        };
        let direction = request.direction;
        let outcome = metric.into();
        Ok(Bench { base, other, alignment, outcome, direction, clean: values[0], corrupted: values[1] })
    }

    fn runs(&self, bench: &Bench) -> PatchRuns {
        let (clean, corrupted) = match bench.direction {
            PatchDirection::Denoising => (&bench.other, &bench.base),
            PatchDirection::Noising => (&bench.base, &bench.other),
        };
        let texts = |run: &Run| run.tokens().iter().map(|t| self.token_text(*t)).collect();
        let denominator = bench.clean - bench.corrupted;
        let size = bench.clean.abs().max(bench.corrupted.abs());
        let remark = (denominator.abs() < SMALLEST.max(SMALLEST_SHARE * size)).then(|| {
            format!(
                "The metric differs by only {denominator:.4} between the two prompts ({:.4} and {:.4}): too little to divide by. \
                 Choose prompts that the model answers differently, or another metric.",
                bench.clean, bench.corrupted
            )
        });
        PatchRuns {
            clean_tokens: texts(clean),
            corrupted_tokens: texts(corrupted),
            alignment: bench.alignment.pairs.clone(),
            clean: bench.clean,
            corrupted: bench.corrupted,
            denominator,
            remark,
        }
    }
}

impl Bench {
    /// The token of the other run in the place of one of the patched run.
    fn other_token(&self, token: usize) -> Option<usize> {
        let pick = |pair: &TokenPair| match self.direction {
            PatchDirection::Denoising => (pair.corrupted, pair.clean),
            PatchDirection::Noising => (pair.clean, pair.corrupted),
        };
        let found = self.alignment.pairs.iter().map(pick).find(|(base, _)| *base == token as i64);
        found.and_then(|(_, other)| usize::try_from(other).ok())
    }

    fn effect(&self, metric: f64, runs: &PatchRuns) -> Option<f64> {
        if runs.remark.is_some() {
            return None;
        }
        let moved = match self.direction {
            PatchDirection::Denoising => metric - self.corrupted,
            PatchDirection::Noising => self.clean - metric,
        };
        Some(moved / runs.denominator)
    }

    /// Sends every cell with its metric; the checks.
    fn patched(&self, cells: Vec<Cell>, runs: &PatchRuns, context: &Context<'_>) -> Result<Vec<Check>> {
        let (told, patches): (Vec<PatchedCell>, Vec<_>) = cells.into_iter().map(|c| (c.told, c.patches)).unzip();
        let is_cancelled = || context.observer.is_cancelled();
        let checked = Checked { extent: Extent::Sample, run: &self.base, interventions: &[], outcome: &self.outcome };
        let seed = Random::new(patches.len() as u64).below(usize::MAX) as u64;
        let probes = checked.probes(seed)?;
        let asked = Asked { values: &patches, logits: &probes.runs };
        let found = self.outcome.vary(&self.base, asked, &[], &is_cancelled, &mut |index, metric| {
            let cell = PatchedCell { metric, effect: self.effect(metric, runs), ..told[index].clone() };
            context.observer.event(TdbEvent::PatchedCell { index, cell });
        })?;
        let mut checks = checked.of_run(&probes, &found.logits, seed)?;
        if self.alignment.is_identity {
            checks.push(checked.whole(&self.other)?);
        }
        checks.extend(checked.sharing(&patches, &found.values)?);
        checks.extend(ledger::dictionaries(&checked)?);
        Ok(checks)
    }
}
