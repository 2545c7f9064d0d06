//! The README's first command: from a clone to the debugger in the browser.

use std::process::{Child, Command};

use anyhow::{Context, Result, bail, ensure};

use crate::commands::{cargo, program, root, run as must, say};
use crate::ui;

/// The options of `tdb serve`; a test of tdb-server compares them with its own.
const OPTIONS: &str = include_str!("serve-options.txt");

/// Builds pages and server, and serves; `args` go on to `tdb serve`.
pub fn run(args: &[String]) -> Result<()> {
    refuse_unknown(args)?;
    // Linking the pages keeps one core busy for half a minute. Everything but the program that embeds them is built beside.
    say("building the server, and beside it the pages");
    let library = Beside::start(server("--lib").env("CARGO_TERM_PROGRESS_WHEN", "never"))?;
    ui::build(ui::Kind::Release)?;
    library.finish()?;
    say("building the program");
    must(server("--bin").arg("tdb"))?;
    let tdb = root().join("target/release").join(format!("tdb{}", std::env::consts::EXE_SUFFIX));
    must(program(&tdb.to_string_lossy()).arg("serve").args(args))
}

fn server(part: &str) -> Command {
    let mut command = cargo();
    command.args(["build", "--release", "--package", "tdb-server", part]);
    // See crates/tdb-server/build.rs.
    command.env("TDB_PAGES_LATER", "1");
    command
}

/// A command that runs beside others, and ends with them.
struct Beside(Child);

impl Beside {
    fn start(command: &mut Command) -> Result<Self> {
        command.spawn().map(Beside).with_context(|| format!("{command:?} does not start"))
    }

    fn finish(mut self) -> Result<()> {
        let status = self.0.wait()?;
        ensure!(status.success(), "the server was not built: {status}");
        Ok(())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // Nothing to end after it finished.
        let _ = self.0.kill();
    }
}

/// What `tdb serve` would refuse is refused before minutes of building.
fn refuse_unknown(args: &[String]) -> Result<()> {
    for (i, arg) in args.iter().enumerate() {
        let is_known = match arg.strip_prefix("--") {
            Some(option) => {
                let name = option.split_once('=').map_or(option, |(name, _)| name);
                name == "help" || OPTIONS.lines().any(|known| known == name)
            }
            // What follows an option may be its value.
            None => i > 0 || arg == "-h",
        };
        if !is_known {
            bail!("tdb serve has no argument {arg}; cargo xtask run takes --{}", OPTIONS.trim().replace('\n', ", --"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(line: &str) -> Option<String> {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        refuse_unknown(&args).err().map(|error| error.to_string())
    }

    #[test]
    fn unknown_arguments_are_refused_before_the_build() {
        assert_eq!(refused("--model gpt2 --port=1 --open"), None);
        assert_eq!(refused(""), None);
        for (line, what) in [("--modle gpt2", "--modle"), ("--port 1 --hots=x", "--hots=x"), ("gpt2", "gpt2")] {
            assert!(refused(line).unwrap().starts_with(&format!("tdb serve has no argument {what};")), "{line}");
        }
    }
}
