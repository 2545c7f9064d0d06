//! How the events of a stream add up: a fold gives exactly what the unstreamed route would have given.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use serde::Serialize;

use super::{Contributions, PART_NAMES, TdbEvent, TokenOfInterest};
use crate::batched::{BatchedResponse, InferenceResponseAndResponseDict, ProcessingResponseData};
use crate::effects::{Check, EffectsResponse, NodeEffect, Price, SampledBound};
use crate::inference::{InferenceAndTokenData, InferenceResponse};
use crate::patch::{PatchResponse, PatchRuns, PatchedCell};
use crate::wire::FieldPath;

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
        /// The field that it is about, if it is about one.
        field: Option<FieldPath>,
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

/// What a stream tells beside `topOutputTokenLogits`.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Candidates {
    /// Probabilities of the listed tokens, in their order.
    pub probabilities: Vec<f64>,
    /// The question's own tokens.
    pub tokens_of_interest: Vec<TokenOfInterest>,
}

/// What the events of a stream add up to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Folded {
    /// The unstreamed answer.
    pub response: BatchedResponse,
    /// Beside it, for each side, what only a stream tells.
    pub candidates: Vec<Option<Candidates>>,
    /// The logit difference as a sum, likewise.
    pub contributions: Vec<Option<Contributions>>,
}

/// What was told about one side so far.
#[derive(Debug, Clone, Default)]
struct Side {
    run: Option<InferenceAndTokenData>,
    parts: Vec<(String, ProcessingResponseData)>,
    candidates: Option<Candidates>,
    contributions: Option<Contributions>,
    checks: Option<Vec<Check>>,
}

/// Adds up the events of a stream to the unstreamed answer. Their order does not matter.
pub trait FoldEvents {
    /// The answer.
    type Answer;

    /// Adds one event.
    ///
    /// # Errors
    /// [`FoldError::Failed`] if the event says that the question was not answered.
    fn add(&mut self, event: TdbEvent) -> Result<(), FoldError>;

    /// Adds a part of one side's answer, among them those that no stream tells.
    fn put(&mut self, side: usize, name: &str, part: ProcessingResponseData) -> Result<(), FoldError> {
        TdbEvent::of_part(side, name, part).map_or(Ok(()), |event| self.add(event))
    }

    /// The whole.
    ///
    /// # Errors
    /// [`FoldError::Incomplete`] if something is missing.
    fn finish(self) -> Result<Self::Answer, FoldError>;
}

/// Adds up the events of a debugger's question. Their order does not matter.
#[derive(Debug, Default)]
pub struct Fold {
    sides: Vec<Side>,
    done: bool,
}

impl Fold {
    /// For an answer with this many sides; more are taken as they come.
    pub fn new(sides: usize) -> Self {
        Self { sides: vec![Side::default(); sides], done: false }
    }

    /// Whether every side has its run and these parts.
    pub fn has(&self, names: &[&str]) -> bool {
        let has = |side: &Side, name: &str| side.parts.iter().any(|(part, _)| part == name);
        self.sides.iter().all(|side| side.run.is_some() && names.iter().all(|name| has(side, name)))
    }

    /// What has come so far.
    ///
    /// # Errors
    /// [`FoldError::NoRun`] if a side's run was not told yet.
    pub fn so_far(&self) -> Result<Folded, FoldError> {
        added_up(self.sides.clone())
    }

    fn set(&mut self, side: usize, name: String, part: ProcessingResponseData) {
        self.at(side).parts.push((name, part));
    }

    fn at(&mut self, side: usize) -> &mut Side {
        if self.sides.len() <= side {
            self.sides.resize_with(side + 1, Side::default);
        }
        &mut self.sides[side]
    }
}

impl FoldEvents for Fold {
    type Answer = Folded;

    fn add(&mut self, event: TdbEvent) -> Result<(), FoldError> {
        use ProcessingResponseData as Part;
        match event {
            TdbEvent::Tokens { .. } | TdbEvent::Progress { .. } | TdbEvent::Sampled { .. } => {}
            // Parts of answers to other questions.
            TdbEvent::Price { .. }
            | TdbEvent::Objective { .. }
            | TdbEvent::NodeEffect { .. }
            | TdbEvent::SampledBound { .. }
            | TdbEvent::PatchRuns { .. }
            | TdbEvent::PatchedCell { .. }
            | TdbEvent::Checks { side: None, .. } => {}
            TdbEvent::Checks { side: Some(side), checks } => self.at(side).checks = Some(checks),
            TdbEvent::Inference { side, data } => self.at(side).run = Some(data),
            TdbEvent::OutputLogits { side, name, data } | TdbEvent::NodeGroups { side, name, data } => {
                self.set(side, name, Part::MultipleTopKDerivedScalars(data));
            }
            TdbEvent::TokenReadings { side, name, data } => self.set(side, name, Part::ScoredTokens(data)),
            TdbEvent::TokenPairs { side, name, data } => self.set(side, name, Part::TokenPairAttribution(data)),
            TdbEvent::Candidates { side, probabilities, tokens_of_interest, .. } => {
                self.at(side).candidates = Some(Candidates { probabilities, tokens_of_interest });
            }
            TdbEvent::Contributions { side, data } => self.at(side).contributions = Some(data),
            TdbEvent::Done => self.done = true,
            TdbEvent::Error { status, message, field } => return Err(FoldError::Failed { status, message, field }),
        }
        Ok(())
    }

    fn put(&mut self, side: usize, name: &str, part: ProcessingResponseData) -> Result<(), FoldError> {
        self.set(side, name.to_owned(), part);
        Ok(())
    }

    fn finish(self) -> Result<Folded, FoldError> {
        if !self.done {
            return Err(FoldError::Incomplete);
        }
        added_up(self.sides)
    }
}

/// Adds up the events of one whole stream to the unstreamed answer.
///
/// # Errors
/// As [`Fold::add`] and [`Fold::finish`].
pub fn fold(events: impl IntoIterator<Item = TdbEvent>) -> Result<BatchedResponse, FoldError> {
    let mut fold = Fold::default();
    events.into_iter().try_for_each(|event| fold.add(event))?;
    Ok(fold.finish()?.response)
}

fn added_up(sides: Vec<Side>) -> Result<Folded, FoldError> {
    let mut all = Folded::default();
    for (index, Side { run, mut parts, candidates, contributions, checks }) in sides.into_iter().enumerate() {
        let inference_and_token_data = run.ok_or(FoldError::NoRun { side: index })?;
        let place = |name: &str| PART_NAMES.iter().position(|part| *part == name).unwrap_or(PART_NAMES.len());
        parts.sort_by_key(|(name, _)| place(name));
        all.response.inference_sub_responses.push(InferenceResponseAndResponseDict {
            inference_response: InferenceResponse { inference_and_token_data },
            processing_response_data_by_name: parts.into_iter().collect::<IndexMap<_, _>>(),
            checks,
        });
        all.candidates.push(candidates);
        all.contributions.push(contributions);
    }
    Ok(all)
}

/// What streams about effects and about patches have in common.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Told {
    pub price: Option<Price>,
    pub checks: Vec<Check>,
    done: bool,
}

impl Told {
    /// Takes an event that both have; any other is given back.
    fn take(&mut self, event: TdbEvent) -> Result<Option<TdbEvent>, FoldError> {
        match event {
            TdbEvent::Price { price } => self.price = Some(price),
            TdbEvent::Checks { side: None, checks } => self.checks = checks,
            TdbEvent::Done => self.done = true,
            TdbEvent::Error { status, message, field } => return Err(FoldError::Failed { status, message, field }),
            other => return Ok(Some(other)),
        }
        Ok(None)
    }

    /// After the last event.
    fn finish(self) -> Result<(Price, Vec<Check>), FoldError> {
        let price = self.price.filter(|_| self.done).ok_or(FoldError::Incomplete)?;
        Ok((price, self.checks))
    }
}

/// Adds up the events of `POST /effects/stream` to the answer of `POST /effects`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EffectsFold {
    pub told: Told,
    pub objective: Option<f64>,
    /// By place in the request.
    pub nodes: BTreeMap<usize, NodeEffect>,
    pub sampled: Option<SampledBound>,
}

impl FoldEvents for EffectsFold {
    type Answer = EffectsResponse;

    fn add(&mut self, event: TdbEvent) -> Result<(), FoldError> {
        match self.told.take(event)? {
            Some(TdbEvent::Objective { objective }) => self.objective = Some(objective),
            Some(TdbEvent::NodeEffect { index, effect }) => {
                self.nodes.insert(index, effect);
            }
            Some(TdbEvent::SampledBound { bound }) => self.sampled = Some(bound),
            _ => {}
        }
        Ok(())
    }

    fn finish(self) -> Result<EffectsResponse, FoldError> {
        let (price, checks) = self.told.finish()?;
        // Not told, and zero, where the price alone was asked for.
        let objective = self.objective.unwrap_or_default();
        Ok(EffectsResponse {
            objective,
            price,
            nodes: self.nodes.into_values().collect(),
            sampled: self.sampled,
            checks,
        })
    }
}

/// Adds up the events of `POST /patch/stream` to the answer of `POST /patch`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PatchFold {
    pub told: Told,
    pub runs: Option<PatchRuns>,
    /// By place in the answer.
    pub cells: BTreeMap<usize, PatchedCell>,
}

impl FoldEvents for PatchFold {
    type Answer = PatchResponse;

    fn add(&mut self, event: TdbEvent) -> Result<(), FoldError> {
        match self.told.take(event)? {
            Some(TdbEvent::PatchRuns { runs }) => self.runs = Some(runs),
            Some(TdbEvent::PatchedCell { index, cell }) => {
                self.cells.insert(index, cell);
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(self) -> Result<PatchResponse, FoldError> {
        let (price, checks) = self.told.finish()?;
        let runs = self.runs.ok_or(FoldError::Incomplete)?;
        Ok(PatchResponse { runs, price, cells: self.cells.into_values().collect(), checks })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::{ProgressPass, TOP_K_COMPONENTS, TOP_OUTPUT_TOKEN_LOGITS};
    use super::*;
    use crate::tokens::{ScoredTokensResponseData, TokenAndScalar, TopTokens};
    use crate::top_k::MultipleTopKDerivedScalarsResponseData;
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

    pub fn events() -> Vec<TdbEvent> {
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
    fn an_answer_is_usable_before_it_is_whole() {
        let mut fold = Fold::new(2);
        assert!(fold.so_far().is_err());
        let usable: Vec<bool> = events()
            .into_iter()
            .map(|event| {
                fold.add(event).unwrap();
                fold.has(&[])
            })
            .collect();
        assert_eq!(usable, [false, false, false, false, true, true, true, true]);
        assert!(fold.has(&[]) && !fold.has(&[TOP_K_COMPONENTS]), "the right side has no node table");
        let so_far = fold.so_far().unwrap();
        assert_eq!(so_far.response.inference_sub_responses.len(), 2);
        assert_eq!(fold.finish().unwrap(), so_far);
    }

    #[test]
    fn candidates_stand_beside_the_answer() {
        let mut fold = Fold::new(1);
        let name = TOP_OUTPUT_TOKEN_LOGITS.to_owned();
        fold.add(TdbEvent::Inference { side: 0, data: run(1.0) }).unwrap();
        fold.add(TdbEvent::Candidates { side: 0, name, probabilities: vec![0.5], tokens_of_interest: vec![] }).unwrap();
        let folded = fold.so_far().unwrap();
        assert_eq!(folded.candidates[0].as_ref().unwrap().probabilities, [0.5]);
        assert!(folded.response.inference_sub_responses[0].processing_response_data_by_name.is_empty());
    }

    #[test]
    fn a_broken_or_failed_stream_is_no_answer() {
        let mut broken = events();
        broken.pop();
        assert_eq!(fold(broken), Err(FoldError::Incomplete));
        let failed = [TdbEvent::Error { status: 400, message: "no".into(), field: None }];
        assert_eq!(fold(failed), Err(FoldError::Failed { status: 400, message: "no".into(), field: None }));
        let orphan =
            [TdbEvent::NodeGroups { side: 0, name: "topKComponents".into(), data: groups(1.0) }, TdbEvent::Done];
        assert_eq!(fold(orphan), Err(FoldError::NoRun { side: 0 }));
    }
}
