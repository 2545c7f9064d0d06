//! Asking a language model: one message after the other, within a budget.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_openai::{config::OpenAIConfig, error::OpenAIError};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::{Error, Result, reply::Reply};

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
    client: async_openai::Client<OpenAIConfig>,
    slots: Semaphore,
    questions: AtomicU64,
    tokens: AtomicU64,
    /// The server wants the newer name for the limit of an answer's length.
    new_limit_name: AtomicBool,
    /// The server takes no temperature.
    no_temperature: AtomicBool,
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
}

impl Client {
    /// A client with these settings.
    pub fn new(config: ClientConfig) -> Result<Self> {
        // It fails only if there is a provider already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .timeout(config.timeout)
            .connect_timeout(Duration::from_secs(10))
            .build()
            .map_err(|e| Error::Model { url: config.url.clone(), reason: e.to_string() })?;
        let access = OpenAIConfig::new().with_api_base(config.url.trim_end_matches('/')).with_api_key(&config.key);
        Ok(Self(Arc::new(Inner {
            client: async_openai::Client::with_config(access).with_http_client(http),
            slots: Semaphore::new(config.parallel.max(1)),
            questions: AtomicU64::new(0),
            tokens: AtomicU64::new(0),
            new_limit_name: AtomicBool::new(false),
            no_temperature: AtomicBool::new(false),
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

    pub(crate) async fn ask(&self, question: &Question) -> Result<Reply> {
        let _slot = self.0.slots.acquire().await.map_err(|e| self.failed(&e))?;
        let mut failures = 0;
        loop {
            self.check_budget()?;
            self.0.questions.fetch_add(1, Ordering::Relaxed);
            let answer: Result<Value, OpenAIError> = self.0.client.chat().create_byot(self.request(question)).await;
            let error = match answer {
                Ok(value) => {
                    let reply = Reply::read(&value)?;
                    let estimate = (question.system.len() + question.user.len() + reply.text.len()) as u64 / 3;
                    self.0.tokens.fetch_add(reply.tokens.unwrap_or(estimate), Ordering::Relaxed);
                    return Ok(reply);
                }
                Err(error) => error,
            };
            if self.adapt(&error) {
                continue;
            }
            failures += 1;
            if !may_pass(&error) || failures > self.0.config.retries {
                return Err(self.failed(&error));
            }
            tracing::debug!(%error, failures, "a question to the language model is asked again");
            tokio::time::sleep(self.0.config.pause * 2u32.pow((failures - 1).min(5))).await;
        }
    }

    fn request(&self, question: &Question) -> Value {
        let mut request = json!({
            "model": self.0.config.model,
            "messages": [
                {"role": "system", "content": question.system},
                {"role": "user", "content": question.user},
            ],
            "stream": false,
        });
        let limit = if self.0.new_limit_name.load(Ordering::Relaxed) { "max_completion_tokens" } else { "max_tokens" };
        request[limit] = question.max_tokens.into();
        if !self.0.no_temperature.load(Ordering::Relaxed) {
            request["temperature"] = 0.into();
        }
        if question.alternatives {
            request["logprobs"] = true.into();
            request["top_logprobs"] = 15.into();
        }
        request
    }

    /// Servers differ in two parameters, and say so when they get the wrong one. True if asking again makes sense.
    fn adapt(&self, error: &OpenAIError) -> bool {
        let OpenAIError::ApiError(e) = error else { return false };
        if e.status_code != 400 {
            return false;
        }
        let text = &e.api_error.message;
        let about = |word: &str| text.contains(word) || e.api_error.param.as_deref() == Some(word);
        (about("max_completion_tokens") && !self.0.new_limit_name.swap(true, Ordering::Relaxed))
            || (about("temperature") && !self.0.no_temperature.swap(true, Ordering::Relaxed))
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

    fn failed(&self, error: &dyn std::error::Error) -> Error {
        let mut reason = error.to_string();
        let mut next = error.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            if !reason.contains(&text) {
                reason = format!("{reason}: {text}");
            }
            next = cause.source();
        }
        // A server may repeat the key in its complaint.
        if !self.0.config.key.is_empty() {
            reason = reason.replace(&self.0.config.key, "(the key)");
        }
        Error::Model { url: self.0.config.url.clone(), reason: reason.chars().take(400).collect() }
    }
}

fn may_pass(error: &OpenAIError) -> bool {
    match error {
        OpenAIError::ApiError(e) => {
            let quota = e.api_error.code.as_deref() == Some("insufficient_quota");
            !quota && (matches!(e.status_code.as_u16(), 408 | 409 | 429) || e.status_code.is_server_error())
        }
        OpenAIError::Reqwest(_) | OpenAIError::JSONDeserialize(..) => true,
        _ => false,
    }
}
