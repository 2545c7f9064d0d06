//! Small operations on the tensors of a run that more than one scalar needs.
//!
//! Values of token pairs read `[query, key, head]` but lie head by head; what goes through all of them goes as they lie.

use candle_core::Tensor;
use tdb_model::Numbers;
use tdb_model::numbers::{self, tensor};

use crate::error::Result;

/// Every row, as long as a norm's gain, times that; nothing without one.
pub fn times_gain(rows: &mut [f32], gain: Option<&[f32]>) {
    let Some(gain) = gain else { return };
    rows.chunks_exact_mut(gain.len()).for_each(|row| row.iter_mut().zip(gain).for_each(|(x, gain)| *x *= gain));
}

/// `[Q, K, H]` as it lies, `[H, Q, K]`.
pub fn by_head(x: &Tensor) -> Result<Tensor> {
    Ok(x.permute((2, 0, 1))?.contiguous()?)
}

/// The inverse of [`by_head`].
pub fn by_pair(x: &Tensor) -> Result<Tensor> {
    Ok(x.permute((1, 2, 0))?)
}

/// `a ⊙ b`; zero without `b`.
pub fn times(a: &Tensor, b: Option<&Tensor>) -> Result<Tensor> {
    match b {
        None => Ok(a.zeros_like()?),
        Some(b) if a.is_contiguous() || a.rank() != 3 => Ok(numbers::times(a, b)?),
        Some(b) => by_pair(&numbers::times(&by_head(a)?, &by_head(b)?)?),
    }
}

/// Inner products along the last dimension, which goes; zero without a second operand.
pub fn dots(a: &Tensor, b: Option<&Tensor>) -> Result<Tensor> {
    match b {
        None => Ok(Tensor::zeros(&a.dims()[..a.rank() - 1], a.dtype(), a.device())?),
        Some(b) => Ok(numbers::dot_last(a, b)?),
    }
}

/// As [`dots`] of rows, `[T, 1]`.
pub fn dots_of_rows(a: &Tensor, b: Option<&Tensor>) -> Result<Tensor> {
    Ok(dots(a, b)?.unsqueeze(1)?)
}

/// Length of every row, `[T, 1]`.
pub fn norms(x: &Tensor) -> Result<Tensor> {
    Ok(numbers::dot_last(x, x)?.sqrt()?.unsqueeze(1)?)
}

/// The numbers for one index of the first dimension, row-major.
pub fn row_of(x: &Tensor, first: usize) -> Result<Vec<f32>> {
    Ok(x.get(first)?.flatten_all()?.to_vec1()?)
}

/// `[1, N]` as one of `tokens` rows, the others being zero.
pub fn at_token(row: &Tensor, token: usize, tokens: usize) -> Result<Tensor> {
    Ok(row.pad_with_zeros(0, token, tokens - token - 1)?)
}

/// Pairs of tokens with `key <= query`, row by row: `[T, T, H]` to `[T (T + 1) / 2, H]`.
pub fn flatten_pairs(x: &Tensor) -> Result<Tensor> {
    let (tokens, _, heads) = x.dims3()?;
    let x = by_head(x)?;
    let numbers = Numbers::of(&x)?;
    let mut out = Vec::with_capacity(heads * tokens * (tokens + 1) / 2);
    for (row, numbers) in numbers.data().chunks_exact(tokens).enumerate() {
        out.extend_from_slice(&numbers[..=row % tokens]);
    }
    Ok(tensor(&[heads, tokens * (tokens + 1) / 2], out).t()?)
}

/// Inner product in double precision: where thousands of terms nearly cancel, single precision would not do.
pub fn dot_in_double(a: &[f32], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * b).sum()
}
