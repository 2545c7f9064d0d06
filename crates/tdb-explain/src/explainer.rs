//! The two questions of the interface: what does this node do, and how well does this explanation predict it?

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tdb_data::{FoundRecord, Library, NodeRecord, Origin, Per, RecordsEntry, ScoredExplanation};

use crate::{
    Client, Error, PROMPT_VERSION, Result, date,
    examples::{Splits, pairs},
    phrase::phrase,
    prompts, simulate,
};

/// The set, among those written here, that this crate's explanations go to.
const SET: &str = "activations";

/// How explanations that are written here are made, in stored results.
const METHOD: &str = "activations";

/// Pairs that are shown to write an explanation.
const PAIRS_SHOWN: usize = 10;

/// How an explanation is scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ScoreMethod {
    /// Activations predicted for all tokens of a text in one question.
    #[default]
    AllAtOnce,
    /// Activations predicted with a question for each token, from the probabilities of the answers.
    TokenByToken,
    /// Which texts make the node respond; one question in all.
    Detection,
}

impl ScoreMethod {
    /// As it stands in stored results.
    pub fn name(self, pairs: bool) -> &'static str {
        match self {
            Self::Detection => "detection",
            _ if pairs => "pairs",
            Self::AllAtOnce => "all-at-once",
            Self::TokenByToken => "token-by-token",
        }
    }
}

impl FromStr for ScoreMethod {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all-at-once" => Ok(Self::AllAtOnce),
            "token-by-token" => Ok(Self::TokenByToken),
            "detection" => Ok(Self::Detection),
            other => Err(format!("{other:?} is no way to score; there are all-at-once, token-by-token and detection")),
        }
    }
}

/// Explanations of a node.
#[derive(Debug, Clone)]
pub struct Explained {
    pub explanations: Vec<String>,
    /// Whether a language model was asked.
    pub new: bool,
    /// Those of them that a language model wrote here and that were not scored yet.
    pub unscored: Vec<String>,
    /// Why what is new could not be stored, if it could not.
    pub unstored: Option<tdb_data::Error>,
}

/// The score of an explanation.
#[derive(Debug, Clone)]
pub struct Scored {
    pub score: f64,
    /// Whether a language model was asked.
    pub new: bool,
    /// Why what is new could not be stored, if it could not.
    pub unstored: Option<tdb_data::Error>,
}

/// Explains and scores nodes of a library. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Explainer {
    library: Library,
    client: Option<Client>,
    turns: Turns,
}

impl Explainer {
    /// An explainer that asks `client`, or knows what is stored alone.
    pub fn new(library: Library, client: Option<Client>) -> Self {
        Self { library, client, turns: Turns::default() }
    }

    /// The language model's client, if one is set up.
    pub fn client(&self) -> Option<&Client> {
        self.client.as_ref()
    }

    /// The explanations of a node: those that are stored, else a new one, which is stored. Several that ask for one node
    /// at the same time get the answer to one question.
    pub async fn explain(&self, found: &FoundRecord) -> Result<Explained> {
        let turn = self.turns.of(found);
        let _turn = turn.lock().await;
        let stored = self.stored(found).await?;
        self.or_new(found, stored).await
    }

    /// As [`Self::explain`], where sentences that were made without a language model do not count.
    pub async fn explain_beside_offline(&self, found: &FoundRecord) -> Result<Explained> {
        let turn = self.turns.of(found);
        let _turn = turn.lock().await;
        let mut stored = self.stored(found).await?;
        stored.retain(|e| !e.origin.method.as_deref().is_some_and(|method| method.starts_with("offline")));
        self.or_new(found, stored).await
    }

    async fn or_new(&self, found: &FoundRecord, stored: Vec<ScoredExplanation>) -> Result<Explained> {
        if stored.is_empty() {
            return self.write(found).await;
        }
        let is_unscored = |e: &&ScoredExplanation| {
            e.origin.method.as_deref() == Some(METHOD) && e.score().is_none() && !was_scored(e)
        };
        let unscored = stored.iter().filter(is_unscored).filter_map(|e| e.explanation.clone()).collect();
        let explanations = stored.into_iter().filter_map(|e| e.explanation).collect();
        Ok(Explained { explanations, new: false, unscored, unstored: None })
    }

    /// Writes a new explanation of a node, whatever is stored, and stores it.
    pub async fn write(&self, found: &FoundRecord) -> Result<Explained> {
        let (record, per_pair) = (&found.record, is_pairs(&found.entry)?);
        self.check(record)?;
        let client = self.client.as_ref().ok_or(Error::NotSetUp)?;
        let splits = Splits::of(record);
        let question = if per_pair {
            let all = pairs(&splits.train);
            prompts::explain_pairs(&all[..all.len().min(PAIRS_SHOWN)])
        } else {
            prompts::explain_tokens(&splits.train, record.max_activation())
        };
        self.check_store(found).await?;
        let text = phrase(&client.ask(&question).await?.text)?;
        let origin = Origin {
            model: Some(client.model().into()),
            prompt_version: Some(PROMPT_VERSION.into()),
            date: Some(date::now()),
            method: Some(METHOD.into()),
            score_method: None,
        };
        let unstored = self.store(found, ScoredExplanation::new(&text, origin)).await;
        Ok(Explained { explanations: vec![text.clone()], new: true, unscored: vec![text], unstored })
    }

    /// How well `explanation` predicts the node: the stored score if there is one, else a new one, which is stored.
    pub async fn score(
        &self,
        found: &FoundRecord,
        explanation: &str,
        method: ScoreMethod,
        max_sequences: Option<usize>,
    ) -> Result<Scored> {
        let turn = self.turns.of(found);
        let _turn = turn.lock().await;
        let same = |e: &&ScoredExplanation| e.explanation.as_deref() == Some(explanation);
        let stored = self.stored(found).await?;
        let known = stored.iter().find(same);
        if let Some(score) = known.and_then(ScoredExplanation::score) {
            return Ok(Scored { score, new: false, unstored: None });
        }
        // A stored simulation without score: it was computed, and is undefined.
        if known.is_some_and(was_scored) {
            return Err(Error::Unsuitable(
                "the score of this explanation is undefined: the prediction or the activations do not vary".into(),
            ));
        }
        let per_pair = is_pairs(&found.entry)?;
        self.check(&found.record)?;
        if explanation.trim().is_empty() {
            return Err(Error::Unsuitable("the explanation is empty".into()));
        }
        let client = self.client.as_ref().ok_or(Error::NotSetUp)?;
        self.check_store(found).await?;
        let (record, most) = (&found.record, max_sequences.unwrap_or(usize::MAX));
        let mut scored = known.cloned().unwrap_or_else(|| {
            ScoredExplanation::new(explanation, Origin { method: Some("by-hand".into()), ..Origin::default() })
        });
        match method {
            ScoreMethod::Detection => {
                scored.detection = Some(simulate::detection(client, record, explanation, most).await?);
            }
            _ if per_pair => {
                let pairs = simulate::token_pairs(client, record, explanation, most).await?;
                scored.scored_attention_simulation = Some(pairs);
            }
            _ => {
                let one_by_one = method == ScoreMethod::TokenByToken;
                let tokens = simulate::tokens(client, record, explanation, one_by_one, most).await?;
                scored.scored_simulation = Some(tokens);
            }
        }
        scored.origin.score_method = Some(method.name(per_pair).into());
        let origin = &mut scored.origin;
        origin.model.get_or_insert_with(|| client.model().into());
        origin.prompt_version.get_or_insert_with(|| PROMPT_VERSION.into());
        origin.date.get_or_insert_with(date::now);
        let score = scored.score();
        let unstored = self.store(found, scored).await;
        score.map(|score| Scored { score, new: true, unstored }).ok_or_else(|| {
            Error::Unsuitable("the score is undefined: the prediction or the activations do not vary".into())
        })
    }

    /// All stored explanations of a node.
    async fn stored(&self, found: &FoundRecord) -> Result<Vec<ScoredExplanation>> {
        let (layer, index) = found.node();
        let sets = self.library.explanations(&found.entry, layer, index).await?;
        let all = sets.into_iter().flat_map(|(_, node)| node.explanations).filter(|e| e.explanation.is_some());
        Ok(all.collect())
    }

    /// Before anything is asked that costs something: whether the answer can be kept.
    async fn check_store(&self, found: &FoundRecord) -> Result<()> {
        Ok(self.library.check_explanations_folder(&found.entry, SET, found.node().0).await?)
    }

    /// Why it could not be stored, if so. What was asked for is told all the same.
    async fn store(&self, found: &FoundRecord, explanation: ScoredExplanation) -> Option<tdb_data::Error> {
        let per_pair = found.entry.per == Per::TokenPair;
        self.library.add_explanation(&found.entry, SET, found.node(), per_pair, explanation).await.err()
    }

    fn check(&self, record: &NodeRecord) -> Result<()> {
        if record.max_activation() <= 0.0 {
            return Err(Error::Unsuitable(format!(
                "no activation of node {}:{} is positive in its record, so there is nothing to explain",
                record.layer, record.index
            )));
        }
        Ok(())
    }
}

/// What a question is about: a set of records by name and scalar, and a node by layer and index.
type About = (String, String, (usize, usize));

/// Questions about one node are asked one after the other, so that the second finds what the first one stored.
#[derive(Debug, Clone, Default)]
struct Turns(Arc<Mutex<HashMap<About, Weak<tokio::sync::Mutex<()>>>>>);

impl Turns {
    fn of(&self, found: &FoundRecord) -> Arc<tokio::sync::Mutex<()>> {
        let about = (found.entry.name.clone(), found.entry.scalar.clone(), found.node());
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, turn| turn.strong_count() > 0);
        let turn = all.get(&about).and_then(Weak::upgrade).unwrap_or_default();
        all.insert(about, Arc::downgrade(&turn));
        turn
    }
}

fn was_scored(e: &ScoredExplanation) -> bool {
    let simulated = e.scored_simulation.as_ref().is_some_and(|s| !s.scored_sequence_simulations.is_empty());
    let pairs = e.scored_attention_simulation.as_ref().is_some_and(|s| !s.attention_simulations.is_empty());
    simulated || pairs || e.detection.is_some()
}

/// Whether a set's records are of token pairs. An error for scalars whose records mean something else.
pub fn is_pairs(entry: &RecordsEntry) -> Result<bool> {
    let known = ["mlp_post_act", "attn_write_norm", "flattened_attn_write_to_latent_summed_over_heads"];
    if known.contains(&entry.scalar.as_str()) || entry.scalar.ends_with("autoencoder_latent") {
        Ok(entry.per == Per::TokenPair)
    } else {
        Err(Error::Unsuitable(format!("explanations of {} are not supported", entry.scalar)))
    }
}
