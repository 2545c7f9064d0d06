//! The cache that Hugging Face's own tools share, read but never written to.
//!
//! ```text
//! <cache>/models--<owner>--<name>/refs/<revision>          the commit that the revision was
//! <cache>/models--<owner>--<name>/snapshots/<commit>/…     its files
//! ```

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::location::Root;
use crate::{Location, local};

/// Weights, in one file or in several that `<name>.index.json` lists; the last is what models of TransformerLens have.
pub(crate) const WEIGHTS: [&str; 3] = ["model.safetensors", "pytorch_model.bin", "model_final.pth"];

/// An index of shards or a reference is no larger than this.
const MAX_BYTES: usize = 16 << 20;

/// The folder, as `HF_HUB_CACHE`, `HF_HOME` or the home folder give it.
pub(crate) fn folder_from_env() -> Option<PathBuf> {
    let var = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    var("HF_HUB_CACHE")
        .or_else(|| var("HUGGINGFACE_HUB_CACHE"))
        .or_else(|| home_from_env().map(|home| home.join("hub")))
}

/// The token in `HF_TOKEN`, or the one that was stored when somebody logged in.
pub(crate) fn token_from_env() -> Option<String> {
    let var = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let stored = || {
        let path = var("HF_TOKEN_PATH").map(PathBuf::from).or_else(|| Some(home_from_env()?.join("token")))?;
        String::from_utf8(local::read(&path, 4096).ok()?).ok()
    };
    let said = var("HF_TOKEN").map(|token: OsString| token.to_string_lossy().into_owned());
    said.or_else(stored).map(|token| token.trim().to_owned()).filter(|token| !token.is_empty())
}

/// Whether Hugging Face's tools are told to stay offline.
pub(crate) fn is_offline_from_env() -> bool {
    let on = |name: &str| {
        std::env::var(name).is_ok_and(|value| ["1", "ON", "YES", "TRUE"].contains(&&*value.to_uppercase()))
    };
    on("HF_HUB_OFFLINE") || on("TRANSFORMERS_OFFLINE")
}

fn home_from_env() -> Option<PathBuf> {
    let var = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = || var("XDG_CACHE_HOME").or_else(|| Some(var("HOME").or_else(|| var("USERPROFILE"))?.join(".cache")));
    var("HF_HOME").or_else(|| Some(cache()?.join("huggingface")))
}

/// The whole model that `cache` has of a repository at a revision: the folder of its files.
pub(crate) fn snapshot(cache: &Path, location: &Location) -> Option<PathBuf> {
    folder(cache, location).filter(|found| is_whole(found))
}

/// The folder that `cache` has of a repository's folder at a revision, whole or not.
pub(crate) fn folder(cache: &Path, location: &Location) -> Option<PathBuf> {
    let Root::HuggingFace { repository, revision } = location.root() else { return None };
    let folder = cache.join(format!("models--{}", repository.replace('/', "--")));
    let commit = commit_of(&folder, revision).unwrap_or_else(|| revision.clone());
    Some(folder.join("snapshots").join(commit).join(location.path())).filter(|found| found.is_dir())
}

/// The snapshot in a folder of this cache: that of the branch `main`, or the only one.
pub fn snapshot_in(folder: &Path) -> Option<PathBuf> {
    let snapshots = folder.join("snapshots");
    if let Some(commit) = commit_of(folder, "main") {
        return Some(snapshots.join(commit)).filter(|found| found.is_dir());
    }
    let mut all = std::fs::read_dir(snapshots).ok()?.flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
    let only = all.next()?;
    all.next().is_none().then_some(only)
}

/// The repository whose files lie in a folder of this cache or in one of its snapshots.
pub fn repository_of(folder: &Path) -> Option<String> {
    let of_name = |folder: &Path| {
        let name = folder.file_name()?.to_str()?.strip_prefix("models--")?;
        Some(name.replacen("--", "/", 1))
    };
    of_name(folder).or_else(|| of_name(folder.parent()?.parent()?))
}

/// The repositories of which `cache` has a whole model, in order.
pub(crate) fn models(cache: &Path) -> Vec<String> {
    let folders = std::fs::read_dir(cache).into_iter().flatten().flatten().map(|entry| entry.path());
    let whole = folders.filter(|folder| snapshot_in(folder).is_some_and(|snapshot| is_whole(&snapshot)));
    let mut names: Vec<String> = whole.filter_map(|folder| repository_of(&folder)).collect();
    names.sort();
    names
}

fn commit_of(folder: &Path, revision: &str) -> Option<String> {
    let text = String::from_utf8(local::read(&folder.join("refs").join(revision), MAX_BYTES).ok()?).ok()?;
    let commit = text.trim();
    // A name with a path in it would lead elsewhere.
    (!commit.is_empty() && commit.bytes().all(|b| b.is_ascii_alphanumeric())).then(|| commit.to_owned())
}

/// Whether settings and all weights are there: what was begun and not finished is fetched elsewhere.
fn is_whole(snapshot: &Path) -> bool {
    let weights = |name: &&str| snapshot.join(name).is_file() || has_shards(snapshot, &format!("{name}.index.json"));
    snapshot.join("config.json").is_file() && WEIGHTS.iter().any(weights)
}

fn has_shards(snapshot: &Path, index: &str) -> bool {
    let read = || -> Option<bool> {
        let index: serde_json::Value =
            serde_json::from_slice(&local::read(&snapshot.join(index), MAX_BYTES).ok()?).ok()?;
        let files = index.get("weight_map")?.as_object()?.values();
        Some(files.into_iter().all(|file| file.as_str().is_some_and(|file| snapshot.join(file).is_file())))
    };
    read().unwrap_or(false)
}
