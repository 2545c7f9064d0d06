//! Small models with procedural weights, and the same model written a second time ([`twin`]).
#![allow(dead_code, reason = "every test file uses its own part of this")]

pub mod twin;

use std::fmt;

use tdb_model::config::{AttentionBias, Rotary, RotaryScaling};
use tdb_model::{
    Activation, Autoencoder, AutoencoderSite, AutoencoderWeights, BackwardOptions, BlockOrder, CheckpointError, Config,
    ForwardOptions, Gradients, Hooks, Index, Intervention, LatentActivation, Matrix, MlpKind, NormKind, Normalization,
    Numbers, Pass, Point, Positions, Run, Seed, Site, Slot, Source, Transformer,
};
use tdb_testkit::weights::TensorSpec;

pub const SEED: u64 = 0x7DB0_00AA;
pub const TOKENS: [u32; 7] = [3, 0, 17, 3, 36, 8, 21];

/// Numbers of one name, uniform in `offset ± scale`.
pub fn numbers(name: &str, len: usize, scale: f64, offset: f64) -> Vec<f32> {
    TensorSpec::new(name, &[len], scale, offset).values(SEED)
}

fn matrix(name: &str, rows: usize, cols: usize, scale: f64) -> Matrix {
    Matrix::from_vec(rows, cols, numbers(name, rows * cols, scale, 0.0))
}

/// GPT-2's settings. Heads together are wider than the residual stream, so that a confusion of the two shows.
pub fn config() -> Config {
    let mut config = Config { d_head: 8, tied: false, ..Config::gpt2(2, 20, 3, 44, 12, 37) };
    config.attention.scale = (8.0f64).sqrt().recip() as f32;
    config
}

/// Attention and MLP side by side, heads rotated in part.
pub fn parallel_rotary() -> Config {
    let rotary = Rotary { dims: 4, base: 30.0, scaling: RotaryScaling::None };
    Config {
        positions: Positions::rotary(rotary, 2),
        block: BlockOrder::Parallel,
        mlp: MlpKind::Plain(Activation::Gelu),
        ..config()
    }
}

/// RMS norms, shared keys and values, a gated MLP, no biases but those of queries, keys and values.
pub fn grouped_gated() -> Config {
    let scaling =
        RotaryScaling::Llama3 { factor: 4.0, low_freq_factor: 1.0, high_freq_factor: 3.0, original_context: 16 };
    let mut config = Config {
        n_heads: 4,
        n_kv_heads: 2,
        norm: NormKind::Rms,
        norm_epsilon: 1e-6,
        positions: Positions::rotary(Rotary { dims: 8, base: 40.0, scaling }, 2),
        mlp: MlpKind::Gated(Activation::Silu),
        mlp_bias: false,
        ..config()
    };
    config.attention.bias = AttentionBias { o: false, ..AttentionBias::ALL };
    config
}

/// Norms before and after with 1 + w, queries and keys normalised, a window, caps, a scaled embedding.
pub fn capped_windowed() -> Config {
    let windowed = Rotary { dims: 8, base: 10.0, scaling: RotaryScaling::None };
    let full = Rotary { base: 50.0, scaling: RotaryScaling::Linear { factor: 2.0 }, ..windowed };
    let mut config = Config {
        n_heads: 4,
        n_kv_heads: 1,
        norm: NormKind::RmsOnePlus,
        norm_epsilon: 1e-6,
        positions: Positions::Rotary(vec![Some(windowed), Some(full)]),
        mlp: MlpKind::Gated(Activation::GeluTanh),
        mlp_bias: false,
        post_norms: true,
        embedding_scale: 20f32.sqrt(),
        tied: true,
        logit_softcap: Some(6.0),
        ..config()
    };
    config.attention.bias = AttentionBias::default();
    config.attention.qk_norm = true;
    config.attention.softcap = Some(5.0);
    config.attention.windows = vec![Some(3), None];
    config
}

/// No norms, positions for queries and keys alone, a bias of the unembedding, as toy models have them.
pub fn toy() -> Config {
    Config {
        norm: NormKind::None,
        positions: Positions::LearnedForQueriesAndKeys,
        mlp: MlpKind::Plain(Activation::Gelu),
        unembedding_bias: true,
        ..config()
    }
}

/// Procedural tensors for any configuration: numbers follow from the name.
pub struct Procedural(pub Config);

impl fmt::Debug for Procedural {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("procedural weights")
    }
}

impl Source for Procedural {
    fn contains(&self, _: &str) -> bool {
        true
    }

    fn shape(&self, name: &str) -> Result<Vec<usize>, CheckpointError> {
        let config = &self.0;
        let (heads, groups) = (config.n_heads * config.d_head, config.n_kv_heads * config.d_head);
        let part = name.rsplit('.').nth(1).unwrap();
        let outputs = match part {
            "q" => heads,
            "k" | "v" => groups,
            "in" | "gate" => config.d_ff,
            "q_norm" | "k_norm" => config.d_head,
            _ => config.d_model,
        };
        let inputs = match part {
            "o" => heads,
            "out" => config.d_ff,
            _ => config.d_model,
        };
        Ok(match (part, name.ends_with("bias") || part.ends_with("norm")) {
            ("unembed", true) => vec![config.n_vocab],
            ("embed" | "unembed", _) => vec![config.n_vocab, config.d_model],
            ("positions", _) => vec![config.ctx_window, config.d_model],
            (_, true) => vec![outputs],
            (_, false) => vec![outputs, inputs],
        })
    }

    fn matrix(&self, name: &str, [rows, cols]: [usize; 2]) -> Result<Matrix, CheckpointError> {
        let part = name.rsplit('.').nth(1).unwrap();
        let root = (cols as f64).sqrt();
        let scale = match part {
            "embed" | "unembed" => 1.0,
            "positions" => 0.5,
            "q" | "k" => 2.5 / root,
            "v" => 1.75 / root,
            "in" | "gate" => 2.0 / root,
            _ => 1.5 / root,
        };
        Ok(matrix(name, rows, cols, scale))
    }

    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, CheckpointError> {
        let is_gain = name.ends_with("norm.weight");
        let offset = f64::from(u8::from(is_gain && self.0.norm != NormKind::RmsOnePlus));
        Ok(numbers(name, len, if is_gain { 0.3 } else { 0.2 }, offset))
    }
}

/// A GPT-2 without autoencoders.
pub fn plain() -> Transformer {
    transformer(config())
}

pub fn transformer(config: Config) -> Transformer {
    Transformer::load(config.clone(), Procedural(config)).unwrap()
}

/// The same with every operation as a composition of candle's own.
pub fn plain_operations(model: &Transformer) -> Transformer {
    let config = model.config().clone();
    let device = candle_core::Device::Cpu;
    let mut plain = Transformer::load_plain(config.clone(), Procedural(config), &device).unwrap();
    for slot in Slot::ALL {
        let Some(any) = model.any_autoencoder(slot) else { continue };
        let indices: Vec<usize> = model.layers_with(slot).collect();
        let layers = indices.iter().map(|layer| model.autoencoder(slot, *layer).unwrap().weights().clone()).collect();
        let named = tdb_model::NamedAutoencoder { name: String::new(), site: any.site(), layers, indices };
        plain = plain.attach(named).unwrap();
    }
    plain
}

/// One autoencoder per layer with 30 latents, pre-bias and decoder bias differing.
pub fn autoencoders(
    config: &Config,
    site: AutoencoderSite,
    activation: impl Fn(usize) -> LatentActivation,
) -> Vec<Option<Autoencoder>> {
    dictionaries(config, site, Normalization::None, activation)
}

/// As [`autoencoders`], on normalised inputs; every second transcoder has a skip connection.
pub fn dictionaries(
    config: &Config,
    site: AutoencoderSite,
    normalization: Normalization,
    activation: impl Fn(usize) -> LatentActivation,
) -> Vec<Option<Autoencoder>> {
    let (n_latents, n_inputs) = (30, site.width(config));
    let root = (n_inputs as f64).sqrt();
    let skips = |i: usize| site.is_transcoder() && i.is_multiple_of(2);
    let layer = |i: usize| {
        let name = |key: &str| format!("{site:?}.{i}.{key}");
        let weights = AutoencoderWeights {
            normalization,
            encoder_pre_bias: numbers(&name("pre"), n_inputs, 0.2, 0.0),
            encoder: matrix(&name("enc"), n_latents, n_inputs, 4.0 / root),
            latent_bias: numbers(&name("bias"), n_latents, 0.3, -0.5),
            activation: activation(n_latents),
            decoder: matrix(&name("dec"), n_inputs, n_latents, 1.75 / root),
            decoder_bias: numbers(&name("post"), n_inputs, 0.2, 0.0),
            skip: skips(i).then(|| matrix(&name("skip"), n_inputs, n_inputs, 0.5 / root)),
            activation_frequency: None,
        };
        Some(Autoencoder::new(site, weights).unwrap())
    };
    (0..config.n_layers).map(layer).collect()
}

pub fn relu(_: usize) -> LatentActivation {
    LatentActivation::Relu
}

pub fn identity(_: usize) -> LatentActivation {
    LatentActivation::Identity
}

pub fn jump_relu(n: usize) -> LatentActivation {
    LatentActivation::JumpRelu { threshold: numbers("threshold", n, 0.2, 0.4) }
}

pub fn top_k(relu: bool) -> impl Fn(usize) -> LatentActivation {
    move |_| LatentActivation::TopK { k: 6, relu }
}

/// Models that together have every kind of autoencoder at every site, by name.
pub fn models() -> Vec<(&'static str, Transformer)> {
    use AutoencoderSite::{MlpPostAct, ResidDeltaAttn, ResidDeltaMlp};
    let config = config();
    let both = |mlp, attn| plain().attach_layers(Slot::Mlp, mlp).unwrap().attach_layers(Slot::Attention, attn).unwrap();
    let at = |site| {
        move |config: &Config, activation: &dyn Fn(usize) -> LatentActivation| autoencoders(config, site, activation)
    };
    let (post_act, delta_mlp, delta_attn) = (at(MlpPostAct), at(ResidDeltaMlp), at(ResidDeltaAttn));
    vec![
        ("plain", plain()),
        ("relu, relu", both(delta_mlp(&config, &relu), delta_attn(&config, &relu))),
        ("neurons relu, topk relu", both(post_act(&config, &relu), delta_attn(&config, &top_k(true)))),
        ("topk relu, topk identity", both(delta_mlp(&config, &top_k(true)), delta_attn(&config, &top_k(false)))),
        ("neurons topk identity, jumprelu", both(post_act(&config, &top_k(false)), delta_attn(&config, &jump_relu))),
        ("jumprelu, identity", both(delta_mlp(&config, &jump_relu), delta_attn(&config, &identity))),
        ("neurons jumprelu", plain().attach_layers(Slot::Mlp, post_act(&config, &jump_relu)).unwrap()),
        ("identity", plain().attach_layers(Slot::Mlp, delta_mlp(&config, &identity)).unwrap()),
        ("parallel, rotary", transformer(parallel_rotary())),
        ("grouped, gated, relu, relu", {
            let config = grouped_gated();
            let with = transformer(config.clone()).attach_layers(Slot::Mlp, post_act(&config, &relu)).unwrap();
            with.attach_layers(Slot::Attention, delta_attn(&config, &relu)).unwrap()
        }),
        ("capped, windowed", transformer(capped_windowed())),
        ("toy", transformer(toy())),
        ("toy without MLP layers", transformer(Config { mlp: MlpKind::None, d_ff: 0, ..toy() })),
        ("before, layer-normed; heads; transcoder", {
            let residual = dictionaries(&config, AutoencoderSite::ResidPre, LAYER_NORM, relu);
            let heads = dictionaries(&config, AutoencoderSite::AttnVOut, Normalization::None, jump_relu);
            let transcoder = dictionaries(&config, AutoencoderSite::MlpTranscoder, Normalization::None, relu);
            with_residual(both(transcoder, heads), residual)
        }),
        ("middle, constant norm, topk; input of the MLP; heads, layer-normed", {
            let norm = Normalization::ConstantNorm;
            let residual = dictionaries(&config, AutoencoderSite::ResidPostAttn, norm, top_k(false));
            let heads = dictionaries(&config, AutoencoderSite::AttnVOut, LAYER_NORM, relu);
            let input = dictionaries(&config, AutoencoderSite::MlpIn, Normalization::Centered, relu);
            with_residual(both(input, heads), residual)
        }),
        ("after one layer, centred; transcoder, layer-normed", {
            let mut residual = dictionaries(&config, AutoencoderSite::ResidPostMlp, Normalization::Centered, relu);
            residual[0] = None;
            let transcoder = dictionaries(&config, AutoencoderSite::MlpTranscoder, LAYER_NORM, relu);
            with_residual(plain().attach_layers(Slot::Mlp, transcoder).unwrap(), residual)
        }),
    ]
}

/// With an epsilon that would show if it stood under the root.
const LAYER_NORM: Normalization = Normalization::LayerNorm { epsilon: 0.1 };

fn with_residual(model: Transformer, residual: Vec<Option<Autoencoder>>) -> Transformer {
    model.attach_layers(Slot::Residual, residual).unwrap()
}

/// Every point that the model has.
pub fn points(model: &Transformer) -> Vec<Point> {
    let n_layers = model.config().n_layers;
    let exists = |site: &&Site| model.site_dims(**site, 1).is_some();
    let layers = |site: &Site| match site.has_layers() {
        true => (0..n_layers).map(Some).collect(),
        false => vec![None],
    };
    Site::ALL
        .iter()
        .filter(exists)
        .flat_map(|&s| layers(&s).into_iter().map(move |layer| Point { site: s, layer }))
        .filter(|point| has_dictionary(model, *point))
        .collect()
}

/// Whether a point that belongs to a dictionary stands in a layer that has it; true for other points.
fn has_dictionary(model: &Transformer, point: Point) -> bool {
    let slot = if point.site == Site::ResidLatentInput { Some(Slot::Residual) } else { Slot::at(point.site) };
    slot.zip(point.layer).is_none_or(|(slot, layer)| model.autoencoder(slot, layer).is_some())
}

/// Gradient at the logits of some tokens: what the objective is made of.
pub fn logit_seed(model: &Transformer, tokens: &[usize]) -> Seed {
    let row = |t: &usize| (*t, numbers(&format!("seed.{t}"), model.config().n_vocab, 1.0, 0.0));
    Seed::Logits(tokens.iter().map(row).collect())
}

pub fn run_forward(
    model: &Transformer,
    tokens: &[u32],
    interventions: &[Intervention],
    hooks: Option<&mut dyn Hooks>,
) -> Run {
    let hooks = hooks.map(|hooks| hooks as &mut dyn Hooks);
    model.forward(tokens, ForwardOptions { interventions, hooks, ..Default::default() }).unwrap()
}

pub fn run_backward(run: &Run, seed: Seed, interventions: &[Intervention], hooks: Option<&mut dyn Hooks>) -> Gradients {
    let hooks = hooks.map(|hooks| hooks as &mut dyn Hooks);
    let options = BackwardOptions { interventions, hooks, keep: &Site::ALL, ..Default::default() };
    run.backward(seed, options).unwrap()
}

/// A tensor's numbers, row-major.
pub fn flat(tensor: &candle_core::Tensor) -> Vec<f32> {
    Numbers::of(tensor).unwrap().to_row_major()
}

/// The activation at a point, row-major, with the dimensions that the model says.
pub fn activation(run: &Run, point: Point) -> Vec<f32> {
    let tensor = run.get(point.site, point.layer).unwrap();
    assert_eq!(Some(tensor.dims().to_vec()), run.model().site_dims(point.site, run.tokens().len()), "{point:?}");
    flat(&tensor)
}

/// The gradient at a point, row-major.
pub fn gradient(run: &Run, gradients: &Gradients, point: Point) -> Option<Vec<f32>> {
    let (tokens, n_vocab) = (run.tokens().len(), run.model().config().n_vocab);
    if point.site == Site::Logits {
        let row = |t: usize| gradients.logits.get(&t).cloned().unwrap_or_else(|| vec![0.0; n_vocab]);
        return Some((0..tokens).flat_map(row).collect());
    }
    let tensor = gradients.get(point.site, point.layer).unwrap()?;
    assert_eq!(Some(tensor.dims().to_vec()), run.model().site_dims(point.site, tokens), "{point:?}");
    Some(flat(&tensor))
}

/// Fails unless `found` is `expected` up to `tolerance` times the largest expected number (or a fifth: a gradient
/// that is nearly nothing is a sum of such terms).
pub fn assert_close(what: &str, found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().filter(|x| x.is_finite()).fold(0.0f64, |a, b| a.max(b.abs()));
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let found = f64::from(*found);
        let same = found == *expected || (found - expected).abs() <= tolerance * largest.max(0.2);
        assert!(same, "{what}: element {i} is {found}, expected {expected} (largest {largest})");
    }
}

/// Sets some entries of a site: the token is `token`, further dimensions are spread over their range.
pub fn intervention(model: &Transformer, point: Point, pass: Pass, token: Option<usize>, value: f32) -> Intervention {
    let dims = model.site_dims(point.site, TOKENS.len()).unwrap();
    let index = |d: usize| match (d, token) {
        (0, Some(token)) => Index::At(token),
        (0, None) => Index::All,
        // The key of a pair must be one that the query sees.
        (1, Some(token)) if dims[1] > 1 && point.site.is_pair() => Index::At(token / 2),
        (1, None) if point.site.is_pair() => Index::At(1),
        (_, None) if d + 1 == dims.len() && d > 0 && dims[d] > 1 => Index::At(dims[d] / 2),
        (_, None) => Index::All,
        _ => Index::At(dims[d] / 3),
    };
    let indices = (0..dims.len()).map(index).collect();
    Intervention { site: point.site, layer: point.layer, pass, indices, value }
}

pub trait Kinds {
    fn is_pair(&self) -> bool;
    fn is_autoencoder(&self) -> bool;
    fn is_divisor(&self) -> bool;
}

impl Kinds for Site {
    fn is_divisor(&self) -> bool {
        use Site::{AttnLnScale, AttnSoftmaxDenominator, FinalLnScale, MlpLnScale};
        [AttnLnScale, AttnSoftmaxDenominator, FinalLnScale, MlpLnScale].contains(self)
    }

    fn is_autoencoder(&self) -> bool {
        Slot::at(*self).is_some() || *self == Site::ResidLatentInput
    }

    /// Whether the second dimension is a key.
    fn is_pair(&self) -> bool {
        matches!(self, Site::AttnQkLogits | Site::AttnQkProbs)
    }
}
