//! The activations that belong to a node, and what they are set to when it is removed.

use tdb_api::{
    AblateTo, DerivedScalarType as Dst, EffectsRequest, MirroredNodeIndex, NodeIdAndDatasets, NodeType, PassType,
};
use tdb_model::{Gradients, Index, Numbers, Patch, Point, Run, Site, Slot, Transformer, Values};

use crate::context::Context;
use crate::dictionary::slot_of_error;
use crate::error::{Error, Result, bad};
use crate::slots;
use crate::values::wrap;

/// Some activations of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Entries {
    pub point: Point,
    pub indices: Vec<Index>,
}

impl Entries {
    /// Those that a node stands for.
    ///
    /// # Errors
    /// If it is nothing that can be removed, or does not exist in this model and prompt.
    pub fn of(model: &Transformer, tokens: usize, node: &MirroredNodeIndex) -> Result<Self> {
        let node_type = node.node_type;
        if node.pass_type != PassType::Forward {
            return bad!("a value of the forward pass is removed; passType of a node is \"{}\"", node.pass_type);
        }
        let n_layers = model.config().n_layers;
        let layer = match (node_type, node.layer_index) {
            (NodeType::Layer, None) => None,
            (_, found) => match found.and_then(|l| usize::try_from(l).ok()).filter(|l| *l < n_layers) {
                Some(layer) => Some(layer),
                None => {
                    let found = found.map_or("null".to_owned(), |l| l.to_string());
                    return bad!("layerIndex of a node is {found}, but the model has layers 0..{n_layers}");
                }
            },
        };
        let at = |position: usize, what: &str, len: usize| {
            let found = node.tensor_indices.get(position).copied().flatten();
            match found.and_then(|i| wrap(i, len)) {
                Some(i) => Ok(Index::At(i)),
                None => {
                    let found = found.map_or("null".to_owned(), |i| i.to_string());
                    bad!("the {what} of a node of type \"{node_type}\" is {found}, outside 0..{len}")
                }
            }
        };
        let expected = if node_type == NodeType::AttentionHead { 3 } else { 2 };
        if node.tensor_indices.len() != expected {
            let found = node.tensor_indices.len();
            return bad!(
                "tensorIndices of a node of type \"{node_type}\" must have {expected} entries, but has {found}"
            );
        }
        let token = at(0, "token", tokens)?;
        let (site, indices) = match (node_type, layer) {
            (NodeType::Layer, None) => (Site::ResidPostEmb, vec![token, Index::All]),
            (NodeType::MlpNeuron, _) => {
                let Some(dims) = model.site_dims(Site::MlpPostAct, tokens) else {
                    return bad!("this model has no MLP layers, so it has no neurons");
                };
                (Site::MlpPostAct, vec![token, at(1, "neuron", dims[1])?])
            }
            (NodeType::AttentionHead, _) => {
                let head = at(2, "head", model.config().n_heads)?;
                match node.tensor_indices[1] {
                    None => (Site::AttnVOut, vec![token, head, Index::All]),
                    Some(_) => (Site::AttnQkProbs, vec![token, at(1, "attended-to token", tokens)?, head]),
                }
            }
            (_, Some(layer)) if let Some(slot) = slot_of_error(node_type) => {
                slots::require(model, slot, node_type.as_str())?;
                slots::in_layer(model, slot, layer)?;
                (slot.error(), vec![token, Index::All])
            }
            _ => match slots::of_latents(model, node_type)? {
                Some(slot) => {
                    let n_latents = match layer {
                        Some(layer) => slots::in_layer(model, slot, layer)?.n_latents(),
                        None => 0,
                    };
                    (slot.latent(), vec![token, at(1, "latent", n_latents)?])
                }
                None => {
                    return bad!(
                        "a node of type \"{node_type}\" cannot be removed; heads, MLP neurons, latents, errors of dictionaries and embeddings can"
                    );
                }
            },
        };
        Ok(Entries { point: Point { site, layer }, indices })
    }

    /// The patch that removes them.
    pub fn set_to(&self, values: Values) -> Patch {
        Patch { point: self.point, indices: self.indices.clone(), values }
    }

    /// What stands there.
    ///
    /// # Errors
    /// If the run has no such entries.
    pub fn values(&self, run: &Run) -> Result<Vec<f32>> {
        match Values::of(run, self.point, &self.indices)? {
            Values::Each(values) => Ok(values.to_vec()),
            Values::Same(value) => Ok(vec![value]),
        }
    }

    /// The gradient there; `None` where it is zero.
    ///
    /// # Errors
    /// If an operation fails.
    pub fn gradient(&self, run: &Run, gradients: &Gradients) -> Result<Option<Vec<f32>>> {
        let Point { site, layer } = self.point;
        if let (Some(slot), Some(layer), &[Index::At(token), Index::At(latent)]) =
            (Slot::at(site), layer, self.indices.as_slice())
        {
            let Some(gradient) = gradients.at_reconstruction(slot, layer) else { return Ok(None) };
            let direction = slots::in_layer(run.model(), slot, layer)?.direction(latent);
            let row = gradient.narrow(0, token, 1)?;
            return Ok(Some(vec![tdb_model::numbers::dot(direction, Numbers::of(&row)?.data())]));
        }
        let Some(mut gradient) = gradients.get(site, layer)? else { return Ok(None) };
        for (d, index) in self.indices.iter().enumerate() {
            if let Index::At(i) = index {
                gradient = gradient.narrow(d, *i, 1)?;
            }
        }
        Ok(Some(Numbers::of(&gradient)?.to_row_major()))
    }

    /// The scalar whose records tell the mean of such a node; none do of heads and embeddings.
    pub fn recorded_scalar(&self) -> Option<Dst> {
        match self.point.site {
            Site::MlpPostAct => Some(Dst::MlpPostAct),
            Site::MlpLatent => Some(Dst::OnlineMlpAutoencoderLatent),
            Site::AttnLatent => Some(Dst::OnlineAttentionAutoencoderLatent),
            Site::ResidLatent => Some(Dst::OnlineResidualAutoencoderLatent),
            _ => None,
        }
    }

    /// The token whose activations they are.
    pub fn token(&self) -> usize {
        match self.indices[0] {
            Index::At(token) => token,
            Index::All => 0,
        }
    }
}

/// What a node is set to, one number for each of its entries, and which kind of value that is: records tell no mean of heads
/// and embeddings, which get their mean over the prompt instead of that over the collated text.
///
/// # Errors
/// If there is no collated mean of a neuron or latent.
pub fn removed(
    run: &Run,
    entries: &Entries,
    request: &EffectsRequest,
    context: &Context<'_>,
) -> Result<(Vec<f32>, AblateTo)> {
    let n = entries.values(run)?.len();
    let to = match (request.ablate_to, entries.recorded_scalar()) {
        (AblateTo::CollatedMean, None) => AblateTo::PromptMean,
        (to, _) => to,
    };
    if is_hidden(entries) {
        return Ok((entries.values(run)?, to));
    }
    let values = match (to, entries.recorded_scalar()) {
        (AblateTo::Zero, _) => vec![0.0; n],
        (AblateTo::CollatedMean, Some(dst)) => vec![collated_mean(dst, entries, request, context)?; n],
        _ => prompt_mean(run, entries)?,
    };
    Ok((values, to))
}

/// Whether they are the attention to a later token, which is none whatever happens.
fn is_hidden(entries: &Entries) -> bool {
    match (entries.point.site, entries.indices.as_slice()) {
        (Site::AttnQkProbs, &[Index::At(query), Index::At(key), _]) => key > query,
        _ => false,
    }
}

/// The mean over the prompt's tokens; of a pair, over the pairs that the head can see.
fn prompt_mean(run: &Run, entries: &Entries) -> Result<Vec<f32>> {
    let n_tokens = run.tokens().len();
    let at = |token: usize, entries: &Entries| {
        let mut other = entries.clone();
        other.indices[0] = Index::At(token);
        other.values(run)
    };
    let mut sum = vec![0.0f64; entries.values(run)?.len()];
    let mut add = |values: Vec<f32>| sum.iter_mut().zip(values).for_each(|(sum, x)| *sum += f64::from(x));
    let mut count = n_tokens;
    if entries.point.site == Site::AttnQkProbs {
        let mut whole = entries.clone();
        for key in 0..n_tokens {
            whole.indices[1] = Index::At(key);
            for query in key..n_tokens {
                add(at(query, &whole)?);
            }
        }
        count = n_tokens * (n_tokens + 1) / 2;
    } else {
        for token in 0..n_tokens {
            add(at(token, entries)?);
        }
    }
    Ok(sum.into_iter().map(|x| (x / count as f64) as f32).collect())
}

fn collated_mean(dst: Dst, entries: &Entries, request: &EffectsRequest, context: &Context<'_>) -> Result<f32> {
    let (Some(layer), Some(Index::At(index))) = (entries.point.layer, entries.indices.last()) else {
        return bad!("there is no collated mean of a node without a layer");
    };
    let (layer_index, activation_index) = (layer as i64, *index as i64);
    // A set of records is about one kind of node: the first that has this one counts.
    let sets = match &request.datasets {
        Some(names) => names.iter().map(|name| vec![name.clone()]).collect(),
        None => vec![Vec::new()],
    };
    let mut record = bad!(at "datasets", "is empty; name a set of records, or use \"prompt_mean\"");
    for datasets in sets {
        let node = NodeIdAndDatasets { dst, layer_index, activation_index, datasets };
        record = context.records.maximum(&node, context.observer);
        if !matches!(record, Err(Error::NotFound(_))) {
            break;
        }
    }
    match record?.mean {
        Some(mean) => Ok(mean as f32),
        None => bad!("the record of {dst} {layer}:{index} tells no mean; use \"zero\" or \"prompt_mean\""),
    }
}
