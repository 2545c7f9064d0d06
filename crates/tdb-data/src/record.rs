//! What one node responds to: text examples with the node's activation on every token or token pair.

use serde::{Deserialize, Serialize};

use crate::{Error, Result, attention, json};

/// No record file of the public sets comes near this; a larger one is refused before it is parsed.
pub const MAX_RECORD_BYTES: usize = 64 << 20;

/// A text and one node's activations on it: one per token, or one per token pair (see [`crate::attention`]).
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct ActivationRecord {
    pub activations: Vec<f32>,
    pub tokens: Vec<String>,
}

/// Everything collated about one node. "Neuron" in the file's field names means any node.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeRecord {
    pub layer: usize,
    pub index: usize,
    /// Examples drawn at random.
    pub random_sample: Vec<ActivationRecord>,
    /// Examples drawn at random within each quantile, if they were collected.
    pub random_sample_by_quantile: Option<Vec<Vec<ActivationRecord>>>,
    pub quantile_boundaries: Option<Vec<f32>>,
    pub moments: Moments,
    /// The examples with the largest figure of merit, best first.
    pub most_positive: Vec<ActivationRecord>,
}

/// Moments of the activations over the whole corpus; `None` where they were not collected.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Moments {
    pub mean: Option<f64>,
    pub variance: Option<f64>,
    pub skewness: Option<f64>,
    pub kurtosis: Option<f64>,
}

impl NodeRecord {
    /// Parses a record file of the reference's layout, new or old. `file` is what errors call it.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Self> {
        let raw: RawRecord = json::parse(file, bytes, MAX_RECORD_BYTES)?;
        raw.into_record(file)
    }

    /// The file's text, in the reference's layout.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        let raw = RawRecord {
            dataclass_name: Some("NeuronRecord".into()),
            neuron_id: RawId {
                dataclass_name: Some("NeuronId".into()),
                neuron_index: self.index,
                layer_index: self.layer,
            },
            random_sample: self.random_sample.iter().map(RawActivations::from).collect(),
            random_sample_by_quantile: self
                .random_sample_by_quantile
                .as_ref()
                .map(|q| q.iter().map(|l| l.iter().map(RawActivations::from).collect()).collect()),
            quantile_boundaries: self.quantile_boundaries.clone(),
            mean: self.moments.mean,
            variance: self.moments.variance,
            skewness: self.moments.skewness,
            kurtosis: self.moments.kurtosis,
            most_positive_activation_records: self.most_positive.iter().map(RawActivations::from).collect(),
        };
        serde_json::to_vec(&raw)
            .map_err(|e| Error::damaged(format!("record {}:{}", self.layer, self.index), e.to_string()))
    }

    /// Largest activation over the top examples, which is what activations are normalised by; 0 without examples.
    pub fn max_activation(&self) -> f32 {
        max_of(self.most_positive.iter().flat_map(|r| &r.activations)).unwrap_or(0.0)
    }

    /// Largest activation over all that a page shows (top examples and random ones); 0 without examples.
    pub fn max_shown(&self) -> f32 {
        max_of(self.most_positive.iter().chain(&self.random_sample).flat_map(|r| &r.activations)).unwrap_or(0.0)
    }
}

impl ActivationRecord {
    /// Largest activation, or `None` of an empty record.
    pub fn max(&self) -> Option<f32> {
        max_of(&self.activations)
    }
}

fn max_of<'a>(values: impl IntoIterator<Item = &'a f32>) -> Option<f32> {
    values.into_iter().copied().reduce(f32::max)
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawId {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataclass_name: Option<String>,
    #[serde(alias = "idx", deserialize_with = "json::index")]
    pub neuron_index: usize,
    #[serde(alias = "layer", deserialize_with = "json::index")]
    pub layer_index: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawActivations {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dataclass_name: Option<String>,
    #[serde(deserialize_with = "json::finite_list")]
    activations: Vec<f32>,
    tokens: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRecord {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dataclass_name: Option<String>,
    neuron_id: RawId,
    #[serde(default)]
    random_sample: Vec<RawActivations>,
    #[serde(default)]
    random_sample_by_quantile: Option<Vec<Vec<RawActivations>>>,
    #[serde(default)]
    quantile_boundaries: Option<Vec<f32>>,
    #[serde(default)]
    mean: Option<f64>,
    #[serde(default)]
    variance: Option<f64>,
    #[serde(default)]
    skewness: Option<f64>,
    #[serde(default)]
    kurtosis: Option<f64>,
    #[serde(default)]
    most_positive_activation_records: Vec<RawActivations>,
}

impl From<&ActivationRecord> for RawActivations {
    fn from(r: &ActivationRecord) -> Self {
        Self {
            dataclass_name: Some("ActivationRecord".into()),
            activations: r.activations.clone(),
            tokens: r.tokens.clone(),
        }
    }
}

impl RawRecord {
    fn into_record(self, file: &str) -> Result<NodeRecord> {
        json::check_class(file, "the document", self.dataclass_name.as_deref(), &["NeuronRecord"])?;
        json::check_class(file, "neuron_id", self.neuron_id.dataclass_name.as_deref(), &["NeuronId"])?;
        let by_quantile = match self.random_sample_by_quantile {
            None => None,
            Some(lists) => {
                let lists = lists.into_iter().map(|l| examples(file, "random_sample_by_quantile", l));
                Some(lists.collect::<Result<Vec<_>>>()?)
            }
        };
        Ok(NodeRecord {
            layer: self.neuron_id.layer_index,
            index: self.neuron_id.neuron_index,
            random_sample: examples(file, "random_sample", self.random_sample)?,
            random_sample_by_quantile: by_quantile,
            quantile_boundaries: self.quantile_boundaries,
            moments: Moments {
                mean: self.mean,
                variance: self.variance,
                skewness: self.skewness,
                kurtosis: self.kurtosis,
            },
            most_positive: examples(file, "most_positive_activation_records", self.most_positive_activation_records)?,
        })
    }
}

/// Checks that every example has a value per token or per token pair.
fn examples(file: &str, key: &str, raw: Vec<RawActivations>) -> Result<Vec<ActivationRecord>> {
    let mut out = Vec::with_capacity(raw.len());
    for (i, r) in raw.into_iter().enumerate() {
        json::check_class(file, key, r.dataclass_name.as_deref(), &["ActivationRecord"])?;
        let (tokens, values) = (r.tokens.len(), r.activations.len());
        if tokens != values && attention::window(tokens, values).is_none() {
            return Err(Error::damaged(
                file,
                format!(
                    "{key}[{i}] has {values} activations for {tokens} tokens, which is neither one per token nor one per token pair"
                ),
            ));
        }
        out.push(ActivationRecord { activations: r.activations, tokens: r.tokens });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: &str = r#"{"dataclass_name": "NeuronRecord",
        "neuron_id": {"dataclass_name": "NeuronId", "neuron_index": 7, "layer_index": 1},
        "random_sample": [{"dataclass_name": "ActivationRecord", "activations": [0.5, 4], "tokens": ["a", " b"]}],
        "random_sample_by_quantile": null, "quantile_boundaries": null,
        "mean": NaN, "variance": 1.5, "skewness": 0.1, "kurtosis": 3.0,
        "most_positive_activation_records":
            [{"dataclass_name": "ActivationRecord", "activations": [-1.0, 2.5], "tokens": ["é", "\ud83d\ude00"]}]}"#;
    const OLD: &str = r#"{"neuron_id": {"idx": 7, "layer": "1"},
        "random_sample": [{"activations": [0.5, 4], "tokens": ["a", " b"]}],
        "variance": 1.5, "skewness": 0.1, "kurtosis": 3.0,
        "most_positive_activation_records": [{"activations": [-1.0, 2.5], "tokens": ["é", "\ud83d\ude00"]}]}"#;

    #[test]
    fn old_and_new_layouts_are_the_same_record() {
        let new = NodeRecord::parse("new", NEW.as_bytes()).unwrap();
        assert_eq!(new, NodeRecord::parse("old", OLD.as_bytes()).unwrap());
        assert_eq!((new.layer, new.index, new.max_activation(), new.max_shown()), (1, 7, 2.5, 4.0));
        assert_eq!(new.moments.mean, None);
        assert_eq!(NodeRecord::parse("again", &new.to_json().unwrap()).unwrap(), new);
    }

    #[test]
    fn errors_name_the_file_the_key_and_what_was_found() {
        let cases = [
            (NEW.replace("\"NeuronRecord\"", "\"Cat\""), "dataclass_name is \"Cat\""),
            (
                NEW.replace("[-1.0, 2.5]", "[-1.0, 2.5, 3, 4]"),
                "most_positive_activation_records[0] has 4 activations for 2",
            ),
            (NEW.replace("[-1.0, 2.5]", "[-1.0, 1e39]"), "entry 1 is not a finite number"),
            (NEW.replace("[-1.0, 2.5]", "[-1.0, NaN]"), "most_positive_activation_records[0].activations[1]: "),
            (NEW.replace("[-1.0, 2.5]", "[-1.0, \"x\"]"), "most_positive_activation_records[0].activations[1]: "),
            (NEW.replace("\"variance\"", "\"varianze\""), "unknown field `varianze`"),
            (NEW.replace("\"neuron_index\": 7", "\"neuron_index\": -7"), "neuron_id"),
            (OLD.replace("\"1\"", "\"one\""), "found the text \"one\""),
            (NEW[..NEW.len() - 3].to_string(), "EOF"),
            ("[".repeat(5000), "expected"),
        ];
        for (text, expected) in cases {
            let message = NodeRecord::parse("some/file.json", text.as_bytes()).unwrap_err().to_string();
            assert!(message.starts_with("some/file.json is damaged") && message.contains(expected), "{message}");
        }
    }

    #[test]
    fn records_without_examples_have_maximum_zero() {
        let text = r#"{"neuron_id": {"neuron_index": 0, "layer_index": 0}}"#;
        assert_eq!(NodeRecord::parse("x", text.as_bytes()).unwrap().max_activation(), 0.0);
    }
}
