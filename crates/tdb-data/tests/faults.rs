//! Fetching from a server that breaks connections, answers errors, lies about lengths and dawdles.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

use crate::common;
use std::time::{Duration, Instant};

use crate::common::{Fault, Server, content, fetcher};
use tdb_data::{Error, Fetcher, Location, Pace, Registry};

#[tokio::test]
async fn a_file_is_asked_for_once() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    server.put("a/b.bin", content(100_000, 1));
    let fetcher = fetcher(folder.path());
    for _ in 0..3 {
        let path = fetcher.file(&server.location("a/b.bin"), &()).await.unwrap();
        assert_eq!(std::fs::read(path).unwrap(), content(100_000, 1));
    }
    assert_eq!(server.requests().len(), 1);
    // Neither again by another process, nor by several tasks at once.
    let other = common::fetcher(folder.path());
    assert_eq!(other.bytes(&server.location("a/b.bin"), 1 << 20).await.unwrap(), content(100_000, 1));
    server.put("c.bin", content(200_000, 2));
    let location = server.location("c.bin");
    let all = (0..20).map(|i| if i % 2 == 0 { fetcher.file(&location, &()) } else { other.file(&location, &()) });
    for path in futures::future::join_all(all).await {
        assert_eq!(std::fs::read(path.unwrap()).unwrap().len(), 200_000);
    }
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn a_broken_connection_is_resumed_where_it_broke() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    server.put("big", content(3_000_000, 3));
    server.fail("big", [Fault::BreakAfter(1_000_000), Fault::BreakAfter(500_000), Fault::Status(503)]);
    let path = fetcher(folder.path()).file(&server.location("big"), &()).await.unwrap();
    assert_eq!(std::fs::read(path).unwrap(), content(3_000_000, 3));
    let starts: Vec<_> = server.requests().into_iter().map(|(_, start)| start).collect();
    assert_eq!(starts, [None, Some(1_000_000), Some(1_500_000), Some(1_500_000)]);
}

#[tokio::test]
async fn another_process_continues_what_one_began() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    server.put("big", content(3_000_000, 4));
    server.fail("big", [Fault::BreakAfter(2_000_000), Fault::Status(403)]);
    let first = fetcher(folder.path()).file(&server.location("big"), &()).await;
    assert!(matches!(first, Err(Error::Denied { .. })), "{first:?}");
    // A refusal throws away what was begun; silence does not.
    server.fail("big", [Fault::BreakAfter(2_000_000)].into_iter().chain([Fault::Silent; 9]));
    let mut config = common::config(folder.path());
    (config.retries, config.read_timeout) = (1, Duration::from_millis(100));
    let second = Fetcher::new(config, &Registry::default()).file(&server.location("big"), &()).await;
    assert!(matches!(second, Err(Error::Network { .. })), "{second:?}");
    server.fail("big", []);
    let path = fetcher(folder.path()).file(&server.location("big"), &()).await.unwrap();
    assert_eq!(std::fs::read(path).unwrap(), content(3_000_000, 4));
    assert_eq!(server.requests().last().unwrap().1, Some(2_000_000));
}

#[tokio::test]
async fn a_file_that_changes_midway_is_begun_anew() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    server.put("big", content(100_000, 5));
    server.fail("big", [Fault::BreakAfter(50_000), Fault::Slow(Duration::from_millis(1))]);
    let changing = server.clone();
    let change = tokio::spawn(async move {
        while changing.requests().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        changing.put("big", content(100_000, 6));
        changing.new_version();
    });
    let path = fetcher(folder.path()).file(&server.location("big"), &()).await.unwrap();
    change.await.unwrap();
    assert_eq!(std::fs::read(path).unwrap(), content(100_000, 6));
}

#[tokio::test]
async fn servers_without_ranges_are_asked_from_the_beginning() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    server.put("big", content(100_000, 7));
    server.ignore_ranges();
    server.fail("big", [Fault::BreakAfter(50_000)]);
    let path = fetcher(folder.path()).file(&server.location("big"), &()).await.unwrap();
    assert_eq!(std::fs::read(path).unwrap(), content(100_000, 7));
    // One that breaks every time is given up, although every try brings bytes.
    server.put("never", content(100_000, 8));
    server.fail("never", [Fault::BreakAfter(50_000); 100]);
    let error = fetcher(folder.path()).file(&server.location("never"), &()).await.unwrap_err();
    assert!(matches!(error, Error::Network { .. }), "{error}");
}

#[tokio::test]
async fn errors_are_tried_again_or_not_as_they_deserve() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    let fetcher = fetcher(folder.path());
    for (status, tries) in [(429, 3), (503, 3), (500, 3), (404, 1), (410, 1), (403, 1), (400, 1)] {
        let name = format!("s{status}");
        server.put(&name, b"content".to_vec());
        server.fail(&name, [Fault::Status(status), Fault::Status(status)]);
        let before = server.requests().len();
        let result = fetcher.bytes(&server.location(&name), 100).await;
        assert_eq!(server.requests().len() - before, tries, "{status}: {result:?}");
        match status {
            404 | 410 => assert!(matches!(result, Err(Error::NotFound(_))), "{status}: {result:?}"),
            403 => assert!(matches!(result, Err(Error::Denied { .. })), "{status}: {result:?}"),
            400 => assert!(matches!(result, Err(Error::Network { .. })), "{status}: {result:?}"),
            _ => assert_eq!(result.unwrap(), b"content"),
        }
    }
    assert_eq!(fetcher.cache().entries().len(), 3);
    server.fail("s503", [Fault::Status(503); 100]);
    server.put("always", b"x".to_vec());
    server.fail("always", [Fault::Status(503); 100]);
    let error = fetcher.bytes(&server.location("always"), 100).await.unwrap_err().to_string();
    assert!(error.contains("503") && error.contains("tried 7 times"), "{error}");
}

#[tokio::test]
async fn wrong_lengths_never_become_entries() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    let fetcher = fetcher(folder.path());
    for (name, fault) in [("more", Fault::ClaimMore(10)), ("less", Fault::SendMore(10))] {
        server.put(name, content(10_000, 9));
        server.fail(name, [fault]);
        assert_eq!(fetcher.bytes(&server.location(name), 1 << 20).await.unwrap(), content(10_000, 9), "{name}");
    }
    server.put("liar", content(10_000, 10));
    server.fail("liar", [Fault::ClaimMore(10); 100]);
    let error = fetcher.bytes(&server.location("liar"), 1 << 20).await.unwrap_err();
    assert!(matches!(error, Error::Network { .. }), "{error}");
    assert!(fetcher.cache().verify(false).damaged.is_empty());
    assert_eq!(fetcher.cache().entries().len(), 2);
    // Larger than the reader takes: refused before it is here.
    server.put("large", content(10_000, 11));
    let error = fetcher.bytes(&server.location("large"), 9_999).await.unwrap_err().to_string();
    assert!(error.contains("more than the limit of 9999"), "{error}");
}

#[tokio::test]
async fn slow_bytes_are_waited_for_and_silence_is_not() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    let mut config = common::config(folder.path());
    // Much longer than a pause, so that a busy machine makes none of them too long.
    config.read_timeout = Duration::from_secs(3);
    server.put("slow", content(10_000, 12));
    server.fail("slow", [Fault::Slow(Duration::from_millis(350))]);
    let begin = Instant::now();
    let patient = Fetcher::new(config, &Registry::default());
    assert_eq!(patient.bytes(&server.location("slow"), 1 << 20).await.unwrap(), content(10_000, 12));
    assert!(begin.elapsed() > Duration::from_secs(3));
    assert_eq!(server.requests().len(), 1);
    let fetcher = fetcher(folder.path());
    server.put("silent", content(10_000, 13));
    server.fail("silent", [Fault::Silent]);
    assert_eq!(fetcher.bytes(&server.location("silent"), 1 << 20).await.unwrap(), content(10_000, 13));
}

#[tokio::test]
async fn what_is_too_slow_is_ended_and_a_slow_line_is_not() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    let mut config = common::config(folder.path());
    (config.retries, config.read_timeout) = (2, Duration::from_secs(60));
    // Every piece of 1000 bytes comes later than this.
    let within = Duration::from_millis(1);
    server.put("slow", content(10_000, 14));
    server.fail("slow", [Fault::Slow(Duration::from_millis(20)); 10]);
    config.pace = Pace { bytes: 100_000, within };
    let fetcher = Fetcher::new(config.clone(), &Registry::default());
    let error = fetcher.bytes(&server.location("slow"), 1 << 20).await.unwrap_err();
    assert!(matches!(error, Error::Network { .. }), "{error}");
    assert!(error.to_string().contains("it is sent too slowly: 1000 bytes came within 0 s"), "{error}");
    // The few bytes of each try are kept and no reason to try for ever.
    let starts: Vec<_> = server.requests().into_iter().map(|(_, start)| start).collect();
    assert_eq!(starts, [None, Some(1000), Some(2000)]);
    config.pace = Pace { bytes: 1000, within };
    let fetcher = Fetcher::new(config, &Registry::default());
    assert_eq!(fetcher.bytes(&server.location("slow"), 1 << 20).await.unwrap(), content(10_000, 14));
    assert_eq!(server.requests().len(), 4);
}

#[tokio::test]
async fn a_store_that_holds_its_answers_back_holds_up_no_other() {
    let (slow, quick) = (Server::start().await, Server::start().await);
    let folder = tempfile::tempdir().unwrap();
    let mut config = common::config(folder.path());
    (config.parallel, config.read_timeout) = (2, Duration::from_secs(600));
    let fetcher = Fetcher::new(config, &Registry::default());
    for i in 0..20 {
        slow.fail(&i.to_string(), [Fault::Silent]);
        let (fetcher, location) = (fetcher.clone(), slow.location(&i.to_string()));
        tokio::spawn(async move { fetcher.file(&location, &()).await });
    }
    while slow.requests().len() < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    quick.put("a", b"here".to_vec());
    let location = quick.location("a");
    let answer = tokio::time::timeout(Duration::from_secs(60), fetcher.bytes(&location, 100)).await;
    assert_eq!(answer.unwrap().unwrap(), b"here");
    assert_eq!(slow.requests().len(), 2);
}

#[tokio::test]
async fn answers_that_are_not_the_file_itself_are_refused() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    let fetcher = fetcher(folder.path());
    for (name, fault, says) in [
        ("part", Fault::Unasked(10), "a part of the file (206) though all of it was asked for"),
        ("packed", Fault::Encoded, "content-encoding: gzip"),
        ("chunked", Fault::Chunked, "does not say how long the file is"),
    ] {
        server.put(name, content(1000, 15));
        server.fail(name, [fault]);
        let error = fetcher.bytes(&server.location(name), 1 << 20).await.unwrap_err().to_string();
        assert!(error.contains(says) && error.contains(&format!("/{name} ")), "{error}");
        assert!(fetcher.cache().entries().is_empty() && fetcher.cache().unfinished().is_empty(), "{name}");
    }
    assert_eq!(server.requests().len(), 3);
    // What is compressed in itself may be called so.
    server.put("text.jsonl.gz", content(1000, 16));
    server.fail("text.jsonl.gz", [Fault::Encoded]);
    assert_eq!(fetcher.bytes(&server.location("text.jsonl.gz"), 1 << 20).await.unwrap(), content(1000, 16));
}

#[tokio::test]
async fn what_the_cache_may_not_hold_is_not_begun() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    let mut config = common::config(folder.path());
    config.cache_limit = 999;
    let fetcher = Fetcher::new(config, &Registry::default());
    server.put("large", content(1000, 17));
    let error = fetcher.file(&server.location("large"), &()).await.unwrap_err().to_string();
    assert!(error.contains("/large ") && error.contains("1000 bytes, and the cache may hold 999"), "{error}");
    assert!(fetcher.cache().unfinished().is_empty() && server.requests().len() == 1);
}

#[tokio::test]
async fn what_is_read_in_its_store_is_one_version() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    let text = format!(
        "[[store]]\nprefix = 's3://bucket'\nendpoint = '{}'\nregion = 'x'\nallow_http = true\nanonymous = true\n",
        server.url
    );
    let registry = Registry::parse("store.toml", &text).unwrap();
    let mut config = common::config(folder.path());
    config.in_place_from = 0;
    let fetcher = Fetcher::new(config, &registry);
    let location = Location::parse("s3://bucket/0.records").unwrap();
    let embedded = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fuzz/corpus/records/version-3.records");
    server.put("bucket/0.records", std::fs::read(embedded).unwrap());
    let open = |file| tokio::task::spawn_blocking(|| tdb_data::collated::LayerFile::in_place("f", file));
    let file = fetcher.in_place(&location).await.unwrap().unwrap();
    assert!(open(file).await.unwrap().is_ok());
    // A store that does not heed `If-Match` sends a part of another version.
    let file = fetcher.in_place(&location).await.unwrap().unwrap();
    server.fail("bucket/0.records", [Fault::OtherVersion]);
    let error = open(file).await.unwrap().unwrap_err().to_string();
    assert!(error.contains("s3://bucket/0.records") && error.contains("has changed in its store"), "{error}");
}

#[tokio::test]
async fn no_network_and_offline_mode_are_said_plainly() {
    let folder = tempfile::tempdir().unwrap();
    // A port that was free a moment ago and where nobody listens.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nowhere = tdb_data::Location::parse(&format!("http://127.0.0.1:{port}/a")).unwrap();
    let error = fetcher(folder.path()).bytes(&nowhere, 100).await.unwrap_err().to_string();
    assert!(error.contains("no connection could be made"), "{error}");

    let server = Server::start().await;
    server.put("a", b"here".to_vec());
    fetcher(folder.path()).bytes(&server.location("a"), 100).await.unwrap();
    let mut config = common::config(folder.path());
    config.offline = true;
    let offline = Fetcher::new(config, &Registry::default());
    assert_eq!(offline.bytes(&server.location("a"), 100).await.unwrap(), b"here");
    let error = offline.bytes(&server.location("b"), 100).await.unwrap_err();
    assert!(matches!(error, Error::Offline { .. }), "{error}");
    assert_eq!(server.requests().len(), 1);
}
