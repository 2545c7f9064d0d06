//! Tests of the crate from outside.

#![allow(clippy::unwrap_used)] // helpers of tests, too

mod autoencoders;
mod embedded;
mod gradients;
mod sae_lens;
