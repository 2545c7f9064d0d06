//! The values of every unit of a layer on one sequence, from its forward pass.

use candle_core::Tensor;
use tdb_model::numbers::Numbers;
use tdb_model::{AutoencoderSite, Result, Run, Site, Slot, SparseRows, Transformer};

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

/// The values of one unit on a sequence, where they were measured.
#[derive(Clone, Copy)]
pub enum UnitValues<'a> {
    Dense(&'a [f32]),
    /// `(unit, index, value)` of one unit, by ascending index; the others of `len` are 0.
    Sparse {
        len: usize,
        entries: &'a [(u32, u32, f32)],
    },
}

impl UnitValues<'_> {
    /// A copy of them.
    pub fn copy(self) -> Values {
        match self {
            Self::Dense(values) => Values::Dense(values.into()),
            Self::Sparse { len, entries } => {
                Values::Sparse { len: len as u32, entries: entries.iter().map(|e| (e.1, e.2)).collect() }
            }
        }
    }

    /// Calls `f` for every value; those that a sparse list leaves out are left out.
    pub fn for_each(self, mut f: impl FnMut(f32)) {
        match self {
            Self::Dense(values) => values.iter().for_each(|x| f(*x)),
            Self::Sparse { entries, .. } => entries.iter().for_each(|e| f(e.2)),
        }
    }
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
pub enum Measured {
    /// `[values, units]`
    Columns(Tensor),
    /// `[units, values]`
    Rows { data: Vec<f32>, values: usize },
    /// `(unit, index, value)`, ascending; the others are 0.
    Sparse { entries: Vec<(u32, u32, f32)>, values: usize },
}

impl Measured {
    /// Calls `f` for every unit that may have another value than 0, by ascending index, with its figures and its
    /// values.
    ///
    /// # Errors
    /// If the numbers cannot be had from the device.
    pub fn for_each(&self, first_counts: bool, mut f: impl FnMut(usize, Figures, UnitValues<'_>)) -> Result<()> {
        match self {
            Self::Columns(columns) => {
                let (numbers, units) = (Numbers::of(columns)?, columns.dim(1)?);
                let data = numbers.data();
                let mut column = Vec::with_capacity(columns.dim(0)?);
                for (unit, figures) in column_figures(data, units, first_counts).into_iter().enumerate() {
                    column.clear();
                    column.extend(data.iter().skip(unit).step_by(units));
                    f(unit, figures, UnitValues::Dense(&column));
                }
            }
            Self::Rows { data, values } => {
                for (unit, row) in data.chunks_exact(*values).enumerate() {
                    let figures = Figures::of(row.iter().copied().enumerate(), f32::NEG_INFINITY, first_counts);
                    f(unit, figures, UnitValues::Dense(row));
                }
            }
            Self::Sparse { entries, values } => {
                for group in entries.chunk_by(|a, b| a.0 == b.0) {
                    let counted = group.iter().filter(|e| first_counts || e.1 > 0).count();
                    let others_are_zero = counted < *values - usize::from(!first_counts);
                    let start = if others_are_zero { 0.0 } else { f32::NEG_INFINITY };
                    let figures = Figures::of(group.iter().map(|e| (e.1 as usize, e.2)), start, first_counts);
                    f(group[0].0 as usize, figures, UnitValues::Sparse { len: *values, entries: group });
                }
            }
        }
        Ok(())
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
///
/// # Errors
/// If an operation fails.
pub fn measure(run: &Run, layer: usize, kind: Kind, writes: Option<&Tensor>) -> Result<Option<Measured>> {
    let tokens = run.tokens().len();
    let sparse = |slot| {
        let rows = &run.latents(slot, layer)?.latents;
        Some(Measured::Sparse { entries: latents(rows), values: tokens })
    };
    let values = kind.values(tokens);
    Ok(match (kind, writes) {
        (Kind::Neuron, _) => Some(Measured::Columns(run.get(Site::MlpPostAct, layer)?)),
        (Kind::MlpLatent, _) => sparse(Slot::Mlp),
        (Kind::AttnLatent, _) => sparse(Slot::Attention),
        (Kind::ResidualLatent, _) => sparse(Slot::Residual),
        (Kind::Head, Some(writes)) => {
            Some(Measured::Rows { data: write_norms(&write_shares(run, layer)?, writes)?, values })
        }
        (Kind::AttnLatentPairs, Some(writes)) => {
            latent_pairs(run, layer, writes)?.map(|entries| Measured::Sparse { entries, values })
        }
        (Kind::Head | Kind::AttnLatentPairs, None) => None,
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

/// What each head would write at full attention to each token, `v[k, h] W_O^h`: `[K, H, D]`. Where there is a norm after
/// the layer, the division by its scale at the query is still to come.
///
/// # Errors
/// If an operation fails.
pub fn head_writes(model: &Transformer, run: &Run, layer: usize) -> Result<Tensor> {
    let (attn, v) = (&model.block(layer).attn, run.get(Site::AttnV, layer)?);
    let write = |head| attn.write(head, &v.narrow(1, attn.kv_head(head), 1)?.squeeze(1)?);
    let writes: Vec<Tensor> = (0..model.config().n_heads).map(write).collect::<candle_core::Result<_>>()?;
    Ok(Tensor::stack(&writes, 1)?)
}

/// By what [`head_writes`] are multiplied on their way to the residual stream of each query, `[Q, K, H]`: the attention
/// probabilities, divided by the scale of the norm after the layer where there is one.
fn write_shares(run: &Run, layer: usize) -> Result<Tensor> {
    let probs = run.get(Site::AttnQkProbs, layer)?;
    match run.write_scale(Slot::Attention, layer)? {
        Some(scale) => Ok(probs.broadcast_div(&scale.unsqueeze(1)?)?),
        None => Ok(probs),
    }
}

/// `probs[q, k, h] · |writes[k, h]|` for `k <= q`: `[H, pairs]`.
fn write_norms(probs: &Tensor, writes: &Tensor) -> Result<Vec<f32>> {
    let (tokens, heads, _) = writes.dims3()?;
    // Both head by head, as the probabilities lie.
    let (probs, norms) = (probs.permute((2, 0, 1))?.contiguous()?, writes.sqr()?.sum(2)?.sqrt()?.t()?.contiguous()?);
    let (probs, norms) = (Numbers::of(&probs)?, Numbers::of(&norms)?);
    let mut out = Vec::with_capacity(heads * tokens * (tokens + 1) / 2);
    for (row, probs) in probs.data().chunks_exact(tokens).enumerate() {
        let (head, query) = (row / tokens, row % tokens);
        out.extend(probs[..=query].iter().zip(norms.row(head)).map(|(p, norm)| p * norm));
    }
    Ok(out)
}

/// `Σ_h probs[q, k, h] v[k, h] · rows[l, h]` for rows at the heads' outputs, `[L, H * E]`: `[L, q + 1]`.
fn head_products(run: &Run, layer: usize, query: usize, rows: &Tensor) -> Result<Tensor> {
    let (attn, config) = (&run.model().block(layer).attn, run.model().config());
    let rows = rows.reshape(((), config.n_heads, config.d_head))?;
    let probs = run.get(Site::AttnQkProbs, layer)?.narrow(0, query, 1)?;
    let products = attn.vjp_probs(&run.get(Site::AttnV, layer)?, &rows)?;
    Ok(products.broadcast_mul(&probs)?.sum(2)?.narrow(1, 0, query + 1)?.contiguous()?)
}

/// Queries whose writes are summed over heads at a time: bounds the buffer of `[K, queries, D]`.
const QUERIES: usize = 16;

/// `Σ_h probs[q, k, h] writes[k, h] · e_l` for every latent `l` that is active at `q`, with its encoder row `e_l`.
///
/// The derivative of an active latent with respect to the attention layer's output is its encoder row, so that this is
/// how much of the latent is due to attending from `q` to `k`.
fn latent_pairs(run: &Run, layer: usize, writes: &Tensor) -> Result<Option<Vec<(u32, u32, f32)>>> {
    let slot = Slot::Attention;
    let (Some(autoencoder), Some(state)) = (run.model().autoencoder(slot, layer), run.latents(slot, layer)) else {
        return Ok(None);
    };
    let (probs, tokens) = (write_shares(run, layer)?, run.tokens().len());
    let mut out = Vec::new();
    for first in (0..tokens).step_by(QUERIES) {
        let last = (first + QUERIES).min(tokens);
        let probs = probs.narrow(0, first, last - first)?.narrow(1, 0, last)?.permute((1, 0, 2))?;
        let summed = probs.contiguous()?.matmul(&writes.narrow(0, 0, last)?)?;
        for query in first..last {
            let row = state.latents.row(query).iter();
            let active: Vec<u32> = row.filter(|e| autoencoder.passes(e.1)).map(|e| e.0).collect();
            if active.is_empty() {
                continue;
            }
            let input = state.input.get(query)?.to_vec1::<f32>()?;
            let read = |latent: &u32| autoencoder.read_gradient(*latent as usize, &input, true);
            let rows: Vec<f32> = active.iter().flat_map(read).collect();
            let rows = run.model().tensor(&[active.len(), autoencoder.n_inputs()], rows)?;
            let products = match autoencoder.site() {
                AutoencoderSite::AttnVOut => head_products(run, layer, query, &rows)?,
                _ => rows.matmul(&summed.narrow(0, 0, query + 1)?.narrow(1, query - first, 1)?.squeeze(1)?.t()?)?,
            };
            let products = products.flatten_all()?.to_vec1::<f32>()?;
            let start = query * (query + 1) / 2;
            for (latent, row) in active.iter().zip(products.chunks_exact(query + 1)) {
                out.extend(row.iter().enumerate().map(|(key, value)| (*latent, (start + key) as u32, *value)));
            }
        }
    }
    out.sort_unstable_by_key(|e| (e.0, e.1));
    Ok(Some(out))
}
