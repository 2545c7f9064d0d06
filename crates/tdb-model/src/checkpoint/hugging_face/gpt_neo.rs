//! GPT-Neo, of which TinyStories are the smallest: as GPT-2, with separate projections, products of queries and keys
//! that are not scaled, and windows.

use super::settings::{activation_or, local_or_global, refuse_unknown};
use super::{Family, TRANSFORMER, gpt2};
use crate::checkpoint::CheckpointError;
use crate::checkpoint::settings::Settings;
use crate::checkpoint::table::{Entries, Order};
use crate::config::{Activation, AttentionBias, Config, MlpKind};

pub(super) const FAMILY: Family = Family {
    model_type: "gpt_neo",
    config,
    tensors,
    names: &TRANSFORMER,
    embedding: "wte.weight",
    buffers,
    other_parts: &[],
};

/// Settings that are read, or that mean something only in training or for another head.
const SETTINGS: [&str; 18] = [
    "activation_function",
    "attention_layers",
    "attention_types",
    "hidden_size",
    "intermediate_size",
    "layer_norm_epsilon",
    "max_position_embeddings",
    "model_type",
    "num_heads",
    "num_layers",
    "summary_activation",
    "summary_first_dropout",
    "summary_proj_to_labels",
    "summary_type",
    "summary_use_proj",
    "tie_word_embeddings",
    "vocab_size",
    "window_size",
];

fn config(settings: &Settings<'_>) -> Result<Config, CheckpointError> {
    refuse_unknown(settings, &SETTINGS)?;
    let d_model = settings.size("hidden_size")?;
    let n_heads = settings.divisor("num_heads", "hidden_size", d_model)?;
    let d_ff = match settings.get("intermediate_size") {
        Some(_) => settings.size("intermediate_size")?,
        None => 4 * d_model,
    };
    let (n_layers, n_vocab) = (settings.layers("num_layers")?, settings.size("vocab_size")?);
    let context = settings.size("max_position_embeddings")?;
    let mut config = Config::gpt2(n_layers, d_model, n_heads, d_ff, context, n_vocab);
    config.mlp = MlpKind::Plain(activation_or(settings, "activation_function", Activation::GeluTanh)?);
    config.norm_epsilon = gpt2::epsilon(settings)?;
    config.tied = settings.flag("tie_word_embeddings", true)?;
    config.attention.scale = 1.0;
    config.attention.bias = AttentionBias { o: true, ..AttentionBias::default() };
    config.attention.windows = windows(settings, n_layers)?;
    Ok(config)
}

/// `attention_types` are pairs of a list and how often it is repeated; `attention_layers` is the same, written out.
fn windows(settings: &Settings<'_>, n_layers: usize) -> Result<Vec<Option<usize>>, CheckpointError> {
    let window = match settings.get("window_size") {
        Some(_) => settings.size("window_size")?,
        None => 256,
    };
    let expected = format!("\"global\" or \"local\" for each of {n_layers} layers");
    let of_kind = |kind: &serde_json::Value| local_or_global(kind, window);
    let written_out = |kinds: &serde_json::Value| kinds.as_array()?.iter().map(of_kind).collect::<Option<Vec<_>>>();
    let repeated = |pairs: &serde_json::Value| {
        let mut all = Vec::new();
        for pair in pairs.as_array()? {
            let [kinds, times] = pair.as_array()?.as_slice() else { return None };
            let (kinds, times) = (written_out(kinds)?, usize::try_from(times.as_u64()?).ok()?);
            // More than there are layers is refused below, not allocated.
            all.extend(kinds.iter().cycle().take(kinds.len().saturating_mul(times)).take(n_layers + 1));
        }
        Some(all)
    };
    let checked = |key: &str, found: Option<Vec<Option<usize>>>| {
        found.filter(|found| found.len() == n_layers).ok_or_else(|| settings.unexpected(key, &expected))
    };
    let types = settings.get("attention_types").map(|value| checked("attention_types", repeated(value))).transpose()?;
    let layers = settings.get("attention_layers").map(|value| checked("attention_layers", written_out(value)));
    match (types, layers.transpose()?) {
        (Some(types), Some(layers)) if types != layers => {
            Err(settings.unexpected("attention_layers", "what attention_types says"))
        }
        (Some(windows), _) | (None, Some(windows)) => Ok(windows),
        (None, None) if n_layers == 24 => Ok([None, Some(window)].repeat(12)),
        (None, None) => Err(CheckpointError::missing(settings.path(), "attention_types")),
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
        for part in ["q", "k", "v"] {
            let name = format!("attn.{part}");
            table.linear(&format!("attn.attention.{part}_proj"), &[&name], [d, d], Order::OutIn, false);
        }
        table.linear("attn.attention.out_proj", &["attn.o"], [d, d], Order::OutIn, true);
        table.norm("ln_2", "mlp_norm", d);
        table.linear("mlp.c_fc", &["mlp.in"], [d_ff, d], Order::OutIn, true);
        table.linear("mlp.c_proj", &["mlp.out"], [d, d_ff], Order::OutIn, true);
    }
    table
}

/// The causal mask and what stands for minus infinity.
fn buffers(layer: usize) -> Vec<String> {
    ["bias", "masked_bias"].map(|name| format!("h.{layer}.attn.attention.{name}")).into()
}
