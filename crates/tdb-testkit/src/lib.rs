//! Procedural weights, checkpoint files and comparison rules for tests.
