//! The signals that end the server.

use std::io;

/// Resolves with the first signal to end: Ctrl-C, SIGTERM, or SIGHUP where it is not ignored. A second one ends the
/// process at once.
///
/// # Errors
/// If the system lets no signals be received.
#[cfg(unix)]
pub fn signalled() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = if hangup_is_ignored() { None } else { Some(signal(SignalKind::hangup())?) };
    let mut next = async move || {
        let hangup = async {
            match &mut hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = interrupt.recv() => ("Ctrl-C", 2),
            _ = terminate.recv() => ("SIGTERM", 15),
            _ = hangup => ("SIGHUP", 1),
        }
    };
    Ok(async move {
        let (name, _) = next().await;
        tracing::info!("{name}: finishing what was begun; a second signal ends at once");
        tokio::spawn(async move {
            let (name, number) = next().await;
            tracing::warn!("{name}: ended at once");
            // As a shell tells that a signal ended a program.
            std::process::exit(128 + number);
        });
    })
}

#[cfg(not(unix))]
pub fn signalled() -> io::Result<impl Future<Output = ()>> {
    Ok(async {
        // Without a handler the signal ends the process by itself.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}

/// Whether the process was started to outlive its terminal, as `nohup` does.
#[cfg(unix)]
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}
