//! Damaged input of every kind, for a bounded number of inputs; `TDB_FUZZ_SECONDS` drives each target for so long instead.

use std::time::Duration;

use tdb_tests::fuzz::{Effort, TARGETS, drive};

/// Some seconds for all together.
const INPUTS: u64 = 200;

#[test]
fn no_reader_panics_at_damaged_input() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let effort = match number("TDB_FUZZ_SECONDS") {
        Some(seconds) => Effort::Time(Duration::from_secs(seconds)),
        None => Effort::Inputs(INPUTS),
    };
    let only = std::env::var("TDB_FUZZ_TARGET").ok();
    let seed = number("TDB_FUZZ_SEED").unwrap_or(1);
    for target in TARGETS.iter().filter(|target| only.as_deref().is_none_or(|only| only == target.name)) {
        match drive(target, seed, effort).unwrap() {
            Ok(inputs) => println!("{}: {inputs} inputs", target.name),
            Err(crash) => {
                let path = std::env::temp_dir().join(format!("tdb-fuzz-{}", target.name));
                std::fs::write(&path, &crash.input).unwrap();
                panic!("{} panicked at {}: {}", target.name, path.display(), crash.message);
            }
        }
    }
}
