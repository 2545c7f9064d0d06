//! A small random number generator whose numbers never change: the text, the first weights and the order of training
//! are functions of a seed, on every machine and in every later version.

use rand_xoshiro::SplitMix64;
use rand_xoshiro::rand_core::{RngCore, SeedableRng};

/// SplitMix64, seeded by any number of parts.
#[derive(Clone, Debug)]
pub struct Dice(SplitMix64);

impl Dice {
    /// Dice for one purpose: `parts` are for example the seed, what is drawn, and the step. Different parts give
    /// unrelated numbers.
    pub fn new(parts: &[u64]) -> Self {
        let state = parts.iter().fold(0x7DB0_7DB0_7DB0_7DB0, |state, &part| mix(state ^ mix(part)));
        Self(SplitMix64::seed_from_u64(state))
    }

    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform in `0..n`.
    ///
    /// # Panics
    /// If `n` is 0: nothing can be drawn from nothing.
    pub fn below(&mut self, n: usize) -> usize {
        assert!(n > 0, "drawing from an empty range");
        ((u128::from(self.next_u64()) * n as u128) >> 64) as usize
    }

    /// Uniform in `low..=high`.
    pub fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    /// Uniform in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Normal with mean 0 and deviation 1.
    pub fn normal(&mut self) -> f32 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        (radius * (std::f64::consts::TAU * self.unit()).cos()) as f32
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// Two different members.
    pub fn pick_two<T: Copy>(&mut self, of: &[T]) -> (T, T) {
        let first = self.below(of.len());
        let second = (first + 1 + self.below(of.len() - 1)) % of.len();
        (of[first], of[second])
    }

    /// An index, with probability proportional to its weight.
    pub fn weighted(&mut self, weights: &[f64]) -> usize {
        let mut left = self.unit() * weights.iter().sum::<f64>();
        for (index, weight) in weights.iter().enumerate() {
            left -= weight;
            if left < 0.0 {
                return index;
            }
        }
        weights.len() - 1
    }
}

/// A fixed hash of some words, for decisions that must be the same in every run.
pub fn hash(words: &[&str]) -> u64 {
    let mut state = 0xCBF2_9CE4_8422_2325u64;
    for word in words {
        for byte in word.bytes().chain([0xFF]) {
            state = (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
    }
    mix(state)
}

/// SplitMix64's finaliser: every bit of the input moves every bit of the output.
pub(crate) fn mix(z: u64) -> u64 {
    /// What the generator adds to its state before it finishes it.
    const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
    SplitMix64::seed_from_u64(z.wrapping_sub(STEP)).next_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_fixed() {
        let mut dice = Dice::new(&[1, 2]);
        let first: Vec<usize> = (0..5).map(|_| dice.below(100)).collect();
        let mut again = Dice::new(&[1, 2]);
        assert_eq!(first, (0..5).map(|_| again.below(100)).collect::<Vec<_>>());
        assert_ne!(first, (0..5).map(|_| Dice::new(&[2, 1]).below(100)).collect::<Vec<_>>());
    }

    #[test]
    fn draws_cover_their_range() {
        let mut dice = Dice::new(&[7]);
        let mut seen = [0usize; 6];
        for _ in 0..6000 {
            seen[dice.below(6)] += 1;
        }
        assert!(seen.iter().all(|&n| (850..1150).contains(&n)), "{seen:?}");
        let (mut sum, mut squares) = (0.0f64, 0.0f64);
        for _ in 0..20_000 {
            let x = f64::from(dice.normal());
            sum += x;
            squares += x * x;
        }
        assert!((sum / 20_000.0).abs() < 0.03 && (squares / 20_000.0 - 1.0).abs() < 0.05);
        for _ in 0..100 {
            let (a, b) = dice.pick_two(&[1, 2, 3]);
            assert_ne!(a, b);
        }
    }
}
