//! Pages of Parquet that are packed with zstd.

use std::io::Read;

use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};

use super::zstd::Frames;

/// A page that unpacks to more than this is refused; writers make pages of about a megabyte.
const LARGEST: u64 = 1 << 30;

/// Unpacks the pages of another reader, which takes them for unpacked.
pub(super) struct ZstdPages<P>(P);

impl<P: PageReader> ZstdPages<P> {
    pub fn new(packed: P) -> Self {
        Self(packed)
    }
}

impl<P: PageReader> PageReader for ZstdPages<P> {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        self.0.get_next_page()?.map(unpack).transpose()
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.0.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.0.skip_next_page()
    }
}

impl<P: PageReader> Iterator for ZstdPages<P> {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

fn unpack(mut page: Page) -> Result<Page> {
    match &mut page {
        Page::DataPage { buf, .. } | Page::DictionaryPage { buf, .. } => *buf = unpacked(buf, 0)?.into(),
        // The levels before the values are never packed.
        Page::DataPageV2 { buf, def_levels_byte_len, rep_levels_byte_len, is_compressed, .. } if *is_compressed => {
            *buf = unpacked(buf, (*def_levels_byte_len + *rep_levels_byte_len) as usize)?.into();
            *is_compressed = false;
        }
        Page::DataPageV2 { .. } => {}
    }
    Ok(page)
}

/// The bytes with all from `start` on unpacked.
fn unpacked(bytes: &[u8], start: usize) -> Result<Vec<u8>> {
    let bad = |error: &dyn std::fmt::Display| ParquetError::General(format!("a page cannot be unpacked: {error}"));
    let packed = bytes.get(start..).ok_or_else(|| bad(&"its levels lie outside it"))?;
    let mut out = bytes[..start].to_vec();
    if packed.is_empty() {
        return Ok(out);
    }
    Frames::new(packed).take(LARGEST + 1).read_to_end(&mut out).map_err(|error| bad(&error))?;
    match out.len() as u64 > LARGEST {
        true => Err(bad(&format!("it is larger than {LARGEST} bytes"))),
        false => Ok(out),
    }
}
