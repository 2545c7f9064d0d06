//! Tests of the crate from outside, but for those that count allocations.

#![allow(clippy::unwrap_used)] // helpers of tests, too

mod agreement;
mod checkpoint_gpt_neox;
mod checkpoint_hugging_face;
mod checkpoint_reference;
mod checkpoint_sae_lens;
mod checkpoint_tokenizer;
mod checkpoint_torch;
mod checkpoint_var_builder;
mod common;
mod dictionaries;
mod families;
mod finite_differences;
#[path = "common/folder.rs"]
mod folder;
mod runs;
mod sampling;
mod tokenizer_kinds;
mod variations;
