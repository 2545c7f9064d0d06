//! Models and tokenizers.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use tdb_model::{Checkpoint, ForwardOptions, Tokenizer, Transformer, checkpoint};
use tdb_testkit::families;

use super::{first_line, in_folder};

const CONFIG: &[u8] = include_bytes!("../../../fuzz/corpus/config/gpt2.json");
const WEIGHTS: &[u8] = include_bytes!("../../../fuzz/corpus/safetensors/gpt2.safetensors");
const TOKENIZER: &[u8] = include_bytes!("../../../fuzz/corpus/tokenizer/plain.json");

/// `tokenizer.json`, and text through what it describes.
pub fn tokenizer(input: &[u8]) {
    let Ok(tokenizer) = Tokenizer::from_bytes(Path::new("tokenizer.json"), input) else { return };
    for text in ["", "a", " Paris, France.\n\n", "é東京😀\u{0}", "<|endoftext|>x<|endoftext|>"] {
        let ids = tokenizer.encode(text);
        tokenizer.decode(&ids);
        tokenizer.encode_with_offsets(text);
        let _ = tokenizer.single_token(text);
        tokenizer.tokens_of_text(text);
        tokenizer.tokens_beginning_with(text).take(8).for_each(drop);
    }
    for id in [0, 1, 255, 256, 262, u32::MAX] {
        tokenizer.decode_token(id);
    }
}

/// Any text through GPT-2's tokenizer: what it splits is what there was.
pub fn text(input: &[u8]) {
    static GPT2: LazyLock<Tokenizer> = LazyLock::new(Tokenizer::gpt2);
    let text = String::from_utf8_lossy(input);
    let ids = GPT2.encode(&text);
    assert_eq!(GPT2.decode(&ids), text);
    let _ = GPT2.single_token(&text);
}

/// Opens a model, and lets it read three tokens if it can be used.
fn use_model(folder: &Path) {
    let Ok(Checkpoint { config, weights, .. }) = checkpoint::open(folder) else { return };
    // A window of attention or a context may be as long as its settings say; no memory follows from them.
    let tokens: Vec<u32> = (0..3u32.min(config.n_vocab as u32)).collect();
    let Ok(model) = Transformer::load(config, weights) else { return };
    let _ = model.forward(&tokens, ForwardOptions::default());
}

type Files = Vec<(String, Vec<u8>)>;

/// The files of a model of each family, by the family's name.
static FAMILIES: LazyLock<BTreeMap<String, Files>> = LazyLock::new(|| {
    let names = families::names().expect("the families are in the repository");
    names.into_iter().map(|name| (name.clone(), files_of(&name))).collect()
});

fn files_of(family: &str) -> Files {
    let copied = families::Copied::new(family).expect("a family can be copied");
    let files = fs::read_dir(&copied.path).expect("a copy can be listed").flatten();
    let read = |file: fs::DirEntry| Some((file.file_name().into_string().ok()?, fs::read(file.path()).ok()?));
    files.filter_map(read).collect()
}

/// `config.json` of a model; or any file of a model of a family, after a line with the family's and the file's name.
pub fn config(input: &[u8]) {
    let of_family = first_line(input).and_then(|(line, content)| {
        let (family, file) = line.split_once('/')?;
        Some((FAMILIES.get(family)?, file, content))
    });
    match of_family {
        Some((files, file, content)) => {
            let replaced = |(name, own): &'static (String, Vec<u8>)| {
                (name.as_str(), if name == file { content } else { own.as_slice() })
            };
            in_folder(&files.iter().map(replaced).collect::<Vec<_>>(), use_model);
        }
        None => {
            let files = [("config.json", input), ("model.safetensors", WEIGHTS), ("tokenizer.json", TOKENIZER)];
            in_folder(&files, use_model);
        }
    }
}

/// `model.safetensors`.
pub fn safetensors(input: &[u8]) {
    let files = [("config.json", CONFIG), ("model.safetensors", input), ("tokenizer.json", TOKENIZER)];
    in_folder(&files, use_model);
}
