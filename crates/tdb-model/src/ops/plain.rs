//! Every operation as a composition of candle's own: its definition, and what runs on devices other than the CPU.

use candle_core::{D, Result, Tensor};

use super::{Rotation, Visible};
use crate::config::Activation;

/// `y` where `x` lies: callers may bring tensors of the host's. Nothing happens where both lie on one device.
fn beside(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    y.to_device(x.device())
}

pub fn add(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    x + beside(x, y)?
}

pub fn subtract(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    x - beside(x, y)?
}

pub fn times(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    x * beside(x, y)?
}

/// Row by row, with `scale: [N, 1]`.
pub fn divide(x: &Tensor, scale: &Tensor) -> Result<Tensor> {
    x.broadcast_div(&beside(x, scale)?)
}

pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, factor: f32) -> Result<Tensor> {
    let mut y = beside(weight, x)?.contiguous()?.matmul(&weight.t()?)?;
    if let Some(bias) = bias {
        y = y.broadcast_add(bias)?;
    }
    if factor == 1.0 { Ok(y) } else { y * f64::from(factor) }
}

pub fn linear_vjp(terms: &[(&Tensor, &super::Weight, f32)]) -> Result<Tensor> {
    let mut sum: Option<Tensor> = None;
    for (dy, weight, factor) in terms {
        let weight = weight.tensor()?;
        let dx = (beside(weight, dy)?.contiguous()?.matmul(weight)? * f64::from(*factor))?;
        sum = Some(match sum {
            Some(sum) => add(&sum, &dx)?,
            None => dx,
        });
    }
    match sum {
        Some(sum) => Ok(sum),
        None => candle_core::bail!("a sum over no linear layers"),
    }
}

pub fn center(x: &Tensor) -> Result<Tensor> {
    x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)
}

pub fn root_mean_square(x: &Tensor, epsilon: f32) -> Result<Tensor> {
    (x.sqr()?.mean_keepdim(D::Minus1)? + f64::from(epsilon))?.sqrt()
}

pub fn affine(x: &Tensor, gain: Option<&Tensor>, bias: Option<&Tensor>) -> Result<Tensor> {
    let x = match gain {
        Some(gain) => beside(gain, x)?.broadcast_mul(gain)?,
        None => x.clone(),
    };
    match bias {
        Some(bias) => beside(bias, &x)?.broadcast_add(bias),
        None => Ok(x),
    }
}

pub fn scale_gradient(dy: &Tensor, x: &Tensor, scale: &Tensor) -> Result<Tensor> {
    times(dy, x)?.sum_keepdim(D::Minus1)?.neg()? / beside(dy, scale)?.sqr()?
}

pub fn normalize_vjp(
    dy: &Tensor,
    x: &Tensor,
    scale: &Tensor,
    d_scale: &Tensor,
    computed_scale: &Tensor,
) -> Result<Tensor> {
    let width = x.dim(D::Minus1)? as f64;
    let factor = (beside(dy, d_scale)? / (beside(dy, computed_scale)? * width)?)?;
    divide(dy, scale)? + beside(dy, x)?.broadcast_mul(&factor)?
}

/// `√(2/π)`
const GELU_FACTOR: f64 = 0.797_884_560_802_865_4;
const GELU_CUBE: f64 = 0.044_715;

pub fn activate(x: &Tensor, activation: Activation) -> Result<Tensor> {
    match activation {
        // candle's own `gelu` is this form, too, but not to the last digits on every device.
        Activation::GeluTanh => {
            let inner = ((x + (x.powf(3.0)? * GELU_CUBE)?)? * GELU_FACTOR)?;
            ((inner.tanh()? + 1.0)? * 0.5)? * x
        }
        Activation::Gelu => x.gelu_erf(),
        Activation::Silu => x.silu(),
        Activation::Relu => x.relu(),
    }
}

pub fn activation_derivative(x: &Tensor, activation: Activation) -> Result<Tensor> {
    match activation {
        Activation::GeluTanh => {
            let inner = ((x + (x.powf(3.0)? * GELU_CUBE)?)? * GELU_FACTOR)?;
            let tanh = inner.tanh()?;
            let slope = (((x.sqr()? * (3.0 * GELU_CUBE))? + 1.0)? * GELU_FACTOR)?;
            let through_tanh = ((1.0 - tanh.sqr()?)? * slope)?;
            ((tanh + 1.0)? * 0.5)? + ((x * 0.5)? * through_tanh)?
        }
        Activation::Gelu => {
            // Φ(x) + x φ(x)
            let distribution = (((x * std::f64::consts::FRAC_1_SQRT_2)?.erf()? + 1.0)? * 0.5)?;
            let density = ((x.sqr()? * -0.5)?.exp()? * (0.5 * GELU_FACTOR))?;
            distribution + (x * density)?
        }
        Activation::Silu => {
            let sigmoid = ((x.neg()?.exp()? + 1.0)?).recip()?;
            &sigmoid * ((x * (1.0 - &sigmoid)?)? + 1.0)?
        }
        Activation::Relu => x.gt(0.0)?.to_dtype(x.dtype()),
    }
}

/// `[N, G, E]` to `[H, N, E]`, each group as often as it has heads.
fn by_head(x: &Tensor, heads: usize) -> Result<Tensor> {
    let (n, groups, width) = x.dims3()?;
    let x = x.transpose(0, 1)?;
    if groups == heads {
        return x.contiguous();
    }
    let x = x.unsqueeze(1)?.expand((groups, heads / groups, n, width))?;
    x.reshape((heads, n, width))
}

pub fn head_products(a: &Tensor, b: &Tensor, hidden: Option<(Visible, f32)>) -> Result<Tensor> {
    let heads = a.dim(1)?;
    let all = by_head(a, heads)?.matmul(&by_head(&beside(a, b)?, heads)?.t()?.contiguous()?)?;
    match hidden {
        Some((visible, value)) => mask(&all, visible, value),
        None => Ok(all),
    }
}

pub fn head_mix(p: &Tensor, v: &Tensor) -> Result<Tensor> {
    let heads = p.dim(0)?;
    p.contiguous()?.matmul(&by_head(&beside(p, v)?, heads)?)?.transpose(0, 1)?.contiguous()
}

pub fn head_mix_transposed(p: &Tensor, x: &Tensor, groups: usize) -> Result<Tensor> {
    let (heads, _, keys) = p.dims3()?;
    let by_head = p.transpose(1, 2)?.contiguous()?.matmul(&by_head(&beside(p, x)?, heads)?)?;
    let width = by_head.dim(2)?;
    by_head.reshape((groups, heads / groups, keys, width))?.sum(1)?.transpose(0, 1)?.contiguous()
}

pub fn mask(x: &Tensor, visible: Visible, value: f32) -> Result<Tensor> {
    let Visible { queries, keys, .. } = visible;
    let seen: Vec<u8> = (0..queries)
        .flat_map(|query| {
            let range = visible.of(query);
            (0..keys).map(move |key| u8::from(range.contains(&key)))
        })
        .collect();
    let seen = Tensor::from_vec(seen, (1, queries, keys), x.device())?.expand(x.dims())?;
    let values = Tensor::new(value, x.device())?.to_dtype(x.dtype())?.expand(x.dims())?;
    seen.where_cond(x, &values)
}

pub fn exponentials(logits: &Tensor) -> Result<(Tensor, Tensor)> {
    let numerator = logits.broadcast_sub(&logits.max_keepdim(D::Minus1)?)?.exp()?;
    let sum = numerator.sum_keepdim(D::Minus1)?;
    Ok((numerator, sum))
}

pub fn softmax(logits: &Tensor) -> Result<Tensor> {
    let (numerator, sum) = exponentials(logits)?;
    numerator.broadcast_div(&sum)
}

pub fn softmax_vjp(probs: &Tensor, d_probs: &Tensor) -> Result<Tensor> {
    let d_probs = beside(probs, d_probs)?;
    let mean = (probs * &d_probs)?.sum_keepdim(D::Minus1)?;
    probs * d_probs.broadcast_sub(&mean)?
}

pub fn rotate(x: &Tensor, rotation: Rotation<'_>) -> Result<Tensor> {
    let (rows, _, width) = x.dims3()?;
    let (dims, half) = (rotation.rotary.dims, rotation.rotary.dims / 2);
    let (cos, sin) = rotation.cos_sin(rows);
    let table = |numbers| Tensor::from_vec(numbers, (rows, 1, half), x.device())?.to_dtype(x.dtype());
    let (cos, sin): (Tensor, Tensor) = (table(cos)?, table(sin)?);
    let (a, b) = (x.narrow(2, 0, half)?, x.narrow(2, half, half)?);
    let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
    let second = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
    if dims == width {
        return Tensor::cat(&[first, second], 2);
    }
    Tensor::cat(&[first, second, x.narrow(2, dims, width - dims)?], 2)
}
