use tdb_model::{ForwardOptions, Site, Transformer, checkpoint};

use super::*;

fn tiny(folder: &Path) -> TrainOptions {
    let recipe = Recipe {
        steps: 12,
        batch: 8,
        n_layers: 2,
        d_model: 16,
        n_heads: 2,
        d_ff: 32,
        context: 32,
        tokenizer_rows: 500,
        optimizer: AdamW { warm_up: 4, ..AdamW::default() },
        ..Recipe::default()
    };
    TrainOptions { recipe, start: None, folder: folder.to_owned(), save_every: 3 }
}

fn whole(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn until(step: usize) -> impl FnMut(Progress) -> ControlFlow<()> {
    move |p| if p.step == step { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn a_killed_and_resumed_run_ends_with_the_same_bytes() {
    let (whole, cut) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut losses = Vec::new();
    let model = train(&tiny(whole.path()), &mut |progress| {
        losses.push(progress.loss);
        ControlFlow::Continue(())
    });
    assert!(model.unwrap().is_some());
    assert!(losses[11] < losses[0] - 0.1, "{losses:?}");
    // Killed at step 8, so that what came after the state of step 6 is lost.
    assert!(train(&tiny(cut.path()), &mut until(8)).unwrap().is_none());
    assert!(cut.path().join(STATE).exists());
    let mut first = 0;
    let resumed = train(&tiny(cut.path()), &mut |progress| {
        if first == 0 {
            first = progress.step;
        }
        ControlFlow::Continue(())
    });
    assert!(resumed.unwrap().is_some());
    assert_eq!(first, 7);
    assert_eq!(files(whole.path()), files(cut.path()));
    let names: Vec<_> = files(cut.path()).into_iter().map(|file| file.0).collect();
    assert_eq!(names, [CONFIG, WEIGHTS, TOKENIZER, REPORT]);
}

#[test]
fn other_settings_do_not_resume_and_a_finished_model_stays() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = tiny(folder.path());
    assert!(train(&options, &mut until(4)).unwrap().is_none());
    options.recipe.steps = 13;
    let error = train(&options, &mut whole).unwrap_err().to_string();
    assert!(error.contains(STATE) && error.contains("other settings"), "{error}");
    options.recipe.steps = 12;
    train(&options, &mut whole).unwrap();
    let error = train(&options, &mut whole).unwrap_err().to_string();
    assert!(error.contains("finished model"), "{error}");
}

/// Options that go on from the model in `start`.
fn on_from(start: &Path, folder: &Path) -> TrainOptions {
    let mut options = TrainOptions { start: Some(Start::read(start).unwrap()), ..tiny(folder) };
    options.recipe.seed = 5;
    options.recipe.optimizer = AdamW::going_on(options.recipe.steps);
    // Of no meaning here: the shape is that of the start.
    options.recipe.d_model = 999;
    options
}

#[test]
fn going_on_from_a_finished_model_begins_with_it_and_resumes_to_the_same_bytes() {
    let folders: [_; 3] = std::array::from_fn(|_| tempfile::tempdir().unwrap());
    let [start, whole_run, cut] = folders.each_ref().map(tempfile::TempDir::path);
    let first = train(&tiny(start), &mut whole).unwrap().unwrap();
    let before = files(start);
    let mut losses = Vec::new();
    let gone_on = train(&on_from(start, whole_run), &mut |progress| {
        losses.push(progress.loss);
        ControlFlow::Continue(())
    });
    let gone_on = gone_on.unwrap().unwrap();
    assert_eq!(files(start), before);

    let moved = |a: &Model, b: &Model| {
        let pairs = a.parameters.numbers().iter().zip(b.parameters.numbers());
        pairs.map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max)
    };
    // Twelve steps of at most 2e-4 each.
    let distance = moved(&first, &gone_on);
    assert!(distance > 0.0 && distance < 4e-3, "{distance}");
    // A model that has learnt nothing takes all tokens to be as likely.
    let untrained = (gone_on.tokenizer.get_vocab_size(true) as f32).ln();
    assert!(losses[0] < untrained - 0.1, "{losses:?} against {untrained}");

    assert!(train(&on_from(start, cut), &mut until(8)).unwrap().is_none());
    train(&on_from(start, cut), &mut whole).unwrap().unwrap();
    assert_eq!(files(whole_run), files(cut));

    let report: Value = serde_json::from_slice(&fs::read(cut.join(REPORT)).unwrap()).unwrap();
    assert_eq!(report["recipe"]["from"], first.fingerprint().unwrap());
    assert_ne!(first.fingerprint().unwrap(), gone_on.fingerprint().unwrap());
    assert_eq!(report["recipe"]["dModel"], 16);
    assert_eq!(report["start"], serde_json::from_slice::<Value>(&fs::read(start.join(REPORT)).unwrap()).unwrap());
    let command = format!("tdb train --from {} --seed 5 --steps 12 --batch 8", start.display());
    assert_eq!(report["madeBy"], command);
}

#[test]
fn a_folder_that_is_no_start_is_refused_with_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let refusal = || Start::read(folder.path()).unwrap_err().to_string();
    assert!(refusal().contains(CONFIG), "{}", refusal());

    train(&tiny(folder.path()), &mut whole).unwrap();
    let path = folder.path().join(TOKENIZER);
    let good = fs::read(&path).unwrap();
    let other = train_tokenizer(1, 40).unwrap();
    fs::write(&path, other.to_string(false).unwrap()).unwrap();
    let (tokens, error) = (other.get_vocab_size(true), refusal());
    assert!(
        error.contains(TOKENIZER) && error.contains(&format!("{tokens} tokens, but the model has rows")),
        "{error}"
    );
    fs::write(&path, good).unwrap();

    fs::write(folder.path().join(WEIGHTS), b"nothing").unwrap();
    assert!(refusal().contains(WEIGHTS), "{}", refusal());
}

#[test]
fn a_state_does_not_resume_from_another_start_and_rates_are_above_nothing() {
    let folders: [_; 3] = std::array::from_fn(|_| tempfile::tempdir().unwrap());
    let [one, other, out] = folders.each_ref().map(tempfile::TempDir::path);
    train(&tiny(one), &mut whole).unwrap();
    let mut options = tiny(other);
    options.recipe.steps = 6;
    train(&options, &mut whole).unwrap();
    assert!(train(&on_from(one, out), &mut until(4)).unwrap().is_none());
    let error = train(&on_from(other, out), &mut whole).unwrap_err().to_string();
    assert!(error.contains(STATE) && error.contains("other settings"), "{error}");
    let mut options = on_from(one, out);
    options.recipe.optimizer.peak = 0.0;
    let error = train(&options, &mut whole).unwrap_err().to_string();
    assert_eq!(error, "rate: 0, but it must be above 0");
}

#[test]
fn what_is_written_is_read_as_the_model_that_was_trained() {
    let folder = tempfile::tempdir().unwrap();
    let model = train(&tiny(folder.path()), &mut whole).unwrap().unwrap();
    let trained = model.parameters.transformer().unwrap();
    let read = checkpoint::open(folder.path()).unwrap();
    let read = Transformer::load(read.config, read.weights).unwrap();
    assert_eq!(read.config(), trained.config());
    let tokens = [0, 7, 20, 3, 11];
    let logits = |model: &Transformer| {
        let run = model.forward(&tokens, ForwardOptions::default()).unwrap();
        run.get(Site::Logits, None).unwrap().to_vec2::<f32>().unwrap()
    };
    assert_eq!(logits(&read), logits(&trained));
}

#[test]
fn any_number_of_threads_trains_the_same_model() {
    let with = |threads: usize| {
        let folder = tempfile::tempdir().unwrap();
        let mut options = tiny(folder.path());
        // Large enough for products to be shared between threads.
        options.recipe = Recipe { steps: 2, batch: 16, d_model: 64, d_ff: 256, ..options.recipe };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| train(&options, &mut whole)).unwrap();
        files(folder.path())
    };
    assert_eq!(with(1), with(3));
}
