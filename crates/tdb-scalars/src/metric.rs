//! Functions of the last token's logits by which patched runs are measured.

use tdb_api::{PatchMetric, TokenRef};
use tdb_model::Logits;

use crate::engine::Engine;
use crate::error::{Result, bad};

/// A function of the logits at the last token.
#[derive(Clone, Debug, PartialEq)]
pub enum Metric {
    /// Mean logit of the targets minus mean logit of the distractors (if there are any). Only these logits are read: the
    /// targets', then the distractors'.
    LogitDifference { tokens: Vec<u32>, targets: usize },
    /// Logarithm of the summed probability of the targets.
    LogProbability { targets: Vec<u32> },
    /// Summed probability of the targets.
    Probability { targets: Vec<u32> },
    /// Kullback-Leibler divergence from these log probabilities, `[V]`: `Σ p (log p - log q)`.
    Divergence { from: Vec<f64> },
}

impl Metric {
    /// # Errors
    /// If there is no target, or a token is not exactly one.
    pub fn logit_difference(engine: &Engine, targets: &[TokenRef], distractors: &[TokenRef]) -> Result<Self> {
        let mut tokens = engine.tokens_of_field("targetTokens", targets)?;
        if tokens.is_empty() {
            return bad!(at "targetTokens", "is empty; give at least one token");
        }
        let targets = tokens.len();
        tokens.extend(engine.tokens_of_field("distractorTokens", distractors)?);
        Ok(Metric::LogitDifference { tokens, targets })
    }

    /// The metric that a request names; `clean` are the clean run's logits, `[V]`.
    ///
    /// # Errors
    /// If it has too few or too many tokens for it.
    pub fn new(
        engine: &Engine,
        name: PatchMetric,
        targets: Option<&[TokenRef]>,
        distractors: Option<&[TokenRef]>,
        clean: &[f32],
    ) -> Result<Self> {
        let (targets, distractors) = (targets.unwrap_or_default(), distractors.unwrap_or_default());
        if name == PatchMetric::LogitDifference {
            return Self::logit_difference(engine, targets, distractors);
        }
        if !distractors.is_empty() {
            return bad!(at "distractorTokens", "has no meaning with the metric \"{name}\"; leave it out");
        }
        if name == PatchMetric::KlDivergence {
            if !targets.is_empty() {
                return bad!(at "targetTokens", "has no meaning with the metric \"{name}\"; leave it out");
            }
            return Ok(Metric::Divergence { from: log_softmax(clean) });
        }
        let targets = engine.tokens_of_field("targetTokens", targets)?;
        if targets.is_empty() {
            return bad!(at "targetTokens", "is empty; the metric \"{name}\" needs at least one token");
        }
        Ok(match name {
            PatchMetric::LogProbability => Metric::LogProbability { targets },
            _ => Metric::Probability { targets },
        })
    }

    /// The logits that it reads.
    pub fn logits(&self) -> Logits<'_> {
        match self {
            Metric::LogitDifference { tokens, .. } => Logits::Of(tokens),
            _ => Logits::All,
        }
    }

    /// Its value for the logits that it reads, in their order.
    pub fn value(&self, logits: &[f32]) -> f64 {
        match self {
            Metric::LogitDifference { targets, .. } => {
                let (targets, distractors) = logits.split_at(*targets);
                mean(targets) - mean(distractors)
            }
            Metric::LogProbability { targets } => {
                let all = log_softmax(logits);
                log_sum_exp(targets.iter().map(|t| all[*t as usize]))
            }
            Metric::Probability { targets } => {
                let all = log_softmax(logits);
                targets.iter().map(|t| all[*t as usize].exp()).sum()
            }
            Metric::Divergence { from } => {
                let to = log_softmax(logits);
                from.iter()
                    .zip(to)
                    .map(|(from, to)| if *from == f64::NEG_INFINITY { 0.0 } else { from.exp() * (from - to) })
                    .sum()
            }
        }
    }

    /// Its value for the logits of the whole vocabulary.
    pub fn value_of_all(&self, logits: &[f32]) -> f64 {
        match self {
            Metric::LogitDifference { tokens, .. } => {
                self.value(&tokens.iter().map(|t| logits[*t as usize]).collect::<Vec<_>>())
            }
            _ => self.value(logits),
        }
    }

    /// Gradient at the logits of the whole vocabulary, `[V]`.
    pub fn gradient(&self, logits: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; logits.len()];
        let probs = || log_softmax(logits).into_iter().map(|x| x.exp() as f32);
        match self {
            Metric::LogitDifference { tokens, targets } => {
                let (targets, distractors) = tokens.split_at(*targets);
                targets.iter().for_each(|t| out[*t as usize] += 1.0 / targets.len() as f32);
                distractors.iter().for_each(|t| out[*t as usize] -= 1.0 / distractors.len() as f32);
            }
            Metric::LogProbability { targets } | Metric::Probability { targets } => {
                // d p_t / d z_v = p_t (1[t = v] - p_v), summed over the targets.
                let probs: Vec<f32> = probs().collect();
                let total: f32 = targets.iter().map(|t| probs[*t as usize]).sum();
                out.iter_mut().zip(&probs).for_each(|(x, p)| *x = -total * p);
                targets.iter().for_each(|t| out[*t as usize] += probs[*t as usize]);
                if matches!(self, Metric::LogProbability { .. }) && total > 0.0 {
                    out.iter_mut().for_each(|x| *x /= total);
                }
            }
            Metric::Divergence { from } => {
                out.iter_mut().zip(probs()).zip(from).for_each(|((x, q), p)| *x = q - p.exp() as f32);
            }
        }
        out
    }
}

fn mean(values: &[f32]) -> f64 {
    values.iter().map(|x| f64::from(*x)).sum::<f64>() / values.len().max(1) as f64
}

fn log_sum_exp(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let max = values.clone().fold(f64::NEG_INFINITY, f64::max);
    if max == f64::NEG_INFINITY { max } else { max + values.map(|x| (x - max).exp()).sum::<f64>().ln() }
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let sum = log_sum_exp(logits.iter().map(|x| f64::from(*x)));
    logits.iter().map(|x| f64::from(*x) - sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_are_finite_differences() {
        let logits = [0.3f32, -1.2, 2.0, 0.7];
        let from = log_softmax(&[1.0, 0.0, -0.5, 0.2]);
        let metrics = [
            Metric::LogitDifference { tokens: vec![2, 3, 0], targets: 2 },
            Metric::LogProbability { targets: vec![1, 2] },
            Metric::Probability { targets: vec![0, 3] },
            Metric::Divergence { from },
        ];
        for metric in metrics {
            for (i, found) in metric.gradient(&logits).into_iter().enumerate() {
                let at = |h: f32| {
                    let mut moved = logits;
                    moved[i] += h;
                    metric.value_of_all(&moved)
                };
                let expected = (at(1e-2) - at(-1e-2)) / 2e-2;
                assert!((f64::from(found) - expected).abs() < 1e-4, "{metric:?}: {found}, {expected}");
            }
        }
        assert!(Metric::Divergence { from: log_softmax(&logits) }.value(&logits).abs() < 1e-12);
    }
}
