//! How fast the pages are, in Chromium.

use anyhow::Result;

use crate::commands::{cargo, root, run as must};
use crate::{setup, ui};

/// `args`: how many cold browsers.
pub fn run(args: &[String]) -> Result<()> {
    setup::browser()?;
    ui::build(ui::Kind::Release)?;
    must(cargo().args(["build", "--release", "--package", "tdb-server", "--bin", "tdb"]))?;
    let tdb = root().join("target/release").join(format!("tdb{}", std::env::consts::EXE_SUFFIX));
    let mut command = cargo();
    command.args(["run", "--package", "tdb-tests", "--example", "browser_speed", "--"]).args(args);
    must(command.env("TDB_BINARY", tdb))
}
