//! Plain text: paragraphs, separated by empty lines; where documents are marked, what stands between the marks.

use std::collections::VecDeque;
use std::path::Path;

use super::document::{Document, Documents, Trouble, has_marker, split_at_markers};
use super::file::Text;
use super::lines::Lines;

/// A document longer than this ends at the next line, so that a text without ends of documents is never held whole.
const LONGEST: usize = 1 << 20;

pub(super) fn open(path: &Path, text: Text) -> Documents {
    let marked = has_marker(&String::from_utf8_lossy(&text.head));
    let lines = Lines::new(path, text.reader);
    Box::new(Paragraphs { lines, marked, text: String::new(), first: 0, ready: VecDeque::new(), ended: false })
}

struct Paragraphs {
    lines: Lines,
    /// Empty lines do not end a document: marks do.
    marked: bool,
    /// What there is of the document that is being read, and the line where it begins.
    text: String,
    first: usize,
    ready: VecDeque<Document>,
    ended: bool,
}

impl Paragraphs {
    fn take(&mut self, line: &str) {
        for (i, part) in split_at_markers(line).into_iter().enumerate() {
            if i > 0 {
                self.finish();
            }
            self.add(part);
        }
        if self.text.len() > LONGEST {
            self.finish();
        }
    }

    fn add(&mut self, line: &str) {
        let is_empty = line.trim().is_empty();
        if is_empty && !self.marked {
            self.finish();
        } else if !self.text.is_empty() {
            self.text.push('\n');
            self.text.push_str(line);
        } else if !is_empty {
            self.first = self.lines.number;
            self.text.push_str(line);
        }
    }

    fn finish(&mut self) {
        let text = std::mem::take(&mut self.text);
        let text = text.trim_end_matches('\n');
        if !text.is_empty() {
            self.ready.push_back(Document { text: text.to_owned(), place: format!("line {}", self.first) });
        }
    }
}

impl Iterator for Paragraphs {
    type Item = Result<Document, Trouble>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(document) = self.ready.pop_front() {
                return Some(Ok(document));
            }
            if self.ended {
                return None;
            }
            match self.lines.next() {
                Some(Ok(line)) => self.take(&line),
                Some(Err(trouble)) => {
                    self.ended = matches!(trouble, Trouble::Stop(_));
                    return Some(Err(trouble));
                }
                None => {
                    self.ended = true;
                    self.finish();
                }
            }
        }
    }
}
