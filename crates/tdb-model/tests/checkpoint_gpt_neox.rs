//! Folders of GPT-NeoX: settings, names, the order of the fused rows, and a run of the model, compared with the model's
//! definition written out here in f64 over the file's own tensors.

#![allow(clippy::unwrap_used)] // also in the helpers of tests

use std::fs;

use crate::folder::{Folder, Named, tokenizer};
use candle_core::Device;
use candle_core::cpu::erf::erf_f64;
use safetensors::tensor::Dtype;
use serde_json::{Value, json};
use tdb_model::checkpoint::{self, Checkpoint};
use tdb_model::config::{Activation, AttentionBias, BlockOrder, MlpKind, Positions, Rotary, RotaryScaling};
use tdb_model::{BackwardOptions, Config, ForwardOptions, Seed, Site, Transformer};
use tdb_testkit::weights::TensorSpec;

const LAYERS: usize = 2;
const D: usize = 24;
const HEADS: usize = 3;
const E: usize = D / HEADS;
/// Rotated dimensions of a head: half of them.
const ROTATED: usize = 4;
const FF: usize = 40;
const CTX: usize = 12;
const VOCAB: usize = 11;
const BASE: f64 = 100.0;
const EPSILON: f64 = 1e-3;
const TOKENS: [u32; 6] = [3, 0, 10, 3, 7, 1];

fn config() -> Value {
    json!({
        "architectures": ["GPTNeoXForCausalLM"], "model_type": "gpt_neox", "attention_bias": true, "hidden_act": "gelu",
        "hidden_size": D, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "intermediate_size": FF,
        "max_position_embeddings": CTX, "vocab_size": VOCAB, "layer_norm_eps": EPSILON, "rotary_pct": 0.5,
        "rotary_emb_base": BASE, "rope_scaling": null, "tie_word_embeddings": false, "use_parallel_residual": true,
        "attention_dropout": 0.0, "hidden_dropout": 0.0, "classifier_dropout": 0.1, "bos_token_id": 0,
        "eos_token_id": 0, "initializer_range": 0.02, "torch_dtype": "float16", "transformers_version": "4.24.0",
        "use_cache": true
    })
}

/// What `config()` means.
fn shape() -> Config {
    let mut expected = Config::gpt2(LAYERS, D, HEADS, FF, CTX, VOCAB);
    expected.norm_epsilon = EPSILON as f32;
    expected.positions =
        Positions::rotary(Rotary { dims: ROTATED, base: BASE as f32, scaling: RotaryScaling::None }, LAYERS);
    expected.mlp = MlpKind::Plain(Activation::Gelu);
    expected.block = BlockOrder::Parallel;
    expected.tied = false;
    expected
}

/// The file's tensors, procedural and of a size that lets every part count.
fn tensors(prefix: &str, attention_bias: bool) -> Vec<Named> {
    let mut all = vec![("embed_in.weight".to_owned(), vec![VOCAB, D], 1.0, 0.0)];
    for layer in 0..LAYERS {
        let mut linear = |name: &str, outputs: usize, inputs: usize, bias: bool| {
            let name = format!("layers.{layer}.{name}");
            all.push((format!("{name}.weight"), vec![outputs, inputs], 2.0 / (inputs as f64).sqrt(), 0.0));
            if bias {
                all.push((format!("{name}.bias"), vec![outputs], 0.3, 0.0));
            }
        };
        linear("attention.query_key_value", 3 * D, D, attention_bias);
        linear("attention.dense", D, D, attention_bias);
        linear("mlp.dense_h_to_4h", FF, D, true);
        linear("mlp.dense_4h_to_h", D, FF, true);
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            all.push((format!("layers.{layer}.{norm}.weight"), vec![D], 0.4, 1.0));
            all.push((format!("layers.{layer}.{norm}.bias"), vec![D], 0.2, 0.0));
        }
    }
    all.push(("final_layer_norm.weight".to_owned(), vec![D], 0.4, 1.0));
    all.push(("final_layer_norm.bias".to_owned(), vec![D], 0.2, 0.0));
    let mut named: Vec<Named> = all.into_iter().map(|spec| numbers(prefix, spec)).collect();
    named.push(numbers("", ("embed_out.weight".to_owned(), vec![VOCAB, D], 1.0, 0.0)));
    named
}

fn numbers(prefix: &str, (name, shape, scale, offset): (String, Vec<usize>, f64, f64)) -> Named {
    let values = TensorSpec::new(&name, &shape, scale, offset).values(0x5EED);
    (format!("{prefix}{name}"), shape, values)
}

fn written(tensors: &[Named], config: &Value) -> Folder {
    Folder::new("a-neox", tensors, Dtype::F32, config, &tokenizer())
}

/// The model as its authors define it, from the file's tensors.
struct Definition<'a> {
    tensors: &'a [Named],
    prefix: &'a str,
    parallel: bool,
    rotated: usize,
}

type Rows = Vec<Vec<f64>>;

impl Definition<'_> {
    fn get(&self, name: &str) -> Option<Vec<f64>> {
        let found = self.tensors.iter().find(|(key, _, _)| *key == format!("{}{name}", self.prefix) || *key == name);
        found.map(|(_, _, numbers)| numbers.iter().map(|&x| f64::from(x)).collect())
    }

    fn linear(&self, name: &str, x: &Rows) -> Rows {
        let (weight, bias) = (self.get(&format!("{name}.weight")).unwrap(), self.get(&format!("{name}.bias")));
        let row = |x: &Vec<f64>| {
            let product = weight.chunks(x.len()).map(|w| w.iter().zip(x).map(|(w, x)| w * x).sum::<f64>());
            product.enumerate().map(|(i, y)| y + bias.as_ref().map_or(0.0, |bias| bias[i])).collect()
        };
        x.iter().map(row).collect()
    }

    fn norm(&self, name: &str, x: &Rows) -> Rows {
        let [gain, bias] = ["weight", "bias"].map(|kind| self.get(&format!("{name}.{kind}")).unwrap());
        let row = |x: &Vec<f64>| {
            let mean = x.iter().sum::<f64>() / x.len() as f64;
            let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64;
            let scale = (variance + EPSILON).sqrt();
            x.iter().zip(gain.iter().zip(&bias)).map(|(x, (g, b))| (x - mean) / scale * g + b).collect()
        };
        x.iter().map(row).collect()
    }

    /// Turns the pairs (i, i + rotated / 2) of the first dimensions of a head.
    fn rotate(&self, x: &[f64], position: usize) -> Vec<f64> {
        let (half, mut out) = (self.rotated / 2, x.to_vec());
        for i in 0..half {
            let angle = position as f64 * BASE.powf(-2.0 * i as f64 / self.rotated as f64);
            out[i] = x[i] * angle.cos() - x[i + half] * angle.sin();
            out[i + half] = x[i + half] * angle.cos() + x[i] * angle.sin();
        }
        out
    }

    fn attention(&self, layer: usize, x: &Rows) -> Rows {
        let fused = self.linear(&format!("layers.{layer}.attention.query_key_value"), x);
        let mut merged = vec![vec![0.0; D]; x.len()];
        for head in 0..HEADS {
            // A head's query, key and value stand side by side.
            let part = |t: usize, part: usize| &fused[t][(3 * head + part) * E..][..E];
            for query in 0..x.len() {
                let q = self.rotate(part(query, 0), query);
                let logit = |key: usize| {
                    let k = self.rotate(part(key, 1), key);
                    q.iter().zip(&k).map(|(q, k)| q * k).sum::<f64>() / (E as f64).sqrt()
                };
                let weights: Vec<f64> = (0..=query).map(|key| logit(key).exp()).collect();
                let sum: f64 = weights.iter().sum();
                for (key, weight) in weights.iter().enumerate() {
                    for (e, value) in part(key, 2).iter().enumerate() {
                        merged[query][head * E + e] += weight / sum * value;
                    }
                }
            }
        }
        self.linear(&format!("layers.{layer}.attention.dense"), &merged)
    }

    fn mlp(&self, layer: usize, x: &Rows) -> Rows {
        let mut hidden = self.linear(&format!("layers.{layer}.mlp.dense_h_to_4h"), x);
        hidden.iter_mut().flatten().for_each(|x| *x *= 0.5 * (1.0 + erf_f64(*x / 2f64.sqrt())));
        self.linear(&format!("layers.{layer}.mlp.dense_4h_to_h"), &hidden)
    }

    /// What enters the first block.
    fn embedded(&self) -> Rows {
        let embedding = self.get("embed_in.weight").unwrap();
        TOKENS.iter().map(|&token| embedding[token as usize * D..][..D].to_vec()).collect()
    }

    fn logits(&self, mut x: Rows) -> Rows {
        let add = |x: &mut Rows, y: Rows| x.iter_mut().flatten().zip(y.iter().flatten()).for_each(|(x, y)| *x += y);
        for layer in 0..LAYERS {
            let norm = |name: &str, x: &Rows| self.norm(&format!("layers.{layer}.{name}"), x);
            let before = x.clone();
            add(&mut x, self.attention(layer, &norm("input_layernorm", &before)));
            let read = if self.parallel { &before } else { &x };
            let written = self.mlp(layer, &norm("post_attention_layernorm", read));
            add(&mut x, written);
        }
        self.linear("embed_out", &self.norm("final_layer_norm", &x))
    }
}

/// Parallel or not, with biases or not, share of a head that is rotated, prefix of the names.
const KINDS: [(bool, bool, f64, &str); 3] =
    [(true, true, 0.5, "gpt_neox."), (false, true, 0.5, "gpt_neox."), (true, false, 1.0, "")];

fn config_of((parallel, bias, share, _): (bool, bool, f64, &str)) -> Value {
    let mut config = config();
    config["use_parallel_residual"] = json!(parallel);
    config["attention_bias"] = json!(bias);
    config["rotary_pct"] = json!(share);
    config
}

#[test]
fn a_run_agrees_with_the_definition() {
    for kind in KINDS {
        let (parallel, bias, share, prefix) = kind;
        let tensors = tensors(prefix, bias);
        let Checkpoint { config, weights, .. } = written(&tensors, &config_of(kind)).open();
        let definition = Definition { tensors: &tensors, prefix, parallel, rotated: (share * E as f64) as usize };
        let expected = definition.logits(definition.embedded());
        for model in [
            Transformer::load(config.clone(), weights.clone()).unwrap(),
            Transformer::load_plain(config, weights, &Device::Cpu).unwrap(),
        ] {
            let run = model.forward(&TOKENS, ForwardOptions::default()).unwrap();
            for (t, expected) in expected.iter().enumerate() {
                for (found, expected) in run.logits(t).unwrap().into_iter().zip(expected) {
                    let near = (f64::from(found) - expected).abs() < 1e-4;
                    assert!(near, "parallel {parallel}, biases {bias}: {found} for {expected}");
                }
            }
        }
        let largest = expected.iter().flatten().fold(0.0, |largest: f64, x| largest.max(x.abs()));
        assert!(largest > 1.0, "logits of {largest} would prove nothing");
    }
}

#[test]
fn gradients_agree_with_differences_of_the_definition() {
    const STEP: f64 = 1e-4;
    let last = TOKENS.len() - 1;
    for kind in KINDS {
        let (parallel, bias, share, prefix) = kind;
        let tensors = tensors(prefix, bias);
        let checkpoint = written(&tensors, &config_of(kind)).open();
        let model = Transformer::load(checkpoint.config, checkpoint.weights).unwrap();
        let run = model.forward(&TOKENS, ForwardOptions::default()).unwrap();
        let mut difference = vec![0.0; VOCAB];
        (difference[2], difference[5]) = (1.0, -1.0);
        let options = BackwardOptions { keep: &[Site::ResidPostEmb], ..Default::default() };
        let gradients = run.backward(Seed::Logits([(last, difference)].into()), options).unwrap();
        let found = gradients.get(Site::ResidPostEmb, None).unwrap().unwrap().to_vec2::<f32>().unwrap();
        let definition = Definition { tensors: &tensors, prefix, parallel, rotated: (share * E as f64) as usize };
        let objective = |t: usize, d: usize, step: f64| {
            let mut x = definition.embedded();
            x[t][d] += step;
            let logits = definition.logits(x);
            logits[last][2] - logits[last][5]
        };
        for t in 0..TOKENS.len() {
            for d in 0..D {
                let expected = (objective(t, d, STEP) - objective(t, d, -STEP)) / (2.0 * STEP);
                let near = (f64::from(found[t][d]) - expected).abs() < 2e-4 + 1e-3 * expected.abs();
                assert!(near, "parallel {parallel}, token {t}, {d}: {} for {expected}", found[t][d]);
            }
        }
    }
}

#[test]
fn fused_rows_are_ordered_head_by_head() {
    for (prefix, dtype) in [("gpt_neox.", Dtype::F32), ("", Dtype::F32), ("gpt_neox.", Dtype::F16)] {
        let mut tensors = tensors(prefix, true);
        // Every row of the fused matrix says its number.
        let fused = tensors.iter_mut().find(|(name, _, _)| name.ends_with("layers.1.attention.query_key_value.weight"));
        fused.unwrap().2 = (0..3 * D).flat_map(|row| vec![row as f32; D]).collect();
        let bias = tensors.iter_mut().find(|(name, _, _)| name.ends_with("layers.1.attention.query_key_value.bias"));
        bias.unwrap().2 = (0..3 * D).map(|row| row as f32).collect();
        let folder = Folder::new("a-neox", &tensors, dtype, &config(), &tokenizer());
        let weights = folder.open().weights;
        for (part, name) in ["q", "k", "v"].into_iter().enumerate() {
            let rows: Vec<f32> =
                (0..HEADS).flat_map(|head| (0..E).map(move |e| ((head * 3 + part) * E + e) as f32)).collect();
            let matrix = weights.matrix(&format!("blocks.1.attn.{name}.weight"), [D, D]).unwrap();
            for (row, expected) in rows.iter().enumerate() {
                assert_eq!(matrix.row(row), [*expected; D]);
            }
            assert_eq!(weights.vector(&format!("blocks.1.attn.{name}.bias"), D).unwrap(), rows);
        }
        for (name, key, shape) in [
            ("embed.weight", "embed_in.weight", [VOCAB, D]),
            ("unembed.weight", "embed_out.weight", [VOCAB, D]),
            ("blocks.0.attn.o.weight", "layers.0.attention.dense.weight", [D, D]),
            ("blocks.1.mlp.in.weight", "layers.1.mlp.dense_h_to_4h.weight", [FF, D]),
            ("blocks.1.mlp.out.weight", "layers.1.mlp.dense_4h_to_h.weight", [D, FF]),
        ] {
            let (_, _, expected) = tensors.iter().find(|(name, _, _)| name.ends_with(key)).unwrap();
            let found = weights.matrix(name, shape).unwrap().to_vec();
            let near = |(found, expected): (&f32, &f32)| (found - expected).abs() <= 1e-3 * expected.abs().max(1e-3);
            assert!(found.iter().zip(expected).all(near), "{name}");
            assert!(dtype == Dtype::F16 || found == *expected, "{name}");
        }
    }
}

#[test]
fn settings_reach_the_configuration() {
    let folder = written(&tensors("gpt_neox.", true), &config());
    assert_eq!(folder.open().config, shape());
    let open = |changes: Value| {
        let mut config = config();
        config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        fs::write(folder.path.join("config.json"), config.to_string()).unwrap();
        checkpoint::open(&folder.path).unwrap().config
    };
    // The newest form, and the one that has everything twice.
    let nested = json!({"rope_type": "default", "rope_theta": BASE, "partial_rotary_factor": 0.5});
    let newest = json!({"rotary_pct": null, "rotary_emb_base": null, "rope_parameters": nested});
    for form in [newest, json!({"partial_rotary_factor": 0.5, "rope_theta": BASE, "rope_parameters": nested})] {
        assert_eq!(open(form), shape());
    }
    assert_eq!(open(json!({"use_parallel_residual": null, "attention_bias": null})), shape());
    assert_eq!(open(json!({"use_parallel_residual": false})).block, BlockOrder::Sequential);
    assert_eq!(open(json!({"hidden_act": "gelu_fast"})).mlp, MlpKind::Plain(Activation::GeluTanh));
    let rotary = |dims, base| Positions::rotary(Rotary { dims, base, scaling: RotaryScaling::None }, LAYERS);
    // 0.3 of 8 dimensions are 2.4, rounded down.
    assert_eq!(open(json!({"rotary_pct": 0.3, "rotary_emb_base": 1e6})).positions, rotary(2, 1e6));
}

#[test]
fn a_tied_unembedding_is_the_embedding_or_refused() {
    let mut tied = config();
    tied["tie_word_embeddings"] = json!(true);
    let mut all = tensors("gpt_neox.", true);
    written(&all, &tied).refused("model.safetensors", "embed_out.weight");
    all.last_mut().unwrap().2 = all[0].2.clone();
    assert!(written(&all, &tied).open().config.tied);
    all.pop();
    let checkpoint = written(&all, &tied).open();
    assert!(checkpoint.config.tied && !checkpoint.weights.contains("unembed.weight"));
    written(&all, &config()).refused("model.safetensors", "`embed_out.weight` is missing");
}

#[test]
fn attention_without_biases_has_none_in_the_table() {
    let mut config = config();
    config["attention_bias"] = json!(false);
    let checkpoint = written(&tensors("gpt_neox.", false), &config).open();
    assert_eq!(checkpoint.config.attention.bias, AttentionBias::default());
    assert!(checkpoint.config.mlp_bias && checkpoint.weights.contains("blocks.0.mlp.in.bias"));
    assert!(!checkpoint.weights.contains("blocks.0.attn.q.bias"));
    let file = "model.safetensors";
    written(&tensors("gpt_neox.", true), &config).refused(file, "layers.0.attention.dense.bias");
    config["attention_bias"] = json!(true);
    written(&tensors("gpt_neox.", false), &config).refused(file, "query_key_value.bias` is missing");
}

#[test]
fn buffers_are_ignored_and_anything_else_is_refused() {
    let mut all = tensors("gpt_neox.", true);
    all.push(("gpt_neox.layers.1.attention.bias".into(), vec![1, 1, CTX, CTX], vec![1.0; CTX * CTX]));
    all.push(("gpt_neox.layers.1.attention.masked_bias".into(), vec![], vec![-1e9]));
    all.push(("gpt_neox.layers.1.attention.rotary_emb.inv_freq".into(), vec![ROTATED / 2], vec![1.0; ROTATED / 2]));
    assert_eq!(written(&all, &config()).open().config, shape());
    for name in ["gpt_neox.layers.2.attention.bias", "gpt_neox.embed_positions.weight", "layers.0.attention.bias"] {
        let mut more = all.clone();
        more.push((name.into(), vec![1], vec![0.0]));
        written(&more, &config()).refused("model.safetensors", name);
    }
    let mut wrong = tensors("gpt_neox.", true);
    let fused = wrong.iter_mut().find(|(name, _, _)| name.ends_with("0.attention.query_key_value.weight")).unwrap();
    *fused = (fused.0.clone(), vec![D, 3 * D], fused.2.clone());
    let refusing = written(&wrong, &config());
    refusing.refused("model.safetensors", "layers.0.attention.query_key_value.weight` should be");
    refusing.refused("[72, 24]", "[24, 72]");
}

#[test]
fn settings_that_are_not_computed_are_refused() {
    let folder = written(&tensors("gpt_neox.", true), &config());
    let path = folder.path.join("config.json");
    for (key, value) in [
        ("rope_scaling", json!({"type": "longrope", "factor": 2.0})),
        ("rope_parameters", json!({"rope_type": "yarn", "factor": 0})),
        ("rope_parameters", json!({"rope_type": "linear"})),
        ("rope_parameters", json!({"rope_type": "default", "rope_theta": 5.0})),
        ("rope_parameters", json!("default")),
        ("partial_rotary_factor", json!(0.25)),
        ("rotary_pct", json!(0.4)),
        ("rotary_pct", json!(0.1)),
        ("rotary_pct", json!(1.5)),
        ("rotary_pct", json!("half")),
        ("rotary_pct", Value::Null),
        ("rotary_emb_base", json!(-1)),
        ("rotary_emb_base", Value::Null),
        ("hidden_act", json!("quick_gelu")),
        ("hidden_act", Value::Null),
        ("layer_norm_eps", json!(0)),
        ("use_parallel_residual", json!("yes")),
        ("attention_bias", json!(0)),
        ("num_attention_heads", json!(5)),
        ("hidden_size", json!(0)),
        ("num_hidden_layers", json!(1_000_000)),
        ("intermediate_size", json!(2.5)),
        ("quantization_config", json!({"bits": 4})),
        ("auto_map", json!({"AutoModel": "modeling.Other"})),
        ("num_key_value_heads", json!(1)),
        ("sliding_window", json!(4)),
    ] {
        let mut config = config();
        config[key] = value.clone();
        fs::write(&path, config.to_string()).unwrap();
        let text = checkpoint::open(&folder.path).map(|model| model.origin).unwrap_err().to_string();
        let named = key == "rope_parameters" && ["rope_t", "factor"].iter().any(|key| text.contains(key));
        assert!(text.contains("config.json") && (named || text.contains(key)), "{key} {value}: {text}");
    }
}
