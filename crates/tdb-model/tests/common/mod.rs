//! Small models with procedural weights, and the same model written a second time ([`twin`]).
#![allow(dead_code, reason = "every test file uses its own part of this")]

pub mod twin;

use tdb_model::run::site_dims;
use tdb_model::{
    Array, Autoencoder, AutoencoderSite, AutoencoderWeights, BackwardOptions, Config, Forward, ForwardOptions,
    Gradients, Hooks, Index, Intervention, LatentActivation, LayerNorm, LayerWeights, Linear, Matrix, Pass, Point,
    Seed, Site, Transformer, Weights,
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

/// Heads together are wider than the residual stream, so that a confusion of the two shows.
pub fn config() -> Config {
    Config { n_layers: 2, d_model: 20, n_heads: 3, d_head: 8, d_ff: 44, ctx_window: 12, n_vocab: 37 }
}

/// A transformer without autoencoders.
pub fn plain() -> Transformer {
    transformer(config())
}

pub fn transformer(config: Config) -> Transformer {
    let (d, inner) = (config.d_model, config.n_heads * config.d_head);
    let linear = |name: String, n_out: usize, n_in: usize, scale: f64| Linear {
        weight: matrix(&format!("{name}.weight"), n_out, n_in, scale / (n_in as f64).sqrt()),
        bias: numbers(&format!("{name}.bias"), n_out, 0.2, 0.0),
    };
    let norm = |name: String| LayerNorm {
        gain: numbers(&format!("{name}.gain"), d, 0.3, 1.0),
        bias: numbers(&format!("{name}.bias"), d, 0.1, 0.0),
    };
    let layer = |i: usize| LayerWeights {
        ln_1: norm(format!("{i}.ln_1")),
        query: linear(format!("{i}.q"), inner, d, 2.5),
        key: linear(format!("{i}.k"), inner, d, 2.5),
        value: linear(format!("{i}.v"), inner, d, 1.75),
        out: linear(format!("{i}.o"), d, inner, 1.5),
        ln_2: norm(format!("{i}.ln_2")),
        mlp_in: linear(format!("{i}.in"), config.d_ff, d, 2.0),
        mlp_out: linear(format!("{i}.out"), d, config.d_ff, 1.5),
    };
    Transformer::new(Weights {
        tok_embed: matrix("tok", config.n_vocab, d, 1.0),
        pos_embed: matrix("pos", config.ctx_window, d, 0.5),
        layers: (0..config.n_layers).map(layer).collect(),
        ln_f: norm("ln_f".into()),
        unembed: matrix("unembed", config.n_vocab, d, 1.0),
        config,
    })
}

/// One autoencoder per layer with 30 latents, pre-bias and decoder bias differing.
pub fn autoencoders(
    config: &Config,
    site: AutoencoderSite,
    activation: impl Fn(usize) -> LatentActivation,
) -> Vec<Option<Autoencoder>> {
    let (n_latents, n_inputs) = (30, site.width(config));
    let root = (n_inputs as f64).sqrt();
    let layer = |i: usize| {
        let name = |key: &str| format!("{site:?}.{i}.{key}");
        let weights = AutoencoderWeights {
            encoder_pre_bias: numbers(&name("pre"), n_inputs, 0.2, 0.0),
            encoder: matrix(&name("enc"), n_latents, n_inputs, 4.0 / root),
            latent_bias: numbers(&name("bias"), n_latents, 0.3, -0.5),
            activation: activation(n_latents),
            decoder: matrix(&name("dec"), n_inputs, n_latents, 1.75 / root),
            decoder_bias: numbers(&name("post"), n_inputs, 0.2, 0.0),
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
    let both = |mlp, attn| plain().with_mlp_autoencoders(mlp).unwrap().with_attn_autoencoders(attn).unwrap();
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
        ("neurons jumprelu", plain().with_mlp_autoencoders(post_act(&config, &jump_relu)).unwrap()),
        ("identity", plain().with_mlp_autoencoders(delta_mlp(&config, &identity)).unwrap()),
    ]
}

/// Every point that the model has.
pub fn points(model: &Transformer) -> Vec<Point> {
    let n_layers = model.config().n_layers;
    let exists = |site: &&Site| site_dims(model, **site, 1).is_some();
    let layers = |site: &Site| match site.has_layers() {
        true => (0..n_layers).map(Some).collect(),
        false => vec![None],
    };
    Site::ALL
        .iter()
        .filter(exists)
        .flat_map(|&s| layers(&s).into_iter().map(move |layer| Point { site: s, layer }))
        .collect()
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
    hooks: &mut dyn Hooks,
) -> Forward {
    let options = ForwardOptions { interventions, hooks, ..Default::default() };
    tdb_model::forward(model, tokens, options).unwrap()
}

pub fn run_backward(
    model: &Transformer,
    forward: &Forward,
    seed: Seed,
    interventions: &[Intervention],
    hooks: &mut dyn Hooks,
) -> Gradients {
    let options = BackwardOptions { interventions, hooks, keep: &Site::ALL, ..Default::default() };
    tdb_model::backward(model, forward, seed, options).unwrap()
}

/// The activation at a point, row-major, as far as a run keeps it.
pub fn activation(model: &Transformer, forward: &Forward, point: Point) -> Option<Vec<f32>> {
    let layer = point.layer.map(|l| &*forward.layers[l]);
    let array: &Array = match (point.site, layer) {
        (Site::ResidPostEmb, _) => &forward.post_emb,
        (Site::FinalLnCentered, _) => &forward.final_ln.centered,
        (Site::FinalLnScale, _) => &forward.final_ln.scale,
        (Site::PostFinalLn, _) => &forward.post_final_ln,
        (Site::Logits, _) => {
            return Some((0..forward.tokens.len()).flat_map(|t| forward.logits(model, t)).collect());
        }
        (site, Some(layer)) => match site {
            Site::AttnLnCentered => &layer.attn_ln.centered,
            Site::AttnLnScale => &layer.attn_ln.scale,
            Site::AttnQ => &layer.attn.q,
            Site::AttnK => &layer.attn.k,
            Site::AttnV => &layer.attn.v,
            Site::AttnQkLogits => &layer.attn.qk_logits,
            Site::AttnQkProbs => &layer.attn.qk_probs,
            Site::AttnVOut => &layer.attn.v_out,
            Site::ResidDeltaAttn => &layer.attn.delta,
            Site::ResidPostAttn => &layer.post_attn,
            Site::MlpLnCentered => &layer.mlp_ln.centered,
            Site::MlpLnScale => &layer.mlp_ln.scale,
            Site::MlpPreAct => &layer.mlp.pre_act,
            Site::MlpPostAct => &layer.mlp.post_act,
            Site::ResidDeltaMlp => &layer.mlp.delta,
            Site::ResidPostMlp => &layer.post_mlp,
            Site::MlpLatent => return Some(layer.mlp.latents.as_ref()?.latents.to_dense()),
            Site::AttnLatent => return Some(layer.attn.latents.as_ref()?.latents.to_dense()),
            _ => return None,
        },
        _ => return None,
    };
    Some(array.to_row_major())
}

/// The gradient at a point, row-major; for latents the product of the kept gradient with their directions.
pub fn gradient(model: &Transformer, gradients: &Gradients, point: Point) -> Option<Vec<f32>> {
    if point.site == Site::Logits {
        let mut all = Vec::new();
        let tokens = gradients.get(Site::ResidPostEmb, None)?.dims()[0];
        for t in 0..tokens {
            all.extend(gradients.logits.get(&t).cloned().unwrap_or_else(|| vec![0.0; model.config().n_vocab]));
        }
        return Some(all);
    }
    let array = gradients.get(point.site, point.layer)?;
    let autoencoder = match point.site {
        Site::MlpLatent => model.mlp_autoencoder(point.layer?),
        Site::AttnLatent => model.attn_autoencoder(point.layer?),
        _ => return Some(array.to_row_major()),
    }?;
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let latents = |t: usize| (0..autoencoder.n_latents()).map(move |i| dot(autoencoder.direction(i), array.row(t)));
    Some((0..array.dims()[0]).flat_map(latents).collect())
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
    let dims = site_dims(model, point.site, TOKENS.len()).unwrap();
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
        use Site::{AttnError, AttnLatent, AttnReconstruction, MlpError, MlpLatent, MlpReconstruction};
        let all = [MlpLatent, MlpReconstruction, MlpError, AttnLatent, AttnReconstruction, AttnError];
        all.contains(self)
    }

    /// Whether the second dimension is a key.
    fn is_pair(&self) -> bool {
        matches!(self, Site::AttnQkLogits | Site::AttnQkProbs)
    }
}
