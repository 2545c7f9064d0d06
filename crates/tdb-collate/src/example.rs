//! Examples and the bounded lists of them, which merge exactly.

use std::sync::Arc;

use crate::corpus::Sequence;
use crate::measure::Values;

/// A sequence and what one unit did on it.
#[derive(Clone, Debug)]
pub struct Example {
    /// Where it stands among all sequences in a random order of this unit's own.
    pub priority: u64,
    /// The largest value that counts.
    pub figure: f32,
    /// The token at which it is reached.
    pub peak: u32,
    pub sequence: Arc<Sequence>,
    pub values: Arc<Values>,
}

impl Example {
    /// The tokens that the figure depends on.
    fn cause(&self) -> &[u32] {
        let tokens = &self.sequence.tokens;
        &tokens[..tokens.len().min(self.peak as usize + 1)]
    }
}

/// The examples with the largest figure, best first; of the same figure the earlier sequence. Examples that are the same up
/// to the token where the figure is reached are one: the tokens after it play no part in it. The first of them is kept.
///
/// What `k` examples are kept depends on the set of offered examples alone: of each beginning only the first occurrence can
/// be among the best `k`, and a part of the corpus never drops an example before which there are fewer than `k` others.
#[derive(Clone, Debug, Default)]
pub struct Top(Vec<Example>);

impl Top {
    /// Whether an example of this figure and sequence number could enter a list of `k`.
    pub fn admits(&self, k: usize, figure: f32, number: u64) -> bool {
        match self.0.last() {
            Some(last) if self.0.len() >= k => before((figure, number), (last.figure, last.sequence.number)),
            _ => k > 0,
        }
    }

    pub fn offer(&mut self, k: usize, example: Example) {
        let key = (example.figure, example.sequence.number);
        if !self.admits(k, key.0, key.1) {
            return;
        }
        let same = |e: &Example| e.figure == key.0 && e.cause() == example.cause();
        if let Some(at) = self.0.iter().position(same) {
            if self.0[at].sequence.number <= key.1 {
                return;
            }
            self.0.remove(at);
        }
        let at = self.0.partition_point(|e| before((e.figure, e.sequence.number), key));
        self.0.insert(at, example);
        self.0.truncate(k);
    }

    pub fn examples(&self) -> &[Example] {
        &self.0
    }
}

fn before(a: (f32, u64), b: (f32, u64)) -> bool {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)).is_lt()
}

/// A uniform random sample: the examples of lowest priority.
#[derive(Clone, Debug, Default)]
pub struct Sample(Vec<Example>);

impl Sample {
    /// Whether an example of this priority could enter a sample of `k`.
    pub fn admits(&self, k: usize, priority: u64) -> bool {
        self.limit(k) > priority
    }

    /// Examples of this priority or more cannot enter a sample of `k`.
    pub fn limit(&self, k: usize) -> u64 {
        match self.0.last() {
            Some(last) if self.0.len() >= k => last.priority,
            _ if k == 0 => 0,
            _ => u64::MAX,
        }
    }

    pub fn offer(&mut self, k: usize, example: Example) {
        if !self.admits(k, example.priority) {
            return;
        }
        let key = |e: &Example| (e.priority, e.sequence.number);
        let at = self.0.partition_point(|e| key(e) < key(&example));
        self.0.insert(at, example);
        self.0.truncate(k);
    }

    /// By ascending priority.
    pub fn examples(&self) -> &[Example] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::mix;

    fn example(number: u64, text: u32) -> Example {
        // Few different figures, and equal texts have equal ones.
        let figure = (text % 7) as f32;
        // What follows the token where it is reached differs each time.
        let sequence = Arc::new(Sequence { number, tokens: vec![text, number as u32] });
        let values = Arc::new(Values::Dense([figure, 0.0].into()));
        Example { priority: mix(number), figure, peak: 0, sequence, values }
    }

    fn numbers(list: &[Example]) -> Vec<u64> {
        list.iter().map(|e| e.sequence.number).collect()
    }

    #[test]
    fn lists_equal_brute_force_and_do_not_depend_on_order_or_parts() {
        for seed in 0..40u64 {
            let all: Vec<Example> = (0..120).map(|n| example(n, (mix(seed * 1000 + n) % 60) as u32)).collect();
            for k in [0, 1, 5, 20, 200] {
                let mut expected: Vec<&Example> = Vec::new();
                for e in &all {
                    if !expected.iter().any(|x| x.sequence.tokens[0] == e.sequence.tokens[0]) {
                        expected.push(e);
                    }
                }
                expected.sort_by(|a, b| b.figure.total_cmp(&a.figure).then(a.sequence.number.cmp(&b.sequence.number)));
                expected.truncate(k);
                let expected: Vec<u64> = expected.iter().map(|e| e.sequence.number).collect();
                let mut sampled = all.clone();
                sampled.sort_by_key(|e| e.priority);
                sampled.truncate(k);

                for order in 0..3u64 {
                    let mut shuffled = all.clone();
                    shuffled.sort_by_key(|e| mix(e.sequence.number ^ (order << 32)));
                    let mut tops = vec![Top::default(); 4];
                    let mut samples = vec![Sample::default(); 4];
                    for e in shuffled {
                        let part = (mix(e.sequence.number ^ seed) % 4) as usize;
                        tops[part].offer(k, e.clone());
                        samples[part].offer(k, e);
                    }
                    let (mut top, mut sample) = (Top::default(), Sample::default());
                    for part in [2, 0, 3, 1] {
                        tops[part].examples().iter().for_each(|e| top.offer(k, e.clone()));
                        samples[part].examples().iter().for_each(|e| sample.offer(k, e.clone()));
                    }
                    assert_eq!(numbers(top.examples()), expected, "seed {seed}, k {k}, order {order}");
                    assert_eq!(numbers(sample.examples()), numbers(&sampled), "seed {seed}, k {k}, order {order}");
                }
            }
        }
    }
}
