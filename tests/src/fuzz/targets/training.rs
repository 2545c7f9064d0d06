//! What a training goes on from.

use std::fs;
use std::ops::ControlFlow;

use tdb_train::{Model, Recipe, Start, TrainOptions, train};

use super::{first_line, in_folder};

const CONFIG: &[u8] = include_bytes!("../../../fuzz/corpus/config/gpt2.json");
const WEIGHTS: &[u8] = include_bytes!("../../../fuzz/corpus/safetensors/gpt2.safetensors");
const TOKENIZER: &[u8] = include_bytes!("../../../fuzz/corpus/tokenizer/plain.json");

/// A file of a model that a training begins with, or of one that was interrupted, after a line with its name.
pub fn training(input: &[u8]) {
    let Some((name, content)) = first_line(input) else { return };
    let of_model = [("config.json", CONFIG), ("model.safetensors", WEIGHTS), ("tokenizer.json", TOKENIZER)];
    if name == "training-state.safetensors" {
        return in_folder(&of_model, |folder| {
            let Ok(start) = Start::read(folder) else { return };
            let folder = folder.join("new");
            if fs::create_dir(&folder).is_ok() && fs::write(folder.join(name), content).is_ok() {
                let recipe = Recipe { steps: 1, batch: 1, ..Recipe::default() };
                let options = TrainOptions { recipe, start: Some(start), folder, save_every: 1 };
                drop(train(&options, &mut |_| ControlFlow::Break(())));
            }
        });
    }
    let mut files: Vec<(&str, &[u8])> = of_model.into_iter().filter(|(other, _)| *other != name).collect();
    if of_model.iter().any(|(known, _)| *known == name) || name == "training.json" {
        files.push((name, content));
        in_folder(&files, |folder| {
            drop(Model::read(folder));
            drop(Start::read(folder));
        });
    }
}
