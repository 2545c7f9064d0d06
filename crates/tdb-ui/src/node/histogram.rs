//! How values are spread, as bars.

use tdb_api::Histogram;

use crate::format;

/// Bars by the logarithm of their count, so that rare values are seen. `of` says what is counted.
pub fn draw(histogram: &Histogram, of: &str) -> String {
    let counts = &histogram.counts;
    let most = counts.iter().copied().max().unwrap_or(1).max(1) as f64;
    let edge = |i: usize| {
        let share = i as f64 / counts.len().max(1) as f64;
        format::signed(histogram.low + share * (histogram.high - histogram.low))
    };
    let bar = |(i, count): (usize, &i64)| {
        let height = (*count as f64 + 1.0).ln() / (most + 1.0).ln() * 100.0;
        let range = format!("{} to {}", edge(i), edge(i + 1));
        format!(
            "<span class=\"bar\" style=\"height:{height:.1}%\" data-value=\"{count}\" \
             title=\"{range}: {count} {of}\"></span>"
        )
    };
    format!(
        "<div class=\"histogram\" role=\"img\" aria-label=\"Histogram, counts of {of} on a logarithmic scale\">{}</div>\
         <div class=\"histogram-ends\"><span>{}</span><span>{of}, logarithmic scale</span><span>{}</span></div>",
        counts.iter().enumerate().map(bar).collect::<String>(),
        edge(0),
        edge(counts.len())
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_told_by_their_ends_and_counts() {
        let html = draw(&Histogram { low: -1.0, high: 1.0, counts: vec![3, 0] }, "tokens");
        assert!(html.contains("height:100.0%\" data-value=\"3\" title=\"\u{2212}1.00 to 0: 3 tokens\""), "{html}");
        assert!(html.contains("height:0.0%\" data-value=\"0\" title=\"0 to +1.00: 0 tokens\""), "{html}");
    }
}
