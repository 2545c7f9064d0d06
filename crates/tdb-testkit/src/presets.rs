//! The models that the oracle's answers were recorded on: shapes, seeds and autoencoders.

use crate::weights::TensorSpec;

pub const N_VOCAB: usize = 50257;

/// A GPT-2's shape; heads are `d_model / n_heads` wide and the MLP `4 d_model`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    pub ctx_window: usize,
    pub d_model: usize,
    pub n_layers: usize,
    pub n_heads: usize,
}

impl Shape {
    pub fn d_ff(&self) -> usize {
        4 * self.d_model
    }

    /// Every tensor of the model, in the order of the reference's state dict.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let d = self.d_model;
        let mut all = vec![
            TensorSpec::new("tok_embed.weight", &[N_VOCAB, d], 1.0, 0.0),
            TensorSpec::new("pos_embed.weight", &[self.ctx_window, d], 0.5, 0.0),
        ];
        let mut linear = |name: String, n_out: usize, n_in: usize, weight: f64, bias: f64| {
            all.push(TensorSpec::new(format!("{name}.weight"), &[n_out, n_in], weight / (n_in as f64).sqrt(), 0.0));
            all.push(TensorSpec::new(format!("{name}.bias"), &[n_out], bias, 0.0));
        };
        for i in 0..self.n_layers {
            let layer = format!("xf_layers.{i}");
            linear(format!("{layer}.attn.q_proj"), d, d, 2.5, 0.2);
            linear(format!("{layer}.attn.k_proj"), d, d, 2.5, 0.2);
            linear(format!("{layer}.attn.v_proj"), d, d, 1.75, 0.1);
            linear(format!("{layer}.attn.out_proj"), d, d, 1.25, 0.05);
            linear(format!("{layer}.mlp.in_layer"), self.d_ff(), d, 2.0, 0.3);
            linear(format!("{layer}.mlp.out_layer"), d, self.d_ff(), 1.5, 0.05);
        }
        let mut norm = |name: String| {
            all.push(TensorSpec::new(format!("{name}.weight"), &[d], 0.1, 1.0));
            all.push(TensorSpec::new(format!("{name}.bias"), &[d], 0.1, 0.0));
        };
        for i in 0..self.n_layers {
            norm(format!("xf_layers.{i}.ln_1"));
            norm(format!("xf_layers.{i}.ln_2"));
        }
        norm("final_ln".into());
        all.push(TensorSpec::new("unembed.weight", &[N_VOCAB, d], 4.0 / (d as f64).sqrt(), 0.0));
        all
    }
}

/// What an autoencoder reads and rebuilds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The MLP's neurons after GELU.
    MlpPostAct,
    /// What the MLP layer adds to the residual stream.
    ResidDeltaMlp,
    /// What the attention layer adds to the residual stream.
    ResidDeltaAttn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    Relu,
    /// The `k` largest pre-activations, then `postact` ("ReLU" or "Identity") on those.
    TopK {
        k: usize,
        postact: &'static str,
    },
}

/// How one autoencoder's file differs from the plainest: everything that a loader has to cope with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileStyle {
    /// An `OrderedDict` of all entries.
    Full,
    /// As `Full`, with the `_metadata` attribute that `nn.Module.state_dict()` adds.
    WithMetadata,
    /// As `Full`, `decoder.weight` stored transposed: strides `(1, n_inputs)`.
    DecoderTransposed,
    /// A plain dict of the tensors that the oldest release had.
    Old,
}

/// One autoencoder per layer, all alike but for their weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Autoencoder {
    pub name: &'static str,
    pub place: Place,
    pub n_latents: usize,
    pub latent_bias_offset: f64,
    pub activation: Activation,
    /// `(a, b)`: the last `a + b * layer` latents never fire.
    pub dead: Option<(usize, usize)>,
    pub style: FileStyle,
}

impl Autoencoder {
    fn relu(name: &'static str, place: Place, n_latents: usize, latent_bias_offset: f64, style: FileStyle) -> Self {
        Self { name, place, n_latents, latent_bias_offset, activation: Activation::Relu, dead: None, style }
    }

    pub fn n_inputs(&self, shape: &Shape) -> usize {
        if self.place == Place::MlpPostAct { shape.d_ff() } else { shape.d_model }
    }

    /// Latents of this layer whose recorded frequency is zero; they are the last ones.
    pub fn n_dead(&self, layer: usize) -> usize {
        self.dead.map_or(0, |(first, each)| first + each * layer)
    }

    /// `pre_bias`, `latent_bias`, `encoder.weight [n_latents, n_inputs]`, `decoder.weight [n_inputs, n_latents]`.
    pub fn tensors(&self, shape: &Shape, layer: usize) -> [TensorSpec; 4] {
        let n_in = self.n_inputs(shape);
        let root = (n_in as f64).sqrt();
        let name = |key: &str| format!("autoencoders/{}/{layer}/{key}", self.name);
        [
            TensorSpec::new(name("pre_bias"), &[n_in], 0.1, 0.0),
            TensorSpec::new(name("latent_bias"), &[self.n_latents], 0.1, self.latent_bias_offset),
            TensorSpec::new(name("encoder.weight"), &[self.n_latents, n_in], 4.0 / root, 0.0),
            TensorSpec::new(name("decoder.weight"), &[n_in, self.n_latents], 1.75 / root, 0.0),
        ]
    }
}

/// A model and the autoencoders that belong to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Preset {
    pub name: &'static str,
    pub seed: u64,
    pub shape: Shape,
    pub autoencoders: Vec<Autoencoder>,
}

pub const NAMES: [&str; 5] = ["tiny-a", "tiny-b", "tiny-c", "tiny-wrong", "bench-small"];

/// The preset of this name, one of [`NAMES`].
pub fn preset(name: &str) -> Option<Preset> {
    let tiny = |name, seed, d_model, n_layers, n_heads| {
        let shape = Shape { ctx_window: 128, d_model, n_layers, n_heads };
        Some(Preset { name, seed, shape, autoencoders: tiny_autoencoders() })
    };
    match name {
        "tiny-a" => tiny("tiny-a", 0x7DB0_0001, 64, 2, 4),
        "tiny-b" => tiny("tiny-b", 0x7DB0_0002, 96, 4, 6),
        "tiny-c" => tiny("tiny-c", 0x7DB0_0004, 48, 4, 4),
        // The shape of tiny-a with other weights: shows that a comparison can fail.
        "tiny-wrong" => tiny("tiny-wrong", 0x7DB0_0003, 64, 2, 4),
        "bench-small" => Some(Preset {
            name: "bench-small",
            seed: 0x7DB0_0010,
            shape: Shape { ctx_window: 1024, d_model: 768, n_layers: 12, n_heads: 12 },
            autoencoders: released(32768, 10240, -4.5, -3.5),
        }),
        _ => None,
    }
}

fn released(n_mlp: usize, n_attn: usize, mlp_offset: f64, attn_offset: f64) -> Vec<Autoencoder> {
    use FileStyle::{DecoderTransposed, WithMetadata};
    vec![
        Autoencoder::relu("ae-resid-delta-mlp", Place::ResidDeltaMlp, n_mlp, mlp_offset, DecoderTransposed),
        Autoencoder::relu("ae-resid-delta-attn", Place::ResidDeltaAttn, n_attn, attn_offset, WithMetadata),
    ]
}

fn tiny_autoencoders() -> Vec<Autoencoder> {
    use FileStyle::{Full, Old};
    let mut all = released(256, 256, -2.5, -2.0);
    all.push(Autoencoder::relu("ae-mlp-post-act", Place::MlpPostAct, 256, -2.0, Old));
    let topk = |name, place, k, postact| Autoencoder {
        activation: Activation::TopK { k, postact },
        ..Autoencoder::relu(name, place, 256, 0.0, Full)
    };
    all.push(topk("ae-resid-delta-mlp-topk", Place::ResidDeltaMlp, 8, "ReLU"));
    all.push(topk("ae-resid-delta-attn-topk", Place::ResidDeltaAttn, 12, "Identity"));
    all.push(Autoencoder {
        dead: Some((16, 8)),
        ..Autoencoder::relu("ae-resid-delta-mlp-dead", Place::ResidDeltaMlp, 256, -2.5, Full)
    });
    all
}
