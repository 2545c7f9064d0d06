//! Sparse autoencoders for any model and text: ReLU with an L1 penalty, or TopK.
//!
//! ```text
//! source   text -> sequences of tokens
//! harvest  sequences -> activations of one site in every layer, a bounded buffer of them at a time
//! learner  one layer's autoencoder: a step of gradient descent on a batch
//! train    the loop over buffers: all layers side by side, states saved between buffers
//! files    what a training leaves behind
//! quality  variance explained, cross-entropy recovered, latents per token, dead latents
//! ```

mod files;
mod harvest;
mod learner;
mod quality;
mod recipe;
mod source;
mod train;

pub use files::{export_sae_lens, is_finished, quality_table, state_file, write_autoencoders};
pub use harvest::activations;
pub use quality::{Quality, cross_entropies, frequency, quality};
pub use recipe::{SaeRecipe, Sparsity};
pub use source::{GrammarSource, TokenSource};
pub use train::{LayerProgress, SaeProgress, TrainedAutoencoder, train_autoencoders};
