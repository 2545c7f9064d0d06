//! Programs at work with files and object stores.

#![allow(clippy::unwrap_used)] // helpers of tests, too

mod collation_kills;
mod collation_store;
mod object_stores;
mod own_text;
