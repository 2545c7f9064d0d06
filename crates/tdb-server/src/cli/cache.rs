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
    /// Remove what was fetched from an address and from below it, also what was begun and not finished
    Clear {
        /// Such as `https://example.org/models`; without it, `--all` is needed
        prefix: Option<String>,
        /// Everything
        #[arg(long, conflicts_with = "prefix")]
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
        Some(What::Clear { prefix: Some(prefix), .. }) if prefix.is_empty() => {
            bail!("the prefix is empty; to remove everything say --all")
        }
        Some(What::Clear { prefix, .. }) => return clear(&cache, prefix.as_deref()),
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
            false => say!("{:>12}  {count:>7} {:<5}  {name}", size(*bytes), word(*count)),
        }
    }
    let total: u64 = entries.iter().map(|e| e.meta.size).sum();
    say!("{} in {}, in {}", size(total), files_of(entries.len()), cache.root().display());
    let unfinished = cache.unfinished();
    if !unfinished.is_empty() {
        let bytes = unfinished.iter().map(|file| file.size).sum();
        say!("{} in {} that were begun and not finished", size(bytes), files_of(unfinished.len()));
    }
}

fn word(count: usize) -> &'static str {
    if count == 1 { "file" } else { "files" }
}

fn files_of(count: usize) -> String {
    format!("{count} {}", word(count))
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

fn clear(cache: &Cache, prefix: Option<&str>) -> anyhow::Result<()> {
    let cleared = cache.clear(prefix);
    let unfinished = match cleared.unfinished {
        0 => String::new(),
        n => format!(" and {} not finished", files_of(n)),
    };
    say!("removed {}{unfinished}, {}", files_of(cleared.files), size(cleared.bytes));
    tell_left(&cleared.left)
}

fn verify(cache: &Cache, drop: bool) -> anyhow::Result<()> {
    let verified = cache.verify(drop);
    for damage in &verified.damaged {
        say!("{damage}");
    }
    match (verified.damaged.len(), drop) {
        (0, _) => say!("every file is as it was fetched"),
        (_, true) => say!("removed {} of what is damaged", files_of(verified.removed)),
        (1, false) => bail!("1 file is damaged; --drop removes it"),
        (n, false) => bail!("{n} files are damaged; --drop removes them"),
    }
    tell_left(&verified.left)
}

/// Fails if something could not be removed.
fn tell_left(left: &[tdb_data::Error]) -> anyhow::Result<()> {
    for error in left {
        say!("{error}");
    }
    if left.is_empty() { Ok(()) } else { bail!("what is named above could not be removed") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    /// What a command says where it fails.
    fn failure(cache: &Path, what: What) -> Option<String> {
        let args = Args { what: Some(what), cache: Some(cache.to_owned()) };
        run(&args).err().map(|error| error.to_string())
    }

    #[test]
    fn nothing_goes_unasked_and_what_stays_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let [file, meta] =
            ["files/https/example.org/x", "meta/https/example.org/x.json"].map(|p| folder.path().join(p));
        for path in [&file, &meta] {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
        }
        let description = r#"{"location": "https://example.org/x", "size": 5, "crc64": "0", "fetched": 0}"#;
        let put = || {
            fs::write(&file, "hello").unwrap();
            fs::write(&meta, description).unwrap();
        };
        put();
        let clear = |prefix: &str| What::Clear { prefix: Some(prefix.to_owned()), all: false };
        assert!(failure(folder.path(), clear("")).unwrap().contains("say --all"));
        assert!(file.exists());
        let damaged = failure(folder.path(), What::Verify { drop: false });
        assert_eq!(damaged.as_deref(), Some("1 file is damaged; --drop removes it"));
        assert_eq!(failure(folder.path(), What::Verify { drop: true }), None);
        assert!(!file.exists());
        // A folder cannot be removed as a file.
        for what in [What::Verify { drop: true }, clear("https://example.org")] {
            fs::create_dir_all(&file).unwrap();
            fs::write(&meta, description).unwrap();
            assert!(failure(folder.path(), what).unwrap().contains("could not be removed"));
        }
        fs::remove_dir(&file).unwrap();
        put();
        assert_eq!(failure(folder.path(), clear("https://example.org")), None);
        assert!(!file.exists() && !meta.exists());
    }
}
