//! The tokens with the largest and the smallest scores, selected without sorting the others.

use tdb_model::numbers::{max, min, wide};

/// A token and its score.
pub type Scored = (u32, f32);

const SIGN: u32 = 1 << 31;

/// The best of the scores that were offered.
#[derive(Clone, Debug)]
struct Best {
    count: usize,
    is_largest: bool,
    /// Keys of at most twice as many entries as are wanted, in any order; that of a better entry is smaller.
    keys: Vec<u64>,
    /// What is not better than this is not among the best.
    threshold: f32,
    /// What has a larger key is not among the best.
    worst: u64,
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
        Best { count, is_largest, keys: Vec::new(), threshold, worst: u64::MAX }
    }

    /// Orders entries by their scores as [`f32::total_cmp`] does, best first; those of equal scores by their tokens.
    fn key(&self, (token, score): Scored) -> u64 {
        let bits = score.to_bits();
        let ascending = if bits >> 31 == 0 { bits ^ SIGN } else { !bits };
        let rank = if self.is_largest { !ascending } else { ascending };
        (u64::from(rank) << 32) | u64::from(token)
    }

    fn entry(&self, key: u64) -> Scored {
        let rank = (key >> 32) as u32;
        let ascending = if self.is_largest { !rank } else { rank };
        let bits = if ascending >> 31 == 0 { !ascending } else { ascending ^ SIGN };
        (key as u32, f32::from_bits(bits))
    }

    fn offer(&mut self, entry: Scored) {
        let key = self.key(entry);
        if key > self.worst || self.count == 0 {
            return;
        }
        self.keys.push(key);
        if self.keys.len() >= 2 * self.count {
            self.shrink();
        }
    }

    fn shrink(&mut self) {
        if self.count == 0 || self.keys.len() < self.count {
            return;
        }
        let (_, worst, _) = self.keys.select_nth_unstable(self.count - 1);
        self.worst = *worst;
        self.threshold = self.entry(self.worst).1;
        self.keys.truncate(self.count);
    }

    fn entries(&self) -> impl Iterator<Item = Scored> {
        self.keys.iter().map(|key| self.entry(*key))
    }

    fn sorted(mut self) -> Vec<Scored> {
        self.shrink();
        self.keys.sort_unstable();
        self.entries().collect()
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
        other.largest.entries().for_each(|entry| self.largest.offer(entry));
        other.smallest.entries().for_each(|entry| self.smallest.offer(entry));
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
    fn keys_are_ordered_as_scores_and_give_them_back() {
        let scores =
            [f32::NEG_INFINITY, -3.5, -f32::MIN_POSITIVE, -0.0, 0.0, 1e-40, 2.0, f32::MAX, f32::INFINITY, f32::NAN];
        for is_largest in [false, true] {
            let best = Best::new(1, is_largest);
            for pair in scores.windows(2) {
                let keys = [best.key((9, pair[0])), best.key((3, pair[1]))];
                assert_eq!(keys[0] > keys[1], is_largest, "{pair:?}");
            }
            assert!(best.key((3, 1.0)) < best.key((4, 1.0)));
            for score in scores {
                let (token, found) = best.entry(best.key((50_256, score)));
                assert_eq!((token, found.to_bits()), (50_256, score.to_bits()));
            }
        }
    }

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
