//! An autoencoder within the pass: its latents replace the activation, its error is added back.
//!
//! With nothing changed, reconstruction plus error is the input, so only the encoding is computed and
//! the input goes on as it is. A changed latent is one sparse update. Gradients flow to the latents
//! through the reconstruction, and to the input both through the latents and through the error; with
//! nothing changed these two cancel and the gradient passes as through the identity.

use crate::array::Array;
use crate::autoencoder::Autoencoder;
use crate::hooks::{Actors, RunError};
use crate::kernels;
use crate::run::Keep;
use crate::site::{Pass, Point, Site};
use crate::sparse::SparseRows;
use crate::weights::AutoencoderSite;

/// What the backward pass and readers need of an autoencoder.
#[derive(Clone, Debug)]
pub struct LatentState {
    /// As the encoder gave them.
    pub encoded: SparseRows,
    /// As they went on, after interventions.
    pub latents: SparseRows,
    /// `[T, n_inputs]`; only where something acts on it or a reader asked for it (see [`error`]).
    error: Option<Array>,
}

fn sites(site: AutoencoderSite) -> [Site; 3] {
    match site {
        AutoencoderSite::MlpPostAct | AutoencoderSite::ResidDeltaMlp => {
            [Site::MlpLatent, Site::MlpReconstruction, Site::MlpError]
        }
        AutoencoderSite::ResidDeltaAttn => [Site::AttnLatent, Site::AttnReconstruction, Site::AttnError],
    }
}

/// `input - decode(encode(input))` after interventions, `[T, n_inputs]`.
pub fn error(autoencoder: &Autoencoder, state: &LatentState, input: &Array) -> Array {
    match &state.error {
        Some(error) => error.clone(),
        None => difference(input, &autoencoder.decode(&state.encoded)),
    }
}

fn difference(a: &Array, b: &Array) -> Array {
    let mut out = a.clone();
    out.data_mut().iter_mut().zip(b.data()).for_each(|(a, b)| *a -= b);
    out
}

/// `x: [T, n_inputs]`; the second value is what goes on in its place, `None` if nothing changed it.
pub(crate) fn forward(
    autoencoder: &Autoencoder,
    layer: usize,
    x: &Array,
    actors: &mut Actors<'_>,
) -> Result<(LatentState, Option<Array>), RunError> {
    let [latent, reconstruction, error] = sites(autoencoder.site()).map(|site| Point { site, layer: Some(layer) });
    let encoded = autoencoder.encode(x.data(), x.dims()[0]);
    let touched = |point| actors.touches(point, Pass::Forward);
    if !touched(latent) && !touched(reconstruction) && !touched(error) {
        return Ok((LatentState { latents: encoded.clone(), encoded, error: None }, None));
    }
    let mut latents = encoded.clone();
    if actors.wants(latent, Pass::Forward) {
        let mut dense = Array::from_vec(&[x.dims()[0], encoded.width()], encoded.to_dense());
        actors.forward(latent, &mut dense)?;
        latents = sparse(&dense);
    } else {
        set_sparse(&mut latents, latent, actors);
    }
    let mut out = autoencoder.decode(&latents);
    actors.forward(reconstruction, &mut out)?;
    let mut rest = difference(x, &autoencoder.decode(&encoded));
    actors.forward(error, &mut rest)?;
    out.data_mut().iter_mut().zip(rest.data()).for_each(|(out, rest)| *out += rest);
    Ok((LatentState { encoded, latents, error: Some(rest) }, Some(out)))
}

fn sparse(dense: &Array) -> SparseRows {
    let width = dense.dims()[1];
    let rows = (0..dense.dims()[0]).map(|t| {
        let row = dense.row(t).iter().enumerate();
        row.filter(|(_, x)| **x != 0.0).map(|(i, x)| (i as u32, *x)).collect()
    });
    SparseRows::new(width, rows.collect())
}

fn set_sparse(latents: &mut SparseRows, point: Point, actors: &Actors<'_>) {
    for intervention in actors.interventions.iter().filter(|i| i.applies(point, Pass::Forward)) {
        for_each_entry(intervention, latents.len(), latents.width(), |t, i| {
            latents_set(latents, t, i, intervention.value);
        });
    }
}

fn latents_set(latents: &mut SparseRows, token: usize, index: usize, value: f32) {
    // An absent latent is zero already: setting it to zero must not make an entry of it.
    if value != 0.0 || latents.get(token, index) != 0.0 {
        latents.set(token, index, value);
    }
}

fn for_each_entry(
    intervention: &crate::intervention::Intervention,
    tokens: usize,
    width: usize,
    mut f: impl FnMut(usize, usize),
) {
    use crate::intervention::Index;
    let range = |index: Index, len: usize| match index {
        Index::All => 0..len,
        Index::At(i) => i..i + 1,
    };
    for t in range(intervention.indices[0], tokens) {
        for i in range(intervention.indices[1], width) {
            f(t, i);
        }
    }
}

/// Gradient at what went on, `[T, n_inputs]`, to the gradient at the input. `keep` receives the gradient
/// at the reconstruction under the latents' point too: the gradient of latent `i` at token `t` is its
/// product with the latent's direction, which only a reader of that latent needs to compute.
pub(crate) fn backward(
    autoencoder: &Autoencoder,
    layer: usize,
    state: &LatentState,
    dy: Array,
    actors: &mut Actors<'_>,
    keep: &mut Keep<'_>,
) -> Result<Array, RunError> {
    let [latent, reconstruction, error] = sites(autoencoder.site()).map(|site| Point { site, layer: Some(layer) });
    let tokens = dy.dims()[0];
    let mut d_error = dy.clone();
    keep.put(error, &d_error);
    actors.backward(error, &mut d_error)?;
    let mut d_reconstruction = dy;
    keep.put(reconstruction, &d_reconstruction);
    actors.backward(reconstruction, &mut d_reconstruction)?;
    keep.put(latent, &d_reconstruction);

    let mut dx = d_error.clone();
    let changed_here = |point| actors.touches(point, Pass::Forward) || actors.touches(point, Pass::Backward);
    if !changed_here(latent) && !changed_here(reconstruction) && !changed_here(error) {
        return Ok(dx);
    }
    // d latents through the reconstruction, as changed, minus the same through the error.
    let mut replaced: std::collections::BTreeMap<(usize, usize), f32> = std::collections::BTreeMap::new();
    if actors.wants(latent, Pass::Backward) {
        let mut dense = Array::zeros(&[tokens, autoencoder.n_latents()]);
        for t in 0..tokens {
            for i in 0..autoencoder.n_latents() {
                dense.row_mut(t)[i] = kernels::dot(autoencoder.direction(i), d_reconstruction.row(t));
            }
        }
        actors.backward(latent, &mut dense)?;
        for t in 0..tokens {
            for (i, value) in dense.row(t).iter().enumerate() {
                replaced.insert((t, i), *value);
            }
        }
    } else {
        let (width, interventions) = (autoencoder.n_latents(), actors.interventions);
        for intervention in interventions.iter().rev().filter(|i| i.applies(latent, Pass::Backward)) {
            for_each_entry(intervention, tokens, width, |t, i| {
                replaced.insert((t, i), intervention.value);
            });
        }
        for intervention in interventions.iter().filter(|i| i.applies(latent, Pass::Forward)) {
            for_each_entry(intervention, tokens, width, |t, i| {
                replaced.insert((t, i), 0.0);
            });
        }
    }
    for t in 0..tokens {
        for &(i, value) in state.encoded.row(t) {
            let i = i as usize;
            if !autoencoder.passes(value) {
                continue;
            }
            let direction = autoencoder.direction(i);
            let through_latent = match replaced.get(&(t, i)) {
                Some(value) => *value,
                None => kernels::dot(direction, d_reconstruction.row(t)),
            };
            let through_error = kernels::dot(direction, d_error.row(t));
            let grad = through_latent - through_error;
            if grad != 0.0 {
                kernels::axpy(dx.row_mut(t), grad, &autoencoder.encoder_row(i));
            }
        }
    }
    Ok(dx)
}
