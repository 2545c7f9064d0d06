//! The routes of the interface: each with its path, what it takes, what it gives, and what it does.
//!
//! This is their only description. The server's handlers and the pages' calls are typed by it, and the OpenAPI document
//! is made from it, so that the three cannot differ.

use crate::stream::Events;
use crate::wire::{Decode, Describe};
use crate::*;
use serde::Serialize;

/// How a route is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// `GET`.
    Get,
    /// `POST`.
    Post,
}

/// Where a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// Nothing is sent.
    Nowhere,
    /// JSON in the body.
    Body,
    /// The parameters of the query.
    Query,
}

/// One route.
pub trait Route {
    /// How it is called.
    const METHOD: Method;
    /// The path, without a query.
    const PATH: &'static str;
    /// The part of the interface that it belongs to. Together with [`Route::NAME`] it is the operation's id.
    const TAG: &'static str;
    /// The operation's name.
    const NAME: &'static str;
    /// What it does, in a sentence.
    const SUMMARY: &'static str;
    /// Whether the reference's server has it, too. Clients that talk to either do without those that it lacks.
    const IN_REFERENCE: bool;
    /// Where the request stands.
    const PLACE: Place;
    /// What it takes.
    type Request: Decode + Describe + Serialize + Send + 'static;
    /// What it gives, as JSON unless its type says otherwise.
    type Answer: Describe + Send + 'static;
}

/// `Name: METHOD "path", tag name, place Request => Answer, origin;` below a sentence that says what it does.
macro_rules! routes {
    ($($(#[doc = $doc:literal])+ $name:ident: $method:ident $path:literal, $tag:ident $id:ident,
        $place:ident $request:ty => $answer:ty, $origin:ident;)*) => {
        $(
            $(#[doc = $doc])+
            #[derive(Debug, Clone, Copy)]
            pub struct $name;

            impl Route for $name {
                const METHOD: Method = Method::$method;
                const PATH: &'static str = $path;
                const TAG: &'static str = stringify!($tag);
                const NAME: &'static str = stringify!($id);
                const SUMMARY: &'static str = concat!($($doc),+).trim_ascii();
                const IN_REFERENCE: bool = routes!(@ $origin);
                const PLACE: Place = Place::$place;
                type Request = $request;
                type Answer = $answer;
            }
        )*

        /// Every route: method and path.
        pub const ALL: &[(Method, &str)] = &[$((Method::$method, $path),)*];
    };
    (@ reference) => { true };
    (@ ours) => { false };
}

routes! {
    /// The debugger's page for browsers, a greeting for programs.
    Root: Get "/", hello_world read_root, Nowhere () => IndexMap<String, String>, reference;
    /// Does nothing. It makes generated clients know the names of groups.
    ForceClientCodeGeneration: Get "/force_client_code_generation", hello_world force_client_code_generation,
        Query ForceClientCodeGenerationRequest => (), reference;
    /// Refused: this server computes in the machine's own memory.
    DumpMemorySnapshot: Get "/dump_memory_snapshot", memory dump_memory_snapshot, Nowhere () => String, reference;
    /// The examples that excite a component most, with a value for each token.
    NeuronRecord: Post "/neuron_record", read neuron_record, Body NodeIdAndDatasets => NeuronRecordResponse, reference;
    /// The examples that excite a component most, with a value for each pair of tokens.
    AttentionHeadRecord: Post "/attention_head_record", read attention_head_record,
        Body NodeIdAndDatasets => AttentionHeadRecordResponse, reference;
    /// What a component's record says of it over its whole text: density, moments, texts by quantile.
    RecordSummary: Post "/record_summary", read record_summary, Body NodeIdAndDatasets => RecordSummaryResponse, ours;
    /// The registered sets of records.
    NeuronDatasetsMetadata: Post "/neuron_datasets_metadata", read neuron_datasets_metadata,
        Nowhere () => Vec<NeuronDatasetMetadata>, reference;
    /// The stored explanations of a component.
    ExistingExplanations: Post "/existing_explanations", read existing_explanations,
        Body ExistingExplanationsRequest => Vec<AttributedScoredExplanation>, reference;
    /// The stored explanations of several components.
    ExistingExplanationsBatch: Post "/existing_explanations/batch", read existing_explanations_batch,
        Body ExistingExplanationsBatchRequest => ExistingExplanationsBatchResponse, ours;
    /// Up to 50 components whose stored explanations hold all the words, in the order of layers.
    ExplanationSearch: Get "/explanations/search", read explanation_search,
        Query ExplanationSearchRequest => ExplanationSearchResponse, ours;
    /// Explanations of a component.
    Explain: Post "/explain", explainer explain, Body NodeIdAndDatasets => ExplanationResult, reference;
    /// How well an explanation predicts a component's activations.
    Score: Post "/score", explainer score, Body ScoreRequest => ScoreResult, reference;
    /// One scalar of one component at every token.
    DerivedScalars: Post "/derived_scalars", inference derived_scalars,
        Body DerivedScalarsRequest => DerivedScalarsResponse, reference;
    /// One scalar of one component at every pair of tokens.
    DerivedAttentionScalars: Post "/derived_attention_scalars", inference derived_attention_scalars,
        Body DerivedAttentionScalarsRequest => DerivedAttentionScalarsResponse, reference;
    /// The nodes with the largest and smallest scalars.
    MultipleTopKDerivedScalars: Post "/multiple_top_k_derived_scalars", inference multiple_top_k_derived_scalars,
        Body MultipleTopKDerivedScalarsRequest => MultipleTopKDerivedScalarsResponse, reference;
    /// Several runs, and several things asked of each.
    Batched: Post "/batched", inference batched, Body BatchedRequest => BatchedResponse, reference;
    /// The debugger's question, for one prompt or two.
    BatchedTdb: Post "/batched_tdb", inference batched_tdb, Body BatchedTdbRequest => BatchedResponse, reference;
    /// How well the loaded dictionaries reconstruct what they stand in for, on one prompt.
    DictionaryFidelity: Post "/dictionary_fidelity", inference dictionary_fidelity,
        Body DictionaryFidelityRequest => DictionaryFidelityResponse, ours;
    /// Which model and autoencoders the server has.
    ModelInfo: Post "/model_info", inference model_info, Nowhere () => ModelInfoResponse, reference;
    /// The debugger's question, answered in parts: lines of JSON, or server-sent events by the Accept header.
    BatchedTdbStream: Post "/batched_tdb/stream", inference batched_tdb_stream, Body BatchedTdbRequest => Events, ours;
    /// What really happens to the debugger's objective when nodes are removed, one at a time.
    Effects: Post "/effects", inference effects, Body EffectsRequest => EffectsResponse, ours;
    /// As `/effects`, answered in parts: each node's effect when it is known.
    EffectsStream: Post "/effects/stream", inference effects_stream, Body EffectsRequest => Events, ours;
    /// How some nodes act on each other, and what the objective is with all others ablated.
    Circuit: Post "/circuit", inference circuit, Body CircuitRequest => CircuitResponse, ours;
    /// What happens when activations of one prompt's run are put into another's.
    Patch: Post "/patch", inference patch, Body PatchRequest => PatchResponse, ours;
    /// As `/patch`, answered in parts: each cell when it is known.
    PatchStream: Post "/patch/stream", inference patch_stream, Body PatchRequest => Events, ours;
    /// What the residual stream of each layer would predict.
    LogitLens: Post "/logit_lens", inference logit_lens, Body LogitLensRequest => LogitLensResponse, ours;
    /// Neighbours, connections and effects on the logits of a neuron or latent, from the weights.
    ComponentWeights: Post "/component_weights", inference component_weights,
        Body ComponentRequest => ComponentWeightsResponse, ours;
    /// Standard scores of an attention head.
    HeadScores: Post "/head_scores", inference head_scores, Body ComponentRequest => HeadScoresResponse, ours;
    /// What an attention head does in tokens, by its weights: its OV and QK circuits.
    HeadReadings: Post "/head_readings", inference head_readings,
        Body HeadReadingsRequest => HeadReadingsResponse, ours;
    /// Continues a prompt, with and without ablations: a line of JSON for each token drawn.
    SampleStream: Post "/sample/stream", inference sample_stream, Body SampleRequest => Events, ours;
    /// What a request may ask for at most.
    Limits: Get "/limits", info limits, Nowhere () => LimitsResponse, ours;
    /// Version, model, shapes, autoencoders and limits.
    Info: Get "/info", info info, Nowhere () => ServerInfoResponse, ours;
    /// The tokens of a text.
    Tokenize: Post "/tokenize", info tokenize, Body TokenizeRequest => TokenizeResponse, ours;
    /// Up to 50 tokens whose text begins with `prefix`, in the order of their ids.
    Vocabulary: Get "/vocabulary", info vocabulary, Query VocabularyRequest => TokenizeResponse, ours;
    /// Whether the server lives, as text. Needs no token.
    Health: Get "/health", operation health, Nowhere () => PlainText, ours;
    /// Whether the server takes requests, as text: 503 while it is being stopped. Needs no token.
    Ready: Get "/ready", operation ready, Nowhere () => PlainText, ours;
    /// What the server counted, as Prometheus reads it.
    Metrics: Get "/metrics", operation metrics, Nowhere () => OpenMetrics, ours;
}
