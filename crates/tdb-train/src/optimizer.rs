//! AdamW and the learning rate's course.

use serde::{Deserialize, Serialize};

use crate::gpt::Layout;

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

/// Running means of the gradient and of its square.
#[derive(Clone, Debug)]
pub struct Moments {
    pub first: Vec<f32>,
    pub second: Vec<f32>,
}

impl Moments {
    pub fn new(size: usize) -> Self {
        Self { first: vec![0.0; size], second: vec![0.0; size] }
    }
}

impl AdamW {
    /// The learning rate of step `step` of `steps`, both counted from 0.
    pub fn rate(&self, step: usize, steps: usize) -> f32 {
        if step < self.warm_up {
            return self.peak * (step + 1) as f32 / self.warm_up as f32;
        }
        let done = (step - self.warm_up) as f32 / (steps.saturating_sub(self.warm_up)).max(1) as f32;
        let cosine = 0.5 + 0.5 * (std::f32::consts::PI * done.min(1.0)).cos();
        self.peak * (self.floor + (1.0 - self.floor) * cosine)
    }

    /// One step against `gradients`, which are shortened if need be. Returns their length before that.
    pub fn update(
        &self,
        layout: &Layout,
        parameters: &mut [f32],
        moments: &mut Moments,
        gradients: &[f32],
        step: usize,
        steps: usize,
    ) -> f32 {
        let norm = gradients.iter().map(|&g| f64::from(g) * f64::from(g)).sum::<f64>().sqrt() as f32;
        let shorten = if norm > self.clip { self.clip / norm } else { 1.0 };
        let rate = self.rate(step, steps);
        let count = (step + 1) as i32;
        let (correct_1, correct_2) = (1.0 - self.beta_1.powi(count), 1.0 - self.beta_2.powi(count));
        for tensor in &layout.tensors {
            let decay = if tensor.decays() { 1.0 - rate * self.decay } else { 1.0 };
            let at = tensor.at.clone();
            let (m, v) = (&mut moments.first[at.clone()], &mut moments.second[at.clone()]);
            for (((p, g), m), v) in parameters[at.clone()].iter_mut().zip(&gradients[at]).zip(m).zip(v) {
                let g = g * shorten;
                *m = self.beta_1 * *m + (1.0 - self.beta_1) * g;
                *v = self.beta_2 * *v + (1.0 - self.beta_2) * g * g;
                *p = *p * decay - rate * (*m / correct_1) / ((*v / correct_2).sqrt() + 1e-8);
            }
        }
        norm
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpt::Shape;

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
        let shape = Shape { n_layers: 1, d_model: 4, n_heads: 2, d_ff: 8, context: 8, vocabulary: 5 };
        let layout = Layout::new(shape);
        let adam = AdamW { warm_up: 0, decay: 0.0, clip: f32::INFINITY, ..AdamW::default() };
        let mut parameters = vec![0.5f32; layout.size];
        let gradients: Vec<f32> = (0..layout.size).map(|i| if i % 2 == 0 { 3.0 } else { -0.2 }).collect();
        adam.update(&layout, &mut parameters, &mut Moments::new(layout.size), &gradients, 0, 10);
        for (i, p) in parameters.iter().enumerate() {
            let expected = 0.5 + if i % 2 == 0 { -2e-3 } else { 2e-3 };
            assert!((p - expected).abs() < 1e-5, "{i}: {p}");
        }
    }
}
