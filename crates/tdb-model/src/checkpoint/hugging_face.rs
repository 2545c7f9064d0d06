//! GPT-2 as Hugging Face's `transformers` saves it.
//!
//! ```text
//! <model>/config.json
//! <model>/model.safetensors            or several files with model.safetensors.index.json
//! <model>/tokenizer.json
//! ```
//!
//! Weights of `Conv1D` are `[in, out]`: they are read through transposed views, and the fused query, key and value
//! matrix through views of its three parts. The unembedding is the token embedding unless the configuration says
//! otherwise.

use std::path::Path;

use serde_json::{Map, Value as Json};

use super::Checkpoint;
use super::error::CheckpointError;
use super::safetensors_file::{TensorFile, TensorFiles};
use super::settings::Settings;
use super::source::{Source, parse_json, read_json};
use crate::matrix::Matrix;
use crate::tokenizer::Tokenizer;
use crate::weights::{Config, LayerNorm, LayerWeights, Linear, Weights};

/// Reads a folder; matrices of 32-bit floats stay in its files.
///
/// # Errors
/// A setting, file or tensor that is missing, does not fit, or changes what the model computes in a way that is not
/// implemented.
pub fn load(folder: &Path) -> Result<Checkpoint, CheckpointError> {
    let path = folder.join("config.json");
    let json = read_json(&path)?;
    let (config, tied) = read_config(&Settings::new(&path, &json))?;
    let (weights, tokenizer) = rayon::join(
        || read_weights(config, tied, &TensorFiles::open(folder, "model")?),
        || Tokenizer::from_file(&folder.join("tokenizer.json")),
    );
    Ok(Checkpoint { weights: weights?, tokenizer: tokenizer?, source: format!("{} (Hugging Face)", folder.display()) })
}

/// Reads a model whose three files are in memory, such as the one inside the program; `name` names it in errors.
///
/// # Errors
/// As [`load`].
pub fn from_bytes(
    name: &str,
    config: &[u8],
    safetensors: &'static [u8],
    tokenizer: &[u8],
) -> Result<Checkpoint, CheckpointError> {
    let folder = Path::new(name);
    let path = folder.join("config.json");
    let json = parse_json(&path, config)?;
    let (config, tied) = read_config(&Settings::new(&path, &json))?;
    let file = TensorFile::from_source(&folder.join("model.safetensors"), Source::Static(safetensors))?;
    let weights = read_weights(config, tied, &TensorFiles::single(file)?)?;
    let tokenizer = Tokenizer::from_bytes(&folder.join("tokenizer.json"), tokenizer)?;
    Ok(Checkpoint { weights, tokenizer, source: format!("{name} (inside the program)") })
}

/// Is this object the kind of `config.json` that `transformers` writes?
pub(crate) fn is_config(config: &Map<String, Json>) -> bool {
    config.contains_key("model_type") || config.contains_key("n_embd") || config.contains_key("architectures")
}

/// The shape, and whether the unembedding is the token embedding.
fn read_config(settings: &Settings<'_>) -> Result<(Config, bool), CheckpointError> {
    let is = |key: &str, expected: Json, default: bool| match settings.get(key) {
        Some(found) if *found != expected => Err(settings.unexpected(key, &expected.to_string())),
        None if !default => Err(CheckpointError::missing(settings.path(), key)),
        _ => Ok(()),
    };
    is("model_type", "gpt2".into(), false)?;
    match settings.text("activation_function")? {
        "gelu_new" | "gelu_pytorch_tanh" => {}
        _ => return Err(settings.unexpected("activation_function", "\"gelu_new\" or \"gelu_pytorch_tanh\"")),
    }
    let epsilon = settings.value("layer_norm_epsilon")?.as_f64();
    if epsilon.is_none_or(|epsilon| (epsilon - 1e-5).abs() > 1e-11) {
        return Err(settings.unexpected("layer_norm_epsilon", "1e-5"));
    }
    // Absent means the value that GPT-2 has; the format got these settings later.
    is("scale_attn_weights", true.into(), true)?;
    is("scale_attn_by_inverse_layer_idx", false.into(), true)?;
    is("add_cross_attention", false.into(), true)?;
    let tied = match settings.get("tie_word_embeddings") {
        None => true,
        Some(value) => value.as_bool().ok_or_else(|| settings.unexpected("tie_word_embeddings", "true or false"))?,
    };
    let d_model = settings.size("n_embd")?;
    let n_heads = settings.size("n_head")?;
    if d_model % n_heads != 0 {
        return Err(settings.unexpected("n_head", &format!("a divisor of n_embd, {d_model}")));
    }
    let config = Config {
        n_layers: settings.layers("n_layer")?,
        d_model,
        n_heads,
        d_head: d_model / n_heads,
        d_ff: if settings.get("n_inner").is_some() { settings.size("n_inner")? } else { 4 * d_model },
        ctx_window: settings.size(if settings.get("n_positions").is_some() { "n_positions" } else { "n_ctx" })?,
        n_vocab: settings.size("vocab_size")?,
    };
    Ok((config, tied))
}

fn read_weights(config: Config, tied: bool, files: &TensorFiles) -> Result<Weights, CheckpointError> {
    let prefix = if files.contains("transformer.wte.weight") { "transformer." } else { "" };
    refuse_unknown_tensors(&config, prefix, files)?;
    let reader = Reader { files, prefix };
    let (d, d_ff, vocab) = (config.d_model, config.d_ff, config.n_vocab);
    let tok_embed = reader.matrix("wte.weight", [vocab, d])?;
    let unembed = match (tied, files.contains("lm_head.weight")) {
        (true, false) => tok_embed.clone(),
        (_, true) => {
            let unembed = files.tensor("lm_head.weight")?.matrix([vocab, d])?;
            if tied && unembed.to_vec() != tok_embed.to_vec() {
                let found = "another matrix, while tie_word_embeddings is not false";
                return Err(CheckpointError::unexpected(files.path(), "lm_head.weight", "the token embedding", found));
            }
            if tied { tok_embed.clone() } else { unembed }
        }
        (false, false) => return Err(CheckpointError::missing(files.path(), "lm_head.weight")),
    };
    let layer = |index: usize| {
        let part = |name: &str| format!("h.{index}.{name}");
        let [query, key, value] = reader.fused(&part("attn.c_attn"), d)?;
        Ok(LayerWeights {
            ln_1: reader.layer_norm(&part("ln_1"), d)?,
            query,
            key,
            value,
            out: reader.conv_1d(&part("attn.c_proj"), [d, d])?,
            ln_2: reader.layer_norm(&part("ln_2"), d)?,
            mlp_in: reader.conv_1d(&part("mlp.c_fc"), [d, d_ff])?,
            mlp_out: reader.conv_1d(&part("mlp.c_proj"), [d_ff, d])?,
        })
    };
    Ok(Weights {
        tok_embed,
        pos_embed: reader.matrix("wpe.weight", [config.ctx_window, d])?,
        layers: (0..config.n_layers).map(layer).collect::<Result<_, CheckpointError>>()?,
        ln_f: reader.layer_norm("ln_f", d)?,
        unembed,
        config,
    })
}

const PARTS: [&str; 6] = ["ln_1", "ln_2", "attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"];

fn refuse_unknown_tensors(config: &Config, prefix: &str, files: &TensorFiles) -> Result<(), CheckpointError> {
    let known = |name: &str| -> Option<bool> {
        if name == "lm_head.weight" {
            return Some(true);
        }
        let name = name.strip_prefix(prefix)?;
        let Some(rest) = name.strip_prefix("h.") else {
            return Some(["wte.weight", "wpe.weight", "ln_f.weight", "ln_f.bias"].contains(&name));
        };
        let (layer, rest) = rest.split_once('.')?;
        let canonical = layer.parse::<usize>().is_ok_and(|n| n < config.n_layers && n.to_string() == layer);
        // The causal mask, which older versions saved.
        let mask = ["attn.bias", "attn.masked_bias"].contains(&rest);
        let (part, last) = rest.rsplit_once('.')?;
        Some(canonical && (mask || PARTS.contains(&part) && ["weight", "bias"].contains(&last)))
    };
    match files.names().find(|name| known(name) != Some(true)) {
        None => Ok(()),
        Some(name) => {
            let layout = format!("the tensors of a GPT-2 of {} layers", config.n_layers);
            Err(CheckpointError::unknown(files.path(), name, layout))
        }
    }
}

struct Reader<'a> {
    files: &'a TensorFiles,
    prefix: &'a str,
}

impl Reader<'_> {
    fn matrix(&self, name: &str, shape: [usize; 2]) -> Result<Matrix, CheckpointError> {
        self.files.tensor(&format!("{}{name}", self.prefix))?.matrix(shape)
    }

    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, CheckpointError> {
        self.files.tensor(&format!("{}{name}", self.prefix))?.vector(len)
    }

    fn layer_norm(&self, name: &str, width: usize) -> Result<LayerNorm, CheckpointError> {
        Ok(LayerNorm {
            gain: self.vector(&format!("{name}.weight"), width)?,
            bias: self.vector(&format!("{name}.bias"), width)?,
        })
    }

    fn conv_1d(&self, name: &str, [inputs, outputs]: [usize; 2]) -> Result<Linear, CheckpointError> {
        Ok(Linear {
            weight: self.matrix(&format!("{name}.weight"), [inputs, outputs])?.transpose(),
            bias: self.vector(&format!("{name}.bias"), outputs)?,
        })
    }

    /// The matrix `[d, 3 d]` of query, key and value.
    fn fused(&self, name: &str, d: usize) -> Result<[Linear; 3], CheckpointError> {
        let all = self.conv_1d(name, [d, 3 * d])?;
        Ok([0, 1, 2].map(|part| {
            let range = part * d..(part + 1) * d;
            Linear { weight: all.weight.row_range(range.clone()), bias: all.bias[range].to_vec() }
        }))
    }
}
