//! A rule in words.

use super::features::{Family, Items};
use super::rule::Rule;

/// Active where the rule says; `None` if there is no rule.
pub fn of_tokens(rule: &Rule, items: &Items, examples: &[String]) -> String {
    let mut out = format!("Active {}", place(rule, items));
    if let Some(condition) = &rule.condition {
        out += &format!(", most {}", place(condition, items));
    }
    if matches!(
        rule.family,
        Family::Class | Family::PreviousClass | Family::Position | Family::Repeated | Family::Continued
    ) && !examples.is_empty()
    {
        out += &format!(", for example {}", list(examples.iter().map(|e| quoted(e)).collect(), "and"));
    }
    out
}

/// Attends where the rule says.
pub fn of_pairs(rule: &Rule, items: &Items) -> String {
    let mut out = format!("Attends {}", place(rule, items));
    if let Some(condition) = &rule.condition {
        out += &format!(", most {}", place(condition, items));
    }
    out
}

fn place(rule: &Rule, items: &Items) -> String {
    let name = |i: &(u32, f64)| match items.name(i.0) {
        "nothing" => "the beginning of the text".to_owned(),
        name => name.to_owned(),
    };
    let plain = || list(rule.items.iter().map(name).collect(), "and");
    let tokens = || list(rule.items.iter().map(|i| quoted(items.name(i.0))).collect(), "and");
    let either = || list(rule.items.iter().map(|i| quoted(items.name(i.0))).collect(), "or");
    let says = |answer: &str| rule.items.first().is_some_and(|i| items.name(i.0) == answer);
    match rule.family {
        Family::Token => format!("on {}", tokens()),
        Family::Class => format!("on {}", plain()),
        Family::Previous if says("") => "at the beginning of the text".to_owned(),
        Family::Previous => format!("on the token after {}", either()),
        Family::PreviousClass if says("nothing") => "at the beginning of the text".to_owned(),
        Family::PreviousClass => format!("after {}", plain()),
        Family::Bigram => format!("at the end of {}", either()),
        Family::Position => format!("on {}", plain()),
        Family::Repeated if says("yes") => "on tokens that occurred before in the text".to_owned(),
        Family::Repeated => "on tokens that are new in the text".to_owned(),
        Family::Continued if says("yes") => {
            "on tokens that continue a sequence of tokens as it went on before".to_owned()
        }
        Family::Continued => "on tokens that do not repeat what went before".to_owned(),
        Family::Relation => format!("to {}", list(rule.items.iter().map(name).collect(), "or")),
        Family::To => format!("to {}", tokens()),
        Family::ToClass => format!("to {}", plain()),
        Family::From => format!("from {}", tokens()),
        Family::FromClass => format!("from {}", plain()),
    }
}

/// A token as it can stand in a sentence.
pub fn quoted(token: &str) -> String {
    if token.is_empty() {
        return "the beginning of the text".to_owned();
    }
    format!("“{}”", token.replace('\n', "⏎").replace('\t', "⇥"))
}

/// `a, b and c`
pub fn list(mut words: Vec<String>, last: &str) -> String {
    let end = words.pop().unwrap_or_default();
    if words.is_empty() { end } else { format!("{} {last} {end}", words.join(", ")) }
}
