//! `tdb collate` and `tdb train-sae` as a person uses them, with text of their own: what comes out is right, whole
//! after a kill and the same however it was cut up, and what goes wrong is a sentence.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use tdb_data::{NodeExplanations, NodeRecord, Registry};
use tdb_model::{ForwardOptions, Numbers, Run, Site, Slot, Transformer, checkpoint};

const DATE: [&str; 2] = ["--date", "2026-01-31T12:00:00Z"];

fn command(folder: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tdb"));
    command.current_dir(folder).args(line.split_whitespace()).env("TDB_CACHE", folder.join("cache"));
    for variable in ["TDB_REGISTRY", "TDB_MODELS", "TDB_OFFLINE"] {
        command.env_remove(variable);
    }
    command
}

/// Runs `tdb` and returns whether it succeeded, and what it wrote to either stream.
fn tdb(folder: &Path, line: &str) -> (bool, String) {
    said(command(folder, line).output().unwrap())
}

fn said(output: Output) -> (bool, String) {
    (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

fn done(folder: &Path, line: &str) -> String {
    let (ok, text) = tdb(folder, line);
    assert!(ok, "{line}: {text}");
    text
}

/// Paragraphs, each another one.
fn documents(count: usize) -> Vec<String> {
    let names = ["Mary", "John", "Anna", "Tom", "Sarah"];
    let places = ["store", "park", "school", "river"];
    let one = |i: usize| {
        let (a, b, place) = (names[i % 5], names[(i / 5 + i + 1) % 5], places[i % 4]);
        format!("When {a} and {b} went to the {place}, {b} gave a drink to {a} number {i}.")
    };
    (0..count).map(one).collect()
}

fn write_text(folder: &Path, count: usize) -> PathBuf {
    let path = folder.join("my.txt");
    fs::write(&path, documents(count).join("\n\n")).unwrap();
    path
}

fn write_parquet(path: &Path, texts: &[String]) {
    let schema = Arc::new(parse_message_type("message m { required binary text (UTF8); }").unwrap());
    let file = fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(WriterProperties::default())).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let values: Vec<ByteArray> = texts.iter().map(|text| ByteArray::from(text.as_str())).collect();
    column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
}

/// All files below a folder with their bytes, by name.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let (mut out, mut open) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(next) = open.pop() {
        for path in fs::read_dir(next).unwrap().map(|entry| entry.unwrap().path()) {
            match path.is_dir() {
                true => open.push(path),
                false => out.push((path.strip_prefix(folder).unwrap().display().to_string(), fs::read(&path).unwrap())),
            }
        }
    }
    out.sort();
    out
}

fn same(a: &Path, b: &Path) {
    let (a, b) = (files(a), files(b));
    let names = |files: &[(String, Vec<u8>)]| files.iter().map(|f| f.0.clone()).collect::<Vec<_>>();
    assert_eq!(names(&a), names(&b));
    let differs: Vec<_> = a.iter().zip(&b).filter(|(a, b)| a.1 != b.1).map(|(a, _)| &a.0).collect();
    assert!(differs.is_empty() && !a.is_empty(), "{differs:?}");
}

fn embedded() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../datasets/embedded")
}

#[test]
fn records_of_ones_own_text_equal_brute_force() {
    let folder = tempfile::tempdir().unwrap();
    let (folder, texts) = (folder.path(), documents(30));
    write_text(folder, 30);
    let lines: Vec<String> = texts.iter().map(|t| serde_json::json!({"text": t}).to_string()).collect();
    fs::write(folder.join("my.jsonl"), lines.join("\n")).unwrap();
    write_parquet(&folder.join("my.parquet"), &texts);
    let told = done(folder, "collate my.txt --out text --layout both --k 6 --random 3 --tokens 24");
    assert!(told.contains("tdb serve --registry text/registry.toml"), "{told}");
    done(folder, "collate my.jsonl --out json --layout files --k 6 --random 3 --tokens 24 --no-explanations");
    done(folder, "collate my.parquet --out rows --layout files --k 6 --random 3 --tokens 24 --no-explanations");
    for other in ["json", "rows"] {
        same(&folder.join("text/files"), &folder.join(other).join("files"));
    }

    let checkpoint = checkpoint::open(&embedded()).unwrap();
    let (config, tokenizer) = (checkpoint.config.clone(), checkpoint.tokenizer);
    let autoencoder =
        |name: &str| checkpoint::open_autoencoder(&embedded().join("autoencoders").join(name), None, &config).unwrap();
    let model = Transformer::load(checkpoint.config, checkpoint.weights).unwrap();
    let model = model.attach(autoencoder("sae-resid-delta-mlp")).unwrap();
    let model = model.attach(autoencoder("sae-resid-delta-attn")).unwrap();
    let first = tokenizer.single_token("<|endoftext|>").unwrap();
    let cut = |text: &String| -> Vec<Vec<u32>> {
        let tokens = tokenizer.encode(text);
        tokens.chunks(23).map(|part| [&[first], part].concat()).collect()
    };
    let runs: Vec<_> =
        texts.iter().flat_map(cut).map(|tokens| model.forward(&tokens, ForwardOptions::default()).unwrap()).collect();
    assert!(runs.len() >= 30, "{}", runs.len());
    let mut compared = 0;
    for scalar in ["mlp_post_act", "mlp_autoencoder_latent", "attention_autoencoder_latent"] {
        for (layer, unit) in [(0, 7), (1, 100), (2, 3), (3, 60), (3, 1)] {
            let values = |run: &Run| -> Vec<f32> {
                let latents = |slot| &run.latents(slot, layer).unwrap().latents;
                let neurons = run.get(Site::MlpPostAct, layer).unwrap();
                let neurons = Numbers::of(&neurons).unwrap();
                let value = |token| match scalar {
                    "mlp_post_act" => neurons.at(&[token, unit]),
                    "mlp_autoencoder_latent" => latents(Slot::Mlp).get(token, unit),
                    _ => latents(Slot::Attention).get(token, unit),
                };
                (0..run.tokens().len()).map(value).collect()
            };
            // The first token does not count.
            let largest = |values: &[f32]| values[1..].iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let mut all: Vec<(Vec<u32>, Vec<f32>)> = runs.iter().map(|r| (r.tokens().to_vec(), values(r))).collect();
            // What occurs again, up to the token of its largest value, counts once; of latents those that are active.
            let mut seen = Vec::new();
            all.retain(|(tokens, values)| {
                let peak = 1 + values[1..].iter().position(|x| *x == largest(values)).unwrap();
                let beginning = tokens[..=peak].to_vec();
                let new = !seen.contains(&beginning) && (scalar == "mlp_post_act" || largest(values) > 0.0);
                seen.push(beginning);
                new
            });
            all.sort_by(|a, b| largest(&b.1).total_cmp(&largest(&a.1)));
            all.truncate(6);
            let path = folder.join(format!("text/files/{scalar}/{layer}/{unit}.json"));
            let record = NodeRecord::parse("record", &fs::read(path).unwrap()).unwrap();
            assert_eq!(record.most_positive.len(), all.len());
            for (found, (tokens, values)) in record.most_positive.iter().zip(&all) {
                let tokens: Vec<String> = tokens.iter().map(|t| tokenizer.decode_token(*t)).collect();
                assert_eq!(found.tokens, tokens, "{scalar} {layer}:{unit}");
                assert!(found.activations.iter().zip(values).all(|(a, b)| (a - b).abs() < 1e-5));
                compared += 1;
            }
        }
    }
    assert!(compared > 50, "{compared}");
    // What the registry beside the results lists is there.
    let registry = Registry::read(&folder.join("text/registry.toml")).unwrap();
    assert_eq!((registry.records.len(), registry.explanations.len()), (5, 5));
    assert!(registry.records.iter().all(|r| Path::new(&r.location).join("3.records").is_file()));
    for entry in &registry.explanations {
        let text = fs::read_to_string(Path::new(&entry.location).join("0.jsonl")).unwrap();
        let first = NodeExplanations::parse("line", text.lines().next().unwrap().as_bytes()).unwrap();
        assert!(first.explanations[0].explanation.is_some());
    }
}

#[test]
fn shards_made_anywhere_and_merged_in_any_order_give_the_bytes_of_one_run() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_text(folder, 60);
    let settings = format!("--k 5 --random 4 --tokens 20 {}", DATE.join(" "));
    done(folder, &format!("collate my.txt --out one --shards 1 {settings}"));
    for (at, shard) in [6, 0, 3, 7, 1, 5, 2, 4].into_iter().enumerate() {
        // On two machines, as it were.
        let told = done(folder, &format!("collate my.txt --out part{} --shard {shard}/8 {settings}", at % 2));
        assert!(told.contains("--merge"), "{told}");
    }
    let missing = tdb(folder, &format!("collate my.txt --out part0 --shards 8 --merge {settings}"));
    assert!(!missing.0 && missing.1.contains("these shards are missing: 0/8, 4/8, 5/8, 7/8"), "{}", missing.1);
    for (name, content) in files(&folder.join("part0/summaries")) {
        fs::write(folder.join("part1/summaries").join(name), content).unwrap();
    }
    done(folder, &format!("collate my.txt --out part1 --shards 8 --merge {settings}"));
    for what in ["records", "explanations"] {
        same(&folder.join("one").join(what), &folder.join("part1").join(what));
    }
}

/// Kills a process when `reached`; false if it ended by itself before.
fn kill_when(mut command: Command, reached: impl Fn() -> bool) -> bool {
    let mut process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let begin = Instant::now();
    while !reached() {
        assert!(begin.elapsed() < Duration::from_secs(120), "it never came to that");
        if process.try_wait().unwrap().is_some() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    process.kill().unwrap();
    process.wait().unwrap();
    true
}

#[test]
fn a_killed_collation_goes_on_and_ends_as_if_nothing_had_happened() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_text(folder, 400);
    let line =
        |out: &str| format!("collate my.txt --out {out} --shards 16 --tokens 20 --only mlp_post_act --no-explanations");
    let finished = || {
        let entries = fs::read_dir(folder.join("killed/summaries")).into_iter().flatten().flatten();
        entries.filter(|e| e.path().extension().is_some_and(|e| e == "summary")).count()
    };
    for wanted in [2, 7] {
        assert!(kill_when(command(folder, &line("killed")), || finished() >= wanted), "it was too fast to be killed");
    }
    let kept = finished();
    let told = done(folder, &line("killed"));
    assert!(told.contains(&format!("{} work units made, {kept} were there already", 16 - kept)), "{told}");
    done(folder, &line("whole"));
    same(&folder.join("whole"), &folder.join("killed"));
}

#[test]
fn what_cannot_be_collated_is_said_in_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_text(folder, 3);
    fs::write(folder.join("empty.txt"), "\n \n").unwrap();
    fs::write(folder.join("latin.txt"), b"fine\n\ncaf\xe9\n").unwrap();
    fs::write(folder.join("number.jsonl"), "{\"text\": 3}\n").unwrap();
    fs::write(folder.join("no.parquet"), "PAR1").unwrap();
    for (line, part) in [
        ("nothing.txt", "nothing.txt: No such file"),
        ("empty.txt", "there is no text in this file"),
        ("latin.txt --max-unreadable 0", "latin.txt, line 3: is not UTF-8: byte 4 is 0xe9"),
        ("number.jsonl", "line 1: `text` is a number"),
        ("no.parquet", "is not Parquet"),
        ("my.txt --only mlp_pre_act", "\"mlp_pre_act\" is not collated; there are mlp_post_act"),
        ("my.txt --mlp-autoencoder nope", "\"nope\" is no folder"),
        ("my.txt --model gpt5", "gpt2-small"),
        ("my.txt --model gpt2-small --offline", "offline mode is on"),
        ("my.txt --tokens 500", "takes 1 to 128 tokens"),
        ("my.txt --tokens 0", "takes 1 to 128 tokens"),
        ("my.txt --show 1,2", "three numbers"),
        ("my.txt --layers 2..9", "within 0..4"),
        ("my.txt --shard 3/3", "is not of the form i/n"),
        ("my.txt --merge", "summaries"),
    ] {
        let (ok, text) = tdb(folder, &format!("collate {line} --out out"));
        assert!(!ok && text.contains(part) && !text.contains("panicked"), "{line}: {text}");
    }
    // A model without autoencoders has no latents.
    let bare = folder.join("bare_model");
    fs::create_dir(&bare).unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(embedded().join(name), bare.join(name)).unwrap();
    }
    let (ok, text) = tdb(folder, "collate my.txt --model bare_model --only mlp_autoencoder_latent --out out");
    assert!(!ok && text.contains("needs autoencoders"), "{text}");
    done(folder, "collate my.txt --model bare_model --out bare-out");
    let registry = Registry::read(&folder.join("bare-out/registry.toml")).unwrap();
    let scalars: Vec<&str> = registry.records.iter().map(|r| r.scalar.as_str()).collect();
    assert_eq!((scalars, registry.records[0].name.as_str()), (vec!["mlp_post_act", "attn_write_norm"], "bare-model"));
    // A text of the same name and size that says something else is another text.
    let text = fs::read_to_string(folder.join("my.txt")).unwrap();
    fs::write(folder.join("my.txt"), text.replace("Mary", "Anna")).unwrap();
    let (ok, said) = tdb(folder, "collate my.txt --model bare_model --out bare-out");
    assert!(!ok && said.contains("not of the same collation: content is"), "{said}");
    fs::write(folder.join("my.txt"), text).unwrap();
    let (ok, text) = tdb(folder, "collate my.txt --model bare_model --out bare-out --seed 5");
    assert!(!ok && text.contains("not of the same collation: seed is 1 in one and 5"), "{text}");
}

/// A limit on the size of files stands in for a full disk: the write fails in the middle of a file.
#[cfg(unix)]
#[test]
fn a_full_disk_is_a_sentence_and_leaves_no_part() {
    let folder = tempfile::tempdir().unwrap();
    write_text(folder.path(), 20);
    let script = format!("ulimit -f 8; exec '{}' collate my.txt --out out 2>&1 | cat", env!("CARGO_BIN_EXE_tdb"));
    let output = Command::new("bash").args(["-c", &script]).current_dir(folder.path()).output().unwrap();
    let (_, text) = said(output);
    assert!(text.contains(".summary could not be written, and nothing of it was kept"), "{text}");
    assert!(files(&folder.path().join("out")).is_empty());
}

#[test]
fn dictionaries_of_every_kind_are_the_same_after_a_kill_and_are_served_and_exported() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_text(folder, 80);
    let config = checkpoint::open(&embedded()).unwrap().config;
    for (kind, site) in
        [("--k 4", "resid-delta-mlp"), ("--l1 0.01", "mlp-post-act"), ("--l1 0.01 --skip", "mlp-transcoder")]
    {
        let out = |name: &str| folder.join(name).join("mine");
        let line = |name: &str| {
            let sizes = "--latents 32 --tokens 8000 --batch 128 --buffer 1024 --context 32";
            format!("train-sae my.txt --site {site} {kind} {sizes} --out {name}/mine --sae-lens {name}/lens")
        };
        let told = done(folder, &line("whole"));
        assert!(told.contains("| 3 | ") && told.contains("holds the autoencoders"), "{told}");
        let state = out("cut").join("training-state.safetensors");
        assert!(kill_when(command(folder, &line("cut")), || state.exists()), "it was too fast to be killed");
        assert!(state.exists() && !out("cut").join("training.json").exists());
        done(folder, &line("cut"));
        same(&folder.join("whole"), &folder.join("cut"));
        let (ok, text) = tdb(folder, &line("whole"));
        assert!(!ok && text.contains("holds finished autoencoders; name another folder"), "{text}");
        let [own, lens] = ["mine", "lens"]
            .map(|name| checkpoint::open_autoencoder(&folder.join("whole").join(name), None, &config).unwrap());
        assert_eq!(
            (own.site, own.layers.len(), own.layers[2].encoder.row(3)),
            (lens.site, 4, lens.layers[2].encoder.row(3))
        );
        // Its latents are collated under its name.
        done(folder, "collate my.txt --out latents --mlp-autoencoder whole/mine --only mlp_autoencoder_latent");
        let registry = Registry::read(&folder.join("latents/registry.toml")).unwrap();
        assert_eq!(registry.records[0].name, "embedded_mine");
        let explained = folder.join("latents/explanations/mlp_autoencoder_latent/0.jsonl");
        assert_eq!(fs::read_to_string(explained).unwrap().lines().count(), 32);
        for name in ["whole", "cut", "latents"] {
            fs::remove_dir_all(folder.join(name)).unwrap();
        }
    }
    for (line, part) in [
        ("my.txt --site resid-delta-mlp --k 600 --out x", "512 latents"),
        ("nothing.txt --site resid-delta-mlp --out x", "nothing.txt: No such file"),
        ("my.txt --site resid-post --out x", "possible values"),
        ("my.txt --site resid-delta-mlp --skip --out x", "only a transcoder has a skip connection"),
        ("my.txt --site mlp-transcoder --sae-lens y --out x", "SAELens has no transcoders with TopK"),
        ("my.txt --site resid-delta-mlp --context 500 --out x", "this model takes 2 to 128 tokens"),
    ] {
        let (ok, text) = tdb(folder, &format!("train-sae {line}"));
        assert!(!ok && text.contains(part) && !text.contains("panicked"), "{line}: {text}");
    }
}
