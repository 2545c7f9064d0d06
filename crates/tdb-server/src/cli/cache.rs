//! `tdb cache`: what was fetched and is kept.

use super::output::say;
use super::progress::size;
use anyhow::bail;
use clap::Subcommand;
use std::collections::BTreeMap;
use std::path::PathBuf;
use tdb_data::{Cache, Entry, FetchConfig};

/// Show, check or clear the files that were fetched
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// Folder of the cache, instead of TDB_CACHE or the platform's
    #[arg(long, value_name = "FOLDER", global = true)]
    cache: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show how much there is, from where
    List {
        /// Every file by itself
        #[arg(long)]
        files: bool,
    },
    /// Read every file and compare it with its checksum
    Verify {
        /// Remove what is damaged; it is fetched again when it is needed
        #[arg(long)]
        drop: bool,
    },
    /// Remove what begins with a prefix
    Clear {
        /// Such as `https://example.org/models/`; without it, `--all` is needed
        prefix: Option<String>,
        /// Everything, also what was begun and not finished
        #[arg(long)]
        all: bool,
    },
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let config = FetchConfig::from_env()?;
    let cache = Cache::new(args.cache.clone().unwrap_or(config.cache), config.cache_limit);
    match &args.what {
        None => list(&cache, false),
        Some(What::List { files }) => list(&cache, *files),
        Some(What::Verify { drop }) => return verify(&cache, *drop),
        Some(What::Clear { prefix: None, all: false }) => bail!("say what to remove: a prefix, or --all"),
        Some(What::Clear { prefix, .. }) => {
            let (files, bytes) = cache.clear(prefix.as_deref().unwrap_or_default());
            say!("removed {files} files, {}", size(bytes));
        }
    }
    Ok(())
}

fn list(cache: &Cache, files: bool) {
    let entries = cache.entries();
    let mut groups: BTreeMap<String, (usize, u64)> = BTreeMap::new();
    for entry in &entries {
        let name = if files { entry.meta.location.clone() } else { group(entry) };
        let counts = groups.entry(name).or_default();
        *counts = (counts.0 + 1, counts.1 + entry.meta.size);
    }
    for (name, (count, bytes)) in &groups {
        match files {
            true => say!("{:>12}  {name}", size(*bytes)),
            false => say!("{:>12}  {count:>7} files  {name}", size(*bytes)),
        }
    }
    let total: u64 = entries.iter().map(|e| e.meta.size).sum();
    say!("{} in {} files, in {}", size(total), entries.len(), cache.root().display());
}

/// The folder that a file belongs to: its location without what numbers it.
fn group(entry: &Entry) -> String {
    let parts: Vec<&str> = entry.meta.location.split('/').collect();
    let named = |part: &&str| !part.split('.').next().unwrap_or(part).chars().all(|c| c.is_ascii_digit());
    let (_, folders) = parts.split_last().unwrap_or((&"", &[]));
    // Of an address the host stays, also where it is a number.
    let host = if entry.meta.location.contains("://") { 3 } else { 0 };
    let kept = folders.iter().copied().enumerate().filter(|(i, part)| *i < host || named(part));
    kept.map(|(_, part)| part).collect::<Vec<_>>().join("/")
}

fn verify(cache: &Cache, drop: bool) -> anyhow::Result<()> {
    let damaged = cache.verify(drop);
    for entry in &damaged {
        say!("{}", entry.meta.location);
    }
    match (damaged.len(), drop) {
        (0, _) => say!("every file is as it was fetched"),
        (n, true) => say!("{n} damaged files were removed"),
        (n, false) => bail!("{n} files are damaged; --drop removes them"),
    }
    Ok(())
}
