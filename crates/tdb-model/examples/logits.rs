//! Prints the logits after the last of some tokens, `null` and a sentence where the model is refused, for each line
//! `["folder", [tokens]]`: for comparisons with other implementations.
//!
//! ```text
//! cargo run --example logits < questions
//! ```

use std::io::{BufRead, Write};
use std::path::Path;

use tdb_model::{ForwardOptions, Transformer, checkpoint};

fn logits(folder: &str, tokens: &[u32]) -> anyhow::Result<Vec<f32>> {
    let checkpoint = checkpoint::open(Path::new(folder))?;
    let model = Transformer::load(checkpoint.config, checkpoint.weights)?;
    Ok(model.forward(tokens, ForwardOptions::default())?.logits(tokens.len() - 1)?)
}

fn main() -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let (folder, tokens): (String, Vec<u32>) = serde_json::from_str(&line?)?;
        let answer = match logits(&folder, &tokens) {
            Ok(logits) => serde_json::json!([logits, null]),
            Err(error) => serde_json::json!([null, error.to_string()]),
        };
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}
