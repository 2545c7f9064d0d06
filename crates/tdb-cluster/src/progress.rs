//! How far a collation is, as the store has it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tdb_collate::{Collation, Summaries, UnitName};

/// Looks into the store and says what is new there.
pub struct Progress<'a> {
    summaries: Summaries,
    wanted: BTreeSet<String>,
    seen: BTreeSet<String>,
    /// Those that were there at the beginning.
    before: usize,
    /// In summaries that have come since.
    tokens: u64,
    begin: Instant,
    say: &'a dyn Fn(&str),
}

impl<'a> Progress<'a> {
    /// Of all units of a collation, some of which are there.
    pub fn new(collation: &Collation<'_>, finished: &BTreeSet<UnitName>, say: &'a dyn Fn(&str)) -> Self {
        let wanted = collation.units(None).iter().map(UnitName::file).collect();
        let seen: BTreeSet<String> = finished.iter().map(UnitName::file).collect();
        let (summaries, before) = (collation.summaries.clone(), seen.len());
        Self { summaries, wanted, seen, before, tokens: 0, begin: Instant::now(), say }
    }

    /// Looks once. A store that does not answer is asked again the next time.
    pub fn look(&mut self) {
        let Ok(names) = self.summaries.list() else { return };
        let new: Vec<String> =
            names.into_iter().filter(|n| self.wanted.contains(n) && !self.seen.contains(n)).collect();
        let before = self.seen.len();
        for name in new {
            let Ok(head) = self.summaries.read_head(&name) else { continue };
            self.tokens += head.covers.iter().map(|covered| covered.tokens).sum::<u64>();
            self.seen.insert(name);
        }
        if self.seen.len() > before {
            (self.say)(&self.line());
        }
    }

    /// How many units are there.
    pub fn count(&self) -> String {
        format!("{} of {} units are there", self.seen.len(), self.wanted.len())
    }

    /// How far it is, in one line.
    fn line(&self) -> String {
        let (done, all) = (self.seen.len(), self.wanted.len());
        let seconds = self.begin.elapsed().as_secs_f64().max(1e-3);
        let each = seconds / (done - self.before).max(1) as f64;
        let left = Duration::from_secs_f64(each * (all - done) as f64);
        let speed = self.tokens as f64 / seconds;
        match done == all {
            true => format!("{done} of {all} units, {speed:.0} tokens/s"),
            false => format!("{done} of {all} units, {speed:.0} tokens/s, about {} left", say_time(left)),
        }
    }
}

fn say_time(time: Duration) -> String {
    match time.as_secs() {
        s @ 0..120 => format!("{s} s"),
        s @ 120..7200 => format!("{} min", s / 60),
        s => format!("{:.1} h", s as f64 / 3600.0),
    }
}
