//! Plain text: paragraphs, separated by empty lines.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use super::{Document, Documents};
use crate::{Error, Result};

/// A paragraph longer than this ends at the next line, so that a text without empty lines is never held whole.
const LONGEST: usize = 1 << 20;

/// A line longer than this is refused: the file is no text.
const LONGEST_LINE: u64 = 16 << 20;

pub(super) fn open(path: &Path) -> Result<Documents> {
    Ok(Box::new(Paragraphs { lines: Lines::open(path)?, ended: false }))
}

struct Paragraphs {
    lines: Lines,
    ended: bool,
}

impl Iterator for Paragraphs {
    type Item = Result<Document>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut text = String::new();
        let mut first = 0;
        while !self.ended {
            let line = match self.lines.next() {
                Some(Ok(line)) => line,
                Some(Err(error)) => {
                    self.ended = true;
                    return Some(Err(error));
                }
                None => {
                    self.ended = true;
                    break;
                }
            };
            if line.trim().is_empty() {
                if !text.is_empty() {
                    break;
                }
                continue;
            }
            if text.is_empty() {
                first = self.lines.number;
            } else {
                text.push('\n');
            }
            text.push_str(&line);
            if text.len() > LONGEST {
                break;
            }
        }
        (!text.is_empty()).then(|| Ok(Document { text, place: format!("line {first}") }))
    }
}

/// Lines of a file as UTF-8, without their ends; `number` is the last one's, from 1.
pub(super) struct Lines {
    path: PathBuf,
    file: BufReader<File>,
    pub number: usize,
}

impl Lines {
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::file(path))?;
        Ok(Self { path: path.to_owned(), file: BufReader::with_capacity(1 << 18, file), number: 0 })
    }

    pub fn error(&self, message: impl Into<String>) -> Error {
        Error::Text { path: self.path.clone(), place: format!("line {}", self.number), message: message.into() }
    }
}

impl Iterator for Lines {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut bytes = Vec::new();
        self.number += 1;
        // One byte over the limit tells a line that is too long from one of just that length.
        match std::io::Read::take(&mut self.file, LONGEST_LINE + 1).read_until(b'\n', &mut bytes) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(source) => return Some(Err(Error::File { path: self.path.clone(), source })),
        }
        if bytes.len() as u64 > LONGEST_LINE {
            return Some(Err(self.error(format!("is longer than {LONGEST_LINE} bytes"))));
        }
        while bytes.last().is_some_and(|b| matches!(b, b'\n' | b'\r')) {
            bytes.pop();
        }
        Some(String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            let byte = error.as_bytes().get(at).copied().unwrap_or_default();
            self.error(format!("is not UTF-8: byte {} is {byte:#04x}", at + 1))
        }))
    }
}
