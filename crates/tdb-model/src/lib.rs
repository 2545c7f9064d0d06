//! GPT-2 and sparse autoencoders with hooks on activations and gradients.
//!
//! [`checkpoint`] reads weights and tokenizer, [`Transformer`] holds them, [`forward`] runs a prompt and keeps every
//! activation, [`backward`] goes from a gradient at the logits (or in the residual stream) to the gradients of
//! all activations. [`Site`] names each activation and says its shape. An [`Intervention`] sets entries of a site
//! in either pass; [`Hooks`] is code of one's own that looks at or replaces activations and gradients.
//! [`sample`] continues a prompt, with both of them, and [`Autoencoder`] finds and undoes sparse latents.
//! All numbers are f32 on the CPU, with the units that the weights give them; the same call gives the same bits
//! whatever the number of threads.
//!
//! ```no_run
//! use tdb_model::{ForwardOptions, Index, Intervention, Pass, Site, Transformer, checkpoint};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let checkpoint = checkpoint::open("datasets/embedded".as_ref())?;
//! let model = Transformer::new(checkpoint.weights);
//! let tokens = checkpoint.tokenizer.encode("When Mary and John went to the store, John gave a drink to");
//! // Head 3 of layer 2 writes nothing, at any token.
//! let silent = Intervention {
//!     site: Site::AttnVOut,
//!     layer: Some(2),
//!     pass: Pass::Forward,
//!     indices: vec![Index::All, Index::At(3), Index::All],
//!     value: 0.0,
//! };
//! let options = ForwardOptions { interventions: &[silent], ..Default::default() };
//! let run = tdb_model::forward(&model, &tokens, options)?;
//! let logits = run.logits(&model, tokens.len() - 1);
//! assert_eq!(logits.len(), model.config().n_vocab);
//! # Ok(())
//! # }
//! ```
//!
//! `examples/` has whole programs: a neuron silenced while sampling, and activations collected and encoded.

pub mod array;
pub mod autoencoder;
mod block;
mod buffers;
pub mod checkpoint;
pub mod guarded;
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
pub use tokenizer::{NotOneToken, Tokenizer};
pub use transformer::Transformer;
pub use weights::{
    AutoencoderSite, AutoencoderWeights, Config, LatentActivation, LayerNorm, LayerWeights, Linear, NamedAutoencoder,
    Weights,
};
