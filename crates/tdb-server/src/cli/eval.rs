//! `tdb eval`: how well a model answers prompts that the embedded model's training text never held.

use std::path::PathBuf;

use super::output::say;
use super::within;
use anyhow::Context;
use tdb_model::Transformer;
use tdb_model::checkpoint;
use tdb_train::{EvalOptions, evaluate};

/// Ask a model freshly generated prompts: who gets the drink, which country, what comes next
///
/// Ends with status 1 if a required share of right answers is not reached.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model's folder; the embedded model if not given
    #[arg(long, value_name = "FOLDER")]
    pub model: Option<PathBuf>,
    /// Prompts per task
    #[arg(long, default_value_t = EvalOptions::default().prompts)]
    pub prompts: usize,
    /// What the prompts follow from
    #[arg(long, default_value_t = EvalOptions::default().seed)]
    pub seed: u64,
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    within("--prompts", args.prompts, 1..=1 << 20)?;
    let checkpoint = match &args.model {
        Some(folder) => checkpoint::open(folder)?,
        None => super::embedded::model()?,
    };
    let model = Transformer::load(checkpoint.config, checkpoint.weights)?;
    let options = EvalOptions { prompts: args.prompts, seed: args.seed };
    let report = evaluate(&model, &checkpoint.tokenizer, &options)
        .context("the prompts are made for a model that `tdb train` made")?;
    match args.json {
        true => say!("{}", serde_json::to_string_pretty(&report)?),
        false => say!("{}", report.table()),
    }
    anyhow::ensure!(report.passed(), "a required share of right answers was not reached");
    Ok(())
}
