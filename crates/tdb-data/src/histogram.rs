//! How often which values occurred, in bins that are made wider as the range of the values grows.

/// Counts of values in bins of equal width, a power of two; bin `i` holds the values in `[i · width, (i + 1) · width)`.
///
/// The width is the smallest for which all values lie in [`Histogram::MAX_BINS`] adjacent bins, so that the histogram
/// of some values is the same in whatever order they were added or histograms of parts of them merged. 0 is not
/// counted: of most latents nearly every value is 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    /// The width is two to this.
    exponent: i8,
    /// Number of the first bin.
    first: i32,
    /// From the first bin to the last one with a value; empty if there was none.
    counts: Vec<u64>,
}

/// The width of the first value's bin.
const NARROWEST: i8 = -30;

impl Histogram {
    /// Bins of a histogram at most.
    pub const MAX_BINS: usize = 40;

    /// From what the functions below say; `None` if no values give it.
    pub fn from_parts(exponent: i8, first: i32, counts: Vec<u64>) -> Option<Self> {
        let (Some(low), Some(high)) = (counts.first(), counts.last()) else {
            return ((exponent, first) == (0, 0)).then(Self::default);
        };
        let fits = counts.len() <= Self::MAX_BINS && first.checked_add(counts.len() as i32).is_some();
        (fits && exponent >= NARROWEST && *low > 0 && *high > 0).then_some(Self { exponent, first, counts })
    }

    /// Binary logarithm of the width of a bin.
    pub fn exponent(&self) -> i8 {
        self.exponent
    }

    /// The number of the first bin.
    pub fn first(&self) -> i32 {
        self.first
    }

    /// How many values are in each bin.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// The width of a bin.
    pub fn width(&self) -> f64 {
        power_of_two(self.exponent)
    }

    /// Where the first bin begins and the last one ends.
    pub fn range(&self) -> (f64, f64) {
        let end = f64::from(self.first) + self.counts.len() as f64;
        (f64::from(self.first) * self.width(), end * self.width())
    }

    /// Adds a finite value; 0 is left out.
    pub fn add(&mut self, value: f32) {
        if value == 0.0 {
            return;
        }
        if self.counts.is_empty() {
            self.exponent = NARROWEST;
        }
        let value = f64::from(value);
        let mut bin = (value * power_of_two(-self.exponent)).floor();
        while !self.has_room(bin, bin) {
            self.widen();
            bin = (value * power_of_two(-self.exponent)).floor();
        }
        self.add_to_bin(bin as i32, 1);
    }

    /// Adds another histogram.
    pub fn merge(&mut self, other: &Self) {
        if self.counts.is_empty() {
            self.clone_from(other);
            return;
        }
        if other.counts.is_empty() {
            return;
        }
        let mut other = other.clone();
        loop {
            let last = f64::from(other.first) + other.counts.len() as f64 - 1.0;
            if self.exponent < other.exponent {
                self.widen();
            } else if other.exponent < self.exponent {
                other.widen();
            } else if self.has_room(f64::from(other.first), last) {
                break;
            } else {
                self.widen();
            }
        }
        for (bin, count) in (other.first..).zip(other.counts) {
            if count > 0 {
                self.add_to_bin(bin, count);
            }
        }
    }

    /// Whether the bins `from` to `to` can stand beside those that there are.
    fn has_room(&self, from: f64, to: f64) -> bool {
        let first = f64::from(self.first);
        let (low, high) = match self.counts.len() {
            0 => (from, to),
            n => (from.min(first), to.max(first + n as f64 - 1.0)),
        };
        high - low < Self::MAX_BINS as f64 && low >= f64::from(i32::MIN) && high < f64::from(i32::MAX)
    }

    fn add_to_bin(&mut self, bin: i32, count: u64) {
        if self.counts.is_empty() {
            self.first = bin;
        }
        if bin < self.first {
            let before = (self.first - bin) as usize;
            self.counts.splice(0..0, std::iter::repeat_n(0, before));
            self.first = bin;
        }
        let at = (bin - self.first) as usize;
        if at >= self.counts.len() {
            self.counts.resize(at + 1, 0);
        }
        self.counts[at] += count;
    }

    /// Makes bins twice as wide.
    fn widen(&mut self) {
        let (first, counts) = (self.first, std::mem::take(&mut self.counts));
        self.exponent += 1;
        for (bin, count) in (first..).zip(counts) {
            self.add_to_bin(bin.div_euclid(2), count);
        }
    }
}

/// Two to this, which is a number for every `i8`.
fn power_of_two(exponent: i8) -> f64 {
    f64::from_bits(((i64::from(exponent) + 1023) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of all sizes, with a far one at `far`.
    fn values(n: usize, far: usize) -> Vec<f32> {
        let mut state = 5u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.3
        };
        (0..n).map(|i| if i == far { 1000.0 } else { next().powi(3) }).collect()
    }

    fn of(values: &[f32]) -> Histogram {
        let mut out = Histogram::default();
        values.iter().for_each(|x| out.add(*x));
        out
    }

    #[test]
    fn every_value_is_counted_in_its_bin_and_bins_are_as_narrow_as_they_can_be() {
        for values in [values(500, 600), values(500, 250), vec![3.0], vec![-1e30, 1e-30], vec![f32::MAX, f32::MIN]] {
            let found = of(&values);
            assert_eq!(found.counts().iter().sum::<u64>(), values.len() as u64);
            for (i, count) in found.counts().iter().enumerate() {
                let low = found.range().0 + i as f64 * found.width();
                let within = |x: &&f32| (low..low + found.width()).contains(&f64::from(**x));
                assert_eq!(*count, values.iter().filter(within).count() as u64, "bin {i} of {found:?}");
            }
            let half = found.width() / 2.0;
            let bins = |x: f32| (f64::from(x) / half).floor();
            let (low, high) = values.iter().fold((f32::MAX, f32::MIN), |(l, h), x| (l.min(*x), h.max(*x)));
            let largest = bins(high).abs().max(bins(low).abs());
            assert!(
                bins(high) - bins(low) >= Histogram::MAX_BINS as f64
                    || largest >= f64::from(i32::MAX)
                    || found.exponent() == NARROWEST,
                "{found:?}"
            );
        }
    }

    #[test]
    fn order_and_grouping_change_nothing_and_zeros_are_left_out() {
        let all = values(300, 150);
        let whole = of(&all);
        let (left, right) = all.split_at(100);
        for (a, b) in [(left, right), (right, left), (&all[..], &[][..]), (&[], &all)] {
            let mut merged = of(a);
            merged.merge(&of(b));
            assert_eq!(merged, whole);
        }
        let mut backwards = all;
        backwards.extend([0.0, -0.0]);
        backwards.reverse();
        assert_eq!(of(&backwards), whole);
    }

    #[test]
    fn parts_are_read_back_and_impossible_ones_refused() {
        let whole = of(&values(50, 7));
        let again = |h: &Histogram| Histogram::from_parts(h.exponent(), h.first(), h.counts().to_vec());
        assert_eq!(again(&whole), Some(whole));
        assert_eq!(again(&Histogram::default()), Some(Histogram::default()));
        for (exponent, first, counts) in [
            (-31, 0, vec![1]),
            (1, 0, vec![]),
            (0, i32::MAX, vec![1]),
            (0, 0, vec![0, 1]),
            (0, 0, vec![1, 0]),
            (0, 0, vec![1; Histogram::MAX_BINS + 1]),
        ] {
            assert_eq!(Histogram::from_parts(exponent, first, counts), None);
        }
    }
}
