//! Checkpoints of every family as `transformers` writes them (`tests/fixtures/families`), against what PyTorch computes
//! with them: logits, residual stream, attention probabilities, neurons, and gradients of a logit difference.

#![allow(clippy::unwrap_used)] // also in the helpers of tests

use std::collections::HashMap;
use std::fs;

use candle_core::safetensors::load;
use candle_core::{D, DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models;
use serde_json::{Value, json};
use tdb_model::{
    BackwardOptions, Checkpoint, Element, ForwardOptions, Numbers, Seed, Site, Transformer, Weights, checkpoint,
};
use tdb_testkit::families::{Copied, fixtures, names};

/// The tokens whose logits' difference has the gradients that were recorded.
const TARGET: usize = 5;
const DISTRACTOR: usize = 9;

fn flat(x: &Tensor) -> Vec<f32> {
    Numbers::of(x).unwrap().to_row_major()
}

#[track_caller]
fn assert_near(what: &str, found: &Tensor, expected: &Tensor) {
    assert_eq!(found.dims(), expected.dims(), "{what}");
    for (i, (found, expected)) in flat(found).iter().zip(flat(expected)).enumerate() {
        assert!((found - expected).abs() <= 1e-4 + 1e-3 * expected.abs(), "{what}, {i}: {found} for {expected}");
    }
}

fn check(name: &str, model: &Transformer, expected: &HashMap<String, Tensor>) {
    let tokens: Vec<u32> = expected["tokens"].to_dtype(DType::U32).unwrap().to_vec1().unwrap();
    let n_layers = model.config().n_layers;
    let run = model.forward(&tokens, ForwardOptions::default()).unwrap();
    let named = |part: &str| format!("{name}: {part}");
    assert_near(&named("logits"), &run.get(Site::Logits, None).unwrap(), &expected["logits"]);
    let mut difference = vec![0.0; model.config().n_vocab];
    (difference[TARGET], difference[DISTRACTOR]) = (1.0, -1.0);
    let all = [Site::ResidPostEmb, Site::ResidPostMlp, Site::MlpPostAct];
    let keep: Vec<Site> = all.into_iter().filter(|site| model.site_dims(*site, tokens.len()).is_some()).collect();
    let options = BackwardOptions { keep: &keep, ..Default::default() };
    let gradients = run.backward(Seed::Logits([(tokens.len() - 1, difference)].into()), options).unwrap();
    let compare = |part: &str, site, layer| {
        assert_near(&named(part), &run.get(site, layer).unwrap(), &expected[part]);
        let gradient = gradients.get(site, layer).unwrap().unwrap();
        assert_near(&named(&format!("grad.{part}")), &gradient, &expected[&format!("grad.{part}")]);
    };
    compare("resid.0", Site::ResidPostEmb, None);
    for layer in 0..n_layers {
        compare(&format!("resid.{}", layer + 1), Site::ResidPostMlp, Some(layer));
        if model.block(layer).has_mlp() {
            compare(&format!("mlp.{layer}"), Site::MlpPostAct, Some(layer));
        }
        let probs = run.get(Site::AttnQkProbs, layer).unwrap().permute((2, 0, 1)).unwrap();
        assert_near(&named("probs"), &probs, &expected[&format!("probs.{layer}")]);
    }
}

fn open(name: &str) -> Checkpoint {
    checkpoint::open(&Copied::new(name).unwrap().path).unwrap()
}

fn expected(name: &str) -> HashMap<String, Tensor> {
    load(fixtures().join(name).join("expected.safetensors"), &Device::Cpu).unwrap()
}

#[test]
fn every_checkpoint_computes_what_pytorch_does() {
    let names = names().unwrap();
    assert!(names.len() >= 23, "{names:?}");
    for name in &names {
        let Checkpoint { config, weights, .. } = open(name);
        let expected = expected(name);
        check(name, &Transformer::load(config.clone(), weights.clone()).unwrap(), &expected);
        check(name, &Transformer::load_plain(config, weights, &Device::Cpu).unwrap(), &expected);
    }
}

/// The implementations of candle-transformers, over the same files: logits of the last token.
fn witness(name: &str) -> Tensor {
    let folder = fixtures().join(name);
    let mut config: Value = serde_json::from_str(&fs::read_to_string(folder.join("config.json")).unwrap()).unwrap();
    let weights = fs::read(folder.join("model.safetensors")).unwrap();
    let builder = VarBuilder::from_buffered_safetensors(weights, DType::F32, &Device::Cpu).unwrap();
    let tokens = expected(name)["tokens"].to_dtype(DType::U32).unwrap().unsqueeze(0).unwrap();
    if config["num_key_value_heads"].is_null() {
        config["num_key_value_heads"] = config["num_attention_heads"].clone();
    }
    let logits = match config["model_type"].as_str().unwrap() {
        "llama" => {
            let config: models::llama::LlamaConfig = serde_json::from_value(config).unwrap();
            let config = config.into_config(false);
            let mut cache = models::llama::Cache::new(false, DType::F32, &config, &Device::Cpu).unwrap();
            models::llama::Llama::load(builder, &config).unwrap().forward(&tokens, 0, &mut cache)
        }
        "qwen2" => {
            // It uses the window whatever `use_sliding_window` says.
            config["sliding_window"] = json!(tokens.dim(1).unwrap());
            let config = serde_json::from_value(config).unwrap();
            models::qwen2::ModelForCausalLM::new(&config, builder).unwrap().forward(&tokens, 0)
        }
        "qwen3" => {
            let config = serde_json::from_value(config).unwrap();
            models::qwen3::ModelForCausalLM::new(&config, builder).unwrap().forward(&tokens, 0)
        }
        "gemma" => {
            config["hidden_act"] = json!("gelu_pytorch_tanh");
            let config = serde_json::from_value(config).unwrap();
            models::gemma::Model::new(false, &config, builder).unwrap().forward(&tokens, 0)
        }
        other => panic!("{other}"),
    };
    logits.unwrap().flatten_to(D::Minus2).unwrap().squeeze(0).unwrap().to_dtype(DType::F32).unwrap()
}

#[test]
fn candles_own_models_compute_the_same() {
    for name in ["llama-3-scaling", "qwen2", "qwen3", "gemma"] {
        let Checkpoint { config, weights, .. } = open(name);
        let model = Transformer::load(config, weights).unwrap();
        let tokens: Vec<u32> = expected(name)["tokens"].to_dtype(DType::U32).unwrap().to_vec1().unwrap();
        let run = model.forward(&tokens, ForwardOptions::default()).unwrap();
        let logits = run.get(Site::Logits, None).unwrap().get(tokens.len() - 1).unwrap();
        assert_near(&format!("{name} by candle"), &logits, &witness(name));
    }
}

/// 16-bit weights stay in their file, and as 32-bit floats they compute the same.
#[test]
fn halves_stay_where_they_lie() {
    for (name, element) in [("qwen3", Element::Bf16), ("gpt-neox-parallel", Element::F16)] {
        let Checkpoint { config, weights, .. } = open(name);
        let shape = [config.n_vocab, config.d_model];
        assert_eq!(weights.matrix("embed.weight", shape).unwrap().element(), element);
        let wide = weights.clone().stored_as(Element::F32);
        assert_eq!(wide.matrix("embed.weight", shape).unwrap().element(), Element::F32);
        let tokens: Vec<u32> = expected(name)["tokens"].to_dtype(DType::U32).unwrap().to_vec1().unwrap();
        let [narrow, wide] = [weights, wide].map(|weights| {
            let model = Transformer::load(config.clone(), weights).unwrap();
            model.forward(&tokens, ForwardOptions::default()).unwrap().get(Site::Logits, None).unwrap()
        });
        assert_near(name, &narrow, &wide);
    }
}

#[test]
fn weights_that_16_bits_cannot_hold_are_refused_by_name() {
    let Checkpoint { config, weights, .. } = open("llama-linear-shards");
    let shape = [config.n_vocab, config.d_model];
    let rounded = weights.clone().stored_as(Element::Bf16).matrix("embed.weight", shape).unwrap();
    let exact = weights.matrix("embed.weight", shape).unwrap();
    let part = |(a, b): (&f32, &f32)| (a - b).abs() <= b.abs() / 256.0;
    assert!(rounded.to_vec().iter().zip(&exact.to_vec()).all(part) && rounded.to_vec() != exact.to_vec());
    let huge = Tensor::full(1e6f32, (4, 4), &Device::Cpu).unwrap();
    let tensors = HashMap::from([("embed.weight".to_owned(), huge)]);
    let builder = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
    let error = Weights::from(builder).stored_as(Element::F16).matrix("embed.weight", [4, 4]).unwrap_err();
    assert!(error.to_string().contains("`embed.weight` should be at most 65504 for f16, but is 1000000"), "{error}");
}

#[test]
fn what_is_left_out_is_told() {
    for name in names().unwrap() {
        let notes = open(&name).notes;
        match name.as_str() {
            "gpt2-first-files" => assert!(notes[0].contains("3 tensors") && notes[0].contains("`score.weight`")),
            "gemma-3-images" => assert!(notes[0].contains("`multi_modal_projector."), "{notes:?}"),
            _ => assert!(notes.is_empty(), "{name}: {notes:?}"),
        }
    }
}

/// A fixture, a setting of it, another value, and what the error names or, if it is `""`, that nothing changes.
#[test]
fn settings_are_understood_or_refused_by_name() {
    for (name, key, value, named) in [
        ("llama-biases", "quantization_config", json!({"quant_method": "gptq"}), "quantization_config"),
        ("llama-biases", "rope_scaling", json!({"rope_type": "yarn", "factor": 4.0}), "rope_scaling"),
        ("llama-3-scaling", "rope_scaling", json!({"rope_type": "yarn"}), "`rope_scaling.factor`"),
        ("llama-3-scaling", "rope_scaling", json!({"rope_type": "yarn", "factor": 2, "beta_fast": 0.5}), "beta_fast"),
        ("llama-3-scaling", "rope_scaling", json!({"rope_type": "yarn", "factor": 2, "alpha": 0.5}), "alpha"),
        ("llama-3-scaling", "rope_scaling", json!({"type": "longrope", "factor": 4.0}), "`rope_scaling.type`"),
        ("llama-3-scaling", "rope_scaling", json!({"type": "linear"}), "`rope_scaling.factor`"),
        (
            "gemma-3-layer-types",
            "rope_parameters",
            json!({"full_attention": {"rope_type": "linear"}}),
            "`rope_parameters.full_attention.factor`",
        ),
        (
            "gpt-neox-sequential",
            "rope_parameters",
            json!({"rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": 0.2}),
            "`rope_parameters.partial_rotary_factor`",
        ),
        ("gpt-neox-sequential", "rope_parameters", json!(null), "`rotary_emb_base` or `rope_theta`"),
        ("llama-3-scaling", "rope_interleaved", json!(true), "rope_interleaved"),
        ("llama-3-scaling", "partial_rotary_factor", json!(0.5), "partial_rotary_factor"),
        ("llama-3-scaling", "num_key_value_heads", json!(3), "num_key_value_heads"),
        ("llama-3-scaling", "num_key_value_heads", json!(1), "self_attn.k_proj.weight"),
        ("llama-3-scaling", "head_dim", json!(8), "self_attn.q_proj.weight"),
        ("llama-3-scaling", "tie_word_embeddings", json!(false), "lm_head.weight"),
        ("llama-3-scaling", "vocab_size", json!(97), "embed_tokens.weight"),
        ("llama-3-scaling", "num_hidden_layers", json!(3), "layers.2."),
        ("llama-3-scaling", "attention_multiplier", json!(0.5), "attention_multiplier"),
        ("llama-3-scaling", "sliding_window", json!(4), "sliding_window"),
        ("llama-3-scaling", "auto_map", json!({"AutoModel": "x.Y"}), "auto_map"),
        ("llama-biases", "mlp_bias", json!(false), "down_proj.bias"),
        ("mistral-window", "sliding_window", json!(0), "sliding_window"),
        ("mistral-window", "layer_types", json!(["full_attention", "sliding_attention"]), "layer_types"),
        ("qwen2", "layer_types", json!(["full_attention", "sliding_attention"]), "use_sliding_window"),
        ("qwen2", "use_mrope", json!(true), "use_mrope"),
        ("qwen3", "layer_types", json!(["full_attention"]), "layer_types"),
        ("smollm3", "no_rope_layers", json!([1]), "no_rope_layers"),
        ("gemma", "hidden_activation", json!("silu"), "hidden_act"),
        ("gemma", "hidden_act", json!("relu"), "`hidden_act` should be the same as hidden_activation"),
        ("gemma-2", "use_bidirectional_attention", json!(true), "use_bidirectional_attention"),
        ("gemma-2", "layer_types", json!(["full_attention", "chunked_attention"]), "layer_types"),
        ("gemma-2", "sliding_window", json!(null), "sliding_window"),
        ("gemma-3", "attn_logit_softcapping", json!(50.0), "attn_logit_softcapping"),
        ("gemma-3-layer-types", "rope_parameters", json!({"rope_theta": 777.0}), "full_attention"),
        ("gemma-3-images", "text_config", json!(null), "text_config"),
        ("gemma-3-images", "audio_config", json!({"a": 1}), "audio_config"),
        ("gpt-neo", "attention_types", json!([[["global"], 3]]), "attention_types"),
        ("gpt-neo", "attention_types", json!([[["global", "other"], 1]]), "attention_types"),
        ("gpt-neo", "attention_layers", json!(["local", "global"]), "attention_layers"),
        ("lens-gelu", "act_fn", json!("solu_ln"), "act_fn"),
        ("lens-gelu", "neuron_scale", json!(0.5), "neuron_scale"),
        ("lens-gelu", "final_rms", json!(true), "final_rms"),
        ("lens-gelu", "normalization", json!("RMSPre"), "normalization"),
        ("lens-gelu", "shortcut", json!(1), "shortcut"),
        ("lens-gelu", "shortformer_pos", json!("yes"), "shortformer_pos"),
        ("lens-gelu", "d_mlp", json!(25), "mlp.W_in"),
        ("lens-gelu", "n_heads", json!(4), "attn.W_Q"),
        ("lens-no-norm", "positional_embedding_type", json!("alibi"), "positional_embedding_type"),
        ("lens-no-norm", "attention_dir", json!("bidirectional"), "attention_dir"),
        ("lens-no-norm", "n_key_value_heads", json!(1), "n_key_value_heads"),
        ("lens-no-norm", "gated_mlp", json!(true), "gated_mlp"),
        ("lens-no-norm", "normalization_type", json!("LN"), "ln_final.w"),
        ("lens-no-norm", "attn_types", json!(["local"]), "attn_types"),
        ("lens-rotary", "rotary_adjacent_pairs", json!(true), "rotary_adjacent_pairs"),
        ("lens-rotary", "use_qk_norm", json!(true), "use_qk_norm"),
        ("lens-rotary", "rotary_dim", json!(9), "rotary_dim"),
        ("gpt2-first-files", "afn", json!("gelu"), "afn"),
        ("gpt2-first-files", "model_type", json!("openai-gpt"), "model_type"),
        // What changes nothing.
        ("lens-gelu", "weight_decay", json!(0.1), ""),
        ("lens-no-norm", "yarn_factor", json!(2.0), ""),
        ("llama-3-scaling", "rope_interleaved", json!(false), ""),
        ("llama-3-scaling", "quantization_config", json!(null), ""),
        ("llama-3-scaling", "transformers.js_config", json!({"dtype": "q4"}), ""),
        ("llama-3-scaling", "hidden_act", json!("swish"), ""),
        ("qwen2", "attention_bias", json!(false), ""),
        ("qwen2", "max_window_layers", json!(28), ""),
        ("qwen3", "sliding_window", json!(null), ""),
        ("gemma-2", "hidden_act", json!("gelu"), ""),
        ("gemma-3", "_sliding_window_pattern", json!(3), ""),
        ("gpt-neo", "attention_layers", json!(["global", "local"]), ""),
    ] {
        let folder = Copied::new(name).unwrap();
        let before = checkpoint::open(&folder.path).unwrap().config;
        folder.set(key, value.clone()).unwrap();
        let found = checkpoint::open(&folder.path).map(|found| found.config);
        match (found, named) {
            (Ok(config), "") => assert_eq!(config, before, "{name}: {key}"),
            (Err(error), named) if !named.is_empty() => {
                let text = error.to_string();
                assert!(text.contains(named), "{name}, {key} {value}: {text}");
            }
            (found, _) => panic!("{name}, {key} {value}: {found:?}"),
        }
    }
}

/// Versions of Gemma's class read one or the other of two settings, and one class of Gemma 3 leaves out a cap.
#[test]
fn what_versions_compute_differently_is_refused() {
    let folder = Copied::new("gemma").unwrap();
    folder.set("hidden_act", Value::Null).unwrap();
    let opened = |activation: &str| {
        folder.set("hidden_activation", json!(activation)).unwrap();
        checkpoint::open(&folder.path).map(|found| found.config.mlp).map_err(|error| error.to_string())
    };
    let error = opened("relu").unwrap_err();
    assert!(error.contains("`hidden_activation` should be the same as hidden_act"), "{error}");
    let tanh = opened("gelu_pytorch_tanh").unwrap();
    folder.set("hidden_act", json!("relu")).unwrap();
    assert_ne!(opened("relu").unwrap(), tanh);

    let folder = Copied::new("gemma-3-images").unwrap();
    let config = fs::read_to_string(folder.path.join("config.json")).unwrap();
    let mut text = serde_json::from_str::<Value>(&config).unwrap()["text_config"].take();
    text["final_logit_softcapping"] = json!(30.0);
    folder.set("text_config", text).unwrap();
    let error = checkpoint::open(&folder.path).map(|found| found.origin).unwrap_err().to_string();
    assert!(error.contains("`text_config.final_logit_softcapping` should be null"), "{error}");
}

#[test]
fn an_adapter_beside_a_model_is_refused() {
    let folder = Copied::new("llama-biases").unwrap();
    fs::write(folder.path.join("adapter_config.json"), r#"{"peft_type": "LORA"}"#).unwrap();
    let error = checkpoint::open(&folder.path).map(|found| found.origin).unwrap_err().to_string();
    assert!(error.contains("adapter_config.json") && error.contains("merge"), "{error}");
}

#[test]
fn damaged_files_are_told_by_their_names() {
    let folder = Copied::new("llama-linear-shards").unwrap();
    let shard = folder.path.join("model-00002-of-00004.safetensors");
    let whole = fs::read(&shard).unwrap();
    let refused = |what: [&str; 2]| {
        let text = checkpoint::open(&folder.path).map(|found| found.origin).unwrap_err().to_string();
        assert!(what.iter().all(|what| text.contains(what)), "{text}");
    };
    fs::write(&shard, &whole[..whole.len() - 10]).unwrap();
    refused(["model-00002-of-00004.safetensors", "not a whole safetensors file"]);
    fs::remove_file(&shard).unwrap();
    refused(["model-00002-of-00004.safetensors", "cannot be read"]);
    fs::write(&shard, "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n").unwrap();
    refused(["model-00002-of-00004.safetensors", "Git LFS pointer"]);

    let torch = Copied::new("gpt-neo").unwrap();
    let path = torch.path.join("pytorch_model.bin");
    let whole = fs::read(&path).unwrap();
    for (content, what) in [(&whole[..whole.len() / 2], "zip"), (&b"\x80\x02}q\x00."[..], "before 1.6")] {
        fs::write(&path, content).unwrap();
        let text = checkpoint::open(&torch.path).map(|found| found.origin).unwrap_err().to_string();
        assert!(text.contains("pytorch_model.bin") && text.contains(what), "{text}");
    }
    fs::remove_file(&path).unwrap();
    let text = checkpoint::open(&torch.path).map(|found| found.origin).unwrap_err().to_string();
    assert!(text.contains("pytorch_model.bin") && text.contains("model.safetensors"), "{text}");
}
