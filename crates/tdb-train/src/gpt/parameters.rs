//! The parameters in one vector, which a model reads where they lie.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use tdb_model::{CheckpointError, Element, Matrix, Source, Storage, Transformer};

use super::layout::{Affine, Layout};
use crate::error::Result;

/// All parameters of a GPT-2; cloning costs nothing.
#[derive(Clone)]
pub struct Parameters {
    layout: Arc<Layout>,
    numbers: Arc<Vec<f32>>,
    /// Where the library's tensors lie, by their names.
    places: Arc<BTreeMap<String, Place>>,
}

/// A tensor of the library among the parameters.
struct Place {
    start: usize,
    /// One or two dimensions.
    dims: Vec<usize>,
    strides: [usize; 2],
}

impl Parameters {
    /// # Panics
    /// If there are not as many numbers as the layout says.
    pub fn new(layout: Layout, numbers: Vec<f32>) -> Self {
        assert_eq!(numbers.len(), layout.size, "numbers of all parameters");
        Self { places: Arc::new(places(&layout)), layout: Arc::new(layout), numbers: Arc::new(numbers) }
    }

    /// Where each of them lies.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    pub fn numbers(&self) -> &[f32] {
        &self.numbers
    }

    /// To change the numbers. If a model or a clone still reads them, it keeps what it has, and these are a copy from
    /// now on.
    pub fn layout_and_numbers_mut(&mut self) -> (&Layout, &mut [f32]) {
        (&self.layout, Arc::<Vec<f32>>::make_mut(&mut self.numbers))
    }

    /// The model with these parameters, whose matrices are not copied.
    ///
    /// # Errors
    /// None that is expected: the parameters are all that the model needs.
    pub fn transformer(&self) -> Result<Transformer> {
        Ok(Transformer::load(self.layout.config.clone(), self.clone())?)
    }

    fn place(&self, name: &str) -> std::result::Result<&Place, CheckpointError> {
        self.places.get(name).ok_or_else(|| CheckpointError::missing(Path::new(FILE), name))
    }

    fn place_of(&self, name: &str, dims: &[usize]) -> std::result::Result<&Place, CheckpointError> {
        let place = self.place(name)?;
        if place.dims == dims {
            return Ok(place);
        }
        Err(CheckpointError::Unexpected {
            file: FILE.into(),
            key: name.to_owned(),
            expected: format!("of shape {dims:?}"),
            found: format!("of shape {:?}", place.dims),
        })
    }
}

/// What names the parameters in errors.
const FILE: &str = "parameters";

impl fmt::Debug for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Parameters({})", self.numbers.len())
    }
}

impl Source for Parameters {
    fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    fn shape(&self, name: &str) -> std::result::Result<Vec<usize>, CheckpointError> {
        self.place(name).map(|place| place.dims.clone())
    }

    fn matrix(&self, name: &str, shape: [usize; 2]) -> std::result::Result<Matrix, CheckpointError> {
        let place = self.place_of(name, &shape)?;
        let storage = Storage::Owned(self.numbers.clone());
        Matrix::new(storage, Element::F32, 4 * place.start, shape, place.strides)
            .map_err(|error| CheckpointError::Damaged { file: FILE.into(), what: format!("`{name}`: {error}") })
    }

    fn vector(&self, name: &str, len: usize) -> std::result::Result<Vec<f32>, CheckpointError> {
        let place = self.place_of(name, &[len])?;
        Ok(self.numbers[place.start..place.start + len].to_vec())
    }
}

/// The library's names and shapes, of what lies under GPT-2's.
fn places(layout: &Layout) -> BTreeMap<String, Place> {
    let (config, mut places) = (&layout.config, BTreeMap::new());
    let d = config.d_model;
    let mut add = |name: String, start: usize, dims: &[usize], strides: [usize; 2]| {
        places.insert(name, Place { start, dims: dims.to_vec(), strides });
    };
    add("embed.weight".to_owned(), layout.wte.start, &[config.n_vocab, d], [d, 1]);
    add("positions.weight".to_owned(), layout.wpe.start, &[config.ctx_window, d], [d, 1]);
    let mut norm = |name: &str, at: &Affine| {
        add(format!("{name}.weight"), at.weight.start, &[d], [1, 0]);
        add(format!("{name}.bias"), at.bias.start, &[d], [1, 0]);
    };
    norm("final_norm", &layout.ln_f);
    for (layer, at) in layout.layers.iter().enumerate() {
        norm(&format!("blocks.{layer}.attn_norm"), &at.ln_1);
        norm(&format!("blocks.{layer}.mlp_norm"), &at.ln_2);
    }
    for (layer, at) in layout.layers.iter().enumerate() {
        // Some of the outputs of a weight `[in, out]`, as `[out, in]`.
        let mut linear = |name: &str, at: &Affine, first: usize, outputs: usize| {
            let all = at.bias.len();
            let dims = [outputs, at.weight.len() / all];
            add(format!("blocks.{layer}.{name}.weight"), at.weight.start + first, &dims, [1, all]);
            add(format!("blocks.{layer}.{name}.bias"), at.bias.start + first, &[outputs], [1, 0]);
        };
        linear("attn.q", &at.attention_in, 0, d);
        linear("attn.k", &at.attention_in, d, d);
        linear("attn.v", &at.attention_in, 2 * d, d);
        linear("attn.o", &at.attention_out, 0, d);
        linear("mlp.in", &at.mlp_in, 0, config.d_ff);
        linear("mlp.out", &at.mlp_out, 0, d);
    }
    places
}
