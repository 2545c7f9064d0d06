//! What clients do to connections, by accident or on purpose: they go away, fall silent, do not read, come in crowds.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

use crate::support::{Listening, post, read_to_end};
use std::time::Duration;
use tdb_server::{Limits, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn limited(change: impl FnOnce(&mut Limits)) -> ServerConfig {
    let mut config = ServerConfig::default();
    change(&mut config.limits);
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hang_up_is_noticed_whatever_else_was_sent() {
    let server = Listening::new(limited(|limits| limits.workers = 1)).await;
    for (n, after) in ["", "G", "\r\n", &post("wait")].into_iter().enumerate() {
        let keep_alive = post("wait").replace("connection: close\r\n", "");
        let stream = server.send(keep_alive + after).await;
        server.model.until(|model| model.computing() == 1).await;
        drop(stream);
        server.model.until(|model| model.cancelled() == n + 1).await;
    }
    assert!(server.exchange(&post("quick")).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_nobody_hears_any_more_stops() {
    let server = Listening::new(limited(|limits| limits.workers = 1)).await;
    for (n, after) in ["", "G"].into_iter().enumerate() {
        let request = post("tokens, then wait").replace("POST /batched_tdb ", "POST /batched_tdb/stream ");
        let mut stream = server.send(request + after).await;
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        // Nothing more is sent, though all could still be received.
        stream.shutdown().await.unwrap();
        server.model.until(|model| model.cancelled() == n + 1).await;
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_log_that_cannot_be_written_keeps_nobody_from_being_answered() {
    use tdb_testkit::{http, server::Server};
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_tdb"));
    // A disk without room.
    let log = std::path::Path::new("/dev/full");
    let patience = Duration::from_secs(60);
    let server = Server::start(binary, &["--access-log".to_owned()], log, patience).unwrap();
    for (path, status) in [("/health", 200), ("/none", 404), ("/health", 200)] {
        let answer = http::request(server.address, "GET", path, &[], None, patience).unwrap();
        assert_eq!(answer.status, status, "{path}");
    }
}

/// The answer may be complete before its first part was looked for.
#[tokio::test(flavor = "multi_thread")]
async fn every_stream_ends_however_soon_its_answer_is_there() {
    let server = Listening::new(ServerConfig::default()).await;
    let request = post("quick").replace("POST /batched_tdb ", "POST /batched_tdb/stream ");
    for _ in 0..1000 {
        let answer = server.exchange(&request).await;
        let events = answer.matches("\"event\":\"").count();
        assert!(answer.contains("\"event\":\"done\"") && events == 2, "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn crowds_of_silent_connections_lock_nobody_out() {
    let server = Listening::new(limited(|limits| limits.connections = 8)).await;
    let computing = server.send(post("wait")).await;
    server.model.until(|model| model.computing() == 1).await;
    let mut silent = Vec::new();
    for begun in ["", "GET /lim", "POST /batched_tdb HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99\r\n\r\n{"] {
        for _ in 0..10 {
            silent.push(server.send(begun).await);
        }
        assert!(server.get("/limits").await.starts_with("HTTP/1.1 200"), "after {begun:?}");
    }
    let first = read_to_end(&mut silent[0]).await;
    assert_eq!(first, "", "the oldest is closed");
    server.model.release();
    let mut computing = computing;
    assert!(read_to_end(&mut computing).await.starts_with("HTTP/1.1 200"), "what computes is not closed for others");
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_ends() {
    let soon = Duration::from_millis(400);
    let server = Listening::new(limited(|limits| {
        limits.idle_time = soon;
        limits.body_time = soon;
    }))
    .await;
    for begun in ["", "PRI * HT", "GET /limits HTTP/1.1\r\nho"] {
        let mut stream = server.send(begun).await;
        read_to_end(&mut stream).await;
    }
    let head = "POST /batched_tdb HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{";
    let late = server.exchange(head).await;
    assert!(late.starts_with("HTTP/1.1 408") && late.contains("did not arrive"), "{late}");
    // A request that is worked on is not silence.
    let mut stream = server.send(post("wait")).await;
    server.model.until(|model| model.computing() == 1).await;
    tokio::time::sleep(2 * soon).await;
    server.model.release();
    assert!(read_to_end(&mut stream).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_not_read_do_not_fill_the_memory() {
    let server = Listening::new(limited(|limits| limits.unsent_bytes = 32 << 20)).await;
    let mut unread = Vec::new();
    for _ in 0..8 {
        unread.push(server.send(post("large 10000000")).await);
    }
    server.model.until(|model| model.asked() == 8 && model.computing() == 0).await;
    // Those who read get theirs meanwhile, from the same address.
    let read = server.exchange(&post("large 10000000")).await;
    assert!(read.len() > 10_000_000, "{} bytes", read.len());
    let metrics = server.get("/metrics").await;
    let held = metrics.lines().find_map(|line| line.strip_prefix("tdb_unsent_bytes ")).unwrap();
    assert!(held.parse::<usize>().unwrap() <= 32 << 20, "{held}");
    let mut whole = 0;
    for stream in &mut unread {
        whole += usize::from(read_to_end(stream).await.len() > 10_000_000);
    }
    assert!(whole <= 3, "{whole} of 8 were kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_is_dropped() {
    let server = Listening::new(limited(|limits| limits.write_time = Duration::from_millis(300))).await;
    let _unread = server.send(post("large 30000000")).await;
    server.model.until(|model| model.asked() == 1 && model.computing() == 0).await;
    for _ in 0..200 {
        if server.get("/metrics").await.contains("\ntdb_unsent_bytes 0\n") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the answer is held for ever");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_beyond_the_limit_are_refused_and_the_refusal_arrives() {
    let server = Listening::new(limited(|limits| limits.body_bytes = 100_000)).await;
    let head = "POST /batched_tdb HTTP/1.1\r\nhost: localhost\r\ncontent-length: 3000000\r\n\r\n";
    let declared = server.exchange(&(head.to_owned() + &"x".repeat(3_000_000))).await;
    assert!(declared.starts_with("HTTP/1.1 413") && declared.contains("connection: close"), "{declared}");
    let head = "POST /batched_tdb HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunk = format!("{:x}\r\n{}\r\n", 50_000, "x".repeat(50_000));
    let chunked = server.exchange(&(head.to_owned() + &chunk.repeat(3) + "0\r\n\r\n")).await;
    assert!(chunked.starts_with("HTTP/1.1 413"), "{chunked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_of_all_requests_are_limited_and_small_ones_pass() {
    let server = Listening::new(limited(|limits| {
        limits.incoming_bytes = 300_000;
        limits.body_time = Duration::from_secs(2);
    }))
    .await;
    let head = "POST /batched_tdb HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\r\n";
    let mut all = Vec::new();
    for _ in 0..4 {
        all.push(server.send(head.to_owned() + &"x".repeat(200_000)).await);
    }
    let mut refused = 0;
    for stream in &mut all {
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        refused += usize::from(&answer == b"HTTP/1.1 429");
    }
    assert!(refused >= 3, "{refused} of 4 were refused");
    assert!(server.exchange(&post("quick")).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_server_finishes_or_says_that_it_cannot() {
    let server = Listening::new(ServerConfig::default()).await;
    let mut waiting = server.send(post("wait")).await;
    server.model.until(|model| model.computing() == 1).await;
    assert!(server.get("/ready").await.ends_with("ready\n"));
    let (model, address) = (server.model.clone(), server.address);
    assert_eq!(server.stop().await, 1);
    let cut = read_to_end(&mut waiting).await;
    assert!(cut.starts_with("HTTP/1.1 503") && cut.contains("being stopped"), "{cut}");
    model.until(|model| model.cancelled() == 1).await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());

    let server = Listening::new(ServerConfig::default()).await;
    let mut waiting = server.send(post("wait")).await;
    server.model.until(|model| model.computing() == 1).await;
    let mut idle = server.connect().await;
    let model = server.model.clone();
    let stopping = tokio::spawn(server.stop());
    model.release();
    assert_eq!(stopping.await.unwrap(), 0);
    assert!(read_to_end(&mut waiting).await.starts_with("HTTP/1.1 200"));
    let _ = idle.write_all(b"GET / HTTP/1.1\r\n").await;
    assert_eq!(read_to_end(&mut idle).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_cut_says_so() {
    let server = Listening::new(ServerConfig::default()).await;
    let request = post("tokens, then wait").replace("/batched_tdb ", "/batched_tdb/stream ");
    let mut stream = server.send(request).await;
    server.model.until(|model| model.computing() == 1).await;
    assert_eq!(server.stop().await, 1);
    let text = read_to_end(&mut stream).await;
    assert!(text.contains("\"event\":\"tokens\"") && text.contains("\"status\":503"), "{text}");
}
