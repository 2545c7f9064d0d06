//! Pictures of the pages.

use std::fs;

use anyhow::{Context, Result, bail};

use crate::commands::{cargo, program, root, run as must};
use crate::{setup, ui};

/// Those that the documentation shows.
const DOCS: [(&str, &str); 7] = [
    ("debugger-light.png", "debugger.png"),
    ("latents-light.png", "latents.png"),
    ("circuit-light.png", "circuit.png"),
    ("ablated-dark.png", "ablated.png"),
    ("patch-light.png", "patch.png"),
    ("neuron-light.png", "neuron.png"),
    ("readings-dark.png", "readings.png"),
];

pub fn run(args: &[String]) -> Result<()> {
    let (docs, args): (Vec<&String>, Vec<&String>) = args.iter().partition(|a| *a == "--docs");
    let folder = match args.as_slice() {
        [] => root().join("target/screenshots"),
        [folder] => std::env::current_dir()?.join(folder),
        _ => bail!("screenshots takes one folder, and --docs"),
    };
    setup::browser()?;
    ui::build(ui::Kind::Release)?;
    // As parts of the workspace, so that what the tests were built with is not built again.
    must(cargo().args(["build", "--workspace", "--bin", "tdb", "--example", "screenshots"]))?;
    let example = root().join("target/debug/examples").join(format!("screenshots{}", std::env::consts::EXE_SUFFIX));
    must(program(&example.to_string_lossy()).arg(&folder))?;
    if !docs.is_empty() {
        for (made, shown) in DOCS {
            fs::copy(folder.join(made), root().join("docs").join(shown)).with_context(|| made.to_owned())?;
        }
    }
    Ok(())
}
