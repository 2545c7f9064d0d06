//! The numbers that a page computes from an answer: differences between sides, sums of groups, means, scales.
//!
//! Every other number on a page is one of the answer's, formatted.

use crate::tensor::TensorND;
use crate::top_k::{GroupId, MultipleTopKDerivedScalarsResponseData};
use crate::{DerivedScalarType, NodeType};

/// Left minus right.
pub fn difference(left: f64, right: f64) -> f64 {
    left - right
}

/// The sum, in the order of the values.
pub fn sum(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().sum()
}

/// The mean; of nothing there is none.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| sum(values.iter().copied()) / values.len() as f64)
}

/// The mean attention of the token at `position`: its attention to itself and to all tokens before it adds up to 1.
pub fn mean_attention(position: usize) -> f64 {
    1.0 / (position + 1) as f64
}

/// The largest magnitude; 0 of nothing. It is what a full bar or colour stands for.
pub fn largest_magnitude(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().fold(0.0, |most, value| most.max(value.abs()))
}

/// The largest value; negative infinity of nothing.
pub fn largest(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().fold(f64::NEG_INFINITY, f64::max)
}

/// How much of `most` a magnitude is, from 0 to 1.
pub fn share(value: f64, most: f64) -> f64 {
    if most > 0.0 { (value.abs() / most).min(1.0) } else { 0.0 }
}

/// The root, for instance of a variance.
pub fn root(value: f64) -> f64 {
    value.sqrt()
}

/// What part of `whole` a value is; of nothing there is none.
pub fn fraction(value: f64, whole: f64) -> Option<f64> {
    (whole != 0.0).then(|| value / whole)
}

/// Where each value begins and ends when they are laid end to end from 0.
pub fn end_to_end(values: impl IntoIterator<Item = f64>) -> Vec<(f64, f64)> {
    let mut at = 0.0;
    let mut place = |value: f64| {
        let from = at;
        at += value;
        (from, at)
    };
    values.into_iter().map(&mut place).collect()
}

/// Sums of the estimated total effect over all components, for each token of the prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenEffects {
    /// Of the embeddings.
    pub embeddings: Vec<f64>,
    /// Of the MLP layers.
    pub mlp: Vec<f64>,
    /// Of the attention layers, at the token that attends.
    pub attended_from: Vec<f64>,
    /// Of the attention layers, at the token that is attended to.
    pub attended_to: Vec<f64>,
}

impl TokenEffects {
    /// Of each token: embedding, MLP layers and attention from it, each effect once.
    pub fn totals(&self) -> Vec<f64> {
        let at = |list: &[f64], i: usize| list.get(i).copied().unwrap_or_default();
        let total = |i| sum([&self.embeddings, &self.mlp, &self.attended_from].map(|list| at(list, i)));
        (0..self.attended_from.len()).map(total).collect()
    }

    /// Reads the part `componentSumsForTokenDisplay`; `None` if it has no sums of attention by pair of tokens.
    pub fn of(part: &MultipleTopKDerivedScalarsResponseData) -> Option<Self> {
        let sums = part.intermediate_sum_activations_by_dst_by_group_id.get(&GroupId::ActTimesGrad)?;
        let list = |dst| match sums.get(&dst) {
            Some(TensorND::Tensor1D(values)) => values.clone(),
            _ => Vec::new(),
        };
        let Some(TensorND::Tensor2D(pairs)) = sums.get(&DerivedScalarType::UnflattenedAttnActTimesGrad) else {
            return None;
        };
        let width = pairs.iter().map(Vec::len).max().unwrap_or_default();
        Some(Self {
            embeddings: list(DerivedScalarType::TokenAttribution),
            mlp: list(DerivedScalarType::MlpActTimesGrad),
            attended_from: pairs.iter().map(|row| sum(row.iter().copied())).collect(),
            attended_to: (0..width).map(|to| sum(pairs.iter().filter_map(|row| row.get(to).copied()))).collect(),
        })
    }
}

/// What a layer adds to the residual stream with, or the embeddings in front of all layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LayerPart {
    /// The embeddings.
    Embedding,
    /// Latents of the residual stream.
    Residual,
    /// Heads and latents of attention.
    Attention,
    /// Neurons and latents of the MLP.
    Mlp,
}

impl LayerPart {
    /// The part that nodes of this type belong to.
    pub fn of(node_type: NodeType) -> Self {
        match node_type {
            NodeType::Layer => Self::Embedding,
            NodeType::ResidualAutoencoderLatent | NodeType::ResidualAutoencoderError => Self::Residual,
            NodeType::AttentionHead | NodeType::AttentionAutoencoderLatent | NodeType::AttentionAutoencoderError => {
                Self::Attention
            }
            _ => Self::Mlp,
        }
    }
}

/// Sums of nodes' values by layer, part and token, from the bottom of the model up.
#[derive(Debug, Default)]
pub struct LayerSums {
    tokens: usize,
    /// In their order.
    rows: Vec<((i64, LayerPart), Vec<f64>)>,
}

impl LayerSums {
    /// For a prompt with this many tokens.
    pub fn new(tokens: usize) -> Self {
        Self { tokens, rows: Vec::new() }
    }

    /// Adds the value of a node; one at no single token only makes its row appear. Embeddings are below layer 0, at -1.
    pub fn add(&mut self, node_type: NodeType, layer: Option<i64>, token: Option<usize>, value: f64) {
        let key = (layer.unwrap_or(-1), LayerPart::of(node_type));
        let at = self.rows.partition_point(|(known, _)| *known < key);
        if self.rows.get(at).is_none_or(|(known, _)| *known != key) {
            self.rows.insert(at, (key, vec![0.0; self.tokens]));
        }
        if let Some(cell) = token.and_then(|token| self.rows[at].1.get_mut(token)) {
            *cell += value;
        }
    }

    /// The rows: layer, part, and a sum for each token.
    pub fn rows(self) -> impl Iterator<Item = (i64, LayerPart, Vec<f64>)> {
        self.rows.into_iter().map(|((layer, part), values)| (layer, part, values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::IndexMap;

    #[test]
    fn nothing_has_no_mean_and_no_size() {
        assert_eq!(mean(&[]), None);
        assert_eq!(mean(&[1.0, 2.0, 6.0]), Some(3.0));
        assert_eq!(mean_attention(3), 0.25);
        assert_eq!(largest_magnitude([]), 0.0);
        assert_eq!(largest_magnitude([1.0, -2.0]), 2.0);
        assert_eq!(largest([-3.0, -2.0]), -2.0);
    }

    #[test]
    fn shares_stay_on_their_scale() {
        assert_eq!((share(-1.0, 2.0), share(3.0, 2.0), share(1.0, 0.0)), (0.5, 1.0, 0.0));
    }

    #[test]
    fn values_are_laid_end_to_end() {
        assert_eq!(end_to_end([2.0, -3.0, 1.5]), [(0.0, 2.0), (2.0, -1.0), (-1.0, 0.5)]);
        assert_eq!((fraction(1.0, -4.0), fraction(1.0, 0.0)), (Some(-0.25), None));
    }

    #[test]
    fn effects_of_pairs_are_summed_at_either_token() {
        let sums = IndexMap::from([
            (DerivedScalarType::TokenAttribution, TensorND::Tensor1D(vec![1.0, 2.0, 3.0])),
            (DerivedScalarType::MlpActTimesGrad, TensorND::Tensor1D(vec![0.0, 0.0, 1.0])),
            (
                DerivedScalarType::UnflattenedAttnActTimesGrad,
                TensorND::Tensor2D(vec![vec![1.0, 0.0, 0.0], vec![1.0, 1.0, 0.0], vec![4.0, 0.0, 2.0]]),
            ),
        ]);
        let mut part = MultipleTopKDerivedScalarsResponseData {
            response_data_type: Default::default(),
            activations_by_group_id: IndexMap::new(),
            node_indices: vec![],
            vocab_token_strings_for_indices: None,
            intermediate_sum_activations_by_dst_by_group_id: IndexMap::new(),
        };
        assert_eq!(TokenEffects::of(&part), None);
        part.intermediate_sum_activations_by_dst_by_group_id.insert(GroupId::ActTimesGrad, sums);
        let effects = TokenEffects::of(&part).unwrap();
        assert_eq!(effects.totals(), [2.0, 4.0, 10.0]);
        assert_eq!((effects.embeddings, effects.mlp), (vec![1.0, 2.0, 3.0], vec![0.0, 0.0, 1.0]));
        assert_eq!((effects.attended_from, effects.attended_to), (vec![1.0, 2.0, 6.0], vec![6.0, 1.0, 2.0]));
    }

    #[test]
    fn nodes_are_summed_by_layer_and_token() {
        let mut sums = LayerSums::new(2);
        sums.add(NodeType::MlpNeuron, Some(1), Some(0), 1.0);
        sums.add(NodeType::MlpAutoencoderLatent, Some(1), Some(0), 2.0);
        sums.add(NodeType::AttentionHead, Some(1), Some(1), -1.0);
        sums.add(NodeType::Layer, None, None, 5.0);
        let rows: Vec<_> = sums.rows().collect();
        let want = [
            (-1, LayerPart::Embedding, vec![0.0, 0.0]),
            (1, LayerPart::Attention, vec![0.0, -1.0]),
            (1, LayerPart::Mlp, vec![3.0, 0.0]),
        ];
        assert_eq!(rows, want);
    }
}
