//! The MLP layer: `W_out gelu(W_in x + b_in) + b_out`.

use crate::array::Array;
use crate::autoencoder::Autoencoder;
use crate::block::autoencode::{self, LatentState};
use crate::hooks::{Actors, RunError};
use crate::kernels::{self, View};
use crate::run::Keep;
use crate::site::{Point, Site};
use crate::weights::{AutoencoderSite, LayerWeights};

/// What the backward pass and readers need of an MLP layer.
#[derive(Clone, Debug)]
pub struct MlpState {
    /// `[T, F]`
    pub pre_act: Array,
    /// `[T, F]`
    pub post_act: Array,
    /// `[T, D]`
    pub delta: Array,
    /// Of the autoencoder on neurons or on the layer's output.
    pub latents: Option<LatentState>,
}

/// `input: [T, D]` (after the layer norm) to what is added to the residual stream, `[T, D]`.
pub(crate) fn forward(
    weights: &LayerWeights,
    autoencoder: Option<&Autoencoder>,
    layer: usize,
    input: &Array,
    actors: &mut Actors<'_>,
) -> Result<(MlpState, Array), RunError> {
    let at = |site| Point { site, layer: Some(layer) };
    let (tokens, d_model, d_ff) = (input.dims()[0], input.dims()[1], weights.mlp_in.weight.rows());
    let mut pre_act =
        Array::from_vec(&[tokens, d_ff], kernels::linear(View::new(input.data(), tokens, d_model), &weights.mlp_in));
    actors.forward(at(Site::MlpPreAct), &mut pre_act)?;
    let mut post_act = Array::from_vec(&[tokens, d_ff], kernels::map(pre_act.data(), kernels::gelu));
    actors.forward(at(Site::MlpPostAct), &mut post_act)?;
    let mut latents = None;
    let mut changed = None;
    if let Some(autoencoder) = autoencoder.filter(|a| a.site() == AutoencoderSite::MlpPostAct) {
        let (state, out) = autoencode::forward(autoencoder, layer, &post_act, actors)?;
        latents = Some(state);
        changed = out;
    }
    let neurons = changed.as_ref().unwrap_or(&post_act);
    let mut delta =
        Array::from_vec(&[tokens, d_model], kernels::linear(View::new(neurons.data(), tokens, d_ff), &weights.mlp_out));
    actors.forward(at(Site::ResidDeltaMlp), &mut delta)?;
    let mut write = None;
    if let Some(autoencoder) = autoencoder.filter(|a| a.site() == AutoencoderSite::ResidDeltaMlp) {
        let (state, out) = autoencode::forward(autoencoder, layer, &delta, actors)?;
        latents = Some(state);
        write = out;
    }
    let write = write.unwrap_or_else(|| delta.clone());
    Ok((MlpState { pre_act, post_act, delta, latents }, write))
}

/// Gradient at what is added to the residual stream, `[T, D]`, to the gradient at the input, `[T, D]`.
pub(crate) fn backward(
    weights: &LayerWeights,
    autoencoder: Option<&Autoencoder>,
    layer: usize,
    state: &MlpState,
    mut dy: Array,
    actors: &mut Actors<'_>,
    keep: &mut Keep<'_>,
) -> Result<Array, RunError> {
    let at = |site| Point { site, layer: Some(layer) };
    let (tokens, d_model, d_ff) = (dy.dims()[0], dy.dims()[1], state.pre_act.dims()[1]);
    if let (Some(autoencoder), Some(latents)) = (autoencoder, &state.latents)
        && autoencoder.site() == AutoencoderSite::ResidDeltaMlp
    {
        dy = autoencode::backward(autoencoder, layer, latents, dy, actors, keep)?;
    }
    keep.put(at(Site::ResidDeltaMlp), &dy);
    actors.backward(at(Site::ResidDeltaMlp), &mut dy)?;
    let mut d_neurons = Array::from_vec(
        &[tokens, d_ff],
        kernels::linear_backward(View::new(dy.data(), tokens, d_model), &weights.mlp_out),
    );
    if let (Some(autoencoder), Some(latents)) = (autoencoder, &state.latents)
        && autoencoder.site() == AutoencoderSite::MlpPostAct
    {
        d_neurons = autoencode::backward(autoencoder, layer, latents, d_neurons, actors, keep)?;
    }
    keep.put(at(Site::MlpPostAct), &d_neurons);
    actors.backward(at(Site::MlpPostAct), &mut d_neurons)?;
    // Of zero rows only zeros would come.
    let rows = kernels::nonzero_rows(View::new(d_neurons.data(), tokens, d_ff));
    let range = rows.start * d_ff..rows.end * d_ff;
    let (grad, pre_act) = (&mut d_neurons.data_mut()[range.clone()], &state.pre_act.data()[range]);
    kernels::zip_into(grad, pre_act, |d, x| d * kernels::gelu_derivative(x));
    keep.put(at(Site::MlpPreAct), &d_neurons);
    actors.backward(at(Site::MlpPreAct), &mut d_neurons)?;
    Ok(Array::from_vec(
        &[tokens, d_model],
        kernels::linear_backward(View::new(d_neurons.data(), tokens, d_ff), &weights.mlp_in),
    ))
}
