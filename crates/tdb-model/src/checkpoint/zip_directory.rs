//! The table of contents of a zip file whose entries are stored, not compressed.
//!
//! `torch.save` writes such archives, always with the 64-bit extension. Only what is needed to find an entry's
//! bytes is read; every number from the file is checked against the file's size before it is used.

use std::ops::Range;

use crc_fast::CrcAlgorithm;

/// Where one entry's name and data lie in the file.
#[derive(Clone, Debug)]
struct Entry {
    name: Range<usize>,
    local_header: usize,
    len: usize,
    /// CRC-32 of its data.
    checksum: u32,
}

/// The entries of an archive.
#[derive(Clone, Debug)]
pub(crate) struct ZipDirectory {
    entries: Vec<Entry>,
}

const END: u32 = 0x0605_4b50;
const END_64: u32 = 0x0606_4b50;
const END_64_LOCATOR: u32 = 0x0706_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const LOCAL: u32 = 0x0403_4b50;
const MAX_ENTRIES: usize = 1 << 16;

impl ZipDirectory {
    /// Reads the central directory at the end of `file`.
    pub fn read(file: &[u8]) -> Result<Self, String> {
        let end = find_end(file).ok_or("not a zip archive of torch.save: no end of a zip directory was found")?;
        let (mut at, len) = directory_range(file, end)?;
        let stop = at.checked_add(len).filter(|&stop| stop <= end).ok_or("the zip directory lies outside the file")?;
        // An entry takes at least 46 bytes, so the directory's own length bounds what is allocated.
        let mut entries = Vec::new();
        while at < stop {
            if entries.len() == MAX_ENTRIES {
                return Err(format!("more than {MAX_ENTRIES} zip entries"));
            }
            let (entry, next) = read_entry(file, at, stop)?;
            entries.push(entry);
            at = next;
        }
        Ok(ZipDirectory { entries })
    }

    /// All names, as bytes.
    pub fn names<'a>(&'a self, file: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        self.entries.iter().map(|entry| &file[entry.name.clone()])
    }

    /// Where the data of the entry with this name lies.
    pub fn find(&self, file: &[u8], name: &[u8]) -> Result<Range<usize>, String> {
        let named = || format!("zip entry `{}`", super::error::shorten(&String::from_utf8_lossy(name)));
        let mut fitting = self.named(file, name);
        let entry = fitting.next().ok_or_else(|| format!("{} is missing", named()))?;
        if fitting.next().is_some() {
            return Err(format!("{} is there twice", named()));
        }
        let at = entry.local_header;
        let data = || {
            if u32_at(file, at)? != LOCAL {
                return None;
            }
            let start = at + 30 + usize::from(u16_at(file, at + 26)?) + usize::from(u16_at(file, at + 28)?);
            let data = start..start.checked_add(entry.len)?;
            file.get(data.clone()).is_some().then_some(data)
        };
        data().ok_or_else(|| format!("{} lies outside the file", named()))
    }

    /// Whether this is the data of the entry with this name, as the directory's checksum says.
    pub fn is_whole(&self, file: &[u8], name: &[u8], data: &[u8]) -> bool {
        let checksum = crc_fast::checksum(CrcAlgorithm::Crc32IsoHdlc, data);
        self.named(file, name).all(|entry| u64::from(entry.checksum) == checksum)
    }

    fn named<'a>(&'a self, file: &'a [u8], name: &'a [u8]) -> impl Iterator<Item = &'a Entry> {
        self.entries.iter().filter(move |entry| &file[entry.name.clone()] == name)
    }
}

/// The end record stands before an archive comment of at most 65,535 bytes.
fn find_end(file: &[u8]) -> Option<usize> {
    let last = file.len().checked_sub(22)?;
    (last.saturating_sub(0xffff)..=last).rev().find(|&at| {
        u32_at(file, at) == Some(END) && u16_at(file, at + 20).is_some_and(|n| at + 22 + n as usize == file.len())
    })
}

/// Start and length of the central directory.
fn directory_range(file: &[u8], end: usize) -> Result<(usize, usize), String> {
    let cut = "the zip directory's end is cut off";
    if let Some(locator) = end.checked_sub(20).filter(|&at| u32_at(file, at) == Some(END_64_LOCATOR)) {
        let at = usize_at(file, locator + 8).filter(|&at| at < locator).ok_or(cut)?;
        if u32_at(file, at) != Some(END_64) {
            return Err("the 64-bit end of the zip directory is not where the file says".to_owned());
        }
        return Ok((usize_at(file, at + 48).ok_or(cut)?, usize_at(file, at + 40).ok_or(cut)?));
    }
    Ok((u32_at(file, end + 16).ok_or(cut)? as usize, u32_at(file, end + 12).ok_or(cut)? as usize))
}

/// One entry of the central directory, and where the next one starts.
fn read_entry(file: &[u8], at: usize, stop: usize) -> Result<(Entry, usize), String> {
    let file = &file[..stop];
    let cut = || "an entry of the zip directory is cut off".to_owned();
    if u32_at(file, at) != Some(CENTRAL) {
        return Err("an entry of the zip directory is not where it should be".to_owned());
    }
    let half = |offset: usize| u16_at(file, at + offset).map(usize::from).ok_or_else(cut);
    let word = |offset: usize| u32_at(file, at + offset).ok_or_else(cut);
    let (flags, method) = (half(8)?, half(10)?);
    let (name_len, extra_len, comment_len) = (half(28)?, half(30)?, half(32)?);
    let name = at + 46..at + 46 + name_len;
    let extra = name.end..name.end + extra_len;
    let next = extra.end + comment_len;
    if next > stop {
        return Err(cut());
    }
    let checksum = word(16)?;
    let (compressed, len, local_header) = sizes_64(&file[extra], word(20)?, word(24)?, word(42)?).ok_or_else(cut)?;
    let text = || super::error::shorten(&String::from_utf8_lossy(&file[name.clone()]));
    if flags & 1 != 0 {
        return Err(format!("zip entry `{}` is encrypted", text()));
    }
    if method != 0 || compressed != len {
        return Err(format!("zip entry `{}` is compressed (method {method}), where torch.save stores", text()));
    }
    let inside = local_header.checked_add(30).and_then(|n| n.checked_add(len)).is_some_and(|end| end <= stop);
    if !inside {
        return Err(format!("zip entry `{}` says {len} bytes, which lie outside the file", text()));
    }
    Ok((Entry { name, local_header, len, checksum }, next))
}

/// Compressed size, size and place of the local header; those that do not fit 32 bits stand in the extra field 1.
fn sizes_64(mut extra: &[u8], compressed: u32, len: u32, local_header: u32) -> Option<(usize, usize, usize)> {
    let mut wide: &[u8] = &[];
    while extra.len() >= 4 {
        let (tag, size) = (u16_at(extra, 0)?, usize::from(u16_at(extra, 2)?));
        let field = extra.get(4..4 + size)?;
        if tag == 1 {
            wide = field;
        }
        extra = &extra[4 + size..];
    }
    let mut take = |narrow: u32| {
        if narrow != u32::MAX {
            return Some(narrow as usize);
        }
        let value = usize_at(wide, 0)?;
        wide = &wide[8..];
        Some(value)
    };
    let len = take(len)?;
    let compressed = take(compressed)?;
    Some((compressed, len, take(local_header)?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn usize_at(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?)).ok()
}
