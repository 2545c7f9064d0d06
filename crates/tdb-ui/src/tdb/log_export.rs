//! The log as a document, and as a notebook that asks the same server the same questions.

use serde::Serialize;
use tdb_api::page::LogEntry as Entry;

use crate::format;
use crate::json::Json;

fn value(entry: &Entry) -> String {
    entry.values.iter().map(|v| format::full(*v)).collect::<Vec<_>>().join(", ")
}

/// An entry as Markdown, without its figure.
fn words(entry: &Entry, server: &str) -> String {
    let mut out = format!("## {}\n\n", entry.title);
    if !entry.note.is_empty() {
        out += &format!("{}\n\n", entry.note);
    }
    for (name, text) in &entry.facts {
        out += &format!("- {name}: `{}`\n", text.replace('`', "'").replace('\n', "↵"));
    }
    if !entry.values.is_empty() {
        out += &format!("- value: {}\n", value(entry));
    }
    if !entry.url.is_empty() {
        out += &format!("- [open]({server}{})\n", entry.url);
    }
    out + &format!("\n{}\n", entry.at)
}

/// The log as Markdown; figures are images in it.
pub fn markdown(all: &[Entry], server: &str) -> String {
    let figure = |svg: &str| match svg {
        "" => String::new(),
        svg => format!("\n![figure](data:image/svg+xml;utf8,{})\n", percent(svg)),
    };
    let entries = all.iter().map(|e| format!("\n{}{}", words(e, server), figure(&e.svg)));
    format!("# Transformer Debugger: log\n{}", entries.collect::<String>())
}

/// What an address cannot hold, spelt out.
fn percent(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~/:;,=".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// The log as a page of its own.
pub fn html(all: &[Entry], server: &str) -> String {
    let row =
        |(name, text): &(String, String)| format!("<dt>{}</dt><dd>{}</dd>", format::html(name), format::html(text));
    let entry = |e: &Entry| {
        let link = if e.url.is_empty() {
            String::new()
        } else {
            format!("<p><a href=\"{}\">Open</a></p>", format::html(&format!("{server}{}", e.url)))
        };
        format!(
            "<section><h2>{}</h2><p>{}</p><dl>{}</dl><p><strong>{}</strong></p>{link}{}<p><small>{}</small></p>\
             </section>",
            format::html(&e.title),
            format::html(&e.note),
            e.facts.iter().map(row).collect::<String>(),
            value(e),
            e.svg,
            e.at
        )
    };
    format!(
        "<!doctype html><meta charset=\"utf-8\"><title>Transformer Debugger: log</title><style>body{{font:15px/1.5 \
         sans-serif;max-width:60em;margin:2em auto}}dt{{color:#666}}</style><h1>Transformer Debugger: log</h1>{}",
        all.iter().map(entry).collect::<String>()
    )
}

#[derive(Serialize)]
struct Notebook {
    cells: Vec<Cell>,
    metadata: Metadata,
    nbformat: u32,
    nbformat_minor: u32,
}

#[derive(Default, Serialize)]
struct Metadata {
    #[serde(skip_serializing_if = "Option::is_none")]
    kernelspec: Option<Kernel>,
}

#[derive(Serialize)]
struct Kernel {
    display_name: &'static str,
    language: &'static str,
    name: &'static str,
}

#[derive(Serialize)]
struct Cell {
    cell_type: &'static str,
    metadata: Metadata,
    source: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    outputs: Option<Vec<Output>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    execution_count: Option<u32>,
}

#[derive(Serialize)]
struct Output {
    output_type: &'static str,
    name: &'static str,
    text: String,
}

impl Cell {
    fn text(source: String) -> Self {
        Self { cell_type: "markdown", metadata: Metadata::default(), source, outputs: None, execution_count: None }
    }

    fn code(source: String, prints: String, count: u32) -> Self {
        let output = Output { output_type: "stream", name: "stdout", text: prints };
        let outputs = if output.text.is_empty() { Vec::new() } else { vec![output] };
        Self {
            cell_type: "code",
            metadata: Metadata::default(),
            source,
            outputs: Some(outputs),
            execution_count: Some(count),
        }
    }
}

/// The log as a notebook of Python without dependencies. A run's cell asks again and prints what the log says.
pub fn ipynb(all: &[Entry], server: &str) -> String {
    let ask = format!(
        r#"import json
import urllib.request

SERVER = "{server}"


def ask(body):
    """The asked quantity of each side."""
    headers = {{"Content-Type": "application/json"}}
    request = urllib.request.Request(SERVER + "/batched_tdb", data=json.dumps(body).encode(), headers=headers)
    sides = json.load(urllib.request.urlopen(request))["inferenceSubResponses"]
    told = [side["inferenceResponse"]["inferenceAndTokenData"] for side in sides]
    return [t["activationValueForBackwardPass"] if t["loss"] is None else t["loss"] for t in told]"#
    );
    let mut cells = vec![Cell::text("# Transformer Debugger: log".into()), Cell::code(ask, String::new(), 1)];
    for (i, entry) in all.iter().enumerate() {
        let figure = if entry.svg.is_empty() { String::new() } else { format!("\n\n{}", entry.svg) };
        cells.push(Cell::text(words(entry, server) + &figure));
        if !entry.request.is_empty() {
            let source = format!("print(*ask(json.loads({})))", Json::of(&entry.request).text());
            let prints = entry.values.iter().map(|v| format::full(*v)).collect::<Vec<_>>().join(" ");
            cells.push(Cell::code(source, format!("{prints}\n"), i as u32 + 2));
        }
    }
    let kernel = Kernel { display_name: "Python 3", language: "python", name: "python3" };
    let metadata = Metadata { kernelspec: Some(kernel) };
    Json::of(&Notebook { cells, metadata, nbformat: 4, nbformat_minor: 4 }).pretty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            title: "Run 1".into(),
            note: "a <note>".into(),
            facts: vec![("prompt".into(), "a `b`".into())],
            url: "/m/tdb_alpha?x=1".into(),
            request: r#"{"subRequests":[]}"#.into(),
            values: vec![7.067724227905273],
            svg: "<svg/>".into(),
            ..Entry::default()
        }
    }

    #[test]
    fn every_number_is_in_every_form() {
        let all = [entry()];
        for text in [markdown(&all, "http://h"), html(&all, "http://h"), ipynb(&all, "http://h")] {
            assert!(text.contains("7.067724227905273") && text.contains("http://h/m/tdb_alpha?x=1"), "{text}");
        }
        assert!(html(&all, "").contains("a &lt;note&gt;") && html(&all, "").contains("<svg/>"));
        assert!(markdown(&all, "").contains("utf8,%3Csvg/%3E"));
        assert!(ipynb(&all, "").contains(r#"print(*ask(json.loads(\"{\\\"subRequests\\\":[]}\")))"#));
    }
}
