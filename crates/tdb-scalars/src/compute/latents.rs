//! Scalars of autoencoder latents, all of them on the active latents only.

use std::borrow::Cow;

use candle_core::Tensor;
use tdb_api::{ActivationLocationType as Location, DerivedScalarType as Dst};
use tdb_model::numbers::{Numbers, axpy, dot};
use tdb_model::{Autoencoder, AutoencoderSite, LatentState, Site, Slot, SparseRows};

use super::attention::attended_reads;
use super::{mlp, not_computed};
use crate::derived::{Quantity, Scalar, Shape, Subject, describe};
use crate::error::{Error, Result, bad};
use crate::interventions::read_by;
use crate::place::Place;
use crate::side::Side;
use crate::slots;
use crate::tensors::{dots, dots_of_rows, norms, row_of};
use crate::values::Values;

/// Which dictionary a derived scalar is about; `None` if it is about none.
///
/// # Errors
/// If that dictionary is not loaded.
pub fn slot_of(side: &Side<'_>, dst: Dst) -> Result<Option<Slot>> {
    let (model, name, scalar) = (side.model(), dst.as_str(), describe(dst));
    let slot = match (scalar.subject, scalar.quantity) {
        (Subject::Latents(None), _) => return slots::only(model, name).map(Some),
        (Subject::Latents(Some(slot)) | Subject::Error(slot), _) => slot,
        (Subject::NeuronErrors | Subject::Skip, _) => Slot::Mlp,
        (_, Quantity::WriteToAllLatents) => Slot::Attention,
        _ => return Ok(None),
    };
    slots::require(model, slot, name).map(Some)
}

/// Of latents, of what a dictionary leaves over or of what its skip connection gives.
pub(super) fn values<'a>(side: &'a Side<'_>, dst: Dst, scalar: Scalar, layer: usize) -> Result<Values<'a>> {
    let Some(slot) = slot_of(side, dst)? else { return not_computed(dst) };
    match (scalar.subject, scalar.quantity) {
        (Subject::Error(_), Quantity::Write) => {
            let (autoencoder, _) = layer_state(side, slot, layer)?;
            fitting(dst, autoencoder, autoencoder.site().writes_residual_stream())?;
            Ok(Values::Dense(side.run.latent_error(slot, layer)?))
        }
        (Subject::Error(_), quantity) => {
            let error = side.run.latent_error(slot, layer)?;
            one_node(side, dst, (slot, slot.error(), quantity), layer, &error)
        }
        (Subject::Skip, quantity) => {
            let (autoencoder, state) = layer_state(side, slot, layer)?;
            match autoencoder.skip(&state.input)? {
                Some(skip) => one_node(side, dst, (slot, slot.reconstruction(), quantity), layer, &skip),
                None => {
                    bad!("\"{dst}\" does not exist for the dictionary that is loaded, which has no skip connection")
                }
            }
        }
        (_, quantity) => latents(side, dst, quantity, slot, layer),
    }
}

/// What a dictionary on the neurons leaves over of each, `[T, F]`.
///
/// # Errors
/// If there is none, or it stands elsewhere.
pub(super) fn error_of_neurons(side: &Side<'_>, dst: Dst, layer: usize) -> Result<Tensor> {
    slots::require(side.model(), Slot::Mlp, dst.as_str())?;
    let (autoencoder, _) = layer_state(side, Slot::Mlp, layer)?;
    fitting(dst, autoencoder, autoencoder.site() == AutoencoderSite::MlpPostAct)?;
    Ok(side.run.latent_error(Slot::Mlp, layer)?)
}

fn fitting(dst: Dst, autoencoder: &Autoencoder, fits: bool) -> Result<()> {
    match fits {
        true => Ok(()),
        false => bad!(
            "\"{dst}\" does not exist for the autoencoder that is loaded, which reads {}",
            read_by(autoencoder.site())
        ),
    }
}

fn latents<'a>(side: &'a Side<'_>, dst: Dst, quantity: Quantity, slot: Slot, layer: usize) -> Result<Values<'a>> {
    let (autoencoder, latents) = layer_latents(side, slot, layer)?;
    Ok(Values::Sparse(Cow::Owned(match quantity {
        Quantity::Activation => return Ok(Values::Sparse(Cow::Borrowed(latents))),
        Quantity::Offline => offline(side, slot, layer)?,
        Quantity::OfflineWriteNorm => write_norms(side, slot, layer, &offline(side, slot, layer)?)?,
        Quantity::WriteNorm => write_norms(side, slot, layer, latents)?,
        Quantity::ActTimesGrad => along(autoencoder, latents, side.gradients(dst)?.at_reconstruction(slot, layer))?,
        Quantity::WriteToFinalResidual => written(side, slot, layer, side.final_residual_gradient(dst)?.as_ref())?,
        Quantity::WriteToFinalActivationResidual => written(side, slot, layer, Some(side.traced_gradient(dst)?))?,
        Quantity::Write => {
            let (d_model, width) = (side.model().config().d_model, latents.width());
            let row = move |t: usize| {
                let mut out = vec![0.0; width * d_model];
                for &(i, value) in latents.row(t) {
                    let direction = write_direction(side, slot, layer, t, i as usize)?;
                    axpy(&mut out[i as usize * d_model..][..d_model], value, &direction);
                }
                Ok(out)
            };
            return Ok(Values::Rows { dims: vec![side.tokens(), width, d_model], row: Box::new(row) });
        }
        _ => return not_computed(dst),
    })))
}

/// Of what a dictionary does not put into latents, `x: [T, n_outputs]`, which stands at a site: one number for each token.
fn one_node<'a>(
    side: &Side<'_>,
    dst: Dst,
    (slot, at, quantity): (Slot, Site, Quantity),
    layer: usize,
    x: &Tensor,
) -> Result<Values<'a>> {
    let (autoencoder, _) = layer_state(side, slot, layer)?;
    let site = autoencoder.site();
    Ok(Values::Dense(match quantity {
        Quantity::Activation => norms(x)?,
        Quantity::ActTimesGrad => dots_of_rows(x, side.gradient(dst, at, layer)?.as_ref())?,
        Quantity::WriteNorm => norms(&to_residual(side, site, layer, x, None)?)?,
        Quantity::WriteToFinalResidual => {
            let (written, place) = Place::written_by(side.model(), slot, layer);
            let gradient = side.final_residual_gradient(dst)?;
            let precedes = side.precedes_final_residual(Some(written), place);
            dots_of_rows(&to_residual(side, site, layer, x, None)?, gradient.as_ref().filter(|_| precedes))?
        }
        _ => return not_computed(dst),
    }))
}

/// What rows at a dictionary's output, `[T, n_outputs]`, are in the residual stream, `[T, D]`, one for each token; those
/// of `token` alone if there is one. What stands before the MLP writes nothing itself. The scale of a norm after the layer
/// counts as constant.
pub(crate) fn to_residual(
    side: &Side<'_>,
    site: AutoencoderSite,
    layer: usize,
    rows: &Tensor,
    token: Option<usize>,
) -> Result<Tensor> {
    let (block, slot) = (side.model().block(layer), Slot::of(site));
    let written = match site {
        AutoencoderSite::MlpPostAct => block.mlp().write(rows)?,
        AutoencoderSite::AttnVOut => block.attn.write_all(rows)?,
        AutoencoderSite::MlpIn => return Ok(rows.zeros_like()?),
        _ => return Ok(rows.clone()),
    };
    match token {
        Some(token) => Ok((written * f64::from(side.write_factor(slot, layer, token)?))?),
        None => side.before_division(slot, layer, &written),
    }
}

/// A gradient at the residual stream, `[T, D]`, seen from a dictionary's output, `[T, n_outputs]`; the transpose of
/// [`to_residual`].
pub(crate) fn from_residual(
    side: &Side<'_>,
    site: AutoencoderSite,
    layer: usize,
    gradient: &Tensor,
) -> Result<Option<Tensor>> {
    let block = side.model().block(layer);
    Ok(match site {
        AutoencoderSite::MlpPostAct => Some(mlp::at_neurons(side, layer, gradient)?),
        AutoencoderSite::AttnVOut => {
            let gradient = side.before_division(Slot::Attention, layer, gradient)?;
            Some(block.attn.side_by_side(&block.attn.write_vjp(&gradient)?)?)
        }
        AutoencoderSite::MlpIn => None,
        _ => Some(gradient.clone()),
    })
}

/// What a unit of one latent adds to the residual stream of a token, `[D]`.
///
/// # Errors
/// If the layer has no such dictionary.
pub fn write_direction(side: &Side<'_>, slot: Slot, layer: usize, token: usize, latent: usize) -> Result<Vec<f32>> {
    let autoencoder = slots::in_layer(side.model(), slot, layer)?;
    let mut direction = autoencoder.direction(latent).to_vec();
    if let Some(scales) = side.run.latent_scales(slot, layer)? {
        direction.iter_mut().for_each(|x| *x *= scales[token]);
    }
    if autoencoder.site().writes_residual_stream() {
        return Ok(direction);
    }
    let row = side.model().tensor(&[1, direction.len()], direction)?;
    row_of(&to_residual(side, autoencoder.site(), layer, &row, Some(token))?, 0)
}

fn layer_state<'a>(side: &'a Side<'_>, slot: Slot, layer: usize) -> Result<(&'a Autoencoder, &'a LatentState)> {
    let autoencoder = slots::in_layer(side.model(), slot, layer)?;
    match side.run.latents(slot, layer) {
        Some(state) => Ok((autoencoder, state)),
        None => Err(Error::Internal(format!("the run kept no latents of layer {layer}"))),
    }
}

fn layer_latents<'a>(side: &'a Side<'_>, slot: Slot, layer: usize) -> Result<(&'a Autoencoder, &'a SparseRows)> {
    layer_state(side, slot, layer).map(|(autoencoder, state)| (autoencoder, &state.latents))
}

/// Latents times the write scale of their token: what they write in units of their directions.
fn in_units_of_directions<'a>(
    side: &Side<'_>,
    slot: Slot,
    layer: usize,
    latents: &'a SparseRows,
) -> Result<Cow<'a, SparseRows>> {
    Ok(match side.run.latent_scales(slot, layer)? {
        Some(scales) => Cow::Owned(latents.map(|t, _, x| x * scales[t])),
        None => Cow::Borrowed(latents),
    })
}

/// Latents computed after the fact from the activations of the pass, before interventions on latents. Those of an
/// autoencoder on the output of the MLP read it without its bias, as clients of the interface know it.
fn offline(side: &Side<'_>, slot: Slot, layer: usize) -> Result<SparseRows> {
    let (autoencoder, state) = layer_state(side, slot, layer)?;
    match autoencoder.site() {
        AutoencoderSite::ResidDeltaMlp => Ok(autoencoder.encode(&mlp::without_bias(side, layer)?)?),
        _ => Ok(state.encoded.clone()),
    }
}

/// Latents of the activations as the pass holds them (with the output's bias, unlike [`offline`]).
pub(crate) fn encoded<'a>(side: &'a Side<'_>, slot: Slot, layer: usize) -> Result<&'a SparseRows> {
    layer_state(side, slot, layer).map(|(_, state)| &state.encoded)
}

/// `latent * |its write|`.
fn write_norms(side: &Side<'_>, slot: Slot, layer: usize, latents: &SparseRows) -> Result<SparseRows> {
    let (autoencoder, _) = layer_latents(side, slot, layer)?;
    let latents = in_units_of_directions(side, slot, layer, latents)?;
    if autoencoder.site().writes_residual_stream() {
        return Ok(latents.map(|_, i, x| {
            let direction = autoencoder.direction(i);
            x * dot(direction, direction).sqrt()
        }));
    }
    // The direction goes through the output weights first; each distinct latent once.
    let mut distinct: Vec<u32> = latents.rows().iter().flatten().map(|e| e.0).collect();
    distinct.sort_unstable();
    distinct.dedup();
    let block = side.model().block(layer);
    let mut found: Vec<f32> = Vec::with_capacity(distinct.len());
    for some in distinct.chunks(256) {
        let directions = some.iter().flat_map(|i| autoencoder.direction(*i as usize).iter().copied()).collect();
        let directions = side.model().tensor(&[some.len(), autoencoder.n_outputs()], directions)?;
        let written = match autoencoder.site() {
            AutoencoderSite::MlpPostAct => block.mlp().write(&directions)?,
            AutoencoderSite::AttnVOut => block.attn.write_all(&directions)?,
            _ => directions.zeros_like()?,
        };
        found.extend(norms(&written)?.flatten_all()?.to_vec1::<f32>()?);
    }
    let factors: Vec<f32> = (0..latents.len()).map(|t| side.write_factor(slot, layer, t)).collect::<Result<_>>()?;
    Ok(latents.map(|t, i, x| x * found[distinct.binary_search(&(i as u32)).unwrap_or_default()] * factors[t]))
}

/// `latent * (its write · gradient)`; zero where the layer does not come before the gradient.
fn written(side: &Side<'_>, slot: Slot, layer: usize, gradient: Option<&Tensor>) -> Result<SparseRows> {
    let (written, place) = Place::written_by(side.model(), slot, layer);
    let precedes = side.precedes_final_residual(Some(written), place);
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
    let latents = in_units_of_directions(side, slot, layer, latents)?;
    let gradient = gradient.map(|gradient| from_residual(side, autoencoder.site(), layer, gradient)).transpose()?;
    along(autoencoder, &latents, gradient.flatten().as_ref())
}

/// `latents[t, i] * (direction(i) · gradient[t])`
fn along(autoencoder: &Autoencoder, latents: &SparseRows, gradient: Option<&Tensor>) -> Result<SparseRows> {
    let Some(gradient) = gradient else { return Ok(latents.map(|_, _, _| 0.0)) };
    let gradient = Numbers::of(gradient)?;
    Ok(latents.map(|t, i, x| x * dot(autoencoder.direction(i), gradient.row(t))))
}

/// The gradient of one latent of the attention layers, summed over tokens, at the heads' outputs, `[T, H, E]`. The scale
/// of a normalisation counts as constant, so that what heads write along it adds up.
///
/// # Errors
/// If the request names no latent.
pub(super) fn latent_gradient_at_heads(side: &Side<'_>, dst: Dst, layer: usize) -> Result<Tensor> {
    let slot = slots::require(side.model(), Slot::Attention, dst.as_str())?;
    let named = side.plan.within_layer.map(|within| within.location);
    if named == Some(Location::OnlineMlpAutoencoderLatent) {
        return bad!(
            "\"{dst}\" is about latents of the attention layers, but activationIndexForWithinLayerGrad names one of the MLP layers"
        );
    }
    let (autoencoder, state) = layer_state(side, slot, layer)?;
    let gradient = gradient_of(side, autoencoder, &state.encoded, &state.input, named_latent(side, dst)?, true)?;
    seen_from_heads(side, autoencoder, layer, &gradient, None)
}

/// Rows at the input of an attention dictionary, `[T, n_inputs]`, seen from the heads' outputs, `[T, H, E]`, one for each
/// token; that of `token` alone if there is one. The scale of a norm after the layer counts as constant.
pub(crate) fn seen_from_heads(
    side: &Side<'_>,
    autoencoder: &Autoencoder,
    layer: usize,
    rows: &Tensor,
    token: Option<usize>,
) -> Result<Tensor> {
    let config = side.model().config();
    if autoencoder.site() == AutoencoderSite::AttnVOut {
        return Ok(rows.reshape(((), config.n_heads, config.d_head))?);
    }
    let rows = match token {
        Some(token) => (rows * f64::from(side.write_factor(Slot::Attention, layer, token)?))?,
        None => side.before_division(Slot::Attention, layer, rows)?,
    };
    Ok(side.model().block(layer).attn.write_vjp(&rows)?)
}

fn named_latent(side: &Side<'_>, dst: Dst) -> Result<usize> {
    match side.plan.within_layer.and_then(|within| within.index) {
        Some(index) => Ok(index),
        None => bad!("\"{dst}\" needs activationIndexForWithinLayerGrad with tensorIndices [\"All\", latent]"),
    }
}

/// The gradient of one latent at its input, `[T, n_inputs]`; zero at tokens where the latent is not active.
fn gradient_of(
    side: &Side<'_>,
    autoencoder: &Autoencoder,
    encoded: &SparseRows,
    input: &Tensor,
    index: usize,
    frozen: bool,
) -> Result<Tensor> {
    let width = autoencoder.n_inputs();
    let mut out = vec![0.0; encoded.len() * width];
    for (t, out) in out.chunks_exact_mut(width).enumerate() {
        let entry = encoded.row(t).iter().find(|e| e.0 as usize == index);
        if entry.is_some_and(|e| autoencoder.passes(e.1)) {
            out.copy_from_slice(&autoencoder.read_gradient(index, &row_of(input, t)?, frozen));
        }
    }
    Ok(side.model().tensor(&[encoded.len(), width], out)?)
}

/// The gradient of the latent that the request names, at what it reads.
///
/// # Errors
/// If the request names none, or it reads something else.
pub(super) fn gradient_of_named<'a>(
    side: &'a Side<'_>,
    dst: Dst,
    quantity: Quantity,
    layer: usize,
) -> Result<Values<'a>> {
    let on_neurons = quantity == Quantity::GradientAtNeurons;
    let Some(within) = side.plan.within_layer else {
        return bad!("\"{dst}\" needs activationIndexForWithinLayerGrad, which says which latent is meant");
    };
    let slot = match within.location {
        Location::OnlineMlpAutoencoderLatent => Slot::Mlp,
        Location::OnlineAttentionAutoencoderLatent => Slot::Attention,
        Location::OnlineResidualAutoencoderLatent => Slot::Residual,
        _ => slots::only(side.model(), dst.as_str())?,
    };
    let (autoencoder, state) = layer_state(side, slot, layer)?;
    let site = autoencoder.site();
    let fits = if on_neurons { site == AutoencoderSite::MlpPostAct } else { site.writes_residual_stream() };
    fitting(dst, autoencoder, fits && !site.is_transcoder())?;
    if !on_neurons {
        let index = named_latent(side, dst)?;
        let gradient = gradient_of(side, autoencoder, &state.encoded, &state.input, index, false)?;
        return Ok(Values::Dense(gradient));
    }
    // One latent's autoencoder, that of the named layer, on the neurons of every layer.
    let (named, _) = layer_latents(side, slot, within.layer)?;
    let neurons = side.get(Site::MlpPostAct, layer)?;
    let encoded = named.encode(&neurons)?;
    let gradient = gradient_of(side, named, &encoded, &neurons, named_latent(side, dst)?, false)?;
    Ok(Values::Dense(gradient))
}

/// Writes of heads to all latents of the attention autoencoder at once, in the layer that the inspection names.
///
/// # Errors
/// If it names another layer.
pub(super) fn writes_to_all<'a>(side: &'a Side<'_>, dst: Dst, shape: Shape, layer: usize) -> Result<Values<'a>> {
    if side.plan.within_layer.is_none_or(|within| within.layer != layer) {
        return bad!("\"{dst}\" needs activationIndexForWithinLayerGrad, which says which layer is meant");
    }
    let (autoencoder, state) = layer_state(side, Slot::Attention, layer)?;
    let (encoded, input) = (&state.encoded, &state.input);
    let v_out = side.get(Site::AttnVOut, layer)?;
    let (tokens, n_heads, n_latents) = (side.tokens(), side.model().config().n_heads, autoencoder.n_latents());
    // The latents' encoder rows seen from the heads' values: only of active ones is anything asked.
    let read = move |latent: usize, t: usize| -> Result<Tensor> {
        let row = autoencoder.read_gradient(latent, &row_of(input, t)?, true);
        let row = side.model().tensor(&[1, autoencoder.n_inputs()], row)?;
        seen_from_heads(side, autoencoder, layer, &row, Some(t))
    };
    let active = move |t: usize| {
        encoded.row(t).iter().filter(|e| autoencoder.passes(e.1)).map(|e| e.0 as usize).collect::<Vec<_>>()
    };
    if shape == Shape::SumByFlatPair {
        let pairs = tokens * (tokens + 1) / 2;
        let row = move |pair: usize| {
            let query = (0..tokens).rfind(|q| q * (q + 1) / 2 <= pair).unwrap_or_default();
            let key = pair - query * (query + 1) / 2;
            let mut out = vec![0.0; n_latents];
            for latent in active(query) {
                out[latent] = attended_reads(side, layer, query, &read(latent, query)?)?[key];
            }
            Ok(out)
        };
        return Ok(Values::Rows { dims: vec![pairs, n_latents], row: Box::new(row) });
    }
    let row = move |t: usize| {
        let mut out = vec![0.0; n_heads * n_latents];
        for latent in active(t) {
            let by_head = dots(&v_out.narrow(0, t, 1)?, Some(&read(latent, t)?))?;
            for (head, x) in row_of(&by_head, 0)?.into_iter().enumerate() {
                out[head * n_latents + latent] = x;
            }
        }
        Ok(out)
    };
    Ok(Values::Rows { dims: vec![tokens, n_heads, n_latents], row: Box::new(row) })
}
