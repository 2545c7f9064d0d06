//! Killing a process at random moments of its fetches leaves no damaged cache entry.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

use crate::common;
use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::common::{Fault, Server, content};

const FILES: usize = 40;
const KILLS: usize = 100;

fn size(i: usize) -> usize {
    [700, 20_000, 300_000, 2_000_000][i % 4] + i
}

/// What the killed process does. It runs only when it is started by the test below.
#[tokio::test]
async fn the_process_that_is_killed() {
    let (Ok(url), Ok(cache)) = (std::env::var("TDB_TEST_URL"), std::env::var("TDB_TEST_CACHE")) else { return };
    let fetcher = common::fetcher(std::path::Path::new(&cache));
    let location = |i| tdb_data::Location::parse(&format!("{url}/files/{i}")).unwrap();
    let locations: Vec<_> = (0..FILES).map(location).collect();
    fetcher.files(&locations, &()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_kills_leave_no_damaged_entry() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    for i in 0..FILES {
        server.put(&format!("files/{i}"), content(size(i), i as u64 + 1));
        // Some arrive slowly, so that kills meet them half-way.
        if i % 4 == 1 {
            server.fail(&format!("files/{i}"), [Fault::Slow(Duration::from_millis(3)); KILLS]);
        }
    }
    let fetcher = common::fetcher(folder.path());
    let start = || {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill::the_process_that_is_killed"])
            .env("TDB_TEST_URL", &server.url)
            .env("TDB_TEST_CACHE", folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let seed = std::process::id() as u64;
    println!("seed {seed}");
    let moments: Vec<u64> = content(KILLS, seed).into_iter().map(|b| u64::from(b) * 150 / 255).collect();
    let (mut damaged, mut killed, mut most) = (0, 0, 0);
    for moment in moments {
        let mut child = start();
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(moment) && child.try_wait().unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        killed += usize::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
        let entries = fetcher.cache().entries();
        most = most.max(entries.len());
        for entry in &entries {
            let i: usize = entry.meta.location.rsplit('/').next().unwrap().parse().unwrap();
            let path = fetcher.cache().path(&tdb_data::Location::parse(&entry.meta.location).unwrap());
            damaged += usize::from(std::fs::read(path).unwrap() != content(size(i), i as u64 + 1));
        }
        damaged += fetcher.cache().verify(false).damaged.len();
        // Once there is much, begin anew.
        if entries.len() > FILES / 2 {
            fetcher.cache().clear(Some(&server.url));
        }
    }
    println!("kills: {killed}, entries at most: {most}, damaged: {damaged}");
    assert_eq!(damaged, 0);
    assert!(killed > KILLS / 3 && most > 0, "the kills came too early or too late to mean anything");
    // And what was left behind does not keep anybody from finishing.
    assert!(start().wait().unwrap().success());
    assert_eq!(fetcher.cache().entries().len(), FILES);
    assert!(fetcher.cache().verify(false).damaged.is_empty());
}
