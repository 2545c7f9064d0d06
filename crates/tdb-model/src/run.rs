//! One pass over a prompt: all activations of the forward pass, and the gradients that were asked for.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::intervention::{Index, Intervention, first_layer_reached};
use crate::modules::attention::AttentionState;
use crate::modules::autoencoder::{Autoencoder, LatentState};
use crate::modules::block::{LayerState, input_of, off_stream, on_stream};
use crate::modules::norm::{NormState, Sites};
use crate::numbers::Numbers;
use crate::site::{Pass, Point, Site};
use crate::slot::Slot;
use crate::tap::{Hooks, Tap};
use crate::transformer::Transformer;
use crate::weights::AutoencoderSite;

/// Called after each layer with its index; `false` ends the run with [`Error::Cancelled`].
pub type AfterLayer<'a> = &'a mut dyn FnMut(usize) -> bool;

/// What a forward pass does besides computing; by default nothing.
#[derive(Default)]
pub struct ForwardOptions<'a> {
    /// What is set to what. Those of the backward pass have no effect here.
    pub interventions: &'a [Intervention],
    /// Code that looks at or replaces activations.
    pub hooks: Option<&'a mut dyn Hooks>,
    /// A pass over the same tokens with no forward interventions and no hooks: the layers that neither
    /// interventions nor hooks of this one reach are taken from it.
    pub shared: Option<&'a Run>,
    /// Run only this many layers, and if there are more, nothing that follows the last one.
    pub layers: Option<usize>,
    /// Progress, and the way to cancel.
    pub after_layer: Option<AfterLayer<'a>>,
}

/// A forward pass over `T` tokens, with everything that the backward pass and readers need.
#[derive(Clone, Debug)]
pub struct Run {
    model: Transformer,
    tokens: Vec<u32>,
    /// `[T, D]`
    post_emb: Tensor,
    /// Of a dictionary before the first layer.
    embedding_latents: Option<LatentState>,
    /// As many as were run.
    layers: Vec<Arc<LayerState>>,
    /// `None` if not all layers were run.
    end: Option<End>,
    logit_interventions: Vec<Intervention>,
}

/// What follows the last layer.
#[derive(Clone, Debug)]
struct End {
    norm: NormState,
    /// `[T, D]`, the input of the unembedding.
    post_norm: Tensor,
    /// `[T, V]`, only where a hook wanted to see all of it.
    logits: Option<Tensor>,
    /// `[V]`, those of the last token as they are computed, once somebody has asked for them.
    last: OnceLock<Vec<f32>>,
}

const LOGITS: Point = Point { site: Site::Logits, layer: None };
const EMBEDDING: Point = Point { site: Site::ResidPostEmb, layer: None };

impl Transformer {
    /// Runs the model over `tokens`.
    ///
    /// # Errors
    /// If there is no token, one is outside the vocabulary, there are more than the context window holds,
    /// an intervention does not fit its site, a hook fails, or the run is cancelled.
    pub fn forward(&self, tokens: &[u32], options: ForwardOptions<'_>) -> Result<Run> {
        check_tokens(self, tokens, 0)?;
        check_interventions(self, tokens.len(), options.interventions)?;
        let n_layers = self.config().n_layers;
        let mut tap = Tap { interventions: options.interventions, hooks: options.hooks, ..Default::default() };
        let reached = first_layer_reached(options.interventions, n_layers);
        let reached = (0..reached).find(|layer| hooked(&tap, *layer)).unwrap_or(reached);
        // A dictionary before a layer acts at the end of the one before that.
        let reached = if self.has(Slot::Residual) { reached.saturating_sub(1) } else { reached };
        let changes_embedding = tap.touches(EMBEDDING, Pass::Forward) || self.changes_embedding(&tap);
        let shared = options.shared.filter(|s| s.tokens == tokens && !changes_embedding);
        let (embedding_latents, post_emb) = match shared {
            Some(shared) => (shared.embedding_latents.clone(), shared.post_emb.clone()),
            None => {
                let embedded = self.embedding().forward(tokens, 0)?;
                let (latents, embedded) = on_stream(self.on_embedding(), embedded, &mut tap)?;
                (latents, tap.forward(EMBEDDING, embedded)?)
            }
        };
        let mut after_layer = options.after_layer;
        let n_run = options.layers.unwrap_or(n_layers).min(n_layers);
        let mut layers: Vec<Arc<LayerState>> = Vec::with_capacity(n_run);
        for layer in 0..n_run {
            let state = match shared.and_then(|s| s.layers.get(layer)).filter(|_| layer < reached) {
                Some(state) => state.clone(),
                None => {
                    let x = layers.last().map_or(&post_emb, |l| &l.post_mlp);
                    Arc::new(self.block(layer).forward(x, None, self.autoencoders(layer), &mut tap)?)
                }
            };
            layers.push(state);
            go_on(&mut after_layer, layer)?;
        }
        let last = layers.last().map_or(&post_emb, |l| &l.post_mlp);
        let end = match n_run == n_layers {
            true => Some(self.finish(last, &mut tap)?),
            false => None,
        };
        let logit_interventions = options.interventions.iter().filter(|i| i.applies(LOGITS, Pass::Forward));
        Ok(Run {
            model: self.clone(),
            tokens: tokens.to_vec(),
            logit_interventions: logit_interventions.cloned().collect(),
            post_emb,
            embedding_latents,
            layers,
            end,
        })
    }

    /// Whether something acts on a dictionary that stands before the first layer.
    fn changes_embedding(&self, tap: &Tap<'_>) -> bool {
        let Some((layer, _)) = self.on_embedding() else { return false };
        let slot = Slot::Residual;
        let sites = [Site::ResidLatentInput, slot.latent(), slot.reconstruction(), slot.error()];
        sites.iter().any(|&site| tap.touches(Point { site, layer: Some(layer) }, Pass::Forward))
    }

    fn finish(&self, last: &Tensor, tap: &mut Tap<'_>) -> Result<End> {
        let (norm, post_norm) = self.final_norm().forward(Sites::last(), last, tap)?;
        let logits = match tap.wants(LOGITS, Pass::Forward) {
            true => Some(tap.forward(LOGITS, self.unembedding().forward(&post_norm)?)?),
            false => None,
        };
        Ok(End { norm, post_norm, logits, last: OnceLock::new() })
    }
}

fn go_on(after_layer: &mut Option<AfterLayer<'_>>, layer: usize) -> Result<()> {
    match after_layer.as_mut().is_none_or(|after_layer| after_layer(layer)) {
        true => Ok(()),
        false => Err(Error::Cancelled),
    }
}

/// Whether a hook wants to see anything of this layer's forward pass.
fn hooked(tap: &Tap<'_>, layer: usize) -> bool {
    let mut sites = Site::ALL.iter().filter(|site| site.has_layers());
    sites.any(|&site| tap.wants(Point { site, layer: Some(layer) }, Pass::Forward))
}

pub(crate) fn check_tokens(model: &Transformer, tokens: &[u32], past: usize) -> Result<()> {
    let config = model.config();
    if tokens.is_empty() {
        return Err(Error::input("the prompt has no tokens"));
    }
    if past + tokens.len() > config.ctx_window {
        let (found, limit) = (past + tokens.len(), config.ctx_window);
        return Err(Error::input(format!("the prompt has {found} tokens, but the model sees at most {limit}")));
    }
    match tokens.iter().find(|t| **t as usize >= config.n_vocab) {
        Some(token) => Err(Error::input(format!("token {token} is outside the vocabulary of {}", config.n_vocab))),
        None => Ok(()),
    }
}

pub(crate) fn check_interventions(model: &Transformer, tokens: usize, interventions: &[Intervention]) -> Result<()> {
    for intervention in interventions {
        let site = intervention.site;
        let Some(dims) = model.site_dims(site, tokens) else {
            return Err(Error::input(match Slot::at(site) {
                Some(_) => format!("an intervention at {site:?} needs an autoencoder, and none is loaded"),
                None => format!("this model has no {site:?} to intervene at"),
            }));
        };
        if !intervention.check(&dims) {
            let indices = &intervention.indices;
            return Err(Error::input(format!(
                "indices {indices:?} of an intervention do not fit {site:?}, whose dimensions are {dims:?}"
            )));
        }
    }
    Ok(())
}

pub(crate) fn set_in_row(intervention: &Intervention, token: usize, row: &mut [f32], value: f32) {
    if !matches!(intervention.indices[0], Index::All) && intervention.indices[0] != Index::At(token) {
        return;
    }
    match intervention.indices[1] {
        Index::All => row.fill(value),
        Index::At(i) => row[i] = value,
    }
}

impl Run {
    /// The model that was run.
    pub fn model(&self) -> &Transformer {
        &self.model
    }

    /// The prompt.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// How many layers were run.
    pub fn n_layers(&self) -> usize {
        self.layers.len()
    }

    /// The activation at a site, with exactly the dimensions that [`Site`] states. Most are kept as they are and cost
    /// nothing to get; logits, latents and what autoencoders leave over are made on demand.
    ///
    /// # Errors
    /// If the model has no such site, the site has layers and none (or one that was not run) is named, or an operation
    /// fails.
    pub fn get(&self, site: Site, layer: impl Into<Option<usize>>) -> Result<Tensor> {
        let layer = layer.into();
        let missing = || Error::input(format!("this run has no {site:?} of layer {layer:?}"));
        if !site.has_layers() {
            return self.get_unlayered(site);
        }
        let index = layer.filter(|layer| *layer < self.layers.len()).ok_or_else(missing)?;
        let state = &*self.layers[index];
        if let Some(slot) = Slot::at(site) {
            return self.get_of_autoencoder(slot, site, index);
        }
        if site == Site::ResidLatentInput {
            return Ok(self.latents_of(Slot::Residual, index)?.1.input.clone());
        }
        let mlp = || state.mlp.as_ref().ok_or_else(missing);
        Ok(match site {
            Site::AttnLnCentered => state.attn_norm.centered.clone(),
            Site::AttnLnScale => state.attn_norm.scale.clone(),
            Site::AttnLnNormalized => state.attn_norm.normalized()?,
            Site::AttnIn => state.attn_in.clone(),
            Site::AttnQ => state.attn.q.clone(),
            Site::AttnK => state.attn.k.clone(),
            Site::AttnV => state.attn.v.clone(),
            Site::AttnQkLogits => state.attn.qk_logits.clone(),
            Site::AttnQkProbs => state.attn.qk_probs.clone(),
            Site::AttnSoftmaxDenominator => state.attn.denominator(self.model.ops())?,
            Site::AttnVOut => state.attn.v_out.clone(),
            Site::ResidDeltaAttn => state.attn.delta.clone(),
            Site::ResidPostAttn => state.post_attn.clone(),
            Site::MlpLnCentered => state.mlp_norm.centered.clone(),
            Site::MlpLnScale => state.mlp_norm.scale.clone(),
            Site::MlpLnNormalized => state.mlp_norm.normalized()?,
            Site::MlpIn => state.mlp_in.clone(),
            Site::MlpPreAct => mlp()?.pre_act.clone(),
            Site::MlpUp => mlp()?.up.clone().ok_or_else(missing)?,
            Site::MlpPostAct => mlp()?.post_act.clone(),
            Site::ResidDeltaMlp => mlp()?.delta.clone(),
            Site::ResidPostMlp => state.post_mlp.clone(),
            _ => return Err(missing()),
        })
    }

    fn get_unlayered(&self, site: Site) -> Result<Tensor> {
        if site == Site::ResidPostEmb {
            return Ok(self.post_emb.clone());
        }
        let end = self.end()?;
        Ok(match site {
            Site::FinalLnCentered => end.norm.centered.clone(),
            Site::FinalLnScale => end.norm.scale.clone(),
            Site::FinalLnNormalized => end.norm.normalized()?,
            Site::PostFinalLn => end.post_norm.clone(),
            _ => match &end.logits {
                Some(logits) => logits.clone(),
                None => {
                    let mut logits = self.model.unembedding().forward(&end.post_norm)?;
                    for intervention in &self.logit_interventions {
                        logits = intervention.set(&logits, intervention.value)?;
                    }
                    logits
                }
            },
        })
    }

    fn get_of_autoencoder(&self, slot: Slot, site: Site, layer: usize) -> Result<Tensor> {
        let (autoencoder, state) = self.latents_of(slot, layer)?;
        if site == slot.error() {
            return Ok(autoencoder.error(state)?);
        }
        if site == slot.reconstruction() {
            return Ok(autoencoder.reconstruction(state)?);
        }
        self.model.tensor(&[state.latents.len(), state.latents.width()], state.latents.to_dense())
    }

    fn latents_of(&self, slot: Slot, layer: usize) -> Result<(&Autoencoder, &LatentState)> {
        match (self.model.autoencoder(slot, layer), self.latents(slot, layer)) {
            (Some(autoencoder), Some(state)) => Ok((autoencoder, state)),
            _ => Err(Error::input(format!("layer {layer} has no autoencoder in slot {slot:?}"))),
        }
    }

    fn end(&self) -> Result<&End> {
        match &self.end {
            Some(end) => Ok(end),
            None => {
                let (run, all) = (self.layers.len(), self.model.config().n_layers);
                Err(Error::input(format!("only {run} of {all} layers were run, so nothing follows the last one")))
            }
        }
    }

    /// What the autoencoder of one layer made of this run; `None` if the layer has none or was not run.
    pub fn latents(&self, slot: Slot, layer: usize) -> Option<&LatentState> {
        if slot == Slot::Residual {
            return self.residual_latents(layer);
        }
        let state = self.layers.get(layer)?;
        match slot {
            Slot::Mlp => state.mlp_latents.as_ref(),
            _ => state.attn_latents.as_ref(),
        }
    }

    /// What a dictionary before the first layer reads, `[T, D]`.
    pub(crate) fn embedding_read(&self) -> Option<&Tensor> {
        self.embedding_latents.as_ref().map(|state| &state.input)
    }

    fn residual_latents(&self, layer: usize) -> Option<&LatentState> {
        match (self.model.autoencoder(Slot::Residual, layer)?.site(), layer) {
            (AutoencoderSite::ResidPre, 0) => self.embedding_latents.as_ref(),
            (AutoencoderSite::ResidPre, layer) => self.layers.get(layer - 1)?.end_latents.as_ref(),
            (AutoencoderSite::ResidPostAttn, layer) => self.layers.get(layer)?.middle_latents.as_ref(),
            (_, layer) => self.layers.get(layer)?.end_latents.as_ref(),
        }
    }

    /// What a unit of a latent writes at each token, in units of its direction; `None` means 1 everywhere, also where
    /// there is no dictionary.
    ///
    /// # Errors
    /// If the tensor cannot be read.
    pub fn latent_scales(&self, slot: Slot, layer: usize) -> Result<Option<Vec<f32>>> {
        match (self.model.autoencoder(slot, layer), self.latents(slot, layer)) {
            (Some(autoencoder), Some(state)) => Ok(autoencoder.latent_scales(&state.input)?),
            _ => Ok(None),
        }
    }

    /// Queries, keys, values and what was made of them in one layer; `None` if it was not run.
    pub fn attention(&self, layer: usize) -> Option<&AttentionState> {
        self.layers.get(layer).map(|state| &state.attn)
    }

    /// What the autoencoder of one layer leaves over, after interventions, `[T, n_inputs]`.
    ///
    /// # Errors
    /// If the layer has none or was not run.
    pub fn latent_error(&self, slot: Slot, layer: usize) -> Result<Tensor> {
        let (autoencoder, state) = self.latents_of(slot, layer)?;
        Ok(autoencoder.error(state)?)
    }

    /// What the norm after a layer divided the layer's output by, `[T, 1]`; `None` if the family has no such norm. What a
    /// neuron or a head adds to the residual stream is its write divided by this.
    ///
    /// # Errors
    /// If an operation fails.
    ///
    /// # Panics
    /// If the layer was not run.
    pub fn write_scale(&self, slot: Slot, layer: usize) -> Result<Option<Tensor>> {
        self.model.block(layer).write_scale(slot, &self.layers[layer])
    }

    /// Residual stream before a layer, `[T, D]`.
    ///
    /// # Panics
    /// If the layer before it was not run.
    pub fn residual_before(&self, layer: usize) -> &Tensor {
        match layer {
            0 => &self.post_emb,
            _ => &self.layers[layer - 1].post_mlp,
        }
    }

    /// Residual stream after the last layer that was run, `[T, D]`.
    pub fn last_residual(&self) -> &Tensor {
        self.residual_before(self.layers.len())
    }

    /// Logits at one token, `[V]`, after interventions.
    ///
    /// # Errors
    /// If there is no such token, or not all layers were run.
    pub fn logits(&self, token: usize) -> Result<Vec<f32>> {
        let end = self.end()?;
        if token >= self.tokens.len() {
            return Err(Error::input(format!("token {token} is outside a prompt of {}", self.tokens.len())));
        }
        if let Some(all) = &end.logits {
            return Ok(Numbers::of(&all.narrow(0, token, 1)?)?.data().to_vec());
        }
        let mut row = self.computed_logits(token)?;
        for intervention in &self.logit_interventions {
            set_in_row(intervention, token, &mut row, intervention.value);
        }
        Ok(row)
    }

    /// Logits at one token before anything changed them, `[V]`.
    fn computed_logits(&self, token: usize) -> Result<Vec<f32>> {
        let end = self.end()?;
        let is_last = token + 1 == self.tokens.len();
        if let Some(kept) = end.last.get().filter(|_| is_last) {
            return Ok(kept.clone());
        }
        let row = end.post_norm.narrow(0, token, 1)?;
        let logits = self.model.unembedding().logits(Numbers::of(&row)?.data());
        Ok(if is_last { end.last.get_or_init(|| logits).clone() } else { logits })
    }

    /// Whether interventions or hooks may have changed logits after the unembedding.
    pub fn changes_logits(&self) -> bool {
        !self.logit_interventions.is_empty() || self.end.as_ref().is_some_and(|end| end.logits.is_some())
    }
}

/// Where a backward pass starts.
#[allow(missing_docs, reason = "what is said of a variant names its fields")]
#[derive(Clone, Debug)]
pub enum Seed {
    /// Gradient at the logits: `[V]` at some of the tokens, zero at the others.
    Logits(BTreeMap<usize, Vec<f32>>),
    /// Gradient at the residual stream, `[T, D]`, at [`Site::ResidPostEmb`], [`Site::ResidPostAttn`],
    /// [`Site::ResidPostMlp`] or [`Site::ResidLatentInput`]; everything later has none.
    Residual { point: Point, gradient: Tensor },
}

/// What a backward pass does besides computing; by default nothing.
#[derive(Default)]
pub struct BackwardOptions<'a> {
    /// Those of the forward pass (nothing flows to what they overwrote) and those of this one.
    pub interventions: &'a [Intervention],
    /// Code that looks at or replaces gradients.
    pub hooks: Option<&'a mut dyn Hooks>,
    /// The sites whose gradients are kept.
    pub keep: &'a [Site],
    /// Progress, and the way to cancel.
    pub after_layer: Option<AfterLayer<'a>>,
}

/// Gradients of an objective with respect to activations, at the sites that were asked for.
#[derive(Clone, Debug, Default)]
pub struct Gradients {
    by_point: BTreeMap<Point, Tensor>,
    model: Option<Transformer>,
    /// At the logits, by token; absent rows are zero.
    pub logits: BTreeMap<usize, Vec<f32>>,
}

impl Gradients {
    /// The gradient at a point, before backward interventions there, with exactly the dimensions that [`Site`] states;
    /// `None` where none flowed (it is zero) or none was kept. Those of latents are made on demand.
    ///
    /// # Errors
    /// If an operation fails.
    pub fn get(&self, site: Site, layer: impl Into<Option<usize>>) -> Result<Option<Tensor>> {
        let layer = layer.into();
        let found = self.by_point.get(&Point { site, layer });
        let slot = Slot::at(site).filter(|slot| site == slot.latent());
        let autoencoder = slot.zip(layer).zip(self.model.as_ref());
        let autoencoder = autoencoder.and_then(|((slot, layer), model)| model.autoencoder(slot, layer));
        Ok(match (found, autoencoder) {
            (Some(at_reconstruction), Some(autoencoder)) => Some(autoencoder.directions_vjp(at_reconstruction)?),
            (found, _) => found.cloned(),
        })
    }

    /// Where the gradient of latents was kept: that at the reconstruction as it goes on to the latents, `[T, n_inputs]`.
    /// A latent's own is the product with its direction ([`Autoencoder::direction`]).
    pub fn at_reconstruction(&self, slot: Slot, layer: usize) -> Option<&Tensor> {
        self.by_point.get(&Point { site: slot.latent(), layer: Some(layer) })
    }
}

impl Run {
    /// Runs back from `seed` to the embedding.
    ///
    /// # Errors
    /// If the seed stands at a layer that was not run or has another shape than its site, an intervention does not fit
    /// its site, a hook fails, or the run is cancelled.
    pub fn backward(&self, seed: Seed, options: BackwardOptions<'_>) -> Result<Gradients> {
        let model = &self.model;
        check_interventions(model, self.tokens.len(), options.interventions)?;
        self.check_seed(&seed)?;
        let BackwardOptions { interventions, hooks, keep, mut after_layer } = options;
        let mut tap = Tap { interventions, hooks, keep, ..Default::default() };
        let mut logits = BTreeMap::new();
        let (mut entry, mut dx) = match seed {
            Seed::Residual { point, gradient } => (Some(point), gradient),
            Seed::Logits(rows) => {
                let end = self.end()?;
                let d_post_norm = self.backward_logits(rows, &mut tap, &mut logits)?;
                (None, model.final_norm().backward(Sites::last(), &end.norm, d_post_norm, &mut tap)?)
            }
        };
        // Until the point of entry is reached, there is nothing to propagate.
        let mut arrived = |point: Point| {
            if entry == Some(point) {
                entry = None;
            }
            entry.is_none()
        };
        for layer in (0..self.layers.len()).rev() {
            let (state, autoencoders) = (&self.layers[layer], model.autoencoders(layer));
            dx = model.block(layer).backward(state, dx, autoencoders, &mut arrived, &mut tap)?;
            go_on(&mut after_layer, layer)?;
        }
        if arrived(EMBEDDING) {
            dx = tap.backward(EMBEDDING, dx)?;
            dx = off_stream(model.on_embedding(), self.embedding_latents.as_ref(), dx, &mut tap)?;
        }
        if let Some(point) = input_of(model.on_embedding())
            && arrived(point)
        {
            tap.backward(point, dx)?;
        }
        Ok(Gradients { by_point: tap.kept, model: Some(model.clone()), logits })
    }

    fn check_seed(&self, seed: &Seed) -> Result<()> {
        let (config, tokens, n_layers) = (self.model.config(), self.tokens.len(), self.layers.len());
        match seed {
            Seed::Logits(rows) => {
                if n_layers < config.n_layers {
                    let all = config.n_layers;
                    return Err(Error::input(format!(
                        "a gradient at the logits needs all {all} layers, but only {n_layers} were run"
                    )));
                }
                if let Some((t, row)) = rows.iter().find(|(t, row)| **t >= tokens || row.len() != config.n_vocab) {
                    let (found, vocab) = (row.len(), config.n_vocab);
                    return Err(Error::input(format!(
                        "a gradient at the logits of token {t} has length {found}; there are {tokens} tokens and {vocab} logits each"
                    )));
                }
            }
            Seed::Residual { point, gradient } => {
                let exists = match (point.site, point.layer) {
                    (Site::ResidPostEmb, None) => true,
                    (Site::ResidPostAttn | Site::ResidPostMlp, Some(layer)) => layer < n_layers,
                    (Site::ResidLatentInput, Some(layer)) => self.latents(Slot::Residual, layer).is_some(),
                    _ => false,
                };
                if !exists || gradient.dims() != [tokens, config.d_model] {
                    let found = gradient.dims();
                    return Err(Error::input(format!(
                        "a gradient of shape {found:?} cannot start at {point:?} of a run of {tokens} tokens and {n_layers} layers"
                    )));
                }
            }
        }
        Ok(())
    }

    /// Gradient at the input of the unembedding, `[T, D]`; `kept` receives the one at the logits.
    fn backward_logits(
        &self,
        mut rows: BTreeMap<usize, Vec<f32>>,
        tap: &mut Tap<'_>,
        kept: &mut BTreeMap<usize, Vec<f32>>,
    ) -> Result<Tensor> {
        let (config, tokens) = (self.model.config(), self.tokens.len());
        kept.clone_from(&rows);
        if tap.wants(LOGITS, Pass::Backward) {
            let mut all = vec![0.0; tokens * config.n_vocab];
            for (t, row) in &rows {
                all[t * config.n_vocab..][..config.n_vocab].copy_from_slice(row);
            }
            let all = tap.backward_unkept(LOGITS, self.model.tensor(&[tokens, config.n_vocab], all)?)?;
            let all = Numbers::of(&all)?;
            rows = (0..tokens).map(|t| (t, all.row(t).to_vec())).collect();
        } else {
            for intervention in tap.interventions.iter().rev().filter(|i| i.applies(LOGITS, Pass::Backward)) {
                for t in 0..tokens {
                    if intervention.indices[0] == Index::All || intervention.indices[0] == Index::At(t) {
                        let row = rows.entry(t).or_insert_with(|| vec![0.0; config.n_vocab]);
                        set_in_row(intervention, t, row, intervention.value);
                    }
                }
            }
            for intervention in tap.interventions.iter().filter(|i| i.applies(LOGITS, Pass::Forward)) {
                for (t, row) in &mut rows {
                    set_in_row(intervention, *t, row, 0.0);
                }
            }
        }
        let unembedding = self.model.unembedding();
        let (mut logits, mut d_logits) = (Vec::new(), Vec::with_capacity(rows.len() * config.n_vocab));
        let of: Vec<usize> = rows.keys().copied().collect();
        for (t, row) in rows {
            d_logits.extend_from_slice(&row);
            if unembedding.is_capped() {
                // The slope of the cap is that of what was computed, whatever went on instead.
                logits.append(&mut self.computed_logits(t)?);
            }
        }
        let mut out = vec![0.0; tokens * config.d_model];
        let d_post_norm = unembedding.vjp(&logits, &d_logits);
        for (t, row) in of.into_iter().zip(d_post_norm.chunks_exact(config.d_model)) {
            out[t * config.d_model..][..config.d_model].copy_from_slice(row);
        }
        self.model.tensor(&[tokens, config.d_model], out)
    }
}
