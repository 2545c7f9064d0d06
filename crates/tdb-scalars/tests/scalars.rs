//! Tests of the crate from outside, but for recorded answers and for those that plant mistakes in the whole program.

#![allow(clippy::unwrap_used)] // helpers of tests, too

mod circuit;
mod common;
mod dictionaries;
mod effects;
#[path = "common/embedded.rs"]
mod embedded;
mod families;
mod head_readings;
mod inspect;
mod kept_readings;
#[path = "common/procedural.rs"]
mod procedural;
mod questions;
mod tokens;
