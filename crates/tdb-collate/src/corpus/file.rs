//! A corpus file as text, whatever it is packed in.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use super::zstd::Frames;
use crate::{Error, Result};

/// So much of the beginning is looked at to tell what a file is.
const HEAD: u64 = 1 << 20;

/// A file's text from its beginning, unpacked and without a byte-order mark.
pub(super) struct Text {
    /// The beginning, which `reader` gives as well.
    pub head: Vec<u8>,
    pub reader: Box<dyn BufRead + Send>,
}

/// What a file's name says of its content, without what it is packed in: `a.jsonl.gz` is `jsonl`.
pub(super) fn extension(path: &Path) -> Option<String> {
    let of = |path: &Path| path.extension().map(|e| e.to_string_lossy().to_lowercase());
    match of(path) {
        Some(packed) if matches!(packed.as_str(), "gz" | "gzip" | "zst" | "zstd") => {
            of(Path::new(path.file_stem().unwrap_or_default()))
        }
        other => other,
    }
}

/// Opens a text.
///
/// # Errors
/// If it cannot be opened, or is no regular file.
pub(super) fn open_regular(path: &Path) -> Result<File> {
    let other = "is not a regular file; a text is read more than once, which a pipe or a device cannot be";
    crate::file::open_regular(path, other)
}

/// The first bytes of a regular file.
///
/// # Errors
/// As [`open_regular`].
pub(super) fn magic(path: &Path) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    open_regular(path)?.take(512).read_to_end(&mut out).map_err(Error::file(path))?;
    Ok(out)
}

/// Opens a file as text.
///
/// # Errors
/// If it is of a kind that holds no text, which is then named.
pub(super) fn open_text(path: &Path) -> Result<Text> {
    let magic = magic(path)?;
    let file = open_regular(path)?;
    let mut reader: Box<dyn Read + Send> = match magic.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(BufReader::with_capacity(1 << 16, file))),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(Frames::new(file)),
        _ => Box::new(file),
    };
    let mut head = Vec::new();
    reader.by_ref().take(HEAD).read_to_end(&mut head).map_err(Error::file(path))?;
    if head.starts_with(&[0xef, 0xbb, 0xbf]) {
        head.drain(..3);
    }
    refuse_no_text(path, &head)?;
    let all = Cursor::new(head.clone()).chain(reader);
    Ok(Text { head, reader: Box::new(BufReader::with_capacity(1 << 18, all)) })
}

/// # Errors
/// If a file that begins so holds no text, or none that is read here: what it is.
pub(super) fn refuse_no_text(path: &Path, head: &[u8]) -> Result<()> {
    const KINDS: [(&[u8], &str); 10] = [
        (
            b"version https://git-lfs.github.com/spec/v1",
            "is a Git LFS pointer, not the file itself; fetch the file with `git lfs pull`",
        ),
        (&[0xff, 0xfe], "is UTF-16; save it as UTF-8"),
        (&[0xfe, 0xff], "is UTF-16; save it as UTF-8"),
        (b"BZh", "is packed with bzip2; only gzip and zstd are unpacked here"),
        (&[0xfd, b'7', b'z', b'X', b'Z', 0], "is packed with xz; only gzip and zstd are unpacked here"),
        (&[0x04, 0x22, 0x4d, 0x18], "is packed with LZ4; only gzip and zstd are unpacked here"),
        (b"PK\x03\x04", "is a zip archive; unpack it first"),
        (b"7z\xbc\xaf", "is a 7-Zip archive; unpack it first"),
        (b"ARROW1", "is an Arrow file; save it as Parquet or JSON lines"),
        (b"%PDF", "is a PDF; save its text as UTF-8"),
    ];
    match KINDS.iter().find(|(magic, _)| head.starts_with(magic)) {
        Some((_, what)) => Err(Error::content(path, what)),
        None => Ok(()),
    }
}
