//! Explanations of all units of a collation, as files.

use std::path::Path;

use tdb_data::NodeExplanations;
use tdb_model::parallel;

use super::{Known, Lens, explain};
use crate::Error;
use crate::output::record;
use crate::summary::Summary;
use crate::{Collation, Result, file};

/// Tokens named as promoted by a unit.
const PROMOTED: usize = 3;

/// Explains every unit of a merged summary: `{scalar}/{layer}.jsonl` with a line for each unit, and if `single`,
/// `{scalar}/{layer}/{index}.jsonl` as well. Every line has the fields that the reference has in a file; the lines of a
/// layer leave out names of classes and fields that hold nothing, of which there would be more than content.
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
            let promotes = lens.promotes(index, kind).map_err(|error| Error::setting("model", error.to_string()))?;
            let n = if kind.per_pair() { layer.pairs } else { layer.tokens };
            let one = |unit: usize| -> NodeExplanations {
                let found = &units.units[unit];
                let mut text = |token| collation.tokenizer.decode_token(token);
                let record = record(summary, (index, unit), found, n, &mut text);
                let known = Known {
                    pairs: kind.per_pair(),
                    density: kind.is_sparse().then(|| found.positive_values as f64 / n.max(1) as f64),
                    without_first: !summary.plan.first_counts,
                    first: Some(found.active_first as f64 / layer.sequences.max(1) as f64),
                    promotes: promotes.get(unit).cloned().unwrap_or_default(),
                };
                explain(&record, &known, date)
            };
            let all: Vec<NodeExplanations> = parallel::map(units.units.len(), one);
            let lines = all.iter().map(NodeExplanations::to_json).collect::<std::result::Result<Vec<_>, _>>()?;
            let of_scalar = folder.join(kind.scalar());
            let path = of_scalar.join(format!("{index}.jsonl"));
            let short = lines.iter().map(|line| shorten(line)).collect::<serde_json::Result<Vec<_>>>();
            let short = short.map_err(|e| Error::content(&path, e))?.concat();
            file::write(&path, |out| out.write_all(&short))?;
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

/// A line without class names and nulls.
fn shorten(line: &[u8]) -> serde_json::Result<Vec<u8>> {
    fn clean(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::Object(fields) => {
                fields.retain(|key, value| key != "dataclass_name" && !value.is_null());
                fields.values_mut().for_each(clean);
            }
            serde_json::Value::Array(list) => list.iter_mut().for_each(clean),
            _ => {}
        }
    }
    let mut value = serde_json::from_slice(line)?;
    clean(&mut value);
    let mut out = serde_json::to_vec(&value)?;
    out.push(b'\n');
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tdb_data::{ActivationRecord, Moments, NodeRecord};

    #[test]
    fn a_shortened_line_says_the_same() {
        let example = |word: &str| ActivationRecord {
            activations: vec![0.0, if word == "cat" { 2.0 } else { 0.0 }],
            tokens: vec!["the ".into(), word.into()],
        };
        let record = NodeRecord {
            layer: 2,
            index: 5,
            random_sample: vec![example("dog"), example("mat"), example("cat")],
            random_sample_by_quantile: None,
            quantile_boundaries: None,
            moments: Moments::default(),
            most_positive: vec![example("cat"), example("cat")],
        };
        for pairs in [false, true] {
            let mut record = record.clone();
            if pairs {
                let all = record.most_positive.iter_mut().chain(&mut record.random_sample);
                all.for_each(|r| r.activations.push(0.5));
            }
            let line = explain(&record, &Known { pairs, ..Known::default() }, "2020-01-01").to_json().unwrap();
            let short = shorten(&line).unwrap();
            assert!(short.len() + 100 < line.len());
            let [a, b] = [line, short].map(|l| NodeExplanations::parse("x", &l).unwrap());
            assert_eq!(a.to_json().unwrap(), b.to_json().unwrap());
        }
    }
}
