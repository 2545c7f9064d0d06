//! Explanations without a language model: from a unit's own records, in one sentence, with a score.
//!
//! Half of the top examples and of the random ones, and the examples of all quantiles, are looked at; the other half is
//! held out. Of what can be seen in the text itself (the token, the one before, the class of either, the position, whether it
//! was there before; for token pairs how the two stand to each other and what they are) the one kind of observation is
//! taken that explains most of the variance, at most five items of it, and where it helps a second kind as a condition. The
//! sentence says that rule and nothing else, and the score is how well the same rule predicts the held-out examples: the
//! correlation over all tokens, or for token pairs the area under the ROC curve of telling strong pairs from weak ones.

mod classes;
mod features;
mod files;
mod lens;
mod rule;
mod score;
mod sentence;

use tdb_data::{
    ActivationRecord, NodeExplanations, NodeRecord, Origin, ScoredAttentionSimulation, ScoredExplanation,
    ScoredSimulation,
};

use features::{Family, Items, Place};
use rule::{Observation, Rule};

pub use files::write_explanations;
pub use lens::Lens;

/// The name under which these explanations are stored.
pub const METHOD: &str = "offline-statistics";

/// What is known of a unit besides its record.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// One value for each token pair.
    pub pairs: bool,
    /// Share of all values that are above 0, if it was counted.
    pub density: Option<f64>,
    /// The first token of a text does not count: many units fire there whatever it is.
    pub without_first: bool,
    /// Share of the texts at whose first token the value is above 0, if it was counted.
    pub first: Option<f64>,
    /// The tokens whose logits its direction raises most.
    pub promotes: Vec<String>,
}

/// One explanation of a unit, as a stored file holds it; `date` is RFC 3339.
pub fn explain(record: &NodeRecord, known: &Known, date: &str) -> NodeExplanations {
    let origin = Origin {
        method: Some(METHOD.to_owned()),
        date: Some(date.to_owned()),
        score_method: Some(if known.pairs { "held-out-roc-auc" } else { "held-out-correlation" }.to_owned()),
        ..Origin::default()
    };
    let (sentence, outcome) = describe(record, known);
    let mut explanation = ScoredExplanation::new(sentence, origin);
    if known.pairs {
        let mut scores = ScoredAttentionSimulation::default();
        scores.roc_auc_score = outcome.and_then(|o| score::roc_auc(o.labelled(largest(record, known))).map(rounded));
        explanation.scored_attention_simulation = Some(scores);
    } else {
        let pairs = outcome.map(|o| o.pairs).unwrap_or_default();
        let mut scores = ScoredSimulation::default();
        scores.ev_correlation_score = score::correlation(&pairs).map(rounded);
        explanation.scored_simulation = Some(scores);
    }
    NodeExplanations { layer: record.layer, index: record.index, pairs: known.pairs, explanations: vec![explanation] }
}

/// A score to four digits.
fn rounded(score: f64) -> f64 {
    (score * 1e4).round() / 1e4
}

/// Predicted and true values of the held-out examples.
struct Outcome {
    pairs: Vec<(f64, f64)>,
}

impl Outcome {
    /// Strong: at least half of the largest value; weak: less than a tenth of it. What lies between is not asked.
    fn labelled(&self, max: f64) -> Vec<(f64, bool)> {
        let label = |(predicted, value): &(f64, f64)| match *value {
            v if v >= 0.5 * max && v > 0.0 => Some((*predicted, true)),
            v if v < 0.1 * max => Some((*predicted, false)),
            _ => None,
        };
        self.pairs.iter().filter_map(label).collect()
    }
}

/// The values of an example that count, with their places.
fn counted<'a>(record: &'a ActivationRecord, known: &Known) -> impl Iterator<Item = (usize, f32)> + 'a {
    record.activations.iter().copied().enumerate().skip(usize::from(known.without_first))
}

/// The largest value that counts among the top and random examples.
fn largest(record: &NodeRecord, known: &Known) -> f64 {
    let all = record.most_positive.iter().chain(&record.random_sample);
    f64::from(all.flat_map(|r| counted(r, known)).map(|(_, value)| value).fold(f32::NEG_INFINITY, f32::max))
}

fn describe(record: &NodeRecord, known: &Known) -> (String, Option<Outcome>) {
    if largest(record, known) <= 0.0 {
        let said = match known.first {
            Some(share) if share > 0.0 => {
                format!("Active on the first token alone, in {} of the texts", percent(share))
            }
            _ => "Never active on this text".to_owned(),
        };
        return (said + ".", None);
    }
    let (seen, held) = split(record);
    let mut items = Items::default();
    let families: &[Family] = if known.pairs { &Family::OF_PAIRS } else { &Family::OF_TOKENS };
    let mut places = |list: &[&ActivationRecord]| -> Vec<(usize, Place, f64)> {
        let of = |(text, r): (usize, &&ActivationRecord)| {
            let places = match known.pairs {
                true => features::of_pairs(&r.tokens, &mut items),
                false => features::of_tokens(&r.tokens, &mut items),
            };
            let skipped = usize::from(known.without_first);
            let values = counted(r, known).map(|(_, value)| f64::from(value));
            places.into_iter().skip(skipped).zip(values).map(|(place, value)| (text, place, value)).collect::<Vec<_>>()
        };
        list.iter().enumerate().flat_map(of).collect()
    };
    let (seen_places, held_places) = (places(&seen), places(&held));
    let observations: Vec<_> =
        seen_places.iter().map(|(text, place, value)| Observation { text: *text, place, value: *value }).collect();
    let Some(rule) = Rule::fit(&observations, families) else {
        let said = "Nothing that can be seen in the text itself tells when this unit is active";
        return (said.to_owned() + &rest(known), None);
    };
    let said = match known.pairs {
        true => sentence::of_pairs(&rule, &items),
        false => sentence::of_tokens(&rule, &items, &examples(&seen, known)),
    };
    let outcome =
        Outcome { pairs: held_places.iter().map(|(_, place, value)| (rule.predict(place), *value)).collect() };
    (said + &rest(known), Some(outcome))
}

/// How often it is active, whether it is so at the first token, and what it promotes.
fn rest(known: &Known) -> String {
    let mut out = match known.density {
        Some(share) if share < 0.1 => format!(" ({} of all)", percent(share)),
        _ => String::new(),
    };
    if let Some(share) = known.first.filter(|share| known.without_first && *share >= 0.05) {
        out += &format!("; besides, on the first token of {} of the texts", percent(share));
    }
    if !known.promotes.is_empty() {
        let tokens = known.promotes.iter().map(|t| sentence::quoted(t)).collect();
        out += &format!("; it promotes {}", sentence::list(tokens, "and"));
    }
    out + "."
}

fn percent(share: f64) -> String {
    match 100.0 * share {
        few if few < 0.05 => "less than 0.1 %".to_owned(),
        few if few < 10.0 => format!("{few:.1} %"),
        many => format!("{many:.0} %"),
    }
}

/// What the rule is made of, and what it is tried on.
fn split(record: &NodeRecord) -> (Vec<&ActivationRecord>, Vec<&ActivationRecord>) {
    let every_other = |list: &[ActivationRecord], first: usize| (first..list.len()).step_by(2).collect::<Vec<_>>();
    let take = |first: usize| {
        let top = every_other(&record.most_positive, first).into_iter().map(|i| &record.most_positive[i]);
        let random = every_other(&record.random_sample, first).into_iter().map(|i| &record.random_sample[i]);
        top.chain(random).collect::<Vec<_>>()
    };
    let held = take(1);
    let mut seen = take(0);
    // An example may be in several lists; what is held out is not looked at.
    let quantiles = record.random_sample_by_quantile.iter().flatten().flatten();
    seen.extend(quantiles.filter(|r| !seen_in(&held, r)));
    seen.retain(|r| !seen_in(&held, r));
    (seen, held)
}

fn seen_in(list: &[&ActivationRecord], record: &ActivationRecord) -> bool {
    list.iter().any(|r| r.tokens == record.tokens)
}

/// The tokens at the peaks of the best examples, each once.
fn examples(seen: &[&ActivationRecord], known: &Known) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for record in seen {
        let peak = counted(record, known).max_by(|a, b| a.1.total_cmp(&b.1));
        let peak = peak.and_then(|(place, value)| Some((value, record.tokens.get(place)?)));
        if let Some((value, token)) = peak
            && value > 0.0
            && !out.contains(token)
        {
            out.push(token.clone());
        }
        if out.len() == 3 {
            break;
        }
    }
    out
}

#[cfg(test)]
mod tests;
