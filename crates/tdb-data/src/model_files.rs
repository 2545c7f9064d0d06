//! Which files a model or an autoencoder consists of, and getting all of them.

use std::path::PathBuf;

use serde::Deserialize;

use crate::hub::{self, WEIGHTS};
use crate::location::Root;
use crate::{AutoencoderEntry, Error, Fetcher, Location, ModelEntry, ModelLayout, Progress, Result, json};

/// A `config.json` or an index of shards is a few kilobytes.
const MAX_CONFIG_BYTES: usize = 16 << 20;

/// A checkpoint with more layers than this is a mistake, not a model that this program can hold.
const MAX_LAYERS: usize = 1000;

/// Files of a Hugging Face repository beside settings and weights that it may have.
const OPTIONAL: [&str; 7] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "generation_config.json",
];

/// The model that `name` means on Hugging Face's hub: `owner/name[@revision]`, with or without `hf:` before it; `None` if
/// it has another form.
pub fn hub_model(name: &str) -> Option<ModelEntry> {
    let repository = name.strip_prefix("hf:").unwrap_or(name);
    let location = Location::parse(&format!("hf:{repository}")).ok().filter(|location| location.path().is_empty())?;
    Some(ModelEntry {
        name: repository.rsplit('/').next()?.to_owned(),
        title: repository.to_owned(),
        location: location.to_string(),
        layout: ModelLayout::HuggingFace,
        n_layers: None,
        alternative: None,
    })
}

/// Fetches a model's checkpoint and returns the folder it is in on this machine. If the place in the registry cannot be
/// read, its alternative is taken.
pub async fn fetch_model(
    fetcher: &Fetcher,
    entry: &ModelEntry,
    progress: &dyn Progress,
) -> Result<(PathBuf, ModelLayout)> {
    let first = fetch_folder(fetcher, &entry.location, entry.layout, progress).await;
    let (Err(Error::Network { .. } | Error::NotFound(_) | Error::Denied { .. } | Error::Offline { .. }), Some(other)) =
        (&first, &entry.alternative)
    else {
        return first.map(|folder| (folder, entry.layout));
    };
    let Err(why) = first else { unreachable!("matched an error above") };
    if !fetcher.is_offline() {
        progress.note(&entry.name, &format!("{why}; trying {other}"));
    }
    match fetch_folder(fetcher, other, ModelLayout::HuggingFace, progress).await {
        Ok(folder) => Ok((folder, ModelLayout::HuggingFace)),
        // What stands in the registry first is what a person will look into first.
        Err(_) => Err(why),
    }
}

/// The `tokenizer.json` of a repository of Hugging Face's hub, fetched if it is not here.
///
/// # Errors
/// If it is no name of a repository, or the file cannot be had.
pub async fn fetch_tokenizer(fetcher: &Fetcher, repository: &str) -> Result<PathBuf> {
    let base = Location::parse(&format!("hf:{repository}"))?;
    fetcher.file(&base.join("tokenizer.json")?, &()).await
}

async fn fetch_folder(
    fetcher: &Fetcher,
    location: &str,
    layout: ModelLayout,
    progress: &dyn Progress,
) -> Result<PathBuf> {
    let base = Location::parse(location)?;
    if let Some(folder) = fetcher.resolve(&base)?.local() {
        return Ok(folder.to_path_buf());
    }
    if let Some(folder) = fetcher.hub_cache().and_then(|cache| hub::snapshot(cache, &base)) {
        return Ok(folder);
    }
    let config = base.join("config.json")?;
    let config_text = fetcher.bytes(&config, MAX_CONFIG_BYTES).await.map_err(|error| of_hub(fetcher, &base, error))?;
    match layout {
        ModelLayout::Pieces => {
            #[derive(Deserialize)]
            struct Config {
                n_layers: usize,
            }
            let parsed: Config = json::parse(&config.to_string(), &config_text, MAX_CONFIG_BYTES)?;
            if parsed.n_layers > MAX_LAYERS {
                return Err(Error::damaged(config.to_string(), format!("n_layers is {}", parsed.n_layers)));
            }
            let files = piece_names(parsed.n_layers)
                .map(|name| base.join(&format!("model_pieces/{name}.pt")))
                .collect::<Result<Vec<_>>>()?;
            fetcher.files(&files, progress).await?;
        }
        ModelLayout::HuggingFace => {
            let mut absent = Vec::new();
            for name in OPTIONAL {
                let location = base.join(name)?;
                if fetcher.optional(&location, progress).await?.is_none() {
                    absent.push(location);
                }
            }
            weights(fetcher, &base, progress, &mut absent).await?;
            // Only now: a repository that lacks what it needs may be about to be filled.
            absent.iter().try_for_each(|location| fetcher.note_absent(location))?;
        }
    }
    let file = fetcher.file(&config, &()).await?;
    Ok(file.parent().map_or_else(|| file.clone(), PathBuf::from))
}

/// Weights in whichever form the repository has them: one file, or those that an index names.
async fn weights(
    fetcher: &Fetcher,
    base: &Location,
    progress: &dyn Progress,
    absent: &mut Vec<Location>,
) -> Result<()> {
    for name in WEIGHTS {
        let whole = base.join(name)?;
        if fetcher.optional(&whole, progress).await?.is_some() {
            return Ok(());
        }
        absent.push(whole);
        if let Some(shards) = shards(fetcher, base, name).await? {
            fetcher.files(&shards, progress).await?;
            return Ok(());
        }
    }
    let [first, second, third] = WEIGHTS;
    match fetcher.is_offline() {
        true => Err(Error::Offline { location: base.join(first)?.to_string() }),
        false => Err(Error::NotFound(format!(
            "{base} has neither {first} nor {second} nor {third}, nor an index of their shards"
        ))),
    }
}

/// The shards that a repository's index of this file names; `None` if there is no index.
async fn shards(fetcher: &Fetcher, base: &Location, name: &str) -> Result<Option<Vec<Location>>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: std::collections::BTreeMap<String, String>,
    }
    let index = base.join(&format!("{name}.index.json"))?;
    let text = match fetcher.bytes(&index, MAX_CONFIG_BYTES).await {
        Ok(text) => text,
        Err(Error::NotFound(_) | Error::Offline { .. }) => return Ok(None),
        Err(other) => return Err(other),
    };
    fetcher.file(&index, &()).await?;
    let parsed: Index = json::parse(&index.to_string(), &text, MAX_CONFIG_BYTES)?;
    let names: std::collections::BTreeSet<String> = parsed.weight_map.into_values().collect();
    let shard =
        |name: &String| base.join(name).map_err(|e| Error::damaged(index.to_string(), format!("names the file {e}")));
    names.iter().map(shard).collect::<Result<_>>().map(Some)
}

/// What keeps a repository of the hub from being fetched, with what helps.
fn of_hub(fetcher: &Fetcher, base: &Location, error: Error) -> Error {
    if !matches!(base.root(), Root::HuggingFace { .. }) {
        return error;
    }
    match error {
        Error::Offline { .. } => {
            let models = fetcher.hub_cache().map(hub::models).unwrap_or_default();
            let here = match fetcher.hub_cache() {
                Some(_) if !models.is_empty() => format!("Hugging Face's cache has {}", models.join(", ")),
                Some(cache) => format!("there is no model in Hugging Face's cache, {}", cache.display()),
                None => "no cache of Hugging Face's is known here".to_owned(),
            };
            Error::NotFound(format!("{base} is not on this machine and offline mode is on; {here}"))
        }
        denial @ Error::Denied { .. } => denied(denial),
        Error::NotFound(_) => Error::NotFound(format!("{base} has no config.json: it is no model of `transformers`")),
        other => other,
    }
}

/// A denial of the hub with what helps. The hub answers so, too, where there is no such repository.
pub(crate) fn denied(error: Error) -> Error {
    match error {
        Error::Denied { location, reason } => Error::Denied {
            location,
            reason: format!(
                "{reason}; there is no such repository, or its licence has to be accepted on its page and HF_TOKEN set \
                 to a token of that account"
            ),
        },
        other => other,
    }
}

/// An autoencoder's files, layer by layer, each layer's in the registry's order.
pub fn autoencoder_files(entry: &AutoencoderEntry) -> Result<Vec<Location>> {
    let mut all = Vec::new();
    for layer in 0..entry.n_layers {
        all.extend(entry.layer_files(layer)?);
    }
    Ok(all)
}

/// The tensors of a GPT-2 checkpoint, as the names of its files.
fn piece_names(n_layers: usize) -> impl Iterator<Item = String> {
    let whole = ["tok_embed.weight", "pos_embed.weight", "final_ln.weight", "final_ln.bias", "unembed.weight"];
    let parts =
        ["ln_1", "ln_2", "attn.q_proj", "attn.k_proj", "attn.v_proj", "attn.out_proj", "mlp.in_layer", "mlp.out_layer"];
    let layers = (0..n_layers).flat_map(move |i| {
        parts.into_iter().flat_map(move |part| ["weight", "bias"].map(|kind| format!("xf_layers.{i}.{part}.{kind}")))
    });
    whole.into_iter().map(str::to_string).chain(layers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_has_five_tensors_and_sixteen_for_each_layer() {
        let names: Vec<_> = piece_names(2).collect();
        assert_eq!(names.len(), 5 + 2 * 16);
        assert!(names.contains(&"xf_layers.1.attn.out_proj.bias".to_string()));
    }
}
