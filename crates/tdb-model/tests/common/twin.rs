//! The model written a second time: f64 candle tensors, gradients from candle's automatic differentiation.
//!
//! candle forgets the gradients of intermediate tensors; a [`Tap`], which computes the identity, sees them
//! on their way back and may change them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use candle_core::{CpuStorage, CustomOp1, D, Device, Layout, Result, Shape, Tensor, Var};
use tdb_model::{
    Autoencoder, AutoencoderSite, Index, Intervention, LatentActivation, LayerNorm, Linear, Matrix, Pass, Point, Site,
    Transformer,
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

fn linear(x: &Tensor, layer: &Linear) -> Result<Tensor> {
    let bias = tensor(&layer.bias, &[layer.bias.len()])?;
    x.contiguous()?.matmul(&matrix(&layer.weight)?.t()?.contiguous()?)?.broadcast_add(&bias)
}

fn gelu(x: &Tensor) -> Result<Tensor> {
    let inner = ((x + (x.sqr()? * x)? * 0.044715)? * (2.0 / std::f64::consts::PI).sqrt())?;
    ((inner.tanh()? + 1.0)? * (x * 0.5)?)?.contiguous()
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

    fn forward(&mut self, tokens: &[u32]) -> Result<()> {
        let weights = self.model.weights();
        let ids = Tensor::new(tokens, &Device::Cpu)?;
        let tok = matrix(&weights.tok_embed)?.index_select(&ids, 0)?;
        let pos = matrix(&weights.pos_embed)?.narrow(0, 0, tokens.len())?;
        // A variable, so that candle follows everything computed from it.
        let x = Var::from_tensor(&(tok + pos)?)?;
        let mut x = self.at(Site::ResidPostEmb, None, x.as_tensor().clone())?;
        for (i, layer) in weights.layers.iter().enumerate() {
            let sites = [Site::AttnLnCentered, Site::AttnLnScale, Site::AttnLnNormalized, Site::AttnIn];
            let input = self.norm(sites, Some(i), &layer.ln_1, &x)?;
            let write = self.attention(i, &input)?;
            x = self.at(Site::ResidPostAttn, Some(i), (x + write)?)?;
            let sites = [Site::MlpLnCentered, Site::MlpLnScale, Site::MlpLnNormalized, Site::MlpIn];
            let input = self.norm(sites, Some(i), &layer.ln_2, &x)?;
            let write = self.mlp(i, &input)?;
            x = self.at(Site::ResidPostMlp, Some(i), (x + write)?)?;
        }
        let sites = [Site::FinalLnCentered, Site::FinalLnScale, Site::FinalLnNormalized, Site::PostFinalLn];
        let x = self.norm(sites, None, &weights.ln_f, &x)?;
        let logits = x.matmul(&matrix(&weights.unembed)?.t()?.contiguous()?)?;
        self.at(Site::Logits, None, logits)?;
        Ok(())
    }

    fn norm(&mut self, sites: [Site; 4], layer: Option<usize>, norm: &LayerNorm, x: &Tensor) -> Result<Tensor> {
        let width = norm.gain.len();
        let centered = self.at(sites[0], layer, x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?)?;
        let scale = (centered.sqr()?.mean_keepdim(D::Minus1)? + 1e-5)?.sqrt()?;
        let scale = self.at(sites[1], layer, scale)?;
        let normalized = self.at(sites[2], layer, centered.broadcast_div(&scale)?)?;
        let (gain, bias) = (tensor(&norm.gain, &[width])?, tensor(&norm.bias, &[width])?);
        self.at(sites[3], layer, normalized.broadcast_mul(&gain)?.broadcast_add(&bias)?)
    }

    fn attention(&mut self, i: usize, input: &Tensor) -> Result<Tensor> {
        let (config, weights) = (self.model.config(), &self.model.weights().layers[i]);
        let (t, h, e) = (input.dims()[0], config.n_heads, config.d_head);
        let factor = (e as f64).powf(-0.25);
        let q = self.at(Site::AttnQ, Some(i), (linear(input, &weights.query)? * factor)?.reshape((t, h, e))?)?;
        let k = self.at(Site::AttnK, Some(i), (linear(input, &weights.key)? * factor)?.reshape((t, h, e))?)?;
        let v = self.at(Site::AttnV, Some(i), linear(input, &weights.value)?.reshape((t, h, e))?)?;
        // [H, Q, K], then [Q, K, H] as the sites are.
        let logits = q.permute((1, 0, 2))?.contiguous()?.matmul(&k.permute((1, 2, 0))?.contiguous()?)?;
        let logits = logits.permute((1, 2, 0))?.contiguous()?;
        let hidden: Vec<u8> = (0..t * t * h).map(|j| u8::from((j / h) % t > j / h / t)).collect();
        let hidden = Tensor::from_vec(hidden, (t, t, h), &Device::Cpu)?;
        let logits = hidden.where_cond(&Tensor::full(f64::NEG_INFINITY, (t, t, h), &Device::Cpu)?, &logits)?;
        let logits = self.at(Site::AttnQkLogits, Some(i), logits)?;
        let numerator = logits.broadcast_sub(&logits.max_keepdim(1)?.detach())?.exp()?;
        let denominator = self.at(Site::AttnSoftmaxDenominator, Some(i), numerator.sum_keepdim(1)?)?;
        let probs = self.at(Site::AttnQkProbs, Some(i), numerator.broadcast_div(&denominator)?)?;
        let v_out = probs.permute((2, 0, 1))?.contiguous()?.matmul(&v.permute((1, 0, 2))?.contiguous()?)?;
        let v_out = self.at(Site::AttnVOut, Some(i), v_out.permute((1, 0, 2))?)?;
        let delta = self.at(Site::ResidDeltaAttn, Some(i), linear(&v_out.reshape((t, h * e))?, &weights.out)?)?;
        let autoencoder = self.model.attn_autoencoder(i);
        self.autoencode(autoencoder, AutoencoderSite::ResidDeltaAttn, i, delta)
    }

    fn mlp(&mut self, i: usize, input: &Tensor) -> Result<Tensor> {
        let weights = &self.model.weights().layers[i];
        let autoencoder = self.model.mlp_autoencoder(i);
        let pre_act = self.at(Site::MlpPreAct, Some(i), linear(input, &weights.mlp_in)?)?;
        let post_act = self.at(Site::MlpPostAct, Some(i), gelu(&pre_act)?)?;
        let neurons = self.autoencode(autoencoder, AutoencoderSite::MlpPostAct, i, post_act)?;
        let delta = self.at(Site::ResidDeltaMlp, Some(i), linear(&neurons, &weights.mlp_out)?)?;
        self.autoencode(autoencoder, AutoencoderSite::ResidDeltaMlp, i, delta)
    }

    /// Latents, reconstruction and error of `x`; the error is that of the latents before anything changed them.
    fn autoencode(
        &mut self,
        autoencoder: Option<&Autoencoder>,
        site: AutoencoderSite,
        i: usize,
        x: Tensor,
    ) -> Result<Tensor> {
        let Some(autoencoder) = autoencoder.filter(|a| a.site() == site) else { return Ok(x) };
        let [latent, reconstruction, error] = match site {
            AutoencoderSite::ResidDeltaAttn => [Site::AttnLatent, Site::AttnReconstruction, Site::AttnError],
            _ => [Site::MlpLatent, Site::MlpReconstruction, Site::MlpError],
        };
        let encoded = encode(autoencoder, &x)?;
        let latents = self.at(latent, Some(i), encoded.clone())?;
        let rebuilt = self.at(reconstruction, Some(i), decode(autoencoder, &latents)?)?;
        let rest = self.at(error, Some(i), (x - decode(autoencoder, &encoded)?)?)?;
        rebuilt + rest
    }
}

fn encode(autoencoder: &Autoencoder, x: &Tensor) -> Result<Tensor> {
    let weights = autoencoder.weights();
    let n = weights.latent_bias.len();
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

fn decode(autoencoder: &Autoencoder, latents: &Tensor) -> Result<Tensor> {
    let weights = autoencoder.weights();
    let bias = tensor(&weights.decoder_bias, &[weights.decoder_bias.len()])?;
    latents.matmul(&matrix(&weights.decoder)?.t()?.contiguous()?)?.broadcast_add(&bias)
}
