//! `tdb fetch`: everything that a machine needs before it goes offline.

use super::library::{self, DataArgs};
use super::output::say;
use super::progress::{Bars, numbers, size};
use super::runtime;
use anyhow::{Context, bail};
use futures::{StreamExt, stream};
use std::path::PathBuf;
use tdb_data::{
    AutoencoderEntry, Error, Fetcher, Library, Location, ModelEntry, Progress, RecordsEntry, Registry,
    autoencoder_files, fetch_dictionary, fetch_model, hub_model,
};

/// Fetch models, autoencoders, records and explanations into the cache, so that they are there without a network
///
/// What is there already is not fetched again, and what was begun is continued.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Models: registered names, or owner/name[@revision] of Hugging Face's hub
    #[arg(value_name = "MODEL")]
    pub models: Vec<String>,
    /// Autoencoders of these models, by name, separated by commas; or "all". Folders of Hugging Face's hub, of any
    /// model: hf:owner/name[@revision]/path
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub autoencoders: Vec<String>,
    /// Sets of records, by name, with the explanations of the same nodes
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "layers", requires = "nodes")]
    pub records: Vec<String>,
    /// Layers of the nodes whose records are fetched, such as 0-3,7
    #[arg(long, value_name = "NUMBERS", value_parser = numbers)]
    pub layers: Option<std::vec::Vec<usize>>,
    /// Nodes whose records are fetched, such as 0-99
    #[arg(long, value_name = "NUMBERS", value_parser = numbers)]
    pub nodes: Option<std::vec::Vec<usize>>,
    #[command(flatten)]
    pub data: DataArgs,
}

/// Records that are on their way at the same time.
const PARALLEL: usize = 16;

pub fn run(args: &Args) -> anyhow::Result<()> {
    if args.models.is_empty() && args.records.is_empty() && !args.autoencoders.iter().any(|name| is_of_hub(name)) {
        bail!("name a model, such as gpt2-small, or a set of records (--records)");
    }
    let runtime = runtime::new()?;
    let library = library::open(&args.data, library::EmbeddedRecords::Listed)?;
    runtime.block_on(fetch(args, &library))
}

/// The model of a registered name, or of a name on Hugging Face's hub.
///
/// # Errors
/// If it is neither.
pub fn entry(registry: &Registry, name: &str) -> Result<ModelEntry, Error> {
    registry.model(name).cloned().or_else(|unknown| match unknown.is_not_found() {
        true => hub_model(name).ok_or(unknown),
        false => Err(unknown),
    })
}

/// The folder of a model's files, fetched with bars if they are not here.
pub async fn model(fetcher: &Fetcher, entry: &ModelEntry) -> anyhow::Result<PathBuf> {
    let bars = Bars::of(&entry.name, &Location::parse(&entry.location)?.join("config.json")?, fetcher);
    let fetched = fetch_model(fetcher, entry, &bars).await;
    bars.finish();
    Ok(fetched?.0)
}

/// An autoencoder's files, likewise; there is at least one.
pub async fn autoencoder(fetcher: &Fetcher, entry: &AutoencoderEntry) -> anyhow::Result<Vec<PathBuf>> {
    let wanted = autoencoder_files(entry)?;
    let first = wanted.first().with_context(|| format!("autoencoder {} has no files", entry.name))?;
    let bars = Bars::of(&entry.name, first, fetcher);
    let files = fetcher.files(&wanted, &bars).await;
    bars.finish();
    Ok(files?)
}

/// The folder of a dictionary of Hugging Face's hub, likewise.
pub async fn hub_dictionary(fetcher: &Fetcher, name: &str) -> anyhow::Result<PathBuf> {
    let location = tdb_data::hub_dictionary(name)?;
    let bars = Bars::titled(name);
    let fetched = fetch_dictionary(fetcher, &location, &bars).await;
    bars.finish();
    Ok(fetched?)
}

fn is_of_hub(name: &str) -> bool {
    name.starts_with("hf:")
}

async fn fetch(args: &Args, library: &Library) -> anyhow::Result<()> {
    let (registry, fetcher) = (library.registry(), library.fetcher());
    let (of_hub, registered): (Vec<&String>, Vec<&String>) = args.autoencoders.iter().partition(|name| is_of_hub(name));
    for name in of_hub {
        say!("{name}: {}", hub_dictionary(fetcher, name).await?.display());
    }
    for name in &args.models {
        say!("{name}: {}", model(fetcher, &entry(registry, name)?).await?.display());
        let of_model = || registry.autoencoders.iter().filter(|a| a.model == *name);
        let wanted: Vec<_> = if registered.iter().any(|a| *a == "all") {
            of_model().collect()
        } else {
            registered.iter().map(|a| registry.autoencoder(name, a)).collect::<Result<_, _>>()?
        };
        for entry in wanted {
            say!("{}: {} files", entry.name, autoencoder(fetcher, entry).await?.len());
        }
    }
    let (layers, nodes) = (args.layers.as_deref().unwrap_or_default(), args.nodes.as_deref().unwrap_or_default());
    for name in &args.records {
        let sets: Vec<_> = registry.records.iter().filter(|r| r.name == *name).collect();
        if sets.is_empty() {
            let known: Vec<_> = registry.records.iter().map(|r| r.name.as_str()).collect();
            bail!("no set of records {name:?} is registered; there are {}", known.join(", "));
        }
        for set in sets {
            let bars = Bars::new();
            let counts = records(library, set, layers, nodes, &bars).await;
            bars.finish();
            let (found, missing) = counts?;
            say!("{name} ({}): {found} records, {missing} that do not exist", set.scalar);
        }
    }
    let held: u64 = fetcher.cache().entries().iter().map(|e| e.meta.size).sum();
    say!("{} in {}", size(held), fetcher.cache().root().display());
    Ok(())
}

/// How many records of a set were found, and how many are not there.
async fn records(
    library: &Library,
    set: &RecordsEntry,
    layers: &[usize],
    nodes: &[usize],
    bars: &Bars,
) -> anyhow::Result<(usize, usize)> {
    bars.expect(layers.len() * nodes.len());
    let all = layers.iter().flat_map(|layer| nodes.iter().map(move |node| (*layer, *node)));
    let one = |(layer, node)| async move {
        let name = format!("{} {layer}:{node}", set.name);
        let found = library.record_in(set, layer, node).await;
        bars.finished(&name, false);
        match found {
            Ok(_) => library.explanations(set, layer, node).await.map(|_| true),
            Err(Error::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    };
    let mut found = stream::iter(all).map(one).buffer_unordered(PARALLEL);
    let mut counts = (0, 0);
    while let Some(there) = found.next().await {
        match there? {
            true => counts.0 += 1,
            false => counts.1 += 1,
        }
    }
    Ok(counts)
}
