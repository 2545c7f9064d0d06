use serde::{Deserialize, Serialize};
use tdb_model::{AutoencoderSite, Config};

use super::learner::{Kind, Shape};
use crate::error::{Error, Result};

/// What keeps most latents at zero.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Sparsity {
    /// ReLU, and a penalty of `l1` times the sum of the latents (activations scaled to a mean square of 1).
    Relu { l1: f32 },
    /// The `k` largest latents of each token.
    TopK { k: usize },
}

/// How the autoencoders of one site are trained. What they become depends on these, the model and the text alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SaeRecipe {
    pub seed: u64,
    pub site: AutoencoderSite,
    /// Whether a transcoder has a skip connection: a matrix from its input to its output beside the latents.
    #[serde(default)]
    pub skip: bool,
    /// Latents of each layer.
    pub latents: usize,
    pub sparsity: Sparsity,
    /// Tokens to train on; the text is read again from its beginning where it has fewer.
    pub tokens: usize,
    /// Tokens of one step.
    pub batch: usize,
    /// Tokens whose activations are held, and mixed, at a time.
    pub buffer: usize,
    /// Highest learning rate.
    pub rate: f32,
    /// [`SaeStart::fingerprint`](super::SaeStart::fingerprint) of the dictionaries that the training goes on from; `None`
    /// if it begins anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

impl SaeRecipe {
    pub fn check(&self, config: &Config) -> Result<()> {
        let bad = |name, message: String| Err(Error::setting(name, message));
        if self.latents == 0 || self.batch == 0 || self.tokens < self.batch {
            return bad("tokens", format!("{} tokens in batches of {}: too few", self.tokens, self.batch));
        }
        if self.buffer < self.batch {
            return bad("buffer", format!("{} tokens, fewer than one batch of {}", self.buffer, self.batch));
        }
        match self.sparsity {
            Sparsity::TopK { k } if k == 0 || k > self.latents => {
                return bad("k", format!("{k}, but it must lie between 1 and the {} latents", self.latents));
            }
            Sparsity::Relu { l1 } if !(l1.is_finite() && l1 >= 0.0) => {
                return bad("l1", format!("{l1}, but it must be a number from 0 on"));
            }
            _ => {}
        }
        if !(self.rate.is_finite() && self.rate > 0.0) {
            return bad("rate", format!("{}, but it must be above 0", self.rate));
        }
        if self.skip && !self.site.is_transcoder() {
            return bad("skip", format!("only a transcoder has a skip connection, not {}", self.site.name()));
        }
        if config.n_layers == 0 {
            return bad("model", "it has no layers".to_owned());
        }
        Ok(())
    }

    pub(super) fn shape(&self, config: &Config) -> Shape {
        Shape {
            inputs: self.site.width(config),
            outputs: self.site.output_width(config),
            latents: self.latents,
            kind: match self.site.is_transcoder() {
                true => Kind::Transcoder { skip: self.skip },
                false => Kind::Autoencoder,
            },
        }
    }

    /// Batches taken from each buffer.
    pub(super) fn batches_per_buffer(&self) -> usize {
        self.buffer / self.batch
    }

    /// Steps in all; whole buffers.
    pub fn steps(&self) -> usize {
        self.buffers() * self.batches_per_buffer()
    }

    pub(super) fn buffers(&self) -> usize {
        self.tokens.div_ceil(self.batches_per_buffer() * self.batch)
    }
}
