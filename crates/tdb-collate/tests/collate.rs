//! Tests of the crate from outside.

#![allow(clippy::unwrap_used)] // helpers of tests, too

mod collation;
mod common;
mod embedded;
mod resume;
