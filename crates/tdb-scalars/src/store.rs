//! Derived scalars of a run, each computed once where memory allows.

use std::collections::HashMap;
use std::sync::Arc;

use rayon::prelude::*;
use tdb_api::{DerivedScalarType as Dst, PassType};
use tdb_model::Array;

use crate::compute;
use crate::error::{Error, Result};
use crate::side::Side;
use crate::top_k::{self, Entry};
use crate::values::{Values, wrap};

/// Bytes of computed values that one run may keep; what does not fit is computed again when needed.
const BUDGET: usize = 96 << 20;

type Key = (Dst, PassType, Option<usize>);

/// The values of a run by scalar and layer.
pub struct Store<'a, 'e> {
    side: &'a Side<'e>,
    kept: HashMap<Key, Arc<Values<'a>>>,
    bytes: usize,
}

/// What one derived scalar contributes to a list of nodes.
pub struct Extremes {
    pub top: Vec<Entry>,
    pub bottom: Vec<Entry>,
    /// Sum over layers and over the dimensions not kept.
    pub sum: Array,
}

impl<'a, 'e> Store<'a, 'e> {
    pub fn new(side: &'a Side<'e>) -> Self {
        Store { side, kept: HashMap::new(), bytes: 0 }
    }

    pub fn side(&self) -> &'a Side<'e> {
        self.side
    }

    /// One layer's values.
    ///
    /// # Errors
    /// See [`compute::values`].
    pub fn get(&mut self, dst: Dst, pass: PassType, layer: Option<usize>) -> Result<Arc<Values<'a>>> {
        if let Some(values) = self.kept.get(&(dst, pass, layer)) {
            return Ok(values.clone());
        }
        let values = Arc::new(compute::values(self.side, dst, pass, layer)?);
        self.keep((dst, pass, layer), values.clone());
        Ok(values)
    }

    fn keep(&mut self, key: Key, values: Arc<Values<'a>>) {
        let bytes = owned_bytes(&values);
        if self.bytes + bytes <= BUDGET {
            self.bytes += bytes;
            self.kept.insert(key, values);
        }
    }

    /// The `k` largest and smallest entries over all layers, and sums over all but the kept dimensions.
    /// `token` restricts the choice of entries (not the sums) to one index of the first dimension.
    ///
    /// # Errors
    /// See [`compute::values`]; also if a value is not finite.
    pub fn extremes(
        &mut self,
        dst: Dst,
        pass: PassType,
        k: usize,
        token: Option<i64>,
        keep: &[bool],
    ) -> Result<Extremes> {
        let side = self.side;
        let layers = side.layers(dst)?;
        let kept = &self.kept;
        let of_layer = |(position, layer): (usize, &Option<usize>)| -> Result<_> {
            let values = match kept.get(&(dst, pass, *layer)) {
                Some(values) => values.clone(),
                None => Arc::new(compute::values(side, dst, pass, *layer)?),
            };
            if side.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let found = match token {
                None => top_k::extremes(&values, position, k),
                Some(token) => {
                    let dims = values.dims();
                    let Some(first) = wrap(token, dims[0]) else {
                        return Err(Error::Bad(format!("tokenIndex is {token}, outside 0..{}", dims[0])));
                    };
                    let width: usize = dims[1..].iter().product();
                    let row = Values::dense(Array::from_vec(&[1, width], values.row(first)));
                    top_k::extremes(&row, position, k).map(|entries| {
                        entries.into_iter().map(|e| Entry { at: e.at + first * width, ..e }).collect::<Vec<_>>()
                    })
                }
            };
            if found.iter().flatten().any(|e| !e.value.is_finite()) {
                return Err(Error::Bad(format!(
                    "\"{dst}\" holds values that are not finite numbers (such as masked attention logits), which cannot be ranked"
                )));
            }
            let sum = sums(side, &values, dst, keep);
            Ok((values, found, sum))
        };
        let parts: Vec<_> = layers.par_iter().enumerate().map(of_layer).collect::<Result<_>>()?;
        let mut total: Option<Vec<f64>> = None;
        let mut dims = Vec::new();
        let (mut tops, mut bottoms) = (Vec::new(), Vec::new());
        for ((values, [top, bottom], sum), layer) in parts.into_iter().zip(&layers) {
            if !self.kept.contains_key(&(dst, pass, *layer)) {
                self.keep((dst, pass, *layer), values);
            }
            tops.push(top);
            bottoms.push(bottom);
            dims = sum.dims().to_vec();
            let total = total.get_or_insert_with(|| vec![0.0; sum.data().len()]);
            total.iter_mut().zip(sum.data()).for_each(|(total, x)| *total += f64::from(*x));
        }
        let total: Vec<f32> = total.unwrap_or_default().into_iter().map(|x| x as f32).collect();
        Ok(Extremes {
            top: top_k::merge(tops, k, true),
            bottom: top_k::merge(bottoms, k, false),
            sum: Array::from_vec(&dims, total),
        })
    }
}

/// Sums of one layer. Those of the logits over the vocabulary follow from the sum of the unembedding's rows, so that
/// no token's logits need to be computed for it.
fn sums(side: &Side<'_>, values: &Values<'_>, dst: Dst, keep: &[bool]) -> Array {
    if dst != Dst::Logits || keep[1] || !matches!(values, Values::Rows { .. }) || side.changes_logits() {
        return values.sum(keep);
    }
    let per_token =
        |t: usize| tdb_model::kernels::dot(side.forward.post_final_ln.row(t), side.engine.unembedding_sum());
    let sums: Vec<f32> = (0..side.tokens()).map(per_token).collect();
    match keep[0] {
        true => Array::from_vec(&[sums.len()], sums),
        false => Array::from_vec(&[], vec![sums.iter().sum()]),
    }
}

fn owned_bytes(values: &Values<'_>) -> usize {
    match values {
        Values::Dense(std::borrow::Cow::Owned(array)) => array.data().len() * 4,
        Values::Sparse(std::borrow::Cow::Owned(rows)) => rows.rows().iter().map(|row| row.len() * 8).sum(),
        _ => 0,
    }
}
