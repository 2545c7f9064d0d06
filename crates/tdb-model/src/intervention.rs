//! Setting activations or gradients to a value during a pass.

use std::ops::Range;

use crate::array::Array;
use crate::site::{Pass, Point, Site};

/// Which entries of one dimension are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Index {
    All,
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
    pub site: Site,
    /// `None`: every layer (or the site has none).
    pub layer: Option<usize>,
    pub pass: Pass,
    /// One entry per dimension of the site.
    pub indices: Vec<Index>,
    pub value: f32,
}

impl Intervention {
    /// Whether this one changes something at `point` in `pass`.
    pub fn applies(&self, point: Point, pass: Pass) -> bool {
        self.site == point.site && self.pass == pass && (self.layer.is_none() || self.layer == point.layer)
    }

    /// Calls `f` with the storage offset of every entry meant.
    ///
    /// # Panics
    /// If the number of indices is not that of dimensions or one is out of range; see [`Intervention::check`].
    pub fn for_each_offset(&self, array: &Array, mut f: impl FnMut(usize)) {
        assert_eq!(self.indices.len(), array.dims().len(), "indices of {:?}", self.site);
        let ranges: Vec<_> = self.indices.iter().zip(array.dims()).map(|(i, n)| i.range(*n)).collect();
        if ranges.iter().any(|r| r.is_empty()) {
            return;
        }
        let mut index: Vec<_> = ranges.iter().map(|r| r.start).collect();
        loop {
            f(array.offset(&index));
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

    /// Sets the entries meant to `value`.
    pub fn set(&self, array: &mut Array, value: f32) {
        let mut offsets = Vec::new();
        self.for_each_offset(array, |at| offsets.push(at));
        for at in offsets {
            array.data_mut()[at] = value;
        }
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
