//! The gradient at every site against what the objective does when that entry is set a little higher or lower.

#![allow(clippy::unwrap_used)] // helpers of a test, too

use crate::common::{Kinds, TOKENS, gradient, logit_seed, models, points, run_backward, run_forward};
use tdb_model::{Index, Intervention, Pass, Point, Seed, Site, Transformer};

/// Σ logits · seed, summed in f64.
fn objective(model: &Transformer, interventions: &[Intervention]) -> f64 {
    let Seed::Logits(rows) = logit_seed(model, &[TOKENS.len() - 1]) else { unreachable!() };
    let forward = run_forward(model, &TOKENS, interventions, None);
    let row = |(t, row): (&usize, &Vec<f32>)| -> f64 {
        forward.logits(*t).unwrap().iter().zip(row).map(|(x, g)| f64::from(*x) * f64::from(*g)).sum()
    };
    rows.iter().map(row).sum()
}

/// A hook that notes one activation.
struct See(Point, Vec<f32>);

impl tdb_model::Hooks for See {
    fn wants(&self, point: Point, pass: Pass) -> bool {
        point == self.0 && pass == Pass::Forward
    }

    fn forward(
        &mut self,
        _: Point,
        activation: &candle_core::Tensor,
    ) -> candle_core::Result<Option<candle_core::Tensor>> {
        self.1 = activation.flatten_all()?.to_vec1()?;
        Ok(None)
    }
}

#[test]
fn at_every_site() {
    for (name, model) in models() {
        let forward = run_forward(&model, &TOKENS, &[], None);
        let gradients = run_backward(&forward, logit_seed(&model, &[TOKENS.len() - 1]), &[], None);
        for point in points(&model) {
            let mut see = See(point, Vec::new());
            run_forward(&model, &TOKENS, &[], Some(&mut see));
            let expected = gradient(&forward, &gradients, point).unwrap();
            let largest = expected.iter().fold(0.0f32, |a, b| a.max(b.abs()));
            assert!(largest > 0.0, "{name}: {point:?}");
            let dims = model.site_dims(point.site, TOKENS.len()).unwrap();
            // The entry with the largest gradient, and two others.
            let first = expected.iter().position(|x| x.abs() == largest).unwrap();
            let value_of = |entry: usize| see.1[entry];
            for entry in [first, expected.len() / 2, expected.len() - 1] {
                let index = unflatten(entry, &dims);
                if point.site == Site::AttnQkLogits && !value_of(entry).is_finite() {
                    continue;
                }
                let value = value_of(entry);
                let step = if point.site.is_divisor() { 0.02 * value } else { 0.02 };
                let at = |value| {
                    let indices = index.iter().map(|i| Index::At(*i)).collect();
                    let (site, layer) = (point.site, point.layer);
                    objective(&model, &[Intervention { site, layer, pass: Pass::Forward, indices, value }])
                };
                let slope = (at(value + step) - at(value - step)) / f64::from((value + step) - (value - step));
                let difference = (slope - f64::from(expected[entry])).abs();
                assert!(
                    difference <= 0.01 * f64::from(largest) + 2e-3,
                    "{name}: {point:?} {index:?}: slope {slope}, gradient {} (largest {largest})",
                    expected[entry]
                );
            }
        }
    }
}

fn unflatten(mut flat: usize, dims: &[usize]) -> Vec<usize> {
    let mut index = vec![0; dims.len()];
    for d in (0..dims.len()).rev() {
        index[d] = flat % dims[d];
        flat /= dims[d];
    }
    index
}
