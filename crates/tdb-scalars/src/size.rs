//! How large a request's runs and its answer can become, told from its prompts and specs before anything is computed.
//!
//! Every figure is an upper bound: nodes that several groups or runs have in common are counted for each of them, up to
//! the number of nodes that there are.

use std::collections::{BTreeMap, HashMap};

use tdb_api::wire::FieldPath;
use tdb_api::{
    DerivedScalarType as Dst, Dimension, InferenceSubRequest, MultipleTopKDerivedScalarsRequestSpec as RankedSpec,
    NodeType, ProcessingRequestSpec as Spec, TokenScoringType,
};

use tdb_model::Slot;

use crate::checks::field_of_spec;
use crate::context::Context;
use crate::derived;
use crate::engine::Engine;
use crate::error::{Result, bad};
use crate::side::Plan;

/// What one request may take at most. The default bounds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of the answer, as JSON.
    pub answer_bytes: u64,
    /// Nodes that are read in token space, times tokens of the vocabulary.
    pub token_scores: u64,
    /// Bytes of the activations of all runs.
    pub activation_bytes: u64,
    /// Runs with something removed or patched.
    pub varied_runs: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds { answer_bytes: u64::MAX, token_scores: u64::MAX, activation_bytes: u64::MAX, varied_runs: u64::MAX }
    }
}

/// What a request takes at most, in the units of [`Bounds`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    pub answer_bytes: u64,
    pub token_scores: u64,
    pub activation_bytes: u64,
}

impl Size {
    fn fits(&self, bounds: &Bounds) -> bool {
        self.excess(bounds).is_none()
    }

    /// What is too large, how large it is, and how large it may be.
    fn excess(&self, bounds: &Bounds) -> Option<(&'static str, u64, u64)> {
        let all = [
            ("bytes of answer", self.answer_bytes, bounds.answer_bytes),
            ("scores of tokens for the nodes that are read", self.token_scores, bounds.token_scores),
            ("bytes of activations", self.activation_bytes, bounds.activation_bytes),
        ];
        all.into_iter().find(|(_, found, limit)| found > limit)
    }
}

/// Bytes of JSON that a node, a number, and a token with its scores take.
const NODE: u64 = 112;
const NUMBER: u64 = 22;
const TOKEN: u64 = 96;

/// The place of the list with so many nodes at either end.
fn field_of_k(requests: &[InferenceSubRequest], k: i64) -> FieldPath {
    let is_it = |spec: &Spec| match spec {
        Spec::MultipleTopKDerivedScalars(spec) => spec.top_and_bottom_k == Some(k),
        _ => false,
    };
    let place = |(i, request): (usize, &InferenceSubRequest)| {
        let (name, _) = request.processing_request_spec_by_name.iter().find(|(_, spec)| is_it(spec))?;
        Some(field_of_spec(i, name))
    };
    let found = requests.iter().enumerate().find_map(place);
    found.unwrap_or_else(|| FieldPath::of("inferenceSubRequests")).key("topAndBottomK")
}

impl Engine {
    /// Refuses what is beyond `bounds`, with the figures that would pass.
    pub(crate) fn check_size(&self, requests: &[InferenceSubRequest], plans: &[Plan], bounds: &Bounds) -> Result<()> {
        let Some((what, found, limit)) = self.size(requests, plans, i64::MAX).excess(bounds) else {
            return Ok(());
        };
        let would = format!("this request could take {found} {what}; this server takes at most {limit}");
        let passes = |k: i64| self.size(requests, plans, k).fits(bounds);
        let asked = requests.iter().filter_map(largest_k).max();
        if let Some(asked) = asked
            && passes(1)
        {
            let k = last_that_passes(asked, passes);
            return bad!(at field_of_k(requests, asked), "{would}; with at most {k} it would pass");
        }
        match (1..requests.len()).rev().find(|n| self.size(&requests[..*n], &plans[..*n], i64::MAX).fits(bounds)) {
            Some(n) => bad!("{would}; its first {n} of {} runs would pass", requests.len()),
            None => bad!("{would}; ask for less in one request, or with a shorter prompt"),
        }
    }

    /// Refuses runs, told by their numbers of tokens, whose activations would be beyond the bounds where all are held.
    pub(crate) fn check_activations(&self, field: &str, runs: &[usize], context: &Context<'_>) -> Result<()> {
        let limit = context.bounds.activation_bytes;
        let bytes = |most: usize| -> u64 {
            runs.iter().map(|tokens| self.activation_bytes((*tokens).min(most) as u64)).fold(0, u64::saturating_add)
        };
        let longest = runs.iter().copied().max().unwrap_or(0);
        let found = bytes(longest);
        if found <= limit {
            return Ok(());
        }
        let would = format!("this request would hold {found} bytes of activations; this server takes at most {limit}");
        let passes = |tokens: i64| bytes(usize::try_from(tokens).unwrap_or(0)) <= limit;
        if !passes(1) {
            return bad!(at field, "{would}; no prompt is short enough for it");
        }
        let most = last_that_passes(longest as i64, passes);
        bad!(at field, "{would}; with at most {most} tokens it would pass")
    }

    /// What `requests` take at most if no list has more than `k` nodes at either end.
    pub fn size(&self, requests: &[InferenceSubRequest], plans: &[Plan], k: i64) -> Size {
        let lists = self.listed_nodes(requests, plans, k);
        let mut size = Size::default();
        for (request, plan) in requests.iter().zip(plans) {
            let tokens = plan.tokens.len() as u64;
            size.activation_bytes += self.activation_bytes(tokens);
            size.answer_bytes += tokens * 2 * NUMBER;
            for (name, spec) in &request.processing_request_spec_by_name {
                self.add_spec(&mut size, name, spec, &lists, tokens);
            }
        }
        size
    }

    fn add_spec(&self, size: &mut Size, name: &str, spec: &Spec, lists: &Lists<'_>, tokens: u64) {
        let n_vocab = self.model().config().n_vocab as u64;
        let count = |k: i64| u64::try_from(k).unwrap_or(0).min(n_vocab);
        match spec {
            Spec::MultipleTopKDerivedScalars(spec) => {
                let groups = spec.dst_list_by_group_id.len() as u64;
                size.answer_bytes += all(lists, name) * (NODE + NUMBER * groups) + self.sum_bytes(spec, tokens);
            }
            Spec::DerivedScalars(spec) => {
                size.answer_bytes += tokens * (NODE + 2 * NUMBER);
                if let Some(k) = spec.num_top_tokens {
                    size.answer_bytes += 2 * count(k) * TOKEN;
                    size.token_scores += n_vocab;
                }
            }
            Spec::DerivedAttentionScalars(_) => size.answer_bytes += tokens * tokens * NUMBER,
            Spec::ScoredTokens(spec) => {
                let on = spec.depends_on_spec_name.as_str();
                let read = of_kinds(lists, on, |kind| is_read(spec.token_scoring_type, kind));
                size.answer_bytes += all(lists, on) * NODE + read * 2 * count(spec.num_tokens) * TOKEN;
                size.token_scores = size.token_scores.saturating_add(read.saturating_mul(n_vocab));
            }
            Spec::TokenPairAttribution(spec) => {
                let on = spec.depends_on_spec_name.as_str();
                let latents = of_kinds(lists, on, |kind| kind == NodeType::AttentionAutoencoderLatent);
                let attended_to = count(spec.num_tokens_attended_to).min(tokens);
                size.answer_bytes += all(lists, on) * NODE + latents * attended_to * 2 * NUMBER;
            }
        }
    }

    /// By the name of a list: how many nodes of each kind it can have at most.
    fn listed_nodes<'a>(&self, requests: &'a [InferenceSubRequest], plans: &[Plan], k: i64) -> Lists<'a> {
        let mut lists: Lists<'a> = HashMap::new();
        for (request, plan) in requests.iter().zip(plans) {
            let tokens = plan.tokens.len() as u64;
            for (name, spec) in &request.processing_request_spec_by_name {
                let Spec::MultipleTopKDerivedScalars(spec) = spec else { continue };
                let kinds = lists.entry(name).or_default();
                let either_end = spec.top_and_bottom_k.unwrap_or(i64::MAX).min(k);
                let either_end = u64::try_from(either_end).unwrap_or(0).saturating_mul(2);
                for dst in spec.dst_list_by_group_id.values().flatten() {
                    let there_are = self.nodes(*dst, tokens);
                    let nodes = kinds.entry(derived::node_type(*dst)).or_default();
                    *nodes = (*nodes + either_end.min(there_are)).min(there_are);
                }
            }
        }
        lists
    }

    /// Entries of a derived scalar in all layers.
    fn nodes(&self, dst: Dst, tokens: u64) -> u64 {
        let layers = match derived::is_whole_model(dst) || derived::is_within_layer(dst) {
            true => 1,
            false => self.model().config().n_layers as u64,
        };
        let lens = derived::dimensions(dst).into_iter().enumerate().map(|(at, dimension)| match at {
            0 if derived::is_flattened(dst) => tokens * tokens,
            _ => self.len(dimension, tokens),
        });
        lens.fold(layers, u64::saturating_mul)
    }

    fn len(&self, dimension: Dimension, tokens: u64) -> u64 {
        let (model, config) = (self.model(), self.model().config());
        let len = match dimension {
            Dimension::SequenceTokens | Dimension::AttendedToSequenceTokens => return tokens,
            Dimension::VocabSize => config.n_vocab,
            Dimension::AttnHeads => config.n_heads,
            Dimension::MlpActs => config.d_ff,
            Dimension::ResidualStreamChannels => config.d_model,
            Dimension::QueryAndKeyChannels | Dimension::ValueChannels => config.d_head,
            Dimension::AutoencoderLatents => {
                let found = Slot::ALL.map(|slot| model.any_autoencoder(slot));
                found.into_iter().flatten().map(|found| found.n_latents()).max().unwrap_or(0)
            }
            _ => 1,
        };
        len as u64
    }

    /// Bytes of the sums over all nodes, of which the entries along the kept dimensions are told.
    fn sum_bytes(&self, spec: &RankedSpec, tokens: u64) -> u64 {
        let kept = &spec.dimensions_to_keep_for_intermediate_sum;
        let of_scalar = |dst: &Dst| {
            let dimensions: Vec<Dimension> =
                derived::dimensions(*dst).into_iter().filter(|d| kept.contains(d)).collect();
            let pairs = if derived::is_flattened(*dst) { tokens } else { 1 };
            let entries = dimensions.iter().fold(pairs, |n, d| n.saturating_mul(self.len(*d, tokens)));
            // A token attends to none after itself: the other half are zeros.
            match dimensions.contains(&Dimension::AttendedToSequenceTokens) && dimensions.len() > 1 {
                true => entries.saturating_mul(NUMBER + 4) / 2,
                false => entries.saturating_mul(NUMBER),
            }
        };
        spec.dst_list_by_group_id.values().flatten().map(of_scalar).fold(0, u64::saturating_add)
    }

    /// Activations of a run that are kept until its answer is made, in bytes.
    pub(crate) fn activation_bytes(&self, tokens: u64) -> u64 {
        let config = self.model().config();
        let [layers, heads, d_model, d_ff] =
            [config.n_layers, config.n_heads, config.d_model, config.d_ff].map(|n| n as u64);
        4 * layers * (2 * heads * tokens * tokens + tokens * (6 * d_model + 4 * d_ff))
    }
}

/// By the name of a list and the kind of node: how many nodes it can have.
type Lists<'a> = HashMap<&'a str, BTreeMap<NodeType, u64>>;

fn all(lists: &Lists<'_>, name: &str) -> u64 {
    of_kinds(lists, name, |_| true)
}

fn of_kinds(lists: &Lists<'_>, name: &str, wanted: impl Fn(NodeType) -> bool) -> u64 {
    let kinds = lists.get(name).into_iter().flatten();
    kinds.filter(|(kind, _)| wanted(**kind)).map(|(_, nodes)| *nodes).sum()
}

/// Whether nodes of a kind are read in token space.
pub(crate) fn is_read(scoring: TokenScoringType, kind: NodeType) -> bool {
    match scoring {
        TokenScoringType::UpvotedOutputTokens => true,
        TokenScoringType::InputTokensThatUpvoteMlp => {
            matches!(
                kind,
                NodeType::MlpNeuron
                    | NodeType::AutoencoderLatent
                    | NodeType::MlpAutoencoderLatent
                    | NodeType::ResidualAutoencoderLatent
            )
        }
        // What excites a head through its query or key is not defined yet by those who ask for it.
        TokenScoringType::InputTokensThatUpvoteAttnQ | TokenScoringType::InputTokensThatUpvoteAttnK => false,
    }
}

fn largest_k(request: &InferenceSubRequest) -> Option<i64> {
    let k = |spec: &Spec| match spec {
        Spec::MultipleTopKDerivedScalars(spec) => Some(spec.top_and_bottom_k.unwrap_or(i64::from(u32::MAX))),
        _ => None,
    };
    request.processing_request_spec_by_name.values().filter_map(k).max()
}

/// The largest of `1..=most` that passes; 1 does.
fn last_that_passes(most: i64, passes: impl Fn(i64) -> bool) -> i64 {
    let (mut good, mut bad) = (1, most.max(2));
    while good + 1 < bad {
        let middle = good + (bad - good) / 2;
        match passes(middle) {
            true => good = middle,
            false => bad = middle,
        }
    }
    good
}
