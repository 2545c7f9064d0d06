//! Questions with one run and one thing asked of it, as questions of `/batched`, and their answers taken out of its
//! answer.

use crate::batched::{
    BatchedRequest, BatchedResponse, InferenceSubRequest, ProcessingRequestSpec, ProcessingResponseData,
};
use crate::inference::{InferenceAndTokenData, InferenceRequestSpec};
use crate::wire::{FieldPath, Step};
use crate::{
    DerivedAttentionScalarsRequest, DerivedAttentionScalarsResponse, DerivedScalarsRequest, DerivedScalarsResponse,
    MultipleTopKDerivedScalarsRequest, MultipleTopKDerivedScalarsResponse,
};
use indexmap::IndexMap;

/// The name of the only thing that is asked.
const ONLY: &str = "only";

/// An answer of `/batched` that is not the answer to the question.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the answer is of another kind than the question")]
pub struct AnotherAnswer;

/// A question with one run and one thing asked of it.
pub trait Single: Clone + Into<BatchedRequest> {
    /// Its answer.
    type Answer: TryFrom<BatchedResponse, Error = AnotherAnswer>;

    /// The field of this question that stands for one of the batched question.
    fn field_as_asked(field: FieldPath) -> FieldPath;
}

fn field_as_asked(field: &FieldPath, spec: &str) -> FieldPath {
    match field.0.get(2..).unwrap_or_default() {
        [Step::Key(specs), Step::Key(_), rest @ ..] if specs == "processingRequestSpecByName" => {
            FieldPath::of(spec).join(FieldPath(rest.to_vec()))
        }
        rest => FieldPath(rest.to_vec()),
    }
}

fn batched(run: InferenceRequestSpec, spec: ProcessingRequestSpec) -> BatchedRequest {
    let processing_request_spec_by_name = IndexMap::from([(ONLY.to_owned(), spec)]);
    let only = InferenceSubRequest { inference_request_spec: run, processing_request_spec_by_name };
    BatchedRequest { inference_sub_requests: vec![only] }
}

fn only(mut response: BatchedResponse) -> Result<(InferenceAndTokenData, ProcessingResponseData), AnotherAnswer> {
    let mut run = response.inference_sub_responses.pop().ok_or(AnotherAnswer)?;
    let (_, data) = run.processing_response_data_by_name.pop().ok_or(AnotherAnswer)?;
    Ok((run.inference_response.inference_and_token_data, data))
}

macro_rules! single {
    ($($kind:ident: $request:ident.$spec:ident ($name:literal) => $response:ident.$data:ident;)*) => {
        $(
            impl Single for $request {
                type Answer = $response;

                fn field_as_asked(field: FieldPath) -> FieldPath {
                    field_as_asked(&field, $name)
                }
            }

            impl From<$request> for BatchedRequest {
                fn from(request: $request) -> Self {
                    batched(request.inference_request_spec, ProcessingRequestSpec::$kind(request.$spec))
                }
            }

            impl TryFrom<BatchedResponse> for $response {
                type Error = AnotherAnswer;

                fn try_from(response: BatchedResponse) -> Result<Self, AnotherAnswer> {
                    match only(response)? {
                        (inference_and_token_data, ProcessingResponseData::$kind($data)) => {
                            Ok(Self { inference_and_token_data, $data })
                        }
                        _ => Err(AnotherAnswer),
                    }
                }
            }
        )*
    };
}

single! {
    DerivedScalars: DerivedScalarsRequest.derived_scalars_request_spec ("derivedScalarsRequestSpec")
        => DerivedScalarsResponse.derived_scalars_response_data;
    DerivedAttentionScalars: DerivedAttentionScalarsRequest.derived_attention_scalars_request_spec
        ("derivedAttentionScalarsRequestSpec")
        => DerivedAttentionScalarsResponse.derived_attention_scalars_response_data;
    MultipleTopKDerivedScalars: MultipleTopKDerivedScalarsRequest.multiple_top_k_derived_scalars_request_spec
        ("multipleTopKDerivedScalarsRequestSpec")
        => MultipleTopKDerivedScalarsResponse.multiple_top_k_derived_scalars_response_data;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DerivedScalarsResponseData, InferenceResponse, InferenceResponseAndResponseDict};
    use serde_json::json;

    fn answered(data: Option<ProcessingResponseData>) -> BatchedResponse {
        let run = json!({ "inferenceTime": 0.5, "tokensAsInts": [1], "tokensAsStrings": ["a"] });
        let inference_and_token_data = serde_json::from_value(run).unwrap();
        BatchedResponse {
            inference_sub_responses: vec![InferenceResponseAndResponseDict {
                inference_response: InferenceResponse { inference_and_token_data },
                checks: None,
                processing_response_data_by_name: data.map(|data| (ONLY.to_owned(), data)).into_iter().collect(),
            }],
        }
    }

    #[test]
    fn fields_of_the_batched_question_are_fields_of_the_single_one() {
        let single = |field: &str| DerivedScalarsRequest::field_as_asked(field.parse().unwrap()).to_string();
        assert_eq!(single("inferenceSubRequests[0].inferenceRequestSpec.prompt"), "inferenceRequestSpec.prompt");
        let of_spec = "inferenceSubRequests[0].processingRequestSpecByName.only.layerIndex";
        assert_eq!(single(of_spec), "derivedScalarsRequestSpec.layerIndex");
    }

    #[test]
    fn a_single_question_becomes_a_batched_one_and_back() {
        let request = json!({ "inferenceRequestSpec": { "prompt": "a" },
            "derivedScalarsRequestSpec": { "dst": "mlp_post_act", "layerIndex": 0, "activationIndex": 3 } });
        let request: DerivedScalarsRequest = serde_json::from_value(request).unwrap();
        let spec = request.derived_scalars_request_spec.clone();
        let BatchedRequest { inference_sub_requests } = request.into();
        assert_eq!(inference_sub_requests[0].inference_request_spec.prompt, "a");
        let asked = inference_sub_requests[0].processing_request_spec_by_name.values().collect::<Vec<_>>();
        assert_eq!(asked, [&ProcessingRequestSpec::DerivedScalars(spec)]);

        let data = DerivedScalarsResponseData {
            response_data_type: Default::default(),
            activations: vec![1.5],
            normalized_activations: None,
            node_indices: vec![],
            top_tokens: None,
        };
        let response = answered(Some(ProcessingResponseData::DerivedScalars(data.clone())));
        let single = DerivedScalarsResponse::try_from(response.clone()).unwrap();
        assert_eq!(single.derived_scalars_response_data, data);
        assert_eq!(DerivedAttentionScalarsResponse::try_from(response), Err(AnotherAnswer));
        assert_eq!(DerivedScalarsResponse::try_from(answered(None)), Err(AnotherAnswer));
        assert_eq!(DerivedScalarsResponse::try_from(BatchedResponse::default()), Err(AnotherAnswer));
    }
}
