//! A `tdb serve` of one's own, on a free port, that ends with its handle.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::golden::Case;
use crate::golden::replay::Reply;
use crate::http;

/// A running server; dropping it ends the process.
#[derive(Debug)]
pub struct Server {
    child: Child,
    pub address: SocketAddr,
}

/// A port of this machine that nobody listened on a moment ago.
///
/// # Errors
/// When the system has none.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    Ok(listener.local_addr()?.port())
}

impl Server {
    /// Starts `binary serve <args> --port <free port>` with its output in `log`, and waits until it answers.
    ///
    /// # Errors
    /// When it cannot be started, ends by itself (with the end of its log), or is silent for `patience`.
    pub fn start(binary: &Path, args: &[String], log: &Path, patience: Duration) -> Result<Self> {
        let port = free_port()?;
        let out = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = Command::new(binary)
            .arg("serve")
            .args(args)
            .args(["--port", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let mut server = Self { child, address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)) };
        let deadline = Instant::now() + patience;
        loop {
            let answer = http::request(server.address, "GET", "/", &[], None, Duration::from_secs(5));
            if answer.is_ok_and(|r| r.status < 500) {
                return Ok(server);
            }
            if let Some(status) = server.child.try_wait()? {
                bail!("{} serve {} ended ({status}):\n{}", binary.display(), args.join(" "), tail(log));
            }
            if Instant::now() > deadline {
                bail!("{} serve {}: no answer in {patience:?}:\n{}", binary.display(), args.join(" "), tail(log));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a golden's request.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn send(&self, case: &Case) -> Result<Reply> {
        let body = case.body();
        let timeout = Duration::from_secs(600);
        let response = http::request(self.address, &case.method, &case.path, &[], body.as_deref(), timeout)?;
        Ok(Reply::parse(response.status, &response.body))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already; there is nobody to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// The `tdb` binary that cargo built into the same folder as the running test, example or tool.
///
/// # Errors
/// When there is none; says how to make it.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("TDB_BINARY") {
        return Ok(path.into());
    }
    let exe = std::env::current_exe().context("where is this program?")?;
    let name = format!("tdb{}", std::env::consts::EXE_SUFFIX);
    // target/<profile>/deps/<test>, target/<profile>/examples/<example> or target/<profile>/<tool>
    let found = exe.ancestors().skip(1).take(2).map(|folder| folder.join(&name)).find(|path| path.is_file());
    found.with_context(|| format!("no {name} beside {}; build it with `cargo build -p tdb-server`", exe.display()))
}
