//! Builds the pages: cargo for WebAssembly, then `xtask-ui` makes the folder that the server embeds.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::commands::{cargo, program, root, run as must, say};
use crate::setup::{self, WASM};

/// The pages' own build folder, so that neither build throws away what the other made.
pub const TARGET_DIR: &str = "target/wasm";

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Small and fast to load; half a minute to link.
    Release,
    /// Quick to build, large, with names and debug checks.
    Dev,
}

pub fn run(args: &[String]) -> Result<()> {
    match args {
        [] => build(Kind::Release),
        [dev] if dev == "--dev" => build(Kind::Dev),
        other => bail!("ui {}: the only option is --dev", other.join(" ")),
    }
}

/// Brings `crates/tdb-ui/dist` up to date.
pub fn build(kind: Kind) -> Result<()> {
    setup::wasm_target()?;
    let (profile, folder, mode) = match kind {
        Kind::Release => ("wasm-release", "wasm-release", "full"),
        Kind::Dev => ("dev", "debug", "plain"),
    };
    let mut build = cargo();
    build.args([
        "build",
        "--package",
        "tdb-ui",
        "--lib",
        "--target",
        WASM,
        "--profile",
        profile,
        "--target-dir",
        TARGET_DIR,
    ]);
    say(&format!("building the pages ({profile})"));
    must(&mut build)?;

    let root = root();
    let module = root.join(TARGET_DIR).join(WASM).join(folder).join("tdb_ui.wasm");
    let (assets, dist) = (root.join("crates/tdb-ui/static"), root.join("crates/tdb-ui/dist"));
    let state = fingerprint(mode, &[&module, &assets, &root.join("xtask/ui/src"), &root.join("xtask/ui/Cargo.toml")])?;
    let stamp = root.join(TARGET_DIR).join("dist.stamp");
    if dist.join("index.html").exists() && fs::read_to_string(&stamp).is_ok_and(|s| s == state) {
        return Ok(());
    }
    say("making crates/tdb-ui/dist");
    // Built as a part of the workspace, so that the tests, which build everything, find it built.
    must(cargo().args(["build", "--quiet", "--workspace", "--bin", "xtask-ui"]))?;
    let bind = root.join("target/debug").join(format!("xtask-ui{}", std::env::consts::EXE_SUFFIX));
    must(program(&bind.to_string_lossy()).args([&module, &assets, &dist]).arg(mode))?;
    fs::write(&stamp, state).with_context(|| format!("cannot write {}", stamp.display()))
}

/// A number that changes with the content of these files and folders.
fn fingerprint(mode: &str, paths: &[&Path]) -> Result<String> {
    let mut files: Vec<PathBuf> = Vec::new();
    for path in paths {
        if path.is_dir() {
            let entries = fs::read_dir(path).with_context(|| format!("{}", path.display()))?;
            for entry in entries {
                files.push(entry?.path());
            }
        } else {
            files.push((*path).to_owned());
        }
    }
    files.sort();
    let mut hash = 0xCBF2_9CE4_8422_2325u64;
    let mut add = |bytes: &[u8]| bytes.iter().for_each(|&b| hash = (hash ^ u64::from(b)).wrapping_mul(0x100_0000_01B3));
    add(mode.as_bytes());
    for file in files {
        add(file.file_name().unwrap_or_default().as_encoded_bytes());
        add(&fs::read(&file).with_context(|| format!("{}", file.display()))?);
    }
    Ok(format!("{hash:016x}"))
}
