//! The largest and the smallest of very many numbers, without sorting them.

use std::cmp::Ordering;

use tdb_model::numbers::wide;

use crate::error::Result;
use crate::values::Values;

/// An entry of a derived scalar: its layer's position among the layers asked, its flat index there, its value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Entry {
    pub layer: usize,
    pub at: usize,
    pub value: f32,
}

/// Largest (or smallest) first; equal ones in the order of layer and index, so that every choice is reproducible.
fn order(a: &Entry, b: &Entry, largest: bool) -> Ordering {
    let by_value = match largest {
        true => b.value.partial_cmp(&a.value),
        false => a.value.partial_cmp(&b.value),
    };
    by_value.unwrap_or(Ordering::Equal).then(a.layer.cmp(&b.layer)).then(a.at.cmp(&b.at))
}

/// Collects the `k` first entries by [`order`].
struct Collector {
    k: usize,
    largest: bool,
    entries: Vec<Entry>,
    /// What comes behind this value at this place cannot be among the first `k`.
    bound: (f32, usize),
}

impl Collector {
    fn new(k: usize, largest: bool) -> Self {
        let bound = if largest { f32::NEG_INFINITY } else { f32::INFINITY };
        Collector { k, largest, entries: Vec::new(), bound: (bound, usize::MAX) }
    }

    /// Numbers at `first` or behind it that are smaller than this one (larger, where the smallest are collected) cannot be
    /// among the first `k`.
    fn worse_than(&self, first: usize) -> f32 {
        // Equal numbers are ordered by their places: of thousands of zeros all but the first are passed over.
        match (first > self.bound.1, self.largest) {
            (false, _) => self.bound.0,
            (true, true) => self.bound.0.next_up(),
            (true, false) => self.bound.0.next_down(),
        }
    }

    fn offer(&mut self, entry: Entry) {
        let bound = self.worse_than(entry.at);
        let is_worse = if self.largest { entry.value < bound } else { entry.value > bound };
        if is_worse {
            return;
        }
        self.entries.push(entry);
        if self.entries.len() >= 2 * self.k + 256 {
            self.prune();
        }
    }

    fn prune(&mut self) {
        if self.entries.len() > self.k {
            let largest = self.largest;
            let (_, last, _) = self.entries.select_nth_unstable_by(self.k - 1, |a, b| order(a, b, largest));
            self.bound = (last.value, last.at);
            self.entries.truncate(self.k);
        }
    }

    fn finish(mut self) -> Vec<Entry> {
        self.prune();
        let largest = self.largest;
        self.entries.sort_unstable_by(|a, b| order(a, b, largest));
        self.entries
    }
}

/// The `k` largest and the `k` smallest entries of one layer's values, best first each.
///
/// # Errors
/// If the values cannot be computed.
pub fn extremes(values: &Values<'_>, layer: usize, k: usize) -> Result<[Vec<Entry>; 2]> {
    /// So many numbers are passed over at once where none of them can be among the first.
    const BLOCK: usize = 64;
    let (mut top, mut bottom) = (Collector::new(k, true), Collector::new(k, false));
    let mut listed = Vec::new();
    let is_sparse = matches!(values, Values::Sparse(_));
    let zeros_left_out = values.for_each_run(|first, step, run| {
        if is_sparse {
            listed.extend((0..run.len()).map(|i| first + i * step));
        }
        for (block, numbers) in run.chunks(BLOCK).enumerate() {
            let first = first + block * BLOCK * step;
            let (below, above) = (top.worse_than(first), bottom.worse_than(first));
            if wide(|| numbers.iter().fold(true, |all, x| all & (*x < below) & (*x > above))) {
                continue;
            }
            for (i, &value) in numbers.iter().enumerate() {
                let at = first + i * step;
                top.offer(Entry { layer, at, value });
                bottom.offer(Entry { layer, at, value });
            }
        }
    })?;
    if zeros_left_out {
        // The first k of the entries that are not listed; more of these zeros cannot matter.
        let mut listed = listed.into_iter().peekable();
        let mut offered = 0;
        for at in 0..values.size() {
            if offered == k {
                break;
            }
            if listed.peek() == Some(&at) {
                listed.next();
                continue;
            }
            top.offer(Entry { layer, at, value: 0.0 });
            bottom.offer(Entry { layer, at, value: 0.0 });
            offered += 1;
        }
    }
    Ok([top.finish(), bottom.finish()])
}

/// The `k` first of several lists that are each sorted already.
pub fn merge(lists: impl IntoIterator<Item = Vec<Entry>>, k: usize, largest: bool) -> Vec<Entry> {
    let mut all: Vec<Entry> = lists.into_iter().flatten().collect();
    all.sort_by(|a, b| order(a, b, largest));
    all.truncate(k);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::borrow::Cow;
    use tdb_model::SparseRows;
    use tdb_model::numbers::tensor;

    #[test]
    fn finds_the_extremes_of_dense_values() -> Result<()> {
        let numbers: Vec<f32> = (0..5000).map(|i| ((i * 7919) % 5000) as f32).collect();
        let [top, bottom] = extremes(&Values::Dense(tensor(&[50, 100], numbers)), 3, 5)?;
        assert_eq!(top.iter().map(|e| e.value).collect::<Vec<_>>(), [4999.0, 4998.0, 4997.0, 4996.0, 4995.0]);
        assert_eq!(bottom.iter().map(|e| e.value).collect::<Vec<_>>(), [0.0, 1.0, 2.0, 3.0, 4.0]);
        assert!(top.iter().all(|e| e.layer == 3));
        Ok(())
    }

    #[test]
    fn of_equal_numbers_the_first_are_found_wherever_they_lie() -> Result<()> {
        let numbers: Vec<f32> = (0..6000).map(|i| [0.0, 1.0, 0.0, -1.0][(i / 700) % 4]).collect();
        let dense = tensor(&[60, 100], numbers.clone());
        // Transposed, the numbers lie in another order than their places.
        let turned = tensor(&[100, 60], (0..6000).map(|i| numbers[(i % 60) * 100 + i / 60]).collect()).t()?;
        for values in [dense, turned] {
            let [top, bottom] = extremes(&Values::Dense(values), 0, 4)?;
            assert_eq!(
                top.iter().map(|e| (e.at, e.value)).collect::<Vec<_>>(),
                [700, 701, 702, 703].map(|at| (at, 1.0))
            );
            assert_eq!(bottom.iter().map(|e| e.at).collect::<Vec<_>>(), [2100, 2101, 2102, 2103]);
        }
        Ok(())
    }

    #[test]
    fn zeros_that_are_not_listed_take_part() -> Result<()> {
        let rows = SparseRows::new(4, vec![vec![(0, 2.0)], vec![(1, 1.0), (3, -1.0)]]);
        let [top, bottom] = extremes(&Values::Sparse(Cow::Owned(rows)), 0, 4)?;
        assert_eq!(top.iter().map(|e| (e.at, e.value)).collect::<Vec<_>>(), [(0, 2.0), (5, 1.0), (1, 0.0), (2, 0.0)]);
        assert_eq!(bottom[0], Entry { layer: 0, at: 7, value: -1.0 });
        assert_eq!(bottom.len(), 4);
        Ok(())
    }

    #[test]
    fn equal_values_come_in_order() -> Result<()> {
        let [top, _] = extremes(&Values::Dense(tensor(&[1, 600], vec![1.0; 600])), 0, 3)?;
        assert_eq!(top.iter().map(|e| e.at).collect::<Vec<_>>(), [0, 1, 2]);
        Ok(())
    }
}
