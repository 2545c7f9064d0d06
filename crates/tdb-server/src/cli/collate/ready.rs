//! A collation, from what was asked for to what is needed to do it.

use std::ops::Range;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use tdb_collate::corpus::{Cutting, Shard, Unreadable, Versions};
use tdb_collate::output::{self, Autoencoders, Layouts, Target};
use tdb_collate::summary::{VERSION, fingerprint};
use tdb_collate::work::{describe_corpus, fingerprint_corpus, split_layers};
use tdb_collate::{Collation, Kind, Plan, Sizes, Summaries};
use tdb_data::collated::Encoding;
use tdb_data::{Fetcher, Location};
use tdb_model::Transformer;
use tokio::runtime::Runtime;

use super::{Args, Layout, Values};
use crate::cli::library::{self, EmbeddedRecords};
use crate::cli::model::{self, Opened, Wanted};
use crate::cli::{runtime, within};

/// Examples of one kind that are kept of a unit at most.
const MOST_EXAMPLES: usize = 10_000;

/// Parts that a text is cut into at most.
const MOST_SHARDS: usize = 1 << 16;

/// All that a collation needs, opened and checked.
pub struct Ready {
    opened: Opened,
    files: Vec<PathBuf>,
    versions: Versions,
    pub plan: Plan,
    layers: Vec<Range<usize>>,
    threads: usize,
    summaries: Summaries,
    unreadable: Unreadable,
    /// The only one that is asked for.
    pub shard: Option<usize>,
    pub layouts: Layouts,
    pub out: Target,
    /// Requests to stores run on it.
    _runtime: Runtime,
}

impl Ready {
    /// Opens what the arguments name. The text is looked at first: a wrong name should not cost the loading of a model.
    ///
    /// # Errors
    /// If something is not there, or does not fit together.
    pub fn new(args: &Args) -> anyhow::Result<Self> {
        let runtime = runtime::new()?;
        let library = library::open(&args.data, EmbeddedRecords::LeftOut)?;
        let (out, summaries) = places(args, library.fetcher(), &runtime)?;
        let files = texts(&args.text, library.fetcher(), &runtime)?;
        let versions = Versions::of(&files)?;
        let corpus = describe_corpus(&files)?;
        let wanted = Wanted {
            model: args.model.as_deref(),
            models: args.models.as_deref(),
            mlp_autoencoder: args.mlp_autoencoder.as_deref(),
            attn_autoencoder: args.attn_autoencoder.as_deref(),
            dictionaries: &args.dictionary,
            dead_latents: true,
            ..Wanted::default()
        };
        let opened = model::open(&wanted, &library, runtime.handle())?;
        let (shard, shards) = match &args.shard {
            Some(text) => {
                let shard = Shard::parse(text)?;
                (Some(shard.index), shard.count)
            }
            None => (None, args.shards),
        };
        let plan = plan(args, &opened, corpus, &files, shards)?;
        let n_layers = opened.model.config().n_layers;
        let layers = args.layers.as_deref().map_or(Ok(0..n_layers), |text| parse_layers(text, n_layers))?;
        Ok(Self {
            layouts: layouts(args, &plan)?,
            layers: split_layers(layers, args.layers_at_once.unwrap_or(n_layers)),
            threads: args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get())),
            unreadable: Unreadable::up_to(args.max_unreadable),
            _runtime: runtime,
            opened,
            files,
            versions,
            plan,
            summaries,
            shard,
            out,
        })
    }

    /// The collation.
    pub fn collation(&self) -> Collation<'_> {
        Collation {
            model: &self.opened.model,
            tokenizer: &self.opened.tokenizer,
            files: &self.files,
            versions: self.versions.clone(),
            plan: self.plan.clone(),
            layers: self.layers.clone(),
            threads: self.threads,
            summaries: self.summaries.clone(),
            unreadable: self.unreadable.clone(),
        }
    }

    /// Makes sure, before anything is computed, that what is computed can be written.
    ///
    /// # Errors
    /// If it cannot.
    pub fn check_writable(&self) -> anyhow::Result<()> {
        self.out.check_writable()?;
        Ok(self.summaries.check_writable()?)
    }

    /// Writes the file that lists the results for `tdb serve`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_registry(&self) -> anyhow::Result<()> {
        let autoencoders = Autoencoders {
            mlp: self.opened.mlp_autoencoder.clone(),
            attention: self.opened.attn_autoencoder.clone(),
            residual: self.opened.residual_autoencoder.clone(),
        };
        Ok(output::write_registry(&self.plan, &autoencoders, &self.layouts, &self.out)?)
    }

    /// What a person is told in the end.
    pub fn told(&self, args: &Args) -> String {
        let registry = self.out.name_of(output::REGISTRY);
        format!("{} holds what was collated. To see it:\n  {}", self.out.name(), serving(args, &registry))
    }
}

/// Where results and summaries go.
fn places(args: &Args, fetcher: &Fetcher, runtime: &Runtime) -> anyhow::Result<(Target, Summaries)> {
    let open = |location: &Location| fetcher.folder(location, runtime.handle());
    let location = Location::parse(&args.out)?;
    let (out, summaries) = match location.local() {
        Some(folder) => (Target::Local(folder.to_owned()), Summaries::Local(folder.join("summaries"))),
        None => {
            let folder = open(&location)?;
            let summaries = Summaries::Store(folder.folder("summaries")?);
            (Target::store(folder)?, summaries)
        }
    };
    let Some(place) = &args.summaries else { return Ok((out, summaries)) };
    let location = Location::parse(place)?;
    Ok(match location.local() {
        Some(folder) => (out, Summaries::Local(folder.to_owned())),
        None => (out, Summaries::Store(open(&location)?)),
    })
}

/// Where the texts are on this machine; those of stores are fetched.
fn texts(places: &[String], fetcher: &Fetcher, runtime: &Runtime) -> anyhow::Result<Vec<PathBuf>> {
    let file = |place: &String| -> anyhow::Result<PathBuf> {
        let location = Location::parse(place)?;
        match location.local() {
            Some(path) => Ok(path.to_owned()),
            None => Ok(runtime.block_on(fetcher.file(&location, &()))?),
        }
    };
    places.iter().map(file).collect()
}

fn plan(
    args: &Args,
    opened: &Opened,
    corpus: Vec<(String, u64)>,
    files: &[PathBuf],
    shards: usize,
) -> anyhow::Result<Plan> {
    within("--shards", shards, 1..=MOST_SHARDS)?;
    // An empty list for each of these is made for every unit of a layer.
    let sizes = [("--k", args.k), ("--random", args.random), ("--quantiles", args.quantiles)];
    for (name, size) in sizes.into_iter().chain([("--per-quantile", args.per_quantile)]) {
        within(name, size, 0..=MOST_EXAMPLES)?;
    }
    let Opened { name, model, tokenizer, beginning, mlp_autoencoder, attn_autoencoder, residual_autoencoder, .. } =
        opened;
    let window = model.config().ctx_window;
    let tokens = args.tokens.unwrap_or(window.min(64));
    ensure!((1..=window).contains(&tokens), "--tokens is {tokens}; this model takes 1 to {window} tokens");
    let autoencoders = mlp_autoencoder.iter().chain(attn_autoencoder).chain(residual_autoencoder);
    Ok(Plan {
        model: name.clone(),
        fingerprint: fingerprint(model)?,
        autoencoders: autoencoders.cloned().collect(),
        corpus,
        content: fingerprint_corpus(files)?,
        cutting: Cutting { tokens, first: model::first(args.first.as_deref(), tokenizer, *beginning)? },
        sizes: Sizes { top: args.k, random: args.random, quantiles: args.quantiles, per_quantile: args.per_quantile },
        first_counts: args.first_counts,
        kinds: kinds(args, model)?,
        seed: args.seed,
        shards,
        version: VERSION.to_owned(),
    })
}

fn layouts(args: &Args, plan: &Plan) -> anyhow::Result<Layouts> {
    Ok(Layouts {
        layer_files: (args.layout != Layout::Files).then_some(match args.values {
            Values::F32 => Encoding::F32,
            Values::F16 => Encoding::F16,
            Values::U8 => Encoding::U8,
        }),
        shown: args.show.as_deref().map(|text| shown(text, &plan.sizes)).transpose()?,
        single_files: args.layout != Layout::Layers,
        explanations: (!args.no_explanations).then(|| args.date.clone().unwrap_or_else(tdb_explain::date::now)),
    })
}

/// The command that shows what was collated.
fn serving(args: &Args, registry: &str) -> String {
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
    line + &format!(" --registry {registry}")
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
