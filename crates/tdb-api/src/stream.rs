//! The streamed answer to the debugger's question: each part as soon as it is ready.
//!
//! The parts add up to the unstreamed answer: [`fold`] gives exactly what `POST /batched_tdb` would have given.

use crate::attribution::TokenPairAttributionResponseData;
use crate::batched::{BatchedResponse, InferenceResponseAndResponseDict, ProcessingResponseData};
use crate::inference::{InferenceAndTokenData, InferenceResponse};
use crate::tokens::ScoredTokensResponseData;
use crate::top_k::MultipleTopKDerivedScalarsResponseData;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

/// The parts of one side's answer, in the order of the unstreamed answer.
pub const PART_NAMES: [&str; 8] = [
    "topKComponents",
    "componentSumsForTokenDisplay",
    "upvotedOutputTokens",
    "inputTokensThatUpvoteMlp",
    "inputTokensThatUpvoteAttnQ",
    "inputTokensThatUpvoteAttnK",
    "tokenPairAttribution",
    "topOutputTokenLogits",
];

/// A target or distractor, wherever it stands among the candidates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenOfInterest {
    /// Its text.
    pub token: String,
    /// Its vocabulary id.
    pub token_id: i64,
    /// Its logit.
    pub logit: f64,
    /// Its probability among the whole vocabulary.
    pub probability: f64,
    /// 1 for the likeliest token of the vocabulary.
    pub rank: i64,
    /// `target` or `distractor`.
    pub role: String,
}

/// What a run is busy with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProgressPass {
    /// The forward pass.
    Forward,
    /// The backward pass.
    Backward,
    /// Token readings; `layer` counts parts of the work rather than layers.
    Readings,
}

/// One line of the stream. `side` is the position in the request: 0 is left, 1 is right.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub enum TdbEvent {
    /// The prompt as the model sees it, before anything is computed.
    Tokens { side: usize, tokens_as_ints: Vec<i64>, tokens_as_strings: Vec<String> },
    /// How far a pass has come: `layer` of `n_layers` layers are done.
    Progress { side: usize, pass: ProgressPass, layer: usize, n_layers: usize },
    /// The run is done; its loss or traced value is known.
    Inference { side: usize, data: InferenceAndTokenData },
    /// `topOutputTokenLogits`.
    OutputLogits { side: usize, name: String, data: MultipleTopKDerivedScalarsResponseData },
    /// Beside `topOutputTokenLogits`, which is not changed by it: the probabilities of its tokens in its order, and the
    /// question's own tokens, all of them.
    Candidates { side: usize, name: String, probabilities: Vec<f64>, tokens_of_interest: Vec<TokenOfInterest> },
    /// `topKComponents` or `componentSumsForTokenDisplay`.
    NodeGroups { side: usize, name: String, data: MultipleTopKDerivedScalarsResponseData },
    /// One of the four ways of reading nodes in token space.
    TokenReadings { side: usize, name: String, data: ScoredTokensResponseData },
    /// `tokenPairAttribution`.
    TokenPairs { side: usize, name: String, data: TokenPairAttributionResponseData },
    /// Everything was sent.
    Done,
    /// It came to nothing; `status` is what the unstreamed answer would have had.
    Error { status: u16, message: String },
}

/// Why events do not add up to an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// The server said so.
    #[error("{message}")]
    Failed {
        /// The status that the unstreamed answer would have had.
        status: u16,
        /// The server's sentence.
        message: String,
    },
    /// The stream broke off.
    #[error("the stream ended before its last event")]
    Incomplete,
    /// A part came for a side whose run was not told.
    #[error("side {side} has parts, but its run was not told")]
    NoRun {
        /// The side.
        side: usize,
    },
}

/// What was told about one side so far.
#[derive(Debug, Default)]
struct Side {
    run: Option<InferenceAndTokenData>,
    parts: Vec<(String, ProcessingResponseData)>,
}

/// Adds up the events of one stream to the unstreamed answer. The order of the events does not matter.
pub fn fold(events: impl IntoIterator<Item = TdbEvent>) -> Result<BatchedResponse, FoldError> {
    let mut sides: Vec<Side> = Vec::new();
    let mut done = false;
    for event in events {
        match event {
            TdbEvent::Tokens { .. } | TdbEvent::Progress { .. } | TdbEvent::Candidates { .. } => {}
            TdbEvent::Inference { side, data } => at(&mut sides, side).run = Some(data),
            TdbEvent::OutputLogits { side, name, data } | TdbEvent::NodeGroups { side, name, data } => {
                at(&mut sides, side).parts.push((name, ProcessingResponseData::MultipleTopKDerivedScalars(data)));
            }
            TdbEvent::TokenReadings { side, name, data } => {
                at(&mut sides, side).parts.push((name, ProcessingResponseData::ScoredTokens(data)));
            }
            TdbEvent::TokenPairs { side, name, data } => {
                at(&mut sides, side).parts.push((name, ProcessingResponseData::TokenPairAttribution(data)));
            }
            TdbEvent::Done => done = true,
            TdbEvent::Error { status, message } => return Err(FoldError::Failed { status, message }),
        }
    }
    if !done {
        return Err(FoldError::Incomplete);
    }
    let inference_sub_responses =
        sides.into_iter().enumerate().map(|(i, side)| whole(i, side)).collect::<Result<_, _>>()?;
    Ok(BatchedResponse { inference_sub_responses })
}

fn at(sides: &mut Vec<Side>, side: usize) -> &mut Side {
    if sides.len() <= side {
        sides.resize_with(side + 1, Side::default);
    }
    &mut sides[side]
}

fn whole(index: usize, side: Side) -> Result<InferenceResponseAndResponseDict, FoldError> {
    let Side { run, mut parts } = side;
    let inference_and_token_data = run.ok_or(FoldError::NoRun { side: index })?;
    let place = |name: &str| PART_NAMES.iter().position(|part| *part == name).unwrap_or(PART_NAMES.len());
    parts.sort_by_key(|(name, _)| place(name));
    Ok(InferenceResponseAndResponseDict {
        inference_response: InferenceResponse { inference_and_token_data },
        processing_response_data_by_name: parts.into_iter().collect::<IndexMap<_, _>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::{TokenAndScalar, TopTokens};
    use crate::{GroupId, MirroredNodeIndex, NodeType, PassType};

    fn node() -> MirroredNodeIndex {
        MirroredNodeIndex {
            node_type: NodeType::MlpNeuron,
            tensor_indices: vec![Some(3), Some(17)],
            layer_index: Some(1),
            pass_type: PassType::Forward,
        }
    }

    fn run(loss: f64) -> InferenceAndTokenData {
        InferenceAndTokenData {
            inference_time: 0.25,
            memory_used_before: None,
            memory_used_after: None,
            log: None,
            loss: Some(loss),
            activation_value_for_backward_pass: None,
            tokens_as_ints: vec![5],
            tokens_as_strings: vec!["a".into()],
        }
    }

    fn groups(value: f64) -> MultipleTopKDerivedScalarsResponseData {
        MultipleTopKDerivedScalarsResponseData {
            response_data_type: Default::default(),
            activations_by_group_id: [(GroupId::WriteNorm, vec![value])].into_iter().collect(),
            node_indices: vec![node()],
            vocab_token_strings_for_indices: None,
            intermediate_sum_activations_by_dst_by_group_id: IndexMap::new(),
        }
    }

    fn events() -> Vec<TdbEvent> {
        let reading = TopTokens {
            top: vec![TokenAndScalar { token: " Mary".into(), scalar: f64::from(0.1_f32), normalized_scalar: 1.0 }],
            bottom: vec![],
        };
        vec![
            TdbEvent::Tokens { side: 0, tokens_as_ints: vec![5], tokens_as_strings: vec!["a".into()] },
            TdbEvent::Progress { side: 0, pass: ProgressPass::Forward, layer: 1, n_layers: 2 },
            TdbEvent::OutputLogits { side: 1, name: "topOutputTokenLogits".into(), data: groups(1.0) },
            TdbEvent::Inference { side: 1, data: run(2.0) },
            TdbEvent::Inference { side: 0, data: run(1.0) },
            TdbEvent::TokenReadings {
                side: 0,
                name: "upvotedOutputTokens".into(),
                data: ScoredTokensResponseData {
                    response_data_type: Default::default(),
                    node_indices: vec![node()],
                    top_tokens_list: vec![Some(reading)],
                },
            },
            TdbEvent::NodeGroups { side: 0, name: "topKComponents".into(), data: groups(-0.0) },
            TdbEvent::Done,
        ]
    }

    #[test]
    fn parts_add_up_in_the_order_of_the_unstreamed_answer() {
        let answer = fold(events()).unwrap();
        let names = |side: usize| {
            answer.inference_sub_responses[side].processing_response_data_by_name.keys().cloned().collect::<Vec<_>>()
        };
        assert_eq!(names(0), ["topKComponents", "upvotedOutputTokens"]);
        assert_eq!(names(1), ["topOutputTokenLogits"]);
        let loss = answer.inference_sub_responses[1].inference_response.inference_and_token_data.loss;
        assert_eq!(loss, Some(2.0));
        let mut reversed = events();
        reversed.reverse();
        assert_eq!(fold(reversed).unwrap(), answer);
    }

    #[test]
    fn events_survive_the_wire() {
        for event in events() {
            let line = serde_json::to_string(&event).unwrap();
            assert_eq!(serde_json::from_str::<TdbEvent>(&line).unwrap(), event, "{line}");
        }
    }

    #[test]
    fn a_broken_or_failed_stream_is_no_answer() {
        let mut broken = events();
        broken.pop();
        assert_eq!(fold(broken), Err(FoldError::Incomplete));
        let failed = [TdbEvent::Error { status: 400, message: "no".into() }];
        assert_eq!(fold(failed), Err(FoldError::Failed { status: 400, message: "no".into() }));
        let orphan =
            [TdbEvent::NodeGroups { side: 0, name: "topKComponents".into(), data: groups(1.0) }, TdbEvent::Done];
        assert_eq!(fold(orphan), Err(FoldError::NoRun { side: 0 }));
    }
}
