//! Azure Blob Storage, as its maker's own emulator has it: a public container in the reference's layout, read without
//! credentials.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

use std::time::Duration;

use serde_json::json;
use tdb_api::{ExistingExplanationsRequest, NodeIdAndDatasets};
use tdb_data::{Error, FetchConfig, Fetcher, Library, Location, Registry};
use tdb_testkit::stores::Azurite;

const ACCOUNT: &str = Azurite::ACCOUNT;

#[tokio::test]
async fn records_and_explanations_come_from_azure() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = FetchConfig::from_env().unwrap();
    (config.cache, config.pause, config.offline) = (folder.path().join("cache"), Duration::from_millis(20), false);

    let azurite = Azurite::start().unwrap();
    azurite.container("neuron-explainer", true).unwrap();
    azurite.container("closed", false).unwrap();
    let id = json!({"dataclass_name": "NeuronId", "neuron_index": 7, "layer_index": 3});
    let example = json!({"dataclass_name": "ActivationRecord", "activations": [0.5, 2.0], "tokens": ["a", " b"]});
    let record =
        json!({"dataclass_name": "NeuronRecord", "neuron_id": id, "most_positive_activation_records": [example]});
    let explained = json!({"dataclass_name": "NeuronSimulationResults", "neuron_id": id, "scored_explanations": [
        {"dataclass_name": "ScoredExplanation", "explanation": "the letter b",
         "scored_simulation": {"scored_sequence_simulations": [], "ev_correlation_score": 0.5}}]});
    for container in ["neuron-explainer", "closed"] {
        azurite.put(container, "data/collated-activations/3/7.json", record.to_string().as_bytes()).unwrap();
    }
    azurite.put("neuron-explainer", "data/explanations/3/7.jsonl", explained.to_string().as_bytes()).unwrap();
    let large: Vec<u8> = (0..20_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    azurite.put("neuron-explainer", "large file.bin", &large).unwrap();

    let set = |name: &str, location: &str| {
        format!("[[records]]\nname = '{name}'\nscalar = 'mlp_post_act'\ntitle = ''\nlocation = '{location}'\n")
    };
    let text = format!(
        "[[store]]\nprefix = 'az://{ACCOUNT}'\nendpoint = '{}'\nanonymous = true\n{}{}{}\
         [[explanations]]\nname = 'e'\ntitle = ''\nlocation = 'az://{ACCOUNT}/neuron-explainer/data/explanations/'\n\
         records = 'az'\nscalar = 'mlp_post_act'\n",
        azurite.endpoint(),
        set("az", &format!("az://{ACCOUNT}/neuron-explainer/data/collated-activations")),
        set("web", &format!("{}/neuron-explainer/data/collated-activations/", azurite.endpoint())),
        set("closed", &format!("az://{ACCOUNT}/closed/data/collated-activations")),
    );
    let registry = Registry::parse("azurite.toml", &text).unwrap();
    let library = Library::new(registry.clone(), Fetcher::new(config, &registry), folder.path().join("own"));
    let ask = |name: &str, index: i64| -> NodeIdAndDatasets {
        serde_json::from_value(
            json!({"dst": "mlp_post_act", "layerIndex": 3, "activationIndex": index, "datasets": [name]}),
        )
        .unwrap()
    };
    // Through the store's own interface, and as plain web pages.
    for name in ["az", "web"] {
        let answer = library.neuron_record(&ask(name, 7)).await.unwrap();
        assert_eq!(answer.max_activation, 2.0, "{name}");
        let missing = library.neuron_record(&ask(name, 8)).await.unwrap_err();
        assert!(matches!(missing, Error::NotFound(_)), "{name}: {missing}");
    }
    let closed = library.neuron_record(&ask("closed", 7)).await.unwrap_err();
    assert!(matches!(closed, Error::Denied { .. } | Error::NotFound(_)), "{closed}");
    let request: ExistingExplanationsRequest = serde_json::from_value(json!({"dst": "mlp_post_act", "layerIndex": 3,
        "activationIndex": 7, "explanationDatasets": [], "neuronDataset": "az"}))
    .unwrap();
    let found = library.existing_explanations(&request).await.unwrap();
    assert_eq!((found[0].explanation.as_str(), found[0].score), ("the letter b", Some(0.5)));
    let file = Location::parse(&format!("az://{ACCOUNT}/neuron-explainer/large file.bin")).unwrap();
    let path = library.fetcher().file(&file, &()).await.unwrap();
    assert!(std::fs::read(path).unwrap() == large);
    // Without the server everything that was asked for is still there.
    drop(azurite);
    assert_eq!(library.neuron_record(&ask("az", 7)).await.unwrap().max_activation, 2.0);
    assert!(library.fetcher().file(&file, &()).await.is_ok());
}
