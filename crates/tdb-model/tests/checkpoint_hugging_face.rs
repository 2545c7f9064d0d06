//! Hugging Face's folders of GPT-2, and our own autoencoder files.

#![allow(clippy::unwrap_used)] // also in the helpers of tests

use std::fs;

use crate::folder::{Folder, Named, tokenizer, write_tensors};
use safetensors::tensor::Dtype;
use serde_json::{Value, json};
use tdb_model::checkpoint::{self, Checkpoint, CheckpointError, Precision, drop_dead_latents, hugging_face, native};
use tdb_model::config::{Activation, MlpKind};
use tdb_model::{
    AutoencoderSite, AutoencoderWeights, Config, ForwardOptions, LatentActivation, Matrix, NamedAutoencoder, Tokenizer,
    Transformer,
};

const LAYERS: usize = 2;
const D: usize = 4;
const FF: usize = 6;
const CTX: usize = 5;
const VOCAB: usize = 9;

/// Every number is different and says where it should be found again.
fn tensors(prefix: &str) -> Vec<Named> {
    let mut shapes = vec![("wte.weight".to_owned(), vec![VOCAB, D]), ("wpe.weight".to_owned(), vec![CTX, D])];
    for layer in 0..LAYERS {
        for (part, shape) in [
            ("ln_1.weight", vec![D]),
            ("ln_1.bias", vec![D]),
            ("attn.c_attn.weight", vec![D, 3 * D]),
            ("attn.c_attn.bias", vec![3 * D]),
            ("attn.c_proj.weight", vec![D, D]),
            ("attn.c_proj.bias", vec![D]),
            ("ln_2.weight", vec![D]),
            ("ln_2.bias", vec![D]),
            ("mlp.c_fc.weight", vec![D, FF]),
            ("mlp.c_fc.bias", vec![FF]),
            ("mlp.c_proj.weight", vec![FF, D]),
            ("mlp.c_proj.bias", vec![D]),
        ] {
            shapes.push((format!("h.{layer}.{part}"), shape));
        }
    }
    shapes.push(("ln_f.weight".to_owned(), vec![D]));
    shapes.push(("ln_f.bias".to_owned(), vec![D]));
    let numbers = |at: usize, len: usize| (0..len).map(|i| at as f32 + i as f32 / 32.0).collect();
    let named = |(at, (name, shape)): (usize, (String, Vec<usize>))| {
        let len = shape.iter().product();
        (format!("{prefix}{name}"), shape, numbers(at, len))
    };
    shapes.into_iter().enumerate().map(named).collect()
}

fn config() -> Value {
    json!({
        "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "activation_function": "gelu_new", "n_layer": LAYERS,
        "n_head": 2, "n_embd": D, "n_inner": FF, "n_positions": CTX, "n_ctx": CTX, "vocab_size": VOCAB,
        "layer_norm_epsilon": 1e-5, "reorder_and_upcast_attn": true, "attn_pdrop": 0.1
    })
}

fn written(tensors: &[Named], dtype: Dtype) -> Folder {
    Folder::new("a-gpt2", tensors, dtype, &config(), &tokenizer())
}

/// The tensor whose number is `at`, element by element, transposed if it is a `Conv1D`.
fn assert_holds(matrix: &Matrix, at: usize, index: impl Fn(usize, usize) -> usize) {
    for row in 0..matrix.rows() {
        let expected: Vec<f32> = (0..matrix.cols()).map(|col| at as f32 + index(row, col) as f32 / 32.0).collect();
        assert_eq!(matrix.row(row), expected);
    }
}

fn assert_all(checkpoint: &Checkpoint) {
    assert_eq!(checkpoint.config, shape());
    let matrix = |name: &str, shape: [usize; 2], at: usize, index: &dyn Fn(usize, usize) -> usize| {
        assert_holds(&checkpoint.weights.matrix(name, shape).unwrap(), at, index);
    };
    let vector = |name: &str, len: usize, at: usize, from: usize| {
        let expected: Vec<f32> = (from..from + len).map(|i| at as f32 + i as f32 / 32.0).collect();
        assert_eq!(checkpoint.weights.vector(name, len).unwrap(), expected, "{name}");
    };
    let norm = |name: &str, at: usize| {
        vector(&format!("{name}.weight"), D, at, 0);
        vector(&format!("{name}.bias"), D, at + 1, 0);
    };
    matrix("embed.weight", [VOCAB, D], 0, &|r, c| r * D + c);
    matrix("positions.weight", [CTX, D], 1, &|r, c| r * D + c);
    for (layer, at) in [2, 14].into_iter().enumerate() {
        let name = |part: &str| format!("blocks.{layer}.{part}");
        norm(&name("attn_norm"), at);
        for (index, part) in ["q", "k", "v"].into_iter().enumerate() {
            let part = name(&format!("attn.{part}"));
            matrix(&format!("{part}.weight"), [D, D], at + 2, &|out, input| input * 3 * D + index * D + out);
            vector(&format!("{part}.bias"), D, at + 3, index * D);
        }
        matrix(&name("attn.o.weight"), [D, D], at + 4, &|out, input| input * D + out);
        vector(&name("attn.o.bias"), D, at + 5, 0);
        norm(&name("mlp_norm"), at + 6);
        matrix(&name("mlp.in.weight"), [FF, D], at + 8, &|out, input| input * FF + out);
        vector(&name("mlp.in.bias"), FF, at + 9, 0);
        matrix(&name("mlp.out.weight"), [D, FF], at + 10, &|out, input| input * D + out);
        vector(&name("mlp.out.bias"), D, at + 11, 0);
    }
    norm("final_norm", 26);
    assert!(!checkpoint.weights.contains("unembed.weight") && !checkpoint.weights.contains("wte.weight"));
}

#[test]
fn names_with_and_without_prefix_and_all_float_types_are_read() {
    for (prefix, dtype) in [
        ("", Dtype::F32),
        ("transformer.", Dtype::F32),
        ("", Dtype::F16),
        ("transformer.", Dtype::BF16),
        ("", Dtype::F64),
    ] {
        let mut tensors = tensors(prefix);
        if dtype == Dtype::BF16 {
            // Eight bits of precision: keep the numbers representable.
            tensors.iter_mut().for_each(|(_, _, numbers)| numbers.iter_mut().for_each(|x| *x = x.trunc()));
            let weights = written(&tensors, dtype).open().weights;
            assert_eq!(weights.matrix("blocks.1.mlp.out.weight", [D, FF]).unwrap().row(0), [24.0; FF]);
            continue;
        }
        let checkpoint = written(&tensors, dtype).open();
        assert_all(&checkpoint);
        let query = checkpoint.weights.matrix("blocks.0.attn.q.weight", [D, D]).unwrap();
        assert_eq!(query.row_stride(), 1, "a Conv1D's weight keeps the file's order");
        // In the file, a row is as long as those of query, key and value together; a copy has only its own numbers.
        assert_eq!(query.col_stride(), if dtype == Dtype::F32 { 3 * D } else { D });
    }
    let model = checkpoint::open(&written(&tensors(""), Dtype::F32).path).unwrap();
    assert!(model.origin.contains("a-gpt2"));
    assert_eq!(model.tokenizer.encode("mary gave"), [0, 1]);
}

#[test]
fn masks_are_ignored_and_anything_else_is_refused() {
    let mut all = tensors("transformer.");
    all.push(("transformer.h.1.attn.bias".into(), vec![1, 1, CTX, CTX], vec![1.0; CTX * CTX]));
    all.push(("transformer.h.1.attn.masked_bias".into(), vec![], vec![-10000.0]));
    assert_all(&written(&all, Dtype::F32).open());
    for name in [
        "transformer.h.2.ln_1.bias",
        "transformer.h.01.ln_1.bias",
        "transformer.h.0.crossattention.c_attn.weight",
        "transformer.h.0.ln_1.gain",
        "scores.weight",
        "wte.weight",
        "h.0.attn.bias",
    ] {
        let mut more = all.clone();
        more.push((name.into(), vec![2], vec![0.0; 2]));
        written(&more, Dtype::F32).refused("model.safetensors", name);
    }
}

#[test]
fn the_unembedding_is_tied_unless_the_settings_say_otherwise() {
    let other: Vec<f32> = (0..VOCAB * D).map(|i| -(i as f32)).collect();
    let with = |numbers: &[f32]| {
        let mut tensors = tensors("transformer.");
        tensors.push(("lm_head.weight".into(), vec![VOCAB, D], numbers.to_vec()));
        written(&tensors, Dtype::F32)
    };
    assert_all(&with(&tensors("")[0].2).open());
    let folder = with(&other);
    folder.refused("model.safetensors", "lm_head.weight");
    let mut config = config();
    config["tie_word_embeddings"] = json!(false);
    fs::write(folder.path.join("config.json"), config.to_string()).unwrap();
    let checkpoint = folder.open();
    assert!(!checkpoint.config.tied);
    assert_eq!(checkpoint.weights.matrix("unembed.weight", [VOCAB, D]).unwrap().to_vec(), other);
    let folder = written(&tensors("transformer."), Dtype::F32);
    fs::write(folder.path.join("config.json"), config.to_string()).unwrap();
    folder.refused("model.safetensors", "lm_head.weight");
}

#[test]
fn shards_are_read_through_their_index() {
    let all = tensors("transformer.");
    let folder = written(&all, Dtype::F32);
    fs::remove_file(folder.path.join("model.safetensors")).unwrap();
    folder.refused("a-gpt2", "model.safetensors.index.json");
    let (first, second) = all.split_at(11);
    let names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    write_tensors(&folder.path.join(names[0]), first, Dtype::F32);
    write_tensors(&folder.path.join(names[1]), second, Dtype::F32);
    let mut map = serde_json::Map::new();
    for (part, name) in [first, second].into_iter().zip(names) {
        map.extend(part.iter().map(|(key, _, _)| (key.clone(), json!(name))));
    }
    let write_index = |map: &serde_json::Map<String, Value>| {
        let index = json!({"metadata": {"total_size": 1}, "weight_map": map});
        fs::write(folder.path.join("model.safetensors.index.json"), index.to_string()).unwrap();
    };
    write_index(&map);
    assert_all(&folder.open());
    for (key, value, what) in [
        ("transformer.ln_f.bias", json!(names[0]), "transformer.ln_f.bias"),
        ("transformer.more", json!(names[0]), "transformer.more"),
        ("transformer.ln_f.bias", json!("../a-gpt2/model-00002-of-00002.safetensors"), "../a-gpt2"),
        ("transformer.ln_f.bias", json!(3), "3"),
        ("transformer.ln_f.bias", json!(".."), ".."),
    ] {
        let mut wrong = map.clone();
        wrong.insert(key.into(), value);
        write_index(&wrong);
        folder.refused("a-gpt2", what);
    }
}

#[test]
fn settings_that_change_the_computation_are_refused() {
    let folder = written(&tensors(""), Dtype::F32);
    let path = folder.path.join("config.json");
    for (key, value) in [
        ("activation_function", json!("quick_gelu")),
        ("layer_norm_epsilon", json!(0.0)),
        ("layer_norm_epsilon", json!(1e-60)),
        ("layer_norm_epsilon", json!("small")),
        ("scale_attn_weights", json!(1)),
        ("scale_attn_by_inverse_layer_idx", json!("yes")),
        ("add_cross_attention", json!(true)),
        ("tie_word_embeddings", json!("yes")),
        ("model_type", json!("openai-gpt")),
        ("n_head", json!(3)),
        ("n_embd", json!(0)),
        ("n_embd", json!(1_u64 << 60)),
        ("n_layer", json!(-2)),
        ("vocab_size", json!(8)),
        ("rotary", json!(false)),
        ("quantization_config", json!({"bits": 8})),
        ("pruned_heads", json!({"0": [1]})),
        ("is_encoder_decoder", json!(true)),
    ] {
        let mut config = config();
        config[key] = value.clone();
        fs::write(&path, config.to_string()).unwrap();
        let what = if key == "vocab_size" { "wte.weight" } else { key };
        folder.refused("a-gpt2", what);
    }
    for (key, value) in
        [("n_positions", Value::Null), ("n_inner", Value::Null), ("n_layer", json!(1)), ("n_layer", json!(3))]
    {
        let mut config = config();
        config[key] = value;
        fs::write(&path, config.to_string()).unwrap();
        match key {
            "n_positions" => assert_all(&folder.open()),
            "n_inner" => folder.refused("model.safetensors", "[4, 16]"),
            _ => folder.refused("model.safetensors", "h."),
        }
    }
    fs::write(&path, config().to_string()).unwrap();
    let mut large = tokenizer();
    large["model"]["vocab"]["john"] = json!(VOCAB);
    fs::write(folder.path.join("tokenizer.json"), large.to_string()).unwrap();
    // A token that the model has no row for is refused where it is used.
    let Checkpoint { config, weights, tokenizer, .. } = folder.open();
    let model = Transformer::load(config, weights).unwrap();
    let text = model.forward(&tokenizer.encode("mary john"), ForwardOptions::default()).map(|_| ()).unwrap_err();
    assert!(text.to_string().contains("token 9 is outside the vocabulary of 9"), "{text}");
    fs::remove_file(folder.path.join("tokenizer.json")).unwrap();
    folder.refused("tokenizer.json", "");
    fs::write(&path, "{\"n\": 1}").unwrap();
    folder.refused("a-gpt2", "looked for");
    fs::write(&path, "[1]").unwrap();
    folder.refused("config.json", "not a JSON object");
}

#[test]
fn settings_reach_the_configuration() {
    let folder = written(&tensors(""), Dtype::F32);
    let open = |changes: &[(&str, Value)]| {
        let mut config = config();
        changes.iter().for_each(|(key, value)| config[*key] = value.clone());
        fs::write(folder.path.join("config.json"), config.to_string()).unwrap();
        folder.open().config
    };
    let unchanged = [
        ("rotary", Value::Null),
        ("pruned_heads", json!({})),
        ("task_specific_params", json!({"text-generation": {"do_sample": true}})),
        ("scale_attn_weights", json!(true)),
        ("tie_word_embeddings", json!(true)),
        ("activation_function", Value::Null),
        ("layer_norm_epsilon", Value::Null),
    ];
    assert_eq!(open(&unchanged), shape());
    for (name, activation) in [("gelu", Activation::Gelu), ("relu", Activation::Relu), ("silu", Activation::Silu)] {
        let expected = Config { mlp: MlpKind::Plain(activation), ..shape() };
        assert_eq!(open(&[("activation_function", json!(name))]), expected);
    }
    assert_eq!(open(&[("layer_norm_epsilon", json!(1e-6))]), Config { norm_epsilon: 1e-6, ..shape() });
    let mut unscaled = shape();
    unscaled.attention.scale = 1.0;
    let mut by_layer = shape();
    by_layer.attention.inverse_layer_scale = true;
    assert_eq!(open(&[("scale_attn_by_inverse_layer_idx", json!(true))]), by_layer);
    assert_eq!(open(&[("scale_attn_weights", json!(false))]), unscaled);
}

#[test]
fn damaged_files_are_refused() {
    let folder = written(&tensors(""), Dtype::F32);
    let path = folder.path.join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    for len in [0, 7, 8, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..len]).unwrap();
        folder.refused("model.safetensors", "not a whole safetensors file");
    }
    let mut huge = whole.clone();
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    fs::write(&path, &huge).unwrap();
    folder.refused("model.safetensors", "not a whole safetensors file");
    let mut not_a_number = whole.clone();
    not_a_number[whole.len() - 6..whole.len() - 4].copy_from_slice(&[0xff, 0x7f]);
    fs::write(&path, &not_a_number).unwrap();
    // The numbers are looked at when they are read.
    let text = folder.open().weights.matrix("embed.weight", [VOCAB, D]).unwrap_err().to_string();
    assert!(text.contains("model.safetensors") && text.contains("`wte.weight` holds NaN at index"), "{text}");

    let mut integers = tensors("");
    integers.truncate(1);
    write_tensors(&path, &integers, Dtype::U8);
    folder.refused("model.safetensors", "U8");
}

#[test]
fn a_model_in_memory_is_the_same_model() {
    let folder = written(&tensors("transformer."), Dtype::F32);
    let weights: &'static [u8] = fs::read(folder.path.join("model.safetensors")).unwrap().leak();
    let read = |config: &Value| {
        let (config, tokenizer) = (config.to_string(), tokenizer().to_string());
        hugging_face::from_bytes("built-in", config.as_bytes(), weights, tokenizer.as_bytes())
    };
    let model = read(&config()).unwrap();
    assert_all(&model);
    let mut wrong = config();
    wrong["n_layer"] = json!(5);
    let text = read(&wrong).unwrap_err().to_string();
    assert!(text.contains("built-in"), "{text}");
}

fn shape() -> Config {
    Config { tied: true, ..Config::gpt2(LAYERS, D, 2, FF, CTX, VOCAB) }
}

/// An autoencoder of seven latents with numbers that 16 bits hold exactly.
fn autoencoder(site: AutoencoderSite, activation: &LatentActivation) -> NamedAutoencoder {
    let width = site.width(&shape());
    let numbers = |layer: usize, from: usize, len: usize| -> Vec<f32> {
        (from..from + len).map(|i| (i as f32 - 20.0) / 8.0 + layer as f32).collect()
    };
    let layer = |layer: usize| AutoencoderWeights {
        normalization: Default::default(),
        encoder_pre_bias: numbers(layer, 1, width),
        encoder: Matrix::from_vec(7, width, numbers(layer, 2, 7 * width)),
        latent_bias: numbers(layer, 3, 7),
        activation: activation.clone(),
        decoder: Matrix::from_vec(width, 7, numbers(layer, 4, 7 * width)),
        decoder_bias: numbers(layer, 1, width),
        skip: None,
        activation_frequency: Some(vec![0.5; 7]),
    };
    NamedAutoencoder::of_every_layer("mine", site, (0..LAYERS).map(layer).collect())
}

pub fn assert_same(left: &NamedAutoencoder, right: &NamedAutoencoder) {
    assert_eq!((&left.name, left.site, left.layers.len()), (&right.name, right.site, right.layers.len()));
    for (left, right) in left.layers.iter().zip(&right.layers) {
        assert_eq!(left.encoder_pre_bias, right.encoder_pre_bias);
        assert_eq!(left.encoder.to_vec(), right.encoder.to_vec());
        assert_eq!(left.latent_bias, right.latent_bias);
        assert_eq!(left.activation, right.activation);
        assert_eq!((left.decoder.rows(), left.decoder.cols()), (right.decoder.rows(), right.decoder.cols()));
        assert_eq!(left.decoder.to_vec(), right.decoder.to_vec());
        assert_eq!(left.decoder_bias, right.decoder_bias);
        assert_eq!(left.activation_frequency, right.activation_frequency);
    }
}

#[test]
fn our_autoencoders_come_back_as_they_were() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("mine");
    for site in [AutoencoderSite::MlpPostAct, AutoencoderSite::ResidDeltaMlp, AutoencoderSite::ResidDeltaAttn] {
        for activation in [
            LatentActivation::Relu,
            LatentActivation::Identity,
            LatentActivation::TopK { k: 3, relu: true },
            LatentActivation::TopK { k: 7, relu: false },
            LatentActivation::JumpRelu { threshold: vec![0.25; 7] },
        ] {
            for precision in [Precision::F32, Precision::F16] {
                let written = autoencoder(site, &activation);
                native::save_autoencoder(&folder, &written, precision).unwrap();
                let read = checkpoint::open_autoencoder(&folder, None, &shape()).unwrap();
                assert_same(&read, &written);
                let files: Vec<&'static [u8]> = (0..LAYERS)
                    .map(|layer| &*fs::read(folder.join(format!("{layer}.safetensors"))).unwrap().leak())
                    .collect();
                assert_same(&native::autoencoder_from_bytes("mine", &files, &shape()).unwrap(), &written);
                assert!(native::autoencoder_from_bytes("mine", &files[1..], &shape()).is_err());
            }
        }
    }
    let bytes = |autoencoder: &NamedAutoencoder| {
        native::save_autoencoder(&folder, autoencoder, Precision::F32).unwrap();
        fs::read(folder.join("1.safetensors")).unwrap()
    };
    let same = autoencoder(AutoencoderSite::MlpPostAct, &LatentActivation::TopK { k: 3, relu: true });
    assert_eq!(bytes(&same), bytes(&same));
    let other = AutoencoderSite::ResidDeltaMlp;
    let text = checkpoint::open_autoencoder(&folder, Some(other), &shape()).unwrap_err().to_string();
    assert!(text.contains("mlp_post_act"), "{text}");
    let deeper = Config { n_layers: 3, ..shape() };
    assert_eq!(checkpoint::open_autoencoder(&folder, None, &deeper).unwrap().indices, [0, 1]);
    let shallower = Config { n_layers: 1, ..shape() };
    let text = checkpoint::open_autoencoder(&folder, None, &shallower).unwrap_err().to_string();
    assert!(text.contains("1.safetensors") && text.contains("layer"), "{text}");
    let wider = Config { d_ff: 8, ..shape() };
    let text = checkpoint::open_autoencoder(&folder, None, &wider).unwrap_err().to_string();
    assert!(text.contains("[8]") && text.contains("[6]"), "{text}");
}

#[test]
fn our_autoencoders_say_what_does_not_fit() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("mine");
    let topk = autoencoder(AutoencoderSite::ResidDeltaMlp, &LatentActivation::TopK { k: 3, relu: true });
    native::save_autoencoder(&folder, &topk, Precision::F32).unwrap();
    let path = folder.join("1.safetensors");
    let whole = fs::read(&path).unwrap();
    for (from, to, what) in [
        ("\"k\":\"3\"", "\"k\":\"8\"", "from 1 to 7"),
        ("\"k\":\"3\"", "\"k\":\"x\"", "\"x\""),
        ("\"k\":\"3\"", "\"l\":\"3\"", "`k` is missing"),
        ("\"topk\"", "\"tanh\"", "tanh"),
        ("\"layer\":\"1\"", "\"layer\":\"0\"", "layer"),
        ("\"version\":\"1\"", "\"version\":\"3\"", "version"),
        ("tdb-autoencoder", "xyz-autoencoder", "xyz-autoencoder"),
        ("resid_delta_mlp", "resid_delta_all", "resid_delta_all"),
        ("\"post_activation\":\"relu\"", "\"post_activation\":\"tanh\"", "tanh"),
        ("activation_frequency", "activation_frequencx", "activation_frequencx"),
    ] {
        let at = whole.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        let mut changed = whole.clone();
        changed[at..at + from.len()].copy_from_slice(to.as_bytes());
        fs::write(&path, &changed).unwrap();
        let text = checkpoint::open_autoencoder(&folder, None, &shape()).unwrap_err().to_string();
        assert!(text.contains("1.safetensors") && text.contains(what), "{to}: {text}");
    }
    let narrow = autoencoder(AutoencoderSite::ResidDeltaMlp, &LatentActivation::Relu);
    let mut narrow = narrow.layers[1].clone();
    narrow.encoder = narrow.encoder.row_range(0..5);
    narrow.decoder = narrow.decoder.col_range(0..5);
    narrow.latent_bias.truncate(5);
    narrow.activation_frequency = None;
    let mixed = NamedAutoencoder { layers: vec![topk.layers[0].clone(), narrow], ..topk };
    native::save_autoencoder(&folder, &mixed, Precision::F32).unwrap();
    let text = checkpoint::open_autoencoder(&folder, None, &shape()).unwrap_err().to_string();
    assert!(text.contains("layer 1") && text.contains('5') && text.contains('7'), "{text}");
}

#[test]
fn dead_latents_are_dropped_from_the_end_and_nothing_else_changes() {
    let with = |frequencies: [Option<[f32; 7]>; LAYERS], activation: LatentActivation| {
        let mut autoencoder = autoencoder(AutoencoderSite::ResidDeltaAttn, &activation);
        for (layer, frequency) in autoencoder.layers.iter_mut().zip(frequencies) {
            layer.activation_frequency = frequency.map(Vec::from);
        }
        autoencoder
    };
    let [a, b] = [[0.1, 0.1, 0.0, 0.1, 0.0, 1e-9, 0.0], [0.1, 0.1, 0.1, 0.1, 0.1, 0.0, 0.0]];
    let threshold = LatentActivation::JumpRelu { threshold: (0..7).map(|x| x as f32).collect() };
    let mut changed = with([Some(a), Some(b)], threshold);
    let before = changed.clone();
    assert_eq!(drop_dead_latents(&mut changed), 2);
    assert_eq!(changed.n_latents(), 5);
    for (new, old) in changed.layers.iter().zip(&before.layers) {
        assert_eq!(new.encoder_pre_bias, old.encoder_pre_bias);
        assert_eq!(new.decoder_bias, old.decoder_bias);
        assert_eq!(new.latent_bias, old.latent_bias[..5]);
        assert_eq!(new.activation_frequency.as_deref(), Some(&old.activation_frequency.as_ref().unwrap()[..5]));
        assert_eq!((new.encoder.rows(), new.decoder.cols()), (5, 5));
        for latent in 0..5 {
            assert_eq!(new.encoder.row(latent), old.encoder.row(latent));
            assert_eq!(new.decoder.transpose().row(latent), old.decoder.transpose().row(latent));
        }
        assert_eq!(new.activation, LatentActivation::JumpRelu { threshold: vec![0.0, 1.0, 2.0, 3.0, 4.0] });
    }
    let mut topk = with([Some(a), Some(b)], LatentActivation::TopK { k: 6, relu: false });
    assert_eq!(drop_dead_latents(&mut topk), 2);
    assert_eq!(topk.layers[0].activation, LatentActivation::TopK { k: 5, relu: false });

    for frequencies in [[Some(a), None], [Some(a), Some([0.0; 7])], [Some(a), Some([0.1; 7])]] {
        let mut kept = with(frequencies, LatentActivation::Relu);
        assert_eq!(drop_dead_latents(&mut kept), 0);
        assert_eq!(kept.n_latents(), 7);
    }
}

#[test]
fn folders_of_no_layout_say_what_was_looked_for() {
    let temp = tempfile::tempdir().unwrap();
    let error = checkpoint::open(temp.path()).unwrap_err();
    assert!(matches!(error, CheckpointError::NoLayout { .. }));
    let text = error.to_string();
    assert!(text.contains("an empty folder") && text.contains("model.safetensors"), "{text}");
    fs::write(temp.path().join("weights.bin"), "x").unwrap();
    let text = checkpoint::open_autoencoder(temp.path(), None, &shape()).unwrap_err().to_string();
    assert!(text.contains("weights.bin") && text.contains("cfg.json"), "{text}");
    let text = checkpoint::open(&temp.path().join("none")).unwrap_err().to_string();
    assert!(text.contains("no folder"), "{text}");
    assert!(Tokenizer::from_file(temp.path()).is_err());
}
