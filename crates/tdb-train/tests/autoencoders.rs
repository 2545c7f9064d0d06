//! Autoencoders of a tiny model, from its text to files that the debugger reads.

#![allow(clippy::unwrap_used)] // functions that tests call, too

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use tdb_model::checkpoint::{self, Precision};
use tdb_model::{AutoencoderSite, Tokenizer, Transformer};
use tdb_train::optimizer::AdamW;
use tdb_train::sae::{self, GrammarSource, SaeRecipe, SaeStart, Sparsity, TokenSource};
use tdb_train::{Recipe, TrainOptions, train};

fn tiny_model(folder: &Path) -> (Transformer, Tokenizer) {
    let recipe = Recipe {
        steps: 6,
        batch: 8,
        n_layers: 2,
        d_model: 16,
        n_heads: 2,
        d_ff: 32,
        context: 32,
        tokenizer_rows: 300,
        optimizer: AdamW { warm_up: 2, ..AdamW::default() },
        ..Recipe::default()
    };
    let options = TrainOptions { recipe, start: None, folder: folder.to_owned(), save_every: 100 };
    train(&options, &mut |_| ControlFlow::Continue(())).unwrap();
    let checkpoint = checkpoint::open(folder).unwrap();
    (Transformer::load(checkpoint.config, checkpoint.weights).unwrap(), checkpoint.tokenizer)
}

fn recipe(site: AutoencoderSite, sparsity: Sparsity) -> SaeRecipe {
    let skip = site.is_transcoder();
    SaeRecipe {
        seed: 3,
        site,
        skip,
        latents: 24,
        sparsity,
        tokens: 4000,
        batch: 128,
        buffer: 512,
        rate: 3e-3,
        from: None,
    }
}

fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let mut files: Vec<_> =
        entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect();
    files.sort();
    files
}

/// A text with an end: a few documents, over and over.
struct Short {
    all: Vec<Vec<u32>>,
    next: usize,
}

impl TokenSource for Short {
    fn next(&mut self) -> tdb_train::Result<Option<Vec<u32>>> {
        self.next += 1;
        Ok(self.all.get(self.next - 1).cloned())
    }

    fn rewind(&mut self) -> tdb_train::Result<()> {
        self.next = 0;
        Ok(())
    }
}

#[test]
fn a_killed_and_resumed_run_ends_with_the_same_bytes() {
    let model_folder = tempfile::tempdir().unwrap();
    let (model, tokenizer) = tiny_model(model_folder.path());
    let all: Vec<Vec<u32>> = {
        let mut source = GrammarSource::new(tokenizer, 1, 32);
        (0..40).map(|_| source.next().unwrap().unwrap()).collect()
    };
    for (name, site, sparsity) in [
        ("a-mlp-post-act", AutoencoderSite::MlpPostAct, Sparsity::TopK { k: 4 }),
        ("a-resid-delta-mlp", AutoencoderSite::ResidDeltaMlp, Sparsity::Relu { l1: 0.01 }),
        ("a-resid-delta-attn", AutoencoderSite::ResidDeltaAttn, Sparsity::TopK { k: 3 }),
        ("a-mlp-transcoder", AutoencoderSite::MlpTranscoder, Sparsity::Relu { l1: 0.01 }),
        ("a-mlp-transcoder-of-topk", AutoencoderSite::MlpTranscoder, Sparsity::TopK { k: 4 }),
    ] {
        let recipe = recipe(site, sparsity);
        let root = tempfile::tempdir().unwrap();
        let (whole, cut) = (root.path().join("whole").join(name), root.path().join("cut").join(name));
        for folder in [&whole, &cut] {
            fs::create_dir_all(folder).unwrap();
        }
        let run = |folder: &Path, stop: usize| {
            let mut seen = Vec::new();
            let mut source = Short { all: all.clone(), next: 5 };
            let trained = sae::train_autoencoders(
                &model,
                &mut source,
                &recipe,
                None,
                &sae::state_file(folder),
                &mut |progress| {
                    seen.push(progress.tokens);
                    if seen.len() == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                },
            )
            .unwrap();
            if let Some(trained) = &trained {
                sae::write_autoencoders(folder, &recipe, "a test's", None, trained, Precision::F32).unwrap();
            }
            (trained, seen)
        };
        let (trained, seen) = run(&whole, 0);
        assert_eq!(seen.len(), 8, "{seen:?}");
        assert!(run(&cut, 3).0.is_none());
        assert!(sae::state_file(&cut).exists() && !sae::is_finished(&cut));
        assert_eq!(run(&cut, 0).1, seen[3..]);
        assert_eq!(files(&whole), files(&cut), "{name}");

        // What is read is what was trained.
        let read = checkpoint::open_autoencoder(&whole, None, model.config()).unwrap();
        let trained = trained.unwrap();
        assert_eq!((read.site, read.layers.len()), (site, trained.len()));
        for (read, trained) in read.layers.iter().zip(&trained) {
            assert_eq!(read.encoder.row(5), trained.weights.encoder.row(5));
            assert_eq!(read.decoder.row(5), trained.weights.decoder.row(5));
            assert_eq!(read.activation, trained.weights.activation);
            assert_eq!(read.skip.is_some(), site.is_transcoder());
            let frequency = read.activation_frequency.as_ref().unwrap();
            assert!(frequency.is_sorted_by(|a, b| a >= b));
            assert!(trained.quality.variance_explained > 0.2, "{name}: {:?}", trained.quality);
        }
        if sae::check_sae_lens(&recipe).is_err() {
            continue;
        }
        let exported = root.path().join("exported").join(name);
        sae::export_sae_lens(&exported, &recipe, &trained, "tiny").unwrap();
        let exported = checkpoint::open_autoencoder(&exported, None, model.config()).unwrap();
        assert_eq!(exported.site, site);
        assert_eq!(exported.layers[1].encoder.row(3), read.layers[1].encoder.row(3));
    }
}

#[test]
fn going_on_keeps_latents_in_their_places_and_resumes_to_the_same_bytes() {
    let model_folder = tempfile::tempdir().unwrap();
    let (model, tokenizer) = tiny_model(model_folder.path());
    for (name, site, sparsity) in [
        ("a-resid-delta-mlp", AutoencoderSite::ResidDeltaMlp, Sparsity::TopK { k: 4 }),
        ("a-mlp-transcoder", AutoencoderSite::MlpTranscoder, Sparsity::Relu { l1: 0.01 }),
    ] {
        let root = tempfile::tempdir().unwrap();
        let run = |folder: &Path, recipe: &SaeRecipe, start: Option<&SaeStart>, stop: usize| {
            fs::create_dir_all(folder).unwrap();
            let (mut source, mut seen) = (GrammarSource::new(tokenizer.clone(), 1, 32), 0);
            let state = sae::state_file(folder);
            let trained = sae::train_autoencoders(&model, &mut source, recipe, start, &state, &mut |_| {
                seen += 1;
                if seen == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            let trained = trained.unwrap();
            if let Some(trained) = &trained {
                sae::write_autoencoders(folder, recipe, "a test's", start, trained, Precision::F32).unwrap();
            }
            trained
        };
        let first = root.path().join("first").join(name);
        let begun = recipe(site, sparsity);
        let before = run(&first, &begun, None, 0).unwrap();

        let start = SaeStart::read(&first, model.config()).unwrap();
        let from = Some(start.fingerprint().to_owned());
        let recipe = SaeRecipe { seed: 9, rate: 1e-5, from, ..begun };
        let [whole, cut] = ["whole", "cut"].map(|of| root.path().join(of).join(name));
        let after = run(&whole, &recipe, Some(&start), 0).unwrap();
        assert!(run(&cut, &recipe, Some(&start), 3).is_none());
        run(&cut, &recipe, Some(&start), 0).unwrap();
        assert_eq!(files(&whole), files(&cut), "{name}");

        for (before, after) in before.iter().zip(&after) {
            let (old, new) = (&before.weights, &after.weights);
            let apart = |a: Vec<f32>, b: Vec<f32>| a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max);
            let directions = apart(old.decoder.to_vec(), new.decoder.to_vec());
            assert!(directions > 0.0 && directions < 1e-3, "{name}: {directions}");
            assert!(apart(old.encoder.to_vec(), new.encoder.to_vec()) < 0.01, "{name}");
            assert!(apart(old.latent_bias.clone(), new.latent_bias.clone()) < 0.01, "{name}");
            assert!(apart(old.decoder_bias.clone(), new.decoder_bias.clone()) < 0.01, "{name}");
            let explained = after.quality.variance_explained - before.quality.variance_explained;
            assert!(explained > -0.01, "{name}: {explained}");
        }

        let report = |folder: &Path| -> serde_json::Value {
            serde_json::from_slice(&fs::read(folder.join("training.json")).unwrap()).unwrap()
        };
        assert_eq!(report(&whole)["recipe"]["from"], start.fingerprint());
        assert_eq!(report(&whole)["start"], report(&first));

        // Other settings than those of the dictionaries, and another start than the recipe's.
        let refused = |recipe: &SaeRecipe, start: Option<&SaeStart>| {
            let (mut source, state) = (GrammarSource::new(tokenizer.clone(), 1, 32), root.path().join("none"));
            let result = sae::train_autoencoders(&model, &mut source, recipe, start, &state, &mut |_| panic!("trains"));
            result.unwrap_err().to_string()
        };
        let error = refused(&SaeRecipe { latents: 25, ..recipe.clone() }, Some(&start));
        assert!(error.starts_with("from: ") && error.contains("24 latents, not 25"), "{error}");
        let error = refused(&SaeRecipe { sparsity: Sparsity::TopK { k: 5 }, ..recipe.clone() }, Some(&start));
        assert!(error.contains("not by TopK { k: 5"), "{error}");
        let error = refused(&recipe, None);
        assert!(error.contains("goes on from these dictionaries"), "{error}");
    }
    let error = SaeStart::read(model_folder.path(), model.config()).unwrap_err().to_string();
    assert!(error.contains(&*model_folder.path().to_string_lossy()), "{error}");
}

#[test]
fn what_cannot_work_is_said() {
    let model_folder = tempfile::tempdir().unwrap();
    let (model, tokenizer) = tiny_model(model_folder.path());
    let state = model_folder.path().join("state.safetensors");
    let good = recipe(AutoencoderSite::ResidDeltaMlp, Sparsity::TopK { k: 4 });
    let fail = |source: &mut dyn TokenSource, recipe: &SaeRecipe| {
        let result = sae::train_autoencoders(&model, source, recipe, None, &state, &mut |_| ControlFlow::Break(()));
        result.unwrap_err().to_string()
    };
    let mut empty = Short { all: vec![vec![]; 3], next: 0 };
    assert!(fail(&mut empty, &good).contains("holds no tokens"));
    let mut text = GrammarSource::new(tokenizer, 1, 32);
    assert!(fail(&mut text, &SaeRecipe { sparsity: Sparsity::TopK { k: 25 }, ..good.clone() }).contains("24 latents"));
    assert!(fail(&mut text, &SaeRecipe { buffer: 100, ..good.clone() }).contains("fewer than one batch of 128"));
    assert!(fail(&mut text, &SaeRecipe { rate: f32::NAN, ..good.clone() }).contains("rate"));
    assert!(fail(&mut text, &SaeRecipe { skip: true, ..good.clone() }).contains("only a transcoder"));
    fs::write(&state, b"nothing of use").unwrap();
    let error = fail(&mut text, &good);
    assert!(error.contains("state.safetensors") && error.contains("remove it to begin anew"), "{error}");
}
