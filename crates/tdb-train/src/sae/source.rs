//! Where the text comes from.

use tdb_model::Tokenizer;

use crate::error::Result;
use crate::grammar::{END_OF_TEXT, document};

/// Sequences of tokens, always the same ones in the same order.
pub trait TokenSource {
    /// The next sequence, none at the end of the text.
    fn next(&mut self) -> Result<Option<Vec<u32>>>;

    /// Back to the beginning.
    fn rewind(&mut self) -> Result<()>;
}

/// The text that the embedded model was trained on, with another seed: without end.
#[derive(Clone, Debug)]
pub struct GrammarSource {
    tokenizer: Tokenizer,
    seed: u64,
    length: usize,
    next: u64,
}

impl GrammarSource {
    /// Sequences of at most `length` tokens.
    pub fn new(tokenizer: Tokenizer, seed: u64, length: usize) -> Self {
        Self { tokenizer, seed, length, next: 0 }
    }
}

impl TokenSource for GrammarSource {
    fn next(&mut self) -> Result<Option<Vec<u32>>> {
        let text = format!("{END_OF_TEXT}{}", document(self.seed, self.next));
        self.next += 1;
        let mut tokens = self.tokenizer.encode(&text);
        tokens.truncate(self.length);
        Ok(Some(tokens))
    }

    fn rewind(&mut self) -> Result<()> {
        self.next = 0;
        Ok(())
    }
}
