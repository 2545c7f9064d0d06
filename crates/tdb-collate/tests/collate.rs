//! Tests of the crate from outside.

mod collation;
mod common;
mod embedded;
mod resume;
