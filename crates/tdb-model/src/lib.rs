//! GPT-2 and sparse autoencoders with hooks on activations and gradients.

pub mod matrix;
pub mod weights;

pub use matrix::{Matrix, Storage};
pub use weights::{
    AutoencoderSite, AutoencoderWeights, Config, LatentActivation, LayerNorm, LayerWeights, Linear, Weights,
};
