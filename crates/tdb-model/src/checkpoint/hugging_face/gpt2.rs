//! GPT-2. Weights of its `Conv1D` are `[in, out]`, and one of them holds query, key and value side by side.

use super::settings::{activation_or, refuse_unknown};
use super::{Family, TRANSFORMER};
use crate::checkpoint::CheckpointError;
use crate::checkpoint::settings::Settings;
use crate::checkpoint::table::{Entries, Order};
use crate::config::{Activation, Config, MlpKind};

pub(super) const FAMILY: Family = Family {
    model_type: "gpt2",
    config,
    tensors,
    names: &TRANSFORMER,
    embedding: "wte.weight",
    buffers,
    other_parts: &[],
};

/// Settings that are read, mean something only for another head, or are another family's and stand in some files.
const SETTINGS: [&str; 24] = [
    "activation_function",
    "add_cross_attention",
    "hidden_act",
    "intermediate_size",
    "layer_norm_epsilon",
    "model_type",
    "n_ctx",
    "n_embd",
    "n_head",
    "n_inner",
    "n_layer",
    "n_positions",
    "n_special",
    "predict_special_tokens",
    "reorder_and_upcast_attn",
    "scale_attn_by_inverse_layer_idx",
    "scale_attn_weights",
    "summary_activation",
    "summary_first_dropout",
    "summary_proj_to_labels",
    "summary_type",
    "summary_use_proj",
    "tie_word_embeddings",
    "vocab_size",
];

fn config(settings: &Settings<'_>) -> Result<Config, CheckpointError> {
    refuse_unknown(settings, &SETTINGS)?;
    if settings.flag("add_cross_attention", false)? {
        return Err(settings.unexpected("add_cross_attention", "false"));
    }
    let d_model = settings.size("n_embd")?;
    let n_heads = settings.divisor("n_head", "n_embd", d_model)?;
    let d_ff = if settings.get("n_inner").is_some() { settings.size("n_inner")? } else { 4 * d_model };
    // The first files have the older name.
    let names = ["n_positions", "n_ctx"];
    let context = names.into_iter().find(|key| settings.get(key).is_some()).unwrap_or(names[0]);
    let (n_layers, n_vocab) = (settings.layers("n_layer")?, settings.size("vocab_size")?);
    let mut config = Config::gpt2(n_layers, d_model, n_heads, d_ff, settings.size(context)?, n_vocab);
    config.mlp = MlpKind::Plain(activation_or(settings, "activation_function", Activation::GeluTanh)?);
    config.norm_epsilon = epsilon(settings)?;
    config.attention.inverse_layer_scale = settings.flag("scale_attn_by_inverse_layer_idx", false)?;
    config.tied = settings.flag("tie_word_embeddings", true)?;
    if !settings.flag("scale_attn_weights", true)? {
        config.attention.scale = 1.0;
    }
    Ok(config)
}

/// The first files say none, and mean what all models of the family have.
pub(super) fn epsilon(settings: &Settings<'_>) -> Result<f32, CheckpointError> {
    match settings.get("layer_norm_epsilon") {
        Some(_) => Ok(settings.positive("layer_norm_epsilon")? as f32),
        None => Ok(1e-5),
    }
}

fn tensors(config: &Config) -> Entries {
    let (d, d_ff) = (config.d_model, config.d_ff);
    let mut table = Entries::default();
    table.tensor("wte.weight", "embed.weight", [config.n_vocab, d]);
    table.tensor("wpe.weight", "positions.weight", [config.ctx_window, d]);
    table.norm("ln_f", "final_norm", d);
    for layer in 0..config.n_layers {
        table.block(layer, &format!("h.{layer}"));
        table.norm("ln_1", "attn_norm", d);
        table.linear("attn.c_attn", &["attn.q", "attn.k", "attn.v"], [3 * d, d], Order::InOut, true);
        table.linear("attn.c_proj", &["attn.o"], [d, d], Order::InOut, true);
        table.norm("ln_2", "mlp_norm", d);
        table.linear("mlp.c_fc", &["mlp.in"], [d_ff, d], Order::InOut, true);
        table.linear("mlp.c_proj", &["mlp.out"], [d, d_ff], Order::InOut, true);
    }
    table
}

/// The causal mask and what stands for minus infinity.
fn buffers(layer: usize) -> Vec<String> {
    ["attn.bias", "attn.masked_bias"].map(|name| format!("h.{layer}.{name}")).into()
}
