//! From a name to a model with its autoencoders.
//!
//! A name is looked up in this order: as a folder below `--models`, in the registry, as a path, on Hugging Face's hub.
//! Autoencoders in the registry and as a path, as the folder `autoencoders/<name>/` of the model's, or as a folder of
//! the hub, `hf:owner/name/path`.

use super::library::EmbeddedRecords;
use super::{device, dictionary, embedded, fetch};
use anyhow::{Context, bail};
use std::path::{Path, PathBuf};
use tdb_data::{Error as DataError, Library, fetch_tokenizer, hub};
use tdb_model::checkpoint::{self, Checkpoint, drop_dead_latents};
use tdb_model::{AutoencoderSite, Config, Device, Element, NamedAutoencoder, Slot, Tokenizer, Transformer, Weights};
use tdb_scalars::{Dictionary, Engine};
use tokio::runtime::Handle;

/// The model that answers, with its dictionaries
#[derive(Debug, Clone, clap::Args)]
pub struct ModelArgs {
    /// Model: a registered name, a folder below --models, a path, or owner/name[@revision] of Hugging Face's hub.
    /// Without it, the small model inside the program
    #[arg(long, alias = "model_name", alias = "model-name", value_name = "NAME|FOLDER")]
    pub model: Option<String>,
    /// Autoencoder on the MLP layers: a registered name, a folder below the model's autoencoders/, or a path
    #[arg(long, alias = "mlp_autoencoder_name", alias = "mlp-autoencoder-name", value_name = "NAME|FOLDER")]
    pub mlp_autoencoder: Option<String>,
    /// Autoencoder on the attention layers, looked up likewise
    #[arg(long, alias = "attn_autoencoder_name", alias = "attn-autoencoder-name", value_name = "NAME|FOLDER")]
    pub attn_autoencoder: Option<String>,
    /// Dictionary (sparse autoencoder or transcoder) at any site, looked up likewise, or a folder of Hugging Face's hub
    /// as hf:owner/name[@revision]/path; may be repeated for other sites, and for other layers of the same site.
    /// What its files do not say is written after it: FOLDER,site=resid_post_mlp,layer=3,normalization=layer-norm
    #[arg(long, value_name = "NAME|FOLDER[,KEY=VALUE]")]
    pub dictionary: Vec<String>,
    /// Folder of model folders; each may have its autoencoders in autoencoders/<name>/
    #[arg(long, env = "TDB_MODELS", value_name = "FOLDER")]
    pub models: Option<PathBuf>,
    /// Where the model runs: auto, cpu, cuda, cuda:NUMBER or metal. Auto takes a GPU that this program was built for
    /// (docs/gpu.md), else the processor
    #[arg(long, value_name = "DEVICE", default_value_t)]
    pub device: device::Wanted,
    /// How weights are kept in memory. Auto: 16-bit ones stay as they are in their files where the model has more than
    /// 500 million of them (half the memory, and slower by a tenth to a fifth), else they become 32-bit ones. bf16 and
    /// f16 round 32-bit weights, which changes what the model computes
    #[arg(long, value_name = "TYPE", value_enum, default_value_t)]
    pub weights: WeightsAs,
}

/// How weights are kept in memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum WeightsAs {
    #[default]
    Auto,
    F32,
    Bf16,
    F16,
}

impl WeightsAs {
    fn of(self, weights: Weights, config: &Config) -> Weights {
        /// Above this many 16-bit weights stay as they are: 2 GB as 32-bit floats.
        const MANY: usize = 500_000_000;
        match self {
            WeightsAs::Auto if config.n_parameters() > MANY => weights,
            WeightsAs::Auto | WeightsAs::F32 => weights.stored_as(Element::F32),
            WeightsAs::Bf16 => weights.stored_as(Element::Bf16),
            WeightsAs::F16 => weights.stored_as(Element::F16),
        }
    }
}

impl ModelArgs {
    /// Whether the records inside the program are listed: with the model that they are of.
    pub fn records(&self) -> EmbeddedRecords {
        match self.model.as_deref().is_none_or(|model| model == embedded::NAME) {
            true => EmbeddedRecords::Listed,
            false => EmbeddedRecords::LeftOut,
        }
    }
}

/// The model that the arguments ask for, ready to answer.
///
/// # Errors
/// As [`open`].
pub fn load(args: &ModelArgs, library: &Library, runtime: &Handle) -> anyhow::Result<Engine> {
    let device = args.device.open()?;
    let wanted = Wanted {
        model: args.model.as_deref(),
        models: args.models.as_deref(),
        mlp_autoencoder: args.mlp_autoencoder.as_deref(),
        attn_autoencoder: args.attn_autoencoder.as_deref(),
        dictionaries: &args.dictionary,
        dead_latents: false,
        device: Some(&device),
        weights: args.weights,
    };
    let opened = open(&wanted, library, runtime)?;
    let Opened { name, model, tokenizer, mlp_autoencoder, attn_autoencoder, .. } = opened;
    let engine = Engine::new(name, model, tokenizer, mlp_autoencoder, attn_autoencoder);
    let engine = engine.with_residual_autoencoder(opened.residual_autoencoder).with_beginning(opened.beginning);
    Ok(engine.with_dictionaries(opened.dictionaries))
}

/// What is to be opened: names or paths.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// Without it, the model inside the program.
    pub model: Option<&'a str>,
    /// Folder of model folders.
    pub models: Option<&'a Path>,
    pub mlp_autoencoder: Option<&'a str>,
    pub attn_autoencoder: Option<&'a str>,
    /// At any site, as [`dictionary::SYNTAX`] says.
    pub dictionaries: &'a [String],
    /// Keep latents that never fire, so that every latent of the files has its place.
    pub dead_latents: bool,
    /// Where the model runs; without it, the processor.
    pub device: Option<&'a Device>,
    pub weights: WeightsAs,
}

/// A model with its autoencoders, and the names of all.
pub struct Opened {
    pub name: String,
    pub model: Transformer,
    pub tokenizer: Tokenizer,
    /// The token that texts begin with in the way of the model's kind.
    pub beginning: Option<u32>,
    pub mlp_autoencoder: Option<String>,
    pub attn_autoencoder: Option<String>,
    pub residual_autoencoder: Option<String>,
    /// What was loaded as dictionaries, where a slot may have several.
    pub dictionaries: Vec<Dictionary>,
}

/// Finds a model and its autoencoders, fetches what is not here, and opens them.
///
/// # Errors
/// If one of them is not there or not what it should be: one sentence with file, tensor and cause.
pub fn open(wanted: &Wanted<'_>, library: &Library, runtime: &Handle) -> anyhow::Result<Opened> {
    let Found { name, folder, checkpoint } = find(wanted, library, runtime)?;
    let Checkpoint { config, weights, tokenizer, beginning, origin, notes } = checkpoint;
    tracing::info!("model {name}: {origin}");
    notes.iter().for_each(|note| tracing::warn!("{note}"));
    let (known, rows) = (tokenizer.n_vocab(), config.n_vocab);
    if known > rows {
        tracing::warn!("the tokenizer has {known} tokens, the model {rows}: a text with one of the rest is refused");
    }
    let device = wanted.device.unwrap_or(&Device::Cpu);
    let mut model = Transformer::load_on(config.clone(), wanted.weights.of(weights, &config), device)?;
    if !device.is_cpu() {
        tracing::info!("the model runs on {}", model.device_name());
    }
    let lookup = Lookup { model: &name, folder: folder.as_deref(), library, runtime, config: &config };
    let asked = [(wanted.mlp_autoencoder, Slot::Mlp), (wanted.attn_autoencoder, Slot::Attention)];
    let mut found: Vec<NamedAutoencoder> = Vec::new();
    for (asked, slot) in asked {
        let Some(asked) = asked else { continue };
        found.push(lookup.autoencoder(asked, Some(slot))?);
    }
    for asked in wanted.dictionaries {
        found.push(lookup.autoencoder(asked, None)?);
    }
    // The model inside the program comes with its own, where nothing else was asked for.
    if folder.is_none() {
        let own = [(embedded::MLP_AUTOENCODER, Slot::Mlp), (embedded::ATTN_AUTOENCODER, Slot::Attention)];
        for (own, slot) in own {
            if found.iter().all(|other| Slot::of(other.site) != slot) {
                found.push(lookup.autoencoder(own, Some(slot))?);
            }
        }
    }
    let mut names = [None, None, None];
    let (found, dictionaries) = by_slot(found)?;
    for mut found in found {
        let dropped = if wanted.dead_latents { 0 } else { drop_dead_latents(&mut found) };
        if dropped > 0 {
            tracing::info!("dictionary {}: {dropped} latents per layer never fire and are left out", found.name);
        }
        let (name, site) = (found.name.clone(), found.site);
        let layers: Vec<String> = found.indices.iter().map(ToString::to_string).collect();
        let normalization = found.layers.first().map_or("none", |layer| layer.normalization.name());
        tracing::info!(
            "dictionary {name}: {} latents at {}, layers {}, normalization {normalization}",
            found.n_latents(),
            site.name(),
            layers.join(", ")
        );
        model = model.attach(found).with_context(|| format!("dictionary {name} does not fit the model"))?;
        names[Slot::ALL.iter().position(|slot| *slot == Slot::of(site)).unwrap_or_default()] = Some(name);
    }
    let [mlp_autoencoder, attn_autoencoder, residual_autoencoder] = names;
    Ok(Opened {
        name,
        model,
        tokenizer,
        beginning,
        mlp_autoencoder,
        attn_autoencoder,
        residual_autoencoder,
        dictionaries,
    })
}

/// The dictionaries of each slot as one, and what they were loaded as.
fn by_slot(found: Vec<NamedAutoencoder>) -> anyhow::Result<(Vec<NamedAutoencoder>, Vec<Dictionary>)> {
    let (mut slots, mut dictionaries): (Vec<NamedAutoencoder>, Vec<Dictionary>) = Default::default();
    for found in found {
        let slot = Slot::of(found.site);
        dictionaries.push(Dictionary { slot, name: found.name.clone(), layers: found.indices.clone() });
        match slots.iter().position(|other| Slot::of(other.site) == slot) {
            Some(at) => {
                let other = slots.remove(at);
                slots.insert(at, other.joined(found)?);
            }
            None => slots.push(found),
        }
    }
    Ok((slots, dictionaries))
}

/// A model alone, from its name or path.
///
/// # Errors
/// As [`open`].
pub fn checkpoint(wanted: &Wanted<'_>, library: &Library, runtime: &Handle) -> anyhow::Result<(String, Checkpoint)> {
    let Found { name, checkpoint, .. } = find(wanted, library, runtime)?;
    Ok((name, checkpoint))
}

/// The token that goes before every text: the one that is named, none where that is empty, or the model's own.
///
/// # Errors
/// If there is no token of that text.
pub fn first(named: Option<&str>, tokenizer: &Tokenizer, own: Option<u32>) -> anyhow::Result<Option<u32>> {
    match named {
        None => Ok(own),
        Some("") => Ok(None),
        Some(text) => Ok(Some(tokenizer.single_token(text).context("--first")?)),
    }
}

struct Found {
    name: String,
    folder: Option<PathBuf>,
    checkpoint: Checkpoint,
}

fn find(args: &Wanted<'_>, library: &Library, runtime: &Handle) -> anyhow::Result<Found> {
    let Some(wanted) = args.model.filter(|wanted| *wanted != embedded::NAME) else {
        return Ok(Found { name: embedded::NAME.to_owned(), folder: None, checkpoint: embedded::model()? });
    };
    super::serve::check_name(wanted)?;
    if let Some(models) = args.models.filter(|models| !models.is_dir()) {
        bail!("--models (or TDB_MODELS): {} is no folder", models.display());
    }
    let below = args.models.filter(|_| is_plain(wanted)).map(|models| models.join(wanted));
    // A folder that is there is what is meant, also if a model of this name could be fetched.
    if let Some(folder) = below.as_ref().filter(|folder| folder.is_dir()) {
        return opened(wanted.to_owned(), folder.clone(), library, runtime);
    }
    if library.registry().model(wanted).is_err() && Path::new(wanted).is_dir() {
        let folder = PathBuf::from(wanted);
        // A path such as `.` has no name of its own until it is resolved.
        let whole = folder.canonicalize().with_context(|| format!("{wanted} cannot be opened"))?;
        let name = match hub::repository_of(&whole) {
            Some(repository) => repository.rsplit('/').next().unwrap_or_default().to_owned(),
            None => whole.file_name().map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned()),
        };
        return opened(name, folder, library, runtime);
    }
    match fetch::entry(library.registry(), wanted) {
        Ok(entry) => {
            let folder = runtime.block_on(fetch::model(library.fetcher(), &entry))?;
            opened(entry.name, folder, library, runtime)
        }
        Err(unknown @ DataError::NotFound(_)) => {
            let below = match below {
                Some(folder) => format!("there is no folder {}", folder.display()),
                None => "neither --models nor TDB_MODELS names a folder of models".to_owned(),
            };
            bail!("{unknown}; {below}, {wanted:?} is no folder, and a model of Hugging Face's hub is named owner/name")
        }
        Err(other) => Err(other.into()),
    }
}

fn opened(name: String, mut folder: PathBuf, library: &Library, runtime: &Handle) -> anyhow::Result<Found> {
    // In a repository's folder of Hugging Face's cache the files lie deeper.
    if !folder.join("config.json").exists()
        && let Some(snapshot) = hub::snapshot_in(&folder)
    {
        folder = snapshot;
    }
    let fetched = |repository: String| runtime.block_on(fetch_tokenizer(library.fetcher(), &repository));
    let tokenizer = checkpoint::named_tokenizer(&folder).map(fetched).transpose();
    let tokenizer = tokenizer.context("the tokenizer that config.json names")?;
    let checkpoint = checkpoint::open_with_tokenizer(&folder, tokenizer.as_deref())?;
    Ok(Found { name: address_name(&name), folder: Some(folder), checkpoint })
}

/// The name that stands for a folder's in addresses of pages, where underscores part names, and in names of records.
fn address_name(folder: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-.+".contains(c) { c } else { '-' };
    folder.trim_start_matches('.').chars().map(plain).collect()
}

/// A single name rather than a path.
fn is_plain(name: &str) -> bool {
    !name.contains(['/', '\\']) && name != "." && name != ".."
}

struct Lookup<'a> {
    model: &'a str,
    folder: Option<&'a Path>,
    library: &'a Library,
    runtime: &'a Handle,
    config: &'a Config,
}

impl Lookup<'_> {
    /// Under the name by which addresses know it. With a slot, only a dictionary of that slot is taken.
    fn autoencoder(&self, text: &str, slot: Option<Slot>) -> anyhow::Result<NamedAutoencoder> {
        let dictionary::Wanted { name: wanted, mut options } = dictionary::Wanted::parse(text)?;
        let wanted = wanted.as_str();
        let inside = if self.folder.is_none() { embedded::autoencoder(wanted, self.config)? } else { None };
        let mut found = match inside {
            Some(found) => found,
            None => {
                let (folder, site) = self.folder_of(wanted)?;
                options.site = options.site.or(site);
                checkpoint::open_dictionary(&folder, &options, self.config)?
            }
        };
        if slot.is_some_and(|slot| Slot::of(found.site) != slot) {
            let right = match Slot::of(found.site) {
                Slot::Mlp => "--mlp-autoencoder",
                Slot::Attention => "--attn-autoencoder",
                Slot::Residual => "--dictionary",
            };
            let given = if slot == Some(Slot::Mlp) { "--mlp-autoencoder" } else { "--attn-autoencoder" };
            bail!("autoencoder {wanted} is of {:?}, which {given} does not take; give it as {right}", found.site);
        }
        // A path goes by its last part.
        let name = Path::new(wanted).file_name().map_or(wanted.to_owned(), |name| name.to_string_lossy().into_owned());
        found.name = address_name(&name);
        Ok(found)
    }

    fn folder_of(&self, wanted: &str) -> anyhow::Result<(PathBuf, Option<AutoencoderSite>)> {
        if wanted.starts_with("hf:") {
            let fetched = self.runtime.block_on(fetch::hub_dictionary(self.library.fetcher(), wanted));
            return Ok((fetched?, None));
        }
        let own = self.folder.map(|folder| folder.join("autoencoders").join(wanted)).filter(|_| is_plain(wanted));
        if let Some(folder) = own.as_ref().filter(|folder| folder.is_dir()) {
            return Ok((folder.clone(), None));
        }
        match self.library.registry().autoencoder(self.model, wanted) {
            Ok(entry) => self.fetched(entry),
            Err(_) if Path::new(wanted).is_dir() => Ok((PathBuf::from(wanted), None)),
            Err(unknown) => match own {
                Some(folder) => {
                    bail!("{unknown}; there is no folder {}, and {wanted:?} is none either", folder.display())
                }
                None => bail!("{unknown}, and {wanted:?} is no folder"),
            },
        }
    }

    fn fetched(&self, entry: &tdb_data::AutoencoderEntry) -> anyhow::Result<(PathBuf, Option<AutoencoderSite>)> {
        let local = self.runtime.block_on(fetch::autoencoder(self.library.fetcher(), entry))?;
        let folder = local.first().and_then(|file| file.parent()).map(Path::to_path_buf);
        let folder = folder.with_context(|| format!("autoencoder {} has no files", entry.name))?;
        Ok((folder, AutoencoderSite::from_name(&entry.site)))
    }
}
