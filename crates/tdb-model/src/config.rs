//! The shape of a transformer, and the settings that tell one family from another.

use candle_core::cpu::erf::erf_f32;

use crate::ops::rows;

/// Sizes and settings of a transformer. A family of models is a set of values of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Number of blocks.
    pub n_layers: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Query heads of an attention layer.
    pub n_heads: usize,
    /// Key/value heads; `n_heads` is a multiple of it, and neighbouring query heads share one.
    pub n_kv_heads: usize,
    /// Width of one head; `n_heads * d_head` may differ from `d_model`.
    pub d_head: usize,
    /// Neurons of an MLP layer; 0 where there is none.
    pub d_ff: usize,
    /// Longest prompt, in tokens.
    pub ctx_window: usize,
    /// Entries of the vocabulary.
    pub n_vocab: usize,
    /// What the norms before attention, MLP and unembedding do.
    pub norm: NormKind,
    /// Added to the mean square before the square root.
    pub norm_epsilon: f32,
    /// How a token's position enters.
    pub positions: Positions,
    /// Settings of the attention layers.
    pub attention: AttentionSettings,
    /// What an MLP layer computes.
    pub mlp: MlpKind,
    /// Whether the MLP's projections have biases.
    pub mlp_bias: bool,
    /// In which order attention and MLP of a block read and write.
    pub block: BlockOrder,
    /// Whether what attention and MLP write is normalised, too, before it is added to the residual stream.
    pub post_norms: bool,
    /// Factor of the token embedding.
    pub embedding_scale: f32,
    /// Whether the unembedding is the token embedding.
    pub tied: bool,
    /// Whether the unembedding adds a bias to the logits.
    pub unembedding_bias: bool,
    /// Logits `z` are `cap tanh(z / cap)`.
    pub logit_softcap: Option<f32>,
}

/// What a norm computes from a row `x`, with `m` its mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// `x`
    None,
    /// `(x - m) / sqrt(mean((x - m)²) + ε) * gain + bias`
    Layer,
    /// As `Layer`, without gain and bias.
    LayerWithoutParameters,
    /// `x / sqrt(mean(x²) + ε) * gain`
    Rms,
    /// `x / sqrt(mean(x²) + ε) * (1 + gain)`
    RmsOnePlus,
}

impl NormKind {
    /// Whether the mean is subtracted.
    pub fn centers(self) -> bool {
        matches!(self, NormKind::Layer | NormKind::LayerWithoutParameters)
    }
}

/// How a token's position enters.
#[derive(Clone, Debug, PartialEq)]
pub enum Positions {
    /// A learned vector is added to the embedding.
    Learned,
    /// A learned vector is added to what queries and keys are computed from, and to nothing else (Press et al. 2021,
    /// "Shortformer").
    LearnedForQueriesAndKeys,
    /// By layer: how queries and keys are rotated; `None`: not at all, so that the layer sees no positions.
    Rotary(Vec<Option<Rotary>>),
}

impl Positions {
    /// Every layer's queries and keys are rotated in the same way.
    pub fn rotary(rotary: Rotary, n_layers: usize) -> Self {
        Positions::Rotary(vec![Some(rotary); n_layers])
    }
}

/// Rotary positions (Su et al. 2021), with the pairs `(i, i + dims / 2)` as Hugging Face has them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rotary {
    /// Leading dimensions of a head that are rotated; even.
    pub dims: usize,
    /// θ: pair `i` turns by `position * base^(-2i / dims)`.
    pub base: f32,
    /// How long contexts stretch the angles.
    pub scaling: RotaryScaling,
}

/// How the frequencies of rotary positions are stretched for long contexts.
#[allow(missing_docs, reason = "what is said of a variant names its fields")]
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RotaryScaling {
    /// Not at all.
    None,
    /// All frequencies are divided by `factor`.
    Linear { factor: f32 },
    /// Llama 3.1's: low frequencies are divided by `factor`, high ones are kept, those between are interpolated.
    Llama3 { factor: f32, low_freq_factor: f32, high_freq_factor: f32, original_context: usize },
    /// YaRN's (Peng et al. 2023): pairs that turn more than `beta_fast` times in the original context are kept, those
    /// that turn less than `beta_slow` times are divided by `factor`, those between are interpolated along their index;
    /// the ends of that range are whole numbers with `truncate`. Rotated queries and keys are multiplied by `amplitude`.
    Yarn { factor: f32, beta_fast: f32, beta_slow: f32, original_context: usize, truncate: bool, amplitude: f32 },
}

impl RotaryScaling {
    /// What rotated queries and keys are multiplied by.
    pub fn amplitude(self) -> f32 {
        match self {
            RotaryScaling::Yarn { amplitude, .. } => amplitude,
            RotaryScaling::None | RotaryScaling::Linear { .. } | RotaryScaling::Llama3 { .. } => 1.0,
        }
    }
}

/// Settings of attention layers.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionSettings {
    /// Factor of `q · k`; its square root is a factor of queries and of keys each.
    pub scale: f32,
    /// Whether that factor is divided by the layer's number, counted from 1.
    pub inverse_layer_scale: bool,
    /// Which projections have a bias.
    pub bias: AttentionBias,
    /// Whether queries and keys are normalised (RMS over a head) before they are rotated.
    pub qk_norm: bool,
    /// Attention logits `z` are `cap tanh(z / cap)`.
    pub softcap: Option<f32>,
    /// By layer: how many keys a query sees, itself included; `None`: all that came before.
    pub windows: Vec<Option<usize>>,
}

/// Which projections of an attention layer have a bias.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttentionBias {
    /// Queries.
    pub q: bool,
    /// Keys.
    pub k: bool,
    /// Values.
    pub v: bool,
    /// The output projection.
    pub o: bool,
}

impl AttentionBias {
    /// All of them.
    pub const ALL: Self = AttentionBias { q: true, k: true, v: true, o: true };
}

/// What an MLP layer computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MlpKind {
    /// There is no MLP layer.
    None,
    /// `W_out act(W_in x)`
    Plain(Activation),
    /// `W_out (act(W_gate x) ⊙ W_in x)`
    Gated(Activation),
}

/// A nonlinearity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³)))` (Hendrycks and Gimpel 2016)
    GeluTanh,
    /// `x Φ(x)` with the normal distribution function Φ.
    Gelu,
    /// `x / (1 + e^-x)`
    Silu,
    /// `max(x, 0)`
    Relu,
}

/// In which order attention and MLP of a block read and write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockOrder {
    /// The MLP reads what attention has written.
    Sequential,
    /// Both read the residual stream before the block.
    Parallel,
}

impl Config {
    /// GPT-2's settings, with heads of width `d_model / n_heads`.
    pub fn gpt2(
        n_layers: usize,
        d_model: usize,
        n_heads: usize,
        d_ff: usize,
        ctx_window: usize,
        n_vocab: usize,
    ) -> Self {
        let d_head = d_model / n_heads.max(1);
        Config {
            n_layers,
            d_model,
            n_heads,
            n_kv_heads: n_heads,
            d_head,
            d_ff,
            ctx_window,
            n_vocab,
            norm: NormKind::Layer,
            norm_epsilon: 1e-5,
            positions: Positions::Learned,
            attention: AttentionSettings {
                scale: (1.0 / (d_head as f64).sqrt()) as f32,
                inverse_layer_scale: false,
                bias: AttentionBias::ALL,
                qk_norm: false,
                softcap: None,
                windows: vec![None; n_layers],
            },
            mlp: MlpKind::Plain(Activation::GeluTanh),
            mlp_bias: true,
            block: BlockOrder::Sequential,
            post_norms: false,
            embedding_scale: 1.0,
            tied: true,
            unembedding_bias: false,
            logit_softcap: None,
        }
    }

    /// Numbers of all matrices.
    pub fn n_parameters(&self) -> usize {
        let heads = 2 * self.n_heads + 2 * self.n_kv_heads;
        let mlp = match self.mlp {
            MlpKind::None => 0,
            MlpKind::Plain(_) => 2 * self.d_ff,
            MlpKind::Gated(_) => 3 * self.d_ff,
        };
        let positions = match self.positions {
            Positions::Learned | Positions::LearnedForQueriesAndKeys => self.ctx_window,
            Positions::Rotary(_) => 0,
        };
        let rows = self.n_vocab * if self.tied { 1 } else { 2 } + positions;
        self.d_model * (rows + self.n_layers * (heads * self.d_head + mlp))
    }

    /// Factor of a layer's queries and of its keys: the square root of what `q · k` is multiplied by.
    pub fn qk_factor(&self, layer: usize) -> f32 {
        let divisor = if self.attention.inverse_layer_scale { (layer + 1) as f64 } else { 1.0 };
        (f64::from(self.attention.scale) / divisor).sqrt() as f32
    }
}

impl Activation {
    /// Its value at `x`.
    pub fn value(self, x: f32) -> f32 {
        match self {
            Activation::GeluTanh => rows::gelu(x),
            Activation::Gelu => 0.5 * x * (1.0 + erf_f32(x * std::f32::consts::FRAC_1_SQRT_2)),
            Activation::Silu => x / (1.0 + rows::exp(-x)),
            Activation::Relu => x.max(0.0),
        }
    }

    /// Its derivative at `x`.
    pub fn derivative(self, x: f32) -> f32 {
        match self {
            Activation::GeluTanh => rows::gelu_derivative(x),
            // Φ(x) + x φ(x)
            Activation::Gelu => {
                let distribution = 0.5 * (1.0 + erf_f32(x * std::f32::consts::FRAC_1_SQRT_2));
                distribution + x * rows::exp(-0.5 * x * x) * 0.398_942_3
            }
            Activation::Silu => {
                let sigmoid = 1.0 / (1.0 + rows::exp(-x));
                sigmoid * (1.0 + x * (1.0 - sigmoid))
            }
            Activation::Relu => f32::from(u8::from(x > 0.0)),
        }
    }
}
