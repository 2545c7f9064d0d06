//! Checkpoint folders of the reference's layout, holding a preset's procedural weights:
//!
//! ```text
//! <folder>/<model>/config.json
//! <folder>/<model>/model_pieces/<tensor>.pt                 one bare tensor a file
//! <folder>/<model>/autoencoders/<autoencoder>/<layer>.pt    a state dict a layer
//! ```

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;
use tempfile::NamedTempFile;

use crate::presets::{Activation, Autoencoder, FileStyle, Preset};
use crate::torch::{self, Tensor, Value};

/// What of a preset to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parts {
    Model,
    ModelAndAutoencoders,
}

/// Writes `preset` below `folder` and returns `folder/<model>`. What an earlier call wrote there completely is kept, so
/// that a second call is free.
///
/// # Errors
/// When a file cannot be written; names it.
pub fn write(preset: &Preset, folder: &Path, parts: Parts) -> Result<PathBuf> {
    let root = folder.join(preset.name);
    let shape = &preset.shape;
    for spec in shape.tensors() {
        let path = root.join("model_pieces").join(format!("{}.pt", spec.name));
        save(&path, || Value::F32(Tensor::contiguous(spec.values(preset.seed), &spec.shape)))?;
    }
    if parts == Parts::ModelAndAutoencoders {
        for ae in &preset.autoencoders {
            for layer in 0..shape.n_layers {
                let path = root.join("autoencoders").join(ae.name).join(format!("{layer}.pt"));
                save(&path, || state_dict(preset, ae, layer))?;
            }
        }
    }
    let config = json!({
        "enc": "gpt2", "ctx_window": shape.ctx_window, "d_model": shape.d_model, "n_layers": shape.n_layers,
        "m_attn": 1, "n_heads": shape.n_heads, "m_mlp": 4,
    });
    let path = root.join("config.json");
    replace(&path, |file| file.write_all(config.to_string().as_bytes()))?;
    Ok(root)
}

/// Makes the file under a name of its own and renames it, so that a file of the right name is always whole, however many
/// tests write it at once.
fn save(path: &Path, value: impl FnOnce() -> Value) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    replace(path, |file| torch::save(&value(), &mut BufWriter::with_capacity(1 << 20, file)))
}

fn replace(path: &Path, content: impl FnOnce(&mut File) -> io::Result<()>) -> Result<()> {
    let folder = path.parent().context("a file has a folder")?;
    fs::create_dir_all(folder)
        .and_then(|()| NamedTempFile::new_in(folder))
        .and_then(|mut part| content(part.as_file_mut()).map(|()| part))
        .and_then(|part| Ok(part.persist(path)?))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(())
}

/// The state dict of one layer's autoencoder.
fn state_dict(preset: &Preset, ae: &Autoencoder, layer: usize) -> Value {
    let [pre_bias, latent_bias, encoder, decoder] = ae.tensors(&preset.shape, layer);
    let generated =
        |spec: &crate::weights::TensorSpec| Value::F32(Tensor::contiguous(spec.values(preset.seed), &spec.shape));
    let n = ae.n_latents;
    let mut frequency = vec![0.01f32; n];
    frequency[n - ae.n_dead(layer)..].fill(0.0);

    let mut entries: Vec<(String, Value)> = Vec::new();
    let mut add = |key: &str, value: Value| entries.push((key.into(), value));
    add("pre_bias", generated(&pre_bias));
    add("latent_bias", generated(&latent_bias));
    add("stats_last_nonzero", Value::I64(Tensor::contiguous(vec![0; n], &[n])));
    if ae.style != FileStyle::Old {
        add("latents_activation_frequency", Value::F32(Tensor::contiguous(frequency, &[n])));
        add("latents_mean_square", Value::F32(Tensor::contiguous(vec![0.0; n], &[n])));
    }
    add("encoder.weight", generated(&encoder));
    add(
        "decoder.weight",
        match ae.style {
            FileStyle::DecoderTransposed => Value::F32(transposed(decoder.values(preset.seed), decoder.shape[0], n)),
            _ => generated(&decoder),
        },
    );
    if ae.style == FileStyle::Old {
        return Value::Dict(entries);
    }
    let text = |s: &str| Value::Str(s.into());
    let (name, state) = match ae.activation {
        Activation::Relu => ("ReLU", vec![]),
        Activation::TopK { k, postact } => {
            ("TopK", vec![("k".into(), Value::Int(k as u32)), ("postact_fn".into(), text(postact))])
        }
    };
    entries.push(("activation".into(), text(name)));
    entries.push(("activation_state_dict".into(), Value::OrderedDict(state)));
    if ae.style == FileStyle::WithMetadata {
        let version = |module: &str| (module.into(), Value::Dict(vec![("version".into(), Value::Int(1))]));
        return Value::StateDict { entries, metadata: ["", "encoder", "activation", "decoder"].map(version).into() };
    }
    Value::OrderedDict(entries)
}

/// The row-major `[rows, cols]` values stored column by column, still read as `[rows, cols]`.
fn transposed(values: Vec<f32>, rows: usize, cols: usize) -> Tensor<f32> {
    let mut data = vec![0.0; values.len()];
    for (row, line) in values.chunks_exact(cols).enumerate() {
        for (col, &v) in line.iter().enumerate() {
            data[col * rows + row] = v;
        }
    }
    Tensor { data, shape: vec![rows, cols], strides: vec![1, rows] }
}
