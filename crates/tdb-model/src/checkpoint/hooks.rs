//! Names of activations in other libraries: TransformerLens' hooks, and the modules of Hugging Face's models.

use crate::config::{Config, NormKind, Positions};
use crate::weights::AutoencoderSite;

/// What an unknown name should have been.
pub(super) const KNOWN: &str = "blocks.<layer>.hook_resid_pre, hook_resid_mid, hook_resid_post, attn.hook_z, \
                                hook_attn_out, hook_mlp_out, mlp.hook_post, mlp.hook_in or ln2.hook_normalized, or a \
                                module such as model.layers.<layer>, transformer.h.<layer>.mlp or \
                                gpt_neox.layers.<layer>.attention";

/// The layer and the site of an autoencoder for this activation. `folded`: TransformerLens moved the gain and bias of
/// norms into the weights that follow them.
pub(super) fn parse(name: &str, config: &Config, folded: bool) -> Option<(usize, AutoencoderSite)> {
    // Without positions added to it, the embedding is what the first layer reads.
    if name == "hook_embed" && config.positions != Positions::Learned {
        return Some((0, AutoencoderSite::ResidPre));
    }
    match name.strip_prefix("blocks.") {
        Some(rest) => {
            let (layer, rest) = rest.split_once('.')?;
            Some((layer.parse().ok()?, site_of_hook(rest, config, folded)?))
        }
        None => parse_module(name, config),
    }
}

/// The layer and site of a transcoder between these two activations.
pub(super) fn parse_transcoder(
    input: &str,
    output: &str,
    config: &Config,
    folded: bool,
) -> Option<(usize, AutoencoderSite)> {
    let (layer, reads) = parse(input, config, folded)?;
    let (written, writes) = parse(output, config, folded)?;
    let site = match reads {
        AutoencoderSite::MlpIn => AutoencoderSite::MlpTranscoder,
        AutoencoderSite::MlpTranscoderOfNormalized => reads,
        _ => return None,
    };
    (layer == written && writes == AutoencoderSite::ResidDeltaMlp).then_some((layer, site))
}

/// The site of a hook, named within its block. Where it is read before a norm's gain and bias, only a transcoder can
/// read it: [`AutoencoderSite::MlpTranscoderOfNormalized`].
pub(super) fn site_of_hook(hook: &str, config: &Config, folded: bool) -> Option<AutoencoderSite> {
    Some(match hook {
        "hook_resid_pre" => AutoencoderSite::ResidPre,
        "hook_resid_mid" => AutoencoderSite::ResidPostAttn,
        "hook_resid_post" => AutoencoderSite::ResidPostMlp,
        "attn.hook_z" => AutoencoderSite::AttnVOut,
        "hook_attn_out" => AutoencoderSite::ResidDeltaAttn,
        "hook_mlp_out" => AutoencoderSite::ResidDeltaMlp,
        // Before the norm of what the MLP writes, where the family has one.
        "mlp.hook_out" if !config.post_norms => AutoencoderSite::ResidDeltaMlp,
        "mlp.hook_post" => AutoencoderSite::MlpPostAct,
        "mlp.hook_in" if !folded => AutoencoderSite::MlpIn,
        // TransformerLens calls this hook after a layer norm's gain and bias, but before the gain of an RMS norm.
        "mlp.hook_in" | "ln2.hook_normalized" => match config.norm {
            NormKind::Layer if !folded => AutoencoderSite::MlpIn,
            NormKind::LayerWithoutParameters => AutoencoderSite::MlpIn,
            _ => AutoencoderSite::MlpTranscoderOfNormalized,
        },
        _ => return None,
    })
}

/// `model.layers.3`, `layers.3.mlp`, `transformer.h.3.attn`, perhaps with `.output` at the end: what the module gives.
fn parse_module(name: &str, config: &Config) -> Option<(usize, AutoencoderSite)> {
    let name = name.strip_suffix(".output").unwrap_or(name);
    let stems = ["model.layers.", "transformer.h.", "gpt_neox.layers.", "layers.", "h."];
    let rest = stems.into_iter().find_map(|stem| name.strip_prefix(stem))?;
    let (layer, module) = rest.split_once('.').unwrap_or((rest, ""));
    let site = match module {
        "" => AutoencoderSite::ResidPostMlp,
        "mlp" if !config.post_norms => AutoencoderSite::ResidDeltaMlp,
        "attn" | "attention" | "self_attn" if !config.post_norms => AutoencoderSite::ResidDeltaAttn,
        "self_attn.o_proj.input" => AutoencoderSite::AttnVOut,
        // Gemma norms what its layers write.
        "post_attention_layernorm" if config.post_norms => AutoencoderSite::ResidDeltaAttn,
        "post_feedforward_layernorm" if config.post_norms => AutoencoderSite::ResidDeltaMlp,
        "pre_feedforward_layernorm" if config.post_norms => AutoencoderSite::MlpIn,
        _ => return None,
    };
    Some((layer.parse().ok()?, site))
}

/// TransformerLens' name of a site's activation, that of a transcoder's output second.
pub(super) fn name(layer: usize, site: AutoencoderSite) -> (String, Option<String>) {
    let hook = match site {
        AutoencoderSite::ResidPre => "hook_resid_pre",
        AutoencoderSite::AttnVOut => "attn.hook_z",
        AutoencoderSite::ResidDeltaAttn => "hook_attn_out",
        AutoencoderSite::ResidPostAttn => "hook_resid_mid",
        AutoencoderSite::MlpIn | AutoencoderSite::MlpTranscoder => "mlp.hook_in",
        AutoencoderSite::MlpPostAct => "mlp.hook_post",
        AutoencoderSite::ResidDeltaMlp => "hook_mlp_out",
        AutoencoderSite::ResidPostMlp => "hook_resid_post",
        AutoencoderSite::MlpTranscoderOfNormalized => "ln2.hook_normalized",
    };
    let output = site.is_transcoder().then(|| format!("blocks.{layer}.hook_mlp_out"));
    (format!("blocks.{layer}.{hook}"), output)
}
