//! What a machine needs besides cargo. Each part says what it does, and does nothing when nothing is missing.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::commands::{exists, program, root, run as must, say};

pub const WASM: &str = "wasm32-unknown-unknown";

pub fn run(args: &[String]) -> Result<()> {
    if args.is_empty() {
        wasm_target()?;
        npm_packages()?;
        return browser();
    }
    for part in args {
        match part.as_str() {
            "wasm" => wasm_target()?,
            "browser" => browser()?,
            "npm" => npm_packages()?,
            other => bail!("{other}: setup has the parts wasm, browser and npm"),
        }
    }
    Ok(())
}

/// The Rust target that the pages are compiled for.
pub fn wasm_target() -> Result<()> {
    let out = Command::new("rustc").args(["--print", "target-libdir", "--target", WASM]).output().context("rustc")?;
    let libs = PathBuf::from(String::from_utf8_lossy(&out.stdout).trim());
    let has_std = std::fs::read_dir(libs)
        .is_ok_and(|mut files| files.any(|f| f.is_ok_and(|f| f.file_name().to_string_lossy().starts_with("libstd-"))));
    if has_std {
        return Ok(());
    }
    say(&format!("Rust's target {WASM} is missing; installing it"));
    must(program("bash").arg("xtask/install-wasm-target.sh"))
}

/// Chromium and its driver, for the browser tests.
pub fn browser() -> Result<()> {
    let have_browser = ["chromium", "chromium-browser", "google-chrome"].into_iter().any(exists);
    if have_browser && exists("chromedriver") {
        return Ok(());
    }
    let advice = "install Chromium and its driver (on Debian: apt install chromium chromium-driver)";
    if !(exists("apt-get") && is_root()) {
        bail!("the browser tests need programs that are missing here: {advice}");
    }
    say("Chromium or its driver is missing; installing them with apt");
    let apt = || {
        let mut apt = program("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive").args(["-q", "-y", "-o", "Acquire::Retries=3"]);
        apt.stdout(Stdio::null());
        apt
    };
    must(apt().arg("update"))?;
    // A font, or the pages are laid out with boxes in place of letters.
    must(apt().args(["install", "--no-install-recommends", "chromium", "chromium-driver", "fonts-dejavu-core"]))
        .context(advice)
}

/// The folder of the npm packages that tests use.
pub fn npm_folder() -> PathBuf {
    root().join("target/npm")
}

/// What the tests take from npm (`tests/npm/package.json`), into `target/npm`.
pub fn npm_packages() -> Result<()> {
    let folder = npm_folder();
    let wanted = root().join("tests/npm");
    let read = |path: PathBuf| std::fs::read(&path).with_context(|| format!("{}", path.display()));
    let lock = read(wanted.join("package-lock.json"))?;
    let stamp = folder.join("installed-package-lock.json");
    if std::fs::read(&stamp).is_ok_and(|done| done == lock) {
        return Ok(());
    }
    if !exists("npm") {
        bail!("the tests take packages from npm, which is missing here: install Node.js with npm");
    }
    say("installing what the tests take from npm into target/npm");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("package.json"), read(wanted.join("package.json"))?)?;
    std::fs::write(folder.join("package-lock.json"), &lock)?;
    must(
        program("npm")
            .args(["ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"])
            .current_dir(&folder),
    )?;
    Ok(std::fs::write(stamp, lock)?)
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|out| out.stdout.trim_ascii() == b"0")
}
