//! Sparse autoencoders: latents of an activation, and what each latent writes.

use rayon::prelude::*;

use crate::array::Array;
use crate::kernels::{self, Threads, View};
use crate::matrix::Matrix;
use crate::sparse::SparseRows;
use crate::weights::{AutoencoderSite, AutoencoderWeights, LatentActivation};

/// One layer's autoencoder, ready to run: the decoder's directions lie contiguous in memory.
#[derive(Clone, Debug)]
pub struct Autoencoder {
    site: AutoencoderSite,
    weights: AutoencoderWeights,
    /// `[L, n_inputs]`, rows contiguous.
    directions: Matrix,
}

/// An autoencoder's tensors do not fit together.
#[derive(Debug, thiserror::Error)]
#[error("{what} of an autoencoder is {found}, expected {expected}")]
pub struct ShapeError {
    what: &'static str,
    expected: usize,
    found: usize,
}

impl Autoencoder {
    /// # Errors
    /// If the shapes do not fit together.
    pub fn new(site: AutoencoderSite, weights: AutoencoderWeights) -> Result<Self, ShapeError> {
        let (n_latents, n_inputs) = (weights.encoder.rows(), weights.encoder.cols());
        let check = |what, expected, found| match expected == found {
            true => Ok(()),
            false => Err(ShapeError { what, expected, found }),
        };
        check("the length of the latent bias", n_latents, weights.latent_bias.len())?;
        check("the length of the encoder's pre-bias", n_inputs, weights.encoder_pre_bias.len())?;
        check("the length of the decoder's bias", n_inputs, weights.decoder_bias.len())?;
        check("the number of rows of the decoder", n_inputs, weights.decoder.rows())?;
        check("the number of columns of the decoder", n_latents, weights.decoder.cols())?;
        if let LatentActivation::JumpRelu { threshold } = &weights.activation {
            check("the number of thresholds", n_latents, threshold.len())?;
        }
        if let LatentActivation::TopK { k, .. } = weights.activation
            && k > n_latents
        {
            return Err(ShapeError { what: "k", expected: n_latents, found: k });
        }
        let directions = contiguous_rows(weights.decoder.transpose());
        Ok(Autoencoder { site, weights, directions })
    }

    pub fn site(&self) -> AutoencoderSite {
        self.site
    }

    pub fn weights(&self) -> &AutoencoderWeights {
        &self.weights
    }

    pub fn n_latents(&self) -> usize {
        self.weights.encoder.rows()
    }

    pub fn n_inputs(&self) -> usize {
        self.weights.encoder.cols()
    }

    pub fn activation(&self) -> &LatentActivation {
        &self.weights.activation
    }

    /// What a unit of this latent adds to the reconstruction, `[n_inputs]`.
    pub fn direction(&self, latent: usize) -> &[f32] {
        let width = self.n_inputs();
        // Rows were made contiguous by `new`.
        &self.directions.span()[latent * self.directions.row_stride()..][..width]
    }

    /// `[L, n_inputs]`, rows contiguous.
    pub fn directions(&self) -> &Matrix {
        &self.directions
    }

    /// `[L, n_inputs]`
    pub fn encoder(&self) -> &Matrix {
        &self.weights.encoder
    }

    /// Encoder row of one latent, `[n_inputs]`.
    pub fn encoder_row(&self, latent: usize) -> Vec<f32> {
        self.weights.encoder.row(latent)
    }

    /// Latents before the activation function for every row of `x: [rows, n_inputs]`, `[rows, L]`.
    pub fn pre_activations(&self, x: &[f32], rows: usize) -> Vec<f32> {
        self.pre_activations_of(&self.weights.encoder, &self.weights.latent_bias, x, rows)
    }

    /// One latent before the activation function, for every row of `x: [rows, n_inputs]`, `[rows]`.
    pub fn pre_activation_of_latent(&self, latent: usize, x: &[f32], rows: usize) -> Vec<f32> {
        let encoder = self.weights.encoder.row_range(latent..latent + 1);
        self.pre_activations_of(&encoder, &self.weights.latent_bias[latent..latent + 1], x, rows)
    }

    fn pre_activations_of(&self, encoder: &Matrix, bias: &[f32], x: &[f32], rows: usize) -> Vec<f32> {
        affine(View::new(&self.centered(x), rows, self.n_inputs()), encoder, bias, Threads::All)
    }

    /// `x` minus the pre-bias.
    fn centered(&self, x: &[f32]) -> Vec<f32> {
        let mut centered = x.to_vec();
        kernels::for_each_row(&mut centered, self.n_inputs(), |_, row| {
            row.iter_mut().zip(&self.weights.encoder_pre_bias).for_each(|(x, b)| *x -= b);
        });
        centered
    }

    /// Latents of every row of `x: [rows, n_inputs]`.
    ///
    /// A row of [`LatentActivation::Identity`] holds all latents, of the others only those that the
    /// activation function lets through.
    pub fn encode(&self, x: &[f32], rows: usize) -> SparseRows {
        match &self.weights.activation {
            LatentActivation::Relu => self.encode_with(x, rows, |_, x| x > 0.0),
            LatentActivation::Identity => self.encode_with(x, rows, |_, _| true),
            LatentActivation::JumpRelu { threshold } => {
                self.encode_with(x, rows, |i, x| x > threshold[i as usize] && x > 0.0)
            }
            LatentActivation::TopK { k, relu } => self.encode_top_k(x, rows, *k, *relu),
        }
    }

    /// Keeps the latents for which `keep(latent, value)`. A few latents of all tokens at a time are computed
    /// and forgotten: nothing of `[tokens, latents]` needs to exist.
    fn encode_with(&self, x: &[f32], rows: usize, keep: impl Fn(u32, f32) -> bool + Sync) -> SparseRows {
        const CHUNK: usize = 96;
        let (n_latents, n_inputs) = (self.n_latents(), self.n_inputs());
        let centered = self.centered(x);
        let parts: Vec<Vec<Vec<(u32, f32)>>> = (0..n_latents.div_ceil(CHUNK))
            .into_par_iter()
            .map(|chunk| {
                let range = chunk * CHUNK..((chunk + 1) * CHUNK).min(n_latents);
                let (encoder, bias) = (self.weights.encoder.row_range(range.clone()), &self.weights.latent_bias[range]);
                let x = View::new(&centered, rows, n_inputs);
                let pre = affine(x, &encoder, bias, Threads::One);
                let first = (chunk * CHUNK) as u32;
                let row = |pre: &[f32]| (first..).zip(pre.iter().copied()).filter(|e| keep(e.0, e.1)).collect();
                pre.chunks_exact(bias.len()).map(row).collect()
            })
            .collect();
        let row = |t: usize| parts.iter().flat_map(|part| part[t].iter().copied()).collect();
        SparseRows::new(n_latents, (0..rows).map(row).collect())
    }

    fn encode_top_k(&self, x: &[f32], rows: usize, k: usize, relu: bool) -> SparseRows {
        // Blocks of tokens bound the dense buffer.
        const BLOCK: usize = 64;
        let mut out = Vec::with_capacity(rows);
        for block in x.chunks(BLOCK * self.n_inputs()) {
            let pre = self.pre_activations(block, block.len() / self.n_inputs());
            let encoded: Vec<_> = pre.par_chunks(self.n_latents()).map(|row| top_k(row, k, relu)).collect();
            out.extend(encoded);
        }
        SparseRows::new(self.n_latents(), out)
    }

    /// Reconstruction of every row, `[rows, n_inputs]`.
    pub fn decode(&self, latents: &SparseRows) -> Array {
        let mut out = Array::zeros(&[latents.len(), self.n_inputs()]);
        out.data_mut().par_chunks_mut(self.n_inputs()).zip(latents.rows().par_iter()).for_each(|(out, row)| {
            out.copy_from_slice(&self.weights.decoder_bias);
            for &(latent, value) in row {
                kernels::axpy(out, value, self.direction(latent as usize));
            }
        });
        out
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

/// `x encoderᵀ + bias`, `[x.rows, bias.len()]`.
fn affine(x: View<'_>, encoder: &Matrix, bias: &[f32], threads: Threads) -> Vec<f32> {
    let mut out = Vec::with_capacity(x.rows * bias.len());
    for _ in 0..x.rows {
        out.extend_from_slice(bias);
    }
    kernels::matmul_into(&mut out, [bias.len(), 1], x, View::of(encoder).t(), true, threads);
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

/// The matrix itself if its rows are contiguous, else a copy whose rows are.
fn contiguous_rows(matrix: Matrix) -> Matrix {
    if matrix.col_stride() == 1 {
        return matrix;
    }
    let (rows, cols) = (matrix.rows(), matrix.cols());
    let mut out = vec![0.0; rows * cols];
    let span = matrix.span();
    // Tiles keep both sides of the transposition in the cache.
    const TILE: usize = 32;
    out.par_chunks_mut(TILE * cols.max(1)).enumerate().for_each(|(tile, out)| {
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
