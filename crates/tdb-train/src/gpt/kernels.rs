//! Each operation of the network, forward next to backward. `n` is the number of tokens of a batch; matrices are
//! `[n, width]`, row after row.

use tdb_model::kernels::{Threads, View, exp, matmul_into};

/// `out = keep * out + a b`, on this thread alone: the parts of a batch run side by side. `row_stride` is that of `out`.
pub(super) fn product(out: &mut [f32], row_stride: usize, keep: bool, a: View<'_>, b: View<'_>) {
    matmul_into(out, [row_stride, 1], a, b, keep, Threads::One);
}

/// `y = x w + b`, with `w: [inputs, outputs]` as GPT-2 stores it.
pub fn linear(y: &mut [f32], x: &[f32], w: &[f32], b: &[f32]) {
    let outputs = b.len();
    let inputs = w.len() / outputs;
    let n = y.len() / outputs;
    for row in y.chunks_exact_mut(outputs) {
        row.copy_from_slice(b);
    }
    product(y, outputs, true, View::new(x, n, inputs), View::new(w, inputs, outputs));
}

/// `dx = dy wᵀ` (or added to it, if `keep`), `dw += xᵀ dy`, `db += Σ dy`. `dwb` holds the gradient of the weight and
/// then that of the bias.
pub fn linear_backward(dx: &mut [f32], keep: bool, dwb: &mut [f32], dy: &[f32], x: &[f32], w: &[f32]) {
    let outputs = dwb.len() - w.len();
    let inputs = w.len() / outputs;
    let n = dy.len() / outputs;
    let (dw, db) = dwb.split_at_mut(w.len());
    product(dx, inputs, keep, View::new(dy, n, outputs), View::new(w, inputs, outputs).t());
    product(dw, outputs, true, View::new(x, n, inputs).t(), View::new(dy, n, outputs));
    for row in dy.chunks_exact(outputs) {
        for (sum, value) in db.iter_mut().zip(row) {
            *sum += value;
        }
    }
}

pub const LAYER_NORM_EPSILON: f32 = 1e-5;

/// `y = (x - mean) / sqrt(variance + 1e-5) * gain + bias`. `stats` keeps mean and reciprocal deviation of each row.
pub fn layer_norm(y: &mut [f32], stats: &mut [[f32; 2]], x: &[f32], gain: &[f32], bias: &[f32]) {
    let d = gain.len();
    for ((y, x), stats) in y.chunks_exact_mut(d).zip(x.chunks_exact(d)).zip(stats) {
        let mean = x.iter().sum::<f32>() / d as f32;
        let variance = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>() / d as f32;
        let scale = 1.0 / (variance + LAYER_NORM_EPSILON).sqrt();
        for i in 0..d {
            y[i] = (x[i] - mean) * scale * gain[i] + bias[i];
        }
        *stats = [mean, scale];
    }
}

/// `dx +=` the gradient of a layer norm's input; `dgb` holds the gradients of gain and bias.
pub fn layer_norm_backward(dx: &mut [f32], dgb: &mut [f32], dy: &[f32], x: &[f32], stats: &[[f32; 2]], gain: &[f32]) {
    let d = gain.len();
    let (dgain, dbias) = dgb.split_at_mut(d);
    let rows = dx.chunks_exact_mut(d).zip(dy.chunks_exact(d)).zip(x.chunks_exact(d)).zip(stats);
    for (((dx, dy), x), &[mean, scale]) in rows {
        let (mut sum, mut along) = (0.0f32, 0.0f32);
        for i in 0..d {
            let normed = (x[i] - mean) * scale;
            let g = dy[i] * gain[i];
            sum += g;
            along += g * normed;
            dgain[i] += dy[i] * normed;
            dbias[i] += dy[i];
        }
        let (sum, along) = (sum / d as f32, along / d as f32);
        for i in 0..d {
            let normed = (x[i] - mean) * scale;
            dx[i] += scale * (dy[i] * gain[i] - sum - normed * along);
        }
    }
}

/// GELU in its tanh form; `slope` becomes the derivative at each value.
pub fn gelu(y: &mut [f32], slope: &mut [f32], x: &[f32]) {
    const C: f32 = 0.797_884_6; // sqrt(2 / pi)
    for ((y, slope), &x) in y.iter_mut().zip(slope).zip(x) {
        let inner = C * (x + 0.044715 * x * x * x);
        let tanh = 1.0 - 2.0 / (exp(2.0 * inner) + 1.0);
        *y = 0.5 * x * (1.0 + tanh);
        *slope = 0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tanh * tanh) * C * (1.0 + 3.0 * 0.044715 * x * x);
    }
}

/// In place: `e^(row - max)` divided by its sum.
fn softmax(row: &mut [f32]) {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for value in row.iter_mut() {
        *value = exp(*value - max);
    }
    let scale = 1.0 / row.iter().sum::<f32>();
    for value in row.iter_mut() {
        *value *= scale;
    }
}

/// Causal attention of one sequence of `t` tokens and one head. `qkv` and `z` begin at the sequence's first row, in
/// the columns of this head's query and output; keys lie `d` columns further, values `2 d`. `probs: [t, t]` is kept for
/// the backward pass.
pub fn attention(z: &mut [f32], probs: &mut [f32], qkv: &[f32], t: usize, d: usize, d_head: usize) {
    let scale = 1.0 / (d_head as f32).sqrt();
    let part = |at: usize| View::strided(&qkv[at..], t, d_head, 3 * d, 1);
    product(probs, t, false, part(0), part(d).t());
    for (query, row) in probs.chunks_exact_mut(t).enumerate() {
        let (seen, unseen) = row.split_at_mut(query + 1);
        for score in seen.iter_mut() {
            *score *= scale;
        }
        softmax(seen);
        unseen.fill(0.0);
    }
    product(z, d, false, View::new(probs, t, t), part(2 * d));
}

/// Writes the gradients of this head's queries, keys and values into their columns of `dqkv`. `dprobs: [t, t]` is
/// scratch.
pub fn attention_backward(
    dqkv: &mut [f32],
    dprobs: &mut [f32],
    dz: &[f32],
    qkv: &[f32],
    probs: &[f32],
    t: usize,
    d: usize,
    d_head: usize,
) {
    let scale = 1.0 / (d_head as f32).sqrt();
    let part = |at: usize| View::strided(&qkv[at..], t, d_head, 3 * d, 1);
    let dz = View::strided(dz, t, d_head, d, 1);
    let probabilities = View::new(probs, t, t);
    product(dprobs, t, false, dz, part(2 * d).t());
    for (query, (drow, row)) in dprobs.chunks_exact_mut(t).zip(probs.chunks_exact(t)).enumerate() {
        let seen = ..query + 1;
        let mean: f32 = drow[seen].iter().zip(&row[seen]).map(|(d, p)| d * p).sum();
        for (d, p) in drow[seen].iter_mut().zip(&row[seen]) {
            *d = scale * p * (*d - mean);
        }
        drow[query + 1..].fill(0.0);
    }
    let dscores = View::new(dprobs, t, t);
    product(dqkv, 3 * d, false, dscores, part(d));
    product(&mut dqkv[d..], 3 * d, false, dscores.t(), part(0));
    product(&mut dqkv[2 * d..], 3 * d, false, probabilities.t(), dz);
}

/// Turns logits `[n, vocabulary]` into the gradient of `weight` times the summed cross-entropy, and returns that sum
/// (without `weight`). Rows whose target is [`IGNORED`] count nothing.
pub fn cross_entropy(logits: &mut [f32], targets: &[u32], weight: f32) -> f64 {
    let vocabulary = logits.len() / targets.len().max(1);
    let mut loss = 0.0f64;
    for (row, &target) in logits.chunks_exact_mut(vocabulary.max(1)).zip(targets) {
        if target == IGNORED {
            row.fill(0.0);
            continue;
        }
        let target = target as usize;
        softmax(row);
        loss -= f64::from(row[target].max(f32::MIN_POSITIVE)).ln();
        row[target] -= 1.0;
        for value in row.iter_mut() {
            *value *= weight;
        }
    }
    loss
}

/// The target of a token after which nothing is asked.
pub const IGNORED: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gelu_and_its_slope() {
        let x: Vec<f32> = (-60..60).map(|i| i as f32 * 0.1).collect();
        let (mut y, mut slope) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        gelu(&mut y, &mut slope, &x);
        let exact =
            |x: f64| 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh());
        for (i, &x) in x.iter().enumerate() {
            let x = f64::from(x);
            assert!((f64::from(y[i]) - exact(x)).abs() < 1e-6, "{x}");
            let rise = (exact(x + 1e-5) - exact(x - 1e-5)) / 2e-5;
            assert!((f64::from(slope[i]) - rise).abs() < 1e-5, "{x}");
        }
    }

    #[test]
    fn ignored_targets_count_nothing() {
        let mut logits = vec![1.0, 2.0, 3.0, 4.0];
        let loss = cross_entropy(&mut logits, &[1, IGNORED], 0.5);
        assert!((loss - (1.0 + (-1.0f64).exp()).ln() + 0.0).abs() < 1e-6);
        assert_eq!(logits[2..], [0.0, 0.0]);
        assert!((logits[0] + logits[1]).abs() < 1e-6 && logits[1] < 0.0);
    }
}
