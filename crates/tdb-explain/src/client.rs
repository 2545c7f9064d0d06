//! Asking a language model: one message after the other, within a budget.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::Semaphore;

use crate::{
    Error, Result,
    dialect::Dialect,
    reply::{Reply, short},
    transport::{Refusal, post},
};

/// Longest pause that a server may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Settings of a [`Client`].
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Address up to and with `/v1`.
    pub url: String,
    /// May be empty where the server asks for none.
    pub key: String,
    pub model: String,
    /// Questions that are open at the same time.
    pub parallel: usize,
    /// For one answer.
    pub timeout: Duration,
    /// After a failure that may pass.
    pub retries: u32,
    /// First pause before another try; doubled each time.
    pub pause: Duration,
    /// Questions that may be asked altogether; 0 for any number.
    pub max_questions: u64,
    /// Tokens, of questions and answers together, that may be used altogether; 0 for any number.
    pub max_tokens: u64,
}

const PUBLIC_URL: &str = "https://api.openai.com/v1";

impl ClientConfig {
    /// `TDB_EXPLAIN_URL` (or `OPENAI_BASE_URL`), `TDB_EXPLAIN_KEY` (or `OPENAI_API_KEY`) and `TDB_EXPLAIN_MODEL`.
    /// `None` without a model's name, or without key for the public service.
    pub fn from_env() -> Option<Self> {
        Self::from_env_and(None, None)
    }

    /// As [`Self::from_env`], where a model or an address that is given takes the place of the environment's.
    pub fn from_env_and(model: Option<String>, url: Option<String>) -> Option<Self> {
        let var = |names: [&str; 2]| names.iter().find_map(|n| std::env::var(n).ok().filter(|v| !v.is_empty()));
        let model = model.or_else(|| var(["TDB_EXPLAIN_MODEL", "OPENAI_MODEL"]))?;
        let url = url.or_else(|| var(["TDB_EXPLAIN_URL", "OPENAI_BASE_URL"]));
        let key = var(["TDB_EXPLAIN_KEY", "OPENAI_API_KEY"]);
        if url.is_none() && key.is_none() {
            return None;
        }
        Some(Self::new(url.unwrap_or_else(|| PUBLIC_URL.into()), key.unwrap_or_default(), model))
    }

    /// These three, and what is sensible for the rest.
    pub fn new(url: impl Into<String>, key: impl Into<String>, model: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            key: key.into(),
            model: model.into(),
            parallel: 8,
            timeout: Duration::from_secs(60),
            retries: 5,
            pause: Duration::from_secs(1),
            max_questions: 0,
            max_tokens: 0,
        }
    }
}

/// What was used so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spent {
    pub questions: u64,
    pub tokens: u64,
}

/// Asks one language model. Cheap to clone; clones share budget and limits.
#[derive(Debug, Clone)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: ClientConfig,
    http: reqwest::Client,
    slots: Semaphore,
    questions: AtomicU64,
    tokens: AtomicU64,
    dialect: Dialect,
}

/// One question.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub system: String,
    pub user: String,
    /// Tokens of the answer.
    pub max_tokens: u32,
    /// Ask for the probabilities of the alternatives of the first token.
    pub alternatives: bool,
    /// An answer that was cut off is of no use.
    pub whole: bool,
}

impl Client {
    /// A client with these settings.
    pub fn new(config: ClientConfig) -> Result<Self> {
        // It fails only if there is a provider already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .timeout(config.timeout)
            .connect_timeout(Duration::from_secs(10))
            // Questions hold examples: they go where the settings say, and nowhere else.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|e| Error::Model { url: config.url.clone(), reason: e.to_string() })?;
        Ok(Self(Arc::new(Inner {
            http,
            slots: Semaphore::new(config.parallel.max(1)),
            questions: AtomicU64::new(0),
            tokens: AtomicU64::new(0),
            dialect: Dialect::default(),
            config,
        })))
    }

    /// The model's name.
    pub fn model(&self) -> &str {
        &self.0.config.model
    }

    /// What was used so far.
    pub fn spent(&self) -> Spent {
        Spent { questions: self.0.questions.load(Ordering::Relaxed), tokens: self.0.tokens.load(Ordering::Relaxed) }
    }

    /// Asks; asks again where a failure may pass, or the server wants the question in another form.
    ///
    /// # Errors
    /// If there is no answer, or none that is whole where it must be.
    pub(crate) async fn ask(&self, question: &Question) -> Result<Reply> {
        let _slot = self.0.slots.acquire().await.map_err(|e| self.failed(e.to_string()))?;
        let mut failures = 0;
        loop {
            let refusal = match self.ask_once(question).await? {
                Ok(reply) if reply.is_cut && (question.whole || reply.text.is_empty()) => {
                    if self.0.dialect.give_room() {
                        continue;
                    }
                    return Err(Error::Answer(cut_off(&reply)));
                }
                Ok(reply) => return Ok(reply),
                Err(refusal) => refusal,
            };
            if self.0.dialect.learn(&refusal) {
                continue;
            }
            failures += 1;
            if !refusal.may_pass() || failures > self.0.config.retries {
                return Err(self.failed(refusal.message));
            }
            tracing::debug!(refusal.message, failures, "a question to the language model is asked again");
            let pause = self.0.config.pause * 2u32.pow((failures - 1).min(5));
            tokio::time::sleep(refusal.after.map_or(pause, |after| after.min(LONGEST_PAUSE))).await;
        }
    }

    async fn ask_once(&self, question: &Question) -> Result<Result<Reply, Refusal>> {
        self.check_budget()?;
        self.0.questions.fetch_add(1, Ordering::Relaxed);
        let config = &self.0.config;
        let url = format!("{}/chat/completions", config.url.trim_end_matches('/'));
        let request = self.0.dialect.request(&config.model, question);
        let value = match post(&self.0.http, &url, &config.key, &request).await {
            Ok(value) => value,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let reply = Reply::read(&value)?;
        let estimate = (question.system.len() + question.user.len() + reply.text.len()) as u64 / 3;
        self.0.tokens.fetch_add(reply.tokens.unwrap_or(estimate), Ordering::Relaxed);
        Ok(Ok(reply))
    }

    /// Gives later answers more room, because one that was asked for was cut off.
    pub(crate) fn give_room(&self) {
        self.0.dialect.give_room();
    }

    fn check_budget(&self) -> Result<()> {
        let (spent, config) = (self.spent(), &self.0.config);
        if config.max_questions > 0 && spent.questions >= config.max_questions {
            return Err(Error::Budget(format!("{} questions were asked", spent.questions)));
        }
        if config.max_tokens > 0 && spent.tokens >= config.max_tokens {
            return Err(Error::Budget(format!("{} of {} tokens were used", spent.tokens, config.max_tokens)));
        }
        Ok(())
    }

    fn failed(&self, reason: String) -> Error {
        let key = &self.0.config.key;
        // A server may repeat the key in its complaint.
        let reason = if key.is_empty() { reason } else { reason.replace(key.as_str(), "(the key)") };
        Error::Model { url: self.0.config.url.clone(), reason: reason.chars().take(400).collect() }
    }
}

fn cut_off(reply: &Reply) -> String {
    match reply.text.as_str() {
        "" => "it was cut off before the model had done with thinking".to_owned(),
        text => format!("it was cut off: {:?}", short(text)),
    }
}
