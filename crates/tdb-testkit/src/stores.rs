//! Object stores on this machine: Azurite, its maker's own stand-in for Azure Blob Storage, and s3rver, which speaks S3 (and,
//! in reading, what Google Cloud Storage calls its XML interface). Both come from npm by `cargo xtask setup npm`.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use tempfile::TempDir;

use crate::http;
use crate::server::free_port;

/// Starting took 38 s once, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A program from npm that listens on a port of its own and keeps its data in a folder of its own. Ends with the handle.
struct Process {
    child: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl Process {
    fn start(program: &str, arguments: impl Fn(u16, &Path) -> Vec<String>) -> Result<Self> {
        let program = packages().join(program);
        ensure!(program.is_file(), "{} is not there: run `cargo xtask setup npm`", program.display());
        let (folder, port) = (tempfile::tempdir()?, free_port()?);
        let child = Command::new("node")
            .arg(program)
            .args(arguments(port, folder.path()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("Node.js is needed to start an object store")?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let process = Self { child, address, _folder: folder };
        let begin = Instant::now();
        while TcpStream::connect_timeout(&address, PATIENCE).is_err() {
            ensure!(begin.elapsed() < PATIENCE, "the object store does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(process)
    }

    fn put(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<()> {
        let answer = http::request(self.address, "PUT", path, headers, Some(body), PATIENCE)?;
        let text = String::from_utf8_lossy(&answer.body);
        ensure!((200..300).contains(&answer.status), "{path}: {} {text}", answer.status);
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; there is nobody to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn packages() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/npm/node_modules")
}

/// Azure Blob Storage.
pub struct Azurite(Process);

impl Azurite {
    pub const ACCOUNT: &str = "devstoreaccount1";
    /// Its key is the same everywhere and no secret.
    pub const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

    /// # Errors
    /// When it is not installed or does not start.
    pub fn start() -> Result<Self> {
        let arguments = |port: u16, folder: &Path| {
            let fixed = ["--blobHost", "127.0.0.1", "--silent", "--skipApiVersionCheck", "--disableTelemetry"];
            let more =
                ["--blobPort".to_owned(), port.to_string(), "--location".to_owned(), folder.display().to_string()];
            fixed.map(str::to_owned).into_iter().chain(more).collect()
        };
        Process::start("azurite/dist/src/blob/main.js", arguments).map(Self)
    }

    /// What its locations begin with.
    pub fn endpoint(&self) -> String {
        format!("http://{}/{}", self.0.address, Self::ACCOUNT)
    }

    /// Creates a container, with anonymous access if it is public.
    ///
    /// # Errors
    /// When it is there already.
    pub fn container(&self, name: &str, public: bool) -> Result<()> {
        let access = public.then_some(("x-ms-blob-public-access", "container"));
        self.signed(&format!("/{name}"), "restype", "container", access, &[])
    }

    /// Stores a blob.
    ///
    /// # Errors
    /// When the container is not there.
    pub fn put(&self, container: &str, path: &str, content: &[u8]) -> Result<()> {
        let path = format!("/{container}/{}", path.replace(' ', "%20"));
        self.signed(&path, "", "", Some(("x-ms-blob-type", "BlockBlob")), content)
    }

    /// A request signed with the account's key, with at most one parameter and one header of its own.
    fn signed(
        &self,
        path: &str,
        parameter: &str,
        value: &str,
        header: Option<(&str, &str)>,
        body: &[u8],
    ) -> Result<()> {
        let answer = http::request(self.0.address, "GET", "/", &[], None, PATIENCE)?;
        let date = answer.header("date").context("the store does not say what time it is")?.to_owned();
        let mut headers = vec![("x-ms-date", date.as_str()), ("x-ms-version", "2021-12-02")];
        headers.extend(header);
        headers.sort_unstable();
        let mut listed: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let (account, length) = (Self::ACCOUNT, if body.is_empty() { String::new() } else { body.len().to_string() });
        listed += &format!("/{account}/{account}{path}");
        if !parameter.is_empty() {
            listed += &format!("\n{parameter}:{value}");
        }
        let text = format!("PUT\n\n\n{length}\n\napplication/octet-stream\n\n\n\n\n\n\n{listed}");
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &BASE64_STANDARD.decode(Self::KEY)?);
        let signature = BASE64_STANDARD.encode(ring::hmac::sign(&key, text.as_bytes()));
        let authorization = format!("SharedKey {account}:{signature}");
        headers.extend([("content-type", "application/octet-stream"), ("authorization", authorization.as_str())]);
        let query = if parameter.is_empty() { String::new() } else { format!("?{parameter}={value}") };
        self.0.put(&format!("/{account}{path}{query}"), &headers, body)
    }
}

/// A store that speaks S3. It answers requests without signature and refuses keys that it does not know; signatures of version
/// 4 themselves it does not check.
pub struct S3(Process);

impl S3 {
    /// Its access key and its secret one.
    pub const KEYS: [&str; 2] = ["S3RVER", "S3RVER"];

    /// # Errors
    /// When it is not installed or does not start.
    pub fn start(bucket: &str) -> Result<Self> {
        let arguments = |port: u16, folder: &Path| {
            let fixed = ["--address", "127.0.0.1", "--silent", "--no-vhost-buckets", "--configure-bucket", bucket];
            let more = ["--port".to_owned(), port.to_string(), "--directory".to_owned(), folder.display().to_string()];
            fixed.map(str::to_owned).into_iter().chain(more).collect()
        };
        Process::start("s3rver/bin/s3rver.js", arguments).map(Self)
    }

    /// Its address.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.0.address)
    }

    /// Stores an object.
    ///
    /// # Errors
    /// When the bucket is not there.
    pub fn put(&self, bucket: &str, path: &str, content: &[u8]) -> Result<()> {
        self.0.put(&format!("/{bucket}/{path}"), &[("content-type", "application/octet-stream")], content)
    }
}
