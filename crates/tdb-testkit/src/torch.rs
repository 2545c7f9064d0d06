//! Writes what `torch.save` writes: a zip archive of stored members, a pickle among them that names the others.

use std::io::{self, Write};

use crc_fast::{CrcAlgorithm, Digest};

/// A value that a state dict may hold.
#[derive(Clone, Debug)]
pub enum Value {
    F32(Tensor<f32>),
    I64(Tensor<i64>),
    Int(u32),
    Str(String),
    Dict(Vec<(String, Value)>),
    OrderedDict(Vec<(String, Value)>),
    /// An `OrderedDict` with one attribute `_metadata`, as `nn.Module.state_dict()` returns.
    StateDict {
        entries: Vec<(String, Value)>,
        metadata: Vec<(String, Value)>,
    },
}

/// Values as they lie in the storage, with the shape and strides (in elements) by which they are read.
#[derive(Clone, Debug)]
pub struct Tensor<T> {
    pub data: Vec<T>,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
}

impl<T> Tensor<T> {
    /// Row-major.
    pub fn contiguous(data: Vec<T>, shape: &[usize]) -> Self {
        let strides = (0..shape.len()).map(|i| shape[i + 1..].iter().product()).collect();
        Self { data, shape: shape.to_vec(), strides }
    }
}

/// Writes `value` as a `.pt` file.
///
/// # Errors
/// Those of `out`, and values that this format's 32-bit sizes cannot hold.
pub fn save(value: &Value, out: &mut impl Write) -> io::Result<()> {
    let mut pickle = Pickle::default();
    pickle.bytes.extend([0x80, 2]);
    pickle.value(value)?;
    pickle.bytes.push(b'.');

    let mut zip = Zip::new(out);
    zip.member("archive/data.pkl", &[&pickle.bytes])?;
    zip.member("archive/.format_version", &[b"1"])?;
    zip.member("archive/.storage_alignment", &[b"64"])?;
    zip.member("archive/byteorder", &[b"little"])?;
    for (i, storage) in pickle.storages.iter().enumerate() {
        zip.member(&format!("archive/data/{i}"), &storage.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
    }
    zip.member("archive/version", &[b"3\n"])?;
    zip.member("archive/.data/serialization_id", &[b"0000000000000000000000000000000000000000"])?;
    zip.finish()
}

/// Writes an archive with these members.
///
/// # Errors
/// Those of `out`, and more bytes than this format's 32-bit sizes can hold.
pub fn archive(members: &[(&str, &[u8])], out: &mut impl Write) -> io::Result<()> {
    let mut zip = Zip::new(out);
    members.iter().try_for_each(|(name, content)| zip.member(name, &[*content]))?;
    zip.finish()
}

/// Protocol 2, with the opcodes and in the order of Python's pickler.
#[derive(Default)]
struct Pickle {
    bytes: Vec<u8>,
    /// Little-endian bytes of each storage, in pieces.
    storages: Vec<Vec<Vec<u8>>>,
    /// Strings and globals that were memoised, at their index; other memoised things are `None`.
    memo: Vec<Option<String>>,
}

impl Pickle {
    fn value(&mut self, value: &Value) -> io::Result<()> {
        match value {
            Value::F32(t) => self.tensor("FloatStorage", &t.shape, &t.strides, pieces(&t.data, f32::to_le_bytes)),
            Value::I64(t) => self.tensor("LongStorage", &t.shape, &t.strides, pieces(&t.data, i64::to_le_bytes)),
            Value::Int(n) => {
                self.int(*n);
                Ok(())
            }
            Value::Str(s) => {
                self.string(s);
                Ok(())
            }
            Value::Dict(entries) => {
                self.bytes.push(b'}');
                self.put(None);
                self.entries(entries)
            }
            Value::OrderedDict(entries) => {
                self.ordered_dict();
                self.entries(entries)
            }
            Value::StateDict { entries, metadata } => {
                self.ordered_dict();
                self.entries(entries)?;
                self.bytes.push(b'}');
                self.put(None);
                self.string("_metadata");
                self.ordered_dict();
                self.entries(metadata)?;
                self.bytes.extend(*b"sb"); // SETITEM, BUILD
                Ok(())
            }
        }
    }

    /// `collections.OrderedDict()`, still empty.
    fn ordered_dict(&mut self) {
        self.global("collections", "OrderedDict");
        self.bytes.extend(*b")R"); // EMPTY_TUPLE, REDUCE
        self.put(None);
    }

    fn entries(&mut self, entries: &[(String, Value)]) -> io::Result<()> {
        if entries.len() > 1 {
            self.bytes.push(b'(');
        }
        for (key, value) in entries {
            self.string(key);
            self.value(value)?;
        }
        match entries.len() {
            0 => {}
            1 => self.bytes.push(b's'),
            _ => self.bytes.push(b'u'),
        }
        Ok(())
    }

    fn tensor(&mut self, class: &str, shape: &[usize], strides: &[usize], data: Vec<Vec<u8>>) -> io::Result<()> {
        self.global("torch._utils", "_rebuild_tensor_v2");
        self.bytes.extend(*b"((");
        self.string("storage");
        self.global("torch", class);
        self.string(&self.storages.len().to_string());
        self.string("cpu");
        self.int(small(shape.iter().product())?);
        self.bytes.push(b't');
        self.put(None);
        self.bytes.push(b'Q'); // BINPERSID
        self.int(0);
        self.tuple(shape)?;
        self.tuple(strides)?;
        self.bytes.push(0x89); // NEWFALSE: no gradient
        self.ordered_dict(); // no backward hooks
        self.bytes.push(b't');
        self.put(None);
        self.bytes.push(b'R');
        self.put(None);
        self.storages.push(data);
        Ok(())
    }

    fn tuple(&mut self, items: &[usize]) -> io::Result<()> {
        if items.len() > 3 {
            self.bytes.push(b'(');
        }
        for &item in items {
            self.int(small(item)?);
        }
        self.bytes.push(match items.len() {
            0 => b')',
            1 => 0x85,
            2 => 0x86,
            3 => 0x87,
            _ => b't',
        });
        self.put(None);
        Ok(())
    }

    fn int(&mut self, n: u32) {
        match n {
            0..=0xFF => self.bytes.extend([b'K', n as u8]),
            0x100..=0xFFFF => {
                self.bytes.push(b'M');
                self.bytes.extend((n as u16).to_le_bytes());
            }
            _ => {
                self.bytes.push(b'J');
                self.bytes.extend(n.to_le_bytes());
            }
        }
    }

    fn string(&mut self, s: &str) {
        if !self.get(s) {
            self.bytes.push(b'X');
            self.bytes.extend((s.len() as u32).to_le_bytes());
            self.bytes.extend(s.as_bytes());
            self.put(Some(s.into()));
        }
    }

    fn global(&mut self, module: &str, name: &str) {
        let line = format!("{module}\n{name}\n");
        if !self.get(&line) {
            self.bytes.push(b'c');
            self.bytes.extend(line.as_bytes());
            self.put(Some(line));
        }
    }

    /// Refers to what was memoised under `key`, if anything was.
    fn get(&mut self, key: &str) -> bool {
        let Some(i) = self.memo.iter().position(|m| m.as_deref() == Some(key)) else { return false };
        self.memo_op(b'h', b'j', i);
        true
    }

    fn put(&mut self, key: Option<String>) {
        self.memo_op(b'q', b'r', self.memo.len());
        self.memo.push(key);
    }

    fn memo_op(&mut self, short: u8, long: u8, i: usize) {
        match u8::try_from(i) {
            Ok(i) => self.bytes.extend([short, i]),
            Err(_) => {
                self.bytes.push(long);
                self.bytes.extend((i as u32).to_le_bytes());
            }
        }
    }
}

/// BININT is signed: `2^31 - 1` at most.
fn small(n: usize) -> io::Result<u32> {
    i32::try_from(n)
        .map(|n| n as u32)
        .map_err(|_| io::Error::other(format!("{n} elements are more than a .pt file can say here")))
}

fn pieces<T: Copy, const N: usize>(data: &[T], bytes: impl Fn(T) -> [u8; N]) -> Vec<Vec<u8>> {
    data.chunks(1 << 20).map(|part| part.iter().flat_map(|&v| bytes(v)).collect()).collect()
}

/// A zip writer for stored members whose data begin at multiples of 64 bytes. Like torch's, it writes sizes and checksums
/// behind the data and in the directory only.
struct Zip<'a, W: Write> {
    out: &'a mut W,
    at: usize,
    directory: Vec<u8>,
    n: u16,
}

const FLAGS: u16 = 0x0808; // sizes follow the data; names are UTF-8

impl<'a, W: Write> Zip<'a, W> {
    fn new(out: &'a mut W) -> Self {
        Self { out, at: 0, directory: Vec::new(), n: 0 }
    }

    fn member(&mut self, name: &str, parts: &[&[u8]]) -> io::Result<()> {
        let mut crc = Digest::new(CrcAlgorithm::Crc32IsoHdlc);
        parts.iter().for_each(|p| crc.update(p));
        let crc = crc.finalize() as u32;
        let size = small(parts.iter().map(|p| p.len()).sum())?;
        let start = u32::try_from(self.at).map_err(|_| io::Error::other("a .pt file of more than 4 GiB"))?;

        // Padding in an extra field "FB", of 4 bytes at least.
        let header = self.at + 30 + name.len();
        let padding = (header + 4).next_multiple_of(64) - header;
        let mut local = Vec::new();
        local.extend(0x0403_4b50u32.to_le_bytes());
        local.extend([0u8; 2]); // version needed
        local.extend(FLAGS.to_le_bytes());
        local.extend([0u8; 18]); // method, time, date, checksum, both sizes
        local.extend((name.len() as u16).to_le_bytes());
        local.extend((padding as u16).to_le_bytes());
        local.extend(name.as_bytes());
        local.extend(*b"FB");
        local.extend((padding as u16 - 4).to_le_bytes());
        local.resize(local.len() + padding - 4, b'Z');
        self.write(&local)?;
        debug_assert_eq!(self.at % 64, 0);
        for part in parts {
            self.write(part)?;
        }
        let mut after = Vec::new();
        after.extend(0x0807_4b50u32.to_le_bytes());
        after.extend(crc.to_le_bytes());
        after.extend(size.to_le_bytes());
        after.extend(size.to_le_bytes());
        self.write(&after)?;

        let d = &mut self.directory;
        d.extend(0x0201_4b50u32.to_le_bytes());
        d.extend([0u8; 4]); // version made by, version needed
        d.extend(FLAGS.to_le_bytes());
        d.extend([0u8; 6]); // method, time, date
        d.extend(crc.to_le_bytes());
        d.extend(size.to_le_bytes());
        d.extend(size.to_le_bytes());
        d.extend((name.len() as u16).to_le_bytes());
        d.extend([0u8; 12]); // extra field, comment, disk, attributes
        d.extend(start.to_le_bytes());
        d.extend(name.as_bytes());
        self.n += 1;
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        let start = u32::try_from(self.at).map_err(|_| io::Error::other("a .pt file of more than 4 GiB"))?;
        let directory = std::mem::take(&mut self.directory);
        self.write(&directory)?;
        let mut end = Vec::new();
        end.extend(0x0605_4b50u32.to_le_bytes());
        end.extend([0u8; 4]); // disks
        end.extend(self.n.to_le_bytes());
        end.extend(self.n.to_le_bytes());
        end.extend((directory.len() as u32).to_le_bytes());
        end.extend(start.to_le_bytes());
        end.extend([0u8; 2]); // comment
        self.write(&end)?;
        self.out.flush()
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.at += bytes.len();
        self.out.write_all(bytes)
    }
}
