//! An answer of the debugger, read once into what the page draws.
//!
//! A part that is missing is absent here, and its card says so; the rest is shown. No number is changed on the way.

use std::collections::HashMap;
use std::sync::Arc;

use tdb_api::numbers::{TokenEffects, difference, largest_magnitude};
use tdb_api::stream::{
    self, COMPONENT_SUMS, Folded, INPUT_TOKENS_ATTN_K, INPUT_TOKENS_ATTN_Q, INPUT_TOKENS_MLP, TOKEN_PAIR_ATTRIBUTION,
    TOP_K_COMPONENTS, TOP_OUTPUT_TOKEN_LOGITS, UPVOTED_OUTPUT_TOKENS,
};
use tdb_api::{
    Alignment, BatchedTdbRequest, GroupId, InferenceResponseAndResponseDict, NodeIndex, NodeType, TopTokens,
};

use crate::names;

/// The four columns of the node table, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metric {
    Activation,
    WriteMagnitude,
    DirectEffect,
    TotalEffect,
}

impl Metric {
    pub const ALL: [Self; 4] = [Self::Activation, Self::WriteMagnitude, Self::DirectEffect, Self::TotalEffect];

    pub const fn group(self) -> GroupId {
        match self {
            Self::Activation => GroupId::Activation,
            Self::WriteMagnitude => GroupId::WriteNorm,
            Self::DirectEffect => GroupId::DirectionWrite,
            Self::TotalEffect => GroupId::ActTimesGrad,
        }
    }

    /// The word of its group.
    pub const fn wire(self) -> &'static str {
        self.group().as_str()
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
    (UPVOTED_OUTPUT_TOKENS, "Promotes"),
    (INPUT_TOKENS_MLP, "Excited by"),
    (INPUT_TOKENS_ATTN_Q, "Query excited by"),
    (INPUT_TOKENS_ATTN_K, "Key excited by"),
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

impl Candidate {
    /// Left logit minus right logit.
    pub fn logit_difference(&self) -> Option<f64> {
        Some(difference(self.logits[0]?, self.logits[1]?))
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Side {
    pub tokens: Vec<String>,
    pub loss: Option<f64>,
    pub activation: Option<f64>,
    pub effects: Option<TokenEffects>,
}

/// One line of the node table: a node and what stands for it on the other side.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Named by the left prompt's tokens if it stands there.
    pub node: NodeIndex,
    pub name: String,
    /// The node on each side, named by that side's tokens; none where one of its tokens has no partner there.
    pub nodes: [Option<NodeIndex>; 2],
    /// Its place in each side's lists.
    pub at: [usize; 2],
    pub values: Values,
    /// The attended-to token of a head, or the token that an attention latent is attributed to, on each side.
    pub to: [Option<usize>; 2],
    pub from: [Option<usize>; 2],
}

/// `[side][metric]`; none on a side where the node has no partner.
pub type Values = [Option<[f64; 4]>; 2];

impl Row {
    /// The only side that has the node, if one of two lacks it.
    pub fn only(&self) -> Option<Compared> {
        match &self.nodes {
            [Some(_), None] => Some(Compared::Left),
            [None, _] => Some(Compared::Right),
            _ => None,
        }
    }

    pub fn value(&self, side: Compared, metric: Metric) -> Option<f64> {
        side.of(&self.values, metric)
    }
}

/// Which of two sides a column shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compared {
    Left,
    Diff,
    Right,
}

impl Compared {
    pub const fn label(self) -> &'static str {
        match self {
            Self::Left => "Left",
            Self::Diff => "Diff",
            Self::Right => "Right",
        }
    }

    /// The value that it shows of `[side][metric]`.
    pub fn of(self, values: &Values, metric: Metric) -> Option<f64> {
        let [left, right] = values.map(|side| side.map(|side| side[metric as usize]));
        match self {
            Self::Left => left,
            Self::Right => right,
            Self::Diff => Some(difference(left?, right?)),
        }
    }

    /// The side's place in an answer; of a difference that of the left one.
    pub const fn side(self) -> usize {
        matches!(self, Self::Right) as usize
    }
}

#[derive(Clone, Debug)]
pub struct Answer {
    pub sides: Vec<Side>,
    pub rows: Vec<Row>,
    pub candidates: Vec<Candidate>,
    /// The token that the candidates would follow.
    pub candidates_after: Option<usize>,
    /// The answer as it came, for readings, JSON views and exports.
    pub folded: Folded,
    pub request: Arc<BatchedTdbRequest>,
    /// Which tokens of two prompts stand for each other; none where each stands for itself.
    pub alignment: Option<Alignment>,
    /// Largest magnitude of each metric over all nodes and both sides: what full colour means.
    pub most: [f64; 4],
}

impl Default for Answer {
    /// No answer yet.
    fn default() -> Self {
        Self {
            sides: Vec::new(),
            rows: Vec::new(),
            candidates: Vec::new(),
            candidates_after: None,
            folded: Folded::default(),
            request: Arc::new(BatchedTdbRequest { sub_requests: Vec::new(), alignment: None, checks: None }),
            alignment: None,
            most: [0.0; 4],
        }
    }
}

impl Answer {
    pub fn is_two_sided(&self) -> bool {
        self.sides.len() > 1
    }

    /// The asked quantity of each side, and whether it is one of the logits.
    pub fn objectives(&self) -> Vec<(f64, bool)> {
        self.sides.iter().filter_map(|s| s.loss.map(|l| (l, true)).or(s.activation.map(|a| (a, false)))).collect()
    }

    /// Whether the candidates would follow the prompt's end, where targets and distractors are asked about.
    pub fn candidates_are_at_the_end(&self) -> bool {
        self.candidates_after.is_none_or(|at| at + 1 >= self.tokens().len())
    }

    /// What the parts of the model add up to; none where a node is traced.
    pub fn objective(&self) -> Option<f64> {
        self.folded.contributions.first()?.as_ref().map(|c| c.objective)
    }

    /// Whether tokens stand for others than those at their own positions.
    pub fn is_aligned(&self) -> bool {
        self.alignment.is_some()
    }

    /// The token of the other side that stands for this one.
    pub fn partner(&self, side: usize, token: usize) -> Option<usize> {
        match &self.alignment {
            Some(alignment) => alignment.partner(side, token as i64).and_then(|at| usize::try_from(at).ok()),
            None => Some(token),
        }
    }

    pub fn tokens(&self) -> &[String] {
        self.sides.first().map_or(&[], |s| &s.tokens)
    }

    /// The sides as they came.
    pub fn responses(&self) -> &[InferenceResponseAndResponseDict] {
        &self.folded.response.inference_sub_responses
    }

    /// The readings of row `row` on `side`, in the order of [`READINGS`].
    pub fn readings(&self, side: usize, row: usize) -> Vec<(&'static str, TopTokens)> {
        let row = self.rows.get(row).filter(|row| row.nodes[side].is_some());
        let (Some(response), Some(row)) = (self.responses().get(side), row) else { return Vec::new() };
        let of = |name| response.scored_tokens(name)?.top_tokens_list.get(row.at[side])?.clone();
        READINGS.iter().filter_map(|(name, label)| Some((*label, of(name)?))).collect()
    }

    /// Reads a whole or partial answer.
    pub fn read(folded: Folded, request: Arc<BatchedTdbRequest>) -> Result<Self, String> {
        let responses = &folded.response.inference_sub_responses;
        if responses.is_empty() {
            return Err("it holds no answers".into());
        }
        let sides: Vec<Side> = responses.iter().map(read_side).collect();
        let alignment = request.alignment.as_ref().map(|pairs| Alignment::new(pairs));
        let rows = read_rows(responses, alignment.as_ref())?;
        let candidates = read_candidates(responses, &folded.candidates);
        let most = std::array::from_fn(|metric| {
            let of = |row: &'_ Row| row.values.into_iter().take(sides.len()).flatten().map(move |side| side[metric]);
            largest_magnitude(rows.iter().flat_map(of))
        });
        let listed = responses[0].ranked(TOP_OUTPUT_TOKEN_LOGITS);
        // Counted from the end where it is negative.
        let place = listed.and_then(|l| l.node_indices.first()?.tensor_indices.first().copied().flatten());
        let n = sides[0].tokens.len() as i64;
        let candidates_after = place.and_then(|at| usize::try_from(if at < 0 { n + at } else { at }).ok());
        Ok(Self { sides, rows, candidates, candidates_after, folded, request, alignment, most })
    }
}

fn read_side(response: &InferenceResponseAndResponseDict) -> Side {
    let data = &response.inference_response.inference_and_token_data;
    Side {
        tokens: data.tokens_as_strings.clone(),
        loss: data.loss,
        activation: data.activation_value_for_backward_pass,
        effects: response.ranked(COMPONENT_SUMS).and_then(TokenEffects::of),
    }
}

fn read_rows(
    responses: &[InferenceResponseAndResponseDict],
    alignment: Option<&Alignment>,
) -> Result<Vec<Row>, String> {
    let Some(left) = responses.first() else { return Ok(Vec::new()) };
    let mut rows = read_side_rows(left, 0);
    let Some(right) = responses.get(1) else {
        for row in &mut rows {
            (row.nodes[1], row.values[1], row.to[1], row.from[1]) =
                (row.nodes[0].clone(), row.values[0], row.to[0], row.from[0]);
        }
        return Ok(rows);
    };
    // Nodes that stand for each other have one name on the left side; those that have none stand at the end.
    let key = |node: &NodeIndex| (node.node_type, node.layer_index, node.tensor_indices.clone());
    let places: HashMap<_, usize> = rows.iter().enumerate().map(|(at, row)| (key(&row.node), at)).collect();
    for other in read_side_rows(right, 1) {
        let named = match alignment {
            Some(alignment) => alignment.node(1, &other.node),
            None => Some(other.node.clone()),
        };
        match named.and_then(|node| places.get(&key(&node))) {
            Some(at) => {
                let row = &mut rows[*at];
                let Row { nodes: [_, node], values: [_, values], at: [_, at], to: [_, to], from: [_, from], .. } =
                    other;
                (row.nodes[1], row.values[1], row.at[1], row.to[1], row.from[1]) = (node, values, at, to, from);
            }
            None if alignment.is_some() => rows.push(other),
            None => return Err("its two sides hold different nodes".into()),
        }
    }
    if alignment.is_none() && rows.iter().any(|row| row.nodes[1].is_none()) {
        return Err("its two sides hold different nodes".into());
    }
    Ok(rows)
}

/// The nodes of one side, without those of the other.
fn read_side_rows(response: &InferenceResponseAndResponseDict, side: usize) -> Vec<Row> {
    let top = response.ranked(TOP_K_COMPONENTS);
    let nodes = top.map_or(&[][..], |top| top.node_indices.as_slice());
    let columns = Metric::ALL.map(|m| top.and_then(|top| top.activations_by_group_id.get(&m.group())));
    let attended = response.token_pairs(TOKEN_PAIR_ATTRIBUTION);
    let row = |(i, node): (usize, &NodeIndex)| {
        let to = match node.node_type {
            NodeType::AttentionHead => names::token_to(node),
            _ => attended
                .and_then(|list| list.top_tokens_attended_to_list.get(i)?.as_ref()?.token_indices.first())
                .and_then(|token| usize::try_from(*token).ok()),
        };
        let mut row = Row {
            node: node.clone(),
            name: names::node_name(node),
            nodes: [None, None],
            at: [i; 2],
            values: [None; 2],
            to: [None; 2],
            from: [None; 2],
        };
        row.nodes[side] = Some(node.clone());
        row.values[side] =
            Some(columns.map(|column| column.and_then(|values| values.get(i)).copied().unwrap_or_default()));
        (row.to[side], row.from[side]) = (to, names::token_from(node));
        row
    };
    nodes.iter().enumerate().map(row).collect()
}

/// Candidates in the order in which they were first met, each once.
#[derive(Default)]
struct Candidates {
    all: Vec<Candidate>,
    at: HashMap<i64, usize>,
}

impl Candidates {
    fn of(&mut self, id: i64) -> &mut Candidate {
        let index = *self.at.entry(id).or_insert_with(|| {
            self.all.push(Candidate { id, token: None, logits: [None; 2], probabilities: [None; 2], rank: None });
            self.all.len() - 1
        });
        &mut self.all[index]
    }
}

fn read_candidates(
    responses: &[InferenceResponseAndResponseDict],
    beside: &[Option<stream::Candidates>],
) -> Vec<Candidate> {
    let mut candidates = Candidates::default();
    for (side, response) in responses.iter().take(2).enumerate() {
        let beside = beside.get(side).and_then(Option::as_ref);
        if let Some(top) = response.ranked(TOP_OUTPUT_TOKEN_LOGITS) {
            let logits = top.activations_by_group_id.get(&GroupId::Logits);
            for (i, node) in top.node_indices.iter().enumerate() {
                let candidate = candidates.of(names::unit(node));
                candidate.logits[side] = logits.and_then(|l| l.get(i)).copied().or(candidate.logits[side]);
                let probability = beside.and_then(|b| b.probabilities.get(i)).copied();
                candidate.probabilities[side] = probability.or(candidate.probabilities[side]);
                let texts = top.vocab_token_strings_for_indices.as_ref();
                let text = || texts.and_then(|texts| texts.get(i)?.clone());
                candidate.token = candidate.token.take().or_else(text);
            }
        }
        for asked in beside.iter().flat_map(|b| &b.tokens_of_interest) {
            let candidate = candidates.of(asked.token_id);
            candidate.logits[side] = Some(asked.logit);
            candidate.probabilities[side] = Some(asked.probability);
            candidate.token.get_or_insert_with(|| asked.token.clone());
            if side == 0 {
                candidate.rank = Some(asked.rank);
            }
        }
    }
    candidates.all
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use tdb_api::stream::TokenOfInterest;

    /// One side with a head, a candidate and sums, all of them around `act`.
    fn side(act: f64) -> String {
        format!(
            r#"{{
            "inferenceResponse": {{"inferenceAndTokenData": {{
                "inferenceTime": 0.5, "loss": {act}, "tokensAsInts": [1, 2, 3], "tokensAsStrings": ["a", " b", "c"]
            }}}},
            "processingResponseDataByName": {{
                "topKComponents": {{
                    "responseDataType": "multiple_top_k_derived_scalars_response_data",
                    "nodeIndices": [{{
                        "nodeType": "attention_head", "tensorIndices": [2, 1, 3], "layerIndex": 0, "passType": "forward"
                    }}],
                    "activationsByGroupId": {{
                        "activation": [{act}], "write_norm": [2.0], "direction_write": [-3.5], "act_times_grad": [0.5]
                    }},
                    "intermediateSumActivationsByDstByGroupId": {{}}
                }},
                "topOutputTokenLogits": {{
                    "responseDataType": "multiple_top_k_derived_scalars_response_data",
                    "nodeIndices": [{{
                        "nodeType": "vocab_token", "tensorIndices": [-1, 7], "layerIndex": null, "passType": "forward"
                    }}],
                    "activationsByGroupId": {{"logits": [{act}]}}, "vocabTokenStringsForIndices": [" x"],
                    "intermediateSumActivationsByDstByGroupId": {{}}
                }},
                "componentSumsForTokenDisplay": {{
                    "responseDataType": "multiple_top_k_derived_scalars_response_data",
                    "nodeIndices": [], "activationsByGroupId": {{}},
                    "intermediateSumActivationsByDstByGroupId": {{"act_times_grad": {{
                        "token_attribution": {{"tensorType": "tensor_1d", "value": [1, 2, 3]}},
                        "mlp_act_times_grad": {{"tensorType": "tensor_1d", "value": [0, 0, 1]}},
                        "unflattened_attn_act_times_grad":
                            {{"tensorType": "tensor_2d", "value": [[1, 0, 0], [1, 1, 0], [4, 0, 2]]}}
                    }}}}
                }}
            }}
        }}"#
        )
    }

    /// The answer that these sides make up, as a server without a stream gives it.
    pub fn answer(sides: &[String]) -> Result<Answer, String> {
        let text = format!(r#"{{"inferenceSubResponses": [{}]}}"#, sides.join(","));
        let response = tdb_api::wire::from_json(&text).map_err(|e| e.to_string())?;
        Answer::read(Folded { response, ..Folded::default() }, Answer::default().request)
    }

    #[test]
    fn two_sides_become_one_table() {
        let answer = answer(&[side(0.25), side(1.0)]).unwrap();
        let row = &answer.rows[0];
        assert_eq!((row.name.as_str(), row.from, row.to), ("attn_L0_3", [Some(2); 2], [Some(1); 2]));
        assert_eq!(row.value(Compared::Diff, Metric::Activation), Some(-0.75));
        assert_eq!(answer.most, [1.0, 2.0, 3.5, 0.5]);
        assert_eq!(answer.candidates[0].logits, [Some(0.25), Some(1.0)]);
        assert_eq!(answer.candidates[0].logit_difference(), Some(-0.75));
        assert!(answer.candidates_after == Some(2) && answer.candidates_are_at_the_end());
        let effects = answer.sides[0].effects.as_ref().unwrap();
        assert_eq!(
            (effects.attended_from.clone(), effects.attended_to.clone()),
            (vec![1.0, 2.0, 6.0], vec![6.0, 1.0, 2.0])
        );
    }

    #[test]
    fn an_answer_without_parts_is_shown_without_them() {
        let empty = r#"{"inferenceResponse": {"inferenceAndTokenData":
            {"inferenceTime": 0, "tokensAsInts": [], "tokensAsStrings": []}}}"#;
        let answered = answer(&[empty.to_owned()]).unwrap();
        assert!(answered.rows.is_empty() && answered.candidates.is_empty() && answered.sides[0].effects.is_none());
        assert!(answer(&[]).is_err());
    }

    #[test]
    fn what_only_a_stream_tells_is_placed_beside_the_candidates() {
        let folded = answer(&[side(0.25)]).unwrap().folded;
        let asked = |token_id, token: &str| TokenOfInterest {
            token: token.into(),
            token_id,
            logit: -1.0,
            probability: 0.125,
            rank: 9,
            role: "target".into(),
        };
        let beside =
            stream::Candidates { probabilities: vec![0.5], tokens_of_interest: vec![asked(7, " x"), asked(8, " y")] };
        let folded = Folded { candidates: vec![Some(beside)], ..folded };
        let answer = Answer::read(folded, Answer::default().request).unwrap();
        let found: Vec<_> = answer.candidates.iter().map(|c| (c.id, c.probabilities[0], c.rank)).collect();
        assert_eq!(found, [(7, Some(0.125), Some(9)), (8, Some(0.125), Some(9))]);
        assert_eq!(answer.candidates[1].token.as_deref(), Some(" y"));
    }
}
