//! What wide dictionaries cost, in memory and time.

use anyhow::Result;

use crate::commands::{cargo, run as must};

/// `args`: numbers of latents; 32,768 and 131,072 if there are none.
pub fn run(args: &[String]) -> Result<()> {
    let mut command = cargo();
    command.args(["run", "--release", "--package", "tdb-scalars", "--example", "dictionary_speed", "--"]).args(args);
    must(&mut command)
}
