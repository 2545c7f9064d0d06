//! Requests: how they are read, and what the engine does with them.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::Value;
use tdb_api::NodeIdAndDatasets;
use tdb_api::routes::{self, Place, Route};
use tdb_api::stream::TdbEvent;
use tdb_api::wire::{self, Errors, from_query};
use tdb_model::{AutoencoderSite, Transformer, checkpoint};
use tdb_scalars::{Bounds, Context, Engine, Error, Observer, RecordMaximum, Records};
use tdb_testkit::families::Copied;

use super::first_line;
use procedural::dictionary;

#[path = "../../../../crates/tdb-scalars/tests/common/procedural.rs"]
mod procedural;

/// Items of a list that the server takes.
const LONGEST_LIST: usize = 1024;

fn read<R: Route>(value: &Value) -> Option<R::Request> {
    wire::read(value, Errors::below("body").with_lists_of_at_most(LONGEST_LIST)).ok()
}

/// Calls a macro with every route that takes something.
macro_rules! with_routes {
    ($each:ident) => {
        $each!(
            ForceClientCodeGeneration,
            NeuronRecord,
            AttentionHeadRecord,
            RecordSummary,
            ExistingExplanations,
            ExistingExplanationsBatch,
            ExplanationSearch,
            Explain,
            Score,
            DerivedScalars,
            DerivedAttentionScalars,
            MultipleTopKDerivedScalars,
            Batched,
            BatchedTdb,
            DictionaryFidelity,
            BatchedTdbStream,
            Effects,
            Circuit,
            Patch,
            LogitLens,
            ComponentWeights,
            HeadScores,
            HeadReadings,
            SampleStream,
            Tokenize,
            Vocabulary
        )
    };
}

/// A request, body or query: what is read of it, written and read again is the same.
pub fn request(input: &[u8]) {
    fn both_ways<R: Route>(value: &Value, query: Option<&str>) {
        let from_query =
            query.filter(|_| R::PLACE == Place::Query).and_then(|query| from_query::<R::Request>(query).ok());
        for request in read::<R>(value).into_iter().chain(from_query) {
            let text = serde_json::to_value(&request).unwrap_or_default();
            let again = read::<R>(&text).and_then(|again| serde_json::to_value(&again).ok());
            assert_eq!(again.as_ref(), Some(&text), "{}", R::PATH);
        }
    }
    let value = serde_json::from_slice::<Value>(input).unwrap_or_default();
    let query = std::str::from_utf8(input).ok();
    macro_rules! each {
        ($($route:ident),*) => { $(both_ways::<routes::$route>(&value, query);)* };
    }
    with_routes!(each);
}

/// Small models; the first has a dictionary in every slot.
static ENGINES: LazyLock<BTreeMap<&'static str, Engine>> = LazyLock::new(|| {
    let all = ["gpt2-scaled-by-layer", "gemma-2", "llama-3-scaling", "gpt-neox-parallel", "lens-attention-only"];
    all.into_iter().map(|name| (name, engine(name, name == all[0]))).collect()
});

fn engine(name: &str, with_dictionaries: bool) -> Engine {
    use AutoencoderSite::{MlpPostAct, ResidDeltaAttn, ResidPostMlp};
    let copied = Copied::new(name).expect("the family is in the repository");
    let found = checkpoint::open(&copied.path).expect("it can be read");
    let config = found.config.clone();
    let mut model = Transformer::load(found.config, found.weights).expect("it is whole");
    let sites: &[_] = if with_dictionaries { &[MlpPostAct, ResidDeltaAttn, ResidPostMlp] } else { &[] };
    for site in sites {
        model = model.attach(dictionary(&config, *site)).expect("each has a slot of its own");
    }
    let names = if with_dictionaries { Some("sae".to_owned()) } else { None };
    let engine = Engine::new(name, model, found.tokenizer, names.clone(), names.clone());
    engine.with_residual_autoencoder(names).with_beginning(found.beginning)
}

/// Has a record of every node.
struct World;

impl Records for World {
    fn maximum(&self, node: &NodeIdAndDatasets, _: &dyn Observer) -> Result<RecordMaximum, Error> {
        match node.activation_index % 3 {
            2 => Err(Error::NotFound("no record".to_owned())),
            odd => Ok(RecordMaximum {
                activation: 2.5 * odd as f64,
                mean: Some(0.25).filter(|_| odd == 1),
                attention_sequences: vec![vec![vec![1.0], vec![0.5, 2.0]]],
            }),
        }
    }
}

impl Observer for World {
    fn listens(&self) -> bool {
        true
    }

    fn event(&self, event: TdbEvent) {
        drop(serde_json::to_string(&event));
    }
}

/// What a server takes of such small models.
const BOUNDS: Bounds =
    Bounds { answer_bytes: 8 << 20, token_scores: 1 << 22, activation_bytes: 256 << 20, varied_runs: 256 };

/// A body for the engine, after a line with a model's name and a route.
pub fn question(input: &[u8]) {
    let Some((line, body)) = first_line(input) else { return };
    let Some((name, route)) = line.split_once(' ') else { return };
    let Some(engine) = ENGINES.get(name) else { return };
    let Ok(value) = serde_json::from_slice::<Value>(body) else { return };
    let context = Context { observer: &World, records: &World, bounds: BOUNDS };
    macro_rules! ask {
        ($route:ident, |$request:ident| $answer:expr) => {
            if route == routes::$route::PATH {
                if let Some($request) = read::<routes::$route>(&value) {
                    answered($answer);
                }
                return;
            }
        };
    }
    ask!(BatchedTdb, |request| engine.batched_tdb(&request, &context));
    ask!(BatchedTdbStream, |request| engine.send_batched_tdb(&request, &context));
    ask!(Batched, |request| engine.batched(&request, &context));
    ask!(DerivedScalars, |request| engine.derived_scalars(&request, &context));
    ask!(DerivedAttentionScalars, |request| engine.derived_attention_scalars(&request, &context));
    ask!(MultipleTopKDerivedScalars, |request| engine.multiple_top_k_derived_scalars(&request, &context));
    ask!(DictionaryFidelity, |request| engine.dictionary_fidelity(&request, &context));
    ask!(Effects, |request| engine.effects(&request, &context));
    ask!(EffectsStream, |request| engine.send_effects(&request, &context));
    ask!(Circuit, |request| engine.circuit(&request, &context));
    ask!(Patch, |request| engine.patch(&request, &context));
    ask!(PatchStream, |request| engine.send_patch(&request, &context));
    ask!(LogitLens, |request| engine.logit_lens(&request, &context));
    ask!(ComponentWeights, |request| engine.component_weights(&request));
    ask!(HeadScores, |request| engine.head_scores(&request, &context));
    ask!(HeadReadings, |request| engine.head_readings(&request, &context));
    ask!(SampleStream, |request| engine.sample(&request, &context));
}

/// An answer can be sent, and an error is the request's, not the server's.
fn answered<T: serde::Serialize>(answer: Result<T, Error>) {
    match answer {
        Ok(answer) => assert!(serde_json::to_string(&answer).is_ok()),
        Err(Error::Internal(what)) => panic!("{what}"),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
