//! What is known about a node: the answers of the read routes.

use std::{
    collections::HashMap,
    fs::{File, TryLockError},
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, UNIX_EPOCH},
};

use tdb_api::{
    AttentionHeadRecordResponse, AttributedScoredExplanation, ExistingExplanationsRequest, NeuronDatasetMetadata,
    NeuronRecordResponse, NodeIdAndDatasets, RecordSummaryResponse, ScoreKind,
};

use crate::memory::Memory;
use crate::{
    Error, ExplanationsEntry, Fetcher, Histogram, Location, MAX_EXPLANATION_BYTES, MAX_RECORD_BYTES, NodeExplanations,
    NodeRecord, Origin, RecordsEntry, RecordsLayout, Registry, Result, ScoredExplanation, collated::LayerFile, local,
    normalize, write_atomically,
};

/// Parsed records kept in memory, in bytes.
const RECORDS_IN_MEMORY: u64 = 256 << 20;

/// Files of layers that stay open; each keeps the strings of its tokens in memory.
const LAYER_FILES_OPEN: u64 = 64;

/// How long "there is no such file" is believed.
const ABSENCE: Duration = Duration::from_secs(300);

/// Records and explanations by the registry's names. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Library {
    registry: Arc<Registry>,
    fetcher: Fetcher,
    /// Folder of the explanations that were written here: `<records>/<scalar>/<set>/<layer>/<index>.jsonl`.
    own: Arc<Path>,
    records: Memory<NodeRecord>,
    /// Open files of [`RecordsLayout::Layers`].
    layer_files: Memory<LayerFile>,
    absent: Memory<()>,
    /// Explanations of all nodes of a layer that share a file, by index.
    layer_explanations: Memory<HashMap<usize, NodeExplanations>>,
}

/// A record and where it was.
#[derive(Debug, Clone)]
pub struct FoundRecord {
    /// The set's entry.
    pub entry: RecordsEntry,
    pub record: Arc<NodeRecord>,
    /// The file's location, for errors.
    pub file: String,
    /// What was seen of the node in the whole text, where the file says it.
    pub counts: Option<Counts>,
    node: (usize, usize),
}

/// How often a node was active in the text that its record was collated on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts {
    /// One for each token, or for each pair of tokens.
    pub values: u64,
    /// Values above 0.
    pub positive_values: u64,
    pub texts: u64,
    /// Texts with a value above 0.
    pub active_texts: u64,
    /// Of all values but zeros; `None` where the file is of the format without histograms.
    pub histogram: Option<Histogram>,
}

impl FoundRecord {
    /// Layer and index, as they were asked for.
    pub fn node(&self) -> (usize, usize) {
        self.node
    }
}

impl Library {
    /// A library of what `registry` lists, fetched by `fetcher`; explanations written here go to the folder `own`.
    pub fn new(registry: Registry, fetcher: Fetcher, own: PathBuf) -> Self {
        let records = Memory::of_bytes(RECORDS_IN_MEMORY, weight);
        let absent = Memory::of_values_for(100_000, ABSENCE);
        let layer_files = Memory::of_values(LAYER_FILES_OPEN);
        let layer_explanations = Memory::of_values(LAYER_FILES_OPEN);
        let registry = Arc::new(registry);
        Self { registry, fetcher, own: own.into(), records, layer_files, absent, layer_explanations }
    }

    /// The registry.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The fetcher.
    pub fn fetcher(&self) -> &Fetcher {
        &self.fetcher
    }

    /// `/neuron_datasets_metadata`: the registered sets of records, in their order.
    pub fn datasets_metadata(&self) -> Vec<NeuronDatasetMetadata> {
        let entry = |r: &RecordsEntry| NeuronDatasetMetadata {
            short_name: r.name.clone(),
            derived_scalar_type: r.scalar.clone(),
            user_visible_name: r.title.clone(),
            neuron_dataset_path: r.location.clone(),
        };
        self.registry.records.iter().map(entry).collect()
    }

    /// `/record_summary`.
    pub async fn record_summary(&self, request: &NodeIdAndDatasets) -> Result<RecordSummaryResponse> {
        let found = self.record(request).await?;
        Ok(normalize::summary(&found.entry.location, &found.record, found.counts))
    }

    /// `/neuron_record`.
    pub async fn neuron_record(&self, request: &NodeIdAndDatasets) -> Result<NeuronRecordResponse> {
        let found = self.record(request).await?;
        normalize::per_token(&found.file, &found.entry.location, &found.record)
    }

    /// `/attention_head_record`.
    pub async fn attention_head_record(&self, request: &NodeIdAndDatasets) -> Result<AttentionHeadRecordResponse> {
        let found = self.record(request).await?;
        normalize::per_pair(&found.file, &found.entry.location, &found.record)
    }

    /// The record of a node, from the first of the sets asked that has it.
    pub async fn record(&self, request: &NodeIdAndDatasets) -> Result<FoundRecord> {
        let scalar = request.dst.as_str();
        let (layer, index) = node(request.layer_index, request.activation_index)?;
        let sets = request.datasets.iter().map(|d| self.registry.records_for(d, scalar)).collect::<Result<Vec<_>>>()?;
        let mut offline = None;
        for entry in &sets {
            match self.record_in(entry, layer, index).await {
                Ok(found) => return Ok(found),
                Err(Error::NotFound(_)) => {}
                Err(e @ Error::Offline { .. }) => offline = Some(e),
                Err(e) => return Err(e),
            }
        }
        let asked: Vec<_> = sets.iter().map(|s| format!("{} ({})", s.name, s.location)).collect();
        let asked = if asked.is_empty() { "no set of records was named".into() } else { asked.join(", ") };
        Err(offline.unwrap_or_else(|| Error::NotFound(format!("no record of {scalar} {layer}:{index}: {asked}"))))
    }

    /// The record of a node in one set.
    pub async fn record_in(&self, entry: &RecordsEntry, layer: usize, index: usize) -> Result<FoundRecord> {
        if entry.layout == RecordsLayout::Layers {
            return self.record_in_layer_file(entry, layer, index).await;
        }
        let location = Location::parse(&entry.location)?.join(&format!("{layer}/{index}.json"))?;
        let file = location.to_string();
        let key = self.memory_key(&location).await?;
        if self.absent.holds(&key) {
            return Err(Error::NotFound(format!("{file} does not exist")));
        }
        let load = async {
            let parse = move |file: &str, bytes: &[u8]| {
                let record = NodeRecord::parse(file, bytes)?;
                check_node(file, (record.layer, record.index), (layer, index))?;
                Ok(record)
            };
            self.load(&location, MAX_RECORD_BYTES, parse).await
        };
        match self.records.get_or(key.clone(), load).await {
            Ok(record) => Ok(FoundRecord { entry: entry.clone(), record, file, counts: None, node: (layer, index) }),
            Err(e) => {
                if e.is_not_found() {
                    self.absent.put(key, ()).await;
                }
                Err(e)
            }
        }
    }

    /// As [`Library::record_in`], from a set with one file for each layer.
    async fn record_in_layer_file(&self, entry: &RecordsEntry, layer: usize, index: usize) -> Result<FoundRecord> {
        let location = Location::parse(&entry.location)?.join(&format!("{layer}.records"))?;
        let mut first = true;
        loop {
            let key = self.memory_key(&location).await?;
            let opened = self.layer_files.get_or(key.clone(), self.open_layer_file(&location, layer)).await;
            let mut in_place = false;
            let found = match opened {
                Ok(open) => {
                    in_place = open.is_in_place();
                    let scalar = entry.scalar.clone();
                    let read = tokio::task::spawn_blocking(move || {
                        let found = open.record(&scalar, index)?;
                        let counts = open.counts(&scalar, &found);
                        Ok((found, counts))
                    })
                    .await;
                    read.map_err(|e| Error::damaged(location.to_string(), format!("its reader failed: {e}")))?
                }
                Err(error) => Err(error),
            };
            match found {
                Err(Error::Damaged { problem, .. }) if first && (in_place || self.fetcher.forget(&location)) => {
                    tracing::warn!(%location, problem, "a damaged or changed file is opened once more");
                    self.layer_files.forget(&key).await;
                    first = false;
                }
                Err(error) => return Err(error),
                Ok((found, counts)) => {
                    let (record, file) = (Arc::new(found.record), location.to_string());
                    return Ok(FoundRecord { entry: entry.clone(), record, file, counts, node: (layer, index) });
                }
            }
        }
    }

    async fn open_layer_file(&self, location: &Location, layer: usize) -> Result<LayerFile> {
        let file = self.open_any_layer_file(location).await?;
        match file.footer().layer {
            found if found == layer => Ok(file),
            found => Err(Error::damaged(location.to_string(), of_another_layer(found, layer))),
        }
    }

    async fn open_any_layer_file(&self, location: &Location) -> Result<LayerFile> {
        let name = location.to_string();
        if let Some(bytes) = self.fetcher.embedded(location) {
            return LayerFile::from_bytes(name, bytes?);
        }
        let Some(file) = self.fetcher.in_place(location).await? else {
            return LayerFile::open(&self.fetcher.file(location, &()).await?);
        };
        let opened = tokio::task::spawn_blocking(move || LayerFile::in_place(name, file)).await;
        opened.map_err(|e| Error::damaged(location.to_string(), format!("its reader failed: {e}")))?
    }

    /// `/existing_explanations`.
    pub async fn existing_explanations(
        &self,
        request: &ExistingExplanationsRequest,
    ) -> Result<Vec<AttributedScoredExplanation>> {
        let (layer, index) = node(request.layer_index, request.activation_index)?;
        let sets = match (&request.neuron_dataset, request.explanation_datasets.as_slice()) {
            (Some(dataset), []) => {
                let entry = self.registry.records_for(dataset, request.dst.as_str())?;
                self.explanations(entry, layer, index).await?
            }
            (None, [_, ..]) => {
                let mut sets = Vec::new();
                for dataset in &request.explanation_datasets {
                    let entry = self.registry.explanation_set(dataset).ok_or_else(|| {
                        let known: Vec<_> = self.registry.explanations.iter().map(|e| e.name.as_str()).collect();
                        Error::Bad(format!(
                            "{dataset:?} is not a registered set of explanations; there are {}",
                            known.join(", ")
                        ))
                    })?;
                    sets.extend(self.explanations_in(entry, layer, index).await?);
                }
                sets
            }
            _ => {
                return Err(Error::Bad("exactly one of explanationDatasets and neuronDataset must be given".into()));
            }
        };
        let flat = sets.into_iter().flat_map(|(name, node)| {
            node.explanations.into_iter().filter_map(move |e| {
                let (score, score_kind) = e.scored().unzip();
                let score_kind = score_kind.filter(|kind| *kind != ScoreKind::Correlation);
                let dataset_name = name.clone();
                let Origin { method, score_method, model, date, .. } = e.origin;
                e.explanation.map(|explanation| AttributedScoredExplanation {
                    explanation,
                    score,
                    dataset_name,
                    method,
                    score_method,
                    score_kind,
                    model,
                    date,
                })
            })
        });
        Ok(flat.collect())
    }

    /// The explanations of a node: of every registered set, and those written here. Each with the last part of its
    /// set's path, which is empty for a path that ends in a slash.
    pub async fn explanations(
        &self,
        entry: &RecordsEntry,
        layer: usize,
        index: usize,
    ) -> Result<Vec<(String, NodeExplanations)>> {
        let mut sets = Vec::new();
        for set in self.registry.explanations_of(entry) {
            match self.explanations_in(set, layer, index).await {
                Ok(found) => sets.extend(found),
                // Those that are at hand are worth more than an error.
                Err(e @ (Error::Network { .. } | Error::Offline { .. })) => {
                    tracing::warn!(set = set.name, "explanations are left out: {e}");
                }
                Err(e) => return Err(e),
            }
        }
        sets.extend(self.own_explanations(entry, layer, index)?);
        Ok(sets)
    }

    async fn explanations_in(
        &self,
        set: &ExplanationsEntry,
        layer: usize,
        index: usize,
    ) -> Result<Option<(String, NodeExplanations)>> {
        let name = set.location.rsplit('/').next().unwrap_or_default().to_string();
        let folder = Location::parse(&set.location)?;
        let found = match set.layout {
            RecordsLayout::Files => {
                let location = folder.join(&format!("{layer}/{index}.jsonl"))?;
                let key = self.memory_key(&location).await?;
                if self.absent.holds(&key) {
                    return Ok(None);
                }
                let parse = move |file: &str, bytes: &[u8]| parse_explanations(file, bytes, (layer, index));
                match self.load(&location, MAX_EXPLANATION_BYTES, parse).await {
                    Err(Error::NotFound(_)) => {
                        self.absent.put(key, ()).await;
                        None
                    }
                    found => Some(found?),
                }
            }
            RecordsLayout::Layers => {
                self.layer_of_explanations(&folder, layer).await?.and_then(|all| all.get(&index).cloned())
            }
        };
        Ok(found.map(|node| (name, node)))
    }

    /// All explanations of a layer that share a file; `None` if there is no such file.
    pub(crate) async fn layer_of_explanations(
        &self,
        folder: &Location,
        layer: usize,
    ) -> Result<Option<Arc<HashMap<usize, NodeExplanations>>>> {
        let location = folder.join(&format!("{layer}.jsonl"))?;
        let key = self.memory_key(&location).await?;
        let parse = move |file: &str, bytes: &[u8]| parse_lines(file, bytes, layer);
        let load = self.load(&location, MAX_EXPLANATION_BYTES, parse);
        match self.layer_explanations.get_or(key, load).await {
            Ok(all) => Ok(Some(all)),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The explanations of a node that were written here, by set.
    fn own_explanations(
        &self,
        entry: &RecordsEntry,
        layer: usize,
        index: usize,
    ) -> Result<Vec<(String, NodeExplanations)>> {
        let folder = self.own.join(&entry.name).join(&entry.scalar);
        let mut names: Vec<String> = std::fs::read_dir(&folder)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|item| item.file_name().into_string().ok())
            .collect();
        names.sort();
        let mut sets = Vec::new();
        for name in names {
            let path = folder.join(&name).join(layer.to_string()).join(format!("{index}.jsonl"));
            match local::read(&path, MAX_EXPLANATION_BYTES) {
                Ok(bytes) => {
                    sets.push((name, parse_explanations(&path.display().to_string(), &bytes, (layer, index))?));
                }
                Err(e) if e.is_not_found() => {}
                // Beside the sets there is a file, in which there are no others.
                Err(_) if !folder.join(&name).is_dir() => {}
                Err(e) => return Err(e),
            }
        }
        Ok(sets)
    }

    /// Adds an explanation of a node to the set `set` of explanations written here; one with the same words is
    /// replaced. Safe with several processes.
    pub async fn add_explanation(
        &self,
        entry: &RecordsEntry,
        set: &str,
        (layer, index): (usize, usize),
        pairs: bool,
        explanation: ScoredExplanation,
    ) -> Result<()> {
        let folder = self.folder_of_explanations(entry, set)?;
        let write = move || {
            std::fs::create_dir_all(&folder).map_err(|e| unkept(&folder, e))?;
            let _lock = lock(&folder.join("lock"))?;
            let path = folder.join(layer.to_string()).join(format!("{index}.jsonl"));
            let mut node = match local::read(&path, MAX_EXPLANATION_BYTES) {
                Ok(bytes) => parse_explanations(&path.display().to_string(), &bytes, (layer, index))?,
                Err(e) if e.is_not_found() => NodeExplanations { layer, index, pairs, explanations: vec![] },
                Err(e) => return Err(e),
            };
            node.explanations.retain(|e| e.explanation != explanation.explanation);
            node.explanations.push(explanation);
            let json = node.to_json()?;
            // What could not be read again would hide all that is there.
            NodeExplanations::parse(&path.display().to_string(), &json)?;
            write_atomically(&path, &json)
        };
        tokio::task::spawn_blocking(write)
            .await
            .map_err(|e| Error::Config(format!("writing an explanation was interrupted: {e}")))?
    }

    /// Whether [`Library::add_explanation`] can write; asked before a language model is.
    ///
    /// # Errors
    /// If the folder cannot be made, or no file in it.
    pub async fn check_explanations_folder(&self, entry: &RecordsEntry, set: &str, layer: usize) -> Result<()> {
        let folder = self.folder_of_explanations(entry, set)?.join(layer.to_string());
        let check = move || {
            let write = || {
                std::fs::create_dir_all(&folder)?;
                tempfile::NamedTempFile::new_in(&folder)?.write_all(b"{}")
            };
            write().map_err(|e| unkept(&folder, e))
        };
        tokio::task::spawn_blocking(check)
            .await
            .map_err(|e| Error::Config(format!("looking at a folder was interrupted: {e}")))?
    }

    /// The names come from the registry, which allows nothing that leads elsewhere; the set's name is checked here.
    fn folder_of_explanations(&self, entry: &RecordsEntry, set: &str) -> Result<PathBuf> {
        Location::parse("s3://check")?.join(set)?;
        Ok(self.own.join(&entry.name).join(&entry.scalar).join(set))
    }

    /// Fetches and parses a file. A damaged one is dropped from the cache and fetched once more.
    async fn load<T: Send + 'static>(
        &self,
        location: &Location,
        limit: usize,
        parse: impl Fn(&str, &[u8]) -> Result<T> + Clone + Send + 'static,
    ) -> Result<T> {
        let mut first = true;
        loop {
            let bytes = self.fetcher.bytes(location, limit).await?;
            let (file, parse) = (location.to_string(), parse.clone());
            // A record of token pairs has megabytes of text: parsing it would hold up other requests.
            let parsed = tokio::task::spawn_blocking(move || parse(&file, &bytes)).await;
            match parsed.map_err(|e| Error::damaged(location.to_string(), format!("its reader failed: {e}")))? {
                Err(Error::Damaged { problem, .. }) if first && self.fetcher.forget(location) => {
                    tracing::warn!(%location, problem, "a damaged file is fetched once more");
                    first = false;
                }
                other => return other,
            }
        }
    }

    /// What a file is called in memory: its location, and for a file of this machine the time of its last change, so
    /// that a new version is seen.
    async fn memory_key(&self, location: &Location) -> Result<String> {
        let place = self.fetcher.resolve(location)?;
        let Some(path) = place.local() else { return Ok(place.to_string()) };
        let changed = tokio::fs::metadata(path).await.and_then(|m| m.modified());
        let stamp = changed.ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok()).map_or(0, |d| d.as_nanos());
        Ok(format!("{place}@{stamp}"))
    }
}

/// The explanations of a node in a file of its own.
fn parse_explanations(file: &str, bytes: &[u8], expected: (usize, usize)) -> Result<NodeExplanations> {
    let node = NodeExplanations::parse(file, bytes)?;
    check_node(file, (node.layer, node.index), expected)?;
    Ok(node)
}

/// The explanations of all nodes of a layer: a line for each.
fn parse_lines(file: &str, bytes: &[u8], layer: usize) -> Result<HashMap<usize, NodeExplanations>> {
    let (mut all, mut line_of) = (HashMap::new(), HashMap::new());
    let lines = bytes.split(|&b| b == b'\n').zip(1..).filter(|(line, _)| !line.trim_ascii().is_empty());
    for (line, number) in lines {
        let name = format!("{file} line {number}");
        let node = NodeExplanations::parse(&name, line)?;
        if node.layer != layer {
            return Err(Error::damaged(name, of_another_layer(node.layer, layer)));
        }
        if let Some(first) = line_of.insert(node.index, number) {
            return Err(Error::damaged(name, format!("it is of index {}, and so is line {first}", node.index)));
        }
        all.insert(node.index, node);
    }
    Ok(all)
}

/// Refuses what a file has of another node than the one that it was asked for.
fn check_node(file: &str, found: (usize, usize), expected: (usize, usize)) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    let [found, expected] = [found, expected].map(|(layer, index)| format!("layer {layer}, index {index}"));
    Err(Error::damaged(file, format!("it says that it is of {found}, where {expected} was expected")))
}

fn of_another_layer(found: usize, expected: usize) -> String {
    format!("it says that it is of layer {found}, where layer {expected} was expected")
}

fn node(layer: i64, index: i64) -> Result<(usize, usize)> {
    let check = |name: &str, value: i64| {
        u32::try_from(value)
            .map(|v| v as usize)
            .map_err(|_| Error::Bad(format!("{name} is {value}, and no node has such a number")))
    };
    Ok((check("layerIndex", layer)?, check("activationIndex", index)?))
}

/// About how many bytes a parsed record takes.
fn weight(record: &NodeRecord) -> usize {
    let quantiles = record.random_sample_by_quantile.iter().flatten().flatten();
    let examples = record.most_positive.iter().chain(&record.random_sample).chain(quantiles);
    let example = |e: &crate::ActivationRecord| {
        4 * e.activations.len() + e.tokens.iter().map(|t| 40 + t.len()).sum::<usize>() + 48
    };
    200 + examples.map(example).sum::<usize>()
}

fn unkept(path: &Path, error: std::io::Error) -> Error {
    Error::Unkept { path: path.display().to_string(), reason: error.to_string() }
}

/// Takes a lock, which is held until the file is dropped. Each holder writes one small file, so nobody waits for long.
fn lock(path: &Path) -> Result<File> {
    const PATIENCE: Duration = Duration::from_secs(10);
    let file = File::create(path).map_err(|e| unkept(path, e))?;
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if begun.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(TryLockError::WouldBlock) => {
                let reason = format!("another program has held this lock for {} s", PATIENCE.as_secs());
                return Err(Error::Unkept { path: path.display().to_string(), reason });
            }
            Err(TryLockError::Error(e)) => return Err(unkept(path, e)),
        }
    }
}
