//! GPT-NeoX, of which Pythia is the best known: rotary positions on a part of each head, attention and MLP in parallel.

use super::settings::{activation, agreed_number, refuse_unknown};
use super::{Family, rope};
use crate::checkpoint::CheckpointError;
use crate::checkpoint::settings::Settings;
use crate::checkpoint::table::{Entries, Order};
use crate::config::{AttentionBias, BlockOrder, Config, MlpKind, Positions, Rotary};

pub(super) const FAMILY: Family = Family {
    model_type: "gpt_neox",
    config,
    tensors,
    names: &[("gpt_neox.", UNEMBEDDING), ("", UNEMBEDDING)],
    embedding: "embed_in.weight",
    buffers,
    other_parts: &[],
};

const UNEMBEDDING: &str = "embed_out.weight";

/// Settings that are read, or that mean something only in training or for another head.
const SETTINGS: [&str; 18] = [
    "attention_bias",
    "hidden_act",
    "hidden_size",
    "intermediate_size",
    "layer_norm_eps",
    "max_position_embeddings",
    "model_type",
    "num_attention_heads",
    "num_hidden_layers",
    "partial_rotary_factor",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "rotary_emb_base",
    "rotary_pct",
    "tie_word_embeddings",
    "use_parallel_residual",
    "vocab_size",
];

fn config(settings: &Settings<'_>) -> Result<Config, CheckpointError> {
    refuse_unknown(settings, &SETTINGS)?;
    let d_model = settings.size("hidden_size")?;
    let n_heads = settings.divisor("num_attention_heads", "hidden_size", d_model)?;
    let (n_layers, d_ff) = (settings.layers("num_hidden_layers")?, settings.size("intermediate_size")?);
    let (context, n_vocab) = (settings.size("max_position_embeddings")?, settings.size("vocab_size")?);
    let mut config = Config::gpt2(n_layers, d_model, n_heads, d_ff, context, n_vocab);
    config.mlp = MlpKind::Plain(activation(settings, "hidden_act")?);
    config.norm_epsilon = settings.positive("layer_norm_eps")? as f32;
    config.positions = Positions::rotary(rotary(settings, config.d_head)?, n_layers);
    config.tied = settings.flag("tie_word_embeddings", false)?;
    if settings.flag("use_parallel_residual", true)? {
        config.block = BlockOrder::Parallel;
    }
    if !settings.flag("attention_bias", true)? {
        config.attention.bias = AttentionBias::default();
    }
    Ok(config)
}

/// Newer versions write the two numbers of rotary positions into an object of their own, some write them twice.
fn rotary(settings: &Settings<'_>, d_head: usize) -> Result<Rotary, CheckpointError> {
    let nested = rope::parameters(settings)?;
    let scaling = rope::scaling(settings, nested)?;
    let number = |old: &'static str, new: &'static str| {
        let nested = nested.iter().map(|nested| (*nested, new));
        agreed_number(&[(*settings, old), (*settings, new)].into_iter().chain(nested).collect::<Vec<_>>())
    };
    let (base, _) = number("rotary_emb_base", "rope_theta")?;
    let (share, (place, key)) = number("rotary_pct", "partial_rotary_factor")?;
    // Rounded down, as transformers does.
    let dims = (d_head as f64 * share) as usize;
    if dims < 2 || dims > d_head || !dims.is_multiple_of(2) {
        let expected = format!("a share that makes an even number of the {d_head} dimensions of a head");
        return Err(place.unexpected(key, &expected));
    }
    Ok(Rotary { dims, base: base as f32, scaling })
}

fn tensors(config: &Config) -> Entries {
    let (d, d_ff, bias) = (config.d_model, config.d_ff, config.attention.bias.q);
    let mut table = Entries::default();
    table.tensor("embed_in.weight", "embed.weight", [config.n_vocab, d]);
    table.norm("final_layer_norm", "final_norm", d);
    for layer in 0..config.n_layers {
        table.block(layer, &format!("layers.{layer}"));
        table.norm("input_layernorm", "attn_norm", d);
        let fused = ["attn.q", "attn.k", "attn.v"];
        table.linear("attention.query_key_value", &fused, [3 * d, d], Order::ByHead(config.n_heads), bias);
        table.linear("attention.dense", &["attn.o"], [d, d], Order::OutIn, bias);
        table.norm("post_attention_layernorm", "mlp_norm", d);
        table.linear("mlp.dense_h_to_4h", &["mlp.in"], [d_ff, d], Order::OutIn, true);
        table.linear("mlp.dense_4h_to_h", &["mlp.out"], [d, d_ff], Order::OutIn, true);
    }
    table
}

/// The causal mask, what stands for minus infinity, and the frequencies that follow from the base.
fn buffers(layer: usize) -> Vec<String> {
    ["bias", "masked_bias", "rotary_emb.inv_freq"].map(|name| format!("layers.{layer}.attention.{name}")).into()
}
