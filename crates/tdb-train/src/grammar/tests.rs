use std::collections::HashSet;

use super::*;

fn training_text(seed: u64, rows: usize) -> Vec<String> {
    (0..rows)
        .map(|row| {
            let mut dice = Dice::new(&[seed, row as u64]);
            let sentences = dice.between(1, 4);
            paragraph(&mut dice, Mixture::Everything, sentences)
        })
        .collect()
}

#[test]
fn the_same_seed_gives_the_same_text() {
    assert_eq!(training_text(5, 50), training_text(5, 50));
    assert_ne!(training_text(5, 50), training_text(6, 50));
}

#[test]
fn held_out_prompts_never_occur_in_training_text() {
    let text = training_text(1, 20_000).join("\n\n");
    for &task in Task::ASKED {
        let mut dice = Dice::new(&[2]);
        let mut prompts = HashSet::new();
        for _ in 0..200 {
            let item = task.item(&mut dice, Split::Held);
            // A question is the part from its sentence's start on; that alone must not occur.
            let question = format!("{}{}", item.prompt, item.answer);
            assert!(!text.contains(&question), "{}: {question}", task.name());
            prompts.insert(item.prompt);
        }
        assert!(prompts.len() > 100, "{}: only {} different prompts", task.name(), prompts.len());
    }
}

#[test]
fn withheld_pairs_never_stand_together_in_training_text() {
    let text = training_text(3, 20_000).join("\n\n");
    let mut withheld = 0;
    for first in words::CAPITALS {
        for second in words::CAPITALS {
            if first != second && Split::Held.admits(&["capitals", first.0, second.0]) {
                withheld += 1;
                let seam = format!("{}, {}. {},", first.0, first.1, second.0);
                assert!(!text.contains(&seam), "{seam}");
            }
        }
    }
    assert!(withheld > 100);
}

#[test]
fn training_draws_only_training_combinations() {
    // The names that meet are the last combination by which a prompt could be known.
    for seed in 0..2000 {
        let item = Task::IndirectObject.item(&mut Dice::new(&[seed]), Split::Train);
        let met: Vec<&str> = words::names().into_iter().filter(|name| item.text().contains(name)).collect();
        if let [a, b] = met[..] {
            assert!(Split::Train.admits(&["indirect object", a.min(b), a.max(b)]), "{a} and {b}");
        }
    }
}

#[test]
fn questions_are_well_formed() {
    for &task in Task::ASKED {
        for split in [Split::Train, Split::Held] {
            for seed in 0..300 {
                let item = task.item(&mut Dice::new(&[9, seed]), split);
                assert!(item.right.contains(&item.answer), "{item:?}");
                assert!(item.right.iter().all(|right| !item.wrong.contains(right)), "{item:?}");
                assert!(!item.wrong.is_empty() && !item.prompt.ends_with(' '), "{item:?}");
                assert!(item.text().ends_with('.'), "{item:?}");
                for blank in ["AA", "BB", "PP", "SS", "OO", "HER", "SHE"] {
                    assert!(!item.text().contains(blank), "{item:?}");
                }
            }
        }
    }
}

#[test]
fn verbs_are_spelt_right_in_every_form() {
    // Written by hand, so that a verb that the rules don't fit is found.
    let forms = [
        ("walk", "walks", "walked"),
        ("talk", "talks", "talked"),
        ("work", "works", "worked"),
        ("play", "plays", "played"),
        ("dance", "dances", "danced"),
        ("jump", "jumps", "jumped"),
        ("paint", "paints", "painted"),
        ("wait", "waits", "waited"),
        ("rest", "rests", "rested"),
        ("cook", "cooks", "cooked"),
    ];
    assert_eq!(forms.map(|form| form.0), words::VERBS);
    let rules = [("carry", "carries", "carried"), ("watch", "watches", "watched")];
    for (verb, third, past) in forms.into_iter().chain(rules) {
        assert_eq!((words::third_person(verb), words::past(verb)), (third.to_owned(), past.to_owned()));
    }
}

#[test]
fn articles_fit_the_word_after_them() {
    for text in training_text(4, 20_000) {
        let words: Vec<&str> = text.split_whitespace().collect();
        for pair in words.windows(2) {
            // `A` is a letter in lists of letters.
            if pair[0] == "a" || pair[0] == "an" {
                assert_eq!(pair[0] == "an", pair[1].starts_with(['a', 'e', 'i', 'o', 'u']), "{text}");
            }
        }
    }
}
