//! Progress of fetches in the terminal.

use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressStyle};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tdb_data::{Fetcher, Location, Progress};

/// Without a terminal, a line at most this often.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// A bar for all files and one for each file that is on its way. Without a terminal only what a person must know.
#[derive(Debug)]
pub struct Bars {
    all: MultiProgress,
    total: ProgressBar,
    /// What the files belong to.
    title: String,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    files: HashMap<String, ProgressBar>,
    begin: Instant,
    last_line: Instant,
    fetched: usize,
    /// Bytes that have arrived, and those of all files that were begun.
    bytes: u64,
    known: u64,
}

impl Bars {
    pub fn new() -> Self {
        let all = MultiProgress::new();
        let total = all.add(ProgressBar::new(0));
        total.set_style(style("{pos}/{len} files  {wide_bar}  {msg}  {elapsed_precise}"));
        let now = Instant::now();
        let state = State { files: HashMap::new(), begin: now, last_line: now, fetched: 0, bytes: 0, known: 0 };
        Self { all, total, title: String::new(), state: Mutex::new(state) }
    }

    /// For the files of what is called so.
    pub fn titled(title: &str) -> Self {
        Self { title: title.to_owned(), ..Self::new() }
    }

    /// For the files of a model or an autoencoder. If `first`, the first of them, has to come from elsewhere, says so.
    pub fn of(title: &str, first: &Location, fetcher: &Fetcher) -> Self {
        let bars = Self::titled(title);
        if !fetcher.is_offline() && !fetcher.has(first) {
            let from = fetcher.resolve(first).unwrap_or_else(|_| first.clone()).to_string();
            let from = from.rsplit_once('/').map_or(from.as_str(), |(folder, _)| folder);
            let kept = fetcher.cache().root().display();
            bars.say(&format!("{title} is not on this machine yet: fetching it, once, from {from} into {kept}"));
        }
        bars
    }

    /// Removes the bars, and says what was fetched.
    pub fn finish(&self) {
        self.total.finish_and_clear();
        let _ = self.all.clear();
        let state = self.state();
        if state.fetched > 0 && !self.title.is_empty() {
            let took = HumanDuration(state.begin.elapsed());
            eprintln!("{}: fetched {} files, {}, in {took}", self.title, state.fetched, size(state.bytes));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, line: &str) {
        if self.all.is_hidden() {
            eprintln!("{line}");
        } else {
            // A terminal that is gone needs no lines.
            let _ = self.all.println(line);
        }
    }
}

impl Progress for Bars {
    fn expect(&self, files: usize) {
        self.total.inc_length(files as u64);
    }

    fn started(&self, name: &str, done: u64, total: u64) {
        let mut state = self.state();
        if let Some(bar) = state.files.get(name) {
            bar.set_length(total);
            bar.set_position(done);
            return;
        }
        let bar = self.all.add(ProgressBar::new(total));
        bar.set_style(style("  {msg}  {bytes}/{total_bytes}  {bytes_per_sec}  {eta}"));
        bar.set_message(name.rsplit('/').next().unwrap_or(name).to_owned());
        bar.set_position(done);
        state.files.insert(name.to_owned(), bar);
        state.known += total;
        state.bytes += done;
    }

    fn advanced(&self, name: &str, bytes: u64) {
        let mut state = self.state();
        state.bytes += bytes;
        if let Some(bar) = state.files.get(name) {
            bar.inc(bytes);
        }
        let all_begun = state.files.len() + state.fetched >= self.total.length().unwrap_or(0) as usize;
        let of = if all_begun { format!(" of {}", size(state.known)) } else { String::new() };
        let far = format!("{}{of}", size(state.bytes));
        if self.all.is_hidden() && state.last_line.elapsed() > LINE_EVERY {
            state.last_line = Instant::now();
            let files = self.total.length().unwrap_or(0);
            eprintln!("{}: {far}, {} of {files} files", self.title, self.total.position());
        }
        self.total.set_message(far);
    }

    fn finished(&self, name: &str, cached: bool) {
        let mut state = self.state();
        if let Some(bar) = state.files.remove(name) {
            bar.finish_and_clear();
        }
        state.fetched += usize::from(!cached);
        if self.total.position() == self.total.length().unwrap_or(0) {
            self.total.inc_length(1);
        }
        self.total.inc(1);
    }

    fn note(&self, name: &str, text: &str) {
        self.say(&format!("{name}: {text}"));
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
