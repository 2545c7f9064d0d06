//! The questions: each with its limits and its answer.

use crate::config::Limits;
use crate::error::ApiError;
use crate::model::Ask;
use crate::queue::{Class, Job};
use serde::Serialize;
use tdb_api::stream::{EffectsFold, Fold, FoldEvents, PatchFold};
use tdb_api::wire::FieldPath;
use tdb_api::{
    BatchedRequest, BatchedResponse, BatchedTdbRequest, CircuitRequest, CircuitResponse, ComponentRequest,
    ComponentWeightsResponse, DerivedAttentionScalarsRequest, DerivedAttentionScalarsResponse, DerivedScalarsRequest,
    DerivedScalarsResponse, DictionaryFidelityRequest, DictionaryFidelityResponse, EffectsRequest, EffectsResponse,
    HeadReadingsRequest, HeadReadingsResponse, HeadScoresResponse, InferenceRequestSpec, InferenceSubRequest,
    LogitLensRequest, LogitLensResponse, MultipleTopKDerivedScalarsRequest, MultipleTopKDerivedScalarsResponse,
    NodeAblation, PatchRequest, PatchResponse, ProcessingRequestSpec, SampleRequest, Single, TdbRequestSpec,
};
use tdb_scalars::{Collector, Observer};

/// What a byte of a prompt weighs that is run forward and back, beside an entry of a list.
const RUN: u64 = 16;

/// What a byte of a prompt weighs in so many runs that differ from one in a few activations: a thirtieth of that each,
/// as measured on GPT-2 small's shape.
const fn varied(runs: u64) -> u64 {
    runs.saturating_mul(RUN) / 32
}

/// One kind of question.
pub trait Question: Send + 'static {
    type Answer: Serialize + Send + 'static;

    /// Refuses what is beyond the limits, before anything is computed.
    fn check(&self, limits: &Limits) -> Result<(), ApiError>;

    /// The prompts, each with its place in the request.
    fn prompts(&self) -> Vec<(FieldPath, &str)>;

    /// Roughly how much is asked for: bytes of prompts times [`RUN`] where they are run, and nodes and tokens of lists.
    fn weight(&self) -> u64;

    fn class(&self) -> Class {
        /// Above what the pages ask with a prompt of some 200 tokens and lists of 400 nodes: what takes longer than a
        /// person waits without noticing.
        const LARGE: u64 = 16_384;
        if self.weight() > LARGE { Class::Large } else { Class::Small }
    }

    fn answer(self, model: &dyn Ask, job: &Job) -> Result<Self::Answer, ApiError>;
}

/// A question whose answer is sent part by part.
pub trait Streamed: Question {
    /// Sends the parts to the observer.
    fn send(&self, model: &dyn Ask, observer: &dyn Observer) -> Result<(), ApiError>;

    /// What is sent, added up by `fold`.
    fn whole<F: FoldEvents + Send>(&self, fold: F, model: &dyn Ask, job: &Job) -> Result<F::Answer, ApiError> {
        let parts = Collector::new(job, fold);
        self.send(model, &parts)?;
        Ok(parts.finish()?)
    }
}

/// Refuses prompts with more tokens than the limit. Done on a compute thread: tokenizing is work.
pub fn check_prompts(question: &impl Question, model: &dyn Ask, limits: &Limits) -> Result<(), ApiError> {
    // No tokenizer has tokens this long; a text beyond it is too long whatever its tokens are.
    const LONGEST_TOKEN: usize = 256;
    let limit = limits.prompt_tokens;
    for (field, prompt) in question.prompts() {
        if prompt.len() > limit.saturating_mul(LONGEST_TOKEN) {
            let what = format!("{} bytes are more than {limit} tokens", prompt.len());
            return Err(ApiError::BadField { field, what });
        }
        // Short texts cannot have more tokens than bytes.
        if prompt.len() > limit {
            let found = model.tokenize(prompt).len();
            at_most(field, "tokens", found, limit)?;
        }
    }
    Ok(())
}

fn at_most(field: FieldPath, things: &str, found: usize, limit: usize) -> Result<(), ApiError> {
    match found <= limit {
        true => Ok(()),
        false => {
            let what = format!("has {found} {things}; this server takes at most {limit}");
            Err(ApiError::BadField { field, what })
        }
    }
}

fn check_k(field: FieldPath, k: Option<i64>, limits: &Limits) -> Result<(), ApiError> {
    match k {
        Some(k) if k > limits.top_k => {
            let what = format!("is {k}; this server takes at most {}", limits.top_k);
            Err(ApiError::BadField { field, what })
        }
        _ => Ok(()),
    }
}

/// Entries of `lists` lists with so many at either end; `None` is all.
fn listed(k: Option<i64>, lists: usize) -> u64 {
    let k = k.map_or(u32::MAX.into(), |k| u64::try_from(k).unwrap_or(0).min(u32::MAX.into()));
    2 * k * lists as u64
}

fn spec_weight(spec: &ProcessingRequestSpec) -> u64 {
    use ProcessingRequestSpec as Spec;
    match spec {
        Spec::MultipleTopKDerivedScalars(spec) => listed(spec.top_and_bottom_k, spec.dst_list_by_group_id.len()),
        Spec::ScoredTokens(spec) => listed(Some(spec.num_tokens), 1),
        _ => 1,
    }
}

fn run_weight(run: &InferenceRequestSpec) -> u64 {
    RUN * run.prompt.len() as u64
}

fn check_run(place: FieldPath, run: &InferenceRequestSpec, limits: &Limits) -> Result<(), ApiError> {
    let ablations = run.ablation_specs.as_ref().map_or(0, Vec::len);
    at_most(place.key("ablationSpecs"), "entries", ablations, limits.ablations)
}

fn check_spec(place: FieldPath, spec: &ProcessingRequestSpec, limits: &Limits) -> Result<(), ApiError> {
    use ProcessingRequestSpec as Spec;
    let (name, k) = match spec {
        Spec::MultipleTopKDerivedScalars(spec) => ("topAndBottomK", spec.top_and_bottom_k),
        Spec::DerivedScalars(spec) => ("numTopTokens", spec.num_top_tokens),
        Spec::DerivedAttentionScalars(_) => return Ok(()),
        Spec::ScoredTokens(spec) => ("numTokens", Some(spec.num_tokens)),
        Spec::TokenPairAttribution(spec) => ("numTokensAttendedTo", Some(spec.num_tokens_attended_to)),
    };
    check_k(place.key(name), k, limits)
}

impl Question for BatchedTdbRequest {
    type Answer = BatchedResponse;

    fn check(&self, limits: &Limits) -> Result<(), ApiError> {
        at_most(FieldPath::of("subRequests"), "entries", self.sub_requests.len(), limits.sub_requests)?;
        for (i, side) in self.sub_requests.iter().enumerate() {
            let place = |name: &str| FieldPath::of("subRequests").index(i).key(name);
            let ablations = side.node_ablations.as_ref().map_or(0, Vec::len);
            at_most(place("nodeAblations"), "entries", ablations, limits.ablations)?;
            check_k(place("topAndBottomKForNodeTable"), Some(side.top_and_bottom_k_for_node_table), limits)?;
            at_most(place("targetTokens"), "entries", side.target_tokens.len(), limits.ablations)?;
            at_most(place("distractorTokens"), "entries", side.distractor_tokens.len(), limits.ablations)?;
        }
        Ok(())
    }

    fn prompts(&self) -> Vec<(FieldPath, &str)> {
        let place = |i| FieldPath::of("subRequests").index(i).key("prompt");
        self.sub_requests.iter().enumerate().map(|(i, side)| (place(i), side.prompt.as_str())).collect()
    }

    fn weight(&self) -> u64 {
        /// Columns of the node table, each a list.
        const COLUMNS: usize = 4;
        let listed = |side: &TdbRequestSpec| listed(Some(side.top_and_bottom_k_for_node_table), COLUMNS);
        self.sub_requests.iter().map(|side| RUN * side.prompt.len() as u64 + listed(side)).sum()
    }

    fn answer(self, model: &dyn Ask, job: &Job) -> Result<BatchedResponse, ApiError> {
        Ok(self.whole(Fold::new(self.sub_requests.len()), model, job)?.response)
    }
}

impl Streamed for BatchedTdbRequest {
    fn send(&self, model: &dyn Ask, observer: &dyn Observer) -> Result<(), ApiError> {
        model.batched_tdb(self, observer)
    }
}

impl Question for BatchedRequest {
    type Answer = BatchedResponse;

    fn check(&self, limits: &Limits) -> Result<(), ApiError> {
        let runs = &self.inference_sub_requests;
        at_most(FieldPath::of("inferenceSubRequests"), "entries", runs.len(), limits.sub_requests)?;
        let specs = runs.iter().map(|run| run.processing_request_spec_by_name.len()).sum();
        at_most(FieldPath::of("inferenceSubRequests"), "processing specs in all its runs", specs, limits.specs)?;
        for (i, run) in runs.iter().enumerate() {
            let place = |name: &str| FieldPath::of("inferenceSubRequests").index(i).key(name);
            check_run(place("inferenceRequestSpec"), &run.inference_request_spec, limits)?;
            let (specs, place) = (&run.processing_request_spec_by_name, place("processingRequestSpecByName"));
            at_most(place.clone(), "entries", specs.len(), limits.specs_per_run)?;
            specs.iter().try_for_each(|(name, spec)| check_spec(place.clone().key(name), spec, limits))?;
        }
        Ok(())
    }

    fn prompts(&self) -> Vec<(FieldPath, &str)> {
        let place = |i| FieldPath::of("inferenceSubRequests").index(i).key("inferenceRequestSpec").key("prompt");
        let runs = self.inference_sub_requests.iter().enumerate();
        runs.map(|(i, run)| (place(i), run.inference_request_spec.prompt.as_str())).collect()
    }

    fn weight(&self) -> u64 {
        let specs =
            |run: &InferenceSubRequest| -> u64 { run.processing_request_spec_by_name.values().map(spec_weight).sum() };
        self.inference_sub_requests.iter().map(|run| run_weight(&run.inference_request_spec) + specs(run)).sum()
    }

    fn answer(self, model: &dyn Ask, job: &Job) -> Result<BatchedResponse, ApiError> {
        model.batched(&self, job)
    }
}

impl Question for DictionaryFidelityRequest {
    type Answer = DictionaryFidelityResponse;

    fn check(&self, limits: &Limits) -> Result<(), ApiError> {
        at_most(FieldPath::of("targetTokens"), "entries", self.target_tokens.len(), limits.ablations)?;
        at_most(FieldPath::of("distractorTokens"), "entries", self.distractor_tokens.len(), limits.ablations)
    }

    fn prompts(&self) -> Vec<(FieldPath, &str)> {
        vec![(FieldPath::of("prompt"), &self.prompt)]
    }

    fn weight(&self) -> u64 {
        /// A forward run, a third of one in both directions, for every layer that has a dictionary: twelve, say.
        const RUNS: u64 = 4;
        RUNS * RUN * self.prompt.len() as u64
    }

    fn answer(self, model: &dyn Ask, job: &Job) -> Result<DictionaryFidelityResponse, ApiError> {
        model.dictionary_fidelity(&self, job)
    }
}

impl Question for EffectsRequest {
    type Answer = EffectsResponse;

    fn check(&self, limits: &Limits) -> Result<(), ApiError> {
        let ablations = self.node_ablations.as_ref().map_or(0, Vec::len);
        at_most(FieldPath::of("nodeAblations"), "entries", ablations, limits.ablations)?;
        at_most(FieldPath::of("targetTokens"), "entries", self.target_tokens.len(), limits.ablations)?;
        at_most(FieldPath::of("distractorTokens"), "entries", self.distractor_tokens.len(), limits.ablations)?;
        let runs = usize::try_from(limits.bounds.varied_runs).unwrap_or(usize::MAX);
        at_most(FieldPath::of("nodes"), "entries", self.nodes.len(), runs)?;
        match usize::try_from(self.random_nodes) {
            Ok(n) if n <= runs => Ok(()),
            Ok(_) => {
                let what = format!("is {}; this server takes at most {runs}", self.random_nodes);
                Err(ApiError::BadField { field: FieldPath::of("randomNodes"), what })
            }
            Err(_) => {
                let what = format!("is {}; give 0 or more", self.random_nodes);
                Err(ApiError::BadField { field: FieldPath::of("randomNodes"), what })
            }
        }
    }

    fn prompts(&self) -> Vec<(FieldPath, &str)> {
        vec![(FieldPath::of("prompt"), &self.prompt)]
    }

    fn weight(&self) -> u64 {
        let nodes = self.nodes.len() as u64 + u64::try_from(self.random_nodes).unwrap_or(0);
        (self.prompt.len() as u64).saturating_mul(RUN + varied(nodes))
    }

    fn answer(self, model: &dyn Ask, job: &Job) -> Result<EffectsResponse, ApiError> {
        self.whole(EffectsFold::default(), model, job)
    }
}

impl Streamed for EffectsRequest {
    fn send(&self, model: &dyn Ask, observer: &dyn Observer) -> Result<(), ApiError> {
        model.effects(self, observer)
    }
}

impl Question for CircuitRequest {
    type Answer = CircuitResponse;

    fn check(&self, limits: &Limits) -> Result<(), ApiError> {
        /// Most nodes of a circuit: there may be three edges for every two of them.
        const NODES: usize = 256;
        let ablations = self.node_ablations.as_ref().map_or(0, Vec::len);
        at_most(FieldPath::of("nodeAblations"), "entries", ablations, limits.ablations)?;
        at_most(FieldPath::of("nodes"), "entries", self.nodes.len(), NODES)
    }

    fn prompts(&self) -> Vec<(FieldPath, &str)> {
        vec![(FieldPath::of("prompt"), &self.prompt)]
    }

    fn weight(&self) -> u64 {
        4 * RUN * self.prompt.len() as u64 + (self.nodes.len() as u64).pow(2)
    }

    fn answer(self, model: &dyn Ask, job: &Job) -> Result<CircuitResponse, ApiError> {
        model.circuit(&self, job)
    }
}

impl Question for PatchRequest {
    type Answer = PatchResponse;

    fn check(&self, limits: &Limits) -> Result<(), ApiError> {
        let tokens = |tokens: &Option<Vec<_>>| tokens.as_ref().map_or(0, Vec::len);
        at_most(FieldPath::of("targetTokens"), "entries", tokens(&self.target_tokens), limits.ablations)?;
        at_most(FieldPath::of("distractorTokens"), "entries", tokens(&self.distractor_tokens), limits.ablations)
    }

    fn prompts(&self) -> Vec<(FieldPath, &str)> {
        let (clean, corrupted) = (FieldPath::of("cleanPrompt"), FieldPath::of("corruptedPrompt"));
        vec![(clean, &self.clean_prompt), (corrupted, &self.corrupted_prompt)]
    }

    fn weight(&self) -> u64 {
        /// Runs of a heat map, of a layer and a token each, for a byte of the prompt: four bytes a token, twelve
        /// layers.
        const MAP: u64 = 3;
        let bytes = self.clean_prompt.len().max(self.corrupted_prompt.len()) as u64;
        let maps = self.grids.as_ref().map_or(4, Vec::len) as u64;
        let cells = self.cells.as_ref().map_or(0, Vec::len) + self.units.as_ref().map_or(0, Vec::len);
        bytes.saturating_mul(RUN + varied(maps * MAP * bytes + cells as u64))
    }

    fn answer(self, model: &dyn Ask, job: &Job) -> Result<PatchResponse, ApiError> {
        self.whole(PatchFold::default(), model, job)
    }
}

impl Streamed for PatchRequest {
    fn send(&self, model: &dyn Ask, observer: &dyn Observer) -> Result<(), ApiError> {
        model.patch(self, observer)
    }
}

impl Streamed for SampleRequest {
    fn send(&self, model: &dyn Ask, observer: &dyn Observer) -> Result<(), ApiError> {
        model.sample(self, observer)
    }
}

/// A question with one run and one thing asked of it: a batched one as far as the model is concerned.
macro_rules! single_question {
    ($request:ty => $answer:ty, $spec:literal, |$self:ident| ($name:literal, $k:expr)) => {
        impl Question for $request {
            type Answer = $answer;

            fn check(&self, limits: &Limits) -> Result<(), ApiError> {
                let $self = self;
                check_run(FieldPath::of("inferenceRequestSpec"), &$self.inference_request_spec, limits)?;
                check_k(FieldPath::of($spec).key($name), $k, limits)
            }

            fn prompts(&self) -> Vec<(FieldPath, &str)> {
                vec![(FieldPath::of("inferenceRequestSpec").key("prompt"), &self.inference_request_spec.prompt)]
            }

            fn weight(&self) -> u64 {
                run_weight(&self.inference_request_spec)
            }

            fn answer(self, model: &dyn Ask, job: &Job) -> Result<$answer, ApiError> {
                let response = model.batched(&self.into(), job);
                response.map_err(|e| e.moved(<$request>::field_as_asked))?.try_into().map_err(ApiError::internal)
            }
        }
    };
}

single_question!(
    DerivedScalarsRequest => DerivedScalarsResponse,
    "derivedScalarsRequestSpec",
    |question| ("numTopTokens", question.derived_scalars_request_spec.num_top_tokens)
);
single_question!(
    DerivedAttentionScalarsRequest => DerivedAttentionScalarsResponse,
    "derivedAttentionScalarsRequestSpec",
    |question| ("numTopTokens", None)
);
single_question!(
    MultipleTopKDerivedScalarsRequest => MultipleTopKDerivedScalarsResponse,
    "multipleTopKDerivedScalarsRequestSpec",
    |question| ("topAndBottomK", question.multiple_top_k_derived_scalars_request_spec.top_and_bottom_k)
);

/// A question about one prompt with ablations, or about none.
macro_rules! small_question {
    ($request:ty => $answer:ty, $prompt:expr, $weight:expr, $ask:expr) => {
        impl Question for $request {
            type Answer = $answer;

            fn check(&self, limits: &Limits) -> Result<(), ApiError> {
                let prompt: fn(&Self) -> Option<(&str, &[NodeAblation])> = $prompt;
                let found = prompt(self).map_or(0, |(_, ablations)| ablations.len());
                at_most(FieldPath::of("nodeAblations"), "entries", found, limits.ablations)
            }

            fn prompts(&self) -> Vec<(FieldPath, &str)> {
                let prompt: fn(&Self) -> Option<(&str, &[NodeAblation])> = $prompt;
                prompt(self).into_iter().map(|(prompt, _)| (FieldPath::of("prompt"), prompt)).collect()
            }

            fn weight(&self) -> u64 {
                let weight: fn(&Self) -> u64 = $weight;
                weight(self)
            }

            fn answer(self, model: &dyn Ask, job: &Job) -> Result<$answer, ApiError> {
                let ask: fn(&Self, &dyn Ask, &Job) -> Result<$answer, ApiError> = $ask;
                ask(&self, model, job)
            }
        }
    };
}

/// A component's weights.
pub struct OfWeights(pub ComponentRequest);

/// A head's scores.
pub struct OfHead(pub ComponentRequest);

/// Of a question about the weights of one component.
const COMPONENT_WEIGHT: u64 = 1024;

small_question!(LogitLensRequest => LogitLensResponse,
    |q| Some((&q.prompt, q.node_ablations.as_deref().unwrap_or_default())),
    |q| RUN * q.prompt.len() as u64,
    |q, model, job| model.logit_lens(q, job));
small_question!(SampleRequest => (),
    |q| Some((&q.prompt, q.node_ablations.as_deref().unwrap_or_default())),
    |q| {
        /// Bytes of a prompt that take as long as one more token.
        const TOKEN: u64 = 32;
        let bytes = (q.prompt.len() as u64).saturating_add(q.tokens.unsigned_abs().saturating_mul(TOKEN));
        bytes.saturating_mul(RUN)
    },
    |q, model, job| model.sample(q, job));
// About a second of two cores for a circuit of GPT-2 small: with the large ones.
small_question!(HeadReadingsRequest => HeadReadingsResponse,
    |q| q.prompt.as_deref().map(|prompt| (prompt, &[][..])),
    |q| 32 * COMPONENT_WEIGHT + 16 * q.prompt.as_ref().map_or(0, String::len) as u64,
    |q, model, job| model.head_readings(q, job));
small_question!(OfWeights => ComponentWeightsResponse,
    |_| None, |_| COMPONENT_WEIGHT, |q, model, job| model.component_weights(&q.0, job));
small_question!(OfHead => HeadScoresResponse,
    |_| None, |_| COMPONENT_WEIGHT, |q, model, job| model.head_scores(&q.0, job));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_of_any_length_has_a_weight() {
        let ask = |tokens| SampleRequest {
            prompt: "a".to_owned(),
            node_ablations: None,
            tokens,
            temperature: 1.0,
            top_p: 1.0,
            seed: 0,
        };
        assert_eq!(ask(1).class(), Class::Small);
        assert!([i64::MIN, i64::MAX, 1 << 60].into_iter().all(|tokens| ask(tokens).class() == Class::Large));
    }
}
