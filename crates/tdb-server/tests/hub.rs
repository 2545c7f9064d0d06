//! Models by their names on Hugging Face's hub: from a server that speaks as the hub does, from the cache that its own
//! tools share, and offline. Each is collated, so that it is seen to be read and run.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use tdb_testkit::families::Copied;

const TOKEN: &str = "hf_of_somebody";

/// Repositories by name, each a folder; those of `gated/` need the token. Large files are answered with the address of
/// another place, as the hub does it.
struct Hub {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Hub {
    fn start(repositories: HashMap<&'static str, PathBuf>) -> Self {
        let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (hub, elsewhere) = (listen(), listen());
        let address = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
        let (url, other) = (address(&hub), address(&elsewhere));
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = asked.clone();
        serve(hub, move |head| {
            seen.lock().unwrap().push(head.lines().next().unwrap_or_default().to_owned());
            answer(&repositories, &other, head)
        });
        serve(elsewhere, |head| {
            assert_eq!(header(head, "authorization"), None, "the token goes to the hub alone");
            let file = fs::read(head.split(' ').nth(1).unwrap()).unwrap();
            reply("200 OK", "etag: \"of-another-place\"\r\n", &file)
        });
        Hub { url, asked }
    }

    /// How often files were asked for since the last time.
    fn asked(&self) -> usize {
        std::mem::take(&mut *self.asked.lock().unwrap()).len()
    }
}

/// Answers requests without bodies, each connection in its thread.
fn serve(listener: TcpListener, answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) {
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || {
                let (mut text, mut chunk) = (String::new(), [0; 16384]);
                while let Ok(n @ 1..) = stream.read(&mut chunk) {
                    text.push_str(&String::from_utf8_lossy(&chunk[..n]));
                    let Some((head, rest)) = text.split_once("\r\n\r\n") else { continue };
                    if stream.write_all(&answer(head)).is_err() {
                        return;
                    }
                    text = rest.to_owned();
                }
            });
        }
    });
}

fn header(head: &str, name: &str) -> Option<String> {
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
}

fn reply(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// What the hub says; large files are at `other`.
fn answer(repositories: &HashMap<&'static str, PathBuf>, other: &str, head: &str) -> Vec<u8> {
    let missing = || reply("404 Not Found", "x-error-code: EntryNotFound\r\n", b"Entry not found");
    let path = head.split(' ').nth(1).unwrap_or_default();
    if let ["api", "models", owner, name, "revision", revision] =
        path.trim_start_matches('/').split('/').collect::<Vec<_>>()[..]
    {
        return info(repositories, &format!("{owner}/{name}"), revision);
    }
    let [owner, name, "resolve", revision, file] = path.trim_start_matches('/').splitn(5, '/').collect::<Vec<_>>()[..]
    else {
        return missing();
    };
    let Some(folder) = repositories.get(format!("{owner}/{name}").as_str()) else {
        return reply("401 Unauthorized", "x-error-code: RepoNotFound\r\n", b"Invalid username or password.");
    };
    if owner == "gated" && header(head, "authorization") != Some(format!("Bearer {TOKEN}")) {
        return reply("403 Forbidden", "x-error-code: GatedRepo\r\n", b"Access is restricted.");
    }
    let path = folder.join(file);
    if !["main", "v1"].contains(&revision) || !path.is_file() {
        return missing();
    }
    if file.ends_with(".safetensors") || file.ends_with(".bin") {
        return reply("302 Found", &format!("location: {other}{}\r\n", path.display()), b"");
    }
    reply("200 OK", "etag: \"1\"\r\nx-repo-commit: abc\r\n", &fs::read(path).unwrap())
}

/// What the hub says of a repository: the names of its files, among other things.
fn info(repositories: &HashMap<&'static str, PathBuf>, name: &str, revision: &str) -> Vec<u8> {
    let Some(folder) = repositories.get(name) else {
        return reply("401 Unauthorized", "x-error-code: RepoNotFound\r\n", b"Invalid username or password.");
    };
    if !["main", "v1"].contains(&revision) {
        return reply("404 Not Found", "x-error-code: RevisionNotFound\r\n", b"Invalid rev id");
    }
    let mut names = Vec::new();
    list(folder, "", &mut names);
    let siblings: Vec<_> = names.iter().map(|name| serde_json::json!({"rfilename": name})).collect();
    let info = serde_json::json!({"id": name, "sha": "abc", "siblings": siblings, "private": false});
    reply("200 OK", "content-type: application/json\r\netag: \"2\"\r\n", info.to_string().as_bytes())
}

fn list(folder: &Path, prefix: &str, names: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        match entry.path().is_dir() {
            true => list(&entry.path(), &format!("{name}/"), names),
            false => names.push(name),
        }
    }
}

/// A person's machine.
struct Machine {
    folder: tempfile::TempDir,
    hub: Hub,
    models: Vec<Copied>,
}

impl Machine {
    fn new() -> Self {
        let names = [
            ("owner/tiny-llama", "llama-linear-shards"),
            ("owner/tiny-neo", "gpt-neo"),
            ("gated/tiny-gemma", "gemma-3"),
            ("openai-community/gpt2", "gpt2-scaled-by-layer"),
            ("NeelNanda/toy", "lens-attention-only"),
            ("NeelNanda/gpt-neox-tokenizer-digits", "lens-gelu"),
        ];
        let models: Vec<Copied> = names.iter().map(|(_, fixture)| Copied::new(fixture).unwrap()).collect();
        let repositories = names.iter().zip(&models).map(|((name, _), copied)| (*name, copied.path.clone()));
        let mut repositories: HashMap<&str, PathBuf> = repositories.collect();
        // A model of TransformerLens names a repository that has its tokenizer.
        fs::remove_file(repositories["NeelNanda/toy"].join("tokenizer.json")).unwrap();
        let folder = tempfile::tempdir().unwrap();
        repositories.insert("owner/saes", saes(&folder.path().join("saes")));
        let hub = Hub::start(repositories);
        fs::write(folder.path().join("text.txt"), "Mary gave John the drink.\n\nThen Tom went to the store.").unwrap();
        Machine { folder, hub, models }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Collates with a model; whether that succeeded, and what was written to either stream.
    fn collate(&self, model: &str, environment: &[(&str, &str)]) -> (bool, String) {
        self.run(&["--model", model], environment)
    }

    /// Collates the model inside the program with a dictionary.
    fn collate_with(&self, dictionary: &str, environment: &[(&str, &str)]) -> (bool, String) {
        self.run(&["--dictionary", dictionary], environment)
    }

    fn run(&self, arguments: &[&str], environment: &[(&str, &str)]) -> (bool, String) {
        let out = tempfile::tempdir_in(self.folder.path()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tdb"));
        command.args(["collate", "text.txt"]).args(arguments).arg("--out").arg(out.path());
        command.args(["--tokens", "8", "--k", "2", "--random", "1", "--shards", "1", "--first", ""]);
        command.current_dir(self.folder.path());
        for name in
            ["HF_TOKEN", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE", "TDB_OFFLINE", "TDB_REGISTRY"]
        {
            command.env_remove(name);
        }
        command.env("TDB_CACHE", self.path("cache")).env("HF_HOME", self.path("hf")).env("HF_ENDPOINT", &self.hub.url);
        let output = command.envs(environment.iter().copied()).output().unwrap();
        (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    }
}

#[test]
fn a_model_of_the_hub_is_fetched_once_and_then_needs_no_network() {
    let machine = Machine::new();
    for model in ["owner/tiny-llama", "hf:owner/tiny-neo", "owner/tiny-llama@v1", "gpt2"] {
        let (ok, text) = machine.collate(model, &[]);
        assert!(ok && text.contains("holds what was collated"), "{model}: {text}");
        assert!(machine.hub.asked() > 3, "{model}");
        let (ok, text) = machine.collate(model, &[("HF_HUB_OFFLINE", "1")]);
        assert!(ok, "{model}: {text}");
        assert_eq!(machine.hub.asked(), 0, "{model}");
    }
    // A folder that lacks the tokenizer that it names takes it from there, too.
    let mut of_lens = vec!["NeelNanda/toy".to_owned()];
    of_lens.push(machine.models[4].path.to_str().unwrap().to_owned());
    for model in &of_lens {
        let (ok, text) = machine.collate(model, &[]);
        assert!(ok && text.contains("holds what was collated"), "{model}: {text}");
        let (ok, text) = machine.collate(model, &[("HF_HUB_OFFLINE", "1")]);
        assert!(ok, "{model}: {text}");
    }
    assert!(machine.hub.asked() > 3);
    let elsewhere = machine.path("empty-cache");
    let offline = [("HF_HUB_OFFLINE", "1"), ("TDB_CACHE", elsewhere.to_str().unwrap())];
    let (ok, text) = machine.collate(&of_lens[1], &offline);
    assert!(!ok && text.contains("gpt-neox-tokenizer-digits") && text.contains("config.json names"), "{text}");

    let (ok, text) = machine.collate("owner/tiny-llama@v2", &[]);
    assert!(!ok && text.contains("hf:owner/tiny-llama@v2 has no config.json"), "{text}");
}

#[test]
fn a_repository_that_is_not_open_says_what_helps() {
    let machine = Machine::new();
    let (ok, text) = machine.collate("gated/tiny-gemma", &[]);
    assert!(!ok && text.contains("gated/tiny-gemma") && text.contains("HF_TOKEN"), "{text}");
    let (ok, text) = machine.collate("gated/tiny-gemma", &[("HF_TOKEN", TOKEN)]);
    assert!(ok, "{text}");
    // As `huggingface-cli login` stores it.
    fs::create_dir_all(machine.path("hf")).unwrap();
    fs::write(machine.path("hf/token"), format!("{TOKEN}\n")).unwrap();
    let elsewhere = machine.path("another-cache");
    let (ok, text) = machine.collate("gated/tiny-gemma", &[("TDB_CACHE", elsewhere.to_str().unwrap())]);
    assert!(ok, "{text}");
    let (ok, text) = machine.collate("nobody/nothing", &[]);
    assert!(!ok && text.contains("there is no such repository"), "{text}");
}

#[test]
fn what_lies_in_the_shared_cache_is_used_and_named() {
    let machine = Machine::new();
    let (ok, text) = machine.collate("owner/cached", &[("HF_HUB_OFFLINE", "1")]);
    assert!(!ok && text.contains("hf:owner/cached is not on this machine"), "{text}");
    assert!(text.contains("there is no model in Hugging Face's cache"), "{text}");

    let model = Copied::new("qwen3").unwrap();
    let repository = machine.path("hf/hub/models--owner--cached");
    let snapshot = repository.join("snapshots/0123abc");
    fs::create_dir_all(repository.join("refs")).unwrap();
    fs::write(repository.join("refs/main"), "0123abc").unwrap();
    copy(&model.path, &snapshot);
    let (ok, text) = machine.collate("owner/cached", &[]);
    assert!(ok && text.contains("--model owner/cached"), "{text}");
    assert_eq!(machine.hub.asked(), 0);
    // By the commit, and as folders.
    let folders = [&repository, &snapshot].map(|folder| folder.to_str().unwrap().to_owned());
    for name in ["owner/cached@0123abc"].map(str::to_owned).iter().chain(&folders) {
        let (ok, text) = machine.collate(name, &[("HF_HUB_OFFLINE", "1")]);
        assert!(ok, "{name}: {text}");
    }
    let (ok, text) = machine.collate("owner/other", &[("HF_HUB_OFFLINE", "1")]);
    assert!(!ok && text.contains("Hugging Face's cache has owner/cached"), "{text}");
    // What is there in part is fetched.
    fs::remove_file(snapshot.join("model.safetensors")).unwrap();
    let (ok, text) = machine.collate("owner/cached", &[]);
    assert!(!ok && text.contains("there is no such repository"), "{text}");
}

#[test]
fn a_dictionary_of_the_hub_is_fetched_once_and_then_needs_no_network() {
    let machine = Machine::new();
    for (name, files) in [
        ("hf:owner/saes/res/blocks.1.hook_resid_post", 2),
        ("hf:owner/saes@v1/res", 4),
        ("hf:owner/saes/deep/width_24@v1", 2),
    ] {
        let (ok, text) = machine.collate_with(name, &[]);
        assert!(ok && text.contains("files, once"), "{name}: {text}");
        // What the hub says of the repository, once for a revision, and each file.
        let asked = machine.hub.asked();
        assert!(asked >= files && asked <= 2 + 2 * files, "{name}: {asked}");
        let (ok, text) = machine.collate_with(name, &[("HF_HUB_OFFLINE", "1")]);
        assert!(ok, "{name}: {text}");
        assert_eq!(machine.hub.asked(), 0, "{name}");
    }
}

#[test]
fn a_dictionary_of_the_hub_that_cannot_be_had_says_why() {
    let machine = Machine::new();
    for (name, what) in [
        ("hf:owner/saes/deep", "it has the folders 12_layers, width_24"),
        ("hf:owner/saes/nowhere", "hf:owner/saes/nowhere does not exist"),
        ("hf:owner/saes@v7/res", "hf:owner/saes@v7 does not exist"),
        ("hf:nobody/nothing/res", "there is no such repository"),
        ("hf:owner", "expected hf:owner/name"),
        ("hf:owner/tiny-llama", "no layout that can be read"),
    ] {
        let (ok, text) = machine.collate_with(name, &[]);
        assert!(!ok && text.contains(what), "{name}: {text}");
    }
    let (ok, text) = machine.collate_with("hf:owner/other/res", &[("HF_HUB_OFFLINE", "1")]);
    assert!(!ok && text.contains("hf:owner/other/res is not on this machine and offline mode is on"), "{text}");
}

#[test]
fn a_dictionary_in_the_shared_cache_is_used() {
    let machine = Machine::new();
    let snapshot = machine.path("hf/hub/models--owner--saes/snapshots/0123abc");
    fs::create_dir_all(machine.path("hf/hub/models--owner--saes/refs")).unwrap();
    fs::write(machine.path("hf/hub/models--owner--saes/refs/main"), "0123abc").unwrap();
    let layer = "res/blocks.1.hook_resid_post";
    copy(&machine.path("saes").join(layer), &snapshot.join(layer));
    for environment in [&[("HF_HUB_OFFLINE", "1")] as &[_], &[]] {
        let (ok, text) = machine.collate_with(&format!("hf:owner/saes/{layer}"), environment);
        assert!(ok, "{text}");
    }
    assert_eq!(machine.hub.asked(), 1, "what the hub says of the repository");
    // The other layer is not there.
    let (ok, text) = machine.collate_with("hf:owner/saes/res", &[]);
    assert!(ok, "{text}");
    assert!(machine.hub.asked() >= 4);
}

/// A repository with dictionaries of the model inside the program, as SAELens writes them.
fn saes(folder: &Path) -> PathBuf {
    use tdb_model::{AutoencoderSite, AutoencoderWeights, LatentActivation, Matrix, NamedAutoencoder};
    let (width, latents) = (128, 24);
    let numbers = |n: usize, by: usize| (0..n).map(|i| ((i * by) % 17) as f32 / 17.0 - 0.5).collect::<Vec<f32>>();
    let weights = || AutoencoderWeights {
        normalization: Default::default(),
        encoder_pre_bias: vec![0.0; width],
        encoder: Matrix::from_vec(latents, width, numbers(latents * width, 7)),
        latent_bias: vec![0.0; latents],
        activation: LatentActivation::Relu,
        decoder: Matrix::from_vec(width, latents, numbers(latents * width, 5)),
        decoder_bias: vec![0.0; width],
        skip: None,
        activation_frequency: None,
    };
    let site = AutoencoderSite::ResidPostMlp;
    let both =
        NamedAutoencoder { name: "res".to_owned(), site, layers: vec![weights(), weights()], indices: vec![0, 1] };
    for path in ["res", "deep/width_24"] {
        tdb_model::checkpoint::sae_lens::save_autoencoder(&folder.join(path), &both, "small").unwrap();
    }
    fs::remove_dir_all(folder.join("deep/width_24/blocks.0.hook_resid_post")).unwrap();
    fs::create_dir_all(folder.join("deep/12_layers/all/of/them")).unwrap();
    fs::write(folder.join("deep/12_layers/all/of/them/README.md"), "empty").unwrap();
    fs::write(folder.join("README.md"), "Sparse autoencoders").unwrap();
    folder.to_owned()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
