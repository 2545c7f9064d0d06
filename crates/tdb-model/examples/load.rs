//! What a checkpoint folder holds, and how long reading it takes.
//!
//! `cargo run --release -p tdb-model --example load -- <model folder> [<autoencoder folder> ...]`

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use tdb_model::{Transformer, checkpoint};

fn main() -> Result<()> {
    let mut folders = std::env::args().skip(1);
    let folder = folders.next().context("the folder of a model is needed")?;
    let start = Instant::now();
    let model = checkpoint::open(Path::new(&folder))?;
    println!("{:>8.1?}  {}: {:?}", start.elapsed(), model.origin, model.config);
    let start = Instant::now();
    Transformer::load(model.config.clone(), model.weights.clone())?;
    println!("{:>8.1?}  all numbers read and found finite", start.elapsed());
    for folder in folders {
        let start = Instant::now();
        let mut autoencoder = checkpoint::open_autoencoder(Path::new(&folder), None, &model.config)?;
        let dropped = checkpoint::drop_dead_latents(&mut autoencoder);
        let activation = autoencoder.layers.first().map(|layer| format!("{:?}", layer.activation));
        println!(
            "{:>8.1?}  {}: {:?}, {} layers of {} latents, {dropped} dead ones left out, {}",
            start.elapsed(),
            autoencoder.name,
            autoencoder.site,
            autoencoder.layers.len(),
            autoencoder.n_latents(),
            activation.unwrap_or_default()
        );
    }
    Ok(())
}
