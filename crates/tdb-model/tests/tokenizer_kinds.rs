//! Tokenizers of every family's kind (`tests/fixtures/tokenizers`) against what the Python package made of the same texts;
//! the token that texts begin with; and tokenizers without a `tokenizer.json`.

#![allow(clippy::unwrap_used)] // also in the helpers of tests

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tdb_model::{NotOneToken, Tokenizer, checkpoint};
use tdb_testkit::families::Copied;

const KINDS: [&str; 10] =
    ["gpt2", "neox", "llama3", "qwen2", "smollm", "llama2", "mistral", "gemma", "unigram", "wordpiece"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/tokenizers")
}

fn open(kind: &str) -> Tokenizer {
    Tokenizer::from_file(&folder().join(format!("{kind}.json"))).unwrap()
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn texts_are_split_as_by_the_python_package() {
    let expected = read(&folder().join("expected.json"));
    let texts: Vec<String> = serde_json::from_value(expected["texts"].clone()).unwrap();
    for kind in KINDS {
        let tokenizer = open(kind);
        let all: Vec<Vec<u32>> = serde_json::from_value(expected[kind].clone()).unwrap();
        for (text, ids) in texts.iter().zip(all) {
            assert_eq!(tokenizer.encode(text), ids, "{kind}: {text:?}");
        }
    }
}

#[test]
fn a_token_is_found_by_its_own_text() {
    for kind in KINDS {
        let tokenizer = open(kind);
        for id in (0..tokenizer.n_vocab() as u32).filter(|id| tokenizer.contains(*id)) {
            let text = tokenizer.decode_token(id);
            match tokenizer.single_token(&text) {
                Ok(found) => assert_eq!(found, id, "{kind}: {text:?}"),
                Err(NotOneToken::Shared { ids, .. }) => assert!(ids.contains(&id), "{kind}: {text:?}"),
                // Tokens that are nothing by themselves, such as those that only begin words.
                Err(other) => assert!(text.is_empty(), "{kind}: {id} {text:?}: {other}"),
            }
        }
    }
    for kind in ["llama2", "mistral", "gemma", "unigram"] {
        let tokenizer = open(kind);
        let bytes = tokenizer.added("<0xE6>").map(|id| tokenizer.decode_token(id));
        assert!(bytes.is_none_or(|text| text == "\u{fffd}"), "{kind}");
        let sum: String = tokenizer.encode("Mary and John").iter().map(|id| tokenizer.decode_token(*id)).collect();
        assert_eq!(sum.trim_start(), "Mary and John", "{kind}: blanks belong to the words that they stand before");
    }
}

#[test]
fn what_texts_begin_with_is_known_and_never_put_there() {
    let beginning = |kind: &str| {
        let tokenizer = open(kind);
        assert!(tokenizer.encode("").is_empty(), "{kind}");
        tokenizer.beginning().map(|id| tokenizer.decode_token(id))
    };
    for (kind, expected) in [
        ("llama3", Some("<|begin_of_text|>")),
        ("llama2", Some("<s>")),
        ("mistral", Some("<s>")),
        ("gemma", Some("<bos>")),
        ("gpt2", None),
        ("neox", None),
        ("qwen2", None),
    ] {
        assert_eq!(beginning(kind).as_deref(), expected, "{kind}");
    }
    // Of a model: GPT-2's kin separate texts by a token that no file puts there; settings may say yes or no.
    let of_model = |model: &str, kind: &str, settings: Value| {
        let copied = Copied::new(model).unwrap();
        fs::copy(folder().join(format!("{kind}.json")), copied.path.join("tokenizer.json")).unwrap();
        fs::write(copied.path.join("tokenizer_config.json"), settings.to_string()).unwrap();
        let checkpoint = checkpoint::open(&copied.path).unwrap();
        checkpoint.beginning.map(|id| checkpoint.tokenizer.decode_token(id))
    };
    let none = json!({});
    for (model, kind, settings, expected) in [
        ("gpt-neo", "gpt2", &none, Some("<|endoftext|>")),
        ("gpt-neox-parallel", "neox", &json!({"add_bos_token": false}), Some("<|endoftext|>")),
        ("gpt-neo", "wordpiece", &none, None),
        ("llama-biases", "llama3", &none, Some("<|begin_of_text|>")),
        ("llama-biases", "llama3", &json!({"add_bos_token": false}), None),
        ("llama-biases", "smollm", &none, None),
        ("llama-biases", "smollm", &json!({"add_bos_token": true, "bos_token": "<|im_start|>"}), Some("<|im_start|>")),
        ("qwen3", "qwen2", &json!({"add_bos_token": false, "bos_token": null}), None),
        ("gemma-3", "gemma", &json!({"add_bos_token": true, "bos_token": {"content": "<bos>"}}), Some("<bos>")),
    ] {
        assert_eq!(of_model(model, kind, settings.clone()).as_deref(), expected, "{model}, {kind}, {settings}");
    }
}

#[test]
fn vocab_and_merges_are_the_same_tokenizer() {
    let texts: Vec<String> = serde_json::from_value(read(&folder().join("expected.json"))["texts"].clone()).unwrap();
    for (model, kind) in [("gpt-neo", "gpt2"), ("gpt2-first-files", "gpt2"), ("qwen2", "qwen2")] {
        let copied = Copied::new(model).unwrap();
        let description = read(&folder().join(format!("{kind}.json")));
        let pair = |pair: &Value| match pair {
            Value::Array(parts) => format!("{} {}", parts[0].as_str().unwrap(), parts[1].as_str().unwrap()),
            line => line.as_str().unwrap().to_owned(),
        };
        let merges: Vec<String> = description["model"]["merges"].as_array().unwrap().iter().map(pair).collect();
        fs::write(copied.path.join("vocab.json"), description["model"]["vocab"].to_string()).unwrap();
        fs::write(copied.path.join("merges.txt"), format!("#version: 0.2\n{}\n", merges.join("\n"))).unwrap();
        let added: serde_json::Map<String, Value> = description["added_tokens"]
            .as_array()
            .unwrap()
            .iter()
            .map(|token| (token["id"].to_string(), json!({"content": token["content"]})))
            .collect();
        fs::write(
            copied.path.join("tokenizer_config.json"),
            json!({"added_tokens_decoder": added, "bos_token": null}).to_string(),
        )
        .unwrap();
        fs::remove_file(copied.path.join("tokenizer.json")).unwrap();
        let checkpoint = checkpoint::open(&copied.path).unwrap();
        let whole = open(kind);
        for text in &texts {
            assert_eq!(checkpoint.tokenizer.encode(text), whole.encode(text), "{model}: {text:?}");
        }
    }
    // What does not say how texts are split is not guessed.
    let copied = Copied::new("llama-biases").unwrap();
    fs::remove_file(copied.path.join("tokenizer.json")).unwrap();
    for (name, what) in [("tokenizer.model", "save_pretrained"), ("vocab.json", "save_pretrained")] {
        fs::write(copied.path.join(name), "{}").unwrap();
        let text = checkpoint::open(&copied.path).map(|found| found.origin).unwrap_err().to_string();
        assert!(text.contains("tokenizer.json") && text.contains(what), "{text}");
    }
    fs::write(copied.path.join("merges.txt"), "").unwrap();
    let text = checkpoint::open(&copied.path).map(|found| found.origin).unwrap_err().to_string();
    assert!(text.contains("how a llama splits texts"), "{text}");
}

/// GPT-2's kind as `tokenizers` 0.23.3 has it, whose answers these are.
#[test]
fn byte_level_tokens_are_those_of_the_library_or_refused() {
    let opened = |change: &dyn Fn(&mut Value)| {
        let mut description = read(&folder().join("gpt2.json"));
        change(&mut description);
        Tokenizer::from_bytes(Path::new("tokenizer.json"), description.to_string().as_bytes())
            .map_err(|error| error.to_string())
    };
    let added = |tokens: &[(&str, u32, bool)]| {
        let tokens = tokens.iter().map(|(content, id, normalized)| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": normalized, "special": !normalized})
        });
        let tokens: Vec<Value> = tokens.collect();
        opened(&move |description| description["added_tokens"].as_array_mut().unwrap().extend(tokens.clone()))
    };
    // Of a merge that stands there twice the last place counts.
    let merged_twice = opened(&|description| {
        let merges = description["model"]["merges"].as_array_mut().unwrap();
        merges.extend_from_within(..40);
    });
    assert_eq!(open("gpt2").encode("When Mary"), [55, 72, 265, 338, 89]);
    assert_eq!(merged_twice.unwrap().encode("When Mary"), [55, 304, 78, 338, 89]);
    // Tokens that are not normalised are looked for first.
    let two = added(&[("ab", 340, true), ("bc", 341, false)]).unwrap();
    for (text, ids) in [("abc", &[65, 341][..]), ("ab bc", &[340, 221, 341]), ("xabcab", &[88, 65, 341, 340])] {
        assert_eq!(two.encode(text), ids, "{text}");
    }
    // The library gives added tokens other ids than these files do.
    for (tokens, named) in [
        (&[("a", 340, false)][..], ["\"a\"", "340 and 65"]),
        (&[("<x>", 5, false)], ["\"<x>\" and the token \"%\"", "same id, 5"]),
        (&[("<x>", 839, false)], ["\"<x>\"", "839, where the next one, 340"]),
        (&[("<x>", 340, false), ("<y>", 340, false)], ["\"<y>\"", "340, where the next one, 341"]),
        (&[("<x>", 340, false), ("<x>", 341, true)], ["\"<x>\"", "341 and 340"]),
    ] {
        let error = added(tokens).unwrap_err();
        assert!(named.iter().all(|named| error.contains(named)), "{tokens:?}: {error}");
    }
    let error = opened(&|description| description["model"]["vocab"]["zzz"] = json!(65)).unwrap_err();
    assert!(error.contains("\"a\" and \"zzz\" have the same id, 65"), "{error}");
}

/// A model with GPT-2's vocabulary in two files, without a `tokenizer.json`.
fn in_two_files(model: &str, more: &[&str]) -> Copied {
    let copied = Copied::new(model).unwrap();
    let mut description = read(&folder().join("gpt2.json"));
    let vocab = description["model"]["vocab"].as_object_mut().unwrap();
    for token in more {
        let id = vocab.len();
        vocab.insert((*token).to_owned(), json!(id));
    }
    let pair = |pair: &Value| format!("{} {}\n", pair[0].as_str().unwrap(), pair[1].as_str().unwrap());
    let merges: String = description["model"]["merges"].as_array().unwrap().iter().map(pair).collect();
    fs::write(copied.path.join("vocab.json"), description["model"]["vocab"].to_string()).unwrap();
    fs::write(copied.path.join("merges.txt"), format!("#version: 0.2\n{merges}")).unwrap();
    fs::remove_file(copied.path.join("tokenizer.json")).unwrap();
    copied
}

#[track_caller]
fn refused(folder: &Path, named: &[&str]) {
    let error = checkpoint::open(folder).map(|found| found.origin).unwrap_err().to_string();
    assert!(named.iter().all(|named| error.contains(named)), "{error} should name {named:?}");
}

/// What `transformers` 5.24.0 makes of the same folders.
#[test]
fn a_blank_before_texts_is_put_there_where_the_settings_say_so() {
    let write = |folder: &Path, settings: &Value| {
        fs::write(folder.join("tokenizer_config.json"), settings.to_string()).unwrap();
    };
    let tokens = |folder: &Path, text: &str| checkpoint::open(folder).unwrap().tokenizer.encode(text);
    for model in ["gpt-neo", "gpt2-first-files", "qwen2"] {
        let folder = in_two_files(model, &[]);
        write(&folder.path, &json!({"add_prefix_space": true}));
        assert_eq!(tokens(&folder.path, "a"), [319], "{model}");
        assert_eq!(tokens(&folder.path, "When Mary"), [221, 55, 72, 265, 338, 89], "{model}");
        assert_eq!(tokens(&folder.path, "a<|endoftext|>b"), [319, 0, 221, 66], "{model}");
        for without in [json!(false), Value::Null] {
            write(&folder.path, &json!({"add_prefix_space": without}));
            assert_eq!(tokens(&folder.path, "When Mary"), [55, 72, 265, 338, 89], "{model}");
        }
        write(&folder.path, &json!({"add_prefix_space": "yes"}));
        refused(&folder.path, &["tokenizer_config.json", "add_prefix_space", "true, false or null", "yes"]);
    }
    let whole = |model: &str, kind: &str, settings: Value| {
        let copied = Copied::new(model).unwrap();
        fs::copy(self::folder().join(format!("{kind}.json")), copied.path.join("tokenizer.json")).unwrap();
        write(&copied.path, &settings);
        copied
    };
    for (model, kind, class, ids) in [
        ("gpt-neo", "gpt2", Value::Null, [319, 0, 221, 66]),
        ("gpt-neo", "gpt2", json!("GPT2TokenizerFast"), [319, 0, 221, 66]),
        ("gpt-neox-parallel", "neox", Value::Null, [320, 0, 222, 67]),
        ("gpt-neox-parallel", "neox", json!("GPTNeoXTokenizerFast"), [320, 0, 222, 67]),
    ] {
        let settings = |add: bool| json!({"add_prefix_space": add, "tokenizer_class": class});
        let folder = whole(model, kind, settings(true));
        assert_eq!(tokens(&folder.path, "a<|endoftext|>b"), ids, "{model}, {class}");
        // And the other way round.
        let mut description = read(&folder.path.join("tokenizer.json"));
        description["pre_tokenizer"]["add_prefix_space"] = json!(true);
        fs::write(folder.path.join("tokenizer.json"), description.to_string()).unwrap();
        write(&folder.path, &settings(false));
        assert_eq!(tokens(&folder.path, "a"), open(kind).encode("a"), "{model}, {class}");
    }
    // Versions differ in what counts for other classes.
    for (model, kind, add, class) in [
        ("gpt-neo", "gpt2", true, json!("PreTrainedTokenizerFast")),
        ("qwen2", "qwen2", true, json!("Qwen2Tokenizer")),
        ("llama-biases", "llama2", false, json!("LlamaTokenizer")),
        ("llama-biases", "mistral", false, Value::Null),
        ("gemma-3", "gemma", true, json!("GemmaTokenizer")),
    ] {
        let settings = |add: bool| json!({"add_prefix_space": add, "tokenizer_class": class});
        let folder = whole(model, kind, settings(add));
        refused(&folder.path, &["tokenizer_config.json", "add_prefix_space", &format!("is {add}"), "tokenizer.json"]);
        write(&folder.path, &settings(!add));
        assert_eq!(tokens(&folder.path, "When Mary"), open(kind).encode("When Mary"), "{model}, {kind}");
    }
}

/// What `transformers` 5.24.0 makes of the same folders.
#[test]
fn special_tokens_are_known_from_every_place_that_names_them() {
    let folder = in_two_files("gpt-neo", &["<x>"]);
    let tokens = |text: &str| checkpoint::open(&folder.path).unwrap().tokenizer.encode(text);
    assert_eq!(tokens("<x> a"), [28, 88, 30, 319]);
    for (file, settings) in [
        ("special_tokens_map.json", json!({"additional_special_tokens": ["<x>"]})),
        ("tokenizer_config.json", json!({"additional_special_tokens": [{"content": "<x>", "lstrip": false}]})),
        ("tokenizer_config.json", json!({"extra_special_tokens": {"image_token": "<x>"}})),
        ("tokenizer_config.json", json!({"bos_token": {"content": "<x>"}, "additional_special_tokens": null})),
    ] {
        fs::write(folder.path.join(file), settings.to_string()).unwrap();
        assert_eq!(tokens("<x> a"), [340, 319], "{settings}");
        fs::remove_file(folder.path.join(file)).unwrap();
    }
    let config = folder.path.join("tokenizer_config.json");
    fs::write(&config, json!({"additional_special_tokens": "<x>"}).to_string()).unwrap();
    refused(&folder.path, &["tokenizer_config.json", "additional_special_tokens", "a list of tokens"]);
    // The library would give them the next id, 341, which no embedding of the model is for.
    for (key, tokens) in [("additional_special_tokens", json!(["ab"])), ("pad_token", json!("ab"))] {
        fs::write(&config, json!({key: tokens}).to_string()).unwrap();
        refused(&folder.path, &["tokenizer_config.json", key, "vocab.json", "\"ab\""]);
    }
    // Whether a token is looked for before or after the others is said by `normalized`, or by whether it is special.
    let folder = in_two_files("gpt-neo", &[]);
    let settings =
        json!({"added_tokens_decoder": {"340": {"content": "ab"}, "341": {"content": "bc", "special": true}}});
    fs::write(folder.path.join("tokenizer_config.json"), settings.to_string()).unwrap();
    let tokenizer = checkpoint::open(&folder.path).unwrap().tokenizer;
    assert_eq!(tokenizer.encode("abc"), [65, 341]);
    assert_eq!(tokenizer.encode("xabcab"), [88, 65, 341, 340]);
}

/// Blanks by the hundred thousand: what follows them is split as ever.
#[test]
fn long_runs_of_blanks_change_nothing_behind_them() {
    for kind in KINDS {
        let tokenizer = open(kind);
        let tail = tokenizer.encode("a Mary and John");
        let long = tokenizer.encode(&format!("x{}\na Mary and John", " ".repeat(300_000)));
        assert_eq!(long[long.len() - tail.len() + 1..], tail[1..], "{kind}");
        // Where they would be too many for the crate, there is no answer rather than a wrong one.
        let longer = tokenizer.encode(&format!("x{}\na Mary and John", " ".repeat(600_000)));
        assert!(longer.is_empty() || longer[longer.len() - tail.len() + 1..] == tail[1..], "{kind}");
    }
}
