//! Weights computed from a name, a seed and an index: the same bits in every program that follows the same few lines.

use std::thread;

use rand_xoshiro::SplitMix64;
use rand_xoshiro::rand_core::{RngCore, SeedableRng};

/// One tensor's name and distribution: uniform in `offset ± scale`.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorSpec {
    /// Seeds the values, together with the preset's seed.
    pub name: String,
    pub shape: Vec<usize>,
    pub scale: f64,
    pub offset: f64,
}

impl TensorSpec {
    pub fn new(name: impl Into<String>, shape: &[usize], scale: f64, offset: f64) -> Self {
        Self { name: name.into(), shape: shape.to_vec(), scale, offset }
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All elements, row-major.
    pub fn values(&self, seed: u64) -> Vec<f32> {
        let base = fnv1a64(self.name.as_bytes()) ^ seed;
        let mut out = vec![0.0f32; self.len()];
        in_chunks(&mut out, |start, part| {
            for (i, slot) in part.iter_mut().enumerate() {
                *slot = value(base, (start + i) as u64, self.scale, self.offset);
            }
        });
        out
    }
}

/// XOR over `i` of `bits32(values[i]) * (2 i + 1)`: one number that tells whether two programs made the same tensor.
pub fn checksum(values: &[f32]) -> u64 {
    let term = |(i, v): (usize, &f32)| u64::from(v.to_bits()).wrapping_mul(2 * i as u64 + 1);
    values.iter().enumerate().map(term).fold(0, |a, b| a ^ b)
}

fn fnv1a64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01B3))
}

/// Element `i`: number `i` of SplitMix64 from `base`, its top 53 bits as a fraction, and only then rounded to f32. The order of the
/// floating-point operations matters to the last bit.
fn value(base: u64, i: u64, scale: f64, offset: f64) -> f32 {
    /// What SplitMix64's state grows by for each number.
    const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
    let number = SplitMix64::seed_from_u64(base.wrapping_add(i.wrapping_mul(STEP))).next_u64();
    let unit = (number >> 11) as f64 / (1u64 << 53) as f64;
    ((2.0 * unit - 1.0) * scale + offset) as f32
}

/// Calls `fill(first index, part)` for disjoint parts of `out`, on all cores.
fn in_chunks(out: &mut [f32], fill: impl Fn(usize, &mut [f32]) + Sync) {
    const SMALL: usize = 1 << 16;
    let threads = thread::available_parallelism().map_or(1, |n| n.get());
    if out.len() <= SMALL || threads == 1 {
        return fill(0, out);
    }
    let size = out.len().div_ceil(threads);
    thread::scope(|scope| {
        for (i, part) in out.chunks_mut(size).enumerate() {
            let fill = &fill;
            scope.spawn(move || fill(i * size, part));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_tensor_is_the_same_as_its_elements_one_by_one() {
        let spec = TensorSpec::new("some.weight", &[700, 300], 0.25, -1.0);
        let base = fnv1a64(b"some.weight") ^ 7;
        let want: Vec<f32> = (0..210_000).map(|i| value(base, i, 0.25, -1.0)).collect();
        assert_eq!(spec.values(7), want);
        assert_ne!(spec.values(8), want);
        assert!(want.iter().all(|v| (-1.25..=-0.75).contains(v)));
    }
}
