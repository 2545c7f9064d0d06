//! Trains the autoencoders of all layers side by side on one stream of text.
//!
//! Between buffers the whole state is saved; a resumed run reads the same text from the same place on and ends with the
//! same bytes.

use std::collections::HashMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use rayon::prelude::*;
use safetensors::SafeTensors;
use serde_json::{Value, json};
use tdb_model::{Autoencoder, AutoencoderWeights, Transformer};

use super::examples::Rows;
use super::harvest::{Endless, fill};
use super::learner::{Learner, Shape, StepStats};
use super::quality::{Quality, cross_entropies, frequency, quality, recovered};
use super::recipe::SaeRecipe;
use super::source::TokenSource;
use super::start::SaeStart;
use crate::dice::Dice;
use crate::error::{Error, Result};
use crate::folder::{read_tensor, write_tensors};

/// Sequences that are kept for judging, from the beginning of the text, and never learnt from in its first round.
const JUDGING: usize = 256;
/// Of these, so many for the cross-entropy that is reported while training.
const GLANCE: usize = 24;

/// Where training stands, after each buffer.
#[derive(Clone, Debug)]
pub struct SaeProgress {
    pub tokens: usize,
    pub of: usize,
    /// For each layer, over the last buffer.
    pub layers: Vec<LayerProgress>,
}

#[derive(Clone, Copy, Debug)]
pub struct LayerProgress {
    /// Squared error per number, activations scaled to a mean square of 1.
    pub loss: f64,
    pub variance_explained: f64,
    pub latents_per_token: f64,
    /// Latents not active for as long as counts as dead.
    pub dead: usize,
    /// Share of cross-entropy recovered, every few buffers.
    pub loss_recovered: Option<f64>,
}

/// One layer, finished.
#[derive(Clone, Debug)]
pub struct TrainedAutoencoder {
    pub weights: AutoencoderWeights,
    pub quality: Quality,
}

struct State {
    buffers: usize,
    sequences: u64,
    learners: Vec<Learner>,
}

/// Trains one autoencoder for each layer of `model`, or goes on where a call with the same recipe was interrupted:
/// `state` is the file in which that is kept. `source` must always give the same text. Where it goes on from finished
/// dictionaries, `start`, latents keep their places, and those that are dead stay so. `watch` may end the call early
/// (`None`); then the state last saved stays.
pub fn train_autoencoders(
    model: &Transformer,
    source: &mut dyn TokenSource,
    recipe: &SaeRecipe,
    start: Option<&SaeStart>,
    state_file: &Path,
    watch: &mut dyn FnMut(&SaeProgress) -> ControlFlow<()>,
) -> Result<Option<Vec<TrainedAutoencoder>>> {
    recipe.check(model.config())?;
    if start.map(SaeStart::fingerprint) != recipe.from.as_deref() {
        return Err(Error::setting("from", "the recipe is not one of a training that goes on from these dictionaries"));
    }
    start.map_or(Ok(()), |start| start.check(recipe))?;
    let shape = recipe.shape(model.config());
    let judged = {
        let mut text = Endless::new(source, 0)?;
        (0..JUDGING).map(|_| text.next()).collect::<Result<Vec<_>>>()?
    };
    let mut state = match state_file.exists() {
        true => Some(State::read(state_file, recipe, model.config().n_layers, shape)?),
        false => None,
    };
    let taken = state.as_ref().map_or(JUDGING as u64, |state| state.sequences);
    let mut text = Endless::new(source, taken)?;
    let per_buffer = recipe.batches_per_buffer() * recipe.batch;
    // A latent that was idle for a fifth of the training, or two million tokens, counts as dead.
    let dead_after = match start {
        Some(_) => f32::INFINITY,
        None => (recipe.steps() * recipe.batch / 10).clamp(1, 2_000_000) as f32,
    };
    while state.as_ref().is_none_or(|state| state.buffers < recipe.buffers()) {
        let rows = fill(model, recipe.site, &mut text, per_buffer)?;
        let state = state.get_or_insert_with(|| State::new(recipe, start, shape, &rows));
        let round = state.buffers;
        let mut order: Vec<usize> = (0..per_buffer).collect();
        let mut dice = Dice::new(&[recipe.seed, 0x0DE5, round as u64]);
        for last in (1..per_buffer).rev() {
            order.swap(last, dice.below(last + 1));
        }
        let learn = |(layer, (learner, rows)): (usize, (&mut Learner, &Rows))| {
            learn_buffer(recipe, learner, rows, &order, layer, round, dead_after)
        };
        let stats: Vec<StepStats> = state.learners.par_iter_mut().zip(&rows).enumerate().map(learn).collect();
        state.buffers += 1;
        state.sequences = text.taken;
        state.write(state_file, recipe)?;
        let glance = round % 8 == 7 || state.buffers == recipe.buffers();
        let progress = report(model, recipe, state, &stats, dead_after, glance.then_some(&judged[..GLANCE]))?;
        if let Some(layer) = stats.iter().position(|stats| !stats.squared_error.is_finite()) {
            let message = format!("training has diverged in layer {layer}; try a lower one");
            return Err(Error::setting("rate", message));
        }
        if watch(&progress).is_break() {
            return Ok(None);
        }
    }
    let Some(state) = state else { return Ok(None) };
    let mut trained = Vec::new();
    for (layer, learner) in state.learners.iter().enumerate() {
        trained.push(finish(model, recipe, layer, learner, &judged)?);
    }
    Ok(Some(trained))
}

/// All batches of one buffer, for one layer.
fn learn_buffer(
    recipe: &SaeRecipe,
    learner: &mut Learner,
    rows: &Rows,
    order: &[usize],
    layer: usize,
    round: usize,
    dead_after: f32,
) -> StepStats {
    let widths = [learner.shape.inputs, learner.shape.outputs];
    let steps = recipe.steps();
    let mut total = StepStats::default();
    let mut taken = Rows::default();
    for (index, batch) in order.chunks_exact(recipe.batch).enumerate() {
        let step = round * recipe.batches_per_buffer() + index;
        taken.copy_rows(rows, batch, widths);
        // The rate rises over the first fiftieth and falls over the last fifth; the penalty rises over the first tenth.
        let done = (step + 1) as f32 / steps as f32;
        let rate = recipe.rate * (done * 50.0).min(1.0) * ((1.0 - done) * 5.0 + 0.01).min(1.0);
        total.add(&learner.step(taken.examples(), rate, step, (done * 10.0).min(1.0), dead_after));
    }
    // Dead latents start anew while there is time left for them to settle.
    let done = (round + 1) as f32 / recipe.buffers() as f32;
    if done < 0.75 {
        let mut dice = Dice::new(&[recipe.seed, 0x1EAF, layer as u64, round as u64]);
        learner.revive(taken.examples(), dead_after, &mut dice);
    }
    total
}

fn report(
    model: &Transformer,
    recipe: &SaeRecipe,
    state: &State,
    stats: &[StepStats],
    dead_after: f32,
    judged: Option<&[Vec<u32>]>,
) -> Result<SaeProgress> {
    let mut layers = Vec::new();
    for (layer, (stats, learner)) in stats.iter().zip(&state.learners).enumerate() {
        let mut loss_recovered = None;
        if let Some(judged) = judged {
            let order: Vec<u32> = (0..learner.shape.latents as u32).collect();
            let autoencoder = autoencoder(recipe, learner.weights(&order, None))?;
            loss_recovered = recovered(cross_entropies(model, layer, &autoencoder, judged)?);
        }
        layers.push(LayerProgress {
            loss: stats.squared_error / (stats.tokens as f64 * learner.shape.outputs as f64),
            variance_explained: stats.variance_explained(),
            latents_per_token: stats.latents_per_token(),
            dead: learner.idle.iter().filter(|&&idle| idle >= dead_after).count(),
            loss_recovered,
        });
    }
    let per_buffer = recipe.batches_per_buffer() * recipe.batch;
    Ok(SaeProgress { tokens: state.buffers * per_buffer, of: recipe.buffers() * per_buffer, layers })
}

fn autoencoder(recipe: &SaeRecipe, weights: AutoencoderWeights) -> Result<Autoencoder> {
    Ok(Autoencoder::new(recipe.site, weights)?)
}

/// Latents in the order of how often they are active, the dead ones last, or as in the dictionaries gone on from.
fn finish(
    model: &Transformer,
    recipe: &SaeRecipe,
    layer: usize,
    learner: &Learner,
    judged: &[Vec<u32>],
) -> Result<TrainedAutoencoder> {
    let mut order: Vec<u32> = (0..learner.shape.latents as u32).collect();
    let frequency = frequency(model, layer, &autoencoder(recipe, learner.weights(&order, None))?, judged)?;
    if recipe.from.is_none() {
        order.sort_by(|&a, &b| frequency[b as usize].total_cmp(&frequency[a as usize]).then(a.cmp(&b)));
    }
    let sorted = order.iter().map(|&latent| frequency[latent as usize]).collect();
    let weights = learner.weights(&order, Some(sorted));
    let quality = quality(model, layer, &autoencoder(recipe, weights.clone())?, judged)?;
    Ok(TrainedAutoencoder { weights, quality })
}

impl State {
    fn new(recipe: &SaeRecipe, start: Option<&SaeStart>, shape: Shape, rows: &[Rows]) -> Self {
        let learner = |(layer, rows): (usize, &Rows)| {
            if let Some(start) = start {
                return Learner::going_on(shape, recipe.sparsity, rows.examples(), start.layer(layer));
            }
            let mut dice = Dice::new(&[recipe.seed, 0x1217, layer as u64]);
            Learner::new(shape, recipe.sparsity, rows.examples(), &mut dice)
        };
        Self { buffers: 0, sequences: 0, learners: rows.iter().enumerate().map(learner).collect() }
    }

    fn write(&self, path: &Path, recipe: &SaeRecipe) -> Result<()> {
        let scales: Vec<f32> = self.learners.iter().flat_map(|learner| learner.scales).collect();
        let names: Vec<[String; 4]> = (0..self.learners.len())
            .map(|layer| ["parameters", "first", "second", "idle"].map(|name| format!("{layer}.{name}")))
            .collect();
        let mut tensors: Vec<(&str, Vec<usize>, &[f32])> = vec![("scales", vec![self.learners.len(), 2], &scales)];
        for (learner, names) in self.learners.iter().zip(&names) {
            let parts = [&learner.parameters, &learner.moments.first, &learner.moments.second, &learner.idle];
            tensors.extend(names.iter().zip(parts).map(|(name, part)| (name.as_str(), vec![part.len()], &part[..])));
        }
        let state = json!({"recipe": recipe, "buffers": self.buffers, "sequences": self.sequences});
        write_tensors(path, &tensors, HashMap::from([("state".to_owned(), state.to_string())]))
    }

    fn read(path: &Path, recipe: &SaeRecipe, n_layers: usize, shape: Shape) -> Result<Self> {
        let bytes = fs::read(path).map_err(Error::file(path))?;
        let broken = |message: String| Error::content(path, format!("{message}; remove it to begin anew"));
        let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|error| broken(error.to_string()))?;
        let state = metadata.metadata().as_ref().and_then(|metadata| metadata.get("state"));
        let state: Value = state.and_then(|state| serde_json::from_str(state).ok()).unwrap_or_default();
        if serde_json::from_value::<SaeRecipe>(state["recipe"].clone()).ok().as_ref() != Some(recipe) {
            return Err(broken("this training was begun with other settings".to_owned()));
        }
        let (Some(buffers), Some(sequences)) = (state["buffers"].as_u64(), state["sequences"].as_u64()) else {
            return Err(broken("`buffers` and `sequences` should be numbers".to_owned()));
        };
        let tensors = SafeTensors::deserialize(&bytes).map_err(|error| broken(error.to_string()))?;
        let scales = read_tensor(&tensors, path, "scales", &[n_layers, 2])?;
        let mut learners = Vec::with_capacity(n_layers);
        for (layer, scales) in scales.chunks_exact(2).enumerate() {
            let mut learner = Learner::blank(shape, recipe.sparsity);
            let size = shape.size();
            let read = |name: &str, size: usize| read_tensor(&tensors, path, &format!("{layer}.{name}"), &[size]);
            learner.scales.copy_from_slice(scales);
            learner.parameters = read("parameters", size)?;
            learner.moments.first = read("first", size)?;
            learner.moments.second = read("second", size)?;
            learner.idle = read("idle", recipe.latents)?;
            learners.push(learner);
        }
        Ok(Self { buffers: buffers as usize, sequences, learners })
    }
}
