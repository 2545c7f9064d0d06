//! The engine: a model with its tokenizer and autoencoders, ready to answer.

use std::sync::OnceLock;

use rayon::prelude::*;
use tdb_api::ModelInfoResponse;
use tdb_model::kernels::{axpy, dot};
use tdb_model::{Tokenizer, Transformer};

/// Ids of GPT-2's tokens that its training text hardly held; their embeddings are noise that would top every list.
const RARE_GPT2_TOKENS: &str = include_str!("../data/rare_gpt2_tokens.txt");

/// A model, what it is called, and what follows from its weights alone. Immutable; shared by all requests.
#[derive(Debug)]
pub struct Engine {
    name: String,
    model: Transformer,
    tokenizer: Tokenizer,
    mlp_autoencoder: Option<String>,
    attn_autoencoder: Option<String>,
    rare_tokens: Option<Vec<bool>>,
    mlp_write_norms: Vec<OnceLock<Vec<f32>>>,
    unembedding_sum: OnceLock<Vec<f32>>,
    unembedding_mean: OnceLock<Vec<f32>>,
}

impl Engine {
    /// `model` carries its autoencoders; their names are given beside it.
    pub fn new(
        name: impl Into<String>,
        model: Transformer,
        tokenizer: Tokenizer,
        mlp_autoencoder: Option<String>,
        attn_autoencoder: Option<String>,
    ) -> Self {
        let rare_tokens = is_gpt2(&tokenizer).then(|| {
            let mut rare = vec![false; tokenizer.n_vocab()];
            for id in RARE_GPT2_TOKENS.lines().filter_map(|line| line.parse::<usize>().ok()) {
                if let Some(rare) = rare.get_mut(id) {
                    *rare = true;
                }
            }
            rare
        });
        let n_layers = model.config().n_layers;
        Engine {
            name: name.into(),
            mlp_autoencoder: mlp_autoencoder.filter(|_| model.has_mlp_autoencoder()),
            attn_autoencoder: attn_autoencoder.filter(|_| model.has_attn_autoencoder()),
            model,
            tokenizer,
            rare_tokens,
            mlp_write_norms: (0..n_layers).map(|_| OnceLock::new()).collect(),
            unembedding_sum: OnceLock::new(),
            unembedding_mean: OnceLock::new(),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn model(&self) -> &Transformer {
        &self.model
    }

    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The text of one token, alone.
    pub fn token_text(&self, token: u32) -> String {
        self.tokenizer.decode_token(token)
    }

    /// By token id: whether lists of tokens leave it out. `None` for vocabularies other than GPT-2's.
    pub fn rare_tokens(&self) -> Option<&[bool]> {
        self.rare_tokens.as_deref()
    }

    pub fn model_info(&self) -> ModelInfoResponse {
        ModelInfoResponse {
            model_name: Some(self.name.clone()),
            has_mlp_autoencoder: self.model.has_mlp_autoencoder(),
            mlp_autoencoder_name: self.mlp_autoencoder.clone(),
            has_attention_autoencoder: self.model.has_attn_autoencoder(),
            attention_autoencoder_name: self.attn_autoencoder.clone(),
            n_layers: self.model.config().n_layers as i64,
        }
    }

    /// `|W_out[:, n]|` for every neuron of a layer, `[F]`.
    pub fn mlp_write_norms(&self, layer: usize) -> &[f32] {
        self.mlp_write_norms[layer].get_or_init(|| {
            let weight = &self.model.weights().layers[layer].mlp_out.weight;
            if weight.row_stride() == 1 {
                let directions = weight.transpose();
                let norm = |n: usize| directions.contiguous_row(n).map_or(0.0, |row| dot(row, row).sqrt());
                return (0..directions.rows()).into_par_iter().map(norm).collect();
            }
            let mut sums = vec![0.0; weight.cols()];
            let mut row = vec![0.0; weight.cols()];
            for d in 0..weight.rows() {
                weight.copy_row(d, &mut row);
                sums.iter_mut().zip(&row).for_each(|(sum, w)| *sum += w * w);
            }
            sums.into_iter().map(f32::sqrt).collect()
        })
    }

    /// Sum of the unembedding's rows over the vocabulary, `[D]`.
    pub(crate) fn unembedding_sum(&self) -> &[f32] {
        self.unembedding_sum.get_or_init(|| {
            let weight = &self.model.weights().unembed;
            const BLOCK: usize = 1024;
            let blocks: Vec<usize> = (0..weight.rows()).step_by(BLOCK).collect();
            // Sums of blocks in single precision, of the blocks in double.
            let parts: Vec<Vec<f32>> = blocks
                .par_iter()
                .map(|first| {
                    let (mut sum, mut row) = (vec![0.0; weight.cols()], vec![0.0; weight.cols()]);
                    for token in *first..(first + BLOCK).min(weight.rows()) {
                        weight.copy_row(token, &mut row);
                        axpy(&mut sum, 1.0, &row);
                    }
                    sum
                })
                .collect();
            let mut sum = vec![0.0f64; weight.cols()];
            for part in &parts {
                sum.iter_mut().zip(part).for_each(|(sum, x)| *sum += f64::from(*x));
            }
            sum.into_iter().map(|x| x as f32).collect()
        })
    }

    /// Mean of the unembedding's rows over the vocabulary, `[D]`.
    pub(crate) fn mean_unembedding(&self) -> &[f32] {
        self.unembedding_mean.get_or_init(|| {
            let n = self.model.config().n_vocab as f32;
            self.unembedding_sum().iter().map(|x| x / n).collect()
        })
    }
}

/// Whether a tokenizer has GPT-2's vocabulary, told by its size and some entries.
fn is_gpt2(tokenizer: &Tokenizer) -> bool {
    let entries = [(0, "!"), (13, "."), (262, " the"), (3340, " Canada"), (40313, "Paris"), (50256, "<|endoftext|>")];
    tokenizer.n_vocab() == 50257 && entries.iter().all(|(id, text)| tokenizer.decode_token(*id) == *text)
}
