//! The streamed answer to the debugger's question: each part as soon as it is ready.
//!
//! The parts add up to the unstreamed answer: [`Fold`] gives exactly what `POST /batched_tdb` would have given.

use crate::attribution::TokenPairAttributionResponseData;
use crate::batched::{BatchedResponse, InferenceResponseAndResponseDict, ProcessingResponseData};
use crate::effects::{Check, NodeEffect, Price, SampledBound};
use crate::inference::{InferenceAndTokenData, InferenceResponse};
use crate::patch::{PatchRuns, PatchedCell};
use crate::tokens::ScoredTokensResponseData;
use crate::top_k::MultipleTopKDerivedScalarsResponseData;
use crate::wire::{
    Decode, Describe, Errors, FieldPath, Schemas, Step, decode_for_serde, decode_object, wire_enum, wire_struct,
};
use indexmap::IndexMap;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};

/// The node table.
pub const TOP_K_COMPONENTS: &str = "topKComponents";
/// Sums over all components, for each token of the prompt.
pub const COMPONENT_SUMS: &str = "componentSumsForTokenDisplay";
/// Tokens whose logits a node's write raises and lowers.
pub const UPVOTED_OUTPUT_TOKENS: &str = "upvotedOutputTokens";
/// Tokens whose embeddings excite a neuron or latent.
pub const INPUT_TOKENS_MLP: &str = "inputTokensThatUpvoteMlp";
/// Tokens whose embeddings raise a head's attention through its query.
pub const INPUT_TOKENS_ATTN_Q: &str = "inputTokensThatUpvoteAttnQ";
/// Tokens whose embeddings raise a head's attention through its key.
pub const INPUT_TOKENS_ATTN_K: &str = "inputTokensThatUpvoteAttnK";
/// Attended-to tokens of the nodes.
pub const TOKEN_PAIR_ATTRIBUTION: &str = "tokenPairAttribution";
/// Candidates for the next token.
pub const TOP_OUTPUT_TOKEN_LOGITS: &str = "topOutputTokenLogits";

/// The parts of one side's answer, in the order of the unstreamed answer.
pub const PART_NAMES: [&str; 8] = [
    TOP_K_COMPONENTS,
    COMPONENT_SUMS,
    UPVOTED_OUTPUT_TOKENS,
    INPUT_TOKENS_MLP,
    INPUT_TOKENS_ATTN_Q,
    INPUT_TOKENS_ATTN_K,
    TOKEN_PAIR_ATTRIBUTION,
    TOP_OUTPUT_TOKEN_LOGITS,
];

wire_struct! {
    /// A target or distractor, wherever it stands among the candidates.
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
}

wire_enum! {
    /// What a run is busy with.
    pub enum ProgressPass {
        /// The forward pass.
        Forward = "forward",
        /// The backward pass.
        Backward = "backward",
        /// Token readings; `layer` counts parts of the work rather than layers.
        Readings = "readings",
    }
}

wire_enum! {
    /// A part of the model that a logit difference is divided among.
    pub enum ContributionPart {
        /// The token embedding of the last token.
        Embedding = "embedding",
        /// Its position embedding.
        Position = "position",
        /// The heads of a layer.
        Attention = "attention",
        /// The latents of a layer's attention.
        AttentionLatents = "attention_latents",
        /// What those leave over.
        AttentionError = "attention_error",
        /// The neurons of a layer.
        Mlp = "mlp",
        /// The latents of a layer's MLP.
        MlpLatents = "mlp_latents",
        /// What those leave over.
        MlpError = "mlp_error",
        /// Biases of all layers, of decoders and of the final norm.
        Biases = "biases",
        /// What a cap on the logits takes away.
        LogitCap = "logit_cap",
    }
}

wire_struct! {
    /// What one part adds.
    pub struct Contribution {
        pub part: ContributionPart,
        /// Null for parts that exist once.
        pub layer: Option<i64>,
        pub value: f64,
    }
}

wire_struct! {
    /// What all parts of the model add to the logit difference, with the final norm's scale as it is in this run.
    pub struct Contributions {
        /// The logit difference, which the terms add up to.
        pub objective: f64,
        /// From the bottom of the model up.
        pub terms: Vec<Contribution>,
    }
}

/// One line of the stream. `side` is the position in the request: 0 is left, 1 is right.
#[derive(Debug, Clone, PartialEq, Serialize)]
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
    /// Beside the answer: the logit difference as a sum over parts of the model. Not sent when a node is traced.
    Contributions { side: usize, data: Contributions },
    /// `topKComponents` or `componentSumsForTokenDisplay`.
    NodeGroups { side: usize, name: String, data: MultipleTopKDerivedScalarsResponseData },
    /// One of the four ways of reading nodes in token space.
    TokenReadings { side: usize, name: String, data: ScoredTokensResponseData },
    /// `tokenPairAttribution`.
    TokenPairs { side: usize, name: String, data: TokenPairAttributionResponseData },
    /// A token that was drawn to continue a prompt; of `/sample/stream` alone.
    Sampled { side: usize, token: String, token_id: i64, probability: f64 },
    /// What the answer about effects or patches will cost.
    Price { price: Price },
    /// What effects are effects on: [`EffectsResponse::objective`](crate::EffectsResponse::objective).
    Objective { objective: f64 },
    /// The effect of one node; `index` is its place in the request and in the answer.
    NodeEffect { index: usize, effect: NodeEffect },
    /// What was found among nodes chosen at random.
    SampledBound { bound: SampledBound },
    /// The two runs that are patched.
    PatchRuns { runs: PatchRuns },
    /// One patched run; `index` is its place in the answer.
    PatchedCell { index: usize, cell: PatchedCell },
    /// What was checked; `side` is absent where the question has none.
    Checks {
        #[serde(skip_serializing_if = "Option::is_none")]
        side: Option<usize>,
        checks: Vec<Check>,
    },
    /// Everything was sent.
    Done,
    /// The question was not answered; `status` is what the unstreamed answer would have had.
    Error {
        status: u16,
        message: String,
        /// The field that the message is about, if it is about one.
        #[serde(skip_serializing_if = "Option::is_none")]
        field: Option<FieldPath>,
    },
}

impl TdbEvent {
    /// The event that tells a part of one side's answer; `None` of what only `/batched` asks for, which has no stream.
    pub fn of_part(side: usize, name: &str, part: ProcessingResponseData) -> Option<Self> {
        use ProcessingResponseData as Part;
        let (is_logits, name) = (name == TOP_OUTPUT_TOKEN_LOGITS, name.to_owned());
        Some(match part {
            Part::MultipleTopKDerivedScalars(data) if is_logits => Self::OutputLogits { side, name, data },
            Part::MultipleTopKDerivedScalars(data) => Self::NodeGroups { side, name, data },
            Part::ScoredTokens(data) => Self::TokenReadings { side, name, data },
            Part::TokenPairAttribution(data) => Self::TokenPairs { side, name, data },
            Part::DerivedScalars(_) | Part::DerivedAttentionScalars(_) => return None,
        })
    }
}

/// The words of `event`.
const EVENTS: [&str; 19] = [
    "tokens",
    "progress",
    "inference",
    "output_logits",
    "candidates",
    "contributions",
    "node_groups",
    "token_readings",
    "token_pairs",
    "sampled",
    "price",
    "objective",
    "node_effect",
    "sampled_bound",
    "patch_runs",
    "patched_cell",
    "checks",
    "done",
    "error",
];

impl Decode for TdbEvent {
    fn decode(value: &Value, errors: &mut Errors) -> Option<Self> {
        let object = decode_object(value, errors)?;
        let event: String = errors.field(object, "event", None)?;
        let mut from = Fields { object, errors };
        Some(match event.as_str() {
            "tokens" => {
                let (tokens_as_ints, tokens_as_strings) = (from.read("tokens_as_ints"), from.read("tokens_as_strings"));
                Self::Tokens {
                    side: from.read("side")?,
                    tokens_as_ints: tokens_as_ints?,
                    tokens_as_strings: tokens_as_strings?,
                }
            }
            "progress" => Self::Progress {
                side: from.read("side")?,
                pass: from.read("pass")?,
                layer: from.read("layer")?,
                n_layers: from.read("n_layers")?,
            },
            "inference" => Self::Inference { side: from.read("side")?, data: from.read("data")? },
            "output_logits" => {
                Self::OutputLogits { side: from.read("side")?, name: from.read("name")?, data: from.read("data")? }
            }
            "candidates" => Self::Candidates {
                side: from.read("side")?,
                name: from.read("name")?,
                probabilities: from.read("probabilities")?,
                tokens_of_interest: from.read("tokens_of_interest")?,
            },
            "contributions" => Self::Contributions { side: from.read("side")?, data: from.read("data")? },
            "node_groups" => {
                Self::NodeGroups { side: from.read("side")?, name: from.read("name")?, data: from.read("data")? }
            }
            "token_readings" => {
                Self::TokenReadings { side: from.read("side")?, name: from.read("name")?, data: from.read("data")? }
            }
            "token_pairs" => {
                Self::TokenPairs { side: from.read("side")?, name: from.read("name")?, data: from.read("data")? }
            }
            "sampled" => {
                let (token, token_id) = (from.read("token"), from.read("token_id"));
                Self::Sampled {
                    side: from.read("side")?,
                    token: token?,
                    token_id: token_id?,
                    probability: from.read("probability")?,
                }
            }
            "price" => Self::Price { price: from.read("price")? },
            "objective" => Self::Objective { objective: from.read("objective")? },
            "node_effect" => Self::NodeEffect { index: from.read("index")?, effect: from.read("effect")? },
            "sampled_bound" => Self::SampledBound { bound: from.read("bound")? },
            "patch_runs" => Self::PatchRuns { runs: from.read("runs")? },
            "patched_cell" => Self::PatchedCell { index: from.read("index")?, cell: from.read("cell")? },
            "checks" => Self::Checks { side: from.read("side")?, checks: from.read("checks")? },
            "done" => Self::Done,
            "error" => {
                Self::Error { status: from.read("status")?, message: from.read("message")?, field: from.read("field")? }
            }
            _ => return errors.at(Step::Key("event".into()), |e| crate::wire::decode_not_permitted(&EVENTS, e)),
        })
    }
}

/// The fields of one event.
struct Fields<'a> {
    object: &'a Map<String, Value>,
    errors: &'a mut Errors,
}

impl Fields<'_> {
    fn read<T: Decode>(&mut self, snake: &str) -> Option<T> {
        self.errors.field(self.object, snake, None)
    }
}

impl<'de> Deserialize<'de> for TdbEvent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        decode_for_serde(deserializer)
    }
}

/// A stream of [`TdbEvent`]s, as lines of JSON or as server-sent events.
#[derive(Debug, Clone, Copy)]
pub struct Events;

impl Describe for Events {
    fn describe(_: &mut Schemas) -> Value {
        let (last, others) = EVENTS.split_last().unwrap_or((&"", &[]));
        json!({
            "type": "object", "required": ["event"], "properties": { "event": { "type": "string" } },
            "description": format!("One line of the stream. `event` is {} or {last}.", others.join(", ")),
        })
    }
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
    fn what_is_no_event_is_told() {
        let error = |text: &str| crate::wire::from_json::<TdbEvent>(text).unwrap_err().to_string();
        assert!(error(r#"{"event":"dnoe"}"#).starts_with("event: value is not a valid enumeration member"));
        assert_eq!(error(r#"{"event":"inference"}"#), "side: field required");
        assert!(error("{").contains("EOF"));
    }

    #[test]
    fn events_survive_the_wire() {
        let field = FieldPath::of("subRequests").index(1).key("prompt");
        let name = TOP_OUTPUT_TOKEN_LOGITS.to_owned();
        let token = TokenOfInterest {
            token: "a".into(),
            token_id: 1,
            logit: -0.5,
            probability: 0.25,
            rank: 3,
            role: "target".into(),
        };
        let others = [
            TdbEvent::Error { status: 400, message: "no".into(), field: Some(field) },
            TdbEvent::Error { status: 500, message: "no".into(), field: None },
            TdbEvent::Candidates { side: 1, name, probabilities: vec![0.5], tokens_of_interest: vec![token] },
        ];
        for event in events().into_iter().chain(others) {
            let line = serde_json::to_string(&event).unwrap();
            assert_eq!(serde_json::from_str::<TdbEvent>(&line).unwrap(), event, "{line}");
        }
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
