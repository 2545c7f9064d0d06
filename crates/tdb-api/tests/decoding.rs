//! Requests are read as leniently, and refused as completely, as clients of the interface expect.

use serde_json::{Value, json};
use tdb_api::wire::{Describe, Schemas, Step, from_value};
use tdb_api::{
    AllOrOneIndex, BatchedRequest, BatchedTdbRequest, DerivedScalarType, InferenceRequestSpec, MirroredActivationIndex,
    MirroredNodeIndex, NodeIdAndDatasets, ProcessingRequestSpec, TensorND,
};

fn tdb() -> Value {
    json!({ "subRequests": [{
        "prompt": "a", "targetTokens": [" b"], "distractorTokens": [], "componentTypeForMlp": "neuron",
        "componentTypeForAttention": "attention_head", "topAndBottomKForNodeTable": 1,
        "hideEarlyLayersWhenAblating": true,
    }] })
}

fn locations<T: tdb_api::wire::Decode + std::fmt::Debug>(value: &Value) -> Vec<(String, String)> {
    let step = |step: &Step| match step {
        Step::Key(key) => key.clone(),
        Step::Index(index) => index.to_string(),
    };
    let errors = from_value::<T>(value, "body").expect_err("something is wrong with it").0;
    errors.iter().map(|e| (e.loc.iter().map(step).collect::<Vec<_>>().join("."), e.kind.clone())).collect()
}

#[test]
fn integers_may_be_texts_or_fractions() {
    for (given, read) in [(json!("1"), 1), (json!(1.9), 1), (json!(-1.9), -1), (json!(true), 1), (json!(7), 7)] {
        let mut body = tdb();
        body["subRequests"][0]["topAndBottomKForNodeTable"] = given.clone();
        let request: BatchedTdbRequest = from_value(&body, "body").unwrap();
        assert_eq!(request.sub_requests[0].top_and_bottom_k_for_node_table, read, "{given}");
    }
    for given in [json!("1.9"), json!("x"), json!([1]), json!(1e300)] {
        let mut body = tdb();
        body["subRequests"][0]["topAndBottomKForNodeTable"] = given.clone();
        let place = "body.subRequests.0.topAndBottomKForNodeTable".to_owned();
        assert_eq!(locations::<BatchedTdbRequest>(&body), [(place, "type_error.integer".into())], "{given}");
    }
}

#[test]
fn snake_case_and_unknown_fields_are_fine() {
    let node = json!({ "node_type": "mlp_neuron", "tensor_indices": [null, 2], "layer_index": 0, "pass_type": "forward",
                       "colour": "red" });
    let node: MirroredNodeIndex = serde_json::from_value(node).unwrap();
    assert_eq!(node.tensor_indices, [None, Some(2)]);
    let written = serde_json::to_string(&node).unwrap();
    assert_eq!(written, r#"{"nodeType":"mlp_neuron","tensorIndices":[null,2],"layerIndex":0,"passType":"forward"}"#);
}

#[test]
fn indices_may_be_all() {
    let index = json!({ "activationLocationType": "attn.qk_probs", "tensorIndices": [1, "All", null, "2"],
                        "passType": "forward" });
    let index: MirroredActivationIndex = serde_json::from_value(index).unwrap();
    use AllOrOneIndex::{All, One};
    assert_eq!(index.tensor_indices, [One(1), All, All, One(2)]);
    assert_eq!(serde_json::to_value(&index).unwrap()["tensorIndices"], json!([1, "All", "All", 2]));
}

#[test]
fn everything_wrong_is_told_at_once() {
    let missing = |field: &str| (format!("body.subRequests.0.{field}"), "value_error.missing".to_owned());
    let fields = ["targetTokens", "distractorTokens", "componentTypeForMlp", "componentTypeForAttention"];
    let more = ["topAndBottomKForNodeTable", "hideEarlyLayersWhenAblating"];
    let want: Vec<_> = fields.iter().chain(&more).map(|field| missing(field)).collect();
    assert_eq!(locations::<BatchedTdbRequest>(&json!({ "subRequests": [{ "prompt": "a" }] })), want);
    let wrong_list = ("body.subRequests".to_owned(), "type_error.list".to_owned());
    assert_eq!(locations::<BatchedTdbRequest>(&json!({ "subRequests": "x" })), [wrong_list]);
    let names = locations::<NodeIdAndDatasets>(&json!({ "dst": "nope", "layerIndex": null }));
    let kinds: Vec<_> = names.iter().map(|(_, kind)| kind.as_str()).collect();
    assert_eq!(kinds, ["type_error.enum", "type_error.none.not_allowed", "value_error.missing", "value_error.missing"]);
}

#[test]
fn wrong_keys_of_maps_are_told() {
    let body = json!({ "inferenceSubRequests": [{ "inferenceRequestSpec": { "prompt": "a" },
        "processingRequestSpecByName": { "x": {
            "specType": "multiple_top_k_derived_scalars_request_spec", "dstListByGroupId": { "nope": [] } } } }] });
    let place = "body.inferenceSubRequests.0.processingRequestSpecByName.x.dstListByGroupId.__key__".to_owned();
    assert_eq!(locations::<BatchedRequest>(&body), [(place, "type_error.enum".into())]);
}

#[test]
fn the_kind_of_a_spec_is_told_by_its_word_or_its_fields() {
    let kind = |value: Value| match from_value::<ProcessingRequestSpec>(&value, "body") {
        Ok(ProcessingRequestSpec::MultipleTopKDerivedScalars(_)) => "top k",
        Ok(ProcessingRequestSpec::DerivedScalars(_)) => "scalars",
        Ok(ProcessingRequestSpec::DerivedAttentionScalars(_)) => "attention",
        Ok(ProcessingRequestSpec::ScoredTokens(_)) => "tokens",
        Ok(ProcessingRequestSpec::TokenPairAttribution(_)) => "pairs",
        Err(_) => "nothing",
    };
    let scalars = json!({ "dst": "unflattened_attn_write_norm", "layerIndex": 0, "activationIndex": 1 });
    assert_eq!(kind(scalars.clone()), "scalars");
    let mut attention = scalars;
    attention["specType"] = "derived_attention_scalars_request_spec".into();
    assert_eq!(kind(attention.clone()), "attention");
    let spec: ProcessingRequestSpec = from_value(&attention, "body").unwrap();
    assert_eq!(kind(serde_json::to_value(&spec).unwrap()), "attention", "it must survive being written");
    assert_eq!(kind(json!({ "dstListByGroupId": { "write_norm": ["mlp_write_norm"] } })), "top k");
    let reading = json!({ "tokenScoringType": "upvoted_output_tokens", "numTokens": 1, "dependsOnSpecName": "a" });
    assert_eq!(kind(reading), "tokens");
    assert_eq!(kind(json!({ "numTokensAttendedTo": 3, "dependsOnSpecName": "a" })), "pairs");
    assert_eq!(kind(json!({ "specType": "tdb_request_spec" })), "nothing");
    assert_eq!(kind(json!({ "foo": 1 })), "nothing");
}

#[test]
fn answers_keep_nulls_order_and_single_precision() {
    let spec: InferenceRequestSpec = serde_json::from_value(json!({ "prompt": "a" })).unwrap();
    let keys = ["prompt", "ablationSpecs", "lossFnConfig", "traceConfig", "activationIndexForWithinLayerGrad"];
    let written = serde_json::to_value(&spec).unwrap();
    assert_eq!(written.as_object().unwrap().keys().collect::<Vec<_>>(), keys);
    let tensor = TensorND::Tensor1D(vec![f64::from(0.1_f32), -0.0, 1.0]);
    let text = r#"{"tensorType":"tensor_1d","value":[0.10000000149011612,-0.0,1.0]}"#;
    assert_eq!(serde_json::to_string(&tensor).unwrap(), text);
    assert_eq!(serde_json::from_str::<TensorND>(text).unwrap(), tensor);
}

#[test]
fn every_scalar_type_has_a_word_of_its_own() {
    // The reference's, and those of dictionaries that it does not have.
    assert_eq!(DerivedScalarType::ALL.len(), 106 + 25);
    for dst in DerivedScalarType::ALL {
        assert_eq!(dst.as_str().parse::<DerivedScalarType>().unwrap(), *dst);
    }
}

#[test]
fn schemas_name_required_fields_and_types() {
    let mut schemas = Schemas::default();
    let reference = BatchedRequest::describe(&mut schemas);
    assert_eq!(reference, json!({ "$ref": "#/components/schemas/BatchedRequest" }));
    assert_eq!(schemas.0["InferenceSubRequest"]["required"], json!(["inferenceRequestSpec"]));
    assert_eq!(schemas.0["LossFnName"]["enum"], json!(["logit_diff", "logit_minus_mean", "probs", "zero"]));
    assert_eq!(schemas.0["ScoredTokensRequestSpec"]["required"].as_array().unwrap().len(), 3);
}
