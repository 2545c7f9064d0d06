//! Models as TransformerLens saves them, above all the toy models that are published so.
//!
//! ```text
//! <model>/config.json       the settings of a HookedTransformerConfig, or those that the toy models were trained with
//! <model>/*.pth             a state dict; of several files that whose name ends in `final.pth`
//! <model>/tokenizer.json    or a file given beside the folder; GPT-2's is built in
//! ```
//!
//! Weights multiply from the right: `W_Q`, `W_K` and `W_V` are `[head, input, output]`, `W_O` is `[head, input, output]`,
//! all others `[input, output]`.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json};

use super::Checkpoint;
use super::bytes::read_json;
use super::error::CheckpointError;
use super::hugging_face::{activation, local_or_global};
use super::pt::PtFile;
use super::settings::Settings;
use super::table::{Entries, Order};
use super::tensor_files::TensorFiles;
use crate::config::{BlockOrder, Config, MlpKind, NormKind, Positions, Rotary, RotaryScaling};
use crate::tokenizer::{END_OF_TEXT, Tokenizer};

/// Is this object the settings of a model of TransformerLens?
pub(crate) fn is_config(config: &Map<String, Json>) -> bool {
    ["d_model", "n_layers", "n_ctx", "d_vocab"].iter().all(|key| config.contains_key(*key))
}

/// GPT-2's tokenizer by the names of its repository; it is in the program.
const GPT2: [&str; 2] = ["gpt2", "openai-community/gpt2"];

/// The repository whose tokenizer the settings name, where the folder has none and the program neither.
pub(super) fn named_tokenizer(folder: &Path, config: &Map<String, Json>) -> Option<String> {
    let name = config.get("tokenizer_name")?.as_str().filter(|name| !GPT2.contains(name))?;
    folder.join("tokenizer.json").symlink_metadata().is_err().then(|| name.to_owned())
}

/// Reads a folder; `tokenizer` is where the tokenizer lies if not in the folder.
///
/// # Errors
/// A setting, file or tensor that is missing, does not fit, or is not known.
pub(super) fn load(folder: &Path, tokenizer: Option<&Path>) -> Result<Checkpoint, CheckpointError> {
    let path = folder.join("config.json");
    let json = read_json(&path)?;
    let settings = Settings::new(&path, &json);
    let config = read_config(&settings)?;
    let files = TensorFiles::torch(PtFile::open(&weights_file(folder)?)?)?;
    let table = tensors(&config);
    let buffers: Vec<String> = (0..config.n_layers).flat_map(buffers).collect();
    let known = format!("the tensors of a model of TransformerLens of {} layers", config.n_layers);
    table.refuse_unknown(files.path(), files.names(), &buffers, &known)?;
    let weights = table.look_up(files.path(), |key| files.tensor(key))?.into();
    let tokenizer = read_tokenizer(folder, tokenizer, &settings)?;
    let beginning = tokenizer.added(END_OF_TEXT).or_else(|| tokenizer.beginning());
    let origin = format!("{} (TransformerLens)", folder.display());
    Ok(Checkpoint { config, weights, tokenizer, beginning, origin, notes: Vec::new() })
}

/// The one state dict of the folder.
fn weights_file(folder: &Path) -> Result<PathBuf, CheckpointError> {
    let entries = std::fs::read_dir(folder)
        .map_err(|source| CheckpointError::Read { file: folder.to_owned(), source })?
        .flatten();
    let is_state_dict =
        |path: &PathBuf| path.extension().is_some_and(|extension| extension == "pth" || extension == "pt");
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_state_dict).collect();
    let is_final = |path: &PathBuf| path.to_string_lossy().ends_with("final.pth");
    if found.len() > 1 {
        found.retain(is_final);
    }
    match found.as_slice() {
        [one] => Ok(one.clone()),
        _ => Err(CheckpointError::NoLayout {
            folder: folder.to_owned(),
            looked_for: "one .pth file with a state dict of TransformerLens, or one whose name ends in final.pth"
                .to_owned(),
            found: super::list(folder),
        }),
    }
}

/// The folder's own tokenizer, the one that is given, or GPT-2's where the settings name that.
fn read_tokenizer(folder: &Path, given: Option<&Path>, settings: &Settings<'_>) -> Result<Tokenizer, CheckpointError> {
    let own = folder.join("tokenizer.json");
    if own.symlink_metadata().is_ok() {
        return Tokenizer::from_file(&own);
    }
    if let Some(given) = given {
        return Tokenizer::from_file(given);
    }
    match settings.get("tokenizer_name").map(|_| settings.text("tokenizer_name")).transpose()? {
        Some(name) if GPT2.contains(&name) => Ok(Tokenizer::gpt2()),
        Some(name) => Err(CheckpointError::damaged(
            &own,
            format!("it is missing; config.json names the tokenizer {name}: copy its tokenizer.json into the folder"),
        )),
        None => Err(CheckpointError::damaged(&own, "it is missing, and config.json names no tokenizer_name")),
    }
}

/// Settings that are read.
const SETTINGS: [&str; 30] = [
    "act_fn",
    "attention_dir",
    "attn_only",
    "attn_scale",
    "attn_scores_soft_cap",
    "attn_types",
    "d_head",
    "d_mlp",
    "d_model",
    "d_vocab",
    "d_vocab_out",
    "eps",
    "ln_eps",
    "n_ctx",
    "n_heads",
    "n_key_value_heads",
    "n_layers",
    "normalization",
    "normalization_type",
    "output_logits_soft_cap",
    "parallel_attn_mlp",
    "positional_embedding_type",
    "rotary_base",
    "rotary_dim",
    "scale_attn_by_inverse_layer_idx",
    "shortformer_pos",
    "tokenizer_name",
    "use_attn_scale",
    "use_local_attn",
    "window_size",
];

/// Settings that have to be off: what they turn on is not computed here.
const OFF: [&str; 18] = [
    "clip_qkv",
    "final_rms",
    "gated_mlp",
    "load_in_4bit",
    "num_experts",
    "post_embedding_ln",
    "quantization_method",
    "relative_attention_max_distance",
    "relative_attention_num_buckets",
    "rotary_adjacent_pairs",
    "rotary_base_local",
    "use_attention_sinks",
    "use_dynamic_ntk_rope",
    "use_logn_attn",
    "use_normalization_before_and_after",
    "use_NTK_by_parts_rope",
    "use_qk_norm",
    "use_yarn_rope",
];

/// Settings that multiply something, and have to be 1.
const ONE: [&str; 3] = ["neuron_scale", "neuron_temp", "rotary_scaling_factor"];

/// Settings of training, of names and of hooks: they change nothing in what a model computes from a prompt, or only
/// together with one of [`OFF`].
const NEUTRAL: [&str; 85] = [
    "architecture",
    "attention_head_type",
    "batch_size",
    "batch_size_per_device",
    "batches_per_step",
    "betas",
    "checkpoint_index",
    "checkpoint_label_type",
    "checkpoint_value",
    "control",
    "dataset_name",
    "debug",
    "debug_batch",
    "debug_overfit",
    "decoder_start_token_id",
    "default_prepend_bos",
    "device",
    "dtype",
    "experts_per_token",
    "fixed_init",
    "from_checkpoint",
    "grad_norm_clip",
    "init_mode",
    "init_weights",
    "initializer_range",
    "initializer_scale_embed",
    "initializer_scale_global",
    "initializer_scale_hidden",
    "initializer_scale_unembed",
    "layer_norm_folding",
    "log_interval",
    "lr",
    "lr_hidden",
    "lr_max",
    "lr_schedule",
    "lr_vector",
    "max_steps",
    "max_tokens",
    "model_name",
    "model_type",
    "n_devices",
    "n_params",
    "norm_topk_prob",
    "NTK_by_parts_factor",
    "NTK_by_parts_high_freq_factor",
    "NTK_by_parts_low_freq_factor",
    "NTK_original_ctx_len",
    "original_architecture",
    "save_checkpoints",
    "save_checkpoints_to_bfloat16",
    "seed",
    "store_init",
    "tie_word_embeddings",
    "tokenizer_prepends_bos",
    "tokens_per_step",
    "train_loss_ewma_beta",
    "train_seq_length",
    "truncate_tokens",
    "trust_remote_code",
    "ungroup_grouped_query_attention",
    "use_acc",
    "use_attn_in",
    "use_attn_result",
    "use_bfloat16",
    "use_bfloat16_matmul",
    "use_float16",
    "use_hook_mlp_in",
    "use_hook_tokens",
    "use_pile",
    "use_split_qkv_input",
    "uses_rms_norm",
    "version",
    "W_O_init_scale",
    "warmup_steps",
    "warmup_tokens",
    "weight_decay",
    "weight_init_scale",
    "weight_init_scheme",
    "yarn_attention_factor",
    "yarn_beta_fast",
    "yarn_beta_slow",
    "yarn_factor",
    "yarn_global_attn_only",
    "yarn_original_max_position_embeddings",
    "yarn_truncate",
];

fn refuse_unknown(settings: &Settings<'_>) -> Result<(), CheckpointError> {
    let is_off = |value: &Json| value == &Json::Bool(false) || value.as_f64() == Some(0.0);
    if let Some(key) = OFF.into_iter().find(|key| settings.get(key).is_some_and(|value| !is_off(value))) {
        return Err(settings.unexpected(key, "false or absent"));
    }
    if let Some(key) = ONE.into_iter().find(|key| settings.get(key).is_some_and(|value| value.as_f64() != Some(1.0))) {
        return Err(settings.unexpected(key, "1 or absent"));
    }
    let is_known = |key: &str| {
        let lists: [&[&str]; 4] = [&SETTINGS, &OFF, &ONE, &NEUTRAL];
        lists.iter().any(|list| list.contains(&key))
    };
    match settings.keys().find(|key| !is_known(key) && settings.get(key).is_some()) {
        None => Ok(()),
        Some(key) => Err(CheckpointError::unknown(settings.path(), key, SETTINGS.join(", "))),
    }
}

fn read_config(settings: &Settings<'_>) -> Result<Config, CheckpointError> {
    refuse_unknown(settings)?;
    let (n_layers, d_model) = (settings.layers("n_layers")?, settings.size("d_model")?);
    let (n_ctx, n_vocab) = (settings.size("n_ctx")?, settings.size("d_vocab")?);
    let d_head = settings.size("d_head")?;
    let n_heads = match is_given(settings, "n_heads") {
        true => settings.size("n_heads")?,
        false => d_model / d_head,
    };
    if is_given(settings, "n_key_value_heads") && settings.size("n_key_value_heads")? != n_heads {
        return Err(settings.unexpected("n_key_value_heads", &format!("{n_heads}, the number of heads, or null")));
    }
    if is_given(settings, "d_vocab_out") && settings.size("d_vocab_out")? != n_vocab {
        return Err(settings.unexpected("d_vocab_out", &format!("{n_vocab}, as d_vocab, or absent")));
    }
    if settings.get("attention_dir").is_some_and(|value| value != "causal") {
        return Err(settings.unexpected("attention_dir", "\"causal\""));
    }
    let attn_only = settings.flag("attn_only", false)?;
    let d_ff = match is_given(settings, "d_mlp") {
        _ if attn_only => 0,
        true => settings.size("d_mlp")?,
        false => 4 * d_model,
    };
    let mut config = Config::gpt2(n_layers, d_model, n_heads, d_ff, n_ctx, n_vocab);
    config.d_head = d_head;
    config.norm = norm(settings)?;
    config.norm_epsilon = epsilon(settings)?;
    config.positions = positions(settings, &config)?;
    config.mlp = match attn_only {
        true => MlpKind::None,
        false => MlpKind::Plain(activation(settings, "act_fn")?),
    };
    if settings.flag("parallel_attn_mlp", false)? {
        config.block = BlockOrder::Parallel;
    }
    config.attention.scale = match settings.flag("use_attn_scale", true)? {
        true if is_given(settings, "attn_scale") => settings.positive("attn_scale")?.recip() as f32,
        true => (d_head as f64).sqrt().recip() as f32,
        false => 1.0,
    };
    config.attention.inverse_layer_scale = settings.flag("scale_attn_by_inverse_layer_idx", false)?;
    config.attention.softcap = cap(settings, "attn_scores_soft_cap")?;
    config.attention.windows = windows(settings, n_layers)?;
    config.logit_softcap = cap(settings, "output_logits_soft_cap")?;
    (config.tied, config.unembedding_bias) = (false, true);
    Ok(config)
}

/// Whether a size is set: -1 stands for "as it follows from the others".
fn is_given(settings: &Settings<'_>, key: &str) -> bool {
    settings.get(key).is_some_and(|value| value.as_f64() != Some(-1.0))
}

/// The error that a setting is not what the same setting is under another name.
fn differs(settings: &Settings<'_>, key: &str, other: &str) -> CheckpointError {
    let expected = settings.get(other).map_or_else(|| "null".to_owned(), Json::to_string);
    CheckpointError::unexpected(
        settings.path(),
        key,
        format!("{expected}, as `{other}`"),
        settings.get(key).map_or_else(|| "null".to_owned(), Json::to_string),
    )
}

fn norm(settings: &Settings<'_>) -> Result<NormKind, CheckpointError> {
    let [old, new] = ["normalization", "normalization_type"];
    match [old, new].map(|key| settings.has(key)) {
        [false, false] => Ok(NormKind::Layer),
        [false, true] => norm_named(settings, new),
        [true, false] => norm_named(settings, old),
        [true, true] => match norm_named(settings, old)? {
            norm if norm == norm_named(settings, new)? => Ok(norm),
            _ => Err(differs(settings, new, old)),
        },
    }
}

fn norm_named(settings: &Settings<'_>, key: &str) -> Result<NormKind, CheckpointError> {
    match settings.get(key).map(|_| settings.text(key)).transpose()? {
        None => Ok(NormKind::None),
        Some("LN") => Ok(NormKind::Layer),
        Some("LNPre") => Ok(NormKind::LayerWithoutParameters),
        Some("RMS") => Ok(NormKind::Rms),
        Some(_) => Err(settings.unexpected(key, "\"LN\", \"LNPre\", \"RMS\" or null")),
    }
}

fn epsilon(settings: &Settings<'_>) -> Result<f32, CheckpointError> {
    let [eps, ln_eps] = ["eps", "ln_eps"].map(|key| settings.get(key).map(|_| settings.positive(key)).transpose());
    match (eps?, ln_eps?) {
        (Some(eps), Some(ln_eps)) if eps != ln_eps => Err(differs(settings, "ln_eps", "eps")),
        (Some(epsilon), _) | (None, Some(epsilon)) => Ok(epsilon as f32),
        (None, None) => Ok(1e-5),
    }
}

fn positions(settings: &Settings<'_>, config: &Config) -> Result<Positions, CheckpointError> {
    let shortformer = settings.get("shortformer_pos").map(|_| settings.flag("shortformer_pos", false)).transpose()?;
    if settings.get("positional_embedding_type").is_none() {
        return Ok(match shortformer {
            Some(true) => Positions::LearnedForQueriesAndKeys,
            _ => Positions::Learned,
        });
    }
    let kind = settings.text("positional_embedding_type")?;
    if shortformer.is_some_and(|shortformer| shortformer != (kind == "shortformer")) {
        return Err(differs(settings, "positional_embedding_type", "shortformer_pos"));
    }
    match kind {
        "standard" => Ok(Positions::Learned),
        "shortformer" => Ok(Positions::LearnedForQueriesAndKeys),
        "rotary" => {
            let dims = settings.size("rotary_dim")?;
            if dims > config.d_head || dims % 2 != 0 {
                return Err(settings.unexpected("rotary_dim", &format!("even and at most d_head, {}", config.d_head)));
            }
            let base = match settings.get("rotary_base") {
                Some(_) => settings.positive("rotary_base")? as f32,
                None => 10000.0,
            };
            Ok(Positions::rotary(Rotary { dims, base, scaling: RotaryScaling::None }, config.n_layers))
        }
        _ => Err(settings.unexpected("positional_embedding_type", "\"standard\", \"shortformer\" or \"rotary\"")),
    }
}

/// -1 stands for none.
fn cap(settings: &Settings<'_>, key: &str) -> Result<Option<f32>, CheckpointError> {
    match is_given(settings, key) {
        true => Ok(Some(settings.positive(key)? as f32)),
        false => Ok(None),
    }
}

fn windows(settings: &Settings<'_>, n_layers: usize) -> Result<Vec<Option<usize>>, CheckpointError> {
    if !settings.flag("use_local_attn", false)? {
        return Ok(vec![None; n_layers]);
    }
    let window = settings.size("window_size")?;
    let of_layer = |kind: &Json| local_or_global(kind, window);
    let types = settings.value("attn_types")?.as_array().map(|types| types.iter().map(of_layer).collect());
    types
        .and_then(|types: Option<Vec<_>>| types)
        .filter(|types| types.len() == n_layers)
        .ok_or_else(|| settings.unexpected("attn_types", &format!("\"global\" or \"local\" for {n_layers} layers")))
}

fn tensors(config: &Config) -> Entries {
    let (d, d_ff, heads, width) = (config.d_model, config.d_ff, config.n_heads, config.d_head);
    let mut table = Entries::default();
    table.tensor("embed.W_E", "embed.weight", [config.n_vocab, d]);
    if !matches!(config.positions, Positions::Rotary(_)) {
        table.tensor("pos_embed.W_pos", "positions.weight", [config.ctx_window, d]);
    }
    norm_tensors(&mut table, config.norm, "ln_final", "final_norm", d);
    table.matrix("unembed.W_U", "unembed.weight", [config.n_vocab, d], Order::InOut);
    table.tensor("unembed.b_U", "unembed.bias", [config.n_vocab]);
    for layer in 0..config.n_layers {
        table.block(layer, &format!("blocks.{layer}"));
        norm_tensors(&mut table, config.norm, "ln1", "attn_norm", d);
        for (part, key) in [("q", "Q"), ("k", "K"), ("v", "V")] {
            table.of_heads(
                &format!("attn.W_{key}"),
                &format!("attn.{part}.weight"),
                &[heads, d, width],
                Order::OutOfHeads,
            );
            table.of_heads(&format!("attn.b_{key}"), &format!("attn.{part}.bias"), &[heads, width], Order::OutOfHeads);
        }
        table.of_heads("attn.W_O", "attn.o.weight", &[heads, width, d], Order::InOfHeads);
        table.tensor("attn.b_O", "attn.o.bias", [d]);
        if config.mlp == MlpKind::None {
            continue;
        }
        norm_tensors(&mut table, config.norm, "ln2", "mlp_norm", d);
        table.matrix("mlp.W_in", "mlp.in.weight", [d_ff, d], Order::InOut);
        table.tensor("mlp.b_in", "mlp.in.bias", [d_ff]);
        table.matrix("mlp.W_out", "mlp.out.weight", [d, d_ff], Order::InOut);
        table.tensor("mlp.b_out", "mlp.out.bias", [d]);
    }
    table
}

fn norm_tensors(table: &mut Entries, kind: NormKind, key: &str, name: &str, width: usize) {
    let has = match kind {
        NormKind::Layer => [true, true],
        NormKind::Rms | NormKind::RmsOnePlus => [true, false],
        NormKind::None | NormKind::LayerWithoutParameters => [false, false],
    };
    for ((part, ours), _) in [("w", "weight"), ("b", "bias")].into_iter().zip(has).filter(|(_, has)| *has) {
        table.tensor(&format!("{key}.{part}"), &format!("{name}.{ours}"), [width]);
    }
}

/// The causal mask, what stands for minus infinity, and the rotation's tables.
fn buffers(layer: usize) -> Vec<String> {
    ["mask", "IGNORE", "rotary_sin", "rotary_cos"].map(|name| format!("blocks.{layer}.attn.{name}")).into()
}
