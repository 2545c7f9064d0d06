//! Scalars of the residual stream, and tensors of the pass as they are.

use tdb_api::{DerivedScalarType as Dst, PassType};
use tdb_model::kernels::dot;
use tdb_model::{Array, Site};

use super::owned;
use crate::derived::Place;
use crate::error::{Error, Result, bad};
use crate::side::Side;
use crate::values::Values;

/// A tensor of the forward pass.
pub(super) fn activation<'a>(side: &'a Side<'_>, dst: Dst, site: Site, layer: Option<usize>) -> Result<Values<'a>> {
    let forward = &side.forward;
    let state = || match layer.and_then(|l| forward.layers.get(l)) {
        Some(state) => Ok(state),
        None => bad!("\"{dst}\" needs a layer of the model"),
    };
    Ok(Values::of(match site {
        Site::Logits => {
            let dims = vec![side.tokens(), side.model().config().n_vocab];
            return Ok(Values::Rows { dims, row: Box::new(|t| forward.logits(side.model(), t)) });
        }
        Site::ResidPostEmb => &forward.post_emb,
        Site::FinalLnScale => &forward.final_ln.scale,
        Site::AttnLnScale => &state()?.attn_ln.scale,
        Site::MlpLnScale => &state()?.mlp_ln.scale,
        Site::MlpPreAct => &state()?.mlp.pre_act,
        Site::MlpPostAct => &state()?.mlp.post_act,
        Site::ResidDeltaMlp => &state()?.mlp.delta,
        Site::ResidPostMlp => &state()?.post_mlp,
        Site::AttnQ => &state()?.attn.q,
        Site::AttnK => &state()?.attn.k,
        Site::AttnV => &state()?.attn.v,
        Site::AttnQkLogits => &state()?.attn.qk_logits,
        Site::AttnQkProbs => &state()?.attn.qk_probs,
        Site::AttnVOut => &state()?.attn.v_out,
        Site::ResidDeltaAttn => &state()?.attn.delta,
        Site::ResidPostAttn => &state()?.post_attn,
        other => return Err(Error::Internal(format!("{other:?} is no derived scalar"))),
    }))
}

/// A gradient at a tensor of the pass; zero where none flowed.
pub(super) fn gradient<'a>(side: &'a Side<'_>, dst: Dst, site: Site, layer: Option<usize>) -> Result<Values<'a>> {
    let gradients = side.gradients(dst)?;
    if site == Site::Logits {
        let n_vocab = side.model().config().n_vocab;
        let row = move |t: usize| gradients.logits.get(&t).cloned().unwrap_or_else(|| vec![0.0; n_vocab]);
        return Ok(Values::Rows { dims: vec![side.tokens(), n_vocab], row: Box::new(row) });
    }
    match gradients.get(site, layer) {
        Some(array) => Ok(Values::of(array)),
        None => {
            let dims = activation(side, dst, site, layer)?.dims();
            Ok(owned(Array::zeros(&dims)))
        }
    }
}

/// Scalars of the embedding, which has no layer.
pub(super) fn whole_model<'a>(side: &'a Side<'_>, dst: Dst) -> Result<Values<'a>> {
    let embedding = &*side.forward.post_emb;
    Ok(owned(match dst {
        Dst::ResidPostEmbeddingNorm => norms(embedding),
        Dst::AlwaysOne => Array::from_vec(&[side.tokens(), 1], vec![1.0; side.tokens()]),
        Dst::TokenAttribution => dots(embedding, side.gradients(dst)?.get(Site::ResidPostEmb, None)),
        Dst::ResidPostEmbeddingProjToFinalResidualGrad => dots(embedding, side.final_residual_gradient(dst)?),
        Dst::ResidPostEmbeddingProjToFinalActivationResidualGrad => dots(embedding, Some(traced_gradient(side, dst)?)),
        _ => return not_available(dst),
    }))
}

/// Scalars of a layer's place in the residual stream.
pub(super) fn per_layer<'a>(side: &'a Side<'_>, dst: Dst, pass: PassType, layer: usize) -> Result<Values<'a>> {
    let state = &side.forward.layers[layer];
    let projected = |write: &Array, place| -> Result<Array> {
        let gradient = side.final_residual_gradient(dst)?;
        Ok(dots(write, gradient.filter(|_| side.precedes_final_residual(Some(layer), place))))
    };
    Ok(owned(match dst {
        Dst::PreviousLayerResidPostMlp => {
            let (site, from) = match layer {
                0 => (Site::ResidPostEmb, None),
                _ => (Site::ResidPostMlp, Some(layer - 1)),
            };
            return match pass {
                PassType::Forward => activation(side, dst, site, from),
                PassType::Backward => gradient(side, dst, site, from),
            };
        }
        Dst::ResidPostMlpNorm => norms(&state.post_mlp),
        Dst::ResidPostAttnNorm => norms(&state.post_attn),
        Dst::MlpLayerWriteNorm => norms(&state.mlp.delta),
        Dst::AttnLayerWriteNorm => norms(&state.attn.delta),
        Dst::ResidPostMlpProjToFinalResidualGrad => projected(&state.post_mlp, Place::ResidPostMlp)?,
        Dst::ResidPostAttnProjToFinalResidualGrad => projected(&state.post_attn, Place::ResidPostAttn)?,
        Dst::MlpLayerWriteToFinalResidualGrad => projected(&state.mlp.delta, Place::Mlp)?,
        Dst::AttnLayerWriteToFinalResidualGrad => projected(&state.attn.delta, Place::Attn)?,
        _ => return not_available(dst),
    }))
}

/// The gradient of the traced value at the residual stream before its node, `[T, D]`.
///
/// # Errors
/// If nothing is traced.
pub(super) fn traced_gradient<'a>(side: &'a Side<'_>, dst: Dst) -> Result<&'a Array> {
    match &side.trace_seed {
        Some(seed) => Ok(&seed.gradient),
        None => bad!("\"{dst}\" needs a traceConfig: it is the write along the gradient of the traced node"),
    }
}

fn not_available<'a>(dst: Dst) -> Result<Values<'a>> {
    bad!(
        "\"{dst}\" is about an edge between two nodes, which a request of this kind cannot name; use the library interface"
    )
}

/// Length of every row, `[T, 1]`.
fn norms(array: &Array) -> Array {
    let tokens = array.dims()[0];
    let norms = (0..tokens).map(|t| dot(array.row(t), array.row(t)).sqrt()).collect();
    Array::from_vec(&[tokens, 1], norms)
}

/// Inner products row by row, `[T, 1]`; zero without a second operand.
pub(crate) fn dots(a: &Array, b: Option<&Array>) -> Array {
    let tokens = a.dims()[0];
    let dots = match b {
        Some(b) => (0..tokens).map(|t| dot(a.row(t), b.row(t))).collect(),
        None => vec![0.0; tokens],
    };
    Array::from_vec(&[tokens, 1], dots)
}
