//! Tokens per second of a collation for GPT-2 small's shape, beside what the multiplications alone need:
//! `cargo run --release -p tdb-collate --example collation_speed -- [SEQUENCES] [TOKENS]`
//!
//! Weights are procedural, so that nothing is downloaded; text is random tokens. The peak is measured, not looked up: the
//! rate of one large product on each core at the same time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use tdb_collate::collect::{Job, summarize};
use tdb_collate::corpus::{Cutting, Sequence};
use tdb_collate::summary::fingerprint;
use tdb_collate::{Kind, Plan, Sizes};
use tdb_model::numbers::{products, tensor};
use tdb_model::{AutoencoderSite, AutoencoderWeights, Config, LatentActivation, Matrix, NamedAutoencoder, Transformer};

const LAYERS: usize = 12;
const WIDTH: usize = 768;
const VOCABULARY: usize = 50257;

/// Uniform in ± `scale`.
fn numbers(seed: u64, n: usize, scale: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next() * scale).collect()
}

fn model() -> tdb_model::Result<Transformer> {
    let mut tensors: HashMap<String, Tensor> = HashMap::new();
    let mut add = |name: String, dims: &[usize], data: Vec<f32>| tensors.insert(name, tensor(dims, data));
    let norm = |name: String| [(format!("{name}.weight"), 1.0), (format!("{name}.bias"), 0.0)];
    let mut norms = vec![norm("final_norm".to_owned())];
    for layer in 0..LAYERS {
        norms.extend(["attn_norm", "mlp_norm"].map(|name| norm(format!("blocks.{layer}.{name}"))));
        let parts = ["attn.q", "attn.k", "attn.v", "attn.o", "mlp.in", "mlp.out"];
        for (part, name) in parts.into_iter().enumerate() {
            let (seed, name) = ((100 * layer + 2 * part + 1) as u64, format!("blocks.{layer}.{name}"));
            let n_out = if part == 4 { 4 * WIDTH } else { WIDTH };
            let n_in = if part == 5 { 4 * WIDTH } else { WIDTH };
            let scale = 1.5 / (n_in as f32).sqrt();
            add(format!("{name}.weight"), &[n_out, n_in], numbers(seed, n_out * n_in, scale));
            add(format!("{name}.bias"), &[n_out], numbers(seed + 1, n_out, 0.1));
        }
    }
    norms.into_iter().flatten().for_each(|(name, x)| drop(add(name, &[WIDTH], vec![x; WIDTH])));
    add("embed.weight".to_owned(), &[VOCABULARY, WIDTH], numbers(5, VOCABULARY * WIDTH, 0.5));
    add("positions.weight".to_owned(), &[1024, WIDTH], numbers(6, 1024 * WIDTH, 0.1));
    let config = Config { tied: true, ..Config::gpt2(LAYERS, WIDTH, 12, 4 * WIDTH, 1024, VOCABULARY) };
    Transformer::load(config, VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu))
}

/// Latents of which about one in a thousand is active.
fn autoencoders(site: AutoencoderSite, n_latents: usize) -> NamedAutoencoder {
    let one = |l: usize| {
        let seed = 5000 + 10 * l as u64 + site as u64 * 1000;
        let matrix = |seed| Matrix::from_vec(n_latents, WIDTH, numbers(seed, n_latents * WIDTH, 0.06));
        AutoencoderWeights {
            normalization: Default::default(),
            encoder_pre_bias: vec![0.0; WIDTH],
            encoder: matrix(seed),
            latent_bias: vec![0.0; n_latents],
            activation: LatentActivation::TopK { k: 32, relu: true },
            decoder: matrix(seed + 1).transpose(),
            decoder_bias: vec![0.0; WIDTH],
            skip: None,
            activation_frequency: None,
        }
    };
    NamedAutoencoder::of_every_layer(site.name(), site, (0..LAYERS).map(one).collect())
}

/// GFLOP/s of all cores together, each with a product of its own.
fn peak(threads: usize) -> f64 {
    let (m, n) = (512, 1024);
    let (a, b) = (numbers(1, m * n, 1.0), numbers(2, n * n, 1.0));
    let rounds = 12;
    let run = || {
        for _ in 0..rounds {
            std::hint::black_box(products(&a, &b, n, false));
        }
    };
    run();
    let start = Instant::now();
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(run))));
    (threads * rounds * 2 * m * n * n) as f64 / start.elapsed().as_secs_f64() / 1e9
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let argument = |i: usize, or: usize| std::env::args().nth(i).map_or(Ok(or), |a| a.parse());
    let (count, tokens) = (argument(1, 48)?, argument(2, 64)?);
    let threads = std::thread::available_parallelism()?.get();
    let plain = model()?;
    let with_mlp = plain.clone().attach(autoencoders(AutoencoderSite::ResidDeltaMlp, 32_768))?;
    let with_both = with_mlp.clone().attach(autoencoders(AutoencoderSite::ResidDeltaAttn, 10_240))?;
    // Multiplications and additions for a token: the blocks, 12 x 32,768 and 12 x 10,240 latents.
    let cases = [
        ("neurons and heads", &plain, vec![Kind::Neuron, Kind::Head], 0.170),
        ("and 12 x 32,768 MLP latents", &with_mlp, vec![Kind::Neuron, Kind::Head, Kind::MlpLatent], 0.774),
        ("and 12 x 10,240 attention latents, per token and per pair", &with_both, Kind::ALL.to_vec(), 0.963),
    ];
    println!("{threads} threads, {count} sequences of {tokens} tokens");
    for (name, model, kinds, gflop) in cases {
        let plan = Plan {
            first_counts: false,
            model: "bench".into(),
            fingerprint: fingerprint(model)?,
            autoencoders: vec![],
            corpus: vec![],
            content: String::new(),
            cutting: Cutting { tokens, first: None },
            sizes: Sizes::default(),
            kinds,
            seed: 1,
            shards: 1,
            version: tdb_collate::summary::VERSION.to_owned(),
        };
        let job = Job { model, plan: &plan, layers: 0..LAYERS, threads, watch: &() };
        let sequences = |first: usize, n: usize| {
            (first..first + n).map(move |i| {
                let random = numbers(i as u64 + 77, tokens, VOCABULARY as f32 / 2.0 - 1.0);
                let tokens = random.iter().map(|x| (x + VOCABULARY as f32 / 2.0) as u32).collect();
                Ok(Arc::new(Sequence { number: i as u64, tokens }))
            })
        };
        summarize(&job, sequences(0, threads))?;
        let before = peak(threads);
        let start = Instant::now();
        summarize(&job, sequences(1000, count))?;
        let seconds = start.elapsed().as_secs_f64();
        let peak = before.midpoint(peak(threads));
        let (rate, floor) = ((count * tokens) as f64 / seconds, peak / gflop);
        println!(
            "{name}: {rate:.0} tokens/s; floor {floor:.0} ({peak:.0} GFLOP/s), {:.0} % of it",
            100.0 * rate / floor
        );
    }
    Ok(())
}
