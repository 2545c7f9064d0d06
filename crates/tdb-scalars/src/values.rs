//! The values of a derived scalar in one layer, however they are best held.

use std::borrow::Cow;

use tdb_model::{Array, SparseRows, kernels};

/// The numbers of one row, for a token.
type RowFn<'a> = Box<dyn Fn(usize) -> Vec<f32> + Sync + Send + 'a>;

/// One layer's values of a derived scalar.
pub enum Values<'a> {
    Dense(Cow<'a, Array>),
    /// `[T, L]`, zero where nothing is listed.
    Sparse(Cow<'a, SparseRows>),
    /// Too large to be held at once: made token by token. `dims` includes the token's dimension.
    Rows {
        dims: Vec<usize>,
        row: RowFn<'a>,
    },
}

impl<'a> Values<'a> {
    pub fn dense(array: Array) -> Self {
        Values::Dense(Cow::Owned(array))
    }

    pub fn of(array: &'a Array) -> Self {
        Values::Dense(Cow::Borrowed(array))
    }

    pub fn dims(&self) -> Vec<usize> {
        match self {
            Values::Dense(array) => array.dims().to_vec(),
            Values::Sparse(rows) => vec![rows.len(), rows.width()],
            Values::Rows { dims, .. } => dims.clone(),
        }
    }

    /// Number of entries.
    pub fn size(&self) -> usize {
        self.dims().iter().product()
    }

    /// For reading single entries, those of one row after each other.
    pub fn entries(&self) -> Entries<'_, 'a> {
        Entries { values: self, row: None }
    }

    /// All entries for one index of the first dimension, row-major.
    pub fn row(&self, first: usize) -> Vec<f32> {
        match self {
            Values::Dense(array) if array.is_row_major() => array.row(first).to_vec(),
            Values::Dense(array) => {
                let inner = &array.dims()[1..];
                let mut out = Vec::with_capacity(inner.iter().product());
                let mut index = vec![0; array.dims().len()];
                index[0] = first;
                for at in 0..out.capacity() {
                    unflatten(at, inner, &mut index[1..]);
                    out.push(array.at(&index));
                }
                out
            }
            Values::Sparse(rows) => {
                let mut out = vec![0.0; rows.width()];
                for &(index, value) in rows.row(first) {
                    out[index as usize] = value;
                }
                out
            }
            Values::Rows { row, .. } => row(first),
        }
    }

    /// Calls `f(flat index, value)` for entries in any order: all of them, or for sparse values the listed
    /// ones. Returns whether some were left out (they are zero).
    pub fn for_each(&self, mut f: impl FnMut(usize, f32)) -> bool {
        match self {
            Values::Dense(array) if array.is_row_major() => {
                array.data().iter().enumerate().for_each(|(i, x)| f(i, *x));
                false
            }
            Values::Dense(array) => {
                // Head by head, as it lies in memory: [queries, keys, heads].
                let (queries, keys, heads) = (array.dims()[0], array.dims()[1], array.dims()[2]);
                for head in 0..heads {
                    for query in 0..queries {
                        let start = array.offset(&[query, 0, head]);
                        for (key, x) in array.data()[start..start + keys].iter().enumerate() {
                            f((query * keys + key) * heads + head, *x);
                        }
                    }
                }
                false
            }
            Values::Sparse(rows) => {
                let mut listed = 0;
                for (token, row) in rows.rows().iter().enumerate() {
                    listed += row.len();
                    row.iter().for_each(|&(i, x)| f(token * rows.width() + i as usize, x));
                }
                listed < rows.len() * rows.width()
            }
            Values::Rows { dims, row } => {
                let width: usize = dims[1..].iter().product();
                for first in 0..dims[0] {
                    row(first).into_iter().enumerate().for_each(|(i, x)| f(first * width + i, x));
                }
                false
            }
        }
    }

    /// Sums over all dimensions but those for which `keep` is true; the result has one dimension per kept one.
    pub fn sum(&self, keep: &[bool]) -> Array {
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
        // Thousands of terms of either sign: single precision would lose what the tolerance asks for.
        let mut sums = vec![0.0f64; stride];
        match self {
            Values::Dense(array) if array.is_row_major() => add_runs(&mut sums, array.data(), &dims, &strides),
            Values::Dense(array) => {
                // As it lies in memory: head by head.
                let head_first = |of: &[usize]| [of[2], of[0], of[1]];
                add_runs(&mut sums, array.data(), &head_first(&dims), &head_first(&strides));
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
                    add_runs(&mut sums[first * strides[0]..], &row(first), &dims[1..], &strides[1..]);
                }
            }
        }
        Array::from_vec(&kept, sums.into_iter().map(|x| x as f32).collect())
    }

    /// Whether every entry is a finite number.
    pub fn all_finite(&self) -> bool {
        let mut finite = true;
        self.for_each(|_, x| finite &= x.is_finite());
        finite
    }
}

/// Single entries of values. Of those that are made row by row the last row is kept.
pub struct Entries<'v, 'a> {
    values: &'v Values<'a>,
    row: Option<(usize, Vec<f32>)>,
}

impl Entries<'_, '_> {
    /// The entry at `index`, one number per dimension.
    pub fn at(&mut self, index: &[usize]) -> f32 {
        match self.values {
            Values::Dense(array) => array.at(index),
            Values::Sparse(rows) => rows.get(index[0], index[1]),
            Values::Rows { dims, row } => {
                let kept = self.row.take().filter(|(first, _)| *first == index[0]);
                let (_, numbers) = self.row.insert(kept.unwrap_or_else(|| (index[0], row(index[0]))));
                numbers[flat(&index[1..], &dims[1..])]
            }
        }
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
            0 => sums[first] += kernels::sum_in_double(run),
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

    #[test]
    fn sums_are_those_of_the_entries_however_they_lie() {
        let numbers: Vec<f32> = (0..3 * 4 * 5).map(|i| ((i * 37) % 23) as f32 - 11.0).collect();
        let dense = Values::dense(Array::from_vec(&[3, 4, 5], numbers.clone()));
        let head_major = Values::dense(Array::head_major(3, 4, 5, numbers.clone()));
        let row = |first: usize| numbers[first * 20..][..20].to_vec();
        let rows = Values::Rows { dims: vec![3, 4, 5], row: Box::new(row) };
        for values in [&dense, &head_major, &rows] {
            let mut entries = values.entries();
            for keep in (0..8).map(|bits| [bits & 1 > 0, bits & 2 > 0, bits & 4 > 0]) {
                let found = values.sum(&keep);
                let mut expected = Array::zeros(found.dims());
                for at in 0..60 {
                    let mut index = [0; 3];
                    unflatten(at, &[3, 4, 5], &mut index);
                    let kept: Vec<usize> = (0..3).filter(|d| keep[*d]).map(|d| index[d]).collect();
                    let place = flat(&kept, found.dims());
                    expected.data_mut()[place] += entries.at(&index);
                }
                assert_eq!(found.data(), expected.data(), "{keep:?}");
            }
        }
    }
}
