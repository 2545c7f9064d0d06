//! What runs with something removed are compared by: a function of the logits, or the value of a traced node.

use std::collections::BTreeMap;

use tdb_model::{
    BackwardOptions, Gradients, Index, Intervention, Logits, Numbers, Pass, Patch, Run, Seed, Site, Together,
};

use crate::error::{Result, bad};
use crate::metric::Metric;
use crate::objective::Loss;
use crate::price::ROWS;
use crate::trace::{Trace, Traced};

/// What a node's effect is an effect on.
pub(crate) struct Outcome {
    /// A function of the logits at the last token. Where a node is traced, only checks of the run itself read it.
    pub metric: Metric,
    pub traced: Option<TracedOutcome>,
}

/// The value of a traced node.
pub(crate) struct TracedOutcome {
    traced: Traced,
    loss: Option<Loss>,
}

/// Patched runs that are computed together.
#[derive(Clone, Copy, Default)]
pub(crate) struct Asked<'a> {
    /// Those whose values are wanted.
    pub values: &'a [Vec<Patch>],
    /// Those of which the logits are wanted that the metric reads.
    pub logits: &'a [Vec<Patch>],
}

/// What became of them, in their order.
pub(crate) struct Found {
    pub values: Vec<f64>,
    pub logits: Vec<Vec<f32>>,
}

/// Whether the scale of the norm that the outcome is read through counts as constant: the final norm's, or that before the
/// traced node.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    /// As in the node table.
    Held,
    Free,
}

impl Outcome {
    /// Of a run in which `trace` is asked about, or the loss. Without a loss, the likeliest next token stands for the logits.
    ///
    /// # Errors
    /// If the traced value is not finite.
    pub fn new(run: &Run, loss: Option<&Loss>, trace: Option<&Trace>) -> Result<Self> {
        let metric = match loss {
            Some(Loss::LogitDiff { targets, distractors }) => Metric::LogitDifference {
                tokens: targets.iter().chain(distractors).copied().collect(),
                targets: targets.len(),
            },
            _ => likeliest(run)?,
        };
        let traced = trace.map(|trace| TracedOutcome::new(run, loss, trace)).transpose()?;
        Ok(Outcome { metric, traced })
    }

    /// The value in a run of its own.
    ///
    /// # Errors
    /// If an operation fails.
    pub fn of(&self, run: &Run) -> Result<f64> {
        match &self.traced {
            Some(TracedOutcome { traced, .. }) => {
                let resid = run.get(traced.point.site, traced.point.layer)?;
                Ok(f64::from(traced.value(run.model(), &resid)?))
            }
            None => {
                let last = run.tokens().len() - 1;
                // Of few logits the others need not be computed.
                if let (Logits::Of(tokens), false) = (self.metric.logits(), run.changes_logits()) {
                    let row = Numbers::of(&run.get(Site::PostFinalLn, None)?.narrow(0, last, 1)?)?.to_row_major();
                    return Ok(self.metric.value(&run.model().unembedding().logits_of(tokens, &row)));
                }
                Ok(self.metric.value_of_all(&run.logits(last)?))
            }
        }
    }

    /// The values of runs that differ from one in patches, and logits of others that are computed with them; `each` is told
    /// a value as soon as it is known.
    ///
    /// # Errors
    /// If a patch does not fit, or the work is cancelled.
    pub fn vary(
        &self,
        run: &Run,
        asked: Asked<'_>,
        interventions: &[Intervention],
        is_cancelled: &dyn Fn() -> bool,
        each: &mut dyn FnMut(usize, f64),
    ) -> Result<Found> {
        let options = Together { interventions, logits: self.metric.logits(), rows: ROWS, is_cancelled };
        let n = asked.values.len();
        let (mut values, mut found) = (vec![0.0; n], vec![Vec::new(); asked.logits.len()]);
        let mut value = |i: usize, value: f64| {
            values[i] = value;
            each(i, value);
        };
        match &self.traced {
            Some(TracedOutcome { traced, .. }) => {
                let mut failed = None;
                run.vary_up_to(asked.values, traced.point, options, &mut |i, resid| {
                    match traced.value(run.model(), resid) {
                        Ok(found) => value(i, f64::from(found)),
                        Err(error) => failed = Some(error),
                    }
                    Ok(())
                })?;
                failed.map_or(Ok(()), Err)?;
                run.vary(asked.logits, options, &mut |i, logits| {
                    found[i] = logits.to_vec();
                    Ok(())
                })?;
            }
            None => run.vary(&[asked.values, asked.logits].concat(), options, &mut |i, logits| {
                match i.checked_sub(n) {
                    Some(i) => found[i] = logits.to_vec(),
                    None => value(i, self.metric.value(logits)),
                }
                Ok(())
            })?,
        }
        Ok(Found { values, logits: found })
    }

    /// Gradients of the value at these sites, with the interventions of the run.
    ///
    /// # Errors
    /// If the work is cancelled.
    pub fn gradients(
        &self,
        run: &Run,
        scale: Scale,
        keep: &[Site],
        interventions: &[Intervention],
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<Gradients> {
        let mut interventions = interventions.to_vec();
        let seed = match &self.traced {
            Some(TracedOutcome { traced, loss }) => {
                let trace = traced.trace.with_frozen_scale(scale == Scale::Held);
                let seed = trace.seed_as_is(run, loss.as_ref())?;
                Seed::Residual { point: seed.point, gradient: seed.gradient }
            }
            None => {
                interventions.extend((scale == Scale::Held).then(|| Intervention {
                    site: Site::FinalLnScale,
                    layer: None,
                    pass: Pass::Backward,
                    indices: vec![Index::All, Index::All],
                    value: 0.0,
                }));
                let last = run.tokens().len() - 1;
                Seed::Logits(BTreeMap::from([(last, self.metric.gradient(&run.logits(last)?))]))
            }
        };
        let mut after_layer = |_| !is_cancelled();
        let options = BackwardOptions {
            interventions: &interventions,
            keep,
            after_layer: Some(&mut after_layer),
            ..Default::default()
        };
        Ok(run.backward(seed, options)?)
    }

    /// With which scale gradients are what finite differences of [`Outcome::vary`] find: the final norm's can be held in the
    /// runs, that before a traced node is computed anew.
    pub fn checked_scale(&self) -> Scale {
        if self.traced.is_some() { Scale::Free } else { Scale::Held }
    }

    /// The traced node, if there is one.
    pub fn trace(&self) -> Option<&Trace> {
        self.traced.as_ref().map(|found| &found.traced.trace)
    }
}

impl From<Metric> for Outcome {
    fn from(metric: Metric) -> Self {
        Outcome { metric, traced: None }
    }
}

impl TracedOutcome {
    fn new(run: &Run, loss: Option<&Loss>, trace: &Trace) -> Result<Self> {
        let found = TracedOutcome { traced: trace.traced(run, loss)?, loss: loss.cloned() };
        let resid = run.get(found.traced.point.site, found.traced.point.layer)?;
        if !found.traced.value(run.model(), &resid)?.is_finite() {
            return bad!(
                "the value of the traced node is not finite in this prompt, so that nothing has an effect on it"
            );
        }
        Ok(found)
    }
}

/// The logit of the likeliest next token.
fn likeliest(run: &Run) -> Result<Metric> {
    let logits = run.logits(run.tokens().len() - 1)?;
    let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap_or(0);
    Ok(Metric::LogitDifference { tokens: vec![best as u32], targets: 1 })
}
