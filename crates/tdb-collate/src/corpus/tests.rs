use std::fs;

use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use super::*;

fn sequences(files: &[PathBuf], shard: Shard) -> Result<Vec<Arc<Sequence>>> {
    let cutting = Cutting { tokens: 5, first: Some(50256) };
    Sequences::new(files, Tokenizer::gpt2(), 50257, cutting, shard)?.collect()
}

fn message(files: &[PathBuf]) -> String {
    sequences(files, Shard::WHOLE).unwrap_err().to_string()
}

fn write_parquet(path: &Path, schema: &str, texts: &[&str]) {
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = WriterProperties::builder().set_compression(parquet::basic::Compression::SNAPPY).build();
    let mut writer = SerializedFileWriter::new(fs::File::create(path).unwrap(), schema, Arc::new(properties)).unwrap();
    let mut group = writer.next_row_group().unwrap();
    while let Some(mut column) = group.next_column().unwrap() {
        let values: Vec<ByteArray> = texts.iter().map(|t| ByteArray::from(*t)).collect();
        column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
}

const DOCUMENTS: [&str; 3] = ["The cat sat on the mat and slept all day.", "Paris, France.\nRome, Italy.", "é東京"];

#[test]
fn the_same_documents_come_from_every_format() {
    let folder = tempfile::tempdir().unwrap();
    let [text, json, parquet] = ["a.txt", "a.jsonl", "a.parquet"].map(|name| folder.path().join(name));
    fs::write(&text, format!("\n{}\r\n", DOCUMENTS.join("\n\n\n"))).unwrap();
    let lines = DOCUMENTS.map(|d| serde_json::json!({"id": 1, "text": d}).to_string() + "\n");
    fs::write(&json, lines.join("\n{\"text\": \"\"}\n")).unwrap();
    write_parquet(&parquet, "message m { required binary other (UTF8); required binary text (UTF8); }", &DOCUMENTS);
    let all = sequences(&[text], Shard::WHOLE).unwrap();
    assert_eq!(sequences(&[json], Shard::WHOLE).unwrap(), all);
    assert_eq!(sequences(&[parquet], Shard::WHOLE).unwrap(), all);

    let tokenizer = Tokenizer::gpt2();
    assert!(all.iter().all(|s| s.tokens.len() <= 5 && s.tokens[0] == 50256));
    let again: Vec<u32> = all.iter().flat_map(|s| &s.tokens[1..]).copied().collect();
    let whole: Vec<u32> = DOCUMENTS.iter().flat_map(|d| tokenizer.encode(d)).collect();
    assert_eq!(again, whole);
    assert!(all.windows(2).all(|w| w[0].number < w[1].number));
}

#[test]
fn shards_have_every_sequence_once_with_the_same_number() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.txt");
    fs::write(&path, (0..23).map(|i| format!("Document {i} is here, and long.\n\n")).collect::<String>()).unwrap();
    let files = [path.clone(), path];
    let all = sequences(&files, Shard::WHOLE).unwrap();
    let parts = (0..4).map(|index| sequences(&files, Shard { index, count: 4 }).unwrap());
    let mut together: Vec<_> = parts.flatten().collect();
    together.sort_by_key(|s| s.number);
    assert_eq!(together, all);
    assert_eq!(all[0].content(), all[all.len() / 2].content());
    assert_ne!(all[0].content(), all[1].content());
}

#[test]
fn what_cannot_be_read_is_named_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        [path]
    };
    for (name, content, expected) in [
        ("empty.txt", &b"\n \n"[..], "empty.txt: there is no text in this file"),
        ("latin.txt", b"fine\n\nn\xe4h\n", "latin.txt, line 3: is not UTF-8: byte 2 is 0xe4"),
        (
            "a.jsonl",
            b"{\"text\": \"a\"}\n{\"txt\": 1}",
            "a.jsonl, line 2: has no field `text`; it is an object with the fields txt",
        ),
        ("b.jsonl", b"{\"text\": 3}", "line 1: `text` is a number, not a string"),
        ("c.jsonl", b"\n{\"text\"", "c.jsonl, line 2: is not JSON"),
        ("c.parquet", b"PAR1 no", "c.parquet: is not Parquet"),
    ] {
        let message = message(&write(name, content));
        assert!(message.contains(expected), "{message}");
    }
    let parquet = folder.path().join("d.parquet");
    write_parquet(&parquet, "message m { required binary body (UTF8); }", &["a"]);
    assert!(message(&[parquet]).ends_with("has no column `text`; there are body"));
    assert!(message(&[folder.path().join("none.txt")]).contains("none.txt: No such file"));
    assert!(message(&[]).contains("no file was given"));
    for (text, good) in [("0/1", true), ("7/8", true), ("8/8", false), ("1", false), ("-1/2", false)] {
        assert_eq!(Shard::parse(text).is_ok(), good, "{text}");
    }
    let cutting = Cutting { tokens: 1, first: Some(0) };
    assert!(Sequences::new(&write("x.txt", b"a"), Tokenizer::gpt2(), 50257, cutting, Shard::WHOLE).is_err());
    let cutting = Cutting { tokens: 4, first: None };
    let mut small = Sequences::new(&write("x.txt", b"hello"), Tokenizer::gpt2(), 100, cutting, Shard::WHOLE).unwrap();
    assert!(small.next().unwrap().unwrap_err().to_string().contains("do not fit together"));
}
