//! How well dictionaries reconstruct what they stand in for, on one prompt.

use tdb_api::{
    DictionaryFidelity, DictionaryFidelityRequest, DictionaryFidelityResponse, LayerFidelity, LossFnConfig, LossFnName,
};
use tdb_model::numbers::softmax;
use tdb_model::{ForwardOptions, Index, Intervention, Numbers, Pass, Run, Site, Slot};

use crate::checks::RANKED_PROMPT_LIMIT;
use crate::context::Context;
use crate::dictionary::latent_type;
use crate::engine::Engine;
use crate::error::{Error, Result, bad};
use crate::objective::Loss;

/// Below this share of the variance a dictionary does not fit: those that do explain more than half.
const FITS: f64 = 0.2;

impl Engine {
    /// `POST /dictionary_fidelity`.
    ///
    /// # Errors
    /// If the prompt is empty or too long, or a token of interest is no token; [`Error::Cancelled`].
    pub fn dictionary_fidelity(
        &self,
        request: &DictionaryFidelityRequest,
        context: &Context<'_>,
    ) -> Result<DictionaryFidelityResponse> {
        let tokens = self.tokens_of("prompt", &request.prompt)?;
        let limit = RANKED_PROMPT_LIMIT.min(self.model().config().ctx_window);
        if tokens.len() > limit {
            return bad!(at "prompt", "has {} tokens; this question takes at most {limit}", tokens.len());
        }
        let loss = match request.target_tokens.is_empty() {
            true => None,
            false => Some(Loss::new(
                self,
                &LossFnConfig {
                    name: LossFnName::LogitDiff,
                    target_tokens: Some(request.target_tokens.clone()),
                    distractor_tokens: Some(request.distractor_tokens.clone()),
                },
            )?),
        };
        let plain = self.model().forward(&tokens, ForwardOptions::default())?;
        let mut dictionaries = Vec::new();
        for slot in Slot::ALL {
            let Some(any) = self.model().any_autoencoder(slot) else { continue };
            let mut layers = Vec::new();
            for layer in self.model().layers_with(slot) {
                if context.observer.is_cancelled() {
                    return Err(Error::Cancelled);
                }
                layers.push(self.layer_fidelity(&plain, slot, layer, loss.as_ref())?);
            }
            dictionaries.push(DictionaryFidelity {
                name: self.dictionary_name(slot).unwrap_or_default().to_owned(),
                node_type: latent_type(slot),
                site: any.site().name().to_owned(),
                mismatch: mismatch(&layers, any.n_latents()),
                layers,
            });
        }
        Ok(DictionaryFidelityResponse {
            cross_entropy: cross_entropy(&plain)?,
            logit_difference: difference(&plain, loss.as_ref())?,
            dictionaries,
        })
    }

    fn layer_fidelity(&self, plain: &Run, slot: Slot, layer: usize, loss: Option<&Loss>) -> Result<LayerFidelity> {
        let (model, tokens) = (self.model(), plain.tokens());
        let Some(state) = plain.latents(slot, layer) else {
            return Err(Error::Internal(format!("the run kept no latents of layer {layer}")));
        };
        let error = plain.latent_error(slot, layer)?;
        // Without its error, the reconstruction alone goes on.
        let without = Intervention {
            site: slot.error(),
            layer: Some(layer),
            pass: Pass::Forward,
            indices: vec![Index::All, Index::All],
            value: 0.0,
        };
        let options = ForwardOptions { interventions: &[without], shared: Some(plain), ..Default::default() };
        let run = model.forward(tokens, options)?;
        Ok(LayerFidelity {
            layer_index: layer as i64,
            variance_explained: variance_explained(&Numbers::of(&state.target)?, &Numbers::of(&error)?),
            active_latents: state.encoded.rows().iter().map(|row| row.len() as i64).collect(),
            cross_entropy: cross_entropy(&run)?,
            logit_difference: difference(&run, loss)?,
        })
    }
}

fn difference(run: &Run, loss: Option<&Loss>) -> Result<Option<f64>> {
    let Some(loss) = loss else { return Ok(None) };
    Ok(Some(f64::from(loss.value(&run.logits(run.tokens().len() - 1)?))))
}

/// Of all tokens but the first; 0 if there is no other.
fn cross_entropy(run: &Run) -> Result<f64> {
    let logits = run.get(Site::Logits, None)?;
    let logits = Numbers::of(&logits)?;
    let next = &run.tokens()[1..];
    let mut sum = 0.0;
    for (t, token) in next.iter().enumerate() {
        let mut row = logits.row(t).to_vec();
        softmax(&mut row);
        sum -= f64::from(row[*token as usize].max(f32::MIN_POSITIVE)).ln();
    }
    Ok(sum / next.len().max(1) as f64)
}

/// `1 - Σ|error|² / Σ|x - mean|²` over the tokens but the first, unless there is no other.
fn variance_explained(x: &Numbers<'_>, error: &Numbers<'_>) -> f64 {
    let [spread, left] = spread_and_rest(x, error, usize::from(x.dims()[0] > 2));
    if spread > 0.0 { 1.0 - left / spread } else { 1.0 }
}

/// `Σ|x - mean|²` and `Σ|error|²` over the tokens from `first` on.
pub(crate) fn spread_and_rest(x: &Numbers<'_>, error: &Numbers<'_>, first: usize) -> [f64; 2] {
    let (tokens, width) = (x.dims()[0], x.dims()[1]);
    let (mut spread, mut left) = (0.0, 0.0);
    for i in 0..width {
        let column = |of: &Numbers<'_>| (first..tokens).map(|t| f64::from(of.row(t)[i])).collect::<Vec<f64>>();
        let (x, error) = (column(x), column(error));
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        spread += x.iter().map(|x| (x - mean).powi(2)).sum::<f64>();
        left += error.iter().map(|e| e * e).sum::<f64>();
    }
    [spread, left]
}

/// One sentence if the dictionary does not fit.
fn mismatch(layers: &[LayerFidelity], n_latents: usize) -> Option<String> {
    let n = layers.len().max(1) as f64;
    let explained = layers.iter().map(|layer| layer.variance_explained).sum::<f64>() / n;
    let active: Vec<f64> = layers.iter().flat_map(|l| l.active_latents.iter().skip(1)).map(|x| *x as f64).collect();
    let active = active.iter().sum::<f64>() / active.len().max(1) as f64;
    let share = 100.0 * explained;
    if explained < FITS {
        return Some(format!(
            "The reconstruction explains {share:.0} % of the variance on this prompt: the dictionary was probably trained at \
             another site, with another normalization of its inputs, or for another model."
        ));
    }
    (active > n_latents as f64 / 4.0).then(|| {
        format!(
            "{active:.0} of {n_latents} latents are active at a token: the dictionary was probably trained with another \
             normalization of its inputs."
        )
    })
}
