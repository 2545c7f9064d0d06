//! The words that the generated text is made of.

pub const FEMALE: &[&str] = &[
    "Mary", "Anna", "Alice", "Emma", "Kate", "Lucy", "Sarah", "Jane", "Laura", "Emily", "Grace", "Julia", "Helen",
    "Rose", "Susan", "Linda", "Amy", "Ruth", "Clara", "Nina", "Diana", "Eva", "Maria", "Sophie", "Lisa", "Rachel",
    "Molly", "Martha", "Karen", "Carol",
];

pub const MALE: &[&str] = &[
    "John", "Tom", "James", "Paul", "Peter", "David", "Mark", "Adam", "Daniel", "Jack", "Henry", "George", "Simon",
    "Luke", "Robert", "Max", "Oscar", "Frank", "Michael", "William", "Edward", "Arthur", "Martin", "Steven", "Kevin",
    "Eric", "Bob", "Charles", "Richard", "Harry",
];

pub const PLACES: &[&str] = &[
    "store",
    "park",
    "school",
    "office",
    "garden",
    "beach",
    "market",
    "library",
    "station",
    "museum",
    "restaurant",
    "hospital",
    "kitchen",
    "church",
    "farm",
    "harbor",
    "bakery",
    "theater",
    "bridge",
    "castle",
    "hotel",
    "forest",
    "lake",
    "village",
    "house",
];

pub const OBJECTS: &[&str] = &[
    "drink", "book", "ring", "ball", "letter", "flower", "cake", "key", "map", "hat", "coin", "pen", "gift", "basket",
    "lamp", "apple", "sandwich", "ticket", "photo", "guitar", "bottle", "blanket", "orange", "umbrella", "snack",
];

/// `(capital, country)`
pub const CAPITALS: &[(&str, &str)] = &[
    ("Paris", "France"),
    ("Ottawa", "Canada"),
    ("Berlin", "Germany"),
    ("Rome", "Italy"),
    ("Madrid", "Spain"),
    ("London", "England"),
    ("Lisbon", "Portugal"),
    ("Vienna", "Austria"),
    ("Athens", "Greece"),
    ("Warsaw", "Poland"),
    ("Prague", "Czechia"),
    ("Budapest", "Hungary"),
    ("Oslo", "Norway"),
    ("Stockholm", "Sweden"),
    ("Helsinki", "Finland"),
    ("Copenhagen", "Denmark"),
    ("Dublin", "Ireland"),
    ("Brussels", "Belgium"),
    ("Bern", "Switzerland"),
    ("Moscow", "Russia"),
    ("Kyiv", "Ukraine"),
    ("Tokyo", "Japan"),
    ("Beijing", "China"),
    ("Seoul", "Korea"),
    ("Bangkok", "Thailand"),
    ("Hanoi", "Vietnam"),
    ("Delhi", "India"),
    ("Cairo", "Egypt"),
    ("Nairobi", "Kenya"),
    ("Accra", "Ghana"),
    ("Rabat", "Morocco"),
    ("Lima", "Peru"),
    ("Bogota", "Colombia"),
    ("Santiago", "Chile"),
    ("Quito", "Ecuador"),
    ("Havana", "Cuba"),
    ("Ankara", "Turkey"),
    ("Tehran", "Iran"),
    ("Baghdad", "Iraq"),
    ("Canberra", "Australia"),
    ("Jakarta", "Indonesia"),
    ("Sofia", "Bulgaria"),
    ("Riga", "Latvia"),
    ("Reykjavik", "Iceland"),
];

/// `(country, language)`
pub const LANGUAGES: &[(&str, &str)] = &[
    ("France", "French"),
    ("Germany", "German"),
    ("Italy", "Italian"),
    ("Spain", "Spanish"),
    ("England", "English"),
    ("Portugal", "Portuguese"),
    ("Greece", "Greek"),
    ("Poland", "Polish"),
    ("Norway", "Norwegian"),
    ("Sweden", "Swedish"),
    ("Denmark", "Danish"),
    ("Russia", "Russian"),
    ("Japan", "Japanese"),
    ("China", "Chinese"),
    ("Turkey", "Turkish"),
];

/// `(singular, plural)`
pub const NOUNS: &[(&str, &str)] = &[
    ("dog", "dogs"),
    ("cat", "cats"),
    ("boy", "boys"),
    ("girl", "girls"),
    ("teacher", "teachers"),
    ("doctor", "doctors"),
    ("farmer", "farmers"),
    ("horse", "horses"),
    ("bird", "birds"),
    ("tree", "trees"),
    ("car", "cars"),
    ("king", "kings"),
    ("picture", "pictures"),
    ("key", "keys"),
    ("table", "tables"),
    ("child", "children"),
    ("man", "men"),
    ("woman", "women"),
    ("house", "houses"),
    ("lamp", "lamps"),
];

/// `(verb of a singular, of a plural, how it goes on)`; an adjective follows where the last ends in a blank.
pub const NUMBER_VERBS: &[(&str, &str, &str)] = &[
    ("is", "are", " "),
    ("was", "were", " "),
    ("seems", "seem", " "),
    ("looks", "look", " "),
    ("has", "have", " been "),
    ("makes", "make", " us happy"),
    ("belongs", "belong", " to the queen"),
    ("stays", "stay", " here all day"),
    ("comes", "come", " from the old village"),
    ("stands", "stand", " in the garden"),
];

pub const PREPOSITIONS: &[&str] = &["near", "behind", "beside", "with", "under", "by", "in front of", "next to"];

pub const ADJECTIVES: &[&str] = &[
    "old", "new", "small", "big", "happy", "quiet", "ready", "clean", "strange", "famous", "pretty", "dark", "strong",
    "heavy",
];

pub const COLORS: &[&str] = &["red", "blue", "green", "white", "black", "yellow", "brown"];

/// `(thing, color)`
pub const COLORED: &[(&str, &str)] = &[
    ("sky", "blue"),
    ("sea", "blue"),
    ("grass", "green"),
    ("leaf", "green"),
    ("snow", "white"),
    ("milk", "white"),
    ("coal", "black"),
    ("night", "black"),
    ("blood", "red"),
    ("fire", "red"),
    ("sun", "yellow"),
    ("lemon", "yellow"),
    ("bear", "brown"),
    ("mud", "brown"),
];

/// `(animal, the sound it makes, where it lives)`
pub const ANIMALS: &[(&str, &str, &str)] = &[
    ("dog", "barks", "house"),
    ("cat", "meows", "house"),
    ("cow", "moos", "barn"),
    ("duck", "quacks", "pond"),
    ("lion", "roars", "desert"),
    ("horse", "neighs", "stable"),
    ("bird", "sings", "nest"),
    ("wolf", "howls", "forest"),
    ("bee", "buzzes", "hive"),
    ("snake", "hisses", "desert"),
    ("frog", "croaks", "pond"),
    ("mouse", "squeaks", "barn"),
];

/// `(profession, place of work)`
pub const JOBS: &[(&str, &str)] = &[
    ("doctor", "hospital"),
    ("nurse", "hospital"),
    ("teacher", "school"),
    ("farmer", "farm"),
    ("baker", "bakery"),
    ("sailor", "harbor"),
    ("judge", "court"),
    ("king", "castle"),
    ("cook", "kitchen"),
    ("pilot", "plane"),
    ("actor", "theater"),
    ("priest", "church"),
];

pub const OPPOSITES: &[(&str, &str)] = &[
    ("hot", "cold"),
    ("big", "small"),
    ("old", "new"),
    ("fast", "slow"),
    ("good", "bad"),
    ("happy", "sad"),
    ("rich", "poor"),
    ("wet", "dry"),
    ("hard", "soft"),
    ("light", "dark"),
    ("early", "late"),
    ("strong", "weak"),
    ("high", "low"),
    ("open", "closed"),
];

pub const DAYS: &[&str] = &["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

pub const MONTHS: &[&str] = &[
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

pub const NUMBERS: &[&str] = &["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"];

pub const LETTERS: &[&str] =
    &["A", "B", "C", "D", "E", "F", "G", "H", "I", "J", "K", "L", "M", "N", "O", "P", "Q", "R", "S", "T"];

/// Regular verbs that keep their last consonant single: see [`third_person`] and [`past`].
pub const VERBS: &[&str] = &["walk", "talk", "work", "play", "dance", "jump", "paint", "wait", "rest", "cook"];

/// Every name, women's first.
pub fn names() -> Vec<&'static str> {
    FEMALE.iter().chain(MALE).copied().collect()
}

/// The words of random sequences: everything lower-case with a meaning, each once.
pub fn common() -> Vec<&'static str> {
    let mut words: Vec<&str> = Vec::new();
    words.extend(PLACES);
    words.extend(OBJECTS);
    words.extend(NOUNS.iter().map(|noun| noun.0));
    words.extend(ADJECTIVES);
    words.extend(COLORS);
    words.extend(COLORED.iter().map(|thing| thing.0));
    words.extend(ANIMALS.iter().map(|animal| animal.0));
    words.extend(JOBS.iter().map(|job| job.0));
    words.extend(OPPOSITES.iter().flat_map(|pair| [pair.0, pair.1]));
    words.extend(NUMBERS);
    words.extend(VERBS);
    let mut seen = std::collections::HashSet::new();
    words.retain(|word| seen.insert(*word));
    words
}

/// `a drink`, `an apple`
pub fn with_article(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {noun}")
}

/// `walks`, `watches`, `carries`
pub fn third_person(verb: &str) -> String {
    match stem_before_y(verb) {
        Some(stem) => format!("{stem}ies"),
        None if ["s", "x", "z", "ch", "sh", "o"].iter().any(|ending| verb.ends_with(ending)) => format!("{verb}es"),
        None => format!("{verb}s"),
    }
}

/// `walked`, `danced`, `carried`
pub fn past(verb: &str) -> String {
    match stem_before_y(verb) {
        Some(stem) => format!("{stem}ied"),
        None if verb.ends_with('e') => format!("{verb}d"),
        None => format!("{verb}ed"),
    }
}

/// What stands before a final `y` that follows a consonant: `carr` of `carry`, nothing of `play`.
fn stem_before_y(verb: &str) -> Option<&str> {
    verb.strip_suffix('y').filter(|stem| !stem.ends_with(['a', 'e', 'i', 'o', 'u']))
}
