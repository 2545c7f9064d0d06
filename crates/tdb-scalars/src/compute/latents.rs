//! Scalars of autoencoder latents, all of them on the active latents only.

use std::borrow::Cow;

use candle_core::Tensor;
use tdb_api::{ActivationLocationType as Location, DerivedScalarType as Dst, NodeType};
use tdb_model::numbers::{Numbers, axpy, dot};
use tdb_model::{Autoencoder, AutoencoderSite, Site, Slot, SparseRows};

use super::attention::attended_reads;
use super::mlp;
use crate::derived::Place;
use crate::error::{Error, Result, bad};
use crate::side::Side;
use crate::slots;
use crate::tensors::{norms, row_of, times};
use crate::values::Values;

/// What is asked about latents, whichever kind they are.
enum Asked {
    Online,
    Offline,
    OfflineWriteNorm,
    WriteNorm,
    ActTimesGrad,
    WriteToFinalResidual,
    WriteToFinalActivationResidual,
    Write,
}

/// Which autoencoder a derived scalar is about; `None` if it is about none.
///
/// # Errors
/// If that autoencoder is not loaded.
pub fn slot_of(side: &Side<'_>, dst: Dst) -> Result<Option<Slot>> {
    let (model, name) = (side.model(), dst.as_str());
    if dst == Dst::OnlineAutoencoderWrite {
        return slots::only(model, name).map(Some);
    }
    Ok(Some(match crate::derived::node_type(dst) {
        NodeType::MlpAutoencoderLatent => slots::require(model, Slot::Mlp, name)?,
        NodeType::AttentionAutoencoderLatent => slots::require(model, Slot::Attention, name)?,
        NodeType::AutoencoderLatent => match dst {
            Dst::FlattenedAttnWriteToLatentSummedOverHeadsBatched | Dst::AttnWriteToLatentPerSequenceTokenBatched => {
                slots::require(model, Slot::Attention, name)?
            }
            _ => slots::only(model, name)?,
        },
        _ => return Ok(None),
    }))
}

fn asked(dst: Dst) -> Option<Asked> {
    Some(match dst {
        Dst::OnlineAutoencoderLatent | Dst::OnlineMlpAutoencoderLatent | Dst::OnlineAttentionAutoencoderLatent => {
            Asked::Online
        }
        Dst::AutoencoderLatent | Dst::MlpAutoencoderLatent | Dst::AttentionAutoencoderLatent => Asked::Offline,
        Dst::AutoencoderWriteNorm | Dst::MlpAutoencoderWriteNorm | Dst::AttentionAutoencoderWriteNorm => {
            Asked::OfflineWriteNorm
        }
        Dst::OnlineAutoencoderWriteNorm
        | Dst::OnlineMlpAutoencoderWriteNorm
        | Dst::OnlineAttentionAutoencoderWriteNorm => Asked::WriteNorm,
        Dst::OnlineAutoencoderActTimesGrad
        | Dst::OnlineMlpAutoencoderActTimesGrad
        | Dst::OnlineAttentionAutoencoderActTimesGrad => Asked::ActTimesGrad,
        Dst::OnlineAutoencoderWriteToFinalResidualGrad
        | Dst::OnlineMlpAutoencoderWriteToFinalResidualGrad
        | Dst::OnlineAttentionAutoencoderWriteToFinalResidualGrad => Asked::WriteToFinalResidual,
        Dst::OnlineAutoencoderWriteToFinalActivationResidualGrad
        | Dst::OnlineMlpAutoencoderWriteToFinalActivationResidualGrad
        | Dst::OnlineAttentionAutoencoderWriteToFinalActivationResidualGrad => Asked::WriteToFinalActivationResidual,
        Dst::OnlineAutoencoderWrite | Dst::OnlineMlpAutoencoderWrite | Dst::OnlineAttentionAutoencoderWrite => {
            Asked::Write
        }
        _ => return None,
    })
}

/// `None` if `dst` is not about latents or their errors.
pub(super) fn values<'a>(side: &'a Side<'_>, dst: Dst, layer: usize) -> Result<Option<Values<'a>>> {
    if let Some(values) = errors(side, dst, layer)? {
        return Ok(Some(values));
    }
    if let Some(values) = gradients_of_latents(side, dst, layer)? {
        return Ok(Some(values));
    }
    let (Some(asked), Some(slot)) = (asked(dst), slot_of(side, dst)?) else {
        return batched_writes(side, dst, layer);
    };
    let (autoencoder, latents) = layer_latents(side, slot, layer)?;
    Ok(Some(Values::Sparse(Cow::Owned(match asked {
        Asked::Online => return Ok(Some(Values::Sparse(Cow::Borrowed(latents)))),
        Asked::Offline => offline(side, slot, layer)?,
        Asked::OfflineWriteNorm => write_norms(side, slot, layer, &offline(side, slot, layer)?)?,
        Asked::WriteNorm => write_norms(side, slot, layer, latents)?,
        Asked::ActTimesGrad => along(autoencoder, latents, side.gradients(dst)?.at_reconstruction(slot, layer))?,
        Asked::WriteToFinalResidual => written(side, slot, layer, side.final_residual_gradient(dst)?.as_ref())?,
        Asked::WriteToFinalActivationResidual => written(side, slot, layer, Some(side.traced_gradient(dst)?))?,
        Asked::Write => {
            let (d_model, width) = (side.model().config().d_model, latents.width());
            let row = move |t: usize| {
                let mut out = vec![0.0; width * d_model];
                for &(i, value) in latents.row(t) {
                    let direction = write_direction(side, slot, layer, t, i as usize)?;
                    axpy(&mut out[i as usize * d_model..][..d_model], value, &direction);
                }
                Ok(out)
            };
            return Ok(Some(Values::Rows { dims: vec![side.tokens(), width, d_model], row: Box::new(row) }));
        }
    }))))
}

/// What a unit of one latent adds to the residual stream of a token, `[D]`.
///
/// # Errors
/// If the layer has no such autoencoder.
pub fn write_direction(side: &Side<'_>, slot: Slot, layer: usize, token: usize, latent: usize) -> Result<Vec<f32>> {
    let autoencoder = slots::in_layer(side.model(), slot, layer)?;
    let direction = autoencoder.direction(latent);
    if autoencoder.site() != AutoencoderSite::MlpPostAct {
        return Ok(direction.to_vec());
    }
    let neurons = side.model().tensor(&[1, direction.len()], direction.to_vec())?;
    let written = side.model().block(layer).mlp().write(&neurons)?;
    row_of(&(written * f64::from(side.write_factor(Slot::Mlp, layer, token)?))?, 0)
}

fn layer_latents<'a>(side: &'a Side<'_>, slot: Slot, layer: usize) -> Result<(&'a Autoencoder, &'a SparseRows)> {
    let autoencoder = slots::in_layer(side.model(), slot, layer)?;
    match side.run.latents(slot, layer) {
        Some(state) => Ok((autoencoder, &state.latents)),
        None => Err(Error::Internal(format!("the run kept no latents of layer {layer}"))),
    }
}

/// What an autoencoder is applied to, `[T, n_inputs]`.
fn input(side: &Side<'_>, site: AutoencoderSite, layer: usize) -> Result<Tensor> {
    side.get(
        match site {
            AutoencoderSite::MlpPostAct => Site::MlpPostAct,
            AutoencoderSite::ResidDeltaMlp => Site::ResidDeltaMlp,
            AutoencoderSite::ResidDeltaAttn => Site::ResidDeltaAttn,
        },
        layer,
    )
}

/// Latents computed after the fact from the activations of the pass, before interventions on latents.
fn offline(side: &Side<'_>, slot: Slot, layer: usize) -> Result<SparseRows> {
    let (autoencoder, _) = layer_latents(side, slot, layer)?;
    let input = match autoencoder.site() {
        AutoencoderSite::ResidDeltaMlp => mlp::without_bias(side, layer)?,
        site => input(side, site, layer)?,
    };
    Ok(autoencoder.encode(&input)?)
}

/// Latents of the activations as the pass holds them (with the output's bias, unlike [`offline`]).
pub(crate) fn encoded(side: &Side<'_>, slot: Slot, layer: usize) -> Result<SparseRows> {
    let (autoencoder, _) = layer_latents(side, slot, layer)?;
    Ok(autoencoder.encode(&input(side, autoencoder.site(), layer)?)?)
}

/// `latent * |its write|`.
fn write_norms(side: &Side<'_>, slot: Slot, layer: usize, latents: &SparseRows) -> Result<SparseRows> {
    let (autoencoder, _) = layer_latents(side, slot, layer)?;
    if autoencoder.site() != AutoencoderSite::MlpPostAct {
        return Ok(latents.map(|_, i, x| {
            let direction = autoencoder.direction(i);
            x * dot(direction, direction).sqrt()
        }));
    }
    // The direction goes through the output weights first; each distinct latent once.
    let mut distinct: Vec<u32> = latents.rows().iter().flatten().map(|e| e.0).collect();
    distinct.sort_unstable();
    distinct.dedup();
    let mut found: Vec<f32> = Vec::with_capacity(distinct.len());
    for block in distinct.chunks(256) {
        let directions = block.iter().flat_map(|i| autoencoder.direction(*i as usize).iter().copied()).collect();
        let directions = side.model().tensor(&[block.len(), autoencoder.n_inputs()], directions)?;
        let written = norms(&side.model().block(layer).mlp().write(&directions)?)?;
        found.extend(written.flatten_all()?.to_vec1::<f32>()?);
    }
    let factors: Vec<f32> =
        (0..latents.len()).map(|t| side.write_factor(Slot::Mlp, layer, t)).collect::<Result<_>>()?;
    Ok(latents.map(|t, i, x| x * found[distinct.binary_search(&(i as u32)).unwrap_or_default()] * factors[t]))
}

/// `latent * (its write · gradient)`; zero where the layer does not come before the gradient.
fn written(side: &Side<'_>, slot: Slot, layer: usize, gradient: Option<&Tensor>) -> Result<SparseRows> {
    let precedes = side.precedes_final_residual(Some(layer), Place::written_by(slot));
    written_along(side, slot, layer, gradient.filter(|_| precedes))
}

/// `latent * (its write · gradient)` of all latents of the one autoencoder that is loaded.
///
/// # Errors
/// If none or two are, or the layer has none.
pub(super) fn along_gradient<'a>(
    side: &Side<'_>,
    dst: Dst,
    layer: usize,
    gradient: Option<&Tensor>,
) -> Result<Values<'a>> {
    let slot = slots::only(side.model(), dst.as_str())?;
    Ok(Values::Sparse(Cow::Owned(written_along(side, slot, layer, gradient)?)))
}

fn written_along(side: &Side<'_>, slot: Slot, layer: usize, gradient: Option<&Tensor>) -> Result<SparseRows> {
    let (autoencoder, latents) = layer_latents(side, slot, layer)?;
    match (gradient, autoencoder.site()) {
        // The same gradient seen from the neurons, among which the latents' directions are.
        (Some(gradient), AutoencoderSite::MlpPostAct) => {
            along(autoencoder, latents, Some(&mlp::at_neurons(side, layer, gradient)?))
        }
        _ => along(autoencoder, latents, gradient),
    }
}

/// `latents[t, i] * (direction(i) · gradient[t])`
fn along(autoencoder: &Autoencoder, latents: &SparseRows, gradient: Option<&Tensor>) -> Result<SparseRows> {
    let Some(gradient) = gradient else { return Ok(latents.map(|_, _, _| 0.0)) };
    let gradient = Numbers::of(gradient)?;
    Ok(latents.map(|t, i, x| x * dot(autoencoder.direction(i), gradient.row(t))))
}

/// Scalars of what the autoencoders leave unexplained.
fn errors<'a>(side: &'a Side<'_>, dst: Dst, layer: usize) -> Result<Option<Values<'a>>> {
    let (slot, on_neurons) = match dst {
        Dst::OnlineMlpAutoencoderError
        | Dst::OnlineMlpAutoencoderErrorActTimesGrad
        | Dst::OnlineMlpAutoencoderErrorWriteNorm
        | Dst::OnlineMlpAutoencoderErrorWriteToFinalResidualGrad => (Slot::Mlp, true),
        Dst::OnlineResidualMlpAutoencoderError => (Slot::Mlp, false),
        Dst::OnlineResidualAttentionAutoencoderError => (Slot::Attention, false),
        _ => return Ok(None),
    };
    slots::require(side.model(), slot, dst.as_str())?;
    let (autoencoder, _) = layer_latents(side, slot, layer)?;
    if slot == Slot::Mlp && on_neurons != (autoencoder.site() == AutoencoderSite::MlpPostAct) {
        let reads = if on_neurons { "the output of the MLP layers" } else { "MLP neurons" };
        return bad!("\"{dst}\" does not exist for the autoencoder that is loaded, which reads {reads}");
    }
    let error = side.run.latent_error(slot, layer)?;
    Ok(Some(Values::Dense(match dst {
        Dst::OnlineMlpAutoencoderErrorActTimesGrad => times(&error, side.gradient(dst, slot.error(), layer)?.as_ref())?,
        Dst::OnlineMlpAutoencoderErrorWriteNorm => mlp::times_write_norms(side, layer, &error)?,
        Dst::OnlineMlpAutoencoderErrorWriteToFinalResidualGrad => {
            mlp::written(side, layer, &error, side.final_residual_gradient(dst)?.as_ref())?
        }
        _ => error,
    })))
}

/// The gradient of one latent, summed over tokens, at its autoencoder's input: `[T, n_inputs]`.
///
/// # Errors
/// If the request names no latent.
pub(super) fn latent_gradient(side: &Side<'_>, dst: Dst, slot: Slot, layer: usize) -> Result<Tensor> {
    slots::require(side.model(), slot, dst.as_str())?;
    let named = side.plan.within_layer.map(|within| within.location);
    if slot == Slot::Attention && named == Some(Location::OnlineMlpAutoencoderLatent) {
        return bad!(
            "\"{dst}\" is about latents of the attention layers, but activationIndexForWithinLayerGrad names one of the MLP layers"
        );
    }
    let (autoencoder, _) = layer_latents(side, slot, layer)?;
    gradient_of(side, autoencoder, &encoded(side, slot, layer)?, named_latent(side, dst)?)
}

fn named_latent(side: &Side<'_>, dst: Dst) -> Result<usize> {
    match side.plan.within_layer.and_then(|within| within.index) {
        Some(index) => Ok(index),
        None => bad!("\"{dst}\" needs activationIndexForWithinLayerGrad with tensorIndices [\"All\", latent]"),
    }
}

fn gradient_of(side: &Side<'_>, autoencoder: &Autoencoder, encoded: &SparseRows, index: usize) -> Result<Tensor> {
    let row = autoencoder.encoder_row(index);
    let mut out = vec![0.0; encoded.len() * row.len()];
    for (t, out) in out.chunks_exact_mut(row.len()).enumerate() {
        let entry = encoded.row(t).iter().find(|e| e.0 as usize == index);
        if entry.is_some_and(|e| autoencoder.passes(e.1)) {
            out.copy_from_slice(&row);
        }
    }
    Ok(side.model().tensor(&[encoded.len(), row.len()], out)?)
}

fn gradients_of_latents<'a>(side: &'a Side<'_>, dst: Dst, layer: usize) -> Result<Option<Values<'a>>> {
    let on_neurons = match dst {
        Dst::AutoencoderLatentGradWrtResidualInput => false,
        Dst::AutoencoderLatentGradWrtMlpPostActInput => true,
        _ => return Ok(None),
    };
    let Some(within) = side.plan.within_layer else {
        return bad!("\"{dst}\" needs activationIndexForWithinLayerGrad, which says which latent is meant");
    };
    let slot = match within.location {
        Location::OnlineMlpAutoencoderLatent => Slot::Mlp,
        Location::OnlineAttentionAutoencoderLatent => Slot::Attention,
        _ => slots::only(side.model(), dst.as_str())?,
    };
    let (autoencoder, _) = layer_latents(side, slot, layer)?;
    if on_neurons != (autoencoder.site() == AutoencoderSite::MlpPostAct) {
        let reads = if on_neurons { "the residual stream" } else { "MLP neurons" };
        return bad!("\"{dst}\" does not exist for the autoencoder that is loaded, which reads {reads}");
    }
    if !on_neurons {
        return Ok(Some(Values::Dense(latent_gradient(side, dst, slot, layer)?)));
    }
    // One latent's autoencoder, that of the named layer, on the neurons of every layer.
    let (named, _) = layer_latents(side, slot, within.layer)?;
    let encoded = named.encode(&side.get(Site::MlpPostAct, layer)?)?;
    Ok(Some(Values::Dense(gradient_of(side, named, &encoded, named_latent(side, dst)?)?)))
}

/// Writes of heads to all latents of the attention autoencoder at once, in the layer that the inspection names.
fn batched_writes<'a>(side: &'a Side<'_>, dst: Dst, layer: usize) -> Result<Option<Values<'a>>> {
    let by_pair = match dst {
        Dst::FlattenedAttnWriteToLatentSummedOverHeadsBatched => true,
        Dst::AttnWriteToLatentPerSequenceTokenBatched => false,
        _ => return Ok(None),
    };
    if side.plan.within_layer.is_none_or(|within| within.layer != layer) {
        return bad!("\"{dst}\" needs activationIndexForWithinLayerGrad, which says which layer is meant");
    }
    let (autoencoder, _) = layer_latents(side, Slot::Attention, layer)?;
    let encoded = encoded(side, Slot::Attention, layer)?;
    let v_out = side.get(Site::AttnVOut, layer)?;
    let (tokens, n_heads, n_latents) = (side.tokens(), side.model().config().n_heads, autoencoder.n_latents());
    // The latents' encoder rows seen from the heads' values: only of active ones is anything asked.
    let read = move |latent: usize| -> Result<Tensor> {
        let row = side.model().tensor(&[1, autoencoder.n_inputs()], autoencoder.encoder_row(latent))?;
        Ok(side.model().block(layer).attn.write_vjp(&row)?)
    };
    let active = move |t: usize| {
        encoded.row(t).iter().filter(|e| autoencoder.passes(e.1)).map(|e| e.0 as usize).collect::<Vec<_>>()
    };
    if by_pair {
        let pairs = tokens * (tokens + 1) / 2;
        let row = move |pair: usize| {
            let query = (0..tokens).rfind(|q| q * (q + 1) / 2 <= pair).unwrap_or_default();
            let key = pair - query * (query + 1) / 2;
            let mut out = vec![0.0; n_latents];
            for latent in active(query) {
                out[latent] = attended_reads(side, layer, query, &read(latent)?)?[key];
            }
            Ok(out)
        };
        return Ok(Some(Values::Rows { dims: vec![pairs, n_latents], row: Box::new(row) }));
    }
    let row = move |t: usize| {
        let mut out = vec![0.0; n_heads * n_latents];
        for latent in active(t) {
            let by_head = times(&v_out.narrow(0, t, 1)?, Some(&read(latent)?))?.sum(2)?;
            let by_head = (by_head * f64::from(side.write_factor(Slot::Attention, layer, t)?))?;
            for (head, x) in row_of(&by_head, 0)?.into_iter().enumerate() {
                out[head * n_latents + latent] = x;
            }
        }
        Ok(out)
    };
    Ok(Some(Values::Rows { dims: vec![tokens, n_heads, n_latents], row: Box::new(row) }))
}
