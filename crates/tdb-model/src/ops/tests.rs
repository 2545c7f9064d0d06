//! The fast operations against the plain compositions that define them, over shapes and strides.

use candle_core::{Device, Result, Tensor};

use super::{Ops, Rotation, Vector, Visible, Weight};
use crate::config::{Activation, Rotary, RotaryScaling};
use crate::matrix::Matrix;
use crate::numbers::Numbers;

fn numbers(len: usize, seed: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7919 + seed * 104_729 + 17) % 1009) as f32 / 404.5 - 1.25).collect()
}

fn tensor(dims: &[usize], seed: usize) -> Result<Tensor> {
    Tensor::from_vec(numbers(dims.iter().product(), seed), dims, &Device::Cpu)
}

/// The same numbers in every layout that a caller may have.
fn layouts(x: &Tensor) -> Result<Vec<Tensor>> {
    let last = x.rank() - 1;
    Ok(vec![
        x.clone(),
        x.transpose(0, last)?.contiguous()?.transpose(0, last)?,
        Tensor::cat(&[x, x], last)?.narrow(last, 0, x.dim(last)?)?,
        Tensor::cat(&[x, x], 0)?.narrow(0, x.dim(0)?, x.dim(0)?)?,
    ])
}

fn same(what: &str, f: impl Fn(Ops) -> Result<Tensor>) -> Result<()> {
    let (fast, plain) = (f(Ops::Fast)?, f(Ops::Plain)?);
    assert_eq!(fast.dims(), plain.dims(), "{what}");
    let (fast, plain) = (Numbers::of(&fast)?.to_row_major(), Numbers::of(&plain)?.to_row_major());
    let largest = plain.iter().filter(|x| x.is_finite()).fold(0.1f32, |a, b| a.max(b.abs()));
    for (i, (fast, plain)) in fast.iter().zip(&plain).enumerate() {
        let close = fast == plain || (fast - plain).abs() <= 1e-5 * largest;
        assert!(close, "{what}: element {i} is {fast}, expected {plain} (largest {largest})");
    }
    Ok(())
}

const ACTIVATIONS: [Activation; 4] = [Activation::GeluTanh, Activation::Gelu, Activation::Silu, Activation::Relu];

#[test]
fn linear_layers() -> Result<()> {
    let device = Device::Cpu;
    for (n, inputs, outputs) in [(1, 1, 1), (1, 40, 7), (5, 129, 50), (16, 64, 96), (70, 33, 13)] {
        let numbers = numbers(outputs * inputs, 1);
        let weights = [
            Matrix::from_vec(outputs, inputs, numbers.clone()),
            Matrix::from_vec(inputs, outputs, numbers).transpose(),
        ];
        for weight in weights.map(|matrix| Weight::new(matrix, &device)) {
            let bias = Vector::new(tensor(&[outputs], 2)?.to_vec1()?, &device);
            for x in layouts(&tensor(&[n, inputs], 3)?)? {
                for (bias, factor) in [(None, 1.0), (Some(&bias), 1.0), (Some(&bias), 0.3)] {
                    same("linear", |ops| ops.linear(&x, &weight, bias, factor))?;
                }
            }
            for dy in layouts(&tensor(&[n, outputs], 4)?)? {
                same("linear_vjp", |ops| ops.linear_vjp(&[(&dy, &weight, 1.0)]))?;
                // Rows of zeros at both ends.
                let dy = Tensor::cat(&[dy.zeros_like()?, dy.clone(), dy.zeros_like()?], 0)?;
                let terms = [(&dy, &weight, 1.0), (&dy, &weight, -0.4), (&dy, &weight, 2.0)];
                same("linear_vjp of three", |ops| ops.linear_vjp(&terms))?;
            }
        }
    }
    Ok(())
}

#[test]
fn norms_and_nonlinearities() -> Result<()> {
    for (n, width) in [(1, 1), (1, 40), (5, 129), (16, 64), (300, 70)] {
        let (gain, bias) = (numbers(width, 1), numbers(width, 2));
        let (gain, bias) = (Vector::new(gain, &Device::Cpu), Vector::new(bias, &Device::Cpu));
        let scale = (tensor(&[n, 1], 5)?.abs()? + 0.5)?;
        let (d_scale, computed) = (tensor(&[n, 1], 6)?, (&scale + 0.25)?);
        let y = tensor(&[n, width], 8)?;
        for x in layouts(&tensor(&[n, width], 7)?)? {
            same("center", |ops| ops.center(&x))?;
            same("root_mean_square", |ops| ops.root_mean_square(&x, 1e-5))?;
            for (gain, bias) in [(None, None), (Some(&gain), None), (None, Some(&bias)), (Some(&gain), Some(&bias))] {
                same("normalize", |ops| ops.normalize(&x, &scale, gain, bias))?;
                same("affine", |ops| ops.affine(&x, gain, bias))?;
            }
            same("scale_gradient", |ops| ops.scale_gradient(&y, &x, &scale))?;
            same("normalize_vjp", |ops| ops.normalize_vjp(&y, &x, &scale, &d_scale, &computed))?;
            for activation in ACTIVATIONS {
                same("activate", |ops| ops.activate(&x, activation))?;
                same("activate_vjp", |ops| ops.activate_vjp(&y, &x, activation))?;
            }
            same("add", |ops| ops.add(&x, &y))?;
            same("subtract", |ops| ops.subtract(&x, &y))?;
            same("times", |ops| ops.times(&x, &y))?;
            same("sum_last", |ops| ops.sum_last(&x))?;
            same("dot_last", |ops| ops.dot_last(&x, &y))?;
            same("sum_first", |ops| ops.sum_first(&x))?;
        }
    }
    Ok(())
}

#[test]
fn attention() -> Result<()> {
    for (queries, keys, heads, groups, width) in [(1, 1, 1, 1, 1), (5, 5, 3, 3, 8), (2, 7, 4, 2, 6), (17, 17, 6, 1, 10)]
    {
        for window in [None, Some(1), Some(3), Some(100)] {
            let visible = Visible { queries, keys, window };
            let (k, d_out) = (tensor(&[keys, groups, width], 2)?, tensor(&[queries, heads, width], 3)?);
            for q in layouts(&tensor(&[queries, heads, width], 1)?)? {
                same("head_products", |ops| ops.head_products(&q, &k, None))?;
                same("hidden", |ops| ops.head_products(&q, &k, Some((visible, f32::NEG_INFINITY))))?;
                same("exponentials", |ops| {
                    let (numerator, sum) = ops.exponentials(&ops.head_products(&q, &k, None)?)?;
                    numerator.broadcast_div(&sum)
                })?;
                let probs = |ops: Ops| {
                    let logits = ops.head_products(&q, &k, Some((visible, f32::NEG_INFINITY)))?;
                    ops.softmax(&logits, Some(visible))
                };
                same("softmax", probs)?;
                same("head_mix", |ops| ops.head_mix(&probs(ops)?, &k))?;
                same("head_mix_transposed", |ops| ops.head_mix_transposed(&probs(ops)?, &d_out, groups))?;
                same("softmax_vjp", |ops| ops.softmax_vjp(&probs(ops)?, &ops.head_products(&d_out, &k, None)?))?;
            }
        }
    }
    Ok(())
}

#[test]
fn rotations_turn_and_turn_back() -> Result<()> {
    let scalings = [
        RotaryScaling::None,
        RotaryScaling::Linear { factor: 2.0 },
        RotaryScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 32 },
        RotaryScaling::Yarn {
            factor: 4.0,
            beta_fast: 4.0,
            beta_slow: 1.0,
            original_context: 32,
            truncate: true,
            amplitude: 1.25,
        },
    ];
    for (dims, scaling) in [4, 10].into_iter().flat_map(|dims| scalings.map(|scaling| (dims, scaling))) {
        let rotary = Rotary { dims, base: 100.0, scaling };
        for first in [0, 3] {
            let rotation = Rotation { rotary: &rotary, first, inverse: false };
            for x in layouts(&tensor(&[6, 3, 10], 1)?)? {
                same("rotate", |ops| ops.rotate(&x, rotation))?;
                let back = |ops: Ops| ops.rotate(&ops.rotate(&x, rotation)?, Rotation { inverse: true, ..rotation });
                let grown = |i| if i < dims { scaling.amplitude().powi(2) } else { 1.0 };
                let grown = Tensor::from_vec((0..10).map(grown).collect::<Vec<f32>>(), 10, x.device())?;
                let (turned, x) = (back(Ops::Fast)?, x.contiguous()?.broadcast_mul(&grown)?);
                let difference = (turned - x)?.abs()?.max_all()?.to_scalar::<f32>()?;
                assert!(difference < 1e-6, "{difference}");
            }
        }
    }
    Ok(())
}

#[test]
fn derivatives_are_slopes() {
    for activation in ACTIVATIONS {
        for x in (-500..500).map(|i| (i as f32 + 0.5) / 100.0) {
            let slope = (activation.value(x + 0.004) - activation.value(x - 0.004)) / 0.008;
            assert!((slope - activation.derivative(x)).abs() < 1e-3, "{activation:?} at {x}");
        }
    }
}
