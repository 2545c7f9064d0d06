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
    TrainOptions { recipe, folder: folder.to_owned(), save_every: 3 }
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
    let stop =
        |at: usize| move |p: Progress| if p.step == at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    assert!(train(&tiny(cut.path()), &mut stop(8)).unwrap().is_none());
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
    let stopped =
        train(&options, &mut |p| if p.step == 4 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) });
    assert!(stopped.unwrap().is_none());
    options.recipe.steps = 13;
    let error = train(&options, &mut |_| ControlFlow::Continue(())).unwrap_err().to_string();
    assert!(error.contains(STATE) && error.contains("other settings"), "{error}");
    options.recipe.steps = 12;
    train(&options, &mut |_| ControlFlow::Continue(())).unwrap();
    let error = train(&options, &mut |_| ControlFlow::Continue(())).unwrap_err().to_string();
    assert!(error.contains("finished model"), "{error}");
}

#[test]
fn what_is_written_is_read_as_the_model_that_was_trained() {
    let folder = tempfile::tempdir().unwrap();
    let model = train(&tiny(folder.path()), &mut |_| ControlFlow::Continue(())).unwrap().unwrap();
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
        pool.install(|| train(&options, &mut |_| ControlFlow::Continue(()))).unwrap();
        files(folder.path())
    };
    assert_eq!(with(1), with(3));
}
