//! Dictionaries with procedural numbers, for the tests of this crate and for those that damage questions.

use tdb_model::{
    AutoencoderSite, AutoencoderWeights, Config, LatentActivation, Matrix, NamedAutoencoder, Normalization,
};
use tdb_testkit::weights::TensorSpec;

/// Twelve latents in each layer, with numbers that follow from their names.
pub fn dictionary(config: &Config, site: AutoencoderSite) -> NamedAutoencoder {
    let (n, width) = (12, site.width(config));
    let layer = |layer: usize| {
        let numbers = |name: &str, len: usize| {
            TensorSpec::new(format!("{site:?}.{layer}.{name}"), &[len], 0.5, 0.0).values(0x5EED)
        };
        AutoencoderWeights {
            normalization: Normalization::None,
            encoder_pre_bias: numbers("pre", width),
            encoder: Matrix::from_vec(n, width, numbers("enc", n * width)),
            latent_bias: numbers("bias", n),
            activation: LatentActivation::Relu,
            decoder: Matrix::from_vec(width, n, numbers("dec", width * n)),
            decoder_bias: numbers("post", width),
            skip: None,
            activation_frequency: None,
        }
    };
    NamedAutoencoder::of_every_layer("sae", site, (0..config.n_layers).map(layer).collect())
}
