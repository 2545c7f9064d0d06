//! What can be said of a token, or of a token pair, by looking at the text alone.

use std::collections::BTreeMap;

use super::classes::class;

/// A way of looking at a place in a text. Each sorts the places into items, such as the tokens that stand there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    Token,
    Class,
    Previous,
    PreviousClass,
    Bigram,
    /// The first places of a text.
    Position,
    /// The token occurred before in the text.
    Repeated,
    /// The token is what followed the earlier occurrence of the token before it.
    Continued,
    /// How the attended-to token stands to the one that attends.
    Relation,
    /// The attended-to token.
    To,
    ToClass,
    /// The token that attends.
    From,
    FromClass,
}

impl Family {
    pub const OF_TOKENS: [Self; 8] = [
        Self::Token,
        Self::Class,
        Self::Previous,
        Self::PreviousClass,
        Self::Bigram,
        Self::Position,
        Self::Repeated,
        Self::Continued,
    ];
    pub const OF_PAIRS: [Self; 5] = [Self::Relation, Self::ToClass, Self::To, Self::FromClass, Self::From];
}

/// Names of items, as numbers while counting.
#[derive(Default)]
pub struct Items {
    numbers: BTreeMap<String, u32>,
    names: Vec<String>,
}

impl Items {
    pub fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = self.names.len() as u32;
        self.numbers.insert(name.to_owned(), number);
        self.names.push(name.to_owned());
        number
    }

    pub fn name(&self, number: u32) -> &str {
        &self.names[number as usize]
    }
}

/// One place: its item in each family, in the order of the families.
pub type Place = Vec<u32>;

/// The places of a text, one for each token.
pub fn of_tokens(tokens: &[String], items: &mut Items) -> Vec<Place> {
    let place = |t: usize| {
        let before = t.checked_sub(1).map_or("", |b| tokens[b].as_str());
        let repeated = tokens[..t].contains(&tokens[t]);
        let continued = t >= 2 && (1..t).any(|i| tokens[i - 1] == tokens[t - 1] && tokens[i] == tokens[t]);
        let position = if t < 2 { ["the first token", "the second token"][t] } else { "later tokens" };
        let yes = |b: bool| if b { "yes" } else { "no" };
        let before_class = if t == 0 { "nothing" } else { class(before) };
        [
            tokens[t].clone(),
            class(&tokens[t]).to_owned(),
            before.to_owned(),
            before_class.to_owned(),
            format!("{before}{}", tokens[t]),
            position.to_owned(),
            yes(repeated).to_owned(),
            yes(continued).to_owned(),
        ]
    };
    (0..tokens.len()).map(|t| place(t).iter().map(|name| items.number(name)).collect()).collect()
}

/// How token `k` stands to token `q` of a text.
pub fn relation(tokens: &[String], q: usize, k: usize) -> &'static str {
    if q == 0 {
        "itself at the beginning of the text"
    } else if k == q {
        "itself"
    } else if k >= 1 && tokens[k - 1] == tokens[q] {
        "the token after an earlier occurrence of the same token"
    } else if tokens[k] == tokens[q] {
        "an earlier occurrence of the same token"
    } else if k == 0 {
        "the first token"
    } else if k + 1 == q {
        "the token before"
    } else if k + 2 == q {
        "the last token but one"
    } else {
        "an earlier token"
    }
}

/// The places of a text, one for each pair of a token and one that it attends to, row by row.
pub fn of_pairs(tokens: &[String], items: &mut Items) -> Vec<Place> {
    let names: Vec<[u32; 2]> = tokens.iter().map(|token| [items.number(token), items.number(class(token))]).collect();
    let mut out = Vec::with_capacity(tokens.len() * (tokens.len() + 1) / 2);
    for q in 0..tokens.len() {
        for k in 0..=q {
            let relation = items.number(relation(tokens, q, k));
            out.push(vec![relation, names[k][1], names[k][0], names[q][1], names[q][0]]);
        }
    }
    out
}
