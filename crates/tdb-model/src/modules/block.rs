//! One block: a norm and attention, a norm and an MLP, and how they read and write the residual stream.

use candle_core::Tensor;

use crate::config::{BlockOrder, Config, MlpKind, NormKind};
use crate::error::Error;
use crate::fault::{self, Fault};
use crate::modules::Place;
use crate::modules::attention::{Attention, AttentionState, LastRows, Part, PastKeysValues};
use crate::modules::autoencoder::{Autoencoder, LatentGradients, LatentState};
use crate::modules::mlp::{Mlp, MlpState};
use crate::modules::norm::{Norm, NormState, Sites};
use crate::ops::Ops;
use crate::site::{Point, Site};
use crate::slot::Slot;
use crate::source::Weights;
use crate::tap::Tap;
use crate::weights::AutoencoderSite;

/// The parts of one block.
#[derive(Clone, Debug)]
pub struct Block {
    /// Norm before attention.
    pub attn_norm: Norm,
    /// Attention.
    pub attn: Attention,
    /// Norm of what attention writes, where the family has one.
    attn_post_norm: Option<Norm>,
    /// Norm before the MLP.
    pub mlp_norm: Norm,
    /// `None` if the model has no MLP layers.
    mlp: Option<Mlp>,
    mlp_post_norm: Option<Norm>,
    order: BlockOrder,
    layer: usize,
    ops: Ops,
}

/// The dictionaries that act within one block. Those on the residual stream come with the layer that they are named
/// after: one before a layer acts at the end of the block before that.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Autoencoders<'a> {
    pub mlp: Option<&'a Autoencoder>,
    pub attention: Option<&'a Autoencoder>,
    pub middle: Option<(usize, &'a Autoencoder)>,
    pub end: Option<(usize, &'a Autoencoder)>,
}

/// The activations of one layer.
#[derive(Clone, Debug)]
pub struct LayerState {
    pub(crate) attn_norm: NormState,
    pub(crate) attn_in: Tensor,
    pub(crate) attn: AttentionState,
    /// Attention's output before its norm, where it has one.
    attn_unnormed: Option<Tensor>,
    pub(crate) attn_latents: Option<LatentState>,
    pub(crate) middle_latents: Option<LatentState>,
    /// `[T, D]`
    pub(crate) post_attn: Tensor,
    pub(crate) mlp_norm: NormState,
    pub(crate) mlp_in: Tensor,
    pub(crate) mlp: Option<MlpState>,
    mlp_unnormed: Option<Tensor>,
    pub(crate) mlp_latents: Option<LatentState>,
    pub(crate) end_latents: Option<LatentState>,
    /// `[T, D]`
    pub(crate) post_mlp: Tensor,
}

/// What follows the attention layer within a block.
struct AfterAttention {
    attn_delta: Tensor,
    /// Of a dictionary on the layer's output.
    attn_latents: Option<LatentState>,
    middle_latents: Option<LatentState>,
    post_attn: Tensor,
    mlp_norm: NormState,
    mlp_in: Tensor,
    mlp: Option<MlpState>,
    mlp_unnormed: Option<Tensor>,
    mlp_latents: Option<LatentState>,
    end_latents: Option<LatentState>,
    post_mlp: Tensor,
}

impl Block {
    pub(crate) fn load(weights: &Weights, layer: usize, config: &Config, place: &Place) -> Result<Self, Error> {
        let name = |part: &str| format!("blocks.{layer}.{part}");
        let norm = |part: &str| Norm::load(weights, &name(part), config.d_model, config, place);
        // Without a mean taken away, what parts of a layer write adds up behind the norm, too.
        let kind = if config.norm == NormKind::RmsOnePlus { config.norm } else { NormKind::Rms };
        let post_norm = |part: &str| match config.post_norms {
            true => Norm::load_kind(weights, &name(part), config.d_model, kind, config.norm_epsilon, place).map(Some),
            false => Ok(None),
        };
        let (attn_post_norm, mlp_post_norm) = (post_norm("attn_post_norm")?, post_norm("mlp_post_norm")?);
        let gain = |norm: &Option<Norm>| norm.as_ref().and_then(Norm::gain_vector).cloned();
        Ok(Block {
            attn_norm: norm("attn_norm")?,
            attn: Attention::load(weights, &name("attn"), layer, config, gain(&attn_post_norm), place)?,
            mlp_norm: match config.mlp {
                // Nothing reads what it would give.
                MlpKind::None => Norm::load_kind(weights, "", config.d_model, NormKind::None, 0.0, place)?,
                _ => norm("mlp_norm")?,
            },
            mlp: Mlp::load(weights, &name("mlp"), config, gain(&mlp_post_norm), place)?,
            attn_post_norm,
            mlp_post_norm,
            order: config.block,
            layer,
            ops: place.ops,
        })
    }

    /// The MLP layer.
    ///
    /// # Panics
    /// If the model has no MLP layers ([`crate::config::MlpKind::None`]).
    pub fn mlp(&self) -> &Mlp {
        self.mlp.as_ref().expect("a model with MLP layers")
    }

    /// Whether there is an MLP layer.
    pub fn has_mlp(&self) -> bool {
        self.mlp.is_some()
    }

    fn post_norm_of(&self, slot: Slot) -> Option<&Norm> {
        match slot {
            Slot::Attention => self.attn_post_norm.as_ref(),
            Slot::Mlp => self.mlp_post_norm.as_ref(),
            Slot::Residual => None,
        }
    }

    /// What the output projection of a layer gives, `[N, D]`, as it is added to the residual stream: through the norm
    /// after the layer, where there is one.
    ///
    /// # Errors
    /// If an operation fails.
    pub fn post_norm(&self, slot: Slot, x: &Tensor) -> Result<Tensor, Error> {
        self.post_norm_of(slot).map_or_else(|| Ok(x.clone()), |norm| Ok(norm.apply(x)?))
    }

    /// Gradient at the result of [`Block::post_norm`] to the one at `x`.
    ///
    /// # Errors
    /// If an operation fails.
    pub fn post_norm_vjp(&self, slot: Slot, x: &Tensor, dy: &Tensor) -> Result<Tensor, Error> {
        self.post_norm_of(slot).map_or_else(|| Ok(dy.clone()), |norm| Ok(norm.vjp(x, dy, false)?))
    }

    /// Derivative of [`Block::post_norm`] at `x` along `dx`.
    ///
    /// # Errors
    /// If an operation fails.
    pub fn post_norm_jvp(&self, slot: Slot, x: &Tensor, dx: &Tensor) -> Result<Tensor, Error> {
        self.post_norm_of(slot).map_or_else(|| Ok(dx.clone()), |norm| Ok(norm.jvp(x, dx, false)?))
    }

    /// What the norm after a layer divided its output by, `[T, 1]`; `None` if there is none.
    pub(crate) fn write_scale(&self, slot: Slot, state: &LayerState) -> Result<Option<Tensor>, Error> {
        let output = match slot {
            Slot::Attention => &state.attn_unnormed,
            Slot::Mlp => &state.mlp_unnormed,
            Slot::Residual => return Ok(None),
        };
        Ok(self.post_norm_of(slot).zip(output.as_ref()).map(|(norm, output)| norm.scale(output)).transpose()?)
    }

    fn at(&self, site: Site) -> Point {
        Point { site, layer: Some(self.layer) }
    }

    /// `x: [T, D]`, the residual stream before the block.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        past: Option<&PastKeysValues>,
        autoencoders: Autoencoders<'_>,
        tap: &mut Tap<'_>,
    ) -> Result<LayerState, Error> {
        let (attn_norm, attn_in) = self.attn_norm.forward(Sites::attention(self.layer), x, tap)?;
        let on_heads = autoencoders.attention.filter(|a| a.site() == AutoencoderSite::AttnVOut);
        let (mut attn, heads_latents) = self.attn.forward(&attn_in, past, on_heads, tap)?;
        let attn_unnormed = self.attn_post_norm.as_ref().map(|_| attn.delta.clone());
        let rest = self.after_attention(x, &attn.delta, autoencoders, tap)?;
        let AfterAttention { attn_delta, attn_latents: output_latents, post_attn, mlp_norm, mlp_in, .. } = rest;
        attn.delta = attn_delta;
        Ok(LayerState {
            attn_norm,
            attn_in,
            attn,
            attn_unnormed,
            attn_latents: heads_latents.or(output_latents),
            middle_latents: rest.middle_latents,
            post_attn,
            mlp_norm,
            mlp_in,
            mlp: rest.mlp,
            mlp_unnormed: rest.mlp_unnormed,
            mlp_latents: rest.mlp_latents,
            end_latents: rest.end_latents,
            post_mlp: rest.post_mlp,
        })
    }

    /// The residual stream after the block for the rows of several runs, `x: [N, D]` to `[N, D]`.
    pub(crate) fn forward_together(
        &self,
        x: &Tensor,
        parts: &[Part],
        last: Option<&LastRows>,
        autoencoders: Autoencoders<'_>,
        tap: &mut Tap<'_>,
    ) -> Result<Tensor, Error> {
        let (_, attn_in) = self.attn_norm.forward(Sites::attention(self.layer), x, tap)?;
        let on_heads = autoencoders.attention.filter(|a| a.site() == AutoencoderSite::AttnVOut);
        let delta = self.attn.forward_together(&attn_in, parts, last, on_heads, tap)?;
        Ok(match last {
            Some(last) => {
                let mut tap = last.tap();
                self.after_attention(&x.index_select(&last.at, 0)?, &delta, autoencoders, &mut tap)?.post_mlp
            }
            None => self.after_attention(x, &delta, autoencoders, tap)?.post_mlp,
        })
    }

    /// `delta: [T, D]` is the attention layer's output before its norm, if it has one.
    fn after_attention(
        &self,
        x: &Tensor,
        delta: &Tensor,
        autoencoders: Autoencoders<'_>,
        tap: &mut Tap<'_>,
    ) -> Result<AfterAttention, Error> {
        let delta = match &self.attn_post_norm {
            Some(norm) => norm.apply(delta)?,
            None => delta.clone(),
        };
        let attn_delta = tap.forward(self.at(Site::ResidDeltaAttn), delta)?;
        let on_output = autoencoders.attention.filter(|a| a.site() == AutoencoderSite::ResidDeltaAttn);
        let (attn_latents, write) = encoded(on_output, self.layer, &attn_delta, tap)?;
        let (middle_latents, post_attn) = on_stream(autoencoders.middle, self.ops.add(&write, x)?, tap)?;
        let post_attn = tap.forward(self.at(Site::ResidPostAttn), post_attn)?;

        let read = match self.order {
            BlockOrder::Sequential => &post_attn,
            BlockOrder::Parallel => x,
        };
        let (mlp_norm, mlp_in) = self.mlp_norm.forward(Sites::mlp(self.layer), read, tap)?;
        let (mlp, mlp_unnormed, mlp_latents, post_mlp) = match &self.mlp {
            Some(layer) => {
                let (mlp, unnormed, latents, write) = self.forward_mlp(layer, &mlp_in, autoencoders.mlp, tap)?;
                let write = if fault::is(Fault::DoubledWrite) { (&write + &write)? } else { write };
                (Some(mlp), unnormed, latents, self.ops.add(&write, &post_attn)?)
            }
            None => (None, None, None, post_attn.clone()),
        };
        let (end_latents, post_mlp) = on_stream(autoencoders.end, post_mlp, tap)?;
        let post_mlp = tap.forward(self.at(Site::ResidPostMlp), post_mlp)?;
        Ok(AfterAttention {
            attn_delta,
            attn_latents,
            middle_latents,
            post_attn,
            mlp_norm,
            mlp_in,
            mlp,
            mlp_unnormed,
            mlp_latents,
            end_latents,
            post_mlp,
        })
    }

    fn forward_mlp(
        &self,
        layer: &Mlp,
        input: &Tensor,
        autoencoder: Option<&Autoencoder>,
        tap: &mut Tap<'_>,
    ) -> Result<(MlpState, Option<Tensor>, Option<LatentState>, Tensor), Error> {
        let on = |site| autoencoder.filter(|a| a.site() == site);
        let (on_input, read) = encoded(on(AutoencoderSite::MlpIn), self.layer, input, tap)?;
        let (pre_act, up) = layer.read(&read)?;
        let pre_act = tap.forward(self.at(Site::MlpPreAct), pre_act)?;
        let up = up.map(|up| tap.forward(self.at(Site::MlpUp), up)).transpose()?;
        let post_act = tap.forward(self.at(Site::MlpPostAct), layer.activate(&pre_act, up.as_ref())?)?;
        let (on_neurons, neurons) = encoded(on(AutoencoderSite::MlpPostAct), self.layer, &post_act, tap)?;
        let mut delta = layer.output(&neurons)?;
        let unnormed = self.mlp_post_norm.as_ref().map(|_| delta.clone());
        if let Some(norm) = &self.mlp_post_norm {
            delta = norm.apply(&delta)?;
        }
        let delta = tap.forward(self.at(Site::ResidDeltaMlp), delta)?;
        let (on_output, write) = match autoencoder.filter(|a| a.site().is_transcoder()) {
            Some(transcoder) => {
                let (state, write) = transcoder.forward(self.layer, input, &delta, tap)?;
                (Some(state), write)
            }
            None => encoded(on(AutoencoderSite::ResidDeltaMlp), self.layer, &delta, tap)?,
        };
        let latents = on_input.or(on_neurons).or(on_output);
        Ok((MlpState { pre_act, up, post_act, delta }, unnormed, latents, write))
    }

    /// Gradient at the residual stream after the block, `[T, D]`, to the gradient before it. `arrived` tells for
    /// [`Site::ResidPostMlp`], [`Site::ResidPostAttn`] and [`Site::ResidLatentInput`] whether the backward pass has
    /// reached that point; until then there is nothing to propagate.
    pub(crate) fn backward(
        &self,
        state: &LayerState,
        dx: Tensor,
        autoencoders: Autoencoders<'_>,
        arrived: &mut dyn FnMut(Point) -> bool,
        tap: &mut Tap<'_>,
    ) -> Result<Tensor, Error> {
        let mut dx = dx;
        // What flows from the MLP to the residual stream that it reads.
        let mut through_mlp = None;
        if arrived(self.at(Site::ResidPostMlp)) {
            dx = tap.backward(self.at(Site::ResidPostMlp), dx)?;
            dx = off_stream(autoencoders.end, state.end_latents.as_ref(), dx, tap)?;
        }
        if arrived(input_of(autoencoders.end).unwrap_or(self.at(Site::ResidPostMlp))) {
            if let Some(point) = input_of(autoencoders.end) {
                dx = tap.backward(point, dx)?;
            }
            if let (Some(layer), Some(mlp)) = (&self.mlp, &state.mlp) {
                let d_input = self.backward_mlp(layer, mlp, state, dx.clone(), autoencoders.mlp, tap)?;
                through_mlp = Some(self.mlp_norm.backward(Sites::mlp(self.layer), &state.mlp_norm, d_input, tap)?);
            }
        }
        if self.order == BlockOrder::Sequential
            && let Some(through) = through_mlp.take()
        {
            dx = self.ops.add(&through, &dx)?;
        }
        if arrived(self.at(Site::ResidPostAttn)) {
            dx = tap.backward(self.at(Site::ResidPostAttn), dx)?;
            dx = off_stream(autoencoders.middle, state.middle_latents.as_ref(), dx, tap)?;
        }
        if arrived(input_of(autoencoders.middle).unwrap_or(self.at(Site::ResidPostAttn))) {
            if let Some(point) = input_of(autoencoders.middle) {
                dx = tap.backward(point, dx)?;
            }
            let d_input = self.backward_attention(state, dx.clone(), autoencoders.attention, tap)?;
            let through = self.attn_norm.backward(Sites::attention(self.layer), &state.attn_norm, d_input, tap)?;
            dx = self.ops.add(&through, &dx)?;
        }
        match through_mlp {
            Some(through) => Ok(self.ops.add(&through, &dx)?),
            None => Ok(dx),
        }
    }

    fn backward_mlp(
        &self,
        layer: &Mlp,
        mlp: &MlpState,
        state: &LayerState,
        dy: Tensor,
        autoencoder: Option<&Autoencoder>,
        tap: &mut Tap<'_>,
    ) -> Result<Tensor, Error> {
        let on = |site| autoencoder.filter(|a| a.site() == site).zip(state.mlp_latents.as_ref());
        let transcoder = autoencoder.filter(|a| a.site().is_transcoder()).zip(state.mlp_latents.as_ref());
        let (dy, d_input) = match transcoder {
            Some((transcoder, latents)) => {
                let LatentGradients { target, input } = transcoder.backward(self.layer, latents, dy, tap)?;
                (target, input)
            }
            None => (decoded(on(AutoencoderSite::ResidDeltaMlp), self.layer, dy, tap)?, None),
        };
        let dy = tap.backward(self.at(Site::ResidDeltaMlp), dy)?;
        let dy = through_post_norm(self.mlp_post_norm.as_ref(), state.mlp_unnormed.as_ref(), dy)?;
        let d_neurons = layer.output_vjp(&dy)?;
        let d_neurons = decoded(on(AutoencoderSite::MlpPostAct), self.layer, d_neurons, tap)?;
        let d_post_act = tap.backward(self.at(Site::MlpPostAct), d_neurons)?;
        let (d_pre_act, d_up) = layer.activation_vjp(mlp, &d_post_act)?;
        let d_up = d_up.map(|d_up| tap.backward(self.at(Site::MlpUp), d_up)).transpose()?;
        let d_pre_act = tap.backward(self.at(Site::MlpPreAct), d_pre_act)?;
        let dx = layer.read_vjp(&d_pre_act, d_up.as_ref())?;
        let dx = decoded(on(AutoencoderSite::MlpIn), self.layer, dx, tap)?;
        match d_input {
            Some(d_input) => Ok(self.ops.add(&d_input, &dx)?),
            None => Ok(dx),
        }
    }

    fn backward_attention(
        &self,
        state: &LayerState,
        dy: Tensor,
        autoencoder: Option<&Autoencoder>,
        tap: &mut Tap<'_>,
    ) -> Result<Tensor, Error> {
        let on = |site| autoencoder.filter(|a| a.site() == site).zip(state.attn_latents.as_ref());
        let dy = decoded(on(AutoencoderSite::ResidDeltaAttn), self.layer, dy, tap)?;
        let dy = tap.backward(self.at(Site::ResidDeltaAttn), dy)?;
        let dy = through_post_norm(self.attn_post_norm.as_ref(), state.attn_unnormed.as_ref(), dy)?;
        self.attn.backward(&state.attn, &dy, on(AutoencoderSite::AttnVOut), tap)
    }
}

/// An activation through its autoencoder, if there is one: its state, and what goes on.
pub(super) fn encoded(
    autoencoder: Option<&Autoencoder>,
    layer: usize,
    x: &Tensor,
    tap: &mut Tap<'_>,
) -> Result<(Option<LatentState>, Tensor), Error> {
    match autoencoder {
        Some(autoencoder) => autoencoder.forward(layer, x, x, tap).map(|(state, out)| (Some(state), out)),
        None => Ok((None, x.clone())),
    }
}

/// The reverse of [`encoded`].
pub(super) fn decoded(
    autoencoder: Option<(&Autoencoder, &LatentState)>,
    layer: usize,
    dy: Tensor,
    tap: &mut Tap<'_>,
) -> Result<Tensor, Error> {
    match autoencoder {
        Some((autoencoder, state)) => Ok(autoencoder.backward(layer, state, dy, tap)?.target),
        None => Ok(dy),
    }
}

/// Where a dictionary on the residual stream reads it.
pub(crate) fn input_of(dictionary: Option<(usize, &Autoencoder)>) -> Option<Point> {
    dictionary.map(|(layer, _)| Point { site: Site::ResidLatentInput, layer: Some(layer) })
}

/// The residual stream through the dictionary that stands there, if there is one.
pub(crate) fn on_stream(
    dictionary: Option<(usize, &Autoencoder)>,
    mut x: Tensor,
    tap: &mut Tap<'_>,
) -> Result<(Option<LatentState>, Tensor), Error> {
    if let Some(point) = input_of(dictionary) {
        x = tap.forward(point, x)?;
    }
    encoded(dictionary.map(|(_, found)| found), dictionary.map_or(0, |(layer, _)| layer), &x, tap)
}

/// The reverse of [`on_stream`], up to the point where the dictionary reads.
pub(crate) fn off_stream(
    dictionary: Option<(usize, &Autoencoder)>,
    state: Option<&LatentState>,
    dx: Tensor,
    tap: &mut Tap<'_>,
) -> Result<Tensor, Error> {
    match dictionary.zip(state) {
        Some(((layer, found), state)) => decoded(Some((found, state)), layer, dx, tap),
        None => Ok(dx),
    }
}

fn through_post_norm(norm: Option<&Norm>, unnormed: Option<&Tensor>, dy: Tensor) -> Result<Tensor, Error> {
    match (norm, unnormed) {
        (Some(norm), Some(unnormed)) => Ok(norm.vjp(unnormed, &dy, false)?),
        _ => Ok(dy),
    }
}
