//! A collation whose parts are made by the tasks of an array job, in an object store, and that is served from there.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tdb_testkit::stores::{Azurite, S3};
use tdb_testkit::{http, server};
use tdb_tests::serving;

const SETTINGS: &str = "--k 5 --random 4 --tokens 20 --date 2026-01-31T12:00:00Z";

/// Variables under which `tdb` finds a store.
type Variables = Vec<(&'static str, String)>;

fn clean(program: &str, folder: &Path, variables: &Variables) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if ["AWS_", "AZURE_", "GOOGLE_", "STORAGE_", "TDB_"].iter().any(|prefix| name.starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    let binary = server::binary().unwrap();
    let path = std::env::join_paths(
        std::iter::once(binary.parent().unwrap().to_owned())
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    );
    command.current_dir(folder).env("PATH", path.unwrap()).env("TDB_CACHE", folder.join("cache"));
    command.envs(variables.iter().map(|(name, value)| (*name, value.as_str())));
    command
}

fn said(output: Output) -> (bool, String) {
    (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

fn tdb(folder: &Path, variables: &Variables, line: &str) -> (bool, String) {
    said(clean("tdb", folder, variables).args(line.split_whitespace()).output().unwrap())
}

fn done(folder: &Path, variables: &Variables, line: &str) -> String {
    let (ok, text) = tdb(folder, variables, line);
    assert!(ok, "{line}: {text}");
    text
}

fn write_text(folder: &Path) {
    let one = |i: usize| format!("When Mary and John went to shop {}, John gave a drink to Anna number {i}.", i % 7);
    std::fs::write(folder.join("my.txt"), (0..60).map(one).collect::<Vec<_>>().join("\n\n")).unwrap();
}

/// Names and contents of all files below a folder, without the summaries.
fn results(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let (mut out, mut open): (_, Vec<PathBuf>) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(next) = open.pop() {
        for path in std::fs::read_dir(next).unwrap().map(|entry| entry.unwrap().path()) {
            let name = path.strip_prefix(folder).unwrap().display().to_string();
            match path.is_dir() {
                true if name != "summaries" => open.push(path),
                true => {}
                false => out.push((name, std::fs::read(&path).unwrap())),
            }
        }
    }
    assert!(out.len() >= 9, "{} files", out.len());
    out
}

/// The script of a manifest for Kubernetes.
fn script_of(manifest: &str) -> String {
    let lines = manifest.lines().skip_while(|line| !line.contains("- >-")).skip(1);
    let text: Vec<&str> = lines.map(str::trim).take_while(|line| !line.starts_with("env:")).collect();
    text.join(" ")
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cluster")
}

#[test]
fn tasks_of_an_array_job_make_the_bytes_of_one_run_in_s3_and_they_are_served_from_there() {
    let store = S3::start("bucket").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_text(folder);
    done(folder, &Vec::new(), &format!("collate my.txt --out alone {SETTINGS}"));
    let [key, secret] = S3::KEYS;
    let variables = vec![
        ("AWS_ENDPOINT_URL", store.endpoint()),
        ("AWS_ACCESS_KEY_ID", key.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", secret.to_owned()),
        ("TDB_TEXT", "my.txt".to_owned()),
        ("TDB_OUT", "s3://bucket/out".to_owned()),
        ("TDB_SETTINGS", SETTINGS.to_owned()),
        ("SLURM_ARRAY_TASK_COUNT", "4".to_owned()),
        ("TDB_SHARDS", "4".to_owned()),
    ];
    let slurm = docs().join("slurm.sh");
    let pod = script_of(&std::fs::read_to_string(docs().join("kubernetes.yaml")).unwrap());
    assert!(pod.starts_with("exec tdb collate") && pod.contains("JOB_COMPLETION_INDEX"), "{pod}");
    let task = |shard: usize| {
        // Two by Slurm's script, two by Kubernetes' command.
        let mut command = match shard % 2 {
            0 => {
                let mut command = clean("bash", folder, &variables);
                command.arg(&slurm).env("SLURM_ARRAY_TASK_ID", shard.to_string());
                command
            }
            _ => {
                let mut command = clean("sh", folder, &variables);
                command.args(["-c", &pod]).env("JOB_COMPLETION_INDEX", shard.to_string());
                command
            }
        };
        let (ok, text) = said(command.output().unwrap());
        assert!(ok, "shard {shard}: {text}");
        text
    };
    for shard in [2, 0, 1] {
        assert!(task(shard).contains("1 work units made"));
    }
    let (ok, text) =
        tdb(folder, &variables, &format!("collate my.txt --out s3://bucket/out --shards 4 --merge {SETTINGS}"));
    assert!(!ok && text.contains("these shards are missing: 3/4"), "{text}");
    task(3);
    // A task that is started again finds what it had made.
    assert!(task(3).contains("0 work units made, 1 were there already"));
    let mut merge = clean("bash", folder, &variables);
    let (ok, text) = said(merge.arg(&slurm).env("TDB_MERGE", "4").output().unwrap());
    assert!(ok && text.contains("--registry s3://bucket/out/registry.toml"), "{text}");
    let address = store.endpoint().trim_start_matches("http://").parse().unwrap();
    let get = |name: &str| http::request(address, "GET", name, &[], None, Duration::from_secs(30)).unwrap();
    for (name, content) in results(&folder.join("alone")) {
        let found = get(&format!("/bucket/out/{name}"));
        assert!(found.status == 200 && found.body == content, "{name}: {}", found.status);
    }
    // Another text of the same length is another collation, and nothing is made of it.
    let text = std::fs::read_to_string(folder.join("my.txt")).unwrap();
    std::fs::write(folder.join("my.txt"), text.replace("Mary", "Anna")).unwrap();
    let (ok, text) = tdb(folder, &variables, &format!("collate my.txt --out s3://bucket/out --shard 0/4 {SETTINGS}"));
    assert!(!ok && text.contains("not of the same collation: content is"), "{text}");
    let (ok, text) = tdb(folder, &variables, &format!("collate my.txt --out s3://elsewhere/out {SETTINGS}"));
    assert!(!ok && text.contains("s3://elsewhere/out cannot be written to"), "{text}");

    served_from_there(folder, &store);
}

/// The same answers as from the files of one run, with the large files read in the store and not copied.
fn served_from_there(folder: &Path, store: &S3) {
    let settings = folder.join("store.toml");
    let entry = format!("[[store]]\nprefix = 's3://bucket'\nendpoint = '{}'\nanonymous = true\n", store.endpoint());
    std::fs::write(&settings, entry).unwrap();
    let cache = folder.join("serving-cache");
    let place = ["--cache", cache.to_str().unwrap(), "--registry"];
    let alone = folder.join("alone/registry.toml");
    let local = serving::serve(&[&place[..], &[alone.to_str().unwrap()]].concat()).unwrap();
    let remote = [settings.to_str().unwrap(), "--registry", "s3://bucket/out/registry.toml", "--in-place-from", "0"];
    let remote = serving::serve(&[&place[..], &remote].concat()).unwrap();
    for (dst, set) in [("mlp_post_act", "embedded"), ("mlp_autoencoder_latent", "embedded_sae-resid-delta-mlp")] {
        for (layer, index) in [(0, 7), (3, 60)] {
            let ask = json!({"dst": dst, "layerIndex": layer, "activationIndex": index, "datasets": [set]}).to_string();
            let answer = |server: &server::Server| -> Value {
                let wait = Duration::from_secs(30);
                let body = Some(ask.as_bytes());
                let found = http::request(server.address, "POST", "/neuron_record", &[], body, wait).unwrap();
                let mut found: Value = serde_json::from_slice(&found.body).unwrap();
                let path = found.as_object_mut().unwrap().remove("dataset");
                assert!(path.is_some_and(|p| p.as_str().unwrap().ends_with("records")), "{found}");
                found
            };
            assert_eq!(answer(&local), answer(&remote), "{dst} {layer}:{index}");
        }
    }
    let copied = cache.join("files/s3/bucket/out/records");
    assert!(!copied.exists(), "records were copied");
}

#[test]
fn a_collation_in_azure_goes_on_after_a_kill_and_refuses_what_is_there_twice() {
    let azurite = Azurite::start().unwrap();
    azurite.container("container", true).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_text(folder);
    let variables =
        vec![("AZURE_STORAGE_ENDPOINT", azurite.endpoint()), ("AZURE_STORAGE_ACCOUNT_KEY", Azurite::KEY.to_owned())];
    let out = format!("az://{}/container/out", Azurite::ACCOUNT);
    let settings = format!("{SETTINGS} --only mlp_post_act --shards 6 --layers-at-once 2 --threads 1");
    done(folder, &Vec::new(), &format!("collate my.txt --out alone {settings}"));
    let line = format!("collate my.txt --out {out} {settings}");
    let told = done(folder, &variables, &format!("{line} --dry-run --machines 2"));
    assert!(told.contains("12 work units, 0 of them finished") && told.contains("60 documents"), "{told}");

    let container = Container::new(&azurite);
    let before = kill_after_two_units(folder, &variables, &line, &container);
    let told = done(folder, &variables, &line);
    assert!(told.contains(&format!("{} work units made, {before} were there already", 12 - before)), "{told}");
    assert!(done(folder, &variables, &line).contains("0 work units made, 12 were there already"));
    for (name, content) in results(&folder.join("alone")) {
        assert!(container.get(&format!("out/{name}")) == content, "{name}");
    }

    let unit = container.summaries().into_iter().find(|name| name.contains("shard-00003")).unwrap();
    azurite.put("container", "out/summaries/copy.summary", &container.get(&unit)).unwrap();
    let (ok, text) = tdb(folder, &variables, &format!("{line} --merge"));
    let unit = unit.rsplit('/').next().unwrap();
    assert!(!ok && text.contains(unit) && text.contains("copy.summary and "), "{text}");
    assert!(text.contains("which would be counted twice"), "{text}");
}

/// Starts a collation and kills it while the third unit is made; how many are there then.
fn kill_after_two_units(folder: &Path, variables: &Variables, line: &str, container: &Container) -> usize {
    let mut command = clean("tdb", folder, variables);
    let command = command.args(line.split_whitespace()).stdout(Stdio::null()).stderr(Stdio::null());
    let (mut child, begin) = (command.spawn().unwrap(), Instant::now());
    while container.summaries().len() < 2 {
        assert!(begin.elapsed() < Duration::from_secs(120) && child.try_wait().unwrap().is_none(), "no unit was made");
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let mut made = container.summaries().len();
    // What the killed process had sent whole, the store still writes down.
    loop {
        std::thread::sleep(Duration::from_secs(1));
        match container.summaries().len() {
            same if same == made => break,
            more => made = more,
        }
    }
    assert!(made < 12, "the kill came too late to show anything");
    made
}

/// What is in Azurite's container, which anybody may read.
struct Container {
    address: std::net::SocketAddr,
    path: String,
}

impl Container {
    fn new(azurite: &Azurite) -> Self {
        let endpoint = azurite.endpoint();
        let (address, account) = endpoint.trim_start_matches("http://").split_once('/').unwrap();
        Self { address: address.parse().unwrap(), path: format!("/{account}/container") }
    }

    fn get(&self, name: &str) -> Vec<u8> {
        let path = format!("{}/{name}", self.path);
        let found = http::request(self.address, "GET", &path, &[], None, Duration::from_secs(30)).unwrap();
        assert_eq!(found.status, 200, "{name}");
        found.body
    }

    fn summaries(&self) -> Vec<String> {
        let path = format!("{}?restype=container&comp=list", self.path);
        let version = [("x-ms-version", "2021-12-02")];
        let found = http::request(self.address, "GET", &path, &version, None, Duration::from_secs(30)).unwrap();
        let text = String::from_utf8(found.body).unwrap();
        let names = text.split("<Name>").skip(1).filter_map(|rest| rest.split("</Name>").next());
        names.filter(|name| name.ends_with(".summary")).map(str::to_owned).collect()
    }
}
