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
