//! A layout as a table: which tensors of its files are which of this library's.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::error::CheckpointError;
use super::tensor::NamedTensor;
use crate::matrix::Matrix;
use crate::parallel;
use crate::source::Source;

/// One row of a table: what a tensor of a file is here.
#[derive(Debug)]
struct Entry {
    /// Its name in the file.
    key: String,
    /// Its shape in the file.
    shape: Vec<usize>,
    /// Its parts along the output dimension.
    names: Vec<String>,
    order: Order,
}

/// How a matrix of a file holds ours, which are `[out, in]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// `[out, in]`; of several, all outputs of the first come first.
    OutIn,
    /// `[in, out]`, as Hugging Face's `Conv1D` has it; of several, all outputs of the first come first.
    InOut,
    /// `[out, in]`, and outputs are ordered (head, part, number) for so many heads.
    ByHead(usize),
    /// `[head, in, out]`; our outputs are ordered (head, out). A bias is `[head, out]`.
    OutOfHeads,
    /// `[head, in, out]`; our inputs are ordered (head, in).
    InOfHeads,
}

impl Order {
    /// The file's shape.
    fn shape(self, [outputs, inputs]: [usize; 2]) -> Vec<usize> {
        if self == Order::InOut { vec![inputs, outputs] } else { vec![outputs, inputs] }
    }
}

/// The rows of a table, as a layout writes them down.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    rows: Vec<Entry>,
    /// What stands before the keys and before the names that are written now.
    prefixes: [String; 2],
}

impl Entries {
    /// What follows is of this block: its keys begin with `key` and a point.
    pub fn block(&mut self, layer: usize, key: &str) {
        self.prefixes = [format!("{key}."), format!("blocks.{layer}.")];
    }

    /// A tensor that is the same here.
    pub fn tensor(&mut self, key: &str, name: &str, shape: impl Into<Vec<usize>>) {
        self.push(key, &[name], shape.into(), Order::OutIn);
    }

    /// A matrix; `outputs` and `inputs` are ours.
    pub fn matrix(&mut self, key: &str, name: &str, [outputs, inputs]: [usize; 2], order: Order) {
        self.push(key, &[name], order.shape([outputs, inputs]), order);
    }

    /// A norm's `weight` and `bias`.
    pub fn norm(&mut self, key: &str, name: &str, width: usize) {
        for kind in ["weight", "bias"] {
            self.tensor(&format!("{key}.{kind}"), &format!("{name}.{kind}"), [width]);
        }
    }

    /// The `weight` of a norm that has nothing else.
    pub fn gain(&mut self, key: &str, name: &str, width: usize) {
        self.tensor(&format!("{key}.weight"), &format!("{name}.weight"), [width]);
    }

    /// A projection's `weight` and, where it has one, `bias`. Several names: the file has these projections in one.
    /// `outputs` are all of them.
    pub fn linear(&mut self, key: &str, names: &[&str], [outputs, inputs]: [usize; 2], order: Order, bias: bool) {
        let names_of = |kind: &str| names.iter().map(|name| format!("{name}.{kind}")).collect::<Vec<_>>();
        self.push(&format!("{key}.weight"), &names_of("weight"), order.shape([outputs, inputs]), order);
        if bias {
            self.push(&format!("{key}.bias"), &names_of("bias"), vec![outputs], order);
        }
    }

    /// A tensor with a dimension for heads; `shape` is the file's.
    pub fn of_heads(&mut self, key: &str, name: &str, shape: &[usize], order: Order) {
        self.push(key, &[name], shape.into(), order);
    }

    fn push(&mut self, key: &str, names: &[impl AsRef<str>], shape: Vec<usize>, order: Order) {
        let [keys, ours] = &self.prefixes;
        let names = names.iter().map(|name| format!("{ours}{}", name.as_ref())).collect();
        self.rows.push(Entry { key: format!("{keys}{key}"), shape, names, order });
    }

    /// Puts the prefix before all keys; what follows has none.
    pub fn prefix_keys(&mut self, prefix: &str) {
        self.rows.iter_mut().for_each(|row| row.key.insert_str(0, prefix));
        self.prefixes = Default::default();
    }

    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.rows.iter().map(|row| row.key.as_str())
    }

    /// Refuses a tensor that is neither in the table nor one of `ignored`: it would silently change what the model is.
    pub fn refuse_unknown<'a>(
        &self,
        path: &Path,
        found: impl IntoIterator<Item = &'a str>,
        ignored: &[String],
        known: &str,
    ) -> Result<(), CheckpointError> {
        let keys: HashSet<&str> = self.keys().chain(ignored.iter().map(String::as_str)).collect();
        match found.into_iter().find(|key| !keys.contains(key)) {
            None => Ok(()),
            Some(key) => Err(CheckpointError::unknown(path, key, known)),
        }
    }

    /// Finds every tensor by its key; `path` names the checkpoint in errors.
    ///
    /// # Errors
    /// If a tensor is missing, has another shape or does not hold floating-point numbers.
    pub fn look_up(
        &self,
        path: &Path,
        find: impl Fn(&str) -> Result<NamedTensor, CheckpointError> + Sync,
    ) -> Result<Table, CheckpointError> {
        let found = parallel::try_map(self.rows.len(), |i| self.rows[i].parts(find(&self.rows[i].key)?))?;
        let mut tensors = HashMap::new();
        found.into_iter().for_each(|parts| tensors.extend(parts));
        Ok(Table { path: path.to_owned(), tensors })
    }
}

impl Entry {
    /// The parts of the file's tensor under their names.
    fn parts(&self, found: NamedTensor) -> Result<Vec<(String, NamedTensor)>, CheckpointError> {
        found.expect_shape(&self.shape)?;
        let NamedTensor { file, key, tensor } = found;
        let (tensor, groups) = match self.order {
            Order::OutIn => (tensor, 1),
            Order::InOut => (tensor.transposed(), 1),
            Order::ByHead(heads) => (tensor, heads),
            Order::OutOfHeads => (if self.shape.len() == 3 { tensor.swapped() } else { tensor }.merged(), 1),
            Order::InOfHeads => (tensor.merged().transposed(), 1),
        };
        if let [name] = self.names.as_slice() {
            return Ok(vec![(name.clone(), NamedTensor { file, key, tensor })]);
        }
        let part = |(index, name): (usize, &String)| {
            let tensor = tensor.clone().part(index, self.names.len(), groups);
            (name.clone(), NamedTensor { file: file.clone(), key: key.clone(), tensor })
        };
        Ok(self.names.iter().enumerate().map(part).collect())
    }
}

/// The tensors of a checkpoint under this library's names. Numbers stay in their files until they are asked for.
#[derive(Debug)]
pub(crate) struct Table {
    /// What names the checkpoint in errors.
    path: PathBuf,
    tensors: HashMap<String, NamedTensor>,
}

impl Table {
    fn get(&self, name: &str) -> Result<&NamedTensor, CheckpointError> {
        self.tensors.get(name).ok_or_else(|| CheckpointError::missing(&self.path, name))
    }
}

impl Source for Table {
    fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    fn shape(&self, name: &str) -> Result<Vec<usize>, CheckpointError> {
        Ok(self.get(name)?.tensor.shape().to_vec())
    }

    fn matrix(&self, name: &str, shape: [usize; 2]) -> Result<Matrix, CheckpointError> {
        self.get(name)?.matrix(shape)
    }

    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, CheckpointError> {
        self.get(name)?.vector(len)
    }
}
