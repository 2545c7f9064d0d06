//! SAELens' folders of all versions, in and out.

#![allow(clippy::unwrap_used)] // also in the helpers of tests

use std::fs;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use serde_json::{Value, json};
use tdb_model::checkpoint::{self, DictionaryOptions, sae_lens};
use tdb_model::{AutoencoderSite, Config, LatentActivation, NamedAutoencoder, Normalization};

fn shape() -> Config {
    Config::gpt2(2, 4, 2, 6, 5, 9)
}

fn numbers(from: usize, len: usize) -> Vec<f32> {
    (from..from + len).map(|i| i as f32 / 4.0).collect()
}

fn write_tensors(path: &Path, tensors: &[(&str, Vec<usize>, Vec<f32>)]) {
    let data: Vec<Vec<u8>> = tensors.iter().map(|(_, _, x)| x.iter().flat_map(|x| x.to_le_bytes()).collect()).collect();
    let views = tensors
        .iter()
        .zip(&data)
        .map(|((name, shape, _), data)| (*name, TensorView::new(Dtype::F32, shape.clone(), data).unwrap()));
    serialize_to_file(views, None, path).unwrap();
}

/// One layer's folder with 5 latents, and more tensors if asked for.
fn write_layer(folder: &Path, config: &Value, width: usize, more: &[(&'static str, Vec<usize>, Vec<f32>)]) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("cfg.json"), config.to_string()).unwrap();
    let mut tensors = vec![
        ("W_enc", vec![width, 5], numbers(1, 5 * width)),
        ("W_dec", vec![5, width], numbers(2, 5 * width)),
        ("b_enc", vec![5], numbers(3, 5)),
        ("b_dec", vec![width], numbers(4, width)),
    ];
    tensors.extend_from_slice(more);
    write_tensors(&folder.join("sae_weights.safetensors"), &tensors);
}

/// `cfg.json` as versions 3 to 5 write it.
fn version_5(hook: &str, layer: usize, width: usize) -> Value {
    json!({
        "architecture": "standard", "d_in": width, "d_sae": 5, "activation_fn_str": "relu", "activation_fn_kwargs": {},
        "apply_b_dec_to_input": true, "finetuning_scaling_factor": false, "context_size": 128, "model_name": "gpt2-small",
        "hook_name": hook, "hook_layer": layer, "hook_head_index": null, "prepend_bos": true, "dataset_path": "x",
        "dataset_trust_remote_code": true, "normalize_activations": "none", "dtype": "torch.float32", "device": "cpu",
        "sae_lens_training_version": "4.0.0", "neuronpedia_id": null, "model_from_pretrained_kwargs": {},
        "seqpos_slice": [null]
    })
}

/// `cfg.json` as version 6 writes it.
fn version_6(architecture: &str, hook: &str, width: usize) -> Value {
    json!({
        "architecture": architecture, "d_in": width, "d_sae": 5, "dtype": "float32", "device": "cpu",
        "apply_b_dec_to_input": true, "normalize_activations": "none", "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": "6.12.1", "sae_lens_training_version": "6.12.1", "model_name": "gpt2", "hook_name": hook,
            "hook_head_index": null, "context_size": 128, "prepend_bos": true
        }
    })
}

struct Folder {
    _temp: tempfile::TempDir,
    path: PathBuf,
}

impl Folder {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("saes");
        fs::create_dir(&path).unwrap();
        Folder { _temp: temp, path }
    }

    fn open(&self) -> Result<NamedAutoencoder, String> {
        checkpoint::open_autoencoder(&self.path, None, &shape()).map_err(|error| error.to_string())
    }
}

/// Writes both layers with the config that `change` makes of the usual one, and reads them.
fn read_with(
    change: impl Fn(&mut Value),
    more: &[(&'static str, Vec<usize>, Vec<f32>)],
) -> Result<NamedAutoencoder, String> {
    let folder = Folder::new();
    for layer in 0..2 {
        let hook = format!("blocks.{layer}.hook_mlp_out");
        let mut config = version_5(&hook, layer, 4);
        change(&mut config);
        write_layer(&folder.path.join(&hook), &config, 4, more);
    }
    folder.open()
}

#[test]
fn hooks_become_sites_and_matrices_are_transposed() {
    for (hook, site, width) in [
        ("hook_mlp_out", AutoencoderSite::ResidDeltaMlp, 4),
        ("hook_attn_out", AutoencoderSite::ResidDeltaAttn, 4),
        ("mlp.hook_post", AutoencoderSite::MlpPostAct, 6),
    ] {
        let folder = Folder::new();
        // The folders' names say nothing, and their order is not that of the layers.
        for (name, layer) in [("a", 1), ("b", 0)] {
            let hook = format!("blocks.{layer}.{hook}");
            let config = if layer == 0 { version_5(&hook, layer, width) } else { version_6("standard", &hook, width) };
            write_layer(&folder.path.join(name), &config, width, &[]);
        }
        let read = folder.open().unwrap();
        assert_eq!((read.name.as_str(), read.site, read.layers.len()), ("saes", site, 2));
        for layer in &read.layers {
            assert_eq!(layer.activation, LatentActivation::Relu);
            assert_eq!(layer.encoder.transpose().to_vec(), numbers(1, 5 * width));
            assert_eq!(layer.decoder.transpose().to_vec(), numbers(2, 5 * width));
            assert_eq!(layer.latent_bias, numbers(3, 5));
            assert_eq!(layer.decoder_bias, numbers(4, width));
            assert_eq!(layer.encoder_pre_bias, numbers(4, width));
            assert_eq!(layer.activation_frequency, None);
        }
    }
}

#[test]
fn settings_decide_what_is_computed() {
    let bias = |read: NamedAutoencoder| read.layers[1].encoder_pre_bias.clone();
    assert_eq!(bias(read_with(|config| config["apply_b_dec_to_input"] = json!(false), &[]).unwrap()), [0.0; 4]);
    assert_eq!(bias(read_with(|config| config["apply_b_dec_to_input"] = Value::Null, &[]).unwrap()), numbers(4, 4));

    let activation = |change: &dyn Fn(&mut Value), more: &[(&'static str, Vec<usize>, Vec<f32>)]| {
        read_with(change, more).map(|read| read.layers[0].activation.clone())
    };
    let topk = |config: &mut Value| {
        config["architecture"] = json!("topk");
        config["activation_fn_str"] = json!("topk");
        config["activation_fn_kwargs"] = json!({"k": 3});
    };
    assert_eq!(activation(&topk, &[]), Ok(LatentActivation::TopK { k: 3, relu: true }));
    let threshold = ("threshold", vec![5], vec![0.5, -1.0, 0.0, 2.0, 1.0]);
    let jump = |config: &mut Value| config["architecture"] = json!("jumprelu");
    let expected = LatentActivation::JumpRelu { threshold: vec![0.5, 0.0, 0.0, 2.0, 1.0] };
    assert_eq!(activation(&jump, std::slice::from_ref(&threshold)), Ok(expected));

    // The first versions: other names, no architecture.
    let first = |config: &mut Value| {
        let old = config.as_object_mut().unwrap();
        for (new, old_name) in
            [("hook_name", "hook_point"), ("hook_layer", "hook_point_layer"), ("activation_fn_str", "activation_fn")]
        {
            let value = old.remove(new).unwrap();
            old.insert(old_name.into(), value);
        }
        old.remove("architecture");
        old.remove("apply_b_dec_to_input");
        old.insert("normalize_activations".into(), json!(false));
    };
    let ones = ("scaling_factor", vec![5], vec![1.0; 5]);
    assert_eq!(activation(&first, std::slice::from_ref(&ones)), Ok(LatentActivation::Relu));

    let named = |change: &dyn Fn(&mut Value), more: &[(&'static str, Vec<usize>, Vec<f32>)], what: &str| {
        let text = activation(change, more).unwrap_err();
        assert!(text.contains("blocks.") && text.contains(what), "{text}");
    };
    for (key, value, what) in [
        ("architecture", json!("temporal"), "temporal"),
        ("architecture", json!("transcoder"), "hook_name_out"),
        ("architecture", json!(7), "7"),
        ("activation_fn_str", json!("tanh-relu"), "tanh-relu"),
        ("normalize_activations", json!("covariance_whitening"), "covariance_whitening"),
        ("normalize_activations", json!("expected_average_only_in"), "expected_average_only_in"),
        ("normalize_activations", json!(true), "true"),
        ("finetuning_scaling_factor", json!(true), "finetuning_scaling_factor"),
        ("reshape_activations", json!("hook_z"), "hook_z"),
        ("rescale_acts_by_decoder_norm", json!(true), "rescale_acts_by_decoder_norm"),
        ("hook_head_index", json!(3), "hook_head_index"),
        ("apply_b_dec_to_input", json!("yes"), "yes"),
        ("hook_name", json!("blocks.0.attn.hook_q"), "attn.hook_q"),
        ("hook_name", json!("blocks.9.hook_mlp_out"), "from 0 to 1"),
        ("hook_name", Value::Null, "hook_name"),
        ("hook_layer", json!(5), "hook_layer"),
        ("d_in", json!(6), "d_in"),
        ("d_sae", json!(1_u64 << 50), "d_sae"),
        ("d_sae", json!(4), "[4, 4]"),
    ] {
        named(&|config| config[key] = value.clone(), &[], what);
    }
    for k in [json!(0), json!(6), json!("3"), Value::Null] {
        named(
            &|config| {
                topk(config);
                config["activation_fn_kwargs"] = json!({"k": k});
            },
            &[],
            "k",
        );
    }
    named(&jump, &[], "threshold");
    named(&|_| {}, std::slice::from_ref(&threshold), "threshold");
    named(&|_| {}, &[("b_gate", vec![5], vec![0.0; 5])], "b_gate");
    named(&|_| {}, &[("scaling_factor", vec![5], vec![2.0; 5])], "scaling_factor");
}

/// A layer of version 6 with these changes of its settings.
fn version_6_with(change: impl Fn(&mut Value)) -> Result<NamedAutoencoder, String> {
    let folder = Folder::new();
    let mut config = version_6("standard", "blocks.1.hook_resid_post", 4);
    change(&mut config);
    write_layer(&folder.path.join("a"), &config, 4, &[]);
    folder.open()
}

#[test]
fn what_stands_in_two_places_is_the_same() {
    let topk = |config: &mut Value| {
        config["architecture"] = json!("topk");
        config["activation_fn_kwargs"] = json!({"k": 3});
    };
    for (key, value) in [
        ("hook_name", json!("blocks.0.hook_resid_post")),
        ("hook_layer", json!(0)),
        ("metadata", json!("x")),
        ("d_out", json!(5)),
        ("hook_name_out", json!("blocks.1.hook_mlp_out")),
        ("k", json!(3)),
        ("activation_fn_kwargs", json!({"k": 3})),
        ("activation_fn_kwargs", json!({"negative_slope": 0.5})),
        ("input_scale", json!(2)),
        ("scaling_factor", json!(3.0)),
    ] {
        let text = version_6_with(|config| config[key] = value.clone()).unwrap_err();
        assert!(text.contains("cfg.json") && text.contains(key), "{key}: {text}");
    }
    let kwargs = |config: &mut Value| {
        config["metadata"]["model_from_pretrained_kwargs"] = json!({"center_writing_weights": true});
    };
    let read = version_6_with(|config| {
        kwargs(config);
        config["model_from_pretrained_kwargs"] = Value::Null;
        config["hook_name"] = json!("blocks.1.hook_resid_post");
        config["sae_lens_training_version"] = json!("another");
    });
    assert_eq!(read.unwrap().layers[0].normalization, Normalization::Centered);
    let text = version_6_with(|config| {
        kwargs(config);
        config["model_from_pretrained_kwargs"] = json!({});
    });
    assert!(text.unwrap_err().contains("metadata.model_from_pretrained_kwargs"));
    let text = version_6_with(|config| {
        config["activation_fn"] = json!("topk");
        config["activation_fn_str"] = json!("relu");
    });
    let text = text.unwrap_err();
    assert!(text.contains("`activation_fn` should be \"relu\", as `activation_fn_str`"), "{text}");
    let with_k = |k: usize| {
        version_6_with(|config| {
            topk(config);
            config["k"] = json!(k);
        })
    };
    assert_eq!(with_k(3).unwrap().layers[0].activation, LatentActivation::TopK { k: 3, relu: true });
    let text = with_k(4).unwrap_err();
    assert!(text.contains("`k` should be 3, as `activation_fn_kwargs.k`, but is 4"), "{text}");
}

/// Weights that stay finite in SAELens' own arithmetic, but not when they are folded into each other.
#[test]
fn what_folding_would_lose_is_refused() {
    let gated = |r: f32, magnitude: f32| {
        let folder = Folder::new();
        let path = folder.path.join("a");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("cfg.json"), version_6("gated", "blocks.1.hook_mlp_out", 4).to_string()).unwrap();
        let tensors = [
            ("W_enc", vec![4, 5], numbers(1, 20)),
            ("W_dec", vec![5, 4], numbers(2, 20)),
            ("b_dec", vec![4], vec![0.0; 4]),
            ("b_gate", vec![5], vec![-2.0; 5]),
            ("b_mag", vec![5], vec![magnitude; 5]),
            ("r_mag", vec![5], vec![0.0, 0.0, 0.0, r, 0.0]),
        ];
        write_tensors(&path.join("sae_weights.safetensors"), &tensors);
        folder.open()
    };
    for (r, magnitude) in [(0.0, 1.0), (-5.0, 1.0), (-30.0, -1.0), (80.0, 1.0)] {
        let layer = gated(r, magnitude).unwrap().layers.remove(0);
        let (w, threshold) = (layer.encoder.row(3)[2], (magnitude + 2.0 * r.exp()).max(0.0));
        assert!((w / (numbers(1, 20)[13] * r.exp()) - 1.0).abs() < 1e-6);
        assert!(matches!(layer.activation, LatentActivation::JumpRelu { threshold: t } if t[3] == threshold));
    }
    for (r, magnitude) in [(89.0, 1.0), (-15.0, 1.0), (-20.0, 1.0), (-120.0, 1.0)] {
        let text = gated(r, magnitude).unwrap_err();
        assert!(text.contains("`r_mag`") && text.contains(&format!("{r} at index 3")), "{text}");
    }
    let scaled = |of: &str, config: &Value, options: &DictionaryOptions| {
        let folder = Folder::new();
        let path = folder.path.join("a");
        write_layer(&path, config, 4, &[]);
        let large = |from| numbers(from, 20).into_iter().map(|x| x * 1e20).collect();
        let tensors = [
            ("W_enc", vec![4, 5], large(1)),
            ("W_dec", vec![5, 4], large(2)),
            ("b_enc", vec![5], numbers(3, 5)),
            ("b_dec", vec![4], numbers(4, 4)),
        ];
        write_tensors(&path.join("sae_weights.safetensors"), &tensors);
        let text = checkpoint::open_dictionary(&folder.path, options, &shape()).unwrap_err().to_string();
        assert!(text.contains("sae_weights.safetensors") && text.contains(of), "{text}");
    };
    let mut config = version_6("topk", "blocks.1.hook_mlp_out", 4);
    config["k"] = json!(2);
    config["rescale_acts_by_decoder_norm"] = json!(true);
    scaled("`W_dec`", &config, &DictionaryOptions::default());
    let mut config = version_6("standard", "blocks.1.hook_mlp_out", 4);
    config["normalize_activations"] = json!("expected_average_only_in");
    scaled("`factor`", &config, &DictionaryOptions { factor: Some(1e-30), ..Default::default() });
}

#[test]
fn a_layer_is_there_once_or_not_at_all() {
    let folder = Folder::new();
    let write = |name: &str, hook: &str| write_layer(&folder.path.join(name), &version_6("standard", hook, 4), 4, &[]);
    write("a", "blocks.1.hook_mlp_out");
    assert_eq!(folder.open().unwrap().indices, [1]);
    write("b", "blocks.0.hook_attn_out");
    assert!(folder.open().unwrap_err().contains("same site"));
    write("b", "blocks.1.hook_mlp_out");
    assert!(folder.open().unwrap_err().contains("one dictionary a layer"));
    write("b", "blocks.0.hook_mlp_out");
    assert_eq!(folder.open().unwrap().indices, [0, 1]);
}

#[test]
fn what_is_exported_comes_back() {
    let sparsity = ("sparsity", vec![5], vec![-1.0, -2.0, -3.0, -1.0, -10.0]);
    let source = Folder::new();
    for layer in 0..2 {
        let hook = format!("blocks.{layer}.hook_mlp_out");
        let folder = source.path.join(&hook);
        write_layer(&folder, &version_5(&hook, layer, 4), 4, &[]);
        write_tensors(&folder.join("sparsity.safetensors"), std::slice::from_ref(&sparsity));
    }
    let mut saes = source.open().unwrap();
    let frequency = saes.layers[0].activation_frequency.clone().unwrap();
    assert!((frequency[1] - 0.01).abs() < 1e-6 && frequency[4] < 1e-8, "{frequency:?}");
    for activation in [
        LatentActivation::Relu,
        LatentActivation::TopK { k: 2, relu: true },
        LatentActivation::JumpRelu { threshold: vec![0.5; 5] },
    ] {
        for zero in [false, true] {
            let target = Folder::new();
            for layer in &mut saes.layers {
                layer.activation = activation.clone();
                if zero {
                    layer.encoder_pre_bias = vec![0.0; 4];
                } else {
                    layer.encoder_pre_bias = layer.decoder_bias.clone();
                }
            }
            sae_lens::save_autoencoder(&target.path, &saes, "gpt2").unwrap();
            let read = target.open().unwrap();
            for (read, written) in read.layers.iter().zip(&saes.layers) {
                assert_eq!(read.activation, activation);
                assert_eq!(read.encoder.to_vec(), written.encoder.to_vec());
                assert_eq!(read.decoder.to_vec(), written.decoder.to_vec());
                assert_eq!(read.latent_bias, written.latent_bias);
                assert_eq!(read.encoder_pre_bias, written.encoder_pre_bias);
                assert_eq!(read.decoder_bias, written.decoder_bias);
            }
        }
    }
    saes.layers[0].activation = LatentActivation::Identity;
    let target = Folder::new();
    let text = sae_lens::save_autoencoder(&target.path, &saes, "gpt2").unwrap_err().to_string();
    assert!(text.contains("Identity"), "{text}");
    saes.layers[0].activation = LatentActivation::Relu;
    saes.layers[0].encoder_pre_bias = vec![7.0; 4];
    let text = sae_lens::save_autoencoder(&target.path, &saes, "gpt2").unwrap_err().to_string();
    assert!(text.contains("encoder_pre_bias"), "{text}");
}
