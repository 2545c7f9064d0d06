//! How long exact effects and patches take, and how true estimates, bounds and checks are.

use anyhow::Result;

use crate::commands::{cargo, run as must};

/// `args`: `--embedded` leaves out the model of GPT-2 small's shape.
pub fn run(args: &[String]) -> Result<()> {
    let mut command = cargo();
    command.args(["run", "--release", "--workspace", "--example", "effects_speed", "--"]).args(args);
    must(&mut command)
}
