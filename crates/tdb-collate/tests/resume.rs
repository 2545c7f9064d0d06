//! Killed while collating: what was finished stays finished, and the end is the same.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::*;
use tdb_model::Tokenizer;

const FOLDER: &str = "TDB_COLLATE_TEST_FOLDER";
const SHARDS: usize = 12;

/// Not a test of its own: what the killed process runs.
#[test]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let (model, tokenizer) = (model(), Tokenizer::gpt2());
    let files = [folder.join("text.txt")];
    let collation = collation(&model, &tokenizer, &files, (SHARDS, 1), folder.join("summaries"));
    match collation.run(None, &()) {
        Ok(done) => println!("made {} kept {}", done.made, done.kept),
        Err(error) => {
            println!("error: {error}");
            std::process::exit(3);
        }
    }
}

fn spawn(folder: &Path) -> Child {
    let me = std::env::current_exe().unwrap();
    let mut command = Command::new(me);
    command.args(["--exact", "resume::child", "--nocapture", "--test-threads=1"]).env(FOLDER, folder);
    command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

/// The summaries that are there. Parts of others come and go meanwhile.
fn finished(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let Ok(entries) = std::fs::read_dir(folder.join("summaries")) else { return Vec::new() };
    let paths = entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "summary"));
    let mut out: Vec<_> = paths.map(|p| (p.display().to_string(), std::fs::read(&p).unwrap())).collect();
    out.sort();
    out
}

#[test]
fn a_killed_collation_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    text(folder.path(), 700);
    model();
    let mut kills = 0;
    let mut before: Vec<(String, Vec<u8>)> = Vec::new();
    for wanted in [1, 4, 9, 15] {
        let mut process = spawn(folder.path());
        let start = Instant::now();
        while finished(folder.path()).len() < wanted && process.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < Duration::from_secs(120), "nothing happens");
            std::thread::sleep(Duration::from_millis(2));
        }
        // A little later, in the middle of the next unit or of writing it.
        std::thread::sleep(Duration::from_millis(7 * wanted as u64));
        process.kill().unwrap();
        process.wait().unwrap();
        kills += 1;
        let now = finished(folder.path());
        assert!(before.iter().all(|f| now.contains(f)), "a finished unit changed");
        before = now;
    }
    assert!(before.len() < 2 * SHARDS, "the last kill came too late to show anything");
    let end = spawn(folder.path()).wait_with_output().unwrap();
    let said = String::from_utf8(end.stdout).unwrap();
    let line = said.lines().find(|l| l.contains("kept")).unwrap().to_owned();
    assert!(line.contains(&format!("made {} kept {}", 2 * SHARDS - before.len(), before.len())), "{line}");
    println!("killed {kills} times; {} of {} units were kept", before.len(), 2 * SHARDS);
    let all = files(&folder.path().join("summaries"));
    assert!(
        all.iter().all(|f| f.0.ends_with(".summary")),
        "parts were left behind: {:?}",
        all.iter().map(|f| &f.0).collect::<Vec<_>>()
    );

    let (model, tokenizer) = (model(), Tokenizer::gpt2());
    let text = [folder.path().join("text.txt")];
    let whole = collation(&model, &tokenizer, &text, (1, 2), folder.path().join("whole"));
    whole.run(None, &()).unwrap();
    let outs = ["summaries", "whole"].map(|name| {
        let out = folder.path().join("out").join(name);
        write_out(&folder.path().join(name), &out, &tokenizer);
        files(&out)
    });
    assert!(outs[0] == outs[1]);
}

/// A file size limit stands in for a full disk: the write fails in the middle of a file.
#[cfg(unix)]
#[test]
fn a_write_that_fails_is_a_sentence_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    text(folder.path(), 20);
    model();
    let me = std::env::current_exe().unwrap();
    let script = format!(
        "trap '' XFSZ; ulimit -f 8; exec '{}' --exact resume::child --nocapture --test-threads=1 | cat",
        me.display()
    );
    let out = Command::new("bash").args(["-c", &script]).env(FOLDER, folder.path()).output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(
        said.contains("error: ") && said.contains(".summary could not be written, and nothing of it was kept"),
        "{said}"
    );
    assert!(files(&folder.path().join("summaries")).is_empty());
}
