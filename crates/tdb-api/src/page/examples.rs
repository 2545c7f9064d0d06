//! Questions about the embedded model that have an instructive answer, with statements about it that can be tried.
//!
//! Each statement stands beside the intervention that shows it and the number that comes out, so that a page can open
//! it and a test confirms it (`tests/tests/statements.rs`). They hold for the embedded model alone.

use super::{PageState, SideState};
use crate::{AttentionTraceType, NodeAblation, NodeIndex, NodeToTrace, NodeType, PassType};

/// The model that the statements are about.
pub const EXAMPLES_MODEL: &str = "embedded";

/// A part of the model that is held at 0 at one token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// The embedding.
    Embedding {
        /// Place in the prompt.
        token: i64,
    },
    /// A head, or all heads of its layer, as it reads from this token.
    Heads {
        /// Layer.
        layer: i64,
        /// One head; `None`: all.
        head: Option<i64>,
        /// Place in the prompt.
        token: i64,
    },
    /// All neurons of a layer.
    Neurons {
        /// Layer.
        layer: i64,
        /// Place in the prompt.
        token: i64,
    },
}

impl Held {
    /// The ablation.
    pub fn ablation(self) -> NodeAblation {
        let (node_type, layer_index, tensor_indices) = match self {
            Self::Embedding { token } => (NodeType::Layer, None, vec![Some(token), Some(0)]),
            Self::Heads { layer, head, token } => (NodeType::AttentionHead, Some(layer), vec![Some(token), None, head]),
            Self::Neurons { layer, token } => (NodeType::MlpNeuron, Some(layer), vec![Some(token), None]),
        };
        let node_index = NodeIndex { node_type, tensor_indices, layer_index, pass_type: PassType::Forward };
        NodeAblation { node_index, value: 0.0 }
    }
}

/// A head that reads a token, without interventions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reads {
    /// Layer.
    pub layer: i64,
    /// Head.
    pub head: i64,
    /// The token that reads.
    pub from: i64,
    /// The token that is read.
    pub to: i64,
    /// The attention, rounded to two places.
    pub attention: f64,
}

/// A trace and the head that it finds first: the one with the largest direct effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traced {
    /// What is traced: layer, the token that reads, the token that is read, head.
    pub head: (i64, [i64; 3]),
    /// Through what.
    pub through: AttentionTraceType,
    /// What is found: layer, the token that reads, the token that is read, head.
    pub found: (i64, [i64; 3]),
}

/// A head at a pair of tokens as a node.
fn head_node((layer, place): (i64, [i64; 3])) -> NodeIndex {
    NodeIndex {
        node_type: NodeType::AttentionHead,
        tensor_indices: place.map(Some).to_vec(),
        layer_index: Some(layer),
        pass_type: PassType::Forward,
    }
}

impl Traced {
    /// The node that is found first.
    pub fn found(self) -> NodeIndex {
        head_node(self.found)
    }

    fn node(self) -> NodeToTrace {
        NodeToTrace {
            node_index: head_node(self.head),
            attention_trace_type: Some(self.through),
            mlp_trace_type: None,
            downstream_trace_config: None,
        }
    }
}

/// A statement, and what shows it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Statement {
    /// The words; `{}` stands for [`Statement::becomes`].
    pub words: &'static str,
    /// What is held at 0.
    pub held: &'static [Held],
    /// The logit difference then, rounded to two places.
    pub becomes: f64,
    /// What heads read.
    pub reads: &'static [Reads],
    /// What a trace finds.
    pub traced: Option<Traced>,
}

impl Statement {
    const fn new(words: &'static str, held: &'static [Held], becomes: f64) -> Self {
        Self { words, held, becomes, reads: &[], traced: None }
    }

    const fn reading(self, reads: &'static [Reads]) -> Self {
        Self { reads, ..self }
    }

    const fn tracing(self, traced: Traced) -> Self {
        Self { traced: Some(traced), ..self }
    }

    /// The words with the number in them.
    pub fn text(&self) -> String {
        self.words.replace("{}", &format!("{:.2}", self.becomes).replace('-', "\u{2212}"))
    }
}

/// A question and what there is to see.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Example {
    /// A name.
    pub title: &'static str,
    /// The text.
    pub prompt: &'static str,
    /// The token whose logit is asked about.
    pub target: &'static str,
    /// The token that it is compared with.
    pub distractor: &'static str,
    /// The first one is about the question without interventions.
    pub statements: &'static [Statement],
}

impl Example {
    /// The prompt as another model's texts begin; `beginning` is the text of its first token, empty if it has none.
    pub fn prompt_after(&self, beginning: &str) -> String {
        format!("{beginning}{}", self.prompt.trim_start_matches("<|endoftext|>"))
    }

    /// The question as it is, or as a statement changes it.
    pub fn state(&self, statement: Option<&Statement>) -> PageState {
        PageState {
            left: SideState {
                prompt: self.prompt.into(),
                target_tokens: vec![self.target.into()],
                distractor_tokens: vec![self.distractor.into()],
                node_ablations: statement.map(|s| s.held.iter().map(|h| h.ablation()).collect()).unwrap_or_default(),
                upstream_node_to_trace: statement.and_then(|s| s.traced).map(Traced::node),
                downstream_node_to_trace: None,
            },
            ..PageState::default()
        }
    }
}

/// A step of the tour.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TourStep {
    /// A name.
    pub title: &'static str,
    /// The question.
    pub example: &'static Example,
    /// What is said and shown.
    pub statement: Statement,
}

const fn reads(layer: i64, head: i64, from: i64, to: i64, attention: f64) -> Reads {
    Reads { layer, head, from, to, attention }
}

const fn head(layer: i64, head: i64, token: i64) -> Held {
    Held::Heads { layer, head: Some(head), token }
}

const fn heads(layer: i64, token: i64) -> Held {
    Held::Heads { layer, head: None, token }
}

const fn neurons(layer: i64, token: i64) -> Held {
    Held::Neurons { layer, token }
}

/// Questions to begin with.
pub const EXAMPLES: [Example; 6] = [
    Example {
        title: "Indirect object",
        prompt: "<|endoftext|>When Mary and John went to the store, John gave a drink to",
        target: " Mary",
        distractor: " John",
        statements: &[
            Statement::new("The logit difference is {}.", &[], 6.45),
            Statement::new(
                "With the embedding of the second “ John” held at 0 it is {}: the name that came twice decides.",
                &[Held::Embedding { token: 10 }],
                1.15,
            ),
            Statement::new(
                "attn_L1_2 reads “ Mary” from the last “ to” (attention 0.92), attn_L2_3 the second “ John” (0.99); \
                 without both it is {}.",
                &[head(1, 2, 14), head(2, 3, 14)],
                1.60,
            )
            .reading(&[reads(1, 2, 14, 2, 0.92), reads(2, 3, 14, 10, 0.99)]),
        ],
    },
    Example {
        title: "Capitals",
        prompt: "<|endoftext|>Paris, France. Ottawa,",
        target: " Canada",
        distractor: " Germany",
        statements: &[
            Statement::new("The logit difference is {}.", &[], 22.75),
            Statement::new(
                "Layer 0's heads carry “ Ottawa” to the last comma: without them there it is {}.",
                &[heads(0, 6)],
                -0.19,
            ),
            Statement::new(
                "MLP neurons at that comma turn it into the country: without them it is {}.",
                &[neurons(0, 6), neurons(1, 6), neurons(2, 6), neurons(3, 6)],
                -3.26,
            ),
            Statement::new(
                "Those at “ Ottawa” itself hardly matter: without them it is {}.",
                &[neurons(0, 5), neurons(1, 5), neurons(2, 5), neurons(3, 5)],
                22.13,
            ),
        ],
    },
    Example {
        title: "Greater than",
        prompt: "<|endoftext|>The war lasted from the year 1732 to the year 17",
        target: "45",
        distractor: "12",
        statements: &[
            Statement::new("The logit difference is {}.", &[], 1.81),
            Statement::new("With the embedding of “32” held at 0 it is {}.", &[Held::Embedding { token: 8 }], 0.77),
            Statement::new(
                "attn_L3_0 reads “32” from the end (attention 0.79); without layer 3's heads there it is {}.",
                &[heads(3, 12)],
                1.03,
            )
            .reading(&[reads(3, 0, 12, 8, 0.79)]),
            Statement::new("Without layer 3's neurons at the end little is left: {}.", &[neurons(3, 12)], 0.29),
        ],
    },
    Example {
        title: "Induction",
        prompt: "<|endoftext|>Say: lamp tree king, lamp tree",
        target: " king",
        distractor: " lamp",
        statements: &[
            Statement::new("The logit difference is {}.", &[], 4.74),
            Statement::new(
                "attn_L1_0 and attn_L1_1 read “ king” from the last “ tree” (attention 0.92 and 0.84): the word after \
                 the first “ tree”. Without both it is {}.",
                &[head(1, 0, 8), head(1, 1, 8)],
                0.24,
            )
            .reading(&[reads(1, 0, 8, 5, 0.92), reads(1, 1, 8, 5, 0.84)]),
            Statement::new(
                "A layer below, attn_L0_3 and attn_L0_7 have told “ king” what came before it: without both there it \
                 is {}.",
                &[head(0, 3, 5), head(0, 7, 5)],
                0.03,
            ),
        ],
    },
    Example {
        title: "Pronoun",
        prompt: "<|endoftext|>When Mary came back from the park,",
        target: " she",
        distractor: " he",
        statements: &[
            Statement::new("The logit difference is {}.", &[], 11.30),
            Statement::new("With the embedding of “ Mary” held at 0 it is {}.", &[Held::Embedding { token: 2 }], 0.70),
            Statement::new(
                "attn_L0_5 reads the name from the comma (attention 0.64): without it there it is {}.",
                &[head(0, 5, 8)],
                4.16,
            )
            .reading(&[reads(0, 5, 8, 2, 0.64)]),
        ],
    },
    Example {
        title: "Who else?",
        prompt: "<|endoftext|>When Mary and John went to the store, Mary gave a drink to",
        target: " John",
        distractor: " Mary",
        statements: &[
            Statement::new("The first question with the roles exchanged: the logit difference is {}.", &[], 6.97),
            Statement::new(
                "attn_L2_3 again reads the name that came twice, now “ Mary” (attention 0.98): without it it is {}.",
                &[head(2, 3, 14)],
                5.51,
            )
            .reading(&[reads(2, 3, 14, 10, 0.98)]),
            Statement::new(
                "attn_L1_2 reads the first name as before (0.83), which here speaks against the answer: without it it \
                 is {}.",
                &[head(1, 2, 14)],
                10.87,
            )
            .reading(&[reads(1, 2, 14, 2, 0.83)]),
        ],
    },
];

/// The indirect-object question, step by step.
pub const TOUR: [TourStep; 6] = [
    TourStep {
        title: "The question",
        example: &EXAMPLES[0],
        statement: Statement::new(
            "After this prompt the model prefers “ Mary” to “ John”: its logit is {} higher. The headline says so, and \
             everything below divides this number.",
            &[],
            6.45,
        ),
    },
    TourStep {
        title: "Which word decides?",
        example: &EXAMPLES[0],
        statement: Statement::new(
            "The left side now runs with the embedding of the second “ John” held at 0. The difference falls to {}: \
             most of it comes from the name that is there twice.",
            &[Held::Embedding { token: 10 }],
            1.15,
        ),
    },
    TourStep {
        title: "A head that reads the answer",
        example: &EXAMPLES[0],
        statement: Statement::new(
            "attn_L1_2 attends from the last “ to” to “ Mary” (0.92) and writes her name. Held at 0 at that token it \
             leaves a difference of {}.",
            &[head(1, 2, 14)],
            4.00,
        )
        .reading(&[reads(1, 2, 14, 2, 0.92)]),
    },
    TourStep {
        title: "A head that reads the other name",
        example: &EXAMPLES[0],
        statement: Statement::new(
            "attn_L2_3 attends to the second “ John” (0.99) and speaks against it. With both heads held at 0, {} is \
             left.",
            &[head(1, 2, 14), head(2, 3, 14)],
            1.60,
        )
        .reading(&[reads(2, 3, 14, 10, 0.99)]),
    },
    TourStep {
        title: "What made it look there?",
        example: &EXAMPLES[0],
        statement: Statement::new(
            "A trace asks the same of a node. Through the query of attn_L2_3 the largest direct effect is that of \
             attn_L1_1, which attends from the last “ to” to the first one (0.99).",
            &[],
            6.45,
        )
        .reading(&[reads(1, 1, 14, 6, 0.99)])
        .tracing(Traced { head: (2, [14, 10, 3]), through: AttentionTraceType::Q, found: (1, [14, 6, 1]) }),
    },
    TourStep {
        title: "The roles exchanged",
        example: &EXAMPLES[5],
        statement: Statement::new(
            "Now Mary gives the drink, and the model prefers “ John” by {}. attn_L2_3 reads the second “ Mary” (0.98): \
             it follows the name that came twice.",
            &[],
            6.97,
        )
        .reading(&[reads(2, 3, 14, 10, 0.98)]),
    },
];
