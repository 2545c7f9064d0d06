//! The command line.
//!
//! Each subcommand is a file here with `pub struct Args` (a `clap::Args` whose doc comment is its help) and
//! `pub fn run(args: &Args) -> anyhow::Result<()>`. A new one needs three lines below: its module, its variant of
//! [`Command`] and its arm in [`run`]. What goes wrong is returned as an error; its causes become one sentence. What is
//! printed goes through [`output`].

#![deny(clippy::print_stdout)]

mod cache;
pub mod collate;
mod device;
mod dictionary;
mod embedded;
mod eval;
mod explain;
mod fetch;
pub mod library;
mod model;
mod output;
mod progress;
pub mod runtime;
mod serve;
mod stopping;
mod train;
mod train_sae;
mod verify;

use crate::ui::Pages;
use anyhow::Context;
use clap::{Parser, Subcommand};
use std::ops::RangeInclusive;

/// Transformer Debugger: why does a model say one token rather than another?
///
/// Without a command, `tdb` serves the debugger.
#[derive(Debug, Parser)]
#[command(name = "tdb", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: serve::Args,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Args),
    Train(train::Args),
    Eval(eval::Args),
    TrainSae(train_sae::Args),
    Collate(collate::Args),
    Fetch(fetch::Args),
    Cache(cache::Args),
    Explain(explain::Args),
    Verify(verify::Args),
}

/// Does what the command line says; `pages` are those that a server shows.
///
/// # Errors
/// Whatever kept it from being done; [`sentence`] says it in one.
pub fn run(pages: Pages) -> anyhow::Result<()> {
    let cli = Cli::parse();
    runtime::keep_going_at_the_largest_file().context("no signals can be received")?;
    match &cli.command {
        None => serve::run(&cli.serve, pages),
        Some(Command::Serve(args)) => serve::run(args, pages),
        Some(Command::Train(args)) => train::run(args),
        Some(Command::Eval(args)) => eval::run(args),
        Some(Command::TrainSae(args)) => train_sae::run(args),
        Some(Command::Collate(args)) => collate::run(args),
        Some(Command::Fetch(args)) => fetch::run(args),
        Some(Command::Cache(args)) => cache::run(args),
        Some(Command::Explain(args)) => explain::run(args),
        Some(Command::Verify(args)) => verify::run(args),
    }
}

/// Refuses sizes that no machine has memory for.
///
/// # Errors
/// If `value` is not in `range`.
fn within(name: &str, value: usize, range: RangeInclusive<usize>) -> anyhow::Result<()> {
    let (least, most) = (range.start(), range.end());
    anyhow::ensure!(range.contains(&value), "{name} is {value}; it can be from {least} to {most}");
    Ok(())
}

/// An error and its causes in one line. A cause that the error's own text repeats is left out.
pub fn sentence(error: &anyhow::Error) -> String {
    let mut out = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !out.contains(&cause) {
            out = format!("{out}: {cause}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn serve_args(line: &str) -> serve::Args {
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        match cli.command {
            Some(Command::Serve(args)) => args,
            None => cli.serve,
            Some(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn xtask_knows_the_options_of_serve() {
        let mut command = Cli::command();
        let serve = command.find_subcommand_mut("serve").unwrap();
        let mut names = std::collections::BTreeSet::new();
        for argument in serve.get_arguments().filter(|argument| argument.get_id() != "plant_fault") {
            names.extend(argument.get_long().map(str::to_owned));
            names.extend(argument.get_all_aliases().unwrap_or_default().into_iter().map(str::to_owned));
        }
        names.remove("help");
        let known: Vec<&str> = include_str!("../../../../xtask/src/serve-options.txt").lines().collect();
        assert_eq!(names.iter().map(String::as_str).collect::<Vec<_>>(), known);
    }

    #[test]
    fn flags_alone_mean_serve() {
        let args = serve_args("tdb --model tiny --port 1234");
        assert_eq!((args.model.model.as_deref(), args.port), (Some("tiny"), 1234));
        assert_eq!(serve_args("tdb").model.model, None);
    }

    #[test]
    fn the_references_flags_are_understood() {
        let line = "tdb serve --model_name tiny-a --mlp_autoencoder_name m --attn_autoencoder_name=a --run_model False \
                    --host_name localhost --neuron_method baseline --attention_head_method baseline \
                    --cuda_memory_debugging True --port 8820";
        let args = serve_args(line);
        assert_eq!(args.model.model.as_deref(), Some("tiny-a"));
        assert_eq!(args.model.mlp_autoencoder.as_deref(), Some("m"));
        assert_eq!(args.model.attn_autoencoder.as_deref(), Some("a"));
        assert_eq!(args.host, "localhost");
        assert!(!args.run_model && args.cuda_memory_debugging);
        assert!(serve_args("tdb serve").run_model);
        assert!(!serve_args("tdb serve --run_model=false").run_model);
    }

    #[test]
    fn causes_become_one_sentence() {
        let error = anyhow::anyhow!("file is gone").context("the model cannot be read").context("no start");
        assert_eq!(sentence(&error), "no start: the model cannot be read: file is gone");
        let repeated = anyhow::anyhow!("gone").context("it is gone");
        assert_eq!(sentence(&repeated), "it is gone");
    }
}
