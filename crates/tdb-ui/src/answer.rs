//! An answer of the debugger, read once from its JSON into what the page draws.
//!
//! Reading is tolerant: a part that is missing or malformed is absent here, and its card says so; the rest is shown.
//! No number is changed on the way.

use std::sync::Arc;

use serde_json::Value;
use tdb_api::{NodeIndex, NodeType, TopTokens};

use crate::names;

/// The four columns of the node table, in their order, as the wire names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metric {
    Activation,
    WriteMagnitude,
    DirectEffect,
    TotalEffect,
}

impl Metric {
    pub const ALL: [Self; 4] = [Self::Activation, Self::WriteMagnitude, Self::DirectEffect, Self::TotalEffect];

    pub const fn wire(self) -> &'static str {
        match self {
            Self::Activation => "activation",
            Self::WriteMagnitude => "write_norm",
            Self::DirectEffect => "direction_write",
            Self::TotalEffect => "act_times_grad",
        }
    }

    pub const fn label(self) -> &'static str {
        match self {
            Self::Activation => "Activation",
            Self::WriteMagnitude => "Write magnitude",
            Self::DirectEffect => "Direct effect",
            Self::TotalEffect => "Estimated total effect",
        }
    }
}

/// Kinds of token readings of a node, in the order of the detail row.
pub const READINGS: [(&str, &str); 4] = [
    ("upvotedOutputTokens", "upvoted"),
    ("inputTokensThatUpvoteMlp", "tokens that upvote"),
    ("inputTokensThatUpvoteAttnQ", "tokens that upvote Q"),
    ("inputTokensThatUpvoteAttnK", "tokens that upvote K"),
];

/// A candidate for the next token.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    pub id: i64,
    pub token: Option<String>,
    /// Left and right.
    pub logits: [Option<f64>; 2],
    pub probabilities: [Option<f64>; 2],
    /// Place among all tokens, from 1; told for the tokens of interest.
    pub rank: Option<i64>,
}

/// Sums of the estimated total effect over all components, for each token of the prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenEffects {
    pub embeddings: Vec<f64>,
    pub mlp: Vec<f64>,
    /// Of attention, at the token that reads.
    pub attended_from: Vec<f64>,
    /// Of attention, at the token that is read.
    pub attended_to: Vec<f64>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Side {
    pub tokens: Vec<String>,
    pub loss: Option<f64>,
    pub activation: Option<f64>,
    pub seconds: Option<f64>,
    pub effects: Option<TokenEffects>,
}

/// One line of the node table.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub node: NodeIndex,
    pub name: String,
    /// `[side][metric]`.
    pub values: [[f64; 4]; 2],
    /// The attended-to token of a head, or the token that an attention latent is attributed to, on each side.
    pub to: [Option<usize>; 2],
    pub from: Option<usize>,
}

impl Row {
    pub fn value(&self, side: View, metric: Metric) -> f64 {
        let m = metric as usize;
        match side {
            View::Left => self.values[0][m],
            View::Right => self.values[1][m],
            View::Diff => self.values[0][m] - self.values[1][m],
        }
    }
}

/// Which of two sides a column shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum View {
    Left,
    Diff,
    Right,
}

impl View {
    pub const fn label(self) -> &'static str {
        match self {
            Self::Left => "Left",
            Self::Diff => "Diff",
            Self::Right => "Right",
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub sides: Vec<Side>,
    pub rows: Vec<Row>,
    pub candidates: Vec<Candidate>,
    /// The whole JSON, for the JSON views and exports.
    pub json: Arc<Value>,
    /// The request's JSON text.
    pub request: Arc<str>,
    /// Largest magnitude of each metric over all nodes and both sides: what full colour means.
    pub most: [f64; 4],
}

impl Answer {
    pub fn is_two_sided(&self) -> bool {
        self.sides.len() > 1
    }

    pub fn tokens(&self) -> &[String] {
        self.sides.first().map_or(&[], |s| &s.tokens)
    }

    /// The readings of row `row` on `side`, in the order of [`READINGS`].
    pub fn readings(&self, side: usize, row: usize) -> Vec<(&'static str, TopTokens)> {
        let parts = &self.json["inferenceSubResponses"][side]["processingResponseDataByName"];
        READINGS
            .iter()
            .filter_map(|(key, label)| {
                let list = &parts[key]["topTokensList"][row];
                Some((*label, serde_json::from_value(list.clone()).ok()?))
            })
            .collect()
    }

    /// Reads a whole or partial answer.
    pub fn read(json: Value, request: Arc<str>) -> Result<Self, String> {
        let subs = json["inferenceSubResponses"].as_array().filter(|s| !s.is_empty()).ok_or("it holds no answers")?;
        let sides: Vec<Side> = subs.iter().map(read_side).collect();
        let rows = read_rows(subs)?;
        let candidates = read_candidates(subs);
        let mut most = [0.0f64; 4];
        for row in &rows {
            for side in &row.values[..sides.len().min(2)] {
                for (m, value) in side.iter().enumerate() {
                    most[m] = most[m].max(value.abs());
                }
            }
        }
        Ok(Self { sides, rows, candidates, json: Arc::new(json), request, most })
    }
}

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().map(|items| items.iter().filter_map(Value::as_f64).collect()).unwrap_or_default()
}

fn read_side(sub: &Value) -> Side {
    let data = &sub["inferenceResponse"]["inferenceAndTokenData"];
    let tokens = data["tokensAsStrings"].as_array();
    Side {
        tokens: tokens.map(|t| t.iter().filter_map(|s| s.as_str().map(str::to_owned)).collect()).unwrap_or_default(),
        loss: data["loss"].as_f64(),
        activation: data["activationValueForBackwardPass"].as_f64(),
        seconds: data["inferenceTime"].as_f64(),
        effects: read_effects(&sub["processingResponseDataByName"]["componentSumsForTokenDisplay"]),
    }
}

fn read_effects(part: &Value) -> Option<TokenEffects> {
    let sums = part["intermediateSumActivationsByDstByGroupId"].get("act_times_grad")?;
    let matrix: Vec<Vec<f64>> =
        sums["unflattened_attn_act_times_grad"]["value"].as_array()?.iter().map(floats).collect();
    let width = matrix.iter().map(Vec::len).max().unwrap_or_default();
    Some(TokenEffects {
        embeddings: floats(&sums["token_attribution"]["value"]),
        mlp: floats(&sums["mlp_act_times_grad"]["value"]),
        attended_from: matrix.iter().map(|row| row.iter().sum()).collect(),
        attended_to: (0..width).map(|to| matrix.iter().filter_map(|row| row.get(to)).sum()).collect(),
    })
}

fn nodes(part: &Value) -> Vec<NodeIndex> {
    let list = part["nodeIndices"].as_array();
    list.map(|l| l.iter().filter_map(|n| serde_json::from_value(n.clone()).ok()).collect()).unwrap_or_default()
}

fn read_rows(subs: &[Value]) -> Result<Vec<Row>, String> {
    let mut rows: Vec<Row> = Vec::new();
    for (side, sub) in subs.iter().take(2).enumerate() {
        let parts = &sub["processingResponseDataByName"];
        let top = &parts["topKComponents"];
        let nodes = nodes(top);
        let columns = Metric::ALL.map(|m| floats(&top["activationsByGroupId"][m.wire()]));
        if side > 0 && nodes.len() != rows.len() {
            return Err("its two sides hold different nodes".into());
        }
        let attended = &parts["tokenPairAttribution"]["topTokensAttendedToList"];
        for (i, node) in nodes.into_iter().enumerate() {
            let values = std::array::from_fn(|m| columns[m].get(i).copied().unwrap_or_default());
            let to = match node.node_type {
                NodeType::AttentionHead => names::token_to(&node),
                _ => attended[i]["tokenIndices"][0].as_u64().map(|t| t as usize),
            };
            if side == 0 {
                let name = names::node_name(&node);
                rows.push(Row { name, from: names::token_from(&node), to: [to; 2], values: [values; 2], node });
            } else if rows[i].node == node {
                rows[i].values[1] = values;
                rows[i].to[1] = to;
            } else {
                return Err("its two sides hold their nodes in different orders".into());
            }
        }
    }
    Ok(rows)
}

fn read_candidates(subs: &[Value]) -> Vec<Candidate> {
    let mut all: Vec<Candidate> = Vec::new();
    let mut at = std::collections::HashMap::new();
    for (side, sub) in subs.iter().take(2).enumerate() {
        let top = &sub["processingResponseDataByName"]["topOutputTokenLogits"];
        let logits = floats(&top["activationsByGroupId"]["logits"]);
        let probabilities = floats(&top["activationsByGroupId"]["probabilities"]);
        for (i, node) in nodes(top).iter().enumerate() {
            let id = names::unit(node);
            let token = top["vocabTokenStringsForIndices"][i].as_str().map(str::to_owned);
            place(&mut all, &mut at, id, token, side, logits.get(i).copied(), probabilities.get(i).copied());
        }
        for asked in top["tokensOfInterest"].as_array().into_iter().flatten() {
            let Some(id) = asked["tokenId"].as_i64() else { continue };
            let token = asked["token"].as_str().map(str::to_owned);
            place(&mut all, &mut at, id, token, side, asked["logit"].as_f64(), asked["probability"].as_f64());
            if let (0, Some(found)) = (side, at.get(&id)) {
                all[*found].rank = asked["rank"].as_i64();
            }
        }
    }
    all
}

fn place(
    all: &mut Vec<Candidate>,
    at: &mut std::collections::HashMap<i64, usize>,
    id: i64,
    token: Option<String>,
    side: usize,
    logit: Option<f64>,
    probability: Option<f64>,
) {
    let index = *at.entry(id).or_insert_with(|| {
        all.push(Candidate { id, token: token.clone(), logits: [None; 2], probabilities: [None; 2], rank: None });
        all.len() - 1
    });
    let candidate = &mut all[index];
    candidate.logits[side] = logit.or(candidate.logits[side]);
    candidate.probabilities[side] = probability.or(candidate.probabilities[side]);
    candidate.token = candidate.token.take().or(token);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn side(act: f64) -> Value {
        let node =
            json!({"nodeType": "attention_head", "tensorIndices": [2, 1, 3], "layerIndex": 0, "passType": "forward"});
        let vocab =
            json!({"nodeType": "vocab_token", "tensorIndices": [-1, 7], "layerIndex": null, "passType": "forward"});
        json!({
            "inferenceResponse": {"inferenceAndTokenData": {"loss": act, "tokensAsStrings": ["a", " b", "c"]}},
            "processingResponseDataByName": {
                "topKComponents": {
                    "nodeIndices": [node],
                    "activationsByGroupId": {"activation": [act], "write_norm": [2.0], "direction_write": [-3.5], "act_times_grad": [0.5]},
                },
                "topOutputTokenLogits": {
                    "nodeIndices": [vocab], "activationsByGroupId": {"logits": [act]}, "vocabTokenStringsForIndices": [" x"],
                },
                "componentSumsForTokenDisplay": {"intermediateSumActivationsByDstByGroupId": {"act_times_grad": {
                    "token_attribution": {"value": [1, 2, 3]}, "mlp_act_times_grad": {"value": [0, 0, 1]},
                    "unflattened_attn_act_times_grad": {"value": [[1, 0, 0], [1, 1, 0], [4, 0, 2]]},
                }}},
            },
        })
    }

    #[test]
    fn two_sides_become_one_table() {
        let answer = Answer::read(json!({"inferenceSubResponses": [side(0.25), side(1.0)]}), "".into()).unwrap();
        let row = &answer.rows[0];
        assert_eq!((row.name.as_str(), row.from, row.to), ("attn_L0_3", Some(2), [Some(1); 2]));
        assert_eq!(row.value(View::Diff, Metric::Activation), -0.75);
        assert_eq!(answer.most, [1.0, 2.0, 3.5, 0.5]);
        assert_eq!(answer.candidates[0].logits, [Some(0.25), Some(1.0)]);
        let effects = answer.sides[0].effects.as_ref().unwrap();
        assert_eq!(
            (effects.attended_from.clone(), effects.attended_to.clone()),
            (vec![1.0, 2.0, 6.0], vec![6.0, 1.0, 2.0])
        );
    }

    #[test]
    fn an_answer_without_parts_is_shown_without_them() {
        let answer = Answer::read(json!({"inferenceSubResponses": [{}]}), "".into()).unwrap();
        assert!(answer.rows.is_empty() && answer.candidates.is_empty() && answer.sides[0].effects.is_none());
        assert!(Answer::read(json!({}), "".into()).is_err());
    }
}
