//! `tdb verify`: the checks that answers carry, for a model.

use anyhow::Context;
use tdb_api::{Check, CheckName};

use super::output::say;
use super::{library, model, runtime};

/// Check a model: that what is written adds up, that gradients are differences, that patches do what they say
///
/// Ends with status 1 if a check fails.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub model: model::ModelArgs,
    #[command(flatten)]
    pub data: library::DataArgs,
    /// Text to run; may be repeated
    #[arg(long, value_name = "TEXT", default_values_t = [
        "When Mary and John went to the store, John gave a drink to".to_owned(),
        "Paris, France. Ottawa,".to_owned(),
    ])]
    pub prompt: Vec<String>,
    /// Print JSON instead of lines
    #[arg(long)]
    pub json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let runtime = runtime::new()?;
    let library = library::open(&args.data, args.model.records())?;
    let engine = model::load(&args.model, &library, runtime.handle())?;
    let mut all = Vec::new();
    for prompt in &args.prompt {
        let checks = engine.verify(prompt).with_context(|| format!("the prompt {prompt:?} cannot be checked"))?;
        if !args.json {
            say!("{}", lines(engine.name(), prompt, &checks));
        }
        all.extend(checks);
    }
    if args.json {
        say!("{}", serde_json::to_string_pretty(&all)?);
    }
    let failed = all.iter().filter(|check| !check.passed).count();
    anyhow::ensure!(failed == 0, "{failed} of {} checks failed", all.len());
    Ok(())
}

fn lines(model: &str, prompt: &str, checks: &[Check]) -> String {
    let line = |check: &Check| {
        let mark = if check.passed { "passed" } else { "FAILED" };
        let measured = match check.name {
            // Either the logits changed or they did not.
            CheckName::Difference => String::new(),
            _ => format!(" (found {:.2e}, at most {:.2e})", check.found, check.limit),
        };
        format!("{mark}  {:<10}  {}{measured}", check.name.as_str(), check.sentence)
    };
    let lines: Vec<String> = checks.iter().map(line).collect();
    format!("{model}: {prompt:?}\n{}", lines.join("\n"))
}
