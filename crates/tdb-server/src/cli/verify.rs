//! `tdb verify`: the checks that answers carry, for a model.

use std::path::PathBuf;

use anyhow::Context;
use tdb_api::Check;
use tdb_scalars::Engine;

use super::{device, embedded, library, model};

/// Check a model: that what is written adds up, that gradients are differences, that patches do what they say
///
/// Ends with status 1 if a check fails.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Model: a registered name, a folder below --models, or a path. Without it, the small model inside the program
    #[arg(long, value_name = "NAME|FOLDER")]
    pub model: Option<String>,
    /// Autoencoder on the MLP layers: a registered name, a folder below the model's autoencoders/, or a path
    #[arg(long, value_name = "NAME|FOLDER")]
    pub mlp_autoencoder: Option<String>,
    /// Autoencoder on the attention layers, looked up likewise
    #[arg(long, value_name = "NAME|FOLDER")]
    pub attn_autoencoder: Option<String>,
    /// Dictionary at any site, as `tdb serve` takes it; may be repeated for other sites
    #[arg(long, value_name = "NAME|FOLDER[,KEY=VALUE]")]
    pub dictionary: Vec<String>,
    /// Folder of model folders; each may have its autoencoders in autoencoders/<name>/
    #[arg(long, env = "TDB_MODELS", value_name = "FOLDER")]
    pub models: Option<PathBuf>,
    /// Where the model runs: auto, cpu, cuda, cuda:NUMBER or metal
    #[arg(long, value_name = "DEVICE", default_value_t)]
    pub device: device::Wanted,
    #[command(flatten)]
    pub data: library::DataArgs,
    /// Text to run; may be repeated
    #[arg(long, value_name = "TEXT", default_values_t = [
        "When Mary and John went to the store, John gave a drink to".to_owned(),
        "Paris, France. Ottawa,".to_owned(),
    ])]
    pub prompt: Vec<String>,
    /// Print JSON instead of lines
    #[arg(long)]
    pub json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let engine = engine(args)?;
    let mut all = Vec::new();
    for prompt in &args.prompt {
        let checks = engine.verify(prompt).with_context(|| format!("the prompt {prompt:?} cannot be checked"))?;
        if !args.json {
            println!("{}", lines(engine.name(), prompt, &checks));
        }
        all.extend(checks);
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&all)?);
    }
    let failed = all.iter().filter(|check| !check.passed).count();
    anyhow::ensure!(failed == 0, "{failed} of {} checks failed", all.len());
    Ok(())
}

fn engine(args: &Args) -> anyhow::Result<Engine> {
    let runtime = tokio::runtime::Runtime::new().context("no threads to work with")?;
    let own_model = args.model.as_deref().is_none_or(|model| model == embedded::NAME);
    let listed = if own_model { library::EmbeddedRecords::Listed } else { library::EmbeddedRecords::LeftOut };
    let library = library::open(&args.data, listed)?;
    let device = args.device.open()?;
    let wanted = model::Wanted {
        model: args.model.as_deref(),
        models: args.models.as_deref(),
        mlp_autoencoder: args.mlp_autoencoder.as_deref(),
        attn_autoencoder: args.attn_autoencoder.as_deref(),
        dictionaries: &args.dictionary,
        dead_latents: false,
        device: Some(&device),
    };
    let opened = model::open(&wanted, &library, runtime.handle())?;
    let engine =
        Engine::new(opened.name, opened.model, opened.tokenizer, opened.mlp_autoencoder, opened.attn_autoencoder);
    Ok(engine.with_beginning(opened.beginning).with_residual_autoencoder(opened.residual_autoencoder))
}

fn lines(model: &str, prompt: &str, checks: &[Check]) -> String {
    let line = |check: &Check| {
        let mark = if check.passed { "passed" } else { "FAILED" };
        format!(
            "{mark}  {:<10}  {} (found {:.2e}, at most {:.2e})",
            check.name.as_str(),
            check.sentence,
            check.found,
            check.limit
        )
    };
    let lines: Vec<String> = checks.iter().map(line).collect();
    format!("{model}: {prompt:?}\n{}", lines.join("\n"))
}
