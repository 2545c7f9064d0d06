//! Tests of the crate from outside.

#![allow(clippy::unwrap_used)] // helpers of tests, too

mod azurite;
mod common;
mod faults;
mod kill;
mod models;
mod read_routes;
