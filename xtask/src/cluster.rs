//! The checks and figures of `tdb-cluster`, a workspace of its own that builds into `target/cluster`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::commands::{cargo, root, run as must};
use crate::setup;
use crate::test::{Counts, counted};

/// Builds it and `tdb`, and runs its tests: processes that are killed, and results compared with `tdb collate` alone.
///
/// # Errors
/// If one of them fails.
pub fn test(counts: &mut Counts) -> Result<()> {
    setup::npm_packages()?;
    let tdb = tdb()?;
    must(there().args(["fmt", "--check"]))?;
    let mut tests = there();
    // One after the other: each starts several processes that compute.
    tests.args(["test", "--locked", "--no-fail-fast", "--", "--test-threads=1", "--nocapture"]);
    // Clippy compiles the crate for the tests and finds what it finds. `cargo clippy` would check DataFusion once more
    // before it came to the crate.
    tests.env("RUSTC_WORKSPACE_WRAPPER", "clippy-driver").env("CLIPPY_ARGS", CLIPPY);
    counted(tests.env("TDB_BINARY", tdb), counts)
}

/// `cargo xtask bench cluster`: prints what the cluster costs beside `tdb collate`, both from their dev profiles, which
/// optimise the same crates alike.
///
/// # Errors
/// If something cannot be built or run.
pub fn bench(args: &[String]) -> Result<()> {
    ensure!(args.is_empty(), "bench cluster takes no arguments");
    let tdb = tdb()?;
    let mut figures = there();
    figures.args(["test", "--locked", "--test", "figures", "--", "--ignored", "--nocapture"]);
    must(figures.env("TDB_BINARY", tdb))
}

/// The program `tdb`, built.
fn tdb() -> Result<PathBuf> {
    must(cargo().args(["build", "--workspace", "--bin", "tdb"]))?;
    Ok(root().join("target/debug").join(format!("tdb{}", std::env::consts::EXE_SUFFIX)))
}

/// `--deny warnings`, as `cargo clippy` hands it on.
const CLIPPY: &str = "--deny__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__";

/// Cargo in its folder, whose settings name the folder that it builds into.
fn there() -> Command {
    let mut command = cargo();
    command.current_dir(root().join("crates/tdb-cluster"));
    command
}
