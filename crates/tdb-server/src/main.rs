//! The command `tdb`.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Keeps the pages of tensors that are no longer needed for the next ones, and gives them back after a peak: with the
/// system's allocator a pass over 256 tokens of GPT-2 small's shape takes a fifth longer.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    one_candle_thread();
    match tdb_server::cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tdb: {}", tdb_server::cli::sentence(&error));
            ExitCode::FAILURE
        }
    }
}

/// Candle's own elementwise operations stay on the thread that asks. Its pool takes one caller at a time and waits in a
/// loop for its threads, so that requests side by side, or other work on the machine, made each wait for the other: a
/// fifth of the time of a question of 64 tokens. This program's operations divide their work themselves.
#[allow(unsafe_code, reason = "the environment is changed before there is a second thread")]
fn one_candle_thread() {
    const VARIABLE: &str = "CANDLE_NUM_THREADS";
    if std::env::var_os(VARIABLE).is_none() {
        // SAFETY: no other thread runs yet.
        unsafe { std::env::set_var(VARIABLE, "1") };
    }
}
