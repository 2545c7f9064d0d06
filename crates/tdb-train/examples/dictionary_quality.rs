//! Judges dictionaries of a model that `tdb train` made, as `tdb train-sae` does at its end: on the first 256 documents of
//! the text that dictionaries learn from, which their training left out.
//!
//! ```text
//! cargo run --release -p tdb-train --example dictionary_quality -- MODEL DICTIONARY…
//! ```

use std::error::Error;
use std::path::Path;

use tdb_model::{Autoencoder, Transformer, checkpoint};
use tdb_train::sae::{GrammarSource, TokenSource, TrainedAutoencoder, quality, quality_table};

/// As many as `tdb train-sae` judges on, from the text with its seed.
const DOCUMENTS: usize = 256;
const SEED: u64 = 7;

fn main() -> Result<(), Box<dyn Error>> {
    let mut folders = std::env::args().skip(1);
    let folder = folders.next().ok_or("usage: dictionary_quality MODEL DICTIONARY…")?;
    let checkpoint = checkpoint::open(Path::new(&folder))?;
    let model = Transformer::load(checkpoint.config, checkpoint.weights)?;
    let mut text = GrammarSource::new(checkpoint.tokenizer, SEED, model.config().ctx_window);
    let judged = (0..DOCUMENTS).filter_map(|_| text.next().transpose()).collect::<Result<Vec<_>, _>>()?;
    for folder in folders {
        let found = checkpoint::open_autoencoder(Path::new(&folder), None, model.config())?;
        let mut layers = Vec::new();
        for (layer, weights) in found.indices.into_iter().zip(found.layers) {
            let autoencoder = Autoencoder::new(found.site, weights.clone())?;
            layers.push(TrainedAutoencoder { quality: quality(&model, layer, &autoencoder, &judged)?, weights });
        }
        println!("{}\n\n{}", found.name, quality_table(&layers));
    }
    Ok(())
}
