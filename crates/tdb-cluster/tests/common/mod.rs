//! A scheduler, workers and a client as processes, which are killed as they are needed.

#![allow(dead_code, clippy::unwrap_used)] // a test that cannot go on says where

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tdb_testkit::server::free_port;
use tdb_testkit::stores::Azurite;

/// For things that happen by themselves, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(240);

/// Settings under which the results are the same bytes whoever makes them.
pub const SETTINGS: &str = "--k 5 --random 4 --tokens 24 --date 2026-01-31T12:00:00Z";

/// Eight shards of two ranges of layers.
pub const CUT: &str = "--shards 8 --layers-at-once 2";
pub const UNITS: usize = 16;

/// The variable with the key to the store.
pub const KEY: &str = "AZURE_STORAGE_ACCOUNT_KEY";

const CONTAINER: &str = "container";

/// A process with its output in a file; it is killed with its handle.
pub struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    fn start(mut command: Command, log: PathBuf) -> Self {
        let out = File::create(&log).unwrap();
        command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out);
        Self { child: command.spawn().unwrap(), log }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    pub fn interrupt(&self) {
        assert!(Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap().success());
    }

    /// Whether it succeeded, and what it said.
    pub fn end(mut self) -> (bool, String) {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status.success(), self.log());
            }
            assert!(begin.elapsed() < PATIENCE, "it does not end: {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn wait_for(&self, what: &str) {
        wait_until(what, || self.log().contains(what));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already; there is nobody to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn wait_until(what: &str, reached: impl Fn() -> bool) {
    let begin = Instant::now();
    while !reached() {
        assert!(begin.elapsed() < PATIENCE, "it never came to that: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A folder with a text, a scheduler's port and, if wanted, a store.
pub struct Site {
    folder: tempfile::TempDir,
    pub port: u16,
    store: Option<Azurite>,
}

impl Site {
    /// With a text of so many documents.
    pub fn new(documents: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let names = ["Mary", "John", "Anna", "Tom", "Sarah"];
        let one = |i: usize| {
            let (a, b, place) = (names[i % 5], names[(i / 5 + i + 1) % 5], ["store", "park", "school", "river"][i % 4]);
            format!("When {a} and {b} went to the {place}, {b} gave a drink to {a} number {i}.")
        };
        let text = (0..documents).map(one).collect::<Vec<_>>().join("\n\n");
        fs::write(folder.path().join("my.txt"), text).unwrap();
        Self { folder, port: free_port().unwrap(), store: None }
    }

    /// With results in a store.
    pub fn with_store(self) -> Self {
        let store = Azurite::start().unwrap();
        store.container(CONTAINER, true).unwrap();
        Self { store: Some(store), ..self }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where results go by the name `out`.
    pub fn out(&self) -> String {
        match self.store {
            Some(_) => format!("az://{}/{CONTAINER}/out", Azurite::ACCOUNT),
            None => self.folder().join("out").display().to_string(),
        }
    }

    fn command(&self, program: &Path, line: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.folder()).args(line.split_whitespace()).env("TDB_CACHE", self.folder().join("cache"));
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            let of_store = ["AWS_", "AZURE_", "GOOGLE_", "STORAGE_"].iter().any(|prefix| name.starts_with(prefix));
            if of_store || (name.starts_with("TDB_") && name != "TDB_CACHE") {
                command.env_remove(name);
            }
        }
        if let Some(store) = &self.store {
            command.env("AZURE_STORAGE_ENDPOINT", store.endpoint()).env(KEY, Azurite::KEY);
        }
        command
    }

    fn cluster(&self, line: &str) -> Command {
        self.command(Path::new(env!("CARGO_BIN_EXE_tdb-cluster")), line)
    }

    fn start(&self, line: &str, log: &str) -> Running {
        Running::start(self.cluster(line), self.folder().join(log))
    }

    pub fn scheduler(&self, log: &str) -> Running {
        let running = self.start(&format!("scheduler --port {}", self.port), log);
        running.wait_for("scheduler 0.");
        running
    }

    /// A worker of one thread.
    pub fn worker(&self, log: &str, more: &str) -> Running {
        self.worker_with(log, more, &[])
    }

    /// The same with some variables of its own.
    pub fn worker_with(&self, log: &str, more: &str, variables: &[(&str, &str)]) -> Running {
        let line = format!("worker --scheduler 127.0.0.1:{} --threads 1 {more}", self.port);
        let mut command = self.cluster(&line);
        command.envs(variables.iter().copied());
        let running = Running::start(command, self.folder().join(log));
        running.wait_for("worker 127.0.0.1:");
        running
    }

    /// Two of them, connected, so that both are asked what they have before the work begins.
    pub fn two_workers(&self) -> [Running; 2] {
        let workers = ["one.log", "two.log"].map(|log| self.worker(log, ""));
        std::thread::sleep(Duration::from_millis(1500));
        workers
    }

    pub fn collate(&self, log: &str, more: &str) -> Running {
        self.client(log, &format!("collate my.txt --out {} {SETTINGS} {more}", self.out()))
    }

    /// A command to the scheduler.
    pub fn client(&self, log: &str, line: &str) -> Running {
        self.start(&format!("{line} --scheduler 127.0.0.1:{}", self.port), log)
    }

    /// `tdb` by itself.
    fn tdb(&self, line: &str) -> Command {
        let binary = std::env::var_os("TDB_BINARY").map(PathBuf::from);
        let binary = binary.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/debug/tdb"));
        assert!(binary.is_file(), "no {}: `cargo build` in the root folder makes it", binary.display());
        self.command(&binary, line)
    }

    /// The same, begun.
    pub fn start_tdb(&self, line: &str, log: &str) -> Running {
        Running::start(self.tdb(line), self.folder().join(log))
    }

    /// What `tdb collate` alone makes.
    pub fn alone(&self) -> BTreeMap<String, Vec<u8>> {
        let output = self.tdb(&format!("collate my.txt --out alone {SETTINGS} --threads 2")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        self.read("alone")
    }

    /// Names and contents of the results, without the summaries.
    pub fn results(&self) -> BTreeMap<String, Vec<u8>> {
        match &self.store {
            None => self.read("out"),
            Some(store) => {
                let endpoint = store.endpoint();
                let (address, account) = endpoint.trim_start_matches("http://").split_once('/').unwrap();
                let address = address.parse().unwrap();
                let get = |name: &String| {
                    let path = format!("/{account}/{CONTAINER}/out/{name}");
                    let found = tdb_testkit::http::request(address, "GET", &path, &[], None, PATIENCE).unwrap();
                    assert_eq!(found.status, 200, "{name}");
                    found.body
                };
                self.read("alone").into_keys().map(|name| (name.clone(), get(&name))).collect()
            }
        }
    }

    fn read(&self, folder: &str) -> BTreeMap<String, Vec<u8>> {
        let root = self.folder().join(folder);
        let (mut out, mut open) = (BTreeMap::new(), vec![root.clone()]);
        while let Some(next) = open.pop() {
            for path in fs::read_dir(next).unwrap().map(|entry| entry.unwrap().path()) {
                let name = path.strip_prefix(&root).unwrap().display().to_string();
                match path.is_dir() {
                    true if name != "summaries" => open.push(path),
                    true => {}
                    false => drop(out.insert(name, fs::read(&path).unwrap())),
                }
            }
        }
        out
    }

    /// Asserts that the results are those of `tdb collate` alone, byte for byte.
    pub fn assert_same(&self) {
        let (alone, results) = (self.alone(), self.results());
        assert_eq!(alone.keys().collect::<Vec<_>>(), results.keys().collect::<Vec<_>>());
        let differ: Vec<&String> =
            alone.iter().filter(|(name, bytes)| results[*name] != **bytes).map(|f| f.0).collect();
        assert!(differ.is_empty() && alone.len() > 20, "{differ:?}");
    }
}

/// Units that workers' logs say were made, with how often.
pub fn made(workers: &[&Running]) -> BTreeMap<String, usize> {
    let mut made = BTreeMap::new();
    for name in workers.iter().flat_map(|worker| units(&worker.log(), " made ")) {
        *made.entry(name).or_default() += 1;
    }
    made
}

/// Asserts that all units are there and that no finished one was made again. A worker that is killed may have written
/// one without having said so: others find it.
pub fn assert_made_once(workers: &[&Running]) {
    let made = made(workers);
    assert!(made.values().all(|n| *n == 1), "a finished unit was made again: {made:?}");
    let mut all: BTreeSet<String> = made.into_keys().collect();
    all.extend(workers.iter().flat_map(|worker| units(&worker.log(), " found ")));
    assert_eq!(all.len(), UNITS, "{all:?}");
}

fn units(log: &str, what: &str) -> Vec<String> {
    log.lines().filter_map(|line| line.split_once(what)).map(|(_, name)| name.trim().to_owned()).collect()
}
