//! One layer's dictionary while it learns.
//!
//! An autoencoder: `latents = act(W (x - b) + c)`, `reconstruction = latents D + b`. A transcoder reads one activation
//! and makes another: `latents = act(W x + c)`, `output = latents D + b + S x`, the last with a skip connection only.
//! Activations are scaled to a mean square of 1 per number. Rows of `D` have length 1. Only active latents are
//! multiplied out after the encoding.

mod start;

use tdb_model::numbers::{axpy, dot, outer_products, products};
use tdb_model::{AutoencoderWeights, LatentActivation, Matrix};

use super::examples::Examples;
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

/// Whether a dictionary makes what it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Autoencoder,
    Transcoder { skip: bool },
}

/// Numbers per token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub inputs: usize,
    /// As many as inputs, for an autoencoder.
    pub outputs: usize,
    pub latents: usize,
    pub kind: Kind,
}

impl Shape {
    /// How many parameters there are.
    pub fn size(&self) -> usize {
        let skip = if self.kind == (Kind::Transcoder { skip: true }) { self.outputs * self.inputs } else { 0 };
        self.places().skip + skip
    }

    fn places(&self) -> Places {
        let decoder = self.latents * self.inputs;
        let latent_bias = decoder + self.latents * self.outputs;
        let bias = latent_bias + self.latents;
        Places { decoder, latent_bias, bias, skip: bias + self.outputs }
    }
}

/// Where each part of the parameters begins, after `W`.
#[derive(Clone, Copy)]
struct Places {
    decoder: usize,
    latent_bias: usize,
    bias: usize,
    skip: usize,
}

#[derive(Clone, Debug)]
pub struct Learner {
    pub shape: Shape,
    sparsity: Sparsity,
    /// Inputs are multiplied by the first, what is to be made of them by the second. The same, for an autoencoder.
    pub scales: [f32; 2],
    /// `W: [latents, inputs]`, `D: [latents, outputs]`, `c: [latents]`, `b: [outputs]`, `S: [outputs, inputs]`, one
    /// after another.
    pub parameters: Vec<f32>,
    pub moments: Moments,
    /// Tokens since each latent was last active.
    pub idle: Vec<f32>,
}

/// A batch, scaled.
struct Batch {
    /// What is encoded, `[n, inputs]`.
    read: Vec<f32>,
    /// What the latents should make of it, `[n, outputs]`.
    wanted: Vec<f32>,
    /// Sum over tokens of the squared distance to the mean, of what the dictionary should make.
    spread: f64,
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
    fn batch(&self, examples: Examples<'_>) -> Batch {
        let (shape, at) = (self.shape, self.shape.places());
        let scaled = |numbers: &[f32], scale: f32| numbers.iter().map(|x| x * scale).collect::<Vec<f32>>();
        let mut wanted = scaled(examples.targets, self.scales[1]);
        let spread = spread(&wanted, shape.outputs);
        let bias = &self.parameters[at.bias..at.skip];
        wanted.chunks_exact_mut(shape.outputs).for_each(|row| row.iter_mut().zip(bias).for_each(|(y, b)| *y -= b));
        let read = match shape.kind {
            Kind::Autoencoder => wanted.clone(),
            Kind::Transcoder { skip } => {
                let read = scaled(examples.inputs, self.scales[0]);
                if skip {
                    axpy(&mut wanted, -1.0, &products(&read, &self.parameters[at.skip..], shape.inputs, false));
                }
                read
            }
        };
        Batch { read, wanted, spread }
    }

    /// Pre-activations `[n, latents]` of what is read.
    fn encode(&self, read: &[f32]) -> Vec<f32> {
        let at = self.shape.places();
        let mut pre = products(read, &self.parameters[..at.decoder], self.shape.inputs, false);
        let bias = &self.parameters[at.latent_bias..at.bias];
        pre.chunks_exact_mut(self.shape.latents).for_each(|row| axpy(row, 1.0, bias));
        pre
    }

    fn activate(&self, pre: &[f32]) -> Active {
        let mut active = Active { starts: vec![0], entries: Vec::new() };
        let mut order: Vec<u32> = Vec::new();
        for row in pre.chunks_exact(self.shape.latents) {
            match self.sparsity {
                Sparsity::Relu { .. } => {
                    active.entries.extend((0u32..).zip(row.iter().copied()).filter(|entry| entry.1 > 0.0));
                }
                Sparsity::TopK { k } => {
                    order.clear();
                    order.extend((0..self.shape.latents as u32).filter(|&latent| row[latent as usize] > 0.0));
                    largest(&mut order, row, k);
                    active.entries.extend(order.iter().map(|&latent| (latent, row[latent as usize])));
                }
            }
            active.starts.push(active.entries.len());
        }
        active
    }

    /// One step on a batch, not yet scaled. `rate` is the learning rate, `step` counts from 0, `eagerness` (0 to 1) is
    /// the share of the L1 penalty that counts by now, and a latent is dead when it was idle for `dead_after` tokens.
    pub fn step(
        &mut self,
        examples: Examples<'_>,
        rate: f32,
        step: usize,
        eagerness: f32,
        dead_after: f32,
    ) -> StepStats {
        let Shape { inputs, outputs, latents, kind } = self.shape;
        let at = self.shape.places();
        let Batch { read, wanted, spread } = self.batch(examples);
        let n = wanted.len() / outputs;
        let pre = self.encode(&read);
        let active = self.activate(&pre);
        let mut stats = StepStats { tokens: n as u64, spread, ..StepStats::default() };
        let l1 = match self.sparsity {
            Sparsity::Relu { l1 } => l1 * eagerness / n as f32,
            Sparsity::TopK { .. } => 0.0,
        };
        let mut gradients = vec![0.0f32; self.parameters.len()];
        let (encoder_gradient, rest) = gradients.split_at_mut(at.decoder);
        let (decoder_gradient, rest) = rest.split_at_mut(at.latent_bias - at.decoder);
        let (latent_gradient, rest) = rest.split_at_mut(latents);
        let (bias_gradient, skip_gradient) = rest.split_at_mut(outputs);
        let encoder = &self.parameters[..at.decoder];
        let decoder = &self.parameters[at.decoder..at.latent_bias];
        let dead = self.dead(dead_after);
        let (mut errors, mut rest_error) = (vec![0.0f32; n * outputs], vec![0.0f32; outputs]);
        let weight = 2.0 / (n * outputs) as f32;
        self.idle.iter_mut().for_each(|idle| *idle += n as f32);
        for row in 0..n {
            let (x, entries) = (&read[row * inputs..][..inputs], active.row(row));
            let error = &mut errors[row * outputs..][..outputs];
            error.iter_mut().zip(&wanted[row * outputs..]).for_each(|(e, y)| *e = -y);
            for &(latent, value) in entries {
                axpy(error, value, &decoder[latent as usize * outputs..][..outputs]);
            }
            stats.squared_error += f64::from(dot(error, error));
            stats.active += entries.len() as u64;
            let mut learn = |latent: u32, value: f32, error: &[f32], weight: f32, l1: f32, bias: Option<&mut [f32]>| {
                let latent = latent as usize;
                let (reads, writes) =
                    (latent * inputs..(latent + 1) * inputs, latent * outputs..(latent + 1) * outputs);
                let toward = weight * dot(error, &decoder[writes.clone()]) + l1;
                axpy(&mut decoder_gradient[writes], weight * value, error);
                axpy(&mut encoder_gradient[reads.clone()], toward, x);
                latent_gradient[latent] += toward;
                if let Some(bias) = bias {
                    axpy(bias, -toward, &encoder[reads]);
                }
            };
            axpy(bias_gradient, weight, error);
            for &(latent, value) in entries {
                stats.latent_sum += f64::from(value);
                self.idle[latent as usize] = 0.0;
                // An autoencoder's bias is subtracted from what is read, too.
                let bias = (kind == Kind::Autoencoder).then_some(&mut *bias_gradient);
                learn(latent, value, error, weight, l1, bias);
            }
            if !dead.is_empty() && matches!(self.sparsity, Sparsity::TopK { .. }) {
                // Dead latents learn to reconstruct what the living ones left.
                let pre = &pre[row * latents..][..latents];
                let mut chosen: Vec<u32> = dead.iter().copied().filter(|&latent| pre[latent as usize] > 0.0).collect();
                largest(&mut chosen, pre, outputs / 2);
                rest_error.copy_from_slice(error);
                for &latent in &chosen {
                    axpy(&mut rest_error, pre[latent as usize], &decoder[latent as usize * outputs..][..outputs]);
                }
                for &latent in &chosen {
                    learn(latent, pre[latent as usize], &rest_error, weight * AUXILIARY, 0.0, None);
                }
            }
        }
        if !skip_gradient.is_empty() {
            axpy(skip_gradient, weight, &outer_products(&errors, &read, [outputs, inputs], false));
        }
        // A decoder row's length is fixed: what would only change it is taken out.
        for (gradient, row) in decoder_gradient.chunks_exact_mut(outputs).zip(decoder.chunks_exact(outputs)) {
            let along = dot(gradient, row);
            axpy(gradient, -along, row);
        }
        let all = 0..self.parameters.len();
        self.moments.step(all, &mut self.parameters, &gradients, Step { before: step, rate, ..ADAM });
        normalise(&mut self.parameters[at.decoder..at.latent_bias], outputs);
        stats
    }

    fn dead(&self, dead_after: f32) -> Vec<u32> {
        (0..self.shape.latents as u32).filter(|&latent| self.idle[latent as usize] >= dead_after).collect()
    }

    /// Points dead latents at what is reconstructed worst in a batch, not yet scaled; for ReLU. Returns how many there
    /// were.
    pub fn revive(&mut self, examples: Examples<'_>, dead_after: f32, dice: &mut Dice) -> usize {
        let dead = self.dead(dead_after);
        if dead.is_empty() || matches!(self.sparsity, Sparsity::TopK { .. }) {
            return 0;
        }
        let (Shape { inputs, outputs, latents, kind }, at) = (self.shape, self.shape.places());
        let Batch { read, wanted, .. } = self.batch(examples);
        let active = self.activate(&self.encode(&read));
        let mut errors = wanted;
        let mut weights = Vec::with_capacity(errors.len() / outputs);
        for (row, error) in errors.chunks_exact_mut(outputs).enumerate() {
            for &(latent, value) in active.row(row) {
                axpy(error, -value, &self.parameters[at.decoder + latent as usize * outputs..][..outputs]);
            }
            weights.push(f64::from(dot(error, error)).powi(2));
        }
        let alive = (latents - dead.len()).max(1);
        let is_dead: std::collections::HashSet<u32> = dead.iter().copied().collect();
        let length: f32 = (0..latents)
            .filter(|&latent| !is_dead.contains(&(latent as u32)))
            .map(|latent| {
                let row = &self.parameters[latent * inputs..][..inputs];
                dot(row, row).sqrt()
            })
            .sum::<f32>()
            / alive as f32;
        let mean = mean(&read, inputs);
        for &latent in &dead {
            let row = dice.weighted(&weights);
            let direction = direction(errors[row * outputs..][..outputs].to_vec(), dice);
            let latent = latent as usize;
            let (reads, writes) = (latent * inputs, at.decoder + latent * outputs);
            self.parameters[writes..][..outputs].copy_from_slice(&direction);
            // An autoencoder reads what it writes; a transcoder, what sets this token apart.
            let mut encoder = match kind {
                Kind::Autoencoder => direction,
                Kind::Transcoder { .. } => {
                    let apart = read[row * inputs..][..inputs].iter().zip(&mean).map(|(x, mean)| x - mean);
                    self::direction(apart.collect(), dice)
                }
            };
            encoder.iter_mut().for_each(|x| *x *= 0.2 * length);
            self.parameters[at.latent_bias + latent] = match kind {
                Kind::Autoencoder => 0.0,
                Kind::Transcoder { .. } => -dot(&encoder, &mean),
            };
            self.parameters[reads..][..inputs].copy_from_slice(&encoder);
            for moments in [&mut self.moments.first, &mut self.moments.second] {
                moments[reads..][..inputs].fill(0.0);
                moments[writes..][..outputs].fill(0.0);
                moments[at.latent_bias + latent] = 0.0;
            }
            self.idle[latent] = 0.0;
        }
        dead.len()
    }

    /// The weights for activations as they are, with latents in the order `order`.
    pub fn weights(&self, order: &[u32], frequency: Option<Vec<f32>>) -> AutoencoderWeights {
        let (Shape { inputs, outputs, latents, kind }, at) = (self.shape, self.shape.places());
        let [scale, output_scale] = self.scales;
        let rows = |at: usize, width: usize, factor: f32| {
            let rows = order.iter().flat_map(|&latent| &self.parameters[at + latent as usize * width..][..width]);
            Matrix::from_vec(latents, width, rows.map(|x| x * factor).collect())
        };
        let bias: Vec<f32> = self.parameters[at.bias..at.skip].iter().map(|b| b / output_scale).collect();
        let skip = &self.parameters[at.skip..];
        AutoencoderWeights {
            normalization: Default::default(),
            encoder_pre_bias: match kind {
                Kind::Autoencoder => bias.clone(),
                Kind::Transcoder { .. } => vec![0.0; inputs],
            },
            encoder: rows(0, inputs, scale / output_scale),
            latent_bias: order
                .iter()
                .map(|&latent| self.parameters[at.latent_bias + latent as usize] / output_scale)
                .collect(),
            activation: match self.sparsity {
                Sparsity::Relu { .. } => LatentActivation::Relu,
                Sparsity::TopK { k } => LatentActivation::TopK { k, relu: true },
            },
            decoder: rows(at.decoder, outputs, 1.0).transpose(),
            decoder_bias: bias,
            skip: (!skip.is_empty())
                .then(|| Matrix::from_vec(outputs, inputs, skip.iter().map(|x| x * (scale / output_scale)).collect())),
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

/// A vector of length 1, or a random one where there is none.
fn direction(mut of: Vec<f32>, dice: &mut Dice) -> Vec<f32> {
    if dot(&of, &of) == 0.0 {
        of.fill_with(|| dice.normal());
    }
    let width = of.len();
    normalise(&mut of, width);
    of
}

/// The mean of the rows of a batch.
fn mean(x: &[f32], width: usize) -> Vec<f32> {
    let n = (x.len() / width).max(1) as f64;
    let mut sum = vec![0.0f64; width];
    for row in x.chunks_exact(width) {
        sum.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x) / n);
    }
    sum.into_iter().map(|sum| sum as f32).collect()
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
