//! Dictionaries behind the interface: a question cut at a layer of the residual stream, how well one fits, and what is
//! said about a command line that is wrong.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

use crate::support;
use crate::support::Client;
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use tdb_model::checkpoint::{self, DictionaryOptions};
use tdb_model::{
    AutoencoderSite, AutoencoderWeights, LatentActivation, Matrix, NamedAutoencoder, Normalization, Transformer,
};
use tdb_scalars::Engine;
use tdb_server::ServerConfig;
use tdb_server::model::Model;

const LAYER: usize = 1;

fn embedded() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../datasets/embedded")
}

/// Two latents for each dimension, one for either sign: times `scale`, it reconstructs everything. Of one layer.
fn folder(scale: f32) -> tempfile::TempDir {
    let width = checkpoint::open(&embedded()).unwrap().config.d_model;
    let signs = |scale: f32| {
        let entry = |latent: usize, d: usize| if d == latent / 2 { scale } else { 0.0 };
        let row = |latent: usize| (0..width).map(move |d| entry(latent, d) * [1.0, -1.0][latent % 2]);
        Matrix::from_vec(2 * width, width, (0..2 * width).flat_map(row).collect())
    };
    let layer = AutoencoderWeights {
        normalization: Normalization::None,
        encoder_pre_bias: vec![0.0; width],
        encoder: signs(1.0),
        latent_bias: vec![0.0; 2 * width],
        activation: LatentActivation::Relu,
        decoder: signs(scale).transpose(),
        decoder_bias: vec![0.0; width],
        skip: None,
        activation_frequency: None,
    };
    let site = AutoencoderSite::ResidPostMlp;
    let dictionary = NamedAutoencoder { name: "signs".to_owned(), site, layers: vec![layer], indices: vec![LAYER] };
    let folder = tempfile::tempdir().unwrap();
    checkpoint::sae_lens::save_autoencoder(folder.path(), &dictionary, "embedded").unwrap();
    folder
}

fn client(scale: f32) -> Client<Model> {
    let folder = folder(scale);
    let found = checkpoint::open(&embedded()).unwrap();
    let dictionary = checkpoint::open_dictionary(folder.path(), &DictionaryOptions::default(), &found.config).unwrap();
    let name = dictionary.name.clone();
    let model = Transformer::load(found.config, found.weights).unwrap().attach(dictionary).unwrap();
    let engine = Engine::new("embedded", model, found.tokenizer, None, None).with_residual_autoencoder(Some(name));
    Client::new(Model::new(engine, Box::new(())), ServerConfig::default())
}

fn prompt() -> Value {
    json!({
        "prompt": "When Mary and John went to the store, John gave a drink to",
        "targetTokens": [" Mary"], "distractorTokens": [" John"],
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_tells_how_well_a_dictionary_fits() {
    let answer = client(1.0).post("/dictionary_fidelity", &prompt()).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", String::from_utf8_lossy(&answer.body));
    let answer = answer.json();
    let found = &answer["dictionaries"][0];
    assert_eq!((&found["nodeType"], &found["site"]), (&json!("residual_autoencoder_latent"), &json!("resid_post_mlp")));
    // Half of its latents are active, which is not as a sparse dictionary should be.
    assert!(found["mismatch"].as_str().unwrap().starts_with("128 of 256 latents"), "{found}");
    let layer = &found["layers"][0];
    assert_eq!(layer["layerIndex"], json!(LAYER));
    let close = |a: &Value, b: f64| (a.as_f64().unwrap() - b).abs() < 1e-4;
    assert!(close(&layer["varianceExplained"], 1.0), "{layer}");
    assert!(close(&layer["crossEntropy"], answer["crossEntropy"].as_f64().unwrap()), "{answer}");
    assert!(close(&layer["logitDifference"], answer["logitDifference"].as_f64().unwrap()), "{answer}");

    let answer = client(-1.0).post("/dictionary_fidelity", &prompt()).await.json();
    let found = &answer["dictionaries"][0];
    assert!(
        found["mismatch"].as_str().is_some_and(|sentence| sentence.contains("signs") || sentence.len() > 20),
        "{found}"
    );
    assert!(found["layers"][0]["crossEntropy"].as_f64() > answer["crossEntropy"].as_f64(), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_is_cut_at_a_layer_of_the_residual_stream() {
    let client = client(0.9);
    let info = client.post("/model_info", &json!({})).await.json();
    assert!(info["residualAutoencoderName"].is_string(), "{info}");
    let mut body = support::question("When Mary and John went to the store, John gave a drink to");
    let side = &mut body["subRequests"][0];
    side["targetTokens"] = json!([" Mary"]);
    side["distractorTokens"] = json!([" John"]);
    side["residualCutLayer"] = json!(LAYER);
    side["listErrorNodes"] = json!(true);
    let answer = client.post("/batched_tdb", &body).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", String::from_utf8_lossy(&answer.body));
    let text = String::from_utf8(answer.body).unwrap();
    for name in ["residual_autoencoder_latent", "residual_autoencoder_error"] {
        assert!(text.contains(&format!("\"nodeType\":\"{name}\"")), "{name}");
    }

    body["subRequests"][0]["residualCutLayer"] = json!(LAYER + 1);
    let refused = client.post("/batched_tdb", &body).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert!(refused.message().contains("layer 2 has no autoencoder on the residual stream"), "{}", refused.message());
}

#[test]
fn what_is_wrong_with_a_command_line_is_named() {
    let folder = folder(1.0);
    let path = folder.path().display().to_string();
    let model = embedded().display().to_string();
    for (dictionary, part) in [
        (format!("{path},site=resid"), "resid_post_mlp"),
        (format!("{path},normalization=batch"), "constant-norm"),
        (format!("{path}/none"), "none"),
        ("hf:someone/dictionary".to_owned(), "offline mode is on"),
    ] {
        let line = ["serve", "--model", &model, "--dictionary", &dictionary, "--port", "0"];
        let output = Command::new(env!("CARGO_BIN_EXE_tdb")).args(line).env("TDB_OFFLINE", "1").output().unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(!output.status.success() && text.contains(part), "{dictionary}: {text}");
    }
}
