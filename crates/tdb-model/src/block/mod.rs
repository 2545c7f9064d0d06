//! The blocks of a layer, each with its forward and its backward side by side.

pub mod attention;
pub mod autoencode;
pub mod layer_norm;
pub(crate) mod mlp;
