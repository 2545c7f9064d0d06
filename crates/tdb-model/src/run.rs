//! One pass over a prompt: all activations of the forward pass, and the gradients that were asked for.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::array::Array;
use crate::block::attention::{self, AttentionState, PastKeysValues};
use crate::block::layer_norm::{self, LayerNormState, Sites};
use crate::block::mlp::{self, MlpState};
use crate::hooks::{Actors, Hooks, RunError};
use crate::intervention::{Index, Intervention};
use crate::kernels::{self, Threads, View};
use crate::site::{Pass, Point, Site};
use crate::transformer::Transformer;

/// The activations of one layer.
#[derive(Clone, Debug)]
pub struct LayerState {
    pub attn_ln: LayerNormState,
    pub attn: AttentionState,
    /// `[T, D]`
    pub post_attn: Array,
    pub mlp_ln: LayerNormState,
    pub mlp: MlpState,
    /// `[T, D]`
    pub post_mlp: Array,
}

/// What a forward pass shall do besides computing.
pub struct ForwardOptions<'a> {
    pub interventions: &'a [Intervention],
    pub hooks: &'a mut dyn Hooks,
    /// A pass over the same tokens with no forward interventions and no hooks: the layers that neither
    /// interventions nor hooks of this one reach are taken from it.
    pub shared: Option<&'a Forward>,
    /// Run only this many layers, and if there are more, nothing that follows the last one.
    pub layers: Option<usize>,
    /// Called after each layer with its index; `false` ends the run with [`RunError::Cancelled`].
    pub after_layer: &'a mut dyn FnMut(usize) -> bool,
}

/// Changes nothing, looks at nothing, runs all layers to the end.
impl Default for ForwardOptions<'_> {
    fn default() -> Self {
        ForwardOptions { interventions: &[], hooks: no_hooks(), shared: None, layers: None, after_layer: go_on() }
    }
}

/// Hooks that want nothing; without a size, they take no memory that could be lost.
fn no_hooks() -> &'static mut dyn Hooks {
    Box::leak(Box::new(()))
}

/// Goes on after every layer; without a size, too.
fn go_on() -> &'static mut dyn FnMut(usize) -> bool {
    Box::leak(Box::new(|_| true))
}

/// A forward pass over `T` tokens, with everything that the backward pass and readers need.
#[derive(Clone, Debug)]
pub struct Forward {
    pub tokens: Vec<u32>,
    /// `[T, D]`
    pub post_emb: Arc<Array>,
    /// As many as were run.
    pub layers: Vec<Arc<LayerState>>,
    /// Without rows if not all layers were run.
    pub final_ln: LayerNormState,
    /// `[T, D]`, the input of the unembedding; `[0, D]` if not all layers were run.
    pub post_final_ln: Array,
    /// `[T, V]`, only where a hook wanted to see all of it.
    all_logits: Option<Array>,
    logit_interventions: Vec<Intervention>,
}

impl Forward {
    /// Residual stream before layer `layer`'s attention, `[T, D]`.
    pub fn before_attn(&self, layer: usize) -> &Array {
        match layer {
            0 => &self.post_emb,
            _ => &self.layers[layer - 1].post_mlp,
        }
    }

    /// Residual stream after the last layer that was run, `[T, D]`.
    pub fn last_residual(&self) -> &Array {
        self.before_attn(self.layers.len())
    }

    /// Logits at one token, `[V]`, after interventions.
    ///
    /// # Panics
    /// If there is no such token, or not all layers were run.
    pub fn logits(&self, model: &Transformer, token: usize) -> Vec<f32> {
        if let Some(all) = &self.all_logits {
            return all.row(token).to_vec();
        }
        let mut row = unembed(model, self.post_final_ln.row(token));
        for intervention in &self.logit_interventions {
            set_in_row(intervention, token, &mut row, intervention.value);
        }
        row
    }
}

fn set_in_row(intervention: &Intervention, token: usize, row: &mut [f32], value: f32) {
    if !matches!(intervention.indices[0], Index::All) && intervention.indices[0] != Index::At(token) {
        return;
    }
    match intervention.indices[1] {
        Index::All => row.fill(value),
        Index::At(i) => row[i] = value,
    }
}

/// `W_U x` for one row `x: [D]`, `[V]`.
pub fn unembed(model: &Transformer, x: &[f32]) -> Vec<f32> {
    let weight = &model.weights().unembed;
    let mut out = vec![0.0; weight.rows()];
    let x = View::new(x, 1, x.len());
    kernels::matmul_into(&mut out, [weight.rows(), 1], x, View::of(weight).t(), false, Threads::All);
    out
}

/// The first layer that any of the forward interventions reaches; the number of layers if none does.
pub fn first_layer_reached(interventions: &[Intervention], n_layers: usize) -> usize {
    let forward = interventions.iter().filter(|i| i.pass == Pass::Forward);
    let reached = forward.map(|i| match i.site {
        Site::ResidPostEmb => 0,
        site if site.has_layers() => i.layer.unwrap_or(0),
        _ => n_layers,
    });
    reached.min().unwrap_or(n_layers).min(n_layers)
}

/// Runs the model over `tokens`.
///
/// # Errors
/// If there is no token, one is outside the vocabulary, there are more than the context window holds,
/// an intervention does not fit its site, a hook fails, or the run is cancelled.
pub fn forward(model: &Transformer, tokens: &[u32], options: ForwardOptions<'_>) -> Result<Forward, RunError> {
    let config = model.config();
    check_tokens(model, tokens, 0)?;
    check_interventions(model, tokens.len(), options.interventions)?;
    let embedding = Point { site: Site::ResidPostEmb, layer: None };
    let mut actors = Actors { interventions: options.interventions, hooks: options.hooks };
    let reached = first_layer_reached(options.interventions, config.n_layers);
    let reached = (0..reached).find(|layer| hooked(&actors, *layer)).unwrap_or(reached);
    let shared = options.shared.filter(|s| s.tokens == tokens && !actors.touches(embedding, Pass::Forward));
    let post_emb = match shared {
        Some(shared) => shared.post_emb.clone(),
        None => {
            let mut x = embed(model, tokens, 0);
            actors.forward(embedding, &mut x)?;
            Arc::new(x)
        }
    };
    let n_layers = options.layers.unwrap_or(config.n_layers).min(config.n_layers);
    let mut layers: Vec<Arc<LayerState>> = Vec::with_capacity(n_layers);
    for layer in 0..n_layers {
        let state = match shared.and_then(|s| s.layers.get(layer)).filter(|_| layer < reached) {
            Some(state) => state.clone(),
            None => {
                let x = layers.last().map_or(&*post_emb, |l| &l.post_mlp);
                Arc::new(layer_forward(model, layer, x, None, &mut actors)?)
            }
        };
        layers.push(state);
        if !(options.after_layer)(layer) {
            return Err(RunError::Cancelled);
        }
    }
    let all_run = n_layers == config.n_layers;
    let last = layers.last().map_or(&*post_emb, |l| &l.post_mlp);
    let (final_ln, post_final_ln) = match all_run {
        true => final_norm(model, last, &mut actors)?,
        false => {
            final_norm(model, &Array::zeros(&[0, config.d_model]), &mut Actors { interventions: &[], hooks: &mut () })?
        }
    };
    let logits = Point { site: Site::Logits, layer: None };
    let mut all_logits = None;
    if all_run && actors.wants(logits, Pass::Forward) {
        let x = View::new(post_final_ln.data(), tokens.len(), config.d_model);
        let all = kernels::matmul(x, View::of(&model.weights().unembed).t(), Threads::All);
        let mut all = Array::from_vec(&[tokens.len(), config.n_vocab], all);
        actors.forward(logits, &mut all)?;
        all_logits = Some(all);
    }
    let logit_interventions = options.interventions.iter().filter(|i| i.applies(logits, Pass::Forward)).cloned();
    Ok(Forward {
        tokens: tokens.to_vec(),
        logit_interventions: logit_interventions.collect(),
        post_emb,
        layers,
        final_ln,
        post_final_ln,
        all_logits,
    })
}

/// Whether a hook wants to see anything of this layer's forward pass.
fn hooked(actors: &Actors<'_>, layer: usize) -> bool {
    let mut sites = Site::ALL.iter().filter(|site| site.has_layers());
    sites.any(|&site| actors.wants(Point { site, layer: Some(layer) }, Pass::Forward))
}

/// The layer norm before the unembedding.
pub(crate) fn final_norm(
    model: &Transformer,
    x: &Array,
    actors: &mut Actors<'_>,
) -> Result<(LayerNormState, Array), RunError> {
    layer_norm::forward(&model.weights().ln_f, Sites::last(), x, actors)
}

pub(crate) fn check_tokens(model: &Transformer, tokens: &[u32], past: usize) -> Result<(), RunError> {
    let config = model.config();
    let input = |what: String| Err(RunError::Input { what });
    if tokens.is_empty() {
        return input("the prompt has no tokens".to_owned());
    }
    if past + tokens.len() > config.ctx_window {
        let (found, limit) = (past + tokens.len(), config.ctx_window);
        return input(format!("the prompt has {found} tokens, but the model sees at most {limit}"));
    }
    match tokens.iter().find(|t| **t as usize >= config.n_vocab) {
        Some(token) => input(format!("token {token} is outside the vocabulary of {}", config.n_vocab)),
        None => Ok(()),
    }
}

/// Dimensions of a site for a prompt of `tokens` tokens; `None` if the model has no such site (an
/// autoencoder's where none is attached).
pub fn site_dims(model: &Transformer, site: Site, tokens: usize) -> Option<Vec<usize>> {
    let config = model.config();
    let (heads, width) = (config.n_heads, config.d_head);
    let mlp = model.mlp_autoencoders_any();
    let attn = model.attn_autoencoders_any();
    Some(match site {
        Site::AttnLnScale | Site::MlpLnScale | Site::FinalLnScale => vec![tokens, 1],
        Site::AttnQ | Site::AttnK | Site::AttnV | Site::AttnVOut => vec![tokens, heads, width],
        Site::AttnQkLogits | Site::AttnQkProbs => vec![tokens, tokens, heads],
        Site::AttnSoftmaxDenominator => vec![tokens, 1, heads],
        Site::MlpPreAct | Site::MlpPostAct => vec![tokens, config.d_ff],
        Site::Logits => vec![tokens, config.n_vocab],
        Site::MlpLatent => vec![tokens, mlp?.n_latents()],
        Site::MlpReconstruction | Site::MlpError => vec![tokens, mlp?.n_inputs()],
        Site::AttnLatent => vec![tokens, attn?.n_latents()],
        Site::AttnReconstruction | Site::AttnError => vec![tokens, attn?.n_inputs()],
        _ => vec![tokens, config.d_model],
    })
}

pub(crate) fn check_interventions(
    model: &Transformer,
    tokens: usize,
    interventions: &[Intervention],
) -> Result<(), RunError> {
    for intervention in interventions {
        let Some(dims) = site_dims(model, intervention.site, tokens) else {
            let what = format!("an intervention at {:?} needs an autoencoder, and none is loaded", intervention.site);
            return Err(RunError::Input { what });
        };
        if !intervention.check(&dims) {
            let (site, indices) = (intervention.site, &intervention.indices);
            let what =
                format!("indices {indices:?} of an intervention do not fit {site:?}, whose dimensions are {dims:?}");
            return Err(RunError::Input { what });
        }
    }
    Ok(())
}

/// Token plus position embedding, `[T, D]`; `past` tokens came before.
pub(crate) fn embed(model: &Transformer, tokens: &[u32], past: usize) -> Array {
    let weights = model.weights();
    let d_model = weights.config.d_model;
    let mut x = Array::zeros(&[tokens.len(), d_model]);
    let mut position = vec![0.0; d_model];
    for (t, &token) in tokens.iter().enumerate() {
        weights.tok_embed.copy_row(token as usize, x.row_mut(t));
        weights.pos_embed.copy_row(past + t, &mut position);
        kernels::axpy(x.row_mut(t), 1.0, &position);
    }
    x
}

pub(crate) fn layer_forward(
    model: &Transformer,
    layer: usize,
    x: &Array,
    past: Option<&PastKeysValues>,
    actors: &mut Actors<'_>,
) -> Result<LayerState, RunError> {
    let (config, weights) = (model.config(), &model.weights().layers[layer]);
    let at = |site| Point { site, layer: Some(layer) };
    let (attn_ln, input) = layer_norm::forward(&weights.ln_1, Sites::attention(layer), x, actors)?;
    let (attn, write) =
        attention::forward(config, weights, model.attn_autoencoder(layer), layer, &input, past, actors)?;
    let mut post_attn = sum(x, write);
    actors.forward(at(Site::ResidPostAttn), &mut post_attn)?;
    let (mlp_ln, input) = layer_norm::forward(&weights.ln_2, Sites::mlp(layer), &post_attn, actors)?;
    let (mlp, write) = mlp::forward(weights, model.mlp_autoencoder(layer), layer, &input, actors)?;
    let mut post_mlp = sum(&post_attn, write);
    actors.forward(at(Site::ResidPostMlp), &mut post_mlp)?;
    Ok(LayerState { attn_ln, attn, post_attn, mlp_ln, mlp, post_mlp })
}

fn sum(x: &Array, mut y: Array) -> Array {
    kernels::zip_into(y.data_mut(), x.data(), |y, x| y + x);
    y
}

/// Where a backward pass starts.
#[derive(Clone, Debug)]
pub enum Seed {
    /// Gradient at the logits: `[V]` at some of the tokens, zero at the others.
    Logits(BTreeMap<usize, Vec<f32>>),
    /// Gradient at the residual stream, `[T, D]`, at [`Site::ResidPostEmb`], [`Site::ResidPostAttn`] or
    /// [`Site::ResidPostMlp`]; everything later has none.
    Residual { point: Point, gradient: Array },
}

/// What a backward pass shall do besides computing.
pub struct BackwardOptions<'a> {
    /// Those of the forward pass (nothing flows to what they overwrote) and those of this one.
    pub interventions: &'a [Intervention],
    pub hooks: &'a mut dyn Hooks,
    /// The sites whose gradients shall be kept.
    pub keep: &'a [Site],
    /// Called after each layer with its index; `false` ends the run with [`RunError::Cancelled`].
    pub after_layer: &'a mut dyn FnMut(usize) -> bool,
}

/// Changes nothing, looks at nothing, keeps nothing, runs all layers to the end.
impl Default for BackwardOptions<'_> {
    fn default() -> Self {
        BackwardOptions { interventions: &[], hooks: no_hooks(), keep: &[], after_layer: go_on() }
    }
}

/// Gradients of an objective with respect to activations, at the sites that were asked for.
///
/// At the latents of an autoencoder this holds the gradient at its reconstruction; a latent's own is the
/// product with its direction ([`crate::Autoencoder::direction`]).
#[derive(Clone, Debug, Default)]
pub struct Gradients {
    by_point: BTreeMap<Point, Array>,
    /// At the logits, by token; absent rows are zero.
    pub logits: BTreeMap<usize, Vec<f32>>,
}

impl Gradients {
    /// The gradient at a point, before backward interventions there; `None` where none flowed (it is zero)
    /// or none was kept.
    pub fn get(&self, site: Site, layer: Option<usize>) -> Option<&Array> {
        self.by_point.get(&Point { site, layer })
    }
}

/// Runs back from `seed` to the embedding.
///
/// # Errors
/// If the seed stands at a layer that was not run or has another shape than its site, an intervention does not fit its site, a hook fails, or the run is cancelled.
pub fn backward(
    model: &Transformer,
    forward: &Forward,
    seed: Seed,
    options: BackwardOptions<'_>,
) -> Result<Gradients, RunError> {
    let config = model.config();
    let tokens = forward.tokens.len();
    check_interventions(model, tokens, options.interventions)?;
    check_seed(model, forward, &seed)?;
    let mut actors = Actors { interventions: options.interventions, hooks: options.hooks };
    let mut gradients = Gradients::default();
    let kept = options.keep;
    let (mut entry, mut dx) = match seed {
        Seed::Residual { point, gradient } => (Some(point), gradient),
        Seed::Logits(rows) => {
            let d_post_ln = logits_backward(model, tokens, rows, &mut actors, &mut gradients)?;
            let keep = &mut Keep { sites: kept, by_point: &mut gradients.by_point };
            let norm = &model.weights().ln_f;
            (None, layer_norm::backward(norm, Sites::last(), &forward.final_ln, d_post_ln, &mut actors, keep)?)
        }
    };
    // Until the point of entry is reached, there is nothing to propagate.
    let mut arrived = |point: Point| {
        if entry == Some(point) {
            entry = None;
        }
        entry.is_none()
    };
    for layer in (0..forward.layers.len()).rev() {
        let (weights, state) = (&model.weights().layers[layer], &forward.layers[layer]);
        let at = |site| Point { site, layer: Some(layer) };
        let keep = &mut Keep { sites: kept, by_point: &mut gradients.by_point };
        if arrived(at(Site::ResidPostMlp)) {
            keep.put(at(Site::ResidPostMlp), &dx);
            actors.backward(at(Site::ResidPostMlp), &mut dx)?;
            let autoencoder = model.mlp_autoencoder(layer);
            let dy = mlp::backward(weights, autoencoder, layer, &state.mlp, dx.clone(), &mut actors, keep)?;
            let through = layer_norm::backward(&weights.ln_2, Sites::mlp(layer), &state.mlp_ln, dy, &mut actors, keep)?;
            dx = sum(&through, dx);
        }
        if arrived(at(Site::ResidPostAttn)) {
            keep.put(at(Site::ResidPostAttn), &dx);
            actors.backward(at(Site::ResidPostAttn), &mut dx)?;
            let autoencoder = model.attn_autoencoder(layer);
            let dy =
                attention::backward(config, weights, autoencoder, layer, &state.attn, dx.clone(), &mut actors, keep)?;
            let through =
                layer_norm::backward(&weights.ln_1, Sites::attention(layer), &state.attn_ln, dy, &mut actors, keep)?;
            dx = sum(&through, dx);
        }
        if !(options.after_layer)(layer) {
            return Err(RunError::Cancelled);
        }
    }
    let embedding = Point { site: Site::ResidPostEmb, layer: None };
    if arrived(embedding) {
        Keep { sites: kept, by_point: &mut gradients.by_point }.put(embedding, &dx);
        actors.backward(embedding, &mut dx)?;
    }
    Ok(gradients)
}

fn check_seed(model: &Transformer, forward: &Forward, seed: &Seed) -> Result<(), RunError> {
    let (config, tokens, n_layers) = (model.config(), forward.tokens.len(), forward.layers.len());
    let input = |what| Err(RunError::Input { what });
    match seed {
        Seed::Logits(rows) => {
            if n_layers < config.n_layers {
                let all = config.n_layers;
                return input(format!("a gradient at the logits needs all {all} layers, but only {n_layers} were run"));
            }
            if let Some((t, row)) = rows.iter().find(|(t, row)| **t >= tokens || row.len() != config.n_vocab) {
                let (found, vocab) = (row.len(), config.n_vocab);
                return input(format!(
                    "a gradient at the logits of token {t} has length {found}; there are {tokens} tokens and {vocab} logits each"
                ));
            }
        }
        Seed::Residual { point, gradient } => {
            let exists = match (point.site, point.layer) {
                (Site::ResidPostEmb, None) => true,
                (Site::ResidPostAttn | Site::ResidPostMlp, Some(layer)) => layer < n_layers,
                _ => false,
            };
            if !exists || gradient.dims() != [tokens, config.d_model] {
                let found = gradient.dims();
                return input(format!(
                    "a gradient of shape {found:?} cannot start at {point:?} of a run of {tokens} tokens and {n_layers} layers"
                ));
            }
        }
    }
    Ok(())
}

/// The gradients that a reader of the run asked for.
pub(crate) struct Keep<'a> {
    sites: &'a [Site],
    by_point: &'a mut BTreeMap<Point, Array>,
}

impl Keep<'_> {
    pub fn wants(&self, site: Site) -> bool {
        self.sites.contains(&site)
    }

    pub fn put(&mut self, point: Point, gradient: &Array) {
        if self.wants(point.site) {
            self.by_point.insert(point, gradient.clone());
        }
    }
}

/// Gradient at the input of the unembedding, `[T, D]`.
fn logits_backward(
    model: &Transformer,
    tokens: usize,
    mut rows: BTreeMap<usize, Vec<f32>>,
    actors: &mut Actors<'_>,
    gradients: &mut Gradients,
) -> Result<Array, RunError> {
    let config = model.config();
    let point = Point { site: Site::Logits, layer: None };
    if actors.wants(point, Pass::Backward) {
        let mut all = Array::zeros(&[tokens, config.n_vocab]);
        for (t, row) in &rows {
            all.row_mut(*t).copy_from_slice(row);
        }
        gradients.logits = rows;
        actors.backward(point, &mut all)?;
        rows = (0..tokens).map(|t| (t, all.row(t).to_vec())).collect();
    } else {
        gradients.logits = rows.clone();
        for intervention in actors.interventions.iter().rev().filter(|i| i.applies(point, Pass::Backward)) {
            for t in 0..tokens {
                if intervention.indices[0] == Index::All || intervention.indices[0] == Index::At(t) {
                    let row = rows.entry(t).or_insert_with(|| vec![0.0; config.n_vocab]);
                    set_in_row(intervention, t, row, intervention.value);
                }
            }
        }
        for intervention in actors.interventions.iter().filter(|i| i.applies(point, Pass::Forward)) {
            for (t, row) in &mut rows {
                set_in_row(intervention, *t, row, 0.0);
            }
        }
    }
    let mut out = Array::zeros(&[tokens, config.d_model]);
    for (t, row) in &rows {
        out.row_mut(*t).copy_from_slice(&unembed_backward(model, row));
    }
    Ok(out)
}

/// `W_Uᵀ g` for one row `g: [V]` of gradients at the logits, `[D]`.
pub fn unembed_backward(model: &Transformer, gradient: &[f32]) -> Vec<f32> {
    let weight = &model.weights().unembed;
    let nonzero: Vec<_> = gradient.iter().enumerate().filter(|(_, g)| **g != 0.0).collect();
    if nonzero.len() * 8 > gradient.len() {
        return kernels::matmul(View::new(gradient, 1, gradient.len()), View::of(weight), Threads::All);
    }
    let mut out = vec![0.0; weight.cols()];
    for (token, gradient) in nonzero {
        kernels::axpy(&mut out, *gradient, &weight.row(token));
    }
    out
}
