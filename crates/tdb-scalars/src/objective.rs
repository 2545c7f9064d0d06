//! Functions of the logits that a run can be asked about.

use std::collections::BTreeMap;

use tdb_api::{LossFnConfig, LossFnName, TokenRef};
use tdb_model::numbers::softmax;

use crate::engine::Engine;
use crate::error::{Result, bad};

/// A function of the logits at the last token. Larger means that the targets are preferred.
#[derive(Clone, Debug, PartialEq)]
pub enum Loss {
    /// Mean logit of the targets minus mean logit of the distractors (if there are any).
    LogitDiff { targets: Vec<u32>, distractors: Vec<u32> },
    /// Mean logit of the targets minus the mean logit of the vocabulary.
    LogitMinusMean { targets: Vec<u32> },
    /// Summed probability of the targets.
    Probs { targets: Vec<u32> },
    /// Nothing: gradients only flow from where an ablation puts them.
    Zero,
}

impl Loss {
    /// # Errors
    /// If targets are missing, or a target or distractor is not exactly one token.
    pub fn new(engine: &Engine, config: &LossFnConfig) -> Result<Self> {
        let name = config.name;
        let read = |field: &str, tokens: &Option<Vec<TokenRef>>| {
            engine.tokens_of_field(field, tokens.as_deref().unwrap_or_default())
        };
        let targets = || match config.target_tokens.as_deref() {
            None | Some([]) => bad!(at "targetTokens", "is empty; give at least one token"),
            Some(_) => read("targetTokens", &config.target_tokens),
        };
        let no_distractors = || match &config.distractor_tokens {
            None => Ok(()),
            Some(_) => bad!(at "distractorTokens", "has no meaning with the loss \"{name}\"; leave it out"),
        };
        match name {
            LossFnName::LogitDiff => {
                let targets = targets()?;
                Ok(Loss::LogitDiff { targets, distractors: read("distractorTokens", &config.distractor_tokens)? })
            }
            LossFnName::LogitMinusMean => {
                no_distractors()?;
                Ok(Loss::LogitMinusMean { targets: targets()? })
            }
            LossFnName::Probs => {
                no_distractors()?;
                Ok(Loss::Probs { targets: targets()? })
            }
            LossFnName::Zero => Ok(Loss::Zero),
        }
    }

    /// Value at one token's logits, `[V]`.
    pub fn value(&self, logits: &[f32]) -> f32 {
        let mean = |tokens: &[u32]| tokens.iter().map(|t| logits[*t as usize]).sum::<f32>() / tokens.len() as f32;
        match self {
            Loss::LogitDiff { targets, distractors } if distractors.is_empty() => mean(targets),
            Loss::LogitDiff { targets, distractors } => mean(targets) - mean(distractors),
            Loss::LogitMinusMean { targets } => {
                let all = logits.iter().map(|x| f64::from(*x)).sum::<f64>() / logits.len() as f64;
                mean(targets) - all as f32
            }
            Loss::Probs { targets } => {
                let mut probs = logits.to_vec();
                softmax(&mut probs);
                targets.iter().map(|t| probs[*t as usize]).sum()
            }
            Loss::Zero => 0.0,
        }
    }

    /// Gradient with respect to these logits, `[V]`; `None` where it is zero.
    pub fn gradient(&self, logits: &[f32]) -> Option<Vec<f32>> {
        let mut out = vec![0.0; logits.len()];
        let mut add = |tokens: &[u32], weight: f32| {
            tokens.iter().for_each(|t| out[*t as usize] += weight / tokens.len() as f32);
        };
        match self {
            Loss::LogitDiff { targets, distractors } => {
                add(targets, 1.0);
                add(distractors, -1.0);
            }
            Loss::LogitMinusMean { targets } => {
                add(targets, 1.0);
                let share = 1.0 / logits.len() as f32;
                out.iter_mut().for_each(|x| *x -= share);
            }
            Loss::Probs { targets } => {
                // d p_t / d z_v = p_t (1[t = v] - p_v), summed over the targets.
                let mut probs = logits.to_vec();
                softmax(&mut probs);
                let total: f32 = targets.iter().map(|t| probs[*t as usize]).sum();
                out.iter_mut().zip(&probs).for_each(|(x, p)| *x = -total * p);
                targets.iter().for_each(|t| out[*t as usize] += probs[*t as usize]);
            }
            Loss::Zero => return None,
        }
        Some(out)
    }

    /// The gradient at the last of `tokens` tokens, by token.
    pub fn seed(&self, tokens: usize, logits: &[f32]) -> BTreeMap<usize, Vec<f32>> {
        self.gradient(logits).map(|row| (tokens - 1, row)).into_iter().collect()
    }
}
