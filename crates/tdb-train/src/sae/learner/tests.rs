use tdb_model::numbers::tensor;

use super::*;

fn autoencoder(width: usize, latents: usize) -> Shape {
    Shape { inputs: width, outputs: width, latents, kind: Kind::Autoencoder }
}

/// Rows made of a few directions each: what an autoencoder should find.
fn data(n: usize, width: usize, features: usize, seed: u64) -> (Vec<f32>, Vec<f32>) {
    let mut dice = Dice::new(&[seed]);
    let mut directions: Vec<f32> = (0..features * width).map(|_| dice.normal()).collect();
    normalise(&mut directions, width);
    let mut dice = Dice::new(&[seed, 1]);
    let mut x = vec![0.0f32; n * width];
    for row in x.chunks_exact_mut(width) {
        row.fill(0.3);
        for _ in 0..2 {
            let feature = dice.below(features);
            axpy(row, 1.0 + dice.unit() as f32, &directions[feature * width..][..width]);
        }
    }
    (x, directions)
}

fn train(sparsity: Sparsity, steps: usize) -> (Learner, StepStats, Vec<f32>) {
    let (width, features) = (24, 30);
    let (x, directions) = data(4096, width, features, 5);
    let mut learner = Learner::new(autoencoder(width, 48), sparsity, Examples::of_itself(&x), &mut Dice::new(&[1]));
    let mut last = StepStats::default();
    for step in 0..steps {
        let at = step * 256 % 4096;
        last = learner.step(Examples::of_itself(&x[at * width..(at + 256) * width]), 3e-3, step, 1.0, 5000.0);
    }
    (learner, last, directions)
}

#[test]
fn topk_finds_the_directions_that_the_data_is_made_of() {
    let (learner, stats, directions) = train(Sparsity::TopK { k: 2 }, 1500);
    assert!(stats.variance_explained() > 0.9, "{}", stats.variance_explained());
    assert!(stats.latents_per_token() <= 2.0);
    let Places { decoder: decoder_at, latent_bias: latent_bias_at, .. } = learner.shape.places();
    let found = directions.chunks_exact(24).filter(|direction| {
        let rows = learner.parameters[decoder_at..latent_bias_at].chunks_exact(24);
        rows.map(|row| dot(row, direction)).fold(0.0f32, f32::max) > 0.95
    });
    let found = found.count();
    assert!(found >= 24, "{found} of 30");
}

#[test]
fn l1_makes_latents_rare() {
    let (_, none, _) = train(Sparsity::Relu { l1: 0.0 }, 800);
    let (_, some, _) = train(Sparsity::Relu { l1: 0.01 }, 800);
    assert!(some.latents_per_token() < 0.7 * none.latents_per_token());
    assert!(some.variance_explained() > 0.8, "{}", some.variance_explained());
}

#[test]
fn a_step_follows_the_gradient() {
    // Against finite differences of the loss that `step` says it lowers, in double steps of one parameter.
    let sparsity = Sparsity::Relu { l1: 0.02 };
    let (x, _) = data(64, 6, 5, 9);
    let (y, _) = data(64, 4, 5, 10);
    let transcoder = Shape { inputs: 6, outputs: 4, latents: 10, kind: Kind::Transcoder { skip: true } };
    for (shape, examples) in
        [(autoencoder(6, 10), Examples::of_itself(&x)), (transcoder, Examples { inputs: &x, targets: &y })]
    {
        let mut start = Learner::new(shape, sparsity, examples, &mut Dice::new(&[3]));
        let at = shape.places();
        start.parameters[at.skip..].fill_with({
            let mut dice = Dice::new(&[4]);
            move || 0.1 * dice.normal()
        });
        let loss = |learner: &Learner| {
            let stats = learner.clone().step(examples, 0.0, 0, 1.0, 1e9);
            stats.squared_error / (64.0 * shape.outputs as f64) + 0.02 * stats.latent_sum / 64.0
        };
        let mut learner = start.clone();
        learner.step(examples, 0.0, 0, 1.0, 1e9);
        // After one step the first moment is a tenth of the gradient.
        for index in (0..start.parameters.len()).filter(|index| !(at.decoder..at.latent_bias).contains(index)) {
            let change = |by: f32| {
                let mut changed = start.clone();
                changed.parameters[index] += by;
                loss(&changed)
            };
            let rise = (change(5e-4) - change(-5e-4)) / 1e-3;
            let gradient = f64::from(learner.moments.first[index]) / 0.1;
            let near = (rise - gradient).abs() < 0.05 * gradient.abs() + 2e-3;
            assert!(near, "{:?}, {index}: {rise} {gradient}", shape.kind);
        }
    }
}

/// Inputs and what a sparse map makes of them: each feature that is read writes a direction of its own.
fn mapped(n: usize) -> (Vec<f32>, Vec<f32>) {
    let (x, reads) = data(n, 24, 30, 5);
    let (_, writes) = data(1, 16, 30, 6);
    let mut y = vec![0.5f32; n * 16];
    for (x, y) in x.chunks_exact(24).zip(y.chunks_exact_mut(16)) {
        for (read, write) in reads.chunks_exact(24).zip(writes.chunks_exact(16)) {
            axpy(y, 3.0 * (dot(x, read) - 0.9).max(0.0), write);
        }
    }
    (x, y)
}

#[test]
fn a_transcoder_finds_the_map_that_the_data_was_made_by() {
    let (x, y) = mapped(4096);
    let batch = |at: usize| Examples { inputs: &x[at * 24..(at + 256) * 24], targets: &y[at * 16..(at + 256) * 16] };
    for (skip, sparsity) in [(false, Sparsity::TopK { k: 4 }), (true, Sparsity::Relu { l1: 0.002 })] {
        let shape = Shape { inputs: 24, outputs: 16, latents: 60, kind: Kind::Transcoder { skip } };
        let all = Examples { inputs: &x, targets: &y };
        let mut learner = Learner::new(shape, sparsity, all, &mut Dice::new(&[1]));
        let mut last = StepStats::default();
        for step in 0..1500 {
            last = learner.step(batch(step * 256 % 4096), 3e-3, step, 1.0, 5000.0);
        }
        assert!(last.variance_explained() > 0.9, "{sparsity:?}: {}", last.variance_explained());
        // What is given out makes the same, in the activations' own units.
        let order: Vec<u32> = (0..60).rev().collect();
        let weights = learner.weights(&order, None);
        assert_eq!(weights.skip.is_some(), skip);
        let site = tdb_model::AutoencoderSite::MlpTranscoder;
        let transcoder = tdb_model::Autoencoder::new(site, weights).unwrap();
        let inputs = tensor(&[256, 24], x[..256 * 24].to_vec());
        let made = transcoder.decode(&transcoder.encode(&inputs).unwrap(), &inputs).unwrap();
        let made = made.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let error: f64 = y.iter().zip(&made).map(|(y, made)| f64::from((y - made) * learner.scales[1]).powi(2)).sum();
        let stats = learner.clone().step(batch(0), 0.0, 0, 1.0, 1e9);
        assert!((error - stats.squared_error).abs() < 1e-3 * error, "{error} {}", stats.squared_error);
    }
}

#[test]
fn dead_latents_of_a_transcoder_come_back() {
    let (x, y) = mapped(2048);
    let batch = |at: usize| Examples { inputs: &x[at * 24..(at + 256) * 24], targets: &y[at * 16..(at + 256) * 16] };
    let shape = Shape { inputs: 24, outputs: 16, latents: 48, kind: Kind::Transcoder { skip: false } };
    let all = Examples { inputs: &x, targets: &y };
    let mut learner = Learner::new(shape, Sparsity::Relu { l1: 0.003 }, all, &mut Dice::new(&[1]));
    let at = shape.places().latent_bias;
    learner.parameters[at..at + 20].fill(-50.0);
    for step in 0..20 {
        learner.step(batch(0), 1e-3, step, 1.0, 4000.0);
    }
    assert!(learner.revive(all, 4000.0, &mut Dice::new(&[2])) >= 20);
    for step in 20..100 {
        learner.step(batch(step % 8 * 256), 1e-3, step, 1.0, 4000.0);
    }
    let alive = learner.idle[..20].iter().filter(|&&idle| idle < 2000.0).count();
    assert!(alive >= 15, "{alive} of 20");
}

#[test]
fn dead_latents_come_back() {
    let (x, _) = data(2048, 24, 30, 5);
    let mut learner =
        Learner::new(autoencoder(24, 48), Sparsity::Relu { l1: 0.003 }, Examples::of_itself(&x), &mut Dice::new(&[1]));
    let latent_bias_at = learner.shape.places().latent_bias;
    learner.parameters[latent_bias_at..latent_bias_at + 20].fill(-50.0);
    for step in 0..20 {
        learner.step(Examples::of_itself(&x[..256 * 24]), 1e-3, step, 1.0, 4000.0);
    }
    assert!(learner.idle[..20].iter().all(|&idle| idle >= 4000.0));
    let revived = learner.revive(Examples::of_itself(&x), 4000.0, &mut Dice::new(&[2]));
    assert!(revived >= 20);
    for step in 20..100 {
        let at = step % 8 * 256 * 24;
        learner.step(Examples::of_itself(&x[at..at + 256 * 24]), 1e-3, step, 1.0, 4000.0);
    }
    let alive = learner.idle[..20].iter().filter(|&&idle| idle < 2000.0).count();
    assert!(alive >= 15, "{alive} of 20");
}

#[test]
fn the_weights_given_out_do_what_the_learner_does() {
    let (learner, _, _) = train(Sparsity::TopK { k: 3 }, 100);
    let (x, _) = data(16, 24, 30, 5);
    let order: Vec<u32> = (0..48).rev().collect();
    let weights = learner.weights(&order, None);
    let autoencoder = tdb_model::Autoencoder::new(tdb_model::AutoencoderSite::ResidDeltaMlp, weights).unwrap();
    let inputs = tensor(&[16, 24], x.clone());
    let encoded = autoencoder.encode(&inputs).unwrap();
    let decoded = autoencoder.decode(&encoded, &inputs).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let error: f64 = x.iter().zip(&decoded).map(|(x, r)| f64::from((x - r) * learner.scales[0]).powi(2)).sum();
    let stats = learner.clone().step(Examples::of_itself(&x), 0.0, 0, 1.0, 1e9);
    assert!((error - stats.squared_error).abs() < 1e-3 * error, "{error} {}", stats.squared_error);
    let active: usize = encoded.rows().iter().map(Vec::len).sum();
    assert_eq!(active as u64, stats.active);
}
