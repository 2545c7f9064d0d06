//! Nodes chosen at random, and what follows from the largest effect among them.

use std::collections::{BTreeSet, HashSet};

use rand_xoshiro::SplitMix64;
use rand_xoshiro::rand_core::{RngCore, SeedableRng};
use tdb_api::{MirroredNodeIndex, NodeType, PassType, SampledBound};
use tdb_model::{Run, Slot};

use crate::dictionary::slot_of_error;
use crate::error::Result;
use crate::place::Place;
use crate::rank::node_key;
use crate::slots;
use crate::trace::Trace;

/// Deterministic random numbers.
pub struct Random(SplitMix64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(SplitMix64::seed_from_u64(seed))
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.0.next_u64()) * n as u128) >> 64) as usize
    }

    /// One of these, where what costs twice as much is drawn an eighth as often; `None` of nothing. So the mean cost stays
    /// small, and yet everything comes up.
    pub fn draw(&mut self, costs: impl IntoIterator<Item = usize>) -> Option<usize> {
        let weights: Vec<f64> = costs.into_iter().map(|cost| (cost.max(1) as f64).powi(-3)).collect();
        let mut at = weights.iter().sum::<f64>() * self.below(1 << 53) as f64 / (1u64 << 53) as f64;
        let drawn = weights.iter().position(|weight| {
            at -= weight;
            at < 0.0
        });
        drawn.or(weights.len().checked_sub(1))
    }
}

/// All nodes of some types in a run. Latents that are zero have no effect and are not among them.
struct Population {
    parts: Vec<Part>,
    /// Of so many tokens.
    tokens: usize,
}

struct Part {
    node_type: NodeType,
    layer: Option<usize>,
    len: usize,
    is_latents: bool,
    /// Active latents, by token and latent.
    active: Vec<(usize, usize)>,
    /// Units of one token.
    width: usize,
}

impl Population {
    fn new(run: &Run, types: &BTreeSet<NodeType>, trace: Option<&Trace>) -> Result<Self> {
        let (model, config) = (run.model(), run.model().config());
        // What stands behind a traced node, or at a later token, has no effect on it.
        let tokens = trace.map_or(run.tokens().len(), |trace| trace.node.token() + 1);
        let reaches = |slot: Slot, layer: usize| {
            trace.is_none_or(|trace| Place::written_by(model, slot, layer) < trace.node.reads_at(model))
        };
        let mut parts = Vec::new();
        for &node_type in types {
            let slot = match node_type {
                NodeType::AttentionHead => Slot::Attention,
                NodeType::Layer | NodeType::MlpNeuron => Slot::Mlp,
                _ if let Some(slot) = slot_of_error(node_type) => slot,
                _ => slots::of_latents(model, node_type)?.unwrap_or(Slot::Mlp),
            };
            for layer in (0..config.n_layers).filter(|l| node_type == NodeType::Layer || reaches(slot, *l)) {
                let layer_of = Some(layer);
                let none = Part { node_type, layer: layer_of, len: 0, is_latents: false, active: Vec::new(), width: 1 };
                parts.push(match node_type {
                    NodeType::Layer if layer == 0 => Part { layer: None, len: tokens, ..none },
                    NodeType::Layer => continue,
                    NodeType::MlpNeuron => Part { len: tokens * config.d_ff, width: config.d_ff, ..none },
                    NodeType::AttentionHead => {
                        Part { len: tokens * (tokens + 1) / 2 * config.n_heads, width: config.n_heads, ..none }
                    }
                    _ if let Some(slot) = slot_of_error(node_type) => {
                        let has = run.model().autoencoder(slot, layer).is_some();
                        Part { len: if has { tokens } else { 0 }, ..none }
                    }
                    _ => {
                        let mut active = active(run, slot, layer);
                        active.retain(|(token, _)| *token < tokens);
                        Part { len: active.len(), is_latents: true, active, ..none }
                    }
                });
            }
        }
        Ok(Population { parts, tokens })
    }

    fn len(&self) -> usize {
        self.parts.iter().map(|part| part.len).sum()
    }

    /// Of a node of one of the types.
    fn contains(&self, node: &MirroredNodeIndex) -> bool {
        let index = |at: usize| node.tensor_indices.get(at).copied().flatten().and_then(|i| usize::try_from(i).ok());
        let layer = node.layer_index.and_then(|layer| usize::try_from(layer).ok());
        let part = self.parts.iter().find(|part| part.node_type == node.node_type && part.layer == layer);
        part.zip(index(0)).is_some_and(|(part, token)| {
            let is_active = || index(1).is_some_and(|unit| part.active.contains(&(token, unit)));
            token < self.tokens && (!part.is_latents || is_active())
        })
    }

    fn node(&self, mut at: usize) -> Option<MirroredNodeIndex> {
        let part = self.parts.iter().find(|part| {
            let here = at < part.len;
            if !here {
                at -= part.len;
            }
            here
        })?;
        let indices = match part.node_type {
            NodeType::Layer => vec![at, 0],
            NodeType::AttentionHead => {
                let (pair, head) = (at / part.width, at % part.width);
                // Pairs row by row: (0, 0), (1, 0), (1, 1), (2, 0) ...
                let query = (((8 * pair + 1) as f64).sqrt() as usize).saturating_sub(1) / 2;
                let query = (query.saturating_sub(1)..=query + 1).rfind(|q| q * (q + 1) / 2 <= pair)?;
                vec![query, pair - query * (query + 1) / 2, head]
            }
            _ => match part.active.get(at) {
                Some(&(token, latent)) => vec![token, latent],
                None => vec![at / part.width, at % part.width],
            },
        };
        Some(MirroredNodeIndex {
            node_type: part.node_type,
            tensor_indices: indices.into_iter().map(|i| Some(i as i64)).collect(),
            layer_index: part.layer.map(|layer| layer as i64),
            pass_type: PassType::Forward,
        })
    }
}

fn active(run: &Run, slot: Slot, layer: usize) -> Vec<(usize, usize)> {
    let Some(state) = run.latents(slot, layer) else { return Vec::new() };
    let rows = state.latents.rows().iter().enumerate();
    rows.flat_map(|(t, row)| row.iter().filter(|e| e.1 != 0.0).map(move |e| (t, e.0 as usize))).collect()
}

/// Nodes of the types of `listed`, without them, that may have an effect on what is traced, if something is; and among how
/// many they were chosen.
///
/// # Errors
/// If an autoencoder is missing.
pub fn others(
    run: &Run,
    listed: &[MirroredNodeIndex],
    trace: Option<&Trace>,
    n: usize,
    seed: u64,
) -> Result<(Vec<MirroredNodeIndex>, usize)> {
    let population = Population::new(run, &listed.iter().map(|node| node.node_type).collect(), trace)?;
    let all = population.len();
    let mut taken: HashSet<_> = listed.iter().map(node_key).collect();
    let listed: HashSet<_> = listed.iter().filter(|node| population.contains(node)).map(node_key).collect();
    let others = all - listed.len().min(all);
    let mut random = Random::new(seed);
    let mut out = Vec::new();
    // Few are drawn from very many, or nearly all from few: then the draws that repeat are more.
    for _ in 0..n.min(others) * 64 {
        if out.len() == n.min(others) {
            break;
        }
        if let Some(node) = population.node(random.below(all))
            && taken.insert(node_key(&node))
        {
            out.push(node);
        }
    }
    Ok((out, others))
}

/// What the largest of these effects says about the nodes that were not chosen: if more than a share `s` of them had a larger
/// one, none of `n` chosen ones would be among those with probability `(1 - s)^n`, which is below 5 % for `s = 3 / n`.
pub fn bound(nodes: &[MirroredNodeIndex], effects: &[f64], population: usize) -> Option<SampledBound> {
    let (at, largest) = effects.iter().map(|x| x.abs()).enumerate().max_by(|a, b| a.1.total_cmp(&b.1))?;
    let n = nodes.len();
    let share = (3.0 / n as f64).min(1.0);
    let percent = 100.0 * share;
    Some(SampledBound {
        nodes: n as i64,
        population: population as i64,
        largest,
        node_index: nodes[at].clone(),
        share,
        sentence: format!(
            "Of {n} other nodes chosen at random among {population}, the largest exact effect was {largest:.4}; with 95 % \
             confidence at most {percent:.1} % of the rest exceed it."
        ),
    })
}
