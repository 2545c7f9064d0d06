//! The files of a sparse dictionary in a repository of Hugging Face's hub, by the name of its folder.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::model_files::denied;
use crate::{Error, Fetcher, Location, Progress, Result, hub, json};

/// What the hub says of a repository with ten thousands of files is a few megabytes.
const MAX_INFO_BYTES: usize = 16 << 20;

/// A dictionary has at most a few files a layer.
const MAX_FILES: usize = 2000;

/// How names of weights end, in every layout of dictionaries, and of what says how they are used.
const WEIGHTS: [&str; 3] = [".safetensors", ".pt", ".npz"];
const SETTINGS: [&str; 2] = [".json", ".yaml"];

/// The folder that `name` means on Hugging Face's hub, `hf:owner/name[@revision][/path]`; the revision may also stand at
/// the end.
///
/// # Errors
/// If it has another form.
pub fn hub_dictionary(name: &str) -> Result<Location> {
    let location = match name.rsplit_once('@') {
        Some((path, revision)) if path.matches('/').count() > 1 && !path.contains('@') => {
            let mut parts = path.splitn(3, '/');
            let (owner, repository) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            Location::parse(&format!("{owner}/{repository}@{revision}/{}", parts.next().unwrap_or_default()))?
        }
        _ => Location::parse(name)?,
    };
    match location.repository_info() {
        Some(_) => Ok(location),
        None => Err(Error::Config(format!("{name:?} is no name on the hub: expected hf:owner/name[@revision][/path]"))),
    }
}

/// Fetches the dictionary in a folder of the hub, and returns the folder that it is in on this machine. Taken are weights
/// and settings in the folder itself and in its subfolders, where layers may lie. What Hugging Face's own cache has is
/// not fetched again.
///
/// # Errors
/// If there is no such folder, it holds no weights, or it cannot be fetched.
pub async fn fetch_dictionary(fetcher: &Fetcher, base: &Location, progress: &dyn Progress) -> Result<PathBuf> {
    if let Some(folder) = fetcher.resolve(base)?.local() {
        return Ok(folder.to_path_buf());
    }
    let shared = fetcher.hub_cache().and_then(|cache| hub::folder(cache, base));
    let names = match names(fetcher, base).await {
        Ok(names) => names,
        // Nobody can say what is missing.
        Err(Error::Offline { .. }) => {
            return shared.filter(|folder| holds_weights(folder)).ok_or_else(|| {
                Error::NotFound(format!(
                    "{base} is not on this machine and offline mode is on; fetch it once with a network, or give a \
                     folder's path"
                ))
            });
        }
        Err(error) => return Err(denied(error)),
    };
    if let Some(folder) = shared.filter(|folder| names.iter().all(|name| folder.join(name).is_file())) {
        return Ok(folder);
    }
    let files = names.iter().map(|name| base.join(name)).collect::<Result<Vec<_>>>()?;
    let missing = files.iter().filter(|file| !fetcher.has(file)).count();
    if missing > 0 && !fetcher.is_offline() {
        progress.note(&base.to_string(), &format!("fetching {missing} of {} files, once", files.len()));
    }
    let fetched = fetcher.files(&files, progress).await?;
    // All files keep their places below the folder, so that any of them tells where it is.
    let (first, name) = (fetched.first(), names.first());
    let folder = first.zip(name).and_then(|(file, name)| file.ancestors().nth(name.split('/').count()));
    folder.map(Path::to_path_buf).ok_or_else(|| Error::NotFound(format!("{base} holds no files")))
}

/// The dictionary's files, named from its folder on.
async fn names(fetcher: &Fetcher, base: &Location) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Info {
        siblings: Vec<File>,
    }
    #[derive(Deserialize)]
    struct File {
        rfilename: String,
    }
    let info = base.repository_info().ok_or_else(|| Error::Config(format!("{base} is not on the hub")))?;
    let text = fetcher.bytes(&info, MAX_INFO_BYTES).await?;
    let Info { siblings } = json::parse(&info.to_string(), &text, MAX_INFO_BYTES)?;
    let prefix = if base.path().is_empty() { String::new() } else { format!("{}/", base.path()) };
    let below: Vec<&str> = siblings.iter().filter_map(|file| file.rfilename.strip_prefix(&prefix)).collect();
    let ends = |name: &str, endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
    let near: Vec<&str> = below.iter().copied().filter(|name| name.matches('/').count() <= 1).collect();
    if !near.iter().any(|name| ends(name, &WEIGHTS)) {
        return Err(Error::NotFound(nothing_in(base, &below)));
    }
    let wanted: Vec<String> =
        near.into_iter().filter(|name| ends(name, &WEIGHTS) || ends(name, &SETTINGS)).map(str::to_owned).collect();
    match wanted.len() {
        0..=MAX_FILES => Ok(wanted),
        n => Err(Error::Bad(format!(
            "{base} has {n} files, more than a dictionary's {MAX_FILES}; name one of its folders"
        ))),
    }
}

/// Why a folder holds no dictionary, with the folders that might.
fn nothing_in(base: &Location, below: &[&str]) -> String {
    const SHOWN: usize = 12;
    let folders: BTreeSet<&str> =
        below.iter().filter_map(|name| name.split_once('/')).map(|(folder, _)| folder).collect();
    let listed: Vec<&str> = folders.iter().copied().take(SHOWN).collect();
    match (below.is_empty(), folders.len()) {
        (true, _) => format!("{base} does not exist in that repository"),
        (false, 0) => {
            format!("{base} holds no weights of a dictionary ({})", WEIGHTS.map(|end| format!("*{end}")).join(", "))
        }
        (false, n) => {
            let more = if n > SHOWN { format!(" and {} more", n - SHOWN) } else { String::new() };
            format!("{base} holds no dictionary itself; it has the folders {}{more}", listed.join(", "))
        }
    }
}

fn holds_weights(folder: &Path) -> bool {
    let has = |folder: &Path| {
        let names = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
        let mut names = names.filter_map(|name| name.into_string().ok());
        names.any(|name| WEIGHTS.iter().any(|ending| name.ends_with(ending)))
    };
    let below = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    has(folder) || below.into_iter().any(|path| has(&path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_stands_behind_the_repository_or_at_the_end() {
        for (name, expected) in [
            ("hf:o/n", "hf:o/n"),
            ("hf:o/n/a/b", "hf:o/n/a/b"),
            ("hf:o/n@v1/a/b", "hf:o/n@v1/a/b"),
            ("hf:o/n/a/b@v1", "hf:o/n@v1/a/b"),
            ("hf:o/n@v1", "hf:o/n@v1"),
        ] {
            assert_eq!(hub_dictionary(name).unwrap().to_string(), expected, "{name}");
        }
        for name in ["hf:o", "o/n/a", "hf:o/n/../a", "hf:o/n@v1/a@v2/../b", "https://example.org/a"] {
            assert!(hub_dictionary(name).is_err(), "{name}");
        }
    }
}
