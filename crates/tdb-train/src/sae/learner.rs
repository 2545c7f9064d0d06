//! One layer's autoencoder while it learns.
//!
//! `latents = act(W (x - b) + c)`, `reconstruction = latents D + b`, on activations scaled to a mean square of 1 per
//! number. Rows of `D` have length 1. Only active latents are multiplied out after the encoding.

use tdb_model::numbers::{axpy, dot, products};
use tdb_model::{AutoencoderWeights, LatentActivation, Matrix};

use super::recipe::Sparsity;
use crate::dice::Dice;
use crate::optimizer::{Moments, Step};

/// Without decay: the decoder's lengths are fixed, and the penalty keeps the encoder small.
const ADAM: Step = Step { before: 0, rate: 0.0, beta_1: 0.9, beta_2: 0.999, decay: 0.0, factor: 1.0 };
/// Weight of the loss that dead latents are trained on, with TopK.
const AUXILIARY: f32 = 1.0 / 32.0;

/// What a step, or several, found.
#[derive(Clone, Copy, Debug, Default)]
pub struct StepStats {
    pub tokens: u64,
    /// Sum over tokens of the squared error, on scaled activations.
    pub squared_error: f64,
    /// Sum over tokens of the squared distance to the batch's mean.
    pub spread: f64,
    /// Active latents, over all tokens.
    pub active: u64,
    /// Sum of the latents.
    pub latent_sum: f64,
}

impl StepStats {
    pub fn add(&mut self, other: &Self) {
        self.tokens += other.tokens;
        self.squared_error += other.squared_error;
        self.spread += other.spread;
        self.active += other.active;
        self.latent_sum += other.latent_sum;
    }

    pub fn variance_explained(&self) -> f64 {
        1.0 - self.squared_error / self.spread.max(f64::MIN_POSITIVE)
    }

    pub fn latents_per_token(&self) -> f64 {
        self.active as f64 / self.tokens.max(1) as f64
    }
}

#[derive(Clone, Debug)]
pub struct Learner {
    pub width: usize,
    pub latents: usize,
    sparsity: Sparsity,
    /// Activations are multiplied by this first.
    pub scale: f32,
    /// `W: [latents, width]`, `D: [latents, width]`, `c: [latents]`, `b: [width]`, one after another.
    pub parameters: Vec<f32>,
    pub moments: Moments,
    /// Tokens since each latent was last active.
    pub idle: Vec<f32>,
}

/// Active latents of each row of a batch.
#[derive(Default)]
struct Active {
    starts: Vec<usize>,
    entries: Vec<(u32, f32)>,
}

impl Active {
    fn row(&self, row: usize) -> &[(u32, f32)] {
        &self.entries[self.starts[row]..self.starts[row + 1]]
    }
}

impl Learner {
    /// Before the first step. `x: [n, width]` are some activations, which give scale and bias.
    pub fn new(width: usize, latents: usize, sparsity: Sparsity, x: &[f32], dice: &mut Dice) -> Self {
        let n = (x.len() / width).max(1);
        let mut mean = vec![0.0f64; width];
        for row in x.chunks_exact(width) {
            mean.iter_mut().zip(row).for_each(|(m, x)| *m += f64::from(*x) / n as f64);
        }
        let spread: f64 = x
            .chunks_exact(width)
            .flat_map(|row| row.iter().zip(&mean).map(|(x, m)| (f64::from(*x) - m).powi(2)))
            .sum::<f64>()
            / (n * width) as f64;
        let scale = if spread > 0.0 { (1.0 / spread.sqrt()) as f32 } else { 1.0 };
        let size = 2 * latents * width + latents + width;
        let mut parameters = vec![0.0f32; size];
        let (encoder, rest) = parameters.split_at_mut(latents * width);
        let (decoder, rest) = rest.split_at_mut(latents * width);
        decoder.fill_with(|| dice.normal());
        normalise(decoder, width);
        encoder.copy_from_slice(decoder);
        rest[latents..].iter_mut().zip(&mean).for_each(|(b, m)| *b = *m as f32 * scale);
        Self { width, latents, sparsity, scale, parameters, moments: Moments::new(size), idle: vec![0.0; latents] }
    }

    /// Where `D`, `c` and `b` begin.
    fn ends(&self) -> [usize; 3] {
        let matrix = self.latents * self.width;
        [matrix, 2 * matrix, 2 * matrix + self.latents]
    }

    /// Pre-activations `[n, latents]` of centred rows.
    fn encode(&self, centred: &[f32]) -> Vec<f32> {
        let [decoder, latent_bias, bias] = self.ends();
        let mut pre = products(centred, &self.parameters[..decoder], self.width, false);
        pre.chunks_exact_mut(self.latents).for_each(|row| axpy(row, 1.0, &self.parameters[latent_bias..bias]));
        pre
    }

    fn activate(&self, pre: &[f32]) -> Active {
        let mut active = Active { starts: vec![0], entries: Vec::new() };
        let mut order: Vec<u32> = Vec::new();
        for row in pre.chunks_exact(self.latents) {
            match self.sparsity {
                Sparsity::Relu { .. } => {
                    active.entries.extend((0u32..).zip(row.iter().copied()).filter(|entry| entry.1 > 0.0));
                }
                Sparsity::TopK { k } => {
                    order.clear();
                    order.extend((0..self.latents as u32).filter(|&latent| row[latent as usize] > 0.0));
                    largest(&mut order, row, k);
                    active.entries.extend(order.iter().map(|&latent| (latent, row[latent as usize])));
                }
            }
            active.starts.push(active.entries.len());
        }
        active
    }

    /// One step on `x: [n, width]`, not yet scaled. `rate` is the learning rate, `step` counts from 0, `eagerness`
    /// (0 to 1) is the share of the L1 penalty that counts by now, and a latent is dead when it was idle for
    /// `dead_after` tokens.
    pub fn step(&mut self, x: &[f32], rate: f32, step: usize, eagerness: f32, dead_after: f32) -> StepStats {
        let (d, n) = (self.width, x.len() / self.width);
        let [decoder_at, latent_bias_at, bias_at] = self.ends();
        let x: Vec<f32> = x.iter().map(|x| x * self.scale).collect();
        let bias = self.parameters[bias_at..].to_vec();
        let mut centred = x.clone();
        centred.chunks_exact_mut(d).for_each(|row| row.iter_mut().zip(&bias).for_each(|(x, b)| *x -= b));
        let pre = self.encode(&centred);
        let active = self.activate(&pre);
        let mut stats = StepStats { tokens: n as u64, spread: spread(&x, d), ..StepStats::default() };
        let l1 = match self.sparsity {
            Sparsity::Relu { l1 } => l1 * eagerness / n as f32,
            Sparsity::TopK { .. } => 0.0,
        };
        let mut gradients = vec![0.0f32; self.parameters.len()];
        let (encoder_gradient, rest) = gradients.split_at_mut(decoder_at);
        let (decoder_gradient, rest) = rest.split_at_mut(latent_bias_at - decoder_at);
        let (latent_gradient, bias_gradient) = rest.split_at_mut(self.latents);
        let encoder = &self.parameters[..decoder_at];
        let decoder = &self.parameters[decoder_at..latent_bias_at];
        let dead = self.dead(dead_after);
        let (mut error, mut rest_error) = (vec![0.0f32; d], vec![0.0f32; d]);
        let weight = 2.0 / (n * d) as f32;
        self.idle.iter_mut().for_each(|idle| *idle += n as f32);
        for row in 0..n {
            let (x, entries) = (&centred[row * d..][..d], active.row(row));
            error.iter_mut().zip(x).for_each(|(e, x)| *e = -x);
            for &(latent, value) in entries {
                axpy(&mut error, value, &decoder[latent as usize * d..][..d]);
            }
            stats.squared_error += f64::from(dot(&error, &error));
            stats.active += entries.len() as u64;
            let mut learn = |latent: u32, value: f32, error: &[f32], weight: f32, l1: f32, bias: Option<&mut [f32]>| {
                let (at, latent) = (latent as usize * d, latent as usize);
                let toward = weight * dot(error, &decoder[at..at + d]) + l1;
                axpy(&mut decoder_gradient[at..at + d], weight * value, error);
                axpy(&mut encoder_gradient[at..at + d], toward, x);
                latent_gradient[latent] += toward;
                if let Some(bias) = bias {
                    axpy(bias, -toward, &encoder[at..at + d]);
                }
            };
            axpy(bias_gradient, weight, &error);
            for &(latent, value) in entries {
                stats.latent_sum += f64::from(value);
                self.idle[latent as usize] = 0.0;
                learn(latent, value, &error, weight, l1, Some(bias_gradient));
            }
            if !dead.is_empty() && matches!(self.sparsity, Sparsity::TopK { .. }) {
                // Dead latents learn to reconstruct what the living ones left.
                let pre = &pre[row * self.latents..][..self.latents];
                let mut chosen: Vec<u32> = dead.iter().copied().filter(|&latent| pre[latent as usize] > 0.0).collect();
                largest(&mut chosen, pre, d / 2);
                rest_error.copy_from_slice(&error);
                for &latent in &chosen {
                    axpy(&mut rest_error, pre[latent as usize], &decoder[latent as usize * d..][..d]);
                }
                for &latent in &chosen {
                    learn(latent, pre[latent as usize], &rest_error, weight * AUXILIARY, 0.0, None);
                }
            }
        }
        // A decoder row's length is fixed: what would only change it is taken out.
        for (gradient, row) in decoder_gradient.chunks_exact_mut(d).zip(decoder.chunks_exact(d)) {
            let along = dot(gradient, row);
            axpy(gradient, -along, row);
        }
        let all = 0..self.parameters.len();
        self.moments.step(all, &mut self.parameters, &gradients, Step { before: step, rate, ..ADAM });
        normalise(&mut self.parameters[decoder_at..latent_bias_at], d);
        stats
    }

    fn dead(&self, dead_after: f32) -> Vec<u32> {
        (0..self.latents as u32).filter(|&latent| self.idle[latent as usize] >= dead_after).collect()
    }

    /// Points dead latents at what is reconstructed worst among `x: [n, width]` (not yet scaled); for ReLU. Returns
    /// how many there were.
    pub fn revive(&mut self, x: &[f32], dead_after: f32, dice: &mut Dice) -> usize {
        let dead = self.dead(dead_after);
        if dead.is_empty() || matches!(self.sparsity, Sparsity::TopK { .. }) {
            return 0;
        }
        let d = self.width;
        let [decoder_at, latent_bias_at, bias_at] = self.ends();
        let bias = &self.parameters[bias_at..];
        let centred: Vec<f32> =
            x.chunks_exact(d).flat_map(|row| row.iter().zip(bias).map(|(x, b)| x * self.scale - b)).collect();
        let active = self.activate(&self.encode(&centred));
        let mut errors = centred;
        let mut weights = Vec::with_capacity(errors.len() / d);
        for (row, error) in errors.chunks_exact_mut(d).enumerate() {
            for &(latent, value) in active.row(row) {
                axpy(error, -value, &self.parameters[decoder_at + latent as usize * d..][..d]);
            }
            weights.push(f64::from(dot(error, error)).powi(2));
        }
        let alive = (self.latents - dead.len()).max(1);
        let is_dead: std::collections::HashSet<u32> = dead.iter().copied().collect();
        let length: f32 = (0..self.latents)
            .filter(|&latent| !is_dead.contains(&(latent as u32)))
            .map(|latent| {
                let row = &self.parameters[latent * d..][..d];
                dot(row, row).sqrt()
            })
            .sum::<f32>()
            / alive as f32;
        for &latent in &dead {
            let row = dice.weighted(&weights);
            let mut direction = errors[row * d..][..d].to_vec();
            if dot(&direction, &direction) == 0.0 {
                direction.fill_with(|| dice.normal());
            }
            normalise(&mut direction, d);
            let at = latent as usize * d;
            self.parameters[decoder_at + at..][..d].copy_from_slice(&direction);
            direction.iter_mut().for_each(|x| *x *= 0.2 * length);
            self.parameters[at..at + d].copy_from_slice(&direction);
            self.parameters[latent_bias_at + latent as usize] = 0.0;
            for moments in [&mut self.moments.first, &mut self.moments.second] {
                moments[at..at + d].fill(0.0);
                moments[decoder_at + at..][..d].fill(0.0);
                moments[latent_bias_at + latent as usize] = 0.0;
            }
            self.idle[latent as usize] = 0.0;
        }
        dead.len()
    }

    /// The weights for activations as they are, with latents in the order `order`.
    pub fn weights(&self, order: &[u32], frequency: Option<Vec<f32>>) -> AutoencoderWeights {
        let (d, [decoder_at, latent_bias_at, bias_at]) = (self.width, self.ends());
        let rows = |at: usize| {
            let rows = order.iter().flat_map(|&latent| &self.parameters[at + latent as usize * d..][..d]);
            Matrix::from_vec(self.latents, d, rows.copied().collect())
        };
        let bias: Vec<f32> = self.parameters[bias_at..].iter().map(|b| b / self.scale).collect();
        AutoencoderWeights {
            normalization: Default::default(),
            encoder_pre_bias: bias.clone(),
            encoder: rows(0),
            latent_bias: order
                .iter()
                .map(|&latent| self.parameters[latent_bias_at + latent as usize] / self.scale)
                .collect(),
            activation: match self.sparsity {
                Sparsity::Relu { .. } => LatentActivation::Relu,
                Sparsity::TopK { k } => LatentActivation::TopK { k, relu: true },
            },
            decoder: rows(decoder_at).transpose(),
            decoder_bias: bias,
            skip: None,
            activation_frequency: frequency,
        }
    }
}

/// Keeps the `k` latents of `among` with the largest values, in the order of their numbers.
fn largest(among: &mut Vec<u32>, values: &[f32], k: usize) {
    let value = |latent: &u32| values[*latent as usize];
    if k < among.len() {
        among.select_nth_unstable_by(k, |a, b| value(b).total_cmp(&value(a)).then(a.cmp(b)));
        among.truncate(k);
    }
    among.sort_unstable();
}

fn normalise(rows: &mut [f32], width: usize) {
    for row in rows.chunks_exact_mut(width) {
        let length = dot(row, row).sqrt();
        if length > 0.0 {
            row.iter_mut().for_each(|x| *x /= length);
        }
    }
}

/// Σ |x - mean|² over the rows of a batch.
fn spread(x: &[f32], width: usize) -> f64 {
    let n = (x.len() / width) as f64;
    let (mut sum, mut squares) = (vec![0.0f64; width], 0.0f64);
    for row in x.chunks_exact(width) {
        for (sum, &x) in sum.iter_mut().zip(row) {
            *sum += f64::from(x);
            squares += f64::from(x) * f64::from(x);
        }
    }
    squares - sum.iter().map(|sum| sum * sum / n).sum::<f64>()
}

#[cfg(test)]
mod tests;
