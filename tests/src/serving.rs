//! Where things are, and a server to talk to.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use tdb_testkit::server::{self, Server};

/// The workspace's root folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A folder for files that tests leave behind, below `target`.
///
/// # Errors
/// When it cannot be made.
pub fn scratch(name: &str) -> Result<PathBuf> {
    let folder = root().join("target/tmp").join(name);
    std::fs::create_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
    Ok(folder)
}

/// Starts `tdb serve <args>` (without arguments: with the embedded model) on a free port.
///
/// # Errors
/// When the program is not built or does not start; says why.
pub fn serve(args: &[&str]) -> Result<Server> {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let n = COUNT.fetch_add(1, Ordering::Relaxed);
    let log = scratch("servers")?.join(format!("{}-{n}.log", std::process::id()));
    let args: Vec<String> = args.iter().map(|&a| a.to_owned()).collect();
    Server::start(&server::binary()?, &args, &log, Duration::from_secs(120))
}
