//! The phrase in an answer, without what models like to put around it.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use crate::{Error, Result, reply::short};

/// Characters of a phrase; what is longer is no phrase.
const LONGEST: usize = 600;

/// Bytes of an answer in which a phrase is looked for.
const MOST_BYTES: usize = 64 << 10;

/// Patterns are in order of use; all of them are looked for at the beginning of a line.
struct Patterns {
    /// What a list, a quotation or a heading begins with.
    mark: Regex,
    /// A word before the answer itself: `Sure!`, `Okay,`.
    interjection: Regex,
    /// What the phrase is called: `Explanation:`.
    label: Regex,
    /// The beginning of the sentence that the phrase completes: `This unit responds to`.
    sentence: Regex,
    /// A line that only announces what follows.
    announcement: Regex,
    refusal: Regex,
}

static PATTERNS: LazyLock<Result<Patterns, regex::Error>> = LazyLock::new(|| {
    let names = "explanation|answer|final answer|final phrase|phrase|summary|property|result|response|output|conclusion|rule|description|pattern";
    let who = "unit|neuron|latent|feature|head|attention head|node|component|model|it";
    let does = "respond|activate|fire|react|attend|trigger";
    let started = "sure|okay|ok|certainly|of course|absolutely|great|got it|understood|alright|well|hmm|so";
    let announces = [
        &format!(r"(?:{started})\s*[!,.:]"),
        r"here(?: (?:is|are)|'s)\b",
        r"(?:let(?:'s| me)|looking at|based on|the marked tokens|to (?:determine|find|answer))\b",
        r"after (?:analy|look|examin|review)",
        r"i(?:'ll|'ve| will| need to| have to| think| see| can see| notice)\b",
    ]
    .join("|");
    Ok(Patterns {
        mark: Regex::new(r"^(?:[-*•–+>]|#{1,6}|\(?\d{1,2}[.)])\s+")?,
        interjection: Regex::new(&format!(r"(?i)^(?:{started})\s*[!,.:]\s*"))?,
        label: Regex::new(&format!(
            r"(?i)^(?:the |my )?(?:single |short |concise |most likely )*(?:{names})(?: is)?\s*(?::|$)\s*"
        ))?,
        sentence: Regex::new(&format!(
            r"(?i)^(?:(?:[^.:;]{{0,80}},\s*)?(?:the|this|that|an|a)?\s*(?:{who})(?: \S+){{0,3}}? |(?:{does})s? |)(?:(?:seems|appears|tends|likely|mainly|mostly|strongly|primarily|most|is likely)\s+(?:to\s+)?)*(?:{does})(?:s|es|ing)?(?: \w+ly| most| best| strongest)*\s+(?:to|on|for|at|when|in response to|whenever|where)\b\s*:?\s*"
        ))?,
        announcement: Regex::new(&format!(r"(?i)^(?:{announces})"))?,
        refusal: Regex::new(
            r"(?i)^(?:i(?:'m| am) (?:sorry|unable|not able)|sorry\b|i apologi[sz]e|i can(?:no|')t\b|i can not\b|as an ai\b|unfortunately\b)",
        )?,
    })
});

/// The single phrase that was asked for.
///
/// # Errors
/// If there is none: the answer is empty, a refusal, or much longer than a phrase.
pub(crate) fn phrase(answer: &str) -> Result<String> {
    if answer.len() > MOST_BYTES {
        return Err(Error::Answer(format!("it is no phrase but {} bytes", answer.len())));
    }
    let patterns = PATTERNS.as_ref().map_err(|error| Error::Answer(format!("the patterns are wrong: {error}")))?;
    let found = match of_json(answer) {
        Some(text) => patterns.tidy(&text),
        None => patterns.of_lines(answer),
    };
    let what = match found.as_str() {
        "" if answer.trim().is_empty() => "it is empty".to_owned(),
        "" => format!("there is no phrase in {:?}", short(answer)),
        text if patterns.refusal.is_match(text) => format!("it is a refusal: {:?}", short(text)),
        text if text.chars().count() > LONGEST => format!("it is no phrase but {} characters", text.chars().count()),
        _ => return Ok(found),
    };
    Err(Error::Answer(what))
}

impl Patterns {
    /// The first line that is neither a heading nor an announcement of what follows. Where a line after the thoughts says
    /// that it is the answer, it is that one.
    fn of_lines(&self, answer: &str) -> String {
        let lines: Vec<&str> = answer.lines().map(str::trim).filter(|l| !l.is_empty() && !is_ornament(l)).collect();
        let is_final = |line: &&str| unwrapped(line).to_ascii_lowercase().starts_with("final ");
        let first = lines.iter().rposition(is_final).unwrap_or(0);
        let lines = &lines[first..];
        for (i, line) in lines.iter().enumerate() {
            let is_last = i + 1 == lines.len();
            let text = self.tidy(line);
            let passes = text.is_empty() || (!is_last && self.only_announces(line));
            if !passes {
                return text;
            }
        }
        String::new()
    }

    /// Whether a line says nothing but what follows it.
    fn only_announces(&self, line: &str) -> bool {
        let plain = unwrapped(line);
        let completes = self.sentence.is_match(text_after(&self.label, plain));
        line.starts_with('#')
            || plain.ends_with(':')
            || plain.ends_with(":**")
            || (!completes && self.announcement.is_match(plain))
    }

    /// A line without what surrounds the phrase.
    fn tidy(&self, line: &str) -> String {
        let mut text = line.trim();
        loop {
            let before = text.len();
            text = unwrapped(text);
            for pattern in [&self.mark, &self.interjection, &self.label, &self.sentence] {
                text = text_after(pattern, text);
            }
            text = text.trim_start_matches(['…', ':', ' ']).strip_prefix("...").unwrap_or(text).trim();
            if text.len() == before {
                return text.trim_end_matches(['.', ' ']).to_owned();
            }
        }
    }
}

fn text_after<'a>(pattern: &Regex, text: &'a str) -> &'a str {
    pattern.find(text).map_or(text, |found| &text[found.end()..])
}

/// Lines of Markdown that say nothing.
fn is_ornament(line: &str) -> bool {
    line.starts_with("```") || line.chars().all(|c| matches!(c, '-' | '*' | '_' | '=' | ' '))
}

/// A text without the quotes, emphasis and tags around all of it.
fn unwrapped(text: &str) -> &str {
    const AROUND: [(&str, &str); 14] = [
        ("**", "**"),
        ("__", "__"),
        ("*", "*"),
        ("`", "`"),
        ("\"", "\""),
        ("'", "'"),
        ("“", "”"),
        ("‘", "’"),
        ("«", "»"),
        ("\\boxed{", "}"),
        ("\\text{", "}"),
        ("$", "$"),
        ("(", ")"),
        ("…", ""),
    ];
    let mut text = text.trim();
    loop {
        let before = text.len();
        text = without_tag(text);
        for (begin, end) in AROUND {
            // What ends the sentence may stand behind the quotes.
            let dotless = text.strip_suffix('.').filter(|t| !end.is_empty() && t.ends_with(end)).unwrap_or(text);
            if let Some(inner) =
                dotless.strip_prefix(begin).and_then(|t| t.strip_suffix(end)).filter(|t| !t.contains(begin))
            {
                text = inner.trim();
            }
        }
        // Emphasis of a label that opens a line: `**Explanation:** …`.
        if let Some((label, rest)) = text.strip_prefix("**").and_then(|t| t.split_once("**"))
            && label.len() < 40
            && (label.ends_with(':') || rest.starts_with(':'))
        {
            text = rest.trim_start_matches([':', ' ']);
        }
        if text.len() == before {
            return text;
        }
    }
}

/// `<answer>…</answer>`, with any one word.
fn without_tag(text: &str) -> &str {
    let Some((tag, rest)) = text.strip_prefix('<').and_then(|t| t.split_once('>')) else { return text };
    let is_word = !tag.is_empty() && tag.chars().all(|c| c.is_ascii_alphabetic() || c == '_');
    let inner = rest.trim_end().strip_suffix('>').and_then(|t| t.strip_suffix(tag)).and_then(|t| t.strip_suffix("</"));
    inner.filter(|_| is_word).map_or(text, str::trim)
}

/// The phrase of an answer that is JSON, alone or in a fence: a text, or the one that an object or a list holds.
fn of_json(answer: &str) -> Option<String> {
    let inner = match answer.split_once("```") {
        Some((_, rest)) => rest.split_once('\n')?.1.split("```").next()?,
        None => answer,
    };
    text_in(&serde_json::from_str(inner.trim()).ok()?)
}

fn text_in(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(items) => items.iter().find_map(text_in),
        Value::Object(object) => {
            let known =
                ["explanation", "phrase", "answer", "final_answer", "response", "description", "text", "output"];
            let key = known.iter().find(|key| object.contains_key(**key));
            key.map_or_else(|| object.values().find_map(text_in), |key| text_in(&object[*key]))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_stripped_to_the_phrase() {
        for answer in [
            "mentions of cats",
            "\"mentions of cats.\"",
            "“mentions of cats”.",
            "The unit responds to mentions of cats.",
            "\n  The unit responds to: mentions of cats\nBecause …",
            "… mentions of cats",
            "... mentions of cats",
            "responds to mentions of cats",
            "This neuron activates on mentions of cats.",
            "It fires strongly on mentions of cats",
            "Based on the excerpts, the unit responds to mentions of cats.",
            "This unit seems to respond primarily to mentions of cats.",
            "Sure! Here's the phrase:\n\n**mentions of cats**",
            "Sure! The unit responds to mentions of cats.",
            "Okay, here it is: \nmentions of cats",
            "Here is a short phrase that completes the sentence:\n\n> mentions of cats\n\nI hope this helps!",
            "### Explanation\n\nmentions of cats",
            "## Answer\n**The unit responds to:** mentions of cats",
            "**Explanation:** mentions of cats",
            "**Explanation**\n\nmentions of cats",
            "Explanation: mentions of cats",
            "The phrase is: \"mentions of cats\"",
            "Answer:\nmentions of cats",
            "- mentions of cats",
            "* **mentions of cats**",
            "1. mentions of cats\n2. mentions of dogs",
            "```\nmentions of cats\n```",
            "```text\nmentions of cats\n```",
            "```json\n{\"explanation\": \"mentions of cats\"}\n```",
            "{\"phrase\": \"mentions of cats.\", \"confidence\": 0.9}",
            "[\"mentions of cats\"]",
            "<answer>mentions of cats</answer>",
            "$\\boxed{\\text{mentions of cats}}$",
            "---\nmentions of cats",
            "Let me look at the excerpts.\nThe marked tokens are all cats.\n\nFinal answer: mentions of cats",
            "Looking at the excerpts, the marked tokens are cats.\n\nmentions of cats",
            "mentions of cats\n\nExplanation: all the marked tokens are cats.",
        ] {
            assert_eq!(phrase(answer).unwrap(), "mentions of cats", "{answer:?}");
        }
    }

    #[test]
    fn phrases_stay_as_they_are() {
        for text in [
            "words in \"quotes\" and (brackets)",
            "the word \"it\"",
            "tokens that begin a line: names, dates",
            "numbers such as 1. and 2.5",
            "the start of an answer",
            "I and we",
            "responses to a question",
            "`code` in `backticks`",
            "(what is read) from (what reads it)",
            "so-called words",
            "first names",
        ] {
            assert_eq!(phrase(text).unwrap(), text);
        }
    }

    #[test]
    fn what_is_no_phrase_is_said() {
        for (answer, reason) in [
            ("  \n", "it is empty"),
            ("```\n```", "there is no phrase"),
            ("I'm sorry, but I cannot help with that.", "it is a refusal"),
            (&"very ".repeat(200), "it is no phrase but"),
            (&format!("{}cats", "> ".repeat(500_000)), "it is no phrase but 1000004 bytes"),
        ] {
            let error = phrase(answer).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
