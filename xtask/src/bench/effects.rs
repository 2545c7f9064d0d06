//! How long exact effects and patches take, and how true estimates, bounds and checks are.

use anyhow::Result;

use crate::commands::{cargo, run as must};

/// `args`: parts of it, `speed`, `by-hand`, `patches`, `estimates` or `alarms`; all without any. `--requests N`: so many random
/// requests for false alarms.
pub fn run(args: &[String]) -> Result<()> {
    let mut command = cargo();
    command.args(["run", "--release", "--package", "tdb-scalars", "--example", "effects_speed", "--"]).args(args);
    must(&mut command)
}
