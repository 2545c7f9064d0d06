//! What a command needs before it begins: threads of the system, candle on one, and no signal that ends the program in
//! place of an error.

use std::sync::RwLock;
use std::thread::{Builder, available_parallelism, scope};

use anyhow::Context;
use tokio::runtime::Runtime;

/// A runtime on all cores. As many threads are started and ended before: where the system gives none (`ulimit -u`),
/// tokio would end the program with a panic.
///
/// # Errors
/// If the system gives too few threads.
pub fn new() -> anyhow::Result<Runtime> {
    const WHAT: &str = "the system does not give this program the threads that it needs";
    let count = available_parallelism().map_or(1, usize::from) + 1;
    let gate = RwLock::new(());
    scope(|scope| {
        let closed = gate.write();
        let threads: std::io::Result<Vec<_>> =
            (0..count).map(|_| Builder::new().spawn_scoped(scope, || drop(gate.read()))).collect();
        drop(closed);
        threads.map(|_| ())
    })
    .context(WHAT)?;
    Runtime::new().context(WHAT)
}

/// A write beyond the largest size that files may have (`ulimit -f`) is an error of the write, as a full disk is; it
/// does not end the program.
///
/// # Errors
/// If the system lets no signals be received.
#[cfg(unix)]
pub fn keep_going_at_the_largest_file() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    /// On Linux, macOS and the BSDs.
    const FILE_TOO_LARGE: i32 = 25;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Once received it never has its usual effect again.
    runtime.block_on(async { signal(SignalKind::from_raw(FILE_TOO_LARGE)).map(|_| ()) })?;
    Ok(())
}

/// There is no such signal.
///
/// # Errors
/// None.
#[cfg(not(unix))]
pub fn keep_going_at_the_largest_file() -> anyhow::Result<()> {
    Ok(())
}

/// Candle's own elementwise operations stay on the thread that asks. Its pool takes one caller at a time and waits in a
/// loop for its threads, so that requests side by side, or other work on the machine, made each wait for the other: a
/// fifth of the time of a question of 64 tokens. This program's operations divide their work themselves.
///
/// To be called before there is a second thread: it sets a variable of the environment.
#[allow(unsafe_code, reason = "the environment is changed before there is a second thread")]
pub fn one_candle_thread() {
    const VARIABLE: &str = "CANDLE_NUM_THREADS";
    if std::env::var_os(VARIABLE).is_none() {
        // SAFETY: no other thread runs yet.
        unsafe { std::env::set_var(VARIABLE, "1") };
    }
}
