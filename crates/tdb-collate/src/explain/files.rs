//! Explanations of all units of a collation, as files.

use std::path::Path;

use rayon::prelude::*;
use tdb_data::NodeExplanations;

use super::{Known, Lens, explain};
use crate::output::record;
use crate::summary::Summary;
use crate::{Collation, Result, file};

/// Tokens named as promoted by a unit.
const PROMOTED: usize = 3;

/// Explains every unit of a merged summary: `{scalar}/{layer}.jsonl` with a line for each unit, and if `single`,
/// `{scalar}/{layer}/{index}.jsonl` as well. Every line is what the reference has in a file.
///
/// # Errors
/// If a file cannot be written.
pub fn write_explanations(
    summary: &Summary,
    collation: &Collation<'_>,
    date: &str,
    folder: &Path,
    single: bool,
) -> Result<()> {
    let lens = Lens::new(collation.model, collation.tokenizer, PROMOTED);
    for (&index, layer) in &summary.layers {
        for (&kind, units) in &layer.kinds {
            let promotes = lens.promotes(index, kind);
            let n = if kind.per_pair() { layer.pairs } else { layer.tokens };
            let one = |unit: usize| -> NodeExplanations {
                let found = &units.units[unit];
                let mut text = |token| collation.tokenizer.decode_token(token);
                let record = record(summary, (index, unit), found, n, &mut text);
                let known = Known {
                    pairs: kind.per_pair(),
                    density: kind.is_sparse().then(|| found.positive_values as f64 / n.max(1) as f64),
                    promotes: promotes.get(unit).cloned().unwrap_or_default(),
                };
                explain(&record, &known, date)
            };
            let all: Vec<NodeExplanations> = (0..units.units.len()).into_par_iter().map(one).collect();
            let lines = all.iter().map(NodeExplanations::to_json).collect::<std::result::Result<Vec<_>, _>>()?;
            let of_scalar = folder.join(kind.scalar());
            file::write(&of_scalar.join(format!("{index}.jsonl")), |out| out.write_all(&lines.concat()))?;
            if single {
                for (unit, line) in lines.iter().enumerate() {
                    let path = of_scalar.join(index.to_string()).join(format!("{unit}.jsonl"));
                    file::write_soon(&path, |out| out.write_all(line))?;
                }
            }
        }
    }
    Ok(())
}
