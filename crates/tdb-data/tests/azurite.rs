//! Azure Blob Storage, as its maker's own emulator has it: a public container in the reference's layout, read without
//! credentials. Azurite is installed from npm below `target` once.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use object_store::{ObjectStoreExt, azure::MicrosoftAzureBuilder};
use serde_json::json;
use tdb_api::{ExistingExplanationsRequest, NodeIdAndDatasets};
use tdb_data::{Error, FetchConfig, Fetcher, Library, Location, Registry};

const VERSION: &str = "3.37.0";
const ACCOUNT: &str = "devstoreaccount1";
/// The emulator's key is the same everywhere and no secret.
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

struct Azurite {
    process: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Drop for Azurite {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The emulator's program, installed if it is not there yet.
fn install() -> PathBuf {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/azurite");
    let program = target.join("node_modules/azurite/dist/src/blob/main.js");
    if !program.exists() {
        std::fs::create_dir_all(&target).unwrap();
        let package = format!("azurite@{VERSION}");
        let done = Command::new("npm")
            .args(["install", "--no-audit", "--no-fund", "--prefix"])
            .arg(&target)
            .arg(package)
            .status();
        assert!(done.expect("npm is needed to test Azure Blob Storage").success(), "npm could not install Azurite");
    }
    program
}

impl Azurite {
    async fn start() -> Self {
        let (program, folder) = (install(), tempfile::tempdir().unwrap());
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = Command::new("node")
            .arg(program)
            .args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string()])
            .args(["--silent", "--skipApiVersionCheck", "--disableTelemetry", "--location"])
            .arg(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let begin = Instant::now();
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            assert!(begin.elapsed() < Duration::from_secs(120), "Azurite does not listen");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Self { process, port, _folder: folder }
    }

    fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}/{ACCOUNT}", self.port)
    }

    /// Creates a container, with anonymous access if it is public. Signed by hand, as object_store creates none.
    async fn container(&self, name: &str, public: bool) {
        let client = reqwest::Client::new();
        let answer = client.get(self.endpoint()).send().await.unwrap();
        let date = answer.headers()["date"].to_str().unwrap().to_string();
        let access = if public { "x-ms-blob-public-access:container\n" } else { "" };
        let signed = format!(
            "PUT\n\n\n\n\n\n\n\n\n\n\n\n{access}x-ms-date:{date}\nx-ms-version:2021-12-02\n\
             /{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
        );
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &BASE64_STANDARD.decode(KEY).unwrap());
        let signature = BASE64_STANDARD.encode(ring::hmac::sign(&key, signed.as_bytes()));
        let mut request = client
            .put(format!("{}/{name}?restype=container", self.endpoint()))
            .header("x-ms-date", date)
            .header("x-ms-version", "2021-12-02")
            .header("content-length", "0")
            .header("authorization", format!("SharedKey {ACCOUNT}:{signature}"));
        if public {
            request = request.header("x-ms-blob-public-access", "container");
        }
        let answer = request.send().await.unwrap();
        let status = answer.status();
        assert!(status.is_success(), "{status}: {}", answer.text().await.unwrap());
    }

    async fn put(&self, container: &str, path: &str, content: Vec<u8>) {
        let store = MicrosoftAzureBuilder::new()
            .with_account(ACCOUNT)
            .with_access_key(KEY)
            .with_container_name(container)
            .with_endpoint(self.endpoint())
            .with_allow_http(true)
            .build()
            .unwrap();
        store.put(&path.into(), content.into()).await.unwrap();
    }
}

#[tokio::test]
async fn records_and_explanations_come_from_azure() {
    // The provider of TLS is set by the first fetcher.
    let folder = tempfile::tempdir().unwrap();
    let mut config = FetchConfig::from_env().unwrap();
    (config.cache, config.pause, config.offline) = (folder.path().join("cache"), Duration::from_millis(20), false);
    drop(Fetcher::new(config.clone(), &Registry::default()));

    let azurite = Azurite::start().await;
    azurite.container("neuron-explainer", true).await;
    azurite.container("closed", false).await;
    let id = json!({"dataclass_name": "NeuronId", "neuron_index": 7, "layer_index": 3});
    let example = json!({"dataclass_name": "ActivationRecord", "activations": [0.5, 2.0], "tokens": ["a", " b"]});
    let record =
        json!({"dataclass_name": "NeuronRecord", "neuron_id": id, "most_positive_activation_records": [example]});
    let explained = json!({"dataclass_name": "NeuronSimulationResults", "neuron_id": id, "scored_explanations": [
        {"dataclass_name": "ScoredExplanation", "explanation": "the letter b",
         "scored_simulation": {"scored_sequence_simulations": [], "ev_correlation_score": 0.5}}]});
    for container in ["neuron-explainer", "closed"] {
        azurite.put(container, "data/collated-activations/3/7.json", record.to_string().into()).await;
    }
    azurite.put("neuron-explainer", "data/explanations/3/7.jsonl", explained.to_string().into()).await;
    let large: Vec<u8> = (0..20_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    azurite.put("neuron-explainer", "large file.bin", large.clone()).await;

    let set = |name: &str, location: &str| {
        format!("[[records]]\nname = '{name}'\nscalar = 'mlp_post_act'\ntitle = ''\nlocation = '{location}'\n")
    };
    let text = format!(
        "[[store]]\nprefix = 'az://{ACCOUNT}'\nendpoint = '{}'\nallow_http = true\nanonymous = true\n{}{}{}\
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
