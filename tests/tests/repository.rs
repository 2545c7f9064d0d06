//! What holds for the repository: its structure, its documents, its dependencies.

#![allow(clippy::unwrap_used)] // helpers of tests, too

mod architecture;
mod dependencies;
mod documents;
