//! Which files a model or an autoencoder consists of, and getting all of them.

use std::path::PathBuf;

use serde::Deserialize;

use crate::{AutoencoderEntry, Error, Fetcher, Location, ModelEntry, ModelLayout, Progress, Result, json};

/// A `config.json` or an index of shards is a few kilobytes.
const MAX_CONFIG_BYTES: usize = 16 << 20;

/// A checkpoint with more layers than this is a mistake, not a model that this program can hold.
const MAX_LAYERS: usize = 1000;

/// A checkpoint in one file; large ones are in shards.
const WHOLE: &str = "model.safetensors";

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
    let config = base.join("config.json")?;
    let config_text = fetcher.bytes(&config, MAX_CONFIG_BYTES).await?;
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
            for name in ["tokenizer.json", "vocab.json", "merges.txt", "generation_config.json", WHOLE] {
                let location = base.join(name)?;
                if fetcher.optional(&location, progress).await?.is_none() {
                    absent.push(location);
                }
            }
            if absent.iter().any(|location| location.path().ends_with(WHOLE)) {
                fetcher.files(&shards(fetcher, &base).await?, progress).await?;
            }
            // Only now: a repository that lacks what it needs may be about to be filled.
            absent.iter().try_for_each(|location| fetcher.note_absent(location))?;
        }
    }
    let file = fetcher.file(&config, &()).await?;
    Ok(file.parent().map_or_else(|| file.clone(), PathBuf::from))
}

/// The shards that a repository's index names.
async fn shards(fetcher: &Fetcher, base: &Location) -> Result<Vec<Location>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: std::collections::BTreeMap<String, String>,
    }
    let index = base.join("model.safetensors.index.json")?;
    let text = fetcher.bytes(&index, MAX_CONFIG_BYTES).await.map_err(|e| match e {
        Error::NotFound(_) => Error::NotFound(format!("{base} has neither {WHOLE} nor an index of its shards")),
        Error::Offline { .. } => match base.join(WHOLE) {
            Ok(whole) => Error::Offline { location: whole.to_string() },
            Err(error) => error,
        },
        other => other,
    })?;
    fetcher.file(&index, &()).await?;
    let parsed: Index = json::parse(&index.to_string(), &text, MAX_CONFIG_BYTES)?;
    let names: std::collections::BTreeSet<String> = parsed.weight_map.into_values().collect();
    names
        .iter()
        .map(|name| base.join(name).map_err(|e| Error::damaged(index.to_string(), format!("names the file {e}"))))
        .collect()
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
