//! Activation patching: a run of one prompt with activations of a run of another.

use crate::TokenRef;
use crate::effects::{Check, Price};
use crate::index::{AttentionTraceType, MirroredActivationIndex};
use crate::names::ActivationLocationType;
use crate::wire::{wire_enum, wire_struct};

wire_enum! {
    /// Which of the two runs is patched.
    pub enum PatchDirection {
        /// The corrupted run is given activations of the clean one: what restores the answer?
        Denoising = "denoising",
        /// The clean run is given activations of the corrupted one: what breaks the answer?
        Noising = "noising",
    }
}

wire_enum! {
    /// A function of the last token's logits.
    pub enum PatchMetric {
        /// Mean logit of the targets minus mean logit of the distractors.
        LogitDifference = "logit_difference",
        /// Logarithm of the summed probability of the targets.
        LogProbability = "log_probability",
        /// Summed probability of the targets.
        Probability = "probability",
        /// Kullback-Leibler divergence of the run from the clean run.
        KlDivergence = "kl_divergence",
    }
}

wire_enum! {
    /// A heat map.
    pub enum PatchGrid {
        /// The residual stream before each layer at each token.
        Residual = "residual",
        /// What each attention layer writes at each token.
        Attention = "attention",
        /// What each MLP layer writes at each token.
        Mlp = "mlp",
        /// Each head, at all tokens.
        Heads = "heads",
    }
}

wire_struct! {
    /// A token of the clean prompt and the one of the corrupted prompt that takes its place.
    pub struct TokenPair {
        pub clean: i64,
        pub corrupted: i64,
    }
}

wire_struct! {
    /// Activations that are patched at the same time. The first index of each is a token of the patched run.
    pub struct PatchCell {
        pub sites: Vec<MirroredActivationIndex>,
    }
}

wire_struct! {
    /// The units of one layer at one token, each patched alone.
    pub struct PatchUnits {
        /// Neurons (`mlp.post_act`), latents, heads (`attn.v_out`), or queries, keys or values of each head.
        pub activation_location_type: ActivationLocationType,
        pub layer_index: i64,
        /// A token of the patched run.
        pub token_index: i64,
        /// Of neurons and latents only so many, those with the largest difference times gradient.
        pub most: i64 = 16,
    }
}

wire_struct! {
    /// A node's write that reaches the query, key or value of a head, and nothing else.
    pub struct PatchPath {
        /// What writes: the embedding, an attention or MLP layer's output, heads or neurons. The first index is a token
        /// of the patched run, or all.
        pub from: MirroredActivationIndex,
        pub to_layer: i64,
        pub to_head: i64,
        /// One of Q, K and V.
        pub through: AttentionTraceType,
    }
}

wire_struct! {
    /// Two prompts, what to patch between them, and how to measure it.
    pub struct PatchRequest {
        /// The prompt that the model answers.
        pub clean_prompt: String,
        /// The prompt that differs from it in what is asked about.
        pub corrupted_prompt: String,
        pub direction: PatchDirection = PatchDirection::Denoising,
        pub metric: PatchMetric = PatchMetric::LogitDifference,
        /// Each exactly one token; not for the divergence.
        pub target_tokens: Option<Vec<TokenRef>>,
        /// Each exactly one token; only for the logit difference.
        pub distractor_tokens: Option<Vec<TokenRef>>,
        /// Which tokens stand for each other. May be left out if the prompts have as many tokens.
        pub alignment: Option<Vec<TokenPair>>,
        /// Heat maps.
        pub grids: Option<Vec<PatchGrid>>,
        /// Sets of activations, each patched together.
        pub cells: Option<Vec<PatchCell>>,
        /// Units, each patched alone.
        pub units: Option<Vec<PatchUnits>>,
        /// Paths.
        pub paths: Option<Vec<PatchPath>>,
        /// Only the price is told, and nothing is patched.
        pub only_price: bool = false,
    }
}

wire_enum! {
    /// What a patched cell belongs to.
    pub enum PatchGroup {
        Residual = "residual",
        Attention = "attention",
        Mlp = "mlp",
        Heads = "heads",
        Cells = "cells",
        Units = "units",
        Paths = "paths",
    }
}

wire_struct! {
    /// The two runs, before anything is patched.
    pub struct PatchRuns {
        pub clean_tokens: Vec<String>,
        pub corrupted_tokens: Vec<String>,
        /// Which tokens stand for each other.
        pub alignment: Vec<TokenPair>,
        /// The metric of the clean run.
        pub clean: f64,
        /// The metric of the corrupted run.
        pub corrupted: f64,
        /// `clean - corrupted`, by which effects are divided.
        pub denominator: f64,
        /// Why effects are not divided, where the denominator is too small.
        pub remark: Option<String>,
    }
}

wire_struct! {
    /// The patched run's metric.
    pub struct PatchedCell {
        pub group: PatchGroup,
        /// Position in the request's list, for what the request lists.
        pub index: i64,
        pub layer_index: Option<i64>,
        pub token_index: Option<i64>,
        /// Head, neuron or latent.
        pub unit: Option<i64>,
        pub metric: f64,
        /// Denoising: `(metric - corrupted) / (clean - corrupted)`, 1 where the answer is restored. Noising:
        /// `(clean - metric) / (clean - corrupted)`, 1 where it is broken. Null where the denominator is too small.
        pub effect: Option<f64>,
    }
}

wire_struct! {
    /// What patching did.
    pub struct PatchResponse {
        /// The runs without patches.
        pub runs: PatchRuns,
        /// What it cost.
        pub price: Price,
        /// By group, then by layer and token or in the order of the request.
        pub cells: Vec<PatchedCell>,
        /// What was checked.
        pub checks: Vec<Check>,
    }
}
