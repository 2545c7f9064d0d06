//! Damaged input for as long as is wanted, with optimised code.
//!
//! With a C++ compiler (libFuzzer is written in it) inputs are chosen by the code that they reach: the compiler counts it, as
//! cargo-fuzz has it do, but with any toolchain. Else they are changed blindly, by the driver that the tests use, too.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::commands::{cargo, exists, root, run as must, say};

/// Seconds for each target if nothing is said.
const SECONDS: u64 = 3600;

/// What libFuzzer needs of the code: counters of edges, where they are, and what is compared with what.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
                        -Cllvm-args=-sanitizer-coverage-trace-compares -Cllvm-args=-simplifycfg-branch-fold-threshold=0 \
                        -Cdebug-assertions --cfg fuzzing";

/// Seconds that one input may take, and megabytes that the process may have.
const MOST_SECONDS: u64 = 10;
const MOST_MEGABYTES: u64 = 2048;

struct Args {
    seconds: u64,
    seed: u64,
    blindly: bool,
    targets: Vec<String>,
}

impl Args {
    fn read(args: &[String]) -> Result<Self> {
        let mut read = Self { seconds: SECONDS, seed: 1, blindly: false, targets: Vec::new() };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut number = || -> Result<u64> {
                let text = args.next().with_context(|| format!("{arg} needs a number"))?;
                text.parse().with_context(|| format!("{arg} {text}"))
            };
            match arg.as_str() {
                "--seconds" => read.seconds = number()?,
                "--seed" => read.seed = number()?,
                "--blind" => read.blindly = true,
                option if option.starts_with('-') => bail!("{option}: fuzz takes --seconds N, --seed N and --blind"),
                name => read.targets.push(name.to_owned()),
            }
        }
        let known = targets()?;
        if let Some(unknown) = read.targets.iter().find(|name| !known.contains(name)) {
            bail!("{unknown}: there is no such target; there are {}", known.join(", "));
        }
        if read.targets.is_empty() {
            read.targets = known;
        }
        Ok(read)
    }
}

/// Every target has a folder of first inputs.
fn targets() -> Result<Vec<String>> {
    let folder = folder().join("corpus");
    let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let mut names =
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

fn folder() -> PathBuf {
    root().join("tests/fuzz")
}

/// `[TARGET ...] [--seconds N] [--seed N] [--blind]`
pub fn run(args: &[String]) -> Result<()> {
    let args = Args::read(args)?;
    let reason = match std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned()) {
        _ if args.blindly => "--blind was given".to_owned(),
        _ if !cfg!(all(target_os = "linux", target_env = "gnu")) => "it is guided on Linux only".to_owned(),
        compiler if !exists(&compiler) => format!("{compiler} is not here, and libFuzzer needs a C++ compiler"),
        _ => {
            say("fuzz: inputs are chosen by the code that they reach (libFuzzer)");
            return guided(&args);
        }
    };
    say(&format!("fuzz: inputs are changed blindly: {reason}"));
    args.targets.iter().try_for_each(|target| blindly(target, &args))
}

fn blindly(target: &str, args: &Args) -> Result<()> {
    let mut command = cargo();
    command.args(["test", "--release", "--package", "tdb-tests", "--test", "fuzz", "--", "--nocapture"]);
    command.env("TDB_FUZZ_SECONDS", args.seconds.to_string()).env("TDB_FUZZ_SEED", args.seed.to_string());
    must(command.env("TDB_FUZZ_TARGET", target))
}

/// Builds the targets, and runs one after the other; what reached something new is kept in `target/fuzz`, where the next
/// run finds it.
fn guided(args: &Args) -> Result<()> {
    let program = build()?;
    for target in &args.targets {
        let [found, crashes] = ["corpus", "crashes"].map(|part| root().join("target/fuzz").join(part).join(target));
        for folder in [&found, &crashes] {
            fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        say(&format!("fuzz: {target} for {} s; what it stops at will be in {}", args.seconds, crashes.display()));
        let mut command = Command::new(&program);
        command.env("TDB_FUZZ_TARGET", target).arg(&found).arg(folder().join("corpus").join(target));
        command
            .arg(format!("-artifact_prefix={}/", crashes.display()))
            .arg(format!("-max_total_time={}", args.seconds));
        command.arg(format!("-timeout={MOST_SECONDS}")).arg(format!("-rss_limit_mb={MOST_MEGABYTES}"));
        command.args(["-max_len=65536", "-print_final_stats=1"]).arg(format!("-seed={}", args.seed));
        must(&mut command)?;
    }
    Ok(())
}

/// The program with all targets. The target's triple is named, so that build scripts and macros are compiled as usual.
fn build() -> Result<PathBuf> {
    let host = Command::new("rustc").arg("-vV").output().context("rustc does not start")?;
    let host = String::from_utf8_lossy(&host.stdout).into_owned();
    let triple = host.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc does not say its host")?;
    // Other people's code as the program has it.
    fs::copy(root().join("Cargo.lock"), folder().join("Cargo.lock")).context("Cargo.lock cannot be copied")?;
    let target = root().join("target/fuzz/build");
    let mut command = cargo();
    command.args(["build", "--release", "--target", triple, "--manifest-path"]).arg(folder().join("Cargo.toml"));
    must(command.env("CARGO_TARGET_DIR", &target).env("RUSTFLAGS", COVERAGE))?;
    let program = target.join(triple).join("release/any");
    ensure!(program.is_file(), "{} was not built", program.display());
    Ok(program)
}
