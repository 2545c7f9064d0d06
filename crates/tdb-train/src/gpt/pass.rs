//! A forward and a backward pass over a batch of texts of different lengths.

use super::kernels::{
    attention, attention_backward, cross_entropy, gelu, layer_norm, layer_norm_backward, linear, linear_backward,
    product,
};
use super::shape::Layout;
use tdb_model::kernels::View;

/// Texts one after another, without padding.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Tokens of all texts.
    pub tokens: Vec<u32>,
    /// What follows each token, or [`super::IGNORED`].
    pub targets: Vec<u32>,
    /// Length of each text.
    pub lengths: Vec<usize>,
}

impl Batch {
    /// Adds a text of which every next token is asked; after the last one `end`, if given.
    pub fn push(&mut self, tokens: &[u32], end: Option<u32>) {
        self.tokens.extend_from_slice(tokens);
        self.targets.extend(tokens.iter().skip(1));
        self.targets.push(end.unwrap_or(super::IGNORED));
        self.lengths.push(tokens.len());
    }

    /// How many tokens are asked.
    pub fn asked(&self) -> usize {
        self.targets.iter().filter(|&&target| target != super::IGNORED).count()
    }
}

/// What the backward pass needs of a layer. All are `[n, width]`.
#[derive(Clone, Debug, Default)]
struct Layer {
    input: Vec<f32>,
    norm_1: Vec<f32>,
    stats_1: Vec<[f32; 2]>,
    qkv: Vec<f32>,
    /// For each text and head `[t, t]`.
    probs: Vec<f32>,
    z: Vec<f32>,
    middle: Vec<f32>,
    norm_2: Vec<f32>,
    stats_2: Vec<[f32; 2]>,
    hidden: Vec<f32>,
    slope: Vec<f32>,
    active: Vec<f32>,
}

/// Buffers of a pass, used again from batch to batch.
#[derive(Clone, Debug, Default)]
pub struct Pass {
    layers: Vec<Layer>,
    output: Vec<f32>,
    norm_f: Vec<f32>,
    stats_f: Vec<[f32; 2]>,
    logits: Vec<f32>,
    scratch: Scratch,
}

#[derive(Clone, Debug, Default)]
struct Scratch {
    residual: Vec<f32>,
    d: Vec<f32>,
    wide: Vec<f32>,
    qkv: Vec<f32>,
    probs: Vec<f32>,
}

fn sized<T: Clone + Default>(buffer: &mut Vec<T>, length: usize) -> &mut [T] {
    buffer.resize(length, T::default());
    buffer
}

impl Pass {
    /// The logits `[n, vocabulary]` after each token.
    ///
    /// # Panics
    /// If a token lies outside the vocabulary or a text is longer than the context: batches are made by this crate.
    pub fn forward(&mut self, layout: &Layout, parameters: &[f32], batch: &Batch) -> &[f32] {
        let shape = layout.shape;
        let (d, ff, n) = (shape.d_model, shape.d_ff, batch.tokens.len());
        self.layers.resize_with(shape.n_layers, Layer::default);
        let residual = sized(&mut self.scratch.residual, n * d);
        let (wte, wpe) = (&parameters[layout.wte.clone()], &parameters[layout.wpe.clone()]);
        let positions = batch.lengths.iter().flat_map(|&length| 0..length);
        for ((row, &token), position) in residual.chunks_exact_mut(d).zip(&batch.tokens).zip(positions) {
            let (token, position) = (&wte[token as usize * d..][..d], &wpe[position * d..][..d]);
            for i in 0..d {
                row[i] = token[i] + position[i];
            }
        }
        for (layer, at) in self.layers.iter_mut().zip(&layout.layers) {
            let weight =
                |affine: &super::shape::Affine| (&parameters[affine.weight.clone()], &parameters[affine.bias.clone()]);
            sized(&mut layer.input, n * d).copy_from_slice(residual);
            let (w, b) = weight(&at.ln_1);
            layer_norm(sized(&mut layer.norm_1, n * d), sized(&mut layer.stats_1, n), &layer.input, w, b);
            let (w, b) = weight(&at.attention_in);
            linear(sized(&mut layer.qkv, n * 3 * d), &layer.norm_1, w, b);
            let squares: usize = batch.lengths.iter().map(|t| t * t).sum();
            let probs = sized(&mut layer.probs, squares * shape.n_heads);
            let z = sized(&mut layer.z, n * d);
            for_heads(batch, layout, |row, column, t, square| {
                attention(
                    &mut z[row * d + column..],
                    &mut probs[square..square + t * t],
                    &layer.qkv[row * 3 * d + column..],
                    t,
                    d,
                    shape.d_head(),
                );
            });
            let (w, b) = weight(&at.attention_out);
            let middle = sized(&mut layer.middle, n * d);
            linear(middle, z, w, b);
            add(middle, residual);
            let (w, b) = weight(&at.ln_2);
            layer_norm(sized(&mut layer.norm_2, n * d), sized(&mut layer.stats_2, n), middle, w, b);
            let (w, b) = weight(&at.mlp_in);
            let hidden = sized(&mut layer.hidden, n * ff);
            linear(hidden, &layer.norm_2, w, b);
            gelu(sized(&mut layer.active, n * ff), sized(&mut layer.slope, n * ff), hidden);
            let (w, b) = weight(&at.mlp_out);
            linear(residual, &layer.active, w, b);
            add(residual, middle);
        }
        sized(&mut self.output, n * d).copy_from_slice(residual);
        let (gain, bias) = (&parameters[layout.ln_f.weight.clone()], &parameters[layout.ln_f.bias.clone()]);
        layer_norm(sized(&mut self.norm_f, n * d), sized(&mut self.stats_f, n), &self.output, gain, bias);
        let vocabulary = shape.vocabulary;
        let logits = sized(&mut self.logits, n * vocabulary);
        product(logits, vocabulary, false, View::new(&self.norm_f, n, d), View::new(wte, vocabulary, d).t());
        logits
    }

    /// The summed cross-entropy of a batch; its gradient times `weight` is added to `gradients`.
    pub fn train(
        &mut self,
        layout: &Layout,
        parameters: &[f32],
        batch: &Batch,
        weight: f32,
        gradients: &mut [f32],
    ) -> f64 {
        self.forward(layout, parameters, batch);
        let loss = cross_entropy(&mut self.logits, &batch.targets, weight);
        self.backward(layout, parameters, batch, gradients);
        loss
    }

    /// Adds to `gradients` what follows from `logits`, which by now holds the gradient of the logits.
    fn backward(&mut self, layout: &Layout, parameters: &[f32], batch: &Batch, gradients: &mut [f32]) {
        let shape = layout.shape;
        let (d, ff, n) = (shape.d_model, shape.d_ff, batch.tokens.len());
        let vocabulary = shape.vocabulary;
        let wte = &parameters[layout.wte.clone()];
        let scratch = &mut self.scratch;
        let dlogits = View::new(&self.logits, n, vocabulary);
        let dnorm = sized(&mut scratch.d, n * d);
        product(dnorm, d, false, dlogits, View::new(wte, vocabulary, d));
        let dwte = &mut gradients[layout.wte.clone()];
        product(dwte, d, true, dlogits.t(), View::new(&self.norm_f, n, d));
        let dresidual = sized(&mut scratch.residual, n * d);
        dresidual.fill(0.0);
        let gain = &parameters[layout.ln_f.weight.clone()];
        layer_norm_backward(dresidual, &mut gradients[layout.ln_f.all()], dnorm, &self.output, &self.stats_f, gain);
        for (layer, at) in self.layers.iter().zip(&layout.layers).rev() {
            let dactive = sized(&mut scratch.wide, n * ff);
            let w = &parameters[at.mlp_out.weight.clone()];
            linear_backward(dactive, false, &mut gradients[at.mlp_out.all()], dresidual, &layer.active, w);
            for (d, slope) in dactive.iter_mut().zip(&layer.slope) {
                *d *= slope;
            }
            let w = &parameters[at.mlp_in.weight.clone()];
            linear_backward(dnorm, false, &mut gradients[at.mlp_in.all()], dactive, &layer.norm_2, w);
            let gain = &parameters[at.ln_2.weight.clone()];
            let dgb = &mut gradients[at.ln_2.all()];
            layer_norm_backward(dresidual, dgb, dnorm, &layer.middle, &layer.stats_2, gain);
            let w = &parameters[at.attention_out.weight.clone()];
            linear_backward(dnorm, false, &mut gradients[at.attention_out.all()], dresidual, &layer.z, w);
            let dqkv = sized(&mut scratch.qkv, n * 3 * d);
            for_heads(batch, layout, |row, column, t, square| {
                attention_backward(
                    &mut dqkv[row * 3 * d + column..],
                    sized(&mut scratch.probs, t * t),
                    &dnorm[row * d + column..],
                    &layer.qkv[row * 3 * d + column..],
                    &layer.probs[square..square + t * t],
                    t,
                    d,
                    shape.d_head(),
                );
            });
            let w = &parameters[at.attention_in.weight.clone()];
            linear_backward(dnorm, false, &mut gradients[at.attention_in.all()], dqkv, &layer.norm_1, w);
            let gain = &parameters[at.ln_1.weight.clone()];
            let dgb = &mut gradients[at.ln_1.all()];
            layer_norm_backward(dresidual, dgb, dnorm, &layer.input, &layer.stats_1, gain);
        }
        let positions = batch.lengths.iter().flat_map(|&length| 0..length);
        for ((row, &token), position) in dresidual.chunks_exact(d).zip(&batch.tokens).zip(positions) {
            add(&mut gradients[layout.wte.start + token as usize * d..][..d], row);
            add(&mut gradients[layout.wpe.start + position * d..][..d], row);
        }
    }
}

/// Calls for each text and head: its first row, its first column, the text's length, and where its `[t, t]` square
/// begins.
fn for_heads(batch: &Batch, layout: &Layout, mut call: impl FnMut(usize, usize, usize, usize)) {
    let (mut row, mut square) = (0, 0);
    for &t in &batch.lengths {
        for head in 0..layout.shape.n_heads {
            call(row, head * layout.shape.d_head(), t, square);
            square += t * t;
        }
        row += t;
    }
}

fn add(to: &mut [f32], what: &[f32]) {
    for (to, what) in to.iter_mut().zip(what) {
        *to += what;
    }
}
