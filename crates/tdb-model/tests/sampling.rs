//! Continuing a prompt: with and without a cache, by every way of choosing, with interventions and hooks.

#![allow(clippy::unwrap_used)] // helpers of a test, too

use crate::common;
use crate::common::{Kinds, TOKENS, models, plain, points, run_forward};
use candle_core::Tensor;
use tdb_model::sampling::advance;
use tdb_model::{Cache, Choice, Hooks, Index, Intervention, Pass, Point, Sampler, Site, Transformer, sample};

fn assert_same(what: &str, found: &[f32], expected: &[f32]) {
    let largest = expected.iter().fold(0.0f32, |a, b| a.max(b.abs()));
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= 2e-5 * largest.max(0.1), "{what}: {found}, expected {expected}");
    }
}

/// Logits after the last token, with the tokens given in parts of these lengths.
fn in_parts(
    model: &Transformer,
    parts: &[usize],
    interventions: &[Intervention],
    mut hooks: Option<&mut dyn Hooks>,
) -> Vec<f32> {
    let (mut cache, mut from, mut logits) = (Cache::default(), 0, Vec::new());
    for part in parts {
        logits = advance(
            model,
            &mut cache,
            &TOKENS[from..from + part],
            interventions,
            hooks.as_mut().map(|hooks| &mut **hooks as &mut dyn Hooks),
        )
        .unwrap();
        from += part;
        assert_eq!(cache.len(), from);
    }
    logits
}

#[test]
fn a_cache_changes_nothing() {
    for (name, model) in models() {
        let expected = run_forward(&model, &TOKENS, &[], None).logits(TOKENS.len() - 1).unwrap();
        for parts in [&[7][..], &[3, 4], &[6, 1], &[1; 7]] {
            assert_same(name, &in_parts(&model, parts, &[], None), &expected);
        }
    }
}

#[test]
fn interventions_mean_the_same_with_a_cache() {
    for (name, model) in models() {
        for point in points(&model) {
            for token in [Some(1), Some(4), Some(6), None] {
                let value = if point.site.is_divisor() { 1.2 } else { 0.4 };
                let one = [common::intervention(&model, point, Pass::Forward, token, value)];
                if token.is_none() && point.site.is_pair() {
                    // This one shows the second key to the first query, which with a cache is not yet there.
                    continue;
                }
                let expected = run_forward(&model, &TOKENS, &one, None).logits(TOKENS.len() - 1).unwrap();
                for parts in [&[3, 4][..], &[1; 7]] {
                    let what = format!("{name}, {parts:?}: {one:?}");
                    assert_same(&what, &in_parts(&model, parts, &one, None), &expected);
                }
            }
        }
    }
}

/// The vector kernels sum every number in the same order, however many tokens there are.
#[test]
#[cfg(target_arch = "x86_64")]
fn a_cache_changes_no_bit_where_there_are_vector_kernels() {
    if !(is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")) {
        return;
    }
    let wide = tdb_model::Config {
        d_model: 96,
        n_heads: 4,
        n_kv_heads: 4,
        d_head: 24,
        d_ff: 400,
        n_vocab: 501,
        ..common::config()
    };
    for (name, model) in models().into_iter().chain([("wide", common::transformer(wide))]) {
        let expected = run_forward(&model, &TOKENS, &[], None).logits(TOKENS.len() - 1).unwrap();
        for parts in [&[3, 4][..], &[6, 1], &[1; 7]] {
            assert!(in_parts(&model, parts, &[], None) == expected, "{name}: {parts:?}");
        }
    }
}

/// Multiplies an activation wherever it is met.
struct Scale(Point);

impl Hooks for Scale {
    fn wants(&self, point: Point, _: Pass) -> bool {
        point == self.0
    }

    fn forward(&mut self, _: Point, x: &Tensor) -> candle_core::Result<Option<Tensor>> {
        (x * 0.7).map(Some)
    }
}

#[test]
fn hooks_mean_the_same_with_a_cache() {
    for (name, model) in models() {
        for point in points(&model) {
            let expected = run_forward(&model, &TOKENS, &[], Some(&mut Scale(point))).logits(TOKENS.len() - 1).unwrap();
            let found = in_parts(&model, &[2, 1, 3, 1], &[], Some(&mut Scale(point)));
            assert_same(&format!("{name}: {point:?}"), &found, &expected);
        }
    }
}

#[test]
fn an_intervention_at_a_later_key_waits_for_it() {
    let model = plain();
    let at = |query, key| Intervention {
        site: Site::AttnQkProbs,
        layer: Some(0),
        pass: Pass::Forward,
        indices: vec![query, Index::At(key), Index::All],
        value: 0.9,
    };
    let one = [at(Index::At(6), 5)];
    let expected = run_forward(&model, &TOKENS, &one, None).logits(6).unwrap();
    assert_same("a pair", &in_parts(&model, &[3, 3, 1], &one, None), &expected);
    // A key that never comes has no effect.
    let plain_logits = run_forward(&model, &TOKENS, &[], None).logits(6).unwrap();
    assert_same("later", &in_parts(&model, &[3, 4], &[at(Index::All, 9)], None), &plain_logits);
}

fn continuation(choice: Choice, seed: u64, limit: usize) -> Vec<u32> {
    let mut sampler = Sampler::new(choice, seed).unwrap();
    sample(&plain(), &TOKENS[..4], limit, &mut sampler, &[], None, &mut |_| true).unwrap()
}

#[test]
fn greedy_takes_the_largest_logit() {
    let model = plain();
    let mut tokens = TOKENS[..4].to_vec();
    for _ in 0..8 {
        let logits = run_forward(&model, &tokens, &[], None).logits(tokens.len() - 1).unwrap();
        let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap();
        tokens.push(best as u32);
    }
    assert_eq!(continuation(Choice::Greedy, 0, 8), tokens[4..]);
    // The window holds 12 tokens; the ninth drawn one is not fed in again, so that it still fits.
    assert_eq!(continuation(Choice::Greedy, 0, 50).len(), 9);
    assert!(continuation(Choice::Greedy, 0, 0).is_empty());
}

#[test]
fn chance_follows_the_seed_and_the_probabilities() {
    let choice = Choice::Temperature { temperature: 1.0 };
    assert_eq!(continuation(choice, 7, 8), continuation(choice, 7, 8));
    assert!((8..20).any(|seed| continuation(choice, seed, 8) != continuation(choice, 7, 8)));
    assert_eq!(continuation(Choice::Temperature { temperature: 1e-3 }, 3, 8), continuation(Choice::Greedy, 0, 8));
    assert_eq!(continuation(Choice::TopP { p: 1e-6, temperature: 1.0 }, 3, 8), continuation(Choice::Greedy, 0, 8));

    let share = |choice, token| {
        let mut sampler = Sampler::new(choice, 1).unwrap();
        // Probabilities 0.1, 0.2, 0.3, 0.4 at temperature 1.
        let logits = [0.1f32, 0.2, 0.3, 0.4].map(f32::ln);
        (0..20_000).filter(|_| sampler.draw(&logits).unwrap() == token).count() as f64 / 20_000.0
    };
    let near = |found: f64, expected: f64| assert!((found - expected).abs() < 0.015, "{found}, expected {expected}");
    for token in 0..4 {
        near(share(choice, token), 0.1 * f64::from(token + 1));
    }
    // Half the temperature squares the probabilities.
    near(share(Choice::Temperature { temperature: 0.5 }, 3), 16.0 / 30.0);
    // The fewest tokens with half of the probability are the last two; with 0.71 it takes three.
    near(share(Choice::TopP { p: 0.5, temperature: 1.0 }, 3), 4.0 / 7.0);
    near(share(Choice::TopP { p: 0.71, temperature: 1.0 }, 1), 2.0 / 9.0);
    assert_eq!(share(Choice::TopP { p: 0.71, temperature: 1.0 }, 0), 0.0);
}

#[test]
fn interventions_and_hooks_work_while_sampling() {
    let (model, prompt) = (plain(), &TOKENS[..4]);
    let point = Point { site: Site::MlpPostAct, layer: Some(1) };
    let all = |value| Intervention {
        site: point.site,
        layer: point.layer,
        pass: Pass::Forward,
        indices: vec![Index::All; 2],
        value,
    };
    struct Fill(Point, f64);
    impl Hooks for Fill {
        fn wants(&self, point: Point, _: Pass) -> bool {
            point == self.0
        }
        fn forward(&mut self, _: Point, x: &Tensor) -> candle_core::Result<Option<Tensor>> {
            (x.zeros_like()? + self.1).map(Some)
        }
    }
    let mut greedy = Sampler::new(Choice::Greedy, 0).unwrap();
    let mut go = |interventions: &[Intervention], hooks: Option<&mut dyn Hooks>| {
        sample(&model, prompt, 8, &mut greedy, interventions, hooks, &mut |_| true).unwrap()
    };
    let (as_is, by_intervention) = (go(&[], None), go(&[all(0.8)], None));
    assert_ne!(as_is, by_intervention);
    assert_eq!(go(&[], Some(&mut Fill(point, 0.8))), by_intervention);
}

#[test]
fn a_caller_can_stop_and_mistakes_are_told() {
    let (model, mut greedy) = (plain(), Sampler::new(Choice::Greedy, 0).unwrap());
    let mut seen = Vec::new();
    let drawn = sample(&model, &TOKENS[..4], 8, &mut greedy, &[], None, &mut |token| {
        seen.push(token);
        seen.len() < 3
    });
    assert_eq!(drawn.unwrap(), seen);
    assert_eq!(seen.len(), 3);
    let mut refused =
        |tokens: &[u32]| sample(&model, tokens, 8, &mut greedy, &[], None, &mut |_| true).unwrap_err().to_string();
    assert_eq!(refused(&[]), "the prompt has no tokens");
    assert_eq!(refused(&[1; 13]), "the prompt has 13 tokens, but the model sees at most 12");
    assert_eq!(refused(&[99]), "token 99 is outside the vocabulary of 37");
    for bad in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        assert!(Sampler::new(Choice::Temperature { temperature: bad }, 0).is_err());
        assert!(Sampler::new(Choice::TopP { p: bad, temperature: 1.0 }, 0).is_err());
    }
}
