//! Every word that a language model is given. Change one, and [`VERSION`] changes with it: stored results carry it.

use tdb_data::ActivationRecord;

use crate::{
    client::Question,
    examples::{LEVELS, Pair, excerpt, levels, window},
};

/// Names the prompts of this file in stored results.
pub const VERSION: &str = "tdb-1";

/// What does the unit respond to? Tokens with a response are marked in the text with its strength.
pub(crate) fn explain_tokens(examples: &[&ActivationRecord], max: f32) -> Question {
    let system = format!(
        "A unit inside a language model reads text token by token and responds to some tokens. You are given excerpts \
         in which every token that it responds to is written as {{{{token|strength}}}}, with a strength from 1 (weak) to \
         {LEVELS} (its strongest). All other tokens leave it silent.\n\
         Find the one property of the marked tokens, or of the text leading up to them, that explains where the unit \
         responds and where it stays silent. Give it as a single short phrase that completes \"The unit responds to …\". \
         Describe the property instead of listing tokens, and mention neither strengths nor marks. Answer with the \
         phrase alone."
    );
    let mut user = String::new();
    for (i, example) in examples.iter().enumerate() {
        let (begin, end) = excerpt(example);
        let strengths = levels(&example.activations, max);
        user.push_str(&format!("Excerpt {}:\n", i + 1));
        for (token, strength) in example.tokens[begin..end].iter().zip(&strengths[begin..end]) {
            match strength {
                0 => user.push_str(token),
                s => user.push_str(&format!("{{{{{token}|{s}}}}}")),
            }
        }
        user.push_str("\n\n");
    }
    user.push_str("The unit responds to");
    Question { system, user, max_tokens: 80, alternatives: false, whole: true }
}

/// What links the two tokens of the pairs that a head attends along?
pub(crate) fn explain_pairs(pairs: &[Pair<'_>]) -> Question {
    let system =
        "An attention head inside a language model moves information from an earlier token to a later one (or \
         leaves it at the same token). You are given excerpts, each with one pair of tokens along which the head is \
         strongly active: the earlier token, which is read, stands in «» and the later token, which reads it, in ‹›. \
         If both are the same token, it stands in «‹›».\n\
         Find the rule that links the two: which kind of token is read, and from which kind of token. Give it as a \
         single short phrase that completes \"The head attends to …\", in the form \"(what is read) from (what reads \
         it)\". Be general instead of listing tokens, and do not mention the marks. Answer with the phrase alone."
            .to_string();
    let mut user = String::new();
    for (i, pair) in pairs.iter().enumerate() {
        user.push_str(&format!("Excerpt {}:\n{}\n\n", i + 1, mark(pair)));
    }
    user.push_str("The head attends to");
    Question { system, user, max_tokens: 80, alternatives: false, whole: true }
}

/// How strongly does the unit respond to each token? All tokens in one question.
pub(crate) fn simulate_all(explanation: &str, tokens: &[String]) -> Question {
    let system = format!(
        "A unit inside a language model responds to some tokens of a text, with a strength from 1 (weak) to {LEVELS} (its \
         strongest), and stays silent at most others. You are told what it responds to, and given a text as a numbered \
         list of tokens, each in JSON quotes. The unit sees a token and what stands before it, nothing after it.\n\
         Predict its responses. Answer with one JSON object that maps the numbers of the tokens at which it responds \
         to the strengths, such as {{\"3\": 10, \"7\": 2}}; leave out all tokens at which it is silent. If it stays \
         silent throughout, answer {{}}."
    );
    let mut user = format!("The unit responds to: {}\n\nTokens:\n", explanation.trim());
    for (i, token) in tokens.iter().enumerate() {
        user.push_str(&format!("{i} {}\n", quoted(token)));
    }
    Question { system, user, max_tokens: 16 + 8 * tokens.len() as u32, alternatives: false, whole: false }
}

/// How strongly does the unit respond to the last token?
pub(crate) fn simulate_one(explanation: &str, tokens: &[String], at: usize) -> Question {
    let system = format!(
        "A unit inside a language model responds to some tokens of a text, with a strength from 1 (weak) to {LEVELS} (its \
         strongest), and stays silent (0) at most others. You are told what it responds to, and given a text up to one \
         token. Predict its response to that last token. Answer with one whole number from 0 to {LEVELS} and nothing else."
    );
    let (begin, _) = window(at + 1, at);
    let user = format!(
        "The unit responds to: {}\n\nText: {}\nLast token: {}\nResponse:",
        explanation.trim(),
        tokens[begin..=at].concat(),
        quoted(&tokens[at])
    );
    Question { system, user, max_tokens: 2, alternatives: true, whole: false }
}

/// Does the head attend strongly along this pair?
pub(crate) fn simulate_pair(explanation: &str, pair: &Pair<'_>) -> Question {
    let system = "An attention head inside a language model moves information from an earlier token to a later one (or \
         leaves it at the same token). You are told what it attends to, and given a text with one pair of tokens: the \
         earlier token, which would be read, stands in «» and the later token, which would read it, in ‹›; if both are \
         the same token, it stands in «‹›». Is the head strongly active along this pair? Answer with 1 for yes or 0 for \
         no and nothing else."
        .to_string();
    let user = format!("The head attends to: {}\n\nText: {}\nAnswer:", explanation.trim(), mark(pair));
    Question { system, user, max_tokens: 2, alternatives: true, whole: false }
}

/// Which of these texts make the unit respond?
pub(crate) fn detect(explanation: &str, texts: &[String]) -> Question {
    let system = "A unit inside a language model responds to a certain property of text. You are told which, and given \
         numbered texts. Some of them make the unit respond somewhere, some nowhere; there may be any number of either. \
         Answer with a JSON list of the numbers of the texts that make it respond, such as [2, 5], and nothing else."
        .to_string();
    let mut user = format!("The unit responds to: {}\n\n", explanation.trim());
    for (i, text) in texts.iter().enumerate() {
        user.push_str(&format!("Text {}: {}\n\n", i + 1, text.trim()));
    }
    Question { system, user, max_tokens: 16 + 4 * texts.len() as u32, alternatives: false, whole: false }
}

/// The text around a pair with both of its tokens marked.
fn mark(pair: &Pair<'_>) -> String {
    let (begin, end) = window(pair.tokens.len(), pair.from);
    // The token that is read may lie further back than a window reaches.
    let (begin, gap) = if pair.to < begin { (begin, true) } else { (begin, false) };
    let piece = |i: usize| match (i == pair.to, i == pair.from) {
        (true, true) => format!("«‹{}›»", pair.tokens[i]),
        (true, false) => format!("«{}»", pair.tokens[i]),
        (false, true) => format!("‹{}›", pair.tokens[i]),
        _ => pair.tokens[i].clone(),
    };
    let shown: String = (begin..end).map(piece).collect();
    if gap {
        let (first, last) = (pair.to.saturating_sub(8), (pair.to + 8).min(begin));
        format!("{} […] {shown}", (first..last).map(piece).collect::<String>())
    } else {
        shown
    }
}

fn quoted(token: &str) -> String {
    serde_json::Value::from(token).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(n: usize) -> Vec<String> {
        (0..n).map(|i| format!(" t{i}")).collect()
    }

    #[test]
    fn responses_are_marked_and_silence_is_not() {
        let example = ActivationRecord { tokens: tokens(3), activations: vec![0.0, 4.0, -1.0] };
        let q = explain_tokens(&[&example], 8.0);
        assert!(q.user.contains("Excerpt 1:\n t0{{ t1|5}} t2\n"), "{}", q.user);
        assert!(q.system.contains("{{token|strength}}"), "{}", q.system);
    }

    #[test]
    fn both_tokens_of_a_pair_are_always_shown() {
        let tokens = tokens(300);
        for (from, to) in [(0, 0), (5, 2), (299, 0), (299, 299), (150, 90), (200, 10)] {
            let text = mark(&Pair { tokens: &tokens, from, to, value: 1.0 });
            let marked = if from == to { format!("«‹ t{to}›»") } else { format!("« t{to}»") };
            assert!(text.contains(&marked) && text.contains(&format!("‹ t{from}›")), "{from} {to}: {text}");
        }
    }

    #[test]
    fn a_simulator_sees_nothing_after_its_token() {
        let q = simulate_one("x", &tokens(5), 2);
        assert!(q.user.contains(" t0 t1 t2\n") && !q.user.contains("t3"), "{}", q.user);
        let all = simulate_all("x", &["\n".into(), "\"".into()]);
        assert!(all.user.ends_with("0 \"\\n\"\n1 \"\\\"\"\n"), "{}", all.user);
    }
}
