//! The checks of `tdb-cluster`, a workspace of its own that builds into `target/cluster`.

use std::process::Command;

use anyhow::Result;

use crate::commands::{cargo, root, run as must};
use crate::setup;
use crate::test::{Counts, counted};

/// Builds it and `tdb`, and runs its tests: processes that are killed, and results compared with `tdb collate` alone.
///
/// # Errors
/// If one of them fails.
pub fn test(counts: &mut Counts) -> Result<()> {
    setup::npm_packages()?;
    must(cargo().args(["build", "--workspace", "--bin", "tdb"]))?;
    must(there().args(["fmt", "--check"]))?;
    let tdb = root().join("target/debug").join(format!("tdb{}", std::env::consts::EXE_SUFFIX));
    let mut tests = there();
    // One after the other: each starts several processes that compute.
    tests.args(["test", "--no-fail-fast", "--", "--test-threads=1", "--nocapture"]);
    // Clippy compiles the crate for the tests and finds what it finds. `cargo clippy` would check DataFusion once more
    // before it came to the crate.
    tests.env("RUSTC_WORKSPACE_WRAPPER", "clippy-driver").env("CLIPPY_ARGS", CLIPPY);
    counted(tests.env("TDB_BINARY", tdb), counts)
}

/// `--deny warnings`, as `cargo clippy` hands it on.
const CLIPPY: &str = "--deny__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__";

/// Cargo in its folder, whose settings name the folder that it builds into.
fn there() -> Command {
    let mut command = cargo();
    command.current_dir(root().join("crates/tdb-cluster"));
    command
}
