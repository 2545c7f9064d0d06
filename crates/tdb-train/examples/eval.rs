//! `cargo run --release -p tdb-train --example eval -- FOLDER`

use tdb_model::{Transformer, checkpoint};
use tdb_train::{EvalOptions, evaluate};

fn main() -> anyhow::Result<()> {
    let folder = std::env::args().nth(1).ok_or_else(|| anyhow::anyhow!("which folder?"))?;
    let checkpoint = checkpoint::open(folder.as_ref())?;
    let model = Transformer::new(checkpoint.weights);
    println!("{}", evaluate(&model, &checkpoint.tokenizer, &EvalOptions::default())?.table());
    Ok(())
}
