//! What each part of the model adds to the logit difference: a sum that is the logit difference.
//!
//! The final norm at the last token is linear once its scale is fixed, and so is the unembedding; so the difference is
//! `g · x + b` for the last residual stream `x`, with `g` the gradient under a fixed scale. Where logits are capped, `g` is the
//! gradient at the logits as they are, as everywhere else, and what the cap bends away is a part of its own. `x` is the sum of what the
//! embedding, the positions and each layer's attention and MLP have written. Latents, their error and the decoder's bias
//! divide the write of a layer further. Biases are summed apart: no node writes them.

use tdb_api::stream::{Contribution, ContributionPart as Part, Contributions};
use tdb_api::{ComponentTypeForAttention, ComponentTypeForMlp, TdbRequestSpec};
use tdb_model::numbers::Numbers;
use tdb_model::{Site, Slot};

use crate::compute::from_residual;
use crate::error::Result;
use crate::objective::Loss;
use crate::side::Side;
use crate::tensors::{at_token, row_of};

/// Whether the layers of a side are divided into latents and what they leave over.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AsLatents {
    mlp: bool,
    attention: bool,
}

impl AsLatents {
    pub fn of(spec: &TdbRequestSpec) -> Self {
        Self {
            mlp: spec.component_type_for_mlp == ComponentTypeForMlp::AutoencoderLatent,
            attention: spec.component_type_for_attention == ComponentTypeForAttention::AutoencoderLatent,
        }
    }
}

/// Of a run whose objective is a logit difference; `None` for others.
pub(crate) fn contributions(side: &Side<'_>, latents: AsLatents) -> Result<Option<Contributions>> {
    let (Some(Loss::LogitDiff { .. }), Some(objective), None) = (&side.plan.loss, side.loss, &side.plan.trace) else {
        return Ok(None);
    };
    let sum = Sum::new(side)?;
    let terms = sum.terms(latents, f64::from(objective))?;
    Ok(Some(Contributions { objective: f64::from(objective), terms }))
}

/// The direction that the logit difference reads the last residual stream along.
struct Sum<'a> {
    side: &'a Side<'a>,
    last: usize,
    /// `[D]`
    gradient: Vec<f32>,
    /// What does not depend on the residual stream: the biases of the final norm and of the unembedding.
    constant: f64,
}

impl<'a> Sum<'a> {
    fn new(side: &'a Side<'a>) -> Result<Self> {
        let (model, last) = (side.model(), side.tokens() - 1);
        let logits = side.run.logits(last)?;
        let d_logits = side.plan.loss.as_ref().and_then(|loss| loss.gradient(&logits)).unwrap_or_default();
        let unembedding = model.unembedding();
        let direction = unembedding.vjp(&logits, &d_logits);
        let x = row_of(side.run.last_residual(), last)?;
        let norm = model.final_norm();
        let mut constant = along(&direction, &norm.row(&vec![0.0; x.len()]));
        if let Some(bias) = unembedding.bias() {
            constant += along(&unembedding.through_cap(&logits, &d_logits), bias);
        }
        Ok(Self { side, last, gradient: norm.vjp_row(&x, &direction, true), constant })
    }

    fn along(&self, write: &[f32]) -> f64 {
        along(&self.gradient, write)
    }

    fn terms(&self, latents: AsLatents, objective: f64) -> Result<Vec<Contribution>> {
        let (model, run) = (self.side.model(), &self.side.run);
        let mut terms = self.embeddings()?;
        let mut biases = self.constant;
        let mut before = self.along(&row_of(run.residual_before(0), self.last)?);
        for layer in 0..model.config().n_layers {
            let middle = self.along(&row_of(&run.get(Site::ResidPostAttn, layer)?, self.last)?);
            let after = self.along(&row_of(&run.get(Site::ResidPostMlp, layer)?, self.last)?);
            for (slot, write, divided) in
                [(Slot::Attention, middle - before, latents.attention), (Slot::Mlp, after - middle, latents.mlp)]
            {
                let bias = self.bias(slot, layer)?;
                biases += bias;
                biases += self.layer(slot, layer, write - bias, divided, &mut terms)?;
            }
            before = after;
        }
        terms.push(Contribution { part: Part::Biases, layer: None, value: biases });
        if model.unembedding().is_capped() {
            let linear: f64 = terms.iter().map(|term| term.value).sum();
            terms.push(Contribution { part: Part::LogitCap, layer: None, value: objective - linear });
        }
        Ok(terms)
    }

    /// Token and position embedding. One that is set to something has no such parts.
    fn embeddings(&self) -> Result<Vec<Contribution>> {
        let whole = row_of(&self.side.get(Site::ResidPostEmb, None)?, self.last)?;
        let whole = self.along(&whole);
        let is_set = self.side.plan.interventions.iter().any(|i| i.site == Site::ResidPostEmb);
        let token = match is_set {
            true => whole,
            false => self.along(&self.side.model().embedding().row(self.side.plan.tokens[self.last])),
        };
        let term = |part, value| Contribution { part, layer: None, value };
        let mut terms = vec![term(Part::Embedding, token)];
        // Models that rotate queries and keys add nothing for the position.
        if (whole - token).abs() > 1e-9 {
            terms.push(term(Part::Position, whole - token));
        }
        Ok(terms)
    }

    /// Of the bias that a layer adds whatever its heads or neurons do.
    fn bias(&self, slot: Slot, layer: usize) -> Result<f64> {
        let model = self.side.model();
        let config = model.config();
        let (name, has) = match slot {
            Slot::Residual => return Ok(0.0),
            Slot::Attention => ("attn.o", config.attention.bias.o),
            Slot::Mlp => ("mlp.out", config.mlp_bias && model.block(layer).has_mlp()),
        };
        // Behind a norm of its own a write cannot be divided so.
        if !has || config.post_norms {
            return Ok(0.0);
        }
        let bias = model.weight(&format!("blocks.{layer}.{name}.bias"))?;
        Ok(self.along(Numbers::of(&bias).map_err(tdb_model::Error::from)?.data()))
    }

    /// A layer's write, whole or divided; returns what of it belongs to no node: the decoder's bias, and a mean that was
    /// taken from its input.
    fn layer(&self, slot: Slot, layer: usize, write: f64, divided: bool, terms: &mut Vec<Contribution>) -> Result<f64> {
        let mut put = |part, value| terms.push(Contribution { part, layer: Some(layer as i64), value });
        let [whole, of_latents, of_error] = match slot {
            Slot::Mlp => [Part::Mlp, Part::MlpLatents, Part::MlpError],
            _ => [Part::Attention, Part::AttentionLatents, Part::AttentionError],
        };
        if let Some(divided) = if divided { self.divided(slot, layer)? } else { None } {
            put(of_latents, divided.latents);
            put(of_error, divided.error);
            return Ok(write - divided.latents - divided.error);
        }
        if slot == Slot::Attention || self.side.model().block(layer).has_mlp() {
            put(whole, write);
        }
        Ok(0.0)
    }

    /// What latents add, and what they leave over with what goes beside them; `None` where the layer has no dictionary,
    /// or one whose reconstruction is not a part of the layer's write.
    fn divided(&self, slot: Slot, layer: usize) -> Result<Option<Divided>> {
        let (model, run) = (self.side.model(), &self.side.run);
        let (Some(state), Some(dictionary)) = (run.latents(slot, layer), model.autoencoder(slot, layer)) else {
            return Ok(None);
        };
        let gradient = model.tensor(&[1, self.gradient.len()], self.gradient.clone())?;
        let gradient = at_token(&gradient, self.last, self.side.tokens())?;
        let Some(read) = from_residual(self.side, dictionary.site(), layer, &gradient)? else { return Ok(None) };
        let read = row_of(&read, self.last)?;
        let scale = run.latent_scales(slot, layer)?.map_or(1.0, |scales| f64::from(scales[self.last]));
        let active = state.latents.row(self.last).iter();
        let of_latent = |(latent, value): &(u32, f32)| {
            scale * f64::from(*value) * along(&read, dictionary.direction(*latent as usize))
        };
        let mut error = along(&read, &row_of(&run.latent_error(slot, layer)?, self.last)?);
        if let Some(skip) = dictionary.skip(&state.input).map_err(tdb_model::Error::from)? {
            error += along(&read, &row_of(&skip, self.last)?);
        }
        Ok(Some(Divided { latents: active.map(of_latent).sum(), error }))
    }
}

/// A layer's write in two parts.
struct Divided {
    latents: f64,
    error: f64,
}

fn along(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}
