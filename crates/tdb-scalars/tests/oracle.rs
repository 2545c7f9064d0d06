//! The engine against recorded answers of the reference, without HTTP in between: a few that are committed here,
//! and all of them when the oracle is there (`TDB_ORACLE`, else `../shared/oracle` beside the checkout).

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tdb_model::{Tokenizer, Transformer, checkpoint};
use tdb_scalars::{Context, Engine, Error};
use tdb_testkit::checkpoint::{Parts, write};
use tdb_testkit::golden::replay::{Differences, Options, Reply, Summary, replay};
use tdb_testkit::golden::{Case, Folder, find_folders};
use tdb_testkit::presets::preset;

/// What runs the model; reading stored records is another crate's.
const INFERENCE: [&str; 6] = [
    "/batched",
    "/batched_tdb",
    "/derived_scalars",
    "/derived_attention_scalars",
    "/multiple_top_k_derived_scalars",
    "/model_info",
];

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn engine(weights: &Path, folder: &Folder) -> Result<Engine> {
    let name = folder.server_arg("--model_name").context("no model")?;
    let model = weights.join(name);
    let checkpoint = checkpoint::open(&model)?;
    let config = checkpoint.config.clone();
    let mut transformer = Transformer::load(checkpoint.config, checkpoint.weights)?;
    let mut names = [None, None];
    for (at, flag) in ["--mlp_autoencoder_name", "--attn_autoencoder_name"].into_iter().enumerate() {
        let Some(name) = folder.server_arg(flag) else { continue };
        let mut named = checkpoint::open_autoencoder(&model.join("autoencoders").join(name), None, &config)?;
        checkpoint::drop_dead_latents(&mut named);
        if folder.name.ends_with("+dead") {
            // The reference loses the bias with the dead latents. Without it, its numbers must come out.
            for layer in &mut named.layers {
                layer.encoder_pre_bias.fill(0.0);
                layer.decoder_bias.fill(0.0);
            }
        }
        transformer = transformer.attach(named)?;
        names[at] = Some(name.to_owned());
    }
    let [mlp, attn] = names;
    Ok(Engine::new(name, transformer, Tokenizer::gpt2(), mlp, attn))
}

fn answer(engine: &Engine, case: &Case) -> Result<Reply> {
    let body: Value = match case.body() {
        Some(bytes) => serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        None => Value::Null,
    };
    let context = Context::default();
    fn reply<T: serde::Serialize>(result: std::result::Result<T, Error>) -> Result<Reply> {
        Ok(match result {
            Ok(answer) => Reply { status: 200, body: serde_json::to_value(answer)? },
            Err(Error::NotFound(message)) => Reply { status: 404, body: json!({ "message": message }) },
            Err(error @ (Error::Bad(_) | Error::BadField { .. })) => {
                Reply { status: 400, body: json!({ "message": error.to_string() }) }
            }
            Err(other) => Reply { status: 500, body: json!({ "message": other.to_string() }) },
        })
    }
    macro_rules! route {
        ($method:ident) => {
            match serde_json::from_value(body) {
                Ok(request) => reply(engine.$method(&request, &context)),
                // How a malformed body is told is the server's business.
                Err(_) => Ok(Reply { status: case.status.max(422), body: json!({ "detail": [], "message": "" }) }),
            }
        };
    }
    match case.path.as_str() {
        "/batched" => route!(batched),
        "/batched_tdb" => route!(batched_tdb),
        "/derived_scalars" => route!(derived_scalars),
        "/derived_attention_scalars" => route!(derived_attention_scalars),
        "/multiple_top_k_derived_scalars" => route!(multiple_top_k_derived_scalars),
        _ => Ok(Reply { status: 200, body: serde_json::to_value(engine.model_info())? }),
    }
}

fn normalises(case: &Case) -> bool {
    case.body().is_some_and(|body| {
        let text = String::from_utf8_lossy(&body);
        text.contains("normalizeActivationsUsingNeuronRecord\": {")
            || text.contains("normalizeActivationsUsingNeuronRecord\":{")
    })
}

fn run(goldens: &Path) -> Result<Summary> {
    let weights = workspace().join("target/oracle-weights");
    let differences = workspace().join("tests/differences.txt");
    let only = std::env::var("TDB_ORACLE_ONLY").unwrap_or_default();
    let mut total = Summary::default();
    for folder in find_folders(goldens)? {
        if folder.server_args.iter().any(|a| a == "--run_model") {
            continue;
        }
        let name = folder.server_arg("--model_name").context("no model")?;
        let preset = preset(name).with_context(|| format!("no preset {name}"))?;
        write(&preset, &weights, Parts::ModelAndAutoencoders)?;
        let engine = engine(&weights, &folder)?;
        let mut cases = folder.cases()?;
        cases.retain(|case| {
            INFERENCE.contains(&case.path.as_str()) && case.method == "POST" && case.name.contains(&only)
        });
        // Malformed bodies are the server's business, stored records another crate's.
        cases.retain(|case| case.status != 422 && !normalises(case));
        let options = Options {
            differences: if differences.exists() { Differences::load(&differences)? } else { Differences::default() },
            ..Options::default()
        };
        let summary = replay(&cases, &options, |case| answer(&engine, case), |line| println!("{line}"));
        println!("{}: {summary}", folder.name);
        // Without the bias these agree, which is what this test shows; over HTTP they differ.
        if !folder.name.ends_with("+dead") {
            assert_eq!(summary.needlessly_listed, 0, "{}: tests/differences.txt lists cases that agree", folder.name);
        }
        total.add(&summary);
    }
    Ok(total)
}

#[test]
fn committed_cases() -> Result<()> {
    let summary = run(&workspace().join("tests/fixtures/goldens"))?;
    assert_eq!(summary.failed, 0);
    assert!(summary.with_data_passed >= 5, "{summary}");
    Ok(())
}

#[test]
fn all_cases_of_the_oracle() -> Result<()> {
    let root = std::env::var_os("TDB_ORACLE").map_or_else(|| workspace().join("../shared/oracle"), PathBuf::from);
    if !root.join("goldens").is_dir() {
        println!("no oracle at {}; only the committed cases were run", root.display());
        return Ok(());
    }
    let summary = run(&root.join("goldens"))?;
    println!("all: {summary}");
    assert_eq!(summary.failed, 0);
    Ok(())
}
