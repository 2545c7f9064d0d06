//! What the pages keep in a browser, and write into files for others.

use crate::wire::wire_struct;

wire_struct! {
    /// A named state of the debugger's page.
    pub struct Snapshot {
        pub name: String,
        pub note: String = String::new(),
        /// The state as the path and query of its address.
        pub url: String,
        /// When, as ISO text.
        pub made: String = String::new(),
        /// The asked quantity of each side.
        pub values: Vec<f64> = Vec::new(),
        /// What was checked of the answer, in words.
        pub checks: String = String::new(),
    }
}

wire_struct! {
    /// Something that was done or seen during a visit.
    pub struct LogEntry {
        pub id: i64 = 0,
        /// When, as ISO text.
        pub at: String = String::new(),
        pub title: String = String::new(),
        pub note: String = String::new(),
        /// What was asked, as names and values.
        pub facts: Vec<(String, String)> = Vec::new(),
        /// Path and query that open it.
        pub url: String = String::new(),
        /// The body of `/batched_tdb`, of a run.
        pub request: String = String::new(),
        /// The asked quantity of each side of a run.
        pub values: Vec<f64> = Vec::new(),
        /// A figure's drawing.
        pub svg: String = String::new(),
    }
}

impl Default for LogEntry {
    fn default() -> Self {
        let [at, title, note, url, request, svg] = [const { String::new() }; 6];
        Self { id: 0, at, title, note, facts: Vec::new(), url, request, values: Vec::new(), svg }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::from_json;

    #[test]
    fn what_an_earlier_version_kept_is_read() {
        let all: Vec<Snapshot> = from_json(r#"[{"name":"a","url":"/m/tdb_alpha?x=1"}]"#).unwrap();
        assert_eq!((all[0].url.as_str(), all[0].note.as_str()), ("/m/tdb_alpha?x=1", ""));
        assert!(from_json::<Vec<Snapshot>>(r#"[{"name":"a"}]"#).is_err(), "there is nothing to open");
        let entry: LogEntry = from_json(r#"{"title":"Run 1","facts":[["prompt","a b"]]}"#).unwrap();
        assert_eq!(entry.facts, [("prompt".to_owned(), "a b".to_owned())]);
        assert!(from_json::<LogEntry>(r#"{"facts":[["prompt"]]}"#).is_err());
    }
}
