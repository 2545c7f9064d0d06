//! The Python package: its client and its notebooks against the program that was built.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::commands::{exists, program, root, run as must, say};

/// Runs the package's tests against `target/debug/tdb`, without installing the package.
pub fn test() -> Result<()> {
    let python = environment()?;
    let folder = root().join("packaging/python");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::iter::once(root().join("target/debug")).chain(std::env::split_paths(&path));
    let mut command = Command::new(python);
    command.current_dir(&folder).args(["-m", "unittest", "discover", "--start-directory", "tests", "--verbose"]);
    command.env("PYTHONPATH", folder.join("src")).env("PATH", std::env::join_paths(found)?);
    must(&mut command)
}

/// A Python with what the tests take from PyPI (`packaging/python/requirements.txt`), below `target`.
fn environment() -> Result<PathBuf> {
    let folder = root().join("target/python");
    let python = folder.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    let wanted = root().join("packaging/python/requirements.txt");
    let text = fs::read(&wanted).with_context(|| wanted.display().to_string())?;
    let stamp = folder.join("installed-requirements.txt");
    if fs::read(&stamp).is_ok_and(|done| done == text) {
        return Ok(python);
    }
    let system = if exists("python3") { "python3" } else { "python" };
    say("installing what the Python package's tests take from PyPI into target/python");
    must(program(system).args(["-m", "venv"]).arg(&folder))
        .context("the package's tests need Python 3.11 or newer with venv (on Debian: apt install python3-venv)")?;
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]).arg(&wanted);
    must(&mut pip)?;
    fs::write(&stamp, text)?;
    Ok(python)
}
