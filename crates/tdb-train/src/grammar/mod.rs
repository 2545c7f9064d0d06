//! The text that the embedded model learns from: short English-like sentences, each made for a circuit or a fact that
//! one can then look for in the model.
//!
//! Everything is a function of a seed. A tenth of the combinations that a task's answer depends on (which two names
//! meet, which word follows which in a random list, …) is withheld from training, and only those are asked in the
//! evaluation: see [`Split`].

mod circuits;
mod repeats;
pub mod words;
mod worlds;

use crate::dice::{Dice, hash};

/// Changes whenever the text of a seed changes; written beside a trained model.
pub const GRAMMAR_VERSION: u32 = 3;

/// What stands between documents, and before the first.
pub const END_OF_TEXT: &str = "<|endoftext|>";

/// Which combinations may be drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Nine tenths of the combinations.
    Train,
    /// The others, which no training text contains.
    Held,
}

impl Split {
    /// Whether a combination belongs here. The task's name is part of `key`.
    pub fn admits(self, key: &[&str]) -> bool {
        (hash(key) % 10 == 3) == (self == Self::Held)
    }
}

/// One sentence, cut where a question can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Up to the question.
    pub prompt: String,
    /// What the text goes on with; one token, with its leading blank.
    pub answer: String,
    /// The rest of the sentence.
    pub rest: String,
    /// Every right answer, `answer` among them.
    pub right: Vec<String>,
    /// What a model that has not understood might say.
    pub wrong: Vec<String>,
}

impl Item {
    fn new(prompt: impl Into<String>, answer: impl Into<String>, rest: impl Into<String>, wrong: Vec<String>) -> Self {
        let answer = answer.into();
        Self { prompt: prompt.into(), right: vec![answer.clone()], answer, rest: rest.into(), wrong }
    }

    pub fn text(&self) -> String {
        format!("{}{}{}", self.prompt, self.answer, self.rest)
    }
}

/// What a sentence is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Task {
    /// `When Mary and John went to the store, John gave a drink to` → ` Mary`
    IndirectObject,
    /// `Paris, France. Ottawa,` → ` Canada`
    Capitals,
    /// A list of random words, repeated.
    Induction,
    /// `The war lasted from the year 1732 to the year 17` → a greater number
    GreaterThan,
    /// `John went home because` → ` he`
    Pronoun,
    /// `The keys near the table` → ` are`
    SubjectVerb,
    /// `( tree [ lamp` → ` ]`
    Brackets,
    /// `Anna has a red ball and Tom has a blue ball. The ball of Tom is` → ` blue`
    Binding,
    /// Words made of random syllables, repeated: the bytes' tokens get a meaning.
    Invented,
    /// Animals, colors, jobs, opposites, days, languages, sums.
    World,
    /// The same deed yesterday, every day and tomorrow.
    Tense,
}

impl Task {
    pub const ALL: [Self; 11] = [
        Self::IndirectObject,
        Self::Capitals,
        Self::Induction,
        Self::GreaterThan,
        Self::Pronoun,
        Self::SubjectVerb,
        Self::Brackets,
        Self::Binding,
        Self::Invented,
        Self::World,
        Self::Tense,
    ];

    /// The tasks with withheld combinations, which the evaluation asks about: the first ones.
    pub const ASKED: &[Self] = Self::ALL.split_at(8).0;

    pub fn name(self) -> &'static str {
        match self {
            Self::IndirectObject => "indirect object",
            Self::Capitals => "capitals",
            Self::Induction => "induction",
            Self::GreaterThan => "greater than",
            Self::Pronoun => "pronoun",
            Self::SubjectVerb => "subject and verb",
            Self::Brackets => "brackets and quotes",
            Self::Binding => "whose color",
            Self::Invented => "invented words",
            Self::World => "worlds",
            Self::Tense => "tense",
        }
    }

    /// How often a sentence of the text is of this task, in relation to the others.
    fn weight(self) -> f64 {
        match self {
            Self::IndirectObject => 3.0,
            Self::Induction | Self::World | Self::Pronoun | Self::Brackets => 2.0,
            Self::Capitals | Self::Binding => 1.5,
            Self::GreaterThan | Self::SubjectVerb => 1.0,
            Self::Invented | Self::Tense => 0.5,
        }
    }

    /// A sentence of this task.
    pub fn item(self, dice: &mut Dice, split: Split) -> Item {
        match self {
            Self::IndirectObject => circuits::indirect_object(dice, split),
            Self::Capitals => circuits::capitals(dice, split),
            Self::Induction => repeats::induction(dice, split),
            Self::GreaterThan => circuits::greater_than(dice, split),
            Self::Pronoun => circuits::pronoun(dice, split),
            Self::SubjectVerb => circuits::subject_verb(dice, split),
            Self::Brackets => repeats::brackets(dice, split),
            Self::Binding => circuits::binding(dice, split),
            Self::Invented => repeats::invented(dice),
            Self::World => worlds::world(dice),
            Self::Tense => worlds::tense(dice),
        }
    }
}

/// The tasks that text is drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mixture {
    /// Everything, as a model is trained.
    Everything,
    /// Without the invented words: only words that should become tokens of their own.
    Words,
}

/// A sentence of the training text. `before` is the task of the sentence before it on the same row: two lists of
/// capitals never follow each other, or their seam could show a withheld pair.
pub fn sentence(dice: &mut Dice, mixture: Mixture, before: Option<Task>) -> (Task, String) {
    let weights: Vec<f64> = Task::ALL
        .iter()
        .map(|&task| {
            let banned = (mixture == Mixture::Words && task == Task::Invented)
                || (task == Task::Capitals && before == Some(Task::Capitals));
            if banned { 0.0 } else { task.weight() }
        })
        .collect();
    let task = Task::ALL[dice.weighted(&weights)];
    (task, task.item(dice, Split::Train).text())
}

/// A sentence of the training text that holds `part`; `None` if many thousands have none.
pub fn sentence_with(dice: &mut Dice, part: &str) -> Option<String> {
    (0..100_000).map(|_| sentence(dice, Mixture::Everything, None).1).find(|text| text.contains(part))
}

/// Several sentences on one row, separated by blanks or line ends.
pub fn paragraph(dice: &mut Dice, mixture: Mixture, sentences: usize) -> String {
    let separator = if dice.chance(0.25) { "\n" } else { " " };
    let mut text = String::new();
    let mut before = None;
    for _ in 0..sentences {
        let (task, next) = sentence(dice, mixture, before);
        if !text.is_empty() {
            text.push_str(separator);
        }
        text.push_str(&next);
        before = Some(task);
    }
    text
}

/// Document `index` of a text without end, as the model was trained on: one to six sentences.
pub fn document(seed: u64, index: u64) -> String {
    let mut dice = Dice::new(&[seed, 0xD0C5, index]);
    let sentences = dice.between(1, 6);
    paragraph(&mut dice, Mixture::Everything, sentences)
}

fn fill(template: &str, blanks: &[(&str, &str)]) -> String {
    blanks.iter().fold(template.to_owned(), |text, (blank, word)| text.replace(blank, word))
}

#[cfg(test)]
mod tests;
