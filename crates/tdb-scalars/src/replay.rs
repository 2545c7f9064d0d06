//! Layers computed anew from the residual stream, with the plain weights: what traces and edges refer to.
//! Interventions act on the residual stream that is read, not on this computation.

use std::ops::Range;

use tdb_model::attention::{head_view, qk_factor};
use tdb_model::kernels::{self, Threads, View, axpy, dot};
use tdb_model::{Array, AutoencoderSite, Transformer, layer_norm};

/// An attention layer. Queries and keys are scaled as the model scales them.
pub struct Attention<'a> {
    model: &'a Transformer,
    layer: usize,
    /// Before the layer, `[T, D]`.
    resid: &'a Array,
    /// `[T, H, E]`
    pub q: Array,
    pub k: Array,
    pub v: Array,
    /// `[Q, K, H]`, zero where a query cannot see.
    pub logits: Array,
    pub probs: Array,
}

/// Gradients at an attention layer's queries, keys and values, `[T, H, E]` each.
pub struct AttentionGradients {
    pub q: Array,
    pub k: Array,
    pub v: Array,
}

impl<'a> Attention<'a> {
    pub fn forward(model: &'a Transformer, layer: usize, resid: &'a Array) -> Self {
        let (config, weights) = (model.config(), &model.weights().layers[layer]);
        let tokens = resid.dims()[0];
        let mut x = resid.clone();
        (0..tokens).for_each(|t| layer_norm::apply(&weights.ln_1, x.row_mut(t)));
        let factor = qk_factor(config.d_head);
        let project = |linear, factor: f32| {
            let mut out = kernels::linear(View::new(x.data(), tokens, config.d_model), linear);
            kernels::scale(&mut out, factor);
            Array::from_vec(&[tokens, config.n_heads, config.d_head], out)
        };
        let (q, k, v) = (project(&weights.query, factor), project(&weights.key, factor), project(&weights.value, 1.0));
        let logits = products(&q, &k);
        let mut probs = logits.clone();
        for (row, out) in probs.data_mut().chunks_exact_mut(tokens).enumerate() {
            kernels::softmax(&mut out[..=row % tokens]);
        }
        Attention { model, layer, resid, q, k, v, logits, probs }
    }

    /// Where a head's numbers lie in a row of `[T, H, E]`.
    pub fn span(&self, head: usize) -> Range<usize> {
        let width = self.model.config().d_head;
        head * width..(head + 1) * width
    }

    /// What of `x: [Q, K, H]` a query can see in one head, `[query + 1]`.
    pub fn seen<'x>(&self, x: &'x Array, query: usize, head: usize) -> &'x [f32] {
        &x.data()[x.offset(&[query, 0, head])..][..=query]
    }

    /// The layer's output at one token, `[D]`.
    pub fn output(&self, query: usize) -> Vec<f32> {
        let mut merged = vec![0.0; self.q.row(query).len()];
        for head in 0..self.model.config().n_heads {
            for (key, p) in self.seen(&self.probs, query, head).iter().enumerate() {
                axpy(&mut merged[self.span(head)], *p, &self.v.row(key)[self.span(head)]);
            }
        }
        kernels::linear(View::new(&merged, 1, merged.len()), &self.model.weights().layers[self.layer].out)
    }

    pub fn no_gradients(&self) -> AttentionGradients {
        let zeros = || Array::zeros(self.q.dims());
        AttentionGradients { q: zeros(), k: zeros(), v: zeros() }
    }

    /// From the gradient at the layer's output for one token, `[D]`.
    pub fn through_output(&self, query: usize, d_output: &[f32]) -> AttentionGradients {
        let mut d = self.no_gradients();
        let d_merged = through(d_output, &self.model.weights().layers[self.layer].out);
        for head in 0..self.model.config().n_heads {
            let d_out = &d_merged[self.span(head)];
            let probs = self.seen(&self.probs, query, head);
            let d_probs: Vec<f32> = (0..=query).map(|key| dot(&self.v.row(key)[self.span(head)], d_out)).collect();
            let mean = dot(&d_probs, probs);
            for (key, p) in probs.iter().enumerate() {
                axpy(&mut d.v.row_mut(key)[self.span(head)], *p, d_out);
                let d_logit = p * (d_probs[key] - mean);
                axpy(&mut d.q.row_mut(query)[self.span(head)], d_logit, &self.k.row(key)[self.span(head)]);
                axpy(&mut d.k.row_mut(key)[self.span(head)], d_logit, &self.q.row(query)[self.span(head)]);
            }
        }
        d
    }

    /// The gradient at the residual stream before the layer, `[T, D]`.
    pub fn backward(&self, mut d: AttentionGradients, frozen_scale: bool) -> Array {
        let weights = &self.model.weights().layers[self.layer];
        let (tokens, factor) = (self.resid.dims()[0], qk_factor(self.model.config().d_head));
        let mut dx = Array::zeros(self.resid.dims());
        for (d, linear, factor) in
            [(&mut d.q, &weights.query, factor), (&mut d.k, &weights.key, factor), (&mut d.v, &weights.value, 1.0)]
        {
            kernels::scale(d.data_mut(), factor);
            let width = d.data().len() / tokens;
            kernels::add_linear_backward(dx.data_mut(), View::new(d.data(), tokens, width), linear);
        }
        for t in 0..tokens {
            let row = layer_norm::apply_backward(&weights.ln_1, self.resid.row(t), dx.row(t), frozen_scale);
            dx.row_mut(t).copy_from_slice(&row);
        }
        dx
    }
}

/// `Σ_e a[q, h, e] b[k, h, e]`, head by head, zero above the diagonal: `[Q, K, H]`.
pub fn products(a: &Array, b: &Array) -> Array {
    let (tokens, n_heads) = (a.dims()[0], a.dims()[1]);
    let mut data = vec![0.0; tokens * tokens * n_heads];
    for (head, out) in data.chunks_exact_mut(tokens * tokens).enumerate() {
        kernels::matmul_into(out, [tokens, 1], head_view(a, head), head_view(b, head).t(), false, Threads::One);
        for query in 0..tokens {
            out[query * tokens + query + 1..(query + 1) * tokens].fill(0.0);
        }
    }
    Array::head_major(tokens, tokens, n_heads, data)
}

/// `dy W`: one row seen from the other side of a linear layer.
pub fn through(dy: &[f32], linear: &tdb_model::Linear) -> Vec<f32> {
    kernels::linear_backward(View::new(dy, 1, dy.len()), linear)
}

/// An MLP layer at one token, from the residual stream.
pub struct Mlp {
    pre_act: Vec<f32>,
    pub post_act: Vec<f32>,
    pub delta: Vec<f32>,
}

impl Mlp {
    pub fn forward(model: &Transformer, layer: usize, resid: &[f32]) -> Self {
        let weights = &model.weights().layers[layer];
        let mut x = resid.to_vec();
        layer_norm::apply(&weights.ln_2, &mut x);
        let pre_act = kernels::linear(View::new(&x, 1, x.len()), &weights.mlp_in);
        let post_act = kernels::map(&pre_act, kernels::gelu);
        let delta = kernels::linear(View::new(&post_act, 1, post_act.len()), &weights.mlp_out);
        Mlp { pre_act, post_act, delta }
    }

    /// From the gradient at `site` (neurons or layer output) to that at the residual stream, `[D]`.
    pub fn backward(
        &self,
        model: &Transformer,
        layer: usize,
        resid: &[f32],
        site: AutoencoderSite,
        mut d: Vec<f32>,
        frozen_scale: bool,
    ) -> Vec<f32> {
        let weights = &model.weights().layers[layer];
        if site == AutoencoderSite::ResidDeltaMlp {
            d = through(&d, &weights.mlp_out);
        }
        kernels::zip_into(&mut d, &self.pre_act, |d, x| d * kernels::gelu_derivative(x));
        let dx = through(&d, &weights.mlp_in);
        layer_norm::apply_backward(&weights.ln_2, resid, &dx, frozen_scale)
    }
}
