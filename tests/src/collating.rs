//! Collations by the program itself, in folders and stores of their own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tdb_testkit::stores::Azurite;
use tdb_testkit::{http, server};

/// Settings under which the results are the same bytes whoever makes them.
pub const SETTINGS: &str = "--k 5 --random 4 --tokens 20 --date 2026-01-31T12:00:00Z";

/// Variables under which `tdb` finds a store.
pub type Variables = Vec<(&'static str, String)>;

const WAIT: Duration = Duration::from_secs(30);

/// A program that runs in `folder`, finds `tdb` first of all programs, and no store but that of `variables`.
///
/// # Errors
/// If `tdb` is not built.
pub fn command(program: &str, folder: &Path, variables: &Variables) -> Result<Command> {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if ["AWS_", "AZURE_", "GOOGLE_", "STORAGE_", "TDB_"].iter().any(|prefix| name.starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    let binary = server::binary()?;
    let first = binary.parent().context("tdb lies in no folder")?.to_owned();
    let others = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(first).chain(std::env::split_paths(&others)))?;
    command.current_dir(folder).env("PATH", path).env("TDB_CACHE", folder.join("cache"));
    command.envs(variables.iter().map(|(name, value)| (*name, value.as_str())));
    Ok(command)
}

/// Whether a program succeeded, and what it said.
pub fn said(output: Output) -> (bool, String) {
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// Runs `tdb`.
///
/// # Errors
/// If it is not built.
pub fn tdb(folder: &Path, variables: &Variables, line: &str) -> Result<(bool, String)> {
    Ok(said(command("tdb", folder, variables)?.args(line.split_whitespace()).output()?))
}

/// Runs `tdb`, which must succeed.
///
/// # Errors
/// If it does not.
pub fn done(folder: &Path, variables: &Variables, line: &str) -> Result<String> {
    let (ok, text) = tdb(folder, variables, line)?;
    ensure!(ok, "{line}: {text}");
    Ok(text)
}

/// Writes `my.txt` with so many short documents.
///
/// # Errors
/// If it cannot be written.
pub fn write_text(folder: &Path, documents: usize) -> Result<()> {
    let one = |i: usize| format!("When Mary and John went to shop {}, John gave a drink to Anna number {i}.", i % 7);
    Ok(std::fs::write(folder.join("my.txt"), (0..documents).map(one).collect::<Vec<_>>().join("\n\n"))?)
}

/// Names and contents of all results below a folder.
///
/// # Errors
/// If it cannot be read, or holds less than a collation makes.
pub fn results(folder: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let (mut out, mut open): (_, Vec<PathBuf>) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next)? {
            let path = entry?.path();
            let name = path.strip_prefix(folder)?.display().to_string();
            match path.is_dir() {
                true if name != "summaries" => open.push(path),
                true => {}
                false => out.push((name, std::fs::read(&path)?)),
            }
        }
    }
    ensure!(out.len() >= 9, "{} files", out.len());
    Ok(out)
}

/// What is in Azurite's container, which anybody may read.
pub struct Container {
    address: SocketAddr,
    path: String,
}

impl Container {
    /// The name of the container.
    pub const NAME: &str = "container";

    /// A new one.
    ///
    /// # Errors
    /// If there is one.
    pub fn new(azurite: &Azurite) -> Result<Self> {
        azurite.container(Self::NAME, true)?;
        let endpoint = azurite.endpoint();
        let (address, account) = endpoint.trim_start_matches("http://").split_once('/').context("no account")?;
        Ok(Self { address: address.parse()?, path: format!("/{account}/{}", Self::NAME) })
    }

    /// The content of a file.
    ///
    /// # Errors
    /// If it is not there.
    pub fn get(&self, name: &str) -> Result<Vec<u8>> {
        let found = http::request(self.address, "GET", &format!("{}/{name}", self.path), &[], None, WAIT)?;
        ensure!(found.status == 200, "{name}: {}", found.status);
        Ok(found.body)
    }

    /// The names of all files.
    ///
    /// # Errors
    /// If the store does not answer.
    pub fn list(&self) -> Result<Vec<String>> {
        let path = format!("{}?restype=container&comp=list", self.path);
        let found = http::request(self.address, "GET", &path, &[("x-ms-version", "2021-12-02")], None, WAIT)?;
        let text = String::from_utf8(found.body)?;
        let names = text.split("<Name>").skip(1).filter_map(|rest| rest.split("</Name>").next());
        Ok(names.map(str::to_owned).collect())
    }

    /// The names of the summaries.
    ///
    /// # Errors
    /// If the store does not answer.
    pub fn summaries(&self) -> Result<Vec<String>> {
        Ok(self.list()?.into_iter().filter(|name| name.ends_with(".summary")).collect())
    }
}
