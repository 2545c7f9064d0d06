//! Sparse autoencoders and transcoders for any model and text: ReLU with an L1 penalty, or TopK.
//!
//! ```text
//! source   text -> sequences of tokens
//! harvest  sequences -> what is read and made at one site in every layer, a bounded buffer of it at a time
//! examples what is learnt from: inputs and what should be made of them
//! learner  one layer's dictionary: a step of gradient descent on a batch
//! start    finished dictionaries that a training goes on from
//! train    the loop over buffers: all layers side by side, states saved between buffers
//! files    what a training leaves behind
//! quality  variance explained, cross-entropy recovered, latents per token, dead latents
//! ```

mod examples;
mod files;
mod harvest;
mod learner;
mod quality;
mod recipe;
mod source;
mod start;
mod train;

pub use examples::{Examples, Rows};
pub use files::{check_sae_lens, export_sae_lens, is_finished, quality_table, state_file, write_autoencoders};
pub use harvest::activations;
pub use quality::{Quality, cross_entropies, frequency, quality};
pub use recipe::{SaeRecipe, Sparsity};
pub use source::{GrammarSource, TokenSource};
pub use start::SaeStart;
pub use train::{LayerProgress, SaeProgress, TrainedAutoencoder, train_autoencoders};
