//! What holds for the repository: its structure, its documents, its dependencies.

mod architecture;
mod dependencies;
mod documents;
