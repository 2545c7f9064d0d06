//! What Llama, Mistral, Qwen and Gemma have in common: RMS norms, rotary positions, shared keys and values, gated MLPs,
//! and the names of their tensors.

use super::rope;
use super::settings::{activation_or, refuse_unknown};
use crate::checkpoint::CheckpointError;
use crate::checkpoint::settings::Settings;
use crate::checkpoint::table::{Entries, Order};
use crate::config::{Activation, AttentionBias, AttentionSettings, BlockOrder, Config, MlpKind, NormKind, Positions};

/// What the settings of one of these families mean where they are absent, as its class in `transformers` has it.
pub(super) struct Decoder {
    /// Settings beyond those that all have.
    pub settings: &'static [&'static str],
    /// Sizes that may be absent.
    pub sizes: &'static [(&'static str, usize)],
    pub tied: bool,
}

/// Settings that all these families have.
const SETTINGS: [&str; 17] = [
    "attention_bias",
    "head_dim",
    "hidden_act",
    "hidden_size",
    "intermediate_size",
    "max_position_embeddings",
    "model_type",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "partial_rotary_factor",
    "rms_norm_eps",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "tie_word_embeddings",
    "vocab_size",
];

impl Decoder {
    /// The configuration as Llama would have it, rotary positions aside.
    pub fn config(&self, settings: &Settings<'_>) -> Result<Config, CheckpointError> {
        refuse_unknown(settings, &[&SETTINGS, self.settings].concat())?;
        let (n_layers, d_model) = (settings.layers("num_hidden_layers")?, self.size(settings, "hidden_size")?);
        let n_heads = self.size(settings, "num_attention_heads")?;
        let n_kv_heads = self.or_absent(settings, "num_key_value_heads", n_heads)?;
        if !n_heads.is_multiple_of(n_kv_heads) {
            let expected = format!("a divisor of num_attention_heads, {n_heads}");
            return Err(settings.unexpected("num_key_value_heads", &expected));
        }
        let d_head = match self.or_absent(settings, "head_dim", 0)? {
            0 => d_model / settings.divisor("num_attention_heads", "hidden_size", d_model)?,
            d_head => d_head,
        };
        let epsilon = match settings.get("rms_norm_eps") {
            Some(_) => settings.positive("rms_norm_eps")?,
            None => 1e-6,
        };
        let bias = settings.flag("attention_bias", false)?;
        Ok(Config {
            n_layers,
            d_model,
            n_heads,
            n_kv_heads,
            d_head,
            d_ff: self.size(settings, "intermediate_size")?,
            ctx_window: self.size(settings, "max_position_embeddings")?,
            n_vocab: self.size(settings, "vocab_size")?,
            norm: NormKind::Rms,
            norm_epsilon: epsilon as f32,
            positions: Positions::Learned,
            attention: AttentionSettings {
                scale: (1.0 / (d_head as f64).sqrt()) as f32,
                inverse_layer_scale: false,
                bias: AttentionBias { q: bias, k: bias, v: bias, o: bias },
                qk_norm: false,
                softcap: None,
                windows: vec![None; n_layers],
            },
            mlp: MlpKind::Gated(activation_or(settings, "hidden_act", Activation::Silu)?),
            mlp_bias: false,
            block: BlockOrder::Sequential,
            post_norms: false,
            embedding_scale: 1.0,
            tied: settings.flag("tie_word_embeddings", self.tied)?,
            unembedding_bias: false,
            logit_softcap: None,
        })
    }

    /// As [`Decoder::config`], with one rotation for all layers.
    pub fn rotary_config(&self, settings: &Settings<'_>) -> Result<Config, CheckpointError> {
        let mut config = self.config(settings)?;
        config.positions = Positions::rotary(rope::rotary(settings, config.d_head, rope::BASE)?, config.n_layers);
        Ok(config)
    }

    /// A size that stands in the file, or is the family's.
    fn size(&self, settings: &Settings<'_>, key: &str) -> Result<usize, CheckpointError> {
        match self.sizes.iter().find(|(name, _)| *name == key && !settings.has(key)) {
            Some((_, size)) => Ok(*size),
            None => settings.size(key),
        }
    }

    /// As [`Decoder::size`], with another meaning of `null` or, if the family has no size, of absence.
    fn or_absent(&self, settings: &Settings<'_>, key: &str, otherwise: usize) -> Result<usize, CheckpointError> {
        let has_default = self.sizes.iter().any(|(name, _)| *name == key) && !settings.has(key);
        if has_default || settings.get(key).is_some() { self.size(settings, key) } else { Ok(otherwise) }
    }
}

/// Windows by layer: `layer_types`, or where that is absent, those layers that `is_windowed` names.
pub(super) fn windows(
    settings: &Settings<'_>,
    n_layers: usize,
    window: Option<usize>,
    is_windowed: impl Fn(usize) -> bool,
) -> Result<Vec<Option<usize>>, CheckpointError> {
    let windowed: Vec<bool> = match settings.get("layer_types") {
        None => (0..n_layers).map(is_windowed).collect(),
        Some(types) => {
            let kind = |kind: &serde_json::Value| match kind.as_str() {
                Some("full_attention") => Some(false),
                Some("sliding_attention") => Some(true),
                _ => None,
            };
            let kinds = types.as_array().and_then(|types| types.iter().map(kind).collect::<Option<Vec<_>>>());
            let kinds = kinds.filter(|kinds| kinds.len() == n_layers);
            let expected = format!("\"full_attention\" or \"sliding_attention\" for each of {n_layers} layers");
            kinds.ok_or_else(|| settings.unexpected("layer_types", &expected))?
        }
    };
    match window {
        None if windowed.contains(&true) => {
            let key = if settings.has("use_sliding_window") { "use_sliding_window" } else { "sliding_window" };
            Err(settings.unexpected(key, "set, since layer_types has layers with a window"))
        }
        _ => Ok(windowed.into_iter().map(|windowed| window.filter(|_| windowed)).collect()),
    }
}

/// The window that layers have which have one; `absent` where no setting says it.
pub(super) fn window(settings: &Settings<'_>, absent: usize) -> Result<Option<usize>, CheckpointError> {
    match settings.get("sliding_window") {
        Some(_) => settings.size("sliding_window").map(Some),
        None if settings.has("sliding_window") => Ok(None),
        None => Ok(Some(absent)),
    }
}

pub(super) fn tensors(config: &Config) -> Entries {
    let (d, d_ff, bias) = (config.d_model, config.d_ff, config.attention.bias);
    let (heads, groups) = (config.n_heads * config.d_head, config.n_kv_heads * config.d_head);
    let mut table = Entries::default();
    table.tensor("embed_tokens.weight", "embed.weight", [config.n_vocab, d]);
    table.gain("norm", "final_norm", d);
    for layer in 0..config.n_layers {
        table.block(layer, &format!("layers.{layer}"));
        table.gain("input_layernorm", "attn_norm", d);
        for (part, rows, bias) in [("q", heads, bias.q), ("k", groups, bias.k), ("v", groups, bias.v)] {
            let key = format!("self_attn.{part}_proj");
            table.linear(&key, &[&format!("attn.{part}")], [rows, d], Order::OutIn, bias);
        }
        table.linear("self_attn.o_proj", &["attn.o"], [d, heads], Order::OutIn, bias.o);
        if config.attention.qk_norm {
            table.gain("self_attn.q_norm", "attn.q_norm", config.d_head);
            table.gain("self_attn.k_norm", "attn.k_norm", config.d_head);
        }
        if config.post_norms {
            table.gain("post_attention_layernorm", "attn_post_norm", d);
            table.gain("pre_feedforward_layernorm", "mlp_norm", d);
            table.gain("post_feedforward_layernorm", "mlp_post_norm", d);
        } else {
            table.gain("post_attention_layernorm", "mlp_norm", d);
        }
        table.linear("mlp.gate_proj", &["mlp.gate"], [d_ff, d], Order::OutIn, config.mlp_bias);
        table.linear("mlp.up_proj", &["mlp.in"], [d_ff, d], Order::OutIn, config.mlp_bias);
        table.linear("mlp.down_proj", &["mlp.out"], [d, d_ff], Order::OutIn, config.mlp_bias);
    }
    table
}

/// Frequencies that follow from the settings.
pub(super) fn buffers(layer: usize) -> Vec<String> {
    vec![format!("layers.{layer}.self_attn.rotary_emb.inv_freq")]
}
