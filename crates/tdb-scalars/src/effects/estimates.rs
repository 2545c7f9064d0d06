//! What gradients say about removed nodes, in three ways.
//!
//! The plain estimate is first order: activation times gradient. Two of its faults and their corrections are those of AtP*
//! (Kramár et al. 2024, arXiv 2403.00745). Where a softmax is saturated, its slope tells nothing of what a changed query or
//! key does, so that each softmax is computed anew for the changed query and key. Where effects of two signs through
//! different layers cancel, the sizes of the estimates with one layer's gradient dropped do not; their sum is divided by the
//! number of layers less one (equation 11 there), because a node has no estimate where its own layer is dropped.

use tdb_api::{AblateTo, MirroredNodeIndex};
use tdb_model::parallel;
use tdb_model::{AutoencoderSite, Gradients, Index, Intervention, Numbers, Pass, Point, Run, Site, Slot, Transformer};

use crate::effects::Base;
use crate::effects::nodes::Entries;
use crate::error::{Error, Result};
use crate::outcome::Scale;
use crate::place::Place;
use crate::slots;
use crate::tensors::row_of;

/// Sites at which nodes have their activation.
pub const NODE_SITES: [Site; 10] = [
    Site::ResidPostEmb,
    Site::AttnQkProbs,
    Site::AttnVOut,
    Site::MlpPostAct,
    Site::MlpLatent,
    Site::AttnLatent,
    Site::ResidLatent,
    Site::MlpError,
    Site::AttnError,
    Site::ResidError,
];

/// A node and what removing it changes.
pub struct Removal {
    pub node: MirroredNodeIndex,
    pub entries: Entries,
    /// Its activations.
    pub values: Vec<f32>,
    /// What they are set to.
    pub to: Vec<f32>,
    /// What kind of value that is.
    pub ablated_to: AblateTo,
}

impl Removal {
    /// `Σ (activation - what it is set to) gradient`.
    ///
    /// # Errors
    /// If an operation fails.
    pub fn first_order(&self, run: &Run, gradients: &Gradients) -> Result<f64> {
        let Some(gradient) = self.entries.gradient(run, gradients)? else { return Ok(0.0) };
        let terms = self.values.iter().zip(&self.to).zip(gradient);
        Ok(terms.map(|((x, to), g)| f64::from(x - to) * f64::from(g)).sum())
    }

    /// What its write to the residual stream changes by, `[D]`.
    fn write_change(&self, run: &Run) -> Result<Vec<f32>> {
        let model = run.model();
        let change: Vec<f32> = self.values.iter().zip(&self.to).map(|(x, to)| to - x).collect();
        let Point { site, layer } = self.entries.point;
        let (Some(layer), false) = (layer, site == Site::ResidPostEmb) else { return Ok(change) };
        let block = model.block(layer);
        let scaled = |direction: &[f32]| direction.iter().map(|x| x * change[0]).collect::<Vec<_>>();
        let row = |x: Vec<f32>| model.tensor(&[1, x.len()], x);
        // Behind the output projection, before the norm that some families have there.
        let (slot, mut written) = match (site, self.entries.indices.as_slice()) {
            (Site::MlpPostAct, &[_, Index::At(neuron)]) => (Slot::Mlp, scaled(&block.mlp().write_direction(neuron))),
            (Site::AttnVOut, &[_, Index::At(head), _]) => {
                (Slot::Attention, row_of(&block.attn.write(head, &row(change)?)?, 0)?)
            }
            (Site::AttnQkProbs, &[_, Index::At(key), Index::At(head)]) => {
                let value = run.get(Site::AttnV, layer)?.get(key)?.get(block.attn.kv_head(head))?.unsqueeze(0)?;
                (Slot::Attention, row_of(&block.attn.write(head, &(value * f64::from(change[0]))?)?, 0)?)
            }
            (_, &[Index::At(token), Index::At(latent)]) if let Some(slot) = Slot::at(site) => {
                let autoencoder = slots::in_layer(model, slot, layer)?;
                let scale = run.latent_scales(slot, layer)?.map_or(1.0, |scales| scales[token]);
                let direction: Vec<f32> = scaled(autoencoder.direction(latent)).iter().map(|x| x * scale).collect();
                let site = autoencoder.site();
                match stands_before_output(site) {
                    true => (slot, written_at(model, layer, site, direction)?),
                    false => return written_at(model, layer, site, direction),
                }
            }
            (_, &[_, Index::All]) if let Some(slot) = Slot::at(site) => {
                let site = slots::in_layer(model, slot, layer)?.site();
                match stands_before_output(site) {
                    true => (slot, written_at(model, layer, site, change)?),
                    false => return written_at(model, layer, site, change),
                }
            }
            _ => return Err(Error::Internal(format!("what stands at {site:?} writes nothing"))),
        };
        if let Some(scale) = run.write_scale(slot, layer)? {
            let scale = row_of(&scale, self.entries.token())?[0];
            written.iter_mut().for_each(|x| *x /= scale);
        }
        Ok(written)
    }
}

/// Whether a dictionary stands before the output projection of its layer, and so before the norm after the layer.
fn stands_before_output(site: AutoencoderSite) -> bool {
    matches!(site, AutoencoderSite::MlpPostAct | AutoencoderSite::AttnVOut)
}

/// What a change of the activation that a dictionary stands for writes to the residual stream, `[D]`.
fn written_at(model: &Transformer, layer: usize, site: AutoencoderSite, change: Vec<f32>) -> Result<Vec<f32>> {
    let block = model.block(layer);
    match site {
        AutoencoderSite::MlpPostAct => row_of(&block.mlp().write(&model.tensor(&[1, change.len()], change)?)?, 0),
        AutoencoderSite::AttnVOut => row_of(&block.attn.write_all(&model.tensor(&[1, change.len()], change)?)?, 0),
        // Through the MLP it writes nothing that is a sum of its parts: its first-order estimate stays.
        AutoencoderSite::MlpIn => Ok(vec![0.0; model.config().d_model]),
        _ => Ok(change),
    }
}

/// First-order estimates with every softmax that a node's write reaches directly computed anew. Where layers are normalised
/// after they have written, a node's write is what it adds with the scale of that norm as it is in this run.
///
/// # Errors
/// If the work is cancelled.
pub fn corrected(
    base: &Base,
    removals: &[Removal],
    gradients: &Gradients,
    is_cancelled: &dyn Fn() -> bool,
) -> Result<Vec<f64>> {
    let run = &base.run;
    let model = run.model();
    let mut out = removals.iter().map(|r| r.first_order(run, gradients)).collect::<Result<Vec<_>>>()?;
    let writes = parallel::try_map(removals.len(), |i| removals[i].write_change(run))?;
    for layer in 0..model.config().n_layers {
        if is_cancelled() {
            return Err(Error::Cancelled);
        }
        let (Some(d_probs), Some(state)) = (gradients.get(Site::AttnQkProbs, layer)?, run.attention(layer)) else {
            continue;
        };
        // Attention reads what was written before it.
        let reach = |r: &Removal| {
            let slot = Slot::at(r.entries.point.site).unwrap_or(Slot::Mlp);
            let written = |at| Place::written_by(model, slot, at);
            r.entries.point.layer.is_none_or(|at| written(at) < (layer, Place::EndOfPreviousLayer))
        };
        let reached: Vec<usize> = (0..removals.len()).filter(|i| reach(&removals[*i])).collect();
        let residual = Numbers::of(run.residual_before(layer))?.to_row_major();
        let width = model.config().d_model;
        let mut rows = Vec::with_capacity(reached.len() * width);
        for &i in &reached {
            let before = &residual[removals[i].entries.token() * width..][..width];
            rows.extend(before.iter().zip(&writes[i]).map(|(x, change)| x + change));
        }
        if reached.is_empty() {
            continue;
        }
        let block = model.block(layer);
        let inputs = block.attn_norm.apply(&model.tensor(&[reached.len(), width], rows)?)?;
        let tokens: Vec<usize> = reached.iter().map(|i| removals[*i].entries.token()).collect();
        let beyond = block.attn.beyond_first_order(state, &d_probs, &tokens, &inputs)?;
        // What removing a node adds to the objective is what the node takes away.
        reached.iter().zip(beyond).for_each(|(i, beyond)| out[*i] -= beyond);
    }
    Ok(out)
}

/// `1 / (L - 1) Σ_l |estimate with the gradient through layer l dropped|`; `None` for a model of one layer.
///
/// # Errors
/// If the work is cancelled.
pub fn dropped(base: &Base, removals: &[Removal], is_cancelled: &dyn Fn() -> bool) -> Result<Option<Vec<f64>>> {
    let model = base.run.model();
    let n_layers = model.config().n_layers;
    if n_layers < 2 {
        return Ok(None);
    }
    let mut out = vec![0.0; removals.len()];
    for layer in 0..n_layers {
        let drop = |site| Intervention {
            site,
            layer: Some(layer),
            pass: Pass::Backward,
            indices: vec![Index::All, Index::All],
            value: 0.0,
        };
        let mut more = vec![drop(Site::ResidDeltaAttn)];
        if model.site_dims(Site::ResidDeltaMlp, 1).is_some() {
            more.push(drop(Site::ResidDeltaMlp));
        }
        let gradients = base.gradients(Scale::Free, &more, is_cancelled)?;
        for (out, removal) in out.iter_mut().zip(removals) {
            *out += removal.first_order(&base.run, &gradients)?.abs();
        }
    }
    out.iter_mut().for_each(|x| *x /= (n_layers - 1) as f64);
    Ok(Some(out))
}
