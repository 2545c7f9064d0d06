//! Numbers that differ from one call and one process to the next, where nothing hangs on how evenly they are spread.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

pub fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
