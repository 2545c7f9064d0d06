//! Dictionaries, in the layouts of those that published some.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use tdb_model::checkpoint::{self, DictionaryOptions};
use tdb_model::{AutoencoderSite, Config};
use tdb_testkit::{families, torch};

use super::{first_line, in_folder};

const SAE: &[u8] = include_bytes!("../../../fuzz/corpus/safetensors/sae.safetensors");

/// Of a model with one layer of width 4.
const WIDTH: usize = 4;
const LATENTS: usize = 6;

fn model() -> Config {
    Config::gpt2(1, WIDTH, 2, 8, 16, 265)
}

fn open(folder: &Path) {
    let options = DictionaryOptions { layer: Some(0), ..Default::default() };
    for site in [None, Some(AutoencoderSite::MlpPostAct)] {
        drop(checkpoint::open_dictionary(folder, &DictionaryOptions { site, ..options }, &model()));
    }
    drop(checkpoint::open_autoencoder(folder, None, &model()));
}

/// A `.pt` file of an autoencoder.
pub fn torch(input: &[u8]) {
    in_folder(&[("0.pt", input)], open);
}

/// What stands in the archive of a `.pt` file, before its storages of eight numbers each.
pub fn pickle(input: &[u8]) {
    let storage = [0u8; 4 * 2 * LATENTS * WIDTH];
    let mut members =
        vec![("archive/data.pkl", input), ("archive/version", &b"3\n"[..]), ("archive/byteorder", &b"little"[..])];
    members.extend(
        ["archive/data/0", "archive/data/1", "archive/data/2", "archive/data/3"].map(|name| (name, &storage[..])),
    );
    let mut archive = Vec::new();
    if torch::archive(&members, &mut archive).is_ok() {
        in_folder(&[("0.pt", &archive)], open);
    }
}

/// A `.npz` file of an autoencoder.
pub fn npz(input: &[u8]) {
    in_folder(&[("params.npz", input)], open);
}

/// The head of each array in a `.npz` file: a line each.
pub fn numpy(input: &[u8]) {
    const NAMES: [&str; 5] = ["W_enc.npy", "W_dec.npy", "b_enc.npy", "b_dec.npy", "threshold.npy"];
    let mut heads = input.split(|byte| *byte == b'\n');
    let arrays = NAMES.map(|_| {
        let head = heads.next().unwrap_or_default();
        let mut array = b"\x93NUMPY\x01\x00".to_vec();
        array.extend((head.len() as u16).to_le_bytes());
        array.extend(head);
        array.resize(array.len() + 4 * LATENTS * WIDTH, 0);
        array
    });
    let members: Vec<(&str, &[u8])> =
        NAMES.iter().zip(&arrays).map(|(name, array)| (*name, array.as_slice())).collect();
    let mut archive = Vec::new();
    if torch::archive(&members, &mut archive).is_ok() {
        npz(&archive);
    }
}

/// `cfg.json` of an autoencoder as SAELens writes it.
pub fn sae_lens(input: &[u8]) {
    in_folder(&[("cfg.json", input), ("sae_weights.safetensors", SAE)], open);
}

/// A file of a dictionary, after a line with its path among those that are kept for tests; its neighbours are as they are
/// there.
pub fn dictionary(input: &[u8]) {
    static ALL: LazyLock<Vec<(PathBuf, Vec<u8>)>> = LazyLock::new(|| files_below(&families::dictionaries()));
    let Some((name, content)) = first_line(input) else { return };
    let Some(kept) = ALL.iter().map(|(path, _)| path).find(|path| path.as_path() == Path::new(name)) else { return };
    // `dictionaries/NAME` or `sae_lens/NAME`.
    let top: PathBuf = kept.iter().take(2).collect();
    let Ok(folder) = tempfile::tempdir() else { return };
    for (path, own) in ALL.iter().filter(|(path, _)| path.starts_with(&top)) {
        let to = folder.path().join(path);
        let content = if path == kept { content } else { own };
        let written =
            to.parent().is_some_and(|parent| fs::create_dir_all(parent).is_ok()) && fs::write(to, content).is_ok();
        if !written {
            return;
        }
    }
    let mut config = Config::gpt2(2, 6, 2, 9, 16, 11);
    config.d_head = 4;
    for factor in [None, Some(2.0)] {
        let options = DictionaryOptions { factor, ..Default::default() };
        if let Ok(read) = checkpoint::open_dictionary(&folder.path().join(&top), &options, &config) {
            assert!(!read.layers.is_empty());
        }
    }
}

/// All files below a folder, by their paths from there.
fn files_below(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(at) = folders.pop() {
        for entry in fs::read_dir(&at).expect("the repository can be read").flatten() {
            let path = entry.path();
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    let content = fs::read(&path).expect("the repository can be read");
                    found.push((path.strip_prefix(folder).expect("it lies below").to_owned(), content));
                }
            }
        }
    }
    found
}
