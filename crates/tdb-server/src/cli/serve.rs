//! `tdb serve`: the debugger in the browser, and its interface for programs.

use super::{library, model, output, runtime, stopping};
use crate::app::App;
use crate::config::{Limits, ServerConfig};
use crate::model::{Ask, Model};
use crate::records::StoredRecords;
use crate::ui::Pages;
use crate::{server, token};
use anyhow::{Context, bail};
use clap::ArgAction;
use std::io::IsTerminal;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tracing_subscriber::EnvFilter;

/// Seconds of a year: longer times add up to what a clock cannot hold.
const YEAR: u64 = 365 * 24 * 3600;

/// Serve the debugger
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub model: model::ModelArgs,
    #[command(flatten)]
    pub data: library::DataArgs,
    /// Address or name to listen on
    #[arg(long, alias = "host_name", alias = "host-name", default_value = "127.0.0.1")]
    pub host: String,
    /// Port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 8000)]
    pub port: u16,
    #[command(flatten)]
    pub sharing: Sharing,
    #[command(flatten)]
    pub operation: Operation,
    /// Open the debugger in a browser
    #[arg(long)]
    pub open: bool,
    /// False: serve stored records and explanations only
    #[arg(
        long, alias = "run_model", default_value = "true", value_parser = truth, action = ArgAction::Set,
        num_args = 0..=1, default_missing_value = "true", value_name = "True|False"
    )]
    pub run_model: bool,
    /// How neurons are explained; there is one way
    #[arg(long, alias = "neuron_method", value_parser = ["baseline"], default_value = "baseline", hide = true)]
    pub neuron_method: String,
    /// How attention heads are explained; there is one way
    #[arg(long, alias = "attention_head_method", value_parser = ["baseline"], default_value = "baseline", hide = true)]
    pub attention_head_method: String,
    /// Accepted for scripts that were written for the reference
    #[arg(
        long, alias = "cuda_memory_debugging", default_value = "false", value_parser = truth, action = ArgAction::Set,
        num_args = 0..=1, default_missing_value = "true", value_name = "True|False", hide = true
    )]
    pub cuda_memory_debugging: bool,
    /// In a program that was built for tests: a mistake that the engine makes, to see that a check finds it
    #[cfg(debug_assertions)]
    #[arg(long, hide = true, value_name = "MISTAKE")]
    pub plant_fault: Option<String>,
}

/// Who may use the server
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Sharing")]
pub struct Sharing {
    /// Token that clients have to know, of at least 16 characters. Without this one is made up where --host lets others
    /// connect, and printed as a part of the link
    #[arg(long, env = "TDB_TOKEN", hide_env_values = true, value_name = "TOKEN", conflicts_with = "no_token")]
    pub token: Option<String>,
    /// Let everybody who can connect use the server
    #[arg(long)]
    pub no_token: bool,
    /// Another name by which the server may be addressed, such as that of a reverse proxy; may be repeated
    #[arg(long, value_name = "NAME", value_parser = host_name)]
    pub allow_host: Vec<String>,
    /// Address of a reverse proxy whose X-Forwarded-For tells clients apart; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    pub trusted_proxy: Vec<IpAddr>,
}

/// How the server works and what it says
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Operation")]
pub struct Operation {
    /// Seconds that one request may compute
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=YEAR))]
    pub max_seconds: u64,
    /// Requests that compute at the same time; as many as there are cores
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..))]
    pub workers: Option<u16>,
    /// Requests that wait beyond those
    #[arg(long, value_name = "NUMBER", default_value_t = 64)]
    pub queue: u16,
    /// Seconds that requests have to finish when the server is stopped
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub grace: u64,
    /// Write a line about every request to the log
    #[arg(long)]
    pub access_log: bool,
    /// How the log is written
    #[arg(long, value_enum, default_value_t)]
    pub log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    #[default]
    Text,
    /// One object a line
    Json,
}

fn truth(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" => Ok(true),
        "false" | "0" | "no" => Ok(false),
        _ => Err("say True or False".to_owned()),
    }
}

pub fn run(args: &Args, pages: Pages) -> anyhow::Result<()> {
    start_log(args.operation.log_format);
    #[cfg(debug_assertions)]
    if let Some(word) = &args.plant_fault {
        plant_fault(word)?;
    }
    let runtime = runtime::new()?;
    let library = library::open(&args.data, args.model.records())?;
    let model: Option<Arc<dyn Ask>> = if args.run_model {
        let engine = model::load(&args.model, &library, runtime.handle())?;
        let records = StoredRecords { library: library.clone(), runtime: runtime.handle().clone() };
        Some(Arc::new(Model::new(engine, Box::new(records))))
    } else {
        None
    };
    let path = model
        .as_ref()
        .and_then(|model| tdb_api::page::ModelSlug::from_info(&model.model_info()))
        .map_or_else(|| "/".to_owned(), |slug| slug.debugger_path());
    let app = App::new(model, Some(library), config(args, pages)?).context("no threads to compute with")?;
    runtime.block_on(listen(args, app, &path))?;
    // Computations that were cut are not waited for.
    runtime.shutdown_background();
    Ok(())
}

#[cfg(debug_assertions)]
fn plant_fault(word: &str) -> anyhow::Result<()> {
    use tdb_model::fault::{Fault, plant};
    let found = Fault::ALL.iter().find(|fault| fault.word() == word);
    plant(*found.with_context(|| format!("--plant-fault is \"{word}\", which is no mistake that can be planted"))?);
    tracing::warn!("the engine makes the mistake \"{word}\"");
    Ok(())
}

fn start_log(format: LogFormat) {
    let filter = EnvFilter::try_from_env("TDB_LOG").unwrap_or_else(|_| "warn,tdb_server=info,access=info".into());
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter);
    // A log that cannot be written is complained of on the same stream, and that would be a panic.
    let log = log.log_internal_errors(false);
    match format {
        LogFormat::Json => log.json().flatten_event(true).init(),
        // A person at a terminal wants the sentences, whoever reads a log the time and the place as well.
        LogFormat::Text if std::io::stderr().is_terminal() => log.without_time().with_target(false).init(),
        LogFormat::Text => log.with_ansi(false).init(),
    }
}

fn config(args: &Args, pages: Pages) -> anyhow::Result<ServerConfig> {
    let (sharing, operation) = (&args.sharing, &args.operation);
    let mut limits = Limits {
        time: Duration::from_secs(operation.max_seconds),
        queue_length: operation.queue.into(),
        ..Limits::default()
    };
    if let Some(workers) = operation.workers {
        limits.workers = workers.into();
    }
    let mut hosts = vec![args.host.clone()];
    hosts.extend(sharing.allow_host.iter().cloned());
    if !is_loopback(&args.host) {
        // Names that nobody else can make a browser take for another machine.
        hosts.extend(machine_name().into_iter().flat_map(|name| [format!("{name}.local"), name]));
    }
    Ok(ServerConfig {
        limits,
        pages,
        hosts,
        token: token(args)?,
        proxies: sharing.trusted_proxy.iter().map(IpAddr::to_canonical).collect(),
        access_log: operation.access_log,
        memory_debugging: args.cuda_memory_debugging,
    })
}

/// A name as it stands in addresses, without a scheme, a port or a path.
fn host_name(text: &str) -> Result<String, String> {
    let is_address = text.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    let is_name =
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
    match is_address || is_name {
        true => Ok(text.to_owned()),
        false => Err("it is a name or an address alone, such as debugger.example.org".to_owned()),
    }
}

/// The token that clients have to know: one that was chosen, or a new one where others can connect.
fn token(args: &Args) -> anyhow::Result<Option<String>> {
    match &args.sharing.token {
        Some(token) if token.len() < token::SHORTEST => {
            bail!(
                "--token has {} characters; a token that cannot be guessed has at least {}",
                token.len(),
                token::SHORTEST
            )
        }
        Some(token) if !token.bytes().all(|b| b.is_ascii_graphic()) => {
            bail!("--token may have letters, digits and signs of ASCII only: it is sent in headers")
        }
        Some(token) => Ok(Some(token.clone())),
        None if args.sharing.no_token || is_loopback(&args.host) => Ok(None),
        None => Ok(Some(token::new_token())),
    }
}

/// Whether only this machine can connect to what listens on `host`.
fn is_loopback(host: &str) -> bool {
    let bare = bare(host);
    bare.eq_ignore_ascii_case("localhost") || bare.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// What this machine calls itself, where the system tells it.
fn machine_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim().to_owned();
    (!name.is_empty()).then_some(name)
}

async fn listen(args: &Args, app: App, path: &str) -> anyhow::Result<()> {
    let host = bare(&args.host);
    let listener = TcpListener::bind((host, args.port)).await.with_context(|| match args.port {
        0 => format!("cannot listen on {host}"),
        port => format!("cannot listen on {host}, port {port} (--port takes another; 0 takes a free one)"),
    })?;
    let port = listener.local_addr().context("the address of the server is not known")?.port();
    let link = say_where(host, port, path, app.config().token.as_deref());
    if !is_loopback(host) && app.config().token.is_none() {
        output::line_if_read(format_args!(
            "No token: everybody who can connect to this machine can use this server and its language model."
        ));
    }
    if args.open {
        open(&link);
    }
    let stopped = stopping::signalled().context("signals cannot be received")?;
    let grace = Duration::from_secs(args.operation.grace);
    let cut = server::serve(listener, app, stopped, grace).await;
    if cut > 0 {
        tracing::warn!("stopped; {cut} requests were cut after {} s and answered 503", grace.as_secs());
    }
    Ok(())
}

/// Prints where the server is; the link to the debugger.
fn say_where(host: &str, port: u16, path: &str, token: Option<&str>) -> String {
    let shown = match host {
        "0.0.0.0" | "::" => "localhost".to_owned(),
        host if host.contains(':') => format!("[{host}]"),
        host => host.to_owned(),
    };
    let origin = format!("http://{shown}:{port}");
    let encoded = |token: &str| form_urlencoded::byte_serialize(token.as_bytes()).collect::<String>();
    let query = token.map(|token| format!("?token={}", encoded(token))).unwrap_or_default();
    let link = format!("{origin}{path}{query}");
    output::line_if_read(format_args!("{origin}/   debugger: {link}   interface: {origin}/docs"));
    if matches!(host, "0.0.0.0" | "::")
        && let Some(name) = machine_name()
    {
        output::line_if_read(format_args!("From other machines: http://{name}:{port}{path}{query}"));
    }
    link
}

/// Asks the system to show an address. It may have no browser; the address was printed.
fn open(address: &str) {
    let command = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    if let Err(error) = std::process::Command::new(command).arg(address).spawn() {
        tracing::info!("no browser could be opened ({command}: {error})");
    }
}

/// A name that may not be used for a model folder lookup.
pub(super) fn check_name(name: &str) -> anyhow::Result<()> {
    if name.is_empty() {
        bail!("an empty name is given for a model or an autoencoder");
    }
    Ok(())
}
