//! Trains the embedded model. A step's text depends on the seed and the step alone, gradients are summed in a fixed
//! order whatever the number of threads, and everything else is kept in the state file: a resumed run ends with the
//! same bytes as an uninterrupted one.

use std::collections::HashMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tdb_model::Config;
use tdb_model::parallel;
use tokenizers::Tokenizer;

use crate::bpe::{encode, train_tokenizer};
use crate::dice::Dice;
use crate::error::{Error, Result};
use crate::folder::{CONFIG, Model, TOKENIZER, WEIGHTS, read_tensor, write_json, write_tensors, write_whole};
use crate::gpt::{Layout, Parameters, Text, loss_and_gradients};
use crate::grammar::{END_OF_TEXT, GRAMMAR_VERSION, Mixture, paragraph, sentence_with};
use crate::optimizer::{AdamW, Moments};

/// Kept while training, removed when the model is finished.
const STATE: &str = "training-state.safetensors";
const REPORT: &str = "training.json";

/// How a model is trained. What it becomes depends on these and on nothing else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recipe {
    pub seed: u64,
    pub steps: usize,
    /// Texts of one step.
    pub batch: usize,
    pub n_layers: usize,
    pub d_model: usize,
    pub n_heads: usize,
    pub d_ff: usize,
    pub context: usize,
    /// Rows of text that the tokenizer is trained on.
    pub tokenizer_rows: usize,
    pub optimizer: AdamW,
    /// [`Model::fingerprint`] of the model that the training goes on from; `None` if it begins anew. Then the shape above
    /// is that model's, and no tokenizer is trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// In the first half of the steps, a third of the rows are sentences that hold this text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub often: Option<String>,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            seed: 1,
            steps: 5000,
            batch: 96,
            n_layers: 4,
            d_model: 128,
            n_heads: 8,
            d_ff: 512,
            context: 128,
            tokenizer_rows: 30_000,
            optimizer: AdamW::default(),
            from: None,
            often: None,
        }
    }
}

/// A finished model that training goes on from.
#[derive(Clone, Debug)]
pub struct Start {
    folder: PathBuf,
    model: Model,
    fingerprint: String,
    /// Its own report; `null` if there is none.
    report: Value,
}

impl Start {
    /// Reads the model in `folder`.
    ///
    /// # Errors
    /// As [`Model::read`], and if there is a report that is no JSON.
    pub fn read(folder: &Path) -> Result<Self> {
        let model = Model::read(folder)?;
        let path = folder.join(REPORT);
        let report = match path.exists() {
            true => serde_json::from_slice(&fs::read(&path).map_err(Error::file(&path))?)
                .map_err(|error| Error::content(&path, error))?,
            false => Value::Null,
        };
        Ok(Self { folder: folder.to_owned(), fingerprint: model.fingerprint()?, model, report })
    }
}

#[derive(Clone, Debug)]
pub struct TrainOptions {
    /// With a start, what it says of the model's shape and `from` does not count: they are the start's.
    pub recipe: Recipe,
    /// Where the weights and the tokenizer come from, instead of the seed.
    pub start: Option<Start>,
    /// Where the model goes; made if absent.
    pub folder: PathBuf,
    /// Steps between two saved states.
    pub save_every: usize,
}

/// Where training stands, after each step.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Steps done.
    pub step: usize,
    pub steps: usize,
    /// Cross-entropy per token of this step, in nats.
    pub loss: f32,
    /// The same, averaged over about the last hundred steps.
    pub average: f32,
    pub rate: f32,
    /// Tokens of this step.
    pub tokens: usize,
}

/// The row with number `row` of a step. Single sentences at first: circuits form on them far sooner than on packed
/// rows. From the middle of training on, and where it goes on from a finished model, a fifth of the rows are paragraphs.
fn row(recipe: &Recipe, tokenizer: &Tokenizer, end: u32, step: usize, row: usize) -> Result<Text> {
    let mut dice = Dice::new(&[recipe.seed, 0x7E47, step as u64, row as u64]);
    let late = recipe.from.is_some() || 2 * step >= recipe.steps;
    let packed = late && dice.chance(0.2);
    let marked = dice.chance(0.8);
    let sentences = if packed { dice.between(2, 9) } else { 1 };
    let often = recipe.often.as_deref().filter(|_| 2 * step < recipe.steps && dice.chance(1.0 / 3.0));
    let text = match often {
        Some(part) => sentence_with(&mut dice, part).ok_or_else(|| {
            Error::setting("often", format!("{part:?} stands in no sentence of the text, or hardly in one"))
        })?,
        None => paragraph(&mut dice, Mixture::Everything, sentences),
    };
    let mut tokens = encode(tokenizer, &text)?;
    if marked {
        tokens.insert(0, end);
    } else if packed {
        // As a text begins that was cut out of a longer one.
        tokens.drain(..dice.below(10).min(tokens.len() - 2));
    }
    let whole = tokens.len() <= recipe.context;
    tokens.truncate(recipe.context);
    Ok(Text { tokens, end: whole.then_some(end) })
}

struct State {
    step: usize,
    parameters: Parameters,
    moments: Moments,
    average: f32,
}

impl State {
    fn new(parameters: Parameters) -> Self {
        Self { step: 0, moments: Moments::new(parameters.layout().size), parameters, average: 0.0 }
    }

    fn write(&self, recipe: &Recipe, path: &Path) -> Result<()> {
        let state = json!({"recipe": recipe, "grammar": GRAMMAR_VERSION, "step": self.step, "average": self.average});
        let numbers = self.parameters.numbers();
        let size = vec![numbers.len()];
        write_tensors(
            path,
            &[
                ("parameters", size.clone(), numbers),
                ("first", size.clone(), &self.moments.first),
                ("second", size, &self.moments.second),
            ],
            HashMap::from([("state".to_owned(), state.to_string())]),
        )
    }

    fn read(recipe: &Recipe, path: &Path, layout: Layout) -> Result<Self> {
        let bytes = fs::read(path).map_err(Error::file(path))?;
        let broken = |message: String| Error::content(path, format!("{message}; remove it to begin anew"));
        let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|error| broken(error.to_string()))?;
        let state = metadata.metadata().as_ref().and_then(|metadata| metadata.get("state"));
        let state: Value = state.and_then(|state| serde_json::from_str(state).ok()).unwrap_or_default();
        let begun = serde_json::from_value::<Recipe>(state["recipe"].clone()).ok();
        if begun.as_ref() != Some(recipe) || state["grammar"] != GRAMMAR_VERSION {
            return Err(broken("this training was begun with other settings".to_owned()));
        }
        let (Some(step), Some(average)) = (state["step"].as_u64(), state["average"].as_f64()) else {
            return Err(broken("`step` and `average` should be numbers".to_owned()));
        };
        let tensors = SafeTensors::deserialize(&bytes).map_err(|error| broken(error.to_string()))?;
        let size = layout.size;
        let read = |name| read_tensor(&tensors, path, name, &[size]);
        Ok(Self {
            step: step as usize,
            moments: Moments { first: read("first")?, second: read("second")? },
            parameters: Parameters::new(layout, read("parameters")?),
            average: average as f32,
        })
    }
}

/// Trains a model, or goes on where an earlier call with the same recipe and folder was interrupted. `watch` may end
/// the call early (`None`); then the state last saved stays.
pub fn train(options: &TrainOptions, watch: &mut dyn FnMut(Progress) -> ControlFlow<()>) -> Result<Option<Model>> {
    let recipe = &recipe(options);
    if recipe.steps == 0 || recipe.batch == 0 || options.save_every == 0 {
        return Err(Error::setting("steps", "steps, batch and the steps between savings are at least 1"));
    }
    let peak = recipe.optimizer.peak;
    if !(peak.is_finite() && peak > 0.0) {
        return Err(Error::setting("rate", format!("{peak}, but it must be above 0")));
    }
    let folder = &options.folder;
    fs::create_dir_all(folder).map_err(Error::file(folder))?;
    if folder.join(CONFIG).exists() || folder.join(WEIGHTS).exists() {
        return Err(Error::content(folder, "this folder holds a finished model; name another folder"));
    }
    let tokenizer = match &options.start {
        Some(start) => start.model.tokenizer.clone(),
        None => tokenizer(recipe, &folder.join(TOKENIZER))?,
    };
    let end = tokenizer
        .token_to_id(END_OF_TEXT)
        .ok_or_else(|| Error::content(folder.join(TOKENIZER), format!("the token {END_OF_TEXT} is missing")))?;
    let Recipe { n_layers, d_model, n_heads, d_ff, context, .. } = *recipe;
    let vocabulary = tokenizer.get_vocab_size(true);
    let layout = Layout::new(Config::gpt2(n_layers, d_model, n_heads, d_ff, context, vocabulary))?;
    let state_path = folder.join(STATE);
    let mut state = match &options.start {
        _ if state_path.exists() => State::read(recipe, &state_path, layout)?,
        Some(start) => State::new(start.model.parameters.clone()),
        None => {
            let numbers = layout.initial(recipe.seed);
            State::new(Parameters::new(layout, numbers))
        }
    };
    while state.step < recipe.steps {
        let progress = step(recipe, &tokenizer, end, &mut state)?;
        if state.step % options.save_every == 0 {
            state.write(recipe, &state_path)?;
        }
        if watch(progress).is_break() {
            return Ok(None);
        }
    }
    let model = Model { parameters: state.parameters, tokenizer };
    model.write(folder)?;
    let mut report = json!({
        "madeBy": command(recipe, options.start.as_ref()),
        "recipe": recipe,
        "grammarVersion": GRAMMAR_VERSION,
        "parameters": model.parameters.layout().size,
        "finalLoss": state.average,
    });
    if let Some(start) = &options.start {
        report["start"] = start.report.clone();
    }
    write_json(&folder.join(REPORT), &report)?;
    if state_path.exists() {
        fs::remove_file(&state_path).map_err(Error::file(&state_path))?;
    }
    Ok(Some(model))
}

fn tokenizer(recipe: &Recipe, path: &Path) -> Result<Tokenizer> {
    if path.exists() {
        return Tokenizer::from_file(path).map_err(|error| Error::content(path, error));
    }
    let tokenizer = train_tokenizer(recipe.seed, recipe.tokenizer_rows)?;
    let text = tokenizer.to_string(true).map_err(|error| Error::content(path, error))?;
    write_whole(path, text.as_bytes())?;
    Ok(tokenizer)
}

/// The recipe of a training; with a start, of its shape and with its fingerprint.
fn recipe(options: &TrainOptions) -> Recipe {
    let recipe = options.recipe.clone();
    let Some(start) = &options.start else { return Recipe { from: None, ..recipe } };
    let Config { n_layers, d_model, n_heads, d_ff, ctx_window: context, .. } = start.model.parameters.layout().config;
    Recipe { n_layers, d_model, n_heads, d_ff, context, from: Some(start.fingerprint.clone()), ..recipe }
}

/// The command that makes the same model again: every setting that is not the default.
fn command(recipe: &Recipe, start: Option<&Start>) -> String {
    let usual = Recipe::default();
    let mut settings = vec![
        ("seed", recipe.seed, usual.seed),
        ("steps", recipe.steps as u64, usual.steps as u64),
        ("batch", recipe.batch as u64, usual.batch as u64),
    ];
    let mut command = "tdb train".to_owned();
    let mut peak = usual.optimizer.peak;
    match start {
        Some(start) => {
            command.push_str(&format!(" --from {}", start.folder.display()));
            peak = AdamW::going_on(recipe.steps).peak;
        }
        None => settings.extend([
            ("layers", recipe.n_layers as u64, usual.n_layers as u64),
            ("d-model", recipe.d_model as u64, usual.d_model as u64),
            ("heads", recipe.n_heads as u64, usual.n_heads as u64),
            ("d-ff", recipe.d_ff as u64, usual.d_ff as u64),
            ("context", recipe.context as u64, usual.context as u64),
        ]),
    }
    for (name, value, _) in settings.iter().filter(|(_, value, usual)| value != usual) {
        command.push_str(&format!(" --{name} {value}"));
    }
    if let Some(often) = &recipe.often {
        command.push_str(&format!(" --often {often:?}"));
    }
    if recipe.optimizer.peak != peak {
        command.push_str(&format!(" --rate {}", recipe.optimizer.peak));
    }
    command
}

fn step(recipe: &Recipe, tokenizer: &Tokenizer, end: u32, state: &mut State) -> Result<Progress> {
    let text = |index| row(recipe, tokenizer, end, state.step, index);
    let texts = parallel::try_map(recipe.batch, text)?;
    let model = state.parameters.transformer()?;
    let (loss, gradients) = loss_and_gradients(&model, state.parameters.layout(), &texts)?;
    // Else the parameters would be copied before they change.
    drop(model);
    let loss = loss as f32;
    if !loss.is_finite() {
        return Err(Error::Diverged { step: state.step, loss });
    }
    recipe.optimizer.update(&mut state.parameters, &mut state.moments, &gradients, state.step, recipe.steps);
    state.average = if state.step == 0 { loss } else { state.average + 0.01 * (loss - state.average) };
    state.step += 1;
    Ok(Progress {
        step: state.step,
        steps: recipe.steps,
        loss,
        average: state.average,
        rate: recipe.optimizer.rate(state.step - 1, recipe.steps),
        tokens: texts.iter().map(|text| text.tokens.len()).sum(),
    })
}

#[cfg(test)]
mod tests;
