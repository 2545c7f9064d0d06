//! Classes of tokens that a sentence can name without knowing the language well.

use std::collections::BTreeMap;
use std::sync::LazyLock;

const LEXICON: &str = include_str!("lexicon.txt");

static WORDS: LazyLock<BTreeMap<&'static str, &'static str>> = LazyLock::new(|| {
    let mut out = BTreeMap::new();
    for (class, words) in LEXICON.lines().filter(|l| !l.starts_with('#')).filter_map(|l| l.split_once(": ")) {
        for word in words.split(' ') {
            out.entry(word).or_insert(class);
        }
    }
    out
});

/// The narrowest class of a token, for a sentence such as "active on digits".
pub fn class(token: &str) -> &'static str {
    let word = token.trim();
    let all = |test: fn(char) -> bool| word.chars().all(test);
    if token.starts_with("<|") && token.ends_with("|>") {
        "special tokens"
    } else if word.is_empty() {
        if token.contains('\n') { "line breaks" } else { "blanks" }
    } else if let Some(class) = WORDS.get(word) {
        class
    } else if word.contains('\u{fffd}') {
        "parts of characters"
    } else if all(|c| c.is_numeric()) {
        "digits"
    } else if all(|c| "([{<“‘«".contains(c)) {
        "opening brackets"
    } else if all(|c| ")]}>”’»".contains(c)) {
        "closing brackets"
    } else if all(|c| "\"'`".contains(c)) {
        "quotation marks"
    } else if all(|c| ".!?".contains(c)) {
        "ends of sentences"
    } else if !word.chars().any(char::is_alphanumeric) {
        "punctuation"
    } else if word.chars().count() == 1 && word.chars().all(char::is_uppercase) {
        "single capital letters"
    } else if word.chars().all(char::is_uppercase) {
        "words in capitals"
    } else if word.starts_with(char::is_uppercase) {
        "capitalised words"
    } else if token.starts_with(' ') {
        "other words"
    } else {
        "parts of words"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_the_class_that_a_reader_expects() {
        for (token, expected) in [
            ("<|endoftext|>", "special tokens"),
            (" Mary", "first names"),
            ("Paris", "cities"),
            (" 17", "digits"),
            ("\n\n", "line breaks"),
            (" ", "blanks"),
            (" (", "opening brackets"),
            ("?", "ends of sentences"),
            (",", "punctuation"),
            (" Q", "single capital letters"),
            (" Zorb", "capitalised words"),
            (" lamp", "other words"),
            ("ing", "parts of words"),
            ("\u{fffd}", "parts of characters"),
            (" she", "pronouns"),
        ] {
            assert_eq!(class(token), expected, "{token:?}");
        }
    }
}
