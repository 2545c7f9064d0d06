//! The tokens with the largest and the smallest scores, selected without sorting the others.

use std::cmp::Ordering;

use tdb_model::numbers::{max, min, wide};

/// A token and its score.
pub type Scored = (u32, f32);

/// The best of the scores that were offered.
#[derive(Clone, Debug)]
struct Best {
    count: usize,
    is_largest: bool,
    /// At most twice as many as are wanted, in any order.
    entries: Vec<Scored>,
    /// What is not better than this is not among the best.
    threshold: f32,
}

/// The largest and the smallest scores of those that were offered.
#[derive(Clone, Debug)]
pub struct Extremes {
    largest: Best,
    smallest: Best,
}

impl Best {
    fn new(count: usize, is_largest: bool) -> Self {
        let threshold = if is_largest { f32::NEG_INFINITY } else { f32::INFINITY };
        Best { count, is_largest, entries: Vec::new(), threshold }
    }

    /// Best first; of equal scores that of the smaller token.
    fn order(&self) -> impl Fn(&Scored, &Scored) -> Ordering + use<> {
        let is_largest = self.is_largest;
        move |a, b| {
            let by_score = if is_largest { b.1.total_cmp(&a.1) } else { a.1.total_cmp(&b.1) };
            by_score.then(a.0.cmp(&b.0))
        }
    }

    fn offer(&mut self, entry: Scored) {
        let is_worse = if self.is_largest { entry.1 < self.threshold } else { entry.1 > self.threshold };
        if is_worse || self.count == 0 {
            return;
        }
        self.entries.push(entry);
        if self.entries.len() >= 2 * self.count {
            self.shrink();
        }
    }

    fn shrink(&mut self) {
        if self.count == 0 || self.entries.len() < self.count {
            return;
        }
        let order = self.order();
        let (_, worst, _) = self.entries.select_nth_unstable_by(self.count - 1, order);
        self.threshold = worst.1;
        self.entries.truncate(self.count);
    }

    fn sorted(mut self) -> Vec<Scored> {
        self.shrink();
        let order = self.order();
        self.entries.sort_unstable_by(order);
        self.entries
    }
}

impl Extremes {
    /// So many at either end.
    pub fn new(count: usize) -> Self {
        Extremes { largest: Best::new(count, true), smallest: Best::new(count, false) }
    }

    /// Offers the scores of tokens from `first` on, without those that `skip` marks.
    pub fn offer(&mut self, scores: &[f32], first: usize, skip: Option<&[bool]>) {
        const BLOCK: usize = 64;
        for (block, scores) in scores.chunks(BLOCK).enumerate() {
            // Most blocks hold nothing that is better than what is listed, which can be seen of all numbers at once.
            let [largest, smallest] = wide(|| [max(scores), min(scores)]);
            if largest < self.largest.threshold && smallest > self.smallest.threshold {
                continue;
            }
            for (i, &score) in scores.iter().enumerate() {
                let token = first + block * BLOCK + i;
                if !skip.is_some_and(|skip| skip.get(token).copied().unwrap_or(false)) {
                    self.largest.offer((token as u32, score));
                    self.smallest.offer((token as u32, score));
                }
            }
        }
    }

    /// The extremes of both.
    pub fn merged(mut self, other: Extremes) -> Self {
        other.largest.entries.into_iter().for_each(|entry| self.largest.offer(entry));
        other.smallest.entries.into_iter().for_each(|entry| self.smallest.offer(entry));
        self
    }

    /// Those with the largest scores, largest first, and those with the smallest, smallest first.
    pub fn sorted(self) -> [Vec<Scored>; 2] {
        [self.largest.sorted(), self.smallest.sorted()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_selected_is_what_sorting_finds() {
        let mut state = 7u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Few different scores, so that many are equal.
            (state >> 24) as f32 / 16.0 - 8.0
        };
        for (len, count) in [(0, 3), (5, 0), (5, 10), (200, 10), (3000, 1), (3000, 32)] {
            let scores: Vec<f32> = (0..len).map(|_| random()).collect();
            let skip: Vec<bool> = (0..len).map(|_| random() > 6.0).collect();
            let mut parts = Extremes::new(count);
            for (i, part) in scores.chunks(700).enumerate() {
                let mut own = Extremes::new(count);
                own.offer(part, 700 * i, Some(&skip));
                parts = own.merged(parts);
            }
            let mut all: Vec<Scored> = scores.iter().enumerate().map(|(i, x)| (i as u32, *x)).collect();
            all.retain(|(i, _)| !skip[*i as usize]);
            all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            let largest = all[..count.min(all.len())].to_vec();
            all.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
            let smallest = all[..count.min(all.len())].to_vec();
            assert_eq!(parts.sorted(), [largest, smallest]);
        }
    }
}
