//! Loads a model through candle's `VarBuilder` and looks at what one of its MLP layers computes.
//!
//! `cargo run --release -p tdb-model --example var_builder -- [FOLDER [LAYER [PROMPT]]]`
//!
//! Any other `VarBuilder` will do that has tensors of the names in `tdb_model::source`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use tdb_model::{ForwardOptions, Hooks, Pass, Point, Site, Transformer, checkpoint};

/// Keeps the neurons' activations of one layer; everything passes as it is.
struct Keep {
    point: Point,
    activations: Option<Tensor>,
}

impl Hooks for Keep {
    fn wants(&self, point: Point, pass: Pass) -> bool {
        point == self.point && pass == Pass::Forward
    }

    fn forward(&mut self, _: Point, activation: &Tensor) -> candle_core::Result<Option<Tensor>> {
        self.activations = Some(activation.clone());
        Ok(None)
    }
}

fn main() -> Result<()> {
    let embedded = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../datasets/embedded");
    let mut args = std::env::args().skip(1);
    let folder = args.next().map_or_else(embedded, PathBuf::from);
    let layer = args.next().map_or(Ok(0), |layer| layer.parse()).context("LAYER is a number")?;
    let prompt = args.next().unwrap_or_else(|| "When Mary and John went to the store, John gave a drink to".to_owned());

    let checkpoint = checkpoint::open(&folder)?;
    let builder = checkpoint.var_builder(&Device::Cpu);
    println!("embedding        {}", builder.get_unchecked("embed.weight")?);
    let model = Transformer::load(checkpoint.config, builder)?;

    let point = Point { site: Site::MlpPostAct, layer: Some(layer) };
    let mut keep = Keep { point, activations: None };
    let tokens = checkpoint.tokenizer.encode(&prompt);
    let run = model.forward(&tokens, ForwardOptions { hooks: Some(&mut keep), ..Default::default() })?;
    let logits = run.logits(tokens.len() - 1)?;
    let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).context("no vocabulary")?;
    println!("neurons [T, F]   {}", keep.activations.with_context(|| format!("there is no layer {layer}"))?);
    println!("next token       {:?}", checkpoint.tokenizer.decode_token(best as u32));
    Ok(())
}
