//! Setting activations or gradients to a value during a pass.

use std::ops::Range;

use candle_core::Tensor;

use crate::numbers::Numbers;
use crate::site::{Pass, Point, Site};

/// Which entries of one dimension are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Index {
    /// Every one.
    All,
    /// One, counted from 0.
    At(usize),
}

impl Index {
    pub(crate) fn range(self, len: usize) -> Range<usize> {
        match self {
            Index::All => 0..len,
            Index::At(i) => i..i + 1,
        }
    }
}

/// "Set these indices of this site to a value, in this pass."
///
/// In the forward pass everything later is computed from the changed value, and no gradient flows to
/// what the overwritten entries came from. In the backward pass the gradient at these entries is
/// replaced before it flows on; the gradient that a reader of the run sees is the one before. Of several
/// in a list that set the same entry, the last wins in the forward pass and the first in the backward pass.
#[derive(Clone, Debug, PartialEq)]
pub struct Intervention {
    /// What is set.
    pub site: Site,
    /// `None`: every layer (or the site has none).
    pub layer: Option<usize>,
    /// Activations or gradients.
    pub pass: Pass,
    /// One entry per dimension of the site.
    pub indices: Vec<Index>,
    /// What the entries meant become.
    pub value: f32,
}

impl Intervention {
    /// Whether this one changes something at `point` in `pass`.
    pub fn applies(&self, point: Point, pass: Pass) -> bool {
        self.site == point.site && self.pass == pass && (self.layer.is_none() || self.layer == point.layer)
    }

    /// The tensor with the entries meant set to `value`.
    ///
    /// # Errors
    /// If the tensor's device fails.
    ///
    /// # Panics
    /// If the number of indices is not that of dimensions or one is out of range; see [`Intervention::check`].
    pub fn set(&self, tensor: &Tensor, value: f32) -> candle_core::Result<Tensor> {
        assert_eq!(self.indices.len(), tensor.rank(), "indices of {:?}", self.site);
        if !tensor.device().is_cpu() {
            let ranges = ranges(&self.indices, tensor.dims());
            if ranges.iter().any(Range::is_empty) {
                return Ok(tensor.clone());
            }
            let dims: Vec<usize> = ranges.iter().map(Range::len).collect();
            return tensor.slice_assign(&ranges, &Tensor::full(value, dims, tensor.device())?);
        }
        let mut data = Numbers::of(tensor)?.to_row_major();
        set_entries(&mut data, tensor.dims(), &self.indices, |_| value);
        Tensor::from_vec(data, tensor.dims(), tensor.device())
    }

    /// The same one for a run of the tokens from `past` on, of which there are `tokens`; `None` if it means another
    /// token, a key that comes later, or the backward pass.
    pub(crate) fn within(&self, past: usize, tokens: usize) -> Option<Self> {
        if self.pass != Pass::Forward {
            return None;
        }
        let indices = indices_within(self.site, &self.indices, past, tokens)?;
        Some(Intervention { indices, ..self.clone() })
    }

    /// Whether the indices fit an array of these dimensions: as many, each in range.
    pub fn check(&self, dims: &[usize]) -> bool {
        fit(&self.indices, dims)
    }
}

/// Whether there are as many indices as dimensions, each in range.
pub(crate) fn fit(indices: &[Index], dims: &[usize]) -> bool {
    indices.len() == dims.len()
        && indices.iter().zip(dims).all(|(index, n)| match index {
            Index::All => true,
            Index::At(i) => i < n,
        })
}

/// Along each dimension, what an index means.
pub(crate) fn ranges(indices: &[Index], dims: &[usize]) -> Vec<Range<usize>> {
    indices.iter().zip(dims).map(|(index, n)| index.range(*n)).collect()
}

/// Sets the `n`-th of the entries meant, in row-major order, to `value(n)`; `data` has dimensions `dims`, row-major.
pub(crate) fn set_entries(data: &mut [f32], dims: &[usize], indices: &[Index], value: impl Fn(usize) -> f32) {
    let mut n = 0;
    for_each_index(&ranges(indices, dims), |index| {
        data[index.iter().zip(dims).fold(0, |at, (i, n)| at * n + i)] = value(n);
        n += 1;
    });
}

/// The indices of an activation counted from token `past` on, where there are `tokens` more; `None` if they mean another
/// token, or a key that comes later.
pub(crate) fn indices_within(site: Site, indices: &[Index], past: usize, tokens: usize) -> Option<Vec<Index>> {
    let mut indices = indices.to_vec();
    if let Index::At(token) = indices[0] {
        indices[0] = Index::At(token.checked_sub(past).filter(|t| *t < tokens)?);
    }
    let is_pair = matches!(site, Site::AttnQkLogits | Site::AttnQkProbs);
    match indices.get(1) {
        Some(Index::At(key)) if is_pair && *key >= past + tokens => None,
        _ => Some(indices),
    }
}

/// Calls `f` with every index whose parts lie in these ranges.
fn for_each_index(ranges: &[Range<usize>], mut f: impl FnMut(&[usize])) {
    if ranges.iter().any(Range::is_empty) {
        return;
    }
    let mut index: Vec<_> = ranges.iter().map(|r| r.start).collect();
    loop {
        f(&index);
        let mut d = index.len();
        loop {
            if d == 0 {
                return;
            }
            d -= 1;
            index[d] += 1;
            if index[d] < ranges[d].end {
                break;
            }
            index[d] = ranges[d].start;
        }
    }
}

/// The first layer that any of the forward interventions reaches; the number of layers if none does.
pub fn first_layer_reached(interventions: &[Intervention], n_layers: usize) -> usize {
    let forward = interventions.iter().filter(|i| i.pass == Pass::Forward);
    let reached = forward.map(|i| match i.site {
        Site::ResidPostEmb => 0,
        site if site.has_layers() => i.layer.unwrap_or(0),
        _ => n_layers,
    });
    reached.min().unwrap_or(n_layers).min(n_layers)
}
