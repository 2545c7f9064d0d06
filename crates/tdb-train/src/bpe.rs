//! The byte-level BPE of the embedded model, trained on its own text.

use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::{AddedToken, SplitDelimiterBehavior};
use tokenizers::{Tokenizer, models::TrainerWrapper};

use crate::dice::Dice;
use crate::error::{Error, Result};
use crate::grammar::{END_OF_TEXT, Mixture, paragraph};

/// GPT-2's rule for cutting text into words, except that a number is cut into groups of two digits: ` 1732` is
/// ` 17` and `32`, so that years can be compared.
const WORDS: &str = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}{1,2}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// Upper limit of the vocabulary; training ends earlier, when every word of the text is one token.
const LARGEST_VOCABULARY: usize = 2048;

/// Trains on `rows` rows of the grammar's text. The same seed gives the same tokenizer.
pub fn train_tokenizer(seed: u64, rows: usize) -> Result<Tokenizer> {
    let error = |error: tokenizers::Error| Error::Tokenizer(error.to_string());
    let pattern = SplitPattern::Regex(WORDS.to_owned());
    let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false).map_err(error)?;
    let bytes = ByteLevel::new(false, true, false);
    let mut tokenizer = Tokenizer::new(BPE::default());
    tokenizer
        .with_pre_tokenizer(Some(Sequence::new(vec![split.into(), bytes.into()])))
        .with_decoder(Some(bytes))
        .with_post_processor(Some(bytes));
    let trainer = BpeTrainerBuilder::new()
        .vocab_size(LARGEST_VOCABULARY)
        .min_frequency(2)
        .show_progress(false)
        .special_tokens(vec![AddedToken::from(END_OF_TEXT, true)])
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let text = (0..rows).map(|row| {
        let mut dice = Dice::new(&[seed, 0x0B9E, row as u64]);
        let sentences = dice.between(1, 3);
        paragraph(&mut dice, Mixture::Words, sentences)
    });
    tokenizer.train(&mut TrainerWrapper::BpeTrainer(trainer), text).map_err(error)?;
    Ok(tokenizer)
}

/// The tokens of a text; the special token is recognised in it.
pub fn encode(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    let encoding = tokenizer.encode_fast(text, false).map_err(|error| Error::Tokenizer(error.to_string()))?;
    Ok(encoding.get_ids().to_vec())
}

/// The token of a word that must be one token.
pub fn single(tokenizer: &Tokenizer, word: &str) -> Result<u32> {
    match encode(tokenizer, word)?[..] {
        [token] => Ok(token),
        ref tokens => Err(Error::Tokenizer(format!("`{word}` is {} tokens, not one", tokens.len()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grammar::words::{CAPITALS, common, names};
    use crate::grammar::{Split, Task};

    #[test]
    fn every_word_is_one_token_and_any_text_comes_back() {
        let tokenizer = train_tokenizer(0, 30_000).unwrap();
        let size = tokenizer.get_vocab_size(true);
        assert!((1000..1900).contains(&size), "{size} tokens");
        let words = names().into_iter().chain(common()).chain(CAPITALS.iter().flat_map(|pair| [pair.0, pair.1]));
        for word in words {
            single(&tokenizer, &format!(" {word}")).unwrap();
        }
        for word in names().into_iter().chain(CAPITALS.iter().map(|pair| pair.0)) {
            single(&tokenizer, word).unwrap();
        }
        for &task in Task::ASKED {
            for seed in 0..50 {
                let item = task.item(&mut Dice::new(&[seed]), Split::Held);
                for answer in item.right.iter().chain(&item.wrong) {
                    single(&tokenizer, answer).unwrap();
                }
            }
        }
        for text in ["Zürich 東京 \u{1F600}\n\tx", "<|endoftext|>Paris, France. Ottawa,", "from 1732 to 1745"] {
            let tokens = encode(&tokenizer, text).unwrap();
            assert_eq!(tokenizer.decode(&tokens, false).unwrap(), text);
        }
        assert_eq!(encode(&tokenizer, " 1732").unwrap().len(), 2);
        assert_eq!(train_tokenizer(0, 3000).unwrap().to_string(false).unwrap(), {
            train_tokenizer(0, 3000).unwrap().to_string(false).unwrap()
        });
    }
}
