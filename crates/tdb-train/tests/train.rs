//! Tests of the crate from outside.

mod autoencoders;
mod embedded;
mod gradients;
mod sae_lens;
