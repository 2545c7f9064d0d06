//! Splits texts, one JSON string a line, and prints for each `[ids, the text of these tokens together]`.
//!
//! ```text
//! cargo run --example tokenize -- tokenizer.json < texts
//! ```

use std::io::{BufRead, Write};
use std::path::Path;

use anyhow::Context;
use tdb_model::Tokenizer;

fn main() -> anyhow::Result<()> {
    let path = std::env::args().nth(1).context("give the path of a tokenizer.json")?;
    let tokenizer = Tokenizer::from_file(Path::new(&path))?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for line in std::io::stdin().lock().lines() {
        let text: String = serde_json::from_str(&line?)?;
        let ids = tokenizer.encode(&text);
        let decoded = tokenizer.decode(&ids);
        writeln!(out, "{}", serde_json::json!([ids, decoded]))?;
    }
    Ok(())
}
