//! From a record to what the record routes answer: activations as they are, and scaled for colouring.
//!
//! Scaled values lie in [0, 1]: an activation over the largest one that is shown, and 0 where none is positive.

use tdb_api::{
    AttentionHeadRecordResponse, Histogram, NeuronRecordResponse, RecordSummaryResponse, TokenAndAttentionScalars,
    TokenAndScalar,
};

use crate::{
    ActivationRecord, Counts, Error, NodeRecord, Result,
    attention::{self, Summary},
};

/// The answer of `/neuron_record`: one scalar for each token. `file` names the record in errors.
pub fn per_token(file: &str, dataset: &str, record: &NodeRecord) -> Result<NeuronRecordResponse> {
    let scale = Scale::of(record.max_shown());
    let sequences = |list: &[ActivationRecord]| -> Result<Vec<Vec<TokenAndScalar>>> {
        list.iter()
            .map(|r| {
                if r.tokens.len() != r.activations.len() {
                    return Err(Error::Bad(format!(
                        "{file} holds activations of token pairs; ask /attention_head_record for it"
                    )));
                }
                Ok(r.tokens
                    .iter()
                    .zip(&r.activations)
                    .map(|(token, &a)| TokenAndScalar {
                        token: token.clone(),
                        scalar: f64::from(a),
                        normalized_scalar: scale.apply(a),
                    })
                    .collect())
            })
            .collect()
    };
    Ok(NeuronRecordResponse {
        dataset: dataset.to_string(),
        max_activation: f64::from(record.max_activation()),
        top_activations: sequences(&record.most_positive)?,
        random_sample: sequences(&record.random_sample)?,
    })
}

/// The answer of `/record_summary`. Values of token pairs are shown as the largest into each token.
pub fn summary(dataset: &str, record: &NodeRecord, counts: Option<Counts>) -> RecordSummaryResponse {
    let scale = Scale::of(record.max_shown());
    let text = |example: &ActivationRecord| -> Vec<TokenAndScalar> {
        let into = |token: usize| match example.tokens.len() == example.activations.len() {
            true => example.activations[token],
            // Row by row of a lower triangle.
            false => {
                let first = token * (token + 1) / 2;
                example.activations.iter().skip(first).take(token + 1).copied().fold(f32::NEG_INFINITY, f32::max)
            }
        };
        let tokens = example.tokens.iter().enumerate();
        tokens
            .map(|(i, token)| TokenAndScalar {
                token: token.clone(),
                scalar: f64::from(into(i)),
                normalized_scalar: scale.apply(into(i)),
            })
            .collect()
    };
    let count = |of: fn(&Counts) -> u64| counts.as_ref().map(|c| of(c) as i64);
    let histogram = |h: &crate::Histogram| {
        let (low, high) = h.range();
        Histogram { low, high, counts: h.counts().iter().map(|n| *n as i64).collect() }
    };
    let quantiles = record.random_sample_by_quantile.as_deref().unwrap_or_default();
    RecordSummaryResponse {
        dataset: dataset.to_string(),
        values: count(|c| c.values),
        positive_values: count(|c| c.positive_values),
        texts: count(|c| c.texts),
        active_texts: count(|c| c.active_texts),
        histogram: counts.as_ref().and_then(|c| c.histogram.as_ref()).map(histogram),
        mean: record.moments.mean,
        variance: record.moments.variance,
        skewness: record.moments.skewness,
        kurtosis: record.moments.kurtosis,
        quantile_boundaries: record.quantile_boundaries.iter().flatten().map(|b| f64::from(*b)).collect(),
        examples_by_quantile: quantiles.iter().map(|list| list.iter().map(text).collect()).collect(),
    }
}

/// The answer of `/attention_head_record`: a scalar for each token pair, with what goes in and out of each token.
pub fn per_pair(file: &str, dataset: &str, record: &NodeRecord) -> Result<AttentionHeadRecordResponse> {
    let top = summaries(file, &record.most_positive)?;
    let random = summaries(file, &record.random_sample)?;
    let largest = |pick: fn(&Summary) -> &Vec<f32>| {
        Scale::of(top.iter().chain(&random).flat_map(|(_, s)| pick(s)).copied().fold(0.0, f32::max))
    };
    let scales = Scales {
        pair: Scale::of(record.max_shown()),
        total_in: largest(|s| &s.total_in),
        max_in: largest(|s| &s.max_in),
        total_out: largest(|s| &s.total_out),
        max_out: largest(|s| &s.max_out),
    };
    let sequences = |list: &[ActivationRecord], summaries: &[(Vec<&[f32]>, Summary)]| {
        list.iter().zip(summaries).map(|(r, (rows, s))| scales.sequence(&r.tokens, rows, s)).collect()
    };
    Ok(AttentionHeadRecordResponse {
        dataset: dataset.to_string(),
        max_attention_activation: f64::from(record.max_activation()),
        most_positive_token_sequences: sequences(&record.most_positive, &top),
        random_token_sequences: sequences(&record.random_sample, &random),
    })
}

type Rows<'a> = Vec<&'a [f32]>;

fn summaries<'a>(file: &str, list: &'a [ActivationRecord]) -> Result<Vec<(Rows<'a>, Summary)>> {
    list.iter()
        .map(|r| {
            // As many values as tokens would also fit a window of one token, which nobody collates.
            let pairs = r.tokens.len() <= 1 || r.tokens.len() != r.activations.len();
            let rows = attention::rows(r.tokens.len(), &r.activations).filter(|_| pairs).ok_or_else(|| {
                Error::Bad(format!(
                    "{file} holds one activation per token, not per token pair; ask /neuron_record for it"
                ))
            })?;
            let summary = attention::summary(&rows);
            Ok((rows, summary))
        })
        .collect()
}

struct Scales {
    pair: Scale,
    total_in: Scale,
    max_in: Scale,
    total_out: Scale,
    max_out: Scale,
}

impl Scales {
    fn sequence(&self, tokens: &[String], rows: &[&[f32]], s: &Summary) -> Vec<TokenAndAttentionScalars> {
        let token = |(i, token): (usize, &String)| TokenAndAttentionScalars {
            token: token.clone(),
            scalars: rows[i].iter().map(|&a| f64::from(a)).collect(),
            normalized_scalars: rows[i].iter().map(|&a| self.pair.apply(a)).collect(),
            total_scalar_in: f64::from(s.total_in[i]),
            normalized_total_scalar_in: self.total_in.apply(s.total_in[i]),
            max_scalar_in: f64::from(s.max_in[i]),
            normalized_max_scalar_in: self.max_in.apply(s.max_in[i]),
            total_scalar_out: f64::from(s.total_out[i]),
            normalized_total_scalar_out: self.total_out.apply(s.total_out[i]),
            max_scalar_out: f64::from(s.max_out[i]),
            normalized_max_scalar_out: self.max_out.apply(s.max_out[i]),
        };
        tokens.iter().enumerate().map(token).collect()
    }
}

#[derive(Clone, Copy)]
struct Scale(f64);

impl Scale {
    fn of(max: f32) -> Self {
        Self(f64::from(max))
    }

    fn apply(self, value: f32) -> f64 {
        if self.0 <= 0.0 { 0.0 } else { (f64::from(value) / self.0).clamp(0.0, 1.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(top: &[f32], tokens: usize) -> NodeRecord {
        let one =
            ActivationRecord { activations: top.to_vec(), tokens: (0..tokens).map(|i| format!("t{i}")).collect() };
        NodeRecord {
            layer: 0,
            index: 0,
            random_sample: vec![],
            random_sample_by_quantile: None,
            quantile_boundaries: None,
            moments: crate::Moments::default(),
            most_positive: vec![one],
        }
    }

    #[test]
    fn nothing_positive_scales_to_zero() {
        let r = per_token("f", "d", &record(&[-1.0, -2.0], 2)).unwrap();
        assert_eq!(r.max_activation, -1.0);
        assert!(r.top_activations[0].iter().all(|t| t.normalized_scalar == 0.0));
    }

    #[test]
    fn short_windows_are_answered() {
        // 4 tokens that attend to the first 2 only
        let r = per_pair("f", "d", &record(&[1.0, 2.0, 4.0, 0.5, 0.5, 1.0, -1.0], 4)).unwrap();
        let s = &r.most_positive_token_sequences[0];
        assert_eq!(s[3].scalars, [1.0, -1.0]);
        assert_eq!(s[2].normalized_scalars, [0.125, 0.125]);
        assert_eq!((s[1].normalized_total_scalar_in, s[0].total_scalar_out, s[1].total_scalar_out), (1.0, 4.5, 3.5));
        assert_eq!((s[3].total_scalar_out, s[3].max_scalar_out, s[3].normalized_max_scalar_out), (0.0, 0.0, 0.0));
    }

    #[test]
    fn the_other_kind_of_record_is_refused_with_a_hint() {
        let tokens = per_pair("f", "d", &record(&[1.0, 2.0], 2));
        assert!(tokens.is_err_and(|e| e.to_string().contains("/neuron_record")));
        let pairs = per_token("f", "d", &record(&[1.0, 2.0, 4.0], 2));
        assert!(pairs.is_err_and(|e| e.to_string().contains("/attention_head_record")));
    }
}
