//! `tdb train`: makes the embedded model, or one like it.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;

use super::output::{self, say};
use super::within;
use indicatif::{ProgressBar, ProgressStyle};
use tdb_train::grammar::document;
use tdb_train::optimizer::AdamW;
use tdb_train::{Recipe, Start, TrainOptions, train};

/// Train a small GPT-2 on text that the program generates
///
/// The defaults make a model of the embedded model's kind; docs/embedded-model.md says how that one was made. A run
/// that was interrupted goes on where it was last saved when the same command is given again, and ends with the same
/// bytes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder for the model: config.json, model.safetensors, tokenizer.json
    #[arg(long, default_value = "trained-model")]
    pub out: PathBuf,
    /// Go on from the finished model in this folder: its weights and its tokenizer are the start, its shape stays
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["layers", "d_model", "heads", "d_ff", "context"])]
    pub from: Option<PathBuf>,
    /// What text and first weights follow from
    #[arg(long, default_value_t = Recipe::default().seed)]
    pub seed: u64,
    #[arg(long, default_value_t = Recipe::default().steps)]
    pub steps: usize,
    /// Highest learning rate, after the first steps and before it falls; if not given, 0.002, and 0.0002 with --from
    #[arg(long)]
    pub rate: Option<f32>,
    /// In the first half of the steps, a third of the rows are sentences that hold this text: for what is rare in it
    #[arg(long, value_name = "TEXT")]
    pub often: Option<String>,
    /// Texts per step
    #[arg(long, default_value_t = Recipe::default().batch)]
    pub batch: usize,
    #[arg(long, default_value_t = Recipe::default().n_layers)]
    pub layers: usize,
    /// Width of the residual stream
    #[arg(long, default_value_t = Recipe::default().d_model)]
    pub d_model: usize,
    /// Attention heads per layer
    #[arg(long, default_value_t = Recipe::default().n_heads)]
    pub heads: usize,
    /// Neurons per layer
    #[arg(long, default_value_t = Recipe::default().d_ff)]
    pub d_ff: usize,
    /// Longest text, in tokens
    #[arg(long, default_value_t = Recipe::default().context)]
    pub context: usize,
    /// Steps between two savings of the state that a later run resumes from
    #[arg(long, default_value_t = 100)]
    pub save_every: usize,
    /// Instead of training, print so many documents of the text, an empty line between them
    #[arg(long, value_name = "DOCUMENTS")]
    pub print_text: Option<u64>,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    if let Some(documents) = args.print_text {
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        for index in 0..documents {
            output::printed(write!(out, "{}\n\n", document(args.seed, index)));
        }
        output::printed(out.flush());
        return Ok(());
    }
    within("--d-model", args.d_model, 1..=1 << 16)?;
    within("--d-ff", args.d_ff, 1..=1 << 18)?;
    within("--heads", args.heads, 1..=1 << 10)?;
    within("--layers", args.layers, 1..=1 << 10)?;
    within("--context", args.context, 1..=1 << 16)?;
    within("--batch", args.batch, 1..=1 << 16)?;
    let start = args.from.as_deref().map(Start::read).transpose()?;
    let usual = if start.is_some() { AdamW::going_on(args.steps) } else { AdamW::default() };
    let recipe = Recipe {
        seed: args.seed,
        steps: args.steps,
        batch: args.batch,
        n_layers: args.layers,
        d_model: args.d_model,
        n_heads: args.heads,
        d_ff: args.d_ff,
        context: args.context,
        often: args.often.clone(),
        optimizer: AdamW { peak: args.rate.unwrap_or(usual.peak), ..usual },
        ..Recipe::default()
    };
    let bar = ProgressBar::new(args.steps as u64)
        .with_style(ProgressStyle::with_template("{bar:30} {pos}/{len} steps  {msg}  {elapsed} so far, {eta} to go")?);
    let options = TrainOptions { recipe, start, folder: args.out.clone(), save_every: args.save_every };
    train(&options, &mut |progress| {
        bar.set_position(progress.step as u64);
        bar.set_message(format!("loss {:.3}, rate {:.1e}", progress.average, progress.rate));
        ControlFlow::Continue(())
    })?;
    bar.finish_and_clear();
    say!("{} holds the model. `tdb eval --model {0}` says how good it is.", args.out.display());
    Ok(())
}
