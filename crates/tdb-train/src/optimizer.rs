//! AdamW, and the course of the learning rate of a model's training.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::gpt::Parameters;

/// How a model is trained with AdamW.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AdamW {
    /// Highest learning rate, reached after `warm_up` steps; then a cosine down to `floor` times it at the last step.
    pub peak: f32,
    pub warm_up: usize,
    pub floor: f32,
    pub beta_1: f32,
    pub beta_2: f32,
    pub decay: f32,
    /// Gradients longer than this are shortened to it.
    pub clip: f32,
}

impl Default for AdamW {
    fn default() -> Self {
        Self { peak: 2e-3, warm_up: 200, floor: 0.05, beta_1: 0.9, beta_2: 0.98, decay: 0.05, clip: 1.0 }
    }
}

/// Running means of the gradient and of its square, one of each per parameter.
#[derive(Clone, Debug)]
pub struct Moments {
    pub first: Vec<f32>,
    pub second: Vec<f32>,
}

/// One step of AdamW (Loshchilov and Hutter 2019).
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Steps before this one.
    pub before: usize,
    /// Learning rate.
    pub rate: f32,
    pub beta_1: f32,
    pub beta_2: f32,
    /// Parameters lose `rate * decay` of themselves.
    pub decay: f32,
    /// Factor of the gradients.
    pub factor: f32,
}

impl Moments {
    pub fn new(size: usize) -> Self {
        Self { first: vec![0.0; size], second: vec![0.0; size] }
    }

    /// Moves the parameters `at` against their gradients; `parameters` and `gradients` are all that there are.
    pub fn step(&mut self, at: Range<usize>, parameters: &mut [f32], gradients: &[f32], step: Step) {
        let Step { before, rate, beta_1, beta_2, decay, factor } = step;
        // From here on nothing is left to correct.
        let count = (before + 1).min(100_000) as i32;
        let (correct_1, correct_2) = (1.0 - beta_1.powi(count), 1.0 - beta_2.powi(count));
        let keep = 1.0 - rate * decay;
        let moments = self.first[at.clone()].iter_mut().zip(&mut self.second[at.clone()]);
        for ((p, g), (m, v)) in parameters[at.clone()].iter_mut().zip(&gradients[at]).zip(moments) {
            let g = g * factor;
            *m = beta_1 * *m + (1.0 - beta_1) * g;
            *v = beta_2 * *v + (1.0 - beta_2) * g * g;
            *p = *p * keep - rate * (*m / correct_1) / ((*v / correct_2).sqrt() + 1e-8);
        }
    }
}

impl AdamW {
    /// The highest learning rate where none is given: a tenth where training goes on from what is finished.
    pub fn usual_peak(goes_on: bool) -> f32 {
        let usual = Self::default().peak;
        if goes_on { usual / 10.0 } else { usual }
    }

    /// For going on from a finished model: its rate rises for a tenth of the steps where those are few.
    pub fn going_on(steps: usize) -> Self {
        let usual = Self::default();
        Self { peak: Self::usual_peak(true), warm_up: usual.warm_up.min(steps / 10), ..usual }
    }

    /// The learning rate of step `step` of `steps`, both counted from 0.
    pub fn rate(&self, step: usize, steps: usize) -> f32 {
        if step < self.warm_up {
            return self.peak * (step + 1) as f32 / self.warm_up as f32;
        }
        let done = (step - self.warm_up) as f32 / (steps.saturating_sub(self.warm_up)).max(1) as f32;
        let cosine = 0.5 + 0.5 * (std::f32::consts::PI * done.min(1.0)).cos();
        self.peak * (self.floor + (1.0 - self.floor) * cosine)
    }

    /// One step against `gradients`, which are shortened if need be.
    pub fn update(
        &self,
        parameters: &mut Parameters,
        moments: &mut Moments,
        gradients: &[f32],
        step: usize,
        steps: usize,
    ) {
        let norm = gradients.iter().map(|&g| f64::from(g) * f64::from(g)).sum::<f64>().sqrt() as f32;
        let step = Step {
            before: step,
            rate: self.rate(step, steps),
            beta_1: self.beta_1,
            beta_2: self.beta_2,
            decay: 0.0,
            factor: if norm > self.clip { self.clip / norm } else { 1.0 },
        };
        let (layout, numbers) = parameters.layout_and_numbers_mut();
        for tensor in &layout.tensors {
            let decay = if tensor.decays() { self.decay } else { 0.0 };
            moments.step(tensor.at.clone(), numbers, gradients, Step { decay, ..step });
        }
    }
}

#[cfg(test)]
mod tests {
    use tdb_model::Config;

    use super::*;
    use crate::gpt::Layout;

    #[test]
    fn the_rate_rises_and_falls() {
        let adam = AdamW { peak: 1.0, warm_up: 10, ..AdamW::default() };
        assert!((adam.rate(0, 100) - 0.1).abs() < 1e-6);
        assert!((adam.rate(9, 100) - 1.0).abs() < 1e-6);
        assert!(adam.rate(50, 100) < 0.65 && adam.rate(50, 100) > 0.5);
        assert!((adam.rate(100, 100) - 0.05).abs() < 1e-6);
    }

    #[test]
    fn the_first_step_is_one_rate_long_against_the_gradient() {
        let layout = Layout::new(Config::gpt2(1, 4, 2, 8, 8, 5)).unwrap();
        let adam = AdamW { warm_up: 0, decay: 0.0, clip: f32::INFINITY, ..AdamW::default() };
        let size = layout.size;
        let mut parameters = Parameters::new(layout, vec![0.5f32; size]);
        let gradients: Vec<f32> = (0..size).map(|i| if i % 2 == 0 { 3.0 } else { -0.2 }).collect();
        adam.update(&mut parameters, &mut Moments::new(size), &gradients, 0, 10);
        for (i, p) in parameters.numbers().iter().enumerate() {
            let expected = 0.5 + if i % 2 == 0 { -2e-3 } else { 2e-3 };
            assert!((p - expected).abs() < 1e-5, "{i}: {p}");
        }
    }
}
