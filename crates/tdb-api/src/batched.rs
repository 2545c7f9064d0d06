//! Several runs, and several things asked of each.

use crate::attribution::{TokenPairAttributionRequestSpec, TokenPairAttributionResponseData};
use crate::effects::Check;
use crate::inference::{InferenceRequestSpec, InferenceResponse};
use crate::names::SpecType;
use crate::scalars::{
    DerivedAttentionScalarsRequestSpec, DerivedAttentionScalarsResponseData, DerivedScalarsRequestSpec,
    DerivedScalarsResponseData,
};
use crate::tokens::{ScoredTokensRequestSpec, ScoredTokensResponseData};
use crate::top_k::{MultipleTopKDerivedScalarsRequestSpec, MultipleTopKDerivedScalarsResponseData};
use crate::wire::{Decode, Describe, Errors, Schemas, Step, wire_struct};
use indexmap::IndexMap;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// Something asked of a run.
///
/// On the wire `specType` tells the kind. Where it is absent, the first kind below whose fields are all there is meant;
/// scalars of token pairs have the fields of plain ones and therefore need their `specType`.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "each variant is described by its type")]
pub enum ProcessingRequestSpec {
    MultipleTopKDerivedScalars(MultipleTopKDerivedScalarsRequestSpec),
    DerivedScalars(DerivedScalarsRequestSpec),
    DerivedAttentionScalars(DerivedAttentionScalarsRequestSpec),
    ScoredTokens(ScoredTokensRequestSpec),
    TokenPairAttribution(TokenPairAttributionRequestSpec),
}

impl Decode for ProcessingRequestSpec {
    fn decode(value: &Value, errors: &mut Errors) -> Option<Self> {
        let object = crate::wire::decode_object(value, errors)?;
        let spec_type: Option<SpecType> = errors.field(object, "spec_type", None)?;
        let Some(spec_type) = spec_type else { return decode_by_fields(value, errors) };
        match spec_type {
            SpecType::MultipleTopKDerivedScalarsRequestSpec => {
                Decode::decode(value, errors).map(Self::MultipleTopKDerivedScalars)
            }
            SpecType::DerivedScalarsRequestSpec => Decode::decode(value, errors).map(Self::DerivedScalars),
            SpecType::DerivedAttentionScalarsRequestSpec => {
                Decode::decode(value, errors).map(Self::DerivedAttentionScalars)
            }
            SpecType::ScoredTokensRequestSpec => Decode::decode(value, errors).map(Self::ScoredTokens),
            SpecType::TokenPairAttributionRequestSpec => Decode::decode(value, errors).map(Self::TokenPairAttribution),
            SpecType::ActivationsRequestSpec | SpecType::TdbRequestSpec => errors
                .at(Step::Key("specType".into()), |e| {
                    e.add("value_error.const", format!("{spec_type} cannot be asked of a run of /batched"))
                }),
        }
    }
}

/// Takes the first kind that fits; if none does, tells what each of them lacks.
fn decode_by_fields(value: &Value, errors: &mut Errors) -> Option<ProcessingRequestSpec> {
    type Spec = ProcessingRequestSpec;
    let attempts: [fn(&Value, &mut Errors) -> Option<Spec>; 5] = [
        |v, e| Decode::decode(v, e).map(Spec::MultipleTopKDerivedScalars),
        |v, e| Decode::decode(v, e).map(Spec::DerivedScalars),
        |v, e| Decode::decode(v, e).map(Spec::DerivedAttentionScalars),
        |v, e| Decode::decode(v, e).map(Spec::ScoredTokens),
        |v, e| Decode::decode(v, e).map(Spec::TokenPairAttribution),
    ];
    let mut lacking = Vec::new();
    for attempt in attempts {
        match errors.attempt(|errors| attempt(value, errors)) {
            Ok(spec) => return Some(spec),
            Err(found) => lacking.extend(found),
        }
    }
    errors.keep(lacking);
    None
}

impl<'de> Deserialize<'de> for ProcessingRequestSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::wire::decode_for_serde(deserializer)
    }
}

/// The word is left out where the fields tell the kind, which is what servers of the reference's kind want.
impl Serialize for ProcessingRequestSpec {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct WithSpecType<'a> {
            spec_type: SpecType,
            #[serde(flatten)]
            spec: &'a DerivedAttentionScalarsRequestSpec,
        }
        match self {
            Self::MultipleTopKDerivedScalars(spec) => spec.serialize(serializer),
            Self::DerivedScalars(spec) => spec.serialize(serializer),
            Self::DerivedAttentionScalars(spec) => {
                WithSpecType { spec_type: SpecType::DerivedAttentionScalarsRequestSpec, spec }.serialize(serializer)
            }
            Self::ScoredTokens(spec) => spec.serialize(serializer),
            Self::TokenPairAttribution(spec) => spec.serialize(serializer),
        }
    }
}

impl Describe for ProcessingRequestSpec {
    fn describe(schemas: &mut Schemas) -> Value {
        let any_of = [
            MultipleTopKDerivedScalarsRequestSpec::describe(schemas),
            DerivedScalarsRequestSpec::describe(schemas),
            DerivedAttentionScalarsRequestSpec::describe(schemas),
            ScoredTokensRequestSpec::describe(schemas),
            TokenPairAttributionRequestSpec::describe(schemas),
        ];
        serde_json::json!({ "anyOf": any_of })
    }
}

/// An answer to something asked of a run; `responseDataType` tells the kind.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
#[expect(missing_docs, reason = "each variant is described by its type")]
pub enum ProcessingResponseData {
    MultipleTopKDerivedScalars(MultipleTopKDerivedScalarsResponseData),
    DerivedScalars(DerivedScalarsResponseData),
    DerivedAttentionScalars(DerivedAttentionScalarsResponseData),
    ScoredTokens(ScoredTokensResponseData),
    TokenPairAttribution(TokenPairAttributionResponseData),
}

impl Decode for ProcessingResponseData {
    fn decode(value: &Value, errors: &mut Errors) -> Option<Self> {
        use crate::names::ProcessingResponseDataType as Type;
        let object = crate::wire::decode_object(value, errors)?;
        match errors.field::<Type>(object, "response_data_type", None)? {
            Type::MultipleTopKDerivedScalarsResponseData => {
                Decode::decode(value, errors).map(Self::MultipleTopKDerivedScalars)
            }
            Type::DerivedScalarsResponseData => Decode::decode(value, errors).map(Self::DerivedScalars),
            Type::DerivedAttentionScalarsResponseData => {
                Decode::decode(value, errors).map(Self::DerivedAttentionScalars)
            }
            Type::ScoredTokensResponseData => Decode::decode(value, errors).map(Self::ScoredTokens),
            Type::TokenPairAttributionResponseData => Decode::decode(value, errors).map(Self::TokenPairAttribution),
        }
    }
}

impl<'de> Deserialize<'de> for ProcessingResponseData {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::wire::decode_for_serde(deserializer)
    }
}

impl Describe for ProcessingResponseData {
    fn describe(schemas: &mut Schemas) -> Value {
        let any_of = [
            MultipleTopKDerivedScalarsResponseData::describe(schemas),
            DerivedScalarsResponseData::describe(schemas),
            DerivedAttentionScalarsResponseData::describe(schemas),
            ScoredTokensResponseData::describe(schemas),
            TokenPairAttributionResponseData::describe(schemas),
        ];
        serde_json::json!({ "anyOf": any_of })
    }
}

wire_struct! {
    /// One run and what is asked of it.
    pub struct InferenceSubRequest {
        /// The run.
        pub inference_request_spec: InferenceRequestSpec,
        /// What is asked of it, under names of the client's choice.
        pub processing_request_spec_by_name: IndexMap<String, ProcessingRequestSpec> = IndexMap::new(),
    }
}

wire_struct! {
    /// One run's answers.
    pub struct InferenceResponseAndResponseDict {
        /// What the run tells about itself.
        pub inference_response: InferenceResponse,
        /// The answers, under the names of the request and in its order.
        pub processing_response_data_by_name: IndexMap<String, ProcessingResponseData> = IndexMap::new(),
        /// What was checked; left out where it was not asked for.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub checks: Option<Vec<Check>>,
    }
}

impl Default for BatchedResponse {
    /// Of a request without runs.
    fn default() -> Self {
        Self { inference_sub_responses: Vec::new() }
    }
}

impl InferenceResponseAndResponseDict {
    /// The ranked nodes under this name.
    pub fn ranked(&self, name: &str) -> Option<&MultipleTopKDerivedScalarsResponseData> {
        match self.processing_response_data_by_name.get(name)? {
            ProcessingResponseData::MultipleTopKDerivedScalars(data) => Some(data),
            _ => None,
        }
    }

    /// The scalars under this name.
    pub fn scalars(&self, name: &str) -> Option<&DerivedScalarsResponseData> {
        match self.processing_response_data_by_name.get(name)? {
            ProcessingResponseData::DerivedScalars(data) => Some(data),
            _ => None,
        }
    }

    /// The readings in token space under this name.
    pub fn scored_tokens(&self, name: &str) -> Option<&ScoredTokensResponseData> {
        match self.processing_response_data_by_name.get(name)? {
            ProcessingResponseData::ScoredTokens(data) => Some(data),
            _ => None,
        }
    }

    /// The attended-to tokens under this name.
    pub fn token_pairs(&self, name: &str) -> Option<&TokenPairAttributionResponseData> {
        match self.processing_response_data_by_name.get(name)? {
            ProcessingResponseData::TokenPairAttribution(data) => Some(data),
            _ => None,
        }
    }
}

wire_struct! {
    /// Several runs.
    pub struct BatchedRequest {
        pub inference_sub_requests: Vec<InferenceSubRequest>,
    }
}

wire_struct! {
    /// Their answers, in the order of the request.
    pub struct BatchedResponse {
        pub inference_sub_responses: Vec<InferenceResponseAndResponseDict>,
    }
}
