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
fn what_is_read_is_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let model = train(&tiny(folder.path()), &mut |_| ControlFlow::Continue(())).unwrap().unwrap();
    let read = Model::read(folder.path()).unwrap();
    assert_eq!(read.parameters, model.parameters);
    assert_eq!(read.layout.shape, model.layout.shape);
}
