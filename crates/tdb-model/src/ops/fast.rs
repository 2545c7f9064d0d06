//! Every operation as a candle custom operation for f32 on the CPU. Weights are read where they lie; the same call
//! gives the same bits whatever the number of threads.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail};

use super::products::{Threads, View, add_times, matmul_into, nonzero_rows, times_transposed};
use super::rows::{self, for_each_row};
use super::{Rotation, Visible, Weight, wide};
use crate::config::Activation;
use crate::matrix::Matrix;
use crate::parallel;

/// What an operation gives: numbers, and their dimensions.
type Made = Result<(Vec<f32>, Vec<usize>)>;
/// An operand: its numbers row-major, and its dimensions.
type Operand<'a> = (&'a [f32], &'a [usize]);

/// A custom operation without a gradient of its own: the backward pass calls operations, too.
struct Op<F>(&'static str, F);

fn operand<'a>(storage: &'a CpuStorage, layout: &'a Layout) -> Result<Operand<'a>> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(numbers), Some((start, end))) => Ok((&numbers[start..end], layout.dims())),
        (CpuStorage::F32(_), None) => bail!("an operand is not contiguous"),
        _ => bail!("the fast operations are for tensors of type f32"),
    }
}

fn made((numbers, dims): (Vec<f32>, Vec<usize>)) -> (CpuStorage, Shape) {
    (CpuStorage::F32(numbers), Shape::from(dims))
}

impl<F: Fn(Operand<'_>) -> Made> CustomOp1 for Op<F> {
    fn name(&self) -> &'static str {
        self.0
    }

    fn cpu_fwd(&self, a: &CpuStorage, a_layout: &Layout) -> Result<(CpuStorage, Shape)> {
        (self.1)(operand(a, a_layout)?).map(made)
    }
}

impl<F: Fn(Operand<'_>, Operand<'_>) -> Made> CustomOp2 for Op<F> {
    fn name(&self) -> &'static str {
        self.0
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        (self.1)(operand(a, a_layout)?, operand(b, b_layout)?).map(made)
    }
}

impl<F: Fn([Operand<'_>; 3]) -> Made> CustomOp3 for Op<F> {
    fn name(&self) -> &'static str {
        self.0
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
        c: &CpuStorage,
        c_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        (self.1)([operand(a, a_layout)?, operand(b, b_layout)?, operand(c, c_layout)?]).map(made)
    }
}

fn unary(name: &'static str, a: &Tensor, f: impl Fn(Operand<'_>) -> Made) -> Result<Tensor> {
    a.contiguous()?.apply_op1_no_bwd(&Op(name, f))
}

fn binary(name: &'static str, a: &Tensor, b: &Tensor, f: impl Fn(Operand<'_>, Operand<'_>) -> Made) -> Result<Tensor> {
    a.contiguous()?.apply_op2_no_bwd(&b.contiguous()?, &Op(name, f))
}

fn ternary(name: &'static str, [a, b, c]: [&Tensor; 3], f: impl Fn([Operand<'_>; 3]) -> Made) -> Result<Tensor> {
    a.contiguous()?.apply_op3_no_bwd(&b.contiguous()?, &c.contiguous()?, &Op(name, f))
}

fn width_of(dims: &[usize]) -> usize {
    dims.last().copied().unwrap_or(1).max(1)
}

fn as_matrix<'a>((numbers, dims): Operand<'a>) -> View<'a> {
    let width = width_of(dims);
    View::new(numbers, numbers.len() / width, width)
}

pub fn linear(x: &Tensor, weight: &Matrix, bias: Option<&[f32]>, factor: f32) -> Result<Tensor> {
    unary("linear", x, |x| {
        let (x, n) = (as_matrix(x), weight.rows());
        if x.cols != weight.cols() {
            bail!("a linear layer of {} inputs was given rows of {}", weight.cols(), x.cols);
        }
        let mut out = match bias {
            Some(bias) => bias.repeat(x.rows),
            None => vec![0.0; x.rows * n],
        };
        times_transposed(&mut out, x, weight, bias.is_some(), Threads::All);
        if factor != 1.0 {
            rows::scale(&mut out, factor);
        }
        Ok((out, vec![x.rows, n]))
    })
}

/// `out += f dy W`. Rows of zeros before the first and after the last other one cost nothing: where the objective
/// stands at one token, most gradients of the last layer are such, and so are those of all later tokens.
fn add_linear_vjp(out: &mut [f32], dy: View<'_>, weight: &Matrix, factor: f32) {
    let n = weight.cols();
    let rows = nonzero_rows(dy);
    let out = &mut out[rows.start * n..rows.end * n];
    let dy = View { data: &dy.data[rows.start * dy.row_stride..], rows: rows.len(), ..dy };
    if factor == 1.0 {
        return add_times(out, dy, weight, Threads::All);
    }
    let mut scaled = dy.data[..dy.rows * dy.cols].to_vec();
    rows::scale(&mut scaled, factor);
    add_times(out, View::new(&scaled, dy.rows, dy.cols), weight, Threads::All);
}

pub fn linear_vjp(terms: &[(&Tensor, &Weight, f32)]) -> Result<Tensor> {
    let run = |operands: &[Operand<'_>]| {
        let inputs = terms[0].1.matrix().cols();
        let rows = as_matrix(operands[0]).rows;
        let mut out = vec![0.0; rows * inputs];
        for (dy, (_, weight, factor)) in operands.iter().zip(terms) {
            let dy = as_matrix(*dy);
            if dy.cols != weight.matrix().rows() || dy.rows != rows {
                bail!("a gradient of rows of {} cannot come from {} outputs", dy.cols, weight.matrix().rows());
            }
            add_linear_vjp(&mut out, dy, weight.matrix(), *factor);
        }
        Ok((out, vec![rows, inputs]))
    };
    match terms {
        [(a, ..)] => unary("linear_vjp", a, |a| run(&[a])),
        [(a, ..), (b, ..)] => binary("linear_vjp", a, b, |a, b| run(&[a, b])),
        [(a, ..), (b, ..), (c, ..)] => ternary("linear_vjp", [a, b, c], |operands| run(&operands)),
        _ => bail!("one to three linear layers are summed, not {}", terms.len()),
    }
}

pub fn center(x: &Tensor) -> Result<Tensor> {
    unary("center", x, |(x, dims)| {
        let width = width_of(dims);
        let mut out = vec![0.0; x.len()];
        for_each_row(&mut out, width, |t, row| rows::center_into(row, &x[t * width..][..width]));
        Ok((out, dims.to_vec()))
    })
}

pub fn root_mean_square(x: &Tensor, epsilon: f32) -> Result<Tensor> {
    unary("root_mean_square", x, |(x, dims)| {
        let out: Vec<f32> = x.chunks_exact(width_of(dims)).map(|row| rows::root_mean_square(row, epsilon)).collect();
        let n = out.len();
        Ok((out, vec![n, 1]))
    })
}

pub fn normalize(x: &Tensor, scale: &Tensor, gain: Option<&[f32]>, bias: Option<&[f32]>) -> Result<Tensor> {
    binary("normalize", x, scale, |(x, dims), (scale, _)| {
        let width = width_of(dims);
        let mut out = vec![0.0; x.len()];
        for_each_row(&mut out, width, |t, row| {
            let divisor = scale[t];
            row.iter_mut().zip(&x[t * width..]).for_each(|(out, x)| *out = x / divisor);
            affine_row(row, gain, bias);
        });
        Ok((out, dims.to_vec()))
    })
}

#[inline(always)]
fn affine_row(row: &mut [f32], gain: Option<&[f32]>, bias: Option<&[f32]>) {
    match (gain, bias) {
        (Some(gain), Some(bias)) => {
            row.iter_mut().zip(gain).zip(bias).for_each(|((x, gain), bias)| *x = *x * gain + bias);
        }
        (Some(gain), None) => row.iter_mut().zip(gain).for_each(|(x, gain)| *x *= gain),
        (None, Some(bias)) => row.iter_mut().zip(bias).for_each(|(x, bias)| *x += bias),
        (None, None) => {}
    }
}

pub fn affine(x: &Tensor, gain: Option<&[f32]>, bias: Option<&[f32]>) -> Result<Tensor> {
    unary("affine", x, |(x, dims)| {
        let mut out = x.to_vec();
        for_each_row(&mut out, width_of(dims), |_, row| affine_row(row, gain, bias));
        Ok((out, dims.to_vec()))
    })
}

pub fn scale_gradient(dy: &Tensor, x: &Tensor, scale: &Tensor) -> Result<Tensor> {
    ternary("scale_gradient", [dy, x, scale], |[(dy, dims), (x, _), (scale, _)]| {
        let width = width_of(dims);
        let along = dy.chunks_exact(width).zip(x.chunks_exact(width)).map(|(dy, x)| rows::dot(dy, x));
        let out: Vec<f32> = along.zip(scale).map(|(along, scale)| -along / (scale * scale)).collect();
        let n = out.len();
        Ok((out, vec![n, 1]))
    })
}

pub fn normalize_vjp(
    dy: &Tensor,
    x: &Tensor,
    scale: &Tensor,
    d_scale: &Tensor,
    computed_scale: &Tensor,
) -> Result<Tensor> {
    let scales = Tensor::cat(&[scale, d_scale, computed_scale], 1)?;
    ternary("normalize_vjp", [dy, x, &scales], |[(dy, dims), (x, _), (scales, _)]| {
        let width = width_of(dims);
        let mut out = dy.to_vec();
        for_each_row(&mut out, width, |t, row| {
            let [divisor, d_scale, computed] = [scales[3 * t], scales[3 * t + 1], scales[3 * t + 2]];
            let factor = d_scale / (width as f32 * computed);
            row.iter_mut().zip(&x[t * width..]).for_each(|(d, x)| *d = *d / divisor + factor * x);
        });
        Ok((out, dims.to_vec()))
    })
}

pub fn activate(x: &Tensor, activation: Activation) -> Result<Tensor> {
    unary("activate", x, |(x, dims)| {
        let out = match activation {
            Activation::GeluTanh => rows::map(x, rows::gelu),
            other => rows::map(x, |x| other.value(x)),
        };
        Ok((out, dims.to_vec()))
    })
}

pub fn activate_vjp(dy: &Tensor, x: &Tensor, activation: Activation) -> Result<Tensor> {
    binary("activate_vjp", dy, x, |(dy, dims), (x, _)| {
        let width = width_of(dims);
        let rows = nonzero_rows(View::new(dy, dy.len() / width, width));
        let range = rows.start * width..rows.end * width;
        let mut out = dy.to_vec();
        let (grad, x) = (&mut out[range.clone()], &x[range]);
        match activation {
            Activation::GeluTanh => rows::zip_into(grad, x, |d, x| d * rows::gelu_derivative(x)),
            other => rows::zip_into(grad, x, |d, x| d * other.derivative(x)),
        }
        Ok((out, dims.to_vec()))
    })
}

/// `f(a, b)` number by number.
pub fn zip(name: &'static str, a: &Tensor, b: &Tensor, f: impl Fn(f32, f32) -> f32 + Sync) -> Result<Tensor> {
    if a.dims() != b.dims() {
        bail!("{name}: tensors of dimensions {:?} and {:?}", a.dims(), b.dims());
    }
    binary(name, a, b, |(a, dims), (b, _)| {
        let mut out = a.to_vec();
        rows::zip_into(&mut out, b, &f);
        Ok((out, dims.to_vec()))
    })
}

/// `f(row)` for every row along the last dimension, which goes.
fn of_rows(numbers: &[f32], dims: &[usize], f: impl Fn(usize, &[f32]) -> f32 + Sync) -> Made {
    // Few enough numbers for a part of a thread's work, as for_each_row cuts it.
    const PART: usize = 1 << 10;
    let Some((&width, kept)) = dims.split_last() else { bail!("a number has no last dimension") };
    let mut out = vec![0.0; kept.iter().product()];
    if width > 0 {
        for_each_row(&mut out, PART, |part, out| {
            let rows = numbers[part * PART * width..].chunks_exact(width);
            out.iter_mut().zip(rows).enumerate().for_each(|(i, (out, row))| *out = f(part * PART + i, row));
        });
    }
    Ok((out, kept.to_vec()))
}

pub fn sum_last(x: &Tensor) -> Result<Tensor> {
    unary("sum_last", x, |(x, dims)| of_rows(x, dims, |_, row| rows::sum(row)))
}

pub fn dot_last(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    if x.dims() != y.dims() {
        bail!("dot_last: tensors of dimensions {:?} and {:?}", x.dims(), y.dims());
    }
    binary("dot_last", x, y, |(x, dims), (y, _)| {
        let width = width_of(dims);
        of_rows(x, dims, |i, row| rows::dot_inline(row, &y[i * width..][..width]))
    })
}

pub fn sum_first(x: &Tensor) -> Result<Tensor> {
    unary("sum_first", x, |(x, dims)| {
        let Some((&count, kept)) = dims.split_first() else { bail!("a number has no first dimension") };
        let len = kept.iter().product();
        let mut out = vec![0.0; len];
        for x in x.chunks_exact(len.max(1)).take(count) {
            rows::zip_into(&mut out, x, |sum, x| sum + x);
        }
        Ok((out, kept.to_vec()))
    })
}

/// The `[N, E]` view of one head in `[N, H, E]`.
fn head_view<'a>((numbers, dims): Operand<'a>, head: usize) -> View<'a> {
    let (n, heads, width) = (dims[0], dims[1], dims[2]);
    View::strided(&numbers[(head * width).min(numbers.len())..], n, width, heads * width, 1)
}

/// The `[Q, K]` view of one head in `[H, Q, K]`.
fn pairs_view<'a>((numbers, dims): Operand<'a>, head: usize) -> View<'a> {
    let (queries, keys) = (dims[1], dims[2]);
    View::new(&numbers[head * queries * keys..][..queries * keys], queries, keys)
}

pub fn head_products(a: &Tensor, b: &Tensor, hidden: Option<(Visible, f32)>) -> Result<Tensor> {
    binary("head_products", a, b, |a, b| {
        let (queries, heads, keys, groups) = (a.1[0], a.1[1], b.1[0], b.1[1]);
        let mut out = vec![0.0; heads * queries * keys];
        parallel::each_chunk(&mut out, (queries * keys).max(1), &|head, out| {
            let group = head / (heads / groups);
            matmul_into(out, [keys, 1], head_view(a, head), head_view(b, group).t(), false, Threads::One);
            if let Some((visible, value)) = hidden {
                for (query, row) in out.chunks_exact_mut(keys.max(1)).enumerate() {
                    let seen = visible.of(query);
                    row[..seen.start].fill(value);
                    row[seen.end..].fill(value);
                }
            }
        });
        Ok((out, vec![heads, queries, keys]))
    })
}

/// Puts `[N, E]` of every head, computed in parallel by `f(head, out)`, side by side into `[N, H, E]`.
fn side_by_side(n: usize, heads: usize, width: usize, f: impl Fn(usize, &mut [f32]) + Sync) -> Vec<f32> {
    let parts: Vec<Vec<f32>> = parallel::map(heads, |head| {
        let mut out = vec![0.0; n * width];
        f(head, &mut out);
        out
    });
    let mut out = vec![0.0; n * heads * width];
    for (head, part) in parts.iter().enumerate() {
        for (i, row) in part.chunks_exact(width).enumerate() {
            out[(i * heads + head) * width..][..width].copy_from_slice(row);
        }
    }
    out
}

pub fn head_mix(p: &Tensor, v: &Tensor) -> Result<Tensor> {
    binary("head_mix", p, v, |p, v| {
        let (heads, queries, groups, width) = (p.1[0], p.1[1], v.1[1], v.1[2]);
        let out = side_by_side(queries, heads, width, |head, out| {
            let group = head / (heads / groups);
            matmul_into(out, [width, 1], pairs_view(p, head), head_view(v, group), false, Threads::One);
        });
        Ok((out, vec![queries, heads, width]))
    })
}

pub fn head_mix_transposed(p: &Tensor, x: &Tensor, groups: usize) -> Result<Tensor> {
    binary("head_mix_transposed", p, x, |p, x| {
        let (heads, keys, width) = (p.1[0], p.1[2], x.1[2]);
        let shared = heads / groups;
        let out = side_by_side(keys, groups, width, |group, out| {
            for head in group * shared..(group + 1) * shared {
                let accumulate = head > group * shared;
                matmul_into(out, [width, 1], pairs_view(p, head).t(), head_view(x, head), accumulate, Threads::One);
            }
        });
        Ok((out, vec![keys, groups, width]))
    })
}

pub fn softmax(logits: &Tensor, visible: Option<Visible>) -> Result<Tensor> {
    unary("softmax", logits, |(x, dims)| {
        let (queries, keys) = (dims[1].max(1), dims[2]);
        let mut out = vec![0.0; x.len()];
        for_each_row(&mut out, keys, |row, probs| {
            let seen = visible.map_or(0..keys, |visible| visible.of(row % queries));
            rows::softmax_into(&mut probs[seen.clone()], &x[row * keys..][seen]);
        });
        Ok((out, dims.to_vec()))
    })
}

pub fn softmax_vjp(probs: &Tensor, d_probs: &Tensor) -> Result<Tensor> {
    binary("softmax_vjp", probs, d_probs, |(probs, dims), (d_probs, _)| {
        let keys = width_of(dims);
        let mut out = d_probs.to_vec();
        for_each_row(&mut out, keys, |row, grad| {
            let probs = &probs[row * keys..][..keys];
            let mean = rows::dot(grad, probs);
            grad.iter_mut().zip(probs).for_each(|(grad, p)| *grad = p * (*grad - mean));
        });
        Ok((out, dims.to_vec()))
    })
}

pub fn exponentials(logits: &Tensor) -> Result<(Tensor, Tensor)> {
    let numerator = unary("exponentials", logits, |(x, dims)| {
        let keys = width_of(dims);
        let mut out = vec![0.0; x.len()];
        for_each_row(&mut out, keys, |row, out| {
            rows::exp_of_row(out, &x[row * keys..][..keys]);
        });
        Ok((out, dims.to_vec()))
    })?;
    let sum = unary("row_sums", &numerator, |(x, dims)| {
        let sums = x.chunks_exact(width_of(dims)).map(|row| wide(|| rows::sum(row))).collect();
        Ok((sums, vec![dims[0], dims[1], 1]))
    })?;
    Ok((numerator, sum))
}

pub fn rotate(x: &Tensor, rotation: Rotation<'_>) -> Result<Tensor> {
    unary("rotate", x, |(x, dims)| {
        let (n, heads, width) = (dims[0], dims[1], dims[2]);
        let half = rotation.rotary.dims / 2;
        let (cos, sin) = rotation.cos_sin(n);
        let mut out = x.to_vec();
        for (i, head) in out.chunks_exact_mut(width).enumerate() {
            let row = i / heads;
            for pair in 0..half {
                let (cos, sin) = (cos[row * half + pair], sin[row * half + pair]);
                let (a, b) = (head[pair], head[pair + half]);
                (head[pair], head[pair + half]) = (a * cos - b * sin, b * cos + a * sin);
            }
        }
        Ok((out, dims.to_vec()))
    })
}
