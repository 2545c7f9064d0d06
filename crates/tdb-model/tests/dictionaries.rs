//! Dictionaries as other libraries save them: the latents and the output that those libraries give.

#![allow(clippy::unwrap_used)] // helpers of a test, too

use std::fs;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Value, json};
use tdb_model::checkpoint::{self, CheckpointError, DictionaryOptions, Precision, native, sae_lens};
use tdb_model::{
    Autoencoder, AutoencoderSite, AutoencoderWeights, Config, LatentActivation, Matrix, NamedAutoencoder, NormKind,
    Normalization, Numbers, Slot, numbers,
};
use tdb_testkit::torch;

use crate::folder::{Named, write_tensors};

/// The shape of the model that `fixtures/sae_lens/write.py` has in mind.
fn shape() -> Config {
    let mut config = Config::gpt2(2, 6, 2, 9, 16, 11);
    config.d_head = 4;
    config
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/sae_lens")
}

fn cases() -> Vec<(String, Value)> {
    let text = fs::read_to_string(fixtures().join("expected.json")).unwrap();
    serde_json::from_str::<serde_json::Map<String, Value>>(&text).unwrap().into_iter().collect()
}

fn rows(value: &Value) -> Vec<Vec<f32>> {
    serde_json::from_value(value.clone()).unwrap()
}

fn factor(case: &Value) -> Option<f32> {
    case["factor"].as_f64().map(|factor| factor as f32)
}

fn open(name: &str, options: &DictionaryOptions) -> Result<NamedAutoencoder, CheckpointError> {
    checkpoint::open_dictionary(&fixtures().join(name), options, &shape())
}

fn layouts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/dictionaries")
}

/// In the layouts of OpenAI, dictionary_learning, sparsify, Gemma Scope, circuit-tracer and published files for heads.
#[test]
fn the_layouts_of_other_libraries_give_what_their_definitions_give() {
    let text = fs::read_to_string(layouts().join("expected.json")).unwrap();
    let cases: serde_json::Map<String, Value> = serde_json::from_str(&text).unwrap();
    assert!(cases.len() > 14);
    for (name, case) in &cases {
        let mut read = checkpoint::open_autoencoder(&layouts().join(name), None, &shape())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        // What is expected of a set of layers is of the last one.
        read.layers = read.layers.split_off(read.layers.len() - 1);
        let (site, layer) = match name.as_str() {
            "dl-new" => (AutoencoderSite::ResidDeltaMlp, 1),
            "dl-gated" => (AutoencoderSite::ResidDeltaAttn, 1),
            "dl-jumprelu" | "sparsify/layers.0" => (AutoencoderSite::ResidPostMlp, 0),
            "sparsify-transcoders/layers.1.mlp" => (AutoencoderSite::MlpTranscoder, 1),
            "sparsify-skip/h.0.mlp" => (AutoencoderSite::MlpTranscoder, 0),
            name if name.starts_with("circuit-tracer") => (AutoencoderSite::MlpTranscoder, 1),
            name if name.contains("-att") || name.starts_with("attention") => (AutoencoderSite::AttnVOut, 0),
            _ => (AutoencoderSite::ResidPostMlp, 1),
        };
        assert_eq!((read.site, read.indices.last().copied()), (site, Some(layer)), "{name}");
        assert_agrees(name, case, &read);
    }
}

/// A folder of layers' folders is one dictionary, too.
#[test]
fn folders_of_layers_are_read_together() {
    let whole = checkpoint::open_autoencoder(&layouts().join("sparsify"), None, &shape()).unwrap();
    assert_eq!((whole.name.as_str(), whole.indices), ("sparsify", vec![0]));
    let whole = checkpoint::open_autoencoder(&layouts().join("circuit-tracer-relu"), None, &shape()).unwrap();
    assert_eq!(whole.indices, [0, 1]);
}

/// Copies a fixture, with one file changed.
fn changed(of: &str, file: &str, change: impl Fn(Vec<u8>) -> Vec<u8>) -> Result<NamedAutoencoder, String> {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join(Path::new(of).file_name().unwrap());
    fs::create_dir(&folder).unwrap();
    for entry in fs::read_dir(layouts().join(of)).unwrap() {
        let path = entry.unwrap().path();
        let content = fs::read(&path).unwrap();
        let name = path.file_name().unwrap();
        let content = if name == file { change(content) } else { content };
        fs::write(folder.join(name), content).unwrap();
    }
    let options = DictionaryOptions { layer: Some(1), site: Some(AutoencoderSite::ResidPostMlp), ..Default::default() };
    let options = if of.contains("gemma") { options } else { DictionaryOptions::default() };
    checkpoint::open_dictionary(&folder, &options, &shape()).map_err(|error| error.to_string())
}

#[test]
fn what_is_not_known_in_another_layout_is_refused_by_name() {
    let replaced = |from: &'static str, to: &'static str| {
        move |content: Vec<u8>| {
            let text = String::from_utf8(content).unwrap();
            assert!(text.contains(from), "{from}");
            text.replace(from, to).into_bytes()
        }
    };
    for (of, file, from, to, what) in [
        ("dl-topk", "config.json", "AutoEncoderTopK", "CrossCoder", "CrossCoder"),
        ("dl-topk", "config.json", "\"layer\": 1", "\"layer\": 9", "from 0 to 1"),
        ("dl-topk", "config.json", "resid_post_layer_1", "logits", "site=NAME"),
        ("dl-topk", "config.json", "\"out\"", "\"in_and_out\"", "in_and_out"),
        ("dl-topk", "config.json", "\"activation_dim\": 6", "\"activation_dim\": 7", "activation_dim"),
        ("dl-topk", "config.json", "\"k\": 2", "\"k\": 6", "`trainer.k`"),
        ("dl-topk", "config.json", "AutoEncoderTopK", "AutoEncoder", "b_dec"),
        ("dl-topk", "config.json", "\"k\": 2", "\"k\": 3", "`trainer.k` should be 2, as `k` of ae.pt, but is 3"),
        ("dl-topk", "config.json", "resid_post_layer_1", "resid_post_layer_0", "`trainer.submodule_name`"),
        ("dl-topk", "config.json", "\"io\": \"out\"", "\"rescale_acts\": 3.0", "`buffer.rescale_acts`"),
        (
            "dl-topk",
            "config.json",
            "\"buffer\"",
            "\"normalize_activations\": true, \"buffer\"",
            "normalize_activations",
        ),
        ("dl-standard", "config.json", "\"layer\": 1", "\"layer\": 1, \"k\": 2", "`trainer.k`"),
        ("dl-standard", "config.json", "\"layer\": 1", "\"layer\": 1, \"activation\": \"topk\"", "as this layout"),
        ("dl-new", "config.json", "\"layer\": 1", "\"layer\": 1, \"apply_b_dec_to_input\": true", "should be false"),
        ("attention-saes", "gpt2-small_L0_Hcat_z_cfg.json", "\"layer\": 0", "\"layer\": 1", "as act_name says"),
        ("attention-saes", "gpt2-small_L0_Hcat_z_cfg.json", "1.2", "1.2, \"architecture\": \"gated\"", "architecture"),
        ("attention-saes", "gpt2-small_L0_Hcat_z_cfg.json", "1.2", "1.2, \"activation\": \"topk\"", "activation"),
        ("attention-saes", "gpt2-small_L0_Hcat_z_cfg.json", "1.2", "1.2, \"input_scale\": 2", "input_scale"),
        ("sparsify/layers.0", "cfg.json", "\"k\": 3", "\"k\": 3, \"signed\": true", "`signed` should be false"),
        (
            "sparsify/layers.0",
            "cfg.json",
            "\"skip_connection\": false",
            "\"skip_connection\": true",
            "`skip_connection`",
        ),
        ("sparsify/layers.0", "cfg.json", "\"k\": 3", "\"k\": 3, \"normalize_io\": true", "normalize_io"),
        ("sparsify/layers.0", "cfg.json", "\"num_latents\": 0", "\"num_latents\": 6", "`num_latents` should be 0 or 5"),
        ("sparsify/layers.0", "cfg.json", "\"topk\"", "\"groupmax\"", "groupmax"),
        ("sparsify/layers.0", "cfg.json", "\"d_in\": 6", "\"d_in\": 8", "d_in"),
        ("sparsify/layers.0", "cfg.json", "\"transcode\": false", "\"transcode\": true", "layers.3.mlp"),
        ("sparsify-skip/h.0.mlp", "cfg.json", "\"skip_connection\": true", "\"skip_connection\": false", "W_skip"),
        ("circuit-tracer-relu", "config.yaml", "transcoder_set", "cross_layer_transcoder", "cross_layer_transcoder"),
        ("circuit-tracer-relu", "config.yaml", "mlp.hook_in", "hook_resid_mid", "hook_resid_mid"),
        ("circuit-tracer-relu", "config.yaml", "hook_mlp_out", "hook_resid_post", "hook_resid_post"),
        ("circuit-tracer-relu", "config.yaml", "scan:", "activation: groupmax\nscan:", "groupmax"),
        (
            "circuit-tracer-relu",
            "config.yaml",
            "scan:",
            "activation: jump_relu\nscan:",
            "activation_function.threshold",
        ),
        ("circuit-tracer-relu", "config.yaml", "scan:", "activation: topk\nscan:", "`k` is missing"),
        ("circuit-tracer-relu", "config.yaml", "scan:", "k: 3\nscan:", "`k` should be absent"),
        ("circuit-tracer-relu", "config.yaml", "scan:", "subtract_b_dec: true\nscan:", "subtract_b_dec"),
        ("circuit-tracer-relu", "config.yaml", "scan:", "transcoders:\n- layer_0.safetensors\nscan:", "transcoders"),
        ("circuit-tracer-relu", "config.yaml", "scan:", "transcoders:\n- hf://a/b/layer_0.safetensors\nscan:", "hf://"),
        ("circuit-tracer-jump", "config.yaml", "scan:", "activation: relu\nscan:", "activation_function.threshold"),
        (
            "circuit-tracer-jump",
            "config.yaml",
            "scan:",
            "activation: topk\nk: 2\nscan:",
            "activation_function.threshold",
        ),
    ] {
        let text = changed(of, file, replaced(from, to)).unwrap_err();
        assert!(text.contains(what), "{of}, {to}: {text}");
    }
}

/// What is off, what says what is computed anyway, and what is of training.
#[test]
fn settings_that_change_nothing_are_accepted() {
    for (of, file, from, to) in [
        ("dl-topk", "config.json", "\"k\": 2, ", ""),
        ("dl-standard", "config.json", "\"layer\": 1", "\"layer\": 1, \"activation\": \"relu\", \"k\": null"),
        (
            "dl-batchtopk",
            "config.json",
            "\"k\": 2",
            "\"k\": 2, \"apply_b_dec_to_input\": true, \"threshold_beta\": 0.9",
        ),
        (
            "sparsify/layers.0",
            "cfg.json",
            "\"num_latents\": 0",
            "\"num_latents\": 5, \"signed\": false, \"input_scale\": 1.0, \"normalize_io\": false, \"lr\": 3",
        ),
        ("attention-saes", "gpt2-small_L0_Hcat_z_cfg.json", "1.2", "1.2, \"activation\": \"relu\", \"site\": \"z\""),
    ] {
        let read = changed(of, file, |content| {
            let text = String::from_utf8(content).unwrap();
            assert!(text.contains(from), "{from}");
            text.replace(from, to).into_bytes()
        });
        let read = read.unwrap_or_else(|error| panic!("{of}, {to}: {error}"));
        let is_topk = matches!(read.layers[0].activation, LatentActivation::TopK { k: 2, .. });
        assert!(is_topk || of != "dl-topk");
    }
}

/// All of these say `topk`, or something else than they seem to, to a whole reader of YAML.
#[test]
fn lines_of_yaml_that_are_not_understood_are_refused() {
    for lines in [
        "activation:\n  topk",
        "? activation\n: topk",
        "base: &base\n  activation: topk",
        "<<: *base",
        "activation: &a topk",
        "activation: !!str topk",
        "activation: >-\n  topk",
        "{activation: topk}",
        "  activation: topk",
        "\"acti\\u0076ation\": topk",
        "activation: relu\nactivation: topk",
        "model_kind: transcoder_set",
        "notes: [1, 2]",
        "notes: a: b",
        "notes: \"two",
        "notes:\n  - a\n    - b",
        "---",
    ] {
        let with = |content: Vec<u8>| format!("{}{lines}\nk: 3\n", String::from_utf8(content).unwrap()).into_bytes();
        let text = changed("circuit-tracer-relu", "config.yaml", with).unwrap_err();
        assert!(text.contains("config.yaml: `line "), "{lines}: {text}");
    }
    for lines in [
        "activation: topk\nk: 3",
        "\"activation\": 'topk'\n'k': 3 # three",
        "activation : topk\t# the largest\nk : 3",
        "# more\n\nactivation: \"topk\"\r\nk: 3\r",
        "transcoders:\n  - layer_0.safetensors\n  - \"layer_1.safetensors\"\nactivation: topk\nk: 3\nrevision: null",
    ] {
        let with = |content: Vec<u8>| format!("---\n{}{lines}\n", String::from_utf8(content).unwrap()).into_bytes();
        let read =
            changed("circuit-tracer-relu", "config.yaml", with).unwrap_or_else(|error| panic!("{lines}: {error}"));
        assert_eq!(read.layers[1].activation, LatentActivation::TopK { k: 3, relu: false }, "{lines}");
    }
}

/// A transcoder set of one layer with these activations of an input of zeros, and more tensors.
fn traced(lines: &str, bias: [f32; 5], more: &[Named]) -> Result<NamedAutoencoder, String> {
    let temp = tempfile::tempdir().unwrap();
    let config = "model_kind: transcoder_set\nfeature_input_hook: mlp.hook_in\nfeature_output_hook: hook_mlp_out\n";
    fs::write(temp.path().join("config.yaml"), format!("{config}{lines}")).unwrap();
    let tensors = [
        named("W_enc", &[5, 6], vec![0.5; 30]),
        named("W_dec", &[5, 6], vec![0.25; 30]),
        named("b_enc", &[5], bias.to_vec()),
        named("b_dec", &[6], vec![0.0; 6]),
    ];
    write_tensors(&temp.path().join("layer_0.safetensors"), &[&tensors, more].concat(), Dtype::F32);
    checkpoint::open_autoencoder(temp.path(), None, &shape()).map_err(|error| error.to_string())
}

fn named(name: &str, shape: &[usize], numbers: Vec<f32>) -> Named {
    (name.to_owned(), shape.to_vec(), numbers)
}

#[test]
fn the_largest_latents_of_circuit_tracer_stay_as_they_are() {
    let read = traced("activation: topk\nk: 2\n", [-1.0, -2.0, 3.0, -4.0, -5.0], &[]).unwrap();
    let dictionary = Autoencoder::new(read.site, read.layers[0].clone()).unwrap();
    let latents = dictionary.encode(&numbers::tensor(&[1, 6], vec![0.0; 6])).unwrap();
    assert_eq!(latents.row(0), [(0, -1.0), (2, 3.0)], "circuit-tracer's TopK has no ReLU");
}

#[test]
fn what_belongs_to_another_activation_of_circuit_tracer_is_refused() {
    let threshold = named("activation_function.threshold", &[5], vec![0.5, 0.0, -0.25, 1.0, 1.0]);
    let k = named("k", &[1], vec![3.0]);
    for (lines, more, what) in [
        ("", &threshold, "-0.25 at index 2"),
        ("activation: relu\n", &threshold, "`activation_function.threshold` should be absent"),
        ("activation: relu\n", &k, "`k` should be absent"),
        ("", &k, "`k` should be absent"),
        ("activation: topk\nk: 3\n", &k, "one whole number"),
    ] {
        let text = traced(lines, [0.0; 5], std::slice::from_ref(more)).unwrap_err();
        assert!(text.contains("layer_0.safetensors") && text.contains(what), "{lines}: {text}");
    }
    // As circuit-tracer saves it.
    let temp = tempfile::tempdir().unwrap();
    let from = layouts().join("circuit-tracer-relu");
    let config = fs::read_to_string(from.join("config.yaml")).unwrap();
    let content = fs::read(from.join("layer_0.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&content).unwrap();
    let number = 3i64.to_le_bytes();
    let k = ("k".to_owned(), TensorView::new(Dtype::I64, vec![], &number).unwrap());
    safetensors::serialize_to_file(
        tensors.tensors().into_iter().chain([k]),
        None,
        &temp.path().join("layer_0.safetensors"),
    )
    .unwrap();
    let with = |k: usize| {
        fs::write(temp.path().join("config.yaml"), format!("{config}activation: topk\nk: {k}\n")).unwrap();
        checkpoint::open_autoencoder(temp.path(), None, &shape()).map_err(|error| error.to_string())
    };
    assert_eq!(with(3).unwrap().layers[0].activation, LatentActivation::TopK { k: 3, relu: false });
    let text = with(2).unwrap_err();
    assert!(text.contains("layer_0.safetensors: `k` should be 2, as config.yaml says, but is 3"), "{text}");
}

#[test]
fn files_of_a_layer_have_its_number() {
    let with = |file: &str| {
        let temp = tempfile::tempdir().unwrap();
        for name in ["config.yaml", "layer_0.safetensors"] {
            fs::copy(layouts().join("circuit-tracer-relu").join(name), temp.path().join(name)).unwrap();
        }
        fs::rename(temp.path().join("layer_0.safetensors"), temp.path().join(file)).unwrap();
        checkpoint::open_autoencoder(temp.path(), None, &shape()).map(|read| read.indices)
    };
    assert_eq!(with("layer_1.safetensors").unwrap(), [1]);
    assert!(with("layer_01.safetensors").unwrap_err().to_string().contains("layer_01.safetensors"));
}

/// What is not the same with norms behind the blocks: a module gives what is normed before it is written.
#[test]
fn what_modules_give_before_a_norm_is_refused() {
    let mut config = shape();
    config.post_norms = true;
    for name in ["dl-new", "dl-gated"] {
        let text = checkpoint::open_autoencoder(&layouts().join(name), None, &config).unwrap_err().to_string();
        assert!(text.contains("`trainer.submodule_name`") && text.contains("norms"), "{text}");
    }
    assert!(checkpoint::open_autoencoder(&layouts().join("dl-topk"), None, &config).is_ok());
}

/// `relu(x / 2) · length`, as `AutoEncoder.from_pretrained` of dictionary_learning gives it.
#[test]
fn latents_of_dictionary_learning_are_measured_by_what_they_write() {
    for length in [1.0f32, 3.0] {
        let temp = tempfile::tempdir().unwrap();
        let identity = |x: f32| (0..36).map(|i| if i % 7 == 0 { x } else { 0.0 }).collect();
        let tensor = |key: &str, shape: &[usize], data: Vec<f32>| {
            (key.to_owned(), torch::Value::F32(torch::Tensor::contiguous(data, shape)))
        };
        let state = torch::Value::OrderedDict(vec![
            tensor("bias", &[6], vec![0.0; 6]),
            tensor("encoder.weight", &[6, 6], identity(0.5)),
            tensor("encoder.bias", &[6], vec![0.0; 6]),
            tensor("decoder.weight", &[6, 6], identity(-length)),
        ]);
        torch::save(&state, &mut fs::File::create(temp.path().join("ae.pt")).unwrap()).unwrap();
        let trainer = json!({
            "dict_class": "AutoEncoder", "trainer_class": "StandardTrainerAprilUpdate", "activation_dim": 6,
            "dict_size": 6, "layer": 0, "submodule_name": "resid_post_layer_0"
        });
        fs::write(temp.path().join("config.json"), json!({"trainer": trainer}).to_string()).unwrap();
        let read = checkpoint::open_autoencoder(temp.path(), None, &shape()).unwrap();
        let dictionary = Autoencoder::new(read.site, read.layers[0].clone()).unwrap();
        let x = numbers::tensor(&[1, 6], vec![4.0, -1.0, 0.0, 0.0, 0.0, 2.0]);
        let latents = dictionary.encode(&x).unwrap();
        assert_eq!(latents.row(0), [(0, 2.0 * length), (5, length)]);
        let output = Numbers::of(&dictionary.decode(&latents, &x).unwrap()).unwrap().to_row_major();
        let expected = [-2.0 * length, 0.0, 0.0, 0.0, 0.0, -length];
        assert!(output.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-6), "{output:?}");
    }
}

/// A folder of Gemma Scope's second release, for a layer's output or, with a skip connection, from what its MLP reads.
fn scope(folder: &Path, transcoder: bool, config: Value) {
    fs::create_dir_all(folder).unwrap();
    let hooks = match transcoder {
        true => ["model.layers.1.pre_feedforward_layernorm.output", "model.layers.1.post_feedforward_layernorm.output"],
        false => ["model.layers.1.output"; 2],
    };
    let mut settings = json!({
        "architecture": "jump_relu", "hf_hook_point_in": hooks[0], "hf_hook_point_out": hooks[1], "l0": 3,
        "model_name": "gemma-v3-270m-pt"
    });
    settings.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
    fs::write(folder.join("config.json"), settings.to_string()).unwrap();
    let mut tensors = vec![
        named("w_enc", &[6, 5], vec![0.5; 30]),
        named("w_dec", &[5, 6], vec![0.25; 30]),
        named("b_enc", &[5], vec![0.0; 5]),
        named("b_dec", &[6], vec![0.0; 6]),
        named("threshold", &[5], vec![0.5; 5]),
    ];
    if transcoder {
        tensors.push(named("affine_skip_connection", &[6, 6], vec![0.5; 36]));
    }
    write_tensors(&folder.join("params.safetensors"), &tensors, Dtype::F32);
}

#[test]
fn what_gemma_scope_says_of_itself_has_to_fit() {
    let mut config = shape();
    config.post_norms = true;
    let open = |transcoder: bool, more: Value| {
        let temp = tempfile::tempdir().unwrap();
        scope(temp.path(), transcoder, more);
        checkpoint::open_autoencoder(temp.path(), None, &config).map_err(|error| error.to_string())
    };
    open(false, json!({"type": "sae", "affine_connection": false, "width": 5})).unwrap();
    let read = open(true, json!({"type": "transcoder", "affine_connection": true, "width": 5})).unwrap();
    assert!(read.site == AutoencoderSite::MlpTranscoder && read.layers[0].skip.is_some());
    for (transcoder, more, what) in [
        (false, json!({"type": "transcoder"}), "`type` should be \"sae\""),
        (true, json!({"type": "clt"}), "`type` should be \"transcoder\""),
        (false, json!({"affine_connection": true}), "`affine_connection` should be false"),
        (true, json!({"affine_connection": false}), "`affine_connection` should be true"),
        (false, json!({"width": 16384}), "`width` should be 5"),
        (false, json!({"subtract_b_dec": true}), "subtract_b_dec"),
    ] {
        let text = open(transcoder, more).unwrap_err();
        assert!(text.contains(what), "{text}");
    }
}

#[test]
fn what_is_said_of_gemma_scope_must_be_what_its_path_says() {
    let folder = layouts().join("gemma-scope-tiny-pt-res/layer_1/width_5");
    for (options, what) in [
        (
            DictionaryOptions { site: Some(AutoencoderSite::ResidPre), ..Default::default() },
            "`site` should be resid_pre",
        ),
        (DictionaryOptions { layer: Some(0), ..Default::default() }, "`layer` should be 0, but is [1]"),
    ] {
        let text = checkpoint::open_dictionary(&folder, &options, &shape()).unwrap_err().to_string();
        assert!(text.contains(what), "{text}");
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

#[test]
fn a_folder_of_two_layouts_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("resid_post_mlp");
    copy(&layouts().join("resid_post_mlp_v5_tiny"), &folder);
    let open = || checkpoint::open_autoencoder(&folder, None, &shape()).map_err(|error| error.to_string());
    assert_eq!(open().unwrap().indices, [1]);
    copy(&fixtures().join("site-hook_resid_post"), &folder.join("a"));
    let text = open().unwrap_err();
    assert!(text.contains("1.pt and a/sae_weights.safetensors"), "{text}");
}

#[test]
fn a_layer_without_its_weights_is_not_left_out() {
    let temp = tempfile::tempdir().unwrap();
    for (of, files) in [
        (fixtures().join("site-hook_resid_post"), ["cfg.json", "sae_weights.safetensors"]),
        (layouts().join("sparsify/layers.0"), ["cfg.json", "sae.safetensors"]),
        (layouts().join("dl-topk"), ["config.json", "ae.pt"]),
    ] {
        for [there, missing] in [files, [files[1], files[0]]] {
            let folder = tempfile::tempdir_in(temp.path()).unwrap();
            copy(&of, &folder.path().join("layers.0"));
            fs::create_dir(folder.path().join("b")).unwrap();
            let open =
                || checkpoint::open_autoencoder(folder.path(), None, &shape()).map_err(|error| error.to_string());
            open().unwrap();
            fs::copy(of.join(there), folder.path().join("b").join(there)).unwrap();
            let text = open().unwrap_err();
            assert!(text.contains("/b: ") && text.contains(&format!("`{missing}` is missing")), "{text}");
        }
    }
    let folder = temp.path().join("scope");
    scope(&folder.join("a"), false, json!({}));
    scope(&folder.join("b"), false, json!({}));
    fs::remove_file(folder.join("b/params.safetensors")).unwrap();
    let text = checkpoint::open_autoencoder(&folder, None, &shape()).unwrap_err().to_string();
    assert!(text.contains("`params.safetensors` is missing"), "{text}");
    let folder = temp.path().join("heads");
    copy(&layouts().join("attention-saes"), &folder);
    fs::copy(folder.join("gpt2-small_L0_Hcat_z_cfg.json"), folder.join("gpt2-small_L1_Hcat_z_cfg.json")).unwrap();
    let text = checkpoint::open_autoencoder(&folder, None, &shape()).unwrap_err().to_string();
    assert!(text.contains("`gpt2-small_L1_Hcat_z.pt` is missing"), "{text}");
}

#[test]
fn our_own_files_say_nothing_that_does_not_count() {
    let read = open("standard-none", &DictionaryOptions::default()).unwrap();
    let temp = tempfile::tempdir().unwrap();
    native::save_autoencoder(temp.path(), &read, Precision::F32).unwrap();
    let path = temp.path().join("1.safetensors");
    let whole = fs::read(&path).unwrap();
    for (key, value) in [("normalization", "layer-norm"), ("epsilon", "1e-5"), ("k", "3"), ("post_activation", "relu")]
    {
        let (header, tensors) = whole[8..].split_at(u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize);
        let mut header: Value = serde_json::from_slice(header).unwrap();
        header["__metadata__"][key] = json!(value);
        let header = header.to_string();
        let header = format!("{header:width$}", width = header.len().next_multiple_of(8));
        let file = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), tensors].concat();
        fs::write(&path, file).unwrap();
        let text = checkpoint::open_autoencoder(temp.path(), None, &shape()).unwrap_err().to_string();
        assert!(text.contains(&format!("`{key}` should be absent")) && text.contains(value), "{text}");
    }
}

/// TransformerLens centres what is written only for norms that subtract the mean.
#[test]
fn writes_to_a_stream_with_rms_norms_are_not_centred() {
    let mut config = shape();
    config.norm = NormKind::Rms;
    let text = fs::read_to_string(fixtures().join("site-hook_resid_post/cfg.json")).unwrap();
    let mut settings: Value = serde_json::from_str(&text).unwrap();
    settings["metadata"]["model_from_pretrained_kwargs"] = json!({"center_writing_weights": true});
    let (_temp, folder) = with_config("site-hook_resid_post", &settings);
    for (config, expected) in [(&shape(), Normalization::Centered), (&config, Normalization::None)] {
        let read = checkpoint::open_autoencoder(&folder, None, config).unwrap();
        assert_eq!(read.layers[0].normalization, expected);
    }
    let options = DictionaryOptions { normalization: Some(Normalization::Centered), ..Default::default() };
    for folder in [&folder, &fixtures().join("site-hook_resid_post")] {
        let text = checkpoint::open_dictionary(folder, &options, &config).unwrap_err().to_string();
        assert!(text.contains("`normalization`") && text.contains("TransformerLens centres nothing"), "{text}");
    }
}

/// The settings of models of TransformerLens, which have several names.
#[test]
fn settings_of_transformer_lens_do_not_contradict_each_other() {
    for (one, other) in [
        (json!({"eps": 1e-5}), json!({"ln_eps": 1e-6})),
        (json!({"normalization": "LN"}), json!({"normalization_type": "RMS"})),
        (json!({"normalization": null}), json!({"normalization_type": "LN"})),
        (json!({"shortformer_pos": true}), json!({"positional_embedding_type": "standard"})),
        (json!({"shortformer_pos": false}), json!({"positional_embedding_type": "shortformer"})),
    ] {
        let temp = tempfile::tempdir().unwrap();
        let open = |parts: &[&Value]| {
            let mut config =
                json!({"d_model": 6, "n_layers": 1, "n_ctx": 8, "d_vocab": 11, "d_head": 3, "act_fn": "relu"});
            parts.iter().for_each(|part| config.as_object_mut().unwrap().extend(part.as_object().unwrap().clone()));
            fs::write(temp.path().join("config.json"), config.to_string()).unwrap();
            checkpoint::open(temp.path()).map(|model| model.origin).unwrap_err().to_string()
        };
        // The settings are read; then there are no weights.
        assert!(open(&[&one]).contains(".pth") && open(&[&other]).contains(".pth"), "{one}, {other}");
        let text = open(&[&one, &other]);
        let [one, other] = [one, other].map(|part| part.as_object().unwrap().keys().next().unwrap().clone());
        assert!(text.contains(&format!("`{one}`")) && text.contains(&format!("`{other}`")), "{text}");
    }
}

#[test]
fn damaged_archives_of_numpy_are_refused() {
    let of = "gemma-scope-tiny-pt-res/layer_1/width_5";
    let whole = fs::read(layouts().join(of).join("params.npz")).unwrap();
    for len in (0..whole.len()).step_by(7) {
        changed(of, "params.npz", |content| content[..len].to_vec()).unwrap_err();
    }
    let flipped = |at: usize| {
        changed(of, "params.npz", |mut content| {
            content[at] ^= 0x55;
            content
        })
    };
    for at in 0..whole.len() {
        // Read or refused, but nothing worse.
        drop(flipped(at));
    }
    // Behind the line that an array's header ends with: a number that is another, but finite.
    let first = whole.iter().position(|&byte| byte == b'\n').unwrap() + 1;
    let text = flipped(first).unwrap_err();
    assert!(text.contains("params.npz") && text.contains("checksum"), "{text}");
    let text = changed(of, "params.npz", |content| {
        let at = content.windows(3).position(|three| three == b"<f4").unwrap();
        [&content[..at], b">f4", &content[at + 3..]].concat()
    });
    assert!(text.unwrap_err().contains("little-endian"));
}

/// Within 1e-5 of the largest number.
fn assert_close(what: &str, found: &[f32], expected: &[Vec<f32>]) {
    let expected: Vec<f32> = expected.concat();
    let largest = expected.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
        assert!((found - expected).abs() <= 1e-5 * largest, "{what}[{i}]: {found}, expected {expected}");
    }
}

fn assert_agrees(name: &str, case: &Value, named: &NamedAutoencoder) {
    let dictionary = Autoencoder::new(named.site, named.layers[0].clone()).unwrap();
    let input = rows(&case["input"]);
    let x = numbers::tensor(&[input.len(), input[0].len()], input.concat());
    let latents = dictionary.encode(&x).unwrap();
    assert_close(&format!("{name}: latents"), &latents.to_dense(), &rows(&case["latents"]));
    let output = dictionary.decode(&latents, &x).unwrap();
    assert_close(&format!("{name}: output"), &Numbers::of(&output).unwrap().to_row_major(), &rows(&case["output"]));
}

#[test]
fn every_kind_that_sae_lens_writes_gives_what_sae_lens_gives() {
    let cases = cases();
    assert!(cases.len() > 40, "{}", cases.len());
    for (name, case) in &cases {
        let read = open(name, &DictionaryOptions { factor: factor(case), ..Default::default() });
        assert_agrees(name, case, &read.unwrap_or_else(|error| panic!("{name}: {error}")));
    }
}

/// Of many tokens most latents are left out by bounds of what they are, of one token none.
#[test]
fn tokens_encoded_together_are_encoded_as_each_alone() {
    let (tokens, inputs, latents) = (70, 776, 500);
    let mut state = 5u32;
    let mut numbers = |len: usize| -> Vec<f32> {
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..len).map(|_| next() + next() + next()).collect()
    };
    let x = numbers(tokens * inputs);
    for (bias, share) in [(-60.0, 0.1), (0.0, 0.7)] {
        for jumps in [false, true] {
            let activation = match jumps {
                true => LatentActivation::JumpRelu { threshold: numbers(latents) },
                false => LatentActivation::Relu,
            };
            let weights = AutoencoderWeights {
                normalization: Normalization::None,
                encoder_pre_bias: numbers(inputs),
                encoder: Matrix::from_vec(latents, inputs, numbers(latents * inputs)),
                latent_bias: numbers(latents).into_iter().map(|x| 10.0 * x + bias).collect(),
                activation,
                decoder: Matrix::from_vec(inputs, latents, numbers(inputs * latents)),
                decoder_bias: numbers(inputs),
                skip: None,
                activation_frequency: None,
            };
            let dictionary = Autoencoder::new(AutoencoderSite::ResidPostMlp, weights).unwrap();
            let together = dictionary.encode(&numbers::tensor(&[tokens, inputs], x.clone())).unwrap();
            let mut found = 0;
            for (t, row) in x.chunks_exact(inputs).enumerate() {
                let alone = dictionary.encode(&numbers::tensor(&[1, inputs], row.to_vec())).unwrap();
                assert_eq!(together.row(t), alone.row(0), "token {t}");
                found += alone.row(0).len();
            }
            assert!(found > 0 && (found as f64) < share * (tokens * latents) as f64, "{found} latents");
        }
    }
}

#[test]
fn the_layer_and_the_site_follow_from_the_hook() {
    for (name, case) in cases() {
        let hook = case["hook"].as_str().unwrap();
        let read = open(&name, &DictionaryOptions { factor: factor(&case), ..Default::default() }).unwrap();
        let layer: usize = hook.split('.').nth(1).unwrap().parse().unwrap();
        assert_eq!(read.indices, [layer], "{name}");
        let expected = match hook.split_once('.').unwrap().1.split_once('.').unwrap().1 {
            "hook_resid_pre" => AutoencoderSite::ResidPre,
            "hook_resid_mid" => AutoencoderSite::ResidPostAttn,
            "hook_resid_post" => AutoencoderSite::ResidPostMlp,
            "attn.hook_z" => AutoencoderSite::AttnVOut,
            "hook_attn_out" => AutoencoderSite::ResidDeltaAttn,
            "mlp.hook_post" => AutoencoderSite::MlpPostAct,
            "hook_mlp_out" => AutoencoderSite::ResidDeltaMlp,
            _ if name.contains("transcoder") => AutoencoderSite::MlpTranscoder,
            _ => AutoencoderSite::MlpIn,
        };
        assert_eq!(read.site, expected, "{name}");
    }
}

#[test]
fn our_own_files_hold_every_kind() {
    let temp = tempfile::tempdir().unwrap();
    for (name, case) in cases() {
        let read = open(&name, &DictionaryOptions { factor: factor(&case), ..Default::default() }).unwrap();
        let folder = temp.path().join(&name);
        native::save_autoencoder(&folder, &read, Precision::F32).unwrap();
        let again = checkpoint::open_autoencoder(&folder, None, &shape()).unwrap();
        assert_eq!((again.site, &again.indices), (read.site, &read.indices), "{name}");
        assert_agrees(&name, &case, &again);
    }
}

#[test]
fn what_is_exported_to_sae_lens_comes_back() {
    let temp = tempfile::tempdir().unwrap();
    for (name, case) in cases() {
        let mut read = open(&name, &DictionaryOptions { factor: factor(&case), ..Default::default() }).unwrap();
        if name.starts_with("jumprelu-") {
            read.layers[0].normalization = Normalization::Centered;
        }
        let folder = temp.path().join(&name);
        sae_lens::save_autoencoder(&folder, &read, "gpt2").unwrap_or_else(|error| panic!("{name}: {error}"));
        let again = checkpoint::open_autoencoder(&folder, None, &shape()).unwrap();
        // What is centred is so only where the residual stream is written to.
        let same = again.layers[0].normalization == read.layers[0].normalization;
        assert!(same || Slot::of(read.site) != Slot::Residual, "{name}");
        if !name.starts_with("jumprelu-") {
            assert_agrees(&name, &case, &again);
        }
    }
}

#[test]
fn a_factor_that_only_the_release_knows_is_asked_for() {
    let text = open("standard-expected_average_only_in", &DictionaryOptions::default()).unwrap_err().to_string();
    assert!(text.contains("normalize_activations") && text.contains("factor=NUMBER"), "{text}");
    let given = DictionaryOptions { factor: Some(2.0), ..Default::default() };
    let text = open("standard-none", &given).unwrap_err().to_string();
    assert!(text.contains("factor=2"), "{text}");
}

#[test]
fn what_is_said_must_be_what_the_files_say() {
    for (options, what) in [
        (DictionaryOptions { site: Some(AutoencoderSite::MlpIn), ..Default::default() }, "mlp_in"),
        (DictionaryOptions { layer: Some(0), ..Default::default() }, "[1]"),
        (DictionaryOptions { normalization: Some(Normalization::ConstantNorm), ..Default::default() }, "constant-norm"),
    ] {
        let text = open("standard-none", &options).unwrap_err().to_string();
        assert!(text.contains(what), "{text}");
    }
}

/// `x - mean(x)` is encoded, the mean is passed on: what the files of the releases do not say, but SAELens' list does.
#[test]
fn a_dictionary_of_centred_writes_reads_inputs_without_their_mean() {
    let options = DictionaryOptions { normalization: Some(Normalization::Centered), ..Default::default() };
    let plain = open("standard-none", &DictionaryOptions::default()).unwrap();
    let centred = open("standard-none", &options).unwrap();
    assert_eq!(centred.layers[0].normalization, Normalization::Centered);
    let [plain, centred] = [plain, centred].map(|read| Autoencoder::new(read.site, read.layers[0].clone()).unwrap());
    let x = [2.0f32, -1.0, 0.5, 3.0, 1.0, 0.5];
    let without: Vec<f32> = x.iter().map(|x| x - 1.0).collect();
    let [x, without] = [x.to_vec(), without].map(|row| numbers::tensor(&[1, 6], row));
    let (a, b) = (centred.encode(&x).unwrap(), plain.encode(&without).unwrap());
    assert_eq!(a, b);
    let difference = (centred.decode(&a, &x).unwrap() - plain.decode(&b, &without).unwrap()).unwrap();
    let difference: Vec<f32> = difference.flatten_all().unwrap().to_vec1().unwrap();
    assert!(difference.iter().all(|d| (d - 1.0).abs() < 1e-6), "{difference:?}");
}

/// Writes the tensors of a fixture with another config.
fn with_config(of: &str, config: &Value) -> (tempfile::TempDir, PathBuf) {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("layer");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("cfg.json"), config.to_string()).unwrap();
    fs::copy(fixtures().join(of).join("sae_weights.safetensors"), folder.join("sae_weights.safetensors")).unwrap();
    (temp, folder)
}

/// The settings of the releases for GPT-2 small and Pythia 70M that SAELens' own list has in its own layout, on tiny
/// tensors. Sizes and numbers that change what is computed are theirs; `k` is smaller.
#[test]
fn the_settings_of_published_releases_are_accepted() {
    let earliest = |hook: &str, layer: usize| {
        json!({
            "model_name": "gpt2-small", "hook_point": hook, "hook_point_layer": layer, "hook_point_head_index": null,
            "dataset_path": "Skylion007/openwebtext", "is_dataset_tokenized": false, "context_size": 128,
            "use_cached_activations": false, "d_in": 6, "d_sae": 5, "expansion_factor": 32, "l1_coefficient": 8e-5,
            "lr": 4e-4, "dtype": "torch.float32", "device": "cpu", "seed": 42, "prepend_bos": true,
            "use_ghost_grads": true, "dead_feature_window": 5000, "log_to_wandb": true, "from_pretrained_path": null
        })
    };
    let version_3 = |hook: &str, layer: usize, more: Value| {
        let mut config = json!({
            "architecture": "standard", "d_in": 6, "d_sae": 5, "activation_fn_str": "relu",
            "apply_b_dec_to_input": true, "finetuning_scaling_factor": false, "context_size": 64,
            "model_name": "gpt2-small", "hook_name": hook, "hook_layer": layer, "hook_head_index": null,
            "prepend_bos": true, "dataset_path": "Skylion007/openwebtext", "dataset_trust_remote_code": true,
            "normalize_activations": "none", "dtype": "torch.float32", "device": "cpu",
            "sae_lens_training_version": null, "neuronpedia_id": null, "model_from_pretrained_kwargs": {}
        });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        config
    };
    // As their list completes some of them, when they are loaded by name.
    let centred = json!({"model_from_pretrained_kwargs": {"center_writing_weights": true}});
    let average = json!({
        "normalize_activations": "expected_average_only_in",
        "model_from_pretrained_kwargs": {"center_writing_weights": true}
    });
    let openai = |hook: &str| {
        let more = json!({
            "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 3}, "normalize_activations": "layer_norm"
        });
        version_3(hook, 1, more)
    };
    let pythia = |hook: &str| version_3(hook, 0, json!({"model_name": "pythia-70m-deduped"}));
    use AutoencoderSite::{ResidDeltaAttn, ResidDeltaMlp, ResidPostAttn, ResidPostMlp, ResidPre};
    use Normalization::{Centered, None as Plain};
    let normed = Normalization::LAYER_NORM;
    let resid_pre = || version_3("blocks.1.hook_resid_pre", 1, json!({}));
    let releases = [
        ("gpt2-small-res-jb", earliest("blocks.1.hook_resid_pre", 1), ResidPre, Plain),
        ("gpt2-small-res-jb, completed", version_3("blocks.1.hook_resid_pre", 1, centred.clone()), ResidPre, Centered),
        ("gpt2-small-res-jb-feature-splitting", earliest("blocks.0.hook_resid_pre", 0), ResidPre, Plain),
        ("gpt2-small-res_sce-ajt", resid_pre(), ResidPre, Plain),
        ("gpt2-small-res_scefr-ajt", resid_pre(), ResidPre, Plain),
        ("gpt2-small-res_scl-ajt", resid_pre(), ResidPre, Plain),
        ("gpt2-small-res_sle-ajt", resid_pre(), ResidPre, Plain),
        ("gpt2-small-res_slefr-ajt", resid_pre(), ResidPre, Plain),
        ("gpt2-small-res_sll-ajt", resid_pre(), ResidPre, Plain),
        ("gpt2-small-resid-mid-v5-32k", openai("blocks.1.hook_resid_mid"), ResidPostAttn, normed),
        ("gpt2-small-resid-mid-v5-128k", openai("blocks.1.hook_resid_mid"), ResidPostAttn, normed),
        ("gpt2-small-resid-post-v5-32k", openai("blocks.1.hook_resid_post"), ResidPostMlp, normed),
        ("gpt2-small-resid-post-v5-128k", openai("blocks.1.hook_resid_post"), ResidPostMlp, normed),
        ("gpt2-small-attn-out-v5-32k", openai("blocks.1.hook_attn_out"), ResidDeltaAttn, normed),
        ("gpt2-small-attn-out-v5-128k", openai("blocks.1.hook_attn_out"), ResidDeltaAttn, normed),
        ("gpt2-small-mlp-out-v5-32k", openai("blocks.1.hook_mlp_out"), ResidDeltaMlp, normed),
        ("gpt2-small-mlp-out-v5-128k", openai("blocks.1.hook_mlp_out"), ResidDeltaMlp, normed),
        ("gpt2-small-mlp-tm", version_3("blocks.0.hook_mlp_out", 0, average), ResidDeltaMlp, Centered),
        ("pythia-70m-deduped-res-sm", pythia("blocks.0.hook_resid_post"), ResidPostMlp, Plain),
        ("pythia-70m-deduped-res-sm, before all layers", pythia("blocks.0.hook_resid_pre"), ResidPre, Plain),
        ("pythia-70m-deduped-mlp-sm", pythia("blocks.0.hook_mlp_out"), ResidDeltaMlp, Plain),
        ("pythia-70m-deduped-att-sm", pythia("blocks.0.hook_attn_out"), ResidDeltaAttn, Plain),
    ];
    for (release, config, site, normalization) in releases {
        let (_temp, folder) = with_config("standard-none", &config);
        let factor = (release == "gpt2-small-mlp-tm").then_some(1.049);
        let options = DictionaryOptions { factor, ..Default::default() };
        let read = checkpoint::open_dictionary(&folder, &options, &shape());
        let read = read.unwrap_or_else(|error| panic!("{release}: {error}"));
        assert_eq!((read.site, read.layers[0].normalization), (site, normalization), "{release}");
    }
}

/// The releases that their list takes from other libraries' files: heads' outputs of GPT-2 small, and the sweeps for
/// Pythia 70M.
#[test]
fn the_settings_of_published_releases_of_other_libraries_are_accepted() {
    let kissane = json!({
        "seed": 49, "batch_size": 4096, "lr": 1.2e-3, "num_tokens": 2_000_000_000u64, "l1_coeff": 1.8, "beta1": 0.9,
        "dict_mult": 32, "seq_len": 128, "enc_dtype": "fp32", "model_name": "gpt2-small", "site": "z", "layer": 0,
        "device": "cuda", "reinit": "reinit", "head": "cat", "concat_heads": true, "resample_scheme": "anthropic",
        "dead_direction_cutoff": 1e-6, "re_init_every": 25000, "num_resamples": 4, "b_dec_init": "zeros",
        "sched_type": "cosine_warmup", "sched_finish": true, "eval_every": 1000, "act_name": "blocks.0.attn.hook_z",
        "act_size": 8, "dict_size": 5, "name": "gpt2-small_0_Hcat_z"
    });
    let sweep = |trainer: &str, class: &str, more: Value| {
        let mut config = json!({
            "trainer_class": trainer, "dict_class": class, "lr": 3e-4, "warmup_steps": 1000, "resample_steps": null,
            "device": "cuda:0", "layer": 1, "lm_name": "EleutherAI/pythia-70m-deduped", "wandb_name": "trainer",
            "submodule_name": "resid_post_layer_1", "activation_dim": 6, "dict_size": 5, "steps": 244_140, "seed": 0
        });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let buffer = json!({
            "d_submodule": 6, "io": "out", "n_ctxs": 3000, "ctx_len": 128, "refresh_batch_size": 512,
            "out_batch_size": 8192, "device": "cuda:0"
        });
        json!({"trainer": config, "buffer": buffer})
    };
    let standard = sweep("StandardTrainer", "AutoEncoder", json!({"l1_penalty": 0.04}));
    let annealed = json!({
        "sparsity_function": "Lp^p", "sparsity_penalty": 0.03, "p_start": 1, "p_end": 0.2, "anneal_start": 10000,
        "sparsity_queue_length": 10, "n_sparsity_updates": 10
    });
    let gated = sweep("GatedSAETrainer", "GatedAutoEncoder", json!({"l1_penalty": 0.04}));
    let topk = sweep("TrainerTopK", "AutoEncoderTopK", json!({"k": 2, "auxk_alpha": 0.03125, "decay_start": 24000}));
    let post = AutoencoderSite::ResidPostMlp;
    for (release, fixture, file, config, site) in [
        ("gpt2-small-hook-z-kk", "attention-saes", "gpt2-small_L0_Hcat_z_cfg.json", kissane, AutoencoderSite::AttnVOut),
        ("sae_bench_pythia70m_sweep_standard_ctx128_0712", "dl-standard", "config.json", standard, post),
        (
            "sae_bench_pythia70m_sweep_panneal_ctx128_0730",
            "dl-standard",
            "config.json",
            sweep("PAnnealTrainer", "AutoEncoder", annealed),
            post,
        ),
        ("sae_bench_pythia70m_sweep_gated_ctx128_0730", "dl-gated", "config.json", gated, post),
        ("sae_bench_pythia70m_sweep_topk_ctx128_0730", "dl-topk", "config.json", topk, post),
    ] {
        let read = changed(fixture, file, |_| config.to_string().into_bytes());
        let read = read.unwrap_or_else(|error| panic!("{release}: {error}"));
        assert_eq!(read.site, site, "{release}");
        let is_topk = matches!(read.layers[0].activation, LatentActivation::TopK { k: 2, .. });
        assert_eq!(is_topk, release.contains("topk"), "{release}");
    }
}

#[test]
fn unknown_kinds_are_refused_by_name() {
    let config = |change: &dyn Fn(&mut Value)| {
        let text = fs::read_to_string(fixtures().join("standard-none/cfg.json")).unwrap();
        let mut config: Value = serde_json::from_str(&text).unwrap();
        change(&mut config);
        config
    };
    for (key, value) in [
        ("architecture", json!("matching_pursuit")),
        ("architecture", json!("temporal")),
        ("normalize_activations", json!("covariance_whitening")),
        ("reshape_activations", json!("hook_z")),
        ("finetuning_scaling_factor", json!(true)),
        ("hook_head_index", json!(2)),
        ("hook_name", json!("blocks.0.hook_q")),
        ("hook_name", json!("blocks.5.hook_resid_pre")),
        ("d_in", json!(8)),
    ] {
        let (_temp, folder) = with_config("standard-none", &config(&|config| config[key] = value.clone()));
        let text = checkpoint::open_autoencoder(&folder, None, &shape()).unwrap_err().to_string();
        assert!(text.contains(key) && text.contains("cfg.json"), "{key}: {text}");
    }
}
