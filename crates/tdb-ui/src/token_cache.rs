//! Tokens of texts as they are typed, and completions from the vocabulary, each asked for once. Typing never waits.

use std::collections::HashMap;
use std::time::Duration;

use leptos::prelude::*;
use tdb_api::routes::{Tokenize, Vocabulary};
use tdb_api::{Token, TokenRef, TokenizeRequest, VocabularyRequest};

use crate::client;
use crate::context::{expect_context, provide_context};
use crate::server::{Health, Server};
use crate::signals::{RwSignal, Signal, effect};
use crate::sorting::sort;
use crate::tasks::spawn;

/// How long a text rests before the server is asked.
const REST: Duration = Duration::from_millis(90);
/// How many texts are remembered.
const REMEMBERED: usize = 400;

/// A piece of a text: one token, or several that only together make a character.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    pub text: String,
    pub tokens: usize,
}

/// The tokens of one text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tokens {
    pub of: String,
    pub spans: Vec<Span>,
    pub count: usize,
}

#[derive(Clone, Copy)]
pub struct TokenCache {
    known: StoredValue<HashMap<String, Tokens>>,
    /// Whether the server has the route at all; until an answer says no, yes.
    can_tokenize: RwSignal<bool>,
    can_complete: StoredValue<bool>,
}

impl TokenCache {
    pub fn provide() {
        provide_context(Self {
            known: StoredValue::default(),
            can_tokenize: RwSignal::new(true),
            can_complete: StoredValue::new(true),
        });
    }

    pub fn get() -> Self {
        expect_context()
    }

    /// The tokens of `text`, followed as it changes. While an answer is awaited the last one stands; `None` if there is
    /// no way to know.
    pub fn follow(self, text: impl Fn() -> String + Send + Sync + 'static) -> Signal<Option<Tokens>> {
        let tokens = RwSignal::new(None);
        let wanted = StoredValue::new(String::new());
        let server = Server::get();
        effect(move || {
            // A server that is back is asked again.
            let _ = server.health.get() == Health::Present;
            let text = text();
            if !self.can_tokenize.get() {
                tokens.set(None);
                return;
            }
            wanted.set_value(text.clone());
            if let Some(found) = self.known.with_value(|k| k.get(&text).cloned()) {
                tokens.set(Some(found));
                return;
            }
            set_timeout(
                move || {
                    // The field may be gone by now.
                    if wanted.try_with_value(|w| *w == text) != Some(true) {
                        return;
                    }
                    spawn(async move {
                        let found = self.tokenize(text.clone()).await;
                        if wanted.try_with_value(|w| *w == text) == Some(true) && found.is_some() {
                            tokens.set(found);
                        }
                    });
                },
                REST,
            );
        });
        tokens.into()
    }

    /// How many tokens these texts have, if that is known already.
    pub fn known_counts(self, texts: [&str; 2]) -> Option<[usize; 2]> {
        let count = |text: &str| self.known.with_value(|known| known.get(text).map(|tokens| tokens.count));
        Some([count(texts[0])?, count(texts[1])?])
    }

    /// How many tokens these texts have; `None` if there is no way to know.
    pub async fn counts(self, texts: [String; 2]) -> Option<[usize; 2]> {
        let [left, right] = texts;
        Some([self.tokenize(left).await?.count, self.tokenize(right).await?.count])
    }

    async fn tokenize(self, text: String) -> Option<Tokens> {
        if text.is_empty() {
            return Some(Tokens::default());
        }
        match client::call::<Tokenize>(&TokenizeRequest { text: text.clone() }, None).await {
            Ok(answer) => {
                let pieces: Vec<String> = answer.tokens.into_iter().map(|token| token.text).collect();
                let tokens = spans(&text, &pieces);
                self.known.update_value(|known| {
                    if known.len() >= REMEMBERED {
                        known.clear();
                    }
                    known.insert(text, tokens.clone());
                });
                Some(tokens)
            }
            Err(problem) => {
                if problem.is_missing_route() {
                    self.can_tokenize.set(false);
                }
                None
            }
        }
    }

    /// How to name the token of this id and text: by its text, unless another token has the same.
    pub async fn name(self, id: i64, text: String) -> TokenRef {
        let found = self.vocabulary(&text).await;
        let shared = text.is_empty() || found.iter().any(|token| token.text == text && token.id != id);
        if shared { TokenRef::Id { id, text: Some(text) } } else { TokenRef::Text(text) }
    }

    /// Vocabulary entries that begin with `prefix`, best first; empty where the server does not complete.
    pub async fn complete(self, prefix: String) -> Vec<TokenRef> {
        let mut found = Vec::new();
        // What begins as typed, then the same after a space: most words carry one.
        let spaced = (!prefix.starts_with(' ')).then(|| format!(" {prefix}"));
        for prefix in std::iter::once(prefix).chain(spaced).filter(|p| !p.trim().is_empty()) {
            found.extend(self.vocabulary(&prefix).await);
        }
        sort(&mut found, |a, b| a.text.chars().count().cmp(&b.text.chars().count()));
        let shares = |token: &Token| found.iter().any(|other| other.text == token.text && other.id != token.id);
        let name = |token: &Token| match shares(token) {
            true => TokenRef::Id { id: token.id, text: Some(token.text.clone()) },
            false => TokenRef::Text(token.text.clone()),
        };
        found.iter().take(12).map(name).collect()
    }

    /// Vocabulary entries that begin with `prefix`, those that are it first.
    async fn vocabulary(self, prefix: &str) -> Vec<Token> {
        if !self.can_complete.get_value() {
            return Vec::new();
        }
        match client::call::<Vocabulary>(&VocabularyRequest { prefix: prefix.to_owned() }, None).await {
            Ok(answer) => answer.tokens,
            Err(problem) => {
                if problem.is_missing_route() {
                    self.can_complete.set_value(false);
                }
                Vec::new()
            }
        }
    }
}

/// Lays decoded tokens along their text. A token that is part of a character decodes to U+FFFD alone; such tokens are
/// joined until the text goes on with a whole one.
fn spans(text: &str, pieces: &[String]) -> Tokens {
    let mut spans: Vec<Span> = Vec::new();
    let mut at = 0;
    let mut i = 0;
    while i < pieces.len() && at < text.len() {
        let rest = &text[at..];
        if !pieces[i].is_empty() && !pieces[i].contains('\u{FFFD}') && rest.starts_with(&pieces[i]) {
            spans.push(Span { text: pieces[i].clone(), tokens: 1 });
            at += pieces[i].len();
            i += 1;
            continue;
        }
        // Join tokens until a whole one fits somewhere ahead; what lies before it is theirs.
        let first = i;
        i += 1;
        let mut end = text.len();
        while i < pieces.len() {
            let whole = !pieces[i].is_empty() && !pieces[i].contains('\u{FFFD}');
            if let (true, Some(ahead)) = (whole, rest.find(pieces[i].as_str())) {
                end = at + ahead;
                break;
            }
            i += 1;
        }
        spans.push(Span { text: text[at..end].to_owned(), tokens: i - first });
        at = end;
    }
    Tokens { of: text.to_owned(), spans, count: pieces.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lay(text: &str, pieces: &[&str]) -> Vec<(String, usize)> {
        let pieces: Vec<_> = pieces.iter().map(|p| (*p).to_owned()).collect();
        let tokens = spans(text, &pieces);
        assert_eq!(tokens.spans.iter().map(|s| s.text.as_str()).collect::<String>(), text);
        assert_eq!(tokens.count, pieces.len());
        tokens.spans.into_iter().map(|s| (s.text, s.tokens)).collect()
    }

    #[test]
    fn whole_tokens_lie_side_by_side() {
        assert_eq!(lay("Paris, France", &["Paris", ",", " France"]).len(), 3);
    }

    #[test]
    fn parts_of_a_character_are_joined() {
        let got = lay("a 😀b", &["a", " \u{FFFD}", "\u{FFFD}", "b"]);
        assert_eq!(got, [("a".into(), 1), (" 😀".into(), 2), ("b".into(), 1)]);
        assert_eq!(lay("😀", &["\u{FFFD}", "\u{FFFD}"]), [("😀".into(), 2)]);
    }
}
