//! The README's first command: from a clone to the debugger in the browser.

use anyhow::Result;

use crate::commands::{cargo, program, root, run as must, say};
use crate::ui;

/// Builds pages and server, and serves; `args` go on to `tdb serve`.
pub fn run(args: &[String]) -> Result<()> {
    ui::build(ui::Kind::Release)?;
    say("building the server");
    must(cargo().args(["build", "--release", "--package", "tdb-server", "--bin", "tdb"]))?;
    let tdb = root().join("target/release").join(format!("tdb{}", std::env::consts::EXE_SUFFIX));
    must(program(&tdb.to_string_lossy()).arg("serve").args(args))
}
