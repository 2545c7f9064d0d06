//! Small questions of one client while another keeps as many giant ones in the server as it takes: how much longer the
//! small ones wait than when nobody else asks.

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

/// Tokens of a small and of a giant question.
const SMALL: usize = 13;
const GIANT: usize = 440;
/// Giant questions at a time.
const GIANTS: usize = 6;
/// How much longer a small question may take beside giant ones, at the median.
const MOST: f64 = 3.0;
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
    say(&format!("small questions beside {GIANTS} giant ones at a time of another address"));
    let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let beside = std::thread::scope(|scope| {
        for giant in 0..GIANTS {
            let (stop, answered) = (&stop, &answered);
            scope.spawn(move || {
                for turn in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    if ask(at, "10.0.0.2", GIANT, giant + GIANTS * turn).is_ok() {
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        // Until a giant one computes.
        std::thread::sleep(Duration::from_secs(2));
        let beside = small(at, options.runs, 1 + options.runs);
        stop.store(true, Ordering::Relaxed);
        beside
    })?;
    println!("| small questions | median s | slowest s |\n|---|--:|--:|");
    for (name, times) in [("alone", &quiet), ("beside giant ones", &beside)] {
        println!("| {name} | {:.3} | {:.3} |", median(times), slowest(times));
    }
    let ratio = median(&beside) / median(&quiet);
    println!(
        "\nmedian {ratio:.1} times as long, the slowest {:.1} times the quiet median; {} giant ones were answered",
        slowest(&beside) / median(&quiet),
        answered.load(Ordering::Relaxed)
    );
    ensure!(ratio <= MOST, "small questions wait more than {MOST} times as long beside giant ones");
    Ok(())
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
    let body = json!({"subRequests": [tdb_spec(tokens, Latents::None, variant)]}).to_string();
    let headers = [("x-forwarded-for", client)];
    let answer = http::request(at, "POST", "/batched_tdb", &headers, Some(body.as_bytes()), PATIENCE)?;
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
