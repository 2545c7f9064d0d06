//! GPT-2's tokenizer token for token, byte-level tokenizers from a file, and other kinds through `tokenizers`.

#![allow(clippy::unwrap_used)] // also in the helpers of tests

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use serde_json::{Value, json};
use tdb_model::{NotOneToken, Tokenizer};

static GPT2: LazyLock<Tokenizer> = LazyLock::new(Tokenizer::gpt2);
static MERGES: &[u8] = include_bytes!("../assets/gpt2_merges.bin");

/// What tiktoken's `gpt2` gives, special token allowed.
const KNOWN: &[(&str, &[u32])] = &[
    ("", &[]),
    ("a", &[64]),
    ("<|endoftext|>Paris, France. Ottawa,", &[50256, 40313, 11, 4881, 13, 14074, 11]),
    (" Canada", &[3340]),
    (" Germany", &[4486]),
    (" Mary", &[5335]),
    (" John", &[1757]),
    (
        "café 日本語 😀!\n\n  tabs\tand   spaces",
        &[
            66, 1878, 2634, 10545, 245, 98, 17312, 105, 45739, 252, 30325, 222, 0, 628, 220, 22524, 197, 392, 220, 220,
            9029,
        ],
    ),
];

#[test]
fn known_texts_have_known_tokens() {
    for &(text, ids) in KNOWN {
        assert_eq!(GPT2.encode(text), ids, "{text:?}");
        assert_eq!(GPT2.decode(ids), text);
    }
    assert_eq!(GPT2.n_vocab(), 50257);
    let parts: Vec<String> = KNOWN[7].1.iter().map(|&id| GPT2.decode_token(id)).collect();
    let expected = [
        "c",
        "af",
        "é",
        " \u{fffd}",
        "\u{fffd}",
        "\u{fffd}",
        "\u{fffd}",
        "\u{fffd}",
        "\u{fffd}",
        "\u{fffd}",
        " \u{fffd}",
        "\u{fffd}",
        "!",
        "\n\n",
        " ",
        " tabs",
        "\t",
        "and",
        " ",
        " ",
        " spaces",
    ];
    assert_eq!(parts, expected);
    assert_eq!(GPT2.decode_token(50257), "\u{fffd}");
}

#[test]
fn the_special_token_is_special_everywhere_and_nothing_else_is() {
    assert_eq!(GPT2.encode("<|endoftext|>"), [50256]);
    assert_eq!(GPT2.encode("a<|endoftext|> b<|endoftext|><|endoftext|>"), [64, 50256, 275, 50256, 50256]);
    for plain in ["<|endoftext|", "<|endofprompt|>", "<|im_start|>", "<|ENDOFTEXT|>"] {
        let ids = GPT2.encode(plain);
        assert!(ids.len() > 1 && !ids.contains(&50256), "{plain}: {ids:?}");
        assert_eq!(GPT2.decode(&ids), plain);
    }
}

#[test]
fn a_target_is_one_token_or_the_error_says_what_it_is() {
    assert_eq!(GPT2.single_token(" Canada"), Ok(3340));
    assert_eq!(GPT2.single_token("<|endoftext|>"), Ok(50256));
    let error = GPT2.single_token(" Canadaa!").unwrap_err();
    let parts = [" Canada", "a", "!"].map(str::to_owned).to_vec();
    assert_eq!(error, NotOneToken::Split { text: " Canadaa!".to_owned(), tokens: parts });
    assert_eq!(error.to_string(), "\" Canadaa!\" is 3 tokens (\" Canada\", \"a\", \"!\"), where exactly one is needed");
    assert!(GPT2.single_token("").unwrap_err().to_string().contains("is 0 tokens"));
}

#[test]
fn offsets_cover_the_text() {
    for &(text, ids) in KNOWN {
        let pieces = GPT2.encode_with_offsets(text);
        let mut end = 0;
        for (piece, &id) in pieces.iter().zip(ids) {
            assert_eq!((piece.0, piece.1.start), (id, end));
            assert_eq!(String::from_utf8_lossy(&text.as_bytes()[piece.1.clone()]), GPT2.decode_token(id));
            end = piece.1.end;
        }
        assert_eq!((pieces.len(), end), (ids.len(), text.len()));
    }
}

/// Texts of all kinds from a fixed seed.
fn texts(count: usize) -> impl Iterator<Item = String> {
    let pieces = [
        "the",
        "The",
        " quick",
        "'s",
        "'ll",
        "'LL",
        "don't",
        " ",
        "  ",
        "   ",
        "\n",
        "\t",
        "\r\n",
        "\u{a0}",
        "\u{3000}",
        "é",
        "ß",
        "日本",
        "語",
        "😀",
        "👩‍👩‍👧",
        "a",
        "b",
        "bc",
        "ing",
        "tion",
        "1",
        "2024",
        "½",
        "²",
        "Ⅷ",
        "!",
        "?!",
        "...",
        "-",
        "—",
        "_",
        "<|",
        "|>",
        "endoftext",
        "<|endoftext|>",
        "ا",
        "ل",
        "हि",
        "न्दी",
        "\u{0}",
        "\u{7f}",
        "\u{301}",
        "e\u{301}",
        "ﬁ",
        "AAAA",
        "zzzz",
        "http://",
        "x=y;",
        "\"",
        "''",
        "#include",
        "\u{85}",
        "\u{2028}",
    ];
    let mut state = 0x1234_5678_9abc_def0_u64;
    let mut random = move |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 20) as usize % n
    };
    (0..count).map(move |i| {
        let len = random(24);
        (0..len)
            .map(|_| match random(3) {
                0 if i % 2 == 0 => char::from(b'a' + random(26) as u8).to_string(),
                1 if i % 5 == 0 => char::from_u32(random(0x3000) as u32).unwrap_or('x').to_string(),
                _ => pieces[random(pieces.len())].to_owned(),
            })
            .collect()
    })
}

/// GPT-2's vocabulary file as it is published: characters for bytes, and merges of them.
fn gpt2_json() -> Value {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let hidden = (0..=255u8).filter(|byte| !printable(byte)).count() as u32;
    let mut tokens: Vec<String> = (0..=255u8).filter(printable).map(|byte| char::from(byte).to_string()).collect();
    tokens.extend((0..hidden).map(|i| char::from_u32(256 + i).unwrap().to_string()));
    let mut merges = Vec::new();
    for pair in MERGES.chunks_exact(4) {
        let part = |at: usize| tokens[usize::from(u16::from_le_bytes([pair[at], pair[at + 1]]))].clone();
        let (left, right) = (part(0), part(2));
        merges.push(format!("{left} {right}"));
        tokens.push(left + &right);
    }
    tokens.push("<|endoftext|>".to_owned());
    let vocab: HashMap<&String, usize> = tokens.iter().enumerate().map(|(id, token)| (token, id)).collect();
    json!({
        "version": "1.0", "truncation": {"max_length": 4, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
        "padding": null, "normalizer": null,
        "added_tokens": [{
            "id": 50256, "content": "<|endoftext|>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true
        }],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "vocab": vocab, "merges": merges
        }
    })
}

#[test]
fn it_agrees_with_tokenizers_and_with_a_tokenizer_from_a_file() {
    let mut description = gpt2_json();
    // As in GPT-2's own file.
    description["model"].as_object_mut().unwrap().remove("type");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    std::fs::write(&path, description.to_string()).unwrap();
    let from_file = Tokenizer::from_file(&path).unwrap();
    assert_eq!(from_file.n_vocab(), 50257);
    description["truncation"] = Value::Null;
    let theirs = tokenizers::Tokenizer::from_bytes(description.to_string()).unwrap();
    for text in texts(3000) {
        let ids = GPT2.encode(&text);
        assert_eq!(theirs.encode(text.as_str(), false).unwrap().get_ids(), ids, "{text:?}");
        assert_eq!(from_file.encode(&text), ids, "{text:?}");
        assert_eq!(GPT2.decode(&ids), text);
    }
}

/// tiktoken has no list of merges: it joins whatever two neighbours make the token of the lowest id.
#[test]
fn it_agrees_with_joining_by_the_lowest_token() {
    let ids: HashMap<Vec<u8>, u32> = {
        let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
        let mut bytes: Vec<u8> = (0..=255u8).filter(printable).collect();
        bytes.extend((0..=255u8).filter(|byte| !printable(byte)));
        let mut tokens: Vec<Vec<u8>> = bytes.into_iter().map(|byte| vec![byte]).collect();
        for pair in MERGES.chunks_exact(4) {
            let part = |at: usize| tokens[usize::from(u16::from_le_bytes([pair[at], pair[at + 1]]))].as_slice();
            let joined = [part(0), part(2)].concat();
            tokens.push(joined);
        }
        tokens.into_iter().enumerate().map(|(id, token)| (token, id as u32)).collect()
    };
    let words = regex::Regex::new(r"'(?:s|t|re|ve|m|ll|d)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+").unwrap();
    let mut compared = 0;
    for text in texts(6000) {
        for word in words.find_iter(&text).filter(|word| !word.as_str().contains("<|endoftext|>")) {
            let bytes = word.as_str().as_bytes();
            let mut parts: Vec<Vec<u8>> = bytes.iter().map(|&b| vec![b]).collect();
            while let Some((_, at)) = (1..parts.len())
                .filter_map(|i| ids.get(&[parts[i - 1].as_slice(), &parts[i]].concat()).map(|id| (*id, i)))
                .min()
            {
                let right = parts.remove(at);
                parts[at - 1].extend(right);
            }
            let expected: Vec<u32> = parts.iter().map(|part| ids[part]).collect();
            assert_eq!(GPT2.encode(word.as_str()), expected, "{word:?}");
            compared += 1;
        }
    }
    assert!(compared > 20_000, "{compared}");
}

#[test]
fn long_runs_take_no_quadratic_time() {
    let start = std::time::Instant::now();
    for (unit, tail) in [(" ", "end"), ("a", ""), ("ab", "!"), ("!", ""), ("<|endoftext|", ""), ("\n ", "x"), ("é", "")]
    {
        let text = unit.repeat(300_000) + tail;
        let ids = GPT2.encode(&text);
        assert_eq!(GPT2.decode(&ids), text);
        assert!(!ids.is_empty());
    }
    assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
}

#[test]
fn other_kinds_of_tokenizers_work_too() {
    let description = json!({
        "version": "1.0", "truncation": {"max_length": 2, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
        "padding": null, "normalizer": {"type": "Lowercase"}, "added_tokens": [],
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": {"mary": 0, "gave": 1, "john": 2, "[UNK]": 7}, "unk_token": "[UNK]"}
    });
    let path = Path::new("tokenizer.json");
    let words = Tokenizer::from_bytes(path, description.to_string().as_bytes()).unwrap();
    assert_eq!(words.n_vocab(), 8);
    assert_eq!(words.encode("Mary gave  John milk"), [0, 1, 2, 7]);
    assert_eq!(words.encode_with_offsets("Mary gave"), [(0, 0..4), (1, 5..9)]);
    assert_eq!(words.decode_token(2), "john");
}

#[test]
fn a_target_is_the_token_of_its_text_whatever_the_tokenizer_puts_before_it() {
    let paris = (40313, 6342);
    for change in ["add_prefix_space", "lstrip"] {
        let mut description = gpt2_json();
        if change == "lstrip" {
            let content = json!({"id": paris.0, "content": "Paris", "lstrip": true, "single_word": false, "rstrip": false,
                "normalized": false, "special": false});
            description["added_tokens"].as_array_mut().unwrap().push(content);
        } else {
            description["pre_tokenizer"][change] = json!(true);
        }
        let tokenizer = Tokenizer::from_bytes(Path::new("tokenizer.json"), description.to_string().as_bytes()).unwrap();
        assert_eq!(tokenizer.single_token("Paris"), Ok(paris.0), "{change}");
        assert_eq!(tokenizer.single_token(" Paris"), Ok(paris.1), "{change}");
    }
}

#[test]
fn a_text_that_several_tokens_have_names_none_of_them() {
    let error = GPT2.single_token("\u{fffd}").unwrap_err();
    let NotOneToken::Shared { ids, .. } = &error else { panic!("{error}") };
    assert!(ids.len() > 100 && ids.windows(2).all(|pair| pair[0] < pair[1]));
    assert!(ids.iter().all(|id| GPT2.decode_token(*id) == "\u{fffd}"));
    let text = error.to_string();
    assert!(text.contains(&format!("the text of {} tokens ({}, ", ids.len(), ids[0])) && text.len() < 300, "{text}");
    // Every token is found by its text or shares it.
    for id in (0..50257).step_by(17) {
        assert!(GPT2.tokens_of_text(&GPT2.decode_token(id)).contains(&id));
    }
}

#[test]
fn sentencepiece_tokens_keep_the_blank_before_a_word() {
    let words = ["\u{2581}", "a", "\u{2581}a", "\u{2581}Paris", "Paris", "<0x0A>", "<0xE4>", "<unk>"];
    let vocab: serde_json::Map<String, Value> =
        words.iter().enumerate().map(|(id, word)| ((*word).to_owned(), json!(id))).collect();
    let description = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "post_processor": null,
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "\u{2581}"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"},
        ]},
        "pre_tokenizer": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]},
        "model": {"type": "BPE", "dropout": 0.5, "unk_token": "<unk>", "byte_fallback": true, "fuse_unk": true,
            "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "vocab": vocab, "merges": [["\u{2581}", "a"]]},
    });
    let tokenizer = Tokenizer::from_bytes(Path::new("tokenizer.json"), description.to_string().as_bytes()).unwrap();
    let texts: Vec<String> = (0..8).map(|id| tokenizer.decode_token(id)).collect();
    assert_eq!(texts, [" ", "a", " a", " Paris", "Paris", "\n", "\u{fffd}", "<unk>"]);
    assert_eq!(tokenizer.single_token(" Paris"), Ok(3));
    assert_eq!(tokenizer.single_token("Paris"), Ok(4));
    // Dropout is for training: one text has one encoding.
    assert!((0..20).all(|_| tokenizer.encode("a") == [2]));
}

#[test]
fn what_the_tokenizers_crate_would_stop_at_is_refused_by_name() {
    let description = json!({
        "added_tokens": [], "normalizer": null, "pre_tokenizer": null, "decoder": null, "post_processor": null,
        "model": {"type": "BPE", "continuing_subword_prefix": "model", "vocab": {"a": 0, "b": 1, "ab": 2, "c": 3, "abc": 4},
            "merges": ["a b", "ab c"]},
    });
    let path = Path::new("folder/tokenizer.json");
    let error = Tokenizer::from_bytes(path, description.to_string().as_bytes()).unwrap_err().to_string();
    assert!(error.contains("folder/tokenizer.json") && error.contains("continuing_subword_prefix"), "{error}");
}

/// A tokenizer that is left to the crate, with one part of another's choice.
fn with_part(part: &str, rules: &Value) -> Result<Tokenizer, String> {
    let mut description = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": null, "decoder": null, "post_processor": null,
        "model": {"type": "BPE", "vocab": {"a": 0, "y": 1, "z": 2, "?": 3}, "merges": [], "unk_token": "?"},
    });
    description[part] = rules.clone();
    Tokenizer::from_bytes(Path::new("tokenizer.json"), description.to_string().as_bytes())
        .map_err(|error| error.to_string())
}

/// None of these rules would take much memory for the text `a`, if they were not refused before they run.
#[test]
fn rules_that_make_texts_longer_without_bound_are_refused_by_name() {
    let replace = json!({"type": "Replace", "pattern": {"String": "z"}, "content": "z".repeat(100)});
    let regex = json!({"type": "Replace", "pattern": {"Regex": "z?"}, "content": "z".repeat(20)});
    let no_type = json!({"pattern": {"String": "z"}, "content": "z".repeat(100)});
    let prepend = json!({"type": "Prepend", "prepend": "z".repeat(30)});
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
    let metaspace = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
    // A table without a trie whose one replacement has 602 letters, in base 64.
    let table = json!({"type": "Precompiled", "precompiled_charsmap": format!("AAAAAHh4{}", "eHh4".repeat(200))});
    let template = |times: usize| {
        let (a, b) = (json!({"Sequence": {"id": "A", "type_id": 0}}), json!({"Sequence": {"id": "B", "type_id": 0}}));
        json!({"type": "TemplateProcessing", "single": vec![&a; times], "pair": [a, b], "special_tokens": {}})
    };
    let in_part = |part: &str| match part {
        "normalizer" => "normalizers",
        "pre_tokenizer" => "pretokenizers",
        "decoder" => "decoders",
        _ => "processors",
    };
    let sequence = |part: &str, rules: Vec<Value>| json!({"type": "Sequence", in_part(part): rules});
    let several = |part: &str, rule: &Value, times: usize| sequence(part, vec![rule.clone(); times]);
    for (part, rules, named) in [
        ("normalizer", several("normalizer", &replace, 2), "Replace"),
        ("normalizer", sequence("normalizer", vec![several("normalizer", &replace, 1), replace.clone()]), "Replace"),
        ("normalizer", several("normalizer", &regex, 2), "z?"),
        ("normalizer", several("normalizer", &no_type, 2), "zzz"),
        ("normalizer", several("normalizer", &prepend, 2), "Prepend"),
        ("normalizer", several("normalizer", &json!({"type": "NFKD"}), 3), "NFKD"),
        ("normalizer", several("normalizer", &json!({"type": "ByteLevel"}), 10), "ByteLevel"),
        ("normalizer", table, "Precompiled"),
        ("pre_tokenizer", several("pre_tokenizer", &bytes, 10), "ByteLevel"),
        ("pre_tokenizer", several("pre_tokenizer", &metaspace, 5), "Metaspace"),
        ("decoder", several("decoder", &replace, 2), "Replace"),
        ("decoder", several("decoder", &bytes, 5), "ByteLevel"),
        ("decoder", several("decoder", &json!({"type": "BPEDecoder", "suffix": ""}), 3), "BPEDecoder"),
        ("post_processor", template(2), "2 times"),
        ("post_processor", template(0), "0 times"),
        ("post_processor", several("post_processor", &template(3), 1), "3 times"),
    ] {
        let error = with_part(part, &rules).map(|_| ()).unwrap_err();
        assert!(error.contains("tokenizer.json") && error.contains(part), "{part}, {rules}: {error}");
        assert!(error.contains(named) && error.lines().count() == 1 && error.len() < 500, "{part}, {rules}: {error}");
    }
    // The crate takes this for a replacement, whatever it says.
    let text = format!(
        r#"{{"added_tokens": [],
            "normalizer": {{"type": "ByteLevel", "type": "ByteLevel", "pattern": {{"String": "z"}}, "content": "{}"}},
            "model": {{"type": "WordLevel", "vocab": {{"a": 0}}, "unk_token": "a"}}}}"#,
        "z".repeat(600)
    );
    let error = Tokenizer::from_bytes(Path::new("x"), text.as_bytes()).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("Replace"), "{error}");
    // What SentencePiece's models have, with a table whose longest replacement is that of Unicode's own.
    let table = json!({"type": "Precompiled", "precompiled_charsmap": format!("AAAAAHh4{}", "eHh4".repeat(10))});
    let blanks = json!({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "});
    for (part, rules) in [
        ("normalizer", sequence("normalizer", vec![table, blanks])),
        ("normalizer", sequence("normalizer", vec![json!({"type": "NFKC"}), json!({"type": "Lowercase"})])),
        ("pre_tokenizer", metaspace),
        ("post_processor", several("post_processor", &template(1), 2)),
    ] {
        assert!(with_part(part, &rules).is_ok(), "{part}, {rules}");
    }
    // A long text would have no room if it were all `z`.
    let once = json!({"type": "Replace", "pattern": {"String": "z"}, "content": "z".repeat(500)});
    let tokenizer = with_part("normalizer", &once).unwrap();
    assert_eq!(tokenizer.encode("yz").len(), 501);
    assert!(tokenizer.encode(&"y".repeat(300_000)).is_empty());
}

/// The `tokenizers` library (0.23.3) leaves such characters out.
#[test]
fn text_of_which_a_part_has_no_token_has_no_tokens() {
    let description = |unknown: Value| {
        json!({
            "version": "1.0", "added_tokens": [], "normalizer": {"type": "NFC"}, "pre_tokenizer": null, "decoder": null,
            "post_processor": null,
            "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "?": 3}, "merges": [["a", "b"]],
                "unk_token": unknown},
        })
        .to_string()
    };
    let open = |unknown: Value| Tokenizer::from_bytes(Path::new("x"), description(unknown).as_bytes()).unwrap();
    let without = open(Value::Null);
    assert_eq!(without.encode("abba"), [2, 1, 0]);
    assert!(without.encode("a€b").is_empty());
    assert_eq!(without.encode("ab?"), [2, 3]);
    assert_eq!((without.n_vocab(), without.contains(4)), (4, false));
    assert_eq!(open(json!("?")).encode("a€b"), [0, 3, 1]);
}

#[test]
fn ids_without_a_token_are_told_from_tokens() {
    assert!(GPT2.contains(50256) && !GPT2.contains(50257));
    let words =
        json!({"added_tokens": [], "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 5}, "unk_token": "a"}});
    let words = Tokenizer::from_bytes(Path::new("tokenizer.json"), words.to_string().as_bytes()).unwrap();
    assert_eq!((0..7).filter(|id| words.contains(*id)).collect::<Vec<_>>(), [0, 5]);
}

#[test]
fn damaged_tokenizers_are_refused_by_name() {
    let path = Path::new("folder/tokenizer.json");
    let refused = |text: &str| {
        let error = Tokenizer::from_bytes(path, text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("folder/tokenizer.json"), "{error}");
        error
    };
    refused("");
    refused("[]");
    refused("{\"model\": 3}");
    let good = |model: Value, added: Value| {
        json!({
            "normalizer": null, "added_tokens": added, "decoder": {"type": "ByteLevel"},
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false},
            "model": model
        })
        .to_string()
    };
    let text = refused(&good(json!({"type": "BPE", "vocab": {"a": 0}, "merges": []}), json!([])));
    assert!(text.contains("no token for the byte"), "{text}");
    let text = refused(&good(json!({"type": "BPE", "vocab": {"日": 0}, "merges": []}), json!([])));
    assert!(text.contains("日"), "{text}");
    let text = refused(&good(json!({"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}), json!([])));
    assert!(text.contains("\"b\""), "{text}");
    let huge = json!([{"id": 4_000_000_000_u32, "content": "<x>"}]);
    let text = refused(&good(json!({"type": "BPE", "vocab": {"a": 0}, "merges": []}), huge));
    assert!(text.contains("4000000000"), "{text}");
    let words = json!({"type": "WordLevel", "vocab": {"a": 0, "b": 3_000_000_000_u32}, "unk_token": "a"});
    let text = refused(&json!({"added_tokens": [], "model": words}).to_string());
    assert!(text.contains("id 3000000000 among 2 tokens"), "{text}");
    let missing = Tokenizer::from_file(Path::new("no/such/tokenizer.json")).unwrap_err().to_string();
    assert!(missing.contains("no/such/tokenizer.json"), "{missing}");
}

/// Every pair of token and text in the reference's recorded answers, when they are at hand.
#[test]
fn it_agrees_with_every_recorded_answer() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let oracle = std::env::var_os("TDB_ORACLE").map_or_else(|| workspace.join("../shared/oracle"), PathBuf::from);
    let Ok(folders) = std::fs::read_dir(oracle.join("goldens")) else {
        eprintln!("no recorded answers in {}: set TDB_ORACLE", oracle.display());
        return;
    };
    let mut checked = 0;
    for folder in folders {
        for file in std::fs::read_dir(folder.unwrap().path()).unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            check(&serde_json::from_str(&text).unwrap(), &mut checked);
        }
    }
    assert!(checked > 8000, "only {checked} tokens found");
}

fn check(value: &Value, checked: &mut usize) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| check(value, checked)),
        Value::Object(object) => {
            for (key, ids) in object {
                let strings = key.strip_suffix("AsInts").and_then(|stem| object.get(&format!("{stem}AsStrings")));
                if let (Some(ids), Some(strings)) = (ids.as_array(), strings.and_then(Value::as_array)) {
                    let ids: Vec<u32> = ids.iter().map(|id| id.as_u64().unwrap() as u32).collect();
                    let decoded: Vec<String> = ids.iter().map(|&id| GPT2.decode_token(id)).collect();
                    assert_eq!(&decoded.iter().map(|s| json!(s)).collect::<Vec<_>>(), strings);
                    let text = GPT2.decode(&ids);
                    if key == "tokensAsInts" {
                        assert_eq!(GPT2.encode(&text), ids);
                    }
                    *checked += ids.len();
                }
                check(object.get(key).unwrap(), checked);
            }
        }
        _ => {}
    }
}
