//! Benchmarks.

mod http;

use anyhow::{Result, bail};

pub fn run(args: &[String]) -> Result<()> {
    match args.split_first() {
        Some((what, rest)) if what == "http" => http::run(rest),
        Some((what, _)) => bail!("bench {what}: the benchmarks are: http"),
        None => http::run(&[]),
    }
}
