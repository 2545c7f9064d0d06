//! Benchmarks.

mod beside;
mod browser;
mod dictionaries;
mod effects;
mod floor;
mod http;
mod load;

use anyhow::{Result, bail};

pub fn run(args: &[String]) -> Result<()> {
    match args.split_first() {
        Some((what, rest)) if what == "http" => http::run(rest),
        Some((what, rest)) if what == "browser" => browser::run(rest),
        Some((what, rest)) if what == "load" => load::run(rest),
        Some((what, rest)) if what == "beside" => beside::run(rest),
        Some((what, rest)) if what == "effects" => effects::run(rest),
        Some((what, rest)) if what == "dictionaries" => dictionaries::run(rest),
        Some((what, rest)) if what == "cluster" => crate::cluster::bench(rest),
        Some((what, _)) => {
            bail!("bench {what}: the benchmarks are: http, browser, load, beside, effects, dictionaries, cluster")
        }
        None => http::run(&[]).and_then(|()| browser::run(&[])),
    }
}
