//! `tdb explain`: explanations of many nodes, written and scored by a language model or without one.

use super::library::{self, DataArgs};
use super::output::say;
use super::progress::{numbers, style};
use super::runtime;
use anyhow::bail;
use futures::{StreamExt, stream};
use indicatif::ProgressBar;
use tdb_collate::explain as statistics;
use tdb_data::{Error as DataError, Library, RecordsEntry, Registry};
use tdb_explain::{Client, ClientConfig, Error, Explainer, ScoreMethod, date, is_pairs};

/// Write and score explanations of many nodes, with a language model or without
///
/// A language model is asked over OpenAI's chat protocol: a key in OPENAI_API_KEY, or the address of any server that
/// speaks it. With `--method offline-statistics` nobody is asked: the nodes' own records say what they respond to.
/// Nodes that have an explanation (for the latter, one of its kind) are left out, so a run that was stopped goes on
/// when the same command is given again; explanations whose scores are missing are scored then.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Set of records, by name; with the scalar after a colon where a name has several
    #[arg(value_name = "SET[:SCALAR]")]
    pub records: String,
    /// Layers of the nodes, such as 0-3,7
    #[arg(long, value_name = "NUMBERS", value_parser = numbers)]
    pub layers: std::vec::Vec<usize>,
    /// Nodes of each layer, such as 0-99
    #[arg(long, value_name = "NUMBERS", value_parser = numbers)]
    pub nodes: std::vec::Vec<usize>,
    /// Who explains
    #[arg(long, value_enum, default_value_t = Method::LanguageModel)]
    pub method: Method,
    /// How a language model's explanations are scored: all-at-once, token-by-token, detection, or none
    #[arg(long, value_name = "METHOD", default_value = "all-at-once", value_parser = method)]
    pub score: Scoring,
    /// Write an explanation also where all that there are were made without a language model
    #[arg(long)]
    pub beside_offline: bool,
    /// The language model's name, instead of TDB_EXPLAIN_MODEL
    #[arg(long, value_name = "NAME")]
    pub llm: Option<String>,
    /// Address of the server up to and with /v1, instead of TDB_EXPLAIN_URL
    #[arg(long, value_name = "URL")]
    pub llm_url: Option<String>,
    /// Questions that are open at the same time
    #[arg(long, default_value_t = 8)]
    pub parallel: usize,
    /// Stop after so many questions; 0 for no limit
    #[arg(long, default_value_t = 0)]
    pub max_questions: u64,
    /// Stop after so many tokens, of questions and answers together; 0 for no limit
    #[arg(long, default_value_t = 0)]
    pub max_tokens: u64,
    #[command(flatten)]
    pub data: DataArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Method {
    /// A language model, which is also asked how well the explanation predicts
    LanguageModel,
    /// What the record itself shows: tokens, what stands before them, positions; scored on held-out examples
    OfflineStatistics,
}

/// How to score, if at all.
#[derive(Debug, Clone, Copy)]
pub struct Scoring(Option<ScoreMethod>);

fn method(text: &str) -> Result<Scoring, String> {
    match text {
        "none" => Ok(Scoring(None)),
        other => other.parse().map(|method| Scoring(Some(method))),
    }
}

#[derive(Debug, Default)]
struct Counts {
    written: usize,
    scored: usize,
    there: usize,
    missing: usize,
    failed: usize,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let runtime = runtime::new()?;
    let library = library::open(&args.data, library::EmbeddedRecords::Listed)?;
    let set = find(library.registry(), &args.records)?.clone();
    let client = match args.method {
        Method::OfflineStatistics => None,
        Method::LanguageModel => {
            let config = ClientConfig::from_env_and(args.llm.clone(), args.llm_url.clone());
            let Some(mut config) = config else { bail!("{}; --method offline-statistics needs none", Error::NotSetUp) };
            (config.parallel, config.max_questions, config.max_tokens) =
                (args.parallel, args.max_questions, args.max_tokens);
            Some(Client::new(config)?)
        }
    };
    let explainer = Explainer::new(library.clone(), client);
    runtime.block_on(explain(args, &library, &set, &explainer))
}

/// What was done for a node.
enum Done {
    Written,
    /// There was an explanation, and what it lacked was a score.
    Scored,
    Nothing,
}

/// Here the answer is for the store alone.
fn stored(unstored: Option<DataError>) -> Result<(), Error> {
    unstored.map_or(Ok(()), |why| Err(why.into()))
}

/// Explains a node from its record alone, unless that was done before.
async fn from_record(library: &Library, set: &RecordsEntry, (layer, node): (usize, usize)) -> Result<Done, Error> {
    let found = library.record_in(set, layer, node).await?;
    let pairs = is_pairs(set)?;
    let known = library.explanations(set, layer, node).await?;
    let mut known = known.iter().flat_map(|(_, node)| &node.explanations);
    if known.any(|e| e.origin.method.as_deref() == Some(statistics::METHOD)) {
        return Ok(Done::Nothing);
    }
    let known = statistics::Known { pairs, ..statistics::Known::default() };
    let explain = move || statistics::explain(&found.record, &known, &date::now());
    let explained = tokio::task::spawn_blocking(explain).await.map_err(|e| Error::Unsuitable(e.to_string()))?;
    for explanation in explained.explanations {
        library.add_explanation(set, statistics::METHOD, (layer, node), pairs, explanation).await?;
    }
    Ok(Done::Written)
}

fn find<'a>(registry: &'a Registry, text: &str) -> anyhow::Result<&'a RecordsEntry> {
    let (name, scalar) = text.split_once(':').map_or((text, None), |(name, scalar)| (name, Some(scalar)));
    let sets: Vec<_> =
        registry.records.iter().filter(|r| r.name == name && scalar.is_none_or(|s| r.scalar == s)).collect();
    match sets.as_slice() {
        [one] => Ok(one),
        [] => {
            let known: Vec<_> = registry.records.iter().map(|r| format!("{}:{}", r.name, r.scalar)).collect();
            bail!("no set of records {text:?} is registered; there are {}", known.join(", "))
        }
        several => {
            let known: Vec<_> = several.iter().map(|r| format!("{}:{}", r.name, r.scalar)).collect();
            bail!("{text:?} may mean {}", known.join(" or "))
        }
    }
}

async fn explain(args: &Args, library: &Library, set: &RecordsEntry, explainer: &Explainer) -> anyhow::Result<()> {
    let bar = ProgressBar::new((args.layers.len() * args.nodes.len()) as u64);
    bar.set_style(style("{pos}/{len} nodes  {wide_bar}  {eta}  {msg}"));
    let all = args.layers.iter().flat_map(|layer| args.nodes.iter().map(move |node| (*layer, *node)));
    let one = |(layer, node)| async move {
        if args.method == Method::OfflineStatistics {
            return from_record(library, set, (layer, node)).await;
        }
        let found = library.record_in(set, layer, node).await?;
        let explained = match args.beside_offline {
            true => explainer.explain_beside_offline(&found).await?,
            false => explainer.explain(&found).await?,
        };
        stored(explained.unstored)?;
        for text in &explained.unscored {
            if let Some(method) = args.score.0 {
                stored(explainer.score(&found, text, method, None).await?.unstored)?;
            }
        }
        Ok(match (explained.new, explained.unscored.is_empty() || args.score.0.is_none()) {
            (true, _) => Done::Written,
            (false, false) => Done::Scored,
            (false, true) => Done::Nothing,
        })
    };
    let work = stream::iter(all).map(|node| async move { (node, one(node).await) });
    let mut work = std::pin::pin!(work.buffer_unordered(args.parallel.max(1)));
    let mut counts = Counts::default();
    let mut stopped = None;
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        // What is stored is stored whole: stopping anywhere leaves nothing half done.
        let next = tokio::select! {
            next = work.next() => next,
            _ = &mut interrupt => {
                stopped = Some(anyhow::anyhow!("stopped; the same command goes on from here"));
                None
            }
        };
        let Some(((layer, node), outcome)) = next else { break };
        match outcome {
            Ok(Done::Written) => counts.written += 1,
            Ok(Done::Scored) => counts.scored += 1,
            Ok(Done::Nothing) => counts.there += 1,
            Err(Error::Data(DataError::NotFound(_))) => counts.missing += 1,
            Err(error @ (Error::Unsuitable(_) | Error::Answer(_))) => {
                counts.failed += 1;
                bar.suspend(|| eprintln!("{layer}:{node}: {error}"));
            }
            Err(error) => {
                stopped = Some(error.into());
                break;
            }
        }
        bar.inc(1);
        if let Some(spent) = explainer.client().map(Client::spent) {
            bar.set_message(format!("{} questions, {} tokens", spent.questions, spent.tokens));
        }
    }
    bar.finish_and_clear();
    let spent = explainer.client().map(Client::spent).unwrap_or_default();
    let asked = match args.method {
        Method::LanguageModel => format!("; {} questions, {} tokens", spent.questions, spent.tokens),
        Method::OfflineStatistics => String::new(),
    };
    say!(
        "{} explained, {} scored that had been explained, {} had an explanation, {} have no record, {} could not be \
         explained{asked}",
        counts.written,
        counts.scored,
        counts.there,
        counts.missing,
        counts.failed
    );
    stopped.map_or(Ok(()), Err)
}
