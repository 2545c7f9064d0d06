//! The registry and the library of records that a command works with.

use super::embedded;
use anyhow::Context;
use std::path::{Path, PathBuf};
use tdb_data::{FetchConfig, Fetcher, Library, Location, Mirror, Registry, parse_size, platform_folder};
use tokio::runtime::Builder;

/// Where data comes from and where it is kept.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct DataArgs {
    /// File that adds to the registry of models, autoencoders, records and explanations; it may be in a store (s3://…)
    #[arg(long, env = "TDB_REGISTRY", value_name = "FILE")]
    pub registry: Vec<String>,
    /// Read locations that begin with PREFIX from a folder or another address
    #[arg(long, value_name = "PREFIX=FOLDER|URL")]
    pub mirror: Vec<String>,
    /// Use what is on this machine and nothing else
    #[arg(long)]
    pub offline: bool,
    /// Read files of records of at least this size in their store (s3://, az://, gs://) rather than fetch them; 16M if
    /// not given
    #[arg(long, value_name = "SIZE")]
    pub in_place_from: Option<String>,
    /// Folder of the cache, instead of TDB_CACHE or the platform's
    #[arg(long, value_name = "FOLDER")]
    pub cache: Option<PathBuf>,
}

/// Whether the embedded model's own records belong to what is listed: where another model is served, they do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmbeddedRecords {
    Listed,
    LeftOut,
}

/// The built-in registry, the embedded model's records, and what the files add to both.
fn registry(args: &DataArgs, embedded: EmbeddedRecords) -> anyhow::Result<Registry> {
    let mut registry = Registry::built_in()?;
    if embedded == EmbeddedRecords::Listed {
        registry.extend(Registry::parse("the embedded model's registry", embedded::REGISTRY)?);
    }
    for file in &args.registry {
        let location = Location::parse(file)?;
        let added = match location.local() {
            Some(path) => Registry::read(path)?,
            None => {
                let fetcher = fetcher(args, &registry)?;
                let runtime = Builder::new_current_thread().enable_all().build().context("no thread to fetch with")?;
                runtime.block_on(Registry::fetch(&location, &fetcher))?
            }
        };
        registry.extend(added);
    }
    Ok(registry)
}

/// The library of what the registry lists. Explanations written here go to the folder `TDB_EXPLANATIONS`, or to one in
/// the platform's folder for data.
pub fn open(args: &DataArgs, embedded: EmbeddedRecords) -> anyhow::Result<Library> {
    let registry = registry(args, embedded)?;
    let fetcher = fetcher(args, &registry)?;
    let own = std::env::var_os("TDB_EXPLANATIONS").map(PathBuf::from);
    let own = own.or_else(|| platform_folder("data")).unwrap_or_else(|| Path::new(".tdb").to_owned());
    Ok(Library::new(registry, fetcher, own.join("explanations")))
}

/// What fetches the files that the registry lists. The command line's mirrors come before the registry's.
pub fn fetcher(args: &DataArgs, registry: &Registry) -> anyhow::Result<Fetcher> {
    let mut config = FetchConfig::from_env()?;
    config.embedded = embedded::file;
    config.mirrors = args.mirror.iter().map(|rule| Mirror::parse(rule)).collect::<Result<_, _>>()?;
    config.offline |= args.offline;
    if let Some(size) = &args.in_place_from {
        let bytes = parse_size(size);
        config.in_place_from =
            bytes.with_context(|| format!("--in-place-from is {size:?}; expected a size such as 16M"))?;
    }
    if let Some(folder) = &args.cache {
        config.cache.clone_from(folder);
    }
    Ok(Fetcher::new(config.with_registry(registry)?, registry))
}
