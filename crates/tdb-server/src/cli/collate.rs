//! `tdb collate`: what every neuron, head and latent of a model responds to in a text.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::library::{self, DataArgs, EmbeddedRecords};
use super::model::{self, Opened, Wanted};
use super::runtime;
use anyhow::{Context, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use tdb_collate::corpus::{Cutting, Shard, Unreadable};
use tdb_collate::output::{self, Autoencoders, Layouts};
use tdb_collate::summary::fingerprint;
use tdb_collate::work::{describe_corpus, fingerprint_corpus, split_layers};
use tdb_collate::{Collation, Kind, Plan, Sizes, Watch};
use tdb_data::collated::Encoding;
use tdb_model::Transformer;

/// Collect the examples that excite every neuron, head and latent of a model most
///
/// The work is cut into shards of the text and ranges of layers. A run that was interrupted keeps what was finished and
/// goes on from there when the same command is given again. With --shard, several machines can each make a part; copy
/// their summaries into one folder and merge them with --merge.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Model: a registered name or a folder. Without it, the small model inside the program, with its autoencoders
    #[arg(long, value_name = "NAME|FOLDER")]
    pub model: Option<String>,
    /// Plain text (documents separated by empty lines, or by <|endoftext|>), JSON (lines or a list) or Parquet files; the
    /// latter two have their text in `text`. Packed with gzip or zstd as well
    #[arg(value_name = "TEXT", required = true)]
    pub text: Vec<PathBuf>,
    /// Where everything goes: summaries/, records/, explanations/, if wanted files/, and registry.toml, with which
    /// `tdb serve --registry` shows it all
    #[arg(long, value_name = "FOLDER")]
    pub out: PathBuf,
    /// Autoencoders on the MLP (neurons or output): a registered name or a folder
    #[arg(long, value_name = "NAME|FOLDER")]
    pub mlp_autoencoder: Option<String>,
    /// Autoencoders on the attention layers' output, likewise
    #[arg(long, value_name = "NAME|FOLDER")]
    pub attn_autoencoder: Option<String>,
    /// Dictionary at any site, likewise; may be repeated for other sites. What its files do not say is written after it,
    /// as for `tdb serve`
    #[arg(long, value_name = "NAME|FOLDER[,KEY=VALUE]")]
    pub dictionary: Vec<String>,
    /// Only these scalars, by name; without it, all that the model has
    #[arg(long, value_name = "SCALAR")]
    pub only: Vec<String>,
    /// Tokens in an example
    #[arg(long, default_value_t = 64)]
    pub tokens: usize,
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
    /// Let what units do at the first token of an example count among their largest values. Many fire there whatever it is
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
    pub summaries: Option<PathBuf>,
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
    #[arg(long)]
    pub date: Option<String>,
    /// Sequences run side by side, one on each thread; all cores if not given
    #[arg(long)]
    pub threads: Option<usize>,
    #[command(flatten)]
    pub data: DataArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Layout {
    Layers,
    Files,
    Both,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Values {
    /// As they are
    F32,
    /// Rounded to about three digits
    F16,
    /// In 256 steps
    U8,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    // The text is looked at first: a wrong name should not cost the loading of a model.
    let corpus = describe_corpus(&args.text)?;
    let Opened { name, model, tokenizer, beginning, mlp_autoencoder, attn_autoencoder, residual_autoencoder, .. } =
        open(args)?;
    let autoencoders =
        Autoencoders { mlp: mlp_autoencoder, attention: attn_autoencoder, residual: residual_autoencoder };
    let (shard, shards) = match &args.shard {
        Some(text) => {
            let shard = Shard::parse(text)?;
            (Some(shard.index), shard.count)
        }
        None => (None, args.shards),
    };
    ensure!(shards > 0, "--shards must be at least 1");
    let window = model.config().ctx_window;
    ensure!(args.tokens <= window, "--tokens is {}, but the model sees at most {window}", args.tokens);
    let first = model::first(args.first.as_deref(), &tokenizer, beginning)?;
    let n_layers = model.config().n_layers;
    let layers = args.layers.as_deref().map_or(Ok(0..n_layers), |text| parse_layers(text, n_layers))?;
    let plan = Plan {
        model: name,
        fingerprint: fingerprint(&model)?,
        autoencoders: autoencoders.mlp.iter().chain(&autoencoders.attention).cloned().collect(),
        corpus,
        content: fingerprint_corpus(&args.text)?,
        cutting: Cutting { tokens: args.tokens, first },
        sizes: Sizes { top: args.k, random: args.random, quantiles: args.quantiles, per_quantile: args.per_quantile },
        first_counts: args.first_counts,
        kinds: kinds(args, &model)?,
        seed: args.seed,
        shards,
    };
    let layouts = Layouts {
        layer_files: (args.layout != Layout::Files).then_some(match args.values {
            Values::F32 => Encoding::F32,
            Values::F16 => Encoding::F16,
            Values::U8 => Encoding::U8,
        }),
        shown: args.show.as_deref().map(|text| shown(text, &plan.sizes)).transpose()?,
        single_files: args.layout != Layout::Layers,
        explanations: (!args.no_explanations).then(|| args.date.clone().unwrap_or_else(tdb_explain::date::now)),
    };
    let collation = Collation {
        model: &model,
        tokenizer: &tokenizer,
        files: &args.text,
        layers: split_layers(layers, args.layers_at_once.unwrap_or(n_layers)),
        threads: args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get())),
        folder: args.summaries.clone().unwrap_or_else(|| args.out.join("summaries")),
        unreadable: Unreadable::up_to(args.max_unreadable),
        plan,
    };
    let progress = Progress::new()?;
    if !args.merge {
        let done = collation.run(shard, &progress)?;
        let say = format!("{} work units made, {} were there already", done.made, done.kept);
        progress.bar.suspend(|| eprintln!("{say}"));
    }
    if shard.is_none() {
        output::write(&collation, &layouts, &args.out, &progress)?;
        output::write_registry(&collation.plan, &autoencoders, &layouts, &args.out)?;
    }
    progress.bar.finish_and_clear();
    if let Some(left_out) = left_out(&collation.unreadable) {
        eprintln!("{left_out}");
    }
    match &args.shard {
        Some(shard) => println!(
            "Shard {shard} is in {}; when all are in one folder, --merge makes records of them.",
            collation.folder.display()
        ),
        None => println!(
            "{} holds what was collated. To see it:\n  {}",
            args.out.display(),
            serving(args, &args.out.join(output::REGISTRY))
        ),
    }
    Ok(())
}

/// What is said of documents that could not be read.
pub(super) fn left_out(unreadable: &Unreadable) -> Option<String> {
    let first = unreadable.first()?;
    Some(match unreadable.count() {
        1 => format!("1 document could not be read and was left out: {first}"),
        n => format!("{n} documents could not be read and were left out, such as {first}"),
    })
}

/// The command that shows what was collated.
fn serving(args: &Args, registry: &Path) -> String {
    let given = [
        ("--model", &args.model),
        ("--mlp-autoencoder", &args.mlp_autoencoder),
        ("--attn-autoencoder", &args.attn_autoencoder),
    ];
    let mut line = "tdb serve".to_owned();
    for (flag, value) in given {
        if let Some(value) = value {
            line += &format!(" {flag} {value}");
        }
    }
    for dictionary in &args.dictionary {
        line += &format!(" --dictionary {dictionary}");
    }
    line + &format!(" --registry {}", registry.display())
}

/// The model with the autoencoders.
fn open(args: &Args) -> anyhow::Result<Opened> {
    let wanted = Wanted {
        model: args.model.as_deref(),
        mlp_autoencoder: args.mlp_autoencoder.as_deref(),
        attn_autoencoder: args.attn_autoencoder.as_deref(),
        dictionaries: &args.dictionary,
        dead_latents: true,
        ..Wanted::default()
    };
    let runtime = runtime::new()?;
    model::open(&wanted, &library::open(&args.data, EmbeddedRecords::LeftOut)?, runtime.handle())
}

/// What is asked for, or all that the model has.
fn kinds(args: &Args, model: &Transformer) -> anyhow::Result<Vec<Kind>> {
    let has = |kind: &Kind| (0..model.config().n_layers).any(|layer| kind.count(model, layer) > 0);
    if args.only.is_empty() {
        return Ok(Kind::ALL.into_iter().filter(has).collect());
    }
    for name in &args.only {
        let known = Kind::ALL.map(Kind::scalar).join(", ");
        let kind = Kind::ALL.into_iter().find(|k| k.scalar() == name);
        let kind = kind.with_context(|| format!("--only: {name:?} is not collated; there are {known}"))?;
        ensure!(has(&kind), "--only: {name} needs autoencoders, and none were given for it");
    }
    Ok(Kind::ALL.into_iter().filter(|k| args.only.iter().any(|name| k.scalar() == name)).collect())
}

fn parse_layers(text: &str, n_layers: usize) -> anyhow::Result<Range<usize>> {
    let parsed = text.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    let good = parsed.filter(|r: &Range<usize>| r.start < r.end && r.end <= n_layers);
    good.with_context(|| format!("--layers is {text:?}; expected FROM..TO within 0..{n_layers}, such as 0..{n_layers}"))
}

/// What of the collated examples a file shows.
fn shown(text: &str, all: &Sizes) -> anyhow::Result<Sizes> {
    let numbers = text.split(',').map(|n| n.trim().parse::<usize>()).collect::<Result<Vec<_>, _>>();
    match numbers.as_deref() {
        Ok(&[top, random, per_quantile]) => Ok(Sizes { top, random, per_quantile, ..*all }),
        _ => anyhow::bail!("--show is {text:?}; expected three numbers such as 6,3,1"),
    }
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
