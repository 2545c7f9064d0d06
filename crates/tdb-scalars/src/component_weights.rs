//! A neuron or latent by its weights: neighbours, connections, effects on the logits.

use tdb_api::{ComponentRequest, ComponentWeightsResponse, Histogram, NodeType, TokenAndScalar, WeightedComponent};
use tdb_model::numbers::dot;
use tdb_model::parallel;
use tdb_model::{Autoencoder, AutoencoderSite, Slot, Transformer};

use crate::engine::Engine;
use crate::error::{Result, bad};
use crate::head_scores::index;
use crate::tensors::times_gain;

/// Components in each list.
const LISTED: usize = 10;
/// Tokens at either end.
const TOKENS: usize = 20;
/// Parts of the histogram.
const PARTS: usize = 40;

/// A kind of component, with directions in the residual stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Neuron,
    Latent(Slot),
}

impl Kind {
    fn of(node_type: NodeType) -> Result<Self> {
        Ok(match node_type {
            NodeType::MlpNeuron => Self::Neuron,
            NodeType::MlpAutoencoderLatent => Self::Latent(Slot::Mlp),
            NodeType::AttentionAutoencoderLatent | NodeType::AutoencoderLatentByTokenPair => {
                Self::Latent(Slot::Attention)
            }
            other => return bad!(at "nodeType", "is \"{other}\"; neurons and latents have directions"),
        })
    }

    fn node_type(self) -> NodeType {
        match self {
            Self::Neuron => NodeType::MlpNeuron,
            Self::Latent(Slot::Mlp) => NodeType::MlpAutoencoderLatent,
            Self::Latent(_) => NodeType::AttentionAutoencoderLatent,
        }
    }

    fn count(self, model: &Transformer, layer: usize) -> usize {
        match self {
            Self::Neuron if model.block(layer).has_mlp() => model.config().d_ff,
            Self::Neuron => 0,
            Self::Latent(slot) => model.autoencoder(slot, layer).map_or(0, Autoencoder::n_latents),
        }
    }

    /// What it writes to the residual stream for an activation of 1, `[D]`.
    fn write(self, model: &Transformer, layer: usize, unit: usize) -> Result<Vec<f32>> {
        match self {
            Self::Neuron => Ok(model.block(layer).mlp().write_direction(unit)),
            Self::Latent(slot) => match model.autoencoder(slot, layer) {
                Some(a) if a.site() == AutoencoderSite::MlpPostAct => {
                    let neurons = model.tensor(&[1, a.n_inputs()], a.direction(unit).to_vec())?;
                    let write = model.block(layer).mlp().write(&neurons).map_err(tdb_model::Error::from)?;
                    let write = tdb_model::numbers::Numbers::of(&write).map_err(tdb_model::Error::from)?;
                    Ok(write.to_row_major())
                }
                Some(a) => Ok(a.direction(unit).to_vec()),
                None => bad!("layer {layer} has no such autoencoder"),
            },
        }
    }
}

impl Engine {
    /// `POST /component_weights`.
    ///
    /// # Errors
    /// [`crate::Error::Bad`] if the component has no direction or the model does not have it.
    pub fn component_weights(&self, request: &ComponentRequest) -> Result<ComponentWeightsResponse> {
        let (model, kind) = (self.model(), Kind::of(request.node_type)?);
        let layer = index(request.layer_index, model.config().n_layers, "layerIndex")?;
        let unit = index(request.activation_index, kind.count(model, layer), "activationIndex")?;
        let write = kind.write(model, layer, unit)?;
        let effects = self.logit_effects(&write);
        let order = self.ordered(&effects);
        Ok(ComponentWeightsResponse {
            write_norm: f64::from(norm(&write)),
            neighbours: self.neighbours(kind, (layer, unit), &write)?,
            upstream: self.upstream(kind, layer, unit)?,
            downstream: self.downstream(kind, layer, &write),
            promoted: self.tokens(order.iter().rev(), &effects),
            suppressed: self.tokens(order.iter(), &effects),
            logit_effects: histogram(order.iter().map(|token| f64::from(effects[*token]))),
        })
    }

    fn neighbours(&self, kind: Kind, own: (usize, usize), write: &[f32]) -> Result<Vec<WeightedComponent>> {
        let model = self.model();
        let length = norm(write);
        let mut all = Vec::new();
        for layer in 0..model.config().n_layers {
            let cosine = |unit: usize| -> Result<Found> {
                let other = kind.write(model, layer, unit)?;
                let size = length * norm(&other);
                Ok((layer, unit, if size > 0.0 { dot(write, &other) / size } else { 0.0 }))
            };
            let of_layer = parallel::try_map(kind.count(model, layer), cosine)?;
            all.extend(of_layer.into_iter().filter(|(l, u, _)| (*l, *u) != own));
        }
        Ok(strongest(kind, all))
    }

    /// Of a neuron: neurons of the layers before it. Of an MLP latent: neurons of its layer, which it encodes. Heads write
    /// in no single direction, so that a latent of attention has none.
    fn upstream(&self, kind: Kind, layer: usize, unit: usize) -> Result<Vec<WeightedComponent>> {
        let model = self.model();
        let neurons = |layer: usize, along: &(dyn Fn(usize) -> f32 + Sync)| -> Vec<Found> {
            parallel::map(Kind::Neuron.count(model, layer), |n| (layer, n, along(n)))
        };
        let mut all = Vec::new();
        match kind {
            Kind::Neuron => {
                let mut read = model.block(layer).mlp().read_direction(unit);
                times_gain(&mut read, model.block(layer).mlp_norm.gain());
                for before in 0..layer {
                    all.extend(neurons(before, &|n| dot(&model.block(before).mlp().write_direction(n), &read)));
                }
            }
            Kind::Latent(Slot::Mlp) => {
                let Some(autoencoder) = model.autoencoder(Slot::Mlp, layer) else { return Ok(Vec::new()) };
                let encoder = autoencoder.encoder_row(unit);
                all = match autoencoder.site() {
                    AutoencoderSite::MlpPostAct => neurons(layer, &|n| encoder[n]),
                    _ => neurons(layer, &|n| dot(&model.block(layer).mlp().write_direction(n), &encoder)),
                };
            }
            Kind::Latent(_) => {}
        }
        Ok(strongest(Kind::Neuron, all))
    }

    /// Neurons of the layers after it; of what attention writes, those of its own layer, too.
    fn downstream(&self, kind: Kind, layer: usize, write: &[f32]) -> Vec<WeightedComponent> {
        let model = self.model();
        let first = if kind == Kind::Latent(Slot::Attention) { layer } else { layer + 1 };
        let mut all = Vec::new();
        for after in first..model.config().n_layers {
            let block = model.block(after);
            let mut seen = write.to_vec();
            times_gain(&mut seen, block.mlp_norm.gain());
            let neuron = |n| (after, n, dot(&block.mlp().read_direction(n), &seen));
            all.extend(parallel::map(Kind::Neuron.count(model, after), neuron));
        }
        strongest(Kind::Neuron, all)
    }

    /// `[V]`: the write along each row of the unembedding, from the mean.
    fn logit_effects(&self, write: &[f32]) -> Vec<f32> {
        let mut write = write.to_vec();
        times_gain(&mut write, self.model().final_norm().gain());
        let unembedding = self.model().unembedding();
        let mut effects: Vec<f32> = vec![0.0; unembedding.n_vocab()];
        const ROWS: usize = 1024;
        parallel::each_chunk(&mut effects, ROWS, &|i, out| {
            let rows = unembedding.rows(i * ROWS..i * ROWS + out.len());
            out.iter_mut().zip(rows.chunks_exact(write.len())).for_each(|(x, row)| *x = dot(row, &write));
        });
        let mean = effects.iter().map(|x| f64::from(*x)).sum::<f64>() / effects.len().max(1) as f64;
        effects.iter_mut().for_each(|x| *x -= mean as f32);
        effects
    }

    /// The tokens that readings show, by their effect.
    fn ordered(&self, effects: &[f32]) -> Vec<usize> {
        let unread = self.unread_tokens();
        let is_read = |token: &usize| unread.is_none_or(|unread| !unread[*token]);
        let mut order: Vec<usize> = (0..effects.len()).filter(is_read).collect();
        order.sort_by(|a, b| effects[*a].total_cmp(&effects[*b]));
        order
    }

    fn tokens<'a>(&self, order: impl Iterator<Item = &'a usize>, effects: &[f32]) -> Vec<TokenAndScalar> {
        let largest = effects.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        let token = |token: &usize| TokenAndScalar {
            token: self.token_text(*token as u32),
            scalar: f64::from(effects[*token]),
            normalized_scalar: if largest > 0.0 { f64::from(effects[*token] / largest) } else { 0.0 },
        };
        order.take(TOKENS).map(token).collect()
    }
}

/// Layer, unit, and a number about it.
type Found = (usize, usize, f32);

fn strongest(kind: Kind, mut all: Vec<Found>) -> Vec<WeightedComponent> {
    all.sort_by(|a, b| b.2.abs().total_cmp(&a.2.abs()).then((a.0, a.1).cmp(&(b.0, b.1))));
    let listed = all.into_iter().take(LISTED).map(|(layer, unit, value)| WeightedComponent {
        node_type: kind.node_type(),
        layer_index: layer as i64,
        activation_index: unit as i64,
        value: f64::from(value),
    });
    listed.collect()
}

fn norm(x: &[f32]) -> f32 {
    dot(x, x).sqrt()
}

/// Of values in ascending order.
fn histogram(values: impl ExactSizeIterator<Item = f64> + Clone + DoubleEndedIterator) -> Histogram {
    let (low, high) = (values.clone().next().unwrap_or(0.0), values.clone().next_back().unwrap_or(0.0));
    let width = (high - low) / PARTS as f64;
    let mut counts = vec![0; PARTS];
    for value in values {
        let part = if width > 0.0 { ((value - low) / width) as usize } else { 0 };
        counts[part.min(PARTS - 1)] += 1;
    }
    Histogram { low, high, counts }
}
