//! `tdb train-sae`: sparse autoencoders and transcoders for any model and text.

use std::ops::ControlFlow;
use std::path::PathBuf;

use super::collate::left_out;
use super::library::{self, DataArgs, EmbeddedRecords};
use super::model::Wanted;
use super::output::say;
use super::runtime;
use super::within;
use anyhow::{Context, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use tdb_collate::corpus::{Cutting, Sequences, Shard, Unreadable};
use tdb_collate::work::describe_corpus;
use tdb_model::checkpoint::Precision;
use tdb_model::{AutoencoderSite, Tokenizer, Transformer};
use tdb_train::optimizer::AdamW;
use tdb_train::sae::{self, GrammarSource, SaeProgress, SaeRecipe, SaeStart, Sparsity, TokenSource};

/// Train sparse autoencoders, or transcoders, on one site in every layer of a model
///
/// A run that was interrupted goes on where it was last saved when the same command is given again, and ends with the
/// same bytes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Model: a registered name, a folder below --models, a path, or owner/name[@revision] of Hugging Face's hub.
    /// Without it, the small model inside the program
    #[arg(long, value_name = "NAME|FOLDER")]
    pub model: Option<String>,
    /// Folder of model folders, in which a model's name is looked up first
    #[arg(long, env = "TDB_MODELS", value_name = "FOLDER")]
    pub models: Option<PathBuf>,
    /// Folder for the autoencoders; the debugger finds them by name below the model's `autoencoders/`
    #[arg(long, value_name = "FOLDER")]
    pub out: PathBuf,
    /// What the autoencoders read and reconstruct, or that they are transcoders
    #[arg(long, value_enum)]
    pub site: Site,
    /// Go on from the finished autoencoders in this folder, of the same site, latents and sparsity: latents keep their
    /// places
    #[arg(long, value_name = "FOLDER")]
    pub from: Option<PathBuf>,
    /// Plain text, JSON lines (.jsonl) or Parquet files; without any, the text that `tdb train` generates
    #[arg(value_name = "TEXT")]
    pub text: Vec<PathBuf>,
    /// Give a transcoder a skip connection: a matrix from its input to its output beside the latents
    #[arg(long)]
    pub skip: bool,
    /// Latents per layer
    #[arg(long, default_value_t = 512)]
    pub latents: usize,
    /// Latents that are active per token (TopK)
    #[arg(long, default_value_t = 12, conflicts_with = "l1")]
    pub k: usize,
    /// Train with ReLU and this L1 penalty instead of TopK; 0.003 to 0.03 are common
    #[arg(long)]
    pub l1: Option<f32>,
    /// Tokens to train on
    #[arg(long, default_value_t = 2_000_000)]
    pub tokens: usize,
    /// Tokens per step
    #[arg(long, default_value_t = 1024)]
    pub batch: usize,
    /// Tokens whose activations are held and mixed at a time
    #[arg(long, default_value_t = 32_768)]
    pub buffer: usize,
    /// Highest learning rate; if not given, 0.002, and 0.0002 with --from
    #[arg(long)]
    pub rate: Option<f32>,
    /// Tokens per sequence; if not given, the model's context, but no more than 1024
    #[arg(long)]
    pub context: Option<usize>,
    /// Put this token before every sequence of the given text, none if empty; if not given, the one that the model's
    /// texts begin with
    #[arg(long)]
    pub first: Option<String>,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Documents that may be left out because they cannot be read; one more ends the run
    #[arg(long, value_name = "N", default_value_t = Unreadable::LIMIT)]
    pub max_unreadable: usize,
    /// Store 16-bit floats: half the size, about three digits
    #[arg(long)]
    pub half: bool,
    /// Also write them into this folder as SAELens reads them
    #[arg(long, value_name = "FOLDER")]
    pub sae_lens: Option<PathBuf>,
    #[command(flatten)]
    pub data: DataArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Site {
    /// The residual stream before each layer
    #[value(alias = "resid_pre")]
    ResidPre,
    /// The outputs of heads, side by side
    #[value(alias = "attn_v_out")]
    AttnVOut,
    /// The residual stream between attention and MLP
    #[value(alias = "resid_post_attn")]
    ResidPostAttn,
    /// The input of the MLP, after its norm
    #[value(alias = "mlp_in")]
    MlpIn,
    /// The residual stream after each layer
    #[value(alias = "resid_post_mlp")]
    ResidPostMlp,
    /// MLP neurons after the activation function
    #[value(alias = "mlp_post_act")]
    MlpPostAct,
    /// What the MLP writes
    #[value(alias = "resid_delta_mlp")]
    ResidDeltaMlp,
    /// What the attention layer writes
    #[value(alias = "resid_delta_attn")]
    ResidDeltaAttn,
    /// Transcoder: reads the input of the MLP, after its norm, and makes what the MLP writes
    #[value(alias = "mlp_transcoder")]
    MlpTranscoder,
}

impl From<Site> for AutoencoderSite {
    fn from(site: Site) -> Self {
        match site {
            Site::ResidPre => Self::ResidPre,
            Site::AttnVOut => Self::AttnVOut,
            Site::ResidPostAttn => Self::ResidPostAttn,
            Site::MlpIn => Self::MlpIn,
            Site::ResidPostMlp => Self::ResidPostMlp,
            Site::MlpPostAct => Self::MlpPostAct,
            Site::ResidDeltaMlp => Self::ResidDeltaMlp,
            Site::ResidDeltaAttn => Self::ResidDeltaAttn,
            Site::MlpTranscoder => Self::MlpTranscoder,
        }
    }
}

/// The seed of generated text: not the one that the model learnt from.
const TEXT_SEED: u64 = 7;

pub fn run(args: &Args) -> anyhow::Result<()> {
    ensure!(!sae::is_finished(&args.out), "{} holds finished autoencoders; name another folder", args.out.display());
    within("--latents", args.latents, 1..=1 << 22)?;
    within("--batch", args.batch, 1..=1 << 20)?;
    within("--buffer", args.buffer, 1..=1 << 26)?;
    let recipe = SaeRecipe {
        seed: args.seed,
        site: args.site.into(),
        skip: args.skip,
        latents: args.latents,
        sparsity: match args.l1 {
            Some(l1) => Sparsity::Relu { l1 },
            None => Sparsity::TopK { k: args.k },
        },
        tokens: args.tokens,
        batch: args.batch,
        buffer: args.buffer,
        rate: args.rate.unwrap_or(AdamW::usual_peak(args.from.is_some())),
        from: None,
    };
    if args.sae_lens.is_some() {
        sae::check_sae_lens(&recipe)?;
    }
    describe_corpus(&args.text)?;
    let wanted = Wanted { model: args.model.as_deref(), models: args.models.as_deref(), ..Wanted::default() };
    let runtime = runtime::new()?;
    let library = library::open(&args.data, EmbeddedRecords::LeftOut)?;
    let (name, checkpoint) = super::model::checkpoint(&wanted, &library, runtime.handle())?;
    let model = Transformer::load(checkpoint.config, checkpoint.weights)?;
    let start = args.from.as_deref().map(|folder| SaeStart::read(folder, model.config())).transpose()?;
    let recipe = SaeRecipe { from: start.as_ref().map(|start| start.fingerprint().to_owned()), ..recipe };
    let context = args.context.unwrap_or(model.config().ctx_window.min(1024));
    ensure!(
        (2..=model.config().ctx_window).contains(&context),
        "--context is {context}; this model takes 2 to {} tokens",
        model.config().ctx_window
    );
    let unreadable = Unreadable::up_to(args.max_unreadable);
    let first = super::model::first(args.first.as_deref(), &checkpoint.tokenizer, checkpoint.beginning)?;
    let cutting = Cutting { tokens: context, first };
    let (mut source, text) = source(args, &model, checkpoint.tokenizer, cutting, &unreadable)?;
    std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    let bar = ProgressBar::new(args.tokens as u64)
        .with_style(ProgressStyle::with_template("{bar:30} {pos}/{len} tokens  {msg}  {eta} to go")?);
    let state = sae::state_file(&args.out);
    let trained = sae::train_autoencoders(&model, &mut *source, &recipe, start.as_ref(), &state, &mut |progress| {
        bar.set_length(progress.of as u64);
        bar.set_position(progress.tokens as u64);
        bar.set_message(message(progress));
        ControlFlow::Continue(())
    })?;
    bar.finish_and_clear();
    if let Some(left_out) = left_out(&unreadable) {
        eprintln!("{left_out}");
    }
    if let Some(trained) = trained {
        let precision = if args.half { Precision::F16 } else { Precision::F32 };
        sae::write_autoencoders(&args.out, &recipe, &text, start.as_ref(), &trained, precision)?;
        if let Some(folder) = &args.sae_lens {
            sae::export_sae_lens(folder, &recipe, &trained, &name)?;
        }
        say!("{}\n{} holds the autoencoders.", sae::quality_table(&trained), args.out.display());
    }
    Ok(())
}

/// Means over the layers.
fn message(progress: &SaeProgress) -> String {
    let n = progress.layers.len().max(1) as f64;
    let mean = |value: &dyn Fn(&sae::LayerProgress) -> f64| progress.layers.iter().map(value).sum::<f64>() / n;
    let recovered = match progress.layers.iter().all(|layer| layer.loss_recovered.is_some()) {
        true => format!(", {:.1} % of the loss recovered", 100.0 * mean(&|l| l.loss_recovered.unwrap_or_default())),
        false => String::new(),
    };
    format!(
        "loss {:.4}, {:.1} % of the variance, {:.1} latents a token{recovered}, {} dead",
        mean(&|l| l.loss),
        100.0 * mean(&|l| l.variance_explained),
        mean(&|l| l.latents_per_token),
        progress.layers.iter().map(|layer| layer.dead).sum::<usize>(),
    )
}

/// Where the text comes from, and in words.
fn source(
    args: &Args,
    model: &Transformer,
    tokenizer: Tokenizer,
    cutting: Cutting,
    unreadable: &Unreadable,
) -> anyhow::Result<(Box<dyn TokenSource>, String)> {
    if args.text.is_empty() {
        let text = format!("the text that `tdb train --seed {TEXT_SEED} --print-text N` prints");
        return Ok((Box::new(GrammarSource::new(tokenizer, TEXT_SEED, cutting.tokens)), text));
    }
    let names: Vec<String> = args.text.iter().map(|path| path.display().to_string()).collect();
    let n_vocab = model.config().n_vocab;
    let unreadable = unreadable.clone();
    let files = Files { files: args.text.clone(), tokenizer, n_vocab, cutting, unreadable, open: None };
    Ok((Box::new(files), names.join(", ")))
}

/// Text from files.
struct Files {
    files: Vec<PathBuf>,
    tokenizer: Tokenizer,
    n_vocab: usize,
    cutting: Cutting,
    unreadable: Unreadable,
    open: Option<Sequences>,
}

impl TokenSource for Files {
    fn next(&mut self) -> tdb_train::Result<Option<Vec<u32>>> {
        let text = |error: tdb_collate::Error| tdb_train::Error::Text(error.to_string());
        if self.open.is_none() {
            let cutting = self.cutting.clone();
            let sequences = Sequences::new(&self.files, self.tokenizer.clone(), self.n_vocab, cutting, Shard::WHOLE);
            self.open = Some(sequences.map_err(text)?.counting(&self.unreadable));
        }
        let sequence = self.open.as_mut().and_then(Iterator::next).transpose().map_err(text)?;
        Ok(sequence.map(|sequence| sequence.tokens.clone()))
    }

    fn rewind(&mut self) -> tdb_train::Result<()> {
        self.open = None;
        Ok(())
    }
}
