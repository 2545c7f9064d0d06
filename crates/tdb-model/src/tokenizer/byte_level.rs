//! Byte-level byte-pair encoding as GPT-2 does it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use super::END_OF_TEXT;

/// Tokens, merges and added tokens.
#[derive(Debug)]
pub(super) struct ByteLevelBpe {
    /// Bytes of all tokens, one after the other; empty where an id is not used.
    bytes: Vec<u8>,
    /// Where token `id`'s bytes lie.
    ranges: Vec<Range<u32>>,
    /// The token of each single byte.
    of_byte: [u32; 256],
    /// Pair of tokens to (rank, token); lower ranks are joined first.
    merges: HashMap<(u32, u32), (u32, u32)>,
    added: Vec<Added>,
    /// What finds the added tokens, of several at one place the longest: first those that are not `normalized`, then
    /// the others in what is between them.
    added_patterns: Vec<Regex>,
}

/// A token that is recognised wherever its content stands in a text.
#[derive(Debug)]
pub(super) struct Added {
    pub id: u32,
    pub content: String,
    pub normalized: bool,
}

/// Splits text into words, over which no token reaches. GPT-2's pattern ends in `\s+(?!\S)|\s+`: of a run of spaces
/// before a word the last one belongs to the word. That look-ahead is [`next_word`]'s business, because a matcher
/// that backtracks takes quadratic time for it.
static WORDS: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"'(?:s|t|re|ve|m|ll|d)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+").ok());

/// Where the word that starts at byte `at` ends.
fn next_word(text: &str, at: usize) -> usize {
    // Every character is in one of the pattern's classes, so it always matches at `at`.
    let end = WORDS.as_ref().and_then(|words| words.find_at(text, at)).map_or(text.len(), |word| word.end());
    let word = &text[at..end];
    let last = word.chars().next_back().filter(|last| last.is_whitespace());
    match last {
        Some(last) if end < text.len() && word.len() > last.len_utf8() => end - last.len_utf8(),
        _ => end,
    }
}

/// GPT-2's vocabulary.
pub(super) fn gpt2() -> ByteLevelBpe {
    static MERGES: &[u8] = include_bytes!("../../assets/gpt2_merges.bin");
    let alphabet = alphabet();
    let mut tokens: Vec<Vec<u8>> = alphabet.iter().map(|&(byte, _)| vec![byte]).collect();
    let mut merges = Vec::with_capacity(MERGES.len() / 4);
    for pair in MERGES.chunks_exact(4) {
        let [a, b] = [[pair[0], pair[1]], [pair[2], pair[3]]].map(|id| u32::from(u16::from_le_bytes(id)));
        let joined = [tokens[a as usize].as_slice(), &tokens[b as usize]].concat();
        merges.push((a, b, tokens.len() as u32));
        tokens.push(joined);
    }
    let end = Added { id: tokens.len() as u32, content: END_OF_TEXT.to_owned(), normalized: false };
    let tokens = tokens.into_iter().enumerate().map(|(id, bytes)| (id as u32, bytes));
    match ByteLevelBpe::new(tokens.collect(), &merges, vec![end]) {
        Ok(bpe) => bpe,
        Err(error) => unreachable!("the vocabulary that is built in: {error}"),
    }
}

/// The 256 bytes in the order of GPT-2's first tokens, each with the character that stands for it in vocabulary files:
/// printable bytes stand for themselves, the others for the characters from U+0100 on.
pub(super) fn alphabet() -> Vec<(u8, char)> {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let shown = (0..=255u8).filter(printable).map(|byte| (byte, char::from(byte)));
    let hidden = (0..=255u8).filter(|byte| !printable(byte)).zip('\u{100}'..);
    shown.chain(hidden).collect()
}

impl ByteLevelBpe {
    /// Builds the tables. `tokens` are ids with their bytes, `merges` are (left, right, joined) in order of rank.
    ///
    /// # Errors
    /// If a single byte has no token, or ids are not plausible.
    pub fn new(tokens: Vec<(u32, Vec<u8>)>, merges: &[(u32, u32, u32)], added: Vec<Added>) -> Result<Self, String> {
        let largest = tokens.iter().map(|(id, _)| *id).chain(added.iter().map(|token| token.id)).max().unwrap_or(0);
        super::check_largest(largest, tokens.len() + added.len())?;
        let mut bytes = Vec::new();
        let mut ranges = vec![0..0; largest as usize + 1];
        let mut of_byte = [None; 256];
        let added_bytes = added.iter().map(|token| (token.id, token.content.as_bytes()));
        for (id, token) in tokens.iter().map(|(id, token)| (*id, token.as_slice())).chain(added_bytes) {
            let start = bytes.len() as u32;
            bytes.extend_from_slice(token);
            ranges[id as usize] = start..bytes.len() as u32;
        }
        for (id, token) in &tokens {
            if let &[byte] = token.as_slice() {
                of_byte[usize::from(byte)] = Some(*id);
            }
        }
        let mut single = [0; 256];
        for (byte, id) in of_byte.iter().enumerate() {
            single[byte] = id.ok_or_else(|| format!("no token for the byte 0x{byte:02x}"))?;
        }
        let mut by_pair = HashMap::with_capacity(merges.len());
        for (rank, &(left, right, joined)) in merges.iter().enumerate() {
            // Of a merge that stands there twice the last place counts, as in the `tokenizers` crate.
            by_pair.insert((left, right), (rank as u32, joined));
        }
        let mut added_patterns = Vec::new();
        for normalized in [false, true] {
            added_patterns.extend(added_pattern(added.iter().filter(|token| token.normalized == normalized))?);
        }
        Ok(ByteLevelBpe { bytes, ranges, of_byte: single, merges: by_pair, added, added_patterns })
    }

    /// One more than the largest token.
    pub fn n_vocab(&self) -> usize {
        self.ranges.len()
    }

    /// The bytes of a token, if there is one of this id.
    pub fn bytes(&self, id: u32) -> Option<&[u8]> {
        let range = self.ranges.get(id as usize)?;
        (!range.is_empty()).then(|| &self.bytes[range.start as usize..range.end as usize])
    }

    /// The added token of this text.
    pub fn added(&self, text: &str) -> Option<u32> {
        self.added.iter().find(|token| token.content == text).map(|token| token.id)
    }

    /// The tokens of a text, added tokens included.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::with_capacity(text.len() / 3);
        self.encode_between(text, &self.added_patterns, &mut ids);
        ids
    }

    /// The tokens of a text in which these patterns have still to be looked for.
    fn encode_between(&self, text: &str, patterns: &[Regex], ids: &mut Vec<u32>) {
        let Some((pattern, others)) = patterns.split_first() else { return self.encode_plain(text, ids) };
        let mut at = 0;
        for found in pattern.find_iter(text) {
            self.encode_between(&text[at..found.start()], others, ids);
            ids.extend(self.added(found.as_str()));
            at = found.end();
        }
        self.encode_between(&text[at..], others, ids);
    }

    fn encode_plain(&self, text: &str, ids: &mut Vec<u32>) {
        let mut at = 0;
        while at < text.len() {
            let end = next_word(text, at);
            self.encode_word(&text.as_bytes()[at..end], ids);
            at = end;
        }
    }

    /// Joins the pair of the lowest rank, the leftmost first, until no pair can be joined. The symbols are a linked
    /// list and the pairs a heap, so that a word of n bytes takes n log n steps.
    fn encode_word(&self, word: &[u8], ids: &mut Vec<u32>) {
        const NONE: usize = usize::MAX;
        let mut token: Vec<u32> = word.iter().map(|&byte| self.of_byte[usize::from(byte)]).collect();
        let mut next: Vec<usize> = (1..=word.len()).map(|i| if i < word.len() { i } else { NONE }).collect();
        let mut previous: Vec<usize> = (0..word.len()).map(|i| i.wrapping_sub(1)).collect();
        let mut alive = vec![true; word.len()];
        let candidate = |token: &[u32], left: usize, right: usize| {
            let pair = (token[left], token[right]);
            self.merges.get(&pair).map(|&(rank, joined)| Reverse((rank, left, right, pair, joined)))
        };
        let mut heap: BinaryHeap<_> = (1..word.len()).filter_map(|i| candidate(&token, i - 1, i)).collect();
        while let Some(Reverse((_, left, right, pair, joined))) = heap.pop() {
            let current = alive[left] && alive[right] && next[left] == right && (token[left], token[right]) == pair;
            if !current {
                continue;
            }
            token[left] = joined;
            alive[right] = false;
            next[left] = next[right];
            if next[left] != NONE {
                previous[next[left]] = left;
                heap.extend(candidate(&token, left, next[left]));
            }
            if previous[left] != NONE {
                heap.extend(candidate(&token, previous[left], left));
            }
        }
        ids.extend(token.iter().zip(&alive).filter(|&(_, &alive)| alive).map(|(&id, _)| id));
    }
}

/// An alternation takes the first that fits; longer ones first makes that the longest.
fn added_pattern<'a>(added: impl Iterator<Item = &'a Added>) -> Result<Option<Regex>, String> {
    let mut contents: Vec<&str> = added.map(|token| token.content.as_str()).collect();
    if contents.is_empty() {
        return Ok(None);
    }
    contents.sort_by_key(|content| Reverse(content.len()));
    let pattern = contents.into_iter().map(regex::escape).collect::<Vec<_>>().join("|");
    Regex::new(&pattern).map(Some).map_err(|error| format!("added tokens that cannot be searched for: {error}"))
}
