//! Sends the requests of a folder and counts what came back.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::case::Case;
use super::compare::{Rules, compare};

/// An answer: its status and its body as JSON (`{"__text__": …}` if it is none).
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub body: Value,
}

impl Reply {
    pub fn parse(status: u16, body: &[u8]) -> Self {
        let text = || json!({ "__text__": String::from_utf8_lossy(body) });
        Self { status, body: serde_json::from_slice(body).unwrap_or_else(|_| text()) }
    }
}

/// Names of cases that differ on purpose: one first on each line, `*` and `?` for any text and any character, `#` for
/// comments.
#[derive(Clone, Debug, Default)]
pub struct Differences(Vec<String>);

impl Differences {
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|l| !l.trim_start().starts_with('#'));
        Self(lines.filter_map(|l| l.split_whitespace().next()).map(str::to_owned).collect())
    }

    /// # Errors
    /// When there is a file and it cannot be read. No file: no differences.
    pub fn load(path: &std::path::Path) -> Result<Self> {
        if !path.exists() {
            return Ok(Self::default());
        }
        let text = std::fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
        Ok(Self::parse(&text))
    }

    pub fn contain(&self, case: &str) -> bool {
        self.0.iter().any(|pattern| matches(pattern.as_bytes(), case.as_bytes()))
    }
}

fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => (0..=text.len()).any(|i| matches(rest, &text[i..])),
        (Some((p, rest)), Some((t, tail))) => (*p == b'?' || p == t) && matches(rest, tail),
        _ => false,
    }
}

/// What to print besides the failures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verbosity {
    /// Cases that pass, too.
    All,
    #[default]
    Failures,
}

/// How cases are replayed.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub rules: Rules,
    pub differences: Differences,
    pub verbosity: Verbosity,
}

/// Counts over cases.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Summary {
    pub passed: usize,
    pub failed: usize,
    /// Failed, and listed as differing on purpose.
    pub differ: usize,
    /// Passed, although listed as differing.
    pub needlessly_listed: usize,
    /// Cases whose recorded status is 200, and how many of those passed.
    pub with_data: usize,
    pub with_data_passed: usize,
    pub worst_abs: f64,
    pub worst_rel: f64,
}

impl Summary {
    pub fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.differ += other.differ;
        self.needlessly_listed += other.needlessly_listed;
        self.with_data += other.with_data;
        self.with_data_passed += other.with_data_passed;
        self.worst_abs = self.worst_abs.max(other.worst_abs);
        self.worst_rel = self.worst_rel.max(other.worst_rel);
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} differ, worst abs {:.2e} rel {:.2e}; cases with data (status 200): {} of {} passed",
            self.passed,
            self.failed,
            self.differ,
            self.worst_abs,
            self.worst_rel,
            self.with_data_passed,
            self.with_data
        )
    }
}

/// Sends each case through `send` and hands lines for a person to `print`. An error of `send` fails the case.
pub fn replay<'c>(
    cases: impl IntoIterator<Item = &'c Case>,
    options: &Options,
    mut send: impl FnMut(&Case) -> Result<Reply>,
    mut print: impl FnMut(&str),
) -> Summary {
    const SHOWN_PROBLEMS: usize = 5;
    let mut summary = Summary::default();
    for case in cases {
        let (problems, line) = match send(case) {
            Ok(reply) => {
                let c = compare(options.rules, case, reply.status, &reply.body);
                summary.worst_abs = summary.worst_abs.max(c.max_abs);
                summary.worst_rel = summary.worst_rel.max(c.max_rel);
                let mut line = format!("abs {:.2e} rel {:.2e}", c.max_abs, c.max_rel);
                if !c.excused.is_empty() {
                    line.push_str(&format!("  {} tied nodes differ", c.excused.len()));
                }
                if let Some(note) = c.notes.first() {
                    line.push_str(&format!("  note: {}", clip(note, 120)));
                }
                (c.problems, line)
            }
            Err(error) => (vec![format!("transport: {error:#}")], String::new()),
        };
        let listed = options.differences.contain(&case.name);
        let has_data = case.status == 200;
        summary.with_data += usize::from(has_data);
        summary.with_data_passed += usize::from(has_data && problems.is_empty());
        if problems.is_empty() {
            summary.passed += 1;
            if listed {
                summary.needlessly_listed += 1;
                print(&format!("listed as a difference, but passes: {}", case.name));
            }
            if options.verbosity == Verbosity::All {
                print(&format!("ok   {}  {line}", case.name));
            }
        } else if listed {
            summary.differ += 1;
            if options.verbosity == Verbosity::All {
                print(&format!("differ {}  {}", case.name, clip(&problems[0], 200)));
            }
        } else {
            summary.failed += 1;
            print(&format!("FAIL {}  {line}  {} problems", case.name, problems.len()));
            problems.iter().take(SHOWN_PROBLEMS).for_each(|p| print(&format!("      {}", clip(p, 300))));
        }
    }
    summary
}

fn clip(text: &str, chars: usize) -> &str {
    text.char_indices().nth(chars).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_names_with_wildcards() {
        let d = Differences::parse("# comment\n\ntiny-a/tdb_x  because\n*/ds_*_k?\n");
        assert!(d.contain("tiny-a/tdb_x"));
        assert!(d.contain("tiny-a+mlp/ds_abc_k1"));
        assert!(!d.contain("tiny-a/tdb_xy"));
        assert!(!d.contain("tiny-a/ds_abc_k"));
        assert!(!d.contain("because"));
    }
}
