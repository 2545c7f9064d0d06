//! The parts of a transformer. Each has its way forward, its gradient (vjp) and its derivative along a direction (jvp);
//! the pass runs them with a [`crate::tap::Tap`], readers without.

pub mod attention;
pub mod autoencoder;
pub mod block;
pub mod embedding;
mod linear;
pub mod mlp;
pub mod norm;
mod normalization;
pub mod unembedding;

pub use linear::Linear;
pub(crate) use linear::Place;
