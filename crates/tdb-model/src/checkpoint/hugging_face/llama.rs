//! Llama and those of its shape: SmolLM2 and others that call themselves Llama, SmolLM3, and Mistral.

use super::decoder::{Decoder, buffers, tensors, window, windows};
use super::{Family, MODEL, rope};
use crate::checkpoint::CheckpointError;
use crate::checkpoint::settings::Settings;
use crate::config::{AttentionBias, Config, Positions};

pub(super) const LLAMA: Family = Family { model_type: "llama", config: llama, ..BASE };
pub(super) const MISTRAL: Family = Family { model_type: "mistral", config: mistral, ..BASE };
pub(super) const SMOLLM3: Family = Family { model_type: "smollm3", config: smollm3, ..BASE };

const BASE: Family = Family {
    model_type: "",
    config: llama,
    tensors,
    names: &MODEL,
    embedding: "embed_tokens.weight",
    buffers,
    other_parts: &[],
};

/// `pretraining_tp` is how products were divided in training; `is_llama_config` and `rope_interleaved` are what another
/// program's exporter wrote.
fn llama(settings: &Settings<'_>) -> Result<Config, CheckpointError> {
    const LLAMA: Decoder = Decoder {
        settings: &["is_llama_config", "mlp_bias", "pretraining_tp", "rope_interleaved"],
        sizes: &[],
        tied: false,
    };
    let mut config = LLAMA.rotary_config(settings)?;
    if settings.flag("rope_interleaved", false)? {
        return Err(settings.unexpected("rope_interleaved", "false"));
    }
    config.mlp_bias = settings.flag("mlp_bias", false)?;
    Ok(config)
}

fn mistral(settings: &Settings<'_>) -> Result<Config, CheckpointError> {
    const MISTRAL: Decoder =
        Decoder { settings: &["layer_types", "sliding_window"], sizes: &[("num_key_value_heads", 8)], tied: false };
    let mut config = MISTRAL.rotary_config(settings)?;
    // Whatever `attention_bias` says, which some files have, too.
    config.attention.bias = AttentionBias::default();
    // All layers have the window, or none.
    let window = window(settings, 4096)?;
    config.attention.windows = windows(settings, config.n_layers, window, |_| window.is_some())?;
    if config.attention.windows.iter().any(|layer| *layer != window) {
        return Err(settings.unexpected("layer_types", "the same for all layers, as sliding_window says"));
    }
    Ok(config)
}

fn smollm3(settings: &Settings<'_>) -> Result<Config, CheckpointError> {
    const SMOLLM3: Decoder = Decoder {
        settings: &[
            "layer_types",
            "max_window_layers",
            "mlp_bias",
            "no_rope_layer_interval",
            "no_rope_layers",
            "pretraining_tp",
            "sliding_window",
            "use_sliding_window",
        ],
        sizes: &[("num_key_value_heads", 4)],
        tied: true,
    };
    let mut config = SMOLLM3.config(settings)?;
    if settings.flag("use_sliding_window", false)? {
        return Err(settings.unexpected("use_sliding_window", "false"));
    }
    config.attention.windows = windows(settings, config.n_layers, None, |_| false)?;
    config.mlp_bias = settings.flag("mlp_bias", false)?;
    let rotary = rope::rotary(settings, config.d_head, 2e6)?;
    let is_rotated = rotated_layers(settings, config.n_layers)?;
    config.positions = Positions::Rotary(is_rotated.into_iter().map(|is| is.then_some(rotary)).collect());
    Ok(config)
}

/// Which layers of a SmolLM3 are rotated: those that `no_rope_layers` marks with 1, or all but every fourth.
fn rotated_layers(settings: &Settings<'_>, n_layers: usize) -> Result<Vec<bool>, CheckpointError> {
    let Some(marks) = settings.get("no_rope_layers") else {
        let interval = match settings.get("no_rope_layer_interval") {
            Some(_) => settings.size("no_rope_layer_interval")?,
            None => 4,
        };
        return Ok((0..n_layers).map(|layer| !(layer + 1).is_multiple_of(interval)).collect());
    };
    let mark = |mark: &serde_json::Value| mark.as_u64().filter(|mark| *mark < 2).map(|mark| mark == 1);
    let marks = marks.as_array().and_then(|marks| marks.iter().map(mark).collect::<Option<Vec<_>>>());
    let marks = marks.filter(|marks| marks.len() == n_layers);
    marks.ok_or_else(|| settings.unexpected("no_rope_layers", &format!("0 or 1 for each of {n_layers} layers")))
}
