//! The checkpoints of `tests/fixtures/families`, which `transformers` wrote, copied to where a test may change them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::Value;

/// A text that the tokenizer of all these checkpoints splits into 13 words.
pub const PROMPT: &str = "When Mary and John went to the store, John gave a drink to";

/// Where they are.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/families")
}

/// Where the dictionaries are: `dictionaries/NAME` in the layouts of other libraries, `sae_lens/NAME` in SAELens' own.
pub fn dictionaries() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tdb-model/tests/fixtures")
}

/// The names of all of them.
///
/// # Errors
/// If they cannot be listed.
pub fn names() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(fixtures())? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// One of them with the tokenizer that they share, in a folder that goes with this.
#[derive(Debug)]
pub struct Copied {
    _temp: tempfile::TempDir,
    pub path: PathBuf,
}

impl Copied {
    /// # Errors
    /// If there is none of this name.
    pub fn new(name: &str) -> Result<Self> {
        let temp = tempfile::tempdir()?;
        let path = temp.path().join(name);
        fs::create_dir(&path)?;
        for entry in fs::read_dir(fixtures().join(name))? {
            let entry = entry?;
            if entry.file_name() != "expected.safetensors" {
                fs::copy(entry.path(), path.join(entry.file_name()))?;
            }
        }
        fs::copy(fixtures().join("tokenizer.json"), path.join("tokenizer.json"))?;
        Ok(Copied { _temp: temp, path })
    }

    /// Writes a setting into its `config.json`.
    ///
    /// # Errors
    /// If that cannot be read or written.
    pub fn set(&self, key: &str, value: Value) -> Result<()> {
        let path = self.path.join("config.json");
        let mut config: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
        config[key] = value;
        Ok(fs::write(path, config.to_string())?)
    }
}
