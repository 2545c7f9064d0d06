//! Transformers and sparse autoencoders on candle, with hooks on activations and gradients.
//!
//! [`checkpoint`] reads configuration, weights and tokenizer; [`Transformer::load`] makes a model of them, or of anybody's
//! [`candle_nn::VarBuilder`]. [`Transformer::forward`] runs a prompt and keeps every activation,
//! [`Run::backward`] goes from a gradient at the logits (or in the residual stream) to the gradients of
//! all activations. [`Site`] names each activation and says its shape; [`Run::get`] and [`Gradients::get`] give it as
//! a candle [`Tensor`]. An [`Intervention`] sets entries of a site in either pass; [`Hooks`] is code of one's own that
//! looks at or replaces activations and gradients. [`sample`] continues a prompt, with both of them, and [`Autoencoder`]
//! finds and undoes sparse latents.
//!
//! All numbers are f32. On the CPU the same call gives the same bits whatever the number of threads.
//!
//! ```no_run
//! use tdb_model::{ForwardOptions, Index, Intervention, Pass, Site, Transformer, checkpoint};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let checkpoint = checkpoint::open("datasets/embedded".as_ref())?;
//! let model = Transformer::load(checkpoint.config, checkpoint.weights)?;
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
//! let run = model.forward(&tokens, options)?;
//! println!("{}", run.get(Site::MlpPostAct, 3)?);
//! assert_eq!(run.logits(tokens.len() - 1)?.len(), model.config().n_vocab);
//! # Ok(())
//! # }
//! ```
//!
//! `examples/` has whole programs: a neuron silenced while sampling, activations collected and encoded, and a model
//! from a `VarBuilder`.

#![warn(missing_docs)]

pub mod checkpoint;
pub mod config;
mod error;
pub mod fault;
pub mod guarded;
pub mod intervention;
mod matrix;
pub mod modules;
pub mod numbers;
mod ops;
pub mod parallel;
mod patch;
pub mod run;
pub mod sampling;
pub mod site;
mod slot;
pub mod source;
pub mod sparse;
mod tap;
pub mod tokenizer;
mod transformer;
mod variations;
pub mod weights;

pub use candle_core::{Device, Tensor};

pub use checkpoint::{Checkpoint, CheckpointError};
pub use config::{Activation, BlockOrder, Config, MlpKind, NormKind, Positions};
pub use error::{Error, Result};
pub use intervention::{Index, Intervention, first_layer_reached};
pub use matrix::{Element, Matrix, Storage};
pub use modules::attention::{Attention, AttentionDerivative, AttentionGradients, AttentionState, HeadProjections};
pub use modules::autoencoder::{Autoencoder, LatentState};
pub use modules::block::Block;
pub use modules::embedding::Embedding;
pub use modules::mlp::{Mlp, MlpDerivative, MlpState};
pub use modules::norm::Norm;
pub use modules::unembedding::Unembedding;
pub use numbers::Numbers;
pub use patch::{Patch, PatchHooks, Values};
pub use run::{BackwardOptions, ForwardOptions, Gradients, Run, Seed};
pub use sampling::{Cache, Choice, Sampler, sample};
pub use site::{Pass, Point, Site};
pub use slot::Slot;
pub use source::{Source, Weights};
pub use sparse::SparseRows;
pub use tap::Hooks;
pub use tokenizer::{NotOneToken, Tokenizer};
pub use transformer::Transformer;
pub use variations::{EachRun, EachStream, Logits, Together};
pub use weights::{AutoencoderSite, AutoencoderWeights, LatentActivation, NamedAutoencoder, Normalization};
