//! GPT-2 and sparse autoencoders with hooks on activations and gradients.

pub mod array;
pub mod autoencoder;
mod block;
mod buffers;
pub mod checkpoint;
pub mod hooks;
pub mod intervention;
pub mod kernels;
pub mod matrix;
pub mod run;
pub mod sampling;
pub mod site;
pub mod sparse;
pub mod tokenizer;
pub mod transformer;
pub mod weights;

pub use array::Array;
pub use autoencoder::Autoencoder;
pub use block::autoencode::error as block_error;
pub use block::{attention, autoencode, layer_norm};
pub use checkpoint::{Checkpoint, CheckpointError};
pub use hooks::{Hooks, RunError};
pub use intervention::{Index, Intervention};
pub use matrix::{Matrix, Storage};
pub use run::{BackwardOptions, Forward, ForwardOptions, Gradients, Seed, backward, forward};
pub use sampling::{Cache, Choice, Sampler, sample};
pub use site::{Pass, Point, Site};
pub use sparse::SparseRows;
pub use tokenizer::Tokenizer;
pub use transformer::Transformer;
pub use weights::{
    AutoencoderSite, AutoencoderWeights, Config, LatentActivation, LayerNorm, LayerWeights, Linear, NamedAutoencoder,
    Weights,
};
