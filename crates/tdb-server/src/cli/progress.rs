//! Progress of fetches in the terminal.

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use tdb_data::Progress;

/// A bar for all files and one for each file that is on its way. Without a terminal only what a person must know.
#[derive(Debug)]
pub struct Bars {
    all: MultiProgress,
    total: ProgressBar,
    files: Mutex<HashMap<String, ProgressBar>>,
}

impl Bars {
    pub fn new() -> Self {
        let all = MultiProgress::new();
        let total = all.add(ProgressBar::new(0));
        total.set_style(style("{pos}/{len} files  {wide_bar}  {elapsed_precise}"));
        Self { all, total, files: Mutex::default() }
    }

    /// Removes the bars.
    pub fn finish(&self) {
        self.total.finish_and_clear();
        let _ = self.all.clear();
    }
}

impl Progress for Bars {
    fn expect(&self, files: usize) {
        self.total.inc_length(files as u64);
    }

    fn started(&self, name: &str, done: u64, total: u64) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = files.entry(name.to_owned()).or_insert_with(|| {
            let bar = self.all.add(ProgressBar::new(total));
            bar.set_style(style("  {msg}  {bytes}/{total_bytes}  {bytes_per_sec}  {eta}"));
            bar.set_message(name.rsplit('/').next().unwrap_or(name).to_owned());
            bar
        });
        bar.set_length(total);
        bar.set_position(done);
    }

    fn advanced(&self, name: &str, bytes: u64) {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bar) = files.get(name) {
            bar.inc(bytes);
        }
    }

    fn finished(&self, name: &str, _cached: bool) {
        let bar = self.files.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        if self.total.position() == self.total.length().unwrap_or(0) {
            self.total.inc_length(1);
        }
        self.total.inc(1);
    }

    fn note(&self, name: &str, text: &str) {
        let line = format!("{name}: {text}");
        if self.all.is_hidden() {
            eprintln!("{line}");
        } else {
            // A terminal that is gone needs no notes.
            let _ = self.all.println(line);
        }
    }
}

/// A style whose template stands here in the source and is right.
pub fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Bytes for people.
pub fn size(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

/// `0-3,7`: these numbers, in this order.
pub fn numbers(text: &str) -> Result<Vec<usize>, String> {
    let number = |t: &str| t.trim().parse::<usize>().map_err(|_| format!("{t:?} is no number; write 0-3,7"));
    let mut all = Vec::new();
    for part in text.split(',') {
        match part.split_once('-') {
            None => all.push(number(part)?),
            Some((first, last)) => {
                let (first, last) = (number(first)?, number(last)?);
                if last < first || last - first > 10_000_000 {
                    return Err(format!("{part:?} is no range; write the smaller number first"));
                }
                all.extend(first..=last);
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::numbers;

    #[test]
    fn ranges_and_numbers() {
        assert_eq!(numbers("0-3,7"), Ok(vec![0, 1, 2, 3, 7]));
        assert_eq!(numbers("5"), Ok(vec![5]));
        assert!(numbers("3-1").is_err() && numbers("a").is_err() && numbers("").is_err() && numbers("-1").is_err());
    }
}
