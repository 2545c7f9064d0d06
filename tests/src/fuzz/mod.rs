//! What is fed with damaged input: every reader of files, the requests, the page's state.
//!
//! A target may refuse its input in any way; it may not panic. Each has a folder of inputs to begin with in
//! `tests/fuzz/corpus`. The tests drive all of them with a bounded number of inputs that are changed blindly ([`drive`]);
//! `cargo xtask fuzz` gives the same targets to libFuzzer, which is guided by the code that an input reaches (`tests/fuzz`).

mod mutate;
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use mutate::Mutator;
pub use targets::{TARGETS, Target, target};

/// How long a target is driven.
#[derive(Clone, Copy, Debug)]
pub enum Effort {
    Inputs(u64),
    Time(Duration),
}

/// An input that a target panicked at.
#[derive(Debug)]
pub struct Crash {
    pub input: Vec<u8>,
    pub message: String,
}

/// Where the first inputs of a target are.
pub fn corpus_folder(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target.name)
}

/// The first inputs of a target, by name.
///
/// # Errors
/// If its folder cannot be read, or there are none.
pub fn corpus(target: &Target) -> anyhow::Result<Vec<Vec<u8>>> {
    let folder = corpus_folder(target);
    let entries = std::fs::read_dir(&folder).map_err(|e| anyhow::anyhow!("{}: {e}", folder.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    paths.sort();
    anyhow::ensure!(!paths.is_empty(), "{} has no inputs to begin with", folder.display());
    paths.iter().map(|path| Ok(std::fs::read(path)?)).collect()
}

/// Drives a target with its first inputs and then with changed ones, all of which follow from `seed`. Returns how many there
/// were, or the first that it panicked at.
///
/// # Errors
/// If there are no first inputs.
pub fn drive(target: &Target, seed: u64, effort: Effort) -> anyhow::Result<Result<u64, Crash>> {
    let corpus = corpus(target)?;
    let mut mutator = Mutator::new(seed);
    let start = Instant::now();
    let mut done = 0u64;
    loop {
        let input = match corpus.get(done as usize) {
            Some(first) => first.clone(),
            None => mutator.change(&corpus),
        };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.run)(&input))) {
            let message = panic.downcast_ref::<String>().cloned();
            let message = message.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            return Ok(Err(Crash { input, message: message.unwrap_or_default() }));
        }
        done += 1;
        let is_enough = match effort {
            Effort::Inputs(n) => done >= n.max(corpus.len() as u64),
            Effort::Time(time) => start.elapsed() >= time && done >= corpus.len() as u64,
        };
        if is_enough {
            return Ok(Ok(done));
        }
    }
}
