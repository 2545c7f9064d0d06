//! `tdb serve`: the debugger in the browser, and its interface for programs.

use super::{embedded, library, model};
use crate::app::{self, App};
use crate::config::ServerConfig;
use crate::model::{Ask, Model};
use crate::records::StoredRecords;
use anyhow::{Context, bail};
use clap::ArgAction;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::TcpListener;

/// Serve the debugger
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Model: a registered name, a folder below --models, or a path. Without it, the small model inside the program
    #[arg(long, alias = "model_name", alias = "model-name", value_name = "NAME|FOLDER")]
    pub model: Option<String>,
    /// Autoencoder on the MLP layers: a registered name, a folder below the model's autoencoders/, or a path
    #[arg(long, alias = "mlp_autoencoder_name", alias = "mlp-autoencoder-name", value_name = "NAME|FOLDER")]
    pub mlp_autoencoder: Option<String>,
    /// Autoencoder on the attention layers, looked up likewise
    #[arg(long, alias = "attn_autoencoder_name", alias = "attn-autoencoder-name", value_name = "NAME|FOLDER")]
    pub attn_autoencoder: Option<String>,
    /// Folder of model folders; each may have its autoencoders in autoencoders/<name>/
    #[arg(long, env = "TDB_MODELS", value_name = "FOLDER")]
    pub models: Option<PathBuf>,
    #[command(flatten)]
    pub data: library::DataArgs,
    /// Address or name to listen on
    #[arg(long, alias = "host_name", alias = "host-name", default_value = "127.0.0.1")]
    pub host: String,
    /// Port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 8000)]
    pub port: u16,
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
}

fn truth(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" => Ok(true),
        "false" | "0" | "no" => Ok(false),
        _ => Err("say True or False".to_owned()),
    }
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let filter =
        tracing_subscriber::EnvFilter::try_from_env("TDB_LOG").unwrap_or_else(|_| "warn,tdb_server=info".into());
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter);
    // A person at a terminal wants the sentences, whoever reads a log the time and the place as well.
    match std::io::stderr().is_terminal() {
        true => log.without_time().with_target(false).init(),
        false => log.with_ansi(false).init(),
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no threads to serve with")?;
    let own_model = args.model.as_deref().is_none_or(|model| model == embedded::NAME);
    let listed = if own_model { library::EmbeddedRecords::Listed } else { library::EmbeddedRecords::LeftOut };
    let library = library::open(&args.data, listed)?;
    let model: Option<Arc<dyn Ask>> = if args.run_model {
        let engine = model::load(args, &library, runtime.handle())?;
        let records = StoredRecords { library: library.clone(), runtime: runtime.handle().clone() };
        Some(Arc::new(Model::new(engine, Box::new(records))))
    } else {
        None
    };
    let path = model
        .as_ref()
        .and_then(|model| tdb_api::page::ModelSlug::from_info(&model.model_info()))
        .map_or_else(|| "/".to_owned(), |slug| slug.debugger_path());
    let config = ServerConfig {
        hosts: vec![args.host.clone()],
        memory_debugging: args.cuda_memory_debugging,
        ..ServerConfig::default()
    };
    let app = App::new(model, Some(library), config).context("no threads to compute with")?;
    runtime.block_on(listen(args, app, &path))
}

async fn listen(args: &Args, app: App, path: &str) -> anyhow::Result<()> {
    let host = args.host.trim_start_matches('[').trim_end_matches(']');
    let listener = TcpListener::bind((host, args.port)).await.with_context(|| match args.port {
        0 => format!("cannot listen on {host}"),
        port => format!("cannot listen on {host}, port {port} (--port takes another; 0 takes a free one)"),
    })?;
    let port = listener.local_addr().context("the address of the server is not known")?.port();
    let shown = match host {
        "0.0.0.0" | "::" => "localhost".to_owned(),
        host if host.contains(':') => format!("[{host}]"),
        host => host.to_owned(),
    };
    let origin = format!("http://{shown}:{port}");
    println!("{origin}/   debugger: {origin}{path}   interface: {origin}/docs");
    if args.open {
        open(&format!("{origin}{path}"));
    }
    // Large answers leave in several packets, small ones at once.
    let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!("{error}");
        }
    });
    let served = axum::serve(listener, app::router(app)).with_graceful_shutdown(stopped());
    served.await.context("the server stopped")
}

/// Ends with Ctrl-C or a request of the system to end.
async fn stopped() {
    let interrupt = async {
        // Without a handler the signal ends the process by itself.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    #[cfg(unix)]
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending::<()>().await,
        }
    };
    #[cfg(not(unix))]
    let terminate = std::future::pending::<()>();
    tokio::select! {
        () = interrupt => {}
        () = terminate => {}
    }
    // Streams and slow requests are not waited for without end.
    tokio::spawn(async {
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        std::process::exit(0);
    });
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
