//! The comparison accepts what was recorded, and what a tie allows; and it refuses everything else that is tried here.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tdb_testkit::golden::replay::{Differences, Options, Reply, replay};
use tdb_testkit::golden::{Case, Comparison, Rules, compare, find_folders};

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/goldens")
}

fn against(case: &Case, body: &Value) -> Comparison {
    compare(Rules::default(), case, case.status, body)
}

/// A case with one top-k list of neurons (k = 2) holding these values.
fn top_k(values: &[f64]) -> Case {
    let node =
        |i: usize| json!({"nodeType": "mlp_neuron", "tensorIndices": [0, i], "layerIndex": 1, "passType": "forward"});
    Case {
        name: "made/up".into(),
        method: "POST".into(),
        path: "/multiple_top_k_derived_scalars".into(),
        request: json!({"multipleTopKDerivedScalarsRequestSpec": {"topAndBottomK": 2, "dstListByGroupId": {"activation": ["mlp_post_act"]}}}),
        status: 200,
        response: json!({"multipleTopKDerivedScalarsResponseData": {
            "responseDataType": "multiple_top_k_derived_scalars_response_data",
            "nodeIndices": (0..values.len()).map(node).collect::<Vec<_>>(),
            "activationsByGroupId": {"activation": values},
            "vocabTokenStringsForIndices": null,
        }}),
    }
}

const DATA: &str = "multipleTopKDerivedScalarsResponseData";

#[test]
fn what_was_recorded_passes_and_any_changed_number_fails() {
    let mut changed = 0;
    for folder in find_folders(&goldens()).unwrap() {
        for case in folder.cases().unwrap() {
            let same = against(&case, &case.response);
            assert!(same.passed(), "{}: {:?}", case.name, same.problems);
            if case.status != 200 || case.response.get("openapi").is_some() {
                continue;
            }
            let mut numbers = Vec::new();
            pointers(&case.response, String::new(), &mut numbers);
            // Every number of a small answer, some of a large one.
            let step = numbers.len().div_ceil(60).max(1);
            for pointer in numbers.iter().step_by(step) {
                let mut body = case.response.clone();
                let number = body.pointer_mut(pointer).unwrap();
                *number = match number.as_i64() {
                    Some(n) => json!(n + 1),
                    None => json!(number.as_f64().map(|x| x * 1.01 + 1e-3f64.copysign(x)).unwrap()),
                };
                assert!(!against(&case, &body).passed(), "{}: {pointer} may be changed", case.name);
                changed += 1;
            }
        }
    }
    assert!(changed > 1000, "only {changed} numbers were tried");
}

/// The places of all numbers that are compared by value.
fn pointers(value: &Value, at: String, out: &mut Vec<String>) {
    match value {
        Value::Number(_) => out.push(at),
        Value::Array(items) => items.iter().enumerate().for_each(|(i, v)| pointers(v, format!("{at}/{i}"), out)),
        Value::Object(fields) => {
            for (key, v) in fields {
                // Which node stands at a list's edge may hinge on a tie; the tests below are about that.
                let ignored = ["inferenceTime", "memoryUsedBefore", "memoryUsedAfter", "nodeIndices", "tokenIndices"]
                    .contains(&key.as_str());
                if !ignored {
                    pointers(v, format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), out);
                }
            }
        }
        _ => {}
    }
}

#[test]
fn numbers_within_the_tolerance_pass() {
    let case = top_k(&[3.0, 2.0, -1.0, -2.0]);
    let mut body = case.response.clone();
    body[DATA]["activationsByGroupId"]["activation"] = json!([3.003, 2.0, -1.0, -2.0]);
    assert!(against(&case, &body).passed());
    body[DATA]["activationsByGroupId"]["activation"] = json!([3.0041, 2.0, -1.0, -2.0]);
    assert!(!against(&case, &body).passed());
}

#[test]
fn small_lists_have_a_smaller_tolerance() {
    let case = top_k(&[3e-3, 2e-3, -1e-3, -2e-3]);
    let mut body = case.response.clone();
    body[DATA]["activationsByGroupId"]["activation"] = json!([3.1e-3, 2e-3, -1e-3, -2e-3]);
    assert!(!against(&case, &body).passed());
}

#[test]
fn only_a_tied_node_may_be_another() {
    // The neurons 1 and 2 are the second and third lowest and highest: each is its list's edge.
    let case = top_k(&[3.0, 2.0, -1.0, -2.0]);
    let replace = |from: usize, to: i64| {
        let mut body = case.response.clone();
        body[DATA]["nodeIndices"][from]["tensorIndices"][1] = json!(to);
        against(&case, &body)
    };
    let tied = replace(1, 17);
    assert!(tied.passed(), "{:?}", tied.problems);
    assert_eq!(tied.excused.len(), 2);
    assert!(!replace(0, 17).passed(), "the largest must be listed");
    assert!(!replace(3, 17).passed(), "the smallest must be listed");
    let mut inside = case.response.clone();
    inside[DATA]["nodeIndices"][1]["tensorIndices"][1] = json!(17);
    inside[DATA]["activationsByGroupId"]["activation"][1] = json!(0.5);
    assert!(!against(&case, &inside).passed(), "a node that is no edge must not be listed");
}

#[test]
fn the_order_is_the_recorded_one() {
    let case = top_k(&[5.0, 4.0, 3.0, -3.0, -4.0, -5.0]);
    let swap = |a: usize, b: usize| {
        let mut body = case.response.clone();
        for list in ["/nodeIndices", "/activationsByGroupId/activation"] {
            body[DATA].pointer_mut(list).unwrap().as_array_mut().unwrap().swap(a, b);
        }
        against(&case, &body)
    };
    assert!(!swap(0, 5).passed());
    assert!(swap(2, 3).passed(), "nodes that are inside have no place of their own");
}

#[test]
fn statuses() {
    let mut case = top_k(&[1.0]);
    (case.status, case.response) = (500, json!({"message": "Unhandled server exception"}));
    let reply = |status, body| compare(Rules::default(), &case, status, &body).passed();
    assert!(reply(400, json!({"message": "prompt: empty; give at least one token"})));
    assert!(reply(422, json!({"detail": []})));
    assert!(!reply(400, json!({})), "an error says something");
    assert!(!reply(200, json!({"message": "fine"})));
    case.status = 404;
    let reply = |status, body| compare(Rules::default(), &case, status, &body).passed();
    assert!(reply(404, json!({"message": "another sentence"})));
    assert!(!reply(400, json!({"message": "another status"})));
    assert!(!reply(404, json!({"detail": "another form"})));
}

#[test]
fn extra_fields_are_refused_unless_allowed() {
    let case = top_k(&[1.0]);
    let mut body = case.response.clone();
    body["more"] = json!(1);
    assert!(!against(&case, &body).passed());
    assert!(compare(Rules { allow_extra: true, ..Rules::default() }, &case, 200, &body).passed());
}

#[test]
fn malformed_answers_fail_with_a_problem() {
    for folder in find_folders(&goldens()).unwrap() {
        for case in folder.cases().unwrap().iter().filter(|c| c.status == 200) {
            for body in [json!(null), json!({}), json!([]), json!({DATA: {}}), json!({"inferenceSubResponses": [{}]})] {
                assert!(!against(case, &body).passed(), "{} accepts {body}", case.name);
            }
        }
    }
}

#[test]
fn a_changed_openapi_document_fails() {
    let case = Case::load(&goldens().join("tiny-a/openapi.json")).unwrap();
    let changed = |pointer: &str| {
        let mut body = case.response.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let key = key.replace("~1", "/");
        body.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(&key).unwrap();
        against(&case, &body).problems
    };
    assert_eq!(changed("/paths/~1batched_tdb").len(), 1);
    assert_eq!(changed("/paths/~1batched_tdb/post/operationId").len(), 1);
    assert_eq!(changed("/components/schemas/MirroredNodeIndex").len(), 1);
    assert_eq!(changed("/components/schemas/MirroredNodeIndex/properties/nodeType").len(), 1);
    assert_eq!(changed("/components/schemas/MirroredNodeIndex/required").len(), 1);
    assert_eq!(changed("/components/schemas/MirroredNodeIndex/title"), Vec::<String>::new());
}

#[test]
fn a_replay_counts_and_knows_the_listed_differences() {
    let good = top_k(&[1.0]);
    let mut other = good.clone();
    other.name = "made/different".into();
    let mut broken = good.clone();
    (broken.name, broken.status) = ("made/broken".into(), 500);
    let cases = [good, other, broken];
    let options = Options { differences: Differences::parse("made/diff*\nmade/up\n"), ..Options::default() };
    let mut lines = Vec::new();
    let summary = replay(
        &cases,
        &options,
        |case| match case.name.as_str() {
            "made/up" => Ok(Reply { status: 200, body: case.response.clone() }),
            "made/different" => Ok(Reply { status: 404, body: json!({"message": "no"}) }),
            _ => anyhow::bail!("the connection was closed"),
        },
        |line| lines.push(line.to_owned()),
    );
    assert_eq!((summary.passed, summary.failed, summary.differ), (1, 1, 1));
    assert_eq!((summary.with_data, summary.with_data_passed), (2, 1));
    assert!(lines.iter().any(|l| l == "listed as a difference, but passes: made/up"), "{lines:?}");
    assert!(lines.iter().any(|l| l.contains("the connection was closed")), "{lines:?}");
}
