//! Which of a node's examples are shown to write an explanation, and which are held out to score it.

use rand_xoshiro::SplitMix64;
use rand_xoshiro::rand_core::{RngCore, SeedableRng};
use tdb_data::{ActivationRecord, NodeRecord, attention};

/// Activations are shown to language models as whole numbers from 0 to this.
pub(crate) const LEVELS: u32 = 10;

/// Examples in a split, of the best and of the random ones each.
const PER_SPLIT: usize = 5;

/// Longest excerpt that is shown, in tokens.
const WINDOW: usize = 64;

/// The examples of a node, dealt out in turns so that each split has strong and weaker ones.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Splits<'a> {
    /// For writing the explanation: top examples alone.
    pub train: Vec<&'a ActivationRecord>,
    /// For the line between simulated and true activations.
    pub calibration: Vec<&'a ActivationRecord>,
    /// For the score: as many top as random examples.
    pub valid: Vec<&'a ActivationRecord>,
}

impl<'a> Splits<'a> {
    pub fn of(record: &'a NodeRecord) -> Self {
        let some = |list: &'a [ActivationRecord]| list.iter().filter(|r| !r.activations.is_empty()).collect::<Vec<_>>();
        let (top, random) = (some(&record.most_positive), some(&record.random_sample));
        let deal = |list: &[&'a ActivationRecord], hands: usize, hand: usize| -> Vec<&'a ActivationRecord> {
            list.iter().copied().skip(hand).step_by(hands).take(PER_SPLIT).collect()
        };
        // The fourth hand of the top and the third of the random examples stay for tests of other methods.
        let mut splits = if top.len() >= 4 {
            Self { train: deal(&top, 4, 0), calibration: deal(&top, 4, 1), valid: deal(&top, 4, 2) }
        } else {
            Self {
                train: deal(&top, 2, 0),
                calibration: vec![],
                valid: deal(&top, 2, 1.min(top.len().saturating_sub(1))),
            }
        };
        if random.len() >= 3 {
            splits.calibration.extend(deal(&random, 3, 0));
            splits.valid.extend(deal(&random, 3, 1));
        } else {
            splits.valid.extend(deal(&random, 1, 0));
        }
        splits
    }
}

/// Activations on the scale that language models see: 0 for everything that is not positive.
pub(crate) fn levels(activations: &[f32], max: f32) -> Vec<u32> {
    let level =
        |a: f32| if max > 0.0 && a > 0.0 { (LEVELS as f32 * a / max).floor().min(LEVELS as f32) as u32 } else { 0 };
    activations.iter().map(|a| level(*a)).collect()
}

/// The part of an example around its strongest token that is shown: the whole, if it is not too long.
pub(crate) fn excerpt(record: &ActivationRecord) -> (usize, usize) {
    window(record.tokens.len(), peak(&record.activations))
}

/// A stretch of at most [`WINDOW`] tokens with `at` at three quarters of it.
pub(crate) fn window(tokens: usize, at: usize) -> (usize, usize) {
    let begin = at.saturating_sub(3 * WINDOW / 4).min(tokens.saturating_sub(WINDOW));
    (begin, tokens.min(begin + WINDOW))
}

fn peak(values: &[f32]) -> usize {
    (0..values.len()).max_by(|a, b| values[*a].total_cmp(&values[*b]).then(b.cmp(a))).unwrap_or(0)
}

/// A token pair of an example.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Pair<'a> {
    pub tokens: &'a [String],
    /// The token that attends.
    pub from: usize,
    /// The token, at or before it, that is attended to.
    pub to: usize,
    pub value: f32,
}

/// All pairs of the examples, strongest first. Examples that hold no pairs are left out.
pub(crate) fn pairs<'a>(examples: &[&'a ActivationRecord]) -> Vec<Pair<'a>> {
    let mut all = Vec::new();
    for example in examples {
        if let Some(window) = attention::window(example.tokens.len(), example.activations.len()) {
            all.extend(example.activations.iter().enumerate().map(|(flat, &value)| {
                let (from, to) = attention::pair(flat, window);
                Pair { tokens: &example.tokens, from, to, value }
            }));
        }
    }
    all.sort_by(|a, b| b.value.total_cmp(&a.value));
    all
}

/// Numbers that depend on a node and nothing else, to draw examples and put them in an order.
#[derive(Debug, Clone)]
pub(crate) struct Draw(SplitMix64);

impl Draw {
    pub fn new(layer: usize, index: usize) -> Self {
        Self(SplitMix64::seed_from_u64((layer as u64) << 32 ^ index as u64 ^ 0x5eed_0f7d_b000_0001))
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.0.next_u64() % n.max(1) as u64) as usize
    }

    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for i in (1..list.len()).rev() {
            list.swap(i, self.below(i + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tdb_data::Moments;

    fn record(top: usize, random: usize) -> NodeRecord {
        let make = |n: usize, base: usize| {
            let one = |i| ActivationRecord { activations: vec![(base + i) as f32], tokens: vec!["x".into()] };
            (0..n).map(one).collect::<Vec<_>>()
        };
        NodeRecord {
            layer: 0,
            index: 0,
            random_sample: make(random, 1000),
            random_sample_by_quantile: None,
            quantile_boundaries: None,
            moments: Moments::default(),
            most_positive: make(top, 0),
        }
    }

    #[test]
    fn no_example_is_shown_and_scored() {
        for (top, random) in [(20, 20), (8, 6), (4, 3), (3, 2), (2, 0), (100, 100)] {
            let record = record(top, random);
            let s = Splits::of(&record);
            assert!(!s.train.is_empty() && !s.valid.is_empty(), "{top} {random}");
            assert!(s.train.iter().all(|t| !s.valid.contains(t) && !s.calibration.contains(t)), "{top} {random}");
            assert!(s.calibration.iter().all(|t| !s.valid.contains(t)), "{top} {random}");
            assert!(s.train.len() <= 5 && s.valid.len() <= 10);
        }
        assert_eq!(Splits::of(&record(1, 0)).valid.len(), 1, "a single example is better scored than not");
    }

    #[test]
    fn levels_are_whole_numbers_up_to_ten() {
        assert_eq!(levels(&[-1.0, 0.0, 0.49, 0.5, 4.99, 5.0, 7.0], 5.0), [0, 0, 0, 1, 9, 10, 10]);
        assert_eq!(levels(&[-1.0, -2.0], -1.0), [0, 0]);
    }

    #[test]
    fn windows_hold_the_peak() {
        for (n, at) in [(10, 3), (1000, 0), (1000, 999), (1000, 500), (64, 63), (65, 64)] {
            let (begin, end) = window(n, at);
            assert!(begin <= at && at < end && end <= n && end - begin == n.min(64));
        }
    }
}
