//! The command `tdb-cluster`: a collation on several machines.
//!
//! ```text
//! scheduler   one process; says which worker makes which work unit
//! worker      one process on each machine; opens the model and makes work units with all cores
//! collate     whoever wants a collation: checks it, submits it, shows how far it is, and cancels it with ctrl-C
//!
//! job         what is to be done, as it travels     plan     its steps as tasks of Ballista
//! work_exec   the operator that does a task          codec    how it travels
//! workshop    a worker's opened models and texts     rows     what a task is given: names and checksums
//! pulse       whether a unit still goes on            interrupt  Ctrl-C
//! ```
//!
//! **Invariant.** What is finished is in the object store, whole, and only that counts: the scheduler knows nothing that
//! could not be lost.

mod codec;
mod collate;
mod interrupt;
mod job;
mod plan;
mod progress;
mod pulse;
mod rows;
mod scheduler;
mod version;
mod work_exec;
mod worker;
mod workshop;

use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use mimalloc::MiMalloc;
use tdb_server::cli::{runtime, sentence};

/// As `tdb` has it, for the same reason.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Collate on several machines: a scheduler, workers, and an object store that holds what is finished
#[derive(Debug, Parser)]
#[command(name = "tdb-cluster", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Scheduler(scheduler::Args),
    Worker(worker::Args),
    Collate(Box<collate::Args>),
}

fn main() -> ExitCode {
    runtime::one_candle_thread();
    let filter = tracing_subscriber::EnvFilter::try_from_env("TDB_LOG");
    let filter = filter.unwrap_or_else(|_| "error,tdb_cluster=info".into());
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).with_env_filter(filter).init();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tdb-cluster: {}", sentence(&error));
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let cli = Cli::parse();
    runtime::keep_going_at_the_largest_file().context("no signals can be received")?;
    match &cli.command {
        Command::Scheduler(args) => scheduler::run(args),
        Command::Worker(args) => worker::run(args),
        Command::Collate(args) => collate::run(args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }
}
