//! `tdb fetch`, `tdb cache` and `tdb explain` as a person meets them: what they print, and a sentence when it goes
//! wrong.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs `tdb` and returns whether it succeeded, and what it wrote to either stream.
fn tdb(folder: &Path, args: &[&str]) -> (bool, String) {
    let registry = folder.join("registry.toml");
    let output = Command::new(env!("CARGO_BIN_EXE_tdb"))
        .args(args)
        .env("TDB_CACHE", folder.join("cache"))
        .env("TDB_EXPLANATIONS", folder.join("own"))
        .env("TDB_REGISTRY", registry)
        .env_remove("OPENAI_API_KEY")
        .env_remove("TDB_EXPLAIN_MODEL")
        .env_remove("TDB_OFFLINE")
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

/// A web server with a record for every node but the last of a layer, and a chat server, in one. Returns its address.
fn serve() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let (mut text, mut chunk) = (String::new(), [0; 65536]);
                while let Ok(n @ 1..) = stream.read(&mut chunk) {
                    text.push_str(&String::from_utf8_lossy(&chunk[..n]));
                    let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                    let length = head
                        .to_lowercase()
                        .split("content-length: ")
                        .nth(1)
                        .and_then(|l| l.lines().next().and_then(|l| l.trim().parse::<usize>().ok()));
                    if body.len() < length.unwrap_or(0) {
                        continue;
                    }
                    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                    let answer = answer(&path);
                    let status = if answer.is_empty() { "404 Not Found" } else { "200 OK" };
                    let head = format!(
                        "HTTP/1.1 {status}\r\ncontent-length: {}\r\ncontent-type: application/json\r\netag: \"1\"\r\n\
                         last-modified: Mon, 01 Jan 2024 00:00:00 GMT\r\n\r\n",
                        answer.len()
                    );
                    if stream.write_all((head + &answer).as_bytes()).is_err() {
                        return;
                    }
                    text.clear();
                }
            });
        }
    });
    url
}

fn answer(path: &str) -> String {
    if path.ends_with("/chat/completions") {
        let choice = r#"{"index":0,"message":{"role":"assistant","content":"words about cats"}}"#;
        return format!(r#"{{"choices":[{choice}],"usage":{{"total_tokens":50}}}}"#);
    }
    let node = path.trim_end_matches(".json").rsplit('/').next().unwrap_or_default();
    match node.parse::<usize>() {
        Ok(index) if index < 3 && path.starts_with("/records/") => {
            let example = r#"{"activations": [0.5, 2.0], "tokens": ["a", " cat"]}"#;
            let id = format!(r#"{{"neuron_index": {index}, "layer_index": 0}}"#);
            format!(r#"{{"neuron_id": {id}, "most_positive_activation_records": [{example}, {example}]}}"#)
        }
        _ => String::new(),
    }
}

fn folder(url: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let text = format!("[[records]]\nname = 'r'\nscalar = 'mlp_post_act'\ntitle = ''\nlocation = '{url}/records'\n");
    std::fs::write(folder.path().join("registry.toml"), text).unwrap();
    folder
}

#[test]
#[cfg(unix)]
fn a_reader_that_has_read_enough_ends_the_command_quietly() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tdb"));
    command.args(["train", "--out", "nowhere", "--print-text", "1000000"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 10];
    // Reading ends where the pipe is dropped.
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(141));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn records_are_fetched_listed_checked_and_cleared() {
    let folder = folder(&serve());
    let (ok, text) = tdb(folder.path(), &["cache"]);
    assert!(ok && text.contains("0 files"), "{text}");
    let fetch = ["fetch", "--records", "r", "--layers", "0", "--nodes", "0-3"];
    let (ok, text) = tdb(folder.path(), &fetch);
    assert!(ok && text.contains("3 records, 1 that do not exist"), "{text}");
    let (ok, text) = tdb(folder.path(), &["cache", "list"]);
    assert!(ok && text.contains("3 files") && text.contains("/records"), "{text}");
    let (ok, text) = tdb(folder.path(), &["cache", "verify"]);
    assert!(ok && text.contains("as it was fetched"), "{text}");
    let (ok, text) = tdb(folder.path(), &["fetch", "--records", "r", "--layers", "0", "--nodes", "0-2", "--offline"]);
    assert!(ok && text.contains("3 records, 0"), "{text}");
    let (ok, text) = tdb(folder.path(), &["cache", "clear"]);
    assert!(!ok && text.contains("--all"), "{text}");
    let (ok, text) = tdb(folder.path(), &["cache", "clear", "--all"]);
    assert!(ok && text.contains("removed 3 files"), "{text}");
}

#[test]
fn explaining_goes_on_where_it_stopped() {
    let url = serve();
    let folder = folder(&url);
    let llm = format!("{url}/v1");
    let args = ["explain", "r", "--layers", "0", "--score", "none", "--llm", "m", "--llm-url", &llm];
    let with = |nodes: &'static str, more: &'static [&'static str]| [&args[..], &["--nodes", nodes], more].concat();
    let (ok, text) = tdb(folder.path(), &with("0-3", &["--max-questions", "2", "--parallel", "1"]));
    assert!(!ok && text.contains("2 explained") && text.contains("budget"), "{text}");
    let (ok, text) = tdb(folder.path(), &with("0-3", &[]));
    assert!(
        ok && text.contains("1 explained, 0 scored that had been explained, 2 had an explanation, 1 have no record"),
        "{text}"
    );
}

#[test]
fn explaining_without_a_language_model_asks_nobody() {
    let folder = folder(&serve());
    let args = ["explain", "r", "--layers", "0", "--method", "offline-statistics", "--nodes"];
    let (ok, text) = tdb(folder.path(), &[&args[..], &["0-1"]].concat());
    assert!(ok && text.contains("2 explained, 0 scored that had been explained, 0 had an explanation"), "{text}");
    let (ok, text) = tdb(folder.path(), &[&args[..], &["0-3"]].concat());
    assert!(
        ok && text.contains("1 explained, 0 scored that had been explained, 2 had an explanation, 1 have no record"),
        "{text}"
    );
    let stored = folder.path().join("own/explanations/r/mlp_post_act/offline-statistics/0/2.jsonl");
    let stored = std::fs::read_to_string(stored).unwrap();
    assert!(stored.contains("\"method\":\"offline-statistics\""), "{stored}");
}

#[test]
fn what_cannot_be_done_is_said_in_a_sentence() {
    let folder = folder("http://127.0.0.1:9");
    for (args, part) in [
        (&["fetch"][..], "name a model"),
        (&["fetch", "gpt5"], "gpt2-small"),
        (&["fetch", "gpt2-small", "--offline"], "offline mode is on"),
        (&["fetch", "gpt2-small", "--mirror", "x"], "not a mirror rule"),
        (&["explain", "r", "--layers", "0", "--nodes", "0"], "no language model is set up"),
        (&["explain", "r", "--layers", "0", "--nodes", "0"], "--method offline-statistics needs none"),
        (&["explain", "nope", "--layers", "0", "--nodes", "0"], "no set of records"),
        (&["explain", "r", "--layers", "3-1", "--nodes", "0"], "no range"),
    ] {
        let (ok, text) = tdb(folder.path(), args);
        assert!(!ok && text.contains(part) && !text.contains("panicked"), "{args:?}: {text}");
    }
}
