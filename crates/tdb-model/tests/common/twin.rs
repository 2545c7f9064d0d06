//! The model written a second time: f64 candle tensors, gradients from candle's automatic differentiation.
//!
//! candle forgets the gradients of intermediate tensors; a [`Tap`], which computes the identity, sees them
//! on their way back and may change them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use candle_core::{CpuStorage, CustomOp1, D, DType, Device, Layout, Result, Shape, Tensor, Var};
use tdb_model::config::{Rotary, RotaryScaling};
use tdb_model::{
    Activation, Autoencoder, AutoencoderSite, BlockOrder, Index, Intervention, LatentActivation, Matrix, MlpKind,
    NormKind, Normalization, Pass, Point, Positions, Site, Slot, Transformer,
};

type Numbers = BTreeMap<Point, Vec<f64>>;

/// What shall happen besides computing.
#[derive(Clone, Default)]
pub struct Twin {
    pub interventions: Vec<Intervention>,
    /// Multiplies the activation of a point, the gradient passing unchanged.
    pub scale_activation: Option<(Point, f64)>,
    /// Multiplies the gradient of a point.
    pub scale_gradient: Option<(Point, f64)>,
}

/// Everything that the twin computed, row-major.
pub struct Answer {
    pub activations: Numbers,
    pub gradients: Numbers,
}

struct Pass2<'a> {
    model: &'a Transformer,
    twin: &'a Twin,
    tensors: BTreeMap<Point, Tensor>,
    gradients: Arc<Mutex<Numbers>>,
}

struct Tap {
    point: Point,
    interventions: Vec<Intervention>,
    scale: f64,
    seen: Arc<Mutex<Numbers>>,
}

impl CustomOp1 for Tap {
    fn name(&self) -> &'static str {
        "tap"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let CpuStorage::F64(numbers) = storage else { candle_core::bail!("f64 expected") };
        let Some((start, end)) = layout.contiguous_offsets() else { candle_core::bail!("contiguous expected") };
        Ok((CpuStorage::F64(numbers[start..end].to_vec()), layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let seen = gradient.flatten_all()?.to_vec1::<f64>()?;
        assert!(self.seen.lock().unwrap().insert(self.point, seen).is_none(), "{:?} seen twice", self.point);
        let mut gradient = (gradient * self.scale)?;
        for intervention in self.interventions.iter().rev().filter(|i| i.applies(self.point, Pass::Backward)) {
            gradient = set(&gradient, intervention)?;
        }
        Ok(Some(gradient))
    }
}

/// `x` with the entries of an intervention set; no gradient flows to what they were.
fn set(x: &Tensor, intervention: &Intervention) -> Result<Tensor> {
    let dims = x.dims();
    let meant = |mut flat: usize| {
        (0..dims.len()).rev().all(|d| {
            let i = flat % dims[d];
            flat /= dims[d];
            intervention.indices[d] == Index::All || intervention.indices[d] == Index::At(i)
        })
    };
    let mask: Vec<u8> = (0..x.elem_count()).map(|i| u8::from(meant(i))).collect();
    let mask = Tensor::from_vec(mask, dims, &Device::Cpu)?;
    let value = Tensor::full(f64::from(intervention.value), dims, &Device::Cpu)?;
    mask.where_cond(&value, &x.contiguous()?)
}

fn tensor(numbers: &[f32], dims: &[usize]) -> Result<Tensor> {
    Tensor::from_vec(numbers.iter().map(|x| f64::from(*x)).collect::<Vec<_>>(), dims, &Device::Cpu)
}

fn matrix(matrix: &Matrix) -> Result<Tensor> {
    tensor(&matrix.to_vec(), &[matrix.rows(), matrix.cols()])
}

fn activate(x: &Tensor, activation: Activation) -> Result<Tensor> {
    match activation {
        Activation::GeluTanh => {
            let inner = ((x + (x.sqr()? * x)? * 0.044715)? * (2.0 / std::f64::consts::PI).sqrt())?;
            ((inner.tanh()? + 1.0)? * (x * 0.5)?)?.contiguous()
        }
        Activation::Gelu => ((x * 0.5f64.sqrt())?.erf()? + 1.0)? * (x * 0.5)?,
        Activation::Silu => x / (x.neg()?.exp()? + 1.0)?,
        Activation::Relu => x.relu(),
    }
}

/// Angle of a pair of dimensions at a position.
fn angle(rotary: &Rotary, pair: usize, position: usize) -> f64 {
    let plain = 1.0 / f64::from(rotary.base).powf(2.0 * pair as f64 / rotary.dims as f64);
    let frequency = match rotary.scaling {
        RotaryScaling::None => plain,
        RotaryScaling::Linear { factor } => plain / f64::from(factor),
        RotaryScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
            // How often the original context turns this pair, between "keep" (1) and "divide" (0).
            let turns = original_context as f64 * plain / (2.0 * std::f64::consts::PI);
            let (low, high) = (f64::from(low_freq_factor), f64::from(high_freq_factor));
            let keep = ((turns - low) / (high - low)).clamp(0.0, 1.0);
            plain * (keep + (1.0 - keep) / f64::from(factor))
        }
        RotaryScaling::Yarn { factor, beta_fast, beta_slow, original_context, truncate, .. } => {
            // The pair, as a fraction, that turns so many times in the original context: the inverse of `plain`.
            let pair_of = |turns: f32| {
                let wanted = f64::from(turns) * 2.0 * std::f64::consts::PI / original_context as f64;
                -wanted.ln() / f64::from(rotary.base).ln() * rotary.dims as f64 / 2.0
            };
            let (mut first, mut last) = (pair_of(beta_fast), pair_of(beta_slow));
            if truncate {
                (first, last) = (first.floor(), last.ceil());
            }
            let (first, last) = (first.max(0.0), last.min(rotary.dims as f64 - 1.0));
            let keep = 1.0 - ((pair as f64 - first) / (last - first)).clamp(0.0, 1.0);
            plain * (keep + (1.0 - keep) / f64::from(factor))
        }
    };
    frequency * position as f64
}

/// `[T, H, E]` with the pairs `(i, i + dims / 2)` turned.
fn rotate(x: &Tensor, rotary: &Rotary) -> Result<Tensor> {
    let (t, _, e) = x.dims3()?;
    let half = rotary.dims / 2;
    let table = |f: fn(f64) -> f64| {
        let all: Vec<f64> = (0..t * half).map(|i| f(angle(rotary, i % half, i / half))).collect();
        Tensor::from_vec(all, (t, 1, half), &Device::Cpu)
    };
    let amplitude = f64::from(rotary.scaling.amplitude());
    let (cos, sin) = ((table(f64::cos)? * amplitude)?, (table(f64::sin)? * amplitude)?);
    let (a, b) = (x.narrow(2, 0, half)?, x.narrow(2, half, half)?);
    let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
    let second = (a.broadcast_mul(&sin)? + b.broadcast_mul(&cos)?)?;
    let rest = x.narrow(2, rotary.dims, e - rotary.dims)?;
    if e == rotary.dims { Tensor::cat(&[first, second], 2) } else { Tensor::cat(&[first, second, rest], 2) }
}

/// `cap tanh(x / cap)`
fn softcap(x: Tensor, cap: Option<f32>) -> Result<Tensor> {
    match cap.map(f64::from) {
        Some(cap) => (x / cap)?.tanh()? * cap,
        None => Ok(x),
    }
}

impl Twin {
    /// Runs forward and back from the objective `Σ tensor(point) · weights` over all given points.
    pub fn run(&self, model: &Transformer, tokens: &[u32], seed: &[(Point, Vec<f32>)]) -> Answer {
        let gradients = Arc::default();
        let mut pass = Pass2 { model, twin: self, tensors: BTreeMap::new(), gradients };
        pass.forward(tokens).unwrap();
        let mut objective = Tensor::zeros((), candle_core::DType::F64, &Device::Cpu).unwrap();
        for (point, weights) in seed {
            let at = &pass.tensors[point];
            let weights = tensor(weights, at.dims()).unwrap();
            objective = (objective + (at * weights).unwrap().sum_all().unwrap()).unwrap();
        }
        objective.backward().unwrap();
        let flat = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let activations = pass.tensors.iter().map(|(point, x)| (*point, flat(x))).collect();
        let gradients = std::mem::take(&mut *pass.gradients.lock().unwrap());
        Answer { activations, gradients }
    }
}

impl Pass2<'_> {
    /// A site: forward interventions, then the place where gradients are seen and changed.
    fn at(&mut self, site: Site, layer: Option<usize>, x: Tensor) -> Result<Tensor> {
        let point = Point { site, layer };
        let mut x = x.contiguous()?;
        for intervention in self.twin.interventions.iter().filter(|i| i.applies(point, Pass::Forward)) {
            x = set(&x, intervention)?;
        }
        if let Some((_, factor)) = self.twin.scale_activation.filter(|(p, _)| *p == point) {
            x = (&x + ((&x * factor)? - &x)?.detach())?;
        }
        let scale = self.twin.scale_gradient.filter(|(p, _)| *p == point).map_or(1.0, |(_, scale)| scale);
        let interventions = self.twin.interventions.clone();
        let x = x.apply_op1(Tap { point, interventions, scale, seen: self.gradients.clone() })?;
        self.tensors.insert(point, x.clone());
        Ok(x)
    }

    fn weight(&self, name: &str) -> Result<Tensor> {
        self.model.weight(name).map_err(candle_core::Error::wrap)?.to_dtype(DType::F64)
    }

    fn linear(&self, x: &Tensor, name: &str, bias: bool) -> Result<Tensor> {
        let y = x.contiguous()?.matmul(&self.weight(&format!("{name}.weight"))?.t()?.contiguous()?)?;
        if bias { y.broadcast_add(&self.weight(&format!("{name}.bias"))?) } else { Ok(y) }
    }

    fn forward(&mut self, tokens: &[u32]) -> Result<()> {
        let config = self.model.config().clone();
        let ids = Tensor::new(tokens, &Device::Cpu)?;
        let mut x = (self.weight("embed.weight")?.index_select(&ids, 0)? * f64::from(config.embedding_scale))?;
        if config.positions == Positions::Learned {
            x = (x + self.weight("positions.weight")?.narrow(0, 0, tokens.len())?)?;
        }
        // A variable, so that candle follows everything computed from it.
        let x = Var::from_tensor(&x)?;
        let x = self.on_stream(AutoencoderSite::ResidPre, 0, x.as_tensor().clone())?;
        let mut x = self.at(Site::ResidPostEmb, None, x)?;
        for i in 0..config.n_layers {
            let sites = [Site::AttnLnCentered, Site::AttnLnScale, Site::AttnLnNormalized, Site::AttnIn];
            let input = self.norm(sites, Some(i), &format!("blocks.{i}.attn_norm"), &x)?;
            let write = self.attention(i, &input)?;
            let post_attn = self.on_stream(AutoencoderSite::ResidPostAttn, i, (&x + write)?)?;
            let post_attn = self.at(Site::ResidPostAttn, Some(i), post_attn)?;
            let read = if config.block == BlockOrder::Parallel { &x } else { &post_attn };
            x = match config.mlp {
                MlpKind::None => post_attn,
                _ => {
                    let sites = [Site::MlpLnCentered, Site::MlpLnScale, Site::MlpLnNormalized, Site::MlpIn];
                    let input = self.norm(sites, Some(i), &format!("blocks.{i}.mlp_norm"), read)?;
                    (post_attn + self.mlp(i, &input)?)?
                }
            };
            x = self.on_stream(AutoencoderSite::ResidPostMlp, i, x)?;
            x = self.on_stream(AutoencoderSite::ResidPre, i + 1, x)?;
            x = self.at(Site::ResidPostMlp, Some(i), x)?;
        }
        let sites = [Site::FinalLnCentered, Site::FinalLnScale, Site::FinalLnNormalized, Site::PostFinalLn];
        let x = self.norm(sites, None, "final_norm", &x)?;
        let unembed = self.weight(if config.tied { "embed.weight" } else { "unembed.weight" })?;
        let mut logits = x.matmul(&unembed.t()?.contiguous()?)?;
        if config.unembedding_bias {
            logits = logits.broadcast_add(&self.weight("unembed.bias")?)?;
        }
        let logits = softcap(logits, config.logit_softcap)?;
        self.at(Site::Logits, None, logits)?;
        Ok(())
    }

    /// A gain as it multiplies.
    fn gain(&self, name: &str) -> Result<Tensor> {
        let gain = self.weight(&format!("{name}.weight"))?;
        if self.model.config().norm == NormKind::RmsOnePlus { gain + 1.0 } else { Ok(gain) }
    }

    fn norm(&mut self, sites: [Site; 4], layer: Option<usize>, name: &str, x: &Tensor) -> Result<Tensor> {
        let (kind, epsilon) = (self.model.config().norm, f64::from(self.model.config().norm_epsilon));
        let centers = matches!(kind, NormKind::Layer | NormKind::LayerWithoutParameters);
        let centered = if centers { x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)? } else { x.clone() };
        let centered = self.at(sites[0], layer, centered)?;
        let scale = match kind {
            // One, as a number that candle follows.
            NormKind::None => {
                let sums = centered.sum_keepdim(D::Minus1)?;
                ((&sums * sums.zeros_like()?)? + 1.0)?
            }
            _ => (centered.sqr()?.mean_keepdim(D::Minus1)? + epsilon)?.sqrt()?,
        };
        let scale = self.at(sites[1], layer, scale)?;
        let mut y = self.at(sites[2], layer, centered.broadcast_div(&scale)?)?;
        if !matches!(kind, NormKind::None | NormKind::LayerWithoutParameters) {
            y = y.broadcast_mul(&self.gain(name)?)?;
        }
        if kind == NormKind::Layer {
            y = y.broadcast_add(&self.weight(&format!("{name}.bias"))?)?;
        }
        self.at(sites[3], layer, y)
    }

    /// Rows over their root mean square, times the gain: a norm without sites.
    fn rms(&self, name: &str, x: &Tensor) -> Result<Tensor> {
        let scale = (x.sqr()?.mean_keepdim(D::Minus1)? + f64::from(self.model.config().norm_epsilon))?.sqrt()?;
        x.broadcast_div(&scale)?.broadcast_mul(&self.gain(name)?)
    }

    /// Queries or keys, `[T, heads, E]`.
    fn projected(&self, i: usize, part: &str, heads: usize, bias: bool, input: &Tensor) -> Result<Tensor> {
        let config = self.model.config();
        let name = format!("blocks.{i}.attn.{part}");
        let mut input = input.clone();
        if config.positions == Positions::LearnedForQueriesAndKeys {
            input = (&input + self.weight("positions.weight")?.narrow(0, 0, input.dim(0)?)?)?;
        }
        let mut x = self.linear(&input, &name, bias)?.reshape((input.dims()[0], heads, config.d_head))?;
        if config.attention.qk_norm {
            x = self.rms(&format!("{name}_norm"), &x)?;
        }
        if let Positions::Rotary(layers) = &config.positions
            && let Some(rotary) = &layers[i]
        {
            x = rotate(&x, rotary)?;
        }
        let divisor = if config.attention.inverse_layer_scale { (i + 1) as f64 } else { 1.0 };
        x * (f64::from(config.attention.scale) / divisor).sqrt()
    }

    fn attention(&mut self, i: usize, input: &Tensor) -> Result<Tensor> {
        let config = self.model.config().clone();
        let settings = &config.attention;
        let (t, h, g, e) = (input.dims()[0], config.n_heads, config.n_kv_heads, config.d_head);
        let q = self.projected(i, "q", h, settings.bias.q, input)?;
        let q = self.at(Site::AttnQ, Some(i), q)?;
        let k = self.projected(i, "k", g, settings.bias.k, input)?;
        let k = self.at(Site::AttnK, Some(i), k)?;
        let v = self.linear(input, &format!("blocks.{i}.attn.v"), settings.bias.v)?.reshape((t, g, e))?;
        let v = self.at(Site::AttnV, Some(i), v)?;
        let shared = Tensor::new((0..h).map(|head| (head * g / h) as u32).collect::<Vec<_>>(), &Device::Cpu)?;
        let (k, v) = (k.index_select(&shared, 1)?, v.index_select(&shared, 1)?);
        // [H, Q, K], then [Q, K, H] as the sites are.
        let logits = q.permute((1, 0, 2))?.contiguous()?.matmul(&k.permute((1, 2, 0))?.contiguous()?)?;
        let logits = softcap(logits.permute((1, 2, 0))?.contiguous()?, settings.softcap)?;
        let is_hidden =
            |query: usize, key: usize| key > query || settings.windows[i].is_some_and(|window| query - key >= window);
        let hidden: Vec<u8> = (0..t * t * h).map(|j| u8::from(is_hidden(j / h / t, (j / h) % t))).collect();
        let hidden = Tensor::from_vec(hidden, (t, t, h), &Device::Cpu)?;
        let logits = hidden.where_cond(&Tensor::full(f64::NEG_INFINITY, (t, t, h), &Device::Cpu)?, &logits)?;
        let logits = self.at(Site::AttnQkLogits, Some(i), logits)?;
        let numerator = logits.broadcast_sub(&logits.max_keepdim(1)?.detach())?.exp()?;
        let denominator = self.at(Site::AttnSoftmaxDenominator, Some(i), numerator.sum_keepdim(1)?)?;
        let probs = self.at(Site::AttnQkProbs, Some(i), numerator.broadcast_div(&denominator)?)?;
        let v_out = probs.permute((2, 0, 1))?.contiguous()?.matmul(&v.permute((1, 0, 2))?.contiguous()?)?;
        let v_out = self.at(Site::AttnVOut, Some(i), v_out.permute((1, 0, 2))?)?;
        let v_out = v_out.reshape((t, h * e))?;
        let written =
            self.autoencode(self.model.autoencoder(Slot::Attention, i), AutoencoderSite::AttnVOut, i, v_out)?;
        let mut delta = self.linear(&written, &format!("blocks.{i}.attn.o"), settings.bias.o)?;
        if config.post_norms {
            delta = self.rms(&format!("blocks.{i}.attn_post_norm"), &delta)?;
        }
        let delta = self.at(Site::ResidDeltaAttn, Some(i), delta)?;
        let autoencoder = self.model.autoencoder(Slot::Attention, i);
        self.autoencode(autoencoder, AutoencoderSite::ResidDeltaAttn, i, delta)
    }

    fn mlp(&mut self, i: usize, input: &Tensor) -> Result<Tensor> {
        let config = self.model.config().clone();
        let autoencoder = self.model.autoencoder(Slot::Mlp, i);
        let name = |part: &str| format!("blocks.{i}.mlp.{part}");
        let (activation, first) = match config.mlp {
            MlpKind::None => unreachable!("a layer that is not there"),
            MlpKind::Plain(activation) => (activation, "in"),
            MlpKind::Gated(activation) => (activation, "gate"),
        };
        let whole_input = input;
        let input = &self.autoencode(autoencoder, AutoencoderSite::MlpIn, i, input.clone())?;
        let pre_act = self.linear(input, &name(first), config.mlp_bias)?;
        let pre_act = self.at(Site::MlpPreAct, Some(i), pre_act)?;
        let mut post_act = activate(&pre_act, activation)?;
        if first == "gate" {
            let up = self.linear(input, &name("in"), config.mlp_bias)?;
            post_act = (post_act * self.at(Site::MlpUp, Some(i), up)?)?;
        }
        let post_act = self.at(Site::MlpPostAct, Some(i), post_act)?;
        let neurons = self.autoencode(autoencoder, AutoencoderSite::MlpPostAct, i, post_act)?;
        let mut delta = self.linear(&neurons, &name("out"), config.mlp_bias)?;
        if config.post_norms {
            delta = self.rms(&format!("blocks.{i}.mlp_post_norm"), &delta)?;
        }
        let delta = self.at(Site::ResidDeltaMlp, Some(i), delta)?;
        match autoencoder.filter(|a| a.site() == AutoencoderSite::MlpTranscoder) {
            Some(transcoder) => self.stand_in(transcoder, i, whole_input, delta),
            None => self.autoencode(autoencoder, AutoencoderSite::ResidDeltaMlp, i, delta),
        }
    }

    /// The residual stream through the dictionary of layer `i`, if it has one at this site.
    fn on_stream(&mut self, site: AutoencoderSite, i: usize, x: Tensor) -> Result<Tensor> {
        if i >= self.model.config().n_layers {
            return Ok(x);
        }
        let dictionary = self.model.autoencoder(Slot::Residual, i).filter(|a| a.site() == site);
        let Some(dictionary) = dictionary else { return Ok(x) };
        let x = self.at(Site::ResidLatentInput, Some(i), x)?;
        self.stand_in(dictionary, i, &x, x.clone())
    }

    /// Latents, reconstruction and error of `x`; the error is that of the latents before anything changed them.
    fn autoencode(
        &mut self,
        autoencoder: Option<&Autoencoder>,
        site: AutoencoderSite,
        i: usize,
        x: Tensor,
    ) -> Result<Tensor> {
        match autoencoder.filter(|a| a.site() == site) {
            Some(autoencoder) => self.stand_in(autoencoder, i, &x, x.clone()),
            None => Ok(x),
        }
    }

    fn stand_in(&mut self, dictionary: &Autoencoder, i: usize, input: &Tensor, target: Tensor) -> Result<Tensor> {
        let slot = Slot::of(dictionary.site());
        let encoded = encode(dictionary, input)?;
        let latents = self.at(slot.latent(), Some(i), encoded.clone())?;
        let rebuilt = self.at(slot.reconstruction(), Some(i), decode(dictionary, &latents, input)?)?;
        let rest = self.at(slot.error(), Some(i), (target - decode(dictionary, &encoded, input)?)?)?;
        rebuilt + rest
    }
}

/// The rows normalised, the scales that this is undone with, and the means, all `None` where there are none.
fn normalized(normalization: Normalization, x: &Tensor) -> Result<(Tensor, Option<Tensor>, Option<Tensor>)> {
    let n = x.dim(1)? as f64;
    let mean = x.mean_keepdim(1)?;
    let centered = x.broadcast_sub(&mean)?;
    Ok(match normalization {
        Normalization::None => (x.clone(), None, None),
        Normalization::Centered => (centered, None, Some(mean)),
        Normalization::LayerNorm { epsilon } => {
            let deviation = (centered.sqr()?.sum_keepdim(1)? / (n - 1.0))?.sqrt()?;
            let normalized = centered.broadcast_div(&(&deviation + f64::from(epsilon))?)?;
            (normalized, Some(deviation), Some(mean))
        }
        Normalization::ConstantNorm => {
            let scale = (x.sqr()?.sum_keepdim(1)? / n)?.sqrt()?;
            (x.broadcast_div(&scale)?, Some(scale), None)
        }
    })
}

fn encode(autoencoder: &Autoencoder, x: &Tensor) -> Result<Tensor> {
    let weights = autoencoder.weights();
    let n = weights.latent_bias.len();
    let (x, ..) = normalized(weights.normalization, x)?;
    let x = x.broadcast_sub(&tensor(&weights.encoder_pre_bias, &[weights.encoder_pre_bias.len()])?)?;
    let pre = x.matmul(&matrix(&weights.encoder)?.t()?.contiguous()?)?;
    let pre = pre.broadcast_add(&tensor(&weights.latent_bias, &[n])?)?;
    let rows = pre.to_vec2::<f64>()?;
    let keeps = |keep: &dyn Fn(&[f64], usize) -> bool| {
        let mask: Vec<f64> = rows.iter().flat_map(|row| (0..n).map(|i| f64::from(keep(row, i)))).collect();
        Tensor::from_vec(mask, (rows.len(), n), &Device::Cpu)
    };
    match &weights.activation {
        LatentActivation::Identity => Ok(pre),
        LatentActivation::Relu => pre.relu(),
        LatentActivation::JumpRelu { threshold } => pre * keeps(&|row, i| row[i] > f64::from(threshold[i]))?,
        LatentActivation::TopK { k, relu } => {
            let among = |row: &[f64], i: usize| row.iter().filter(|x| **x > row[i]).count() < *k;
            let kept = (pre * keeps(&among)?)?;
            if *relu { kept.relu() } else { Ok(kept) }
        }
    }
}

fn decode(autoencoder: &Autoencoder, latents: &Tensor, input: &Tensor) -> Result<Tensor> {
    let weights = autoencoder.weights();
    let bias = tensor(&weights.decoder_bias, &[weights.decoder_bias.len()])?;
    let mut out = latents.matmul(&matrix(&weights.decoder)?.t()?.contiguous()?)?.broadcast_add(&bias)?;
    if autoencoder.site() != AutoencoderSite::MlpTranscoder {
        let (_, scale, mean) = normalized(weights.normalization, input)?;
        out = scale.map_or(Ok(out.clone()), |scale| out.broadcast_mul(&scale))?;
        out = mean.map_or(Ok(out.clone()), |mean| out.broadcast_add(&mean))?;
    }
    match &weights.skip {
        Some(skip) => out + input.matmul(&matrix(skip)?.t()?.contiguous()?)?,
        None => Ok(out),
    }
}
