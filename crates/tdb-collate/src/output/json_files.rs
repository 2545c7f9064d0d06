//! The reference's layout: a file `{scalar}/{layer}/{index}.json` for each unit.

use std::path::Path;

use tdb_data::{ActivationRecord, NodeRecord};

use super::{TokenTexts, moments, quantiles, values_seen};
use crate::example::Example;
use crate::summary::{Summary, UnitSummary};
use crate::{Result, file};

/// Writes the records of all units of a merged summary below `folder`; `text` gives a token's text.
///
/// # Errors
/// If a file cannot be written.
pub fn write_json_files(summary: &Summary, folder: &Path, text: &dyn Fn(u32) -> String) -> Result<()> {
    let mut texts = TokenTexts::default();
    for (&index, layer) in &summary.layers {
        for (&kind, units) in &layer.kinds {
            let folder = folder.join(kind.scalar()).join(index.to_string());
            for (unit, found) in units.units.iter().enumerate() {
                let n = values_seen(layer, kind);
                let record = record(summary, (index, unit), found, n, &mut |token| texts.get(token, text).to_owned());
                let json = record.to_json()?;
                file::write_soon(&folder.join(format!("{unit}.json")), |out| out.write_all(&json))?;
            }
        }
    }
    Ok(())
}

/// The record of one unit, of which there are `n` values; `text` gives a token's text.
pub(crate) fn record(
    summary: &Summary,
    (layer, index): (usize, usize),
    unit: &UnitSummary,
    n: u64,
    text: &mut dyn FnMut(u32) -> String,
) -> NodeRecord {
    let mut example = |e: &Example| ActivationRecord {
        activations: e.values.to_dense(),
        tokens: e.sequence.tokens.iter().map(|t| text(*t)).collect(),
    };
    let (lists, boundaries) = quantiles(unit, &summary.plan.sizes);
    let some = !lists.is_empty();
    let lists = lists.iter().map(|l| l.iter().map(|e| example(e)).collect()).collect();
    NodeRecord {
        layer,
        index,
        random_sample: unit.random.examples().iter().map(&mut example).collect(),
        random_sample_by_quantile: some.then_some(lists),
        quantile_boundaries: some.then_some(boundaries),
        moments: moments(unit, n),
        most_positive: unit.top.examples().iter().map(&mut example).collect(),
    }
}
