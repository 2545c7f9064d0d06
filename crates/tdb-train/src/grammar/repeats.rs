//! Random words: repeated, bracketed, invented.

use super::words::common;
use super::{Item, Split};
use crate::dice::Dice;

/// Random words, different from each other. No neighbours are withheld ones, but for the pair that starts at
/// `asked` where that is given.
fn random_words(dice: &mut Dice, length: usize, asked: Option<usize>) -> Vec<&'static str> {
    let pool = common();
    let mut words: Vec<&str> = Vec::with_capacity(length);
    while words.len() < length {
        let next = dice.pick(&pool);
        let split = match asked {
            Some(at) if words.len() == at + 1 => Split::Held,
            _ => Split::Train,
        };
        let fits =
            !words.contains(&next) && words.last().is_none_or(|last: &&str| split.admits(&["neighbours", last, next]));
        if fits {
            words.push(next);
        }
    }
    words
}

/// A list of random words, then the same list. Asked for is a word of the second pass. Withheld: which word follows
/// which.
pub fn induction(dice: &mut Dice, split: Split) -> Item {
    const LEADS: &[&str] = &["", "Say: ", "List: ", "Words: "];
    let length = dice.between(3, 14);
    let at = dice.below(length - 1);
    let words = random_words(dice, length, (split == Split::Held).then_some(at));
    let (between, seam) = dice.pick(&[(" ", " "), (" ", ". "), (", ", ". "), (", ", ", "), (" ", "; ")]);
    let lead = dice.pick(LEADS);
    let start = if lead.is_empty() { " " } else { "" };
    let list = words.join(between);
    let prompt = format!("{start}{lead}{list}{seam}{}", words[..=at].join(between));
    // The comma belongs to the prompt, so that the answer is a word.
    let prompt = if between == ", " { prompt + "," } else { prompt };
    let mut rest = words[at + 2..].iter().map(|word| format!("{between}{word}")).collect::<String>();
    if length <= 8 && dice.chance(0.3) {
        rest.push_str(&format!("{seam}{list}"));
    }
    rest.push('.');
    let wrong = words.iter().filter(|&&word| word != words[at + 1]).map(|word| format!(" {word}")).collect();
    Item::new(prompt, format!(" {}", words[at + 1]), rest, wrong)
}

const PAIRS: &[(&str, &str)] = &[(" (", " )"), (" [", " ]"), (" {", " }"), (" <b>", " </b>"), (" <i>", " </i>")];

/// Brackets within brackets, or a quotation. Withheld: which word follows which.
pub fn brackets(dice: &mut Dice, split: Split) -> Item {
    let depth = dice.between(1, 3);
    let mut open: Vec<(&str, &str)> = Vec::new();
    let mut text = String::from("Code:");
    for level in 0..depth {
        open.push(dice.pick(PAIRS));
        text.push_str(open[level].0);
        let length = dice.between(2, 3);
        let asked = (split == Split::Held && level + 1 == depth).then_some(length - 2);
        for word in random_words(dice, length, asked) {
            text.push_str(&format!(" {word}"));
        }
    }
    // How many are closed already before the question.
    let closed = dice.below(depth);
    for _ in 0..closed {
        text.push_str(open.pop().map_or("", |pair| pair.1));
    }
    let first_token = |close: &str| if close.starts_with(" </") { " </".to_owned() } else { close.to_owned() };
    let right = open.last().map_or("", |pair| pair.1);
    let answer = first_token(right);
    let mut rest = right[answer.len()..].to_owned();
    open.pop();
    while let Some(pair) = open.pop() {
        rest.push_str(pair.1);
    }
    rest.push('.');
    let wrong = [" )", " ]", " }", " </"].into_iter().filter(|&close| close != answer).map(str::to_owned).collect();
    Item::new(text, answer, rest, wrong)
}

/// Words that nobody knows, in a sentence and once more.
pub fn invented(dice: &mut Dice) -> Item {
    const STARTS: &[u8] = b"bcdfghjklmnprstvwz";
    const VOWELS: &[u8] = b"aeiou";
    let mut word = || {
        let mut letters = String::new();
        for _ in 0..dice.between(2, 3) {
            letters.push(char::from(dice.pick(STARTS)));
            letters.push(char::from(dice.pick(VOWELS)));
        }
        if dice.chance(0.5) {
            letters.push(char::from(dice.pick(STARTS)));
        }
        letters
    };
    let (a, b, c) = (word(), word(), word());
    let text = match dice.below(3) {
        0 => format!("The {a} met the {b}. The {b} gave {c} to the {a}."),
        1 => format!("{a} {b} {c} {a} {b} {c}."),
        _ => format!("First {a}, then {b}. Not {c}, but first {a}, then {b}."),
    };
    Item::new(text, "", "", Vec::new())
}
