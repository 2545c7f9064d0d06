//! Folders as Hugging Face's `transformers` writes them, with a tokenizer of three words.
#![allow(dead_code, reason = "every test file uses its own part of this")]

use std::fs;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use serde_json::{Value, json};
use tdb_model::checkpoint::{self, Checkpoint};

/// A tensor to be written: name, shape, numbers.
pub type Named = (String, Vec<usize>, Vec<f32>);

pub struct Folder {
    _temp: tempfile::TempDir,
    pub path: PathBuf,
}

impl Folder {
    pub fn new(name: &str, tensors: &[Named], dtype: Dtype, config: &Value, tokenizer: &Value) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join(name);
        fs::create_dir(&path).unwrap();
        write_tensors(&path.join("model.safetensors"), tensors, dtype);
        fs::write(path.join("config.json"), config.to_string()).unwrap();
        fs::write(path.join("tokenizer.json"), tokenizer.to_string()).unwrap();
        Folder { _temp: temp, path }
    }

    pub fn open(&self) -> Checkpoint {
        checkpoint::open(&self.path).unwrap()
    }

    #[track_caller]
    pub fn refused(&self, file: &str, what: &str) {
        let text = checkpoint::open(&self.path).map(|model| model.origin).unwrap_err().to_string();
        assert!(text.contains(file) && text.contains(what), "{text} should name {file} and {what}");
    }
}

pub fn tokenizer() -> Value {
    json!({
        "normalizer": null, "added_tokens": [], "pre_tokenizer": {"type": "Whitespace"}, "decoder": null,
        "model": {"type": "WordLevel", "vocab": {"mary": 0, "gave": 1, "[UNK]": 8}, "unk_token": "[UNK]"}
    })
}

pub fn write_tensors(path: &Path, tensors: &[Named], dtype: Dtype) {
    let data: Vec<Vec<u8>> = tensors.iter().map(|(_, _, numbers)| bytes(numbers, dtype)).collect();
    let views = tensors
        .iter()
        .zip(&data)
        .map(|((name, shape, _), data)| (name.clone(), TensorView::new(dtype, shape.clone(), data).unwrap()));
    serialize_to_file(views, None, path).unwrap();
}

fn bytes(numbers: &[f32], dtype: Dtype) -> Vec<u8> {
    match dtype {
        Dtype::F32 => numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Dtype::F16 => numbers.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect(),
        Dtype::BF16 => numbers.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect(),
        Dtype::F64 => numbers.iter().flat_map(|&x| f64::from(x).to_le_bytes()).collect(),
        Dtype::U8 => numbers.iter().map(|&x| x as u8).collect(),
        other => panic!("{other:?}"),
    }
}
