//! `cargo run --release -p tdb-train --example train_sae -- MODEL OUT mlp|attn topk:16|relu:0.01 LATENTS TOKENS`

use std::ops::ControlFlow;

use tdb_model::checkpoint::{self, Precision};
use tdb_model::{AutoencoderSite, Transformer};
use tdb_train::sae::{self, GrammarSource, SaeRecipe, Sparsity};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, out, site, sparsity, latents, tokens, rate] = &arguments[..] else { anyhow::bail!("six arguments") };
    let checkpoint = checkpoint::open(model.as_ref())?;
    let context = checkpoint.weights.config.ctx_window;
    let mut source = GrammarSource::new(checkpoint.tokenizer, 7, context);
    let model = Transformer::new(checkpoint.weights);
    let sparsity = match sparsity.split_once(':') {
        Some(("topk", k)) => Sparsity::TopK { k: k.parse()? },
        Some(("relu", l1)) => Sparsity::Relu { l1: l1.parse()? },
        _ => anyhow::bail!("which sparsity?"),
    };
    let recipe = SaeRecipe {
        seed: 1,
        site: if site == "mlp" { AutoencoderSite::ResidDeltaMlp } else { AutoencoderSite::ResidDeltaAttn },
        latents: latents.parse()?,
        sparsity,
        tokens: tokens.parse()?,
        batch: 1024,
        buffer: 32_768,
        rate: rate.parse()?,
    };
    let folder = std::path::Path::new(out);
    std::fs::create_dir_all(folder)?;
    let start = std::time::Instant::now();
    let trained = sae::train_autoencoders(&model, &mut source, &recipe, &sae::state_file(folder), &mut |progress| {
        let layers: Vec<String> = progress
            .layers
            .iter()
            .map(|l| {
                format!(
                    "{:.3}/{:.1}/{}/{:.3}",
                    l.variance_explained,
                    l.latents_per_token,
                    l.dead,
                    l.loss_recovered.unwrap_or(-1.0)
                )
            })
            .collect();
        eprintln!("{} {} {:.0} s", progress.tokens, layers.join("  "), start.elapsed().as_secs_f64());
        ControlFlow::Continue(())
    })?;
    if let Some(trained) = trained {
        sae::write_autoencoders(folder, &recipe, "built-in", &trained, Precision::F32)?;
        println!("{}", sae::quality_table(&trained));
    }
    Ok(())
}
