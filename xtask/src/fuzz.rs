//! Damaged input for as long as is wanted, with optimised code.

use anyhow::{Context, Result};

use crate::commands::{cargo, run as must};

/// Seconds for each target if nothing is said.
const SECONDS: u64 = 3600;

/// `[TARGET] [--seconds N] [--seed N]`
pub fn run(args: &[String]) -> Result<()> {
    let mut seconds = SECONDS;
    let mut seed = 1;
    let mut target = None;
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut number = || -> Result<u64> {
            let text = args.next().with_context(|| format!("{arg} needs a number"))?;
            text.parse().with_context(|| format!("{arg} {text}"))
        };
        match arg.as_str() {
            "--seconds" => seconds = number()?,
            "--seed" => seed = number()?,
            name => target = Some(name),
        }
    }
    let mut command = cargo();
    command.args(["test", "--release", "--package", "tdb-tests", "--test", "fuzz", "--", "--nocapture"]);
    command.env("TDB_FUZZ_SECONDS", seconds.to_string()).env("TDB_FUZZ_SEED", seed.to_string());
    if let Some(target) = target {
        command.env("TDB_FUZZ_TARGET", target);
    }
    must(&mut command)
}
