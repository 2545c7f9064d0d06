//! The registry: one data file that says which models, autoencoders, records and explanations there are, and where.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{Error, Fetcher, Location, Mirror, Result, local};

/// The registry that is built in.
const BUILT_IN: &str = include_str!("../../../datasets/registry.toml");

/// A registry of sixty thousand models has four million bytes.
const MAX_BYTES: usize = 64 << 20;

/// All entries, in the order in which they are listed.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    /// In a file that is added: nothing of what was there before stays.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    replace: bool,
    #[serde(default, rename = "model", skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<ModelEntry>,
    #[serde(default, rename = "autoencoder", skip_serializing_if = "Vec::is_empty")]
    pub autoencoders: Vec<AutoencoderEntry>,
    #[serde(default, rename = "records", skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<RecordsEntry>,
    #[serde(default, rename = "explanations", skip_serializing_if = "Vec::is_empty")]
    pub explanations: Vec<ExplanationsEntry>,
    /// How to reach stores that need more than their name.
    #[serde(default, rename = "store", skip_serializing_if = "Vec::is_empty")]
    pub stores: Vec<StoreEntry>,
    /// Prefixes that are read from elsewhere.
    #[serde(default, rename = "mirror", skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<MirrorEntry>,
}

/// A model's checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelEntry {
    pub name: String,
    pub title: String,
    pub location: String,
    pub layout: ModelLayout,
    /// Needed to name the files of [`ModelLayout::Pieces`]; `config.json` has the last word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_layers: Option<usize>,
    /// The same weights elsewhere (a Hugging Face repository), tried when the first place cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alternative: Option<String>,
}

/// How a checkpoint's folder is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModelLayout {
    /// `config.json` and one file for each tensor in `model_pieces`.
    Pieces,
    /// `config.json`, `model.safetensors` (or its shards) and a tokenizer, as Hugging Face repositories have them.
    HuggingFace,
}

/// Autoencoders of a model, one for each layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AutoencoderEntry {
    pub name: String,
    pub title: String,
    /// The model's name.
    pub model: String,
    /// What it is trained on: `mlp_post_act`, `resid_delta_mlp` or `resid_delta_attn`.
    pub site: String,
    /// A file for each layer, or a folder for each (SAELens); `{layer}` stands for the layer.
    pub location: String,
    pub n_layers: usize,
    /// Files of each layer below `location`, if that is a folder; empty if `location` is a file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
}

/// A set of records: for each node a file `{layer}/{index}.json`, or for each layer one file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordsEntry {
    /// The short name; with `scalar` it names the set.
    pub name: String,
    /// The derived scalar's wire name.
    pub scalar: String,
    pub title: String,
    pub location: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoencoder: Option<String>,
    #[serde(default)]
    pub per: Per,
    #[serde(default, skip_serializing_if = "RecordsLayout::is_default")]
    pub layout: RecordsLayout,
}

/// What a record has a value for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Per {
    #[default]
    Token,
    TokenPair,
}

/// How a set of records or explanations is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecordsLayout {
    /// `{layer}/{index}.json`, the reference's; explanations `{layer}/{index}.jsonl`.
    #[default]
    Files,
    /// `{layer}.records` as [`crate::collated`] describes it; explanations `{layer}.jsonl`, a line for each node.
    Layers,
}

impl RecordsLayout {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A set of explanations of the nodes of a set of records.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplanationsEntry {
    pub name: String,
    pub title: String,
    pub location: String,
    /// Name and scalar of the records whose nodes are explained.
    pub records: String,
    pub scalar: String,
    #[serde(default, skip_serializing_if = "RecordsLayout::is_default")]
    pub layout: RecordsLayout,
}

/// Settings of a store whose name is not enough to reach it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreEntry {
    /// Locations that begin with this, such as `az://account` or `s3://bucket`.
    pub prefix: String,
    /// The server's address, if it is not the public service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Plain http; only sensible within a machine or a closed network.
    #[serde(default)]
    pub allow_http: bool,
    /// Ask without credentials even if the environment has some.
    #[serde(default)]
    pub anonymous: bool,
}

/// A mirror rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MirrorEntry {
    pub prefix: String,
    pub target: String,
}

impl Registry {
    /// What the reference knows.
    pub fn built_in() -> Result<Self> {
        Self::parse("the built-in registry", BUILT_IN)
    }

    /// Reads a registry file. Folders that it names by a relative path are looked for beside it.
    pub fn read(path: &Path) -> Result<Self> {
        let file = path.display().to_string();
        let bytes = local::read(path, MAX_BYTES)?;
        local::check_fetched(&file, &bytes)?;
        let text = String::from_utf8(bytes).map_err(|e| Error::Config(format!("{file}: is not UTF-8: {e}")))?;
        let mut registry = Self::parse(&file, &text)?;
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
        let folder = std::path::absolute(folder.unwrap_or(Path::new("."))).map_err(|e| Error::io(path, e))?;
        registry.resolve(|relative| Ok(folder.join(relative).to_string_lossy().into_owned()))?;
        Ok(registry)
    }

    /// Reads a registry file of a store. Folders that it names by a relative path are looked for beside it.
    ///
    /// # Errors
    /// If it cannot be read, or is no registry.
    pub async fn fetch(location: &Location, fetcher: &Fetcher) -> Result<Self> {
        let file = location.to_string();
        let bytes = fetcher.now(location, MAX_BYTES).await?;
        local::check_fetched(&file, &bytes)?;
        let text = std::str::from_utf8(&bytes).map_err(|e| Error::Config(format!("{file}: is not UTF-8: {e}")))?;
        let mut registry = Self::parse(&file, text)?;
        let folder = Location::parse(file.rsplit_once('/').map_or("", |(folder, _)| folder))?;
        registry.resolve(|relative| Ok(folder.join(relative.trim_end_matches('/'))?.to_string()))?;
        Ok(registry)
    }

    /// Makes locations of relative paths.
    fn resolve(&mut self, beside: impl Fn(&str) -> Result<String>) -> Result<()> {
        let models = self.models.iter_mut().flat_map(|m| std::iter::once(&mut m.location).chain(&mut m.alternative));
        let autoencoders = self.autoencoders.iter_mut().map(|a| &mut a.location);
        let records = self.records.iter_mut().map(|r| &mut r.location);
        let explanations = self.explanations.iter_mut().map(|e| &mut e.location);
        let mirrors = self.mirrors.iter_mut().map(|m| &mut m.target);
        for location in models.chain(autoencoders).chain(records).chain(explanations).chain(mirrors) {
            let relative = Location::parse(location)?.local().is_some_and(Path::is_relative);
            if relative && !location.starts_with("file://") {
                *location = beside(location)?;
            }
        }
        Ok(())
    }

    /// A file's text with these entries.
    pub fn to_text(&self) -> Result<String> {
        toml::to_string(self).map_err(|e| Error::Config(format!("the registry cannot be written: {e}")))
    }

    /// Reads a registry; `file` is what errors call it.
    pub fn parse(file: &str, text: &str) -> Result<Self> {
        let registry: Self =
            toml::from_str(text).map_err(|e| Error::Config(format!("{file}: {}", e.to_string().trim_end())))?;
        registry.check(file)?;
        Ok(registry)
    }

    /// Adds `other`: an entry of the same name takes the older one's place, and `replace = true` empties all first.
    pub fn extend(&mut self, other: Self) {
        if other.replace {
            *self = Self::default();
        }
        merge(&mut self.models, other.models, |a| a.name.clone());
        merge(&mut self.autoencoders, other.autoencoders, |a| (a.model.clone(), a.name.clone()));
        merge(&mut self.records, other.records, |a| (a.name.clone(), a.scalar.clone()));
        merge(&mut self.explanations, other.explanations, |a| a.name.clone());
        merge(&mut self.stores, other.stores, |a| a.prefix.clone());
        merge(&mut self.mirrors, other.mirrors, |a| a.prefix.clone());
    }

    /// The model of that name.
    pub fn model(&self, name: &str) -> Result<&ModelEntry> {
        find(&self.models, name, "model", |m| &m.name, |m| m.name == name)
    }

    /// The model's autoencoder of that name.
    pub fn autoencoder(&self, model: &str, name: &str) -> Result<&AutoencoderEntry> {
        let of_model: Vec<_> = self.autoencoders.iter().filter(|a| a.model == model).collect();
        of_model.iter().find(|a| a.name == name).copied().ok_or_else(|| {
            let known: Vec<_> = of_model.iter().map(|a| a.name.as_str()).collect();
            Error::NotFound(if known.is_empty() {
                format!("no autoencoder of {model} is registered")
            } else {
                format!("no autoencoder {name:?} of {model} is registered; there are {}", known.join(", "))
            })
        })
    }

    /// The set of records that a request means by `dataset`: a registered name together with the scalar, or the
    /// location of a registered set as it stands in the registry.
    pub fn records_for(&self, dataset: &str, scalar: &str) -> Result<&RecordsEntry> {
        let is_location = ["hf:", "embedded:"].iter().any(|p| dataset.starts_with(p)) || dataset.contains("://");
        if is_location || self.records.iter().any(|r| r.location == dataset) {
            let same = |r: &&RecordsEntry| r.location.trim_end_matches('/') == dataset.trim_end_matches('/');
            // Sets of one file for each layer share a folder.
            let wanted = [scalar, offline_name(scalar)];
            let fitting = |r: &&RecordsEntry| same(r) && wanted.contains(&r.scalar.as_str());
            let found = self.records.iter().find(fitting).or_else(|| self.records.iter().find(same));
            return found.ok_or_else(|| {
                Error::Bad(format!(
                    "{dataset} is not the location of a registered set of records; add it to the registry"
                ))
            });
        }
        let of_name = || self.records.iter().filter(|r| r.name == dataset);
        let wanted = offline_name(scalar);
        if let Some(entry) = of_name().find(|r| r.scalar == scalar).or_else(|| of_name().find(|r| r.scalar == wanted)) {
            return Ok(entry);
        }
        let generic = wanted == "autoencoder_latent";
        let mut latents = of_name().filter(|r| generic && r.scalar.ends_with("autoencoder_latent"));
        if let (Some(entry), None) = (latents.next(), latents.next()) {
            return Ok(entry);
        }
        let known: Vec<_> = self.records.iter().map(|r| format!("{} ({})", r.name, r.scalar)).collect();
        let hint = if dataset.ends_with("_undefined") {
            "; the name of the autoencoder seems to be missing from the page's address"
        } else {
            ""
        };
        Err(Error::NotFound(format!(
            "no set of records {dataset:?} of {scalar} is registered{hint}; there are {}",
            known.join(", ")
        )))
    }

    /// The registered explanation sets of a set of records.
    pub fn explanations_of<'a>(&'a self, records: &'a RecordsEntry) -> impl Iterator<Item = &'a ExplanationsEntry> {
        self.explanations.iter().filter(|e| e.records == records.name && e.scalar == records.scalar)
    }

    /// The explanation set that a request names: by its name or its location.
    pub fn explanation_set(&self, dataset: &str) -> Option<&ExplanationsEntry> {
        let location = dataset.trim_end_matches('/');
        self.explanations.iter().find(|e| e.name == dataset || e.location.trim_end_matches('/') == location)
    }

    fn check(&self, file: &str) -> Result<()> {
        let named = |what: &str, name: &str, e: Error| Error::Config(format!("{file}: {what} {name}: {e}"));
        let check = |what: &str, name: &str, location: &str| {
            if !is_name(name) {
                return Err(Error::Config(format!(
                    "{file}: {what} has the name {name:?}; letters, digits, '-', '_', '+' and '.' are allowed"
                )));
            }
            Location::parse(location).map(|_| ()).map_err(|e| named(what, name, e))
        };
        for m in &self.models {
            check("model", &m.name, &m.location)?;
            m.alternative.as_ref().map_or(Ok(()), |a| check("model", &m.name, a))?;
        }
        for a in &self.autoencoders {
            check("autoencoder", &a.name, &a.location)?;
            if !a.location.contains("{layer}") {
                return Err(named("autoencoder", &a.name, Error::Config("its location has no {layer}".into())));
            }
            for f in &a.files {
                Location::parse("s3://check")?.join(f).map_err(|e| named("autoencoder", &a.name, e))?;
            }
        }
        for r in &self.records {
            check("records", &r.name, &r.location)?;
        }
        for e in &self.explanations {
            check("explanations", &e.name, &e.location)?;
        }
        for m in &self.mirrors {
            Mirror::new(&m.prefix, &m.target).map_err(|e| named("mirror", &m.prefix, e))?;
        }
        Ok(())
    }
}

impl AutoencoderEntry {
    /// The files of one layer.
    pub fn layer_files(&self, layer: usize) -> Result<Vec<Location>> {
        let base = Location::parse(&self.location.replace("{layer}", &layer.to_string()))?;
        if self.files.is_empty() {
            return Ok(vec![base]);
        }
        self.files.iter().map(|f| base.join(f)).collect()
    }
}

/// Whether something can be registered under this name: it may become part of a path.
fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
    !name.is_empty() && !name.starts_with('.') && name.chars().all(plain)
}

/// Records are collated from stored activations; a running model has the same scalar under an `online_` name.
fn offline_name(scalar: &str) -> &str {
    scalar.strip_prefix("online_").unwrap_or(scalar)
}

fn merge<T, K: Hash + Eq>(into: &mut Vec<T>, from: Vec<T>, key: impl Fn(&T) -> K) {
    let mut places: HashMap<K, usize> = HashMap::new();
    for (place, entry) in into.iter().enumerate() {
        places.entry(key(entry)).or_insert(place);
    }
    for entry in from {
        match places.entry(key(&entry)) {
            Entry::Occupied(place) => into[*place.get()] = entry,
            Entry::Vacant(free) => {
                free.insert(into.len());
                into.push(entry);
            }
        }
    }
}

fn find<'a, T>(
    list: &'a [T],
    name: &str,
    what: &str,
    name_of: fn(&T) -> &String,
    same: impl Fn(&T) -> bool,
) -> Result<&'a T> {
    list.iter().find(|e| same(e)).ok_or_else(|| {
        let known: Vec<_> = list.iter().map(|e| name_of(e).as_str()).collect();
        Error::NotFound(format!("no {what} {name:?} is registered; there are {}", known.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_the_reference_knows_is_built_in_and_two_models_of_the_hub() {
        let r = Registry::built_in().unwrap();
        assert_eq!((r.models.len(), r.autoencoders.len(), r.records.len(), r.explanations.len()), (6, 5, 9, 2));
        let record = r.records_for("gpt2-small", "mlp_post_act").unwrap();
        assert_eq!(r.explanations_of(record).count(), 1);
        assert_eq!(r.records_for(&record.location.clone(), "anything").unwrap(), record);
        let files = r.autoencoder("gpt2-small", "ae-mlp-post-act-v1").unwrap().layer_files(3).unwrap();
        assert!(files[0].to_string().ends_with("/sparse-autoencoder/gpt2-small/mlp_post_act/autoencoders/3.pt"));
    }

    #[test]
    fn names_that_are_not_there_are_answered_with_those_that_are() {
        let r = Registry::built_in().unwrap();
        for (name, scalar, part) in [
            ("nope", "mlp_post_act", "gpt2-xl (mlp_post_act)"),
            ("gpt2-small", "resid_delta_mlp", "no set of records \"gpt2-small\" of resid_delta_mlp"),
            ("gpt2-small_undefined", "mlp_autoencoder_latent", "name of the autoencoder"),
            ("https://example.org/other/", "mlp_post_act", "add it to the registry"),
            ("../../etc", "mlp_post_act", "no set of records"),
        ] {
            let message = r.records_for(name, scalar).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
        assert!(r.model("gpt5").unwrap_err().to_string().contains("gpt2-medium"));
    }

    #[test]
    fn names_of_a_running_model_find_the_stored_records() {
        let r = Registry::built_in().unwrap();
        let name = "gpt2-small_ae-resid-delta-attn-v4";
        let found = r.records_for(name, "online_attention_autoencoder_latent").unwrap();
        assert_eq!(found.scalar, "attention_autoencoder_latent");
        assert_eq!(r.records_for(name, "online_autoencoder_latent").unwrap(), found);
    }

    #[test]
    fn another_file_extends_or_replaces() {
        let more = r#"
            [[records]]
            name = "gpt2-small"
            scalar = "mlp_post_act"
            title = "mine"
            location = "/data/records"
            [[records]]
            name = "new"
            scalar = "mlp_post_act"
            title = "new"
            location = "s3://bucket/records"
        "#;
        let mut r = Registry::built_in().unwrap();
        r.extend(Registry::parse("more.toml", more).unwrap());
        assert_eq!((r.records.len(), r.models.len()), (10, 6));
        assert_eq!(r.records_for("gpt2-small", "mlp_post_act").unwrap().title, "mine");
        r.extend(Registry::parse("more.toml", &format!("replace = true\n{more}")).unwrap());
        assert_eq!((r.records.len(), r.models.len()), (2, 0));
    }

    #[test]
    fn a_registry_of_very_many_entries_is_merged() {
        let model = |i: usize, title: &str| {
            format!("[[model]]\nname = \"m{i}\"\ntitle = \"{title}\"\nlocation = \"/m/{i}\"\nlayout = \"pieces\"\n")
        };
        let all = |title: &str| -> String { (0..20_000).map(|i| model(i, title)).collect() };
        let mut r = Registry::parse("old.toml", &all("old")).unwrap();
        r.extend(Registry::parse("new.toml", &(all("new") + &model(20_000, "new"))).unwrap());
        assert_eq!(r.models.len(), 20_001);
        assert!(r.models.iter().enumerate().all(|(i, m)| m.title == "new" && m.name == format!("m{i}")));
    }

    #[test]
    fn a_registry_is_a_regular_file() {
        assert!(Registry::read(Path::new("/dev/zero")).unwrap_err().to_string().contains("is not a regular file"));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registry.toml");
        std::fs::write(&path, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n").unwrap();
        assert!(Registry::read(&path).unwrap_err().to_string().contains("Git LFS pointer"));
    }

    #[test]
    fn relative_folders_are_beside_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let mut registry = Registry::default();
        let entry = |location: &str| RecordsEntry {
            name: location.len().to_string(),
            scalar: "mlp_post_act".into(),
            title: String::new(),
            location: location.into(),
            model: None,
            autoencoder: None,
            per: Per::Token,
            layout: RecordsLayout::Layers,
        };
        registry.records = vec![entry("records"), entry("s3://bucket/a"), entry("/somewhere/else")];
        let path = folder.path().join("registry.toml");
        std::fs::write(&path, registry.to_text().unwrap()).unwrap();
        let read = Registry::read(&path).unwrap();
        assert_eq!(Path::new(&read.records[0].location), folder.path().join("records"));
        assert_eq!(read.records[1..], registry.records[1..]);
    }

    #[test]
    fn a_wrong_file_is_refused_with_its_name() {
        for (text, part) in [
            ("[[modell]]", "unknown field `modell`"),
            ("[[explanations]]\nname='a/b'\ntitle=''\nlocation='/x'\nrecords=''\nscalar=''", "name \"a/b\""),
            ("[[explanations]]\nname='a'\ntitle=''\nlocation='ftp://x'\nrecords=''\nscalar=''", "unknown scheme"),
            ("[[autoencoder]]\nname='a'\ntitle=''\nlocation='/x'\nmodel=''\nsite=''\nn_layers=1", "{layer}"),
        ] {
            let message = Registry::parse("my.toml", text).unwrap_err().to_string();
            assert!(message.starts_with("my.toml") && message.contains(part), "{message}");
        }
    }
}
