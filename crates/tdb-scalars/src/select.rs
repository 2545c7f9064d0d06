//! The tokens with the largest and the smallest scores, selected without sorting the others.

use tdb_model::numbers::{Wanted, max, min, wide};

/// A token and its score.
pub type Scored = (u32, f32);

/// Whether a token is one of those that `skip` marks.
pub fn is_left_out(skip: Option<&[bool]>, token: usize) -> bool {
    skip.is_some_and(|skip| skip.get(token).copied().unwrap_or(false))
}

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
                if !is_left_out(skip, token) {
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

/// Of several lists of scores that are known by bounds, the tokens that may have the largest or the smallest scores.
#[derive(Debug)]
pub struct Open<'a> {
    lists: Vec<List>,
    /// Of each list: what has a smaller upper bound is not among the largest.
    least: Vec<f32>,
    /// Of each list: what has a larger lower bound is not among the smallest.
    most: Vec<f32>,
    /// The token of the first row.
    first: usize,
    /// Tokens that are left out.
    skip: Option<&'a [bool]>,
}

#[derive(Clone, Debug)]
struct List {
    /// Of the lower bounds the largest, of the upper ones the smallest: so many scores are at least as large, or as small.
    certain: Extremes,
    /// Tokens that may be among those with the largest scores, with their upper bounds.
    largest: Vec<Scored>,
    /// Tokens that may be among those with the smallest scores, with their lower bounds.
    smallest: Vec<Scored>,
}

impl<'a> Open<'a> {
    /// For so many lists, so many tokens at either end, without those that `skip` marks. `width`: how many limits there have
    /// to be ([`Screen::width`](tdb_model::numbers::Screen::width)).
    pub fn new(lists: usize, width: usize, count: usize, skip: Option<&'a [bool]>) -> Self {
        let list = List { certain: Extremes::new(count), largest: Vec::new(), smallest: Vec::new() };
        let (mut least, mut most) = (vec![f32::NEG_INFINITY; lists], vec![f32::INFINITY; lists]);
        // Places without a list exclude everything.
        least.resize(width, f32::INFINITY);
        most.resize(width, f32::NEG_INFINITY);
        Open { lists: vec![list; lists], least, most, first: 0, skip }
    }

    /// Rows that are offered next are those of tokens from `first` on.
    pub fn from(&mut self, first: usize) -> &mut Self {
        self.first = first;
        self
    }

    /// What may be among the first of both.
    pub fn merged(mut self, other: Self) -> Self {
        let merge = |(mut list, other): (List, List)| {
            list.largest.extend(other.largest);
            list.smallest.extend(other.smallest);
            List { certain: list.certain.merged(other.certain), ..list }
        };
        self.lists = self.lists.into_iter().zip(other.lists).map(merge).collect();
        self
    }

    /// Of each list the tokens that may be among the largest, and those that may be among the smallest.
    pub fn tokens(self) -> Vec<[Vec<u32>; 2]> {
        let tokens = |List { mut certain, largest, smallest }: List| {
            certain.largest.shrink();
            certain.smallest.shrink();
            let (least, most) = (certain.largest.threshold, certain.smallest.threshold);
            [
                largest.into_iter().filter(|(_, upper)| !least.gt(upper)).map(|entry| entry.0).collect(),
                smallest.into_iter().filter(|(_, lower)| !most.lt(lower)).map(|entry| entry.0).collect(),
            ]
        };
        self.lists.into_iter().map(tokens).collect()
    }
}

impl Wanted for Open<'_> {
    fn limits(&mut self, _: usize) -> [&[f32]; 2] {
        [&self.least, &self.most]
    }

    fn offer(&mut self, row: usize, list: usize, [lower, upper]: [f32; 2]) {
        let token = self.first + row;
        if list >= self.lists.len() || is_left_out(self.skip, token) {
            return;
        }
        let List { certain, largest, smallest } = &mut self.lists[list];
        if !self.least[list].gt(&upper) {
            largest.push((token as u32, upper));
            if !lower.is_nan() {
                certain.largest.offer((token as u32, lower));
                self.least[list] = certain.largest.threshold;
            }
        }
        if !self.most[list].lt(&lower) {
            smallest.push((token as u32, lower));
            if !upper.is_nan() {
                certain.smallest.offer((token as u32, upper));
                self.most[list] = certain.smallest.threshold;
            }
        }
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
    fn what_is_open_holds_the_extremes() {
        let mut state = 11u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        const LISTS: usize = 21;
        for (len, count) in [(0, 3), (2, 5), (300, 1), (5000, 7)] {
            let scores: Vec<Vec<f32>> = (0..len).map(|_| (0..LISTS).map(|_| random().powi(3)).collect()).collect();
            let mut parts = Open::new(LISTS, LISTS, count, None);
            for (first, part) in (0..).step_by(900).zip(scores.chunks(900)) {
                let mut own = Open::new(LISTS, LISTS, count, None);
                for (token, scores) in (first..).zip(part) {
                    let (below, above) = (random().abs() / 50.0, random().abs() / 50.0);
                    let bound = |by: f32| -> Vec<f32> {
                        let unknown = if token % 100 == 99 { f32::NAN } else { by };
                        scores.iter().map(|score| score + unknown).collect()
                    };
                    let bounds: Vec<(f32, f32)> = bound(-below).into_iter().zip(bound(above)).collect();
                    for (list, (lower, upper)) in bounds.into_iter().enumerate() {
                        own.from(token as usize).offer(0, list, [lower, upper]);
                    }
                }
                parts = own.merged(parts);
            }
            for (list, [largest, smallest]) in parts.tokens().into_iter().enumerate() {
                let mut all = Extremes::new(count);
                all.offer(&scores.iter().map(|scores| scores[list]).collect::<Vec<_>>(), 0, None);
                let [top, bottom] = all.sorted();
                assert!(top.iter().all(|(token, _)| largest.contains(token)), "{len} {count} {list}");
                assert!(bottom.iter().all(|(token, _)| smallest.contains(token)), "{len} {count} {list}");
                // And most are excluded; a hundredth has no bounds.
                assert!(len < 5000 || largest.len() < len as usize / 20, "{} of {len}", largest.len());
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
