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
    write_parquet_packed(path, schema, texts, parquet::basic::Compression::SNAPPY);
}

fn write_parquet_packed(path: &Path, schema: &str, texts: &[&str], packing: parquet::basic::Compression) {
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = WriterProperties::builder().set_compression(packing).build();
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
        ("latin.txt", b"n\xe4h\n", "line 1: is not UTF-8: byte 2 is 0xe4"),
        ("a.jsonl", b"\n{\"txt\": 1}", "no text in this file that can be read; "),
        ("a.jsonl", b"\n{\"txt\": 1}", "line 2: has no field `text`; it is an object with the fields txt"),
        ("b.jsonl", b"{\"text\": 3}", "line 1: `text` is a number, not a string"),
        ("b.json", b"[{\"text\": null}, {\"text\"", "entry 1: `text` is null, not a string"),
        ("c.jsonl", b"\n{\"text\"", "line 2: is not JSON"),
        ("c.parquet", b"PAR1 no", "c.parquet: is not Parquet"),
    ] {
        let path = write(name, content);
        let from_all = message(&path);
        assert!(from_all.contains(expected), "{from_all}");
        assert!(check(&path[0]).unwrap_err().to_string().contains(expected));
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
    let unreadable = small.unreadable.clone();
    assert!(small.next().is_none());
    let first = unreadable.first().unwrap();
    assert!(first.contains("token 31373 (\"hello\"), which is none of the model's 100"), "{first}");
}

fn packed(text: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(text, ruzstd::encoding::CompressionLevel::Fastest)
}

/// Texts of the sequences without the token before them.
fn texts(files: &[PathBuf]) -> Vec<String> {
    let tokenizer = Tokenizer::gpt2();
    let cutting = Cutting { tokens: 64, first: None };
    let all = Sequences::new(files, tokenizer.clone(), 50257, cutting, Shard::WHOLE).unwrap();
    all.map(|sequence| tokenizer.decode(&sequence.unwrap().tokens)).collect()
}

#[test]
fn the_same_documents_come_under_any_name_and_packing() {
    let folder = tempfile::tempdir().unwrap();
    let lines: String = DOCUMENTS.map(|d| serde_json::json!({"id": 1, "text": d}).to_string() + "\n").concat();
    let values = DOCUMENTS.map(|d| serde_json::json!({"meta": ["]", {"a": "\\\"}"}], "text": d}));
    let list = serde_json::Value::from(values.to_vec());
    let strings = serde_json::to_string(&DOCUMENTS).unwrap();
    let gzip = |text: &str| {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut out, text.as_bytes()).unwrap();
        out.finish().unwrap()
    };
    // Two members, as `cat a.gz b.gz` makes them.
    let (first, rest) = lines.split_at(lines.find('\n').unwrap() + 1);
    // A frame that holds no text, as `pzstd` writes them.
    let skipped = [&0x184d_2a50u32.to_le_bytes()[..], &4u32.to_le_bytes(), b"none"].concat();
    let mut marked = DOCUMENTS.join("\n<|endoftext|>\n");
    marked += "<|endoftext|>";
    let files: Vec<(&str, Vec<u8>)> = vec![
        ("lines.json", lines.clone().into_bytes()),
        ("lines.txt", lines.clone().into_bytes()),
        ("lines", lines.clone().into_bytes()),
        ("windows.jsonl", lines.replace('\n', "\r\n").into_bytes()),
        ("mark.jsonl", format!("\u{feff}{lines}").into_bytes()),
        ("list.json", list.to_string().into_bytes()),
        ("list.jsonl", list.to_string().into_bytes()),
        ("list.txt", serde_json::to_string_pretty(&list).unwrap().into_bytes()),
        (
            "pretty.json",
            values.iter().map(|v| serde_json::to_string_pretty(v).unwrap() + "\n").collect::<String>().into(),
        ),
        ("strings.json", strings.into_bytes()),
        ("lines.jsonl.gz", [gzip(first), gzip(rest)].concat()),
        ("list.json.gz", gzip(&list.to_string())),
        ("no-name", gzip(&lines)),
        ("lines.jsonl.zst", [packed(first.as_bytes()), skipped, packed(rest.as_bytes())].concat()),
        ("marked.txt", marked.clone().into_bytes()),
        ("marked.jsonl", serde_json::json!({ "text": marked }).to_string().into_bytes()),
        ("marked.txt.zst", packed(marked.as_bytes())),
    ];
    for (name, content) in files {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        check(&path).unwrap();
        assert_eq!(texts(&[path]), DOCUMENTS, "{name}");
    }
}

#[test]
fn empty_lines_do_not_end_documents_that_are_marked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.txt");
    fs::write(&path, "\u{feff}One.\n\nTwo.<|endoftext|>\n\nThree.\r\n\r\n<|endoftext|><|endoftext|>\nFour.\n").unwrap();
    assert_eq!(texts(std::slice::from_ref(&path)), ["One.\n\nTwo.", "Three.", "Four."]);
    fs::write(&path, "{x} is no JSON.\n\n[1] Neither is this.\n").unwrap();
    assert_eq!(texts(&[path]), ["{x} is no JSON.", "[1] Neither is this."]);
}

#[test]
fn columns_are_read_with_every_packing_that_writers_use() {
    use parquet::basic::{BrotliLevel, Compression, GzipLevel};
    let folder = tempfile::tempdir().unwrap();
    for packing in [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::LZ4_RAW,
        Compression::GZIP(GzipLevel::default()),
        Compression::BROTLI(BrotliLevel::default()),
    ] {
        // Under a name that says nothing.
        let path = folder.path().join("column");
        write_parquet_packed(&path, "message m { required binary text (UTF8); }", &DOCUMENTS, packing);
        check(&path).unwrap();
        assert_eq!(texts(&[path]), DOCUMENTS, "{packing}");
    }
}

/// Written by pyarrow: both versions of pages, with and without a dictionary, several row groups, rows without text.
#[test]
fn columns_that_other_programs_packed_with_zstd_are_read() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    for name in ["zstd-v1.parquet", "zstd-v2.parquet"] {
        let found = texts(&[fixtures.join(name)]);
        let expected: Vec<String> = (0..40).map(|i| format!("Document {} is here.", i % 7)).collect();
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn files_that_hold_no_text_are_named_before_anything_else_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n";
    for (name, content, expected) in [
        ("pointer.txt", &pointer[..], "is a Git LFS pointer"),
        ("pointer.parquet", pointer, "is a Git LFS pointer"),
        ("wide.txt", b"\xff\xfea\0b\0", "is UTF-16"),
        ("a.jsonl.bz2", b"BZh91AY", "is packed with bzip2"),
        ("a.txt", b"PK\x03\x04....", "is a zip archive"),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        let error = check(&path).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(expected), "{error}");
        assert_eq!(message(&[path]), error);
    }
    assert!(check(folder.path()).unwrap_err().to_string().contains("is not a regular file"));
    // Packed text that ends too early is not taken for all of it.
    let path = folder.path().join("cut.txt.zst");
    let whole = packed(&b"a text\n\n".repeat(1000));
    fs::write(&path, &whole[..whole.len() - 3]).unwrap();
    assert!(message(&[path]).contains("cut.txt.zst"));
}

#[cfg(unix)]
#[test]
fn a_pipe_is_refused_before_it_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe.jsonl");
    let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    assert!(check(&path).unwrap_err().to_string().contains("is not a regular file"));
    assert!(message(&[PathBuf::from("/dev/zero")]).contains("is not a regular file"));
}

#[test]
fn what_cannot_be_read_is_left_out_and_counted_up_to_a_limit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    let bad =
        ["{\"text\": null}", "{\"text\": \"\\ud800\"}", "{\"text\": \"a\", \"x\": NaN}", "nonsense", "{\"txt\": 1}"];
    let good = serde_json::json!({ "text": DOCUMENTS[0] }).to_string();
    fs::write(&path, [&bad.join("\n"), &good, "[1", &good].map(|s| s.to_owned() + "\n").concat()).unwrap();
    let files = [path];
    let read = |shard: Shard, unreadable: &Unreadable| {
        let cutting = Cutting { tokens: 64, first: None };
        let all = Sequences::new(&files, Tokenizer::gpt2(), 50257, cutting, shard).unwrap().counting(unreadable);
        all.collect::<Result<Vec<_>>>()
    };
    let unreadable = Unreadable::up_to(6);
    assert_eq!(read(Shard::WHOLE, &unreadable).unwrap().len(), 2);
    assert_eq!(unreadable.count(), 6);
    assert!(unreadable.first().unwrap().contains("a.jsonl, line 1: `text` is null"));
    // Another pass over the same text counts none of them again.
    assert_eq!(read(Shard { index: 1, count: 2 }, &unreadable).unwrap().len(), 1);
    assert_eq!(unreadable.count(), 6);
    let error = read(Shard::WHOLE, &Unreadable::up_to(5)).unwrap_err().to_string();
    assert!(error.starts_with("more than 5 documents cannot be read, such as ") && error.contains("line 1"), "{error}");
}

#[test]
fn a_line_that_is_too_long_is_left_out_alone() {
    let folder = tempfile::tempdir().unwrap();
    for (name, between) in [("a.jsonl", "\n"), ("a.json", "")] {
        let path = folder.path().join(name);
        let long = format!("{{\"text\": \"{}\"}}", "x".repeat(lines::LONGEST));
        let good = serde_json::json!({ "text": "short" }).to_string();
        let all = [good.as_str(), &long, &good].join(if between.is_empty() { "," } else { between });
        fs::write(&path, if between.is_empty() { format!("[{all}]") } else { all }).unwrap();
        assert_eq!(texts(&[path]), ["short", "short"], "{name}");
    }
}

#[test]
fn a_column_that_lies_outside_its_file_is_a_sentence() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/negative-offset.parquet");
    let error = check(&path).unwrap_err().to_string();
    assert!(error.contains("negative-offset.parquet: is damaged"), "{error}");
}
