//! What a command needs of the system before it begins: threads, and no signal that ends it in place of an error.

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
