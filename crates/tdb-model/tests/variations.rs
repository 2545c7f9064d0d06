//! Runs that are computed together are what each would be alone.

#![allow(clippy::unwrap_used)] // helpers of a test, too

use crate::common;
use std::cell::Cell;

use crate::common::{TOKENS, models, plain, points, run_forward};
use tdb_model::{
    Error, ForwardOptions, Index, Intervention, Logits, Pass, Patch, PatchHooks, Point, Run, Site, Together,
    Transformer, Values,
};

const OTHER: [u32; 7] = [5, 0, 30, 3, 1, 8, 11];

/// Every kind of patch at every point: at one token, at all of them, in one entry and in whole rows.
fn patches(model: &Transformer, from: &Run) -> Vec<Vec<Patch>> {
    let mut all = Vec::new();
    for point in points(model).into_iter().filter(|p| p.site != Site::Logits) {
        let dims = model.site_dims(point.site, TOKENS.len()).unwrap();
        let whole = vec![Index::All; dims.len()];
        let row = |t| [&[Index::At(t)], &whole[1..]].concat();
        let entry = |t: usize| [vec![Index::At(t)], dims[1..].iter().map(|n| Index::At(n / 2)).collect()].concat();
        for indices in [row(0), row(3), row(6), entry(2), entry(5), whole.clone()] {
            all.push(vec![Patch::from_run(from, point, indices).unwrap()]);
        }
    }
    all
}

fn vary(base: &Run, runs: &[Vec<Patch>], options: Together<'_>) -> Vec<Vec<f32>> {
    let mut out = vec![Vec::new(); runs.len()];
    let mut each = |index: usize, logits: &[f32]| {
        assert!(out[index].is_empty(), "run {index} came twice");
        out[index] = logits.to_vec();
        Ok(())
    };
    base.vary(runs, options, &mut each).unwrap();
    out
}

fn alone(model: &Transformer, patches: &[Patch], interventions: &[Intervention]) -> Vec<f32> {
    let mut hooks = PatchHooks(patches);
    let options = ForwardOptions { interventions, hooks: Some(&mut hooks), ..Default::default() };
    model.forward(&TOKENS, options).unwrap().logits(TOKENS.len() - 1).unwrap()
}

fn assert_same(what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() <= tolerance, "{what}: logit {i} is {found}, alone {expected}");
    }
}

#[test]
fn each_is_equal_to_a_run_of_its_own() {
    for (name, model) in models() {
        let (base, other) = (run_forward(&model, &TOKENS, &[], None), run_forward(&model, &OTHER, &[], None));
        let runs = patches(&model, &other);
        let last = base.logits(TOKENS.len() - 1).unwrap();
        let mut moved = 0;
        for (patches, found) in runs.iter().zip(vary(&base, &runs, Together::default())) {
            assert_same(&format!("{name}: {patches:?}"), &found, &alone(&model, patches, &[]), 1e-5);
            moved += usize::from(found != last);
        }
        assert!(moved * 2 > runs.len(), "{name}: only {moved} of {} patches changed something", runs.len());
    }
}

#[test]
fn a_patch_of_a_run_with_itself_changes_not_a_bit() {
    for (name, model) in models() {
        let base = run_forward(&model, &TOKENS, &[], None);
        let bits = |row: &[f32]| row.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        let expected = bits(&base.logits(TOKENS.len() - 1).unwrap());
        // With these given explicitly, a pass divides and adds in another order.
        let runs: Vec<_> = patches(&model, &base).into_iter().filter(|p| !is_reordered(p[0].point.site)).collect();
        for (patches, found) in runs.iter().zip(vary(&base, &runs, Together::default())) {
            assert!(bits(&found) == expected, "{name}: {patches:?}");
        }
    }
}

fn is_reordered(site: Site) -> bool {
    use Site::{AttnLnNormalized, AttnQkLogits, AttnSoftmaxDenominator, FinalLnNormalized, MlpLnNormalized};
    [AttnLnNormalized, MlpLnNormalized, FinalLnNormalized, AttnSoftmaxDenominator, AttnQkLogits].contains(&site)
}

#[test]
fn everything_taken_from_another_run_is_that_run() {
    for (name, model) in models() {
        let (base, other) = (run_forward(&model, &TOKENS, &[], None), run_forward(&model, &OTHER, &[], None));
        let point = Point { site: Site::ResidPostEmb, layer: None };
        let runs = [vec![Patch::from_run(&other, point, vec![Index::All, Index::All]).unwrap()]];
        let expected = other.logits(TOKENS.len() - 1).unwrap();
        assert_same(name, &vary(&base, &runs, Together::default())[0], &expected, 1e-5);
    }
}

#[test]
fn the_base_runs_own_interventions_stay() {
    for (name, model) in models() {
        for point in points(&model) {
            let own = [
                common::intervention(&model, point, Pass::Forward, Some(3), 0.6),
                common::intervention(&model, point, Pass::Forward, None, 0.4),
            ];
            let base = run_forward(&model, &TOKENS, &own, None);
            let site = if point.site == Site::ResidPostAttn { Site::AttnV } else { Site::ResidPostAttn };
            let dims = model.site_dims(site, TOKENS.len()).unwrap().len();
            let indices = |t| [vec![Index::At(t)], vec![Index::All; dims - 1]].concat();
            let patch = |t, layer| Patch {
                point: Point { site, layer: Some(layer) },
                indices: indices(t),
                values: Values::Same(0.3),
            };
            let runs = [vec![patch(1, 0)], vec![patch(4, 1)], vec![patch(5, 0), patch(2, 1)]];
            let options = Together { interventions: &own, ..Default::default() };
            for (patches, found) in runs.iter().zip(vary(&base, &runs, options)) {
                assert_same(&format!("{name}: {own:?}, {patches:?}"), &found, &alone(&model, patches, &own), 1e-5);
            }
        }
    }
}

#[test]
fn how_many_are_computed_at_a_time_changes_not_a_bit() {
    let model = &models()[3].1;
    let (base, other) = (run_forward(model, &TOKENS, &[], None), run_forward(model, &OTHER, &[], None));
    let runs = patches(model, &other);
    let expected = vary(&base, &runs, Together::default());
    for rows in [1, 9, 10_000] {
        assert_eq!(vary(&base, &runs, Together { rows, ..Default::default() }), expected);
    }
    let tokens = [4, 0, 36];
    for (few, all) in
        vary(&base, &runs, Together { logits: Logits::Of(&tokens), ..Default::default() }).iter().zip(expected)
    {
        assert_eq!(*few, tokens.map(|token| all[token as usize]));
    }
}

#[test]
fn the_work_ends_between_two_layers_when_it_is_not_wanted() {
    let model = plain();
    let base = run_forward(&model, &TOKENS, &[], None);
    let runs = patches(&model, &base);
    let asked = Cell::new(0);
    let is_cancelled = || {
        asked.set(asked.get() + 1);
        asked.get() > 1
    };
    let options = Together { is_cancelled: &is_cancelled, ..Default::default() };
    let error = base.vary(&runs, options, &mut |_, _| Ok(())).unwrap_err();
    assert!(matches!(error, Error::Cancelled) && asked.get() == 2);
}

#[test]
fn what_does_not_fit_is_refused_with_a_sentence() {
    let model = plain();
    let base = run_forward(&model, &TOKENS, &[], None);
    let patch = |site, layer, indices, values| Patch { point: Point { site, layer }, indices, values };
    let at = |token| vec![Index::At(token), Index::All];
    let refused = |patch: Patch, sentence: &str| {
        let error = base.vary(&[vec![patch]], Together::default(), &mut |_, _| Ok(())).unwrap_err().to_string();
        assert!(error.contains(sentence), "{error}");
    };
    refused(patch(Site::Logits, None, at(0), Values::Same(0.0)), "logits cannot be patched");
    refused(patch(Site::MlpLatent, Some(0), at(0), Values::Same(0.0)), "no MlpLatent to patch");
    refused(patch(Site::MlpIn, Some(2), at(0), Values::Same(0.0)), "no MlpIn of layer Some(2)");
    refused(patch(Site::MlpIn, None, at(0), Values::Same(0.0)), "no MlpIn of layer None");
    refused(patch(Site::MlpIn, Some(1), at(7), Values::Same(0.0)), "do not fit MlpIn");
    refused(patch(Site::MlpIn, Some(1), at(1), Values::Each([0.0; 3].into())), "has 3 numbers");
    let half = model.forward(&TOKENS, ForwardOptions { layers: Some(1), ..Default::default() }).unwrap();
    assert!(half.vary(&[], Together::default(), &mut |_, _| Ok(())).is_err());
    let none = Together { logits: Logits::Of(&[]), ..Default::default() };
    assert!(base.vary(&[], none, &mut |_, _| Ok(())).is_err());
}
