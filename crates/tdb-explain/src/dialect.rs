//! What a server takes of the chat protocol. Servers differ in some parameters and say so when they get a wrong one: it
//! is changed once, and remembered.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use serde_json::{Value, json};

use crate::{client::Question, transport::Refusal};

/// Tokens that a model which thinks before it answers gets for that.
const ROOM_TO_THINK: u32 = 4000;

/// Alternatives of a token that are asked for; some servers give at most [`FEW`].
const MANY: u32 = 15;
const FEW: u32 = 5;

/// What was learnt of a server.
#[derive(Debug, Default)]
pub(crate) struct Dialect {
    /// It wants `max_completion_tokens` for the limit of an answer's length.
    new_limit_name: AtomicBool,
    no_temperature: AtomicBool,
    no_stream: AtomicBool,
    /// It takes no message of the role `system`.
    no_system: AtomicBool,
    few_alternatives: AtomicBool,
    no_alternatives: AtomicBool,
    /// Tokens that are added to an answer's limit, because the model thinks first.
    room: AtomicU32,
}

impl Dialect {
    /// The question as this server takes it.
    pub fn request(&self, model: &str, question: &Question) -> Value {
        let message = |role: &str, content: &str| json!({"role": role, "content": content});
        let messages = match self.no_system.load(Relaxed) {
            false => json!([message("system", &question.system), message("user", &question.user)]),
            true => json!([message("user", &format!("{}\n\n{}", question.system, question.user))]),
        };
        let mut request = json!({"model": model, "messages": messages});
        let limit = if self.new_limit_name.load(Relaxed) { "max_completion_tokens" } else { "max_tokens" };
        request[limit] = (question.max_tokens + self.room.load(Relaxed)).into();
        if !self.no_stream.load(Relaxed) {
            request["stream"] = false.into();
        }
        if !self.no_temperature.load(Relaxed) {
            request["temperature"] = 0.into();
        }
        if question.alternatives && !self.no_alternatives.load(Relaxed) {
            request["logprobs"] = true.into();
            request["top_logprobs"] = if self.few_alternatives.load(Relaxed) { FEW } else { MANY }.into();
        }
        request
    }

    /// Changes what a refusal is about. True if asking again makes sense: each change is made once.
    pub fn learn(&self, refusal: &Refusal) -> bool {
        if !matches!(refusal.status, 400 | 404 | 405 | 422 | 501) {
            return false;
        }
        let about = |word: &str| refusal.message.contains(word) || refusal.parameter.as_deref() == Some(word);
        let now = |flag: &AtomicBool| !flag.swap(true, Relaxed);
        if about("max_completion_tokens") {
            return now(&self.new_limit_name);
        }
        if about("top_logprobs") || about("logprobs") || about("log probabilities") || about("logprob") {
            return (about("top_logprobs") && now(&self.few_alternatives)) || now(&self.no_alternatives);
        }
        if about("temperature") {
            return now(&self.no_temperature);
        }
        let lower = refusal.message.to_lowercase();
        if lower.contains("system role") || lower.contains("role system") || lower.contains("role 'system'") {
            return now(&self.no_system);
        }
        about("stream") && now(&self.no_stream)
    }

    /// Gives later answers room for thinking. False if they have it.
    pub fn give_room(&self) -> bool {
        self.room.swap(ROOM_TO_THINK, Relaxed) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, message: &str) -> Refusal {
        Refusal { status, message: message.to_owned(), ..Refusal::default() }
    }

    fn question() -> Question {
        Question { system: "s".into(), user: "u".into(), max_tokens: 2, alternatives: true, whole: false }
    }

    #[test]
    fn what_a_server_refuses_is_left_out_from_then_on() {
        let dialect = Dialect::default();
        let request = dialect.request("m", &question());
        assert_eq!(
            (&request["max_tokens"], &request["top_logprobs"], &request["temperature"]),
            (&json!(2), &json!(15), &json!(0))
        );
        for (message, again) in [
            ("top_logprobs must be at most 5", true),
            ("top_logprobs is not supported", true),
            ("logprobs are not supported", false),
            ("Unsupported value: 'temperature' does not support 0", true),
            ("System role not supported", true),
            ("Use 'max_completion_tokens' instead.", true),
            ("Use 'max_completion_tokens' instead.", false),
            ("the model is not loaded", false),
        ] {
            assert_eq!(dialect.learn(&refusal(400, message)), again, "{message}");
        }
        assert!(!dialect.learn(&refusal(401, "stream")));
        let request = dialect.request("m", &question());
        assert_eq!(request["max_completion_tokens"], 2);
        assert_eq!(request["messages"], json!([{"role": "user", "content": "s\n\nu"}]));
        for gone in ["max_tokens", "temperature", "logprobs", "top_logprobs"] {
            assert!(request.get(gone).is_none(), "{request}");
        }
    }

    #[test]
    fn alternatives_are_first_made_fewer() {
        let dialect = Dialect::default();
        assert!(dialect.learn(&refusal(422, "top_logprobs: less than or equal to 5")));
        assert_eq!(dialect.request("m", &question())["top_logprobs"], 5);
    }
}
