//! The training pass written out by hand, against the same network in candle with its autodiff.

#![allow(clippy::unwrap_used)] // functions that tests call, too

use std::collections::HashMap;

use candle_core::{D, DType, Device, Tensor, Var};
use tdb_train::dice::Dice;
use tdb_train::gpt::{Batch, Layout, Pass, Shape};

const SHAPE: Shape = Shape { n_layers: 2, d_model: 24, n_heads: 3, d_ff: 40, context: 16, vocabulary: 50 };

struct Reference {
    tensors: HashMap<String, Var>,
}

impl Reference {
    fn new(layout: &Layout, parameters: &[f32]) -> Self {
        let tensors = layout
            .tensors
            .iter()
            .map(|tensor| {
                let values = parameters[tensor.at.clone()].to_vec();
                let var = Var::from_vec(values, tensor.dims.clone(), &Device::Cpu).unwrap();
                (tensor.name.trim_start_matches("transformer.").to_owned(), var)
            })
            .collect();
        Self { tensors }
    }

    fn get(&self, name: &str) -> &Tensor {
        self.tensors[name].as_tensor()
    }

    fn affine(&self, x: &Tensor, name: &str) -> Tensor {
        let (w, b) = (self.get(&format!("{name}.weight")), self.get(&format!("{name}.bias")));
        x.matmul(w).unwrap().broadcast_add(b).unwrap()
    }

    fn norm(&self, x: &Tensor, name: &str) -> Tensor {
        let (w, b) = (self.get(&format!("{name}.weight")), self.get(&format!("{name}.bias")));
        let x = x.broadcast_sub(&x.mean_keepdim(D::Minus1).unwrap()).unwrap();
        let variance = x.sqr().unwrap().mean_keepdim(D::Minus1).unwrap();
        let x = x.broadcast_div(&(variance + 1e-5).unwrap().sqrt().unwrap()).unwrap();
        x.broadcast_mul(w).unwrap().broadcast_add(b).unwrap()
    }

    fn logits(&self, tokens: &[u32]) -> Tensor {
        let t = tokens.len();
        let (d, heads, d_head) = (SHAPE.d_model, SHAPE.n_heads, SHAPE.d_head());
        let tokens = Tensor::new(tokens, &Device::Cpu).unwrap();
        let positions = self.get("wpe.weight").narrow(0, 0, t).unwrap();
        let mut x = (self.get("wte.weight").index_select(&tokens, 0).unwrap() + positions).unwrap();
        let mask: Vec<f32> = (0..t * t).map(|i| if i % t > i / t { f32::NEG_INFINITY } else { 0.0 }).collect();
        let mask = Tensor::from_vec(mask, (t, t), &Device::Cpu).unwrap();
        for layer in 0..SHAPE.n_layers {
            let qkv = self.affine(&self.norm(&x, &format!("h.{layer}.ln_1")), &format!("h.{layer}.attn.c_attn"));
            let mut z = Vec::new();
            for head in 0..heads {
                let part =
                    |which: usize| qkv.narrow(1, which * d + head * d_head, d_head).unwrap().contiguous().unwrap();
                let scores = part(0).matmul(&part(1).t().unwrap().contiguous().unwrap()).unwrap();
                let scores = ((scores / (d_head as f64).sqrt()).unwrap() + &mask).unwrap();
                let probs = candle_nn::ops::softmax(&scores, D::Minus1).unwrap();
                z.push(probs.matmul(&part(2)).unwrap());
            }
            let z = Tensor::cat(&z, 1).unwrap();
            x = (x + self.affine(&z, &format!("h.{layer}.attn.c_proj"))).unwrap();
            let hidden = self.affine(&self.norm(&x, &format!("h.{layer}.ln_2")), &format!("h.{layer}.mlp.c_fc"));
            x = (x + self.affine(&hidden.gelu().unwrap(), &format!("h.{layer}.mlp.c_proj"))).unwrap();
        }
        self.norm(&x, "ln_f").matmul(&self.get("wte.weight").t().unwrap()).unwrap()
    }
}

#[test]
fn logits_loss_and_every_gradient_agree_with_candle() {
    let layout = Layout::new(SHAPE);
    let mut dice = Dice::new(&[3]);
    let mut parameters = layout.initial(3);
    for parameter in &mut parameters {
        // Away from the start, where biases are 0 and attention is flat.
        *parameter += 0.15 * dice.normal();
    }
    let texts: Vec<Vec<u32>> =
        [16, 5, 1, 9].iter().map(|&t| (0..t).map(|_| dice.below(SHAPE.vocabulary) as u32).collect()).collect();
    let ends = [None, Some(7), Some(3), None];
    let mut batch = Batch::default();
    for (text, end) in texts.iter().zip(ends) {
        batch.push(text, end);
    }
    assert_eq!(batch.asked(), 15 + 5 + 1 + 8);

    let reference = Reference::new(&layout, &parameters);
    let mut pass = Pass::default();
    let logits = pass.forward(&layout, &parameters, &batch).to_vec();
    let (mut row, mut losses) = (0, Vec::new());
    for (text, end) in texts.iter().zip(ends) {
        let expected = reference.logits(text);
        for (index, line) in expected.to_vec2::<f32>().unwrap().iter().enumerate() {
            for (a, b) in logits[(row + index) * SHAPE.vocabulary..].iter().zip(line) {
                assert!((a - b).abs() < 1e-4 + 1e-4 * b.abs(), "{a} {b}");
            }
        }
        let mut targets = text[1..].to_vec();
        targets.extend(end);
        let asked = expected.narrow(0, 0, targets.len()).unwrap();
        let targets = Tensor::new(targets, &Device::Cpu).unwrap();
        let logs = candle_nn::ops::log_softmax(&asked, D::Minus1).unwrap();
        losses.push(logs.gather(&targets.unsqueeze(1).unwrap(), 1).unwrap().sum_all().unwrap().neg().unwrap());
        row += text.len();
    }
    let loss = Tensor::stack(&losses, 0).unwrap().sum_all().unwrap();
    let expected = loss.backward().unwrap();

    let mut gradients = vec![0.0f32; layout.size];
    // A pass that was used before must not matter.
    let found = pass.train(&layout, &parameters, &batch, 1.0, &mut gradients);
    let loss = f64::from(loss.to_dtype(DType::F32).unwrap().to_scalar::<f32>().unwrap());
    assert!((found - loss).abs() < 1e-4 * loss, "{found} {loss}");
    for tensor in &layout.tensors {
        let var = &reference.tensors[tensor.name.trim_start_matches("transformer.")];
        let expected = expected.get(var).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let scale = expected.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        assert!(scale > 0.0, "{}", tensor.name);
        for (a, b) in gradients[tensor.at.clone()].iter().zip(&expected) {
            assert!((a - b).abs() < 2e-5 * scale + 1e-6, "{}: {a} {b} (largest {scale})", tensor.name);
        }
    }
}
