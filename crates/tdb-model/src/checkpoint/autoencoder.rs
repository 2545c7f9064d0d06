//! What the layouts of autoencoders have in common: a table with these names, one a layer.
//!
//! | name | shape | |
//! |---|---|---|
//! | `encoder.weight` | `[n_latents, n_inputs]` | |
//! | `latent_bias` | `[n_latents]` | |
//! | `decoder.weight` | `[n_inputs, n_latents]` | |
//! | `encoder_pre_bias` | `[n_inputs]` | subtracted from the input; nothing is where it is absent |
//! | `decoder_bias` | `[n_inputs]` | |
//! | `activation_frequency` | `[n_latents]` | optional |

use std::path::Path;

use super::error::CheckpointError;
use super::settings::check_size;
use super::table::Table;
use super::tensor::NamedTensor;
use crate::source::Source;
use crate::weights::{AutoencoderWeights, LatentActivation};

/// The number of latents, as the bias of the latents has it.
pub(super) fn n_latents(path: &Path, latent_bias: &NamedTensor) -> Result<usize, CheckpointError> {
    let n_latents = latent_bias.tensor.shape().first().copied().unwrap_or(0);
    check_size(path, &latent_bias.key, n_latents)?;
    Ok(n_latents)
}

/// One layer's weights.
pub(super) fn read(
    table: &Table,
    [n_latents, n_inputs]: [usize; 2],
    activation: LatentActivation,
) -> Result<AutoencoderWeights, CheckpointError> {
    let optional = |name: &str, len: usize| table.contains(name).then(|| table.vector(name, len)).transpose();
    Ok(AutoencoderWeights {
        activation_frequency: optional("activation_frequency", n_latents)?,
        encoder_pre_bias: optional("encoder_pre_bias", n_inputs)?.unwrap_or_else(|| vec![0.0; n_inputs]),
        encoder: table.matrix("encoder.weight", [n_latents, n_inputs])?,
        latent_bias: table.vector("latent_bias", n_latents)?,
        activation,
        decoder: table.matrix("decoder.weight", [n_inputs, n_latents])?,
        decoder_bias: table.vector("decoder_bias", n_inputs)?,
    })
}
