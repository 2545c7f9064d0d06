//! How good a dictionary is, on text that it did not learn from.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use tdb_model::numbers::{Numbers, exp, tensor};
use tdb_model::parallel;
use tdb_model::{Autoencoder, ForwardOptions, Hooks, Pass, Point, Site, Transformer};

use super::examples::{Examples, Rows};
use super::harvest::{activation, activations, target};
use crate::error::{Error, Result};

/// An autoencoder of one layer, judged.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Quality {
    pub layer: usize,
    /// Share of the variance of what it should make that it does make.
    pub variance_explained: f64,
    /// How much of what is lost without the activation (set to zero) the reconstruction brings back, in cross-entropy.
    /// `None` where nothing is lost: on this text the model does as well without the activation.
    pub loss_recovered: Option<f64>,
    /// Cross-entropy per token of the model as it is, with the reconstruction, and with zero, in nats.
    pub loss: f64,
    pub loss_reconstructed: f64,
    pub loss_zero: f64,
    /// Active latents per token.
    pub latents_per_token: f64,
    /// Share of latents that no token activated.
    pub dead: f64,
    pub tokens: usize,
}

/// Puts something else in the place of one activation.
struct Replace<'a> {
    /// What is read.
    input: Point,
    /// What is replaced.
    target: Point,
    /// `None` for zero.
    autoencoder: Option<&'a Autoencoder>,
    /// The input of a transcoder, once it was seen.
    seen: Option<Tensor>,
}

impl Hooks for Replace<'_> {
    fn wants(&self, point: Point, pass: Pass) -> bool {
        (point == self.target || point == self.input) && pass == Pass::Forward
    }

    fn forward(&mut self, point: Point, activation: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let Some(autoencoder) = self.autoencoder else {
            return (point == self.target).then(|| activation.zeros_like()).transpose();
        };
        if point == self.input {
            // Heads' outputs are encoded side by side.
            self.seen = Some(activation.flatten_from(1)?);
        }
        match (&self.seen, point == self.target) {
            (Some(input), true) => {
                let output = autoencoder.decode(&autoencoder.encode(input)?, input)?;
                output.reshape(activation.dims()).map(Some)
            }
            (None, true) => candle_core::bail!("{:?} comes before what is read for it", self.target),
            (_, false) => Ok(None),
        }
    }
}

/// Sum of the cross-entropies of all tokens but the first, and how many those are.
fn cross_entropy(model: &Transformer, tokens: &[u32], hooks: Option<&mut dyn Hooks>) -> Result<(f64, usize)> {
    let run = model.forward(tokens, ForwardOptions { hooks, ..Default::default() })?;
    let all = run.get(Site::Logits, None)?;
    let all = Numbers::of(&all)?;
    let mut sum = 0.0f64;
    for (logits, &target) in all.data().chunks_exact(model.config().n_vocab).zip(&tokens[1..]) {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let total: f64 = logits.iter().map(|&logit| f64::from(exp(logit - max))).sum();
        sum += total.ln() - f64::from(logits[target as usize] - max);
    }
    Ok((sum, tokens.len().saturating_sub(1)))
}

/// The share of a loss that is brought back, from the cross-entropies as [`cross_entropies`] gives them.
pub(super) fn recovered([loss, reconstructed, zero]: [f64; 3]) -> Option<f64> {
    (zero - loss > 1e-6 * loss).then(|| (zero - reconstructed) / (zero - loss))
}

/// Cross-entropy per token of the model as it is, with the reconstruction, and with zero in the activation's place.
pub fn cross_entropies(
    model: &Transformer,
    layer: usize,
    autoencoder: &Autoencoder,
    sequences: &[Vec<u32>],
) -> Result<[f64; 3]> {
    let (input, target) = (activation(autoencoder.site(), layer), target(autoencoder.site(), layer));
    let mean = |replace: Option<Option<&Autoencoder>>| {
        let parts: Vec<(f64, usize)> = parallel::try_map(sequences.len(), |i| match replace {
            None => cross_entropy(model, &sequences[i], None),
            Some(autoencoder) => {
                cross_entropy(model, &sequences[i], Some(&mut Replace { input, target, autoencoder, seen: None }))
            }
        })?;
        let (mut sum, mut count) = (0.0, 0);
        for (loss, tokens) in parts {
            sum += loss;
            count += tokens;
        }
        Ok::<f64, Error>(sum / count.max(1) as f64)
    };
    Ok([mean(None)?, mean(Some(Some(autoencoder)))?, mean(Some(None))?])
}

/// What the reconstruction alone tells.
struct Reconstruction {
    frequency: Vec<f32>,
    variance_explained: f64,
    tokens: usize,
}

/// How often each latent is active, as a share of the tokens of some sequences.
pub fn frequency(
    model: &Transformer,
    layer: usize,
    autoencoder: &Autoencoder,
    sequences: &[Vec<u32>],
) -> Result<Vec<f32>> {
    Ok(reconstruct(model, layer, autoencoder, sequences)?.frequency)
}

fn reconstruct(
    model: &Transformer,
    layer: usize,
    autoencoder: &Autoencoder,
    sequences: &[Vec<u32>],
) -> Result<Reconstruction> {
    let (width, target_width) = (autoencoder.n_inputs(), autoencoder.n_outputs());
    let parts = parallel::try_map(sequences.len(), |i| -> Result<Rows> {
        Ok(activations(model, autoencoder.site(), &sequences[i])?.swap_remove(layer))
    })?;
    let mut rows = Rows::default();
    for part in parts {
        rows.extend(&part, usize::MAX / width.max(target_width), [width, target_width]);
    }
    let Examples { inputs, targets } = rows.examples();
    let n = inputs.len() / width;
    let inputs = tensor(&[n, width], inputs.to_vec());
    let latents = autoencoder.encode(&inputs)?;
    let made = autoencoder.decode(&latents, &inputs)?.flatten_all()?.to_vec1::<f32>()?;
    let mut mean = vec![0.0f64; target_width];
    for row in targets.chunks_exact(target_width) {
        mean.iter_mut().zip(row).for_each(|(mean, x)| *mean += f64::from(*x) / n as f64);
    }
    let (mut spread, mut error) = (0.0f64, 0.0f64);
    for (wanted, made) in targets.chunks_exact(target_width).zip(made.chunks_exact(target_width)) {
        for i in 0..target_width {
            spread += (f64::from(wanted[i]) - mean[i]).powi(2);
            error += (f64::from(wanted[i]) - f64::from(made[i])).powi(2);
        }
    }
    let mut counts = vec![0u32; autoencoder.n_latents()];
    for row in latents.rows() {
        for entry in row {
            counts[entry.0 as usize] += 1;
        }
    }
    Ok(Reconstruction {
        frequency: counts.into_iter().map(|count| count as f32 / n as f32).collect(),
        variance_explained: 1.0 - error / spread.max(f64::MIN_POSITIVE),
        tokens: n,
    })
}

/// Judges an autoencoder on some sequences.
pub fn quality(
    model: &Transformer,
    layer: usize,
    autoencoder: &Autoencoder,
    sequences: &[Vec<u32>],
) -> Result<Quality> {
    let Reconstruction { frequency, variance_explained, tokens } = reconstruct(model, layer, autoencoder, sequences)?;
    let [loss, loss_reconstructed, loss_zero] = cross_entropies(model, layer, autoencoder, sequences)?;
    Ok(Quality {
        layer,
        variance_explained,
        loss_recovered: recovered([loss, loss_reconstructed, loss_zero]),
        loss,
        loss_reconstructed,
        loss_zero,
        latents_per_token: frequency.iter().map(|&share| f64::from(share)).sum(),
        dead: frequency.iter().filter(|&&share| share == 0.0).count() as f64 / frequency.len() as f64,
        tokens,
    })
}

#[cfg(test)]
mod tests {
    use super::recovered;

    #[test]
    fn nothing_is_recovered_where_nothing_was_lost() {
        assert_eq!(recovered([1.0, 1.5, 3.0]), Some(0.75));
        assert_eq!(recovered([4.2, 4.3, 4.1]), None);
        assert_eq!(recovered([4.2, 4.3, 4.2]), None);
    }
}
