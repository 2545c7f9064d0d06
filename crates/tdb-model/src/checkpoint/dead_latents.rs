//! Leaving out latents that never fire.

use crate::weights::{LatentActivation, NamedAutoencoder};

/// A latent that fired less often than this in training counts as dead.
const DEAD_BELOW: f32 = 1e-8;

/// Drops dead latents from the end of every layer and says how many per layer.
///
/// Trained autoencoders are saved with their latents ordered by how often they fire, so the dead ones stand last and
/// can be left out as a shorter view, without copying and without changing the index of any other latent. All layers
/// keep the same width, so only as many are dropped as every layer can spare. The reference counts dead latents
/// wherever they stand and then drops that many from the end, live ones too if the file is not in order; here a live
/// latent is never dropped. It also loses bias and activation by this; here they stay.
///
/// A layer without statistics, or one whose statistics say that no latent ever fired, has nothing that can be spared.
pub fn drop_dead_latents(autoencoder: &mut NamedAutoencoder) -> usize {
    let dead_at_end = |frequency: &Vec<f32>| {
        let dead = frequency.iter().rev().take_while(|&&frequency| frequency < DEAD_BELOW).count();
        if dead == frequency.len() { 0 } else { dead }
    };
    let spared = autoencoder.layers.iter().map(|layer| layer.activation_frequency.as_ref().map_or(0, dead_at_end));
    let dropped = spared.min().unwrap_or(0);
    if dropped == 0 {
        return 0;
    }
    for layer in &mut autoencoder.layers {
        let kept = layer.latent_bias.len() - dropped;
        layer.encoder = layer.encoder.row_range(0..kept);
        layer.decoder = layer.decoder.col_range(0..kept);
        layer.latent_bias.truncate(kept);
        if let Some(frequency) = &mut layer.activation_frequency {
            frequency.truncate(kept);
        }
        match &mut layer.activation {
            LatentActivation::TopK { k, .. } => *k = kept.min(*k),
            LatentActivation::JumpRelu { threshold } => threshold.truncate(kept),
            LatentActivation::Relu | LatentActivation::Identity => {}
        }
    }
    dropped
}
