//! Qwen 2 and 2.5 (biases on query, key and value) and Qwen 3 (queries and keys normalised).

use super::decoder::{Decoder, buffers, tensors, window, windows};
use super::{Family, MODEL};
use crate::checkpoint::CheckpointError;
use crate::checkpoint::settings::Settings;
use crate::config::{AttentionBias, Config};

pub(super) const QWEN2: Family = Family { model_type: "qwen2", config: qwen2, ..BASE };
pub(super) const QWEN3: Family = Family { model_type: "qwen3", config: qwen3, ..BASE };

const BASE: Family = Family {
    model_type: "",
    config: qwen2,
    tensors,
    names: &MODEL,
    embedding: "embed_tokens.weight",
    buffers,
    other_parts: &[],
};

const SETTINGS: [&str; 5] = ["layer_types", "max_window_layers", "sliding_window", "use_mrope", "use_sliding_window"];

fn qwen2(settings: &Settings<'_>) -> Result<Config, CheckpointError> {
    const QWEN2: Decoder = Decoder { settings: &SETTINGS, sizes: &[("num_key_value_heads", 32)], tied: false };
    let mut config = windowed(settings, QWEN2.rotary_config(settings)?)?;
    // Whatever `attention_bias` says, which some files have, too.
    config.attention.bias = AttentionBias { o: false, ..AttentionBias::ALL };
    Ok(config)
}

fn qwen3(settings: &Settings<'_>) -> Result<Config, CheckpointError> {
    const QWEN3: Decoder =
        Decoder { settings: &SETTINGS, sizes: &[("num_key_value_heads", 32), ("head_dim", 128)], tied: false };
    let mut config = windowed(settings, QWEN3.rotary_config(settings)?)?;
    config.attention.qk_norm = true;
    Ok(config)
}

/// Layers from `max_window_layers` on have the window, if it is used at all.
fn windowed(settings: &Settings<'_>, mut config: Config) -> Result<Config, CheckpointError> {
    if settings.flag("use_mrope", false)? {
        return Err(settings.unexpected("use_mrope", "false"));
    }
    let window = match settings.flag("use_sliding_window", false)? {
        true => window(settings, 4096)?,
        false => None,
    };
    let first = match (window, settings.get("max_window_layers")) {
        (None, _) => config.n_layers,
        // Here 0 is a size, too.
        (Some(_), Some(value)) if value.as_u64() == Some(0) => 0,
        (Some(_), Some(_)) => settings.size("max_window_layers")?,
        (Some(_), None) => 28,
    };
    config.attention.windows = windows(settings, config.n_layers, window, |layer| layer >= first)?;
    Ok(config)
}
