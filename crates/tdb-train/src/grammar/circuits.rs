//! Sentences whose next word follows from words further back.

use super::words::{ADJECTIVES, CAPITALS, COLORS, FEMALE, MALE, NOUNS, NUMBER_VERBS, OBJECTS, PLACES, PREPOSITIONS};
use super::words::{names, with_article};
use super::{Item, Split, fill};
use crate::dice::Dice;

const MEETINGS: &[&str] = &[
    "When AA and BB went to the PP, ",
    "When AA and BB got to the PP, ",
    "After AA and BB went to the PP, ",
    "After AA and BB had a long talk at the PP, ",
    "While AA and BB were at the PP, ",
    "While AA and BB were working at the PP, ",
    "Because AA and BB lived near the PP, ",
    "Then, AA and BB went to the PP. ",
    "Then AA and BB had a lot of fun at the PP. ",
    "Last week AA and BB walked to the PP. ",
    "Friends AA and BB were at the PP. ",
    "Today AA met BB at the PP. ",
    "AA and BB went to the PP. ",
    "AA and BB met at the PP. ",
    "AA saw BB near the PP, and ",
    "AA was with BB in the PP when ",
];

const GIFTS: &[&str] = &[
    "SS gave OO to",
    "SS gave OO to",
    "SS handed OO to",
    "SS wanted to give OO to",
    "SS decided to give OO to",
    "SS brought OO to",
    "SS sold OO to",
    "SS showed OO to",
    "SS passed OO to",
    "SS offered OO to",
    "SS sent OO to",
    "SS said hello to",
];

fn spaced<'a>(words: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    words.into_iter().map(|word| format!(" {word}")).collect()
}

/// Two names meet; one of them does something to the other. Withheld: pairs of names, in either order.
pub fn indirect_object(dice: &mut Dice, split: Split) -> Item {
    let names = names();
    let (first, second) = loop {
        let (a, b) = dice.pick_two(&names);
        if split.admits(&["indirect object", a.min(b), a.max(b)]) {
            break (a, b);
        }
    };
    let (giver, receiver) = if dice.chance(0.5) { (first, second) } else { (second, first) };
    let object = dice.pick(OBJECTS);
    let object = if dice.chance(0.7) { with_article(object) } else { format!("the {object}") };
    let template = format!("{}{}", dice.pick(MEETINGS), dice.pick(GIFTS));
    let place = dice.pick(PLACES);
    let prompt = fill(&template, &[("AA", first), ("BB", second), ("PP", place), ("SS", giver), ("OO", &object)]);
    let wrong = spaced(names.iter().copied().filter(|&name| name != receiver));
    Item::new(prompt, format!(" {receiver}"), ".", wrong)
}

/// A list of capitals with their countries. Withheld: which capital follows which; asked is the last of a list.
pub fn capitals(dice: &mut Dice, split: Split) -> Item {
    let length = dice.between(2, 6);
    let follows = |split: Split, a: (&str, &str), b: (&str, &str)| split.admits(&["capitals", a.0, b.0]);
    // From the end: the last pair may be one of the few withheld ones.
    let mut chosen = loop {
        let (before, last) = dice.pick_two(CAPITALS);
        if follows(split, before, last) {
            break vec![last, before];
        }
    };
    while chosen.len() < length {
        let next = dice.pick(CAPITALS);
        if !chosen.contains(&next) && follows(Split::Train, next, chosen[chosen.len() - 1]) {
            chosen.push(next);
        }
    }
    chosen.reverse();
    let Some((last, listed)) = chosen.split_last() else { unreachable!("a list has two members at least") };
    let mut prompt = String::new();
    for (capital, country) in listed {
        prompt.push_str(&format!("{capital}, {country}. "));
    }
    prompt.push_str(&format!("{},", last.0));
    let wrong = spaced(CAPITALS.iter().map(|pair| pair.1).filter(|&country| country != last.1));
    Item::new(prompt, format!(" {}", last.1), ".", wrong)
}

/// Something ends in a later year of the century it began in. Withheld: century and year of the beginning.
pub fn greater_than(dice: &mut Dice, split: Split) -> Item {
    const THINGS: &[&str] = &["war", "journey", "plan", "work", "school", "peace", "story"];
    let (century, year) = loop {
        let (century, year) = (dice.between(11, 19), dice.between(2, 97));
        if split.admits(&["greater than", &century.to_string(), &year.to_string()]) {
            break (century, year);
        }
    };
    let end = dice.between(year + 1, 99);
    let verb = dice.pick(&["lasted", "went on", "continued"]);
    let prompt = format!("The {} {verb} from the year {century}{year:02} to the year {century}", dice.pick(THINGS));
    // Years begin at 2, so 00 and 01 never occur and need not be tokens.
    let two_digits = |range: std::ops::RangeInclusive<usize>| range.map(|y| format!("{y:02}")).collect::<Vec<_>>();
    Item { right: two_digits(year + 1..=99), ..Item::new(prompt, format!("{end:02}"), ".", two_digits(2..=year)) }
}

/// A pronoun that agrees with the name before it. Withheld: name and place.
pub fn pronoun(dice: &mut Dice, split: Split) -> Item {
    const TEMPLATES: &[(&str, &str)] = &[
        ("AA went to the PP because", "SHE wanted to rest."),
        ("When AA came back from the PP,", "SHE was happy."),
        ("AA said that the PP was closed, so", "SHE went home."),
        ("At the PP, AA lost", "HER key."),
        ("AA looked at the PP and saw", "HER friend."),
        ("At the PP, AA talked about", "HER work."),
        ("In the PP, AA looked at the photo of", "HERSELF."),
        ("Yesterday AA was at the PP, and", "SHE was quiet."),
    ];
    let (name, woman, place) = loop {
        let woman = dice.chance(0.5);
        let (name, place) = (dice.pick(if woman { FEMALE } else { MALE }), dice.pick(PLACES));
        if split.admits(&["pronoun", name, place]) {
            break (name, woman, place);
        }
    };
    let (before, after) = dice.pick(TEMPLATES);
    let (blank, rest) = after.split_at(after.find([' ', '.']).unwrap_or(after.len()));
    let (she, he) = match blank {
        "SHE" => (" she", " he"),
        "HER" => (" her", " his"),
        _ => (" herself", " himself"),
    };
    let (right, wrong) = if woman { (she, he) } else { (he, she) };
    Item::new(fill(before, &[("AA", name), ("PP", place)]), right, rest, vec![wrong.to_owned()])
}

/// A verb that agrees with its subject, across another noun. Withheld: subject and the noun between.
pub fn subject_verb(dice: &mut Dice, split: Split) -> Item {
    let (subject, between) = loop {
        let (a, b) = dice.pick_two(NOUNS);
        if split.admits(&["subject and verb", a.0, b.0]) {
            break (a, b);
        }
    };
    let (plural, plural_between) = (dice.chance(0.5), dice.chance(0.5));
    let subject = if plural { subject.1 } else { subject.0 };
    let between = if plural_between { between.1 } else { between.0 };
    let verb = dice.pick(NUMBER_VERBS);
    let rest = format!("{}{}.", verb.2, if verb.2.ends_with(' ') { dice.pick(ADJECTIVES) } else { "" });
    let singulars = spaced(NUMBER_VERBS.iter().map(|verb| verb.0));
    let plurals = spaced(NUMBER_VERBS.iter().map(|verb| verb.1));
    let (answer, right, wrong) = if plural { (verb.1, plurals, singulars) } else { (verb.0, singulars, plurals) };
    let prompt = format!("The {subject} {} the {between}", dice.pick(PREPOSITIONS));
    Item { right, ..Item::new(prompt, format!(" {answer}"), rest, wrong) }
}

/// Two people have the same thing in two colors. Withheld: pairs of names, in either order.
pub fn binding(dice: &mut Dice, split: Split) -> Item {
    let names = names();
    let (first, second) = loop {
        let (a, b) = dice.pick_two(&names);
        if split.admits(&["whose color", a.min(b), a.max(b)]) {
            break (a, b);
        }
    };
    let object = dice.pick(OBJECTS);
    let (color, other) = dice.pick_two(COLORS);
    let (asked, answer, foil) = if dice.chance(0.5) { (first, color, other) } else { (second, other, color) };
    let prompt =
        format!("{first} has a {color} {object} and {second} has a {other} {object}. The {object} of {asked} is");
    Item::new(prompt, format!(" {answer}"), ".", vec![format!(" {foil}")])
}
