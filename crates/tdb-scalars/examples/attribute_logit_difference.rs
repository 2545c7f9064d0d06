//! Which neurons and attention heads made the model prefer one next token to another?
//!
//! `cargo run --release -p tdb-scalars --example attribute_logit_difference -- [FOLDER [PROMPT TARGET DISTRACTOR]]`

use std::path::PathBuf;

use anyhow::Result;
use tdb_model::{Transformer, checkpoint};
use tdb_scalars::{Engine, Question};

fn main() -> Result<()> {
    let embedded = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../datasets/embedded");
    let mut args = std::env::args().skip(1);
    let folder = args.next().map_or_else(embedded, PathBuf::from);
    let prompt = args
        .next()
        .unwrap_or_else(|| "<|endoftext|>When Mary and John went to the store, John gave a drink to".to_owned());
    let (target, distractor) = (args.next().unwrap_or(" Mary".to_owned()), args.next().unwrap_or(" John".to_owned()));
    let checkpoint = checkpoint::open(&folder)?;
    let model = Transformer::load(checkpoint.config, checkpoint.weights)?;
    let engine = Engine::new("example", model, checkpoint.tokenizer, None, None);

    let mut question = Question::new(&prompt, &[&target], &[&distractor]);
    question.extremes = 5;
    let answer = engine.ask(&question)?;
    let difference = answer.difference.unwrap_or_default();
    println!("{prompt}\nlogit of{target} minus logit of{distractor}: {difference:.4}\n");
    println!("{:>8} {:>8} {:>10}  {:<40} makes likelier", "direct", "total", "activation", "component");
    for effect in answer.effects.iter().take(15) {
        let likelier = effect.tokens.iter().flat_map(|tokens| &tokens.top).take(4);
        let likelier: String = likelier.map(|token| token.token.as_str()).collect();
        let name = effect.component.to_string();
        println!("{:8.3} {:8.3} {:10.3}  {name:<40}{likelier}", effect.direct, effect.total, effect.activation);
    }
    Ok(())
}
