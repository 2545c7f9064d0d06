//! How long the passes of a model of GPT-2 small's shape take, as multiples of what the machine could do.
//!
//! `cargo run --release -p tdb-model --example speed -- [options]`
//!
//! `--model FOLDER` (default: procedural weights, made in memory), `--conv1d` (those weights laid out as
//! Hugging Face files are), `--latents N` (autoencoders of N latents on every MLP), `--tokens 16,64,256`,
//! `--threads 2`, `--rounds 5`. Wall times are the best of all rounds, CPU times their mean: on a machine that does other
//! things too, the second says more.

use std::time::Instant;

use anyhow::{Context, Result, bail};
use tdb_model::{
    AutoencoderSite, AutoencoderWeights, BackwardOptions, CheckpointError, Config, ForwardOptions, LatentActivation,
    Matrix, NamedAutoencoder, Seed, Site, Slot, Source, Transformer, checkpoint,
};
use tdb_testkit::process::processor_seconds;
use tdb_testkit::weights::TensorSpec;

/// As in the program `tdb`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// f32 operations a second and bytes a second that one core, and two together, were measured to do.
const FLOPS_PER_CORE: f64 = 105e9;
const BYTES_PER_SECOND: f64 = 26e9;

struct Options {
    model: Option<String>,
    conv1d: bool,
    latents: usize,
    tokens: Vec<usize>,
    threads: usize,
    rounds: usize,
}

fn options() -> Result<Options> {
    let tokens = vec![16, 64, 256];
    let mut options = Options { model: None, conv1d: false, latents: 0, tokens, threads: 2, rounds: 5 };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--conv1d" => options.conv1d = true,
            "--model" => options.model = Some(value()?),
            "--latents" => options.latents = value()?.parse()?,
            "--threads" => options.threads = value()?.parse()?,
            "--rounds" => options.rounds = value()?.parse()?,
            "--tokens" => options.tokens = value()?.split(',').map(str::parse).collect::<Result<_, _>>()?,
            _ => bail!("unknown option {arg}"),
        }
    }
    Ok(options)
}

fn numbers(name: &str, len: usize, scale: f64, offset: f64) -> Vec<f32> {
    TensorSpec::new(name, &[len], scale, offset).values(1)
}

fn matrix(name: &str, rows: usize, cols: usize, scale: f64, transposed: bool) -> Matrix {
    let data = numbers(name, rows * cols, scale / (cols as f64).sqrt(), 0.0);
    if transposed { Matrix::from_vec(cols, rows, data).transpose() } else { Matrix::from_vec(rows, cols, data) }
}

/// GPT-2 small's shape; numbers follow from the names.
#[derive(Debug)]
struct Procedural {
    conv1d: bool,
}

impl Source for Procedural {
    fn contains(&self, _: &str) -> bool {
        true
    }

    fn shape(&self, name: &str) -> Result<Vec<usize>, CheckpointError> {
        Err(CheckpointError::missing(std::path::Path::new("procedural weights"), name))
    }

    fn matrix(&self, name: &str, [rows, cols]: [usize; 2]) -> Result<Matrix, CheckpointError> {
        let (scale, is_linear) = match name.rsplit('.').nth(1) {
            Some("embed") => (27.0, false),
            Some("positions") => (14.0, false),
            Some("unembed") => (4.0, false),
            Some("q" | "k") => (2.5, true),
            Some("v") => (1.75, true),
            Some("in") => (2.0, true),
            _ => (1.4, true),
        };
        Ok(matrix(name, rows, cols, scale, self.conv1d && is_linear))
    }

    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, CheckpointError> {
        Ok(numbers(name, len, 0.1, f64::from(u8::from(name.ends_with("norm.weight")))))
    }
}

fn autoencoders(config: &Config, n_latents: usize) -> NamedAutoencoder {
    let d = config.d_model;
    let layer = |i: usize| AutoencoderWeights {
        normalization: Default::default(),
        encoder_pre_bias: numbers("pre", d, 0.1, 0.0),
        encoder: matrix(&format!("enc.{i}"), n_latents, d, 4.0, false),
        latent_bias: numbers("bias", n_latents, 0.1, -4.5),
        activation: LatentActivation::Relu,
        decoder: matrix(&format!("dec.{i}"), d, n_latents, 1.75 * (n_latents as f64 / d as f64).sqrt(), true),
        decoder_bias: numbers("pre", d, 0.1, 0.0),
        skip: None,
        activation_frequency: None,
    };
    let layers = (0..config.n_layers).map(layer).collect();
    NamedAutoencoder::of_every_layer("procedural", AutoencoderSite::ResidDeltaMlp, layers)
}

/// Best wall time and mean CPU time in milliseconds.
fn measure(rounds: usize, mut f: impl FnMut() -> Result<()>) -> Result<(f64, f64)> {
    f()?;
    let (mut best, before) = (f64::MAX, processor_seconds(None).unwrap_or(0.0));
    for _ in 0..rounds {
        let start = Instant::now();
        f()?;
        best = best.min(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok((best, (processor_seconds(None).unwrap_or(0.0) - before) * 1e3 / rounds as f64))
}

fn main() -> Result<()> {
    let options = options()?;
    rayon::ThreadPoolBuilder::new().num_threads(options.threads).build_global()?;
    let mut model = match &options.model {
        Some(folder) => {
            let checkpoint = checkpoint::open(folder.as_ref())?;
            Transformer::load(checkpoint.config, checkpoint.weights)?
        }
        None => {
            let config = Config { tied: false, ..Config::gpt2(12, 768, 12, 3072, 1024, 50257) };
            Transformer::load(config, Procedural { conv1d: options.conv1d })?
        }
    };
    if options.latents > 0 {
        let all = autoencoders(model.config(), options.latents);
        model = model.attach(all)?;
    }
    let config = model.config().clone();
    let inner = config.n_heads * config.d_head;
    let per_layer = 4 * inner * config.d_model + 2 * config.d_ff * config.d_model;
    let block_weights = (config.n_layers * per_layer) as f64;
    let encoder_weights = (config.n_layers * options.latents * config.d_model) as f64;
    let unembedding = (config.n_vocab * config.d_model) as f64;
    let cores = options.threads.min(2) as f64;
    let floor = |weights: f64, rows: f64, bytes: f64| {
        (2.0 * weights * rows / (FLOPS_PER_CORE * cores)).max(4.0 * bytes / BYTES_PER_SECOND) * 1e3
    };
    println!("| T | what | wall ms | floor ms | wall / floor | CPU ms |\n|---|---|---|---|---|---|");
    for &t in &options.tokens {
        let tokens: Vec<u32> = (0..t).map(|i| (i * 7919 % config.n_vocab) as u32).collect();
        let show = |what: &str, (wall, cpu): (f64, f64), floor: f64| {
            println!("| {t} | {what} | {wall:.1} | {floor:.1} | {:.2} | {cpu:.0} |", wall / floor);
        };
        let forward = || model.forward(&tokens, ForwardOptions::default());
        let run = forward()?;
        let rows = t as f64;
        let attention = (config.n_layers * 2 * inner) as f64 * rows;
        let weights = block_weights + attention + encoder_weights;
        let logits = floor(unembedding, 1.0, unembedding);
        let taken = measure(options.rounds, || {
            forward()?.logits(t - 1)?;
            Ok(())
        })?;
        show("forward, one row of logits", taken, floor(weights, rows, block_weights + encoder_weights) + logits);
        let mut seed = vec![0.0; config.n_vocab];
        (seed[11], seed[23]) = (1.0, -1.0);
        let taken = measure(options.rounds, || {
            let seed = Seed::Logits([(t - 1, seed.clone())].into());
            let keep = [Site::MlpPostAct, Site::AttnQkProbs, Site::AttnVOut, Site::ResidPostMlp, Site::ResidPostAttn];
            let options = BackwardOptions { keep: &keep, ..Default::default() };
            run.backward(seed, options)?;
            Ok(())
        })?;
        show("backward", taken, floor(block_weights + 2.0 * attention, rows, block_weights));
        if let Some(autoencoder) = model.autoencoder(Slot::Mlp, 0) {
            let one = (autoencoder.n_latents() * autoencoder.n_inputs()) as f64;
            let x = run.get(Site::ResidDeltaMlp, 0)?;
            let mut active = 0;
            let taken = measure(options.rounds, || {
                active = autoencoder.encode(&x)?.rows().iter().map(Vec::len).sum();
                Ok(())
            })?;
            show("encode one layer", taken, floor(one, rows, one));
            eprintln!("{active} latents active at {t} tokens");
        }
    }
    Ok(())
}
