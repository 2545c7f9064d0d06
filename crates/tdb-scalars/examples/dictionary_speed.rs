//! What wide dictionaries cost, in memory and time: `cargo xtask bench dictionaries [LATENTS ...]`.
//!
//! For each width a dictionary on the residual stream of one layer of a model of GPT-2 small's shape, built like OpenAI's
//! of version 5 (TopK 32 of layer-normed inputs), is written, opened and asked. Memory is the process's own: what the
//! system maps from files is told apart, because it can be read again and is shared.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use tdb_model::checkpoint::{self, Precision, native};
use tdb_model::{
    AutoencoderSite, AutoencoderWeights, LatentActivation, Matrix, NamedAutoencoder, Normalization, Tokenizer,
    Transformer,
};
use tdb_scalars::{Engine, Question};
use tdb_testkit::checkpoint::{Parts, write};
use tdb_testkit::presets::preset;
use tdb_testkit::process::{memory, processor_seconds};
use tdb_testkit::weights::TensorSpec;

const LAYER: usize = 6;
const K: usize = 32;
const TEXT: &str = "When Mary and John went to the store, John gave a drink to Mary. Then Anna and Tom met at the park, and \
                    Tom showed a book to Anna before they walked home through the old garden behind the school, where \
                    the children were playing with a red ball near the bridge. In the evening they sat by the lake and read.";

fn main() -> Result<()> {
    let widths: Vec<usize> = std::env::args().skip(1).map(|width| width.parse()).collect::<Result<_, _>>()?;
    let widths = if widths.is_empty() { vec![32_768, 131_072] } else { widths };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    let folder = write(&preset("bench-small").context("no preset")?, &root.join("oracle-weights"), Parts::Model)?;
    println!("GPT-2 small's shape, {} threads, layer {LAYER} of 12, TopK {K}", tdb_model::parallel::threads());
    for latents in widths {
        let path = root.join("bench-dictionaries").join(format!("resid-post-mlp-{latents}"));
        if !path.is_dir() {
            make(&path, latents)?;
        }
        measure(&folder, &path, latents)?;
    }
    Ok(())
}

fn make(path: &Path, latents: usize) -> Result<()> {
    let width = 768;
    let matrix = |name: &str| {
        let numbers = TensorSpec::new(name, &[latents, width], 0.06, 0.0).values(1);
        Matrix::from_vec(latents, width, numbers)
    };
    let weights = AutoencoderWeights {
        normalization: Normalization::LAYER_NORM,
        encoder_pre_bias: vec![0.0; width],
        encoder: matrix("encoder"),
        latent_bias: vec![0.0; latents],
        activation: LatentActivation::TopK { k: K, relu: true },
        decoder: matrix("directions").transpose(),
        decoder_bias: vec![0.0; width],
        skip: None,
        activation_frequency: None,
    };
    let site = AutoencoderSite::ResidPostMlp;
    let named = NamedAutoencoder { name: "wide".to_owned(), site, layers: vec![weights], indices: vec![LAYER] };
    std::fs::create_dir_all(path)?;
    Ok(native::save_autoencoder(path, &named, Precision::F32)?)
}

/// Mebibytes of this process: its own, and of files that are mapped.
fn resident() -> Result<[f64; 2]> {
    let read = |name: &str| -> Result<f64> {
        let bytes = memory(None, name).context("memory is told by /proc, on Linux")?;
        Ok(bytes as f64 / f64::from(1 << 20))
    };
    Ok([read("RssAnon")?, read("RssFile")?])
}

fn measure(model: &Path, dictionary: &Path, latents: usize) -> Result<()> {
    let found = checkpoint::open(model)?;
    let (config, model) = (found.config.clone(), Transformer::load(found.config, found.weights)?);
    let [own, mapped] = resident()?;
    let start = Instant::now();
    let named = checkpoint::open_autoencoder(dictionary, None, &config)?;
    ensure!(named.n_latents() == latents, "{} holds another width", dictionary.display());
    let model = model.attach(named)?;
    let took = start.elapsed().as_secs_f64();
    let [own_after, mapped_after] = resident()?;
    println!("\n{latents} latents, {:.0} MiB of weights", (2 * latents * 768 * 4) as f64 / f64::from(1 << 20));
    println!(
        "  opened in {took:.2} s; memory of its own +{:.0} MiB, mapped +{:.0} MiB",
        own_after - own,
        mapped_after - mapped
    );
    let engine = Engine::new("bench-small", model, Tokenizer::gpt2(), None, None)
        .with_residual_autoencoder(Some("wide".to_owned()));
    for tokens in [16, 64] {
        let ids = engine.tokenizer().encode(TEXT);
        ensure!(ids.len() >= 64, "the text has only {} tokens", ids.len());
        let prompt: String = ids[..tokens].iter().map(|id| engine.token_text(*id)).collect();
        let mut question = Question::new(&prompt, &[" Mary"], &[" John"]);
        let plain = best(|| engine.ask(&question).map(drop).map_err(Into::into))?;
        question.residual_cut = Some(LAYER);
        question.list_errors = true;
        let with = best(|| engine.ask(&question).map(drop).map_err(Into::into))?;
        let [peak, _] = resident()?;
        println!(
            "  {tokens} tokens: a question with neurons and heads {plain}, with the latents at the cut {with}; memory of its own then +{:.0} MiB",
            peak - own
        );
    }
    Ok(())
}

/// The least of three: seconds on the clock, and seconds of all threads.
fn best(mut f: impl FnMut() -> Result<()>) -> Result<Times> {
    let mut least = Times { clock: f64::INFINITY, processor: f64::INFINITY };
    for _ in 0..3 {
        let (start, before) = (Instant::now(), used()?);
        f()?;
        least.clock = least.clock.min(start.elapsed().as_secs_f64());
        least.processor = least.processor.min(used()? - before);
    }
    Ok(least)
}

struct Times {
    clock: f64,
    processor: f64,
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} s ({:.2} s of processor time)", self.clock, self.processor)
    }
}

fn used() -> Result<f64> {
    processor_seconds(None).context("processor time is told by /proc, on Linux")
}
