//! Pictures of the pages.

use anyhow::{Result, bail};

use crate::commands::{cargo, root, run as must};
use crate::{setup, ui};

pub fn run(args: &[String]) -> Result<()> {
    let folder = match args {
        [] => root().join("target/screenshots"),
        [folder] => std::env::current_dir()?.join(folder),
        _ => bail!("screenshots takes one folder"),
    };
    setup::browser()?;
    ui::build(ui::Kind::Release)?;
    must(cargo().args(["build", "--package", "tdb-server", "--bin", "tdb"]))?;
    must(cargo().args(["run", "--package", "tdb-tests", "--example", "screenshots", "--"]).arg(folder))
}
