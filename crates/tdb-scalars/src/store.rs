//! Derived scalars of a run, each computed once where memory allows.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use tdb_api::{DerivedScalarType as Dst, PassType};
use tdb_model::Site;
use tdb_model::numbers::{Numbers, tensor};
use tdb_model::parallel;

use crate::compute;
use crate::derived::{Subject, describe};
use crate::error::{Error, Result, bad};
use crate::side::Side;
use crate::tensors::dot_in_double;
use crate::top_k::{self, Entry};
use crate::values::{Sums, Values, wrap};

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
    pub sum: Sums,
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
        let bytes = if matches!(describe(key.0).subject, Subject::Tensor(_)) { 0 } else { owned_bytes(&values) };
        if self.bytes + bytes <= BUDGET {
            self.bytes += bytes;
            self.kept.insert(key, values);
        }
    }

    /// The `k` largest and smallest entries over these layers, and sums over all but the kept dimensions.
    /// `token` restricts the choice of entries (not the sums) to one index of the first dimension.
    ///
    /// # Errors
    /// See [`compute::values`]; also if a value is not finite.
    pub fn extremes(
        &mut self,
        dst: Dst,
        pass: PassType,
        layers: &[Option<usize>],
        k: usize,
        token: Option<i64>,
        keep: &[bool],
    ) -> Result<Extremes> {
        let side = self.side;
        let kept = &self.kept;
        let of_layer = |position: usize| -> Result<_> {
            let layer = layers[position];
            let values = match kept.get(&(dst, pass, layer)) {
                Some(values) => values.clone(),
                None => Arc::new(compute::values(side, dst, pass, layer)?),
            };
            if side.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let found = match token {
                None => top_k::extremes(&values, position, k)?,
                Some(token) => {
                    let dims = values.dims();
                    let Some(first) = wrap(token, dims[0]) else {
                        return bad!(at "tokenIndex", "is {token}, outside 0..{}", dims[0]);
                    };
                    let width: usize = dims[1..].iter().product();
                    let row = Values::Dense(tensor(&[1, width], values.row(first)?));
                    top_k::extremes(&row, position, k)?.map(|entries| {
                        entries.into_iter().map(|e| Entry { at: e.at + first * width, ..e }).collect::<Vec<_>>()
                    })
                }
            };
            if found.iter().flatten().any(|e| !e.value.is_finite()) {
                return bad!(
                    "\"{dst}\" holds values that are not finite numbers (such as masked attention logits), which cannot be ranked"
                );
            }
            let sum = sums(side, &values, dst, keep)?;
            Ok((values, found, sum))
        };
        let parts = parallel::try_map(layers.len(), of_layer)?;
        let mut total: Option<Sums> = None;
        let (mut tops, mut bottoms) = (Vec::new(), Vec::new());
        for ((values, [top, bottom], sum), layer) in parts.into_iter().zip(layers) {
            if !self.kept.contains_key(&(dst, pass, *layer)) {
                self.keep((dst, pass, *layer), values);
            }
            tops.push(top);
            bottoms.push(bottom);
            match &mut total {
                None => total = Some(sum),
                Some(total) => total.data.iter_mut().zip(&sum.data).for_each(|(total, x)| *total += x),
            }
        }
        Ok(Extremes {
            top: top_k::merge(tops, k, true),
            bottom: top_k::merge(bottoms, k, false),
            sum: total
                .unwrap_or_else(|| Sums { dims: vec![0; keep.iter().filter(|keep| **keep).count()], data: vec![] }),
        })
    }
}

/// Sums of one layer. Those of the logits over the vocabulary follow from the sum of the unembedding's rows, so that
/// no token's logits need to be computed for it.
fn sums(side: &Side<'_>, values: &Values<'_>, dst: Dst, keep: &[bool]) -> Result<Sums> {
    let affine = !side.model().unembedding().is_capped() && !side.run.changes_logits();
    if dst != Dst::Logits || keep[1] || !affine {
        return values.sum(keep);
    }
    let activations = side.get(Site::PostFinalLn, None)?;
    let activations = Numbers::of(&activations)?;
    let unembedding = side.model().unembedding();
    let (sum_of_rows, bias) = (unembedding.sum_of_rows(), unembedding.bias().unwrap_or_default());
    let sum_of_biases: f64 = bias.iter().map(|x| f64::from(*x)).sum();
    let sum = |t: usize| dot_in_double(activations.row(t), sum_of_rows) + sum_of_biases;
    let data: Vec<f64> = (0..side.tokens()).map(sum).collect();
    Ok(match keep[0] {
        true => Sums { dims: vec![data.len()], data },
        false => Sums { dims: Vec::new(), data: vec![data.iter().sum()] },
    })
}

fn owned_bytes(values: &Values<'_>) -> usize {
    match values {
        Values::Dense(tensor) => tensor.elem_count() * 4,
        Values::Sparse(Cow::Owned(rows)) => rows.rows().iter().map(|row| row.len() * 8).sum(),
        _ => 0,
    }
}
