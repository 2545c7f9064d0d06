//! Writes a preset's checkpoint folder: `write_weights --preset tiny-a --out FOLDER [--no-autoencoders]`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use tdb_testkit::checkpoint::{self, Parts};
use tdb_testkit::presets;

fn main() -> Result<()> {
    let (mut name, mut out, mut parts) = (None, None, Parts::ModelAndAutoencoders);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--preset" => name = args.next(),
            "--out" => out = args.next().map(PathBuf::from),
            "--no-autoencoders" => parts = Parts::Model,
            other => bail!("{other}: unknown; write_weights --preset NAME --out FOLDER [--no-autoencoders]"),
        }
    }
    let name = name.with_context(|| format!("--preset is missing; there are {}", presets::NAMES.join(", ")))?;
    let out = out.context("--out is missing: the folder below which to write")?;
    let preset = presets::preset(&name)
        .with_context(|| format!("--preset {name}: unknown; there are {}", presets::NAMES.join(", ")))?;
    println!("{}", checkpoint::write(&preset, &out, parts)?.display());
    Ok(())
}
