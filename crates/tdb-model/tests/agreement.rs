//! Activations and gradients at every site, as the library and the second implementation see them.

#![allow(clippy::unwrap_used)] // helpers of a test, too

use crate::common;
use std::collections::BTreeMap;

use crate::common::Kinds;
use crate::common::twin::{Answer, Twin};
use crate::common::{
    TOKENS, activation, assert_close, flat, gradient, logit_seed, models, points, run_backward, run_forward,
};
use candle_core::Tensor;
use tdb_model::{Hooks, Index, Intervention, Pass, Point, Seed, Site, Transformer};

const TOLERANCE: f64 = 3e-5;

/// The same seed as [`logit_seed`] gives, as the twin wants it.
fn twin_seed(model: &Transformer, tokens: &[usize]) -> Vec<(Point, Vec<f32>)> {
    let Seed::Logits(rows) = logit_seed(model, tokens) else { unreachable!() };
    let zeros = vec![0.0; model.config().n_vocab];
    let all = (0..TOKENS.len()).flat_map(|t| rows.get(&t).unwrap_or(&zeros).clone()).collect();
    vec![(Point { site: Site::Logits, layer: None }, all)]
}

/// Runs with these interventions and compares all that is kept with the twin; returns the twin's answer.
fn compare(name: &str, model: &Transformer, interventions: &[Intervention]) -> Answer {
    let seeds = [2, TOKENS.len() - 1];
    let twin = Twin { interventions: interventions.to_vec(), ..Twin::default() };
    let expected = twin.run(model, &TOKENS, &twin_seed(model, &seeds));
    let forward = run_forward(model, &TOKENS, interventions, None);
    let gradients = run_backward(&forward, logit_seed(model, &seeds), interventions, None);
    for point in points(model) {
        let found = activation(&forward, point);
        assert_close(&format!("{name}: activation at {point:?}"), &found, &expected.activations[&point], TOLERANCE);
        let found = gradient(&forward, &gradients, point).unwrap_or_else(|| panic!("{name}: no gradient at {point:?}"));
        // A token without seed has no row, whatever the twin computes there.
        assert_close(&format!("{name}: gradient at {point:?}"), &found, &expected.gradients[&point], TOLERANCE);
    }
    expected
}

#[test]
fn every_site_without_interventions() {
    for (name, model) in models() {
        let expected = compare(name, &model, &[]);
        assert_eq!(expected.activations.len(), points(&model).len());
        assert!(expected.gradients.values().all(|g| g.iter().any(|x| *x != 0.0)), "{name}: a gradient is all zero");
    }
}

/// What runs on other devices: every operation as a composition of candle's own.
#[test]
fn plain_operations_agree_too() {
    for (name, model) in models() {
        let model = common::plain_operations(&model);
        compare(&format!("{name}, plain operations"), &model, &[]);
        for point in points(&model) {
            for pass in [Pass::Forward, Pass::Backward] {
                let intervention = common::intervention(&model, point, pass, Some(4), 0.7);
                compare(&format!("{name}, plain operations, with {intervention:?}"), &model, &[intervention]);
            }
        }
    }
}

#[test]
fn interventions_at_every_site_in_both_passes() {
    for (name, model) in models() {
        // Autoencoders make more cases of their own sites, not of the others.
        let all = points(&model);
        let cases =
            all.iter().filter(|p| p.site.is_autoencoder() || !name.contains("topk") && !name.contains("identity"));
        for &point in cases {
            for (pass, token, value) in [
                (Pass::Forward, Some(4), 0.0),
                (Pass::Forward, Some(5), 0.8),
                (Pass::Forward, None, 0.3),
                (Pass::Backward, Some(4), 0.0),
                (Pass::Backward, Some(2), 0.6),
                (Pass::Backward, None, -0.3),
            ] {
                // Nothing is divided by zero.
                let value = if point.site.is_divisor() && pass == Pass::Forward { value + 0.2 } else { value };
                let intervention = common::intervention(&model, point, pass, token, value);
                compare(&format!("{name} with {intervention:?}"), &model, &[intervention]);
            }
        }
    }
}

#[test]
fn many_interventions_at_once() {
    for (name, model) in models() {
        let mut all = Vec::new();
        for (i, point) in points(&model).into_iter().enumerate() {
            // Denominators and scales near zero would blow everything up; these stay away from it.
            let value = 0.5 + 0.1 * (i % 5) as f32;
            if i % 3 == 0 {
                all.push(common::intervention(&model, point, Pass::Forward, Some(i % TOKENS.len()), value));
            }
            if i % 4 == 1 {
                all.push(common::intervention(&model, point, Pass::Backward, Some(i % TOKENS.len()), value - 0.6));
            }
        }
        compare(name, &model, &all);
    }
}

#[test]
fn of_two_interventions_at_one_entry_the_last_wins_forward_and_the_first_backward() {
    let (name, model) = models().swap_remove(1);
    for point in points(&model) {
        for pass in [Pass::Forward, Pass::Backward] {
            let make = |token, value| common::intervention(&model, point, pass, token, value);
            compare(&format!("{name}: {point:?} in {pass:?}"), &model, &[make(Some(4), 0.9), make(Some(4), 0.4)]);
        }
    }
}

#[test]
fn an_intervention_without_layer_means_all_layers() {
    let (name, model) = models().swap_remove(1);
    for site in [Site::AttnVOut, Site::MlpPreAct, Site::MlpLatent, Site::ResidPostAttn, Site::AttnLnScale] {
        for pass in [Pass::Forward, Pass::Backward] {
            let point = Point { site, layer: Some(0) };
            let one = common::intervention(&model, point, pass, Some(3), 0.7);
            compare(&format!("{name}: {site:?}"), &model, &[Intervention { layer: None, ..one }]);
        }
    }
}

#[test]
fn hidden_keys_can_be_shown_but_pass_no_gradient_to_queries_and_keys() {
    let (_, model) = models().swap_remove(0);
    for site in [Site::AttnQkLogits, Site::AttnQkProbs] {
        for pass in [Pass::Forward, Pass::Backward] {
            let indices = vec![Index::At(2), Index::At(5), Index::At(1)];
            let shown = Intervention { site, layer: Some(1), pass, indices, value: 0.4 };
            compare(&format!("{shown:?}"), &model, &[shown]);
        }
    }
}

#[test]
fn seeds_in_the_residual_stream() {
    for (name, model) in models() {
        let dims = [TOKENS.len(), model.config().d_model];
        for (site, layer) in [(Site::ResidPostAttn, Some(1)), (Site::ResidPostMlp, Some(0)), (Site::ResidPostEmb, None)]
        {
            let point = Point { site, layer };
            let mut numbers = common::numbers("residual", dims[0] * dims[1], 1.0, 0.0);
            // Nothing at the later tokens, as when a node of an earlier token is traced.
            numbers[4 * dims[1]..].fill(0.0);
            let forward = run_forward(&model, &TOKENS, &[], None);
            let seed = Seed::Residual { point, gradient: tdb_model::numbers::tensor(&dims, numbers.clone()) };
            let gradients = run_backward(&forward, seed, &[], None);
            let expected = Twin::default().run(&model, &TOKENS, &[(point, numbers)]);
            let mut met = 0;
            for at in points(&model) {
                let what = format!("{name}: gradient at {at:?} from {point:?}");
                match (gradient(&forward, &gradients, at), expected.gradients.get(&at)) {
                    (Some(found), Some(expected)) => {
                        met += 1;
                        assert_close(&what, &found, expected, TOLERANCE);
                    }
                    (None, Some(expected)) => assert!(expected.iter().all(|x| *x == 0.0), "{what} is missing"),
                    (Some(found), None) => assert!(found.iter().all(|x| *x == 0.0), "{what} should be zero"),
                    (None, None) => {}
                }
            }
            assert!(met > 0);
        }
    }
}

/// Notes everything; where asked, multiplies an activation or a gradient.
#[derive(Default)]
struct Look {
    activations: BTreeMap<Point, Vec<f32>>,
    gradients: BTreeMap<Point, Vec<f32>>,
    scale_activation: Option<(Point, f64)>,
    scale_gradient: Option<(Point, f64)>,
}

fn scaled(point: Point, x: &Tensor, by: Option<(Point, f64)>) -> candle_core::Result<Option<Tensor>> {
    by.filter(|(p, _)| *p == point).map(|(_, factor)| x * factor).transpose()
}

impl Hooks for Look {
    fn forward(&mut self, point: Point, activation: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let answer = scaled(point, activation, self.scale_activation)?;
        let seen = answer.as_ref().unwrap_or(activation).flatten_all()?.to_vec1()?;
        assert!(self.activations.insert(point, seen).is_none(), "{point:?} seen twice");
        Ok(answer)
    }

    fn backward(&mut self, point: Point, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        assert!(self.gradients.insert(point, gradient.flatten_all()?.to_vec1()?).is_none(), "{point:?} seen twice");
        scaled(point, gradient, self.scale_gradient)
    }
}

fn compare_hooks(name: &str, model: &Transformer, mut hooks: Look) {
    let seeds = [TOKENS.len() - 1];
    let (scale_activation, scale_gradient) = (hooks.scale_activation, hooks.scale_gradient);
    let twin = Twin { interventions: Vec::new(), scale_activation, scale_gradient };
    let expected = twin.run(model, &TOKENS, &twin_seed(model, &seeds));
    let forward = run_forward(model, &TOKENS, &[], Some(&mut hooks));
    run_backward(&forward, logit_seed(model, &seeds), &[], Some(&mut hooks));
    for point in points(model) {
        let what = |kind| format!("{name}: {kind} seen at {point:?}");
        let found = hooks.activations.get(&point).unwrap_or_else(|| panic!("{} is missing", what("activation")));
        assert_close(&what("activation"), found, &expected.activations[&point], TOLERANCE);
        let found = hooks.gradients.get(&point).unwrap_or_else(|| panic!("{} is missing", what("gradient")));
        assert_close(&what("gradient"), found, &expected.gradients[&point], TOLERANCE);
    }
}

#[test]
fn hooks_see_every_site() {
    for (name, model) in models() {
        compare_hooks(name, &model, Look::default());
    }
}

#[test]
fn hooks_replace_activations_and_gradients_at_every_site() {
    for (name, model) in models() {
        for point in points(&model) {
            if point.site == Site::AttnQkLogits {
                // Times a factor of 1 - ε, minus infinity stays what it is in both.
                let hooks = Look { scale_activation: Some((point, 0.9)), ..Look::default() };
                compare_hooks_of_logits(name, &model, hooks);
            } else {
                let replace = Look { scale_activation: Some((point, 1.5)), ..Look::default() };
                compare_hooks(&format!("{name}, activation at {point:?} times 1.5"), &model, replace);
            }
            let edit = Look { scale_gradient: Some((point, -0.5)), ..Look::default() };
            compare_hooks(&format!("{name}, gradient at {point:?} times -0.5"), &model, edit);
        }
    }
}

/// As [`compare_hooks`] for a replaced attention logit: the twin cannot subtract infinities, so that its
/// interventions stand for the replacement.
fn compare_hooks_of_logits(name: &str, model: &Transformer, mut hooks: Look) {
    let (point, factor) = hooks.scale_activation.unwrap();
    let plain = run_forward(model, &TOKENS, &[], None);
    let forward = run_forward(model, &TOKENS, &[], Some(&mut hooks));
    let layer = point.layer.unwrap();
    let at = |run: &tdb_model::Run, site| flat(&run.get(site, layer).unwrap());
    let (before, after) = (at(&plain, Site::AttnQkLogits), at(&forward, Site::AttnQkLogits));
    let expected: Vec<f64> = before.iter().map(|x| f64::from(*x) * factor).collect();
    assert_close(&format!("{name}: {point:?}"), &after, &expected, 1e-6);
    assert_ne!(at(&plain, Site::AttnVOut), at(&forward, Site::AttnVOut));
}

#[test]
fn a_hook_error_and_a_wrong_shape_end_the_run() {
    struct Bad(bool);
    impl Hooks for Bad {
        fn wants(&self, point: Point, pass: Pass) -> bool {
            point.site == Site::MlpPostAct && pass == Pass::Forward
        }
        fn forward(&mut self, _: Point, x: &Tensor) -> candle_core::Result<Option<Tensor>> {
            match self.0 {
                true => candle_core::bail!("no more"),
                false => x.flatten_all().map(Some),
            }
        }
    }
    let model = common::plain();
    for (fails, text) in [(true, "no more"), (false, "shape")] {
        let mut bad = Bad(fails);
        let options = tdb_model::ForwardOptions { hooks: Some(&mut bad), ..Default::default() };
        let error = model.forward(&TOKENS, options).unwrap_err().to_string();
        assert!(error.contains(text) && error.contains("MlpPostAct"), "{error}");
    }
}
