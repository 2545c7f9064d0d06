//! Sparse dictionaries (autoencoders and transcoders): latents of an activation, what each latent writes, and both
//! within a pass.

use std::collections::BTreeMap;
use std::ops::Range;

use candle_core::{Device, Result, Tensor};

use crate::error::Error;
use crate::fault::{self, Fault};
use crate::intervention::Index;
use crate::matrix::Matrix;
use crate::modules::Place;
use crate::modules::normalization::Frame;
use crate::numbers::Numbers;
use crate::ops::rows::{self, axpy, dot};
use crate::ops::{Ops, Screen, Threads, Vector, View, Wanted, Weight, product, times_transposed};
use crate::parallel;
use crate::site::{Pass, Point};
use crate::slot::Slot;
use crate::sparse::SparseRows;
use crate::tap::Tap;
use crate::weights::{AutoencoderSite, AutoencoderWeights, LatentActivation, Normalization};

/// One layer's dictionary, ready to run: the decoder's directions lie contiguous in memory.
#[derive(Clone, Debug)]
pub struct Autoencoder {
    site: AutoencoderSite,
    weights: AutoencoderWeights,
    /// `[L, n_inputs]`
    encoder: Weight,
    latent_bias: Vector,
    /// `[L, n_outputs]`, rows contiguous.
    directions: Weight,
    /// `[n_outputs, n_inputs]`
    skip: Option<Weight>,
    place: Place,
}

impl Autoencoder {
    /// On the CPU.
    ///
    /// # Errors
    /// If the shapes do not fit together.
    pub fn new(site: AutoencoderSite, weights: AutoencoderWeights) -> std::result::Result<Self, Error> {
        let ops = Ops::for_device(&Device::Cpu).map_err(Error::input)?;
        Self::on(site, weights, Place { device: Device::Cpu, ops })
    }

    pub(crate) fn on(
        site: AutoencoderSite,
        weights: AutoencoderWeights,
        place: Place,
    ) -> std::result::Result<Self, Error> {
        let (n_latents, n_inputs, n_outputs) = (weights.encoder.rows(), weights.encoder.cols(), weights.decoder.rows());
        let check = |what, expected: usize, found: usize| match expected == found {
            true => Ok(()),
            false => {
                Err(Error::Autoencoder { what: format!("{what} of an autoencoder is {found}, expected {expected}") })
            }
        };
        check("the length of the latent bias", n_latents, weights.latent_bias.len())?;
        check("the length of the encoder's pre-bias", n_inputs, weights.encoder_pre_bias.len())?;
        check("the length of the decoder's bias", n_outputs, weights.decoder_bias.len())?;
        if !site.is_transcoder() {
            check("the number of rows of the decoder", n_inputs, n_outputs)?;
        }
        if let Some(skip) = &weights.skip {
            check("the number of rows of the skip connection", n_outputs, skip.rows())?;
            check("the number of columns of the skip connection", n_inputs, skip.cols())?;
        }
        check("the number of columns of the decoder", n_latents, weights.decoder.cols())?;
        if let LatentActivation::JumpRelu { threshold } = &weights.activation {
            check("the number of thresholds", n_latents, threshold.len())?;
        }
        if let LatentActivation::TopK { k, .. } = weights.activation
            && k > n_latents
        {
            let what = format!("k of an autoencoder is {k}, but it has {n_latents} latents");
            return Err(Error::Autoencoder { what });
        }
        Ok(Autoencoder {
            site,
            encoder: Weight::new(weights.encoder.clone(), &place.device),
            latent_bias: Vector::new(weights.latent_bias.clone(), &place.device),
            directions: Weight::new(contiguous_rows(weights.decoder.transpose()), &place.device),
            skip: weights.skip.clone().map(|skip| Weight::new(skip, &place.device)),
            weights,
            place,
        })
    }

    /// The activation that it reads and reconstructs.
    pub fn site(&self) -> AutoencoderSite {
        self.site
    }

    /// Its tensors, as the file gave them.
    pub fn weights(&self) -> &AutoencoderWeights {
        &self.weights
    }

    /// Number of latents.
    pub fn n_latents(&self) -> usize {
        self.weights.encoder.rows()
    }

    /// Width of the activation that it reads.
    pub fn n_inputs(&self) -> usize {
        self.weights.encoder.cols()
    }

    /// Width of the activation that it reconstructs.
    pub fn n_outputs(&self) -> usize {
        self.weights.decoder.rows()
    }

    /// What a unit of this latent adds to the reconstruction, `[n_outputs]`; times the token's
    /// [latent scale](Autoencoder::latent_scales).
    pub fn direction(&self, latent: usize) -> &[f32] {
        // Rows were made contiguous by `new`.
        self.directions.matrix().contiguous_row(latent).unwrap_or_default()
    }

    /// Encoder row of one latent, `[n_inputs]`.
    pub fn encoder_row(&self, latent: usize) -> Vec<f32> {
        self.weights.encoder.row(latent)
    }

    /// `x · direction(i)` of every latent `i` for every row of `x: [N, n_outputs]`, `[N, L]`: the gradient of latents,
    /// given that of the reconstruction times the write scales.
    ///
    /// # Errors
    /// If an operation fails.
    pub fn directions_vjp(&self, x: &Tensor) -> Result<Tensor> {
        self.place.ops.linear(x, &self.directions, None, 1.0)
    }

    /// Latents before the activation function for every row of `x: [N, n_inputs]`, `[N, L]`.
    ///
    /// # Errors
    /// If an operation fails.
    pub fn pre_activations(&self, x: &Tensor) -> Result<Tensor> {
        self.place.ops.linear(&self.centered(x)?, &self.encoder, Some(&self.latent_bias), 1.0)
    }

    /// One latent before the activation function, for every row of `x: [N, n_inputs]`, `[N]`.
    ///
    /// # Errors
    /// If the tensor cannot be read.
    pub fn pre_activation_of_latent(&self, latent: usize, x: &Tensor) -> Result<Vec<f32>> {
        let centered = self.centered(x)?;
        let x = Numbers::of(&centered)?;
        let encoder = self.weights.encoder.row_range(latent..latent + 1);
        Ok(affine(x.data(), &encoder, &self.weights.latent_bias[latent..latent + 1], Threads::All))
    }

    /// `x`, normalised and minus the pre-bias.
    fn centered(&self, x: &Tensor) -> Result<Tensor> {
        let numbers = Numbers::of(x)?;
        let mut centered = numbers.to_row_major();
        rows::for_each_row(&mut centered, self.n_inputs(), |_, row| {
            if let Some(frame) = self.frame(row) {
                frame.normalize(row);
            }
            row.iter_mut().zip(&self.weights.encoder_pre_bias).for_each(|(x, b)| *x -= b);
        });
        Tensor::from_vec(centered, x.dims(), x.device())
    }

    /// How a row of the input is normalised; `None` if it is not.
    fn frame(&self, row: &[f32]) -> Option<Frame> {
        (self.weights.normalization != Normalization::None).then(|| self.weights.normalization.frame(row))
    }

    /// Whether the reconstruction is brought back to the scale of the input.
    fn undoes(&self) -> bool {
        self.weights.normalization != Normalization::None && !self.site.is_transcoder()
    }

    /// What a unit of a latent writes at each row of `input: [N, n_inputs]`, in units of its direction: the scale that
    /// the normalisation is undone with. `None` means 1 everywhere.
    ///
    /// # Errors
    /// If the tensor cannot be read.
    pub fn latent_scales(&self, input: &Tensor) -> Result<Option<Vec<f32>>> {
        let scales =
            matches!(self.weights.normalization, Normalization::LayerNorm { .. } | Normalization::ConstantNorm);
        if !scales || self.site.is_transcoder() {
            return Ok(None);
        }
        let input = Numbers::of(input)?.to_row_major();
        let rows = input.chunks_exact(self.n_inputs());
        Ok(Some(rows.map(|row| self.weights.normalization.frame(row).scale).collect()))
    }

    /// The gradient of one latent before its activation function, at one row of the input, `[n_inputs]`. `frozen`: the
    /// scale of the normalisation counts as constant.
    pub fn read_gradient(&self, latent: usize, row: &[f32], frozen: bool) -> Vec<f32> {
        let mut gradient = self.encoder_row(latent);
        if let Some(frame) = self.frame(row) {
            frame.vjp(row, &mut gradient, 0.0, 0.0, frozen);
        }
        gradient
    }

    /// The derivative of the normalised input along `dx`, at `x`, `[N, n_inputs]` each: its product with an encoder row
    /// is that of a latent before the activation function.
    ///
    /// # Errors
    /// If the tensors cannot be read.
    pub fn normalized_jvp(&self, x: &Tensor, dx: &Tensor) -> Result<Tensor> {
        if self.weights.normalization == Normalization::None {
            return Ok(dx.clone());
        }
        let x = Numbers::of(x)?.to_row_major();
        let mut out = Numbers::of(dx)?.to_row_major();
        let width = self.n_inputs();
        rows::for_each_row(&mut out, width, |t, row| {
            let x = &x[t * width..(t + 1) * width];
            self.weights.normalization.frame(x).jvp(x, row, false);
        });
        Tensor::from_vec(out, dx.dims(), dx.device())
    }

    /// Latents of every row of `x: [N, n_inputs]`.
    ///
    /// A row of [`LatentActivation::Identity`] holds all latents, of the others only those that the
    /// activation function lets through.
    ///
    /// # Errors
    /// If an operation fails.
    pub fn encode(&self, x: &Tensor) -> Result<SparseRows> {
        if let LatentActivation::TopK { k, relu } = self.weights.activation {
            return self.encode_blocks(x, |row| top_k(row, k, relu));
        }
        match self.place.ops {
            Ops::Fast => self.encode_in_chunks(x),
            Ops::Plain => self.encode_blocks(x, |row| {
                let entries = row.iter().enumerate().map(|(i, x)| (i as u32, *x));
                entries.filter(|(i, x)| self.lets_through(*i, *x)).collect()
            }),
        }
    }

    /// What a latent has to be above to be let through; `None` if that is no matter of a threshold.
    fn threshold(&self, latent: usize) -> Option<f32> {
        match &self.weights.activation {
            LatentActivation::Relu => Some(0.0),
            // What is not a number stays so, and nothing is above it.
            LatentActivation::JumpRelu { threshold } if threshold[latent] < 0.0 => Some(0.0),
            LatentActivation::JumpRelu { threshold } => Some(threshold[latent]),
            LatentActivation::Identity | LatentActivation::TopK { .. } => None,
        }
    }

    fn lets_through(&self, latent: u32, x: f32) -> bool {
        self.threshold(latent as usize).is_none_or(|threshold| x > threshold)
    }

    /// A few latents of all tokens at a time are computed and forgotten: nothing of `[tokens, latents]` needs to exist.
    fn encode_in_chunks(&self, x: &Tensor) -> Result<SparseRows> {
        const CHUNK: usize = 96;
        /// From so many tokens on, bounds of all products and the products that they leave open take less time than all
        /// products.
        const SCREENED: usize = 24;
        let n_latents = self.n_latents();
        let centered = self.centered(x)?;
        let x = Numbers::of(&centered)?;
        let is_sparse = !matches!(self.weights.activation, LatentActivation::Identity);
        let screen = (x.dims()[0] >= SCREENED && is_sparse).then(|| Screen::new(x.data(), self.n_inputs())).flatten();
        let parts: Vec<Vec<Vec<(u32, f32)>>> = parallel::map(n_latents.div_ceil(CHUNK), |chunk| {
            let range = chunk * CHUNK..((chunk + 1) * CHUNK).min(n_latents);
            if let Some(screen) = &screen
                && let Some(found) = self.screened(screen, x.data(), range.clone())
            {
                return found;
            }
            let (encoder, bias) = (self.weights.encoder.row_range(range.clone()), &self.weights.latent_bias[range]);
            let pre = affine(x.data(), &encoder, bias, Threads::One);
            let first = (chunk * CHUNK) as u32;
            let passed = |e: &(u32, f32)| self.lets_through(e.0, e.1);
            let row = |pre: &[f32]| (first..).zip(pre.iter().copied()).filter(passed).collect();
            pre.chunks_exact(bias.len()).map(row).collect()
        });
        let row = |t: usize| parts.iter().flat_map(|part| part[t].iter().copied()).collect();
        Ok(SparseRows::new(n_latents, (0..x.dims()[0]).map(row).collect()))
    }

    /// What some latents are at each row of `x`, where bounds show that most of them are not let through; `None` if they do
    /// not show it, or the encoder's rows do not lie one after the other.
    fn screened(&self, screen: &Screen, x: &[f32], range: Range<usize>) -> Option<Vec<Vec<(u32, f32)>>> {
        let n = x.len() / self.n_inputs();
        let encoder = self.weights.encoder.contiguous_rows(range.clone())?;
        // Products that may be computed one by one; they take longer so.
        let left = range.len() * n / 6;
        let limits = [vec![0.0; screen.width()], vec![f32::NEG_INFINITY; screen.width()]];
        let mut passing = Passing { autoencoder: self, x, encoder, range, limits, left, found: vec![Vec::new(); n] };
        screen.offer(encoder, &mut passing);
        (passing.left > 0).then_some(passing.found)
    }

    /// All latents of a block of tokens at once, of which `choose` picks those that are listed.
    fn encode_blocks(&self, x: &Tensor, choose: impl Fn(&[f32]) -> Vec<(u32, f32)> + Sync) -> Result<SparseRows> {
        const BLOCK: usize = 64;
        let n = x.dim(0)?;
        let mut out = Vec::with_capacity(n);
        for first in (0..n).step_by(BLOCK) {
            let pre = self.pre_activations(&x.narrow(0, first, BLOCK.min(n - first))?)?;
            let pre = Numbers::of(&pre)?;
            let rows: Vec<&[f32]> = pre.data().chunks(self.n_latents()).collect();
            out.extend(parallel::map(rows.len(), |row| choose(rows[row])));
        }
        Ok(SparseRows::new(self.n_latents(), out))
    }

    /// Reconstruction of every row, `[N, n_outputs]`, from its latents and the input that they came from,
    /// `[N, n_inputs]`: by that the normalisation is undone, and a skip connection reads it.
    ///
    /// # Errors
    /// If an operation fails.
    pub fn decode(&self, latents: &SparseRows, input: &Tensor) -> Result<Tensor> {
        let width = self.n_outputs();
        let mut out = vec![0.0; latents.len() * width];
        let undone = self.undoes().then(|| Numbers::of(input)).transpose()?.map(|input| input.to_row_major());
        parallel::each_chunk(&mut out, width, &|t, out| {
            out.copy_from_slice(&self.weights.decoder_bias);
            for &(latent, value) in latents.row(t) {
                let value = if fault::is(Fault::DoubledDictionary) { 2.0 * value } else { value };
                axpy(out, value, self.direction(latent as usize));
            }
            if let Some(input) = &undone {
                self.weights.normalization.frame(&input[t * width..(t + 1) * width]).undo(out);
            }
        });
        let out = Tensor::from_vec(out, (latents.len(), width), &self.place.device)?;
        match &self.skip {
            Some(skip) => self.place.ops.add(&out, &self.place.ops.linear(input, skip, None, 1.0)?),
            None => Ok(out),
        }
    }

    /// What goes from input to output beside the latents, `[N, n_outputs]`; `None` without a skip connection.
    ///
    /// # Errors
    /// If an operation fails.
    pub fn skip(&self, input: &Tensor) -> Result<Option<Tensor>> {
        self.skip.as_ref().map(|skip| self.place.ops.linear(input, skip, None, 1.0)).transpose()
    }

    /// The derivative of the activation function where `latents` are its own values: 1 for what it let through.
    /// (A kept latent of exactly zero has derivative 0 under ReLU, 1 under identity.)
    pub fn passes(&self, value: f32) -> bool {
        match &self.weights.activation {
            LatentActivation::Relu | LatentActivation::JumpRelu { .. } | LatentActivation::TopK { relu: true, .. } => {
                value > 0.0
            }
            LatentActivation::Identity | LatentActivation::TopK { relu: false, .. } => true,
        }
    }
}

/// Some latents of tokens that may be let through.
struct Passing<'a> {
    autoencoder: &'a Autoencoder,
    /// `[N, n_inputs]`
    x: &'a [f32],
    /// `[range, n_inputs]`
    encoder: &'a [f32],
    range: Range<usize>,
    limits: [Vec<f32>; 2],
    /// So many products may still be computed one by one.
    left: usize,
    /// Of each token.
    found: Vec<Vec<(u32, f32)>>,
}

impl Wanted for Passing<'_> {
    fn limits(&mut self, row: usize) -> [&[f32]; 2] {
        let latent = self.range.start + row;
        let bias = self.autoencoder.weights.latent_bias[latent];
        let threshold = self.autoencoder.threshold(latent).unwrap_or(f32::NEG_INFINITY);
        // What the sum with the bias may lose by rounding, once for each part of the product.
        let slack = (2 + self.autoencoder.n_inputs() / 64) as f32 * f32::EPSILON * (bias.abs() + threshold);
        let tokens = self.found.len();
        self.limits[0][..tokens].fill(if self.left > 0 { threshold - bias - slack } else { f32::INFINITY });
        self.limits[0][tokens..].fill(f32::INFINITY);
        [&self.limits[0], &self.limits[1]]
    }

    fn offer(&mut self, row: usize, token: usize, _: [f32; 2]) {
        self.left = self.left.saturating_sub(1);
        if self.left == 0 || token >= self.found.len() {
            return;
        }
        let (latent, width) = (self.range.start + row, self.autoencoder.n_inputs());
        let [x, encoder] = [&self.x[token * width..][..width], &self.encoder[row * width..][..width]];
        let value = product(self.autoencoder.weights.latent_bias[latent], x, encoder);
        if self.autoencoder.lets_through(latent as u32, value) {
            self.found[token].push((latent as u32, value));
        }
    }
}

/// `x encoderᵀ + bias` for row-major `x`, `[N, bias.len()]`.
fn affine(x: &[f32], encoder: &Matrix, bias: &[f32], threads: Threads) -> Vec<f32> {
    let n = x.len() / encoder.cols();
    let mut out = bias.repeat(n);
    times_transposed(&mut out, View::new(x, n, encoder.cols()), encoder, true, threads);
    out
}

/// The `k` largest entries by ascending index, without the negative ones if `relu`.
fn top_k(pre: &[f32], k: usize, relu: bool) -> Vec<(u32, f32)> {
    let mut all: Vec<_> = pre.iter().enumerate().map(|(i, x)| (i as u32, *x)).collect();
    // Largest first; of equal ones the first index, so that the choice does not depend on the sort.
    let order = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    if k < all.len() {
        all.select_nth_unstable_by(k, order);
        all.truncate(k);
    }
    all.retain(|e| !relu || e.1 > 0.0);
    all.sort_unstable_by_key(|e| e.0);
    all
}

/// The matrix itself if its rows can be borrowed, else a copy whose rows can.
fn contiguous_rows(matrix: Matrix) -> Matrix {
    let (rows, cols) = (matrix.rows(), matrix.cols());
    if rows == 0 || matrix.contiguous_row(0).is_some() {
        return matrix;
    }
    let mut out = vec![0.0; rows * cols];
    let span = matrix.span();
    let span: &[f32] = &span;
    // Tiles keep both sides of the transposition in the cache.
    const TILE: usize = 32;
    parallel::each_chunk(&mut out, TILE * cols.max(1), &|tile, out| {
        for first in (0..cols).step_by(TILE) {
            for (r, out) in out.chunks_exact_mut(cols).enumerate() {
                let row = tile * TILE + r;
                for col in first..(first + TILE).min(cols) {
                    out[col] = span[row * matrix.row_stride() + col * matrix.col_stride()];
                }
            }
        }
    });
    Matrix::from_vec(rows, cols, out)
}

/// What the backward pass and readers need of a dictionary within a pass.
#[derive(Clone, Debug)]
pub struct LatentState {
    /// As the encoder gave them.
    pub encoded: SparseRows,
    /// As they went on, after interventions.
    pub latents: SparseRows,
    /// Its input, `[T, n_inputs]`.
    pub input: Tensor,
    /// What it reconstructs, `[T, n_outputs]`: an autoencoder's input.
    pub target: Tensor,
    /// Reconstruction and error as they went on, `[T, n_outputs]` each; only where something acted on one of them or on
    /// the latents.
    changed: Option<[Tensor; 2]>,
}

/// Gradients at what a dictionary read and at what it stood in for.
#[derive(Debug)]
pub(crate) struct LatentGradients {
    /// `[T, n_outputs]`; of an autoencoder the whole gradient.
    pub target: Tensor,
    /// `[T, n_inputs]`: of a transcoder, what flows to its input; `None` if nothing does.
    pub input: Option<Tensor>,
}

/// Within a pass a dictionary's latents replace the activation, and its error is added back.
///
/// With nothing changed, reconstruction plus error is the target, so only the encoding is computed and
/// the target goes on as it is. A changed latent is one sparse update. Gradients flow to the latents
/// through the reconstruction, and to the input both through the latents and through the error; with
/// nothing changed these two cancel and the gradient passes as through the identity.
impl Autoencoder {
    fn points(&self, layer: usize) -> [Point; 3] {
        let slot = Slot::of(self.site);
        [slot.latent(), slot.reconstruction(), slot.error()].map(|site| Point { site, layer: Some(layer) })
    }

    /// `target - decode(encode(input))` after interventions, `[T, n_outputs]`.
    pub(crate) fn error(&self, state: &LatentState) -> Result<Tensor> {
        match &state.changed {
            Some([_, error]) => Ok(error.clone()),
            None => self.place.ops.subtract(&state.target, &self.decode(&state.encoded, &state.input)?),
        }
    }

    /// What the latents make, after interventions, `[T, n_outputs]`.
    pub(crate) fn reconstruction(&self, state: &LatentState) -> Result<Tensor> {
        match &state.changed {
            Some([reconstruction, _]) => Ok(reconstruction.clone()),
            None => self.decode(&state.latents, &state.input),
        }
    }

    /// `input: [T, n_inputs]`, `target: [T, n_outputs]`; the second value is what goes on in the target's place.
    pub(crate) fn forward(
        &self,
        layer: usize,
        input: &Tensor,
        target: &Tensor,
        tap: &mut Tap<'_>,
    ) -> std::result::Result<(LatentState, Tensor), Error> {
        let [latent, reconstruction, error] = self.points(layer);
        let encoded = self.encode(input)?;
        let (input, target) = (input.clone(), target.clone());
        if ![latent, reconstruction, error].iter().any(|point| tap.touches(*point, Pass::Forward)) {
            let out = target.clone();
            return Ok((LatentState { latents: encoded.clone(), encoded, input, target, changed: None }, out));
        }
        let mut latents = encoded.clone();
        if tap.wants(latent, Pass::Forward) {
            let dims = [encoded.len(), encoded.width()];
            let dense = Tensor::from_vec(encoded.to_dense(), &dims, &self.place.device)?;
            latents = sparse(&tap.forward(latent, dense)?)?;
        } else {
            set_sparse(&mut latents, latent, tap);
        }
        let rest = self.place.ops.subtract(&target, &self.decode(&encoded, &input)?)?;
        let computed = [self.decode(&latents, &input)?, rest];
        let reconstructed = tap.forward(reconstruction, computed[0].clone())?;
        let rest = tap.forward(error, computed[1].clone())?;
        let mut same: Vec<bool> = (0..encoded.len()).map(|t| latents.row(t) == encoded.row(t)).collect();
        keep_equal_rows(&mut same, &computed[0], &reconstructed)?;
        keep_equal_rows(&mut same, &computed[1], &rest)?;
        let out = self.place.ops.add(&reconstructed, &rest)?;
        let out = with_rows_of(out, &target, &same)?;
        Ok((LatentState { encoded, latents, input, target, changed: Some([reconstructed, rest]) }, out))
    }

    /// Gradient at what went on, `[T, n_outputs]`, to the gradients at input and target. Under the latents' point the
    /// gradient at the reconstruction, times the write scales, is kept: the gradient of latent `i` at token `t` is its
    /// product with the latent's direction, which only a reader of that latent needs to compute.
    pub(crate) fn backward(
        &self,
        layer: usize,
        state: &LatentState,
        dy: Tensor,
        tap: &mut Tap<'_>,
    ) -> std::result::Result<LatentGradients, Error> {
        let [latent, reconstruction, error] = self.points(layer);
        let d_error = tap.backward(error, dy.clone())?;
        let d_reconstruction = tap.backward(reconstruction, dy)?;
        let scales = self.latent_scales(&state.input)?;
        let at_latents = scaled(&d_reconstruction, scales.as_deref())?;
        tap.put(latent, &at_latents);
        let touched = |point| tap.touches(point, Pass::Forward) || tap.touches(point, Pass::Backward);
        if ![latent, reconstruction, error].into_iter().any(touched) {
            return Ok(LatentGradients { target: d_error, input: None });
        }
        let replaced = self.replaced_gradients(latent, &at_latents, tap)?;
        if self.weights.normalization == Normalization::None && !self.site.is_transcoder() {
            let onto = Numbers::of(&d_error)?.to_row_major();
            let target = self.input_gradient(state, &d_reconstruction, &d_error, &replaced, onto)?;
            return Ok(LatentGradients { target, input: None });
        }
        let zeros = vec![0.0; state.encoded.len() * self.n_inputs()];
        let d_input = self.input_gradient(state, &d_reconstruction, &d_error, &replaced, zeros)?;
        Ok(match self.site.is_transcoder() {
            true => LatentGradients { target: d_error, input: Some(d_input) },
            false => LatentGradients { target: self.place.ops.add(&d_input, &d_error)?, input: None },
        })
    }

    /// What flows to the input through the reconstruction, as changed, minus the same through the error, `[T, n_inputs]`.
    /// It is added to `out`, which is zero where inputs are normalised.
    fn input_gradient(
        &self,
        state: &LatentState,
        d_reconstruction: &Tensor,
        d_error: &Tensor,
        replaced: &BTreeMap<(usize, usize), f32>,
        mut out: Vec<f32>,
    ) -> Result<Tensor> {
        let (width, undoes) = (self.n_inputs(), self.undoes());
        let input = Numbers::of(&state.input)?.to_row_major();
        let (through_latents, through_error) = (Numbers::of(d_reconstruction)?, Numbers::of(d_error)?);
        for (t, out) in out.chunks_exact_mut(width).enumerate() {
            let (x, made, left) = (&input[t * width..(t + 1) * width], through_latents.row(t), through_error.row(t));
            let frame = self.frame(x);
            let scale = frame.filter(|_| undoes).map_or(1.0, |frame| frame.scale);
            for &(i, _) in state.encoded.row(t).iter().filter(|e| self.passes(e.1)) {
                let direction = self.direction(i as usize);
                let through_latent = match replaced.get(&(t, i as usize)) {
                    Some(value) => *value,
                    None => scale * dot(direction, made),
                };
                let gradient = through_latent - scale * dot(direction, left);
                if gradient != 0.0 {
                    axpy(out, gradient, &self.encoder_row(i as usize));
                }
            }
            let Some(frame) = frame else { continue };
            let along = |latents: &SparseRows, gradient: &[f32]| -> f32 {
                let bias = dot(&self.weights.decoder_bias, gradient);
                let of = |e: &(u32, f32)| e.1 * dot(self.direction(e.0 as usize), gradient);
                bias + latents.row(t).iter().map(of).sum::<f32>()
            };
            let (d_scale, d_mean) = match undoes {
                true => (along(&state.latents, made) - along(&state.encoded, left), rows::sum(made) - rows::sum(left)),
                false => (0.0, 0.0),
            };
            frame.vjp(x, out, d_scale, d_mean, false);
        }
        let out = Tensor::from_vec(out, (state.encoded.len(), width), d_error.device())?;
        match &self.skip {
            Some(skip) => {
                let terms = [(d_reconstruction, skip, 1.0), (d_error, skip, -1.0)];
                self.place.ops.add(&out, &self.place.ops.linear_vjp(&terms)?)
            }
            None => Ok(out),
        }
    }

    /// Gradients of latents that hooks and interventions set, by token and latent.
    fn replaced_gradients(
        &self,
        latent: Point,
        at_latents: &Tensor,
        tap: &mut Tap<'_>,
    ) -> std::result::Result<BTreeMap<(usize, usize), f32>, Error> {
        let mut replaced = BTreeMap::new();
        if tap.wants(latent, Pass::Backward) {
            let changed = tap.backward_unkept(latent, self.directions_vjp(at_latents)?)?;
            let changed = Numbers::of(&changed)?.to_row_major();
            let width = self.n_latents();
            replaced.extend(changed.into_iter().enumerate().map(|(at, value)| ((at / width, at % width), value)));
            return Ok(replaced);
        }
        let dims = [at_latents.dim(0)?, self.n_latents()];
        for intervention in tap.interventions.iter().rev().filter(|i| i.applies(latent, Pass::Backward)) {
            for_each_entry(&intervention.indices, dims, |t, i| {
                replaced.insert((t, i), intervention.value);
            });
        }
        for intervention in tap.interventions.iter().filter(|i| i.applies(latent, Pass::Forward)) {
            for_each_entry(&intervention.indices, dims, |t, i| {
                replaced.insert((t, i), 0.0);
            });
        }
        Ok(replaced)
    }
}

/// Each row times its number.
fn scaled(x: &Tensor, factors: Option<&[f32]>) -> Result<Tensor> {
    let Some(factors) = factors else { return Ok(x.clone()) };
    let mut out = Numbers::of(x)?.to_row_major();
    rows::for_each_row(&mut out, x.dim(1)?, |t, row| rows::scale(row, factors[t]));
    Tensor::from_vec(out, x.dims(), x.device())
}

fn sparse(dense: &Tensor) -> Result<SparseRows> {
    let numbers = Numbers::of(dense)?;
    let rows = (0..dense.dim(0)?).map(|t| {
        let row = numbers.row(t).iter().enumerate();
        row.filter(|(_, x)| **x != 0.0).map(|(i, x)| (i as u32, *x)).collect()
    });
    Ok(SparseRows::new(dense.dim(1)?, rows.collect()))
}

/// Clears the mark of every row in which `after` is not `before` to the bit.
fn keep_equal_rows(same: &mut [bool], before: &Tensor, after: &Tensor) -> Result<()> {
    if before.id() == after.id() {
        return Ok(());
    }
    let (before, after) = (Numbers::of(before)?.to_row_major(), Numbers::of(after)?.to_row_major());
    let width = (before.len() / same.len().max(1)).max(1);
    let rows = before.chunks_exact(width).zip(after.chunks_exact(width));
    same.iter_mut().zip(rows).for_each(|(same, (before, after))| *same &= before == after);
    Ok(())
}

/// Rows that nothing changed go on as they came: reconstruction plus error is the same only up to rounding.
fn with_rows_of(out: Tensor, x: &Tensor, same: &[bool]) -> Result<Tensor> {
    if !same.contains(&true) {
        return Ok(out);
    }
    let (mut data, x) = (Numbers::of(&out)?.to_row_major(), Numbers::of(x)?.to_row_major());
    let width = out.dim(1)?;
    for (t, _) in same.iter().enumerate().filter(|(_, same)| **same) {
        data[t * width..][..width].copy_from_slice(&x[t * width..][..width]);
    }
    Tensor::from_vec(data, out.dims(), out.device())
}

fn set_sparse(latents: &mut SparseRows, point: Point, tap: &Tap<'_>) {
    let all = 0..latents.len();
    for intervention in tap.interventions.iter().filter(|i| i.applies(point, Pass::Forward)) {
        set_latents(latents, all.clone(), &intervention.indices, |_| intervention.value);
    }
    for of in tap.together {
        for intervention in of.interventions.iter().filter(|i| i.applies(point, Pass::Forward)) {
            set_latents(latents, of.rows.clone(), &intervention.indices, |_| intervention.value);
        }
        for patch in of.patches.iter().filter(|patch| patch.point == point) {
            set_latents(latents, of.rows.clone(), &patch.indices, |n| patch.values.at(n));
        }
    }
}

/// Sets entries of some rows; token indices count from the first of them.
fn set_latents(latents: &mut SparseRows, rows: Range<usize>, indices: &[Index], value: impl Fn(usize) -> f32) {
    let mut n = 0;
    for_each_entry(indices, [rows.len(), latents.width()], |t, i| {
        let (t, value) = (rows.start + t, value(n));
        n += 1;
        // An absent latent is zero already: setting it to zero must not make an entry of it.
        if value != 0.0 || latents.get(t, i) != 0.0 {
            latents.set(t, i, value);
        }
    });
}

fn for_each_entry(indices: &[Index], [tokens, width]: [usize; 2], mut f: impl FnMut(usize, usize)) {
    let [tokens, width] = [indices[0].range(tokens), indices[1].range(width)];
    for t in tokens {
        for i in width.clone() {
            f(t, i);
        }
    }
}
