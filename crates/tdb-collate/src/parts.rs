//! Summaries of all shards, merged one after the other.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::summary::{Plan, Summary};
use crate::{Collation, Error, Result, Summaries, UnitName};

/// The summaries of a whole collation: for each range of layers one of every shard, and none twice.
#[derive(Debug)]
pub struct Parts<'a> {
    summaries: &'a Summaries,
    plan: Plan,
    /// Shard to file, for each range of layers.
    ranges: BTreeMap<(usize, usize), BTreeMap<usize, String>>,
}

impl<'a> Parts<'a> {
    /// The summaries of the layers that a collation asks for.
    ///
    /// # Errors
    /// As [`Parts::find`], and if they are of another collation or lack a layer.
    pub fn of(collation: &'a Collation<'_>) -> Result<Self> {
        let mut parts = Self::look(&collation.summaries)?;
        if let Some(difference) = parts.plan.difference(&collation.plan) {
            let what = format!("{} and what is asked for", collation.summaries.folder().display());
            return Err(Error::Mismatch { what, difference });
        }
        let asked = |layers: &(usize, usize)| collation.layers.iter().any(|a| a.start < layers.1 && layers.0 < a.end);
        parts.ranges.retain(|layers, _| asked(layers));
        parts.check()?;
        parts.check_layers(&collation.layers)?;
        Ok(parts)
    }

    /// Looks through a folder of summaries. What the names say is believed here and checked when they are read.
    ///
    /// # Errors
    /// If there are none, some are missing, two cover the same, or they are of different collations.
    pub fn find(summaries: &'a Summaries) -> Result<Self> {
        let parts = Self::look(summaries)?;
        parts.check()?;
        Ok(parts)
    }

    /// Whether all that is there can be merged one day: no two cover the same. Whatever is missing may still come.
    ///
    /// # Errors
    /// If two cover the same documents and layers, or are of different collations.
    pub fn none_twice(summaries: &'a Summaries) -> Result<()> {
        match summaries.list()?.is_empty() {
            true => Ok(()),
            false => Self::look(summaries).map(|_| ()),
        }
    }

    fn look(summaries: &'a Summaries) -> Result<Self> {
        let names = summaries.list()?;
        let folder = summaries.folder();
        let Some(first) = names.first() else {
            return Err(Error::content(&folder, "there are no summaries in this folder"));
        };
        let plan = summaries.read_head(first)?.plan;
        let mut parts = Self { summaries, plan, ranges: BTreeMap::new() };
        let hash = parts.plan.hash();
        for name in &names {
            match UnitName::parse(name) {
                Some(unit) if unit.plan == hash => parts.add(unit.layers, unit.shard, name)?,
                _ => {
                    let head = summaries.read_head(name)?;
                    if let Some(difference) = parts.plan.difference(&head.plan) {
                        let [a, b] = [first, name].map(|name| summaries.place(name).display().to_string());
                        return Err(Error::Mismatch { what: format!("{a} and {b}"), difference });
                    }
                    let layers = span(&head.layers);
                    head.covers.iter().try_for_each(|c| parts.add(layers, c.first as usize, name))?;
                }
            }
        }
        Ok(parts)
    }

    /// The ranges of layers, ascending.
    pub fn layers(&self) -> Vec<Range<usize>> {
        self.ranges.keys().map(|(from, to)| *from..*to).collect()
    }

    /// Merges all shards of a range of layers. Two summaries are in memory at a time, however many there are.
    ///
    /// # Errors
    /// If one cannot be read or is not what its name says, or something of the corpus is missing.
    pub fn merge(&self, layers: &Range<usize>) -> Result<Summary> {
        let none = BTreeMap::new();
        let files = self.ranges.get(&(layers.start, layers.end)).unwrap_or(&none);
        let mut merged: Option<Summary> = None;
        let mut names: Vec<&String> = files.values().collect();
        names.dedup();
        for name in names {
            let next = self.summaries.read(name)?;
            self.check_name(name, &next)?;
            match &mut merged {
                None => merged = Some(next),
                Some(merged) => merged.merge(next)?,
            }
        }
        let merged = merged
            .ok_or_else(|| Error::content(&self.summaries.folder(), format!("there is nothing of {}", say(layers))))?;
        merged.check_whole()?;
        Ok(merged)
    }

    fn add(&mut self, layers: (usize, usize), shard: usize, name: &str) -> Result<()> {
        let Some(other) = self.ranges.entry(layers).or_default().insert(shard, name.to_owned()) else { return Ok(()) };
        let [a, b] = [&other, name].map(|name| self.summaries.place(name).display().to_string());
        let (of, what) = (self.plan.shards, say(&(layers.0..layers.1)));
        let difference =
            format!("both cover shard {shard}/{of} of {what}, which would be counted twice; remove one of them");
        Err(Error::Mismatch { what: format!("{a} and {b}"), difference })
    }

    /// All shards of all layers, and no layer in two ranges.
    fn check(&self) -> Result<()> {
        let folder = self.summaries.folder();
        let mut seen: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
        for (&range, files) in &self.ranges {
            for layer in range.0..range.1 {
                if let Some(other) = seen.insert(layer, range) {
                    let [a, b] = [other, range].map(|range| self.one_of(range));
                    return Err(Error::content(&folder, format!("layer {layer} is both in {a} and in {b}")));
                }
            }
            let missing = (0..self.plan.shards).filter(|shard| !files.contains_key(shard));
            let missing: Vec<String> = missing.take(10).map(|shard| format!("{shard}/{}", self.plan.shards)).collect();
            if !missing.is_empty() {
                let of = say(&(range.0..range.1));
                let message = format!("of {of}, these shards are missing: {}", missing.join(", "));
                return Err(Error::content(&folder, message));
            }
        }
        Ok(())
    }

    /// Every layer of these ranges must be there.
    fn check_layers(&self, wanted: &[Range<usize>]) -> Result<()> {
        let there = |layer: &usize| self.ranges.keys().any(|(from, to)| (*from..*to).contains(layer));
        let Some(missing) = wanted.iter().cloned().flatten().find(|layer| !there(layer)) else { return Ok(()) };
        let below = self.ranges.keys().rfind(|range| range.0 < missing);
        let above = self.ranges.keys().find(|range| range.0 > missing);
        let beside: Vec<String> = below.into_iter().chain(above).map(|range| self.one_of(*range).to_owned()).collect();
        let message = format!("layer {missing} is in no summary; beside it are {}", beside.join(" and "));
        Err(Error::content(&self.summaries.folder(), message))
    }

    /// The file of one of the units of these layers.
    fn one_of(&self, layers: (usize, usize)) -> &str {
        self.ranges.get(&layers).and_then(|files| files.values().next()).map_or("", String::as_str)
    }

    fn check_name(&self, name: &str, summary: &Summary) -> Result<()> {
        let layers: Vec<usize> = summary.layers.keys().copied().collect();
        let (from, to) = span(&layers);
        let is: Vec<String> = summary
            .covers
            .iter()
            .map(|c| c.first as usize)
            .map(|shard| UnitName::new(&summary.plan, shard, &(from..to)).file())
            .collect();
        match UnitName::parse(name) {
            Some(_) if is != [name] => {
                let message = format!("holds {}; remove it, and the unit of its name is made anew", is.join(", "));
                Err(Error::content(&self.summaries.place(name), message))
            }
            _ => Ok(()),
        }
    }
}

fn span(layers: &[usize]) -> (usize, usize) {
    layers.first().zip(layers.last()).map_or((0, 0), |(first, last)| (*first, last + 1))
}

fn say(layers: &Range<usize>) -> String {
    match layers.len() {
        1 => format!("layer {}", layers.start),
        _ => format!("layers {} to {}", layers.start, layers.end.saturating_sub(1)),
    }
}
