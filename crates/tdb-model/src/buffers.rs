//! Memory of activations that are no longer needed, kept for the next ones.
//!
//! A pass over 64 tokens of a GPT-2 small fills 50 MB. Fetched from the system and given back each time, the
//! pages cost a quarter of the pass; used again, nearly nothing. Contents never survive: a buffer is handed out
//! empty.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Smaller buffers, in numbers, are the allocator's business.
const SMALLEST: usize = 1 << 13;
/// At most so many numbers (96 MiB) lie here unused.
const LIMIT: usize = 24 << 20;

#[derive(Default)]
struct Unused {
    by_capacity: BTreeMap<usize, Vec<Vec<f32>>>,
    total: usize,
}

static UNUSED: Mutex<Unused> = Mutex::new(Unused { by_capacity: BTreeMap::new(), total: 0 });

/// An empty buffer with room for `len` numbers.
pub fn empty(len: usize) -> Vec<f32> {
    if len < SMALLEST {
        return Vec::with_capacity(len);
    }
    let mut unused = UNUSED.lock().unwrap_or_else(PoisonError::into_inner);
    // One that is much too large would be missed elsewhere.
    let fitting = unused.by_capacity.range(len..=len + len / 4).next().map(|(capacity, _)| *capacity);
    let Some(capacity) = fitting else { return Vec::with_capacity(len) };
    let buffer = unused.by_capacity.get_mut(&capacity).and_then(Vec::pop);
    if unused.by_capacity.get(&capacity).is_some_and(Vec::is_empty) {
        unused.by_capacity.remove(&capacity);
    }
    unused.total -= capacity;
    buffer.unwrap_or_else(|| Vec::with_capacity(len))
}

/// `len` zeros.
pub fn zeros(len: usize) -> Vec<f32> {
    if len < SMALLEST {
        return vec![0.0; len];
    }
    let mut buffer = empty(len);
    buffer.resize(len, 0.0);
    buffer
}

/// A copy of `numbers`.
pub fn copy(numbers: &[f32]) -> Vec<f32> {
    let mut buffer = empty(numbers.len());
    buffer.extend_from_slice(numbers);
    buffer
}

/// Takes back a buffer that nobody needs any more.
pub fn give_back(mut buffer: Vec<f32>) {
    let capacity = buffer.capacity();
    if !(SMALLEST..=LIMIT).contains(&capacity) {
        return;
    }
    buffer.clear();
    let mut unused = UNUSED.lock().unwrap_or_else(PoisonError::into_inner);
    if unused.total + capacity > LIMIT {
        // Sizes change with the prompt's length; those of the last one may be of no more use.
        let forgotten = std::mem::take(&mut *unused);
        unused.total = capacity;
        unused.by_capacity.insert(capacity, vec![buffer]);
        drop(unused);
        drop(forgotten);
        return;
    }
    unused.total += capacity;
    unused.by_capacity.entry(capacity).or_default().push(buffer);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_empty_and_within_the_limit() {
        for round in 0..50 {
            let len = SMALLEST * (1 + round % 7) + round;
            let all: Vec<_> = (0..20).map(|_| zeros(len)).collect();
            for mut buffer in all {
                assert!(buffer.len() == len && buffer.iter().all(|x| *x == 0.0));
                buffer.fill(7.0);
                give_back(buffer);
            }
            let again = empty(len);
            assert!(again.is_empty() && again.capacity() >= len);
            assert_eq!(copy(&[1.0; SMALLEST]), [1.0; SMALLEST]);
            let unused = UNUSED.lock().unwrap();
            let sum: usize = unused.by_capacity.iter().map(|(capacity, all)| capacity * all.len()).sum();
            assert!(sum == unused.total && sum <= LIMIT);
            assert!(unused.by_capacity.values().flatten().all(|buffer| buffer.is_empty()));
        }
    }
}
