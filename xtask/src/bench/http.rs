//! Whole requests over HTTP on a model of GPT-2 small's shape, beside the reference's figures and a floor.
//!
//! Every measured request has a prompt of its own, so that no answer comes from a cache; `again` is the same request sent
//! once more. With `--against` two servers answer the same requests in turn; with `--pid` the processor time of one that was not
//! started here is known, too.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tdb_testkit::checkpoint::{self, Parts};
use tdb_testkit::http;
use tdb_testkit::presets;
use tdb_testkit::process::{memory, processor_seconds};
use tdb_testkit::server::Server;

use super::floor::{Machine, Work};
use crate::commands::{cargo, root, run as must, say};

/// A server configuration, and what is known of it.
struct Config {
    name: &'static str,
    /// Weights of its encoders in all layers.
    encoder_weights: f64,
    args: &'static [&'static str],
    /// Until it answers, seconds, of the reference.
    reference_start: f64,
    requests: &'static [Request],
}

struct Request {
    name: &'static str,
    kind: Kind,
    /// Median seconds of the reference on two quiet cores (`None`: it was not measured, or needs more memory than 18 GB).
    reference: Option<f64>,
}

#[derive(Clone, Copy)]
enum Kind {
    /// Prompt of so many tokens; components to list.
    Tdb {
        tokens: usize,
        latents: Latents,
    },
    /// The same prompt every time: what is kept of earlier answers is warm.
    TdbAgain {
        tokens: usize,
    },
    /// Until the first rows of a table arrive, of a prompt of so many tokens.
    FirstRows {
        tokens: usize,
    },
    Ablation,
    TraceHead,
    DerivedScalars {
        tokens: usize,
    },
    AttentionScalars,
    LogitLens,
}

/// Which nodes are latents instead of neurons and heads.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Latents {
    None,
    Mlp,
    Both,
}

const fn tdb(name: &'static str, tokens: usize, latents: Latents, reference: Option<f64>) -> Request {
    Request { name, kind: Kind::Tdb { tokens, latents }, reference }
}

/// 12 layers, latents times width.
const MLP_ENCODERS: f64 = 12.0 * 32_768.0 * 768.0;
const ATTENTION_ENCODERS: f64 = 12.0 * 10_240.0 * 768.0;

impl Request {
    /// What it has to compute at least, where that is known: a question is a pass in each direction and, of about a
    /// hundred nodes, the tokens that each makes likelier and those that excite it.
    fn work(&self, config: &Config) -> Option<Work> {
        let encoder_weights = config.encoder_weights;
        match self.kind {
            Kind::Tdb { tokens, .. } => Some(Work { tokens, passes: 2, readings: 200, encoder_weights }),
            Kind::DerivedScalars { tokens } => Some(Work { tokens, passes: 1, readings: 0, encoder_weights }),
            Kind::AttentionScalars => Some(Work { tokens: 64, passes: 1, readings: 0, encoder_weights }),
            Kind::FirstRows { tokens } => Some(Work { tokens, passes: 1, readings: 0, encoder_weights }),
            Kind::TdbAgain { .. } | Kind::Ablation | Kind::TraceHead | Kind::LogitLens => None,
        }
    }
}

const CONFIGS: [Config; 3] = [
    Config {
        name: "plain",
        encoder_weights: 0.0,
        args: &[],
        reference_start: 7.0,
        requests: &[
            tdb("tdb_16", 16, Latents::None, Some(2.4)),
            tdb("tdb_64", 64, Latents::None, Some(4.5)),
            tdb("tdb_128", 128, Latents::None, Some(15.5)),
            tdb("tdb_256", 256, Latents::None, None),
            // The longest prompt whose nodes are ranked, as the original has it.
            tdb("tdb_500", 500, Latents::None, None),
            Request { name: "first_rows_16", kind: Kind::FirstRows { tokens: 16 }, reference: None },
            Request { name: "tdb_16_again", kind: Kind::TdbAgain { tokens: 16 }, reference: Some(2.4) },
            Request { name: "tdb_64_again", kind: Kind::TdbAgain { tokens: 64 }, reference: Some(4.5) },
            Request { name: "ablate_64", kind: Kind::Ablation, reference: Some(8.9) },
            Request { name: "trace_head_64", kind: Kind::TraceHead, reference: Some(3.8) },
            Request { name: "derived_scalars_64", kind: Kind::DerivedScalars { tokens: 64 }, reference: Some(0.28) },
            Request { name: "derived_scalars_1024", kind: Kind::DerivedScalars { tokens: 1024 }, reference: None },
            Request { name: "attention_scalars_64", kind: Kind::AttentionScalars, reference: None },
            Request { name: "logit_lens", kind: Kind::LogitLens, reference: Some(2.4) },
        ],
    },
    Config {
        name: "mlp",
        encoder_weights: MLP_ENCODERS,
        args: &["--mlp_autoencoder_name", "ae-resid-delta-mlp"],
        reference_start: 15.0,
        requests: &[
            tdb("tdb_16", 16, Latents::None, Some(13.7)),
            tdb("tdb_64", 64, Latents::None, Some(18.3)),
            tdb("latents_16", 16, Latents::Mlp, Some(14.9)),
            tdb("latents_64", 64, Latents::Mlp, Some(17.5)),
        ],
    },
    Config {
        name: "both",
        encoder_weights: MLP_ENCODERS + ATTENTION_ENCODERS,
        args: &["--mlp_autoencoder_name", "ae-resid-delta-mlp", "--attn_autoencoder_name", "ae-resid-delta-attn"],
        reference_start: 21.0,
        requests: &[
            tdb("tdb_16", 16, Latents::None, Some(16.6)),
            tdb("tdb_64", 64, Latents::None, Some(19.1)),
            tdb("latents_16", 16, Latents::Both, Some(16.4)),
            tdb("latents_64", 64, Latents::Both, Some(20.0)),
            tdb("latents_256", 256, Latents::Both, None),
        ],
    },
];

/// What the command line asks for.
struct Options {
    only: Vec<String>,
    configs: Vec<String>,
    runs: usize,
    binary: Option<PathBuf>,
    against: Option<String>,
    /// The process that answers at that address.
    pid: Option<u32>,
}

impl Options {
    fn parse(args: &[String]) -> Result<Self> {
        let mut options =
            Options { only: Vec::new(), configs: Vec::new(), runs: 5, binary: None, against: None, pid: None };
        let mut args = args.iter().peekable();
        while let Some(arg) = args.next() {
            let mut names = |into: &mut Vec<String>| {
                while let Some(name) = args.next_if(|a| !a.starts_with("--")) {
                    into.push(name.clone());
                }
            };
            match arg.as_str() {
                "--only" => names(&mut options.only),
                "--configs" => names(&mut options.configs),
                "--runs" => options.runs = args.next().context("--runs needs a number")?.parse().context("--runs")?,
                "--binary" => options.binary = Some(args.next().context("--binary needs a path")?.into()),
                "--against" => {
                    options.against = Some(args.next().context("--against needs a program or an address")?.clone());
                }
                "--pid" => options.pid = Some(args.next().context("--pid needs a number")?.parse().context("--pid")?),
                other => bail!("bench http {other}: unknown; see `cargo xtask help`"),
            }
        }
        ensure!(options.runs > 0, "--runs: at least one");
        let known = |wanted: &[String], known: &[&str]| -> Result<()> {
            match wanted.iter().find(|name| !known.contains(&name.as_str())) {
                Some(name) => bail!("bench http: there is no {name}; there are {}", known.join(", ")),
                None => Ok(()),
            }
        };
        known(&options.configs, &CONFIGS.iter().map(|config| config.name).collect::<Vec<_>>())?;
        let mut requests: Vec<&str> = Vec::new();
        for request in options.configs().flat_map(|config| config.requests) {
            if !requests.contains(&request.name) {
                requests.push(request.name);
            }
        }
        known(&options.only, &requests)?;
        Ok(options)
    }

    fn configs(&self) -> impl Iterator<Item = &'static Config> {
        CONFIGS.iter().filter(|c| self.configs.is_empty() || self.configs.iter().any(|n| n == c.name))
    }

    fn requests(&self, config: &'static Config) -> impl Iterator<Item = &'static Request> {
        config.requests.iter().filter(|r| self.only.is_empty() || self.only.iter().any(|n| n == r.name))
    }
}

pub fn run(args: &[String]) -> Result<()> {
    let options = Options::parse(args)?;
    let binary = match &options.binary {
        Some(path) => path.clone(),
        None => {
            must(cargo().args(["build", "--release", "--package", "tdb-server", "--bin", "tdb"]))?;
            root().join("target/release").join(format!("tdb{}", std::env::consts::EXE_SUFFIX))
        }
    };
    let work = root().join("target/oracle-weights");
    let preset = presets::preset("bench-small").context("the preset is gone")?;
    say("weights of bench-small in target/oracle-weights (3.6 GB, made once)");
    checkpoint::write(&preset, &work, Parts::ModelAndAutoencoders)?;
    match &options.against {
        Some(other) => compare(&options, &binary, other, &work),
        None => alone(&options, &binary, &work),
    }
}

/// Times of one server, beside recorded ones of the reference.
fn alone(options: &Options, binary: &Path, work: &Path) -> Result<()> {
    println!(
        "| configuration | request | median s | min s | again s | reference s | times faster | floor s | times the floor | peak MB |"
    );
    println!("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|");
    let mut factors = Vec::new();
    let mut machine = Machine::measure()?;
    for config in options.configs() {
        factors.extend(measure(config, binary, work, options, &machine)?);
        machine = machine.best(Machine::measure()?);
    }
    println!("\n{}", machine.describe());
    if !factors.is_empty() {
        println!(
            "\ngeometric mean: {:.1} times faster than the reference over {} requests",
            mean(&factors),
            factors.len()
        );
    }
    Ok(())
}

fn mean(factors: &[f64]) -> f64 {
    (factors.iter().map(|f: &f64| f.ln()).sum::<f64>() / factors.len() as f64).exp()
}

fn start(config: &Config, binary: &Path, work: &Path, log: &str) -> Result<(Server, f64)> {
    let mut args: Vec<String> = ["--model_name", "bench-small", "--models"].map(str::to_owned).into();
    args.push(work.to_string_lossy().into_owned());
    args.extend(config.args.iter().map(|&a| a.to_owned()));
    let begin = Instant::now();
    let log = work.join(format!("bench-{}-{log}.log", config.name));
    let server = Server::start(binary, &args, &log, Duration::from_secs(300))?;
    Ok((server, begin.elapsed().as_secs_f64()))
}

/// The server that is compared with: a program that is started, or one that runs already.
enum Other {
    Started { server: Server, ready: f64 },
    At { address: SocketAddr, pid: Option<u32> },
}

impl Other {
    fn open(given: &str, pid: Option<u32>, config: &Config, work: &Path) -> Result<Self> {
        if let Some(address) = given.strip_prefix("http://") {
            let address = address.trim_end_matches('/');
            let found = address.to_socket_addrs().with_context(|| format!("--against {given}"))?.next();
            let address = found.with_context(|| format!("--against {given}: no such address"))?;
            return Ok(Other::At { address, pid });
        }
        let (server, ready) = start(config, Path::new(given), work, "other")?;
        Ok(Other::Started { server, ready })
    }

    fn address(&self) -> SocketAddr {
        match self {
            Other::Started { server, .. } => server.address,
            Other::At { address, .. } => *address,
        }
    }

    fn pid(&self) -> Option<u32> {
        match self {
            Other::Started { server, .. } => Some(server.pid()),
            Other::At { pid, .. } => *pid,
        }
    }
}

/// Times of two servers that answer the same requests in turn, and their ratios: how the machine's speed changes while
/// it is measured falls out of them.
fn compare(options: &Options, binary: &Path, other: &str, work: &Path) -> Result<()> {
    ensure!(
        !other.starts_with("http://") || options.configs.len() == 1,
        "--against {other}: that server has one configuration; name it with --configs (plain, mlp or both)"
    );
    println!(
        "Ratios are other / this: above 1 this one is faster. Quartiles of the pairs; processor time of all pairs.\n"
    );
    println!(
        "| configuration | request | this, s | other, s | ratio | quartiles | ratio of processor times | peak MB, this | other |"
    );
    println!("|---|---|--:|--:|--:|--:|--:|--:|--:|");
    let (mut ratios, mut of_work) = (Vec::new(), Vec::new());
    for config in options.configs() {
        let (server, ready) = start(config, binary, work, "this")?;
        let other = Other::open(other, options.pid, config, work)?;
        let peaks = || format!("{} | {}", peak_mb(server.pid()), other.pid().map(peak_mb).unwrap_or_default());
        if let Other::Started { ready: theirs, .. } = &other {
            let (name, ratio) = (config.name, theirs / ready);
            println!("| {name} | ready | {ready:.3} | {theirs:.3} | {ratio:.2} | | | {} |", peaks());
        }
        for request in options.requests(config) {
            let work_of = |pid: Option<u32>| processor_seconds(Some(pid?));
            let before = [work_of(Some(server.pid())), work_of(other.pid())];
            let pairs = pairs(request, options.runs, [server.address, other.address()])
                .with_context(|| format!("{} {}", config.name, request.name))?;
            let work = [work_of(Some(server.pid())), work_of(other.pid())];
            let spent = |i: usize| Some(work[i]? - before[i]?).filter(|seconds| *seconds > 0.0);
            let work_ratio = spent(1).zip(spent(0)).map(|(theirs, ours)| theirs / ours);
            let ratio = quartiles(pairs.iter().map(|[ours, theirs]| theirs / ours));
            println!(
                "| {} | {} | {:.3} | {:.3} | {:.2} | {:.2} to {:.2} | {} | {} |",
                config.name,
                request.name,
                quartiles(pairs.iter().map(|pair| pair[0]))[1],
                quartiles(pairs.iter().map(|pair| pair[1]))[1],
                ratio[1],
                ratio[0],
                ratio[2],
                work_ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}")),
                peaks()
            );
            ratios.push(ratio[1]);
            of_work.extend(work_ratio);
        }
    }
    for (what, ratios) in [("ratios", ratios), ("ratios of processor times", of_work)] {
        if !ratios.is_empty() {
            println!("\ngeometric mean of the {what}: {:.2} over {} requests", mean(&ratios), ratios.len());
        }
    }
    Ok(())
}

/// First, second and third.
fn quartiles(numbers: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut sorted: Vec<f64> = numbers.collect();
    sorted.sort_by(f64::total_cmp);
    [1, 2, 3].map(|part| sorted[(sorted.len() - 1) * part / 4])
}

/// Seconds of both servers for the same requests, sent in turn; who comes first alternates.
fn pairs(request: &Request, runs: usize, servers: [SocketAddr; 2]) -> Result<Vec<[f64; 2]>> {
    let mut pairs = Vec::new();
    // The first pair warms up the page cache and the pools.
    for i in 0..=runs {
        let (path, body) = body(request.kind, i);
        let body = body.to_string();
        let mut pair = [0.0; 2];
        for turn in 0..2 {
            let which = (turn + i) % 2;
            pair[which] = timed(servers[which], request.kind, path, &body)?;
        }
        if i > 0 {
            pairs.push(pair);
        }
    }
    Ok(pairs)
}

/// Prints a row for each request; returns how many times faster than the reference they are.
fn measure(
    config: &'static Config,
    binary: &Path,
    work: &Path,
    options: &Options,
    machine: &Machine,
) -> Result<Vec<f64>> {
    let (server, ready) = start(config, binary, work, "this")?;
    let factor = config.reference_start / ready;
    println!(
        "| {} | ready | {ready:.3} | | | {:.1} | {factor:.1} | | | {} |",
        config.name,
        config.reference_start,
        peak_mb(server.pid())
    );
    let mut factors = Vec::new();
    for request in options.requests(config) {
        let mut times = Vec::new();
        let mut again = Vec::new();
        // The first one warms up the page cache and the pools.
        for i in 0..=options.runs {
            let (path, body) = body(request.kind, i);
            let body = body.to_string();
            let first = timed(server.address, request.kind, path, &body)
                .with_context(|| format!("{} {}", config.name, request.name))?;
            let second = timed(server.address, request.kind, path, &body)?;
            if i > 0 {
                times.push(first);
                again.push(second);
            }
        }
        times.sort_by(f64::total_cmp);
        again.sort_by(f64::total_cmp);
        let (median, least, repeat) = (times[times.len() / 2], times[0], again[again.len() / 2]);
        let seconds = |s: Option<f64>| s.map_or_else(String::new, |s| format!("{s}"));
        let ratio = |r: Option<f64>| r.map_or_else(String::new, |r| format!("{r:.1}"));
        let factor = request.reference.map(|r| r / median);
        let floor = request.work(config).map(|work| machine.floor(work));
        factors.extend(factor);
        println!(
            "| {} | {} | {median:.3} | {least:.3} | {repeat:.3} | {} | {} | {} | {} | {} |",
            config.name,
            request.name,
            seconds(request.reference),
            ratio(factor),
            floor.map_or_else(String::new, |floor| format!("{floor:.3}")),
            ratio(floor.map(|floor| median / floor)),
            peak_mb(server.pid())
        );
    }
    Ok(factors)
}

fn timed(server: SocketAddr, kind: Kind, path: &str, body: &str) -> Result<f64> {
    let start = Instant::now();
    if let Kind::FirstRows { .. } = kind {
        return until_rows(server, path, body, start);
    }
    let response = http::request(server, "POST", path, &[], Some(body.as_bytes()), Duration::from_secs(1800))?;
    let seconds = start.elapsed().as_secs_f64();
    let text = || String::from_utf8_lossy(&response.body).chars().take(200).collect::<String>();
    ensure!(response.status == 200, "status {}: {}", response.status, text());
    Ok(seconds)
}

/// Seconds until a stream brings what a table shows.
fn until_rows(server: SocketAddr, path: &str, body: &str, start: Instant) -> Result<f64> {
    let mut stream = TcpStream::connect(server)?;
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: {server}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    let mut rows = None;
    // Read to its end, so that the next request is not computed beside it.
    for line in BufReader::new(stream).split(b'\n') {
        let line = line?;
        if rows.is_none() && line.starts_with(b"{\"event\":\"output_logits\"") {
            rows = Some(start.elapsed().as_secs_f64());
        }
    }
    rows.with_context(|| format!("{path} sent no rows"))
}

/// The largest resident set so far, where the system tells.
fn peak_mb(pid: u32) -> String {
    memory(Some(pid), "VmHWM").map_or_else(String::new, |bytes| (bytes >> 20).to_string())
}

/// Words of one GPT-2 token each, with their space.
const WORDS: &str = "the quick brown fox jumps over the lazy dog and then the big black cat sat down near an old red house with some new green trees";

/// A prompt of `n` tokens; another one for each `variant`.
fn prompt(n: usize, variant: usize) -> String {
    let words: Vec<&str> = WORDS.split(' ').collect();
    let mut text = String::from("<|endoftext|>");
    for i in 0..n.saturating_sub(1) {
        text.push(' ');
        text.push_str(words[(i + variant) % words.len()]);
    }
    text
}

pub(super) fn tdb_spec(tokens: usize, latents: Latents, variant: usize) -> Value {
    let mlp = if latents == Latents::None { "neuron" } else { "autoencoder_latent" };
    let attention = if latents == Latents::Both { "autoencoder_latent" } else { "attention_head" };
    json!({
        "prompt": prompt(tokens, variant), "targetTokens": [" Canada"], "distractorTokens": [" Germany"],
        "componentTypeForMlp": mlp, "componentTypeForAttention": attention, "topAndBottomKForNodeTable": 10,
        "hideEarlyLayersWhenAblating": true, "nodeAblations": [], "upstreamNodeToTrace": null,
        "downstreamNodeToTrace": null,
    })
}

fn node(kind: &str, layer: usize, indices: &[usize]) -> Value {
    json!({"nodeType": kind, "tensorIndices": indices, "layerIndex": layer, "passType": "forward"})
}

fn body(kind: Kind, variant: usize) -> (&'static str, Value) {
    match kind {
        Kind::Tdb { tokens, latents } => ("/batched_tdb", json!({"subRequests": [tdb_spec(tokens, latents, variant)]})),
        Kind::FirstRows { tokens } => {
            ("/batched_tdb/stream", json!({"subRequests": [tdb_spec(tokens, Latents::None, variant)]}))
        }
        Kind::TdbAgain { tokens } => ("/batched_tdb", json!({"subRequests": [tdb_spec(tokens, Latents::None, 0)]})),
        Kind::Ablation => {
            let mut ablated = tdb_spec(64, Latents::None, variant);
            ablated["nodeAblations"] = json!([{"nodeIndex": node("mlp_neuron", 5, &[10, 7]), "value": 0.0}]);
            ("/batched_tdb", json!({"subRequests": [ablated, tdb_spec(64, Latents::None, variant)]}))
        }
        Kind::TraceHead => {
            let mut traced = tdb_spec(64, Latents::None, variant);
            traced["upstreamNodeToTrace"] = json!({
                "nodeIndex": node("attention_head", 9, &[60, 3, 4]), "attentionTraceType": "QK",
                "downstreamTraceConfig": null,
            });
            ("/batched_tdb", json!({"subRequests": [traced]}))
        }
        Kind::DerivedScalars { tokens } => (
            "/derived_scalars",
            json!({
                "inferenceRequestSpec": {"prompt": prompt(tokens, variant)},
                "derivedScalarsRequestSpec": {"dst": "mlp_post_act", "layerIndex": 5, "activationIndex": 7},
            }),
        ),
        Kind::AttentionScalars => (
            "/derived_attention_scalars",
            json!({
                "inferenceRequestSpec": {"prompt": prompt(64, variant)},
                "derivedAttentionScalarsRequestSpec": {"dst": "unflattened_attn_write_norm", "layerIndex": 5, "activationIndex": 3},
            }),
        ),
        Kind::LogitLens => {
            let neuron = 7 + variant;
            let ablation = |pass: &str| {
                let index = json!({"activationLocationType": "mlp.post_act", "tensorIndices": [0, neuron], "layerIndex": 5, "passType": pass});
                json!([{"index": index, "value": 1.0}])
            };
            (
                "/batched",
                json!({"inferenceSubRequests": [
                    {
                        "inferenceRequestSpec": {"prompt": "a", "ablationSpecs": ablation("backward"), "lossFnConfig": {"name": "zero"}},
                        "processingRequestSpecByName": {"singleton": {
                            "dst": "vocab_token_write_to_input_direction", "layerIndex": null, "activationIndex": 0, "numTopTokens": 100,
                        }},
                    },
                    {
                        "inferenceRequestSpec": {"prompt": "a", "ablationSpecs": ablation("forward")},
                        "processingRequestSpecByName": {"singleton": {
                            "dst": "mlp_post_act", "layerIndex": 5, "activationIndex": neuron, "numTopTokens": 100,
                        }},
                    },
                ]}),
            )
        }
    }
}
