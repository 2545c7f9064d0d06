//! Gemma: norms that multiply by `1 + w`, embeddings times `√d_model`; from the second on norms before and after each
//! layer and windows; the third normalises queries and keys and turns layers with a window by another θ. Of a Gemma 3
//! that also sees images, the part that reads text is loaded.

use super::decoder::{Decoder, buffers, tensors, window, windows};
use super::settings::{activation, activation_or, refuse_unknown};
use super::{Family, MODEL, rope};
use crate::checkpoint::CheckpointError;
use crate::checkpoint::settings::Settings;
use crate::config::{Activation, Config, MlpKind, NormKind, Positions};

pub(super) const GEMMA: Family = Family { model_type: "gemma", config: gemma, ..BASE };
pub(super) const GEMMA2: Family = Family { model_type: "gemma2", config: gemma2, ..BASE };
pub(super) const GEMMA3_TEXT: Family = Family { model_type: "gemma3_text", config: gemma3, ..BASE };
pub(super) const GEMMA3: Family = Family {
    model_type: "gemma3",
    config: gemma3_with_images,
    names: &[
        ("language_model.model.", "language_model.lm_head.weight"),
        ("model.language_model.", "lm_head.weight"),
        ("model.", "lm_head.weight"),
    ],
    other_parts: &["vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector."],
    ..BASE
};

const BASE: Family = Family {
    model_type: "",
    config: gemma,
    tensors,
    names: &MODEL,
    embedding: "embed_tokens.weight",
    buffers,
    other_parts: &[],
};

fn gemma(settings: &Settings<'_>) -> Result<Config, CheckpointError> {
    const GEMMA: Decoder = Decoder {
        settings: &["hidden_activation", "use_bidirectional_attention"],
        sizes: &[("num_key_value_heads", 16), ("head_dim", 256)],
        tied: true,
    };
    let mut config = common(settings, GEMMA.rotary_config(settings)?)?;
    // The first release said "gelu" and meant what its other name says.
    let named = |key: &str| match settings.get(key) {
        Some(name) if name == "gelu" => Ok(Some(Activation::GeluTanh)),
        Some(_) => activation(settings, key).map(Some),
        None => Ok(None),
    };
    let (new, old) = (named("hidden_activation")?, named("hidden_act")?);
    // Versions of the class read one or the other, and take this one where it is absent.
    let absent = Activation::GeluTanh;
    let both = new.unwrap_or(absent);
    if both != old.unwrap_or(absent) {
        let (key, other) = match new {
            Some(_) if old.is_none() => ("hidden_activation", "hidden_act"),
            _ => ("hidden_act", "hidden_activation"),
        };
        let expected = format!("the same as {other}, which is \"gelu_pytorch_tanh\" where it is absent");
        return Err(settings.unexpected(key, &expected));
    }
    config.mlp = MlpKind::Gated(both);
    Ok(config)
}

fn gemma2(settings: &Settings<'_>) -> Result<Config, CheckpointError> {
    const GEMMA2: Decoder = Decoder {
        settings: &[
            "attn_logit_softcapping",
            "cache_implementation",
            "final_logit_softcapping",
            "hidden_activation",
            "layer_types",
            "query_pre_attn_scalar",
            "sliding_window",
            "use_bidirectional_attention",
        ],
        sizes: &[("num_key_value_heads", 4), ("head_dim", 256)],
        tied: true,
    };
    let mut config = with_post_norms(settings, common(settings, GEMMA2.rotary_config(settings)?)?)?;
    config.attention.softcap = softcap(settings, "attn_logit_softcapping", Some(50.0))?;
    config.logit_softcap = softcap(settings, "final_logit_softcapping", Some(30.0))?;
    config.attention.windows =
        windows(settings, config.n_layers, window(settings, 4096)?, |layer| layer.is_multiple_of(2))?;
    Ok(config)
}

/// Sizes are absent in files of models that also see images.
fn gemma3(settings: &Settings<'_>) -> Result<Config, CheckpointError> {
    const GEMMA3: Decoder = Decoder {
        settings: &[
            "_sliding_window_pattern",
            "attn_logit_softcapping",
            "cache_implementation",
            "final_logit_softcapping",
            "hidden_activation",
            "layer_types",
            "query_pre_attn_scalar",
            "rope_local_base_freq",
            "sliding_window",
            "sliding_window_pattern",
            "use_bidirectional_attention",
        ],
        sizes: &[
            ("hidden_size", 2304),
            ("intermediate_size", 9216),
            ("num_attention_heads", 8),
            ("num_key_value_heads", 4),
            ("head_dim", 256),
            ("max_position_embeddings", 131_072),
            ("vocab_size", 262_208),
        ],
        tied: true,
    };
    let mut config = with_post_norms(settings, common(settings, GEMMA3.config(settings)?)?)?;
    config.attention.qk_norm = true;
    // The class has this setting and computes without it.
    if settings.get("attn_logit_softcapping").is_some() {
        return Err(settings.unexpected("attn_logit_softcapping", "null"));
    }
    config.logit_softcap = softcap(settings, "final_logit_softcapping", None)?;
    let pattern = match ["sliding_window_pattern", "_sliding_window_pattern"].map(|key| settings.get(key).map(|_| key))
    {
        [Some(key), _] | [None, Some(key)] => settings.size(key)?,
        [None, None] => 6,
    };
    let every = |layer: usize| !(layer + 1).is_multiple_of(pattern);
    config.attention.windows = windows(settings, config.n_layers, window(settings, 4096)?, every)?;
    let [full, windowed] = rope::rotary_by_window(settings, config.d_head)?;
    let of_layer = |window: &Option<usize>| Some(if window.is_some() { windowed } else { full });
    config.positions = Positions::Rotary(config.attention.windows.iter().map(of_layer).collect());
    Ok(config)
}

/// The settings of the text's part stand in an object of their own; of the others, one reaches it.
fn gemma3_with_images(settings: &Settings<'_>) -> Result<Config, CheckpointError> {
    const OUTER: [&str; 8] = [
        "boi_token_index",
        "eoi_token_index",
        "image_token_index",
        "mm_tokens_per_image",
        "model_type",
        "text_config",
        "tie_word_embeddings",
        "vision_config",
    ];
    refuse_unknown(settings, &OUTER)?;
    let text = settings.object("text_config")?;
    let text = text.ok_or_else(|| CheckpointError::missing(settings.path(), "text_config"))?;
    if text.get("model_type").is_some_and(|kind| kind != "gemma3_text") {
        return Err(text.unexpected("model_type", "\"gemma3_text\""));
    }
    // Of the classes that read this part, the one that also sees images leaves it out.
    if text.get("final_logit_softcapping").is_some() {
        return Err(text.unexpected("final_logit_softcapping", "null in a model that also sees images"));
    }
    let mut config = gemma3(&text)?;
    let tied = settings.flag("tie_word_embeddings", config.tied)?;
    if tied != config.tied && text.get("tie_word_embeddings").is_some() {
        return Err(settings.unexpected("tie_word_embeddings", "the same as in text_config"));
    }
    config.tied = tied;
    Ok(config)
}

fn common(settings: &Settings<'_>, config: Config) -> Result<Config, CheckpointError> {
    if settings.flag("use_bidirectional_attention", false)? {
        return Err(settings.unexpected("use_bidirectional_attention", "false: tokens see what came before them"));
    }
    let embedding_scale = (config.d_model as f64).sqrt() as f32;
    Ok(Config { norm: NormKind::RmsOnePlus, embedding_scale, ..config })
}

fn with_post_norms(settings: &Settings<'_>, mut config: Config) -> Result<Config, CheckpointError> {
    config.post_norms = true;
    let scalar = match settings.get("query_pre_attn_scalar") {
        Some(_) => settings.positive("query_pre_attn_scalar")?,
        None => 256.0,
    };
    config.attention.scale = scalar.sqrt().recip() as f32;
    // `hidden_act` stands in some files, too, and is not read.
    config.mlp = MlpKind::Gated(activation_or(settings, "hidden_activation", Activation::GeluTanh)?);
    Ok(config)
}

fn softcap(settings: &Settings<'_>, key: &str, absent: Option<f32>) -> Result<Option<f32>, CheckpointError> {
    match settings.get(key) {
        Some(_) => Ok(Some(settings.positive(key)? as f32)),
        None if settings.has(key) => Ok(None),
        None => Ok(absent),
    }
}
