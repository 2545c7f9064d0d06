//! The lines of a text.

use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};

use super::document::Trouble;
use crate::Error;

/// A line or an entry longer than this is left out: the file is no text.
pub(super) const LONGEST: usize = 16 << 20;

/// Lines as UTF-8, without their ends; `number` is the last one's, from 1.
pub(super) struct Lines {
    path: PathBuf,
    reader: Box<dyn BufRead + Send>,
    pub number: usize,
}

impl Lines {
    pub fn new(path: &Path, reader: Box<dyn BufRead + Send>) -> Self {
        Self { path: path.to_owned(), reader, number: 0 }
    }

    /// Where the last line stands.
    pub fn place(&self) -> String {
        format!("line {}", self.number)
    }

    /// That the last line cannot be read.
    pub fn unreadable(&self, message: impl Into<String>) -> Trouble {
        Trouble::skip(self.place(), message)
    }

    fn stop(&self, source: std::io::Error) -> Trouble {
        Trouble::Stop(Error::Text {
            path: self.path.clone(),
            place: format!("after line {}", self.number),
            message: format!("cannot be read: {source}"),
        })
    }

    /// Reads to the end of a line without keeping it.
    fn pass_over(&mut self) -> std::io::Result<()> {
        loop {
            let block = self.reader.fill_buf()?;
            let end = block.iter().position(|b| *b == b'\n');
            let used = end.map_or(block.len(), |end| end + 1);
            self.reader.consume(used);
            if end.is_some() || used == 0 {
                return Ok(());
            }
        }
    }
}

impl Iterator for Lines {
    type Item = Result<String, Trouble>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut bytes = Vec::new();
        // One byte over the limit tells a line that is too long from one of just that length.
        match (&mut self.reader).take(LONGEST as u64 + 1).read_until(b'\n', &mut bytes) {
            Ok(0) => return None,
            Ok(_) => self.number += 1,
            Err(source) => return Some(Err(self.stop(source))),
        }
        if bytes.len() > LONGEST {
            let passed = if bytes.last() == Some(&b'\n') { Ok(()) } else { self.pass_over() };
            return Some(Err(match passed {
                Ok(()) => self.unreadable(format!("is longer than {LONGEST} bytes")),
                Err(source) => self.stop(source),
            }));
        }
        while bytes.last().is_some_and(|b| matches!(b, b'\n' | b'\r')) {
            bytes.pop();
        }
        Some(String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            let byte = error.as_bytes().get(at).copied().unwrap_or_default();
            self.unreadable(format!("is not UTF-8: byte {} is {byte:#04x}", at + 1))
        }))
    }
}
