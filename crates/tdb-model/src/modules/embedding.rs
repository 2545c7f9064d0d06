//! Tokens and their positions to the residual stream.

use std::borrow::Cow;
use std::ops::Range;

use candle_core::{Device, Result, Tensor};

use crate::config::{Config, Positions};
use crate::error::Error;
use crate::matrix::Matrix;
use crate::modules::Place;
use crate::ops::rows::axpy;
use crate::source::Weights;

/// `x = embed[token] scale (+ positions[t])`
#[derive(Clone, Debug)]
pub struct Embedding {
    tokens: Matrix,
    positions: Option<Matrix>,
    scale: f32,
    device: Device,
}

impl Embedding {
    /// `embed.weight`, and `positions.weight` where positions are learned.
    pub(crate) fn load(weights: &Weights, config: &Config, place: &Place) -> std::result::Result<Self, Error> {
        let positions = match config.positions {
            Positions::Learned => Some(weights.matrix("positions.weight", [config.ctx_window, config.d_model])?),
            Positions::LearnedForQueriesAndKeys | Positions::Rotary(_) => None,
        };
        Ok(Embedding {
            tokens: weights.matrix("embed.weight", [config.n_vocab, config.d_model])?,
            positions,
            scale: config.embedding_scale,
            device: place.device.clone(),
        })
    }

    /// `[T, D]`; `past` tokens came before.
    pub(crate) fn forward(&self, tokens: &[u32], past: usize) -> Result<Tensor> {
        let width = self.tokens.cols();
        let mut x = vec![0.0; tokens.len() * width];
        let mut position = vec![0.0; width];
        for (t, (&token, x)) in tokens.iter().zip(x.chunks_exact_mut(width)).enumerate() {
            self.tokens.copy_row(token as usize, x);
            self.scale(x);
            if let Some(positions) = &self.positions {
                positions.copy_row(past + t, &mut position);
                axpy(x, 1.0, &position);
            }
        }
        Tensor::from_vec(x, (tokens.len(), width), &self.device)
    }

    /// `[V, D]`, before the scale.
    pub(super) fn matrix(&self) -> &Matrix {
        &self.tokens
    }

    /// Entries of the vocabulary.
    pub fn n_vocab(&self) -> usize {
        self.tokens.rows()
    }

    /// A token's embedding without its position, `[D]`.
    pub fn row(&self, token: u32) -> Vec<f32> {
        let mut row = self.tokens.row(token as usize);
        self.scale(&mut row);
        row
    }

    /// Embeddings of a range of tokens without positions, row-major `[range, D]`; borrowed where they lie so.
    pub fn rows(&self, range: Range<usize>) -> Cow<'_, [f32]> {
        if self.scale == 1.0 {
            return rows(&self.tokens, range);
        }
        let mut all = rows(&self.tokens, range).into_owned();
        self.scale(&mut all);
        Cow::Owned(all)
    }

    fn scale(&self, x: &mut [f32]) {
        if self.scale != 1.0 {
            x.iter_mut().for_each(|x| *x *= self.scale);
        }
    }
}

/// Some rows of a matrix, row-major; borrowed where they lie so.
pub(super) fn rows(matrix: &Matrix, range: Range<usize>) -> Cow<'_, [f32]> {
    matrix.contiguous_rows(range.clone()).map_or_else(|| Cow::Owned(matrix.row_range(range).to_vec()), Cow::Borrowed)
}
