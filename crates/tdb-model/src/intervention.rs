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
    fn range(self, len: usize) -> Range<usize> {
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
        let ranges: Vec<_> = self.indices.iter().zip(tensor.dims()).map(|(i, n)| i.range(*n)).collect();
        if ranges.iter().any(Range::is_empty) {
            return Ok(tensor.clone());
        }
        if !tensor.device().is_cpu() {
            let dims: Vec<usize> = ranges.iter().map(Range::len).collect();
            return tensor.slice_assign(&ranges, &Tensor::full(value, dims, tensor.device())?);
        }
        let numbers = Numbers::of(tensor)?;
        let mut data = numbers.to_row_major();
        for_each_index(&ranges, |index| {
            let at = index.iter().zip(tensor.dims()).fold(0, |at, (i, n)| at * n + i);
            data[at] = value;
        });
        Tensor::from_vec(data, tensor.dims(), tensor.device())
    }

    /// Whether the indices fit an array of these dimensions: as many, each in range.
    pub fn check(&self, dims: &[usize]) -> bool {
        self.indices.len() == dims.len()
            && self.indices.iter().zip(dims).all(|(index, n)| match index {
                Index::All => true,
                Index::At(i) => i < n,
            })
    }
}

/// Calls `f` with every index whose parts lie in these ranges, none of them empty.
fn for_each_index(ranges: &[Range<usize>], mut f: impl FnMut(&[usize])) {
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
