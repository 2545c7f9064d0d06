//! The residual stream to logits.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::OnceLock;

use candle_core::{Result, Tensor};

use crate::config::Config;
use crate::error::Error;
use crate::matrix::Matrix;
use crate::modules::embedding::Embedding;
use crate::modules::{Place, embedding};
use crate::ops::rows::axpy;
use crate::ops::{Ops, Threads, Vector, View, Weight, add_times, times_transposed};
use crate::parallel;
use crate::source::Weights;

/// `logits = W_U x (+ b_U)`, capped where the configuration says so.
#[derive(Clone, Debug)]
pub struct Unembedding {
    /// `[V, D]`
    weight: Weight,
    /// `[V]`
    bias: Option<Vector>,
    softcap: Option<f32>,
    sum_of_rows: OnceLock<Vec<f64>>,
    ops: Ops,
}

impl Unembedding {
    /// `unembed.weight`, or the matrix of the embedding where they are one, and `unembed.bias` where the configuration has
    /// it.
    pub(crate) fn load(
        weights: &Weights,
        embedding: &Embedding,
        config: &Config,
        place: &Place,
    ) -> std::result::Result<Self, Error> {
        let matrix = match config.tied {
            true => embedding.matrix().clone(),
            false => weights.matrix("unembed.weight", [config.n_vocab, config.d_model])?,
        };
        // Rows lie whole: logits of some tokens are products with copies of their rows, and products with matrices of other
        // strides add up in another order.
        let matrix = match matrix.col_stride() {
            1 => matrix,
            _ => Matrix::from_vec(config.n_vocab, config.d_model, matrix.to_vec()),
        };
        let weight = Weight::new(matrix, &place.device);
        let bias = match config.unembedding_bias {
            true => Some(Vector::new(weights.vector("unembed.bias", config.n_vocab)?, &place.device)),
            false => None,
        };
        Ok(Unembedding { weight, bias, softcap: config.logit_softcap, sum_of_rows: OnceLock::new(), ops: place.ops })
    }

    /// Entries of the vocabulary.
    pub fn n_vocab(&self) -> usize {
        self.weight.matrix().rows()
    }

    /// All logits: `[T, D]` to `[T, V]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        // The bias comes after the product, so that logits of some tokens have the same bits.
        let logits = self.ops.affine(&self.ops.linear(x, &self.weight, None, 1.0)?, None, self.bias.as_ref())?;
        match self.softcap {
            Some(cap) => self.ops.softcap(&logits, cap),
            None => Ok(logits),
        }
    }

    /// Logits of rows `x: [N, D]`, row-major `[N, V]`.
    pub fn logits(&self, x: &[f32]) -> Vec<f32> {
        self.finished(self.effects(x), self.bias())
    }

    /// What rows `x: [N, D]` add to all logits before the cap, row-major `[N, V]`: as [`Unembedding::logits`], without bias
    /// and cap.
    pub fn effects(&self, x: &[f32]) -> Vec<f32> {
        self.products(x, self.weight.matrix())
    }

    /// What is added to every logit, `[V]`, where the model has that.
    pub fn bias(&self) -> Option<&[f32]> {
        self.bias.as_ref().map(Vector::host)
    }

    /// Logits of some tokens for rows `x: [N, D]`, row-major `[N, tokens]`.
    pub fn logits_of(&self, tokens: &[u32], x: &[f32]) -> Vec<f32> {
        let weight = self.weight.matrix();
        let rows: Vec<f32> = tokens.iter().flat_map(|token| weight.row(*token as usize)).collect();
        let bias = self.bias().map(|bias| tokens.iter().map(|token| bias[*token as usize]).collect::<Vec<_>>());
        let rows = Matrix::from_vec(tokens.len(), weight.cols(), rows);
        self.finished(self.products(x, &rows), bias.as_deref())
    }

    fn products(&self, x: &[f32], weight: &Matrix) -> Vec<f32> {
        let x = View::new(x, x.len() / weight.cols(), weight.cols());
        let mut out = vec![0.0; x.rows * weight.rows()];
        times_transposed(&mut out, x, weight, false, Threads::All);
        out
    }

    /// Products to logits: `bias` is added to each row, then the cap acts.
    fn finished(&self, mut logits: Vec<f32>, bias: Option<&[f32]>) -> Vec<f32> {
        if let Some(bias) = bias.filter(|bias| !bias.is_empty()) {
            logits.chunks_exact_mut(bias.len()).for_each(|row| axpy(row, 1.0, bias));
        }
        if let Some(cap) = self.softcap {
            logits.iter_mut().for_each(|z| *z = cap * (*z / cap).tanh());
        }
        logits
    }

    /// Gradient at rows of `x` for the gradient at their logits, row-major `[N, V]` to `[N, D]`. Under a cap `logits` are
    /// those that the rows gave.
    pub fn vjp(&self, logits: &[f32], d_logits: &[f32]) -> Vec<f32> {
        self.vjp_uncapped(&self.through_cap(logits, d_logits))
    }

    /// Gradient before the cap for the gradient at `logits`: the same where there is no cap.
    pub fn through_cap<'a>(&self, logits: &[f32], d_logits: &'a [f32]) -> Cow<'a, [f32]> {
        match self.softcap {
            None => Cow::Borrowed(d_logits),
            Some(cap) => {
                let slope = |z: &f32| 1.0 - (z / cap) * (z / cap);
                Cow::Owned(d_logits.iter().zip(logits).map(|(d, z)| d * slope(z)).collect())
            }
        }
    }

    fn vjp_uncapped(&self, gradient: &[f32]) -> Vec<f32> {
        let weight = self.weight.matrix();
        let (n_vocab, d_model) = (weight.rows(), weight.cols());
        let n = gradient.len() / n_vocab;
        let nonzero = gradient.iter().filter(|g| **g != 0.0).count();
        let mut out = vec![0.0; n * d_model];
        if nonzero * 8 > gradient.len() {
            add_times(&mut out, View::new(gradient, n, n_vocab), weight, Threads::All);
            return out;
        }
        for (out, gradient) in out.chunks_exact_mut(d_model).zip(gradient.chunks_exact(n_vocab)) {
            for (token, gradient) in gradient.iter().enumerate().filter(|(_, g)| **g != 0.0) {
                axpy(out, *gradient, &weight.row(token));
            }
        }
        out
    }

    /// Whether logits are capped, so that they are no affine function of the residual stream.
    pub fn is_capped(&self) -> bool {
        self.softcap.is_some()
    }

    /// Rows of a range of tokens, row-major `[range, D]`; borrowed where they lie so.
    pub fn rows(&self, range: Range<usize>) -> Cow<'_, [f32]> {
        embedding::rows(self.weight.matrix(), range)
    }

    /// Sum of all rows in double precision, `[D]`. Computed once.
    pub fn sum_of_rows(&self) -> &[f64] {
        self.sum_of_rows.get_or_init(|| {
            let weight = self.weight.matrix();
            const BLOCK: usize = 1024;
            let parts: Vec<Vec<f64>> = parallel::map(weight.rows().div_ceil(BLOCK), |block| {
                let (mut sum, mut row) = (vec![0.0f64; weight.cols()], vec![0.0; weight.cols()]);
                for token in block * BLOCK..((block + 1) * BLOCK).min(weight.rows()) {
                    weight.copy_row(token, &mut row);
                    sum.iter_mut().zip(&row).for_each(|(sum, x)| *sum += f64::from(*x));
                }
                sum
            });
            let mut sum = vec![0.0; weight.cols()];
            parts.iter().for_each(|part| sum.iter_mut().zip(part).for_each(|(sum, x)| *sum += x));
            sum
        })
    }
}
