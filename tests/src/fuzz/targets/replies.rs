//! What language models and their servers answer.

/// The body of an answer, read in every way in which answers are read.
pub fn reply(input: &[u8]) {
    tdb_explain::read_in_every_way(input);
}
