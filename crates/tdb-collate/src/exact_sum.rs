//! Sums of floating-point numbers that do not depend on the order of the additions.

/// Width of a bin in bits.
const BIN: i32 = 32;

/// The exact sum of any `f64`s: integers, one for each range of exponents that occurred.
///
/// A number is `m · 2^e` with a 53-bit integer `m`. It is added as `m · 2^(e mod 32)`, below 2^85, to the bin
/// `e div 32`, a 128-bit integer: up to 2^42 additions are exact. Adding integers commutes, so two sums of the same numbers
/// are equal however they were grouped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExactSum {
    /// By ascending bin. A bin stays once it was used, also at 0.
    bins: Vec<(i16, i128)>,
}

impl ExactSum {
    /// Adds a finite number.
    pub fn add(&mut self, x: f64) {
        debug_assert!(x.is_finite());
        if x == 0.0 {
            return;
        }
        let bits = x.to_bits();
        let biased = ((bits >> 52) & 0x7ff) as i32;
        let fraction = bits & ((1 << 52) - 1);
        let (mantissa, exponent) = match biased {
            0 => (fraction, -1074),
            _ => (fraction | 1 << 52, biased - 1075),
        };
        let shifted = i128::from(mantissa) << exponent.rem_euclid(BIN);
        self.add_to_bin(exponent.div_euclid(BIN) as i16, if x < 0.0 { -shifted } else { shifted });
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: &Self) {
        for &(bin, value) in &other.bins {
            self.add_to_bin(bin, value);
        }
    }

    fn add_to_bin(&mut self, bin: i16, value: i128) {
        match self.bins.binary_search_by_key(&bin, |b| b.0) {
            Ok(at) => self.bins[at].1 += value,
            Err(at) => self.bins.insert(at, (bin, value)),
        }
    }

    /// The sum as a number, correct to a few units in the last place of its largest bin.
    pub fn value(&self) -> f64 {
        self.bins.iter().rev().map(|&(bin, value)| scaled(value as f64, i32::from(bin) * BIN)).sum()
    }

    /// The bins, ascending.
    pub fn bins(&self) -> &[(i16, i128)] {
        &self.bins
    }

    /// From what [`ExactSum::bins`] gave; `None` if they are not ascending or out of range.
    pub fn from_bins(bins: Vec<(i16, i128)>) -> Option<Self> {
        let ascending = bins.windows(2).all(|w| w[0].0 < w[1].0);
        let in_range = bins.iter().all(|b| (-34..=30).contains(&b.0));
        (ascending && in_range).then_some(Self { bins })
    }
}

/// `x · 2^exponent`, in steps that are numbers themselves.
fn scaled(x: f64, exponent: i32) -> f64 {
    let step = exponent.clamp(-1022, 1023);
    let x = x * f64::from_bits(((step + 1023) as u64) << 52);
    if step == exponent { x } else { scaled(x, exponent - step) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers() -> Vec<f64> {
        let mut state = 7u64;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            state >> 11
        };
        (0..2000)
            .map(|_| {
                let exponent = (next() % 160) as i32 - 90;
                let sign = if next().is_multiple_of(2) { 1.0 } else { -1.0 };
                sign * (next() as f64) * 2f64.powi(exponent)
            })
            .collect()
    }

    #[test]
    fn any_order_and_grouping_gives_the_same_sum() {
        let numbers = numbers();
        let sum = |it: &mut dyn Iterator<Item = &f64>| {
            let mut s = ExactSum::default();
            it.for_each(|x| s.add(*x));
            s
        };
        let whole = sum(&mut numbers.iter());
        assert_eq!(sum(&mut numbers.iter().rev()), whole);
        let mut parts = sum(&mut numbers.iter().skip(700));
        parts.merge(&sum(&mut numbers.iter().take(700)));
        assert_eq!(parts, whole);
        let plain: f64 = numbers.iter().sum();
        assert!((whole.value() - plain).abs() <= 1e-9 * plain.abs(), "{} {plain}", whole.value());
    }

    #[test]
    fn what_is_lost_in_floating_point_is_kept() {
        let mut s = ExactSum::default();
        for x in [1e100, 3.0, -1e100, 1e-300, 5e-324, -1e-300] {
            s.add(x);
        }
        assert_eq!(s.value(), 3.0);
        s.add(-3.0);
        assert_eq!(s.value(), 5e-324);
        assert_eq!(ExactSum::from_bins(s.bins().to_vec()), Some(s));
        assert_eq!(ExactSum::from_bins(vec![(3, 1), (3, 1)]), None);
    }
}
