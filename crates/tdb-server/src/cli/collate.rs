//! `tdb collate`: what every neuron, head and latent of a model responds to in a text.

mod portable;
mod ready;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use super::library::DataArgs;
use super::output::say;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use tdb_collate::corpus::Unreadable;
use tdb_collate::{Estimate, Sizes, Watch, output};

pub use ready::Ready;

/// Collect the examples that excite every neuron, head and latent of a model most
///
/// The work is cut into shards of the text and ranges of layers. A run that was interrupted keeps what was finished and
/// goes on from there when the same command is given again. With --shard, several machines can each make a part; where
/// --out is in an object store, --merge finds all of them there, else copy their summaries into one folder first.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize)]
pub struct Args {
    /// Model: a registered name, a folder below --models, a path, or owner/name[@revision] of Hugging Face's hub.
    /// Without it, the small model inside the program, with its autoencoders
    #[arg(long, value_name = "NAME|FOLDER")]
    pub model: Option<String>,
    /// Folder of model folders, in which a model's name is looked up first
    #[arg(long, env = "TDB_MODELS", value_name = "FOLDER")]
    pub models: Option<PathBuf>,
    /// Plain text (documents separated by empty lines, or by <|endoftext|>), JSON (lines or a list) or Parquet files;
    /// the latter two have their text in `text`. Packed with gzip or zstd as well. A file of a store (s3://…) is
    /// fetched once
    #[arg(value_name = "TEXT", required = true)]
    pub text: Vec<String>,
    /// Where everything goes: summaries/, records/, explanations/, if wanted files/, and registry.toml, with which
    /// `tdb serve --registry` shows it all. A folder of this machine or of an object store (s3://, az://, gs://)
    #[arg(long, value_name = "FOLDER")]
    pub out: String,
    /// Autoencoders on the MLP (neurons or output): a registered name or a folder
    #[arg(long, value_name = "NAME|FOLDER")]
    pub mlp_autoencoder: Option<String>,
    /// Autoencoders on the attention layers' output, likewise
    #[arg(long, value_name = "NAME|FOLDER")]
    pub attn_autoencoder: Option<String>,
    /// Dictionary at any site, likewise; may be repeated for other sites. What its files do not say is written after
    /// it, as for `tdb serve`
    #[arg(long, value_name = "NAME|FOLDER[,KEY=VALUE]")]
    pub dictionary: Vec<String>,
    /// Only these scalars, by name; without it, all that the model has
    #[arg(long, value_name = "SCALAR")]
    pub only: Vec<String>,
    /// Tokens in an example; if not given, 64, or the model's context where that is shorter
    #[arg(long)]
    pub tokens: Option<usize>,
    /// Put this token before every example, none if empty; if not given, the one that the model's texts begin with
    #[arg(long)]
    pub first: Option<String>,
    /// Top examples of each unit
    #[arg(long, visible_alias = "top", default_value_t = Sizes::default().top)]
    pub k: usize,
    /// Random examples of each unit
    #[arg(long, default_value_t = Sizes::default().random)]
    pub random: usize,
    /// Parts into which the examples with a positive value are divided
    #[arg(long, default_value_t = Sizes::default().quantiles)]
    pub quantiles: usize,
    /// Examples of each part
    #[arg(long, default_value_t = Sizes::default().per_quantile)]
    pub per_quantile: usize,
    /// Of all those, how many top, random and per-quantile examples the files of layers show; the explanations use all
    #[arg(long, value_name = "TOP,RANDOM,PER_QUANTILE")]
    pub show: Option<String>,
    /// Let what units do at the first token of an example count among their largest values. Many fire there whatever it
    /// is
    #[arg(long)]
    pub first_counts: bool,
    /// Documents that may be left out because they cannot be read; one more ends the run
    #[arg(long, value_name = "N", default_value_t = Unreadable::LIMIT)]
    pub max_unreadable: usize,
    /// Seeds the random samples
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Parts of the text; a finished part is never done again
    #[arg(long, default_value_t = 8)]
    pub shards: usize,
    /// Make only this part, such as 3/8, and merge nothing
    #[arg(long, value_name = "I/N", conflicts_with_all = ["shards", "merge"])]
    pub shard: Option<String>,
    /// Only these layers, such as 0..4
    #[arg(long, value_name = "FROM..TO")]
    pub layers: Option<String>,
    /// Layers in memory at a time; each such range runs over the whole text
    #[arg(long, value_name = "N")]
    pub layers_at_once: Option<usize>,
    /// Run nothing; merge the summaries that are there
    #[arg(long)]
    pub merge: bool,
    /// Folder of the summaries, if not OUT/summaries
    #[arg(long, value_name = "FOLDER")]
    pub summaries: Option<String>,
    /// One file for each layer, which the debugger reads, or one JSON file for each unit, as the reference has them
    #[arg(long, value_enum, default_value_t = Layout::Layers)]
    pub layout: Layout,
    /// How the files of layers store values
    #[arg(long, value_enum, default_value_t = Values::F32)]
    pub values: Values,
    /// Write no explanations
    #[arg(long)]
    pub no_explanations: bool,
    /// The date in explanations, such as 2026-01-31T12:00:00Z, if not now
    #[arg(long, value_parser = date)]
    pub date: Option<String>,
    /// Sequences run side by side, one on each thread; all cores if not given
    #[arg(long)]
    #[serde(skip)]
    pub threads: Option<usize>,
    /// Make nothing; say how many work units there are, how many bytes they become and how many hours they take
    #[arg(long)]
    #[serde(skip)]
    pub dry_run: bool,
    /// Machines that will share the work, for --dry-run
    #[arg(long, default_value_t = 1, value_name = "N", requires = "dry_run")]
    #[serde(skip)]
    pub machines: usize,
    #[command(flatten)]
    #[serde(skip)]
    pub data: DataArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
pub enum Layout {
    Layers,
    Files,
    Both,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
pub enum Values {
    /// As they are
    F32,
    /// Rounded to about three digits
    F16,
    /// In 256 steps
    U8,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let ready = Ready::new(args)?;
    let collation = ready.collation();
    if args.dry_run {
        say_estimate(&tdb_collate::estimate(&collation)?, args.machines);
        return Ok(());
    }
    ready.check_writable()?;
    let progress = Progress::new()?;
    if !args.merge {
        let done = collation.run(ready.shard, &progress)?;
        let say = format!("{} work units made, {} were there already", done.made, done.kept);
        progress.bar.suspend(|| eprintln!("{say}"));
    }
    if ready.shard.is_none() {
        output::write(&collation, &ready.layouts, &ready.out, &progress)?;
        ready.write_registry()?;
    }
    progress.bar.finish_and_clear();
    if let Some(left_out) = left_out(&collation.unreadable) {
        eprintln!("{left_out}");
    }
    match &args.shard {
        Some(shard) => say!(
            "Shard {shard} is in {}; when all are in one folder, --merge makes records of them.",
            collation.summaries.folder().display()
        ),
        None => say!("{}", ready.told(args)),
    }
    Ok(())
}

/// Says what a collation will take, on `machines` like this one.
pub fn say_estimate(estimate: &Estimate, machines: usize) {
    let Estimate { units, finished, documents, text_bytes, tokens, sequences, time, summary_bytes } = estimate;
    let left = (units - finished) as f64 / (*units).max(1) as f64;
    let hours = time.as_secs_f64() / 3600.0;
    say!("{units} work units, {finished} of them finished");
    say!("{documents} documents, {} of text; about {tokens} tokens in {sequences} sequences", HumanBytes(*text_bytes));
    say!("summaries: at most {}", HumanBytes(*summary_bytes));
    say!(
        "time: about {:.1} s for a unit on this machine; {hours:.2} hours in all, {:.2} for what is left on {machines} \
         like it",
        time.as_secs_f64() / (*units).max(1) as f64,
        hours * left / machines.max(1) as f64
    );
}

/// What is said of documents that could not be read.
pub fn left_out(unreadable: &Unreadable) -> Option<String> {
    let first = unreadable.first()?;
    Some(match unreadable.count() {
        1 => format!("1 document could not be read and was left out: {first}"),
        n => format!("{n} documents could not be read and were left out, such as {first}"),
    })
}

struct Progress {
    bar: ProgressBar,
    tokens: AtomicU64,
}

impl Progress {
    fn new() -> anyhow::Result<Self> {
        let style = ProgressStyle::with_template("{spinner} {human_pos} tokens, {per_sec}, {elapsed}  {msg}")?;
        Ok(Self { bar: ProgressBar::no_length().with_style(style), tokens: AtomicU64::new(0) })
    }
}

impl Watch for Progress {
    fn done(&self, tokens: usize) {
        self.bar.set_position(self.tokens.fetch_add(tokens as u64, Ordering::Relaxed) + tokens as u64);
    }

    fn note(&self, line: &str) {
        if self.bar.is_hidden() {
            eprintln!("{line}");
        }
        self.bar.set_message(line.to_owned());
    }
}

fn date(text: &str) -> Result<String, String> {
    match tdb_explain::date::is_date(text) {
        true => Ok(text.to_owned()),
        false => Err("expected a date such as 2026-01-31 or a time such as 2026-01-31T12:00:00Z".to_owned()),
    }
}
