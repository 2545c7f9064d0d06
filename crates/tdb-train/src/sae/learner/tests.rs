use tdb_model::numbers::tensor;

use super::*;

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
    let mut learner = Learner::new(width, 48, sparsity, &x, &mut Dice::new(&[1]));
    let mut last = StepStats::default();
    for step in 0..steps {
        let at = step * 256 % 4096;
        last = learner.step(&x[at * width..(at + 256) * width], 3e-3, step, 1.0, 5000.0);
    }
    (learner, last, directions)
}

#[test]
fn topk_finds_the_directions_that_the_data_is_made_of() {
    let (learner, stats, directions) = train(Sparsity::TopK { k: 2 }, 1500);
    assert!(stats.variance_explained() > 0.9, "{}", stats.variance_explained());
    assert!(stats.latents_per_token() <= 2.0);
    let [decoder_at, latent_bias_at, _] = learner.ends();
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
    let start = Learner::new(6, 10, sparsity, &x, &mut Dice::new(&[3]));
    let loss = |learner: &Learner| {
        let stats = learner.clone().step(&x, 0.0, 0, 1.0, 1e9);
        stats.squared_error / (64.0 * 6.0) + 0.02 * stats.latent_sum / 64.0
    };
    let mut learner = start.clone();
    learner.step(&x, 0.0, 0, 1.0, 1e9);
    // After one step the first moment is a tenth of the gradient.
    let [decoder_at, latent_bias_at, _] = start.ends();
    for at in (0..start.parameters.len()).filter(|at| !(decoder_at..latent_bias_at).contains(at)) {
        let change = |by: f32| {
            let mut changed = start.clone();
            changed.parameters[at] += by;
            loss(&changed)
        };
        let rise = (change(2e-3) - change(-2e-3)) / 4e-3;
        let gradient = f64::from(learner.moments.first[at]) / 0.1;
        assert!((rise - gradient).abs() < 0.05 * gradient.abs() + 2e-3, "{at}: {rise} {gradient}");
    }
}

#[test]
fn dead_latents_come_back() {
    let (x, _) = data(2048, 24, 30, 5);
    let mut learner = Learner::new(24, 48, Sparsity::Relu { l1: 0.003 }, &x, &mut Dice::new(&[1]));
    let [_, latent_bias_at, _] = learner.ends();
    learner.parameters[latent_bias_at..latent_bias_at + 20].fill(-50.0);
    for step in 0..20 {
        learner.step(&x[..256 * 24], 1e-3, step, 1.0, 4000.0);
    }
    assert!(learner.idle[..20].iter().all(|&idle| idle >= 4000.0));
    let revived = learner.revive(&x, 4000.0, &mut Dice::new(&[2]));
    assert!(revived >= 20);
    for step in 20..100 {
        let at = step % 8 * 256 * 24;
        learner.step(&x[at..at + 256 * 24], 1e-3, step, 1.0, 4000.0);
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
    let error: f64 = x.iter().zip(&decoded).map(|(x, r)| f64::from((x - r) * learner.scale).powi(2)).sum();
    let stats = learner.clone().step(&x, 0.0, 0, 1.0, 1e9);
    assert!((error - stats.squared_error).abs() < 1e-3 * error, "{error} {}", stats.squared_error);
    let active: usize = encoded.rows().iter().map(Vec::len).sum();
    assert_eq!(active as u64, stats.active);
}
