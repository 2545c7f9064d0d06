//! The README's first command: from a clone to the debugger in the browser.

use anyhow::{Result, bail};

use crate::commands::{cargo, program, root, run as must, say};
use crate::ui;

/// The options of `tdb serve`; a test of tdb-server compares them with its own.
const OPTIONS: &str = include_str!("serve-options.txt");

/// Builds pages and server, and serves; `args` go on to `tdb serve`.
pub fn run(args: &[String]) -> Result<()> {
    refuse_unknown(args)?;
    ui::build(ui::Kind::Release)?;
    say("building the server");
    must(cargo().args(["build", "--release", "--package", "tdb-server", "--bin", "tdb"]))?;
    let tdb = root().join("target/release").join(format!("tdb{}", std::env::consts::EXE_SUFFIX));
    must(program(&tdb.to_string_lossy()).arg("serve").args(args))
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
