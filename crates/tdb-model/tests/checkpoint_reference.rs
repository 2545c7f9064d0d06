//! The reference's folders: what is read is what was written, and what does not fit is refused by name.

#![allow(clippy::unwrap_used)] // also in the helpers of tests

use std::fs;
use std::path::{Path, PathBuf};

use tdb_model::checkpoint::{self, CheckpointError, DictionaryOptions};
use tdb_model::{AutoencoderSite, Config, LatentActivation, Matrix, NamedAutoencoder, Normalization};
use tdb_testkit::checkpoint::{Parts, write};
use tdb_testkit::presets::{self, Preset};
use tdb_testkit::torch::{self, Tensor, Value};

/// A model of the oracle's kind, small in everything but the vocabulary, which is GPT-2's.
fn tiny() -> Preset {
    let mut preset = presets::preset("tiny-a").unwrap();
    preset.shape.d_model = 8;
    preset.shape.n_heads = 2;
    preset.shape.ctx_window = 16;
    preset
}

fn written(parts: Parts) -> (tempfile::TempDir, PathBuf, Preset) {
    let folder = tempfile::tempdir().unwrap();
    let preset = tiny();
    let root = write(&preset, folder.path(), parts).unwrap();
    (folder, root, preset)
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|x| x.to_bits()).collect()
}

fn assert_same(matrix: &Matrix, expected: &[f32]) {
    assert!(bits(&matrix.to_vec()) == bits(expected));
}

fn open_autoencoder(root: &Path, name: &str, config: &Config) -> Result<NamedAutoencoder, CheckpointError> {
    checkpoint::open_autoencoder(&root.join("autoencoders").join(name), None, config)
}

fn save(path: &Path, value: &Value) {
    torch::save(value, &mut fs::File::create(path).unwrap()).unwrap();
}

/// The message of the error, after checking that it names the file.
fn message(error: CheckpointError, file: &str) -> String {
    let text = error.to_string();
    assert!(text.contains(file), "{text} should name {file}");
    text
}

#[test]
fn every_tensor_of_a_model_is_read_bit_for_bit() {
    let (_folder, root, preset) = written(Parts::Model);
    let model = checkpoint::open(&root).unwrap();
    assert_eq!(model.config, Config { tied: false, ..Config::gpt2(2, 8, 2, 32, 16, 50257) });
    for spec in preset.shape.tensors() {
        let expected = spec.values(preset.seed);
        let name = match spec.name.split('.').collect::<Vec<_>>().as_slice() {
            ["tok_embed", last] => format!("embed.{last}"),
            ["pos_embed", last] => format!("positions.{last}"),
            ["unembed", last] => format!("unembed.{last}"),
            ["final_ln", last] => format!("final_norm.{last}"),
            ["xf_layers", layer, "ln_1", last] => format!("blocks.{layer}.attn_norm.{last}"),
            ["xf_layers", layer, "ln_2", last] => format!("blocks.{layer}.mlp_norm.{last}"),
            ["xf_layers", layer, _, part, last] => {
                let part = match *part {
                    "q_proj" => "attn.q",
                    "k_proj" => "attn.k",
                    "v_proj" => "attn.v",
                    "out_proj" => "attn.o",
                    "in_layer" => "mlp.in",
                    "out_layer" => "mlp.out",
                    other => panic!("{other}"),
                };
                format!("blocks.{layer}.{part}.{last}")
            }
            other => panic!("{other:?}"),
        };
        match *model.weights.shape(&name).unwrap() {
            [rows, cols] => assert_same(&model.weights.matrix(&name, [rows, cols]).unwrap(), &expected),
            [len] => assert_eq!(bits(&model.weights.vector(&name, len).unwrap()), bits(&expected)),
            ref other => panic!("{other:?}"),
        }
    }
}

#[test]
fn heads_may_be_narrower_than_the_residual_stream() {
    let (_folder, root, _) = written(Parts::Model);
    let config =
        r#"{"enc": "gpt2", "ctx_window": 16, "d_model": 8, "n_layers": 2, "m_attn": 0.5, "n_heads": 2, "m_mlp": 4}"#;
    fs::write(root.join("config.json"), config).unwrap();
    let text = message(checkpoint::open(&root).unwrap_err(), "xf_layers.0.attn.q_proj.weight");
    assert!(text.contains("[4, 8]") && text.contains("[8, 8]"), "{text}");
    for layer in 0..2 {
        for part in ["q_proj", "k_proj", "v_proj", "out_proj"] {
            let path = |kind: &str| root.join(format!("model_pieces/xf_layers.{layer}.attn.{part}.{kind}.pt"));
            let shape = if part == "out_proj" { [8, 4] } else { [4, 8] };
            save(&path("weight"), &Value::F32(Tensor::contiguous(vec![0.5; 32], &shape)));
            save(&path("bias"), &Value::F32(Tensor::contiguous(vec![0.5; shape[0]], &shape[..1])));
        }
    }
    let config = checkpoint::open(&root).unwrap().config;
    assert_eq!((config.d_model, config.n_heads, config.d_head), (8, 2, 2));
    assert_eq!(config.attention.scale, 0.5f32.sqrt());
}

#[test]
fn every_layout_of_an_autoencoder_is_read() {
    let (_folder, root, preset) = written(Parts::ModelAndAutoencoders);
    let config = checkpoint::open(&root).unwrap().config;
    for ae in &preset.autoencoders {
        let read = open_autoencoder(&root, ae.name, &config).unwrap();
        let (site, activation) = match ae.name {
            "ae-mlp-post-act" => (AutoencoderSite::MlpPostAct, LatentActivation::Relu),
            "ae-resid-delta-attn" => (AutoencoderSite::ResidDeltaAttn, LatentActivation::Relu),
            "ae-resid-delta-attn-topk" => {
                (AutoencoderSite::ResidDeltaAttn, LatentActivation::TopK { k: 12, relu: false })
            }
            "ae-resid-delta-mlp-topk" => (AutoencoderSite::ResidDeltaMlp, LatentActivation::TopK { k: 8, relu: true }),
            _ => (AutoencoderSite::ResidDeltaMlp, LatentActivation::Relu),
        };
        assert_eq!((read.name.as_str(), read.site, read.layers.len()), (ae.name, site, 2));
        for (index, layer) in read.layers.iter().enumerate() {
            let [pre_bias, latent_bias, encoder, decoder] =
                ae.tensors(&preset.shape, index).map(|spec| spec.values(preset.seed));
            assert_eq!(bits(&layer.encoder_pre_bias), bits(&pre_bias));
            assert_eq!(bits(&layer.decoder_bias), bits(&pre_bias));
            assert_eq!(bits(&layer.latent_bias), bits(&latent_bias));
            assert_same(&layer.encoder, &encoder);
            assert_same(&layer.decoder, &decoder);
            assert_eq!(layer.activation, activation);
            let transposed = layer.decoder.row_stride() == 1;
            assert_eq!(transposed, ae.name == "ae-resid-delta-mlp", "the file's strides are kept");
            let dead = layer.activation_frequency.as_ref().map(|f| f.iter().filter(|&&x| x == 0.0).count());
            let expected = match ae.name {
                "ae-mlp-post-act" => None,
                "ae-resid-delta-mlp-dead" => Some(16 + 8 * index),
                _ => Some(0),
            };
            assert_eq!(dead, expected);
        }
    }
}

#[test]
fn a_site_has_to_be_known_and_to_fit() {
    let (_folder, root, _) = written(Parts::ModelAndAutoencoders);
    let config = checkpoint::open(&root).unwrap().config;
    let folder = root.join("autoencoders").join("mine");
    fs::rename(root.join("autoencoders").join("ae-resid-delta-mlp"), &folder).unwrap();
    let text = message(checkpoint::open_autoencoder(&folder, None, &config).unwrap_err(), "mine");
    assert!(text.contains("resid_delta_attn") && text.contains("site=NAME"), "{text}");
    let site = Some(AutoencoderSite::ResidDeltaMlp);
    assert_eq!(checkpoint::open_autoencoder(&folder, site, &config).unwrap().n_latents(), 256);
    let site = Some(AutoencoderSite::MlpPostAct);
    let text = message(checkpoint::open_autoencoder(&folder, site, &config).unwrap_err(), ".pt");
    assert!(text.contains("[32]") && text.contains("[8]"), "{text}");
}

#[test]
fn pieces_that_do_not_fit_are_named() {
    let (_folder, root, _) = written(Parts::Model);
    let pieces = root.join("model_pieces");
    let refused = |file: &str| message(checkpoint::open(&root).unwrap_err(), file);

    let piece = pieces.join("xf_layers.1.mlp.in_layer.weight.pt");
    let whole = fs::read(&piece).unwrap();
    save(&piece, &Value::F32(Tensor::contiguous(vec![0.0; 64], &[8, 8])));
    let text = refused("xf_layers.1.mlp.in_layer.weight");
    assert!(text.contains("[32, 8]") && text.contains("[8, 8]"), "{text}");
    save(&piece, &Value::I64(Tensor::contiguous(vec![0; 256], &[32, 8])));
    assert!(refused("xf_layers.1.mlp.in_layer.weight").contains("I64"));
    save(&piece, &Value::OrderedDict(vec![]));
    assert!(refused("xf_layers.1.mlp.in_layer.weight").contains("a dict"));
    fs::remove_file(&piece).unwrap();
    refused("xf_layers.1.mlp.in_layer.weight");
    fs::write(&piece, whole).unwrap();
    checkpoint::open(&root).unwrap();

    save(
        &pieces.join("final_ln.bias.pt"),
        &Value::F32(Tensor::contiguous([&[0.0; 7][..], &[f32::NAN]].concat(), &[8])),
    );
    // The numbers are looked at when they are read.
    let weights = checkpoint::open(&root).unwrap().weights;
    let text = message(weights.vector("final_norm.bias", 8).unwrap_err(), "final_ln.bias");
    assert!(text.contains("NaN at index 7"), "{text}");
    save(&pieces.join("final_ln.bias.pt"), &Value::F32(Tensor::contiguous(vec![0.0; 8], &[8])));
    save(&pieces.join("adapter.pt"), &Value::F32(Tensor::contiguous(vec![0.0; 8], &[8])));
    assert!(refused("model_pieces").contains("`adapter`"));
}

#[test]
fn settings_that_do_not_fit_are_named() {
    let (_folder, root, _) = written(Parts::Model);
    let path = root.join("config.json");
    let good =
        r#"{"enc": "gpt2", "ctx_window": 16, "d_model": 8, "n_layers": 2, "m_attn": 1, "n_heads": 2, "m_mlp": 4}"#;
    fs::write(&path, good).unwrap();
    checkpoint::open(&root).unwrap();
    for (from, to, named) in [
        ("\"gpt2\"", "\"cl100k_base\"", "cl100k_base"),
        ("\"n_heads\": 2", "\"n_heads\": 3", "n_heads"),
        ("\"n_layers\": 2", "\"n_layers\": 0", "n_layers"),
        ("\"n_layers\": 2", "\"n_layers\": 18446744073709551615", "n_layers"),
        ("\"n_layers\": 2", "\"n_layers\": 1000000", "1000000"),
        ("\"n_layers\": 2", "\"n_layers\": 4000", "xf_layers.2."),
        ("\"d_model\": 8", "\"d_model\": \"eight\"", "eight"),
        ("\"m_mlp\": 4", "\"m_mlp\": 1e300", "m_mlp"),
        ("\"m_mlp\": 4", "\"m_mlp\": 4, \"rotary\": true", "rotary"),
        ("\"ctx_window\": 16, ", "", "ctx_window"),
    ] {
        assert!(good.contains(from));
        fs::write(&path, good.replace(from, to)).unwrap();
        let text = checkpoint::open(&root).unwrap_err().to_string();
        assert!(text.contains(named), "{to}: {text}");
    }
    fs::remove_file(&path).unwrap();
    let text = message(checkpoint::open(&root).unwrap_err(), "tiny-a");
    assert!(text.contains("looked for") && text.contains("model_pieces"), "{text}");
}

#[test]
fn activations_are_never_guessed() {
    let (_folder, root, _) = written(Parts::Model);
    let config = checkpoint::open(&root).unwrap().config;
    let folder = root.join("autoencoders").join("resid_delta_attn");
    fs::create_dir_all(&folder).unwrap();
    let numbers = |shape: &[usize]| Value::F32(Tensor::contiguous(vec![0.5; shape.iter().product()], shape));
    let weights = || -> Vec<(String, Value)> {
        vec![
            ("pre_bias".into(), numbers(&[8])),
            ("latent_bias".into(), numbers(&[5])),
            ("encoder.weight".into(), numbers(&[5, 8])),
            ("decoder.weight".into(), numbers(&[8, 5])),
        ]
    };
    let text = |s: &str| Value::Str(s.into());
    let load = |more: Vec<(&str, Value)>| {
        let entries: Vec<_> = weights().into_iter().chain(more.into_iter().map(|(k, v)| (k.into(), v))).collect();
        for layer in 0..2 {
            save(&folder.join(format!("{layer}.pt")), &Value::OrderedDict(entries.clone()));
        }
        checkpoint::open_autoencoder(&folder, None, &config).map(|ae| ae.layers[0].activation.clone())
    };
    let topk = |k: Value, post: &str| {
        let state = Value::Dict(vec![("k".into(), k), ("postact_fn".into(), text(post))]);
        load(vec![("activation", text("TopK")), ("activation_state_dict", state)])
    };
    let last = || ("stats_last_nonzero", Value::I64(Tensor::contiguous(vec![0; 5], &[5])));
    assert_eq!(load(vec![last()]).unwrap(), LatentActivation::Relu);
    assert_eq!(load(vec![("activation", text("Identity"))]).unwrap(), LatentActivation::Identity);
    assert_eq!(topk(Value::Int(5), "ReLU").unwrap(), LatentActivation::TopK { k: 5, relu: true });

    let named = |result: Result<LatentActivation, CheckpointError>, what: &str| {
        let text = message(result.unwrap_err(), ".pt");
        assert!(text.contains(what), "{text}");
    };
    // Nothing but the name tells that the released ones of version 5 read normalised inputs.
    assert!(topk(Value::Int(2), "ReLU").is_ok());
    let version_5 = folder.with_file_name("resid_delta_attn_v5_32k");
    fs::rename(&folder, &version_5).unwrap();
    let normalization = |said: Option<Normalization>, folder: &Path| {
        let options = DictionaryOptions { normalization: said, ..Default::default() };
        checkpoint::open_dictionary(folder, &options, &config).unwrap().layers[0].normalization
    };
    assert_eq!(normalization(None, &version_5), Normalization::LAYER_NORM);
    assert_eq!(normalization(Some(Normalization::None), &version_5), Normalization::None);
    fs::rename(&version_5, &folder).unwrap();
    assert_eq!(normalization(None, &folder), Normalization::None);
    assert_eq!(normalization(Some(Normalization::LAYER_NORM), &folder), Normalization::LAYER_NORM);

    named(load(vec![]), "`activation` is missing");
    named(load(vec![("latents_mean_square", numbers(&[5])), last()]), "`activation` is missing");
    named(load(vec![("activation", text("GELU"))]), "GELU");
    named(load(vec![("activation", Value::Int(3))]), "3");
    named(load(vec![("activation", text("ReLU")), ("encoder.bias", numbers(&[5]))]), "encoder.bias");
    named(load(vec![("activation", text("TopK"))]), "activation_state_dict.k");
    named(topk(Value::Int(0), "ReLU"), "k");
    named(topk(Value::Int(6), "ReLU"), "from 1 to 5");
    named(topk(text("2"), "ReLU"), "\"2\"");
    named(topk(Value::Int(2), "Tanh"), "Tanh");
}
