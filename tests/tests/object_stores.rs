//! Records that live in object stores, from the command line to the page.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tdb_testkit::checkpoint::{self, Parts};
use tdb_testkit::presets::preset;
use tdb_testkit::stores::{Azurite, S3};
use tdb_testkit::{http, server};
use tdb_tests::browser::Browser;
use tdb_tests::serving;

/// A neuron's record in the reference's layout.
fn record(layer: usize, index: usize) -> Vec<u8> {
    let example = |tokens: [&str; 3], activations: [f64; 3]| json!({"tokens": tokens, "activations": activations});
    let record = json!({
        "dataclass_name": "NeuronRecord",
        "neuron_id": {"dataclass_name": "NeuronId", "neuron_index": index, "layer_index": layer},
        "most_positive_activation_records": [
            example(["A", " stormy", " harbour"], [0.0, 3.5, 1.0]),
            example(["The", " stormy", " sea"], [0.0, 2.5, 0.5]),
        ],
        "random_sample": [example(["No", " weather", " here"], [0.0, 0.25, 0.0])],
    });
    record.to_string().into_bytes()
}

/// Runs `tdb` with these variables and a cache of its own, and returns whether it succeeded, and what it said.
fn tdb(folder: &Path, args: &[&str], variables: &[(&str, &str)]) -> (bool, String) {
    let mut command = Command::new(server::binary().unwrap());
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if ["AWS_", "GOOGLE_", "STORAGE_", "TDB_"].iter().any(|prefix| name.starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command.args(args).env("TDB_CACHE", folder.join("cache")).env("TDB_REGISTRY", folder.join("registry.toml"));
    // Nobody is asked for what the first place does not have.
    command.env("HF_ENDPOINT", "http://127.0.0.1:9");
    let output = command.envs(variables.iter().copied()).output().unwrap();
    (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

#[test]
fn records_come_from_s3_and_from_google_cloud_storage() {
    let store = S3::start("bucket").unwrap();
    for index in 0..3 {
        store.put("bucket", &format!("records/0/{index}.json"), &record(0, index)).unwrap();
    }
    let endpoint = store.endpoint();
    let host = endpoint.strip_prefix("http://").unwrap();
    let [key, secret] = S3::KEYS;
    let stranger = ("AWS_ACCESS_KEY_ID", "stranger");
    let keys = [("AWS_ACCESS_KEY_ID", key), ("AWS_SECRET_ACCESS_KEY", secret)];
    let at = |variable| [(variable, endpoint.as_str())];
    for (what, location, variables, refused) in [
        ("S3 without keys", "s3://bucket/records", at("AWS_ENDPOINT_URL").to_vec(), false),
        ("S3 with keys", "s3://bucket/records", [&at("AWS_ENDPOINT_URL_S3")[..], &keys].concat(), false),
        ("S3 with other keys", "s3://bucket/records", [&at("AWS_ENDPOINT_URL")[..], &keys, &[stranger]].concat(), true),
        ("Google", "gs://bucket/records", vec![("STORAGE_EMULATOR_HOST", host)], false),
        ("Google with a scheme", "gs://bucket/records", at("STORAGE_EMULATOR_HOST").to_vec(), false),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let entry = format!("[[records]]\nname = 'r'\nscalar = 'mlp_post_act'\ntitle = ''\nlocation = '{location}'\n");
        std::fs::write(folder.path().join("registry.toml"), entry).unwrap();
        let fetch = ["fetch", "--records", "r", "--layers", "0", "--nodes", "0-3"];
        let (ok, text) = tdb(folder.path(), &fetch, &variables);
        if refused {
            assert!(!ok && text.contains("was refused"), "{what}: {text}");
            continue;
        }
        assert!(ok && text.contains("3 records, 1 that do not exist"), "{what}: {text}");
        // What was fetched is there without the store.
        let again = ["fetch", "--records", "r", "--layers", "0", "--nodes", "0-2", "--offline"];
        let (ok, text) = tdb(folder.path(), &again, &[]);
        assert!(ok && text.contains("3 records, 0"), "{what}: {text}");
    }
    // The same from the registry's own settings.
    let folder = tempfile::tempdir().unwrap();
    let mut entries = String::new();
    for scheme in ["s3", "gs"] {
        entries += &format!(
            "[[store]]\nprefix = '{scheme}://bucket'\nendpoint = '{endpoint}'\nanonymous = true\n\
             [[records]]\nname = '{scheme}'\nscalar = 'mlp_post_act'\ntitle = ''\nlocation = '{scheme}://bucket/records'\n"
        );
    }
    std::fs::write(folder.path().join("registry.toml"), entries).unwrap();
    let fetch = ["fetch", "--records", "s3,gs", "--layers", "0", "--nodes", "0-2"];
    let (ok, text) = tdb(folder.path(), &fetch, &keys);
    assert!(ok && text.matches("3 records, 0").count() == 2, "{text}");
}

#[test]
fn a_model_and_its_autoencoder_are_fetched_once_and_served_without_the_store() {
    let store = S3::start("models").unwrap();
    let weights = serving::scratch("store-weights").unwrap();
    let root = checkpoint::write(&preset("tiny-a").unwrap(), &weights, Parts::ModelAndAutoencoders).unwrap();
    let put = |folder: &Path, at: &str| {
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
        for file in files {
            let name = file.file_name().unwrap().to_str().unwrap().to_owned();
            store.put("models", &format!("{at}/{name}"), &std::fs::read(&file).unwrap()).unwrap();
        }
    };
    put(&root, "tiny");
    put(&root.join("model_pieces"), "tiny/model_pieces");
    put(&root.join("autoencoders/ae-resid-delta-mlp"), "ae");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("registry.toml");
    let entries = format!(
        "[[store]]\nprefix = 's3://models'\nendpoint = '{}'\nanonymous = true\n\
         [[model]]\nname = 'tiny'\ntitle = ''\nlocation = 's3://models/tiny'\nlayout = 'pieces'\n\
         [[autoencoder]]\nname = 'ae-resid-delta-mlp'\ntitle = ''\nmodel = 'tiny'\nsite = 'resid_delta_mlp'\n\
         location = 's3://models/ae/{{layer}}.pt'\nn_layers = 2\n",
        store.endpoint(),
    );
    std::fs::write(&file, entries).unwrap();
    let fetch = ["fetch", "tiny", "--autoencoders", "all"];
    let (ok, text) = tdb(folder.path(), &fetch, &[]);
    assert!(
        ok && text.contains("tiny is not on this machine yet: fetching it, once, from s3://models/tiny into"),
        "{text}"
    );
    assert!(text.contains("tiny: fetched 37 files") && text.contains("ae-resid-delta-mlp: fetched 2 files"), "{text}");
    drop(store);
    // All is there: nothing is asked for, and nothing is said about it.
    let (ok, text) = tdb(folder.path(), &fetch, &[]);
    assert!(ok && !text.contains("not on this machine"), "{text}");
    let cache = folder.path().join("cache");
    let place = ["--registry", file.to_str().unwrap(), "--cache", cache.to_str().unwrap()];
    let model = ["--model", "tiny", "--mlp-autoencoder", "ae-resid-delta-mlp"];
    let server = serving::serve(&[model, place].concat()).unwrap();
    let answer =
        http::request(server.address, "POST", "/model_info", &[], Some(b"{}"), Duration::from_secs(30)).unwrap();
    let answer: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((&answer["modelName"], &answer["mlpAutoencoderName"]), (&json!("tiny"), &json!("ae-resid-delta-mlp")));
    // Without a network, what is not there is said in one sentence.
    let (ok, text) = tdb(folder.path(), &["serve", "--model", "gpt2-small", "--mirror", NOWHERE], &[]);
    assert!(!ok && text.contains("no connection could be made") && text.contains("is there a network?"), "{text}");
}

/// A place where nobody listens, in place of the public blobs and of Hugging Face.
const NOWHERE: &str = "https://openaipublic.blob.core.windows.net=http://127.0.0.1:9";

#[tokio::test(flavor = "multi_thread")]
async fn a_neuron_from_azure_is_seen_on_its_page() {
    let folder = tempfile::tempdir().unwrap();
    let azurite = Azurite::start().unwrap();
    azurite.container("neuron-explainer", true).unwrap();
    azurite.put("neuron-explainer", "data/collated-activations/3/7.json", &record(3, 7)).unwrap();
    let explained = json!({
        "dataclass_name": "NeuronSimulationResults",
        "neuron_id": {"dataclass_name": "NeuronId", "neuron_index": 7, "layer_index": 3},
        "scored_explanations": [{
            "dataclass_name": "ScoredExplanation", "explanation": "bad weather at sea",
            "scored_simulation": {"scored_sequence_simulations": [], "ev_correlation_score": 0.5},
        }],
    });
    azurite.put("neuron-explainer", "data/explanations/3/7.jsonl", explained.to_string().as_bytes()).unwrap();
    let place = format!("az://{}/neuron-explainer/data", Azurite::ACCOUNT);
    // The embedded model's neurons, as if their records were published there.
    let registry = format!(
        "[[store]]\nprefix = 'az://{}'\nendpoint = '{}'\nanonymous = true\n\
         [[records]]\nname = 'embedded'\nscalar = 'mlp_post_act'\ntitle = 'in Azure'\nlocation = '{place}/collated-activations'\n\
         [[explanations]]\nname = 'embedded-mlp_post_act'\ntitle = ''\nlocation = '{place}/explanations'\n\
         records = 'embedded'\nscalar = 'mlp_post_act'\n",
        Azurite::ACCOUNT,
        azurite.endpoint(),
    );
    let file = folder.path().join("registry.toml");
    std::fs::write(&file, registry).unwrap();
    let cache = folder.path().join("cache");
    let server = serving::serve(&["--registry", file.to_str().unwrap(), "--cache", cache.to_str().unwrap()]).unwrap();
    let browser = Browser::start().await.unwrap();
    browser.open(&server, "/").await.unwrap();
    let href = browser.see("#open-debugger").await.unwrap().attr("href").await.unwrap().unwrap();
    let slug = href.trim_start_matches('/').split('/').next().unwrap().to_owned();
    let page = format!("/{slug}/mlp_neuron/3/7");
    browser.open(&server, &page).await.unwrap();
    browser.see("#node-name").await.unwrap();
    browser.read("stormy").await.unwrap();
    browser.read("harbour").await.unwrap();
    browser.read("bad weather at sea").await.unwrap();
    // It is read from the cache when the store is gone.
    drop(azurite);
    browser.open(&server, &page).await.unwrap();
    browser.read("bad weather at sea").await.unwrap();
    browser.read("stormy").await.unwrap();
    // And a neuron that the store does not have is said to be missing, not to have failed.
    let body = json!({"dst": "mlp_post_act", "layerIndex": 3, "activationIndex": 7, "datasets": ["embedded"]});
    let address = server.address;
    let ask = move || {
        let body = body.to_string();
        http::request(address, "POST", "/neuron_record", &[], Some(body.as_bytes()), Duration::from_secs(30))
    };
    let answer = tokio::task::spawn_blocking(ask).await.unwrap().unwrap();
    let answer: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(answer["maxActivation"], json!(3.5));
    let severe = browser.complaints().await.unwrap();
    assert!(severe.iter().all(|c| c.contains("the server responded with a status of 4")), "{severe:?}");
    browser.finish().await.unwrap();
}
