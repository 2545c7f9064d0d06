//! Many clients of every kind at the same time, for minutes: those who ask properly, those who ask for nonsense, who go
//! away, are slow, or do not read. Nothing may fail that was asked properly, and the memory may not grow.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tdb_testkit::http;
use tdb_testkit::process::memory;
use tdb_testkit::server::Server;

use crate::commands::{cargo, root, run as must, say};

/// How long a client waits for an answer before it counts as unanswered.
const PATIENCE: Duration = Duration::from_secs(60);

struct Options {
    seconds: u64,
    clients: usize,
    binary: Option<PathBuf>,
}

/// What a client does with one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// A question of the debugger.
    Valid,
    /// The page or a fact about the server.
    Page,
    /// A body that is not JSON, lacks fields, or asks for what does not exist.
    Invalid,
    /// A body beyond the limit.
    TooLarge,
    /// Closes the connection while the answer is computed, with a byte after the body every other time.
    Dropped,
    /// Sends its request in small parts, with pauses.
    Slow,
    /// Begins a request and is silent.
    HalfOpen,
    /// Asks and does not read.
    Unread,
}

/// Of a hundred requests, so many are of each kind.
const MIX: [(Kind, u64); 8] = [
    (Kind::Valid, 55),
    (Kind::Page, 10),
    (Kind::Invalid, 12),
    (Kind::TooLarge, 2),
    (Kind::Dropped, 10),
    (Kind::Slow, 4),
    (Kind::HalfOpen, 4),
    (Kind::Unread, 3),
];

/// What came of the requests.
#[derive(Default)]
struct Tally {
    outcomes: BTreeMap<(Kind, String), usize>,
    /// Milliseconds until answers to valid questions were complete.
    answered_ms: Vec<f64>,
    refused_ms: Vec<f64>,
}

pub fn run(args: &[String]) -> Result<()> {
    let options = options(args)?;
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => {
            must(cargo().args(["build", "--release", "--package", "tdb-server"]))?;
            root().join("target/release/tdb")
        }
    };
    let log = root().join("target/bench-load.log");
    let server = Server::start(&binary, &["--offline".to_owned()], &log, Duration::from_secs(60))?;
    let (tally, stop) = (Mutex::new(Tally::default()), AtomicBool::new(false));
    say(&format!("{} clients for {} s at {}", options.clients, options.seconds, server.address));
    let mut memory = Vec::new();
    std::thread::scope(|scope| {
        for number in 0..options.clients {
            let (tally, stop, address) = (&tally, &stop, server.address);
            scope.spawn(move || client(number as u64, address, tally, stop));
        }
        memory = watch(&server, &options);
        stop.store(true, Ordering::Relaxed);
    });
    let tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    report(&tally, &memory, &metrics(&server)?);
    verdict(&tally, &memory)
}

fn options(args: &[String]) -> Result<Options> {
    let mut options = Options { seconds: 600, clients: 100, binary: None };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--seconds" => options.seconds = value()?.parse().context("--seconds")?,
            "--clients" => options.clients = value()?.parse().context("--clients")?,
            "--binary" => options.binary = Some(value()?.into()),
            other => bail!("bench load {other}: the options are --seconds N, --clients N, --binary TDB"),
        }
    }
    Ok(options)
}

/// Megabytes that the server has, every few seconds.
fn watch(server: &Server, options: &Options) -> Vec<f64> {
    let end = Instant::now() + Duration::from_secs(options.seconds);
    let mut found = Vec::new();
    while Instant::now() < end {
        std::thread::sleep(Duration::from_secs(5).min(end.saturating_duration_since(Instant::now())));
        found.extend(resident_mb(server.pid()));
    }
    found
}

fn resident_mb(pid: u32) -> Option<f64> {
    memory(Some(pid), "VmRSS").map(|bytes| bytes as f64 / f64::from(1 << 20))
}

fn client(number: u64, address: SocketAddr, tally: &Mutex<Tally>, stop: &AtomicBool) {
    let mut dice = Dice(number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    while !stop.load(Ordering::Relaxed) {
        let kind = dice.kind();
        let begun = Instant::now();
        let outcome = ask(kind, address, &mut dice).unwrap_or_else(|error| format!("failed: {error:#}"));
        let ms = begun.elapsed().as_secs_f64() * 1000.0;
        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome.as_str() {
            "200" if kind == Kind::Valid => tally.answered_ms.push(ms),
            "429" => tally.refused_ms.push(ms),
            _ => {}
        }
        *tally.outcomes.entry((kind, outcome)).or_default() += 1;
    }
}

fn ask(kind: Kind, address: SocketAddr, dice: &mut Dice) -> Result<String> {
    let post = |body: &[u8]| http::request(address, "POST", "/batched_tdb", &[], Some(body), PATIENCE);
    let status = |response: Result<http::Response>| response.map(|response| response.status.to_string());
    let valid = question(dice).to_string();
    match kind {
        Kind::Valid => status(post(valid.as_bytes())),
        Kind::Page => {
            let path = ["/", "/limits", "/info", "/docs", "/health", "/metrics"][dice.below(6) as usize];
            status(http::request(address, "GET", path, &[("accept", "text/html")], None, PATIENCE))
        }
        Kind::Invalid => status(post(invalid(dice).as_bytes())),
        Kind::TooLarge => status(post(&vec![b'['; 3 << 20])),
        Kind::Dropped => {
            let mut stream = begin(address, &valid, valid.len())?;
            if dice.below(2) == 0 {
                stream.write_all(b"G")?;
            }
            std::thread::sleep(Duration::from_millis(dice.below(300)));
            Ok("gone".into())
        }
        Kind::Slow => slowly(address, &valid),
        Kind::HalfOpen => {
            let stream = begin(address, &valid[..valid.len() / 2], valid.len())?;
            std::thread::sleep(Duration::from_millis(dice.below(3000)));
            drop(stream);
            Ok("gone".into())
        }
        Kind::Unread => {
            let stream = begin(address, &valid, valid.len())?;
            std::thread::sleep(Duration::from_millis(dice.below(3000)));
            drop(stream);
            Ok("gone".into())
        }
    }
}

fn slowly(address: SocketAddr, body: &str) -> Result<String> {
    let mut stream = begin(address, "", body.len())?;
    for part in body.as_bytes().chunks(64) {
        stream.write_all(part)?;
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let line = String::from_utf8_lossy(&answer);
    Ok(line.split(' ').nth(1).context("no status")?.to_owned())
}

/// Sends the head of a question and the first part of its body.
fn begin(address: SocketAddr, part: &str, length: usize) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let head = format!(
        "POST /batched_tdb HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{part}"
    );
    stream.write_all(head.as_bytes())?;
    Ok(stream)
}

fn question(dice: &mut Dice) -> Value {
    let names = ["Mary", "John", "Tom", "Anna"];
    let (one, other) = (names[dice.below(4) as usize], names[dice.below(4) as usize]);
    let prompt = format!("When {one} and {other} went to the store, {other} gave a drink to");
    let side = json!({
        "prompt": prompt, "targetTokens": [" Mary"], "distractorTokens": [" John"],
        "componentTypeForMlp": "neuron", "componentTypeForAttention": "attention_head",
        "topAndBottomKForNodeTable": 1 + dice.below(20), "hideEarlyLayersWhenAblating": true, "nodeAblations": [],
    });
    json!({ "subRequests": vec![side; 1 + dice.below(2) as usize] })
}

fn invalid(dice: &mut Dice) -> String {
    let mut body = question(dice);
    let side = &mut body["subRequests"][0];
    match dice.below(6) {
        0 => return "{\"subRequests\": [".to_owned(),
        1 => side["prompt"] = json!(null),
        2 => side["targetTokens"] = json!(["not one token at all"]),
        3 => side["topAndBottomKForNodeTable"] = json!(100_000_000),
        4 => body["subRequests"] = json!(vec![0; 20_000]),
        _ => side["prompt"] = json!("word ".repeat(5000)),
    }
    body.to_string()
}

fn metrics(server: &Server) -> Result<String> {
    let answer = http::request(server.address, "GET", "/metrics", &[], None, PATIENCE)?;
    Ok(String::from_utf8_lossy(&answer.body).into_owned())
}

fn report(tally: &Tally, memory: &[f64], metrics: &str) {
    let total: usize = tally.outcomes.values().sum();
    println!("{total} requests");
    for ((kind, outcome), count) in &tally.outcomes {
        println!("  {:<10} {count:>7}  {outcome}", format!("{kind:?}"));
    }
    for (name, times) in [("answered", &tally.answered_ms), ("refused (429)", &tally.refused_ms)] {
        let at = |share| quantile(times, share);
        println!("{name}: median {:.1} ms, 99 % {:.1} ms, longest {:.1} ms", at(0.5), at(0.99), at(1.0));
    }
    let [half, end] = halves(memory);
    println!("memory: {half:.1} MB in the first half, {end:.1} MB in the second (medians)");
    for line in metrics.lines().filter(|line| line.starts_with("tdb_dropped") || line.starts_with("process_")) {
        println!("{line}");
    }
}

/// # Errors
/// If anything was not as it should be.
fn verdict(tally: &Tally, memory: &[f64]) -> Result<()> {
    let faults: Vec<String> = tally
        .outcomes
        .iter()
        .filter(|((_, outcome), _)| outcome.starts_with('5') || outcome.starts_with("failed"))
        .map(|((kind, outcome), count)| format!("{count} x {kind:?}: {outcome}"))
        .collect();
    ensure!(faults.is_empty(), "requests failed: {}", faults.join("; "));
    let [half, end] = halves(memory);
    ensure!(end <= half * 1.1, "the memory grew from {half:.1} to {end:.1} MB");
    println!("no request failed, and the memory stayed");
    Ok(())
}

/// Medians of the first and of the second half.
fn halves(memory: &[f64]) -> [f64; 2] {
    let (first, second) = memory.split_at(memory.len() / 2);
    [first, second].map(|half| quantile(half, 0.5))
}

fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (share * sorted.len().saturating_sub(1) as f64).round() as usize;
    sorted.get(at).copied().unwrap_or(0.0)
}

/// Numbers that are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }

    fn kind(&mut self) -> Kind {
        let mut roll = self.below(MIX.iter().map(|(_, share)| share).sum());
        for (kind, share) in MIX {
            if roll < share {
                return kind;
            }
            roll -= share;
        }
        Kind::Valid
    }
}
