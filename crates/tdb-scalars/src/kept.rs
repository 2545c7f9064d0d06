//! Which tokens stood at the ends of directions that were read in token space before.
//!
//! A component writes and reads along a direction that differs between prompts by little more than its length. Of every
//! direction that was read, more tokens than are listed are kept at either end. For another direction of the same component
//! only their scores are computed, if a bound shows that no other token can be among those that are listed: with `d = a d₀ +
//! r`, a token of row `u` that was not kept has a score of at most `a s₀ + |r| |u|`, where `s₀` is the last kept score. Where
//! the bound does not show it, all tokens are scored. So an answer is the same to the bit, whatever is kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::nodes::{Component, Node};
use crate::select::Scored;

/// Tokens that are kept at either end.
pub const KEPT: usize = 32;

/// Bytes that all kept directions and tokens may take, unless told otherwise.
const BYTES: usize = 64 << 20;

/// The vocabulary as rows that directions are multiplied with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Vocabulary {
    Embedding,
    Unembedding,
}

/// A direction that was read.
#[derive(Debug)]
pub struct Kept {
    /// `[D]`
    direction: Box<[f32]>,
    largest: Vec<u32>,
    smallest: Vec<u32>,
    /// The least of the largest scores and the greatest of the smallest.
    ends: [f32; 2],
}

/// Tokens among which the extremes of another direction are, and what bounds the scores of all others.
#[derive(Debug)]
pub struct Candidates<'a> {
    pub largest: &'a [u32],
    pub smallest: &'a [u32],
    /// No other token has a larger score than the first, or a smaller one than the second.
    pub others: [f64; 2],
}

/// What is kept for all requests of an engine.
#[derive(Debug)]
pub struct KeptReadings {
    limit: usize,
    state: Mutex<State>,
    /// The largest length of a row of the embedding and of the unembedding.
    lengths: [OnceLock<f64>; 2],
}

type Key = (Vocabulary, Component);

#[derive(Debug, Default)]
struct State {
    entries: HashMap<Key, (Arc<Kept>, u64)>,
    bytes: usize,
    /// Counts uses.
    clock: u64,
}

impl Kept {
    /// `extremes` are the largest and the smallest scores of `direction`; `None` if there is nothing to keep.
    pub fn new(direction: &[f32], extremes: &[Vec<Scored>; 2]) -> Option<Self> {
        let [largest, smallest] = extremes;
        let ends = [largest.last()?.1, smallest.last()?.1];
        let tokens = |list: &[Scored]| list.iter().map(|entry| entry.0).collect();
        ends.iter().all(|x| x.is_finite()).then(|| Kept {
            direction: direction.into(),
            largest: tokens(largest),
            smallest: tokens(smallest),
            ends,
        })
    }

    /// The candidates for another direction, where rows of the vocabulary are at most `length` long; `None` if the two have
    /// nothing in common.
    pub fn candidates(&self, direction: &[f32], length: f64) -> Option<Candidates<'_>> {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
        if direction.len() != self.direction.len() {
            return None;
        }
        let scale = dot(direction, &self.direction) / dot(&self.direction, &self.direction);
        if !scale.is_finite() || scale == 0.0 {
            return None;
        }
        let rest = direction.iter().zip(&self.direction).map(|(x, y)| (f64::from(*x) - scale * f64::from(*y)).powi(2));
        // Scores are sums of D products in single precision; each is off by at most D ε |d| |u|, Higham 2002, section 3.1.
        let rounding = 2.0 * direction.len() as f64 * f64::from(f32::EPSILON) * dot(direction, direction).sqrt();
        let slack = (rest.sum::<f64>().sqrt() + rounding) * length;
        let [largest, smallest] = self.ends.map(|end| scale * f64::from(end));
        Some(match scale > 0.0 {
            true => Candidates {
                largest: &self.largest,
                smallest: &self.smallest,
                others: [largest + slack, smallest - slack],
            },
            false => Candidates {
                largest: &self.smallest,
                smallest: &self.largest,
                others: [smallest + slack, largest - slack],
            },
        })
    }

    fn bytes(&self) -> usize {
        const OVERHEAD: usize = 192;
        4 * (self.direction.len() + self.largest.len() + self.smallest.len()) + OVERHEAD
    }
}

impl KeptReadings {
    /// With a bound on their memory in bytes; 0 keeps nothing.
    pub fn new(limit: usize) -> Self {
        KeptReadings { limit, state: Mutex::default(), lengths: [OnceLock::new(), OnceLock::new()] }
    }

    /// The largest length of a row, computed once by `compute`.
    pub fn length(&self, vocabulary: Vocabulary, compute: impl FnOnce() -> f64) -> f64 {
        *self.lengths[vocabulary as usize].get_or_init(compute)
    }

    pub fn get(&self, vocabulary: Vocabulary, component: Component) -> Option<Arc<Kept>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.clock += 1;
        let now = state.clock;
        let (kept, used) = state.entries.get_mut(&key(vocabulary, component))?;
        *used = now;
        Some(kept.clone())
    }

    pub fn put(&self, vocabulary: Vocabulary, component: Component, kept: Kept) {
        let bytes = kept.bytes();
        if bytes > self.limit {
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = state.clock;
        let old = state.entries.insert(key(vocabulary, component), (Arc::new(kept), now));
        state.bytes = state.bytes + bytes - old.map_or(0, |(old, _)| old.bytes());
        if state.bytes > self.limit {
            state.forget(self.limit / 4 * 3);
        }
    }

    /// Bytes and directions that are kept.
    pub fn size(&self) -> [usize; 2] {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        [state.bytes, state.entries.len()]
    }
}

impl Default for KeptReadings {
    fn default() -> Self {
        KeptReadings::new(BYTES)
    }
}

impl State {
    /// Forgets what was not used for longest, until no more than `bytes` are left.
    fn forget(&mut self, bytes: usize) {
        let mut by_use: Vec<(u64, Key)> = self.entries.iter().map(|(key, (_, used))| (*used, *key)).collect();
        by_use.sort_unstable_by_key(|(used, _)| *used);
        for (_, key) in by_use {
            if self.bytes <= bytes {
                break;
            }
            if let Some((old, _)) = self.entries.remove(&key) {
                self.bytes -= old.bytes();
            }
        }
    }
}

/// Neurons and latents have nearly the same direction at every token.
pub fn key(vocabulary: Vocabulary, component: Component) -> Key {
    let component = match component {
        Component::Node(Node::Neuron { layer, index, .. }) => Component::Node(Node::Neuron { layer, token: 0, index }),
        Component::Node(Node::Latent { slot, layer, index, .. }) => {
            Component::Node(Node::Latent { slot, layer, token: 0, index })
        }
        other => other,
    };
    (vocabulary, component)
}
