//! The values of every unit of a layer on one sequence, from its forward pass.

use tdb_model::kernels::{self, Threads, View};
use tdb_model::{Array, Forward, SparseRows, Transformer, attention};

use crate::unit::Kind;

/// The values of one unit on a sequence: one per token, or one per token pair, row by row of the lower triangle.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    Dense(Box<[f32]>),
    /// `(index, value)`, ascending; the others of `len` are 0.
    Sparse {
        len: u32,
        entries: Box<[(u32, f32)]>,
    },
}

impl Values {
    /// All values, zeros included.
    pub fn to_dense(&self) -> Vec<f32> {
        match self {
            Self::Dense(values) => values.to_vec(),
            Self::Sparse { len, entries } => {
                let mut out = vec![0.0; *len as usize];
                for &(index, value) in entries {
                    out[index as usize] = value;
                }
                out
            }
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Self::Dense(values) => values.len(),
            Self::Sparse { len, .. } => *len as usize,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// At which token the largest value is first reached, leaving out the first token unless it counts; for pairs, the
    /// token that attends. What the unit does there depends on the tokens up to it alone.
    pub fn peak(&self, kind: Kind, first_counts: bool) -> u32 {
        let from = usize::from(!first_counts);
        let mut best = (f32::NEG_INFINITY, self.len().saturating_sub(1));
        let mut see = |index: usize, value: f32| {
            if index >= from && value > best.0 {
                best = (value, index);
            }
        };
        match self {
            Self::Dense(values) => values.iter().enumerate().for_each(|(i, v)| see(i, *v)),
            // Where all that is not 0 is negative, it is the whole sequence.
            Self::Sparse { entries, .. } => entries.iter().filter(|e| e.1 > 0.0).for_each(|e| see(e.0 as usize, e.1)),
        }
        if kind.per_pair() { query(best.1) } else { best.1 as u32 }
    }
}

/// The token that attends in the pair of this index: pairs stand row by row in the lower triangle.
fn query(pair: usize) -> u32 {
    let mut query = 0;
    while (query + 1) * (query + 2) / 2 <= pair {
        query += 1;
    }
    query as u32
}

/// What the values of one unit on one sequence amount to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    /// The largest value, the figure of merit: of all tokens, or of all but the first. Minus infinity if there is none.
    pub largest: f32,
    /// Sums of the first to fourth powers.
    pub powers: [f64; 4],
    /// How many values are above 0.
    pub positive: u32,
    /// Whether the value at the first token (of pairs: of the first token with itself) is.
    pub first_positive: bool,
}

impl Figures {
    /// Of a unit that is 0 everywhere.
    pub const ZERO: Self = Self { largest: 0.0, powers: [0.0; 4], positive: 0, first_positive: false };

    fn of(values: impl Iterator<Item = (usize, f32)>, start: f32, first_counts: bool) -> Self {
        let mut out = Self { largest: start, ..Self::ZERO };
        for (index, value) in values {
            match index {
                0 => out.add_first(value, first_counts),
                _ => out.add(value),
            }
        }
        out
    }

    fn add_first(&mut self, value: f32, counts: bool) {
        let largest = self.largest;
        self.add(value);
        self.first_positive = value > 0.0;
        if !counts {
            self.largest = largest;
        }
    }

    #[inline(always)]
    fn add(&mut self, value: f32) {
        let x = f64::from(value);
        let square = x * x;
        self.largest = if value > self.largest { value } else { self.largest };
        self.powers[0] += x;
        self.powers[1] += square;
        self.powers[2] += square * x;
        self.powers[3] += square * square;
        self.positive += u32::from(value > 0.0);
    }

    /// Whether all values were numbers.
    pub fn is_finite(&self) -> bool {
        self.powers[3].is_finite()
    }
}

/// The values of all units of one kind on a sequence.
#[derive(Debug)]
pub enum Measured<'a> {
    /// `[values, units]`
    Columns { data: &'a [f32], units: usize },
    /// `[units, values]`
    Rows { data: Vec<f32>, values: usize },
    /// `(unit, index, value)`, ascending; the others are 0.
    Sparse { entries: Vec<(u32, u32, f32)>, values: usize },
}

impl Measured<'_> {
    /// Calls `f` for every unit that may have another value than 0, by ascending index, with its figures and a function
    /// that copies its values.
    pub fn for_each(&self, first_counts: bool, mut f: impl FnMut(usize, Figures, &dyn Fn() -> Values)) {
        match self {
            Self::Columns { data, units } => {
                let figures = column_figures(data, *units, first_counts);
                for (unit, figures) in figures.into_iter().enumerate() {
                    f(unit, figures, &|| Values::Dense(data.iter().skip(unit).step_by(*units).copied().collect()));
                }
            }
            Self::Rows { data, values } => {
                for (unit, row) in data.chunks_exact(*values).enumerate() {
                    let figures = Figures::of(row.iter().copied().enumerate(), f32::NEG_INFINITY, first_counts);
                    f(unit, figures, &|| Values::Dense(row.into()));
                }
            }
            Self::Sparse { entries, values } => {
                for group in entries.chunk_by(|a, b| a.0 == b.0) {
                    let counted = group.iter().filter(|e| first_counts || e.1 > 0).count();
                    let others_are_zero = counted < *values - usize::from(!first_counts);
                    let start = if others_are_zero { 0.0 } else { f32::NEG_INFINITY };
                    let figures = Figures::of(group.iter().map(|e| (e.1 as usize, e.2)), start, first_counts);
                    f(group[0].0 as usize, figures, &|| Values::Sparse {
                        len: *values as u32,
                        entries: group.iter().map(|e| (e.1, e.2)).collect(),
                    });
                }
            }
        }
    }
}

/// Figures of every column, going through the rows once.
fn column_figures(data: &[f32], units: usize, first_counts: bool) -> Vec<Figures> {
    let mut out = vec![Figures { largest: f32::NEG_INFINITY, ..Figures::ZERO }; units];
    let mut rows = data.chunks_exact(units);
    for (figures, value) in out.iter_mut().zip(rows.next().unwrap_or_default()) {
        figures.add_first(*value, first_counts);
    }
    for row in rows {
        for (figures, value) in out.iter_mut().zip(row) {
            figures.add(*value);
        }
    }
    out
}

/// The values of all units of `kind` in `layer`; `None` if the model has no such units there.
///
/// `writes` is what [`head_writes`] gave for this layer.
pub fn measure<'a>(
    model: &Transformer,
    forward: &'a Forward,
    layer: usize,
    kind: Kind,
    writes: &Array,
) -> Option<Measured<'a>> {
    let state = &forward.layers[layer];
    let tokens = forward.tokens.len();
    let latents = |rows: &SparseRows| Measured::Sparse { entries: latents(rows), values: tokens };
    Some(match kind {
        Kind::Neuron => Measured::Columns { data: state.mlp.post_act.data(), units: model.config().d_ff },
        Kind::Head => Measured::Rows { data: write_norms(&state.attn.qk_probs, writes), values: kind.values(tokens) },
        Kind::MlpLatent => latents(&state.mlp.latents.as_ref()?.latents),
        Kind::AttnLatent => latents(&state.attn.latents.as_ref()?.latents),
        Kind::AttnLatentPairs => Measured::Sparse {
            entries: latent_pairs(model, layer, &state.attn.latents.as_ref()?.latents, &state.attn.qk_probs, writes),
            values: kind.values(tokens),
        },
    })
}

fn latents(rows: &SparseRows) -> Vec<(u32, u32, f32)> {
    let entry = |(t, row): (usize, &Vec<(u32, f32)>)| {
        let row = row.clone();
        row.into_iter().map(move |(latent, value)| (latent, t as u32, value))
    };
    let mut out: Vec<_> = rows.rows().iter().enumerate().flat_map(entry).collect();
    out.sort_unstable_by_key(|e| (e.0, e.1));
    out
}

/// What each head would write at full attention to each token, `v[k, h] W_O^h`: `[K, H, D]`.
pub fn head_writes(model: &Transformer, layer: usize, v: &Array) -> Array {
    let config = model.config();
    let (tokens, heads, width, d_model) = (v.dims()[0], config.n_heads, config.d_head, config.d_model);
    let weight = &model.weights().layers[layer].out.weight;
    let mut out = Array::zeros(&[tokens, heads, d_model]);
    for head in 0..heads {
        let of_head = weight.col_range(head * width..(head + 1) * width);
        let values = attention::head_view(v, head);
        let part = &mut out.data_mut()[head * d_model..];
        kernels::matmul_into(part, [heads * d_model, 1], values, View::of(&of_head).t(), false, Threads::One);
    }
    out
}

/// `probs[q, k, h] · |writes[k, h]|` for `k <= q`: `[H, pairs]`.
fn write_norms(probs: &Array, writes: &Array) -> Vec<f32> {
    let (tokens, heads, d_model) = (writes.dims()[0], writes.dims()[1], writes.dims()[2]);
    let norms: Vec<f32> = writes.data().chunks_exact(d_model).map(|w| kernels::dot(w, w).sqrt()).collect();
    let mut out = Vec::with_capacity(heads * tokens * (tokens + 1) / 2);
    for head in 0..heads {
        for query in 0..tokens {
            let row = &probs.data()[(head * tokens + query) * tokens..][..query + 1];
            out.extend(row.iter().enumerate().map(|(key, p)| p * norms[key * heads + head]));
        }
    }
    out
}

/// Queries whose writes are summed over heads at a time: bounds the buffer of `[queries, K, D]`.
const QUERIES: usize = 16;

/// `Σ_h probs[q, k, h] writes[k, h] · e_l` for every latent `l` that is active at `q`, with its encoder row `e_l`.
///
/// The derivative of an active latent with respect to the attention layer's output is its encoder row, so that this is
/// how much of the latent is due to attending from `q` to `k`.
fn latent_pairs(
    model: &Transformer,
    layer: usize,
    latents: &SparseRows,
    probs: &Array,
    writes: &Array,
) -> Vec<(u32, u32, f32)> {
    let Some(autoencoder) = model.attn_autoencoder(layer) else { return Vec::new() };
    let (tokens, heads, d_model) = (writes.dims()[0], writes.dims()[1], writes.dims()[2]);
    let mut out = Vec::new();
    let mut summed = vec![0.0f32; QUERIES * tokens * d_model];
    for first in (0..tokens).step_by(QUERIES) {
        let last = (first + QUERIES).min(tokens);
        for key in 0..last {
            let query = key.max(first);
            let from = (query * tokens) + key;
            let p = View::strided(&probs.data()[from..], last - query, heads, tokens, tokens * tokens);
            let w = View::new(&writes.data()[key * heads * d_model..][..heads * d_model], heads, d_model);
            let part = &mut summed[((query - first) * tokens + key) * d_model..];
            kernels::matmul_into(part, [tokens * d_model, 1], p, w, false, Threads::One);
        }
        for query in first..last {
            let active: Vec<u32> = latents.row(query).iter().filter(|e| autoencoder.passes(e.1)).map(|e| e.0).collect();
            if active.is_empty() {
                continue;
            }
            let rows: Vec<f32> = active.iter().flat_map(|l| autoencoder.encoder_row(*l as usize)).collect();
            let keys =
                View::new(&summed[(query - first) * tokens * d_model..][..(query + 1) * d_model], query + 1, d_model);
            let rows = View::new(&rows, active.len(), d_model);
            let products = kernels::matmul(rows, keys.t(), Threads::One);
            let start = query * (query + 1) / 2;
            for (latent, row) in active.iter().zip(products.chunks_exact(query + 1)) {
                out.extend(row.iter().enumerate().map(|(key, value)| (*latent, (start + key) as u32, *value)));
            }
        }
    }
    out.sort_unstable_by_key(|e| (e.0, e.1));
    out
}
