//! The README's second command: every check there is. All parts run, also after one has failed, and the last lines say
//! what failed.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::commands::{cargo, line, run as must, say};
use crate::{cluster, oracle, python, setup, ui};

const PARTS: [&str; 8] = ["setup", "ui", "fmt", "lints", "build", "tests", "python", CLUSTER];

/// Runs only if it is named: it compiles DataFusion.
const CLUSTER: &str = "cluster";

pub fn run(args: &[String]) -> Result<()> {
    if let Some(unknown) = args.iter().find(|a| !PARTS.contains(&a.as_str())) {
        bail!("{unknown}: test has the parts {}", PARTS.join(", "));
    }
    let mut counts = Counts::default();
    let mut failed = Vec::new();
    for part in PARTS {
        let wanted = if args.is_empty() { part != CLUSTER } else { args.iter().any(|a| a == part) };
        if !wanted {
            continue;
        }
        let start = Instant::now();
        let outcome = match part {
            "setup" => setup::run(&[]),
            "ui" => ui::build(ui::Kind::Release),
            "fmt" => must(cargo().args(["fmt", "--all", "--check"])),
            "lints" => lints(),
            // The programs that the tests start, built with what the tests are built with, so that both share all.
            "build" => must(cargo().args(["build", "--workspace", "--bins", "--tests", "--examples"])),
            "tests" => tests(&mut counts),
            CLUSTER => cluster::test(&mut counts),
            _ => python::test(),
        };
        let seconds = start.elapsed().as_secs();
        match outcome {
            Ok(()) => say(&format!("{part}: done in {seconds} s")),
            Err(error) => {
                say(&format!("{part}: failed after {seconds} s: {error:#}"));
                failed.push(part);
            }
        }
    }
    if !failed.is_empty() {
        println!("failed parts: {}", failed.join(", "));
    }
    // Parts that are no tests of their own count as one each when they fail.
    let other = failed.iter().filter(|part| !["tests", CLUSTER].contains(part)).count();
    let broken = counts.failed + other + usize::from(failed.len() > other && counts.failed == 0);
    if counts.passed > 0 || broken > 0 {
        println!("{} passed, {broken} failed", counts.passed);
    } else {
        println!("done; no tests were among the parts that were asked for");
    }
    if !failed.is_empty() {
        bail!("not everything passed");
    }
    Ok(())
}

/// Warnings are errors. One pass for everything: the pages have no code that only WebAssembly sees, and what tests may
/// do that programs may not stands in the tests themselves.
fn lints() -> Result<()> {
    must(cargo().args(["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]))
}

/// How many tests passed and failed.
#[derive(Default)]
pub struct Counts {
    passed: usize,
    failed: usize,
}

impl Counts {
    /// Adds a line like `test result: ok. 3 passed; 0 failed; …`, and no other.
    fn add(&mut self, line: &str) {
        let Some((_, result)) = line.split_once("test result: ") else { return };
        let count = |what: &str| {
            let part = result.split([';', '.']).find_map(|p| p.trim().strip_suffix(what))?;
            part.trim().parse::<usize>().ok()
        };
        self.passed += count("passed").unwrap_or(0);
        self.failed += count("failed").unwrap_or(0);
    }
}

fn tests(counts: &mut Counts) -> Result<()> {
    if !oracle::folder().is_dir() {
        say("the oracle's folder is not here: its committed subset is replayed alone (TDB_ORACLE names the folder)");
    }
    let mut command = cargo();
    command.args(["test", "--workspace", "--no-fail-fast"]);
    let all = counted(&mut command, counts);
    // The committed answers once more as other devices compute them: with compositions of candle's own operations.
    let mut plain = cargo();
    plain.args(["test", "--workspace", "--test", "oracle"]).env("TDB_OPS", "plain").env_remove("TDB_ORACLE");
    all.and(counted(&mut plain, counts))
}

/// Runs a command whose output goes through, and counts what it says about tests.
pub fn counted(command: &mut Command, counts: &mut Counts) -> Result<()> {
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start {}", line(command)))?;
    let out = child.stdout.take().context("the output was not captured")?;
    for text in BufReader::new(out).split(b'\n') {
        let text = text?;
        counts.add(&String::from_utf8_lossy(&text));
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(&text)?;
        stdout.write_all(b"\n")?;
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("{} failed ({status})", line(command));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Counts;

    #[test]
    fn results_are_added_up() {
        let mut counts = Counts::default();
        counts.add("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.10s");
        counts.add("test result: FAILED. 2 passed; 4 failed; 0 ignored");
        counts.add("5 passed");
        assert_eq!((counts.passed, counts.failed), (5, 4));
    }
}
