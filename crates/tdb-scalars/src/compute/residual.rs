//! Scalars of the residual stream, and tensors of the pass as they are.

use candle_core::Tensor;
use tdb_api::{DerivedScalarType as Dst, PassType};
use tdb_model::Site;
use tdb_model::numbers::{tensor, zeros};

use crate::derived::Place;
use crate::error::{Result, bad};
use crate::side::Side;
use crate::tensors::{dots, norms};
use crate::values::Values;

/// A tensor of the forward pass.
pub(super) fn activation<'a>(side: &'a Side<'_>, site: Site, layer: Option<usize>) -> Result<Values<'a>> {
    if site == Site::Logits {
        let dims = vec![side.tokens(), side.model().config().n_vocab];
        return Ok(Values::Rows { dims, row: Box::new(|t| Ok(side.run.logits(t)?)) });
    }
    side.get(site, layer).map(Values::Dense)
}

/// A gradient at a tensor of the pass; zero where none flowed.
pub(super) fn gradient<'a>(side: &'a Side<'_>, dst: Dst, site: Site, layer: Option<usize>) -> Result<Values<'a>> {
    let gradients = side.gradients(dst)?;
    if site == Site::Logits {
        let n_vocab = side.model().config().n_vocab;
        let row = move |t: usize| Ok(gradients.logits.get(&t).cloned().unwrap_or_else(|| vec![0.0; n_vocab]));
        return Ok(Values::Rows { dims: vec![side.tokens(), n_vocab], row: Box::new(row) });
    }
    Ok(Values::Dense(match gradients.get(site, layer)? {
        Some(gradient) => gradient,
        None => side.get(site, layer)?.zeros_like()?,
    }))
}

/// Scalars of the embedding, which has no layer.
pub(super) fn whole_model<'a>(side: &'a Side<'_>, dst: Dst, pass: PassType) -> Result<Values<'a>> {
    let embedding = || side.get(Site::ResidPostEmb, None);
    Ok(Values::Dense(match dst {
        Dst::ResidPostEmbeddingNorm => norms(&embedding()?)?,
        Dst::AlwaysOne if pass == PassType::Backward => zeros(&[side.tokens(), 1]),
        Dst::AlwaysOne => tensor(&[side.tokens(), 1], vec![1.0; side.tokens()]),
        Dst::TokenAttribution => dots(&embedding()?, side.gradient(dst, Site::ResidPostEmb, None)?.as_ref())?,
        Dst::ResidPostEmbeddingProjToFinalResidualGrad => {
            dots(&embedding()?, side.final_residual_gradient(dst)?.as_ref())?
        }
        Dst::ResidPostEmbeddingProjToFinalActivationResidualGrad => {
            dots(&embedding()?, Some(side.traced_gradient(dst)?))?
        }
        _ => return bad!("\"{dst}\" exists in each layer, but no layer is named"),
    }))
}

/// Scalars of a layer's place in the residual stream.
pub(super) fn per_layer<'a>(side: &'a Side<'_>, dst: Dst, pass: PassType, layer: usize) -> Result<Values<'a>> {
    let get = |site| side.get(site, layer);
    let projected = |site, place| -> Result<Tensor> {
        let gradient = side.final_residual_gradient(dst)?;
        dots(&get(site)?, gradient.as_ref().filter(|_| side.precedes_final_residual(Some(layer), place)))
    };
    Ok(Values::Dense(match dst {
        Dst::PreviousLayerResidPostMlp => {
            let point = Place::EndOfPreviousLayer.residual_point(layer);
            return match pass {
                PassType::Forward => activation(side, point.site, point.layer),
                PassType::Backward => gradient(side, dst, point.site, point.layer),
            };
        }
        Dst::ResidPostMlpNorm => norms(&get(Site::ResidPostMlp)?)?,
        Dst::ResidPostAttnNorm => norms(&get(Site::ResidPostAttn)?)?,
        Dst::MlpLayerWriteNorm => norms(&get(Site::ResidDeltaMlp)?)?,
        Dst::AttnLayerWriteNorm => norms(&get(Site::ResidDeltaAttn)?)?,
        Dst::ResidPostMlpProjToFinalResidualGrad => projected(Site::ResidPostMlp, Place::ResidPostMlp)?,
        Dst::ResidPostAttnProjToFinalResidualGrad => projected(Site::ResidPostAttn, Place::ResidPostAttn)?,
        Dst::MlpLayerWriteToFinalResidualGrad => projected(Site::ResidDeltaMlp, Place::Mlp)?,
        Dst::AttnLayerWriteToFinalResidualGrad => projected(Site::ResidDeltaAttn, Place::Attn)?,
        _ => return bad!("\"{dst}\" has no layers, but layer {layer} is named"),
    }))
}
