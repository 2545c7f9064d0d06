//! Tests of the crate from outside.

mod azurite;
mod common;
mod faults;
mod kill;
mod models;
mod read_routes;
