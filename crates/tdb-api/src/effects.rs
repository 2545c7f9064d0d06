//! What really happens to the objective when nodes are removed, beside what gradients say about it.

use crate::TokenRef;
use crate::index::{MirroredNodeIndex, NodeAblation, NodeToTrace};
use crate::wire::{wire_enum, wire_struct};

wire_enum! {
    /// What a removed node is set to.
    pub enum AblateTo {
        /// Nothing is written.
        Zero = "zero",
        /// The node's mean over this prompt's tokens; of a pair of tokens, over all pairs that the head sees.
        PromptMean = "prompt_mean",
        /// The node's mean over the text that its records were collated from.
        CollatedMean = "collated_mean",
    }
}

wire_struct! {
    /// Which nodes to remove, one at a time, from the run that answers the debugger's question.
    pub struct EffectsRequest {
        /// The text; the question is about the token that follows it.
        pub prompt: String,
        /// Each exactly one token; at least one, unless a node is traced.
        pub target_tokens: Vec<TokenRef>,
        /// Each exactly one token.
        pub distractor_tokens: Vec<TokenRef>,
        /// Nodes set to a value in every run.
        pub node_ablations: Option<Vec<NodeAblation>>,
        /// The node on whose value the effects are, in place of the logits, as in the debugger's question.
        pub upstream_node_to_trace: Option<NodeToTrace>,
        /// With an upstream head traced through its value: the node on which that head's effect is asked for.
        pub downstream_node_to_trace: Option<NodeToTrace>,
        /// The nodes to remove: neurons, latents, errors of dictionaries, embeddings (`layer` without a layer), and
        /// heads, whose attended-to token may be null for all that it attends to.
        pub nodes: Vec<MirroredNodeIndex>,
        /// What they are set to. With the collated mean, heads, embeddings and errors, of which records tell none, are
        /// set to their mean over the prompt's tokens.
        pub ablate_to: AblateTo = AblateTo::Zero,
        /// With the collated mean: places or registered names of records.
        pub datasets: Option<Vec<String>>,
        /// Whether better estimates are made, too. They take a backward pass for each layer.
        pub better_estimates: bool = false,
        /// So many other nodes of the same kinds, chosen at random, are removed to tell what was not looked at.
        pub random_nodes: i64 = 0,
        /// The same number chooses the same random nodes.
        pub seed: i64 = 0,
        /// Only the price is told, and nothing is computed.
        pub only_price: bool = false,
    }
}

wire_struct! {
    /// What an answer costs.
    pub struct Price {
        /// Runs that are computed, each in part.
        pub runs: i64,
        /// At most so many runs are computed for one request.
        pub limit: i64,
        /// About how long it takes.
        pub seconds: f64,
    }
}

wire_struct! {
    /// One node's part in the objective, found by removing it and estimated. All figures have the sign of what the node
    /// does: a node that helps the targets has positive ones.
    pub struct NodeEffect {
        /// The node.
        pub node_index: MirroredNodeIndex,
        /// What it was set to.
        pub ablated_to: AblateTo = AblateTo::Zero,
        /// The objective minus the objective without the node.
        pub exact: f64,
        /// Activation (minus what it is set to) times gradient, as in the node table.
        pub estimate: f64,
        /// As `estimate`, with the scale of the last norm (or of that before a traced node), and with every later
        /// softmax computed anew for the write of the node instead of by its slope.
        pub corrected_estimate: Option<f64>,
        /// Mean size of the estimate with the gradient through one layer after the other dropped: large where effects
        /// of two signs cancel.
        pub dropped_estimate: Option<f64>,
        /// Whether exact effect and estimate part by more than 20 % of the exact effect and 2 % of the objective.
        pub parts: bool,
    }
}

wire_struct! {
    /// What was not looked at: exact effects of nodes chosen at random among those that were not asked about.
    pub struct SampledBound {
        /// How many were removed.
        pub nodes: i64,
        /// Among how many.
        pub population: i64,
        /// The size of the largest exact effect.
        pub largest: f64,
        /// Whose it is.
        pub node_index: MirroredNodeIndex,
        /// With 95 % confidence at most this share of the others has a larger one.
        pub share: f64,
        /// The same as a sentence.
        pub sentence: String,
    }
}

wire_enum! {
    /// What is checked in an answer.
    pub enum CheckName {
        /// What all layers write, and constants, add up to the objective.
        Sum = "sum",
        /// What neurons, heads and biases write is what their layer writes.
        Writes = "writes",
        /// A run patched with itself is the same to the bit.
        Identity = "identity",
        /// A run patched with something else is another.
        Difference = "difference",
        /// Everything taken from the other run is the other run.
        Whole = "whole",
        /// Gradients are finite differences.
        Gradient = "gradient",
        /// A run computed with others is the run of its own.
        Sharing = "sharing",
        /// The autoencoders reconstruct this prompt's activations.
        Dictionary = "dictionary",
    }
}

wire_struct! {
    /// One check of an answer: what was found, and what it may be at most.
    pub struct Check {
        /// Which check.
        pub name: CheckName,
        /// Whether it passed.
        pub passed: bool,
        /// The deviation that was found.
        pub found: f64,
        /// The largest that passes.
        pub limit: f64,
        /// What was done, with the numbers.
        pub sentence: String,
    }
}

wire_struct! {
    /// The exact effects of the nodes asked about.
    pub struct EffectsResponse {
        /// Mean logit of the targets minus mean logit of the distractors, or the value of the traced node.
        pub objective: f64,
        /// What it cost.
        pub price: Price,
        /// In the order of the request.
        pub nodes: Vec<NodeEffect>,
        /// If random nodes were asked for.
        pub sampled: Option<SampledBound>,
        /// What was checked.
        pub checks: Vec<Check>,
    }
}
