//! A transformer, with or without autoencoders in its layers.

use std::sync::Arc;

use candle_core::{Device, DeviceLocation, Tensor};

use crate::config::{Config, MlpKind};
use crate::error::{Error, Result};
use crate::matrix::Matrix;
use crate::modules::Place;
use crate::modules::autoencoder::Autoencoder;
use crate::modules::block::{Autoencoders, Block};
use crate::modules::embedding::Embedding;
use crate::modules::norm::Norm;
use crate::modules::unembedding::Unembedding;
use crate::ops::Ops;
use crate::ops::rows::dot;
use crate::parallel;
use crate::site::Site;
use crate::slot::Slot;
use crate::source::Weights;
use crate::weights::{AutoencoderSite, AutoencoderWeights, NamedAutoencoder, Normalization};

/// The modules of a model and, per layer, at most one autoencoder in each [`Slot`]. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Transformer {
    inner: Arc<Inner>,
    /// By slot and layer.
    autoencoders: [Arc<[Option<Autoencoder>]>; 3],
}

#[derive(Debug)]
struct Inner {
    config: Config,
    weights: Weights,
    embedding: Embedding,
    blocks: Vec<Block>,
    final_norm: Norm,
    unembedding: Unembedding,
    place: Place,
}

impl Transformer {
    /// A model on the CPU. On it weights stay where they lie.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape than the configuration says.
    pub fn load(config: Config, weights: impl Into<Weights>) -> Result<Self> {
        Self::load_on(config, weights, &Device::Cpu)
    }

    /// A model on a device.
    ///
    /// # Errors
    /// As [`Transformer::load`].
    pub fn load_on(config: Config, weights: impl Into<Weights>, device: &Device) -> Result<Self> {
        let ops = Ops::for_device(device).map_err(Error::input)?;
        Self::load_with(config, weights, Place { device: device.clone(), ops })
    }

    /// As [`Transformer::load_on`], with every operation as the composition of candle's own that defines it, also on the
    /// CPU: what runs on other devices.
    ///
    /// # Errors
    /// As [`Transformer::load`].
    pub fn load_plain(config: Config, weights: impl Into<Weights>, device: &Device) -> Result<Self> {
        Self::load_with(config, weights, Place { device: device.clone(), ops: Ops::Plain })
    }

    fn load_with(config: Config, weights: impl Into<Weights>, place: Place) -> Result<Self> {
        let weights = weights.into();
        // Side by side: reading a matrix for the first time waits for the file. The first fault in order is told.
        let blocks = parallel::try_map(config.n_layers, |layer| Block::load(&weights, layer, &config, &place))?;
        let none: Arc<[Option<Autoencoder>]> = vec![None; config.n_layers].into();
        let embedding = Embedding::load(&weights, &config, &place)?;
        Ok(Transformer {
            inner: Arc::new(Inner {
                final_norm: Norm::load(&weights, "final_norm", config.d_model, &config, &place)?,
                unembedding: Unembedding::load(&weights, &embedding, &config, &place)?,
                embedding,
                blocks,
                config,
                weights,
                place,
            }),
            autoencoders: [none.clone(), none.clone(), none],
        })
    }

    /// Sizes and settings.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// Where the model runs.
    pub fn device(&self) -> &Device {
        &self.inner.place.device
    }

    /// Where the model runs, by kind and number: `cpu`, `cuda:0`, `metal:0`.
    pub fn device_name(&self) -> String {
        match self.device().location() {
            DeviceLocation::Cpu => "cpu".to_owned(),
            DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
            DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
        }
    }

    /// Which form of the operations runs.
    pub(crate) fn ops(&self) -> Ops {
        self.inner.place.ops
    }

    /// A tensor of the model under this library's name ([`crate::source`]), as a copy on the model's device.
    ///
    /// # Errors
    /// If there is none of this name.
    pub fn weight(&self, name: &str) -> Result<Tensor> {
        let weights = &self.inner.weights;
        let host = match *weights.shape(name)?.as_slice() {
            [rows, cols] => weights.matrix(name, [rows, cols])?.to_tensor()?,
            [len] => crate::numbers::tensor(&[len], weights.vector(name, len)?),
            ref shape => return Err(Error::input(format!("{name} has {} dimensions, expected 1 or 2", shape.len()))),
        };
        Ok(host.to_device(self.device())?)
    }

    /// A row-major tensor on the model's device.
    ///
    /// # Errors
    /// If the device fails, or the length of `data` is not the product of `dims`.
    pub fn tensor(&self, dims: &[usize], data: Vec<f32>) -> Result<Tensor> {
        Ok(Tensor::from_vec(data, dims, self.device())?)
    }

    /// Tokens to the residual stream.
    pub fn embedding(&self) -> &Embedding {
        &self.inner.embedding
    }

    /// The parts of one layer.
    pub fn block(&self, layer: usize) -> &Block {
        &self.inner.blocks[layer]
    }

    /// The norm before the unembedding.
    pub fn final_norm(&self) -> &Norm {
        &self.inner.final_norm
    }

    /// The residual stream to logits.
    pub fn unembedding(&self) -> &Unembedding {
        &self.inner.unembedding
    }

    /// The same model with dictionaries in some of its layers, in the slot that their site says.
    ///
    /// # Errors
    /// If there already are some in that slot, the model lacks a layer, or widths or numbers of latents do not fit.
    pub fn attach(self, autoencoders: NamedAutoencoder) -> Result<Self> {
        let NamedAutoencoder { site, layers, indices, name } = autoencoders;
        let (slot, n_layers) = (Slot::of(site), self.config().n_layers);
        let mut attached: Vec<Option<Autoencoder>> = vec![None; n_layers];
        if self.has(slot) {
            let what = format!("{name} stands at {}, where another dictionary is loaded already", site.name());
            return Err(Error::Autoencoder { what });
        }
        for (index, weights) in indices.into_iter().zip(layers) {
            let Some(place) = attached.get_mut(index) else {
                let what = format!("{name} has a dictionary for layer {index}, but the model has layers 0..{n_layers}");
                return Err(Error::Autoencoder { what });
            };
            let (site, weights) = self.with_the_norms_gain(site, index, weights)?;
            *place = Some(Autoencoder::on(site, weights, self.inner.place.clone())?);
        }
        self.attach_layers(slot, attached)
    }

    /// A transcoder that reads the MLP's input before its norm's gain and bias, as one that reads it after them:
    /// `W n = W (y - bias) / gain` with `y = n gain + bias`.
    fn with_the_norms_gain(
        &self,
        site: AutoencoderSite,
        layer: usize,
        mut weights: AutoencoderWeights,
    ) -> Result<(AutoencoderSite, AutoencoderWeights)> {
        if site != AutoencoderSite::MlpTranscoderOfNormalized {
            return Ok((site, weights));
        }
        let refused =
            |what: String| Err(Error::Autoencoder { what: format!("the transcoder of layer {layer} {what}") });
        if weights.normalization != Normalization::None || weights.skip.is_some() {
            return refused(
                "reads normalised inputs, and normalises or skips them besides, which is not computed".into(),
            );
        }
        let norm = &self.block(layer).mlp_norm;
        let Some(gain) = norm.gain() else { return Ok((AutoencoderSite::MlpTranscoder, weights)) };
        if gain.len() != weights.encoder.cols() {
            let (found, expected) = (weights.encoder.cols(), gain.len());
            return refused(format!(
                "has inputs of width {found}, but the MLP's input is {expected} wide in this model"
            ));
        }
        if let Some(at) = gain.iter().position(|gain| gain.abs() < 1e-8) {
            return refused(format!("cannot read channel {at} of the MLP's input, which the norm multiplies with 0"));
        }
        let (n_latents, width) = (weights.encoder.rows(), weights.encoder.cols());
        let mut encoder = weights.encoder.to_vec();
        for (row, latent_bias) in encoder.chunks_exact_mut(width).zip(&mut weights.latent_bias) {
            row.iter_mut().zip(gain).for_each(|(x, gain)| *x /= gain);
            if let Some(bias) = norm.bias() {
                *latent_bias -= dot(row, bias);
            }
        }
        weights.encoder_pre_bias.iter_mut().zip(gain).for_each(|(bias, gain)| *bias *= gain);
        weights.encoder = Matrix::from_vec(n_latents, width, encoder);
        Ok((AutoencoderSite::MlpTranscoder, weights))
    }

    /// The same model with these dictionaries in a slot, one entry per layer.
    ///
    /// # Errors
    /// As [`Transformer::attach`]; also if one reads an activation of another slot.
    pub fn attach_layers(mut self, slot: Slot, autoencoders: Vec<Option<Autoencoder>>) -> Result<Self> {
        self.check(slot, &autoencoders)?;
        self.autoencoders[slot.index()] = autoencoders.into();
        Ok(self)
    }

    fn check(&self, slot: Slot, autoencoders: &[Option<Autoencoder>]) -> Result<()> {
        let config = self.config();
        let refused = |what: String| Err(Error::Autoencoder { what });
        if autoencoders.len() != config.n_layers {
            let found = autoencoders.len();
            return refused(format!(
                "{found} layers of autoencoders were given for a model of {} layers",
                config.n_layers
            ));
        }
        if slot == Slot::Mlp && config.mlp == MlpKind::None && autoencoders.iter().any(Option::is_some) {
            return refused("the model has no MLP layers, which the dictionary reads".to_owned());
        }
        let mut found_before = None;
        for (layer, autoencoder) in autoencoders.iter().enumerate() {
            let Some(autoencoder) = autoencoder else { continue };
            let site = autoencoder.site();
            if Slot::of(site) != slot {
                let kind = match slot {
                    Slot::Mlp => "MLP",
                    Slot::Attention => "attention layer",
                    Slot::Residual => "residual stream",
                };
                return refused(format!(
                    "the autoencoder of layer {layer} reads {site:?}, which is not a site of the {kind}"
                ));
            }
            let (expected, found) = (site.width(config), autoencoder.n_inputs());
            if found != expected {
                return refused(format!(
                    "the autoencoder of layer {layer} has inputs of width {found}, but {site:?} is {expected} wide in this model"
                ));
            }
            let (expected, found) = (site.output_width(config), autoencoder.n_outputs());
            if found != expected {
                return refused(format!(
                    "the transcoder of layer {layer} has outputs of width {found}, but what the MLP writes is {expected} wide in this model"
                ));
            }
            let found = (autoencoder.n_latents(), site);
            let expected = *found_before.get_or_insert(found);
            if found.0 != expected.0 {
                return refused(format!(
                    "the autoencoder of layer {layer} has {} latents, that of another layer {}",
                    found.0, expected.0
                ));
            }
            if found.1 != expected.1 {
                return refused(format!(
                    "the autoencoder of layer {layer} stands at {}, that of another layer at {}",
                    site.name(),
                    expected.1.name()
                ));
            }
        }
        Ok(())
    }

    /// The autoencoder of one layer.
    pub fn autoencoder(&self, slot: Slot, layer: usize) -> Option<&Autoencoder> {
        self.autoencoders[slot.index()][layer].as_ref()
    }

    /// One of the autoencoders in a slot, all of which have the same shape.
    pub fn any_autoencoder(&self, slot: Slot) -> Option<&Autoencoder> {
        self.autoencoders[slot.index()].iter().flatten().next()
    }

    /// Whether there are autoencoders in a slot.
    pub fn has(&self, slot: Slot) -> bool {
        self.any_autoencoder(slot).is_some()
    }

    /// Which activation the MLP autoencoders read, if there are any.
    pub fn mlp_autoencoder_site(&self) -> Option<AutoencoderSite> {
        self.any_autoencoder(Slot::Mlp).map(Autoencoder::site)
    }

    /// The layers that have a dictionary in a slot, ascending.
    pub fn layers_with(&self, slot: Slot) -> impl Iterator<Item = usize> {
        self.autoencoders[slot.index()].iter().enumerate().filter(|(_, found)| found.is_some()).map(|(layer, _)| layer)
    }

    pub(crate) fn autoencoders(&self, layer: usize) -> Autoencoders<'_> {
        let stream = |site, layer: usize| {
            let found = self.autoencoders[Slot::Residual.index()].get(layer)?.as_ref();
            found.filter(|found| found.site() == site).map(|found| (layer, found))
        };
        Autoencoders {
            mlp: self.autoencoder(Slot::Mlp, layer),
            attention: self.autoencoder(Slot::Attention, layer),
            middle: stream(AutoencoderSite::ResidPostAttn, layer),
            // What stands before the next layer stands after this one.
            end: stream(AutoencoderSite::ResidPostMlp, layer).or_else(|| stream(AutoencoderSite::ResidPre, layer + 1)),
        }
    }

    /// The dictionary before the first layer.
    pub(crate) fn on_embedding(&self) -> Option<(usize, &Autoencoder)> {
        let found = self.autoencoder(Slot::Residual, 0).filter(|found| found.site() == AutoencoderSite::ResidPre);
        found.map(|found| (0, found))
    }

    /// Dimensions of a site for a prompt of `tokens` tokens; `None` if the model has no such site (an
    /// autoencoder's where none is attached, [`Site::MlpUp`] where the MLP is not gated).
    pub fn site_dims(&self, site: Site, tokens: usize) -> Option<Vec<usize>> {
        let config = self.config();
        let (heads, groups, width) = (config.n_heads, config.n_kv_heads, config.d_head);
        let has_mlp = config.mlp != MlpKind::None;
        if let Some(slot) = Slot::at(site) {
            let autoencoder = self.any_autoencoder(slot)?;
            let is_latent = site == slot.latent();
            return Some(vec![tokens, if is_latent { autoencoder.n_latents() } else { autoencoder.n_outputs() }]);
        }
        if site == Site::ResidLatentInput && !self.has(Slot::Residual) {
            return None;
        }
        Some(match site {
            Site::MlpLnScale if !has_mlp => return None,
            Site::AttnLnScale | Site::MlpLnScale | Site::FinalLnScale => vec![tokens, 1],
            Site::AttnQ | Site::AttnVOut => vec![tokens, heads, width],
            Site::AttnK | Site::AttnV => vec![tokens, groups, width],
            Site::AttnQkLogits | Site::AttnQkProbs => vec![tokens, tokens, heads],
            Site::AttnSoftmaxDenominator => vec![tokens, 1, heads],
            Site::MlpPreAct | Site::MlpPostAct if has_mlp => vec![tokens, config.d_ff],
            Site::MlpUp if matches!(config.mlp, MlpKind::Gated(_)) => vec![tokens, config.d_ff],
            Site::MlpPreAct | Site::MlpPostAct | Site::MlpUp => return None,
            Site::MlpLnCentered | Site::MlpLnNormalized | Site::MlpIn | Site::ResidDeltaMlp if !has_mlp => return None,
            Site::Logits => vec![tokens, config.n_vocab],
            _ => vec![tokens, config.d_model],
        })
    }
}
