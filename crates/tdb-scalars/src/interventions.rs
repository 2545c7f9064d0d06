//! From "ablate these indices of that tensor" on the wire to interventions of the model.

use tdb_api::{AblationSpec, ActivationLocationType as Location, AllOrOneIndex, MirroredActivationIndex, PassType};
use tdb_model::{AutoencoderSite, Index, Intervention, Pass, Site, Slot, Transformer};

use crate::error::{Result, bad};
use crate::slots;
use crate::values::wrap;

/// The model's site of a location on the wire.
///
/// # Errors
/// If the location needs an autoencoder that is not loaded, or names nothing that can be set.
pub fn site_of(model: &Transformer, location: Location) -> Result<Site> {
    let name = location.as_str();
    Ok(match location {
        Location::ResidPostEmbedding => Site::ResidPostEmb,
        Location::ResidDeltaAttn => Site::ResidDeltaAttn,
        Location::ResidPostAttn => Site::ResidPostAttn,
        Location::ResidDeltaMlp => Site::ResidDeltaMlp,
        Location::ResidPostMlp => Site::ResidPostMlp,
        Location::ResidPostMlpLayerNorm => Site::AttnIn,
        Location::ResidPostAttnLayerNorm => Site::MlpIn,
        Location::ResidPostFinalLayerNorm => Site::PostFinalLn,
        Location::MlpInputLayerNormScale => Site::MlpLnScale,
        Location::AttnInputLayerNormScale => Site::AttnLnScale,
        Location::ResidFinalLayerNormScale => Site::FinalLnScale,
        Location::AttnQuery => Site::AttnQ,
        Location::AttnKey => Site::AttnK,
        Location::AttnValue => Site::AttnV,
        Location::AttnQkLogits => Site::AttnQkLogits,
        Location::AttnQkProbs => Site::AttnQkProbs,
        Location::AttnWeightedSumOfValues => Site::AttnVOut,
        Location::MlpPreAct => Site::MlpPreAct,
        Location::MlpPostAct => Site::MlpPostAct,
        Location::Logits => Site::Logits,
        Location::OnlineAutoencoderLatent => slots::only(model, name)?.latent(),
        Location::OnlineMlpAutoencoderLatent => slots::require(model, Slot::Mlp, name)?.latent(),
        Location::OnlineAttentionAutoencoderLatent => slots::require(model, Slot::Attention, name)?.latent(),
        Location::OnlineResidualAutoencoderLatent => slots::require(model, Slot::Residual, name)?.latent(),
        Location::OnlineResidualAutoencoderError => slots::require(model, Slot::Residual, name)?.error(),
        Location::OnlineMlpAutoencoderError => error_of(model, Slot::Mlp, name, |site| !site.writes_residual_stream())?,
        Location::OnlineResidualMlpAutoencoderError => {
            error_of(model, Slot::Mlp, name, AutoencoderSite::writes_residual_stream)?
        }
        // Also where the dictionary stands on the heads' outputs: there is no other name for that.
        Location::OnlineResidualAttentionAutoencoderError => slots::require(model, Slot::Attention, name)?.error(),
    })
}

/// The site of what a slot's dictionary leaves over, if it stands where the name says.
pub(crate) fn error_of(
    model: &Transformer,
    slot: Slot,
    name: &str,
    fits: impl Fn(AutoencoderSite) -> bool,
) -> Result<Site> {
    slots::require(model, slot, name)?;
    match model.any_autoencoder(slot).map(|found| found.site()) {
        Some(site) if !fits(site) => {
            bad!("\"{name}\" is not the error of the autoencoder that is loaded, which reads {}", read_by(site))
        }
        _ => Ok(slot.error()),
    }
}

/// What a dictionary reads, in a sentence.
pub(crate) fn read_by(site: AutoencoderSite) -> &'static str {
    match site {
        AutoencoderSite::MlpPostAct => "MLP neurons",
        AutoencoderSite::ResidDeltaMlp => "the output of the MLP layers",
        AutoencoderSite::ResidDeltaAttn => "the output of the attention layers",
        AutoencoderSite::AttnVOut => "the outputs of heads",
        AutoencoderSite::MlpIn | AutoencoderSite::MlpTranscoder | AutoencoderSite::MlpTranscoderOfNormalized => {
            "the input of the MLP layers"
        }
        AutoencoderSite::ResidPre | AutoencoderSite::ResidPostAttn | AutoencoderSite::ResidPostMlp => {
            "the residual stream"
        }
    }
}

/// # Errors
/// If an index is out of range or there are too many or too few, with a sentence that says so.
pub fn intervention(model: &Transformer, tokens: usize, spec: &AblationSpec) -> Result<Intervention> {
    let MirroredActivationIndex { activation_location_type: location, tensor_indices, layer_index, pass_type } =
        &spec.index;
    let site = site_of(model, *location)?;
    let layer = layer(model, site, *layer_index, location.as_str())?;
    if !spec.value.is_finite() {
        return bad!("the value of an ablation of \"{location}\" is {}, which is no finite number", spec.value);
    }
    let Some(dims) = model.site_dims(site, tokens) else {
        return bad!("\"{location}\" does not exist in this model");
    };
    if let (Some(slot), Some(layer)) = (Slot::at(site), layer) {
        slots::in_layer(model, slot, layer)?;
    }
    if tensor_indices.len() != dims.len() {
        let (found, need) = (tensor_indices.len(), dims.len());
        return bad!("an ablation of \"{location}\" has {found} tensor indices, but that tensor has {need} dimensions");
    }
    let mut indices = Vec::with_capacity(dims.len());
    for (position, (index, n)) in tensor_indices.iter().zip(&dims).enumerate() {
        indices.push(match index {
            AllOrOneIndex::All => Index::All,
            AllOrOneIndex::One(index) => Index::At(wrap(*index, *n).ok_or_else(|| {
                let shared = shared_heads(model, site, position);
                crate::error::Error::Bad(format!(
                    "tensorIndices[{position}] of an ablation of \"{location}\" is {index}, outside 0..{n}{shared}"
                ))
            })?),
        });
    }
    let pass = match pass_type {
        PassType::Forward => Pass::Forward,
        PassType::Backward => Pass::Backward,
    };
    Ok(Intervention { site, layer, pass, indices, value: value(site, *location, spec.value)? })
}

/// What an activation becomes, as the model computes.
fn value(site: Site, location: Location, value: f64) -> Result<f32> {
    /// Beyond this the squares that norms add up could be larger than the largest 32-bit number, and the run would go on
    /// with zeros. Logits, which no norm reads, may have any size, as where they mask.
    const LARGEST: f64 = 1e15;
    let largest = match site {
        Site::AttnQkLogits | Site::Logits => f64::from(f32::MAX),
        _ => LARGEST,
    };
    match value.abs() <= largest {
        true => Ok(value as f32),
        false => bad!(
            "the value of an ablation of \"{location}\" is {value:e}; it can be a number from {:e} to {largest:e}",
            -largest
        ),
    }
}

/// Why there are fewer keys and values than heads, where this dimension counts them.
fn shared_heads(model: &Transformer, site: Site, dimension: usize) -> String {
    let (heads, groups) = (model.config().n_heads, model.config().n_kv_heads);
    match matches!(site, Site::AttnK | Site::AttnV) && dimension == 1 && groups < heads {
        true => format!("; {heads} heads share {groups} groups of keys and values"),
        false => String::new(),
    }
}

fn layer(model: &Transformer, site: Site, layer: Option<i64>, name: &str) -> Result<Option<usize>> {
    let n_layers = model.config().n_layers;
    match (site.has_layers(), layer) {
        (_, None) => Ok(None),
        (false, Some(layer)) => bad!("\"{name}\" has no layers, but layerIndex is {layer}; leave it null"),
        (true, Some(layer)) => match usize::try_from(layer).ok().filter(|l| *l < n_layers) {
            Some(layer) => Ok(Some(layer)),
            None => bad!("layerIndex of an ablation of \"{name}\" is {layer}, but the model has layers 0..{n_layers}"),
        },
    }
}
