//! The strongest pairs of two long lists of vectors, found without forming all products.

use tdb_model::numbers::{dot, products};
use tdb_model::parallel;

use crate::error::{Error, Result};

/// Rows of a block.
const BLOCK: usize = 512;
/// Pairs of blocks that are computed before the next ones are chosen.
const TOGETHER: usize = 16;

/// What counts as strong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strength {
    /// A large value.
    Value,
    /// A large magnitude.
    Magnitude,
}

impl Strength {
    fn of(self, value: f32) -> f32 {
        match self {
            Self::Value => value,
            Self::Magnitude => value.abs(),
        }
    }
}

/// Row of the first list, row of the second, their product.
pub type Pair = (usize, usize, f32);

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Strongest {
    /// Strongest first; equal ones by their rows.
    pub pairs: Vec<Pair>,
    /// No pair that was not looked at is stronger than this; `None` if none of them is among the strongest.
    pub unseen_at_most: Option<f32>,
}

/// The `count` strongest products of a row of `a` and a row of `b`, both row-major with rows of `width`.
///
/// Rows are taken by descending length. A product is at most the product of the lengths, so that most pairs need not be
/// formed; `budget` is how many multiplications are made at most.
///
/// # Errors
/// [`Error::Cancelled`] if `goes_on` says no.
pub fn strongest(
    [a, b]: [&[f32]; 2],
    width: usize,
    (count, strength): (usize, Strength),
    budget: u64,
    goes_on: &dyn Fn() -> bool,
) -> Result<Strongest> {
    let (a, b) = (Rows::new(a, width), Rows::new(b, width));
    let mut blocks: Vec<(usize, usize, f32)> = Vec::new();
    for (i, x) in a.lengths.iter().step_by(BLOCK).enumerate() {
        blocks.extend(b.lengths.iter().step_by(BLOCK).enumerate().map(|(j, y)| (i, j, x * y)));
    }
    blocks.sort_by(|x, y| y.2.total_cmp(&x.2).then((x.0, x.1).cmp(&(y.0, y.1))));
    let mut pairs: Vec<Pair> = Vec::new();
    let order = |x: &Pair, y: &Pair| strength.of(y.2).total_cmp(&strength.of(x.2)).then((x.0, x.1).cmp(&(y.0, y.1)));
    let mut made = 0;
    for blocks in blocks.chunks(TOGETHER) {
        let weakest = if pairs.len() < count { f32::NEG_INFINITY } else { strength.of(pairs[count - 1].2) };
        // A product in single precision may be a little above the product of the lengths.
        let bound = blocks[0].2 * 1.0001;
        if bound < weakest {
            break;
        }
        if made >= budget {
            pairs.truncate(count);
            return Ok(Strongest { pairs, unseen_at_most: Some(bound) });
        }
        if !goes_on() {
            return Err(Error::Cancelled);
        }
        let found = parallel::map(blocks.len(), |block| {
            let (i, j, _) = blocks[block];
            let mut found = a.products(&b, (i, j), (weakest, strength));
            if found.len() > count {
                found.select_nth_unstable_by(count, order);
                found.truncate(count);
            }
            found
        });
        pairs.extend(found.into_iter().flatten());
        pairs.sort_by(order);
        pairs.truncate(count);
        made += (blocks.len() * BLOCK * BLOCK * width) as u64;
    }
    Ok(Strongest { pairs, unseen_at_most: None })
}

/// Rows by descending length.
struct Rows<'a> {
    all: &'a [f32],
    width: usize,
    order: Vec<usize>,
    lengths: Vec<f32>,
}

impl<'a> Rows<'a> {
    fn new(all: &'a [f32], width: usize) -> Self {
        let length = |row: &[f32]| dot(row, row).sqrt();
        let lengths: Vec<f32> = all.chunks_exact(width).map(length).collect();
        let mut order: Vec<usize> = (0..lengths.len()).collect();
        order.sort_by(|x, y| lengths[*y].total_cmp(&lengths[*x]).then(x.cmp(y)));
        let lengths = order.iter().map(|row| lengths[*row]).collect();
        Self { all, width, order, lengths }
    }

    fn block(&self, block: usize) -> (&[usize], Vec<f32>) {
        let rows = &self.order[block * BLOCK..self.order.len().min((block + 1) * BLOCK)];
        (rows, rows.iter().flat_map(|row| &self.all[row * self.width..(row + 1) * self.width]).copied().collect())
    }

    /// The products of two blocks that are at least as strong as the weakest that is kept.
    fn products(&self, other: &Self, (i, j): (usize, usize), (weakest, strength): (f32, Strength)) -> Vec<Pair> {
        let ((rows, a), (columns, b)) = (self.block(i), other.block(j));
        let products = products(&a, &b, self.width, false);
        let of_row = rows.iter().zip(products.chunks_exact(columns.len()));
        let pairs = of_row.flat_map(|(row, values)| columns.iter().zip(values).map(|(column, x)| (*row, *column, *x)));
        pairs.filter(|pair| strength.of(pair.2) >= weakest).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `rows` rows of 6 numbers, some of them long.
    fn list(rows: usize, mut state: u64) -> Vec<f32> {
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        let row = |_: usize| {
            let length = 1.0 + 9.0 * next().abs().powi(12);
            std::array::from_fn::<f32, 6, _>(|_| length * next())
        };
        (0..rows).flat_map(row).collect()
    }

    #[test]
    fn the_strongest_of_all_products_are_found() {
        let (a, b) = (list(1300, 1), list(1100, 2));
        for strength in [Strength::Value, Strength::Magnitude] {
            let mut all: Vec<Pair> = Vec::new();
            for (i, x) in a.chunks_exact(6).enumerate() {
                all.extend(b.chunks_exact(6).enumerate().map(|(j, y)| (i, j, dot(x, y))));
            }
            all.sort_by(|x, y| strength.of(y.2).total_cmp(&strength.of(x.2)));
            let found = strongest([&a, &b], 6, (25, strength), u64::MAX, &|| true).unwrap();
            assert_eq!((found.pairs.len(), found.unseen_at_most), (25, None));
            for (found, expected) in found.pairs.iter().zip(&all) {
                assert!((found.2 - expected.2).abs() < 1e-5, "{found:?} {expected:?}");
            }
        }
    }

    #[test]
    fn what_a_budget_leaves_unseen_is_bounded_and_cancelling_stops() {
        // Of length 1 each, so that no pair can be left out by the lengths.
        let unit = |mut rows: Vec<f32>| {
            for row in rows.chunks_exact_mut(6) {
                let length = dot(row, row).sqrt();
                row.iter_mut().for_each(|x| *x /= length);
            }
            rows
        };
        let (a, b) = (unit(list(5000, 3)), unit(list(5000, 4)));
        let few = strongest([&a, &b], 6, (5, Strength::Value), 1, &|| true).unwrap();
        let all = strongest([&a, &b], 6, (5, Strength::Value), u64::MAX, &|| true).unwrap();
        let bound = few.unseen_at_most.unwrap();
        for pair in &all.pairs {
            assert!(few.pairs.contains(pair) || pair.2 <= bound, "{pair:?} {bound}");
        }
        let stopped = strongest([&a, &b], 6, (5, Strength::Value), u64::MAX, &|| false);
        assert!(matches!(stopped, Err(Error::Cancelled)));
    }

    #[test]
    fn short_lists_have_few_pairs() {
        let found = strongest([&[1.0, 2.0], &[3.0]], 1, (9, Strength::Value), u64::MAX, &|| true).unwrap();
        assert_eq!(found.pairs, [(1, 0, 6.0), (0, 0, 3.0)]);
        assert!(strongest([&[], &[3.0]], 1, (9, Strength::Value), 9, &|| true).unwrap().pairs.is_empty());
    }
}
