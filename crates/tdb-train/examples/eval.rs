//! `cargo run --release -p tdb-train --example eval -- FOLDER`

use tdb_train::{EvalOptions, Model, evaluate};

fn main() -> anyhow::Result<()> {
    let folder = std::env::args().nth(1).ok_or_else(|| anyhow::anyhow!("which folder?"))?;
    let model = Model::read(folder.as_ref())?;
    println!("{}", evaluate(&model, &EvalOptions::default())?.table());
    Ok(())
}
