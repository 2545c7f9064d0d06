//! What crosses the wire and what stands in a URL: requests, answers, node names, page state.
//!
//! Plain data without I/O, shared by the server and by the pages that run in a browser. Everything on the wire keeps
//! the names, the order of fields and the nulls of the interface that existing clients were written for.
//!
//! Scalars are `f64`, made from the `f32` that was computed (`f64::from(x)`), so that they print as that value's exact
//! neighbourhood in double precision, as clients expect: 0.1 in single precision prints 0.10000000149011612. They are
//! always finite: JSON has no word for anything else.

mod alignment;
mod attribution;
mod batched;
mod circuit;
mod component;
mod effects;
mod error_body;
mod explanations;
mod fidelity;
mod index;
mod inference;
mod info;
mod logit_lens;
mod names;
pub mod numbers;
pub mod page;
mod patch;
mod records;
pub mod routes;
mod sampling;
mod scalars;
mod single;
pub mod stream;
mod tdb;
mod tensor;
mod text;
mod token_ref;
mod tokens;
mod top_k;
pub mod wire;

pub use alignment::{AlignedTokens, Alignment};
pub use attribution::{
    TokenPairAttributionRequestSpec, TokenPairAttributionResponseData, TokenPairAttributionSpecTag,
    TokenPairAttributionTag, TopTokensAttendedTo,
};
pub use batched::{
    BatchedRequest, BatchedResponse, InferenceResponseAndResponseDict, InferenceSubRequest, ProcessingRequestSpec,
    ProcessingResponseData,
};
pub use circuit::{CircuitEdge, CircuitRequest, CircuitResponse};
pub use component::{
    ComponentRequest, ComponentWeightsResponse, HeadCircuit, HeadReadingsRequest, HeadReadingsResponse,
    HeadScoresResponse, Histogram, TokenReading, VocabularyPair, WeightedComponent,
};
pub use effects::{AblateTo, Check, CheckName, EffectsRequest, EffectsResponse, NodeEffect, Price, SampledBound};
pub use error_body::{ErrorBody, FIELD_HEADER};
pub use explanations::{
    AttributedScoredExplanation, ExistingExplanationsBatchRequest, ExistingExplanationsBatchResponse,
    ExistingExplanationsRequest, ExplainedComponent, ExplanationResult, ExplanationSearchRequest,
    ExplanationSearchResponse, ScoreKind, ScoreRequest, ScoreResult,
};
pub use fidelity::{DictionaryFidelity, DictionaryFidelityRequest, DictionaryFidelityResponse, LayerFidelity};
pub use index::{
    AblationSpec, AllOrOneIndex, AttentionTraceType, MirroredActivationIndex, MirroredNodeIndex, MirroredTraceConfig,
    MlpTraceType, NodeAblation, NodeToTrace, PreOrPostAct,
};
pub use indexmap::IndexMap;
pub use inference::{
    InferenceAndTokenData, InferenceRequestSpec, InferenceResponse, LossFnConfig, LossFnName, ModelInfoResponse,
};
pub use info::{
    AutoencoderInfo, LimitsResponse, LoadedDictionary, ModelShape, ServerInfoResponse, SuggestedQuestion, Token,
    TokenizeRequest, TokenizeResponse, VocabularyRequest,
};
pub use logit_lens::{LogitLensCell, LogitLensLayer, LogitLensRequest, LogitLensResponse};
pub use names::{
    ActivationLocationType, DerivedScalarType, Dimension, NodeType, PassType, ProcessingResponseDataType, SpecType,
    UnknownName,
};
pub use patch::{
    PatchCell, PatchDirection, PatchGrid, PatchGroup, PatchMetric, PatchPath, PatchRequest, PatchResponse, PatchRuns,
    PatchUnits, PatchedCell, TokenPair,
};
pub use records::{
    AttentionHeadRecordResponse, NeuronDatasetMetadata, NeuronRecordResponse, NodeIdAndDatasets, RecordSummaryResponse,
    TokenAndAttentionScalars,
};
pub use sampling::SampleRequest;
pub use scalars::{
    DerivedAttentionScalarsRequest, DerivedAttentionScalarsRequestSpec, DerivedAttentionScalarsResponse,
    DerivedAttentionScalarsResponseData, DerivedAttentionScalarsSpecTag, DerivedAttentionScalarsTag,
    DerivedScalarsRequest, DerivedScalarsRequestSpec, DerivedScalarsResponse, DerivedScalarsResponseData,
    DerivedScalarsSpecTag, DerivedScalarsTag,
};
pub use single::{AnotherAnswer, Single};
pub use tdb::{BatchedTdbRequest, ComponentTypeForAttention, ComponentTypeForMlp, TdbRequestSpec, TdbSpecTag};
pub use tensor::{TensorND, TensorType};
pub use text::{OpenMetrics, PlainText};
pub use token_ref::TokenRef;
pub use tokens::{
    ScoredTokensRequestSpec, ScoredTokensResponseData, ScoredTokensSpecTag, ScoredTokensTag, TokenAndScalar,
    TokenScoringType, TopTokens,
};
pub use top_k::{
    ForceClientCodeGenerationRequest, GroupId, MultipleTopKDerivedScalarsRequest,
    MultipleTopKDerivedScalarsRequestSpec, MultipleTopKDerivedScalarsResponse, MultipleTopKDerivedScalarsResponseData,
    MultipleTopKSpecTag, MultipleTopKTag,
};

/// A node of a run: see [`MirroredNodeIndex`], which is its name in the interface.
pub type NodeIndex = MirroredNodeIndex;
