//! Streamed answers: each part as soon as it is ready. How parts add up to the unstreamed answer is in
//! [`fold`](self::fold()).

mod fold;

use crate::attribution::TokenPairAttributionResponseData;
use crate::batched::ProcessingResponseData;
use crate::effects::{Check, NodeEffect, Price, SampledBound};
use crate::inference::InferenceAndTokenData;
use crate::patch::{PatchRuns, PatchedCell};
use crate::tokens::ScoredTokensResponseData;
use crate::top_k::MultipleTopKDerivedScalarsResponseData;
use crate::wire::{
    Decode, Describe, Errors, FieldPath, Schemas, Step, decode_for_serde, decode_object, wire_enum, wire_struct,
};
pub use fold::{Candidates, EffectsFold, Fold, FoldError, FoldEvents, Folded, PatchFold, fold};
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
    /// Server-sent events are `text/event-stream`.
    const MEDIA_TYPE: &'static str = "application/x-ndjson";

    fn describe(_: &mut Schemas) -> Value {
        let (last, others) = EVENTS.split_last().unwrap_or((&"", &[]));
        json!({
            "type": "object", "required": ["event"], "properties": { "event": { "type": "string" } },
            "description": format!("One line of the stream. `event` is {} or {last}.", others.join(", ")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::fold::tests::events;
    use super::*;

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
}
