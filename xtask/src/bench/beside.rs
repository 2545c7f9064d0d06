//! Small questions of one client while another keeps as many others in the server as it takes, giant ones, the longest
//! that still count as small, or samples: how much longer the small ones wait than when nobody else asks.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use tdb_testkit::checkpoint::{self, Parts};
use tdb_testkit::server::Server;
use tdb_testkit::{http, presets};

use super::http::{Latents, tdb_spec};
use crate::commands::{cargo, root, run as must, say};

/// Tokens of a small question.
const SMALL: usize = 13;
/// What the other client asks.
const OTHERS: [(&str, Other); 3] =
    [("giant ones", Other::Tokens(440)), ("medium ones", Other::Tokens(160)), ("samples", Other::Sample(64))];
/// Of the other client's questions so many at a time.
const AT_A_TIME: usize = 8;
/// How much longer a small question may take beside them, at the median.
const MOST: f64 = 3.0;

#[derive(Clone, Copy)]
enum Other {
    /// A question about a prompt of so many tokens.
    Tokens(usize),
    /// A continuation by so many tokens.
    Sample(i64),
}
const PATIENCE: Duration = Duration::from_secs(300);

struct Options {
    runs: usize,
    binary: Option<PathBuf>,
}

fn options(args: &[String]) -> Result<Options> {
    let mut options = Options { runs: 30, binary: None };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--runs" => options.runs = value()?.parse().context("--runs")?,
            "--binary" => options.binary = Some(value()?.into()),
            other => bail!("bench beside {other}: the options are --runs N, --binary TDB"),
        }
    }
    ensure!(options.runs > 0, "--runs: at least one");
    Ok(options)
}

pub fn run(args: &[String]) -> Result<()> {
    let options = options(args)?;
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => {
            must(cargo().args(["build", "--release", "--package", "tdb-server", "--bin", "tdb"]))?;
            root().join("target/release").join(format!("tdb{}", std::env::consts::EXE_SUFFIX))
        }
    };
    let models = root().join("target/oracle-weights");
    checkpoint::write(&presets::preset("bench-small").context("the preset is gone")?, &models, Parts::Model)?;
    // The addresses of clients are told as a proxy tells them.
    let folder = models.to_string_lossy();
    let args = ["--model", "bench-small", "--models", &*folder, "--trusted-proxy", "127.0.0.1"];
    let args: Vec<String> = args.map(str::to_owned).into();
    let server = Server::start(&binary, &args, &root().join("target/bench-beside.log"), PATIENCE)?;
    let at = server.address;
    ask(at, "10.0.0.1", SMALL, 0)?;
    say("small questions alone");
    let quiet = small(at, options.runs, 1)?;
    println!("| small questions | median s | slowest s | times the quiet median | slowest | others answered |");
    println!("|---|--:|--:|--:|--:|--:|");
    println!(
        "| alone | {:.3} | {:.3} | | {:.1} | |",
        median(&quiet),
        slowest(&quiet),
        slowest(&quiet) / median(&quiet)
    );
    let mut worst = 0f64;
    for (turn, (name, other)) in OTHERS.into_iter().enumerate() {
        let (times, answered) = beside(at, other, options.runs, 1 + (1 + turn) * options.runs)?;
        let ratio = median(&times) / median(&quiet);
        let slow = slowest(&times);
        println!(
            "| beside {name} | {:.3} | {slow:.3} | {ratio:.1} | {:.1} | {answered} |",
            median(&times),
            slow / median(&quiet)
        );
        worst = worst.max(ratio);
    }
    ensure!(worst <= MOST, "small questions wait more than {MOST} times as long beside others");
    Ok(())
}

/// Seconds of small questions while another address asks, and how many of its questions were answered.
fn beside(at: SocketAddr, other: Other, runs: usize, first: usize) -> Result<(Vec<f64>, usize)> {
    let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let times = std::thread::scope(|scope| {
        for place in 0..AT_A_TIME {
            let (stop, answered) = (&stop, &answered);
            scope.spawn(move || {
                for turn in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    if ask_other(at, other, place + AT_A_TIME * turn).is_ok() {
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        // Until one of them computes.
        std::thread::sleep(Duration::from_secs(2));
        let times = small(at, runs, first);
        stop.store(true, Ordering::Relaxed);
        times
    })?;
    Ok((times, answered.into_inner()))
}

/// Seconds of small questions, one after the other, no two the same.
fn small(at: SocketAddr, runs: usize, first: usize) -> Result<Vec<f64>> {
    (first..first + runs)
        .map(|variant| {
            let begun = Instant::now();
            ask(at, "10.0.0.1", SMALL, variant)?;
            Ok(begun.elapsed().as_secs_f64())
        })
        .collect()
}

fn ask(at: SocketAddr, client: &str, tokens: usize, variant: usize) -> Result<()> {
    post(at, client, "/batched_tdb", &json!({"subRequests": [tdb_spec(tokens, Latents::None, variant)]}))
}

fn ask_other(at: SocketAddr, other: Other, variant: usize) -> Result<()> {
    let client = "10.0.0.2";
    match other {
        Other::Tokens(tokens) => ask(at, client, tokens, variant),
        Other::Sample(tokens) => {
            let prompt = &tdb_spec(SMALL, Latents::None, variant)["prompt"];
            post(
                at,
                client,
                "/sample/stream",
                &json!({"prompt": prompt, "tokens": tokens, "temperature": 1.0, "topP": 1.0, "seed": variant}),
            )
        }
    }
}

fn post(at: SocketAddr, client: &str, path: &str, body: &serde_json::Value) -> Result<()> {
    let headers = [("x-forwarded-for", client)];
    let body = body.to_string();
    let answer = http::request(at, "POST", path, &headers, Some(body.as_bytes()), PATIENCE)?;
    ensure!(answer.status == 200, "status {}: {}", answer.status, String::from_utf8_lossy(&answer.body));
    Ok(())
}

fn median(times: &[f64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn slowest(times: &[f64]) -> f64 {
    times.iter().copied().fold(0.0, f64::max)
}
