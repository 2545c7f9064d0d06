//! Scalars of autoencoder latents, all of them on the active latents only.

use std::borrow::Cow;

use tdb_api::{DerivedScalarType as Dst, PassType};
use tdb_model::block_error;
use tdb_model::kernels::{self, Threads, View, dot};
use tdb_model::{Array, Autoencoder, AutoencoderSite, Site, SparseRows};

use super::residual::traced_gradient;
use super::{mlp, owned, times};
use crate::error::{Error, Result, bad};
use crate::nodes::AutoencoderKind;
use crate::replay::through;
use crate::side::Side;
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
pub fn kind_of(side: &Side<'_>, dst: Dst) -> Result<Option<AutoencoderKind>> {
    let model = side.model();
    let name = dst.as_str();
    if dst == Dst::OnlineAutoencoderWrite {
        return AutoencoderKind::only(model, name).map(Some);
    }
    Ok(Some(match crate::derived::node_type(dst) {
        tdb_api::NodeType::MlpAutoencoderLatent => AutoencoderKind::Mlp.require(model, name)?,
        tdb_api::NodeType::AttentionAutoencoderLatent => AutoencoderKind::Attn.require(model, name)?,
        tdb_api::NodeType::AutoencoderLatent => match dst {
            Dst::FlattenedAttnWriteToLatentSummedOverHeadsBatched | Dst::AttnWriteToLatentPerSequenceTokenBatched => {
                AutoencoderKind::Attn.require(model, name)?
            }
            _ => AutoencoderKind::only(model, name)?,
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
pub(super) fn values<'a>(side: &'a Side<'_>, dst: Dst, pass: PassType, layer: usize) -> Result<Option<Values<'a>>> {
    if let Some(values) = errors(side, dst, layer)? {
        return Ok(Some(values));
    }
    if let Some(values) = gradients_of_latents(side, dst, layer)? {
        return Ok(Some(values));
    }
    let (Some(asked), Some(kind)) = (asked(dst), kind_of(side, dst)?) else {
        return batched_writes(side, dst, layer);
    };
    let (autoencoder, latents) = layer_latents(side, kind, layer)?;
    if pass == PassType::Backward && matches!(asked, Asked::Online) {
        // The gradient of every latent: dense, as it was asked for.
        let at = kind.site();
        let (tokens, n_latents) = (side.tokens(), autoencoder.n_latents());
        let gradient = side.gradients(dst)?.get(at, Some(layer));
        return Ok(Some(owned(match gradient {
            Some(g) => {
                let g = View::new(g.data(), tokens, autoencoder.n_inputs());
                let all = kernels::matmul(g, View::of(autoencoder.directions()).t(), Threads::All);
                Array::from_vec(&[tokens, n_latents], all)
            }
            None => Array::zeros(&[tokens, n_latents]),
        })));
    }
    let sparse = |rows| Values::Sparse(Cow::Owned(rows));
    Ok(Some(match asked {
        Asked::Online => Values::Sparse(Cow::Borrowed(latents)),
        Asked::Offline => sparse(offline(side, kind, layer)?),
        Asked::OfflineWriteNorm => {
            let latents = offline(side, kind, layer)?;
            sparse(write_norms(side, kind, layer, &latents)?)
        }
        Asked::WriteNorm => sparse(write_norms(side, kind, layer, latents)?),
        Asked::ActTimesGrad => {
            let gradient = side.gradients(dst)?.get(kind.site(), Some(layer));
            sparse(along(latents, gradient, |i| autoencoder.direction(i)))
        }
        Asked::WriteToFinalResidual => {
            let gradient = side.final_residual_gradient(dst)?;
            sparse(written(side, kind, layer, latents, gradient))
        }
        Asked::WriteToFinalActivationResidual => {
            let gradient = Some(traced_gradient(side, dst)?);
            sparse(written(side, kind, layer, latents, gradient))
        }
        Asked::Write => {
            let d_model = side.model().config().d_model;
            let width = latents.width();
            let row = move |t: usize| {
                let mut out = vec![0.0; width * d_model];
                for &(i, value) in latents.row(t) {
                    let direction = write_direction(side, kind, layer, i as usize);
                    kernels::axpy(&mut out[i as usize * d_model..][..d_model], value, &direction);
                }
                out
            };
            Values::Rows { dims: vec![side.tokens(), width, d_model], row: Box::new(row) }
        }
    }))
}

/// What a unit of one latent adds to the residual stream, `[D]`.
pub fn write_direction(side: &Side<'_>, kind: AutoencoderKind, layer: usize, latent: usize) -> Vec<f32> {
    let Some(autoencoder) = kind.of_layer(side.model(), layer) else { return Vec::new() };
    let direction = autoencoder.direction(latent);
    match autoencoder.site() {
        AutoencoderSite::MlpPostAct => {
            let weight = &side.model().weights().layers[layer].mlp_out.weight;
            kernels::matmul(View::new(direction, 1, direction.len()), View::of(weight).t(), Threads::All)
        }
        _ => direction.to_vec(),
    }
}

/// The same gradient seen from the latents' directions: `gradient` itself for autoencoders on a layer's output,
/// `gradient W_out` for those on neurons.
pub fn write_projection<'g>(
    side: &Side<'_>,
    kind: AutoencoderKind,
    layer: usize,
    gradient: &'g Array,
) -> Cow<'g, Array> {
    match kind.of_layer(side.model(), layer).map(Autoencoder::site) {
        Some(AutoencoderSite::MlpPostAct) => {
            let config = side.model().config();
            let weight = &side.model().weights().layers[layer].mlp_out.weight;
            Cow::Owned(mlp::rows_through(Some(gradient), View::of(weight), &[side.tokens(), config.d_ff]))
        }
        _ => Cow::Borrowed(gradient),
    }
}

fn layer_latents<'a>(
    side: &'a Side<'_>,
    kind: AutoencoderKind,
    layer: usize,
) -> Result<(&'a Autoencoder, &'a SparseRows)> {
    let autoencoder = kind.in_layer(side.model(), layer)?;
    match kind.state(&side.forward.layers[layer]) {
        Some(state) => Ok((autoencoder, &state.latents)),
        None => Err(Error::Internal(format!("the run kept no latents of layer {layer}"))),
    }
}

/// Latents computed after the fact from the activations of the pass, before interventions on latents.
fn offline(side: &Side<'_>, kind: AutoencoderKind, layer: usize) -> Result<SparseRows> {
    let (autoencoder, _) = layer_latents(side, kind, layer)?;
    let state = &side.forward.layers[layer];
    let tokens = side.tokens();
    Ok(match autoencoder.site() {
        AutoencoderSite::MlpPostAct => autoencoder.encode(state.mlp.post_act.data(), tokens),
        AutoencoderSite::ResidDeltaMlp => autoencoder.encode(mlp::without_bias(side, layer).data(), tokens),
        AutoencoderSite::ResidDeltaAttn => autoencoder.encode(state.attn.delta.data(), tokens),
    })
}

/// `latent * |its write|`.
fn write_norms(side: &Side<'_>, kind: AutoencoderKind, layer: usize, latents: &SparseRows) -> Result<SparseRows> {
    let (autoencoder, _) = layer_latents(side, kind, layer)?;
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
    let weight = &side.model().weights().layers[layer].mlp_out.weight;
    let mut norms = vec![0.0; distinct.len()];
    const BLOCK: usize = 256;
    for (block, norms) in distinct.chunks(BLOCK).zip(norms.chunks_mut(BLOCK)) {
        let directions: Vec<f32> =
            block.iter().flat_map(|i| autoencoder.direction(*i as usize).iter().copied()).collect();
        let x = View::new(&directions, block.len(), autoencoder.n_inputs());
        let written = kernels::matmul(x, View::of(weight).t(), Threads::All);
        for (norm, row) in norms.iter_mut().zip(written.chunks_exact(weight.rows())) {
            *norm = dot(row, row).sqrt();
        }
    }
    Ok(latents.map(|_, i, x| {
        let at = distinct.binary_search(&(i as u32)).unwrap_or_default();
        x * norms[at]
    }))
}

/// `latent * (its write · gradient)`; zero where the layer does not come before the gradient.
fn written(
    side: &Side<'_>,
    kind: AutoencoderKind,
    layer: usize,
    latents: &SparseRows,
    gradient: Option<&Array>,
) -> SparseRows {
    written_along(
        side,
        kind,
        layer,
        latents,
        gradient.filter(|_| side.precedes_final_residual(Some(layer), kind.writes_at())),
    )
}

/// `latent * (its write · gradient)` of all latents of the one autoencoder that is loaded.
///
/// # Errors
/// If none or two are, or the layer has none.
pub(super) fn along_gradient(side: &Side<'_>, dst: Dst, layer: usize, gradient: Option<&Array>) -> Result<SparseRows> {
    let kind = AutoencoderKind::only(side.model(), dst.as_str())?;
    let (_, latents) = layer_latents(side, kind, layer)?;
    Ok(written_along(side, kind, layer, latents, gradient))
}

fn written_along(
    side: &Side<'_>,
    kind: AutoencoderKind,
    layer: usize,
    latents: &SparseRows,
    gradient: Option<&Array>,
) -> SparseRows {
    let projected = gradient.map(|g| write_projection(side, kind, layer, g));
    match kind.of_layer(side.model(), layer) {
        Some(autoencoder) => along(latents, projected.as_deref(), |i| autoencoder.direction(i)),
        None => latents.map(|_, _, _| 0.0),
    }
}

/// `latents[t, i] * (direction(i) · gradient[t])`
fn along<'d>(latents: &SparseRows, gradient: Option<&Array>, direction: impl Fn(usize) -> &'d [f32]) -> SparseRows {
    match gradient {
        Some(gradient) => latents.map(|t, i, x| {
            let row = gradient.row(t);
            x * dot(direction(i), row)
        }),
        None => latents.map(|_, _, _| 0.0),
    }
}

/// Scalars of what the autoencoders leave unexplained.
fn errors<'a>(side: &'a Side<'_>, dst: Dst, layer: usize) -> Result<Option<Values<'a>>> {
    let (kind, site, on_neurons) = match dst {
        Dst::OnlineMlpAutoencoderError
        | Dst::OnlineMlpAutoencoderErrorActTimesGrad
        | Dst::OnlineMlpAutoencoderErrorWriteNorm
        | Dst::OnlineMlpAutoencoderErrorWriteToFinalResidualGrad => (AutoencoderKind::Mlp, Site::MlpError, true),
        Dst::OnlineResidualMlpAutoencoderError => (AutoencoderKind::Mlp, Site::MlpError, false),
        Dst::OnlineResidualAttentionAutoencoderError => (AutoencoderKind::Attn, Site::AttnError, false),
        _ => return Ok(None),
    };
    kind.require(side.model(), dst.as_str())?;
    let (autoencoder, _) = layer_latents(side, kind, layer)?;
    if kind == AutoencoderKind::Mlp && on_neurons != (autoencoder.site() == AutoencoderSite::MlpPostAct) {
        let reads = if on_neurons { "the output of the MLP layers" } else { "MLP neurons" };
        return bad!("\"{dst}\" does not exist for the autoencoder that is loaded, which reads {reads}");
    }
    let state = &side.forward.layers[layer];
    let (latents, input) = match kind {
        AutoencoderKind::Attn => (&state.attn.latents, &state.attn.delta),
        AutoencoderKind::Mlp if on_neurons => (&state.mlp.latents, &state.mlp.post_act),
        AutoencoderKind::Mlp => (&state.mlp.latents, &state.mlp.delta),
    };
    let Some(latents) = latents else {
        return Err(Error::Internal(format!("the run kept no latents of layer {layer}")));
    };
    let error = block_error(autoencoder, latents, input);
    Ok(Some(owned(match dst {
        Dst::OnlineMlpAutoencoderErrorActTimesGrad => times(&error, side.gradients(dst)?.get(site, Some(layer))),
        Dst::OnlineMlpAutoencoderErrorWriteNorm => mlp::scaled_columns(&error, side.engine.mlp_write_norms(layer)),
        Dst::OnlineMlpAutoencoderErrorWriteToFinalResidualGrad => {
            mlp::written(side, layer, &error, side.final_residual_gradient(dst)?)
        }
        _ => error,
    })))
}

/// The gradient of one latent, summed over tokens, at its autoencoder's input: `[T, n_inputs]`.
///
/// # Errors
/// If the request names no latent.
pub(super) fn latent_gradient(side: &Side<'_>, dst: Dst, kind: AutoencoderKind, layer: usize) -> Result<Array> {
    kind.require(side.model(), dst.as_str())?;
    let named = side.plan.within_layer.map(|within| within.location);
    if kind == AutoencoderKind::Attn && named == Some(tdb_api::ActivationLocationType::OnlineMlpAutoencoderLatent) {
        return bad!(
            "\"{dst}\" is about latents of the attention layers, but activationIndexForWithinLayerGrad names one of the MLP layers"
        );
    }
    let Some(index) = side.plan.within_layer.and_then(|within| within.index) else {
        return bad!("\"{dst}\" needs activationIndexForWithinLayerGrad with tensorIndices [\"All\", latent]");
    };
    let (autoencoder, _) = layer_latents(side, kind, layer)?;
    let encoded = offline_encoded(side, kind, layer)?;
    Ok(gradient_of(autoencoder, &encoded, index))
}

fn gradient_of(autoencoder: &Autoencoder, encoded: &SparseRows, index: usize) -> Array {
    let row = autoencoder.encoder_row(index);
    let mut out = Array::zeros(&[encoded.len(), autoencoder.n_inputs()]);
    for t in 0..encoded.len() {
        let entry = encoded.row(t).iter().find(|e| e.0 as usize == index);
        if entry.is_some_and(|e| autoencoder.passes(e.1)) {
            out.row_mut(t).copy_from_slice(&row);
        }
    }
    out
}

/// Latents of the activations as the pass holds them (with the output's bias, unlike [`offline`]).
fn offline_encoded(side: &Side<'_>, kind: AutoencoderKind, layer: usize) -> Result<SparseRows> {
    let (autoencoder, _) = layer_latents(side, kind, layer)?;
    let state = &side.forward.layers[layer];
    let input = match autoencoder.site() {
        AutoencoderSite::MlpPostAct => &state.mlp.post_act,
        AutoencoderSite::ResidDeltaMlp => &state.mlp.delta,
        AutoencoderSite::ResidDeltaAttn => &state.attn.delta,
    };
    Ok(autoencoder.encode(input.data(), side.tokens()))
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
    let kind = match within.location {
        tdb_api::ActivationLocationType::OnlineMlpAutoencoderLatent => AutoencoderKind::Mlp,
        tdb_api::ActivationLocationType::OnlineAttentionAutoencoderLatent => AutoencoderKind::Attn,
        _ => AutoencoderKind::only(side.model(), dst.as_str())?,
    };
    let (autoencoder, _) = layer_latents(side, kind, layer)?;
    if on_neurons != (autoencoder.site() == AutoencoderSite::MlpPostAct) {
        let reads = if on_neurons { "the residual stream" } else { "MLP neurons" };
        return bad!("\"{dst}\" does not exist for the autoencoder that is loaded, which reads {reads}");
    }
    if !on_neurons {
        return Ok(Some(owned(latent_gradient(side, dst, kind, layer)?)));
    }
    // One latent's autoencoder, that of the named layer, on the neurons of every layer.
    let (named, _) = layer_latents(side, kind, within.layer)?;
    let Some(index) = within.index else {
        return bad!("\"{dst}\" needs activationIndexForWithinLayerGrad with tensorIndices [\"All\", latent]");
    };
    let encoded = named.encode(side.forward.layers[layer].mlp.post_act.data(), side.tokens());
    Ok(Some(owned(gradient_of(named, &encoded, index))))
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
    let (autoencoder, _) = layer_latents(side, AutoencoderKind::Attn, layer)?;
    let encoded = offline_encoded(side, AutoencoderKind::Attn, layer)?;
    let state = &side.forward.layers[layer].attn;
    let config = side.model().config();
    let (tokens, n_heads, width) = (side.tokens(), config.n_heads, config.d_head);
    let out = &side.model().weights().layers[layer].out;
    let n_latents = autoencoder.n_latents();
    // The latents' encoder rows seen from the heads' values: only of active ones is anything asked.
    let read = move |latent: usize| through(&autoencoder.encoder_row(latent), out);
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
                let read = read(latent);
                out[latent] = (0..n_heads)
                    .map(|head| {
                        let range = head * width..(head + 1) * width;
                        state.qk_probs.at(&[query, key, head]) * dot(&state.v.row(key)[range.clone()], &read[range])
                    })
                    .sum();
            }
            out
        };
        return Ok(Some(Values::Rows { dims: vec![pairs, n_latents], row: Box::new(row) }));
    }
    let row = move |t: usize| {
        let mut out = vec![0.0; n_heads * n_latents];
        for latent in active(t) {
            let read = read(latent);
            for head in 0..n_heads {
                let range = head * width..(head + 1) * width;
                out[head * n_latents + latent] = dot(&state.v_out.row(t)[range.clone()], &read[range]);
            }
        }
        out
    };
    Ok(Some(Values::Rows { dims: vec![tokens, n_heads, n_latents], row: Box::new(row) }))
}
