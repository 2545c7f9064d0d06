//! `cargo xtask`: the one place for set-up, build, test and benchmarks.

mod bench;
mod cluster;
mod commands;
mod fuzz;
mod oracle;
mod python;
mod screenshots;
mod serve;
mod setup;
mod test;
mod ui;

use anyhow::{Result, bail};

const HELP: &str = "\
cargo xtask run [ARGUMENTS OF tdb serve]   set up what is missing, build, serve the debugger and print its address
cargo xtask test [PART ...]                every check; or the parts named: setup, ui, fmt, lints, build,
                                           tests, python; cluster, which compiles DataFusion, only if named
cargo xtask setup [wasm|browser|npm]       what a machine needs besides cargo: say what is missing and install it
cargo xtask ui [--dev]                     build the pages into crates/tdb-ui/dist; --dev: quick, large, with debug info
cargo xtask oracle [--only REGEX] [--configs FOLDER ...] [--verbose] [--goldens DIR] [--binary TDB]
                                           replay recorded requests of the reference against tdb serve
cargo xtask bench http [--only NAME ...] [--runs N] [--configs CONFIG ...] [--binary TDB] [--against TDB|http://HOST:PORT [--pid N]]
                                           latency and memory of a GPT-2-small-sized model beside the reference's;
                                           --against: two servers answer the same requests in turn; --pid: the process of
                                           one that runs already, whose processor time is told then
cargo xtask bench effects [speed] [by-hand] [patches] [estimates] [alarms] [--requests N]
                                           exact effects and patches: time, ablations by hand, runs of their own,
                                           distance to estimates and bounds, false alarms
cargo xtask bench dictionaries [LATENTS ...]
                                           memory and time of wide dictionaries
cargo xtask bench cluster                  what tdb-cluster costs beside tdb collate, with one worker and with two (compiles
                                           DataFusion)
cargo xtask bench browser [RUNS]           first paint, bytes, scrolling and typing in Chromium beside their targets
cargo xtask fuzz [TARGET ...] [--seconds N] [--seed N] [--blind]
                                           damaged input for every reader, an hour each; stops at the first panic. With a
                                           C++ compiler guided by the code that is reached, else changed blindly
cargo xtask bench load [--seconds N] [--clients N] [--binary TDB]
                                           ten minutes of a hundred clients: valid, invalid, gone, slow, not reading
cargo xtask bench beside [--runs N] [--binary TDB]
                                           small questions alone, and beside giant ones, medium ones and
                                           samples of another address
cargo xtask screenshots [DIR] [--docs]     pictures of the pages, light and dark; --docs renews those in docs";

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let command = args.next().unwrap_or_default();
    let args: Vec<String> = args.collect();
    match command.as_str() {
        "run" => serve::run(&args),
        "test" => test::run(&args),
        "setup" => setup::run(&args),
        "ui" => ui::run(&args),
        "oracle" => oracle::run(&args),
        "bench" => bench::run(&args),
        "fuzz" => fuzz::run(&args),
        "screenshots" => screenshots::run(&args),
        "" | "help" | "--help" | "-h" => {
            println!("{HELP}");
            Ok(())
        }
        other => bail!("{other}: no such command\n\n{HELP}"),
    }
}
