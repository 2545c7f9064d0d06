//! What an explanation predicts, as a language model reads it.

use std::collections::BTreeMap;
use std::num::ParseIntError;

use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Deserializer, de::Error as _};
use tdb_data::{
    ActivationRecord, ActivationScale, AttentionSimulation, Detection, NodeRecord, ScoredAttentionSimulation,
    ScoredSequenceSimulation, ScoredSimulation, SequenceSimulation,
};

use crate::{
    Client, Error, Result,
    client::Question,
    examples::{Draw, LEVELS, Pair, Splits, excerpt, pairs},
    prompts,
    score::{Calibration, absolute_deviation_explained, correlation, r_squared, roc_auc},
};

/// Questions for one node that are open at the same time; the client has the last word.
const PARALLEL: usize = 8;

/// Pairs along which a head is weakly active are below this share of its strongest.
const WEAK: f32 = 0.1;

/// Simulates the held-out examples token by token or all at once, calibrates, and compares with the truth.
pub(crate) async fn tokens(
    client: &Client,
    record: &NodeRecord,
    explanation: &str,
    one_by_one: bool,
    max_sequences: usize,
) -> Result<ScoredSimulation> {
    let splits = Splits::of(record);
    let valid: Vec<_> = splits.valid.iter().copied().take(max_sequences).collect();
    if valid.is_empty() {
        return Err(Error::Unsuitable("the record has no examples to score with".into()));
    }
    let calibration = simulate(client, &splits.calibration, explanation, one_by_one).await?;
    let line = {
        let (truth, simulated) = flat(&calibration);
        Calibration::fit(&truth, &simulated)
    };
    let mut sequences = simulate(client, &valid, explanation, one_by_one).await?;
    let scores = |s: &[ScoredSequenceSimulation]| {
        let (truth, predicted) = flat(s);
        // Errors can only be measured in the node's own unit.
        let calibrated = line.is_some();
        (
            correlation(&truth, &predicted),
            calibrated.then(|| r_squared(&truth, &predicted)).flatten(),
            calibrated.then(|| absolute_deviation_explained(&truth, &predicted)).flatten(),
        )
    };
    for sequence in &mut sequences {
        if let Some(line) = &line {
            calibrate(&mut sequence.sequence_simulation, line);
        }
        let (c, r, a) = scores(std::slice::from_ref(sequence));
        (sequence.ev_correlation_score, sequence.rsquared_score, sequence.absolute_dev_explained_score) = (c, r, a);
    }
    let (c, r, a) = scores(&sequences);
    let mut all = ScoredSimulation::default();
    all.scored_sequence_simulations = sequences;
    (all.ev_correlation_score, all.rsquared_score, all.absolute_dev_explained_score) = (c, r, a);
    Ok(all)
}

fn flat(sequences: &[ScoredSequenceSimulation]) -> (Vec<f32>, Vec<f32>) {
    let truth = sequences.iter().flat_map(|s| &s.true_activations).copied().collect();
    let predicted = sequences.iter().flat_map(|s| &s.sequence_simulation.expected_activations).copied().collect();
    (truth, predicted)
}

fn calibrate(simulation: &mut SequenceSimulation, line: &Calibration) {
    let before = simulation.clone();
    simulation.activation_scale = ActivationScale::NeuronActivations;
    simulation.expected_activations.iter_mut().for_each(|v| *v = line.apply(*v));
    simulation.distribution_values.iter_mut().flatten().for_each(|v| *v = line.apply(*v));
    simulation.uncalibrated_simulation = Some(Box::new(before));
}

async fn simulate(
    client: &Client,
    examples: &[&ActivationRecord],
    explanation: &str,
    one_by_one: bool,
) -> Result<Vec<ScoredSequenceSimulation>> {
    let one = |example: ActivationRecord| async move {
        let (begin, end) = excerpt(&example);
        let tokens = example.tokens[begin..end].to_vec();
        let simulation = if one_by_one {
            token_by_token(client, explanation, tokens).await?
        } else {
            all_at_once(client, explanation, tokens).await?
        };
        Ok(ScoredSequenceSimulation::new(simulation, example.activations[begin..end].to_vec()))
    };
    let owned: Vec<ActivationRecord> = examples.iter().map(|e| (*e).clone()).collect();
    stream::iter(owned).map(one).buffered(PARALLEL).try_collect().await
}

/// Strengths by the tokens' numbers. An object with other keys, such as one that tells an error, is none.
pub(crate) struct Responses(BTreeMap<usize, f32>);

impl<'de> Deserialize<'de> for Responses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let strengths = BTreeMap::<String, f32>::deserialize(deserializer)?;
        let numbered = strengths.into_iter().map(|(key, strength)| Ok((key.trim().parse()?, strength)));
        numbered.collect::<Result<_, ParseIntError>>().map(Responses).map_err(D::Error::custom)
    }
}

/// Asks for the responses to all tokens in one question; asks once more if the answer cannot be read.
async fn all_at_once(client: &Client, explanation: &str, tokens: Vec<String>) -> Result<SequenceSimulation> {
    let question = prompts::simulate_all(explanation, &tokens);
    let Responses(responses) = ask_json(client, &question).await?;
    let mut expected = vec![0.0; tokens.len()];
    for (number, strength) in responses {
        // A number that is no token's is left out, as a token would be that is no number's.
        if let Some(slot) = expected.get_mut(number) {
            *slot = strength.clamp(0.0, LEVELS as f32);
        }
    }
    Ok(SequenceSimulation::new(tokens, expected))
}

/// Asks for the response to each token in a question of its own, and takes the expected value of the answer.
async fn token_by_token(client: &Client, explanation: &str, tokens: Vec<String>) -> Result<SequenceSimulation> {
    let questions: Vec<Question> = (0..tokens.len()).map(|i| prompts::simulate_one(explanation, &tokens, i)).collect();
    let one = |question: Question| async move { client.ask(&question).await?.distribution(LEVELS) };
    let distributions: Vec<Vec<(u32, f64)>> = stream::iter(questions).map(one).buffered(PARALLEL).try_collect().await?;
    let mut simulation = SequenceSimulation::new(tokens, Vec::new());
    for d in distributions {
        simulation.expected_activations.push(d.iter().map(|(v, p)| f64::from(*v) * p).sum::<f64>() as f32);
        simulation.distribution_values.push(d.iter().map(|(v, _)| *v as f32).collect());
        simulation.distribution_probabilities.push(d.iter().map(|(_, p)| *p as f32).collect());
    }
    Ok(simulation)
}

/// Asks of strong and weak pairs whether they are strong, and measures how well that tells them apart.
pub(crate) async fn token_pairs(
    client: &Client,
    record: &NodeRecord,
    explanation: &str,
    max_sequences: usize,
) -> Result<ScoredAttentionSimulation> {
    let splits = Splits::of(record);
    let valid: Vec<_> = splits.valid.iter().copied().take(max_sequences).collect();
    let all = pairs(&valid);
    let strong = &all[..all.len().min(5)];
    let limit = WEAK * record.max_activation();
    let mut weak: Vec<Pair<'_>> = all.iter().skip(strong.len()).filter(|p| p.value < limit).copied().collect();
    Draw::new(record.layer, record.index).shuffle(&mut weak);
    weak.truncate(5);
    if strong.is_empty() || weak.is_empty() {
        return Err(Error::Unsuitable("the record has no strong and weak token pairs to score with".into()));
    }
    let labelled = strong.iter().map(|p| (p, true)).chain(weak.iter().map(|p| (p, false)));
    let cases: Vec<(Question, AttentionSimulation)> = labelled
        .map(|(pair, strong)| {
            let case = AttentionSimulation::new(pair.tokens.to_vec(), (pair.from, pair.to), strong, 0.0);
            (prompts::simulate_pair(explanation, pair), case)
        })
        .collect();
    let one = |(question, mut case): (Question, AttentionSimulation)| async move {
        let answer = client.ask(&question).await?.distribution(1)?;
        case.simulation_prediction = answer.iter().map(|(v, p)| f64::from(*v) * p).sum();
        Ok::<_, Error>(case)
    };
    let simulations: Vec<AttentionSimulation> = stream::iter(cases).map(one).buffered(PARALLEL).try_collect().await?;
    let labels: Vec<bool> = simulations.iter().map(|s| s.token_pair_label == 1).collect();
    let predictions: Vec<f64> = simulations.iter().map(|s| s.simulation_prediction).collect();
    let mut scored = ScoredAttentionSimulation::default();
    scored.attention_simulations = simulations;
    scored.roc_auc_score = roc_auc(&labels, &predictions);
    Ok(scored)
}

/// Asks which of several texts make the node respond, and counts the right answers. One question in all.
pub(crate) async fn detection(
    client: &Client,
    record: &NodeRecord,
    explanation: &str,
    max_sequences: usize,
) -> Result<Detection> {
    let limit = WEAK * record.max_activation();
    let splits = Splits::of(record);
    let top: Vec<_> = record.most_positive.iter().collect();
    // Held-out strong examples; where there are few, all that were not shown for writing.
    let held_out = top.into_iter().filter(|r| !splits.train.contains(r));
    let strong: Vec<_> = held_out.filter(|r| r.max().is_some_and(|m| m >= limit)).take(max_sequences.min(10)).collect();
    let quiet = record.random_sample.iter().filter(|r| r.max().is_some_and(|m| m < limit));
    let quiet: Vec<_> = quiet.take(max_sequences.min(10)).collect();
    if strong.is_empty() || quiet.is_empty() {
        return Err(Error::Unsuitable("the record has no held-out texts with and without the feature".into()));
    }
    let mut cases: Vec<(&ActivationRecord, bool)> =
        strong.iter().map(|r| (*r, true)).chain(quiet.iter().map(|r| (*r, false))).collect();
    Draw::new(record.layer, record.index).shuffle(&mut cases);
    let text = |r: &ActivationRecord| {
        let is_pairs = r.tokens.len() != r.activations.len();
        let (begin, end) = if is_pairs { (0, r.tokens.len()) } else { excerpt(r) };
        r.tokens[begin..end].concat()
    };
    let texts: Vec<String> = cases.iter().map(|(r, _)| text(r)).collect();
    let named: Vec<usize> = ask_json(client, &prompts::detect(explanation, &texts)).await?;
    let count = |has: bool, said: bool| {
        let agrees = |(i, c): &(usize, &(&ActivationRecord, bool))| c.1 == has && named.contains(&(i + 1)) == said;
        cases.iter().enumerate().filter(agrees).count()
    };
    let (tp, fp, tn, fneg) = (count(true, true), count(false, true), count(false, false), count(true, false));
    let share = |right: usize, wrong: usize| right as f64 / (right + wrong) as f64;
    Ok(Detection {
        true_positives: tp,
        false_positives: fp,
        true_negatives: tn,
        false_negatives: fneg,
        balanced_accuracy: Some((share(tp, fneg) + share(tn, fp)) / 2.0),
    })
}

async fn ask_json<T: for<'a> serde::Deserialize<'a>>(client: &Client, question: &Question) -> Result<T> {
    let reply = client.ask(question).await?;
    match reply.json() {
        Ok(value) => Ok(value),
        Err(_) => {
            if reply.is_cut {
                client.give_room();
            }
            let mut again = question.clone();
            again.user.push_str("\n\nAnswer with the JSON alone.");
            client.ask(&again).await?.json()
        }
    }
}
