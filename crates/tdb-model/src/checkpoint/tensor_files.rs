//! The tensors of a checkpoint in one file, or in several that an index lists: `safetensors`, or what `torch.save` writes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::bytes::{is_there, read_json};
use super::error::{CheckpointError, shorten};
use super::pt::PtFile;
use super::safetensors_file::TensorFile;
use super::tensor::NamedTensor;

/// A file of either kind.
#[derive(Debug)]
enum File {
    Safetensors(TensorFile),
    Torch(PtFile),
}

impl File {
    fn open(path: &Path) -> Result<Self, CheckpointError> {
        match path.extension().is_some_and(|extension| extension == "bin") {
            false => TensorFile::open(path).map(File::Safetensors),
            true => PtFile::open(path).map(File::Torch),
        }
    }

    fn path(&self) -> &Path {
        match self {
            File::Safetensors(file) => file.path(),
            File::Torch(file) => file.path(),
        }
    }

    fn names(&self) -> Result<Vec<String>, CheckpointError> {
        match self {
            File::Safetensors(file) => Ok(file.names()),
            File::Torch(file) => Ok(file.dict()?.keys().map(str::to_owned).collect()),
        }
    }

    fn tensor(&self, key: &str) -> Result<NamedTensor, CheckpointError> {
        match self {
            File::Safetensors(file) => file.tensor(key),
            File::Torch(file) => file.dict()?.tensor(key),
        }
    }
}

/// Opened files, and which of them has which tensor.
#[derive(Debug)]
pub(crate) struct TensorFiles {
    /// What names the set in errors.
    path: PathBuf,
    files: Vec<File>,
    file_of: BTreeMap<String, usize>,
}

impl TensorFiles {
    /// Opens `model.safetensors`, or all files that `model.safetensors.index.json` lists; if there is neither,
    /// `pytorch_model.bin` or its index.
    pub fn open(folder: &Path) -> Result<Self, CheckpointError> {
        let there = |name: &str| {
            let path = folder.join(name);
            is_there(&path).then_some(path)
        };
        for name in ["model.safetensors", "pytorch_model.bin"] {
            if let Some(whole) = there(name) {
                return Self::of_files(whole.clone(), vec![File::open(&whole)?]);
            }
            if let Some(index) = there(&format!("{name}.index.json")) {
                return Self::indexed(folder, &index);
            }
        }
        Err(CheckpointError::NoLayout {
            folder: folder.to_owned(),
            looked_for: "model.safetensors, model.safetensors.index.json, pytorch_model.bin or \
                         pytorch_model.bin.index.json beside config.json"
                .to_owned(),
            found: super::list(folder),
        })
    }

    /// A state dict that is open already.
    pub fn torch(file: PtFile) -> Result<Self, CheckpointError> {
        Self::of_files(file.path().to_owned(), vec![File::Torch(file)])
    }

    /// One file that is open already.
    pub fn single(file: TensorFile) -> Result<Self, CheckpointError> {
        Self::of_files(file.path().to_owned(), vec![File::Safetensors(file)])
    }

    fn of_files(path: PathBuf, files: Vec<File>) -> Result<Self, CheckpointError> {
        let mut file_of = BTreeMap::new();
        for (at, file) in files.iter().enumerate() {
            file_of.extend(file.names()?.into_iter().map(|name| (name, at)));
        }
        Ok(TensorFiles { path, files, file_of })
    }

    /// Every tensor has to be where the index says, and nowhere else.
    fn indexed(folder: &Path, index_path: &Path) -> Result<Self, CheckpointError> {
        let index = read_json(index_path)?;
        let map = index.get("weight_map").and_then(|map| map.as_object());
        let map = map.ok_or_else(|| CheckpointError::missing(index_path, "weight_map"))?;
        let mut names: Vec<&str> = Vec::new();
        for (key, file) in map {
            // A name with a path in it would reach outside the model's folder.
            let plain = |name: &&str| Path::new(name).file_name() == Some(name.as_ref()) && !name.contains(['/', '\\']);
            let name = file.as_str().filter(plain).ok_or_else(|| {
                CheckpointError::unexpected(index_path, key.clone(), "a file in the same folder", file)
            })?;
            names.push(name);
        }
        names.sort_unstable();
        names.dedup();
        let files = names.iter().map(|name| File::open(&folder.join(name))).collect::<Result<Vec<_>, _>>()?;
        for (file, place) in files.iter().zip(&names) {
            for name in file.names()? {
                if map.get(&name).and_then(|file| file.as_str()) != Some(*place) {
                    let expected = format!("in {place}, as {} says", index_path.display());
                    let found = map.get(&name).map_or("not there".to_owned(), |file| format!("in {file}"));
                    return Err(CheckpointError::unexpected(file.path(), shorten(&name), expected, found));
                }
            }
        }
        let files = Self::of_files(index_path.to_owned(), files)?;
        match map.keys().find(|key| !files.contains(key)) {
            None => Ok(files),
            Some(key) => Err(CheckpointError::missing(index_path, shorten(key))),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.file_of.keys().map(String::as_str)
    }

    pub fn contains(&self, key: &str) -> bool {
        self.file_of.contains_key(key)
    }

    pub fn tensor(&self, key: &str) -> Result<NamedTensor, CheckpointError> {
        match self.file_of.get(key) {
            Some(&at) => self.files[at].tensor(key),
            None => Err(CheckpointError::missing(&self.path, key)),
        }
    }
}
