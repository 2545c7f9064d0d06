//! Checkpoints as candle's `VarBuilder`, and anybody's `VarBuilder` as a model's weights.

#![allow(clippy::unwrap_used)] // also in the helpers of tests

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Storage, Tensor};
use candle_nn::{VarBuilder, VarMap};
use tdb_model::checkpoint;
use tdb_model::{CheckpointError, ForwardOptions, Matrix, Transformer, Weights};

fn embedded() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../datasets/embedded")
}

fn builder(tensors: &[(&str, &Tensor)]) -> VarBuilder<'static> {
    let tensors: HashMap<String, Tensor> = tensors.iter().map(|(name, t)| ((*name).to_owned(), (*t).clone())).collect();
    VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu)
}

fn arange(rows: usize, cols: usize) -> Tensor {
    Tensor::arange(0f32, (rows * cols) as f32, &Device::Cpu).unwrap().reshape((rows, cols)).unwrap()
}

/// Where the first number of a tensor's storage lies.
fn address(tensor: &Tensor) -> *const f32 {
    match &*tensor.storage_and_layout().0 {
        Storage::Cpu(storage) => storage.as_slice::<f32>().unwrap().as_ptr(),
        _ => panic!("not on the CPU"),
    }
}

#[test]
fn a_checkpoint_is_a_var_builder() {
    let checkpoint = checkpoint::open(&embedded()).unwrap();
    let (config, device) = (checkpoint.config.clone(), Device::Cpu);
    let builder = checkpoint.var_builder(&device);
    assert!(builder.contains_tensor("embed.weight") && !builder.contains_tensor("wte.weight"));
    let block = builder.pp("blocks").pp(0);
    let (d, d_ff) = (config.d_model, config.d_ff);
    let weight = block.get((d_ff, d), "mlp.in.weight").unwrap();
    let ours = checkpoint.weights.matrix("blocks.0.mlp.in.weight", [d_ff, d]).unwrap();
    assert_eq!(weight.flatten_all().unwrap().to_vec1::<f32>().unwrap(), ours.to_vec());
    assert_eq!(block.get_unchecked("mlp.in.weight").unwrap().dims(), [d_ff, d]);
    assert_eq!(block.get(d_ff, "mlp.in.bias").unwrap().dtype(), DType::F32);
    assert_eq!(builder.clone().set_dtype(DType::F64).get(d, "final_norm.bias").unwrap().dtype(), DType::F64);
    for (error, what) in [
        (block.get((d, d_ff), "mlp.in.weight").unwrap_err(), "h.0.mlp.c_fc.weight"),
        (block.get(d, "mlp.in.weight").unwrap_err(), "h.0.mlp.c_fc.weight"),
        (block.get((d_ff, d, 1), "mlp.in.weight").unwrap_err(), "one or two"),
        (block.get(d, "mlp.more").unwrap_err(), "blocks.0.mlp.more"),
        (block.get_unchecked("mlp.more").unwrap_err(), "blocks.0.mlp.more"),
    ] {
        assert!(error.to_string().contains(what), "{error}");
    }
}

#[test]
fn a_builders_tensors_are_used_where_they_lie() {
    let (whole, wide) = (arange(4, 6), arange(5, 8));
    let (transposed, part) = (whole.t().unwrap(), wide.narrow(1, 2, 3).unwrap().narrow(0, 1, 2).unwrap());
    let half = whole.to_dtype(DType::BF16).unwrap();
    let weights: Weights =
        builder(&[("whole", &whole), ("transposed", &transposed), ("part", &part), ("half", &half)]).into();
    let matrix = |name: &str, shape: [usize; 2]| weights.matrix(name, shape).unwrap();
    assert_eq!(matrix("whole", [4, 6]).span().as_ptr(), address(&whole));
    assert_eq!(matrix("transposed", [6, 4]).span().as_ptr(), address(&whole));
    assert_eq!(matrix("transposed", [6, 4]).row(2), [2.0, 8.0, 14.0, 20.0]);
    assert_eq!(matrix("part", [2, 3]).to_vec(), [10.0, 11.0, 12.0, 18.0, 19.0, 20.0]);
    assert_eq!(matrix("part", [2, 3]).transpose().row_range(1..3).to_vec(), [11.0, 19.0, 12.0, 20.0]);
    assert_eq!(matrix("half", [4, 6]).to_vec(), matrix("whole", [4, 6]).to_vec());
    let tensor = |name: &str, shape| matrix(name, shape).to_tensor().unwrap();
    assert_eq!(address(&tensor("whole", [4, 6])), address(&whole));
    assert_eq!(address(&matrix("whole", [4, 6]).transpose().to_tensor().unwrap()), address(&whole));
    // A lock is held for these numbers.
    assert!(matrix("whole", [4, 6]).contiguous_row(0).is_none());
    let same = |left: &Tensor, right: &Tensor| {
        assert_eq!(left.to_vec2::<f32>().unwrap(), right.to_vec2::<f32>().unwrap());
    };
    same(&tensor("part", [2, 3]), &part);
    same(&tensor("transposed", [6, 4]), &transposed);
}

#[test]
fn matrices_of_every_order_become_tensors() {
    let owned = Matrix::from_vec(3, 2, vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    let rows = |matrix: &Matrix| matrix.to_tensor().unwrap().to_vec2::<f32>().unwrap();
    assert_eq!(rows(&owned), [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]);
    assert_eq!(rows(&owned.transpose()), [[0.0, 2.0, 4.0], [1.0, 3.0, 5.0]]);
    assert_eq!(rows(&owned.transpose().row_range(1..2)), [[1.0, 3.0, 5.0]]);
    assert_eq!(rows(&owned.row_range(1..3).col_range(1..2)), [[3.0], [5.0]]);
    assert_eq!(owned.transpose().to_tensor().unwrap().stride(), [1, 2], "the order of storage is kept");
    assert_eq!(owned.contiguous_rows(1..3), Some([2.0, 3.0, 4.0, 5.0].as_slice()));
    assert_eq!(owned.contiguous_rows(3..3), Some([].as_slice()));
    assert_eq!(owned.transpose().contiguous_rows(0..1), None);
    assert_eq!(owned.col_range(0..1).contiguous_rows(0..2), None);
}

#[test]
fn what_a_builder_has_not_is_named() {
    let bad = Tensor::new(&[[1f32, f32::INFINITY], [0.0, 0.0]], &Device::Cpu).unwrap();
    let weights: Weights = builder(&[("model.whole", &arange(4, 6)), ("model.bad", &bad)]).pp("model").into();
    assert!(weights.contains("whole") && !weights.contains("model.whole"));
    assert_eq!(weights.shape("whole").unwrap(), [4, 6]);
    let text = |error: CheckpointError| error.to_string();
    let missing = text(weights.matrix("other", [4, 6]).unwrap_err());
    assert_eq!(missing, "VarBuilder: `model.other` is missing");
    let shape = text(weights.matrix("whole", [6, 4]).unwrap_err());
    assert!(shape.contains("`model.whole`") && shape.contains("[6, 4]") && shape.contains("[4, 6]"), "{shape}");
    let shape = text(weights.vector("whole", 24).unwrap_err());
    assert!(shape.contains("[24]") && shape.contains("[4, 6]"), "{shape}");
    assert!(text(weights.matrix("bad", [2, 2]).unwrap_err()).contains("`model.bad` holds inf at index 1"));
    // A map of variables makes whatever it is asked for, unless it is asked whether it has it.
    let map = VarMap::new();
    let weights: Weights = VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu).into();
    assert!(text(weights.matrix("new", [2, 2]).unwrap_err()).contains("`new` is missing"));
    assert!(map.all_vars().is_empty());
}

#[test]
fn a_model_from_a_builder_is_the_same_model() {
    let checkpoint = checkpoint::open(&embedded()).unwrap();
    let tokens = checkpoint.tokenizer.encode("When Mary and John went to the store, John gave a drink to");
    let logits = |weights: Weights| {
        let model = Transformer::load(checkpoint.config.clone(), weights).unwrap();
        model.forward(&tokens, ForwardOptions::default()).unwrap().logits(tokens.len() - 1).unwrap()
    };
    let ours = logits(checkpoint.weights.clone());
    let theirs = logits(checkpoint.var_builder(&Device::Cpu).into());
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert!((ours - theirs).abs() < 1e-4, "{theirs} for {ours}");
    }
}
