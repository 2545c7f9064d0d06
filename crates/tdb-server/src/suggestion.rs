//! A question to begin with that the model can know: its tokens are tokens of the model, and its prompt begins as the
//! model's texts did.

use tdb_api::SuggestedQuestion;
use tdb_model::ForwardOptions;
use tdb_scalars::Engine;

/// Prompts, each with two tokens to compare, in the order in which they are tried.
const QUESTIONS: [[&str; 3]; 4] = [
    ["Paris, France. Ottawa,", " Canada", " Germany"],
    ["When Mary and John went to the store, John gave a drink to", " Mary", " John"],
    ["The sun is hot and the ice is", " cold", " hot"],
    ["one, two, three,", " four", " two"],
];

/// `None` if the model knows no two tokens that can be told apart by their texts.
pub fn suggest(engine: &Engine) -> Option<SuggestedQuestion> {
    let beginning = engine.beginning().map(|token| engine.token_text(token)).unwrap_or_default();
    let is_token = |text: &str| engine.tokenizer().single_token(text).is_ok();
    let question = |prompt: &str, target: String, distractor: String| SuggestedQuestion {
        prompt: format!("{beginning}{prompt}"),
        target_tokens: vec![target.as_str().into()],
        distractor_tokens: vec![distractor.as_str().into()],
    };
    let known = QUESTIONS.iter().find(|[_, target, distractor]| is_token(target) && is_token(distractor));
    if let Some([prompt, target, distractor]) = known {
        return Some(question(prompt, (*target).to_owned(), (*distractor).to_owned()));
    }
    let [prompt, ..] = QUESTIONS[1];
    let [target, distractor] = likeliest(engine, &format!("{beginning}{prompt}"))?;
    Some(question(prompt, target, distractor))
}

/// The two likeliest next tokens that can be told apart by their texts.
fn likeliest(engine: &Engine, prompt: &str) -> Option<[String; 2]> {
    let tokens = engine.tokenizer().encode(prompt);
    let run = engine.model().forward(&tokens, ForwardOptions::default()).ok()?;
    let logits = run.logits(tokens.len() - 1).ok()?;
    let mut order: Vec<u32> = (0..u32::try_from(logits.len()).ok()?).collect();
    order.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]));
    let texts = order.into_iter().map(|token| engine.token_text(token));
    let mut texts = texts.filter(|text| engine.tokenizer().single_token(text).is_ok());
    Some([texts.next()?, texts.next()?])
}
