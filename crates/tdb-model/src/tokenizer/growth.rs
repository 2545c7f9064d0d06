//! How much longer a text can get through the rules of a `tokenizer.json`. Rules that put a lot in place of a little,
//! one after the other, make of a single letter more than any memory holds, so they are looked at before any of them
//! runs.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokenizers::{DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper};

use super::other::CRATE;
use crate::guarded::guarded;

/// How many times longer a text may get before it is split into tokens, and a token before it is shown. Of the
/// tokenizers that are in use Llama 2's has 12 and a SentencePiece model with its own table of characters 495; a decoder
/// has 2.
const MOST: [usize; 2] = [512, 16];

/// The rules as the crate understands them: it also takes some that do not say, or say twice, of which kind they are.
#[derive(Deserialize)]
struct Rules {
    normalizer: Option<NormalizerWrapper>,
    pre_tokenizer: Option<PreTokenizerWrapper>,
    decoder: Option<DecoderWrapper>,
    post_processor: Option<PostProcessorWrapper>,
}

/// How many times longer a text can get before it is split into tokens, at most.
///
/// # Errors
/// If that is too much, or a token can get too long when it is shown, or the text would be repeated: names the rule.
pub(super) fn of_texts(description: &[u8]) -> Result<usize, String> {
    let rules = guarded(CRATE, || serde_json::from_slice::<Rules>(description))?.map_err(|error| error.to_string())?;
    let (normalizer, pre_tokenizer) = (written(&rules.normalizer)?, written(&rules.pre_tokenizer)?);
    let (decoder, post_processor) = (written(&rules.decoder)?, written(&rules.post_processor)?);
    let mut steps = Steps::new(MOST[0]);
    each(&normalizer, "normalizers", &mut |rule| steps.add("normalizer", rule, by_normalizer(rule)))?;
    each(&pre_tokenizer, "pretokenizers", &mut |rule| steps.add("pre_tokenizer", rule, by_pre_tokenizer(rule)))?;
    let mut shown = Steps::new(MOST[1]);
    each(&decoder, "decoders", &mut |rule| shown.add("decoder", rule, by_decoder(rule)))?;
    each(&post_processor, "processors", &mut |rule| has_the_text_once(rule))?;
    Ok(steps.factor)
}

/// As the crate writes it, which is with the kind of every rule.
fn written(rules: &impl Serialize) -> Result<Value, String> {
    serde_json::to_value(rules).map_err(|error| error.to_string())
}

/// Calls `see` for every rule in the order in which they run; those of a sequence stand under `key`.
fn each(rule: &Value, key: &str, see: &mut impl FnMut(&Value) -> Result<(), String>) -> Result<(), String> {
    match rule.get(key).and_then(Value::as_array) {
        Some(rules) => rules.iter().try_for_each(|rule| each(rule, key, see)),
        None if rule.is_null() => Ok(()),
        None => see(rule),
    }
}

/// Rules one after the other.
struct Steps {
    factor: usize,
    most: usize,
}

impl Steps {
    fn new(most: usize) -> Self {
        Self { factor: 1, most }
    }

    /// `factor` is `None` if nothing is known of the rule.
    fn add(&mut self, part: &str, rule: &Value, factor: Option<usize>) -> Result<(), String> {
        let shown: String = rule.to_string().chars().take(120).collect();
        let factor = factor.ok_or_else(|| format!("the {part}'s rule {shown} is not known"))?;
        self.factor = self.factor.saturating_mul(factor.max(1));
        match self.factor > self.most {
            true => Err(format!(
                "the {part}'s rule {shown} can make a text {factor} times longer, which is {} times with the rules \
                 before it, where {} times are the most",
                self.factor, self.most
            )),
            false => Ok(()),
        }
    }
}

fn kind(rule: &Value) -> &str {
    rule.get("type").and_then(Value::as_str).unwrap_or_default()
}

fn text<'a>(rule: &'a Value, key: &str) -> Option<&'a str> {
    rule.get(key)?.as_str()
}

/// The worst cases of the Unicode forms in UTF-8 are those of Unicode's annex 15.
fn by_normalizer(rule: &Value) -> Option<usize> {
    match kind(rule) {
        "NFC" | "NFD" => Some(3),
        "NFKC" | "NFKD" => Some(11),
        "Lowercase" | "ByteLevel" => Some(2),
        // Decomposed, in small letters, and with blanks on both sides of a Chinese character.
        "BertNormalizer" => Some(12),
        "Strip" | "StripAccents" | "Nmt" => Some(1),
        "Prepend" => Some(1 + text(rule, "prepend")?.len()),
        "Replace" => by_replacement(rule),
        "Precompiled" => by_table(text(rule, "precompiled_charsmap")?),
        _ => None,
    }
}

/// A byte becomes a character of two, a blank the character that stands for it, and a piece of one byte may get a
/// blank.
fn by_pre_tokenizer(rule: &Value) -> Option<usize> {
    match kind(rule) {
        "ByteLevel" => Some(if rule.get("add_prefix_space")?.as_bool()? { 4 } else { 2 }),
        "Metaspace" => Some(1 + text(rule, "replacement")?.len()),
        "BertPreTokenizer" | "CharDelimiterSplit" | "Digits" | "FixedLength" | "Punctuation" | "Split"
        | "UnicodeScripts" | "Whitespace" | "WhitespaceSplit" => Some(1),
        _ => None,
    }
}

fn by_decoder(rule: &Value) -> Option<usize> {
    match kind(rule) {
        // Bytes that are no UTF-8 become U+FFFD.
        "ByteLevel" => Some(2),
        // A blank before the token.
        "WordPiece" => Some(2),
        // A blank for every occurrence of a text that can be empty.
        "BPEDecoder" | "CTC" => Some(3),
        "ByteFallback" | "Fuse" | "Metaspace" | "Strip" => Some(1),
        "Replace" => by_replacement(rule),
        _ => None,
    }
}

/// What a pattern matches may be empty, then the replacement stands before and behind every byte.
fn by_replacement(rule: &Value) -> Option<usize> {
    let content = text(rule, "content")?.len();
    match rule.get("pattern").and_then(|pattern| text(pattern, "String")) {
        Some(pattern) if !pattern.is_empty() => Some(content.div_ceil(pattern.len())),
        _ => Some(1 + 2 * content),
    }
}

/// SentencePiece's table of characters: the size of a trie, the trie, and the replacements, each with a NUL behind it.
fn by_table(table: &str) -> Option<usize> {
    let table = STANDARD.decode(table).ok()?;
    let (size, rest) = table.split_first_chunk::<4>()?;
    let replacements = rest.get(u32::from_le_bytes(*size) as usize / 4 * 4..)?;
    replacements.split(|byte| *byte == 0).map(<[u8]>::len).max()
}

/// A template can repeat the text that it is for.
fn has_the_text_once(processor: &Value) -> Result<(), String> {
    let Some(template) = processor.get("single").and_then(Value::as_array) else { return Ok(()) };
    let times = template.iter().filter(|piece| piece.get("Sequence").is_some()).count();
    match times {
        1 => Ok(()),
        _ => Err(format!("the post_processor's template for one text has it {times} times, where once is right")),
    }
}
