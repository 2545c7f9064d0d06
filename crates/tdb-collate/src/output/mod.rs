//! From merged summaries to what the debugger reads: records.

mod json_files;
mod layer_file;
mod registry;
mod target;

use std::collections::BTreeMap;
use std::ops::Range;

use tdb_data::Moments;
use tdb_data::collated::Encoding;

use crate::example::Example;
use crate::summary::{LayerSummary, Sizes, UnitSummary};
use crate::{Collation, Parts, Result, Watch, explain};

pub(crate) use json_files::record;
pub use json_files::write_json_files;
pub use layer_file::write_layer_file;
pub use registry::{Autoencoders, REGISTRY, write_registry};
pub use target::Target;

/// What to make of a finished collation.
#[derive(Clone, Debug)]
pub struct Layouts {
    /// `records/{layer}.records`, see [`tdb_data::collated`].
    pub layer_files: Option<Encoding>,
    /// How many of the collated examples those hold, if not all.
    pub shown: Option<Sizes>,
    /// `files/{scalar}/{layer}/{index}.json`, the reference's layout.
    pub single_files: bool,
    /// `explanations/{scalar}/{layer}.jsonl`, made at this date (RFC 3339), and single files where the records are.
    pub explanations: Option<String>,
}

/// Merges the summaries of a collation and writes what is wanted below `out`.
///
/// # Errors
/// If summaries are missing or of another collation, or a file cannot be written.
pub fn write(collation: &Collation<'_>, layouts: &Layouts, out: &Target, watch: &dyn Watch) -> Result<()> {
    let parts = Parts::of(collation)?;
    parts.layers().iter().try_for_each(|layers| write_layers(collation, &parts, layers, layouts, out, watch))
}

/// As [`write`], of one range of layers.
///
/// # Errors
/// As [`write`].
pub fn write_layers(
    collation: &Collation<'_>,
    parts: &Parts<'_>,
    layers: &Range<usize>,
    layouts: &Layouts,
    out: &Target,
    watch: &dyn Watch,
) -> Result<()> {
    let summary = parts.merge(layers)?;
    let text = |token| collation.tokenizer.decode_token(token);
    let folder = out.folder();
    for (&index, layer) in &summary.layers {
        watch.note(&format!("writing layer {index}"));
        if let Some(encoding) = layouts.layer_files {
            let path = folder.join("records").join(format!("{index}.records"));
            let shown = layouts.shown.as_ref().unwrap_or(&summary.plan.sizes);
            write_layer_file(&path, &summary.plan, (index, layer), (encoding, shown), &text)?;
        }
    }
    if layouts.single_files {
        write_json_files(&summary, &folder.join("files"), &text)?;
    }
    if let Some(date) = &layouts.explanations {
        watch.note("explaining");
        explain::write_explanations(&summary, collation, date, &folder.join("explanations"), layouts.single_files)?;
    }
    out.send()
}

/// How often each power sum's values were counted, and moments from them.
///
/// Variance is that of the population; skewness and kurtosis are its standardised third and fourth moments (3 for a normal
/// distribution), `None` where nothing varies.
pub fn moments(unit: &UnitSummary, n: u64) -> Moments {
    if n == 0 {
        return Moments::default();
    }
    let [m1, m2, m3, m4] = [0, 1, 2, 3].map(|i| unit.powers[i].value() / n as f64);
    let variance = (m2 - m1 * m1).max(0.0);
    let third = m3 - 3.0 * m1 * m2 + 2.0 * m1.powi(3);
    let fourth = m4 - 4.0 * m1 * m3 + 6.0 * m1 * m1 * m2 - 3.0 * m1.powi(4);
    // Below this, what is left of the variance is rounding.
    let varies = variance > 1e-14 * m2;
    Moments {
        mean: Some(m1),
        variance: Some(variance),
        skewness: varies.then(|| third / variance.powf(1.5)),
        kurtosis: varies.then(|| fourth / (variance * variance)),
    }
}

/// The sample of sequences with a positive value, divided into parts of equal size by their largest values, from the
/// smallest to the largest, and the values between the parts.
pub fn quantiles<'a>(unit: &'a UnitSummary, sizes: &Sizes) -> (Vec<Vec<&'a Example>>, Vec<f32>) {
    let parts = if sizes.per_quantile == 0 { 0 } else { sizes.quantiles };
    let mut sorted: Vec<&Example> = unit.active.examples().iter().take(sizes.active()).collect();
    sorted.sort_by(|a, b| a.figure.total_cmp(&b.figure).then(a.sequence.number.cmp(&b.sequence.number)));
    let cut = |i: usize| i * sorted.len() / parts.max(1);
    let lists = (0..parts).map(|i| sorted[cut(i)..cut(i + 1)].to_vec()).collect();
    let boundary = |i: usize| match (cut(i).checked_sub(1).and_then(|b| sorted.get(b)), sorted.get(cut(i))) {
        (Some(below), Some(above)) => below.figure + (above.figure - below.figure) / 2.0,
        (None, Some(one)) | (Some(one), None) => one.figure,
        (None, None) => 0.0,
    };
    (lists, (1..parts).map(boundary).collect())
}

/// Texts of tokens, made once for each.
#[derive(Default)]
struct TokenTexts(BTreeMap<u32, String>);

impl TokenTexts {
    fn get(&mut self, token: u32, text: &dyn Fn(u32) -> String) -> &str {
        self.0.entry(token).or_insert_with(|| text(token))
    }
}

/// How many values each unit of a kind has.
fn values_seen(layer: &LayerSummary, kind: crate::Kind) -> u64 {
    if kind.per_pair() { layer.pairs } else { layer.tokens }
}
