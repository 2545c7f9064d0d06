//! Loss and gradients of training, against the same network written in candle's operations, with its autodiff.

#![allow(clippy::unwrap_used)] // functions that tests call, too

use std::collections::HashMap;

use candle_core::{D, DType, Device, Tensor, Var};
use tdb_model::{Config, ForwardOptions, Site, Transformer};
use tdb_train::dice::Dice;
use tdb_train::gpt::{Layout, Parameters, Text, loss_and_gradients};

struct Reference {
    config: Config,
    tensors: HashMap<String, Var>,
}

impl Reference {
    fn new(parameters: &Parameters) -> Self {
        let (layout, parameters) = (parameters.layout(), parameters.numbers());
        let tensors = layout
            .tensors
            .iter()
            .map(|tensor| {
                let values = parameters[tensor.at.clone()].to_vec();
                let var = Var::from_vec(values, tensor.dims.clone(), &Device::Cpu).unwrap();
                (tensor.name.trim_start_matches("transformer.").to_owned(), var)
            })
            .collect();
        Self { config: layout.config.clone(), tensors }
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
        let (d, heads, d_head) = (self.config.d_model, self.config.n_heads, self.config.d_head);
        let tokens = Tensor::new(tokens, &Device::Cpu).unwrap();
        let positions = self.get("wpe.weight").narrow(0, 0, t).unwrap();
        let mut x = (self.get("wte.weight").index_select(&tokens, 0).unwrap() + positions).unwrap();
        let mask: Vec<f32> = (0..t * t).map(|i| if i % t > i / t { f32::NEG_INFINITY } else { 0.0 }).collect();
        let mask = Tensor::from_vec(mask, (t, t), &Device::Cpu).unwrap();
        for layer in 0..self.config.n_layers {
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

/// Parameters away from the start, where biases are 0 and attention is flat, and some texts.
fn some(config: Config, seed: u64) -> (Parameters, Vec<Text>) {
    let (vocabulary, context) = (config.n_vocab, config.ctx_window);
    let layout = Layout::new(config).unwrap();
    let mut dice = Dice::new(&[seed]);
    let mut numbers = layout.initial(seed);
    numbers.iter_mut().for_each(|number| *number += 0.15 * dice.normal());
    let mut text = |length: usize, end: Option<u32>| Text {
        tokens: (0..length).map(|_| dice.below(vocabulary) as u32).collect(),
        end,
    };
    let texts = vec![text(context, None), text(5, Some(7)), text(1, Some(3)), text(9, None), text(1, None)];
    (Parameters::new(layout, numbers), texts)
}

/// Mean cross-entropy of everything that is asked.
fn expected_loss(reference: &Reference, texts: &[Text]) -> Tensor {
    let (mut losses, mut asked) = (Vec::new(), 0);
    for text in texts.iter().filter(|text| text.asked() > 0) {
        let targets: Vec<u32> = text.tokens[1..].iter().copied().chain(text.end).collect();
        asked += targets.len();
        let logits = reference.logits(&text.tokens).narrow(0, 0, targets.len()).unwrap();
        let targets = Tensor::new(targets, &Device::Cpu).unwrap();
        let logs = candle_nn::ops::log_softmax(&logits, D::Minus1).unwrap();
        losses.push(logs.gather(&targets.unsqueeze(1).unwrap(), 1).unwrap().sum_all().unwrap().neg().unwrap());
    }
    (Tensor::stack(&losses, 0).unwrap().sum_all().unwrap() / asked as f64).unwrap()
}

#[test]
fn logits_loss_and_every_gradient_agree_with_candle() {
    let (parameters, texts) = some(Config::gpt2(2, 24, 3, 40, 16, 50), 3);
    assert_eq!(texts.iter().map(Text::asked).collect::<Vec<_>>(), [15, 5, 1, 8, 0]);
    let reference = Reference::new(&parameters);
    let model = parameters.transformer().unwrap();
    for text in &texts {
        let run = model.forward(&text.tokens, ForwardOptions::default()).unwrap();
        let found = run.get(Site::Logits, None).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let expected = reference.logits(&text.tokens).flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (a, b) in found.iter().zip(&expected) {
            assert!((a - b).abs() < 1e-4 + 1e-4 * b.abs(), "{a} {b}");
        }
    }
    let loss = expected_loss(&reference, &texts);
    let expected = loss.backward().unwrap();

    let (found, gradients) = loss_and_gradients(&model, parameters.layout(), &texts).unwrap();
    let loss = f64::from(loss.to_dtype(DType::F32).unwrap().to_scalar::<f32>().unwrap());
    assert!((found - loss).abs() < 1e-5 * loss, "{found} {loss}");
    for tensor in &parameters.layout().tensors {
        let var = &reference.tensors[tensor.name.trim_start_matches("transformer.")];
        let expected = expected.get(var).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let scale = expected.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        assert!(scale > 0.0, "{}", tensor.name);
        for (a, b) in gradients[tensor.at.clone()].iter().zip(&expected) {
            assert!((a - b).abs() < 2e-5 * scale + 3e-8, "{}: {a} {b} (largest {scale})", tensor.name);
        }
    }
}

#[test]
fn what_a_model_reads_stays_when_parameters_change() {
    let (mut parameters, texts) = some(Config::gpt2(1, 8, 2, 16, 16, 20), 4);
    let layout = parameters.layout().clone();
    let all = |model: &Transformer| loss_and_gradients(model, &layout, &texts).unwrap();
    let model = parameters.transformer().unwrap();
    let before = all(&model);
    parameters.layout_and_numbers_mut().1.iter_mut().for_each(|number| *number *= 1.5);
    assert_eq!(all(&model), before);
    assert_ne!(all(&parameters.transformer().unwrap()).0, before.0);
}

#[test]
fn texts_that_do_not_fit_the_model_are_refused() {
    let (parameters, _) = some(Config::gpt2(1, 8, 2, 16, 16, 20), 5);
    let model = parameters.transformer().unwrap();
    let refused = |tokens: Vec<u32>, end: Option<u32>| {
        let texts = [Text { tokens, end }];
        loss_and_gradients(&model, parameters.layout(), &texts).unwrap_err().to_string()
    };
    assert!(refused(vec![], None).contains("no tokens"));
    assert!(refused(vec![1; 17], None).contains("17 tokens"));
    assert!(refused(vec![1, 20], None).contains("token 20"));
    assert!(refused(vec![1, 2], Some(20)).contains("token 20"));
    let other = Config { norm_epsilon: 1e-6, ..Config::gpt2(1, 8, 2, 16, 16, 20) };
    assert!(Layout::new(other).unwrap_err().to_string().contains("GPT-2"));
}
