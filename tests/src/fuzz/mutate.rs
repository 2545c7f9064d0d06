//! Changes to inputs, from a seed.

/// Values at which readers go wrong.
const EDGES: [u64; 12] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    u64::MAX,
];

/// Pieces of text that mean something to readers of text.
const WORDS: [&str; 24] = [
    "null",
    "true",
    "-1",
    "1e400",
    "NaN",
    "-0.0",
    "18446744073709551616",
    "\"\"",
    "[]",
    "{}",
    "[[[[[[[[",
    "\\ud800",
    "\u{0}",
    "\u{feff}",
    "<|endoftext|>",
    "../",
    "%00",
    "&",
    "\n\n",
    "\r\n",
    "\"type\":",
    "é",
    "\u{10ffff}",
    "99999999",
];

/// Makes inputs out of inputs.
#[derive(Debug)]
pub struct Mutator(u64);

impl Mutator {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        if n == 0 { 0 } else { (self.next() % n as u64) as usize }
    }

    /// One of `corpus` with one to eight changes.
    pub fn change(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut input = corpus[self.below(corpus.len())].clone();
        for _ in 0..1 + self.below(8) {
            self.change_once(&mut input, corpus);
        }
        input
    }

    fn change_once(&mut self, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let at = self.below(input.len());
        let length = 1 + self.below(16.min(input.len().max(1)));
        let end = (at + length).min(input.len());
        match self.below(10) {
            0 if !input.is_empty() => input[at] ^= 1 << self.below(8),
            1 if !input.is_empty() => input[at] = self.next() as u8,
            2 => drop(input.drain(at..end)),
            3 => {
                let piece = input[at..end].to_vec();
                input.splice(at..at, piece);
            }
            4 => input.truncate(at),
            5 => {
                let word = WORDS[self.below(WORDS.len())].as_bytes();
                let end = if self.below(2) == 0 { at } else { end };
                input.splice(at..end, word.iter().copied());
            }
            6 => self.set_number(input, at),
            7 => self.set_digits(input, at),
            8 => {
                let other = &corpus[self.below(corpus.len())];
                let from = self.below(other.len());
                let to = (from + 1 + self.below(64)).min(other.len());
                input.splice(at..end, other[from..to].iter().copied());
            }
            _ => {
                let other = &corpus[self.below(corpus.len())];
                input.truncate(at);
                input.extend_from_slice(&other[at.min(other.len())..]);
            }
        }
    }

    /// Writes a number of one, two, four or eight bytes.
    fn set_number(&mut self, input: &mut [u8], at: usize) {
        let bytes = EDGES[self.below(EDGES.len())].wrapping_add(self.below(3) as u64).wrapping_sub(1).to_le_bytes();
        let width = 1 << self.below(4);
        for (into, byte) in input[at..].iter_mut().zip(&bytes[..width]) {
            *into = *byte;
        }
    }

    /// Puts another number in the place of the next one that is written in digits.
    fn set_digits(&mut self, input: &mut Vec<u8>, at: usize) {
        let Some(start) = input[at..].iter().position(u8::is_ascii_digit).map(|i| at + i) else { return };
        let end = input[start..].iter().position(|b| !b.is_ascii_digit()).map_or(input.len(), |i| start + i);
        let number = EDGES[self.below(EDGES.len())].to_string();
        input.splice(start..end, number.bytes());
    }
}
