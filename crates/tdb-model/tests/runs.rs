//! What runs share, where they stop, and what they refuse.

#![allow(clippy::unwrap_used)] // helpers of a test, too

use crate::common;
use crate::common::{TOKENS, logit_seed, models, plain, points, run_backward, run_forward};
use tdb_model::numbers::{tensor, zeros};
use tdb_model::{
    BackwardOptions, Error, ForwardOptions, Hooks, Index, Intervention, Pass, Point, Run, Seed, Site, Transformer,
    first_layer_reached,
};

fn bits(run: &Run) -> Vec<u32> {
    let all = points(run.model()).into_iter().map(|p| common::activation(run, p));
    all.flatten().map(f32::to_bits).collect()
}

fn with_shared(
    model: &Transformer,
    shared: &Run,
    interventions: &[Intervention],
    hooks: Option<&mut dyn Hooks>,
) -> Run {
    let hooks = hooks.map(|hooks| hooks as &mut dyn Hooks);
    let options = ForwardOptions { interventions, hooks, shared: Some(shared), ..Default::default() };
    model.forward(&TOKENS, options).unwrap()
}

#[test]
fn a_shared_prefix_gives_the_same_bits() {
    for (name, model) in models() {
        let shared = run_forward(&model, &TOKENS, &[], None);
        for point in points(&model) {
            for pass in [Pass::Forward, Pass::Backward] {
                let interventions = [common::intervention(&model, point, pass, Some(3), 0.6)];
                let alone = run_forward(&model, &TOKENS, &interventions, None);
                let together = with_shared(&model, &shared, &interventions, None);
                assert!(bits(&alone) == bits(&together), "{name}: {interventions:?}");
                let back = |forward| {
                    let seed = logit_seed(&model, &[TOKENS.len() - 1]);
                    let gradients = run_backward(forward, seed, &interventions, None);
                    let all = points(&model).into_iter().filter_map(|p| common::gradient(forward, &gradients, p));
                    all.flatten().map(f32::to_bits).collect::<Vec<_>>()
                };
                assert!(back(&alone) == back(&together), "{name}: gradients with {interventions:?}");
            }
        }
    }
}

#[test]
fn layers_below_the_first_intervention_are_not_run_again() {
    let model = plain();
    let shared = run_forward(&model, &TOKENS, &[], None);
    let at = |site, layer| {
        let indices = vec![Index::At(2), Index::At(1)];
        [Intervention { site, layer, pass: Pass::Forward, indices, value: 0.0 }]
    };
    let same = |interventions: &[Intervention], layer: usize| {
        let run = with_shared(&model, &shared, interventions, None);
        let id = |run: &Run| run.get(Site::MlpPreAct, layer).unwrap().id();
        id(&run) == id(&shared)
    };
    let second = at(Site::MlpPostAct, Some(1));
    assert!(same(&second, 0) && !same(&second, 1));
    assert_eq!(first_layer_reached(&second, 2), 1);
    assert!(!same(&at(Site::MlpPostAct, None), 0));
    assert!(!same(&at(Site::ResidPostEmb, None), 0));
    assert!(same(&at(Site::PostFinalLn, None), 1));
}

/// Doubles the neurons of one layer.
struct Double(usize);

impl Hooks for Double {
    fn wants(&self, point: Point, pass: Pass) -> bool {
        point == Point { site: Site::MlpPostAct, layer: Some(self.0) } && pass == Pass::Forward
    }

    fn forward(&mut self, _: Point, x: &candle_core::Tensor) -> candle_core::Result<Option<candle_core::Tensor>> {
        (x * 2.0).map(Some)
    }
}

#[test]
fn hooks_act_also_on_a_shared_prefix() {
    let model = plain();
    let shared = run_forward(&model, &TOKENS, &[], None);
    for layer in 0..2 {
        let alone = run_forward(&model, &TOKENS, &[], Some(&mut Double(layer)));
        let together = with_shared(&model, &shared, &[], Some(&mut Double(layer)));
        assert!(bits(&alone) == bits(&together));
        assert!(bits(&alone) != bits(&shared));
    }
}

#[test]
fn another_prompt_shares_nothing() {
    let model = plain();
    let mut tokens = TOKENS;
    tokens[0] += 1;
    let other = run_forward(&model, &tokens, &[], None);
    let alone = run_forward(&model, &TOKENS, &[], None);
    assert!(bits(&alone) == bits(&with_shared(&model, &other, &[], None)));
}

fn wide() -> tdb_model::Config {
    tdb_model::Config {
        d_model: 96,
        n_heads: 4,
        n_kv_heads: 4,
        d_head: 24,
        d_ff: 400,
        n_vocab: 501,
        ..common::config()
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let (_, model) = models().swap_remove(1);
    // Large enough for the products to be split.
    let config = wide();
    for model in [model, common::transformer(config)] {
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let forward = run_forward(&model, &TOKENS, &[], None);
                let gradients = run_backward(&forward, logit_seed(&model, &[3, 6]), &[], None);
                let back = points(&model).into_iter().filter_map(|p| common::gradient(&forward, &gradients, p));
                let back: Vec<u32> = back.flatten().map(f32::to_bits).collect();
                (bits(&forward), back)
            })
        };
        let one = run(1);
        for threads in [2, 3, 5] {
            assert!(run(threads) == one, "{threads} threads");
        }
    }
}

#[test]
fn a_run_can_stop_after_some_layers() {
    let model = plain();
    let whole = run_forward(&model, &TOKENS, &[], None);
    for layers in 0..=2 {
        let mut seen = Vec::new();
        let options = ForwardOptions {
            layers: Some(layers),
            after_layer: Some(&mut |layer| {
                seen.push(layer);
                true
            }),
            ..Default::default()
        };
        let run = model.forward(&TOKENS, options).unwrap();
        assert_eq!(seen, (0..layers).collect::<Vec<_>>());
        assert_eq!(common::flat(run.last_residual()), common::flat(whole.residual_before(layers)));
        assert_eq!((run.get(Site::PostFinalLn, None).is_ok(), run.logits(0).is_ok()), (layers == 2, layers == 2));
        let back = |seed| {
            let options = BackwardOptions { keep: &Site::ALL, ..Default::default() };
            run.backward(seed, options)
        };
        assert_eq!(back(logit_seed(&model, &[6])).is_ok(), layers == 2);
        let point = Point { site: Site::ResidPostAttn, layer: Some(0) };
        let gradient = tensor(&[TOKENS.len(), 20], vec![1.0; TOKENS.len() * 20]);
        let from_first = back(Seed::Residual { point, gradient });
        assert_eq!(from_first.is_ok(), layers > 0);
    }
}

#[test]
fn a_run_can_be_cancelled_in_both_passes() {
    let model = plain();
    let options = ForwardOptions { after_layer: Some(&mut |l| l < 1), ..Default::default() };
    assert!(matches!(model.forward(&TOKENS, options), Err(Error::Cancelled)));
    let forward = run_forward(&model, &TOKENS, &[], None);
    let mut seen = Vec::new();
    let options = BackwardOptions {
        after_layer: Some(&mut |layer| {
            seen.push(layer);
            false
        }),
        ..Default::default()
    };
    let answer = forward.backward(logit_seed(&model, &[6]), options);
    assert!(matches!(answer, Err(Error::Cancelled)));
    assert_eq!(seen, [1]);
}

#[test]
fn what_does_not_fit_is_refused_with_a_sentence() {
    let model = plain();
    let run = |tokens: &[u32], interventions: &[Intervention]| {
        let options = ForwardOptions { interventions, ..Default::default() };
        model.forward(tokens, options).unwrap_err().to_string()
    };
    assert_eq!(run(&[], &[]), "the prompt has no tokens");
    assert_eq!(run(&[0; 13], &[]), "the prompt has 13 tokens, but the model sees at most 12");
    assert_eq!(run(&[3, 37], &[]), "token 37 is outside the vocabulary of 37");
    let at = |site, indices| [Intervention { site, layer: None, pass: Pass::Forward, indices, value: 0.0 }];
    assert!(run(&TOKENS, &at(Site::MlpLatent, vec![Index::All; 2])).contains("needs an autoencoder"));
    assert!(run(&TOKENS, &at(Site::MlpPostAct, vec![Index::At(7), Index::All])).contains("[7, 44]"));
    assert!(run(&TOKENS, &at(Site::MlpPostAct, vec![Index::All])).contains("do not fit MlpPostAct"));

    let forward = run_forward(&model, &TOKENS, &[], None);
    let back = |seed| forward.backward(seed, BackwardOptions::default()).map(|_| ()).unwrap_err().to_string();
    assert!(back(Seed::Logits([(7, vec![0.0; 37])].into())).contains("token 7"));
    assert!(back(Seed::Logits([(0, vec![0.0; 36])].into())).contains("length 36"));
    let gradient = zeros(&[TOKENS.len(), 20]);
    let point = Point { site: Site::MlpPostAct, layer: Some(0) };
    assert!(back(Seed::Residual { point, gradient: gradient.clone() }).contains("MlpPostAct"));
    let point = Point { site: Site::ResidPostMlp, layer: Some(2) };
    assert!(back(Seed::Residual { point, gradient }).contains("Some(2)"));
}
