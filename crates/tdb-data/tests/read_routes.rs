//! The read routes' answers for a small mirror of the public layout: what is right, and what happens to what is not.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

use crate::common;
use crate::common::{Fault, Server};
use serde_json::{Value, json};
use tdb_api::{ExistingExplanationsRequest, NodeIdAndDatasets};
use tdb_data::{Error, Fetcher, Library, Mirror, Origin, Registry, ScoredExplanation};

const HOST: &str = "https://openaipublic.blob.core.windows.net";

/// A library of the built-in registry, all of it read from `server`.
fn library(server: &Server, folder: &std::path::Path) -> Library {
    let registry = Registry::built_in().unwrap();
    let mut config = common::config(&folder.join("cache"));
    config.mirrors = vec![Mirror::new(HOST, &server.url).unwrap()];
    Library::new(registry.clone(), Fetcher::new(config, &registry), folder.join("own"))
}

fn record(layer: usize, index: usize, activations: &[f64]) -> Vec<u8> {
    let tokens: Vec<String> = (0..3).map(|i| format!(" t{i}")).collect();
    let example = json!({"dataclass_name": "ActivationRecord", "activations": activations, "tokens": tokens});
    json!({
        "dataclass_name": "NeuronRecord",
        "neuron_id": {"dataclass_name": "NeuronId", "neuron_index": index, "layer_index": layer},
        "random_sample": [], "random_sample_by_quantile": null, "quantile_boundaries": null,
        "mean": 0.25, "variance": 1.5, "skewness": 0.1, "kurtosis": 3.0,
        "most_positive_activation_records": [example],
    })
    .to_string()
    .into_bytes()
}

fn ask(value: Value) -> NodeIdAndDatasets {
    serde_json::from_value(value).unwrap()
}

fn neuron(layer: i64, index: i64, datasets: &[&str]) -> NodeIdAndDatasets {
    ask(json!({"dst": "mlp_post_act", "layerIndex": layer, "activationIndex": index, "datasets": datasets}))
}

const NEURONS: &str = "neuron-explainer/gpt2_small_data/collated-activations";
const EXPLANATIONS: &str = "neuron-explainer/gpt2_small_data/explanations";

#[tokio::test]
async fn the_first_set_that_has_the_node_wins() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    server.put(&format!("{NEURONS}/1/5.json"), record(1, 5, &[1.0, -1.0, 4.0]));
    let library = library(&server, folder.path());
    let answer = library.neuron_record(&neuron(1, 5, &["gpt2-xl", "gpt2-small"])).await.unwrap();
    assert_eq!(answer.dataset, format!("{HOST}/{NEURONS}/"));
    assert_eq!(answer.max_activation, 4.0);
    let last = &answer.top_activations[0][2];
    assert_eq!((last.token.as_str(), last.scalar, last.normalized_scalar), (" t2", 4.0, 1.0));
    assert_eq!(answer.top_activations[0][1].normalized_scalar, 0.0);
    // Neither the file nor its absence in the first set is asked for again.
    let before = server.requests().len();
    library.neuron_record(&neuron(1, 5, &["gpt2-xl", "gpt2-small"])).await.unwrap();
    assert_eq!(server.requests().len(), before);
    // The location of a registered set is as good as its name.
    let by_url = neuron(1, 5, &[&format!("{HOST}/{NEURONS}/")]);
    assert_eq!(library.neuron_record(&by_url).await.unwrap(), answer);
}

#[tokio::test]
async fn what_is_not_there_is_a_sentence_that_names_what_was_asked() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    let library = library(&server, folder.path());
    let error = library.neuron_record(&neuron(9, 9, &["gpt2-small"])).await.unwrap_err();
    assert!(matches!(&error, Error::NotFound(m) if m.contains("9:9") && m.contains(NEURONS)), "{error}");
    let error = library.neuron_record(&neuron(9, 9, &[])).await.unwrap_err();
    assert!(matches!(error, Error::NotFound(_)), "{error}");
    let asked = server.requests().len();
    for (layer, index, set) in [
        (0, 0, "nope"),
        (0, 0, "../../etc/passwd"),
        (0, 0, "http://169.254.169.254/latest/"),
        (0, 0, "file:///etc"),
        (-1, 0, "gpt2-small"),
        (0, -5, "gpt2-small"),
        (0, 1 << 40, "gpt2-small"),
    ] {
        let error = library.neuron_record(&neuron(layer, index, &[set])).await.unwrap_err();
        assert!(matches!(error, Error::NotFound(_) | Error::Bad(_)), "{set}: {error}");
    }
    assert_eq!(server.requests().len(), asked, "nothing outside the registry is asked for");
}

#[tokio::test]
async fn a_damaged_record_is_fetched_once_more_and_then_named() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    let path = format!("{NEURONS}/1/5.json");
    server.put(&path, b"{\"neuron_id\": ".to_vec());
    let library = library(&server, folder.path());
    let error = library.neuron_record(&neuron(1, 5, &["gpt2-small"])).await.unwrap_err();
    assert!(matches!(&error, Error::Damaged { file, .. } if file.ends_with("/1/5.json")), "{error}");
    assert_eq!(server.requests().len(), 2);
    server.put(&path, record(1, 5, &[1.0, 2.0, 3.0]));
    assert_eq!(library.neuron_record(&neuron(1, 5, &["gpt2-small"])).await.unwrap().max_activation, 3.0);
    // Out of order for a moment: the answer comes all the same.
    server.put(&format!("{NEURONS}/1/6.json"), record(1, 6, &[1.0, 2.0, 3.0]));
    server.fail(&format!("{NEURONS}/1/6.json"), [Fault::Status(503), Fault::BreakAfter(20)]);
    library.neuron_record(&neuron(1, 6, &["gpt2-small"])).await.unwrap();
}

#[tokio::test]
async fn what_is_of_another_node_is_refused_and_named() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    let sets = ["files", "layers"].map(|layout| {
        format!(
            "[[records]]\nname = '{layout}'\nscalar = 'mlp_post_act'\ntitle = ''\nlayout = '{layout}'\n\
             location = '{url}/records'\n[[explanations]]\nname = 'of-{layout}'\ntitle = ''\nlayout = '{layout}'\n\
             location = '{url}/explained'\nrecords = '{layout}'\nscalar = 'mlp_post_act'\n",
            url = server.url
        )
    });
    let registry = Registry::parse("own.toml", &sets.concat()).unwrap();
    let fetcher = Fetcher::new(common::config(&folder.path().join("cache")), &registry);
    let library = Library::new(registry, fetcher, folder.path().join("own"));
    let refused = |error: Error, file: &str, says: &str| {
        let is_named = matches!(&error, Error::Damaged { file: found, .. } if found.ends_with(file));
        assert!(is_named && error.to_string().contains(says), "{error}");
    };

    server.put("records/0/108.json", record(0, 7, &[1.0, 2.0, 3.0]));
    let error = library.neuron_record(&neuron(0, 108, &["files"])).await.unwrap_err();
    refused(
        error,
        "/records/0/108.json",
        "it says that it is of layer 0, index 7, where layer 0, index 108 was expected",
    );
    server.put("records/0/108.json", record(0, 108, &[1.0, 2.0, 3.0]));
    assert_eq!(library.neuron_record(&neuron(0, 108, &["files"])).await.unwrap().max_activation, 3.0);

    // A file of layer 0.
    let layer = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fuzz/corpus/records/version-3.records");
    for layer_index in 0..2 {
        server.put(&format!("records/{layer_index}.records"), std::fs::read(layer).unwrap());
    }
    let error = library.record_summary(&neuron(1, 0, &["layers"])).await.unwrap_err();
    refused(error, "/records/1.records", "it says that it is of layer 0, where layer 1 was expected");
    library.record_summary(&neuron(0, 0, &["layers"])).await.unwrap();

    let explained = |layer: usize, index: usize, text: &str| {
        let scored = json!({"explanation": text, "scored_simulation": {"scored_sequence_simulations": []}});
        json!({"neuron_id": {"neuron_index": index, "layer_index": layer}, "scored_explanations": [scored]}).to_string()
    };
    let request = |set: &str, layer: usize, index: usize| -> ExistingExplanationsRequest {
        serde_json::from_value(json!({"dst": "mlp_post_act", "layerIndex": layer, "activationIndex": index,
            "explanationDatasets": [], "neuronDataset": set}))
        .unwrap()
    };
    server.put("explained/0/1.jsonl", explained(0, 77, "another"));
    let error = library.existing_explanations(&request("files", 0, 1)).await.unwrap_err();
    refused(
        error,
        "/explained/0/1.jsonl",
        "it says that it is of layer 0, index 77, where layer 0, index 1 was expected",
    );
    let lines = |lines: &[String]| format!("\u{feff}{}\n", lines.join("\n"));
    server.put("explained/0.jsonl", lines(&[explained(0, 1, "a"), explained(3, 2, "b")]));
    let error = library.existing_explanations(&request("layers", 0, 1)).await.unwrap_err();
    refused(error, "/explained/0.jsonl line 2", "it says that it is of layer 3, where layer 0 was expected");
    server.put("explained/0.jsonl", lines(&[explained(0, 1, "a"), explained(0, 2, "b"), explained(0, 1, "c")]));
    let error = library.existing_explanations(&request("layers", 0, 2)).await.unwrap_err();
    refused(error, "/explained/0.jsonl line 3", "it is of index 1, and so is line 1");
    server.put("explained/0.jsonl", lines(&[explained(0, 1, "a"), explained(0, 2, "b")]));
    for (index, text) in [(1, "a"), (2, "b")] {
        let found = library.existing_explanations(&request("layers", 0, index)).await.unwrap();
        assert_eq!(found.iter().map(|e| e.explanation.as_str()).collect::<Vec<_>>(), [text]);
    }
    // So are those that were written here.
    let own = folder.path().join("own/files/mlp_post_act/activations/0");
    std::fs::create_dir_all(&own).unwrap();
    std::fs::write(own.join("5.jsonl"), explained(0, 6, "own")).unwrap();
    let error = library.existing_explanations(&request("files", 0, 5)).await.unwrap_err();
    refused(error, "0/5.jsonl", "index 6, where layer 0, index 5 was expected");
}

#[tokio::test]
async fn explanations_are_those_of_all_sets_and_our_own() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    let stored = json!({"dataclass_name": "NeuronSimulationResults",
        "neuron_id": {"dataclass_name": "NeuronId", "neuron_index": 5, "layer_index": 1},
        "scored_explanations": [
            {"dataclass_name": "ScoredExplanation", "explanation": "cats",
             "scored_simulation": {"scored_sequence_simulations": [], "ev_correlation_score": 0.625}},
            {"dataclass_name": "ScoredExplanation", "explanation": "marks",
             "scored_simulation": {"scored_sequence_simulations": [], "ev_correlation_score": null}}]});
    server.put(&format!("{EXPLANATIONS}/1/5.jsonl"), stored.to_string());
    let library = library(&server, folder.path());
    let request = |explanations: Value, records: Value| -> ExistingExplanationsRequest {
        serde_json::from_value(json!({"dst": "mlp_post_act", "layerIndex": 1, "activationIndex": 5,
            "explanationDatasets": explanations, "neuronDataset": records}))
        .unwrap()
    };
    let of_records = request(json!([]), json!("gpt2-small"));
    let found = library.existing_explanations(&of_records).await.unwrap();
    let flat: Vec<_> = found.iter().map(|e| (e.explanation.as_str(), e.score, e.dataset_name.as_str())).collect();
    assert_eq!(flat, [("cats", Some(0.625), ""), ("marks", None, "")]);
    let by_url = request(json!([format!("{HOST}/{EXPLANATIONS}/")]), Value::Null);
    assert_eq!(library.existing_explanations(&by_url).await.unwrap(), found);
    for wrong in [request(json!(["x"]), json!("gpt2-small")), request(json!([]), Value::Null)] {
        assert!(matches!(library.existing_explanations(&wrong).await, Err(Error::Bad(_))));
    }
    let elsewhere = request(json!(["https://example.org/explanations"]), Value::Null);
    assert!(matches!(library.existing_explanations(&elsewhere).await, Err(Error::Bad(_))));

    let entry = library.registry().records_for("gpt2-small", "mlp_post_act").unwrap().clone();
    for text in ["dogs", "birds", "dogs"] {
        let origin = Origin { method: Some("activations".into()), ..Origin::default() };
        let new = ScoredExplanation::new(text, origin);
        library.add_explanation(&entry, "activations", (1, 5), false, new).await.unwrap();
    }
    let found = library.existing_explanations(&of_records).await.unwrap();
    let flat: Vec<_> = found.iter().map(|e| (e.explanation.as_str(), e.dataset_name.as_str())).collect();
    assert_eq!(flat, [("cats", ""), ("marks", ""), ("birds", "activations"), ("dogs", "activations")]);
    // On the wire, the reference's fields alone where a file has no others.
    let wire: Vec<Value> = found.iter().map(|e| serde_json::to_value(e).unwrap()).collect();
    assert_eq!(wire[0], json!({"explanation": "cats", "score": 0.625, "datasetName": ""}));
    assert_eq!(wire[2]["method"], "activations");
    let outside = ScoredExplanation::new("x", Origin::default());
    assert!(library.add_explanation(&entry, "../../x", (1, 5), false, outside).await.is_err());
}
