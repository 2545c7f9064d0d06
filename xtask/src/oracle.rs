//! Replays what the reference was asked and answered against `tdb serve`, on weights computed here.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use regex_lite::Regex;
use tdb_testkit::golden::replay::{Differences, Options, Verbosity};
use tdb_testkit::golden::{Case, Folder, Rules};
use tdb_testkit::oracle::Oracle;

use crate::commands::{cargo, root, run as must};

/// Where the recorded answers lie: `$TDB_ORACLE`, else `../shared/oracle`.
pub fn folder() -> PathBuf {
    std::env::var_os("TDB_ORACLE").map_or_else(|| root().join("../shared/oracle"), PathBuf::from)
}

struct Request {
    goldens: PathBuf,
    only: Option<Regex>,
    configs: Vec<String>,
    binary: Option<PathBuf>,
    verbosity: Verbosity,
    allow_extra: bool,
}

impl Request {
    fn parse(args: &[String]) -> Result<Self> {
        let mut request = Self {
            goldens: folder().join("goldens"),
            only: None,
            configs: Vec::new(),
            binary: None,
            verbosity: Verbosity::Failures,
            allow_extra: false,
        };
        let mut args = args.iter().peekable();
        while let Some(arg) = args.next() {
            let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "--only" => request.only = Some(Regex::new(value()?).context("--only")?),
                "--goldens" => request.goldens = value()?.into(),
                "--binary" => request.binary = Some(value()?.into()),
                "--verbose" => request.verbosity = Verbosity::All,
                "--allow-extra" => request.allow_extra = true,
                "--configs" => {
                    while let Some(name) = args.next_if(|a| !a.starts_with("--")) {
                        request.configs.push(name.clone());
                    }
                }
                other => bail!("oracle {other}: unknown; see `cargo xtask help`"),
            }
        }
        Ok(request)
    }
}

pub fn run(args: &[String]) -> Result<()> {
    let request = Request::parse(args)?;
    ensure!(request.goldens.is_dir(), "{}: no such folder; TDB_ORACLE names the oracle's", request.goldens.display());
    let binary = match &request.binary {
        Some(path) => path.clone(),
        None => {
            must(cargo().args(["build", "--package", "tdb-server", "--bin", "tdb"]))?;
            root().join("target/debug").join(format!("tdb{}", std::env::consts::EXE_SUFFIX))
        }
    };
    let options = Options {
        rules: Rules { allow_extra: request.allow_extra, ..Rules::default() },
        differences: Differences::load(&root().join("tests/differences.txt"))?,
        verbosity: request.verbosity,
    };
    let oracle = Oracle {
        goldens: request.goldens,
        records: folder().join("records").canonicalize().ok(),
        binary,
        work: root().join("target/oracle-weights"),
    };
    let wanted = |folder: &Folder, case: &Case| {
        let name = case.name.rsplit('/').next().unwrap_or(&case.name);
        (request.configs.is_empty() || request.configs.contains(&folder.name))
            && request.only.as_ref().is_none_or(|regex| regex.is_match(name))
    };
    let total = oracle.replay(&options, wanted, |line| println!("{line}"))?;
    println!("{total}");
    println!("{} passed, {} failed", total.passed, total.failed);
    ensure!(total.failed == 0 && total.passed > 0, "the oracle disagrees");
    Ok(())
}
