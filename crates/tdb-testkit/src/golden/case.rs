//! Goldens as they lie on the disk.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// One recorded request and its answer.
#[derive(Clone, Debug)]
pub struct Case {
    /// `<folder>/<file without .json>`
    pub name: String,
    pub method: String,
    pub path: String,
    /// `null`: no body. A string: that body, as it is (it need not be JSON). Anything else: that JSON.
    pub request: Value,
    pub status: u16,
    pub response: Value,
}

impl Case {
    /// The request's body, if it has one.
    pub fn body(&self) -> Option<Vec<u8>> {
        match &self.request {
            Value::Null => None,
            Value::String(raw) => Some(raw.clone().into_bytes()),
            json => Some(json.to_string().into_bytes()),
        }
    }

    /// # Errors
    /// When the file cannot be read or lacks a key; names both.
    pub fn load(path: &Path) -> Result<Self> {
        let read = || -> Result<Self> {
            let doc: Value = serde_json::from_slice(&fs::read(path)?)?;
            let text =
                |key: &str| doc[key].as_str().map(str::to_owned).with_context(|| format!("{key} is not a string"));
            let status =
                doc["status"].as_u64().and_then(|n| u16::try_from(n).ok()).context("status is not a number")?;
            ensure!(doc.get("request").is_some() && doc.get("response").is_some(), "request or response is missing");
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            let folder = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
            Ok(Self {
                name: format!("{folder}/{stem}"),
                method: text("method")?,
                path: text("path")?,
                request: doc["request"].clone(),
                status,
                response: doc["response"].clone(),
            })
        };
        read().with_context(|| format!("golden {}", path.display()))
    }
}

/// The goldens of one server configuration.
#[derive(Clone, Debug)]
pub struct Folder {
    pub path: PathBuf,
    pub name: String,
    /// What the recorded server was started with: `--model_name tiny-a …`.
    pub server_args: Vec<String>,
}

impl Folder {
    /// # Errors
    /// When `_server.json` is missing or holds no list of arguments.
    pub fn open(path: &Path) -> Result<Self> {
        let file = path.join("_server.json");
        let read = || -> Result<Vec<String>> {
            let doc: Value = serde_json::from_slice(&fs::read(&file)?)?;
            let args = doc["args"].as_array().context("args is not a list")?;
            args.iter().map(|a| Ok(a.as_str().context("args holds something else than strings")?.to_owned())).collect()
        };
        let server_args = read().with_context(|| format!("{}", file.display()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { path: path.to_owned(), name, server_args })
    }

    /// The value that follows `flag` among the server's arguments.
    pub fn server_arg(&self, flag: &str) -> Option<&str> {
        let at = self.server_args.iter().position(|a| a == flag)?;
        self.server_args.get(at + 1).map(String::as_str)
    }

    /// All cases, by name.
    ///
    /// # Errors
    /// When the folder or one of its files cannot be read.
    pub fn cases(&self) -> Result<Vec<Case>> {
        let entries = fs::read_dir(&self.path).with_context(|| format!("{}", self.path.display()))?;
        let mut files: Vec<PathBuf> = entries.map(|e| Ok(e?.path())).collect::<Result<_>>()?;
        files.retain(|f| {
            f.extension().is_some_and(|e| e == "json")
                && !f.file_name().is_some_and(|n| n.to_string_lossy().starts_with('_'))
        });
        files.sort();
        files.iter().map(|f| Case::load(f)).collect()
    }
}

/// The folders below `root` (or `root` itself) that hold a `_server.json`, by name.
///
/// # Errors
/// When `root` cannot be read or one of the folders is malformed.
pub fn find_folders(root: &Path) -> Result<Vec<Folder>> {
    if root.join("_server.json").exists() {
        return Ok(vec![Folder::open(root)?]);
    }
    let entries = fs::read_dir(root).with_context(|| format!("{}", root.display()))?;
    let mut paths: Vec<PathBuf> = entries.map(|e| Ok(e?.path())).collect::<Result<_>>()?;
    paths.retain(|p| p.join("_server.json").exists());
    paths.sort();
    paths.iter().map(|p| Folder::open(p)).collect()
}
