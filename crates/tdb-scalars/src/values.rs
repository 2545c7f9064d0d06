//! The values of a derived scalar in one layer, however they are best held.

use std::borrow::Cow;
use std::cmp::Reverse;

use candle_core::Tensor;
use tdb_model::SparseRows;
use tdb_model::numbers::{Numbers, sum_in_double};

use crate::error::Result;
use crate::tensors::row_of;

/// The numbers of one row, for a token.
type RowFn<'a> = Box<dyn Fn(usize) -> Result<Vec<f32>> + Sync + Send + 'a>;

/// One layer's values of a derived scalar.
pub enum Values<'a> {
    Dense(Tensor),
    /// `[T, L]`, zero where nothing is listed.
    Sparse(Cow<'a, SparseRows>),
    /// Too large to be held at once: made token by token. `dims` includes the token's dimension.
    Rows {
        dims: Vec<usize>,
        row: RowFn<'a>,
    },
}

/// Sums of values over some of their dimensions, row-major. Thousands of terms of either sign are added: single
/// precision would lose what the tolerance asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Sums {
    pub dims: Vec<usize>,
    pub data: Vec<f64>,
}

impl<'a> Values<'a> {
    pub fn dims(&self) -> Vec<usize> {
        match self {
            Values::Dense(tensor) => tensor.dims().to_vec(),
            Values::Sparse(rows) => vec![rows.len(), rows.width()],
            Values::Rows { dims, .. } => dims.clone(),
        }
    }

    /// Number of entries.
    pub fn size(&self) -> usize {
        self.dims().iter().product()
    }

    /// For reading single entries, those of one row after each other.
    ///
    /// # Errors
    /// If the numbers cannot be had from the device.
    pub fn entries(&self) -> Result<Entries<'_, 'a>> {
        let dense = match self {
            Values::Dense(tensor) => Some(Numbers::of(tensor)?),
            _ => None,
        };
        Ok(Entries { values: self, dense, row: None })
    }

    /// All entries for one index of the first dimension, row-major.
    ///
    /// # Errors
    /// If they cannot be computed.
    pub fn row(&self, first: usize) -> Result<Vec<f32>> {
        match self {
            Values::Dense(tensor) => row_of(tensor, first),
            Values::Sparse(rows) => {
                let mut out = vec![0.0; rows.width()];
                for &(index, value) in rows.row(first) {
                    out[index as usize] = value;
                }
                Ok(out)
            }
            Values::Rows { row, .. } => row(first),
        }
    }

    /// Calls `f(flat index of the first, distance of indices, numbers)` for runs of entries in any order: all of them,
    /// or for sparse values the listed ones, each a run of its own. Returns whether some were left out (they are zero).
    ///
    /// # Errors
    /// If they cannot be computed.
    pub fn for_each_run(&self, mut f: impl FnMut(usize, usize, &[f32])) -> Result<bool> {
        match self {
            Values::Dense(tensor) => {
                let numbers = Numbers::of(tensor)?;
                runs_as_they_lie(&numbers, f);
                Ok(false)
            }
            Values::Sparse(rows) => {
                let mut listed = 0;
                for (token, row) in rows.rows().iter().enumerate() {
                    listed += row.len();
                    row.iter().for_each(|(i, x)| f(token * rows.width() + *i as usize, 1, std::slice::from_ref(x)));
                }
                Ok(listed < rows.len() * rows.width())
            }
            Values::Rows { dims, row } => {
                let width: usize = dims[1..].iter().product();
                for first in 0..dims[0] {
                    f(first * width, 1, &row(first)?);
                }
                Ok(false)
            }
        }
    }

    /// Sums over all dimensions but those for which `keep` is true; the result has one dimension per kept one.
    ///
    /// # Errors
    /// If the values cannot be computed.
    pub fn sum(&self, keep: &[bool]) -> Result<Sums> {
        let dims = self.dims();
        let kept: Vec<usize> = dims.iter().zip(keep).filter(|(_, keep)| **keep).map(|(n, _)| *n).collect();
        let mut strides = vec![0; dims.len()];
        let mut stride = 1;
        for d in (0..dims.len()).rev() {
            if keep[d] {
                strides[d] = stride;
                stride *= dims[d];
            }
        }
        let mut sums = vec![0.0f64; stride];
        match self {
            Values::Dense(tensor) => {
                let numbers = Numbers::of(tensor)?;
                let order = outermost_first(&numbers);
                let pick = |of: &[usize]| order.iter().map(|d| of[*d]).collect::<Vec<_>>();
                add_runs(&mut sums, numbers.data(), &pick(&dims), &pick(&strides));
            }
            Values::Sparse(rows) => {
                for (token, row) in rows.rows().iter().enumerate() {
                    for &(index, x) in row {
                        sums[token * strides[0] + index as usize * strides[1]] += f64::from(x);
                    }
                }
            }
            Values::Rows { row, .. } => {
                for first in 0..dims[0] {
                    add_runs(&mut sums[first * strides[0]..], &row(first)?, &dims[1..], &strides[1..]);
                }
            }
        }
        Ok(Sums { dims: kept, data: sums })
    }
}

/// Single entries of values. Of those that are made row by row the last row is kept.
pub struct Entries<'v, 'a> {
    values: &'v Values<'a>,
    dense: Option<Numbers<'v>>,
    row: Option<(usize, Vec<f32>)>,
}

impl Entries<'_, '_> {
    /// The entry at `index`, one number per dimension.
    ///
    /// # Errors
    /// If it cannot be computed.
    pub fn at(&mut self, index: &[usize]) -> Result<f32> {
        if let Some(numbers) = &self.dense {
            return Ok(numbers.at(index));
        }
        if let Values::Sparse(rows) = self.values {
            return Ok(rows.get(index[0], index[1]));
        }
        let row = match self.row.take().filter(|(first, _)| *first == index[0]) {
            Some((_, row)) => row,
            None => self.values.row(index[0])?,
        };
        let (_, row) = self.row.insert((index[0], row));
        Ok(row[flat(&index[1..], &self.values.dims()[1..])])
    }
}

/// The dimensions from that whose entries lie farthest apart to that whose entries lie side by side.
fn outermost_first(numbers: &Numbers<'_>) -> Vec<usize> {
    let mut order: Vec<usize> = (0..numbers.dims().len()).collect();
    order.sort_by_key(|d| (numbers.dims()[*d] != 1, Reverse(numbers.strides()[*d])));
    order
}

/// Calls `f(row-major index of the first, distance of indices, numbers)` for all entries, as they lie in memory.
fn runs_as_they_lie(numbers: &Numbers<'_>, mut f: impl FnMut(usize, usize, &[f32])) {
    let (dims, order) = (numbers.dims(), outermost_first(numbers));
    let Some((inner, outer)) = order.split_last() else { return };
    let step = |d: usize| dims[d + 1..].iter().product::<usize>();
    let (outer_dims, outer_steps): (Vec<usize>, Vec<usize>) = outer.iter().map(|d| (dims[*d], step(*d))).unzip();
    let (step, mut index) = (step(*inner), vec![0; outer.len()]);
    for (at, run) in numbers.data().chunks_exact(dims[*inner].max(1)).enumerate() {
        unflatten(at, &outer_dims, &mut index);
        let first: usize = index.iter().zip(&outer_steps).map(|(i, step)| i * step).sum();
        f(first, step, run);
    }
}

/// Adds each number to the sum that `strides` give for its index; those of dimensions that are summed over are 0.
/// Numbers that lie side by side are taken together: into one sum, or each into its own.
fn add_runs(sums: &mut [f64], data: &[f32], dims: &[usize], strides: &[usize]) {
    let step = strides.last().copied().unwrap_or(0);
    let inner = match step {
        0 => strides.iter().rev().take_while(|stride| **stride == 0).count(),
        _ => 1,
    };
    let (outer, inner) = dims.split_at(dims.len() - inner);
    let mut index = vec![0; outer.len()];
    for (at, run) in data.chunks_exact(inner.iter().product::<usize>().max(1)).enumerate() {
        unflatten(at, outer, &mut index);
        let first: usize = index.iter().zip(strides).map(|(i, stride)| i * stride).sum();
        match step {
            0 => sums[first] += sum_in_double(run),
            _ => sums[first..].iter_mut().step_by(step).zip(run).for_each(|(sum, x)| *sum += f64::from(*x)),
        }
    }
}

/// Row-major offset of an index.
pub fn flat(index: &[usize], dims: &[usize]) -> usize {
    index.iter().zip(dims).fold(0, |at, (i, n)| at * n + i)
}

/// Inverse of [`flat`].
pub fn unflatten(mut at: usize, dims: &[usize], index: &mut [usize]) {
    for d in (0..dims.len()).rev() {
        index[d] = at % dims[d];
        at /= dims[d];
    }
}

/// An index that may count from the end, as -1 for the last; `None` if it is out of range.
pub fn wrap(index: i64, len: usize) -> Option<usize> {
    let at = if index < 0 { index + len as i64 } else { index };
    usize::try_from(at).ok().filter(|at| *at < len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tdb_model::numbers::{head_major, tensor};

    #[test]
    fn sums_are_those_of_the_entries_however_they_lie() -> Result<()> {
        let numbers: Vec<f32> = (0..3 * 4 * 5).map(|i| ((i * 37) % 23) as f32 - 11.0).collect();
        let dense = Values::Dense(tensor(&[3, 4, 5], numbers.clone()));
        let by_head = Values::Dense(head_major(3, 4, 5, numbers.clone()));
        let transposed = Values::Dense(tensor(&[5, 4, 3], numbers.clone()).permute((2, 1, 0))?);
        let row = |first: usize| Ok(numbers[first * 20..][..20].to_vec());
        let rows = Values::Rows { dims: vec![3, 4, 5], row: Box::new(row) };
        for values in [&dense, &by_head, &transposed, &rows] {
            let mut entries = values.entries()?;
            let mut listed = vec![f32::NAN; 60];
            values.for_each_run(|first, step, run| {
                run.iter().enumerate().for_each(|(i, x)| listed[first + i * step] = *x);
            })?;
            for keep in (0..8).map(|bits| [bits & 1 > 0, bits & 2 > 0, bits & 4 > 0]) {
                let found = values.sum(&keep)?;
                let mut expected = vec![0.0; found.data.len()];
                for (at, listed) in listed.iter().enumerate() {
                    let mut index = [0; 3];
                    unflatten(at, &[3, 4, 5], &mut index);
                    assert_eq!(entries.at(&index)?, *listed);
                    let kept: Vec<usize> = (0..3).filter(|d| keep[*d]).map(|d| index[d]).collect();
                    expected[flat(&kept, &found.dims)] += f64::from(*listed);
                }
                assert_eq!(found.data, expected, "{keep:?}");
            }
        }
        Ok(())
    }
}
