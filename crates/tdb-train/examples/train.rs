//! `cargo run --release -p tdb-train --example train -- FOLDER [STEPS]`

use std::ops::ControlFlow;

use tdb_train::{Recipe, TrainOptions, train};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or_else(|| anyhow::anyhow!("which folder?"))?;
    let mut recipe = Recipe::default();
    if let Some(steps) = arguments.next() {
        recipe.steps = steps.parse()?;
    }
    let options = TrainOptions { recipe, folder: folder.into(), save_every: 100 };
    let start = std::time::Instant::now();
    let mut tokens = 0;
    let model = train(&options, &mut |p| {
        tokens += p.tokens;
        if p.step % 50 == 0 || p.step == 5 {
            let seconds = start.elapsed().as_secs_f64();
            eprintln!(
                "{}/{} loss {:.3} average {:.3} rate {:.2e} {:.0} tokens/s {:.0} s",
                p.step,
                p.steps,
                p.loss,
                p.average,
                p.rate,
                tokens as f64 / seconds,
                seconds
            );
        }
        ControlFlow::Continue(())
    })?;
    if let Some(model) = model {
        println!("{} parameters, {} tokens", model.layout.size, model.layout.shape.vocabulary);
    }
    Ok(())
}
