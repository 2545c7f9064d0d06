//! What a training leaves behind.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use tdb_model::NamedAutoencoder;
use tdb_model::checkpoint::{Precision, native, sae_lens};

use super::recipe::{SaeRecipe, Sparsity};
use super::start::SaeStart;
use super::train::TrainedAutoencoder;
use crate::error::{Error, Result};
use crate::folder::write_json;

/// Beside the autoencoders: recipe and quality.
pub const REPORT: &str = "training.json";

/// The file in which the state of a training that writes to `folder` is kept.
pub fn state_file(folder: &Path) -> PathBuf {
    folder.join("training-state.safetensors")
}

/// Whether `folder` holds finished autoencoders.
pub fn is_finished(folder: &Path) -> bool {
    folder.join(REPORT).exists()
}

/// Writes the autoencoders of all layers into `folder`, whose name is theirs, and removes the training's state. `text`
/// says what they learnt from, `start` what the training went on from.
pub fn write_autoencoders(
    folder: &Path,
    recipe: &SaeRecipe,
    text: &str,
    start: Option<&SaeStart>,
    trained: &[TrainedAutoencoder],
    precision: Precision,
) -> Result<()> {
    native::save_autoencoder(folder, &named(folder, recipe, trained), precision)
        .map_err(|error| Error::Model(error.to_string()))?;
    let quality: Vec<_> = trained.iter().map(|trained| trained.quality).collect();
    let mut report = json!({"recipe": recipe, "text": text, "quality": quality});
    if let Some(start) = start {
        report["start"] = start.report().clone();
    }
    write_json(&folder.join(REPORT), &report)?;
    let state = state_file(folder);
    if state.exists() {
        fs::remove_file(&state).map_err(Error::file(&state))?;
    }
    Ok(())
}

/// Whether SAELens has dictionaries of this kind.
///
/// # Errors
/// If it has not: its transcoders have no TopK.
pub fn check_sae_lens(recipe: &SaeRecipe) -> Result<()> {
    match recipe.sparsity {
        Sparsity::TopK { .. } if recipe.site.is_transcoder() => {
            Err(Error::setting("sae-lens", "SAELens has no transcoders with TopK; train with --l1 for it"))
        }
        _ => Ok(()),
    }
}

/// Writes them as SAELens reads them, too. `model` is the name by which TransformerLens knows the model.
pub fn export_sae_lens(folder: &Path, recipe: &SaeRecipe, trained: &[TrainedAutoencoder], model: &str) -> Result<()> {
    sae_lens::save_autoencoder(folder, &named(folder, recipe, trained), model)
        .map_err(|error| Error::Model(error.to_string()))
}

fn named(folder: &Path, recipe: &SaeRecipe, trained: &[TrainedAutoencoder]) -> NamedAutoencoder {
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    NamedAutoencoder::of_every_layer(name, recipe.site, trained.iter().map(|trained| trained.weights.clone()).collect())
}

/// A table for people; also valid Markdown.
pub fn quality_table(trained: &[TrainedAutoencoder]) -> String {
    let mut text = String::from(
        "| layer | variance explained | loss recovered | loss, reconstructed, zero | latents per token | dead |\n\
         |---|---|---|---|---|---|\n",
    );
    for TrainedAutoencoder { quality, .. } in trained {
        text.push_str(&format!(
            "| {} | {:.1} % | {} | {:.3}, {:.3}, {:.3} | {:.1} | {:.1} % |\n",
            quality.layer,
            100.0 * quality.variance_explained,
            quality.loss_recovered.map_or_else(|| "nothing lost".to_owned(), |share| format!("{:.1} %", 100.0 * share)),
            quality.loss,
            quality.loss_reconstructed,
            quality.loss_zero,
            quality.latents_per_token,
            100.0 * quality.dead,
        ));
    }
    text
}
