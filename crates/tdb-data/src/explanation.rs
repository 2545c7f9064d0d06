//! Explanations of a node and how well they predict it, in the reference's file layout plus where they came from.

use serde::{Deserialize, Deserializer, Serialize, de::IgnoredAny};
use tdb_api::ScoreKind;

use crate::{Error, Result, json, record::RawId};

/// Explanations carry simulated sequences with distributions; the largest public file is a few megabytes.
pub const MAX_EXPLANATION_BYTES: usize = 64 << 20;

/// All explanations of one node in one explanation set: one JSON document in a `.jsonl` file.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeExplanations {
    pub layer: usize,
    pub index: usize,
    /// Scored on token pairs (attention heads) rather than on tokens.
    pub pairs: bool,
    pub explanations: Vec<ScoredExplanation>,
}

/// One explanation with its scores.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoredExplanation {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dataclass_name: Option<String>,
    /// `None` stands for a baseline in old files.
    #[serde(default, alias = "explanation_or_baseline")]
    pub explanation: Option<String>,
    /// Predicted and true activations per token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scored_simulation: Option<ScoredSimulation>,
    /// Predicted and true labels of token pairs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scored_attention_simulation: Option<ScoredAttentionSimulation>,
    /// Which of several texts contain the feature, by the explanation alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detection: Option<Detection>,
    #[serde(flatten)]
    pub origin: Origin,
}

/// Where an explanation comes from. Files of the reference have none of these fields.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Origin {
    /// The language model that wrote it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_version: Option<String>,
    /// UTC, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
    /// How it was made, such as `activations` or `offline-ngrams`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// How it was scored, such as `all-at-once`, `token-by-token`, `pairs` or `detection`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score_method: Option<String>,
}

/// Simulations of several sequences and the scores over all their tokens together.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoredSimulation {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dataclass_name: Option<String>,
    pub scored_sequence_simulations: Vec<ScoredSequenceSimulation>,
    #[serde(default)]
    pub ev_correlation_score: Option<f64>,
    #[serde(default)]
    pub rsquared_score: Option<f64>,
    #[serde(default)]
    pub absolute_dev_explained_score: Option<f64>,
}

/// One simulated sequence beside the true activations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoredSequenceSimulation {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dataclass_name: Option<String>,
    #[serde(alias = "simulation")]
    pub sequence_simulation: SequenceSimulation,
    #[serde(deserialize_with = "list")]
    pub true_activations: Vec<f32>,
    #[serde(default)]
    pub ev_correlation_score: Option<f64>,
    #[serde(default)]
    pub rsquared_score: Option<f64>,
    #[serde(default)]
    pub absolute_dev_explained_score: Option<f64>,
}

/// Expected activation of every token of a sequence, as predicted from an explanation.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SequenceSimulation {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dataclass_name: Option<String>,
    pub tokens: Vec<String>,
    #[serde(deserialize_with = "list")]
    pub expected_activations: Vec<f32>,
    #[serde(alias = "unit")]
    pub activation_scale: ActivationScale,
    #[serde(deserialize_with = "lists")]
    pub distribution_values: Vec<Vec<f32>>,
    #[serde(deserialize_with = "lists")]
    pub distribution_probabilities: Vec<Vec<f32>>,
    #[serde(default)]
    pub uncalibrated_simulation: Option<Box<SequenceSimulation>>,
    /// Old files keep the raw answer of the language model here; it is dropped.
    #[serde(default, skip_serializing, rename = "response")]
    _response: Ignored,
}

/// The unit of simulated activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActivationScale {
    /// The node's own.
    NeuronActivations,
    /// 0 to 10.
    #[default]
    SimulatedNormalizedActivations,
    /// 0 to 2, guessed by a person.
    HumanPredictedActivations,
}

/// Predictions for token pairs and the area under their ROC curve.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoredAttentionSimulation {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dataclass_name: Option<String>,
    pub attention_simulations: Vec<AttentionSimulation>,
    #[serde(default)]
    pub roc_auc_score: Option<f64>,
}

/// One token pair: does the head attend strongly, and what was predicted?
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttentionSimulation {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dataclass_name: Option<String>,
    pub tokens: Vec<String>,
    /// (token, attended-to token)
    pub token_pair_coords: (usize, usize),
    pub token_pair_label: u8,
    pub simulation_prediction: f64,
}

/// How well an explanation tells texts with the feature from texts without it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Detection {
    pub true_positives: usize,
    pub false_positives: usize,
    pub true_negatives: usize,
    pub false_negatives: usize,
    /// Mean of the share of right answers among texts with and among texts without the feature, 0.5 by chance.
    pub balanced_accuracy: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Ignored;

impl<'de> Deserialize<'de> for Ignored {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(d).map(|_| Self)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawResults {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dataclass_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    neuron_id: Option<RawId>,
    #[serde(default, alias = "attention_id", skip_serializing_if = "Option::is_none")]
    attention_head_id: Option<RawId>,
    #[serde(alias = "scored_explanation_or_baseline_list")]
    scored_explanations: Vec<ScoredExplanation>,
}

const NEURON: &str = "NeuronSimulationResults";
const ATTENTION: &str = "AttentionSimulationResults";

impl NodeExplanations {
    /// Parses an explanation file. `file` is what errors call it.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Self> {
        let raw: RawResults = json::parse(file, bytes, MAX_EXPLANATION_BYTES)?;
        json::check_class(file, "the document", raw.dataclass_name.as_deref(), &[NEURON, ATTENTION])?;
        let (id, pairs) = match (raw.neuron_id, raw.attention_head_id) {
            (Some(id), None) => (id, false),
            (None, Some(id)) => (id, true),
            _ => return Err(Error::damaged(file, "exactly one of neuron_id and attention_head_id was expected")),
        };
        for e in &raw.scored_explanations {
            let allowed = ["ScoredExplanation", "ScoredAttentionExplanation", "ScoredExplanationOrBaseline"];
            json::check_class(file, "scored_explanations", e.dataclass_name.as_deref(), &allowed)?;
        }
        Ok(Self { layer: id.layer_index, index: id.neuron_index, pairs, explanations: raw.scored_explanations })
    }

    /// The file's text: one line, in the reference's layout.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        let id = RawId { dataclass_name: Some("NeuronId".into()), neuron_index: self.index, layer_index: self.layer };
        let (name, neuron_id, attention_head_id) =
            if self.pairs { (ATTENTION, None, Some(id)) } else { (NEURON, Some(id), None) };
        let raw = RawResults {
            dataclass_name: Some(name.into()),
            neuron_id,
            attention_head_id,
            scored_explanations: self.explanations.iter().map(|e| e.clone().named(self.pairs)).collect(),
        };
        let mut text = serde_json::to_vec(&raw)
            .map_err(|e| Error::damaged(format!("explanations of {}:{}", self.layer, self.index), e.to_string()))?;
        text.push(b'\n');
        Ok(text)
    }
}

impl ScoredExplanation {
    /// An explanation without a score.
    pub fn new(explanation: impl Into<String>, origin: Origin) -> Self {
        Self { explanation: Some(explanation.into()), origin, ..Self::default() }
    }

    /// The score that pages show; `None` where it is undefined (a node that never fires) or was not computed.
    pub fn score(&self) -> Option<f64> {
        self.scored().map(|(score, _)| score)
    }

    /// The score that pages show, and what it measures.
    pub fn scored(&self) -> Option<(f64, ScoreKind)> {
        let simulated = self.scored_simulation.as_ref().and_then(|s| s.ev_correlation_score);
        let pairs = self.scored_attention_simulation.as_ref().and_then(|s| s.roc_auc_score);
        let detected = self.detection.as_ref().and_then(|d| d.balanced_accuracy);
        let kinds =
            [(simulated, ScoreKind::Correlation), (pairs, ScoreKind::RocAuc), (detected, ScoreKind::BalancedAccuracy)];
        kinds.into_iter().find_map(|(score, kind)| Some((score?, kind))).filter(|(score, _)| score.is_finite())
    }

    /// Writes the class names that the reference's reader goes by.
    fn named(mut self, pairs: bool) -> Self {
        let name = |n: &str| Some(n.to_string());
        self.dataclass_name = name(if pairs { "ScoredAttentionExplanation" } else { "ScoredExplanation" });
        if pairs {
            let s = self.scored_attention_simulation.get_or_insert_default();
            s.dataclass_name = name("ScoredAttentionSimulation");
            s.attention_simulations.iter_mut().for_each(|a| a.dataclass_name = name("AttentionSimulation"));
        } else {
            let s = self.scored_simulation.get_or_insert_default();
            s.dataclass_name = name("ScoredSimulation");
            for sequence in &mut s.scored_sequence_simulations {
                sequence.dataclass_name = name("ScoredSequenceSimulation");
                let simulation = &mut sequence.sequence_simulation;
                simulation.dataclass_name = name("SequenceSimulation");
                if let Some(u) = &mut simulation.uncalibrated_simulation {
                    u.dataclass_name = name("SequenceSimulation");
                }
            }
        }
        self
    }
}

impl SequenceSimulation {
    /// Predicted activations on the scale from 0 to 10, without a distribution.
    pub fn new(tokens: Vec<String>, expected_activations: Vec<f32>) -> Self {
        Self { tokens, expected_activations, ..Self::default() }
    }
}

impl ScoredSequenceSimulation {
    /// A simulation beside the true activations, without scores yet.
    pub fn new(sequence_simulation: SequenceSimulation, true_activations: Vec<f32>) -> Self {
        Self {
            dataclass_name: None,
            sequence_simulation,
            true_activations,
            ev_correlation_score: None,
            rsquared_score: None,
            absolute_dev_explained_score: None,
        }
    }
}

impl AttentionSimulation {
    /// One predicted pair.
    pub fn new(tokens: Vec<String>, pair: (usize, usize), strong: bool, prediction: f64) -> Self {
        Self {
            dataclass_name: None,
            tokens,
            token_pair_coords: pair,
            token_pair_label: u8::from(strong),
            simulation_prediction: prediction,
        }
    }
}

/// Numbers, with `null` (which stands for NaN, see [`json::parse`]) as NaN.
fn list<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<f32>, D::Error> {
    let values = Vec::<Option<f32>>::deserialize(d)?;
    Ok(values.into_iter().map(|v| v.unwrap_or(f32::NAN)).collect())
}

fn lists<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Vec<f32>>, D::Error> {
    let values = Vec::<Vec<Option<f32>>>::deserialize(d)?;
    Ok(values.into_iter().map(|l| l.into_iter().map(|v| v.unwrap_or(f32::NAN)).collect()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_names_are_read_and_new_ones_written() {
        let old = r#"{"neuron_id": {"idx": 3, "layer": 2}, "scored_explanation_or_baseline_list": [
            {"explanation_or_baseline": "words", "scored_simulation": {"scored_sequence_simulations": [
              {"simulation": {"tokens": ["a"], "expected_activations": [1.0], "unit": "neuron_activations",
                 "response": {"choices": [1]}, "distribution_values": [[1]], "distribution_probabilities": [[NaN]]},
               "true_activations": [2], "ev_correlation_score": NaN}],
             "ev_correlation_score": 0.25}}]}"#;
        let parsed = NodeExplanations::parse("old", old.as_bytes()).unwrap();
        assert_eq!((parsed.layer, parsed.index, parsed.pairs), (2, 3, false));
        assert_eq!(parsed.explanations[0].score(), Some(0.25));
        let text = String::from_utf8(parsed.to_json().unwrap()).unwrap();
        assert!(text.contains("\"activation_scale\":\"neuron_activations\"") && !text.contains("response"), "{text}");
        assert!(text.contains("{\"dataclass_name\":\"SequenceSimulation\""), "{text}");
        let again = NodeExplanations::parse("new", text.as_bytes()).unwrap();
        assert_eq!(again.to_json().unwrap(), text.as_bytes());
        assert_eq!(text.lines().count(), 1);
    }

    #[test]
    fn origin_and_detection_survive_a_round_trip() {
        let mut e = ScoredExplanation::new(
            "attends to the first token",
            Origin { model: Some("m".into()), method: Some("activations".into()), ..Origin::default() },
        );
        e.detection = Some(Detection {
            true_positives: 1,
            false_positives: 0,
            true_negatives: 1,
            false_negatives: 0,
            balanced_accuracy: Some(1.0),
        });
        let node = NodeExplanations { layer: 0, index: 1, pairs: true, explanations: vec![e] };
        let again = NodeExplanations::parse("x", &node.to_json().unwrap()).unwrap();
        assert_eq!(again.explanations[0].origin, node.explanations[0].origin);
        assert_eq!(again.explanations[0].score(), Some(1.0));
        assert!(again.pairs);
    }

    #[test]
    fn a_file_for_no_node_or_of_another_class_is_an_error() {
        for text in [
            r#"{"scored_explanations": []}"#,
            r#"{"dataclass_name": "NeuronRecord", "neuron_id": {"idx": 3, "layer": 2}, "scored_explanations": []}"#,
            r#"{"neuron_id": {"idx": 3, "layer": 2}, "scored_explanations": [{"explanation": "a", "colour": 1}]}"#,
        ] {
            assert!(NodeExplanations::parse("x", text.as_bytes()).is_err(), "{text}");
        }
    }
}
