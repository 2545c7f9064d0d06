//! A collation whose parts are made by the tasks of an array job, in an object store, and that is served from there.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tdb_testkit::stores::S3;
use tdb_testkit::{http, server};
use tdb_tests::collating::{SETTINGS, command, done, results, said, tdb, write_text};
use tdb_tests::serving;

/// The script of a manifest for Kubernetes.
fn script_of(manifest: &str) -> String {
    let lines = manifest.lines().skip_while(|line| !line.contains("- >-")).skip(1);
    let text: Vec<&str> = lines.map(str::trim).take_while(|line| !line.starts_with("env:")).collect();
    text.join(" ")
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cluster")
}

#[test]
fn tasks_of_an_array_job_make_the_bytes_of_one_run_in_s3_and_they_are_served_from_there() {
    let store = S3::start("bucket").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_text(folder, 60).unwrap();
    done(folder, &Vec::new(), &format!("collate my.txt --out alone {SETTINGS}")).unwrap();
    let [key, secret] = S3::KEYS;
    let variables = vec![
        ("AWS_ENDPOINT_URL", store.endpoint()),
        ("AWS_ACCESS_KEY_ID", key.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", secret.to_owned()),
        ("TDB_TEXT", "my.txt".to_owned()),
        ("TDB_OUT", "s3://bucket/out".to_owned()),
        ("TDB_SETTINGS", SETTINGS.to_owned()),
        ("SLURM_ARRAY_TASK_COUNT", "4".to_owned()),
        ("TDB_SHARDS", "4".to_owned()),
    ];
    let slurm = docs().join("slurm.sh");
    let pod = script_of(&std::fs::read_to_string(docs().join("kubernetes.yaml")).unwrap());
    assert!(pod.starts_with("exec tdb collate") && pod.contains("JOB_COMPLETION_INDEX"), "{pod}");
    let task = |shard: usize| {
        // Two by Slurm's script, two by Kubernetes' command.
        let mut command = match shard % 2 {
            0 => {
                let mut command = command("bash", folder, &variables).unwrap();
                command.arg(&slurm).env("SLURM_ARRAY_TASK_ID", shard.to_string());
                command
            }
            _ => {
                let mut command = command("sh", folder, &variables).unwrap();
                command.args(["-c", &pod]).env("JOB_COMPLETION_INDEX", shard.to_string());
                command
            }
        };
        let (ok, text) = said(command.output().unwrap());
        assert!(ok, "shard {shard}: {text}");
        text
    };
    for shard in [2, 0, 1] {
        assert!(task(shard).contains("1 work units made"));
    }
    let (ok, text) =
        tdb(folder, &variables, &format!("collate my.txt --out s3://bucket/out --shards 4 --merge {SETTINGS}"))
            .unwrap();
    assert!(!ok && text.contains("these shards are missing: 3/4"), "{text}");
    task(3);
    // A task that is started again finds what it had made.
    assert!(task(3).contains("0 work units made, 1 were there already"));
    let mut merge = command("bash", folder, &variables).unwrap();
    let (ok, text) = said(merge.arg(&slurm).env("TDB_MERGE", "4").output().unwrap());
    assert!(ok && text.contains("--registry s3://bucket/out/registry.toml"), "{text}");
    let address = store.endpoint().trim_start_matches("http://").parse().unwrap();
    let get = |name: &str| http::request(address, "GET", name, &[], None, Duration::from_secs(30)).unwrap();
    for (name, content) in results(&folder.join("alone")).unwrap() {
        let found = get(&format!("/bucket/out/{name}"));
        assert!(found.status == 200 && found.body == content, "{name}: {}", found.status);
    }
    // Another text of the same length is another collation, and nothing is made of it.
    let text = std::fs::read_to_string(folder.join("my.txt")).unwrap();
    std::fs::write(folder.join("my.txt"), text.replace("Mary", "Anna")).unwrap();
    let (ok, text) =
        tdb(folder, &variables, &format!("collate my.txt --out s3://bucket/out --shard 0/4 {SETTINGS}")).unwrap();
    assert!(!ok && text.contains("not of the same collation: content is"), "{text}");
    let (ok, text) = tdb(folder, &variables, &format!("collate my.txt --out s3://elsewhere/out {SETTINGS}")).unwrap();
    assert!(!ok && text.contains("s3://elsewhere/out cannot be written to"), "{text}");

    served_from_there(folder, &store);
}

/// The same answers as from the files of one run, with the large files read in the store and not copied.
fn served_from_there(folder: &Path, store: &S3) {
    let settings = folder.join("store.toml");
    let entry = format!("[[store]]\nprefix = 's3://bucket'\nendpoint = '{}'\nanonymous = true\n", store.endpoint());
    std::fs::write(&settings, entry).unwrap();
    let cache = folder.join("serving-cache");
    let place = ["--cache", cache.to_str().unwrap(), "--registry"];
    let alone = folder.join("alone/registry.toml");
    let local = serving::serve(&[&place[..], &[alone.to_str().unwrap()]].concat()).unwrap();
    let remote = [settings.to_str().unwrap(), "--registry", "s3://bucket/out/registry.toml", "--in-place-from", "0"];
    let remote = serving::serve(&[&place[..], &remote].concat()).unwrap();
    for (dst, set) in [("mlp_post_act", "embedded"), ("mlp_autoencoder_latent", "embedded_sae-resid-delta-mlp")] {
        for (layer, index) in [(0, 7), (3, 60)] {
            let ask = json!({"dst": dst, "layerIndex": layer, "activationIndex": index, "datasets": [set]}).to_string();
            let answer = |server: &server::Server| -> Value {
                let wait = Duration::from_secs(30);
                let body = Some(ask.as_bytes());
                let found = http::request(server.address, "POST", "/neuron_record", &[], body, wait).unwrap();
                let mut found: Value = serde_json::from_slice(&found.body).unwrap();
                let path = found.as_object_mut().unwrap().remove("dataset");
                assert!(path.is_some_and(|p| p.as_str().unwrap().ends_with("records")), "{found}");
                found
            };
            assert_eq!(answer(&local), answer(&remote), "{dst} {layer}:{index}");
        }
    }
    let copied = cache.join("files/s3/bucket/out/records");
    assert!(!copied.exists(), "records were copied");
}
