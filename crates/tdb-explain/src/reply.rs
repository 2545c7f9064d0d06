//! What a language model answered, and reading numbers out of it.

use serde::Deserialize;
use serde_json::Value;

use crate::{Error, Result};

/// An answer.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Reply {
    /// What stands after the thinking, if there is any.
    pub text: String,
    /// Alternatives of the text's first token with their probabilities; empty if the server gives none.
    pub first: Vec<(String, f64)>,
    /// Tokens of question and answer, if the server counts them.
    pub tokens: Option<u64>,
    /// It was ended by the limit of its length, or within its thinking.
    pub is_cut: bool,
}

/// What ends a model's thinking; the answer follows. Compared without case.
const ENDS_OF_THINKING: [&str; 10] = [
    "</think>",
    "</thinking>",
    "</thought>",
    "</reasoning>",
    "</reflection>",
    "</seed:think>",
    "[/think]",
    "◁/think▷",
    "<|end_of_thinking|>",
    "<|channel|>final<|message|>",
];

/// What begins it.
const BEGINNINGS_OF_THINKING: [&str; 9] = [
    "<think>",
    "<thinking>",
    "<thought>",
    "<reasoning>",
    "<reflection>",
    "<seed:think>",
    "[think]",
    "◁think▷",
    "<|channel|>analysis<|message|>",
];

/// What some servers leave of the end of a message.
const ENDS_OF_MESSAGE: [&str; 7] =
    ["<|im_end|>", "<|eot_id|>", "<|end|>", "<|return|>", "<|endoftext|>", "<end_of_turn>", "</s>"];

impl Reply {
    /// Reads what is needed and no more: servers differ in the rest.
    ///
    /// # Errors
    /// If there is no message, or the model or its server refuses to give one.
    pub fn read(value: &Value) -> Result<Self> {
        let choice = &value["choices"][0];
        let message = &choice["message"];
        let tokens = value["usage"]["total_tokens"].as_u64();
        let ended = choice["finish_reason"].as_str().unwrap_or_default().to_lowercase();
        if ended == "content_filter" {
            return Err(Error::Answer("the server's filter kept it back".into()));
        }
        if let Some(refusal) = message["refusal"].as_str().filter(|text| !text.is_empty()) {
            return Err(Error::Answer(refusal.chars().take(200).collect()));
        }
        let is_cut = matches!(ended.as_str(), "length" | "max_tokens" | "max_length");
        let Some(said) = content(&message["content"]) else {
            // The thinking came in a field of its own, and nothing after it.
            let thought = ["reasoning_content", "reasoning"].iter().any(|name| message[*name].is_string());
            return match thought || is_cut {
                true => Ok(Self { tokens, is_cut: true, ..Self::default() }),
                false => Err(Error::Answer("it has no text".into())),
            };
        };
        let Some(at) = after_thinking(&said) else { return Ok(Self { tokens, is_cut: true, ..Self::default() }) };
        let mut text = said[at..].trim();
        while let Some(shorter) = ENDS_OF_MESSAGE.iter().find_map(|end| text.strip_suffix(end)) {
            text = shorter.trim_end();
        }
        let first = alternatives(&choice["logprobs"]["content"], at)?;
        Ok(Self { text: text.into(), first, tokens, is_cut })
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

/// The text of a message: one, or several parts, of which those that are thinking do not count.
fn content(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => {
            let is_text = |part: &&Value| matches!(part["type"].as_str(), None | Some("text" | "output_text"));
            let texts = parts.iter().filter(is_text).filter_map(|part| part["text"].as_str().or_else(|| part.as_str()));
            let text: String = texts.collect();
            (!text.is_empty()).then_some(text)
        }
        _ => None,
    }
}

/// Where the answer begins behind the thinking; `None` if the thinking has no end.
fn after_thinking(text: &str) -> Option<usize> {
    // Changing the case of ASCII letters alone leaves the places of all others as they are.
    let lower = text.to_ascii_lowercase();
    let last = |marks: &[&str]| marks.iter().filter_map(|mark| Some(lower.rfind(mark)? + mark.len())).max();
    match (last(&ENDS_OF_THINKING), last(&BEGINNINGS_OF_THINKING)) {
        (end, Some(begin)) if end.is_none_or(|end| end < begin) => None,
        (end, _) => Some(end.unwrap_or(0)),
    }
}

/// The alternatives of the first token that says something behind the thinking, which takes the first `start` bytes.
///
/// # Errors
/// If what stands for the logarithm of a probability is none.
fn alternatives(tokens: &Value, start: usize) -> Result<Vec<(String, f64)>> {
    /// Servers round.
    const ABOVE_ZERO: f64 = 0.01;
    let mut at = 0;
    for token in tokens.as_array().into_iter().flatten() {
        let text = token["token"].as_str().unwrap_or_default();
        at += text.len();
        if at <= start || text.trim().is_empty() {
            continue;
        }
        let all = token["top_logprobs"].as_array().into_iter().flatten();
        let read = all.filter_map(|a| Some((a["token"].as_str()?.trim().to_owned(), a["logprob"].as_f64()?)));
        let probability = |(token, log): (String, f64)| match log <= ABOVE_ZERO {
            true => Ok((token, log.exp())),
            false => Err(Error::Answer(format!("the logarithm of a probability is {log}"))),
        };
        return read.map(probability).collect();
    }
    Ok(Vec::new())
}

pub(crate) fn short(text: &str) -> String {
    text.chars().take(120).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn reply(text: &str, first: &[(&str, f64)]) -> Reply {
        let first = first.iter().map(|(t, p)| ((*t).into(), *p)).collect();
        Reply { text: text.into(), first, ..Reply::default() }
    }

    fn read(content: Value, finish_reason: &str) -> Result<Reply> {
        Reply::read(&json!({"choices": [{"message": {"content": content}, "finish_reason": finish_reason}]}))
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
        assert!(read(json!("x"), "content_filter").is_err());
        let full = json!({"choices": [{"message": {"content": " 3 "}, "logprobs": {"content": [
            {"token": "3", "logprob": 0.0, "top_logprobs": [{"token": " 3", "logprob": 0.0}]}]}}], "usage": {"total_tokens": 9}});
        let expected = Reply { text: "3".into(), first: vec![("3".into(), 1.0)], tokens: Some(9), is_cut: false };
        assert_eq!(Reply::read(&full).unwrap(), expected);
    }

    #[test]
    fn what_stands_after_the_thinking_is_the_answer() {
        for said in [
            "[2, 5]",
            "<think>1 or [3]?</think>[2, 5]",
            "Is it [1]?\n</think>\n\n[2, 5]",
            "[THINK][1][/THINK][2, 5]",
            "<Thinking>[1]</Thinking>\n[2, 5]<|im_end|>",
            "<|channel|>analysis<|message|>[1]<|end|><|start|>assistant<|channel|>final<|message|>[2, 5]<|return|>",
        ] {
            let reply = read(json!(said), "stop").unwrap();
            assert_eq!((reply.text.as_str(), reply.is_cut), ("[2, 5]", false), "{said}");
            assert_eq!(reply.json::<Vec<u32>>().unwrap(), [2, 5]);
        }
        let parts = json!([{"type": "thinking", "thinking": [{"type": "text", "text": "[1]"}]}, {"type": "text", "text": "[2, 5]"}]);
        assert_eq!(read(parts, "stop").unwrap().text, "[2, 5]");
        for unfinished in ["<think>Is it [1]?", "[THINK] [1]"] {
            let reply = read(json!(unfinished), "length").unwrap();
            assert!(reply.is_cut && reply.text.is_empty(), "{unfinished}");
        }
        let elsewhere = json!({"choices": [{"message": {"content": null, "reasoning_content": "is it"}, "finish_reason": "length"}]});
        assert!(Reply::read(&elsewhere).unwrap().is_cut);
    }

    #[test]
    fn alternatives_are_those_of_the_answers_first_token() {
        let token = |text: &str| json!({"token": text, "top_logprobs": [{"token": text, "logprob": 0.0}]});
        let tokens = ["<think>", "3", "</think>", "\n", "7", "."].map(token);
        let value = json!({"choices": [{
            "message": {"content": "<think>3</think>\n7."}, "logprobs": {"content": tokens}, "finish_reason": "stop"}]});
        assert_eq!(Reply::read(&value).unwrap().first, [("7".to_owned(), 1.0)]);
        let mut no_logarithm = value;
        no_logarithm["choices"][0]["logprobs"]["content"][4]["top_logprobs"][0]["logprob"] = json!(800);
        assert!(Reply::read(&no_logarithm).unwrap_err().to_string().contains("is 800"));
    }
}
