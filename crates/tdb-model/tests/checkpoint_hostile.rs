//! `.pt` files that lie, are cut off or were changed: always an error that names the file, never a panic, and never
//! more memory than a small multiple of the file.

#![allow(unsafe_code, reason = "what is allocated is counted by an allocator of our own")]
#![allow(clippy::unwrap_used)] // also in the helpers of tests

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

use tdb_model::checkpoint;
use tdb_model::{AutoencoderSite, Config, LatentActivation, NamedAutoencoder};

/// Counts what is allocated, so that a test can say how much one call took at most.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Tests of this file run one at a time: they measure memory.
static TURN: Mutex<()> = Mutex::new(());

const D: usize = 4;
const LATENTS: usize = 3;

struct Folder {
    _turn: MutexGuard<'static, ()>,
    _temp: tempfile::TempDir,
    path: PathBuf,
}

impl Folder {
    fn new() -> Self {
        let turn = TURN.lock().unwrap_or_else(|broken| broken.into_inner());
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().to_owned();
        Folder { _turn: turn, _temp: temp, path }
    }

    /// Reads an autoencoder of one layer from these bytes. Checks that little memory is taken and that an error names
    /// the file.
    fn read(&self, file: &[u8]) -> Result<NamedAutoencoder, String> {
        let config = Config::gpt2(1, D, 1, 8, 4, 16);
        fs::write(self.path.join("0.pt"), file).unwrap();
        let before = NOW.load(Ordering::Relaxed);
        PEAK.store(before, Ordering::Relaxed);
        let result = checkpoint::open_autoencoder(&self.path, Some(AutoencoderSite::ResidDeltaMlp), &config);
        let taken = PEAK.load(Ordering::Relaxed) - before;
        assert!(taken < (1 << 20) + 80 * file.len(), "{taken} bytes for a file of {}", file.len());
        result.map_err(|error| {
            let text = error.to_string();
            assert!(text.contains("0.pt") && text.len() < 2000, "{text}");
            text
        })
    }

    #[track_caller]
    fn refused(&self, file: &[u8], what: &str) {
        let text = self.read(file).map(|_| ()).expect_err(what);
        assert!(text.contains(what), "{text} should say {what}");
    }
}

/// How a zip archive is written.
#[derive(Clone, Copy, Default)]
struct ZipStyle {
    wide: bool,
    method: u16,
    flags: u16,
}

fn zip(entries: &[(String, Vec<u8>)], style: ZipStyle) -> Vec<u8> {
    let mut file = Vec::new();
    let mut directory = Vec::new();
    for (name, data) in entries {
        let start = file.len();
        let extra = (64 - (start + 30 + name.len() + 4) % 64) as u16;
        file.extend(*b"PK\x03\x04\x00\x00");
        file.extend(style.flags.to_le_bytes());
        file.extend(style.method.to_le_bytes());
        file.extend([0; 16]);
        file.extend((name.len() as u16).to_le_bytes());
        file.extend((extra + 4).to_le_bytes());
        file.extend(name.as_bytes());
        file.extend(*b"FB");
        file.extend(extra.to_le_bytes());
        file.extend(vec![b'Z'; extra as usize]);
        file.extend(data);
        let small = |n: usize| if style.wide { u32::MAX } else { n as u32 }.to_le_bytes();
        directory.extend(*b"PK\x01\x02\x00\x00\x00\x00");
        directory.extend(style.flags.to_le_bytes());
        directory.extend(style.method.to_le_bytes());
        directory.extend([0; 8]);
        directory.extend(small(data.len()));
        directory.extend(small(data.len()));
        directory.extend((name.len() as u16).to_le_bytes());
        directory.extend(if style.wide { 36u16 } else { 0 }.to_le_bytes());
        directory.extend([0; 10]);
        directory.extend(small(start));
        directory.extend(name.as_bytes());
        if style.wide {
            // An unrelated field first, then the 64-bit one.
            directory.extend(*b"xx\x04\x00abcd\x01\x00\x18\x00");
            for number in [data.len(), data.len(), start] {
                directory.extend((number as u64).to_le_bytes());
            }
        }
    }
    let start = file.len();
    file.extend(&directory);
    let end = file.len();
    if style.wide {
        file.extend(*b"PK\x06\x06\x2c\x00\x00\x00\x00\x00\x00\x00\x1e\x03\x2d\x00");
        file.extend([0; 8]);
        for number in [entries.len(), entries.len(), directory.len(), start] {
            file.extend((number as u64).to_le_bytes());
        }
        file.extend(*b"PK\x06\x07\x00\x00\x00\x00");
        file.extend((end as u64).to_le_bytes());
        file.extend(1u32.to_le_bytes());
    }
    file.extend(*b"PK\x05\x06\x00\x00\x00\x00");
    file.extend((entries.len() as u16).to_le_bytes());
    file.extend((entries.len() as u16).to_le_bytes());
    file.extend((directory.len() as u32).to_le_bytes());
    file.extend((start as u32).to_le_bytes());
    file.extend([0; 2]);
    file
}

fn string(text: &str) -> Vec<u8> {
    [b"X".as_slice(), &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()
}

fn number(number: i64) -> Vec<u8> {
    [b"\x8a\x08".as_slice(), &number.to_le_bytes()].concat()
}

/// A tensor as torch pickles it, every part at will.
#[derive(Clone)]
struct Tensor {
    class: &'static str,
    entry: String,
    elements: i64,
    offset: i64,
    shape: Vec<i64>,
    strides: Vec<i64>,
}

impl Tensor {
    fn new(entry: usize, shape: &[i64]) -> Self {
        let strides = (0..shape.len()).map(|i| shape[i + 1..].iter().product()).collect();
        Tensor {
            class: "FloatStorage",
            entry: entry.to_string(),
            elements: shape.iter().product(),
            offset: 0,
            shape: shape.to_vec(),
            strides,
        }
    }

    fn pickle(&self) -> Vec<u8> {
        let tuple = |numbers: &[i64]| {
            let all: Vec<u8> = numbers.iter().flat_map(|&n| number(n)).collect();
            [b"(".as_slice(), &all, b"t"].concat()
        };
        [
            b"ctorch._utils\n_rebuild_tensor_v2\n((".as_slice(),
            &string("storage"),
            format!("ctorch\n{}\n", self.class).as_bytes(),
            &string(&self.entry),
            &string("cuda:0"),
            &number(self.elements),
            b"tQ",
            &number(self.offset),
            &tuple(&self.shape),
            &tuple(&self.strides),
            b"\x89ccollections\nOrderedDict\n)RtR",
        ]
        .concat()
    }
}

/// The four weights of an autoencoder, whose storages are the entries 0 to 3.
fn weights() -> [(&'static str, Tensor); 4] {
    let (d, n) = (D as i64, LATENTS as i64);
    [
        ("pre_bias", Tensor::new(0, &[d])),
        ("latent_bias", Tensor::new(1, &[n])),
        ("encoder.weight", Tensor::new(2, &[n, d])),
        ("decoder.weight", Tensor::new(3, &[d, n])),
    ]
}

fn pickle(tensors: &[(&str, Tensor)]) -> Vec<u8> {
    let mut bytes = b"\x80\x02}(".to_vec();
    for (key, tensor) in tensors {
        bytes.extend(string(key));
        bytes.extend(tensor.pickle());
    }
    for (key, value) in [("activation", string("Identity")), ("activation_state_dict", b"}".to_vec())] {
        bytes.extend(string(key));
        bytes.extend(value);
    }
    bytes.extend(*b"u.");
    bytes
}

/// A whole file: this pickle, and storages of the right lengths with numbers of `width` bytes.
fn entries(pickle: Vec<u8>, prefix: &str, width: usize) -> Vec<(String, Vec<u8>)> {
    let mut entries = vec![(format!("{prefix}data.pkl"), pickle)];
    for (at, len) in [D, LATENTS, LATENTS * D, D * LATENTS].into_iter().enumerate() {
        let numbers = (0..len).flat_map(|i| match width {
            2 => half::f16::from_f32(i as f32).to_le_bytes().to_vec(),
            4 => (i as f32).to_le_bytes().to_vec(),
            _ => (i as f64).to_le_bytes().to_vec(),
        });
        entries.push((format!("{prefix}data/{at}"), numbers.collect()));
    }
    entries.push((format!("{prefix}version"), b"3\n".to_vec()));
    entries
}

fn file(pickle: Vec<u8>) -> Vec<u8> {
    zip(&entries(pickle, "archive/", 4), ZipStyle::default())
}

#[test]
fn every_kind_of_archive_and_number_is_read() {
    let folder = Folder::new();
    let check = |file: &[u8]| {
        let read = folder.read(file).unwrap();
        let layer = &read.layers[0];
        assert_eq!(layer.encoder_pre_bias, [0.0, 1.0, 2.0, 3.0]);
        assert_eq!(layer.encoder.row(2), [8.0, 9.0, 10.0, 11.0]);
        assert_eq!(layer.decoder.row(3), [9.0, 10.0, 11.0]);
        assert_eq!(layer.activation, LatentActivation::Identity);
    };
    for prefix in ["archive/", "a name with spaces é/", ""] {
        for wide in [false, true] {
            check(&zip(&entries(pickle(&weights()), prefix, 4), ZipStyle { wide, ..ZipStyle::default() }));
        }
    }
    for (class, width) in [("HalfStorage", 2), ("DoubleStorage", 8)] {
        let tensors = weights().map(|(key, tensor)| (key, Tensor { class, ..tensor }));
        check(&zip(&entries(pickle(&tensors), "archive/", width), ZipStyle::default()));
    }
    // bfloat16 is the upper half of a float.
    let tensors = weights().map(|(key, tensor)| (key, Tensor { class: "BFloat16Storage", ..tensor }));
    let mut halves = entries(pickle(&tensors), "archive/", 4);
    for (name, data) in &mut halves {
        if name.contains("/data/") {
            *data = data.chunks_exact(4).flat_map(|four| [four[2], four[3]]).collect();
        }
    }
    check(&zip(&halves, ZipStyle::default()));
    // An archive comment after the end.
    let mut commented = file(pickle(&weights()));
    let len = commented.len();
    commented[len - 2..].copy_from_slice(&5u16.to_le_bytes());
    commented.extend(*b"hello");
    check(&commented);
    // Parameters instead of tensors, and a nested `_metadata`.
    let mut parameter = b"\x80\x02ccollections\nOrderedDict\n)R(".to_vec();
    for (key, tensor) in weights() {
        parameter.extend(string(key));
        parameter.extend(*b"ctorch._utils\n_rebuild_parameter\n(");
        parameter.extend(tensor.pickle());
        parameter.extend(*b"\x88ccollections\nOrderedDict\n)RtR");
    }
    parameter.extend([string("activation"), string("Identity")].concat());
    parameter.extend(*b"u}");
    parameter.extend(string("_metadata"));
    parameter.extend(*b"ccollections\nOrderedDict\n)Rsb.");
    check(&file(parameter));
}

#[test]
fn tensors_that_do_not_fit_their_storage_are_refused() {
    let folder = Folder::new();
    folder.read(&file(pickle(&weights()))).unwrap();
    let with = |change: &dyn Fn(&mut Tensor)| {
        let mut tensors = weights();
        change(&mut tensors[2].1);
        file(pickle(&tensors))
    };
    folder.refused(&with(&|t| t.shape = vec![1 << 40, 1 << 40]), "does not fit");
    folder.refused(&with(&|t| t.shape = vec![i64::MAX, 4]), "does not fit");
    folder.refused(&with(&|t| t.shape = vec![3, -4]), "-4");
    folder.refused(&with(&|t| t.strides = vec![4, -1]), "-1");
    folder.refused(&with(&|t| t.strides = vec![4]), "does not fit");
    folder.refused(&with(&|t| t.strides = vec![i64::MAX, i64::MAX]), "does not fit");
    folder.refused(&with(&|t| t.offset = 1), "does not fit");
    folder.refused(&with(&|t| t.offset = i64::MAX), "does not fit");
    folder.refused(&with(&|t| t.offset = -1), "-1");
    folder.refused(&with(&|t| t.elements = 13), "13 numbers");
    folder.refused(&with(&|t| t.elements = i64::MAX), "numbers");
    folder.refused(&with(&|t| t.elements = -1), "numbers");
    folder.refused(&with(&|t| t.shape = vec![1; 9]), "9 dimensions");
    folder.refused(&with(&|t| t.class = "DoubleStorage"), "8 bytes");
    folder.refused(&with(&|t| t.class = "ComplexFloatStorage"), "torch.ComplexFloatStorage");
    folder.refused(&with(&|t| t.class = "IntStorage"), "I32");
    folder.refused(&with(&|t| t.class = "Module"), "torch.Module");
    for name in ["9", "../0", "/etc/passwd", "../data.pkl", ""] {
        folder.refused(&with(&|t| t.entry = name.to_owned()), "missing");
    }
    // More numbers than the storage holds, by reading the same ones again and again.
    folder.refused(
        &with(&|t| {
            t.shape = vec![1 << 20, 1 << 10];
            t.strides = vec![0, 0];
        }),
        "does not fit",
    );
    // A transposed view is fine.
    let transposed = with(&|t| t.strides = vec![1, 3]);
    assert_eq!(folder.read(&transposed).unwrap().layers[0].encoder.row(1), [1.0, 4.0, 7.0, 10.0]);
}

#[test]
fn pickles_that_want_more_than_tensors_are_refused() {
    let folder = Folder::new();
    let refused = |bytes: Vec<u8>, what: &str| folder.refused(&file(bytes), what);
    for (module, name) in
        [("os", "system"), ("posix", "system"), ("builtins", "eval"), ("torch", "load"), ("torch.storage", "x")]
    {
        let call = format!("c{module}\n{name}\n(");
        refused([call.as_bytes(), &string("echo"), b"tR."].concat(), &format!("{module}.{name}"));
        refused([string(module), string(name), b"\x93.".to_vec()].concat(), &format!("{module}.{name}"));
    }
    refused(b"\x80\x09.".to_vec(), "protocol 9");
    refused(b"\x80\x02".to_vec(), "cut off");
    refused(b".".to_vec(), "the stack is empty");
    refused(b"NN.".to_vec(), "more than one");
    refused(b"(.".to_vec(), "a mark");
    refused(b"N.".to_vec(), "None");
    refused(b"}(NNu.".to_vec(), "None");
    refused(b"}(Nu.".to_vec(), "without a value");
    refused(b"h\x05.".to_vec(), "remembered as 5");
    refused(b"j\xff\xff\xff\xff.".to_vec(), "remembered as 4294967295");
    refused(b"(q\x00.".to_vec(), "mark");
    refused(b"(\x85.".to_vec(), "mark");
    refused(b"cos\n".to_vec(), "without an end");
    refused([b"c".as_slice(), &[b'x'; 5000]].concat(), "without an end");
    refused(b"X\xff\xff\xff\xffabc".to_vec(), "cut off");
    refused(b"X\x01\x00\x00\x00\xff.".to_vec(), "UTF-8");
    refused(b"\x8a\xff\x01".to_vec(), "cut off");
    refused(b"\x8a\x09\x01\x01\x01\x01\x01\x01\x01\x01\x01.".to_vec(), "9 bytes");
    refused(b"NNR.".to_vec(), "a call of None");
    refused(b"ccollections\nOrderedDict\nN\x85R.".to_vec(), "not understood");
    refused(b"NNb.".to_vec(), "attributes for None");
    refused(b"NQ.".to_vec(), "persistent id");
    refused(b")Q.".to_vec(), "persistent id");
    for opcode in [b'i', b'o', b'P', b'I', b'S', 0x81, 0x82, 0x90, 0x97, 0xff] {
        refused(vec![0x80, 2, opcode], "opcode");
    }
}

#[test]
fn large_and_deep_pickles_are_refused_without_taking_memory() {
    let folder = Folder::new();
    folder.refused(&file(vec![b'('; 1 << 20]), "values");
    folder.refused(&file(vec![b')'; 1 << 20]), "values");
    folder.refused(&file(vec![b'N'; 1 << 20]), "values");
    folder.refused(&file(b"}".repeat(1 << 20)), "values");
    folder.refused(&file(b"Nq\x00h\x00q\x01".repeat(1 << 18)), "values");
    folder.refused(&file([b")".as_slice(), &vec![0x85; 1 << 20]].concat()), "values");
    folder.refused(&file([b"]q\x00".as_slice(), &b"h\x00a".repeat(1 << 18)].concat()), "values");
    folder.refused(&file(vec![b'N'; 5 << 20]), "pickle of 5242880 bytes");
    let memo: Vec<u8> = (0..1 << 19).flat_map(|i: u32| [b"Nr".as_slice(), &i.to_le_bytes(), b"0"].concat()).collect();
    folder.refused(&file(memo), "opcode 0x30");
    let memo: Vec<u8> = (0..1 << 19).flat_map(|i: u32| [b"r".as_slice(), &(i * 8191).to_le_bytes()].concat()).collect();
    folder.refused(&file([b"N".as_slice(), &memo].concat()), "values");
    // Nested as deep as allowed, and a dict that holds itself: neither is followed.
    let deep = [b")".as_slice(), &vec![0x85; 100_000], b"."].concat();
    folder.refused(&file(deep), "a tuple");
    let cyclic = [b"}q\x00".as_slice(), &string("activation"), b"h\x00s."].concat();
    folder.refused(&file(cyclic), "`latent_bias` is missing");
}

#[test]
fn archives_that_lie_are_refused() {
    let folder = Folder::new();
    let good = entries(pickle(&weights()), "archive/", 4);
    folder.refused(b"", "not a zip archive");
    folder.refused(&[0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46], "before 1.6");
    folder.refused(b"PK\x03\x04", "not a zip archive");
    folder.refused(&zip(&good, ZipStyle { method: 8, ..ZipStyle::default() }), "compressed (method 8)");
    folder.refused(&zip(&good, ZipStyle { flags: 1, ..ZipStyle::default() }), "encrypted");
    folder.refused(&zip(&good[1..], ZipStyle::default()), "data.pkl");
    folder.refused(&zip(&[good.as_slice(), &good[..1]].concat(), ZipStyle::default()), "data.pkl");
    folder.refused(&zip(&[good.as_slice(), &good[1..2]].concat(), ZipStyle::default()), "twice");
    folder.refused(&zip(&good[..4], ZipStyle::default()), "data/3");
    let big_endian = [good.as_slice(), &[("archive/byteorder".to_owned(), b"big".to_vec())]].concat();
    folder.refused(&zip(&big_endian, ZipStyle::default()), "big");
    let little_endian = [good.as_slice(), &[("archive/byteorder".to_owned(), b"little".to_vec())]].concat();
    folder.read(&zip(&little_endian, ZipStyle::default())).unwrap();

    let mut short = good.clone();
    short[3].1.pop();
    folder.refused(&zip(&short, ZipStyle::default()), "12 numbers of 4 bytes");
    let many: Vec<_> = (0..70_000).map(|i| (format!("archive/x{i}"), Vec::new())).collect();
    folder.refused(&zip(&[good.as_slice(), &many].concat(), ZipStyle::default()), "zip entries");

    // Every number of the directory and the end, in turn, as large as it can be.
    for wide in [false, true] {
        let whole = zip(&good, ZipStyle { wide, ..ZipStyle::default() });
        let directory = whole.windows(4).position(|bytes| bytes == b"PK\x01\x02").unwrap();
        let mut refused = 0;
        for at in directory..whole.len() - 3 {
            for value in [[u32::MAX, 0x7fff_ffff], [0x8000_0000, whole.len() as u32]][at % 2] {
                let mut changed = whole.clone();
                changed[at..at + 4].copy_from_slice(&value.to_le_bytes());
                refused += usize::from(folder.read(&changed).is_err());
            }
        }
        assert!(refused > 300, "{refused}");
    }
}

#[test]
fn changed_and_cut_files_are_read_or_refused() {
    let folder = Folder::new();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 16) as usize % n
    };
    let [mut read, mut refused] = [0, 0];
    for wide in [false, true] {
        let whole = zip(&entries(pickle(&weights()), "archive/", 4), ZipStyle { wide, ..ZipStyle::default() });
        let pickle_at = whole.windows(3).position(|bytes| bytes == b"\x80\x02}").unwrap();
        let directory = whole.windows(4).position(|bytes| bytes == b"PK\x01\x02").unwrap();
        for len in (0..whole.len()).step_by(3) {
            assert!(folder.read(&whole[..len]).is_err());
        }
        for round in 0..2000 {
            let mut changed = whole.clone();
            // Change anything, or the pickle, or the directory.
            let range = [0..whole.len(), pickle_at..pickle_at + 900, directory..whole.len()][round % 3].clone();
            for _ in 0..=random(4) {
                let at = range.start + random(range.len() - 8);
                match random(5) {
                    0 => changed[at] ^= 1 << random(8),
                    1 => changed[at] = random(256) as u8,
                    2 => changed[at..at + 8].fill([0, 0xff, 0x7f, 0x80][random(4)]),
                    3 => {
                        let from = range.start + random(range.len() - 8);
                        changed.copy_within(from..from + 8, at);
                    }
                    _ => {
                        let byte = b"(}])R.sutQbqhN0lXcK\x85\x86\x87\x8a\x89"[random(24)];
                        changed[at] = byte;
                    }
                }
            }
            match folder.read(&changed) {
                Ok(autoencoder) => {
                    assert_eq!(autoencoder.layers[0].encoder.to_vec().len(), LATENTS * D);
                    read += 1;
                }
                Err(_) => refused += 1,
            }
        }
    }
    assert!(read > 100 && refused > 1500, "{read} read, {refused} refused");
}

#[test]
fn a_folder_in_place_of_a_file_is_refused() {
    let folder = Folder::new();
    fs::create_dir(folder.path.join("model_pieces")).unwrap();
    fs::write(
        folder.path.join("config.json"),
        r#"{"enc":"gpt2","ctx_window":4,"d_model":4,"n_layers":1,"m_attn":1,"n_heads":1,"m_mlp":2}"#,
    )
    .unwrap();
    fs::create_dir(folder.path.join("model_pieces/tok_embed.weight.pt")).unwrap();
    let text = checkpoint::open(Path::new(&folder.path)).unwrap_err().to_string();
    assert!(text.contains("tok_embed.weight.pt") && text.contains("not a file"), "{text}");
}

#[cfg(unix)]
#[test]
fn a_config_is_a_file_and_may_begin_with_a_mark() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus");
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.json");
    let error = || tdb_model::checkpoint::open(folder.path()).unwrap_err().to_string();
    assert!(std::process::Command::new("mkfifo").arg(&config).status().unwrap().success());
    assert!(error().ends_with("config.json: not a file"), "{}", error());
    std::fs::remove_file(&config).unwrap();
    std::os::unix::fs::symlink("nowhere", &config).unwrap();
    assert!(error().contains("config.json: cannot be read"), "{}", error());
    std::fs::remove_file(&config).unwrap();
    let text = std::fs::read(source.join("config/gpt2.json")).unwrap();
    std::fs::write(&config, ["\u{feff}".as_bytes(), &text].concat()).unwrap();
    assert!(error().contains("model.safetensors.index.json"), "{}", error());
}

#[cfg(unix)]
#[test]
fn pipes_loops_and_pointers_in_the_place_of_weights_are_named() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus");
    let folder = tempfile::tempdir().unwrap();
    let weights = folder.path().join("model.safetensors");
    for (from, to) in [("config/gpt2.json", "config.json"), ("tokenizer/plain.json", "tokenizer.json")] {
        std::fs::copy(source.join(from), folder.path().join(to)).unwrap();
    }
    let refused = |part: &str| {
        let error = tdb_model::checkpoint::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("model.safetensors") && error.contains(part), "{error}");
        std::fs::remove_file(&weights).unwrap();
    };
    assert!(std::process::Command::new("mkfifo").arg(&weights).status().unwrap().success());
    refused("not a file");
    std::os::unix::fs::symlink(&weights, &weights).unwrap();
    refused("symbolic links");
    for (header, sentence) in [
        (
            r#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"w":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
            "`w` stands in its header twice",
        ),
        (r#"{"w":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#, "`w` of shape [3] takes 12 bytes as F32"),
    ] {
        let len = (header.len() as u64).to_le_bytes();
        std::fs::write(&weights, [&len[..], header.as_bytes(), &[0; 8]].concat()).unwrap();
        refused(sentence);
    }
    std::fs::write(&weights, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n").unwrap();
    refused("Git LFS pointer");
}
