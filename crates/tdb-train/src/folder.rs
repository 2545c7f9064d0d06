//! A model's folder in the Hugging Face layout of GPT-2: `config.json`, `model.safetensors`, `tokenizer.json`.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensorError, SafeTensors, serialize_to_file};
use serde_json::{Value, json};
use tdb_model::checkpoint;
use tokenizers::Tokenizer;

use crate::dice::{hash, mix};
use crate::error::{Error, Result};
use crate::gpt::{Layout, Parameters};
use crate::grammar::END_OF_TEXT;

pub const CONFIG: &str = "config.json";
pub const WEIGHTS: &str = "model.safetensors";
pub const TOKENIZER: &str = "tokenizer.json";

/// A model that was trained.
#[derive(Clone, Debug)]
pub struct Model {
    pub parameters: Parameters,
    pub tokenizer: Tokenizer,
}

/// Writes a file so that it is either there whole or not at all.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    whole(path, |partial| fs::write(partial, bytes).map_err(Error::file(partial)))
}

/// Lets `write` make a file beside `path`, brings it to the disk and gives it its name. Nothing of it stays if that fails.
fn whole(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let partial = path.with_extension("partial");
    let sync = || fs::File::open(&partial).and_then(|file| file.sync_all());
    let done =
        write(&partial).and_then(|()| sync().and_then(|()| fs::rename(&partial, path)).map_err(Error::file(path)));
    if done.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&partial);
    }
    done
}

pub(crate) fn write_json(path: &Path, value: &Value) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Error::content(path, error))?;
    write_whole(path, format!("{text}\n").as_bytes())
}

pub(crate) fn write_tensors(
    path: &Path,
    tensors: &[(&str, Vec<usize>, &[f32])],
    metadata: HashMap<String, String>,
) -> Result<()> {
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|tensor| tensor.2.iter().flat_map(|x| x.to_le_bytes()).collect()).collect();
    let mut views = Vec::with_capacity(tensors.len());
    for ((name, dims, _), bytes) in tensors.iter().zip(&bytes) {
        let view = TensorView::new(Dtype::F32, dims.clone(), bytes).map_err(|error| Error::content(path, error))?;
        views.push((*name, view));
    }
    whole(path, |partial| {
        serialize_to_file(views, Some(metadata), partial).map_err(|error| match error {
            SafeTensorError::IoError(error) => Error::file(path)(error),
            other => Error::content(path, other),
        })
    })
}

pub(crate) fn read_tensor(tensors: &SafeTensors<'_>, path: &Path, name: &str, dims: &[usize]) -> Result<Vec<f32>> {
    let view = tensors.tensor(name).map_err(|error| Error::content(path, format!("{name}: {error}")))?;
    if view.dtype() != Dtype::F32 || view.shape() != dims {
        let found = format!("{name} is {:?} {:?}, not F32 {dims:?}", view.dtype(), view.shape());
        return Err(Error::content(path, found));
    }
    Ok(view.data().as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
}

impl Model {
    /// Reads what [`Model::write`] wrote.
    ///
    /// # Errors
    /// If a file is missing or damaged, the model is no GPT-2 as `tdb train` makes them, or its vocabulary has not as
    /// many tokens as the model has rows for.
    pub fn read(folder: &Path) -> Result<Self> {
        let config = checkpoint::open(folder).map_err(|error| Error::Model(error.to_string()))?.config;
        let path = folder.join(TOKENIZER);
        let tokenizer = Tokenizer::from_file(&path).map_err(|error| Error::content(&path, error))?;
        let (tokens, rows) = (tokenizer.get_vocab_size(true), config.n_vocab);
        if tokens != rows {
            return Err(Error::content(&path, format!("{tokens} tokens, but the model has rows for {rows}")));
        }
        let layout = Layout::new(config)?;
        let path = folder.join(WEIGHTS);
        let bytes = fs::read(&path).map_err(Error::file(&path))?;
        let tensors = SafeTensors::deserialize(&bytes).map_err(|error| Error::content(&path, error))?;
        let mut numbers = Vec::with_capacity(layout.size);
        for tensor in &layout.tensors {
            numbers.extend(read_tensor(&tensors, &path, &tensor.name, &tensor.dims)?);
        }
        Ok(Self { parameters: Parameters::new(layout, numbers), tokenizer })
    }

    /// A number that changes with any weight and with the tokenizer.
    ///
    /// # Errors
    /// If the tokenizer cannot be written.
    pub fn fingerprint(&self) -> Result<String> {
        let text = self.tokenizer.to_string(false).map_err(|error| Error::Tokenizer(error.to_string()))?;
        let weights = self.parameters.numbers().iter().map(|x| u64::from(x.to_bits()));
        Ok(format!("{:016x}", weights.fold(hash(&[&text]), |state, bits| mix(state ^ bits))))
    }

    /// Writes the three files into a folder that exists.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let layout = self.parameters.layout();
        let config = &layout.config;
        let end = self.tokenizer.token_to_id(END_OF_TEXT);
        write_json(
            &folder.join(CONFIG),
            &json!({
                "model_type": "gpt2",
                "architectures": ["GPT2LMHeadModel"],
                "activation_function": "gelu_new",
                "layer_norm_epsilon": 1e-5,
                "vocab_size": config.n_vocab,
                "n_positions": config.ctx_window,
                "n_ctx": config.ctx_window,
                "n_embd": config.d_model,
                "n_layer": config.n_layers,
                "n_head": config.n_heads,
                "n_inner": config.d_ff,
                "tie_word_embeddings": true,
                "bos_token_id": end,
                "eos_token_id": end,
                "torch_dtype": "float32",
            }),
        )?;
        let numbers = self.parameters.numbers();
        let tensors = layout.tensors.iter();
        let tensors: Vec<_> =
            tensors.map(|tensor| (tensor.name.as_str(), tensor.dims.clone(), &numbers[tensor.at.clone()])).collect();
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        write_tensors(&folder.join(WEIGHTS), &tensors, metadata)?;
        let path = folder.join(TOKENIZER);
        let tokenizer = self.tokenizer.to_string(true).map_err(|error| Error::content(&path, error))?;
        write_whole(&path, tokenizer.as_bytes())
    }
}
