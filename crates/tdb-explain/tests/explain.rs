//! Explaining and scoring against a server that speaks the chat protocol. Its "language model" knows cats and nothing else.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

use std::{
    collections::VecDeque,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Json, Router, extract::State, http::StatusCode, response::IntoResponse, routing::post};
use serde_json::{Value, json};
use tdb_api::NodeIdAndDatasets;
use tdb_data::{FetchConfig, Fetcher, FoundRecord, Library, Origin, Registry, ScoredExplanation};
use tdb_explain::{Client, ClientConfig, Error, Explainer, PROMPT_VERSION, ScoreMethod};

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    Status(u16),
    OldLimitRefused,
    Garbage,
    Silent,
    Nonsense,
    /// Refused with this status and body.
    Refused(u16, &'static str),
    /// Answered with this text and end.
    Said(&'static str, &'static str),
}

#[derive(Default)]
struct Served {
    questions: Vec<Value>,
    faults: VecDeque<Fault>,
    no_probabilities: bool,
    /// What happens while a question is answered.
    meanwhile: Option<Box<dyn Fn() + Send>>,
}

type Shared = Arc<Mutex<Served>>;

/// Starts the server; returns its address and what it was asked.
async fn chat() -> (String, Shared) {
    let shared = Shared::default();
    let app = Router::new().route("/v1/chat/completions", post(answer)).with_state(shared.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (url, shared)
}

async fn answer(State(shared): State<Shared>, Json(request): Json<Value>) -> axum::response::Response {
    let (fault, no_probabilities) = {
        let mut served = shared.lock().unwrap();
        served.questions.push(request.clone());
        served.meanwhile.iter().for_each(|happens| happens());
        (served.faults.pop_front(), served.no_probabilities)
    };
    let refuse = |status: u16, message: &str| {
        let body = json!({"error": {"message": message, "type": "error", "param": null, "code": null}});
        (StatusCode::from_u16(status).unwrap(), Json(body)).into_response()
    };
    let mut content = think(request["messages"][1]["content"].as_str().unwrap());
    match fault {
        Some(Fault::Status(status)) => return refuse(status, "not now"),
        Some(Fault::OldLimitRefused) => {
            return refuse(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.");
        }
        Some(Fault::Garbage) => return "<html>".into_response(),
        Some(Fault::Silent) => tokio::time::sleep(Duration::from_secs(60)).await,
        Some(Fault::Nonsense) => content = "I like turtles".into(),
        Some(Fault::Refused(status, body)) => {
            return (StatusCode::from_u16(status).unwrap(), body).into_response();
        }
        Some(Fault::Said(text, end)) => {
            let choice = json!({"message": {"content": text}, "finish_reason": end});
            return Json(json!({ "choices": [choice] })).into_response();
        }
        None => {}
    }
    let mut choice = json!({"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"});
    if request["logprobs"] == true && !no_probabilities {
        // Three quarters for the answer, a quarter for 0.
        let top = json!([{"token": content, "logprob": 0.75f64.ln()}, {"token": "0", "logprob": 0.25f64.ln()}]);
        choice["logprobs"] = json!({"content": [{"token": content, "logprob": -0.1, "top_logprobs": top}]});
    }
    Json(json!({"choices": [choice], "usage": {"total_tokens": 100}})).into_response()
}

fn think(question: &str) -> String {
    let (what, rest) = question.split_once("\n\n").unwrap_or((question, ""));
    let cats = what.contains("cats");
    let fires = |text: &str| cats && text.contains("cat");
    if let Some(tokens) = rest.strip_prefix("Tokens:\n") {
        let numbers = tokens.lines().filter(|l| fires(l)).filter_map(|l| l.split(' ').next());
        return format!("{{{}}}", numbers.map(|n| format!("\"{n}\": 10")).collect::<Vec<_>>().join(", "));
    }
    if rest.contains("Last token:") {
        return if fires(rest.split("Last token:").last().unwrap()) { "10" } else { "0" }.into();
    }
    if what.starts_with("The head attends to:") {
        return if rest.contains("« cat»") || rest.contains("«‹ cat›»") { "1" } else { "0" }.into();
    }
    if rest.starts_with("Text 1:") {
        let texts = rest.split("Text ").skip(1).filter(|t| fires(t)).filter_map(|t| t.split(':').next());
        return format!("These: [{}]", texts.collect::<Vec<_>>().join(", "));
    }
    "The unit responds to words about cats.".into()
}

const WORDS: [&str; 8] = ["The", " dog", " sat", " on", " the", " mat", ".", " Paris"];

/// A node that fires on " cat" and, with its pairs, along every pair that reads " cat".
fn example(i: usize, cat: Option<usize>, pairs: bool) -> Value {
    let tokens: Vec<&str> = (0..6).map(|j| if cat == Some(j) { " cat" } else { WORDS[(i + j) % 8] }).collect();
    let value = |to: usize| if cat == Some(to) { 5.0 - 0.1 * i as f64 } else { -0.25 };
    let activations: Vec<f64> = match pairs {
        false => (0..6).map(value).collect(),
        true => (0..6).flat_map(|from| (0..=from).map(value)).collect(),
    };
    json!({"dataclass_name": "ActivationRecord", "activations": activations, "tokens": tokens})
}

fn library(folder: &Path) -> Library {
    for (set, pairs, index, fires) in
        [("tokens", false, 1, true), ("pairs", true, 1, true), ("tokens", false, 2, false)]
    {
        let cat = |i: usize| fires.then_some(1 + i % 5);
        let top: Vec<Value> = (0..20).map(|i| example(i, cat(i), pairs)).collect();
        let random: Vec<Value> = (0..20).map(|i| example(i, None, pairs)).collect();
        let record = json!({"dataclass_name": "NeuronRecord",
            "neuron_id": {"dataclass_name": "NeuronId", "neuron_index": index, "layer_index": 0},
            "random_sample": random, "most_positive_activation_records": top});
        let path = folder.join(set).join("0");
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join(format!("{index}.json")), record.to_string()).unwrap();
    }
    let entry = |name: &str, scalar: &str, per: &str| {
        let location = folder.join(name).display().to_string();
        format!("[[records]]\nname = 'here'\nscalar = '{scalar}'\ntitle = ''\nlocation = '{location}'\nper = '{per}'\n")
    };
    let text = entry("tokens", "mlp_post_act", "token") + &entry("pairs", "attn_write_norm", "token-pair");
    let registry = Registry::parse("test", &text).unwrap();
    let mut config = FetchConfig::from_env().unwrap();
    config.cache = folder.join("cache");
    Library::new(registry.clone(), Fetcher::new(config, &registry), folder.join("own"))
}

async fn node(library: &Library, scalar: &str, index: i64) -> FoundRecord {
    let request = json!({"dst": scalar, "layerIndex": 0, "activationIndex": index, "datasets": ["here"]});
    let request: NodeIdAndDatasets = serde_json::from_value(request).unwrap();
    library.record(&request).await.unwrap()
}

fn config(url: &str) -> ClientConfig {
    let mut config = ClientConfig::new(url, "the-secret", "cat-model");
    (config.pause, config.timeout, config.retries) = (Duration::from_millis(5), Duration::from_secs(2), 3);
    config
}

#[tokio::test]
async fn a_neuron_is_explained_scored_and_remembered() {
    let ((url, served), folder) = (chat().await, tempfile::tempdir().unwrap());
    let library = library(folder.path());
    let explainer = Explainer::new(library.clone(), Some(Client::new(config(&url)).unwrap()));
    let found = node(&library, "mlp_post_act", 1).await;
    let first = explainer.explain(&found).await.unwrap();
    assert_eq!((first.explanations.as_slice(), first.new), (&["words about cats".to_string()][..], true));
    let again = explainer.explain(&found).await.unwrap();
    assert_eq!((again.explanations, again.new), (first.explanations, false));
    assert_eq!(served.lock().unwrap().questions.len(), 1);
    // What is shown is marked, and what is held out is not shown.
    let shown = served.lock().unwrap().questions[0]["messages"][1]["content"].as_str().unwrap().to_string();
    assert_eq!(shown.matches("{{ cat|").count(), 5, "{shown}");

    let scored = explainer.score(&found, "words about cats", ScoreMethod::AllAtOnce, None).await.unwrap();
    assert!(scored.new && scored.score > 0.99, "{scored:?}");
    let before = served.lock().unwrap().questions.len();
    let again = explainer.score(&found, "words about cats", ScoreMethod::AllAtOnce, None).await.unwrap();
    assert!(!again.new && (again.score - scored.score).abs() < 1e-12);
    assert_eq!(served.lock().unwrap().questions.len(), before);

    let sets = library.explanations(&found.entry, 0, 1).await.unwrap();
    let stored = &sets[0].1.explanations[0];
    assert_eq!(stored.origin.model.as_deref(), Some("cat-model"));
    assert_eq!(stored.origin.prompt_version.as_deref(), Some(PROMPT_VERSION));
    assert_eq!(stored.origin.score_method.as_deref(), Some("all-at-once"));
    assert!(stored.origin.date.as_deref().is_some_and(|d| d.len() == 20 && d.ends_with('Z')));
    let simulation = stored.scored_simulation.as_ref().unwrap();
    assert_eq!(simulation.scored_sequence_simulations.len(), 10);
    assert!(simulation.rsquared_score.unwrap() > 0.9, "calibrated predictions are in the node's own unit");
}

#[tokio::test]
async fn a_wrong_explanation_scores_worse_by_every_method() {
    let ((url, _), folder) = (chat().await, tempfile::tempdir().unwrap());
    let library = library(folder.path());
    let explainer = Explainer::new(library.clone(), Some(Client::new(config(&url)).unwrap()));
    let found = node(&library, "mlp_post_act", 1).await;
    for (i, method) in [ScoreMethod::TokenByToken, ScoreMethod::Detection].into_iter().enumerate() {
        let good = explainer.score(&found, &format!("cats {i}"), method, Some(6)).await.unwrap();
        assert!(good.score > 0.98, "{method:?}: {good:?}");
        let bad = explainer.score(&found, &format!("planets {i}"), method, Some(6)).await;
        match method {
            // Nothing is predicted anywhere, so that there is no correlation.
            ScoreMethod::TokenByToken => assert!(matches!(bad, Err(Error::Unsuitable(_))), "{bad:?}"),
            _ => assert_eq!(bad.unwrap().score, 0.5),
        }
    }
    let sets = library.explanations(&found.entry, 0, 1).await.unwrap();
    let by_token = sets[0].1.explanations.iter().find(|e| e.explanation.as_deref() == Some("cats 0")).unwrap();
    let simulation = &by_token.scored_simulation.as_ref().unwrap().scored_sequence_simulations[0].sequence_simulation;
    let raw = simulation.uncalibrated_simulation.as_ref().unwrap();
    assert!(raw.expected_activations.iter().any(|a| (a - 7.5).abs() < 1e-6), "expected value of 10 and 0: {raw:?}");
    assert_eq!(by_token.origin.method.as_deref(), Some("by-hand"));
}

#[tokio::test]
async fn heads_are_explained_and_scored_by_pairs() {
    let ((url, served), folder) = (chat().await, tempfile::tempdir().unwrap());
    let library = library(folder.path());
    let explainer = Explainer::new(library.clone(), Some(Client::new(config(&url)).unwrap()));
    let found = node(&library, "attn_write_norm", 1).await;
    explainer.explain(&found).await.unwrap();
    let shown = served.lock().unwrap().questions[0]["messages"][1]["content"].as_str().unwrap().to_string();
    assert!(shown.contains("« cat»") || shown.contains("«‹ cat›»"), "{shown}");
    for probabilities in [true, false] {
        served.lock().unwrap().no_probabilities = !probabilities;
        let text = format!("attends to cats, {probabilities}");
        let scored = explainer.score(&found, &text, ScoreMethod::default(), None).await.unwrap();
        assert!(scored.score > 0.99, "{scored:?}");
    }
    let sets = library.explanations(&found.entry, 0, 1).await.unwrap();
    assert!(sets[0].1.pairs);
    let scored = sets[0].1.explanations.last().unwrap();
    assert_eq!(scored.scored_attention_simulation.as_ref().unwrap().attention_simulations.len(), 10);
}

#[tokio::test]
async fn a_server_out_of_order_is_asked_again_and_a_refusal_is_told() {
    let ((url, served), folder) = (chat().await, tempfile::tempdir().unwrap());
    let library = library(folder.path());
    let explainer = Explainer::new(library.clone(), Some(Client::new(config(&url)).unwrap()));
    let found = node(&library, "mlp_post_act", 1).await;
    for faults in [vec![Fault::OldLimitRefused], vec![Fault::Garbage], vec![Fault::Silent]] {
        served.lock().unwrap().faults = faults.into();
        explainer.write(&found).await.unwrap();
    }
    let last = served.lock().unwrap().questions.last().cloned().unwrap();
    assert!(last["max_completion_tokens"].is_u64() && last["max_tokens"].is_null(), "{last}");

    served.lock().unwrap().faults = vec![Fault::Status(401)].into();
    let before = served.lock().unwrap().questions.len();
    let error = explainer.write(&found).await.unwrap_err();
    assert!(matches!(&error, Error::Model { reason, .. } if !reason.contains("the-secret")), "{error}");
    assert_eq!(served.lock().unwrap().questions.len(), before + 1, "a refusal is not asked again");

    // An answer that cannot be read is asked for once more, and then given up.
    served.lock().unwrap().faults = vec![Fault::Nonsense].into();
    explainer.score(&found, "cats!", ScoreMethod::Detection, None).await.unwrap();
    served.lock().unwrap().faults = vec![Fault::Nonsense, Fault::Nonsense].into();
    let error = explainer.score(&found, "cats!!", ScoreMethod::Detection, None).await.unwrap_err();
    assert!(matches!(&error, Error::Answer(text) if text.contains("turtles")), "{error}");
}

#[tokio::test]
async fn what_a_model_thinks_is_no_part_of_its_answers() {
    let ((url, served), folder) = (chat().await, tempfile::tempdir().unwrap());
    let library = library(folder.path());
    let explainer = Explainer::new(library.clone(), Some(Client::new(config(&url)).unwrap()));
    let found = node(&library, "mlp_post_act", 1).await;
    // Cut off while thinking: asked again with room to think, from then on.
    let answers =
        [Fault::Said("<think>Are these cats?", "length"), Fault::Said("<think>Yes.</think> **cats**", "stop")];
    served.lock().unwrap().faults = answers.into();
    assert_eq!(explainer.write(&found).await.unwrap().explanations, ["cats"]);
    let limits: Vec<u64> = served.lock().unwrap().questions.iter().map(|q| q["max_tokens"].as_u64().unwrap()).collect();
    assert!(limits[1] > limits[0] + 1000, "{limits:?}");
    // Cut off again, or in the phrase itself: nothing is stored.
    let stored = || async { library.explanations(&found.entry, 0, 1).await.unwrap()[0].1.explanations.len() };
    let before = stored().await;
    for cut in ["<think>Are these cats, or", "", "words about cats, especially when they come before a com"] {
        served.lock().unwrap().faults = [Fault::Said(cut, "length")].into();
        let error = explainer.write(&found).await.unwrap_err();
        assert!(matches!(&error, Error::Answer(text) if text.contains("cut off")), "{error}");
    }
    assert_eq!(stored().await, before);
    // Scores are read behind the thinking, too.
    let said = "<think>Text [9]? No.</think>[]";
    served.lock().unwrap().faults = [Fault::Said(said, "stop")].into();
    let scored = explainer.score(&found, "cats", ScoreMethod::Detection, None).await.unwrap();
    assert_eq!(scored.score, 0.5);
}

#[tokio::test]
async fn what_a_server_does_not_take_is_left_out_and_what_it_refuses_is_not_repeated() {
    let ((url, served), folder) = (chat().await, tempfile::tempdir().unwrap());
    let library = library(folder.path());
    let explainer = Explainer::new(library.clone(), Some(Client::new(config(&url)).unwrap()));
    let found = node(&library, "attn_write_norm", 1).await;
    served.lock().unwrap().faults = [
        Fault::Refused(400, r#"{"object": "error", "message": "top_logprobs must be at most 5", "code": 400}"#),
        Fault::Refused(422, r#"{"error": "`top_logprobs` is not supported", "error_type": "validation"}"#),
        Fault::Refused(400, r#"[{"error": {"message": "temperature is not supported"}}]"#),
    ]
    .into();
    let scored = explainer.score(&found, "attends to cats", ScoreMethod::default(), None).await.unwrap();
    assert!(scored.score > 0.99, "{scored:?}");
    let asked = served.lock().unwrap().questions.len();
    // Ten pairs, and the three questions again; several are under way when the first is refused.
    assert!((13..=13 + 3 * 8).contains(&asked), "{asked}");
    let last = served.lock().unwrap().questions.last().cloned().unwrap();
    assert!(last.get("logprobs").is_none() && last.get("temperature").is_none(), "{last}");

    served.lock().unwrap().faults =
        [Fault::Refused(404, r#"{"object": "error", "message": "The model `x` does not exist.", "code": 404}"#)].into();
    let error = explainer.write(&found).await.unwrap_err().to_string();
    assert!(error.contains("404 Not Found: The model `x` does not exist."), "{error}");
    assert_eq!(served.lock().unwrap().questions.len(), asked + 1);
}

#[tokio::test]
async fn sentences_of_no_language_model_may_be_passed_over_and_missing_scores_are_told() {
    let ((url, served), folder) = (chat().await, tempfile::tempdir().unwrap());
    let library = library(folder.path());
    let explainer = Explainer::new(library.clone(), Some(Client::new(config(&url)).unwrap()));
    let found = node(&library, "mlp_post_act", 1).await;
    let origin = Origin { method: Some("offline-statistics".into()), ..Origin::default() };
    let offline = ScoredExplanation::new("the token cat", origin);
    library.add_explanation(&found.entry, "offline-statistics", (0, 1), false, offline).await.unwrap();
    let explained = explainer.explain(&found).await.unwrap();
    assert!(!explained.new && explained.unscored.is_empty(), "{explained:?}");
    let explained = explainer.explain_beside_offline(&found).await.unwrap();
    assert_eq!((explained.new, &explained.unscored), (true, &explained.explanations));
    // The scoring is cut off; the next run is told of it, until it is done.
    served.lock().unwrap().faults = [Fault::Refused(401, "no")].into();
    explainer.score(&found, "words about cats", ScoreMethod::AllAtOnce, None).await.unwrap_err();
    let explained = explainer.explain_beside_offline(&found).await.unwrap();
    assert_eq!((explained.new, explained.unscored.as_slice()), (false, &["words about cats".to_owned()][..]));
    explainer.score(&found, "words about cats", ScoreMethod::AllAtOnce, None).await.unwrap();
    assert!(explainer.explain(&found).await.unwrap().unscored.is_empty());
}

#[tokio::test]
async fn budgets_and_missing_keys_are_said_in_a_sentence() {
    let ((url, _), folder) = (chat().await, tempfile::tempdir().unwrap());
    let library = library(folder.path());
    let found = node(&library, "mlp_post_act", 1).await;
    let error = Explainer::new(library.clone(), None).explain(&found).await.unwrap_err();
    assert!(matches!(error, Error::NotSetUp) && error.to_string().contains("OPENAI_API_KEY"), "{error}");

    let mut few = config(&url);
    few.max_questions = 3;
    let explainer = Explainer::new(library.clone(), Some(Client::new(few).unwrap()));
    explainer.explain(&found).await.unwrap();
    let error = explainer.score(&found, "words about cats", ScoreMethod::TokenByToken, None).await.unwrap_err();
    assert!(matches!(error, Error::Budget(_)), "{error}");
    let mut little = config(&url);
    little.max_tokens = 150;
    let explainer = Explainer::new(library.clone(), Some(Client::new(little).unwrap()));
    let error = explainer.score(&found, "words about cats", ScoreMethod::TokenByToken, None).await.unwrap_err();
    assert!(matches!(error, Error::Budget(_)), "{error}");

    let silent = node(&library, "mlp_post_act", 2).await;
    let explainer = Explainer::new(library.clone(), Some(Client::new(config(&url)).unwrap()));
    let error = explainer.explain(&silent).await.unwrap_err();
    assert!(matches!(&error, Error::Unsuitable(text) if text.contains("0:2")), "{error}");
}

#[tokio::test]
async fn several_who_ask_about_one_node_cost_one_question() {
    let ((url, served), folder) = (chat().await, tempfile::tempdir().unwrap());
    let library = library(folder.path());
    let explainer = Explainer::new(library.clone(), Some(Client::new(config(&url)).unwrap()));
    let found = node(&library, "mlp_post_act", 1).await;
    let all = futures::future::join_all((0..4).map(|_| explainer.explain(&found))).await;
    assert!(all.iter().all(|one| one.as_ref().unwrap().explanations == ["words about cats"]));
    assert_eq!(served.lock().unwrap().questions.len(), 1);
}

#[tokio::test]
async fn what_cannot_be_kept_is_not_asked_for_and_what_was_answered_is_told() {
    let ((url, served), folder) = (chat().await, tempfile::tempdir().unwrap());
    let library = library(folder.path());
    let explainer = Explainer::new(library.clone(), Some(Client::new(config(&url)).unwrap()));
    let found = node(&library, "mlp_post_act", 1).await;
    std::fs::write(folder.path().join("own"), "a file in the place of a folder").unwrap();
    let refused = explainer.explain(&found).await.unwrap_err().to_string();
    assert!(refused.contains("explanations cannot be kept in") && refused.contains("TDB_EXPLANATIONS"), "{refused}");
    let refused = explainer.score(&found, "cats", ScoreMethod::Detection, None).await.unwrap_err().to_string();
    assert!(refused.contains("cannot be kept"), "{refused}");
    assert_eq!(served.lock().unwrap().questions.len(), 0);

    // The place is taken only when it is to be written.
    std::fs::remove_file(folder.path().join("own")).unwrap();
    let place = folder.path().join("own/here/mlp_post_act/activations/0/1.jsonl");
    let in_the_way = place.clone();
    served.lock().unwrap().meanwhile = Some(Box::new(move || std::fs::create_dir_all(&in_the_way).unwrap()));
    let explained = explainer.explain(&found).await.unwrap();
    assert_eq!(explained.explanations, ["words about cats"]);
    assert!(explained.unstored.is_some_and(|why| why.to_string().contains(&*place.to_string_lossy())));
}

#[tokio::test]
async fn an_answer_that_predicts_nothing_is_asked_for_again_and_never_stored() {
    let ((url, served), folder) = (chat().await, tempfile::tempdir().unwrap());
    let library = library(folder.path());
    let explainer = Explainer::new(library.clone(), Some(Client::new(config(&url)).unwrap()));
    let found = node(&library, "mlp_post_act", 1).await;
    let wrong = Fault::Said("{\"error\": 5}", "stop");
    served.lock().unwrap().faults.extend([wrong; 60]);
    let error = explainer.score(&found, "cats", ScoreMethod::AllAtOnce, None).await.unwrap_err();
    assert!(matches!(&error, Error::Answer(what) if what.contains("JSON was expected")), "{error:?}");
    served.lock().unwrap().faults.clear();
    let scored = explainer.score(&found, "cats", ScoreMethod::AllAtOnce, None).await.unwrap();
    assert!(scored.new && scored.score > 0.99, "{scored:?}");
}

#[tokio::test]
async fn a_model_elsewhere_is_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let ((elsewhere, served), library) = (chat().await, library(folder.path()));
    let to = format!("{elsewhere}/chat/completions");
    let redirect = axum::response::Redirect::temporary(&to);
    let app = Router::new().route("/v1/chat/completions", post(move || std::future::ready(redirect.clone())));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let explainer = Explainer::new(library.clone(), Some(Client::new(config(&url)).unwrap()));
    let found = node(&library, "mlp_post_act", 1).await;
    let error = explainer.explain(&found).await.unwrap_err().to_string();
    assert!(error.contains(&to) && error.contains("not followed"), "{error}");
    assert_eq!(served.lock().unwrap().questions.len(), 0);
}
