use super::*;
use tdb_data::Moments;

fn record(texts: &[&str], pairs: bool, value: impl Fn(&[String], usize, usize) -> f32) -> NodeRecord {
    let example = |text: &&str| {
        let tokens: Vec<String> = text.split_inclusive(' ').map(str::to_owned).collect();
        let activations = match pairs {
            false => (0..tokens.len()).map(|t| value(&tokens, t, t)).collect(),
            true => {
                let all = (0..tokens.len()).flat_map(|q| (0..=q).map(move |k| (q, k)));
                all.map(|(q, k)| value(&tokens, q, k)).collect()
            }
        };
        ActivationRecord { activations, tokens }
    };
    let (top, random) = texts.split_at(texts.len() / 2);
    NodeRecord {
        layer: 1,
        index: 7,
        random_sample: random.iter().map(example).collect(),
        random_sample_by_quantile: None,
        quantile_boundaries: None,
        moments: Moments::default(),
        most_positive: top.iter().map(example).collect(),
    }
}

const TEXTS: [&str; 12] = [
    "the cat saw Paris and the dog saw Rome today ",
    "a dog went to Rome and Mary came from Oslo with the ball ",
    "Mary told the cat that London was far and cold ",
    "in Paris the old man had a dog and a blue ball ",
    "from Oslo to London the cat walked and the man slept ",
    "when the ball fell in Rome a cat ran to Paris and back ",
    "the man told Mary that the ball was blue and old ",
    "Paris was cold and the dog saw a man with a hat ",
    "a hat and a ball were all that Mary and the old cat had ",
    "to London the man came with the dog and to Oslo too ",
    "Mary went to Rome and Mary came back from Paris old ",
    "the dog and the cat and Mary and the man were cold in Oslo ",
];

fn said(node: &NodeExplanations) -> (&str, Option<f64>) {
    (node.explanations[0].explanation.as_deref().unwrap(), node.explanations[0].score())
}

#[test]
fn a_unit_for_cities_is_called_so_and_predicted() {
    let city = |token: &str| ["Paris", "Rome", "Oslo", "London"].contains(&token.trim());
    let record = record(&TEXTS, false, |tokens, t, _| if city(&tokens[t]) { 3.0 } else { 0.0 });
    let known = Known { density: Some(0.012), promotes: vec![" France".into(), "\n".into()], ..Known::default() };
    let node = explain(&record, &known, "2020-01-01T00:00:00Z");
    let (sentence, score) = said(&node);
    assert!(sentence.starts_with("Active on cities, for example “"), "{sentence}");
    assert!(sentence.ends_with(" (1.2 % of all); it promotes “ France” and “⏎”."), "{sentence}");
    assert!(score.unwrap() > 0.999, "{score:?}");
    let again = NodeExplanations::parse("x", &node.to_json().unwrap()).unwrap();
    assert_eq!(again.explanations[0].origin.method.as_deref(), Some(METHOD));
    assert_eq!(said(&again), (sentence, score));
}

#[test]
fn a_unit_for_a_bigram_is_found_by_its_condition() {
    let record = record(&TEXTS, false, |tokens, t, _| {
        let after_the = t > 0 && tokens[t - 1] == "the ";
        if tokens[t] == "cat " { if after_the { 4.0 } else { 1.0 } } else { 0.0 }
    });
    let node = explain(&record, &Known::default(), "");
    let (sentence, score) = said(&node);
    assert!(sentence.contains("“cat ”") || sentence.contains("“the cat ”"), "{sentence}");
    assert!(score.unwrap() > 0.9, "{sentence} {score:?}");
}

#[test]
fn heads_are_told_by_where_they_look() {
    for (expected, head) in [
        (
            "Attends to the token before.",
            (|_: &[String], q: usize, k: usize| k + 1 == q) as fn(&[String], usize, usize) -> bool,
        ),
        ("Attends to the first token", |_, q, k| k == 0 && q > 0),
        ("Attends to first names", |t, _, k| t[k] == "Mary "),
        ("Attends to the token after an earlier occurrence of the same token", |t, q, k| {
            k >= 1 && k < q && t[k - 1] == t[q]
        }),
    ] {
        let record = record(&TEXTS, true, |tokens, q, k| if head(tokens, q, k) { 1.0 } else { 0.02 });
        let node = explain(&record, &Known { pairs: true, ..Known::default() }, "");
        let (sentence, score) = said(&node);
        let as_good = expected.starts_with("Attends to first names") && sentence.starts_with("Attends to “Mary ”");
        assert!(sentence.starts_with(expected) || as_good, "{sentence}");
        assert!(score.unwrap() > 0.9, "{sentence} {score:?}");
        assert!(node.pairs);
    }
}

#[test]
fn a_random_unit_has_no_good_score_and_a_dead_one_none() {
    let noise = record(&TEXTS, false, |tokens, t, _| {
        let n = tokens.iter().map(|t| t.len() as u64).sum::<u64>() * 31 + t as u64;
        (crate::corpus::mix(n) % 1000) as f32 / 100.0
    });
    let score = said(&explain(&noise, &Known::default(), "")).1;
    assert!(score.is_none_or(|s| s.abs() < 0.4), "{score:?}");
    let dead = record(&TEXTS, false, |_, _, _| 0.0);
    let node = explain(&dead, &Known::default(), "");
    assert_eq!(said(&node), ("Never active on this text.", None));
}
