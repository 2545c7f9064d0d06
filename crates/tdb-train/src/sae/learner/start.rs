//! A dictionary before its first step.

use super::{Kind, Learner, Shape, direction, normalise};
use crate::dice::Dice;
use crate::optimizer::Moments;
use crate::sae::examples::Examples;
use crate::sae::recipe::Sparsity;
use tdb_model::AutoencoderWeights;
use tdb_model::numbers::dot;

/// Of a transcoder's first directions: the share of noise, by which latents that began at equal tokens differ.
const NOISE: f32 = 0.3;

impl Learner {
    /// Before the first step. `examples` give scales, bias and, for a transcoder, the first directions.
    pub fn new(shape: Shape, sparsity: Sparsity, examples: Examples<'_>, dice: &mut Dice) -> Self {
        let mut learner = Self::blank(shape, sparsity);
        let (mean, scale) = mean_and_scale(examples.targets, shape.outputs);
        let at = shape.places();
        let bias = learner.parameters[at.bias..at.skip].iter_mut();
        bias.zip(&mean).for_each(|(b, m)| *b = *m as f32 * scale);
        match shape.kind {
            Kind::Autoencoder => {
                learner.scales = [scale, scale];
                let (encoder, rest) = learner.parameters.split_at_mut(at.decoder);
                let decoder = &mut rest[..at.latent_bias - at.decoder];
                decoder.fill_with(|| dice.normal());
                normalise(decoder, shape.outputs);
                encoder.copy_from_slice(decoder);
            }
            Kind::Transcoder { .. } => {
                let (input_mean, input_scale) = mean_and_scale(examples.inputs, shape.inputs);
                learner.scales = [input_scale, scale];
                learner.begin_at_examples(examples, &input_mean, &mean, dice);
            }
        }
        learner
    }

    /// With the weights of a finished dictionary of this shape, as [`Learner::weights`] gives them. `examples` give
    /// scales.
    pub fn going_on(shape: Shape, sparsity: Sparsity, examples: Examples<'_>, weights: &AutoencoderWeights) -> Self {
        let mut learner = Self::blank(shape, sparsity);
        let output_scale = mean_and_scale(examples.targets, shape.outputs).1;
        let scale = match shape.kind {
            Kind::Autoencoder => output_scale,
            Kind::Transcoder { .. } => mean_and_scale(examples.inputs, shape.inputs).1,
        };
        learner.scales = [scale, output_scale];
        let at = shape.places();
        let mut put = |at: usize, numbers: Vec<f32>, factor: f32| {
            learner.parameters[at..][..numbers.len()].iter_mut().zip(numbers).for_each(|(p, x)| *p = x * factor);
        };
        put(0, weights.encoder.to_vec(), output_scale / scale);
        put(at.decoder, weights.decoder.transpose().to_vec(), 1.0);
        put(at.latent_bias, weights.latent_bias.clone(), output_scale);
        put(at.bias, weights.decoder_bias.clone(), output_scale);
        put(at.skip, weights.skip.as_ref().map(|skip| skip.to_vec()).unwrap_or_default(), output_scale / scale);
        normalise(&mut learner.parameters[at.decoder..at.latent_bias], shape.outputs);
        learner
    }

    /// With nothing but its size.
    pub fn blank(shape: Shape, sparsity: Sparsity) -> Self {
        let size = shape.size();
        Self {
            shape,
            sparsity,
            scales: [1.0; 2],
            parameters: vec![0.0; size],
            moments: Moments::new(size),
            idle: vec![0.0; shape.latents],
        }
    }

    /// Each latent reads what sets some token's input apart and writes what sets its output apart.
    fn begin_at_examples(&mut self, examples: Examples<'_>, input_mean: &[f64], mean: &[f64], dice: &mut Dice) {
        let (Shape { inputs, outputs, latents, .. }, at) = (self.shape, self.shape.places());
        let n = examples.inputs.len() / inputs;
        let apart = |numbers: &[f32], mean: &[f64], scale: f32, dice: &mut Dice| {
            let scaled = numbers.iter().zip(mean).map(|(x, mean)| (x - *mean as f32) * scale);
            let noisy = scaled.map(|x| x + NOISE * dice.normal()).collect();
            direction(noisy, dice)
        };
        for latent in 0..latents {
            let row = dice.below(n);
            let reads = apart(&examples.inputs[row * inputs..][..inputs], input_mean, self.scales[0], dice);
            let writes = apart(&examples.targets[row * outputs..][..outputs], mean, self.scales[1], dice);
            let input_mean: Vec<f32> = input_mean.iter().map(|mean| *mean as f32 * self.scales[0]).collect();
            self.parameters[at.latent_bias + latent] = -dot(&reads, &input_mean);
            self.parameters[latent * inputs..][..inputs].copy_from_slice(&reads);
            self.parameters[at.decoder + latent * outputs..][..outputs].copy_from_slice(&writes);
        }
    }
}

/// The mean of some rows, and what brings them to a mean square of 1 per number around it.
fn mean_and_scale(x: &[f32], width: usize) -> (Vec<f64>, f32) {
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
    (mean, if spread > 0.0 { (1.0 / spread.sqrt()) as f32 } else { 1.0 })
}
