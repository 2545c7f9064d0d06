//! What a language model answered, and reading numbers out of it.

use serde::Deserialize;
use serde_json::Value;

use crate::{Error, Result};

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reply {
    pub text: String,
    /// Alternatives of the first token with their probabilities; empty if the server gives none.
    pub first: Vec<(String, f64)>,
    /// Tokens of question and answer, if the server counts them.
    pub tokens: Option<u64>,
}

impl Reply {
    /// Reads what is needed and no more: servers differ in the rest.
    pub fn read(value: &Value) -> Result<Self> {
        let message = &value["choices"][0]["message"];
        let Some(text) = message["content"].as_str() else {
            let refusal = message["refusal"].as_str().unwrap_or("it has no text");
            return Err(Error::Answer(refusal.chars().take(200).collect()));
        };
        let alternatives = value["choices"][0]["logprobs"]["content"][0]["top_logprobs"].as_array();
        let first = alternatives.into_iter().flatten().filter_map(|a| {
            let token = a["token"].as_str()?.trim().to_string();
            Some((token, a["logprob"].as_f64()?.exp()))
        });
        Ok(Self { text: text.trim().into(), first: first.collect(), tokens: value["usage"]["total_tokens"].as_u64() })
    }

    /// Whole numbers from 0 to `max` that the answer may have begun with, and their probabilities, which sum to 1.
    pub fn distribution(&self, max: u32) -> Result<Vec<(u32, f64)>> {
        let number = |t: &str| t.parse::<u32>().ok().filter(|n| *n <= max);
        let mut found: Vec<(u32, f64)> = Vec::new();
        for (n, p) in self.first.iter().filter_map(|(t, p)| Some((number(t)?, *p))) {
            match found.iter_mut().find(|f| f.0 == n) {
                Some(f) => f.1 += p,
                None => found.push((n, p)),
            }
        }
        let total: f64 = found.iter().map(|f| f.1).sum();
        if total > 0.0 {
            found.iter_mut().for_each(|f| f.1 /= total);
            found.sort_by_key(|f| f.0);
            return Ok(found);
        }
        let digits: String =
            self.text.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
        match number(&digits) {
            Some(n) => Ok(vec![(n, 1.0)]),
            None => Err(Error::Answer(format!("a number from 0 to {max} was expected, not {:?}", short(&self.text)))),
        }
    }

    /// The first JSON value of the answer that reads as `T`, whatever stands around it.
    pub fn json<T: for<'a> Deserialize<'a>>(&self) -> Result<T> {
        for (i, _) in self.text.char_indices().filter(|(_, c)| matches!(c, '{' | '[')) {
            let mut values = serde_json::Deserializer::from_str(&self.text[i..]).into_iter::<T>();
            if let Some(Ok(value)) = values.next() {
                return Ok(value);
            }
        }
        Err(Error::Answer(format!("JSON was expected, not {:?}", short(&self.text))))
    }
}

pub(crate) fn short(text: &str) -> String {
    text.chars().take(120).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn reply(text: &str, first: &[(&str, f64)]) -> Reply {
        Reply { text: text.into(), first: first.iter().map(|(t, p)| ((*t).into(), *p)).collect(), tokens: None }
    }

    #[test]
    fn distributions_come_from_alternatives_or_from_the_text() {
        let r = reply("7", &[("7", 0.5), ("x", 0.2), ("0", 0.25), ("77", 0.05)]);
        let d = r.distribution(10).unwrap();
        assert_eq!(d.iter().map(|d| d.0).collect::<Vec<_>>(), [0, 7]);
        assert!((d[1].1 - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(reply("about 4.", &[]).distribution(10).unwrap(), [(4, 1.0)]);
        assert!(reply("many", &[]).distribution(10).is_err());
    }

    #[test]
    fn json_is_found_in_prose() {
        let numbers: Vec<u32> = reply("Here it is:\n```json\n[1, 3]\n```", &[]).json().unwrap();
        assert_eq!(numbers, [1, 3]);
        assert!(reply("none", &[]).json::<Vec<u32>>().is_err());
    }

    #[test]
    fn answers_without_text_are_errors() {
        assert!(Reply::read(&json!({"choices": []})).is_err());
        let refused = json!({"choices": [{"message": {"content": null, "refusal": "no thanks"}}]});
        assert!(Reply::read(&refused).unwrap_err().to_string().contains("no thanks"));
        let full = json!({"choices": [{"message": {"content": " 3 "}, "logprobs": {"content": [
            {"token": "3", "logprob": 0.0, "top_logprobs": [{"token": " 3", "logprob": 0.0}]}]}}], "usage": {"total_tokens": 9}});
        assert_eq!(
            Reply::read(&full).unwrap(),
            Reply { text: "3".into(), first: vec![("3".into(), 1.0)], tokens: Some(9) }
        );
    }
}
