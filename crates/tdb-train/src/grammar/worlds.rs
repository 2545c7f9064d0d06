//! Small facts, so that neurons have something to know.

use super::Item;
use super::words::{
    ADJECTIVES, ANIMALS, CAPITALS, COLORED, DAYS, JOBS, LANGUAGES, LETTERS, MONTHS, NUMBERS, OPPOSITES, PLACES, VERBS,
    names, past, third_person, with_article,
};
use crate::dice::Dice;

fn statement(text: String) -> Item {
    Item::new(text, "", "", Vec::new())
}

/// Some members of a sequence in order, from a random one on; `around` if it starts anew after its end.
fn run_of(dice: &mut Dice, sequence: &[&str], around: bool) -> String {
    let length = dice.between(3, 6);
    let start = dice.below(if around { sequence.len() } else { sequence.len() - length + 1 });
    let members: Vec<&str> = (start..start + length).map(|index| sequence[index % sequence.len()]).collect();
    members.join(if dice.chance(0.7) { ", " } else { " " })
}

pub fn world(dice: &mut Dice) -> Item {
    let text = match dice.below(12) {
        0 => {
            let (animal, sound, home) = dice.pick(ANIMALS);
            match dice.below(3) {
                0 => format!("The {animal} {sound}."),
                1 => format!("In the {home} the {animal} {sound} all day."),
                _ => format!("The {animal} lives in the {home}."),
            }
        }
        1 => {
            let (thing, color) = dice.pick(COLORED);
            match dice.below(3) {
                0 => format!("The {thing} is {color}."),
                1 => format!("The color of the {thing} is {color}."),
                _ => format!("It was as {color} as the {thing}."),
            }
        }
        2 => {
            let (job, place) = dice.pick(JOBS);
            match dice.below(3) {
                0 => format!("The {job} works in the {place}."),
                1 => format!("In the {place} we met the {job}."),
                _ => format!("{} is {} and works in the {place}.", dice.pick(&names()), with_article(job)),
            }
        }
        3 => {
            let (a, b) = dice.pick(OPPOSITES);
            let (a, b) = if dice.chance(0.5) { (a, b) } else { (b, a) };
            match dice.below(2) {
                0 => format!("The opposite of {a} is {b}."),
                _ => format!("It was not {a} but {b}."),
            }
        }
        4 => {
            let at = dice.below(DAYS.len());
            let (day, next) = (DAYS[at], DAYS[(at + 1) % DAYS.len()]);
            match dice.below(2) {
                0 => format!("After {day} comes {next}."),
                _ => format!("Days: {}.", run_of(dice, DAYS, true)),
            }
        }
        5 => {
            let at = dice.below(MONTHS.len());
            let (month, next) = (MONTHS[at], MONTHS[(at + 1) % MONTHS.len()]);
            match dice.below(2) {
                0 => format!("After {month} comes {next}."),
                _ => format!("Months: {}.", run_of(dice, MONTHS, true)),
            }
        }
        6 => match dice.below(3) {
            0 => format!("Letters: {}.", run_of(dice, LETTERS, false)),
            1 => format!("Numbers: {}.", run_of(dice, NUMBERS, false)),
            _ => {
                let start = dice.between(0, 30);
                let counted: Vec<String> = (start..start + dice.between(3, 6)).map(|n| n.to_string()).collect();
                format!("Numbers: {}.", counted.join(", "))
            }
        },
        7 | 8 => {
            let (capital, country) = dice.pick(CAPITALS);
            match dice.below(4) {
                0 => format!("The capital of {country} is {capital}."),
                1 => format!("{capital} is the capital of {country}."),
                2 => format!("{} lives in {capital}, the capital of {country}.", dice.pick(&names())),
                _ => format!("{capital} is in {country}."),
            }
        }
        9 => {
            let (country, language) = dice.pick(LANGUAGES);
            match dice.below(3) {
                0 => format!("In {country} people speak {language}."),
                1 => format!("{} comes from {country} and speaks {language}.", dice.pick(&names())),
                _ => format!("They learned {language} before they went to {country}."),
            }
        }
        10 => {
            let (a, b) = (dice.between(0, 9), dice.between(0, 9));
            format!("{a} + {b} = {}.", a + b)
        }
        _ => {
            let (name, friend) = dice.pick_two(&["Mary", "John", "Tom", "Anna", "Paul", "Kate"]);
            let said = dice.pick(&["the PP is QQ", "we like the PP", "they went to the PP"]);
            let said = said.replace("PP", dice.pick(PLACES)).replace("QQ", dice.pick(ADJECTIVES));
            match dice.below(2) {
                0 => format!("{name} said \"{said}\" and left."),
                _ => format!("{name} told {friend} that {said}."),
            }
        }
    };
    statement(text)
}

pub fn tense(dice: &mut Dice) -> Item {
    let (name, verb, place) = (dice.pick(&names()), dice.pick(VERBS), dice.pick(PLACES));
    let mut parts = [
        format!("Yesterday {name} {} near the {place}.", past(verb)),
        format!("Every day {name} {} near the {place}.", third_person(verb)),
        format!("Tomorrow {name} will {verb} near the {place}."),
        format!("Now {name} and a friend {verb} near the {place}."),
    ];
    let keep = dice.between(1, 3);
    for index in 0..keep {
        let other = dice.between(index, parts.len() - 1);
        parts.swap(index, other);
    }
    statement(parts[..keep].join(" "))
}
